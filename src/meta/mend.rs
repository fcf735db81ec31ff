//! Changes that take nothing for granted: for a repair, which works where the rows do not fit together, and where
//! everything of [`write`](mod@super::write) would stop at the first record that cannot be read.

use std::collections::{BTreeMap, BTreeSet};

use layerstore_schema::header::{HEADER_KEY, Header};
use layerstore_schema::record::{
    ContainerRecord, DiffRecord, ImageRecord, ItemRecord, LayerContent, LayerRecord, Record, aspect,
};
use layerstore_schema::table::{self, Owner};
use redb::TableDefinition;

use super::audit::{Records, RowKey};
use super::index::{IndexRow, Indexed, stored_rows};
use super::journal::Effect;
use super::{BlobKind, Freed, PreparedBlob, Query, Tables, WriteTxn};
use crate::error::MetaError;
use crate::types::TreeDigest;

/// What [`WriteTxn::normalize`] does with rows that nothing refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unused {
    /// They stay: something else may be made again from them.
    Keep,
    /// They go.
    Remove,
}

impl WriteTxn {
    /// Makes every row right that follows from others: index rows, sums, counts of users; and if asked to, removes
    /// what nothing refers to. What follows from a record that cannot be read is left alone.
    ///
    /// Returns the directories and files of the rows that went.
    pub(crate) fn normalize(&self, unused: Unused) -> Result<Freed, MetaError> {
        let mut freed = Freed::default();
        let mut records = Records::read(self)?;
        if unused == Unused::Remove {
            self.remove_unused(&mut records, &mut freed)?;
            self.end_dangling_leases(&records)?;
        }
        self.count_users(&records, unused)?;
        if unused == Unused::Remove {
            records = Records::read(self)?;
            self.remove_orphan_chunks(&records)?;
        }
        self.forget_unused_marks(&records)?;
        self.write_sums(&records)?;
        self.write_indexes(&records)?;
        for (number, _) in &records.journal {
            self.open(table::JOURNAL)?.remove(*number)?;
        }
        Ok(freed)
    }

    fn remove_unused(&self, records: &mut Records, freed: &mut Freed) -> Result<(), MetaError> {
        let unowned: Vec<_> = records.items.keys().filter(|key| !records.has_owner(key)).cloned().collect();
        for key in unowned {
            self.erase(&RowKey::Item(key.0, key.1.clone(), key.2.clone()))?;
            records.items.remove(&key);
        }
        if !records.are_readable(&["layer"]) {
            return Ok(());
        }
        let trees = records.used_trees();
        let unused: Vec<_> = records.diffs.keys().filter(|tree| !trees.contains(*tree)).copied().collect();
        for tree in unused {
            self.erase(&RowKey::Diff(tree))?;
            let number = records.diffs.remove(&tree).map(|record| record.number);
            freed.diffs.extend(number);
        }
        let blobs = records.used_blobs();
        let unused: Vec<_> =
            records.kept_blobs.keys().filter(|digest| !blobs.contains(digest.as_str())).cloned().collect();
        for digest in unused {
            self.erase(&RowKey::KeptBlob(digest.clone()))?;
            freed.blobs.extend(records.kept_blobs.remove(&digest).map(|record| record.number));
        }
        Ok(())
    }

    /// Takes from leases what is not there, and ends those that keep nothing then or cannot be read.
    fn end_dangling_leases(&self, records: &Records) -> Result<(), MetaError> {
        for damaged in &records.damaged {
            if let RowKey::Lease(_) = damaged.row {
                self.erase(&damaged.row)?;
            }
        }
        for (id, lease) in &records.leases {
            let mut kept = lease.clone();
            kept.things.retain(|(owner, thing)| records.has_owner(&(*owner, thing.clone(), String::new())));
            if kept.things.is_empty() && !lease.things.is_empty() {
                self.remove_lease(id)?;
            } else if kept != *lease {
                self.put_lease(&kept)?;
            }
        }
        Ok(())
    }

    /// Forgets that something is not synced that is not there.
    fn forget_unused_marks(&self, records: &Records) -> Result<(), MetaError> {
        if records.are_readable(&["diff", "kept blob"]) {
            let diffs = records.diffs.values().map(|diff| diff.number);
            let blobs = records.kept_blobs.values().map(|blob| blob.number);
            let known: BTreeSet<u64> = diffs.chain(blobs).collect();
            let unused = records.unsynced.keys().filter(|number| !known.contains(number));
            unused.copied().try_for_each(|number| self.forget_filled(number))?;
        }
        if records.are_readable(&["layer"]) {
            let known = records.written_numbers();
            let unused = records.made_empty.keys().filter(|number| !known.contains(number));
            unused.copied().try_for_each(|number| self.forget_made_empty(number))?;
        }
        Ok(())
    }

