//! Reading everything, damaged records included: for a check, which goes on where everything else stops.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use layerstore_schema::record::{
    BlobRecord, ContainerRecord, DiffRecord, ImageRecord, ItemRecord, KeptBlobRecord, LayerContent,
    LayerRecord, LeaseRecord, Record,
};
use layerstore_schema::table::{self, Owner};
use redb::{ReadableTable, TableDefinition};

use super::index::{IndexRow, Indexed};
use super::{Query, Tables, Unsynced, unsynced};
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
    /// The sums as stored.
    pub(crate) usage: BTreeMap<String, u64>,
    /// Records that cannot be read.
    pub(crate) damaged: Vec<DamagedRecord>,
}

/// A record that cannot be read.
#[derive(Debug)]
pub(crate) struct DamagedRecord {
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
        records.layers = things(txn, table::LAYERS, "layer", damaged)?;
        records.images = things(txn, table::IMAGES, "image", damaged)?;
        records.containers = things(txn, table::CONTAINERS, "container", damaged)?;
        for row in txn.open(table::DIFFS)?.iter()? {
            let (key, value) = row?;
            let tree = *key.value();
            let name = || TreeDigest(tree).to_string();
            records.diffs.extend(keep(value.value(), "diff", name, damaged).map(|record| (tree, record)));
        }
        for row in txn.open(table::ITEMS)?.iter()? {
            let (key, value) = row?;
            let (owner, id, name) = key.value();
            let key = (owner, id.to_owned(), name.to_owned());
            let shown = || format!("{} {id} {name}", Owner::from_code(owner).map_or("?", Owner::word));
            records.items.extend(keep(value.value(), "item", shown, damaged).map(|record| (key, record)));
        }
        for row in txn.open(table::BLOBS)?.iter()? {
            let (key, value) = row?;
            let hash = *key.value();
            let name = || blake3::Hash::from_bytes(hash).to_string();
            records.blobs.extend(keep(value.value(), "blob", name, damaged).map(|record| (hash, record)));
        }
        for row in txn.open(table::KEPT_BLOBS)?.iter()? {
            let (key, value) = row?;
            let digest = key.value().to_owned();
            let kept = keep(value.value(), "kept blob", || digest.clone(), damaged);
            records.kept_blobs.extend(kept.map(|record| (digest.clone(), record)));
        }
        for row in txn.open(table::LEASES)?.iter()? {
            let (key, value) = row?;
            let id = key.value().to_owned();
            let lease = keep(value.value(), "lease", || id.clone(), damaged);
            records.leases.extend(lease.map(|record| (id.clone(), record)));
        }
        for row in txn.open(table::BLOB_CHUNKS)?.iter()? {
            let (key, value) = row?;
            let (number, position) = key.value();
            let chunks = records.chunks.entry(number).or_default();
            chunks.count += 1;
            chunks.last = chunks.last.max(position);
            chunks.bytes += u64::try_from(value.value().len()).unwrap_or(u64::MAX);
        }
        records.unsynced = unsynced(txn)?;
        for row in txn.open(table::USAGE)?.iter()? {
            let (key, value) = row?;
            records.usage.insert(key.value().to_owned(), value.value());
        }
        Ok(records)
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
        let things = self.layers.len() + self.images.len() + self.containers.len();
        let named = self.items.len() + self.leases.len();
        let rest = self.diffs.len() + named + self.blobs.len() + self.kept_blobs.len();
        u64::try_from(things + rest + self.damaged.len()).unwrap_or(u64::MAX)
    }
}

/// Decodes a record, or notes that it cannot be.
fn keep<R: Record>(
    bytes: &[u8],
    kind: &'static str,
    key: impl FnOnce() -> String,
    damaged: &mut Vec<DamagedRecord>,
) -> Option<R> {
    match R::decode(bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            damaged.push(DamagedRecord { kind, key: key(), reason: error.reason });
            None
        }
    }
}

fn things<R: Record + Indexed>(
    txn: &impl Tables,
    definition: TableDefinition<'static, &'static str, &'static [u8]>,
    kind: &'static str,
    damaged: &mut Vec<DamagedRecord>,
) -> Result<BTreeMap<String, R>, MetaError> {
    let mut records = BTreeMap::new();
    for row in txn.open(definition)?.iter()? {
        let (key, value) = row?;
        let id = key.value().to_owned();
        let Some(record) = keep::<R>(value.value(), kind, || id.clone(), damaged) else { continue };
        if record.id() == id {
            records.insert(id, record);
        } else {
            let reason = format!("it says that it is the record of {:?}", record.id());
            damaged.push(DamagedRecord { kind, key: id, reason });
        }
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
}

/// Reads which numbers rows name.
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
    Ok(named)
}
