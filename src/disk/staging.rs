//! Directories and blob files that are being filled and that no row names yet.
//!
//! Each has a lock file beside it, locked for as long as the guard lives. What no row names and nobody holds is
//! garbage. A guard that is dropped removes what it guards; `keep` leaves it, and is called only when the rows
//! that name it are committed.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::layout::{DiffName, Layout, Subdirectory};
use super::remove::{move_to_trash, remove_tree};
use crate::error::LayoutError;
use crate::sys::file::{File, duplicate};
use crate::sys::{beneath, extent, lock, node, stat, sync};

/// The lock of all that one operation fills.
///
/// The lock files of its entries are names of one file, so hundreds of layers take no more descriptors than one
/// does, and each is locked from the moment it has its name.
#[derive(Clone, Debug)]
pub(crate) struct EntryLock(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    diffs: OwnedFd,
    blobs: OwnedFd,
    root: PathBuf,
    /// Closed last: the lock ends with it.
    lock: OwnedFd,
}

impl EntryLock {
    /// Makes and takes a lock that has no entry yet.
    pub(crate) fn create(layout: &Layout) -> Result<Self, LayoutError> {
        let (diffs, blobs) =
            (layout.subdirectory(Subdirectory::Diffs)?, layout.subdirectory(Subdirectory::Blobs)?);
        let root = layout.path().to_owned();
        let made = beneath::unnamed_file(layout.root())
            .and_then(|file| lock::try_exclusive(file.as_fd()).map(|_| file));
        match made {
            Ok(lock) => Ok(EntryLock(Arc::new(Shared { diffs, blobs, root, lock }))),
            Err(source) => Err(LayoutError::Io { path: root, action: "make a lock file in", source }),
        }
    }
}

impl Shared {
    fn parent(&self, which: Subdirectory) -> BorrowedFd<'_> {
        match which {
            Subdirectory::Blobs => self.blobs.as_fd(),
            Subdirectory::Diffs | Subdirectory::Work | Subdirectory::Trash => self.diffs.as_fd(),
        }
    }

    /// Makes the lock file of an entry, which is fresh: EEXIST if there is one.
    fn name(&self, which: Subdirectory, name: DiffName) -> io::Result<()> {
        node::name_file(self.lock.as_fd(), self.parent(which), name.to_string().as_bytes())
    }

    fn failed(
        &self,
        which: Subdirectory,
        name: DiffName,
        action: &'static str,
        source: io::Error,
    ) -> LayoutError {
        LayoutError::Io { path: self.root.join(which.name()).join(name.to_string()), action, source }
    }
}

/// A diff directory being filled. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct Staging {
    held: Held,
    directory: OwnedFd,
    aside: OwnedFd,
}

/// A directory or blob file with everything in it, waiting for its row. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Filled(Held);

impl Filled {
    /// The number in its name.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Leaves it where it is and gives up its lock.
    pub(crate) fn keep(mut self) {
        self.0.keep = true;
    }
}

impl Staging {
    /// Makes the directory `diffs/<number>`. The number must never have been used before.
    pub(crate) fn create(lock: &EntryLock, number: u64) -> Result<Self, LayoutError> {
        let held = Held::take(lock, Subdirectory::Diffs, number)?;
        let make = |name: DiffName, mode| {
            let bytes = name.to_string().into_bytes();
            node::make_directory(held.parent(), &bytes, mode)
                .and_then(|()| beneath::open_directory_beneath(held.parent(), &bytes))
                .and_then(|made| node::set_mode(made.as_fd(), mode).map(|()| made))
                .map_err(|source| held.failed(name, "create", source))
        };
        let directory = make(DiffName::Entry(number), 0o755)?;
        let aside = make(DiffName::Aside(number), 0o700)?;
        Ok(Staging { held, directory, aside })
    }

    /// Nothing more comes into it: its handles are closed.
    pub(crate) fn filled(self) -> Filled {
        Filled(self.held)
    }

    /// The number in the directory's name.
    pub(crate) fn number(&self) -> u64 {
        self.held.number
    }

