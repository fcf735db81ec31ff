//! What all guards of an operation share, and what each guard has: the lock of its number, and the removal of what no row names.
//!
//! To remove a tree takes some descriptors. A guard closes its own before, and where a limit leaves too few, since others of the operation
//! have them, what it guards goes with the last guard of the operation.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::entry_lock::{EntryLock, NamedLock};
use super::super::layout::Layout;
use super::super::names::{DiffName, Subdirectory};
use super::super::overlay_form::{DEFAULT_ACL, XattrNamespace};
use super::super::quota;
use super::super::remove::remove_tree;
use crate::error::{LayoutError, TreeError};
use crate::sys::xattr::{self, Target};
use crate::sys::{acl, beneath, moment, node, stat};

/// Where one operation fills entries: their lock, and the directories that they stand in. Hundreds of layers take no
/// more descriptors than one does.
#[derive(Clone, Debug)]
pub(crate) struct Stage(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    lock: EntryLock,
    diffs: OwnedFd,
    blobs: OwnedFd,
    root: PathBuf,
    pub(super) mask: Option<(XattrNamespace, u16)>,
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

/// The lock of a numbered entry. Dropping it removes the entry, unless `keep` is set, and then the lock file.
#[derive(Debug)]
pub(super) struct Held {
    lock: NamedLock,
    stage: Stage,
    which: Subdirectory,
    /// Where it stands, if the stage has no handle of that.
    parent: Option<OwnedFd>,
    pub(super) keep: bool,
    /// Whether there is, perhaps, a directory beside it that goes with the guard.
    pub(super) has_aside: AtomicBool,
}

impl Held {
    pub(super) fn take(stage: &Stage, which: Subdirectory, number: u64) -> Result<Self, LayoutError> {
        Self::take_in(stage, which, None, number)
    }

    pub(super) fn take_in(
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

    pub(super) fn number(&self) -> u64 {
        self.lock.number()
    }

    pub(super) fn parent(&self) -> BorrowedFd<'_> {
        self.stage.0.parent(self.parent.as_ref(), self.which)
    }

    /// Makes a directory for its owner alone, from which nothing inherits an access list.
    pub(super) fn make_directory(&self, name: DiffName) -> io::Result<OwnedFd> {
        let bytes = name.to_string().into_bytes();
        // Not every umask lets the owner open it.
        node::make_private_directory(self.parent(), &bytes)?;
        let made = beneath::open_directory_beneath(self.parent(), &bytes)?;
        disinherit(made.as_fd())?;
        Ok(made)
    }

    pub(super) fn failed(&self, name: DiffName, action: &'static str, source: io::Error) -> LayoutError {
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
            Err(error) if error.is_out_of_descriptors() => {
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
                Err(error) if error.is_out_of_descriptors() => {
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
