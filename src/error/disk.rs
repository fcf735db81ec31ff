//! What goes wrong with a store's directories and the trees in them.

use std::io;
use std::path::{Path, PathBuf};

use super::{LimitError, ValueError};

/// The store's own directories and files could not be opened or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// There is no such directory, or nothing in it.
    #[error("there is no store at {path:?}")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has no marker file, so nothing in it may be taken for a store's.
    #[error("{path:?} is no store: it has no LAYERSTORE file")]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is a store, but not of this program.
    #[error(
        "{path:?} is a store of containers-storage (podman, buildah, skopeo); layerstore has stores of its own: choose \
         an empty or a new directory"
    )]
    OfContainersStorage {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is a store already.
    #[error("{path:?} is a store already; open it instead")]
    AlreadyAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds other things, so no store is made there.
    #[error("{path:?} is not empty and is no store; choose an empty or a new directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The store was made by a later release.
    #[error("{path:?} has store format {found}, this release knows {supported}; use a newer release")]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// The store's format.
        found: u32,
        /// The highest format this release knows.
        supported: u32,
    },
    /// Other users could put something of theirs in the place of what is stored or mounted.
    #[error("{path:?} {reason}, so others could replace what is stored and mounted there: {advice}")]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Why, as the end of a sentence.
        reason: String,
        /// What to do.
        advice: &'static str,
    },
    /// A filesystem is mounted over something of the store's: what the store has there cannot be seen.
    #[error(
        "a filesystem is mounted over {path:?}, or over a directory that it is in, and hides what the store has there: unmount it (umount)"
    )]
    Mounted {
        /// What is hidden.
        path: PathBuf,
    },
    /// What no record names stands where something is missing that a record names: it may be that, by a record which says another
    /// number since it was damaged.
    #[error(
        "{path:?} stays, since {missing:?}, which a record names, is not there, and this may be it: run `layerstore check --deep`"
    )]
    InDoubt {
        /// What no record names.
        path: PathBuf,
        /// What is missing.
        missing: PathBuf,
    },
    /// Something stands at one of the store's own names that is none of its files or directories. It was neither used nor followed.
    #[error(
        "{path:?} is {found} where a store has a {}, and was neither used nor followed: {advice}",
        if *is_directory { "directory" } else { "regular file" }
    )]
    OtherKind {
        /// The path.
        path: Box<Path>,
        /// What stands there.
        found: &'static str,
        /// Whether a store has a directory there, and not a file.
        is_directory: bool,
        /// What to do.
        advice: &'static str,
    },
    /// The marker file says something that no release writes.
    #[error("{path:?} is damaged: {reason}")]
    Damaged {
        /// The marker file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A system call failed.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was acted on.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A layer's content could not be written, or is of a kind that is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// A path leads through something that this layer made a file or a link.
    #[error("{member:?} lies below {parent:?}, which is no directory in this layer")]
    ParentNotDirectory {
        /// The refused member.
        member: PathBuf,
        /// The part that is no directory.
        parent: PathBuf,
    },
    /// The layer's root is given as something other than a directory.
    #[error("the layer's root is given as a {kind}; it can only be a directory")]
    RootNotDirectory {
        /// What it is given as.
        kind: &'static str,
    },
    /// A hard link's target cannot be in any layer.
    #[error("hard link {member:?}: its target {target}")]
    LinkTargetPath {
        /// The refused member.
        member: PathBuf,
        /// The target, and what is wrong with it.
        target: ValueError,
    },
    /// A hard link's target is not in this layer.
    #[error("hard link {member:?}: there is no {target:?} before it in this layer")]
    LinkTargetMissing {
        /// The refused member.
        member: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// A hard link to a directory.
    #[error("hard link {member:?}: {target:?} is a directory")]
    LinkToDirectory {
        /// The refused member.
        member: PathBuf,
        /// The target.
        target: PathBuf,
    },
    /// A hard link to its own path.
    #[error("hard link {member:?} points at itself")]
    LinkToItself {
        /// The refused member.
        member: PathBuf,
    },
    /// A character device 0:0, which an overlay takes for a deleted name.
    #[error("{member:?} is the character device 0:0, which would delete the name instead")]
    ReservedDevice {
        /// The refused member.
        member: PathBuf,
    },
    /// Device numbers beyond what the kernel has.
    #[error("{member:?} has device number {major}:{minor}; Linux has majors to 4095 and minors to 1048575")]
    DeviceOutOfRange {
        /// The refused member.
        member: PathBuf,
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// The owner id 4294967295, which stands for "no id" in the kernel.
    #[error("{member:?} belongs to id 4294967295, which no file can belong to")]
    OwnerOutOfRange {
        /// The refused member.
        member: PathBuf,
    },
    /// An owner that the user namespace of this process has no id for.
    #[error("{member:?} belongs to {uid}:{gid}, which is no owner in this user namespace")]
    OwnerNotMapped {
        /// The member.
        member: PathBuf,
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A file got more or fewer bytes than it said it has.
    #[error("{member:?} should have {expected} bytes, but got {found}")]
    SizeMismatch {
        /// The file.
        member: PathBuf,
        /// The size that was announced.
        expected: u64,
        /// The bytes that came; of a file that got too many, those up to the first refused write.
        found: u64,
    },
    /// The layer asks for more than is granted.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// An extended attribute that the filesystem or the kernel refuses.
    #[error("{member:?}: cannot set the extended attribute {name:?}")]
    XattrRefused {
        /// The member.
        member: PathBuf,
        /// The attribute's name, made printable.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// More extended attributes than can be read again: the kernel sets each, and does not list so many.
    #[error(
        "{member:?}: the names of its extended attributes take {found} bytes, and {most} are the most: Linux lists \
             64 KiB of them, with those that it adds itself"
    )]
    XattrNames {
        /// The member.
        member: PathBuf,
        /// Bytes of all names, each with one that ends it.
        found: u64,
        /// How many there may be.
        most: u64,
    },
    /// A device that this process may not make.
    #[error("{member:?}: cannot make the device")]
    DeviceRefused {
        /// The member.
        member: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("{member:?}: cannot {action}")]
    Io {
        /// The member.
        member: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A tree could not be walked, copied, measured or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A filesystem is mounted inside the tree.
    #[error("a filesystem is mounted at {path:?}; unmount it first")]
    Mount {
        /// The mount point.
        path: PathBuf,
    },
    /// A directory was moved while it was being walked.
    #[error("{path:?} was moved while its tree was being walked")]
    Moved {
        /// The directory.
        path: PathBuf,
    },
    /// The process may not make a whiteout as a device, which it has to be in a layer that is written to.
    #[error(
        "cannot make the whiteout of {path:?} as device 0:0, as a layer that is written to needs it: a seccomp filter or the \
         filesystem refuses it; allow `mknod` of devices 0:0 (the kernel does so in user namespaces since 5.8), or move the \
         store to ext4, xfs, btrfs or tmpfs"
    )]
    Whiteout {
        /// What is deleted, relative to the tree's root.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {action} {path:?}")]
    Io {
        /// What was acted on, relative to the tree's root.
        path: PathBuf,
        /// What was to be done.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl LayoutError {
    /// What is told of something in a store that could not be opened. Nothing in it is reached by a mount.
    pub(crate) fn of_opening(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::CrossesDevices => LayoutError::Mounted { path },
            _ => LayoutError::Io { path, action: "open", source },
        }
    }
}

impl TreeError {
    /// The same for who reports errors of system calls. It is this one's source.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            TreeError::Io { source, .. } | TreeError::Whiteout { source, .. } => source.kind(),
            TreeError::Mount { .. } => io::ErrorKind::ResourceBusy,
            TreeError::Moved { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }

    /// Whether this process or the machine may open no more files.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        let number = match self {
            TreeError::Io { source, .. } => source.raw_os_error(),
            _ => None,
        };
        matches!(number, Some(libc::EMFILE | libc::ENFILE))
    }
}

/// A diff directory has no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// The tree could not be walked.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The path leads to content that lies elsewhere, so the directory alone is no whole diff.
    #[error("{path:?} has the xattr {xattr}: its content lies in another layer")]
    Redirected {
        /// The path.
        path: PathBuf,
        /// The attribute's name.
        xattr: String,
    },
    /// What a mount left of a path in the layers below is not there.
    #[error(
        "{path:?} says that its content is at {target:?} in the layers below, and it is not: they are others than when it \
         was written, or it was taken already"
    )]
    LeftBelow {
        /// The path.
        path: PathBuf,
        /// Where the content should be.
        target: PathBuf,
    },
    /// What a mount has written belongs to somebody who is another one here than there.
    #[error("{path:?} was written in another user namespace: here it seems to belong to {uid}:{gid}")]
    Owner {
        /// The path.
        path: PathBuf,
        /// The user that it seems to belong to.
        uid: u32,
        /// The group.
        gid: u32,
    },
    /// A file changed while it was being read.
    #[error("{path:?} changed while it was being read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A file's content could not be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The entries do not make a manifest.
    #[error("the directory has no canonical manifest")]
    Manifest(#[from] layerstore_schema::manifest::DecodeError),
}
