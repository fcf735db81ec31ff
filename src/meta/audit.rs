//! Reading everything, damaged records included: for a check, which goes on where everything else stops.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use layerstore_schema::record::{
    BlobRecord, ContainerRecord, DiffRecord, ImageRecord, ItemRecord, JournalRecord, KeptBlobRecord,
    LayerContent, LayerRecord, LeaseRecord,
};
use layerstore_schema::table::{self, Owner, usage};
use redb::TableDefinition;

use super::index::{IndexRow, Indexed};
use super::valid::{self, Stored};
use super::{Query, Tables, Unsynced, made_empty, unsynced};
use crate::error::MetaError;
use crate::types::TreeDigest;

/// Every record of one snapshot.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Layers by id.
    pub(crate) layers: BTreeMap<String, LayerRecord>,
    /// Images by id.
    pub(crate) images: BTreeMap<String, ImageRecord>,
    /// Containers by id.
    pub(crate) containers: BTreeMap<String, ContainerRecord>,
    /// Sealed directories by tree digest.
    pub(crate) diffs: BTreeMap<[u8; 32], DiffRecord>,
    /// Data items: kind, id and key.
    pub(crate) items: BTreeMap<(u8, String, String), ItemRecord>,
    /// Bytes in the database by hash.
    pub(crate) blobs: BTreeMap<[u8; 32], BlobRecord>,
    /// Layer blobs by digest.
    pub(crate) kept_blobs: BTreeMap<String, KeptBlobRecord>,
    /// Leases by id.
    pub(crate) leases: BTreeMap<String, LeaseRecord>,
    /// What the chunks of each blob number come to.
    pub(crate) chunks: BTreeMap<u64, Chunks>,
    /// Numbers whose bytes may not be on the disk yet.
    pub(crate) unsynced: Unsynced,
    pub(crate) made_empty: Unsynced,
    /// The sums as stored.
    pub(crate) usage: BTreeMap<String, u64>,
    /// Rows of the journal that cannot be read: number and reason.
    pub(crate) journal: Vec<(u64, String)>,
    /// Records that cannot be read.
    pub(crate) damaged: Vec<DamagedRecord>,
}

/// The key of a row that holds a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RowKey {
    /// Of a layer.
    Layer(String),
    /// Of an image.
    Image(String),
    /// Of a container.
    Container(String),
    /// Of a sealed directory.
    Diff([u8; 32]),
    /// Of a data item: kind, id and key.
    Item(u8, String, String),
    /// Of bytes in the database.
    Blob([u8; 32]),
    /// Of a kept blob.
    KeptBlob(String),
    /// Of a lease.
    Lease(String),
}

/// A record that cannot be read.
#[derive(Debug)]
pub(crate) struct DamagedRecord {
    /// Where it stands.
    pub(crate) row: RowKey,
    /// Which kind of record.
    pub(crate) kind: &'static str,
    /// Its key.
    pub(crate) key: String,
    /// What is wrong with it.
    pub(crate) reason: String,
}

/// The chunks of one blob.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    /// How many there are.
    pub(crate) count: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// The highest position.
    pub(crate) last: u32,
}

