//! How much there is, and whose it is. Sizes were counted when the layers came in; nothing is measured here but what
//! is written to.

use std::collections::{BTreeSet, HashSet};

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::{LayerKey, usage as sums};

use crate::disk::{self, LockState};
use crate::error::Error;
use crate::meta::{Query, RunDatabase};
use crate::sys::path;
use crate::types::{LayerId, TreeDigest};

use super::view::View;
use super::{Lease, Store, ThingId};

/// What a thing takes on the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Everything it stands on, each directory once.
    pub total: u64,
    /// What only this thing has: so much is freed when it is removed. Nothing of what is in another store.
    pub unique: u64,
    /// The length of its files, as their content says.
    pub content: u64,
    /// Inodes of everything it stands on.
    pub inodes: u64,
    /// Of `total`: an image's copies with other owners, its [`mapped_top_layers`](crate::Image::mapped_top_layers).
    pub mapped: u64,
}

/// The store as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// How many layers there are.
    pub layers: u64,
    /// How many images.
    pub images: u64,
    /// How many containers.
    pub containers: u64,
    /// Bytes on disk of all sealed layers.
    pub layer_bytes: u64,
    /// Inodes of all sealed layers.
    pub layer_inodes: u64,
    /// Bytes of the blobs that are kept as delivered.
    pub kept_blob_bytes: u64,
    /// Bytes of data items, manifests and tar-splits in the database.
    pub item_bytes: u64,
    /// Bytes on disk of the database file.
    pub database_bytes: u64,
    /// Directories and blobs that are just being filled or removed.
    pub in_progress: u64,
    /// Those that a process which died was filling or removing, each counted once; [`Store::gc`] lists each of their parts, and says how
    /// many bytes they take. What a power cut, leases or mounts left is not counted here: to find it, everything is listed.
    pub leftovers: u64,
    /// Directories of layers and kept blobs that were written in this boot and not synced: see [`Store::sync`].
    pub unsynced: u64,
    /// Directories of layers and kept blobs that were not synced when the machine went down, and are looked at before
    /// they are used.
    pub unverified: u64,
    /// Leases, with those that are over.
    pub leases: Vec<Lease>,
    /// Layers that are mounted in this mount namespace, as the kernel says: id, and how many asked for it.
    pub mounts: Vec<(String, u64)>,
    /// Why `mounts` tells of none, in a store that is open for reading only: others could have written in its run root, or it is
    /// no directory.
    pub mounts_unknown: Option<String>,
}

