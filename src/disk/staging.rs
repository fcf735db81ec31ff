//! Directories and blob files that are being filled and that no row names yet.
//!
//! The number of each is locked for as long as its guard lives. A guard that is dropped removes what it guards;
//! `keep` leaves it, and is called only when the rows that name it are committed.
//!
//! To remove a tree takes some descriptors. A guard closes its own before, and where a limit leaves too few, since others of the operation
//! have them, what it guards goes with the last guard of the operation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::copy::copy_bytes;
use super::entry_lock::{EntryLock, NamedLock};
use super::layout::Layout;
use super::names::{DiffName, Subdirectory};
use super::overlay_form::{DEFAULT_ACL, XattrNamespace};
use super::remove::remove_tree;
use super::{masked, quota};
use crate::error::{LayoutError, TreeError};
use crate::sys::file::File;
use crate::sys::xattr::{self, Target};
use crate::sys::{acl, beneath, moment, node, stat, sync};

/// Where one operation fills entries: their lock, and the directories that they stand in. Hundreds of layers take no
/// more descriptors than one does.
#[derive(Clone, Debug)]
pub(crate) struct Stage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    lock: EntryLock,
    diffs: OwnedFd,
    blobs: OwnedFd,
    root: PathBuf,
    mask: Option<(XattrNamespace, u16)>,
    /// What could not be removed yet.
    left: Mutex<Vec<Discarded>>,
}

impl Stage {
    /// Opens the directories, and takes a lock that has no name yet.
    pub(crate) fn create(layout: &Layout) -> Result<Self, LayoutError> {
        Stage::with_mask(layout, layout.mask())
    }

    /// The same, for directories in which everything has its own mode and owner, whatever the store's others have.
    pub(crate) fn create_unmasked(layout: &Layout) -> Result<Self, LayoutError> {
        Stage::with_mask(layout, None)
    }

    fn with_mask(layout: &Layout, mask: Option<u16>) -> Result<Self, LayoutError> {
        Ok(Stage(Arc::new(Shared {
            lock: EntryLock::create(layout)?,
            diffs: layout.subdirectory(Subdirectory::Diffs)?,
            blobs: layout.subdirectory(Subdirectory::Blobs)?,
            root: layout.path().to_owned(),
            mask: mask.map(|mask| (layout.xattrs(), mask)),
            left: Mutex::default(),
        })))
    }
}

impl Shared {
    /// Where an entry stands, if not in a directory of its own.
    fn parent<'a>(&'a self, own: Option<&'a OwnedFd>, which: Subdirectory) -> BorrowedFd<'a> {
        match (own, which) {
            (Some(parent), _) => parent.as_fd(),
            (None, Subdirectory::Blobs) => self.blobs.as_fd(),
            (None, _) => self.diffs.as_fd(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for discarded in left {
            if let Err(error) = discarded.remove(self) {
                discarded.tell(&error);
            }
        }
    }
}

/// A diff directory being filled. Dropping it removes the directory, after its handles are closed: fields are dropped in their order.
#[derive(Debug)]
pub(crate) struct Staging {
    directory: OwnedFd,
    aside: OnceLock<OwnedFd>,
    named: Named,
    held: Held,
}

/// The name that a directory has while it is being filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    /// Its own, from the beginning.
    Always,
    /// Another one, until it is as it should be.
    Aside,
    /// Its own, since it is as it should be.
    InPlace,
}

/// A directory or blob file with everything in it, waiting for its row. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct Filled(Held);

impl Filled {
    /// The number in its name.
    pub(crate) fn number(&self) -> u64 {
        self.0.number()
    }

    /// Leaves it where it is and gives up its lock.
    pub(crate) fn keep(mut self) {
        self.0.keep = true;
    }
}

impl Staging {
    /// Makes the directory `diffs/<number>`. The number must never have been used before.
    pub(crate) fn create(stage: &Stage, number: u64) -> Result<Self, LayoutError> {
        Staging::make(stage, number, Named::Always)
    }

    /// The same for a directory that gets its name by [`put_in_place`](Self::put_in_place), when nothing more comes into it and
    /// its root is as it should be. Nobody syncs it, and a filesystem that loses what was done to it last never shows it half
    /// done: under its own name it is whole, or there is nothing.
    pub(crate) fn create_aside(stage: &Stage, number: u64) -> Result<Self, LayoutError> {
        Staging::make(stage, number, Named::Aside)
    }