    /// The directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The directory for files that the layer being unpacked replaced itself. It is removed with the guard,
    /// kept or not.
    pub(crate) fn aside(&self) -> BorrowedFd<'_> {
        self.aside.as_fd()
    }

    /// Brings the directory's own metadata and name to the disk: enough for one that is empty.
    pub(crate) fn sync(&self) -> Result<(), LayoutError> {
        let name = DiffName::Entry(self.held.number);
        sync::file(self.directory.as_fd()).map_err(|source| self.held.failed(name, "sync", source))
    }

    /// Leaves the directory where it is and gives up the lock.
    pub(crate) fn keep(mut self) {
        self.held.keep = true;
    }
}

/// A blob file being filled. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct StagedBlob {
    held: Held,
    file: OwnedFd,
}

impl StagedBlob {
    /// Makes the file `blobs/<number>`. The number must never have been used before.
    pub(crate) fn create(lock: &EntryLock, number: u64) -> Result<Self, LayoutError> {
        let held = Held::take(lock, Subdirectory::Blobs, number)?;
        let name = DiffName::Entry(number);
        let file = beneath::create_file(held.parent(), name.to_string().as_bytes(), 0o600)
            .map_err(|source| held.failed(name, "create", source))?;
        Ok(StagedBlob { held, file })
    }

    /// The number in the file's name.
    pub(crate) fn number(&self) -> u64 {
        self.held.number
    }

    /// Fills the empty file with a part of another: by reflink where the filesystem can.
    pub(crate) fn fill_from(&self, from: &File, offset: u64, length: u64) -> Result<(), LayoutError> {
        let mut done = 0;
        let copied: io::Result<()> = loop {
            let rest = length.saturating_sub(done);
            if rest == 0 {
                break Ok(());
            }
            let from_at = offset.saturating_add(done);
            match extent::copy_range(from.as_fd(), from_at, self.file.as_fd(), done, rest) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done = done.saturating_add(count),
                Err(error) if is_unsupported(&error) => break self.copy(from, from_at, rest),
                Err(error) => break Err(error),
            }
        };
        copied.map_err(|source| self.held.failed(DiffName::Entry(self.held.number), "fill", source))
    }

    fn copy(&self, from: &File, offset: u64, length: u64) -> io::Result<()> {
        let mut to = File::from(duplicate(self.file.as_fd())?);
        let mut from = from.try_clone()?;
        from.seek(SeekFrom::Start(offset))?;
        let copied = io::copy(&mut from.take(length), &mut to)?;
        if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The file from its beginning, for reading.
    pub(crate) fn reader(&self) -> Result<File, LayoutError> {
        let name = DiffName::Entry(self.held.number);
        beneath::open_file_beneath(self.held.parent(), name.to_string().as_bytes())
            .map(File::from)
            .map_err(|source| self.held.failed(name, "open", source))
    }

    /// Nothing more comes into it: its handle is closed.
    pub(crate) fn filled(self) -> Filled {
        Filled(self.held)
    }
}

/// Old kernels copy inside the kernel on some filesystems only.
fn is_unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let unsupported = [Errno::XDEV, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|error| unsupported.contains(&error))
}

/// Whether someone, this process included, is filling the entry.
pub(crate) fn is_held(layout: &Layout, which: Subdirectory, number: u64) -> Result<bool, LayoutError> {
    let parent = layout.subdirectory(which)?;
    let name = DiffName::Lock(number);
    let held = beneath::open_file_beneath(parent.as_fd(), name.to_string().as_bytes())
        .and_then(|file| lock::is_held(file.as_fd()));
    match held {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        held => held.map_err(|source| LayoutError::Io {
            path: layout.entry_path(which, name),
            action: "query the lock",
            source,
        }),
    }
}

