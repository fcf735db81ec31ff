//! Changing the store. Each call keeps records, index rows, data items, sums and journal in step, so that no
//! caller can forget one of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::TreeDigest;
use layerstore_schema::record::{
    ContainerRecord, DiffRecord, ImageRecord, ItemRecord, KeptBlobRecord, LayerContent, LayerRecord,
    LeaseRecord, Record, aspect,
};
use layerstore_schema::table::{self, LayerKey, Owner, usage};
use redb::TableDefinition;

use super::blob::{BlobKind, PreparedBlob};
use super::index::Indexed;
use super::journal::{Compared, Effect};
use super::txn::missing;
use super::{Query, Tables, WriteTxn};
use crate::error::MetaError;

/// Directories and files that no row names any more, for the caller to remove after the commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    /// Numbers below `diffs/` and `work/`.
    pub(crate) diffs: Vec<u64>,
    /// Numbers below `blobs/`.
    pub(crate) blobs: Vec<u64>,
    /// Numbers below `data/`.
    pub(crate) data: Vec<u64>,
    /// Layers of additional layer stores that are needed no more, by their directories.
    pub(crate) additional: Vec<PathBuf>,
}

impl Freed {
    /// Takes what another removal freed.
    pub(crate) fn add(&mut self, more: Freed) {
        self.diffs.extend(more.diffs);
        self.blobs.extend(more.blobs);
        self.data.extend(more.data);
        self.additional.extend(more.additional);
    }

    /// All numbers.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.diffs.iter().chain(&self.blobs).chain(&self.data).copied().collect()
    }
}

/// Whether a data item of an image is a manifest, by its key.
pub(crate) fn is_manifest(key: &str) -> bool {
    key == "manifest" || key.starts_with("manifest-")
}

impl WriteTxn {
    /// Inserts or replaces a layer.
    ///
    /// Returns [`MetaError::NameInUse`] if another layer has one of its names.
    pub(crate) fn put_layer(&self, record: &LayerRecord) -> Result<(), MetaError> {
        self.put(table::LAYERS, self.layer(&record.id)?, record)?;
        self.note_beside_layer(record)
    }

    /// Inserts or replaces an image.
    ///
    /// Returns [`MetaError::NameInUse`] if another image has one of its names.
    pub(crate) fn put_image(&self, record: &ImageRecord) -> Result<(), MetaError> {
        self.put(table::IMAGES, self.image(&record.id)?, record)?;
        self.note_beside_image(record)
    }

    /// Inserts or replaces a container.
    ///
    /// Returns [`MetaError::NameInUse`] if another container has one of its names.
    pub(crate) fn put_container(&self, record: &ContainerRecord) -> Result<(), MetaError> {
        self.put(table::CONTAINERS, self.container(&record.id)?, record)?;
        self.note_beside_container(record)
    }

    fn put<R: Record + Indexed + Compared>(
        &self,
        definition: TableDefinition<'static, &'static str, &'static [u8]>,
        old: Option<R>,
        new: &R,
    ) -> Result<(), MetaError> {
        // What can fail comes first: a caller may go on after an error, and commit.
        let bytes = new.encode().map_err(MetaError::Encode)?;
        let old_rows = old.as_ref().map(Indexed::rows).unwrap_or_default();
        self.update_index(&old_rows, &new.rows())?;
        self.open(definition)?.insert(new.id(), bytes.as_slice())?;
        let effect = old.map_or(Effect::Created, |old| Effect::Changed(new.aspects_since(&old)));
        self.note_thing(R::OWNER, new.id(), effect, new.names());
        Ok(())
    }

