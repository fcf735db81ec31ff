//! Snapshots of containerd among the layers.
//!
//! containerd mounts them by itself, in whatever mount namespace, from the directories that it is told: the kernel's table says nothing
//! of that to the store. So what would take the files from below such a mount is refused whether there is one or not. The
//! [snapshotter](crate::snapshotter) does what containerd asks for, and says the name of the snapshot for it.

use layerstore_schema::record::LayerRecord;

use crate::disk::XattrNamespace;
use crate::error::InUseError;
use crate::layer::SnapshotName;

use super::{Store, StoreOptions};

/// Refuses to change or remove a snapshot, unless the caller says the name that makes it one.
pub(super) fn refuse_snapshot(layer: &LayerRecord, said: Option<&str>) -> Result<(), InUseError> {
    match SnapshotName::of(layer) {
        Some(snapshot) if said != Some(snapshot.name) => Err(in_use(layer, snapshot)),
        _ => Ok(()),
    }
}

/// Refuses to put something on a snapshot that can still change or go: containerd could neither commit nor remove it.
pub(super) fn refuse_uncommitted(below: &LayerRecord) -> Result<(), InUseError> {
    match SnapshotName::of(below) {
        Some(snapshot) if !snapshot.is_committed() => Err(in_use(below, snapshot)),
        _ => Ok(()),
    }
}

/// Refuses to make of a snapshot what is none, or another one.
pub(super) fn refuse_renaming(before: &LayerRecord, after: &LayerRecord) -> Result<(), InUseError> {
    match SnapshotName::of(before) {
        Some(snapshot) if SnapshotName::of(after) != Some(snapshot) => Err(in_use(before, snapshot)),
        _ => Ok(()),
    }
}

fn in_use(layer: &LayerRecord, snapshot: SnapshotName<'_>) -> InUseError {
    InUseError::Snapshot { layer: layer.id.clone(), key: snapshot.key() }
}

/// What a repair takes from a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// It gets another directory.
    Directory,
    /// Its record goes, with all it has.
    Everything,
}

/// Refuses to take from a snapshot what containerd has or may have in use: it mounts those that are not committed, and names all.
pub(crate) fn refuse_loss(layer: &LayerRecord, loss: Loss) -> Result<(), InUseError> {
    match loss {
        Loss::Directory => refuse_uncommitted(layer),
        Loss::Everything => refuse_snapshot(layer, None),
    }
}

impl Store {
    /// Whether layers have the attributes of overlayfs that users can set, and not those that only root can.
    pub(crate) fn uses_user_attributes(&self) -> bool {
        self.layout().xattrs() == XattrNamespace::User
    }
}

impl StoreOptions {
    /// The first setting that cannot hold for a layer that others mount and write to by themselves, and why.
    pub(crate) fn unfit_for_snapshots(&self) -> Option<(&'static str, &'static str)> {
        let settings = [
            (
                self.prefer_mount_program,
                "mount_program",
                "has no effect on containerd, which mounts snapshots by itself, with the kernel's overlayfs",
            ),
            (
                self.force_mask.is_some(),
                "force_mask",
                "has no effect on containerd, which gives what it unpacks its own modes and owners",
            ),
            (
                self.use_composefs,
                "use_composefs",
                "has no effect on containerd, which mounts the directories of snapshots, and nothing verifies them",
            ),
        ];
        settings.into_iter().find_map(|(is_set, setting, reason)| is_set.then_some((setting, reason)))
    }
}