/// Moves an entry that no row names to the trash, with all that lies beside it, unless someone is filling it.
/// Returns whether nobody was. The two numbers name what arrives in the trash, and are fresh.
///
/// # Locking
///
/// The caller holds the write transaction in which it saw that no row names the entry. The entry's lock is
/// held while it is moved, so that nobody begins to fill it.
pub(crate) fn discard(
    layout: &Layout,
    which: Subdirectory,
    number: u64,
    fresh: [u64; 2],
) -> Result<bool, LayoutError> {
    let [entry, aside] = fresh;
    clear(layout, which, number, &[(DiffName::Entry(number), entry), (DiffName::Aside(number), aside)])
}

/// Takes away what a crash left beside an entry that a row names: as [`discard`], but the entry stays.
pub(crate) fn discard_beside(
    layout: &Layout,
    which: Subdirectory,
    number: u64,
    fresh: u64,
) -> Result<bool, LayoutError> {
    clear(layout, which, number, &[(DiffName::Aside(number), fresh)])
}

/// Moves each of the names to the trash under the number beside it, with the entry's lock held, then removes the
/// lock file.
fn clear(
    layout: &Layout,
    which: Subdirectory,
    number: u64,
    doomed: &[(DiffName, u64)],
) -> Result<bool, LayoutError> {
    let parent = layout.subdirectory(which)?;
    let name = DiffName::Lock(number);
    let bytes = name.to_string().into_bytes();
    let failed =
        |action| move |source| LayoutError::Io { path: layout.entry_path(which, name), action, source };
    let lock = match lock_file(parent.as_fd(), &bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
        // Someone else removed it: they are done with the entry, one way or the other.
        Ok(None) => return Ok(false),
        lock => lock.map_err(failed("lock"))?,
    };
    for (doomed, fresh) in doomed {
        move_to_trash(layout, which, *doomed, *fresh)?;
    }
    match node::remove_file(parent.as_fd(), &bytes) {
        // Whoever filled it gave it up in between, and took its lock file along.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(failed("remove"))?,
    }
    drop(lock);
    Ok(true)
}

/// The lock of a numbered entry. Dropping it removes the entry, unless `keep` is set, and then the lock file.
#[derive(Debug)]
struct Held {
    lock: EntryLock,
    which: Subdirectory,
    number: u64,
    keep: bool,
}

impl Held {
    fn take(lock: &EntryLock, which: Subdirectory, number: u64) -> Result<Self, LayoutError> {
        let name = DiffName::Lock(number);
        lock.0.name(which, name).map_err(|source| lock.0.failed(which, name, "lock", source))?;
        let mut held = Held { lock: lock.clone(), which, number, keep: false };
        match stat::stat_at(held.parent(), number.to_string().as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(held),
            found => {
                // What stands there is not ours to remove.
                let source = found.err().unwrap_or_else(|| io::ErrorKind::AlreadyExists.into());
                held.keep = true;
                Err(held.failed(DiffName::Entry(number), "create", source))
            }
        }
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.lock.0.parent(self.which)
    }

    fn failed(&self, name: DiffName, action: &'static str, source: io::Error) -> LayoutError {
        self.lock.0.failed(self.which, name, action, source)
    }
}

/// Opens and locks the lock file of an entry that nobody fills. `None` if it was removed in between: a lock on a
/// file without a name excludes nobody.
fn lock_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let file = beneath::ensure_file(parent, name)?;
    if !lock::try_exclusive(file.as_fd())? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok((stat::stat(file.as_fd())?.links > 0).then_some(file))
}

