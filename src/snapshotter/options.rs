//! How a snapshotter behaves, and how a snapshot is committed.

use std::collections::BTreeMap;

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
    /// More options of each overlay mount, such as `volatile`, which views do not get, or `index=on`.
    pub mount_options: Vec<String>,
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
