//! Locks on numbers. `locks/<n>` stands beside everything that has the number and is being filled or removed, so
//! whatever the death of a process leaves is announced there, and nobody needs to list ten thousand layers to find
//! it.
//!
//! A lock file counts while the kernel holds a lock on it: the lock ends with the process, the name does not. A
//! name that nobody holds is *dead*, and who takes it over cleans up behind the dead.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::kind::{self, Own};
use super::layout::Layout;
use super::names::{DiffName, Subdirectory};
use crate::error::LayoutError;
use crate::sys::lock::{self, Locked};
use crate::sys::{beneath, moment, node, stat};

/// The lock of everything that one operation fills or removes.
///
/// The lock files of its numbers are names of one file, so hundreds of layers take no more descriptors than one
/// does, and each name is locked from the moment it is there.
#[derive(Clone, Debug)]
pub(crate) struct EntryLock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    locks: OwnedFd,
    path: PathBuf,
    /// The lock file that gets the next name. The lock ends with the last handle.
    file: Mutex<Arc<Locked>>,
}

impl EntryLock {
    /// Makes and takes a lock that has no name yet.
    pub(crate) fn create(layout: &Layout) -> Result<Self, LayoutError> {
        let locks = layout.subdirectory(Subdirectory::Locks)?;
        match new_file(locks.as_fd()) {
            Ok(file) => Ok(Self::new(layout, locks, file)),
            Err(source) => {
                let path = layout.path().join(Subdirectory::Locks.name());
                Err(LayoutError::Io { path, action: "make a lock file in", source })
            }
        }
    }

    fn new(layout: &Layout, locks: OwnedFd, file: Locked) -> Self {
        let path = layout.path().join(Subdirectory::Locks.name());
        EntryLock(Arc::new(Shared { locks, path, file: Mutex::new(Arc::new(file)) }))
    }

    /// Makes `locks/<number>`; EEXIST if there is one.
    pub(crate) fn name(&self, number: u64) -> Result<NamedLock, LayoutError> {
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let link = |file: &Locked| node::name_file(file.as_fd(), self.0.locks.as_fd(), &bytes(number));
        let named = match link(&file) {
            // A file that has lost all its names gets none again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                new_file(self.0.locks.as_fd()).and_then(|new| {
                    *file = Arc::new(new);
                    link(&file)
                })
            }
            named => named,
        };
        named.map_err(|source| self.failed(number, "lock", source))?;
        moment::pass("locked");
        Ok(NamedLock { lock: self.clone(), _file: Arc::clone(&file), number })
    }

    fn failed(&self, number: u64, action: &'static str, source: io::Error) -> LayoutError {
        LayoutError::Io { path: self.0.path.join(number.to_string()), action, source }
    }
}

/// A number that is held. Dropping it leaves the name, for the next collection to look at; [`remove`](Self::remove)
/// takes it away when there is nothing left to announce.
#[derive(Clone, Debug)]
pub(crate) struct NamedLock {
    lock: EntryLock,
    /// What is locked: it has this name.
    _file: Arc<Locked>,
    number: u64,
}

impl NamedLock {
    /// The number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Removes the name, while the lock is still held.
    pub(crate) fn remove(&self) -> Result<(), LayoutError> {
        match node::remove_file(self.lock.0.locks.as_fd(), &bytes(self.number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.lock.failed(self.number, "remove", error))
            }
            _ => Ok(()),
        }
    }
}

/// What has a number and no row, kept from collections while a row for it is written.
///
/// Dropping it leaves things announced as they were: the name of a dead lock stays.
#[derive(Debug)]
pub(crate) struct Claim {
    lock: NamedLock,
    was_dead: bool,
}