    fn make(stage: &Stage, number: u64, named: Named) -> Result<Self, LayoutError> {
        let held = Held::take(stage, Subdirectory::Diffs, number)?;
        let name = match named {
            Named::Aside => DiffName::Aside(number),
            Named::Always | Named::InPlace => DiffName::Entry(number),
        };
        held.has_aside.store(named == Named::Aside, Ordering::Release);
        let make = || {
            let directory = held.make_directory(name)?;
            node::set_mode(directory.as_fd(), 0o755)?;
            if let Some((namespace, mask)) = stage.0.mask {
                masked::begin(directory.as_fd(), namespace, mask)?;
            }
            Ok(directory)
        };
        let directory = make().map_err(|source| held.failed(name, "create", source))?;
        moment::pass("staged");
        Ok(Staging { directory, aside: OnceLock::new(), named, held })
    }

    /// Whether it was made under another name.
    pub(crate) fn is_made_aside(&self) -> bool {
        self.named != Named::Always
    }

    /// Gives the directory its own name, if it was made under another.
    pub(crate) fn put_in_place(&mut self) -> Result<(), LayoutError> {
        if self.named == Named::Aside {
            self.rename(DiffName::Aside(self.number()), DiffName::Entry(self.number()))?;
            self.held.has_aside.store(false, Ordering::Release);
            self.named = Named::InPlace;
        }
        Ok(())
    }

    /// Takes the name away again, for a change that must not be seen half done.
    pub(crate) fn take_out(&mut self) -> Result<(), LayoutError> {
        if self.named == Named::InPlace {
            self.held.has_aside.store(true, Ordering::Release);
            self.rename(DiffName::Entry(self.number()), DiffName::Aside(self.number()))?;
            self.named = Named::Aside;
        }
        Ok(())
    }

    fn rename(&self, from: DiffName, to: DiffName) -> Result<(), LayoutError> {
        let [old, new] = [from, to].map(|name| name.to_string().into_bytes());
        node::rename(self.held.parent(), &old, self.held.parent(), &new)
            .map_err(|source| self.held.failed(to, "put in place", source))
    }

    /// Gives a directory that was made under another name that of one which is gone, `diffs/<number>`. What stands there by then
    /// stays, and this one goes: returns whether it does not.
    pub(crate) fn replace_lost(mut self, number: u64) -> Result<bool, LayoutError> {
        let (from, to) = (DiffName::Aside(self.number()), DiffName::Entry(number));
        let [old, new] = [from, to].map(|name| name.to_string().into_bytes());
        let parent = self.held.parent();
        let renamed = match node::rename_noreplace(parent, &old, parent, &new) {
            // Filesystems such as NFS have no such call.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                node::rename(parent, &old, parent, &new)
            }
            renamed => renamed,
        };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            renamed => renamed.map_err(|source| self.held.failed(to, "put in place", source))?,
        }
        self.held.has_aside.store(false, Ordering::Release);
        self.held.keep = true;
        Ok(true)
    }

    /// Nothing more comes into it: its handles are closed.
    pub(crate) fn filled(self) -> Filled {
        Filled(self.held)
    }

    /// The number in the directory's name.
    pub(crate) fn number(&self) -> u64 {
        self.held.number()
    }

    /// The directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The directory for files that the layer being unpacked replaced itself: made by the first call, which one thread does before
    /// others fill the directory. It is removed with the guard, kept or not.
    pub(crate) fn aside(&self) -> io::Result<BorrowedFd<'_>> {
        if let Some(aside) = self.aside.get() {
            return Ok(aside.as_fd());
        }
        self.held.has_aside.store(true, Ordering::Release);
        let made = self.held.make_directory(DiffName::Aside(self.number()))?;
        Ok(self.aside.get_or_init(|| made).as_fd())
    }

    /// Brings the directory's own metadata and its name to the disk: enough for one that is empty.
    pub(crate) fn sync(&self) -> Result<(), LayoutError> {
        let name = DiffName::Entry(self.held.number());
        sync::file(self.directory.as_fd())
            .and_then(|()| sync::file(self.held.parent()))
            .map_err(|source| self.held.failed(name, "sync", source))
    }

    /// Leaves the directory where it is and gives up the lock.
    pub(crate) fn keep(mut self) {
        self.held.keep = true;
    }
}

