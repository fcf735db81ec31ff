//! Directories and blob files that are being filled and that no row names yet.
//!
//! The number of each is locked for as long as its guard lives. A guard that is dropped removes what it guards;
//! `keep` leaves it, and is called only when the rows that name it are committed.

mod guard;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use self::guard::Held;
pub(crate) use self::guard::Stage;
use super::copy::copy_bytes;
use super::layout::Layout;
use super::masked;
use super::names::{DiffName, Subdirectory};
use crate::error::LayoutError;
use crate::sys::file::File;
use crate::sys::{beneath, moment, node, sync};

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

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;
    use crate::disk::{LockState, XattrNamespace, lock_state, locked_numbers};
    use crate::sys::userns::tests::in_bare_child;

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
        let root = dir.path().join("store");
        let said = in_bare_child(|| {
            let layout = Layout::create(&root, XattrNamespace::User).unwrap();
            let path = |number| layout.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
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
            format!("{first} {then:?} {} {:?}", path(2).exists(), locked_numbers(&layout).unwrap())
        });
        assert_eq!(said, "false [true, false] false []");
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