impl Drop for Held {
    fn drop(&mut self) {
        let parent = self.parent();
        let mut doomed = vec![DiffName::Aside(self.number)];
        if !self.keep {
            doomed.push(DiffName::Entry(self.number));
        }
        for name in doomed {
            if let Err(error) = remove_tree(parent, name.to_string().as_bytes()) {
                // Not lost: the next gc finds it.
                tracing::warn!(directory = self.which.name(), %name, %error, "staged entry not removed");
                return;
            }
        }
        let name = DiffName::Lock(self.number);
        if let Err(error) = node::remove_file(parent, name.to_string().as_bytes()) {
            tracing::warn!(directory = self.which.name(), %name, %error, "lock file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::XattrNamespace;

    fn names(layout: &Layout, which: Subdirectory) -> Vec<DiffName> {
        layout.entries(which).unwrap()
    }

    #[test]
    fn dropped_staging_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let staging = Staging::create(&EntryLock::create(&layout).unwrap(), 7).unwrap();
        std::fs::create_dir(layout.entry_path(Subdirectory::Diffs, DiffName::Entry(7)).join("d")).unwrap();
        assert!(is_held(&layout, Subdirectory::Diffs, 7).unwrap());
        assert!(!is_held(&layout, Subdirectory::Diffs, 8).unwrap());
        assert!(Staging::create(&EntryLock::create(&layout).unwrap(), 7).is_err());
        assert!(is_held(&layout, Subdirectory::Diffs, 7).unwrap());
        assert_eq!(names(&layout, Subdirectory::Diffs).len(), 3);
        drop(staging);
        assert!(names(&layout, Subdirectory::Diffs).is_empty());
    }

    #[test]
    fn kept_staging_leaves_the_entry_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        Staging::create(&EntryLock::create(&layout).unwrap(), 1).unwrap().keep();
        StagedBlob::create(&EntryLock::create(&layout).unwrap(), 1).unwrap().filled().keep();
        drop(StagedBlob::create(&EntryLock::create(&layout).unwrap(), 2).unwrap().filled());
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        assert_eq!(names(&layout, Subdirectory::Blobs), [DiffName::Entry(1)]);
        assert!(!is_held(&layout, Subdirectory::Diffs, 1).unwrap());
        // A number that was used is refused, and what it names stays.
        assert!(Staging::create(&EntryLock::create(&layout).unwrap(), 1).is_err());
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
    }

    #[test]
    fn entries_of_one_lock_are_held_until_each_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let lock = EntryLock::create(&layout).unwrap();
        let first = Staging::create(&lock, 1).unwrap().filled();
        let second = Staging::create(&lock, 2).unwrap();
        let blob = StagedBlob::create(&lock, 3).unwrap();
        drop(lock);
        drop(second);
        assert!(is_held(&layout, Subdirectory::Diffs, 1).unwrap());
        assert!(!is_held(&layout, Subdirectory::Diffs, 2).unwrap());
        assert!(is_held(&layout, Subdirectory::Blobs, 3).unwrap());
        assert!(!discard(&layout, Subdirectory::Diffs, 1, [4, 5]).unwrap());
        first.keep();
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        drop(blob);
        assert!(names(&layout, Subdirectory::Blobs).is_empty());
    }

    #[test]
    fn what_lies_beside_an_entry_is_discarded_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let staging = Staging::create(&EntryLock::create(&layout).unwrap(), 1).unwrap();
        assert!(!discard_beside(&layout, Subdirectory::Diffs, 1, 2).unwrap());
        staging.keep();
        let diffs = layout.subdirectory(Subdirectory::Diffs).unwrap();
        node::make_directory(diffs.as_fd(), b"1.aside", 0o700).unwrap();
        assert!(discard_beside(&layout, Subdirectory::Diffs, 1, 2).unwrap());
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        assert_eq!(names(&layout, Subdirectory::Trash), [DiffName::Entry(2)]);
    }

    #[test]
    fn only_what_nobody_fills_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let staging = Staging::create(&EntryLock::create(&layout).unwrap(), 1).unwrap();
        assert!(!discard(&layout, Subdirectory::Diffs, 1, [2, 3]).unwrap());
        // A process that dies leaves everything behind, but no lock.
        let crashed = layout.subdirectory(Subdirectory::Diffs).unwrap();
        for name in ["9", "9.aside"] {
            node::make_directory(crashed.as_fd(), name.as_bytes(), 0o700).unwrap();
        }
        drop(beneath::ensure_file(crashed.as_fd(), b"9.lock").unwrap());
        assert!(discard(&layout, Subdirectory::Diffs, 9, [4, 5]).unwrap());
        assert_eq!(names(&layout, Subdirectory::Trash).len(), 2);
        staging.keep();
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
    }
}