/// A blob file being filled. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct StagedBlob {
    file: OwnedFd,
    held: Held,
}

impl StagedBlob {
    /// Makes the file `blobs/<number>`. The number must never have been used before.
    pub(crate) fn create(stage: &Stage, number: u64) -> Result<Self, LayoutError> {
        let held = Held::take(stage, Subdirectory::Blobs, number)?;
        let name = DiffName::Entry(number);
        let file = beneath::create_private_file(held.parent(), name.to_string().as_bytes())
            .map_err(|source| held.failed(name, "create", source))?;
        Ok(StagedBlob { file, held })
    }

    /// The number in the file's name.
    pub(crate) fn number(&self) -> u64 {
        self.held.number()
    }

    /// Fills the empty file with a part of another: by reflink where the filesystem can.
    pub(crate) fn fill_from(&self, from: &File, offset: u64, length: u64) -> Result<(), LayoutError> {
        copy_bytes(from, offset, self.file.as_fd(), 0, length)
            .map_err(|source| self.held.failed(DiffName::Entry(self.held.number()), "fill", source))
    }

    /// The file from its beginning, for reading.
    pub(crate) fn reader(&self) -> Result<File, LayoutError> {
        let name = DiffName::Entry(self.held.number());
        beneath::open_sealed_file_beneath(self.held.parent(), name.to_string().as_bytes())
            .map(File::from)
            .map_err(|source| self.held.failed(name, "open", source))
    }

    /// Nothing more comes into it: its handle is closed.
    pub(crate) fn filled(self) -> Filled {
        Filled(self.held)
    }
}

/// A caller's directory that no row names yet. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct StagedData {
    directory: OwnedFd,
    held: Held,
}

impl StagedData {
    /// Makes the directory `data/<number>` with mode 0700. The number must never have been used before.
    pub(crate) fn create(layout: &Layout, number: u64) -> Result<Self, LayoutError> {
        let stage = Stage::create(layout)?;
        let parent = layout.subdirectory(Subdirectory::Data)?;
        let held = Held::take_in(&stage, Subdirectory::Data, Some(parent), number)?;
        let name = DiffName::Entry(number);
        let bytes = name.to_string().into_bytes();
        let directory = node::make_private_directory(held.parent(), &bytes)
            .and_then(|()| beneath::open_directory_beneath(held.parent(), &bytes))
            .map_err(|source| held.failed(name, "create", source))?;
        moment::pass("staged");
        Ok(StagedData { directory, held })
    }

    /// The number in the directory's name.
    pub(crate) fn number(&self) -> u64 {
        self.held.number()
    }

    /// Brings the directory and its name to the disk.
    pub(crate) fn sync(&self) -> Result<(), LayoutError> {
        sync::file(self.directory.as_fd())
            .and_then(|()| sync::file(self.held.parent()))
            .map_err(|source| self.held.failed(DiffName::Entry(self.held.number()), "sync", source))
    }

    /// Leaves the directory where it is and gives up its lock.
    pub(crate) fn keep(mut self) {
        self.held.keep = true;
    }
}

/// The files of a diff directory, being named by their hashes. Dropping it removes the names.
#[derive(Debug)]
pub(crate) struct StagedFiles {
    directory: OwnedFd,
    held: Held,
}

impl StagedFiles {
    /// Makes the directory `composefs/<number>`. The number must never have been used before.
    pub(crate) fn create(layout: &Layout, number: u64) -> Result<Self, LayoutError> {
        let stage = Stage::create(layout)?;
        let parent = layout.subdirectory(Subdirectory::Composefs)?;
        let held = Held::take_in(&stage, Subdirectory::Composefs, Some(parent), number)?;
        let name = DiffName::Entry(number);
        let bytes = name.to_string().into_bytes();
        let directory = node::make_private_directory(held.parent(), &bytes)
            .and_then(|()| beneath::open_directory_beneath(held.parent(), &bytes))
            .map_err(|source| held.failed(name, "create", source))?;
        Ok(StagedFiles { directory, held })
    }

