//! New snapshots: to be written to, and to be looked at.

use std::collections::BTreeMap;

use super::idmap::Maps;
use super::record::{self, Record};
use super::{Info, Kind, Snapshotter, exists, failed, failed_above, not_found};
use crate::error::{Error, MetaError, SnapshotError};
use crate::layer::SNAPSHOT_PREFIX;
use crate::store::{LayerOptions, MountEntry, Quota, Removal};
use crate::sys::moment;

/// The name that a snapshot is to be committed by, as who unpacks an image says when it prepares it.
const REFERENCE: &str = "containerd.io/snapshot.ref";

impl Snapshotter {
    /// Makes a snapshot that is written to, above a committed one or above nothing, and says how it is mounted. Its root directory
    /// has the metadata of the one below, or the mode 0755; with id maps in the labels it belongs to the root user that they give.
    /// The store's default [`Quota`] is for containers, and does not limit it.
    ///
    /// With [`adopt_references`](super::SnapshotterOptions::adopt_references) and the label `containerd.io/snapshot.ref` it is asked first
    /// whether there is a committed snapshot with the same label above the same parent: then nothing is made, and who unpacks an image
    /// need not unpack this layer, nor fetch it.
    ///
    /// Returns [`SnapshotError::AlreadyExists`] if the key is taken, or for the reference; [`SnapshotError::NotFound`] with the parent
    /// if there is none such; [`SnapshotError::InvalidArgument`] if it is not committed, the key is empty or too long, or an id map is
    /// none; and [`SnapshotError::FailedPrecondition`] if the store lies at a path with a comma, colon or backslash, which cannot be said
    /// in mount options, or is only read, the kernel has no overlay mounts for it, or the snapshot stands on more layers than containerd
    /// can mount: some 230.
    pub fn prepare(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        self.create(Kind::Active, key, parent, labels)
    }

    /// Makes a snapshot that is looked at, and says how it is mounted.
    ///
    /// Returns what [`prepare`](Self::prepare) does, but for references.
    pub fn view(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        self.create(Kind::View, key, parent, labels)
    }

    fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        let name = record::name_of(key)?;
        let parent = match parent.filter(|parent| !parent.is_empty()) {
            Some(parent) => {
                let found = self.find(parent)?;
                if found.info.kind != Kind::Committed {
                    return Err(SnapshotError::InvalidArgument {
                        what: "the parent",
                        value: parent.to_owned(),
                        reason: "it is not committed".to_owned(),
                    });
                }
                Some(found)
            }
            None => None,
        };
        let below = parent.as_ref().map(|parent| &parent.layer);
        let mut options = LayerOptions::named(name.as_str());
        options.root_owner = Maps::of(labels)?.map(|maps| maps.root()).transpose()?;
        options.labels = record::labels(labels);
        options.flags = record::flags(kind);
        options.read_only = kind == Kind::View;
        // A default of the store's is for containers; an image that is unpacked takes what it takes.
        options.quota = Quota { size: Some(0), inodes: Some(0) };
        moment::pass("snapshot found");
        if let Some(reference) = labels.get(REFERENCE)
            && kind == Kind::Active
            && self.options.adopt_references
            && self.has_reference(reference, parent.as_ref())?
        {
            return Err(exists(reference));
        }
        let layer = match self.store.create_layer(below, &options) {
            Err(Error::Meta(MetaError::NameInUse { .. })) => return Err(exists(key)),
            layer => layer.map_err(|error| failed_above(error, key, parent.as_ref()))?,
        };
        let id = layer.id.clone();
        let mounts =
            Record::of(layer).ok_or_else(|| not_found(key)).and_then(|record| self.mounts_of(&record));
        if mounts.is_err()
            && let Err(error) = self.store.begin_removing_layer_named(&id, &name).map(Removal::finish)
        {
            tracing::warn!(%error, key, "a snapshot that cannot be mounted is left");
        }
        mounts
    }

    /// Whether there is a committed snapshot for a reference above a parent: by the label, as containerd then looks for it by that alone.
    fn has_reference(&self, reference: &str, parent: Option<&Record>) -> Result<bool, SnapshotError> {
        let layers = match parent {
            Some(parent) => {
                let above = self.store.layers_above(&parent.layer);
                above.map_err(|error| failed(error, &parent.info.name))?
            }
            None => {
                let named = self.store.layers_named(SNAPSHOT_PREFIX)?;
                named.into_iter().filter(|layer| layer.parent.is_none()).collect()
            }
        };
        let is_it = |Info { kind, labels, .. }: &Info| {
            *kind == Kind::Committed && labels.get(REFERENCE).is_some_and(|label| label == reference)
        };
        Ok(layers.into_iter().filter_map(Record::of).any(|record| is_it(&record.info)))
    }
}
