//! What crashes leave behind: entries that no row names and nobody holds.
//!
//! A lock file that nobody holds announces it ([`crate::disk::EntryLock`]), so finding it costs the listing of a
//! directory that is empty as a rule. Only a power cut can lose lock files; what it left is found by comparing the
//! directories with the rows.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{
    self, DeadLocks, DiffName, EntryLock, ForeignMounts, Layout, LockState, NamedLock, Part, Subdirectory,
    Trash,
};
use crate::error::{Error, LayoutError, MetaError};
use crate::meta::NamedNumbers;
use crate::sys::moment;

use super::Store;

/// How many dead locks are taken over at a time: each takes a descriptor, and one reading of the rows does for all.
const LOCKS_AT_A_TIME: usize = 64;

/// What there is of a number that stands for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leftover {
    /// The number.
    pub(crate) number: u64,
    /// What there is of it, without what a row names; the lock file comes last.
    pub(crate) parts: Vec<Part>,
}

impl Leftover {
    /// Each part that is told of by itself, with its path and the mount in it, if there is one: such a part stays. So does
    /// then the lock file, which announces it, and is not told of.
    pub(crate) fn around_mounts<'m>(
        &self,
        layout: &Layout,
        mounts: Option<&'m ForeignMounts>,
    ) -> Vec<(Part, PathBuf, Option<&'m Path>)> {
        let looked_at = |part: &Part| {
            let path = part.path(layout);
            let inside = mounts.and_then(|mounts| mounts.inside(&path));
            (*part, path, inside)
        };
        let mut parts: Vec<_> = self.parts.iter().map(looked_at).collect();
        if parts.iter().any(|(.., mount)| mount.is_some()) {
            parts.retain(|(part, _, mount)| mount.is_some() || part.which != Subdirectory::Locks);
        }
        parts
    }

    fn is_announced(&self) -> bool {
        self.parts.iter().any(|part| part.which == Subdirectory::Locks)
    }
}

/// Where something is missing that a row names: whatever stands there may be it, by a row that says another number.
#[derive(Debug, Default)]
pub(crate) struct Doubt(Vec<(Subdirectory, u64)>);

impl Doubt {
    /// Looks where parts with these places stand. `named` reads the rows, again if something is missing: it may have been removed
    /// since.
    fn look(
        layout: &Layout,
        places: impl Iterator<Item = Subdirectory>,
        first: &NamedNumbers,
        named: impl Fn() -> Result<NamedNumbers, MetaError>,
    ) -> Result<Self, Error> {
        let places: Vec<_> = places.map(named_below).collect();
        let numbered = [
            (Subdirectory::Diffs, &first.diffs),
            (Subdirectory::Blobs, &first.blobs),
            (Subdirectory::Data, &first.data),
        ];
        let mut doubt = Doubt::default();
        for (which, numbers) in numbered.into_iter().filter(|(which, _)| places.contains(which)) {
            let listed: HashSet<u64> = layout.entries(which)?.iter().map(|name| name.number()).collect();
            // What may have been lost with the power is known to be.
            let missing = |number: &&u64| !listed.contains(number) && !first.unsynced.contains(number);
            doubt.0.extend(numbers.iter().filter(missing).min().map(|number| (which, *number)));
        }
        if !doubt.0.is_empty() {
            let second = named()?;
            let is_missed = |(which, number): &(Subdirectory, u64)| {
                is_named(&second, Part { which: *which, name: DiffName::Entry(*number) })
            };
            doubt.0.retain(is_missed);
        }
        Ok(doubt)
    }

    /// The error for a part that stands where something is missing.
    fn of(&self, layout: &Layout, part: Part) -> Option<Error> {
        let place = named_below(part.which);
        let (which, number) = self.0.iter().find(|(which, _)| *which == place)?;
        let missing = layout.entry_path(*which, DiffName::Entry(*number));
        Some(LayoutError::InDoubt { path: part.path(layout), missing }.into())
    }
}