    /// The directory.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Gives it its place, beside `diffs/<of>`, when all of it is on the disk. Somebody else's that is there already
    /// stays, and this one goes.
    pub(crate) fn place(self, of: u64) -> Result<(), LayoutError> {
        let (from, to) = (DiffName::Entry(self.held.number()), DiffName::Entry(of));
        let [old, new] = [from, to].map(|name| name.to_string().into_bytes());
        match node::rename_noreplace(self.held.parent(), &old, self.held.parent(), &new) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            renamed => renamed.map_err(|source| self.held.failed(to, "put in place", source)),
        }
    }
}

/// Takes the access lists away that a directory has of the one that it was made in, so that nothing in it inherits any: a layer has
/// the attributes that its archive says, wherever the store is.
fn disinherit(directory: BorrowedFd<'_>) -> io::Result<()> {
    [DEFAULT_ACL, acl::ACCESS].into_iter().try_for_each(|list| {
        match xattr::remove(Target::File(directory), list) {
            // A filesystem without lists.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            removed => removed,
        }
    })
}

/// The lock of a numbered entry. Dropping it removes the entry, unless `keep` is set, and then the lock file.
#[derive(Debug)]
struct Held {
    lock: NamedLock,
    stage: Stage,
    which: Subdirectory,
    /// Where it stands, if the stage has no handle of that.
    parent: Option<OwnedFd>,
    keep: bool,
    /// Whether there is, perhaps, a directory beside it that goes with the guard.
    has_aside: AtomicBool,
}

impl Held {
    fn take(stage: &Stage, which: Subdirectory, number: u64) -> Result<Self, LayoutError> {
        Self::take_in(stage, which, None, number)
    }

    fn take_in(
        stage: &Stage,
        which: Subdirectory,
        parent: Option<OwnedFd>,
        number: u64,
    ) -> Result<Self, LayoutError> {
        let lock = stage.0.lock.name(number)?;
        let has_aside = AtomicBool::new(false);
        let mut held = Held { lock, stage: stage.clone(), which, parent, keep: false, has_aside };
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

    fn number(&self) -> u64 {
        self.lock.number()
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.stage.0.parent(self.parent.as_ref(), self.which)
    }

    /// Makes a directory for its owner alone, from which nothing inherits an access list.
    fn make_directory(&self, name: DiffName) -> io::Result<OwnedFd> {
        let bytes = name.to_string().into_bytes();
        // Not every umask lets the owner open it.
        node::make_private_directory(self.parent(), &bytes)?;
        let made = beneath::open_directory_beneath(self.parent(), &bytes)?;
        disinherit(made.as_fd())?;
        Ok(made)
    }

    fn failed(&self, name: DiffName, action: &'static str, source: io::Error) -> LayoutError {
        let path = self.stage.0.root.join(self.which.name()).join(name.to_string());
        LayoutError::Io { path, action, source }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let aside = self.has_aside.load(Ordering::Acquire).then_some(DiffName::Aside(self.number()));
        let own = (!self.keep).then_some(DiffName::Entry(self.number()));
        let discarded = Discarded {
            names: aside.into_iter().chain(own).collect(),
            lock: self.lock.clone(),
            which: self.which,
            parent: self.parent.take(),
        };
        match discarded.remove(&self.stage.0) {
            Err(error) if is_out_of_descriptors(&error) => {
                self.stage.0.left.lock().unwrap_or_else(PoisonError::into_inner).push(discarded);
            }
            Err(error) => discarded.tell(&error),
            Ok(()) => {}
        }
    }
}

/// What a guard leaves to be removed, and then its lock file.
#[derive(Debug)]
struct Discarded {
    names: Vec<DiffName>,
    lock: NamedLock,
    which: Subdirectory,
    parent: Option<OwnedFd>,
}

impl Discarded {
    fn remove(&self, stage: &Shared) -> Result<(), TreeError> {
        let parent = stage.parent(self.parent.as_ref(), self.which);
        for name in &self.names {
            if let (Subdirectory::Diffs, DiffName::Entry(_)) = (self.which, name) {
                quota::release(parent, name.to_string().as_bytes());
            }
            match remove_tree(parent, name.to_string().as_bytes()) {
                // One that nothing came into need not be opened.
                Err(error) if is_out_of_descriptors(&error) => {
                    node::remove_directory(parent, name.to_string().as_bytes()).map_err(|_| error)?;
                }
                removed => removed?,
            }
        }
        moment::pass("settled");
        if let Err(error) = self.lock.remove() {
            tracing::warn!(%error, "lock file not removed");
        }
        Ok(())
    }