impl Records {
    /// Reads all of them.
    ///
    /// Returns [`MetaError::Database`] if the database itself fails.
    pub(crate) fn read(txn: &impl Query) -> Result<Self, MetaError> {
        let mut records = Records::default();
        let damaged = &mut records.damaged;
        records.layers = things(txn, table::LAYERS, "layer", RowKey::Layer, damaged)?;
        records.images = things(txn, table::IMAGES, "image", RowKey::Image, damaged)?;
        records.containers = things(txn, table::CONTAINERS, "container", RowKey::Container, damaged)?;
        for row in txn.open(table::DIFFS)?.iter()? {
            let (key, value) = row?;
            let tree = *key.value();
            let name = || (RowKey::Diff(tree), TreeDigest(tree).to_string());
            let diff = keep(value.value(), "diff", &TreeDigest(tree), name, damaged);
            records.diffs.extend(diff.map(|record| (tree, record)));
        }
        for row in txn.open(table::ITEMS)?.iter()? {
            let (key, value) = row?;
            let (owner, id, name) = key.value();
            let key = (owner, id.to_owned(), name.to_owned());
            let shown = || {
                let shown = format!("{} {id} {name}", Owner::from_code(owner).map_or("?", Owner::word));
                (RowKey::Item(owner, id.to_owned(), name.to_owned()), shown)
            };
            let item = keep(value.value(), "item", name, shown, damaged);
            records.items.extend(item.map(|record| (key, record)));
        }
        for row in txn.open(table::BLOBS)?.iter()? {
            let (key, value) = row?;
            let hash = *key.value();
            let shown = blake3::Hash::from_bytes(hash);
            let name = || (RowKey::Blob(hash), shown.to_string());
            let blob = keep(value.value(), "blob", &shown, name, damaged);
            records.blobs.extend(blob.map(|record| (hash, record)));
        }
        for row in txn.open(table::KEPT_BLOBS)?.iter()? {
            let (key, value) = row?;
            let digest = key.value().to_owned();
            let name = || (RowKey::KeptBlob(digest.clone()), digest.clone());
            let kept = keep(value.value(), "kept blob", digest.as_str(), name, damaged);
            records.kept_blobs.extend(kept.map(|record| (digest.clone(), record)));
        }
        for row in txn.open(table::LEASES)?.iter()? {
            let (key, value) = row?;
            let id = key.value().to_owned();
            let name = || (RowKey::Lease(id.clone()), id.clone());
            let lease = keep(value.value(), "lease", id.as_str(), name, damaged);
            records.leases.extend(lease.map(|record| (id.clone(), record)));
        }
        for row in txn.open(table::BLOB_CHUNKS)?.iter()? {
            let (key, value) = row?;
            let (number, position) = key.value();
            let chunks = records.chunks.entry(number).or_default();
            chunks.count = chunks.count.saturating_add(1);
            chunks.last = chunks.last.max(position);
            chunks.bytes = chunks.bytes.saturating_add(value.value().len() as u64);
        }
        records.unsynced = unsynced(txn)?;
        records.made_empty = made_empty(txn)?;
        for row in txn.open(table::USAGE)?.iter()? {
            let (key, value) = row?;
            records.usage.insert(key.value().to_owned(), value.value());
        }
        for row in txn.open(table::JOURNAL)?.iter()? {
            let (key, value) = row?;
            let number = key.value();
            let bad = valid::decode::<JournalRecord>(value.value(), "journal", &number).err();
            records.journal.extend(bad.map(|error| (number, error.reason)));
        }
        Ok(records)
    }

    /// Whether a record is there that cannot be read.
    pub(crate) fn is_damaged(&self, kind: &str, key: &str) -> bool {
        self.damaged.iter().any(|record| record.kind == kind && record.key == key)
    }

    /// Whether every record of these kinds can be read: only then is it known what nothing refers to.
    pub(crate) fn are_readable(&self, kinds: &[&str]) -> bool {
        self.damaged.iter().all(|record| !kinds.contains(&record.kind))
    }

    /// How many rows refer to each of the bytes in the database.
    pub(crate) fn blob_users(&self) -> HashMap<[u8; 32], u64> {
        let mut users = HashMap::new();
        let items = self.items.values().map(|item| item.blob);
        let manifests = self.diffs.values().map(|diff| diff.manifest);
        let splits = self.layers.values().filter_map(|layer| layer.split);
        for hash in items.chain(manifests).chain(splits) {
            let count: &mut u64 = users.entry(hash).or_default();
            *count = count.saturating_add(1);
        }
        users
    }

    /// The trees that layers have.
    pub(crate) fn used_trees(&self) -> BTreeSet<[u8; 32]> {
        let trees = self.layers.values().filter_map(|layer| match layer.content {
            LayerContent::Sealed(tree) => Some(tree),
            LayerContent::Writable(_) | LayerContent::Additional(_) => None,
        });
        trees.collect()
    }

    /// The digests of the blobs that layers came as.
    pub(crate) fn used_blobs(&self) -> BTreeSet<&str> {
        self.layers.values().flat_map(|layer| layer.blobs.iter().map(|blob| blob.digest.as_str())).collect()
    }

