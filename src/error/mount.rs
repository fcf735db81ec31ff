//! Mounts that cannot be made or taken away, and user namespaces that cannot be entered.

use std::io;
use std::path::PathBuf;

/// A mount could not be planned, made, or taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// A mount option that the store does not pass on.
    #[error("mount option {option:?} is refused: {reason}")]
    Option {
        /// The option as given.
        option: String,
        /// Why it is refused.
        reason: &'static str,
    },
    /// More layers than the kernel stacks.
    #[error(
        "{count} layers are more than the {limit} that one overlay mount holds: flatten some into one layer"
    )]
    TooManyLayers {
        /// How many directories the mount would have.
        count: usize,
        /// How many the kernel takes.
        limit: usize,
    },
    /// A directory of a mount that is not given by its full path.
    #[error("{} cannot be part of a mount: the path must be absolute", path.display())]
    NotAbsolute {
        /// The path as given.
        path: PathBuf,
    },
    /// The attributes that the store's layers use mean nothing to a mount made here.
    #[error("layers that keep overlay attributes as {class:?} cannot be mounted here: {reason}")]
    XattrClass {
        /// The prefix of the attributes.
        class: &'static str,
        /// What is in the way and what to do.
        reason: &'static str,
    },
    /// Layers cannot be shown with other owners.
    #[error("the layers cannot be mounted with mapped ids: {reason}")]
    IdMap {
        /// What is in the way and what to do.
        reason: &'static str,
    },
    /// The store is to mount layers as composefs images, and cannot here.
    #[error(
        "layers cannot be mounted as composefs images: {reason}; the other way is to leave out `use_composefs`"
    )]
    Composefs {
        /// What is in the way and what to do.
        reason: &'static str,
    },
    /// Modes and owners of layers are kept in an attribute, which overlayfs does not know.
    #[error(
        "layers made with a force_mask can be mounted by a program such as fuse-overlayfs only: {reason}"
    )]
    Masked {
        /// What is in the way and what to do.
        reason: &'static str,
    },
    /// Neither the kernel nor a program can make the mount.
    #[error(
        "no overlay mounts can be made here: run as root or inside a user namespace (see `layerstore unshare`), \
         load the overlay module, or install fuse-overlayfs"
    )]
    NoMethod,
    /// The kernel's overlayfs does not work on the filesystem that the store lies on, and there is no program that does.
    #[error(
        "overlay mounts do not work on {filesystem}, where {} lies: {reason}; move the store to ext4, XFS, Btrfs or tmpfs (in a \
         container, to a volume), or install fuse-overlayfs",
        path.display()
    )]
    Backing {
        /// The filesystem's name.
        filesystem: String,
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The options are too long for the kernel's old mount call.
    #[error(
        "the mount options take {length} bytes, and mount(2) of this kernel takes {limit}: \
         flatten some layers, or use Linux 6.5 or later"
    )]
    OptionsTooLong {
        /// How long they are.
        length: usize,
        /// How long they may be.
        limit: usize,
    },
    /// The caller has not the right to mount.
    #[error(
        "not allowed to mount at {}: run as root or inside a user namespace (see `layerstore unshare`){}",
        target.display(), detail(log)
    )]
    NotPermitted {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// The root directory of a layer belongs to somebody whom the id map leaves out, and its mode lets nobody else in.
    #[error(
        "cannot mount with mapped ids: the root directory of the layer at {} belongs to {uid}:{gid}, which the id map leaves \
         out, and its mode lets nobody else in: map these ids, or give the directory another owner or mode",
        layer.display()
    )]
    RootUnmapped {
        /// The directory.
        layer: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks the call or the filesystem.
    #[error(
        "cannot mount at {}: this kernel lacks the call or the overlay filesystem; load the overlay module or \
         name a mount program such as fuse-overlayfs{}",
        target.display(), detail(log)
    )]
    Unsupported {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// The kernel took the mount for invalid.
    #[error("the kernel refuses the mount at {}{}", target.display(), detail_or_dmesg(log))]
    Refused {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// No room for what the mount needs.
    #[error(
        "no room for the mount at {}: the filesystem of the layers is full, or there are more mounts than \
         /proc/sys/fs/mount-max allows{}",
        target.display(), detail(log)
    )]
    NoSpace {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// One directory of the mount lies in another, or a path leads through links without end.
    #[error(
        "cannot mount at {}: one of its directories lies inside another, or a path has too many symbolic links{}",
        target.display(), detail(log)
    )]
    Loop {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// The upper directory was left by a volatile mount that did not end well, so its content is in doubt.
    #[error(
        "{} was last used by a volatile mount that was not ended: its changes may be incomplete; remove what \
         has them, or mount it once with `--trust-volatile` if the machine did not crash and you trust them",
        work.display()
    )]
    VolatileLeft {
        /// The work directory that has the mark.
        work: PathBuf,
    },
    /// Something is in use.
    #[error("{} is in use{}: end that, or take it away by `layerstore unmount --lazy`", target.display(), held_by(holders))]
    Busy {
        /// The mount point.
        target: PathBuf,
        /// The processes and mounts that hold it, as far as they could be seen.
        holders: Vec<String>,
        /// The failed call.
        #[source]
        source: io::Error,
    },
    /// Something is mounted at the target already.
    #[error("{} is a mount point already: unmount it first", target.display())]
    AlreadyMounted {
        /// The target.
        target: PathBuf,
    },
    /// Nothing is mounted there.
    #[error("{} is not a mount point", target.display())]
    NotMounted {
        /// The target.
        target: PathBuf,
    },
    /// The mount was made outside of this user namespace, which has only a copy of it.
    #[error("{} was mounted outside of this user namespace, and can be unmounted only there", target.display())]
    MadeOutside {
        /// The target.
        target: PathBuf,
    },
    /// The mount program could not be run, or said no.
    #[error("{} failed to mount at {}: {message}", program.display(), target.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Where the mount would be.
        target: PathBuf,
        /// What it wrote, or how it ended.
        message: String,
    },
    /// A file has a name that a mount program takes for a mark of its own.
    #[error(
        "/{} in the layer {layer} would be lost in a mount of a program, which takes a name that begins with .wh. for the mark \
         of something deleted: rename or remove it, or let the kernel mount",
        path.display()
    )]
    MarkerName {
        /// The layer.
        layer: String,
        /// The file in it.
        path: PathBuf,
    },
    /// A directory has an attribute that a mount program takes for a mark of its own.
    #[error(
        "a mount of a program would hide what is below /{} of the layer {layer}, as that has the attribute {attribute}, which means nothing \
         to the kernel here: take the attribute away, or let the kernel mount",
        path.display()
    )]
    MarkerAttribute {
        /// The layer.
        layer: String,
        /// The directory in it; empty for its root.
        path: PathBuf,
        /// The name of the attribute.
        attribute: &'static str,
    },
    /// A directory of the mount cannot be used.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another failure of a call.
    #[error("cannot mount at {}{}", target.display(), detail(log))]
    Io {
        /// Where the mount would be.
        target: PathBuf,
        /// What the kernel said.
        log: String,
        /// The failed call.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    /// The [reason](MountError::IdMap) why layers of a store with a `force_mask` are shown with no other ids.
    pub const MASKED: &'static str =
        "their owners are kept in an attribute, as `force_mask` asks for, and no mount maps those";
}