    /// Removes a layer with its items, and with the last layer of its tree or blobs also those. The caller has
    /// made sure that nothing refers to the layer.
    pub(crate) fn remove_layer(&self, id: &str) -> Result<Freed, MetaError> {
        let record = self.layer_ref(id)?;
        self.remove(table::LAYERS, &record)?;
        if let Some(split) = &record.split {
            self.release_blob(split)?;
        }
        let mut freed = Freed::default();
        match &record.content {
            LayerContent::Writable(number) => freed.diffs.push(self.drop_written(*number)?),
            LayerContent::Sealed(tree) => freed.diffs.extend(self.drop_diff_if_unused(&TreeDigest(*tree))?),
            LayerContent::Additional(path) => freed.additional.push(PathBuf::from(OsStr::from_bytes(path))),
        }
        for blob in &record.blobs {
            freed.blobs.extend(self.drop_kept_blob_if_unused(&blob.digest)?);
        }
        Ok(freed)
    }

    /// Gives back what a layer had by its record `old` and has not by the one that stands there now. A directory that has
    /// only changed from sealed to writable, or back, stays.
    pub(crate) fn release_content(&self, old: &LayerRecord) -> Result<Freed, MetaError> {
        let new = self.layer_ref(&old.id)?;
        if let Some(split) = &old.split {
            self.release_blob(split)?;
        }
        let mut freed = Freed::default();
        match &old.content {
            LayerContent::Writable(_) if new.content == old.content => {}
            LayerContent::Writable(number) => freed.diffs.push(self.drop_written(*number)?),
            LayerContent::Sealed(tree) => freed.diffs.extend(self.drop_diff_if_unused(&TreeDigest(*tree))?),
            LayerContent::Additional(_) if new.content == old.content => {}
            LayerContent::Additional(path) => freed.additional.push(PathBuf::from(OsStr::from_bytes(path))),
        }
        let kept = match new.content {
            LayerContent::Writable(number) => Some(number),
            LayerContent::Sealed(tree) => self.diff(&TreeDigest(tree))?.map(|diff| diff.number),
            LayerContent::Additional(_) => None,
        };
        freed.diffs.retain(|number| Some(*number) != kept);
        for blob in &old.blobs {
            freed.blobs.extend(self.drop_kept_blob_if_unused(&blob.digest)?);
        }
        Ok(freed)
    }

    /// Gives up the directory of a layer that was written to; returns its number.
    fn drop_written(&self, number: u64) -> Result<u64, MetaError> {
        self.forget_made_empty(number)?;
        Ok(number)
    }

    /// Removes an image with its items; its layers stay.
    pub(crate) fn remove_image(&self, id: &str) -> Result<Freed, MetaError> {
        let record = self.image(id)?.ok_or_else(|| missing("image", id))?;
        self.remove(table::IMAGES, &record)?;
        Ok(Freed { data: record.directory.into_iter().collect(), ..Freed::default() })
    }

    /// Removes a container with its items; its layer stays.
    pub(crate) fn remove_container(&self, id: &str) -> Result<Freed, MetaError> {
        let record = self.container(id)?.ok_or_else(|| missing("container", id))?;
        self.remove(table::CONTAINERS, &record)?;
        Ok(Freed { data: record.directory.into_iter().collect(), ..Freed::default() })
    }

    fn remove<R: Record + Indexed>(
        &self,
        definition: TableDefinition<'static, &'static str, &'static [u8]>,
        record: &R,
    ) -> Result<(), MetaError> {
        for (key, _) in self.items(R::OWNER, record.id())? {
            self.remove_item(R::OWNER, record.id(), &key)?;
        }
        self.update_index(&record.rows(), &BTreeSet::new())?;
        self.forget_leased(R::OWNER, record.id())?;
        self.open(definition)?.remove(record.id())?;
        self.note_thing(R::OWNER, record.id(), Effect::Removed, record.names());
        Ok(())
    }

    /// Inserts or replaces a lease.
    pub(crate) fn put_lease(&self, record: &LeaseRecord) -> Result<(), MetaError> {
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(table::LEASES)?.insert(record.id.as_str(), bytes.as_slice())?;
        Ok(())
    }

    /// Removes a lease; `false` if there was none. What it named stays.
    pub(crate) fn remove_lease(&self, id: &str) -> Result<bool, MetaError> {
        self.open(table::LEASES)?.remove(id)
    }

