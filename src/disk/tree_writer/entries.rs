//! Making what one entry of a layer says, at its path.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use layerstore_schema::manifest::Kind;
use rustix::fs::FileType;

use super::{FileWriter, LeftOutWhat, TreeWriter, failed, is_refusal, member};
use crate::disk::masked::{self, Special};
use crate::error::{ImportError, UnpackError};
use crate::sys::node::{self, NodeKind};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, stat};
use crate::types::{Metadata, RelPath};

/// A kind of device file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeviceKind {
    /// A character device.
    Char,
    /// A block device.
    Block,
}

/// Why an entry could not be made.
#[derive(Debug)]
enum LeafError {
    /// What stood at its path could not be moved away.
    Room(UnpackError),
    Make(io::Error),
}

impl TreeWriter {
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
        self.shared.describe_name(path, &parent, name, metadata, FileType::Symlink)
    }

    /// Gives a file of this layer a second name.
    pub(crate) fn hard_link(&mut self, path: &RelPath, target: &RelPath) -> Result<(), UnpackError> {
        if path == target {
            return Err(UnpackError::LinkToItself { member: member(path) });
        }
        let (from, old, inode) = self.link_target(path, target)?;
        // Whatever becomes of the name.
        self.linked.insert(inode);
        let (parent, name) = self.place(path, "hard link")?;
        let make = || node::make_hard_link(from.as_fd(), &old, parent.as_fd(), name);
        self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "make the hard link"))
    }

    /// The same, with the target as it stands in an archive.
    pub(crate) fn hard_link_to(&mut self, path: &RelPath, target: &[u8]) -> Result<(), UnpackError> {
        let target = RelPath::from_archive(target)
            .map_err(|target| UnpackError::LinkTargetPath { member: member(path), target })?;
        self.hard_link(path, &target)
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
        if !node::is_device_number((major, minor)) {
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
            Ok(()) => self.shared.describe_name(path, &parent, name, metadata, file_type),
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
        self.shared.describe_name(path, &parent, name, metadata, FileType::Fifo)
    }

    /// Makes a socket without anyone behind it.
    fn socket(&mut self, path: &RelPath, metadata: &Metadata) -> Result<(), UnpackError> {
        if self.shared.options.mask.is_some() {
            return self.masked_special(path, (FileType::Socket, (0, 0)), metadata);
        }
        let (parent, name) = self.place(path, "socket")?;
        let make = || node::make_node(parent.as_fd(), name, NodeKind::Socket, metadata.mode, (0, 0));
        self.make_leaf(path, &parent, name, make).map_err(failed_unless_typed(path, "make the socket"))?;
        self.shared.describe_name(path, &parent, name, metadata, FileType::Socket)
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
            Kind::HardLink { target } => self.hard_link_to(path, target),
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

    /// The directory for a new entry and its name there.
    pub(super) fn place<'a>(
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

fn failed_unless_typed(path: &RelPath, action: &'static str) -> impl FnOnce(LeafError) -> UnpackError {
    move |error| match error {
        LeafError::Room(error) => error,
        LeafError::Make(source) => UnpackError::Io { member: member(path), action, source },
    }
}