    /// It is not lost: its lock file stays, and tells the next collection.
    fn tell(&self, error: &TreeError) {
        tracing::warn!(directory = self.which.name(), number = self.lock.number(), %error, "staged entry not removed");
    }
}

/// Whether this process or the machine may open no more files for now.
fn is_out_of_descriptors(error: &TreeError) -> bool {
    matches!(error, TreeError::Io { source, .. } if matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)))
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::disk::{LockState, lock_state, locked_numbers};

    fn names(layout: &Layout, which: Subdirectory) -> Vec<DiffName> {
        layout.entries(which).unwrap()
    }

    #[test]
    fn dropped_staging_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let staging = Staging::create(&Stage::create(&layout).unwrap(), 7).unwrap();
        std::fs::create_dir(layout.entry_path(Subdirectory::Diffs, DiffName::Entry(7)).join("d")).unwrap();
        assert_eq!(lock_state(&layout, 7).unwrap(), LockState::Held);
        assert!(Staging::create(&Stage::create(&layout).unwrap(), 7).is_err());
        assert_eq!(lock_state(&layout, 7).unwrap(), LockState::Held);
        assert_eq!(names(&layout, Subdirectory::Diffs).len(), 1);
        staging.aside().unwrap();
        staging.aside().unwrap();
        assert_eq!(names(&layout, Subdirectory::Diffs).len(), 2);
        drop(staging);
        assert!(names(&layout, Subdirectory::Diffs).is_empty());
        assert!(names(&layout, Subdirectory::Locks).is_empty());
    }

    /// Opens as many files as this process may, which are closed with what is returned.
    fn take_descriptors() -> Vec<std::fs::File> {
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..getrlimit(Resource::Nofile) }).unwrap();
        std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect()
    }

    #[test]
    fn what_cannot_be_opened_to_be_removed_goes_with_the_operation() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let path = |number| layout.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
        let said = crate::sys::userns::tests::in_child(|| {
            let stage = Stage::create(&layout).unwrap();
            let [flat, deep, empty] = [1, 2, 3].map(|number| Staging::create(&stage, number).unwrap());
            flat.aside().unwrap();
            std::fs::write(path(1).join("file"), b"x").unwrap();
            std::fs::create_dir_all(path(2).join("a/b/c/d/e")).unwrap();
            let taken = take_descriptors();
            // Its own two handles do for that.
            drop(flat);
            let first = path(1).exists();
            let filled = [deep.filled(), empty.filled()];
            let more = take_descriptors();
            drop(filled);
            let then = [2, 3].map(|number| path(number).exists());
            drop((taken, more));
            drop(stage);
            format!("{first} {then:?} {}", path(2).exists())
        });
        assert_eq!(said, "false [true, false] false");
        assert!(locked_numbers(&layout).unwrap().is_empty());
    }

    #[test]
    fn kept_staging_leaves_the_entry_alone() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        Staging::create(&Stage::create(&layout).unwrap(), 1).unwrap().keep();
        StagedBlob::create(&Stage::create(&layout).unwrap(), 3).unwrap().filled().keep();
        drop(StagedBlob::create(&Stage::create(&layout).unwrap(), 2).unwrap().filled());
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        assert_eq!(names(&layout, Subdirectory::Blobs), [DiffName::Entry(3)]);
        assert!(locked_numbers(&layout).unwrap().is_empty());
        // A number that was used is refused, and what it names stays.
        assert!(Staging::create(&Stage::create(&layout).unwrap(), 1).is_err());
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        assert!(locked_numbers(&layout).unwrap().is_empty());
    }

    #[test]
    fn entries_of_one_stage_are_held_until_each_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let stage = Stage::create(&layout).unwrap();
        let first = Staging::create(&stage, 1).unwrap().filled();
        let second = Staging::create(&stage, 2).unwrap();
        let blob = StagedBlob::create(&stage, 3).unwrap();
        drop(stage);
        drop(second);
        let states = [1, 2, 3].map(|number| lock_state(&layout, number).unwrap());
        assert_eq!(states, [LockState::Held, LockState::Free, LockState::Held]);
        first.keep();
        assert_eq!(names(&layout, Subdirectory::Diffs), [DiffName::Entry(1)]);
        drop(blob);
        assert!(names(&layout, Subdirectory::Blobs).is_empty());
        assert!(locked_numbers(&layout).unwrap().is_empty());
    }
}
