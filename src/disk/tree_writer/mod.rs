//! Builds a diff directory, in overlay form, from the entries of a layer. The layer is hostile.
//!
//! What must stay true, whatever the entries say and whoever else changes the directory meanwhile:
//!
//! * Every name is resolved beneath the diff's root handle, never through a symbolic link. A parent that this
//!   layer made a link or a file is an error, as is a path that needs one.
//! * Nothing is opened but regular files that were just created and directories.
//! * A later entry replaces an earlier one at its path. A regular file that goes this way is moved aside, not
//!   removed: an exact export needs its bytes.
//! * Whiteouts and opaque markers concern lower layers only, wherever they stand in the stream
//!   ([`whiteout`]).
//!
//! A small file costs `openat`, `pwrite`, `futimens`, `statx` and `close`, and `fchown`, `fchmod` and a second look only where
//! the kernel did not give it the right owner and mode by itself. What it was not given, it does not have: the directory begins
//! without access lists that files would inherit, and the layer's own come last. So a seal need not look at a file again that has one name
//! and no attributes.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`entries`] | makes what one entry says |
//! | [`mod@file`] | the bytes of a regular file |
//! | [`metadata`] | owners, modes, times and attributes |
//! | [`parents`] | finds the directory that an entry is in |
//! | [`replace`] | what stands at an entry's path gives way |
//! | [`whiteout`] | whiteouts and opaque directories |

mod entries;
mod file;
mod metadata;
mod parents;
mod replace;
#[cfg(test)]
mod tests;
mod whiteout;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use entries::DeviceKind;
pub(crate) use file::{FileWriter, WrittenFile};
pub(crate) use metadata::apply_metadata;

use self::parents::HandleCache;
use super::overlay_form::{DEFAULT_ACL, XattrNamespace};
use super::writeback::Writeback;
use crate::error::UnpackError;
use crate::sys::node;
use crate::sys::xattr::Target;
use crate::types::{Budget, Limits, RelPath, Timestamp};

/// How a layer is written.
#[derive(Clone, Debug)]
pub(crate) struct UnpackOptions {
    /// The xattrs that mounts of this store use.
    pub(crate) xattr_namespace: XattrNamespace,
    /// Owners that this process may not give are ignored: for a user namespace with one id.
    pub(crate) squash_owners: bool,
    /// Devices and attributes that this process may not make are left out and listed, instead of refused.
    pub(crate) unprivileged: bool,
    /// The mode of everything on the disk; owners and modes of the layer are kept in an attribute then.
    pub(crate) mask: Option<u16>,
    /// How many holes, each of which is hashed as a zero, and implied directories the layer may have.
    pub(crate) limits: Limits,
}

impl UnpackOptions {
    /// Everything is written as the layer says, or is an error.
    pub(crate) fn strict(xattr_namespace: XattrNamespace) -> Self {
        UnpackOptions {
            xattr_namespace,
            squash_owners: false,
            unprivileged: false,
            mask: None,
            limits: Limits::DEFAULT,
        }
    }
}

/// Something of the layer that was not written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LeftOut {
    /// The member it belongs to.
    pub(crate) path: RelPath,
    /// What is missing.
    pub(crate) what: LeftOutWhat,
    /// Why: the kernel's answer.
    pub(crate) reason: io::ErrorKind,
}

/// A thing that was left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LeftOutWhat {
    /// The device file itself.
    Device,
    /// One extended attribute, by the name the layer gives it.
    Xattr(Vec<u8>),
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.what {
            LeftOutWhat::Device => write!(f, "the device /{}: {}", self.path, self.reason),
            LeftOutWhat::Xattr(name) => {
                write!(
                    f,
                    "the attribute {} of /{}: {}",
                    String::from_utf8_lossy(name),
                    self.path,
                    self.reason
                )
            }
        }
    }
}

