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
//! A small file costs `openat`, `statx`, `pwrite`, `futimens` and `close`, and `fchown`, `fchmod` only where
//! the kernel did not give it the right owner and mode by itself.

mod file;
mod metadata;
mod parents;
mod replace;
#[cfg(test)]
mod tests;
mod whiteout;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use layerstore_schema::manifest::Kind;
use rustix::fs::FileType;

pub(crate) use file::{FileWriter, WrittenFile};
pub(crate) use metadata::apply_metadata;

use self::parents::HandleCache;
use super::masked::{self, Special};
use super::overlay_form::{DEFAULT_ACL, XattrNamespace};
use crate::error::{ImportError, UnpackError};
use crate::sys::node::{self, NodeKind};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, stat};
use crate::types::{Metadata, RelPath, Timestamp};

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
    /// How many bytes of holes all sparse files of the layer may have: each is hashed as a zero.
    pub(crate) max_hole_bytes: u64,
}

impl UnpackOptions {
    /// Everything is written as the layer says, or is an error.
    pub(crate) fn strict(xattr_namespace: XattrNamespace) -> Self {
        UnpackOptions {
            xattr_namespace,
            squash_owners: false,
            unprivileged: false,
            mask: None,
            max_hole_bytes: 64 << 30,
        }
    }
}

/// A kind of device file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
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
    hidden: HashSet<RelPath>,
    set_aside: Vec<(u64, String)>,
    whiteouts: whiteout::Form,
}

