//! Archives that are put on top of what a layer has.

use std::collections::HashSet;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

use layerstore_schema::manifest::{Kind, Manifest};
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{SyncPoint, copy_below};
use crate::error::Error;
use crate::layer::{self, Layer, SealedContent, UnpackedLayer};
use crate::meta::{Query, ReadTxn};
use crate::types::{LayerId, TreeDigest};

use super::import::{Durability, Rows};
use super::layer::{changed_meanwhile, found};
use super::remove::Mounts;
use super::seal::{HeldDirectory, refuse_used};
use super::staged::described;
use super::{ApplyOptions, StagedDiff, Store};

impl Store {
    /// Changes a layer by an archive of changes, in any compression that is known: all of it or nothing.
    ///
    /// An empty layer becomes what [`put_layer`](Self::put_layer) makes: sealed, with the archive's digests. A layer that
    /// has something gets what the archive says on top: names are replaced and deleted, and what was deleted from the layers
    /// below stays so. It has no diffID then, as no archive has its content. It is sealed if it was, and writable if it was.
    /// A container's layer stays writable in any case.
    ///
    /// The layer gets another directory, so that nobody sees a part of the changes. Until then it takes the space of both.
    ///
    /// # Locking
    ///
    /// Who wants to mount the layer for writing waits meanwhile, if it is writable.
    ///
    /// Returns what [`stage_diff`](Self::stage_diff) and [`StagedDiff::apply_to`] do.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ApplyOptions, ContainerOptions, LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let from = store.create_container(None, &ContainerOptions::default())?;
    /// let mut tar = Vec::new();
    /// store.diff(&from, &mut tar)?;
    /// let layer = store.create_layer(None, &LayerOptions::named("copy"))?;
    /// let layer = store.apply_diff(&layer.id, &*tar, &ApplyOptions::default())?;
    /// assert_eq!(layer.diff_size, Some(tar.len() as u64));
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn apply_diff(
        &self,
        layer: &LayerId,
        diff: impl Read + Send,
        options: &ApplyOptions,
    ) -> Result<Layer, Error> {
        // What cannot be changed need not be unpacked.
        Target::find(self, layer.as_str(), options)?;
        self.stage_diff(diff, options)?.apply_to(layer)
    }
}

impl StagedDiff {
    /// Changes a layer by it, in one transaction: see [`Store::apply_diff`].
    ///
    /// Returns [`Error::InUse`] if an image or another layer stands on the layer and
    /// [`change_under_others`](ApplyOptions::change_under_others) is not set, a lease keeps it, it or a layer above it is
    /// mounted, or someone else changes it; [`Error::Unsynced`] if it was not on the disk when the machine went down; and
    /// [`Error::Lookup`] if it is not there.
    pub fn apply_to(self, layer: &LayerId) -> Result<Layer, Error> {
        let StagedDiff { store, unpacked, options, point } = self;
        let target = Target::find(&store, layer.as_str(), &options)?;
        let held = target.hold(&store)?;
        let applied = target.apply(&store, &point, unpacked, &options);
        let record = match held {
            Some(held) => held.release_after(applied),
            None => applied,
        }?;
        Ok(Layer::from_record(record)?)
    }
}

/// The layer that is going to be changed.
struct Target {
    record: LayerRecord,
    number: u64,
    /// Whether it is a container's.
    of_container: bool,
}

impl Target {
    fn find(store: &Store, id: &str, options: &ApplyOptions) -> Result<Self, Error> {
        let txn = store.database().begin_read()?;
        let record = found(&txn, id)?;
        refuse_used(&txn, &record.id, options.change_under_others)?;
        store.verify_chain(&txn, id)?;
        store.refuse_mounted_above(&txn, std::slice::from_ref(&record.id))?;
        let number = layer::directory(&txn, &record)?;
        let of_container = txn.container_of_layer(id)?.is_some();
        Ok(Target { record, number, of_container })
    }

    /// A sealed directory changes for nobody; one that may be mounted for writing must not be meanwhile.
    fn hold(&self, store: &Store) -> Result<Option<HeldDirectory>, Error> {
        match self.record.content {
            LayerContent::Writable(number) => store.hold_directory(&self.record.id, number).map(Some),
            LayerContent::Sealed(_) => Ok(None),
        }
    }