/// What [`TreeWriter::finish`] knows of the directory.
#[derive(Debug, Default)]
pub(crate) struct UnpackedTree {
    /// Directories that the layer has no entry for, in manifest order; the root if it has none. They are 0755,
    /// of 0:0, from 1970, until [`apply_metadata`] gives them what the parent layer says.
    pub(crate) implicit: Vec<RelPath>,
    /// Regular files that the layer replaced itself: inode and name in the aside directory.
    pub(crate) aside: Vec<(u64, String)>,
    /// The inodes that were given further names.
    pub(crate) linked: HashSet<u64>,
    /// What could not be written.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Writes one layer into a fresh directory.
///
/// Files are written by [`FileWriter`]s of their own, on any thread, while the tree writer goes on; each must
/// be finished before the tree is.
#[derive(Debug)]
pub(crate) struct TreeWriter {
    root: Arc<OwnedFd>,
    aside: OwnedFd,
    shared: Arc<Shared>,
    handles: HandleCache,
    /// Every directory of the layer.
    directories: BTreeMap<RelPath, DirectoryState>,
    /// Paths of non-directories that the layer also has a whiteout for: should one become a directory, it is
    /// opaque.
    hidden: BTreeSet<RelPath>,
    set_aside: Vec<(u64, String)>,
    linked: HashSet<u64>,
    whiteouts: whiteout::Form,
    /// What the paths of directories that no member said count for.
    implied_bytes: u64,
}

/// What tree writer and file writers have in common.
#[derive(Debug)]
struct Shared {
    options: UnpackOptions,
    /// What is left of holes, and of directories that are only implied.
    budget: Budget,
    left_out: Mutex<Vec<LeftOut>>,
    writeback: Writeback,
}

/// What is known of a directory, and what can be set only when nothing more is made in it.
#[derive(Debug, Default)]
struct DirectoryState {
    mtime: Timestamp,
    /// The mode, if it keeps its owner out.
    mode: Option<u16>,
    /// Would be inherited by what is made in the directory.
    default_acl: Option<Box<[u8]>>,
    implicit: bool,
    opaque: bool,
    has_whiteouts: bool,
}

impl TreeWriter {
    /// Begins to fill the empty directory `root`. Files that the layer replaces itself are moved to `aside`, on
    /// the same filesystem.
    pub(crate) fn new(root: OwnedFd, aside: OwnedFd, options: UnpackOptions) -> Self {
        let budget = Budget::new(&options.limits);
        let shared = Shared { options, budget, left_out: Mutex::default(), writeback: Writeback::default() };
        let implicit_root = DirectoryState { implicit: true, ..DirectoryState::default() };
        TreeWriter {
            root: Arc::new(root),
            aside,
            shared: Arc::new(shared),
            handles: HandleCache::default(),
            directories: BTreeMap::from([(RelPath::root(), implicit_root)]),
            hidden: BTreeSet::new(),
            set_aside: Vec::new(),
            linked: HashSet::new(),
            whiteouts: whiteout::Form::default(),
            implied_bytes: 0,
        }
    }

    /// The same, with no more holes and implied directories than other layers of the image have left, and with what they have for
    /// writing out.
    pub(crate) fn within(self, budget: &Budget, writeback: &Writeback) -> Self {
        let options = self.shared.options.clone();
        let (budget, writeback) = (budget.clone(), writeback.clone());
        let shared = Shared { options, budget, left_out: Mutex::default(), writeback };
        TreeWriter { shared: Arc::new(shared), ..self }
    }

    /// Finishes the directories, deepest first. What cannot be undone by anything made later comes here.
    pub(crate) fn finish(mut self) -> Result<UnpackedTree, UnpackError> {
        let mut implicit = Vec::new();
        for (path, state) in std::mem::take(&mut self.directories).into_iter().rev() {
            self.finish_directory(&path, &state)?;
            if state.implicit {
                implicit.push(path);
            }
        }
        implicit.reverse();
        let left_out =
            std::mem::take(&mut *self.shared.left_out.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(UnpackedTree { implicit, aside: self.set_aside, linked: self.linked, left_out })
    }

    fn finish_directory(&mut self, path: &RelPath, state: &DirectoryState) -> Result<(), UnpackError> {
        let handle = self.open_directory(path, path)?;
        if let Some(acl) = &state.default_acl {
            self.shared.set_xattr(path, Target::File(handle.as_fd()), DEFAULT_ACL, acl)?;
        }
        if let Some(mode) = state.mode {
            node::set_mode(handle.as_fd(), mode).map_err(failed(path, "set the mode"))?;
        }
        let mtime = (state.mtime.seconds, state.mtime.nanoseconds);
        node::set_mtime(handle.as_fd(), mtime).map_err(failed(path, "set the time"))
    }
}

impl Shared {
    fn leave_out(&self, path: &RelPath, what: LeftOutWhat, error: &io::Error) {
        let item = LeftOut { path: path.clone(), what, reason: error.kind() };
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }
}

/// The path for an error.
fn member(path: &RelPath) -> PathBuf {
    path.as_path().to_path_buf()
}

/// Makes a system call's error name the member.
fn failed(path: &RelPath, action: &'static str) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError::Io { member: member(path), action, source }
}

/// Whether the kernel says that this process may not, rather than that something went wrong.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EINVAL))
}