    /// The four sums over all records, with the kind of record that each adds up.
    pub(crate) fn sums(&self) -> [(&'static str, &'static str, u64); 4] {
        // A damaged record may say any number.
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
        let diffs = || self.diffs.values();
        [
            (usage::DIFF_BYTES, "diff", sum(&mut diffs().map(|diff| diff.disk_bytes))),
            (usage::DIFF_INODES, "diff", sum(&mut diffs().map(|diff| diff.inodes))),
            (usage::KEPT_BLOB_BYTES, "kept blob", sum(&mut self.kept_blobs.values().map(|blob| blob.size))),
            (usage::BLOB_BYTES, "blob", sum(&mut self.blobs.values().map(|blob| blob.stored))),
        ]
    }

    /// Every index row that the readable records imply.
    pub(crate) fn index_rows(&self) -> BTreeSet<IndexRow> {
        let mut rows = BTreeSet::new();
        self.layers.values().for_each(|layer| rows.extend(layer.rows()));
        self.images.values().for_each(|image| rows.extend(image.rows()));
        self.containers.values().for_each(|container| rows.extend(container.rows()));
        rows
    }

    /// How many records there are, damaged ones included.
    pub(crate) fn count(&self) -> u64 {
        let things = [self.layers.len(), self.images.len(), self.containers.len(), self.items.len()];
        let rest = [self.leases.len(), self.diffs.len(), self.blobs.len(), self.kept_blobs.len()];
        let counts = things.into_iter().chain(rest).chain([self.damaged.len()]);
        counts.fold(0, |sum, count| sum.saturating_add(count as u64))
    }
}

/// Decodes the record of a row, or notes that it cannot be.
fn keep<R: Stored>(
    bytes: &[u8],
    kind: &'static str,
    key: &R::Key,
    name: impl FnOnce() -> (RowKey, String),
    damaged: &mut Vec<DamagedRecord>,
) -> Option<R> {
    match valid::decode(bytes, kind, key) {
        Ok(record) => Some(record),
        Err(error) => {
            let (row, key) = name();
            damaged.push(DamagedRecord { row, kind, key, reason: error.reason });
            None
        }
    }
}

fn things<R: Stored<Key = str>>(
    txn: &impl Tables,
    definition: TableDefinition<'static, &'static str, &'static [u8]>,
    kind: &'static str,
    row_of: fn(String) -> RowKey,
    damaged: &mut Vec<DamagedRecord>,
) -> Result<BTreeMap<String, R>, MetaError> {
    let mut records = BTreeMap::new();
    for row in txn.open(definition)?.iter()? {
        let (key, value) = row?;
        let id = key.value().to_owned();
        let name = || (row_of(id.clone()), id.clone());
        let kept = keep(value.value(), kind, id.as_str(), name, damaged);
        records.extend(kept.map(|record| (id.clone(), record)));
    }
    Ok(records)
}

/// The numbers of all directories and files that rows name.
#[derive(Debug, Default)]
pub(crate) struct NamedNumbers {
    /// Below `diffs/`.
    pub(crate) diffs: HashSet<u64>,
    /// Below `work/`.
    pub(crate) work: HashSet<u64>,
    /// Below `blobs/`.
    pub(crate) blobs: HashSet<u64>,
    /// Below `data/`.
    pub(crate) data: HashSet<u64>,
    /// Of all of these, what may not have reached the disk.
    pub(crate) unsynced: HashSet<u64>,
}

/// Reads which numbers rows name. Who deletes what they do not name begins the snapshot with
/// [`begin_verified_read`](super::Database::begin_verified_read).
///
/// Returns [`MetaError::Record`] if a record is damaged: what it named is unknown then, and nothing may be taken
/// for garbage.
pub(crate) fn named_numbers(txn: &impl Query) -> Result<NamedNumbers, MetaError> {
    let mut named = NamedNumbers::default();
    for layer in txn.layers()? {
        if let LayerContent::Writable(number) = layer.content {
            named.diffs.insert(number);
            named.work.insert(number);
        }
    }
    named.diffs.extend(txn.diffs()?.into_iter().map(|(_, record)| record.number));
    named.blobs.extend(txn.kept_blobs()?.into_iter().map(|(_, record)| record.number));
    named.data.extend(txn.images()?.into_iter().filter_map(|record| record.directory));
    named.data.extend(txn.containers()?.into_iter().filter_map(|record| record.directory));
    named.unsynced.extend(unsynced(txn)?.into_keys());
    Ok(named)
}