    fn apply(
        &self,
        store: &Store,
        point: &SyncPoint,
        unpacked: UnpackedLayer,
        options: &ApplyOptions,
    ) -> Result<LayerRecord, Error> {
        let txn = store.database().begin_read()?;
        let own = self.listing(store, &txn)?;
        let below = store.stack(&txn, self.record.parent.as_deref())?.push(own.clone());
        drop(txn);
        let is_empty = is_empty(&own);
        let writable = matches!(self.record.content, LayerContent::Writable(_));
        if is_empty && !self.of_container {
            let sealed = store.seal_unpacked(unpacked, &below)?;
            let sync = || store.sync_staged(point, true);
            let written = self.replace(store, sync, options, |rows, record| {
                let needed = rows.insert_sealed(described(record, &sealed.streams, options), &sealed)?;
                rows.inserted_chain(&self.record.id)?;
                Ok(needed)
            });
            return store.settle_directory(sealed.directory, written);
        }
        let import = store.import_options();
        let (staging, contents) = layer::complete(unpacked, &below, &import)?;
        let from = store.open_diff(self.number)?;
        copy_below(from.as_fd(), staging.directory(), store.layout().xattrs())?;
        if writable {
            store.sync_writable(point, &staging, true)?;
            let written = self.replace(store, Durability::is_done, options, |rows, record| {
                let content = LayerContent::Writable(staging.number());
                rows.txn.put_layer(&LayerRecord { content, ..record })?;
                Ok(true)
            });
            return store.settle_directory(staging.filled(), written);
        }
        let content = SealedContent::read(staging.directory(), &contents, store.layout().xattrs())?;
        let directory = staging.filled();
        let sync = || store.sync_staged(point, true);
        let written = self.replace(store, sync, options, |rows, record| {
            let needed = rows.insert_tree(directory.number(), &content)?;
            rows.txn.put_layer(&LayerRecord { content: LayerContent::Sealed(content.tree.0), ..record })?;
            rows.inserted_chain(&self.record.id)?;
            Ok(needed)
        });
        store.settle_directory(directory, written)
    }

    fn listing(&self, store: &Store, txn: &ReadTxn) -> Result<Arc<Manifest>, Error> {
        Ok(match self.record.content {
            LayerContent::Sealed(tree) => store.manifest(txn, &TreeDigest(tree))?,
            LayerContent::Writable(number) => {
                let root = store.open_diff(number)?;
                Arc::new(layer::listing(root.as_fd(), store.layout().xattrs())?)
            }
        })
    }

    /// Gives the layer what `insert` makes of its record, which says nothing of a content any more, if it is still as it
    /// was found.
    fn replace(
        &self,
        store: &Store,
        sync: impl Fn() -> Result<Durability, Error>,
        options: &ApplyOptions,
        mut insert: impl FnMut(&mut Rows<'_>, LayerRecord) -> Result<bool, Error>,
    ) -> Result<(LayerRecord, bool), Error> {
        let id = &self.record.id;
        // What is mounted above must not lose its directory.
        store.write_rows(&HashSet::new(), sync, Mounts::Wait, |rows| {
            let current = found(rows.txn, id)?;
            refuse_used(rows.txn, id, options.change_under_others)?;
            store.refuse_mounted_above(rows.txn, std::slice::from_ref(id))?;
            if current.content != self.record.content || layer::directory(rows.txn, &current)? != self.number
            {
                return Err(changed_meanwhile(id));
            }
            let mut bare = current.clone();
            bare.forget_content();
            let needed = insert(rows, bare)?;
            rows.release(&current)?;
            Ok((rows.txn.layer_ref(id)?, needed))
        })
    }
}

/// Whether a layer changes nothing but the metadata of the root.
fn is_empty(manifest: &Manifest) -> bool {
    match manifest.entries() {
        [] => true,
        [root] => root.kind == Kind::Directory { opaque: false },
        _ => false,
    }
}