    /// Takes a thing that is removed from the leases that name it: a lease names only what there is.
    fn forget_leased(&self, owner: Owner, id: &str) -> Result<(), MetaError> {
        for mut lease in self.leases()? {
            let before = lease.things.len();
            lease.things.retain(|(code, thing)| (*code, thing.as_str()) != (owner.code(), id));
            if lease.things.is_empty() {
                self.remove_lease(&lease.id)?;
            } else if lease.things.len() < before {
                self.put_lease(&lease)?;
            }
        }
        Ok(())
    }

    /// Says which directory holds a tree.
    pub(crate) fn put_diff(
        &self,
        tree: &TreeDigest,
        record: DiffRecord,
        manifest: &PreparedBlob,
    ) -> Result<(), MetaError> {
        BlobKind::Manifest.check(manifest)?;
        let record = DiffRecord { manifest: self.put_blob(manifest)?, ..record };
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(table::DIFFS)?.insert(&tree.0, bytes.as_slice())?;
        self.add_usage(usage::DIFF_BYTES, record.disk_bytes.cast_signed())?;
        self.add_usage(usage::DIFF_INODES, record.inodes.cast_signed())
    }

    /// Says that another directory holds a tree from now on; returns the number of the one that did.
    pub(crate) fn move_diff(
        &self,
        tree: &TreeDigest,
        number: u64,
        disk_bytes: u64,
        inodes: u64,
    ) -> Result<u64, MetaError> {
        let old = self.diff(tree)?.ok_or_else(|| missing("diff", tree))?;
        let new = DiffRecord { number, disk_bytes, inodes, ..old.clone() };
        let bytes = new.encode().map_err(MetaError::Encode)?;
        self.open(table::DIFFS)?.insert(&tree.0, bytes.as_slice())?;
        self.add_usage(usage::DIFF_BYTES, disk_bytes.cast_signed().wrapping_sub_unsigned(old.disk_bytes))?;
        self.add_usage(usage::DIFF_INODES, inodes.cast_signed().wrapping_sub_unsigned(old.inodes))?;
        self.forget_unsynced([old.number])?;
        Ok(old.number)
    }

    /// Removes the row of a tree that no layer has; returns the directory's number.
    pub(crate) fn drop_diff_if_unused(&self, tree: &TreeDigest) -> Result<Option<u64>, MetaError> {
        if self.layer_by(LayerKey::Tree, &tree.to_string())?.is_some() {
            return Ok(None);
        }
        let record = self.diff(tree)?.ok_or_else(|| missing("diff", tree))?;
        self.release_blob(&record.manifest)?;
        self.open(table::DIFFS)?.remove(&tree.0)?;
        self.forget_unsynced([record.number])?;
        self.add_usage(usage::DIFF_BYTES, record.disk_bytes.cast_signed().wrapping_neg())?;
        self.add_usage(usage::DIFF_INODES, record.inodes.cast_signed().wrapping_neg())?;
        Ok(Some(record.number))
    }

    /// Says which file holds a blob as delivered.
    pub(crate) fn put_kept_blob(&self, digest: &str, record: &KeptBlobRecord) -> Result<(), MetaError> {
        let bytes = record.encode().map_err(MetaError::Encode)?;
        let old = self.open(table::KEPT_BLOBS)?.insert(digest, bytes.as_slice())?;
        self.note_blob(digest, if old { Effect::Changed(aspect::RECORD) } else { Effect::Created });
        self.add_usage(usage::KEPT_BLOB_BYTES, record.size.cast_signed())
    }

    /// Removes the row of a kept blob; returns the file's number.
    pub(crate) fn drop_kept_blob(&self, digest: &str) -> Result<Option<u64>, MetaError> {
        let Some(record) = self.kept_blob(digest)? else { return Ok(None) };
        self.open(table::KEPT_BLOBS)?.remove(digest)?;
        self.forget_unsynced([record.number])?;
        self.note_blob(digest, Effect::Removed);
        self.add_usage(usage::KEPT_BLOB_BYTES, record.size.cast_signed().wrapping_neg())?;
        Ok(Some(record.number))
    }