impl Store {
    /// The store as a whole: counts and sums, none of which needs a walk. A separate store for images is counted in; other
    /// stores that are read are not.
    ///
    /// Returns [`Error::Meta`] if a database fails.
    pub fn status(&self) -> Result<Status, Error> {
        let txn = self.database().begin_read()?;
        let path = self.database().path();
        let database = path::stat(path).map_err(|source| Error::Io {
            action: "examine",
            path: path.to_owned(),
            source,
        })?;
        let (mut layers, images, mut containers) = txn.counts()?;
        if let Some(run) = self.transient(&txn)? {
            let (more_layers, _, more_containers) = run.rows().begin_read()?.counts()?;
            layers = layers.saturating_add(more_layers);
            containers = containers.saturating_add(more_containers);
        }
        let (in_progress, leftovers) = self.count_locks()?;
        let leases = txn.leases()?.into_iter().map(Lease::from_record).collect::<Result<_, _>>()?;
        let (unsynced, unverified) = self.count_unsynced(&txn)?;
        let (mounts, mounts_unknown) = match self.run_to_look_at()? {
            Ok(Some(run)) => (self.mount_counts(run)?, None),
            Ok(None) => (Vec::new(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        let own = Status {
            layers,
            images,
            containers,
            layer_bytes: txn.usage(sums::DIFF_BYTES)?,
            layer_inodes: txn.usage(sums::DIFF_INODES)?,
            kept_blob_bytes: txn.usage(sums::KEPT_BLOB_BYTES)?,
            item_bytes: txn.usage(sums::BLOB_BYTES)?,
            database_bytes: database.allocated,
            in_progress,
            leftovers,
            unsynced,
            unverified,
            leases,
            mounts,
            mounts_unknown,
        };
        match self.separate_images() {
            Some(images) => Ok(own.and(images.status()?)),
            None => Ok(own),
        }
    }

    /// How many numbers someone holds, and how many someone held who died.
    fn count_locks(&self) -> Result<(u64, u64), Error> {
        let (mut held, mut dead) = (0u64, 0u64);
        for number in disk::locked_numbers(self.layout())? {
            match disk::lock_state(self.layout(), number)? {
                LockState::Held => held = held.saturating_add(1),
                LockState::Dead => dead = dead.saturating_add(1),
                LockState::Free => {}
            }
        }
        Ok((held, dead))
    }

    /// Which layers are mounted, by the kernel's word, and how many have asked for each. A count alone is none.
    fn mount_counts(&self, run: &RunDatabase) -> Result<Vec<(String, u64)>, Error> {
        let layers: BTreeSet<String> = run.mounts()?.into_iter().map(|mount| mount.layer).collect();
        let mut counts = Vec::new();
        for layer in layers {
            if let Some(mount) = self.mount_of_layer(&layer)? {
                counts.push((layer, mount.count));
            }
        }
        Ok(counts)
    }

    /// What a layer, image or container takes on the disk. The directory of a layer that is written to is
    /// walked; all others are known. With an image count its copies with other owners, which mounts of containers with ids of their
    /// own made of it; they go with the image.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn usage(&self, of: impl Into<ThingId>) -> Result<Usage, Error> {
        let of = of.into();
        let txn = self.begin_read()?;
        let top = match self.layer_of(&txn, &of) {
            Err(Error::Lookup(crate::error::LookupError::NoLayers { .. })) => return Ok(Usage::default()),
            top => top?,
        };
        let mut usage = Usage::default();
        let mut trees = HashSet::new();
        let chain = txn.chain(&top.id)?;
        let going = going_with(&txn, &of, &chain)?;
        for layer in &chain {
            match layer.content {
                LayerContent::Sealed(tree) if !trees.insert(tree) => {}
                _ => usage.add_layer(&txn, layer, &going)?,
            }
        }
        let own = usage.total;
        for copy in copies_of(&txn, &of)? {
            let going = going_with(&txn, &of, std::slice::from_ref(&copy))?;
            match copy.content {
                LayerContent::Sealed(tree) if !trees.insert(tree) => {}
                _ => usage.add_layer(&txn, &copy, &going)?,
            }
        }
        usage.mapped = usage.total.saturating_sub(own);
        Ok(usage)
    }

    /// What a layer takes on the disk without those below it. The directory of one that is written to is walked.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_usage(&self, id: &LayerId) -> Result<Usage, Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &id.into())?;
        let going = going_with(&txn, &id.into(), std::slice::from_ref(&layer))?;
        let mut usage = Usage::default();
        usage.add_layer(&txn, &layer, &going)?;
        Ok(usage)
    }

    /// The layer's own bytes: on disk, and as the content of its files says. `None` for a layer that is written to.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_size(&self, id: &LayerId) -> Result<Option<(u64, u64)>, Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &id.into())?;
        let LayerContent::Sealed(tree) = layer.content else { return Ok(None) };
        Ok(txn.diff(&TreeDigest(tree))?.map(|(_, diff)| (diff.disk_bytes, diff.content_bytes)))
    }
}

/// The copies with other owners that a thing has if it is an image. They stand on nothing. One whose record is lost takes nothing that
/// could be told.
fn copies_of(txn: &View<'_>, of: &ThingId) -> Result<Vec<LayerRecord>, Error> {
    let ThingId::Image(id) = of else { return Ok(Vec::new()) };
    let copies = txn.image(id.as_str())?.map(|image| image.mapped_top_layers).unwrap_or_default();
    let records = copies.iter().map(|copy| txn.layer(copy)).collect::<Result<Vec<_>, _>>()?;
    Ok(records.into_iter().flatten().collect())
}