impl Claim {
    /// Takes the lock of a number that has been used; nothing if someone is at it.
    pub(crate) fn take(layout: &Layout, number: u64) -> Result<Option<Self>, LayoutError> {
        let taken = DeadLocks { layout, groups: Vec::new().into_iter() }.take_over(&[number])?;
        if let Some(lock) = taken.into_iter().next() {
            return Ok(Some(Claim { lock, was_dead: true }));
        }
        match EntryLock::create(layout)?.name(number) {
            Ok(lock) => Ok(Some(Claim { lock, was_dead: false })),
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.was_dead
            && let Err(error) = self.lock.remove()
        {
            tracing::warn!(%error, "lock file not removed");
        }
    }
}

/// The numbers that have a lock file.
pub(crate) fn locked_numbers(layout: &Layout) -> Result<Vec<u64>, LayoutError> {
    let names = layout.entries(Subdirectory::Locks)?.into_iter();
    Ok(names
        .filter_map(|name| if let DiffName::Entry(number) = name { Some(number) } else { None })
        .collect())
}

/// What holds a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LockState {
    /// There is no lock file.
    Free,
    /// Someone, perhaps in this process, is filling or removing what has the number.
    Held,
    /// The lock file of a process that died.
    Dead,
}

/// Looks at a number's lock without taking it.
pub(crate) fn lock_state(layout: &Layout, number: u64) -> Result<LockState, LayoutError> {
    let path = || layout.entry_path(Subdirectory::Locks, DiffName::Entry(number));
    let io_error = |source| LayoutError::Io { path: path(), action: "query the lock", source };
    let name = format!("{}/{number}", Subdirectory::Locks.name());
    match beneath::open_sealed_file_beneath(layout.root(), name.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LockState::Free),
        Err(source) => {
            let locks = layout.existing_subdirectory(Subdirectory::Locks)?;
            Err(opening_failed(layout, locks.as_fd(), number, source))
        }
        Ok(file) => {
            if lock::is_held(file.as_fd()).map_err(io_error)? {
                return Ok(LockState::Held);
            }
            // Its holder took the name away before it gave up the lock.
            let links = stat::stat(file.as_fd()).map_err(io_error)?.links;
            Ok(if links == 0 { LockState::Free } else { LockState::Dead })
        }
    }
}

/// Takes over the locks of processes that died.
#[derive(Debug)]
pub(crate) struct DeadLocks<'l> {
    layout: &'l Layout,
    /// The names of each lock file.
    groups: std::vec::IntoIter<Vec<u64>>,
}

impl<'l> DeadLocks<'l> {
    /// Lists all lock files; none is touched yet.
    pub(crate) fn list(layout: &'l Layout) -> Result<Self, LayoutError> {
        let numbers = locked_numbers(layout)?;
        let mut groups: BTreeMap<stat::FileId, Vec<u64>> = BTreeMap::new();
        if !numbers.is_empty() {
            let locks = layout.existing_subdirectory(Subdirectory::Locks)?;
            for number in numbers {
                // One that is gone belonged to someone who has finished.
                if let Ok(found) = stat::stat_at(locks.as_fd(), &bytes(number)) {
                    groups.entry(found.id).or_default().push(number);
                }
            }
        }
        Ok(DeadLocks { layout, groups: groups.into_values().collect::<Vec<_>>().into_iter() })
    }

    /// Takes the lock that these numbers share, with each of its names; nothing if it is held.
    fn take_over(&self, numbers: &[u64]) -> Result<Vec<NamedLock>, LayoutError> {
        let Some(first) = numbers.first() else { return Ok(Vec::new()) };
        let locks = self.layout.existing_subdirectory(Subdirectory::Locks)?;
        let failed = |source| LayoutError::Io {
            path: self.layout.entry_path(Subdirectory::Locks, DiffName::Entry(*first)),
            action: "lock",
            source,
        };
        let file = match beneath::open_file_for_writing(locks.as_fd(), &bytes(*first)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file.map_err(|source| opening_failed(self.layout, locks.as_fd(), *first, source))?,
        };
        let Some(file) = lock::try_exclusive(file).map_err(failed)? else { return Ok(Vec::new()) };
        let id = stat::stat(file.as_fd()).map_err(failed)?.id;
        let lock = EntryLock::new(self.layout, locks, file);
        let file = Arc::clone(&lock.0.file.lock().unwrap_or_else(PoisonError::into_inner));
        // A name that another collection took away before the lock was taken announces nothing any more.
        let named = |number: &&u64| {
            let found = stat::stat_at(lock.0.locks.as_fd(), &bytes(**number));
            found.is_ok_and(|found| found.id == id)
        };
        let numbers = numbers.iter().filter(named).copied();
        let named = |number| NamedLock { lock: lock.clone(), _file: Arc::clone(&file), number };
        Ok(numbers.map(named).collect())
    }
}