    fn drop_kept_blob_if_unused(&self, digest: &str) -> Result<Option<u64>, MetaError> {
        if self.layer_by(LayerKey::Blob, digest)?.is_none() { self.drop_kept_blob(digest) } else { Ok(None) }
    }

    /// Stores a data item, in place of the one with this key. If it is a manifest of an image, the image is known by
    /// `digest` from now on, unless [`name_manifest`](Self::name_manifest) says another.
    pub(crate) fn put_item(
        &self,
        owner: Owner,
        id: &str,
        key: &str,
        digest: String,
        blob: &PreparedBlob,
    ) -> Result<(), MetaError> {
        BlobKind::Item.check(blob)?;
        let hash = self.put_blob(blob)?;
        let old = self.item(owner, id, key)?;
        if let Some(old) = &old {
            self.release_blob(&old.blob)?;
        }
        let record = ItemRecord { size: blob.size(), digest, blob: hash };
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(table::ITEMS)?.insert((owner.code(), id, key), bytes.as_slice())?;
        if old.as_ref() != Some(&record) {
            self.note_items(owner, id);
        }
        if owner == Owner::Image && is_manifest(key) {
            self.name_manifest(id, key, Some(&record.digest))?;
        }
        Ok(())
    }

    /// Says by which digest an image is known for the sake of a data item that is a manifest; `None` if by none.
    pub(crate) fn name_manifest(
        &self,
        image: &str,
        key: &str,
        digest: Option<&str>,
    ) -> Result<(), MetaError> {
        let Some(mut record) = self.image(image)? else { return Ok(()) };
        let before = record.manifests.clone();
        match (record.manifests.iter_mut().find(|(held, _)| held == key), digest) {
            (Some((_, held)), Some(digest)) => digest.clone_into(held),
            (None, Some(digest)) => record.manifests.push((key.to_owned(), digest.to_owned())),
            (_, None) => record.manifests.retain(|(held, _)| held != key),
        }
        if record.manifests == before { Ok(()) } else { self.put_image(&record) }
    }

    /// Removes a data item; `false` if there was none.
    pub(crate) fn remove_item(&self, owner: Owner, id: &str, key: &str) -> Result<bool, MetaError> {
        let Some(old) = self.item(owner, id, key)? else { return Ok(false) };
        self.open(table::ITEMS)?.remove((owner.code(), id, key))?;
        self.release_blob(&old.blob)?;
        self.note_items(owner, id);
        if owner == Owner::Image && is_manifest(key) {
            self.name_manifest(id, key, None)?;
        }
        Ok(true)
    }

    /// Takes a name from the thing of its kind that has it; an image keeps it in its history.
    pub(crate) fn take_name(&self, owner: Owner, name: &str) -> Result<(), MetaError> {
        let Some(holder) = self.named(owner, name)? else { return Ok(()) };
        let gone = || missing(owner.word(), &holder);
        match owner {
            Owner::Layer => {
                let mut layer = self.layer(&holder)?.ok_or_else(gone)?;
                layer.names.retain(|held| held != name);
                self.put_layer(&layer)
            }
            Owner::Image => {
                let mut image = self.image(&holder)?.ok_or_else(gone)?;
                image.names.retain(|held| held != name);
                self.put_image(&image)
            }
            Owner::Container => {
                let mut container = self.container(&holder)?.ok_or_else(gone)?;
                container.names.retain(|held| held != name);
                self.put_container(&container)
            }
        }
    }

    /// Adds to a sum over all records.
    pub(super) fn add_usage(&self, key: &str, change: i64) -> Result<(), MetaError> {
        let mut sums = self.open(table::USAGE)?;
        let old = sums.get(key)?.map_or(0, |row| row.value());
        sums.insert(key, old.saturating_add_signed(change))?;
        Ok(())
    }

    /// Writes the header of a database that has none, and its tables.
    pub(crate) fn initialize(
        &self,
        header: layerstore_schema::header::Header,
    ) -> Result<layerstore_schema::header::Header, MetaError> {
        let failed = MetaError::database("brought the store to the current format");
        self.0.run(|txn| layerstore_schema::migration::migrate(txn, header).map_err(&failed))
    }
}