/// The layers of a thing's chain, topmost first, that go when it is removed. A layer or container goes alone; with an image
/// go its layers as far down as nothing else needs them. A name is a need, too.
fn going_with(txn: &View<'_>, of: &ThingId, chain: &[LayerRecord]) -> Result<HashSet<String>, Error> {
    let users = |layer: &LayerRecord| -> Result<usize, Error> {
        Ok(txn.children(&layer.id)?.len().saturating_add(txn.images_of_layer(&layer.id)?.len()))
    };
    if !matches!(of, ThingId::Image(_)) {
        let Some(top) = chain.first() else { return Ok(HashSet::new()) };
        return Ok(if users(top)? == 0 { HashSet::from([top.id.clone()]) } else { HashSet::new() });
    }
    let mut going = HashSet::new();
    for layer in chain {
        // The image, or the layer above, which goes as well.
        if users(layer)? > 1 || !layer.names.is_empty() {
            break;
        }
        going.insert(layer.id.clone());
    }
    Ok(going)
}

impl Status {
    /// Two stores together.
    fn and(self, other: Status) -> Status {
        Status {
            layers: self.layers.saturating_add(other.layers),
            images: self.images.saturating_add(other.images),
            containers: self.containers.saturating_add(other.containers),
            layer_bytes: self.layer_bytes.saturating_add(other.layer_bytes),
            layer_inodes: self.layer_inodes.saturating_add(other.layer_inodes),
            kept_blob_bytes: self.kept_blob_bytes.saturating_add(other.kept_blob_bytes),
            item_bytes: self.item_bytes.saturating_add(other.item_bytes),
            database_bytes: self.database_bytes.saturating_add(other.database_bytes),
            in_progress: self.in_progress.saturating_add(other.in_progress),
            leftovers: self.leftovers.saturating_add(other.leftovers),
            unsynced: self.unsynced.saturating_add(other.unsynced),
            unverified: self.unverified.saturating_add(other.unverified),
            leases: [self.leases, other.leases].concat(),
            mounts: [self.mounts, other.mounts].concat(),
            mounts_unknown: self.mounts_unknown.or(other.mounts_unknown),
        }
    }
}

impl Usage {
    /// Adds what a layer itself has; `going` is what goes with the thing that is measured.
    fn add_layer(
        &mut self,
        txn: &View<'_>,
        layer: &LayerRecord,
        going: &HashSet<String>,
    ) -> Result<(), Error> {
        match layer.content {
            // What is in an additional layer store takes nothing here.
            LayerContent::Additional(_) => {}
            LayerContent::Writable(_) => {
                let measured = txn.written_usage(layer)?;
                let unique = going.contains(&layer.id);
                self.add(measured.allocated, measured.apparent, measured.inodes, unique);
            }
            LayerContent::Sealed(tree) => {
                let tree = TreeDigest(tree);
                let Some((part, diff)) = txn.diff_of(layer, &tree)? else { return Ok(()) };
                // The directory goes with the last layer that has this tree.
                let sharers = txn.layers_by(LayerKey::Tree, &tree.to_string())?;
                let unique = !part.is_other() && sharers.iter().all(|layer| going.contains(layer));
                self.add(diff.disk_bytes, diff.content_bytes, diff.inodes, unique);
            }
        }
        Ok(())
    }

    fn add(&mut self, bytes: u64, content: u64, inodes: u64, unique: bool) {
        self.total = self.total.saturating_add(bytes);
        self.content = self.content.saturating_add(content);
        self.inodes = self.inodes.saturating_add(inodes);
        if unique {
            self.unique = self.unique.saturating_add(bytes);
        }
    }
}