/// Where it shows that a row says another number than that of such a part.
fn named_below(which: Subdirectory) -> Subdirectory {
    match which {
        // They are a directory's, and most directories have none.
        Subdirectory::Work | Subdirectory::Composefs => Subdirectory::Diffs,
        which => which,
    }
}

/// What there is that stands for nothing.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// What is to be removed.
    pub(crate) found: Vec<Leftover>,
    /// What looks like it, and is to stay.
    pub(crate) doubtful: Vec<Doubtful>,
}

/// A part that may be what is missing elsewhere.
#[derive(Debug)]
pub(crate) struct Doubtful {
    pub(crate) part: Part,
    pub(crate) error: Error,
    is_announced: bool,
}

/// Finds them all, by listing everything. `named` reads the rows, and is asked again after the locks were looked at:
/// who gives up a lock has committed a row before, or removes the entry.
///
/// Returns what `named` does, such as [`MetaError::Record`] when a record is damaged.
pub(crate) fn find_leftovers(
    layout: &Layout,
    named: impl Fn() -> Result<NamedNumbers, MetaError>,
) -> Result<Leftovers, Error> {
    let mut listed: BTreeMap<u64, Vec<Part>> = BTreeMap::new();
    for which in Subdirectory::LISTED {
        for part in layout.entries(which)?.into_iter().filter_map(|name| Part::new(which, name)) {
            listed.entry(part.name.number()).or_default().push(part);
        }
    }
    let first = named()?;
    listed.retain(|_, parts| parts.iter().any(|part| !is_named(&first, *part)));
    for number in disk::locked_numbers(layout)? {
        listed.entry(number).or_default();
    }
    let (mut suspects, mut doubtful) = (Vec::new(), Vec::new());
    for (number, mut parts) in listed {
        match disk::lock_state(layout, number)? {
            LockState::Held => continue,
            LockState::Dead => parts.push(lock_part(number)),
            LockState::Free => {}
        }
        suspects.push(Leftover { number, parts });
    }
    if !suspects.is_empty() {
        let second = named()?;
        let trash = Trash::look(layout)?;
        for suspect in &mut suspects {
            let lock = suspect.is_announced().then(|| lock_part(suspect.number));
            suspect.parts = trash.parts(suspect.number).filter(|part| !is_named(&second, *part)).collect();
            suspect.parts.extend(lock);
        }
        let places = suspects.iter().flat_map(|suspect| &suspect.parts).map(|part| part.which);
        let doubt = Doubt::look(layout, places, &second, named)?;
        for suspect in &mut suspects {
            let is_announced = suspect.is_announced();
            let doubted =
                |part: &Part| Some(Doubtful { part: *part, error: doubt.of(layout, *part)?, is_announced });
            let of_suspect: Vec<_> = suspect.parts.iter().filter_map(doubted).collect();
            if !of_suspect.is_empty() {
                // What announces it stays with it.
                suspect.parts.clear();
                doubtful.extend(of_suspect);
            }
        }
        suspects.retain(|suspect| !suspect.parts.is_empty());
    }
    Ok(Leftovers { found: suspects, doubtful })
}

fn lock_part(number: u64) -> Part {
    Part { which: Subdirectory::Locks, name: DiffName::Entry(number) }
}

fn is_named(named: &NamedNumbers, part: Part) -> bool {
    let none = HashSet::new();
    let numbers = match (part.which, part.name) {
        // The image of a directory goes with it.
        (Subdirectory::Diffs, DiffName::Entry(_)) | (Subdirectory::Composefs, _) => &named.diffs,
        (Subdirectory::Work, _) => &named.work,
        (Subdirectory::Blobs, _) => &named.blobs,
        (Subdirectory::Data, _) => &named.data,
        _ => &none,
    };
    numbers.contains(&part.name.number())
}

/// Garbage that could not be removed, or what may be something that is missing elsewhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct Uncollected {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is still there.
    pub error: Error,
}