/// A user namespace could not be entered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// Only a process with one thread can enter a user namespace.
    #[error("a user namespace can only be entered before a process starts threads, and this one has {count}")]
    Threads {
        /// How many threads there are.
        count: usize,
    },
    /// The kernel makes no user namespace for this process.
    #[error(
        "not allowed to make a user namespace: look at /proc/sys/user/max_user_namespaces, and at the \
         distribution's restriction (kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
    )]
    NotAllowed(#[source] io::Error),
    /// The ids of the namespace could not be set.
    #[error("cannot write {file} of the new user namespace")]
    IdMap {
        /// The file of the kernel.
        file: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The mounts of the namespace could not be kept in it.
    #[error("cannot keep the mounts of the new user namespace in it")]
    Mounts(#[source] io::Error),
    /// Another call failed, before the namespace was entered.
    #[error("cannot enter a user namespace: {action} failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl NamespaceError {
    /// Whether the process is where it was before, and can go on there.
    pub fn is_outside(&self) -> bool {
        match self {
            NamespaceError::Threads { .. } | NamespaceError::NotAllowed(_) | NamespaceError::Io { .. } => {
                true
            }
            NamespaceError::IdMap { .. } | NamespaceError::Mounts(_) => false,
        }
    }
}

/// A remembered probe that cannot be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeTextError {
    /// A line that is not `key=value` with a known value.
    #[error("line {0:?} of the remembered probe cannot be read")]
    Line(String),
    /// A key is missing, so another version wrote the text.
    #[error("the remembered probe has no {0:?}")]
    Missing(&'static str),
}

fn detail(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

fn detail_or_dmesg(log: &str) -> String {
    if log.is_empty() { ": the kernel log (dmesg) says why".to_owned() } else { format!(": {log}") }
}

fn held_by(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(" by {}", holders.join(", ")) }
}