    fn count_users(&self, records: &Records, unused: Unused) -> Result<(), MetaError> {
        if !records.are_readable(&["item", "diff", "layer"]) {
            return Ok(());
        }
        let counted = records.blob_users();
        for (hash, record) in &records.blobs {
            let users = counted.get(hash).copied().unwrap_or_default();
            if users == 0 && unused == Unused::Remove {
                self.erase(&RowKey::Blob(*hash))?;
            } else if users != record.users {
                let mut record = record.clone();
                record.users = users;
                self.put_blob_record(hash, &record)?;
            }
        }
        Ok(())
    }

    fn remove_orphan_chunks(&self, records: &Records) -> Result<(), MetaError> {
        if !records.are_readable(&["blob"]) {
            return Ok(());
        }
        let numbers: BTreeSet<u64> = records.blobs.values().map(|blob| blob.number).collect();
        for number in records.chunks.keys().filter(|number| !numbers.contains(number)) {
            self.remove_chunks(*number)?;
        }
        Ok(())
    }

    fn write_sums(&self, records: &Records) -> Result<(), MetaError> {
        let sums: BTreeMap<_, _> =
            records.sums().into_iter().map(|(sum, kind, value)| (sum, (kind, value))).collect();
        let mut rows = self.open(table::USAGE)?;
        for sum in records.usage.keys().filter(|sum| !sums.contains_key(sum.as_str())) {
            rows.remove(sum.as_str())?;
        }
        for (sum, (kind, value)) in sums {
            if records.are_readable(&[kind]) && records.usage.get(sum) != Some(&value) {
                rows.insert(sum, value)?;
            }
        }
        Ok(())
    }

    fn write_indexes(&self, records: &Records) -> Result<(), MetaError> {
        let (stored, implied) = (stored_rows(self)?, records.index_rows());
        for row in stored.difference(&implied) {
            let (owner, id) = row.implied_by();
            if !records.is_damaged(owner.map_or("thing", Owner::word), id) {
                self.remove_index_row(row)?;
            }
        }
        for row in implied.difference(&stored) {
            // Two containers with one layer are another damage: the one that is found stays found.
            if let IndexRow::ContainerLayer(layer, _) = row
                && let Some(holder) = self.container_of_layer(layer)?
                && implied.contains(&IndexRow::ContainerLayer(layer.clone(), holder))
            {
                continue;
            }
            match self.insert_index_row(row) {
                // Two things with one name are another damage.
                Err(MetaError::NameInUse { .. }) => {}
                inserted => inserted?,
            }
        }
        Ok(())
    }

    /// Takes one row away, whatever stands in it, and nothing else but the chunks of bytes.
    pub(crate) fn erase(&self, row: &RowKey) -> Result<(), MetaError> {
        match row {
            RowKey::Layer(id) => self.erase_thing(table::LAYERS, Owner::Layer, id)?,
            RowKey::Image(id) => self.erase_thing(table::IMAGES, Owner::Image, id)?,
            RowKey::Container(id) => self.erase_thing(table::CONTAINERS, Owner::Container, id)?,
            RowKey::Diff(tree) => drop(self.open(table::DIFFS)?.remove(tree)?),
            RowKey::Item(owner, id, key) => {
                self.open(table::ITEMS)?.remove((*owner, id.as_str(), key.as_str()))?;
                self.note_items_of(*owner, id);
            }
            RowKey::KeptBlob(digest) => {
                self.open(table::KEPT_BLOBS)?.remove(digest.as_str())?;
                self.note_blob(digest, Effect::Removed);
            }
            RowKey::Lease(id) => drop(self.remove_lease(id)?),
            RowKey::Blob(hash) => {
                // The number of a record that cannot be read is not known; its chunks are orphans then.
                if let Ok(Some(record)) = self.blob(hash) {
                    self.remove_chunks(record.number)?;
                }
                self.open(table::BLOBS)?.remove(hash)?;
            }
        }
        Ok(())
    }

    fn erase_thing(
        &self,
        definition: TableDefinition<'static, &'static str, &'static [u8]>,
        owner: Owner,
        id: &str,
    ) -> Result<(), MetaError> {
        let names = self.names_of(owner.code(), id).unwrap_or_default();
        self.open(definition)?.remove(id)?;
        self.note_thing(owner, id, Effect::Removed, &names);
        Ok(())
    }

    pub(super) fn remove_chunks(&self, number: u64) -> Result<(), MetaError> {
        self.open(table::BLOB_CHUNKS)?.retain_in((number, 0)..=(number, u32::MAX), |_, _| false)
    }