/// What tree writer and file writers have in common.
#[derive(Debug)]
struct Shared {
    options: UnpackOptions,
    holes_left: AtomicU64,
    left_out: Mutex<Vec<LeftOut>>,
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
        let holes_left = AtomicU64::new(options.max_hole_bytes);
        let shared = Shared { options, holes_left, left_out: Mutex::default() };
        let implicit_root = DirectoryState { implicit: true, ..DirectoryState::default() };
        TreeWriter {
            root: Arc::new(root),
            aside,
            shared: Arc::new(shared),
            handles: HandleCache::default(),
            directories: BTreeMap::from([(RelPath::root(), implicit_root)]),
            hidden: HashSet::new(),
            set_aside: Vec::new(),
            whiteouts: whiteout::Form::default(),
        }
    }

    /// Makes a directory, or gives an existing one new metadata.
    pub(crate) fn directory(&mut self, path: &RelPath, metadata: &Metadata) -> Result<(), UnpackError> {
        let Some(name) = path.file_name() else {
            let root = Arc::clone(&self.root);
            return self.describe_directory(path, &root, metadata, false);
        };
        let parent = self.parent(path)?;
        let mode = metadata.mode & 0o777 | 0o700;
        let mut hides = false;
        let made = match node::make_directory(parent.as_fd(), name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.directories.contains_key(path) {
                    let existing = self.open_directory(path, path)?;
                    return self.describe_directory(path, &existing, metadata, false);
                }
                hides = self.make_room(path, &parent, name)?;
                node::make_directory(parent.as_fd(), name, mode)
            }
            made => made,
        };
        made.map_err(failed(path, "make the directory"))?;
        let handle = beneath::open_directory_beneath(parent.as_fd(), name)
            .map_err(failed(path, "open the directory"))?;
        let handle = self.handles.insert(path.as_bytes(), handle);
        hides |= self.hidden.remove(path);
        self.describe_directory(path, &handle, metadata, true)?;
        if hides { self.set_opaque(path, &handle) } else { Ok(()) }
    }

    /// Makes a symbolic link. Its target is never looked at.
    pub(crate) fn symlink(
        &mut self,
        path: &RelPath,
        target: &[u8],
        metadata: &Metadata,
    ) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path, "symbolic link")?;
        let make = || node::make_symlink(parent.as_fd(), name, target);
        self.make_leaf(path, &parent, name, make)
            .map_err(failed_unless_typed(path, "make the symbolic link"))?;
        self.shared.describe_name(path, &parent, name, metadata, metadata::ModeOf::Nothing)
    }

    /// Gives a file of this layer a second name.
    pub(crate) fn hard_link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), UnpackError> {
        if path == target {
            return Err(UnpackError::LinkToItself { member: member(path) });
        }
        let (from, old) = self.link_target(path, target)?;
        let (parent, name) = self.place(path, "hard link")?;
        let make = || node::make_hard_link(from.as_fd(), &old, parent.as_fd(), name);
        self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "make the hard link"))
    }

    /// Makes a device file.
    pub(crate) fn device(
        &mut self,
        path: &RelPath,
        kind: DeviceKind,
        (major, minor): (u32, u32),
        metadata: &Metadata,
    ) -> Result<(), UnpackError> {
        if kind == DeviceKind::Char && (major, minor) == (0, 0) {
            return Err(UnpackError::ReservedDevice { member: member(path) });
        }
        // The kernel would cut them off, and 4096:0 would be a whiteout.
        if major > 0xfff || minor > 0xf_ffff {
            return Err(UnpackError::DeviceOutOfRange { member: member(path), major, minor });
        }
        let file_type = match kind {
            DeviceKind::Char => FileType::CharacterDevice,
            DeviceKind::Block => FileType::BlockDevice,
        };
        if self.shared.options.mask.is_some() {
            return self.masked_special(path, (file_type, (major, minor)), metadata);
        }
        let (parent, name) = self.place(path, "device")?;
        let node_kind = match kind {
            DeviceKind::Char => NodeKind::CharDevice,
            DeviceKind::Block => NodeKind::BlockDevice,
        };
        let make = || node::make_node(parent.as_fd(), name, node_kind, metadata.mode, (major, minor));
        match self.make_leaf(path, &parent, name, make) {
            Ok(()) => self.shared.describe_name(path, &parent, name, metadata, metadata::ModeOf::Node),
            Err(LeafError::Room(error)) => Err(error),
            Err(LeafError::Make(error)) if self.shared.options.unprivileged && is_refusal(&error) => {
                self.shared.leave_out(path, LeftOutWhat::Device, &error);
                Ok(())
            }
            Err(LeafError::Make(source)) => Err(UnpackError::DeviceRefused { member: member(path), source }),
        }
    }

    /// Makes a named pipe.
    pub(crate) fn fifo(&mut self, path: &RelPath, metadata: &Metadata) -> Result<(), UnpackError> {
        if self.shared.options.mask.is_some() {
            return self.masked_special(path, (FileType::Fifo, (0, 0)), metadata);
        }
        let (parent, name) = self.place(path, "fifo")?;
        let make = || node::make_node(parent.as_fd(), name, NodeKind::Fifo, metadata.mode, (0, 0));
        self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "make the fifo"))?;
        self.shared.describe_name(path, &parent, name, metadata, metadata::ModeOf::Node)
    }

    /// Makes a socket without anyone behind it.
    fn socket(&mut self, path: &RelPath, metadata: &Metadata) -> Result<(), UnpackError> {
        if self.shared.options.mask.is_some() {
            return self.masked_special(path, (FileType::Socket, (0, 0)), metadata);
        }
        let (parent, name) = self.place(path, "socket")?;
        let make = || node::make_node(parent.as_fd(), name, NodeKind::Socket, metadata.mode, (0, 0));
        self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "make the socket"))?;
        self.shared.describe_name(path, &parent, name, metadata, metadata::ModeOf::Node)
    }

    /// Makes what a manifest says of a path. Regular files are left out: their bytes are the caller's.
    pub(crate) fn entry(
        &mut self,
        path: &RelPath,
        kind: &Kind,
        metadata: &Metadata,
    ) -> Result<(), ImportError> {
        let made = match kind {
            Kind::Directory { opaque } => self.directory(path, metadata).and_then(|()| match opaque {
                true => self.opaque(path),
                false => Ok(()),
            }),
            Kind::Symlink { target } => self.symlink(path, target, metadata),
            Kind::HardLink { target } => self.hard_link(path, &RelPath::from_archive(target)?),
            Kind::CharDevice { major, minor } => {
                self.device(path, DeviceKind::Char, (*major, *minor), metadata)
            }
            Kind::BlockDevice { major, minor } => {
                self.device(path, DeviceKind::Block, (*major, *minor), metadata)
            }
            Kind::Fifo => self.fifo(path, metadata),
            Kind::Socket => self.socket(path, metadata),
            Kind::Whiteout => self.whiteout(path),
            Kind::File { .. } => Ok(()),
        };
        Ok(made?)
    }

    /// Gives a file that stands at a path below another directory of the same filesystem a second name here, as it is.
    /// Returns whether that can be.
    pub(crate) fn link_from(
        &mut self,
        path: &RelPath,
        from: BorrowedFd<'_>,
        old: &[u8],
    ) -> Result<bool, UnpackError> {
        let (parent, name) = self.place(path, "file")?;
        // One file cannot have its mode on the disk in one of them, and in an attribute in the other.
        let namespace = self.shared.options.xattr_namespace;
        let mask = masked::mask_of(from, namespace).map_err(failed(path, "read the xattrs above"))?;
        if mask != self.shared.options.mask {
            return Ok(false);
        }
        let (above, old) = beneath::open_parent_beneath(from, old).map_err(failed(path, "find"))?;
        // What overlayfs has noted of its names is not true of one with more names.
        let noted = xattr::get(Target::Name(above.as_fd(), old), namespace.links());
        if noted.map_err(failed(path, "read the xattrs of"))?.is_some() {
            return Ok(false);
        }
        Ok(node::make_hard_link(above.as_fd(), old, parent.as_fd(), name).is_ok())
    }

    /// Makes the empty file that stands for a device or pipe.
    fn masked_special(
        &mut self,
        path: &RelPath,
        special: Special,
        metadata: &Metadata,
    ) -> Result<(), UnpackError> {
        let (parent, name) = self.place(path, "device or pipe")?;
        let make = || beneath::create_file(parent.as_fd(), name, 0o600);
        let file = self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "create"))?;
        let found = stat::stat(file.as_fd()).map_err(failed(path, "examine"))?;
        self.shared.describe(path, file.as_fd(), &found, metadata, Some(special))
    }

    /// Makes a regular file of `real_size` bytes, to be filled by the writer that is returned.
    pub(crate) fn file(
        &mut self,
        path: &RelPath,
        metadata: &Metadata,
        real_size: u64,
    ) -> Result<FileWriter, UnpackError> {
        let (parent, name) = self.place(path, "file")?;
        // Attributes can be set only on a file that its owner may write.
        let masked = self.shared.options.mask.is_some();
        let needed = if metadata.xattrs.is_empty() && !masked { 0 } else { 0o600 };
        let mode = metadata.mode & 0o777 | needed;
        let make = || beneath::create_file(parent.as_fd(), name, mode);
        let file = self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "create"))?;
        // Before a byte of it is hashed: no filesystem holds the sizes that some archives announce.
        if real_size > i64::MAX.unsigned_abs() {
            let source = io::ErrorKind::FileTooLarge.into();
            return Err(UnpackError::Io { member: member(path), action: "make a file so large", source });
        }
        Ok(FileWriter::new(file, path.clone(), metadata.clone(), real_size, Arc::clone(&self.shared)))
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
        Ok(UnpackedTree { implicit, aside: self.set_aside, left_out })
    }

    fn finish_directory(&mut self, path: &RelPath, state: &DirectoryState) -> Result<(), UnpackError> {
        let mtime = (state.mtime.seconds, state.mtime.nanoseconds);
        let Some(name) = path.file_name().filter(|_| state.mode.is_none() && state.default_acl.is_none())
        else {
            let handle = self.open_directory(path, path)?;
            if let Some(acl) = &state.default_acl {
                self.shared.set_xattr(path, Target::File(handle.as_fd()), DEFAULT_ACL, acl)?;
            }
            if let Some(mode) = state.mode {
                node::set_mode(handle.as_fd(), mode).map_err(failed(path, "set the mode"))?;
            }
            return node::set_mtime(handle.as_fd(), mtime).map_err(failed(path, "set the time"));
        };
        let parent = self.open_directory(path, &path.parent().unwrap_or_default())?;
        node::set_mtime_at(parent.as_fd(), name, mtime).map_err(failed(path, "set the time"))
    }

    /// The directory for a new entry and its name there.
    fn place<'a>(
        &mut self,
        path: &'a RelPath,
        kind: &'static str,
    ) -> Result<(Arc<OwnedFd>, &'a [u8]), UnpackError> {
        let name = path.file_name().ok_or(UnpackError::RootNotDirectory { kind })?;
        Ok((self.parent(path)?, name))
    }

    /// Makes something that is no directory; what stands at its path gives way.
    fn make_leaf<T>(
        &mut self,
        path: &RelPath,
        parent: &Arc<OwnedFd>,
        name: &[u8],
        make: impl Fn() -> io::Result<T>,
    ) -> Result<T, LeafError> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.make_room(path, parent, name).map_err(LeafError::Room)? {
                    self.hidden.insert(path.clone());
                }
                make().map_err(LeafError::Make)
            }
            made => made.map_err(LeafError::Make),
        }
    }
}

impl Shared {
    fn leave_out(&self, path: &RelPath, what: LeftOutWhat, error: &io::Error) {
        let item = LeftOut { path: path.clone(), what, reason: error.kind() };
        self.left_out.lock().unwrap_or_else(PoisonError::into_inner).push(item);
    }
}

/// Why an entry could not be made.
#[derive(Debug)]
enum LeafError {
    /// What stood at its path could not be moved away.
    Room(UnpackError),
    Make(io::Error),
}

/// The path for an error.
fn member(path: &RelPath) -> PathBuf {
    path.as_path().to_path_buf()
}

/// Makes a system call's error name the member.
fn failed(path: &RelPath, action: &'static str) -> impl FnOnce(io::Error) -> UnpackError {
    move |source| UnpackError::Io { member: member(path), action, source }
}

fn failed_unless_typed(path: &RelPath, action: &'static str) -> impl FnOnce(LeafError) -> UnpackError {
    move |error| match error {
        LeafError::Room(error) => error,
        LeafError::Make(source) => UnpackError::Io { member: member(path), action, source },
    }
}

/// Whether the kernel says that this process may not, rather than that something went wrong.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EINVAL))
}
