//! Following what is committed, by whatever process.
//!
//! The journal says what changed, the change counter whether to look, and inotify when. Only the first two decide
//! what is told: a wake-up that is missing or for nothing costs time and no event.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, MetaError, WatchError};
use crate::meta::{journal_after, journal_bounds};
use crate::sys::wakeup::Wakeup;

use super::{Event, Store};

/// How many events are read in one transaction, and held in memory, at the most.
const BATCH: usize = 256;

/// How long a wait lasts at the most before the counter and the database's path are looked at, wake-up or not. For
/// filesystems that take an inotify watch and do not tell everything.
const LOOK_AT_LEAST: Duration = Duration::from_secs(5);

/// How often the counter is looked at where there is no inotify.
const LOOK_WITHOUT_INOTIFY: Duration = Duration::from_millis(250);

/// Where a watch begins. The default is now: it tells what is committed after [`Store::watch`].
///
/// # Examples
///
/// ```
/// use layerstore::WatchOptions;
///
/// let from_now = WatchOptions::default();
/// let after_the_tenth_change = WatchOptions::since(10);
/// let all_that_is_kept = WatchOptions::oldest();
/// ```
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    start: Start,
}

#[derive(Clone, Copy, Debug, Default)]
enum Start {
    #[default]
    Now,
    Oldest,
    Since(u64),
}

impl WatchOptions {
    /// After this position: the [`sequence`](Event::sequence) of the last event that was seen, or what
    /// [`Watch::position`] said.
    pub fn since(position: u64) -> Self {
        WatchOptions { start: Start::Since(position) }
    }

    /// With the oldest change that the journal still has.
    pub fn oldest() -> Self {
        WatchOptions { start: Start::Oldest }
    }
}

/// Changes of a store in the order of their commits, by whatever process. Made by [`Store::watch`].
///
/// # What it costs
///
/// While nothing changes, a look is a memory read, and waiting is sleeping: the kernel wakes the watch when the
/// database is written to (inotify). Where there is no inotify, because the user's instances or watches are used up, the
/// watch looks four times a second. Between two calls a watch holds no transaction, so one that is not asked for days keeps
/// nothing from being freed.
///
/// # When the journal has moved on
///
/// The journal keeps the newest 4096 changes. A watch that is further behind gets [`WatchError::Lost`] once, with the
/// number of changes that it will not be told, and goes on after the newest. Whoever keeps a picture of the store lists
/// anew then, as at the beginning: first the watch, then the list, then the events, so that nothing falls between.
///
/// # When the database is replaced
///
/// A copy of the database that is put in its place is another history: each further call returns
/// [`WatchError::Replaced`]. Open the store again, and begin anew.
///
/// # Event loops
///
/// The descriptor ([`AsFd`]) becomes readable when there may be something new. Wait for it to be readable, then call
/// [`try_next`](Watch::try_next) until it returns `None`. It works level-triggered and edge-triggered.
pub struct Watch {
    store: Store,
    wakeup: Wakeup,
    /// The sequence of the last event that was read or skipped.
    read: u64,
    /// Events that were read and not yet returned.
    pending: VecDeque<Event>,
    /// What the change counter was before the last look that found the end of the journal.
    seen: Option<u64>,
    /// Whether somebody else may wait for the descriptor, which then has to be cleared without a wait.
    is_polled: AtomicBool,
    /// Until when the path of the database need not be looked at, unless something wakes; `None` is at once.
    trusted_until: Option<Instant>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl Store {
    /// Follows what is committed to the store, by whatever process: every image, layer, container and kept blob that
    /// is created, changed or removed, once for each transaction, in the order of the transactions.
    ///
    /// Mounts are not told: they are not the store's to know. They end with a namespace or by another program's hand,
    /// and `/proc/self/mountinfo` can be polled for them.
    ///
    /// A transaction is told as soon as others can read it, which in a power cut may be before it is on the disk.
    ///
    /// Returns [`Error::Watch`] if the process has no descriptors left, and [`Error::Meta`] if the database fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// use layerstore::{ContainerOptions, EventKind, Kind, Store, StoreOptions, WatchOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let mut watch = store.watch(&WatchOptions::default())?;
    /// let mut known = store.containers()?; // after the watch was made: nothing is missed in between
    ///
    /// store.create_container(None, &ContainerOptions::named("web"))?; // as a rule, another process does
    /// while let Some(event) = watch.next(Some(Duration::ZERO))? {
    ///     if event.kind == EventKind::Created && event.subject.word() == "container" {
    ///         known.push(store.container(&event.subject.to_string())?);
    ///     }
    /// }
    /// assert_eq!(known.len(), 1);
    ///
    /// // Another day, from there.
    /// let mut watch = store.watch(&WatchOptions::since(watch.position()))?;
    /// assert_eq!(watch.try_next()?, None);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn watch(&self, options: &WatchOptions) -> Result<Watch, Error> {
        let wakeup = match Wakeup::on_write(self.database().path()) {
            Ok(wakeup) => wakeup,
            Err(error) => {
                tracing::info!(%error, "no inotify: looking for changes at intervals");
                Wakeup::every(LOOK_WITHOUT_INOTIFY).map_err(WatchError::Wait)?
            }
        };
        Watch::new(self, options, wakeup)
    }
}

