//! How a snapshotter behaves, and how a snapshot is committed.

use std::collections::BTreeMap;

use super::words;
use crate::error::SnapshotError;

/// How a [`Snapshotter`](super::Snapshotter) behaves. The fields are those of containerd's overlay snapshotter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotterOptions {
    /// Show where a snapshot's changes are, in the label `containerd.io/snapshot/overlay.upperdir`. It is not kept.
    pub upperdir_label: bool,
    /// Leave the files of what is removed to [`cleanup`](super::Snapshotter::cleanup).
    pub async_remove: bool,
    /// Put the maps of the labels `containerd.io/snapshot/uidmapping` and `gidmapping` into the mounts, as `uidmap=` and
    /// `gidmap=`.
    pub remap_ids: bool,
    /// Take a committed snapshot with the label `containerd.io/snapshot.ref` for what somebody else prepares with the same label, above
    /// the same parent: see [`prepare`](super::Snapshotter::prepare). Off, as who is told so does not fetch the layer's blob: a
    /// containerd namespace would have images whose content is in another one only.
    pub adopt_references: bool,
    /// More options of each overlay mount, each by itself: of overlayfs `volatile`, which views do not get, `userxattr`, and `index`,
    /// `metacopy`, `nfs_export`, `redirect_dir`, `uuid` and `xino` with a value; and attributes of a mount, such as `nodev`.
    pub mount_options: Vec<String>,
}

impl SnapshotterOptions {
    /// Tells whether the options make sense, without a store. [`Snapshotter::new`](super::Snapshotter::new) does it as well.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if a mount option is none, names a directory, is given twice, or wants another one
    /// that is not given.
    pub fn check(&self) -> Result<(), SnapshotError> {
        words::check(&self.mount_options)
    }
}

/// How a snapshot is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitOptions {
    /// The labels of the committed snapshot. It does not inherit those of the active one.
    pub labels: BTreeMap<String, String>,
    /// The snapshot below, for one that was prepared without any: it is moved onto this one. Else `None`, or the one that is below.
    pub parent: Option<String>,
}