    /// Puts a layer's record in its place, whatever stands there.
    pub(crate) fn replace_layer(&self, record: &LayerRecord) -> Result<(), MetaError> {
        self.replace(table::LAYERS, record)
    }

    /// Puts an image's record in its place, whatever stands there.
    pub(crate) fn replace_image(&self, record: &ImageRecord) -> Result<(), MetaError> {
        self.replace(table::IMAGES, record)
    }

    /// Puts a container's record in its place, whatever stands there.
    pub(crate) fn replace_container(&self, record: &ContainerRecord) -> Result<(), MetaError> {
        self.replace(table::CONTAINERS, record)
    }

    /// Puts the row of a sealed directory in its place, whatever stands there, and its manifest into the database.
    pub(crate) fn replace_diff(
        &self,
        tree: &TreeDigest,
        record: &DiffRecord,
        manifest: &PreparedBlob,
    ) -> Result<(), MetaError> {
        BlobKind::Manifest.check(manifest)?;
        let record = DiffRecord { manifest: self.replace_blob(manifest)?, ..record.clone() };
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(table::DIFFS)?.insert(&tree.0, bytes.as_slice())?;
        Ok(())
    }

    /// Puts a data item in its place, whatever stands there.
    pub(crate) fn replace_item(
        &self,
        (owner, id, key): (u8, &str, &str),
        digest: String,
        bytes: &PreparedBlob,
    ) -> Result<(), MetaError> {
        BlobKind::Item.check(bytes)?;
        let record = ItemRecord { size: bytes.size(), digest, blob: self.replace_blob(bytes)? };
        let row = record.encode().map_err(MetaError::Encode)?;
        self.open(table::ITEMS)?.insert((owner, id, key), row.as_slice())?;
        self.note_items_of(owner, id);
        Ok(())
    }

    /// Notes for the journal that a thing's items are others, if the thing is there and can be read.
    fn note_items_of(&self, owner: u8, id: &str) {
        let known = self.names_of(owner, id).is_ok();
        if let Some(owner) = Owner::from_code(owner).filter(|_| known) {
            self.note_items(owner, id);
        }
    }

    /// Stores bytes anew, in place of those with this hash: the caller counts their users afterwards, by
    /// [`normalize`](Self::normalize).
    pub(crate) fn replace_blob(&self, bytes: &PreparedBlob) -> Result<[u8; 32], MetaError> {
        self.erase(&RowKey::Blob(bytes.hash()))?;
        self.put_blob(bytes)
    }

    fn replace<R: Record + Indexed>(
        &self,
        definition: TableDefinition<'static, &'static str, &'static [u8]>,
        record: &R,
    ) -> Result<(), MetaError> {
        let bytes = record.encode().map_err(MetaError::Encode)?;
        self.open(definition)?.insert(record.id(), bytes.as_slice())?;
        self.note_thing(R::OWNER, record.id(), Effect::Changed(aspect::RECORD), record.names());
        Ok(())
    }

    /// Puts the header in its place.
    pub(crate) fn replace_header(&self, header: &Header) -> Result<(), MetaError> {
        self.open(table::META)?.insert(HEADER_KEY, header.encode().as_slice())?;
        Ok(())
    }
}

impl Records {
    /// Whether a row that can be read names the number, be it of a directory or a kept blob.
    pub(crate) fn names(&self, number: u64) -> bool {
        self.names_directory(number) || self.kept_blobs.values().any(|blob| blob.number == number)
    }

    /// Whether a row that can be read names the directory.
    pub(crate) fn names_directory(&self, number: u64) -> bool {
        let sealed = self.diffs.values().any(|diff| diff.number == number);
        sealed || self.layers.values().any(|layer| layer.content == LayerContent::Writable(number))
    }

    /// The numbers of the directories of layers that are written to.
    pub(crate) fn written_numbers(&self) -> BTreeSet<u64> {
        let number = |layer: &LayerRecord| match layer.content {
            LayerContent::Writable(number) => Some(number),
            LayerContent::Sealed(_) | LayerContent::Additional(_) => None,
        };
        self.layers.values().filter_map(number).collect()
    }

    /// Whether the thing of a data item is there, readable or not.
    fn has_owner(&self, (owner, id, _): &(u8, String, String)) -> bool {
        let there = match Owner::from_code(*owner) {
            Some(Owner::Layer) => self.layers.contains_key(id),
            Some(Owner::Image) => self.images.contains_key(id),
            Some(Owner::Container) => self.containers.contains_key(id),
            None => false,
        };
        there || self.is_damaged(Owner::from_code(*owner).map_or("thing", Owner::word), id)
    }
}