impl Watch {
    fn new(store: &Store, options: &WatchOptions, wakeup: Wakeup) -> Result<Self, Error> {
        let bounds = journal_bounds(&store.database().begin_read()?)?;
        let read = match options.start {
            Start::Now => bounds.map_or(0, |(_, newest)| newest),
            Start::Oldest => bounds.map_or(0, |(oldest, _)| oldest.saturating_sub(1)),
            Start::Since(position) => position,
        };
        Ok(Watch {
            store: store.clone(),
            wakeup,
            read,
            pending: VecDeque::new(),
            seen: None,
            is_polled: AtomicBool::new(false),
            trusted_until: None,
        })
    }

    /// The position after the last event that was returned, for [`WatchOptions::since`].
    pub fn position(&self) -> u64 {
        self.pending.front().map_or(self.read, |next| next.sequence.saturating_sub(1))
    }

    /// The next event if there is one now. While nothing was committed since the last call this is a memory read, and one
    /// system call more once the descriptor was asked for.
    ///
    /// Returns [`Error::Watch`] with [`Lost`](WatchError::Lost) or [`Ahead`](WatchError::Ahead) if events cannot be told;
    /// the next call goes on after them; and with [`Replaced`](WatchError::Replaced) if the database was replaced. Returns [`Error::Meta`] if the database fails; the next call tries again.
    pub fn try_next(&mut self) -> Result<Option<Event>, Error> {
        if self.pending.is_empty() {
            // Before the look: what is written after it wakes again.
            if self.is_polled.load(Ordering::Relaxed) {
                self.clear()?;
            }
            self.look()?;
        }
        Ok(self.pending.pop_front())
    }

    /// The next event; waits for it up to `timeout`, or for ever if that is `None`. Returns `None` if the time is over.
    ///
    /// Holds no lock and no transaction while it waits.
    ///
    /// Returns the errors of [`try_next`](Self::try_next).
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Event>, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                return Ok(None);
            }
            let wait = rest.map_or(LOOK_AT_LEAST, |rest| rest.min(LOOK_AT_LEAST));
            self.wakeup.wait(wait).map_err(WatchError::Wait)?;
            self.clear()?;
        }
    }

    fn clear(&mut self) -> Result<(), WatchError> {
        if self.wakeup.clear().map_err(WatchError::Wait)? {
            self.trusted_until = None;
        }
        Ok(())
    }

    /// The counter is in the file that was opened, and says nothing of another in its place.
    fn require_same_database(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if self.trusted_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        if self.store.database().is_replaced()? {
            return Err(WatchError::Replaced { path: self.store.database().path().to_owned() }.into());
        }
        self.trusted_until = now.checked_add(LOOK_AT_LEAST);
        Ok(())
    }

    /// The events as an iterator that waits for each and has no end.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = layerstore::Store::open(&layerstore::StoreOptions::at(dir.path().join("store")))?;
    /// # store.create_container(None, &layerstore::ContainerOptions::named("web"))?;
    /// let mut watch = store.watch(&layerstore::WatchOptions::oldest())?;
    /// for event in watch.events().take(2) {
    ///     println!("{:?}", event?);
    /// }
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn events(&mut self) -> impl Iterator<Item = Result<Event, Error>> + '_ {
        std::iter::from_fn(|| self.next(None).transpose())
    }

    /// Reads the next events, if anything was committed since the end of the journal was seen.
    fn look(&mut self) -> Result<(), Error> {
        // Read before the transaction begins: a commit between the two makes the next call look once for nothing.
        let counter = self.store.change_counter();
        self.require_same_database()?;
        if self.seen == Some(counter) {
            return Ok(());
        }
        let since = self.read;
        let txn = match self.store.database().begin_read() {
            Err(MetaError::Replaced { path }) => return Err(WatchError::Replaced { path }.into()),
            begun => begun?,
        };
        let (oldest, newest) = journal_bounds(&txn)?.unwrap_or((1, 0));
        if since > newest {
            self.read = newest;
            return Err(WatchError::Ahead { since, newest }.into());
        }
        if since.saturating_add(1) < oldest {
            self.read = newest;
            let lost = newest.saturating_sub(since);
            return Err(WatchError::Lost { since, lost, newest }.into());
        }
        let rows = journal_after(&txn, since, BATCH)?;
        let is_end = rows.len() < BATCH;
        let events = rows.into_iter().map(|(sequence, record)| Event::from_record(sequence, record));
        self.pending = events.collect::<Result<_, _>>()?;
        self.read = self.pending.back().map_or(since, |last| last.sequence);
        if is_end {
            self.seen = Some(counter);
        }
        Ok(())
    }
}

/// Readable when there may be something new.
impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.is_polled.store(true, Ordering::Relaxed);
        self.wakeup.as_fd()
    }
}

#[cfg(test)]
mod tests;