impl Iterator for DeadLocks<'_> {
    type Item = Result<Vec<NamedLock>, LayoutError>;

    /// The names of the next dead lock, taken over.
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let numbers = self.groups.next()?;
            match self.take_over(&numbers) {
                Ok(taken) if taken.is_empty() => {}
                taken => return Some(taken),
            }
        }
    }
}

/// A locked file without a name, in the directory that it gets names in.
fn new_file(locks: BorrowedFd<'_>) -> io::Result<Locked> {
    // Nobody else has it.
    lock::try_exclusive(beneath::unnamed_file(locks)?)?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

fn opening_failed(layout: &Layout, locks: BorrowedFd<'_>, number: u64, source: io::Error) -> LayoutError {
    let above = layout.path().join(Subdirectory::Locks.name());
    kind::opening_failed((locks, &above), &bytes(number), Own::Lock, source)
}

fn bytes(number: u64) -> Vec<u8> {
    DiffName::Entry(number).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::XattrNamespace;

    #[test]
    fn the_dead_are_told_from_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        assert_eq!(lock_state(&layout, 1).unwrap(), LockState::Free);
        let living = EntryLock::create(&layout).unwrap();
        let [first, second] = [1, 2].map(|number| living.name(number).unwrap());
        assert!(EntryLock::create(&layout).unwrap().name(1).is_err());
        let dying = EntryLock::create(&layout).unwrap();
        let dead = [3, 4].map(|number| dying.name(number).unwrap());
        assert_eq!(lock_state(&layout, 3).unwrap(), LockState::Held);
        drop((dying, dead));
        let states = [1, 3, 4].map(|number| lock_state(&layout, number).unwrap());
        assert_eq!(states, [LockState::Held, LockState::Dead, LockState::Dead]);

        let mut taken: Vec<_> = DeadLocks::list(&layout).unwrap().map(Result::unwrap).collect();
        assert_eq!(taken.len(), 1, "the names of one file come together");
        let mut taken = taken.remove(0);
        taken.sort_by_key(NamedLock::number);
        assert_eq!(taken.iter().map(NamedLock::number).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(lock_state(&layout, 4).unwrap(), LockState::Held);
        assert_eq!(DeadLocks::list(&layout).unwrap().count(), 0, "someone is at it");
        taken[0].remove().unwrap();
        drop(taken);
        assert_eq!(lock_state(&layout, 3).unwrap(), LockState::Free);
        assert_eq!(lock_state(&layout, 4).unwrap(), LockState::Dead, "left for the next");

        assert!(Claim::take(&layout, 1).unwrap().is_none(), "someone is at it");
        for (number, before) in [(4, LockState::Dead), (5, LockState::Free)] {
            let claim = Claim::take(&layout, number).unwrap().unwrap();
            assert_eq!(lock_state(&layout, number).unwrap(), LockState::Held);
            let dead: Vec<_> = DeadLocks::list(&layout).unwrap().flat_map(Result::unwrap).collect();
            assert!(dead.iter().all(|lock| lock.number() != number), "{dead:?}");
            drop((claim, dead));
            assert_eq!(lock_state(&layout, number).unwrap(), before, "announced as it was");
        }

        first.remove().unwrap();
        second.remove().unwrap();
        assert_eq!(lock_state(&layout, 1).unwrap(), LockState::Free);
        // As when all layers that a load has begun with have failed, and another worker begins one.
        let _second = living.name(2).unwrap();
        assert_eq!(lock_state(&layout, 2).unwrap(), LockState::Held);
        drop(second);
    }
}