/// What became of a part.
#[derive(Debug)]
pub(crate) enum Swept {
    /// It is gone, and took so many bytes.
    Removed(Part, u64),
    /// It could not be removed.
    Left(Part, Error),
}

/// Removes leftovers. No lock of the database is held while it does.
pub(crate) struct Sweep<'s> {
    store: &'s Store,
    trash: Trash<'s>,
    /// How many names may be deleted.
    limit: u64,
    /// Is told of each part. Measuring is left out where nobody is.
    report: Option<&'s mut dyn FnMut(Swept)>,
    /// What could not be removed, where nobody is told of it.
    left: Vec<Uncollected>,
}

impl<'s> Sweep<'s> {
    /// A sweep that deletes everything and tells of it.
    pub(crate) fn reporting(store: &'s Store, report: &'s mut dyn FnMut(Swept)) -> Result<Self, Error> {
        Ok(Sweep {
            store,
            trash: Trash::open(store.layout())?,
            limit: u64::MAX,
            report: Some(report),
            left: Vec::new(),
        })
    }

    /// A sweep that deletes so many names at the most. What is left has lost its place, and waits for the next.
    pub(super) fn limited(store: &'s Store, limit: u64) -> Result<Self, Error> {
        Ok(Sweep { store, trash: Trash::open(store.layout())?, limit, report: None, left: Vec::new() })
    }

    /// Removes what dead locks announce.
    pub(crate) fn announced(&mut self) -> Result<(), Error> {
        let mut dead = DeadLocks::list(self.store.layout())?;
        while self.limit > 0 {
            let taken: Vec<_> = dead.by_ref().take(LOCKS_AT_A_TIME).collect::<Result<_, _>>()?;
            if taken.is_empty() {
                break;
            }
            self.remove(&taken.concat(), true)?;
        }
        Ok(())
    }

    /// Removes what no lock announces, and no row names.
    pub(crate) fn unannounced(&mut self) -> Result<(), Error> {
        let store = self.store;
        let found = find_leftovers(store.layout(), || store.named_numbers())?;
        let lock = EntryLock::create(store.layout())?;
        let mut locks = Vec::new();
        // What a lock announces was told of before.
        for Doubtful { part, error, .. } in found.doubtful.into_iter().filter(|one| !one.is_announced) {
            self.tell(Swept::Left(part, error));
        }
        for leftover in found.found.into_iter().filter(|leftover| !leftover.is_announced()) {
            match lock.name(leftover.number) {
                Ok(named) => locks.push(named),
                // Someone else is at it by now.
                Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => self.tell(Swept::Left(lock_part(leftover.number), error.into())),
            }
        }
        self.remove(&locks, false)
    }

    /// Removes everything of these numbers that no row names. Who held them before is dead or has finished, so what
    /// the rows say now they say for good.
    fn remove(&mut self, locks: &[NamedLock], announced: bool) -> Result<(), Error> {
        let stands = |lock: &NamedLock| {
            let mut parts = self.trash.parts(lock.number());
            parts.any(|part| part.which != Subdirectory::Trash)
        };
        let (mut named, mut doubt) = (NamedNumbers::default(), Doubt::default());
        if locks.iter().any(stands) {
            let layout = self.store.layout();
            let read = || -> Result<_, Error> {
                let named = self.store.named_numbers()?;
                let parts = locks.iter().flat_map(|lock| self.trash.parts(lock.number()));
                let places = parts.filter(|part| !is_named(&named, *part)).map(|part| part.which);
                let doubt = Doubt::look(layout, places, &named, || self.store.named_numbers())?;
                Ok((named, doubt))
            };
            (named, doubt) = read().inspect_err(|_| {
                // What was made to be looked at under the lock is not announced by it.
                let made = if announced { &[] } else { locks };
                made.iter().for_each(give_up);
            })?;
        }
        for lock in locks {
            let parts = self.trash.parts(lock.number()).filter(|part| !is_named(&named, *part));
            let doubted = |part: Part| Some((part, doubt.of(self.store.layout(), part)?));
            let doubtful: Vec<_> = parts.filter_map(doubted).collect();
            if !doubtful.is_empty() {
                doubtful.into_iter().for_each(|(part, error)| self.tell(Swept::Left(part, error)));
                if !announced {
                    give_up(lock);
                }
                continue;
            }
            let gone = self.remove_number(lock.number(), |part| is_named(&named, part));
            if !gone {
                continue;
            }
            moment::pass("deleted");
            match lock.remove() {
                Ok(()) if announced => self.tell(Swept::Removed(lock_part(lock.number()), 0)),
                Ok(()) => {}
                Err(error) => self.tell(Swept::Left(lock_part(lock.number()), error.into())),
            }
        }
        Ok(())
    }

