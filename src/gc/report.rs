//! What a collection tells.

use std::path::PathBuf;

use crate::error::Error;
use crate::store::Uncollected;

/// What a collection removed, or would remove.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// Everything that was removed.
    pub removed: Vec<Garbage>,
    /// The bytes that it took on the disk.
    pub bytes: u64,
    /// Garbage that could not be removed, or that may be none; the next collection tries again.
    pub left: Vec<Uncollected>,
}

/// Something that nothing in the store needs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Garbage {
    /// What it was.
    pub kind: GarbageKind,
    /// Where it was. A lease or a mount count is in a database.
    pub path: PathBuf,
    /// The id of the lease, or of the layer or container that it belonged to, where that is known.
    pub id: Option<String>,
    /// The bytes it took on the disk, as far as they could be measured.
    pub bytes: u64,
}

/// The kinds of garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum GarbageKind {
    /// A layer's directory that was never finished, or whose layer is gone.
    Directory,
    /// Files of a layer that were replaced while it was unpacked.
    Aside,
    /// A blob that was never finished, or whose layers are gone.
    Blob,
    /// The directory of an image or a container that is gone, or that was never finished.
    Data,
    /// The composefs image of a layer that is gone, or one that was never finished.
    Composefs,
    /// A file that composefs images shared, and that none has any more.
    Content,
    /// The workdir of a layer that is gone.
    Workdir,
    /// Something that was being deleted.
    Trash,
    /// The lock file of a process that died.
    Lock,
    /// A lease that has expired.
    Lease,
    /// A layer that only an expired lease has kept.
    Layer,
    /// A count of mounts where nothing is mounted.
    MountCount,
    /// A mount point where nothing is mounted.
    MountPoint,
    /// The run directory of a container or an image that is gone.
    RunDirectory,
}

impl GarbageKind {
    /// A word for the kind, for programs: it stays the same in all releases.
    pub fn word(self) -> &'static str {
        match self {
            GarbageKind::Directory => "directory",
            GarbageKind::Aside => "aside",
            GarbageKind::Blob => "blob",
            GarbageKind::Data => "data",
            GarbageKind::Composefs => "composefs",
            GarbageKind::Content => "content",
            GarbageKind::Workdir => "workdir",
            GarbageKind::Trash => "trash",
            GarbageKind::Lock => "lock",
            GarbageKind::Lease => "lease",
            GarbageKind::Layer => "layer",
            GarbageKind::MountCount => "mount-count",
            GarbageKind::MountPoint => "mount-point",
            GarbageKind::RunDirectory => "run-directory",
        }
    }
}

impl GcReport {
    pub(super) fn add(&mut self, kind: GarbageKind, path: PathBuf, id: Option<String>, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.removed.push(Garbage { kind, path, id, bytes });
    }

    pub(super) fn leave(&mut self, path: PathBuf, error: impl Into<Error>) {
        self.left.push(Uncollected { path, error: error.into() });
    }
}