    /// Removes everything of a number but what is named; returns whether all of that is gone.
    fn remove_number(&mut self, number: u64, is_named: impl Fn(Part) -> bool) -> bool {
        let mut doomed: Vec<(Part, Part)> = Vec::new();
        let mut gone = true;
        let parts: Vec<_> = self.trash.parts(number).filter(|part| !is_named(*part)).collect();
        for part in parts {
            if part.which == Subdirectory::Trash {
                doomed.push((part, part));
                continue;
            }
            match self.trash.discard(part) {
                Ok(discarded) => doomed.extend(discarded.map(|discarded| (part, discarded))),
                Err(error) => {
                    gone = false;
                    self.tell(Swept::Left(part, error.into()));
                }
            }
        }
        // When files go by their hashes, nothing else of this number keeps them.
        doomed.sort_by_key(|(_, discarded)| matches!(discarded.name, DiffName::Composefs(_)));
        for (part, discarded) in doomed {
            let deleted = match self.report {
                Some(_) => self.trash.delete_measured(discarded, &mut self.limit),
                None => self.trash.delete(discarded, &mut self.limit).map(|gone| (gone, 0)),
            };
            match deleted {
                Ok((true, bytes)) => self.tell(Swept::Removed(part, bytes)),
                Ok((false, _)) => gone = false,
                Err(error) => {
                    gone = false;
                    self.tell(Swept::Left(discarded, error.into()));
                }
            }
        }
        gone
    }

    /// Removes numbers whose rows are gone, with the locks that announce them, as far as they could be made. Returns what could
    /// not be removed.
    pub(super) fn freed(mut self, numbers: &[u64], locks: &[NamedLock]) -> Vec<Uncollected> {
        let locks: HashMap<u64, &NamedLock> = locks.iter().map(|lock| (lock.number(), lock)).collect();
        for number in numbers {
            if self.remove_number(*number, |_| false)
                && let Some(lock) = locks.get(number)
            {
                moment::pass("deleted");
                give_up(lock);
            }
        }
        self.left
    }

    /// Removes the workdir of a directory that nobody writes to any more. Its lock is the caller's.
    pub(super) fn workdir(&mut self, number: u64) {
        // Whoever mounts the layer by now has named its files for an image.
        self.remove_number(number, |part| {
            part.which != Subdirectory::Work && !matches!(part.name, DiffName::Work(_))
        });
    }

    fn tell(&mut self, swept: Swept) {
        match (&mut self.report, swept) {
            (Some(report), swept) => report(swept),
            (None, Swept::Left(part, error)) => {
                let path = part.path(self.store.layout());
                tracing::warn!(path = %path.display(), %error, "left for the next collection");
                self.left.push(Uncollected { path, error });
            }
            (None, Swept::Removed(..)) => {}
        }
    }
}

/// Removes a lock file that announces nothing any more.
pub(super) fn give_up(lock: &NamedLock) {
    if let Err(error) = lock.remove() {
        tracing::warn!(%error, "lock file not removed");
    }
}
