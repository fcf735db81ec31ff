//! Transactions with the store's tables behind typed calls. What only reads is the same for both kinds:
//! [`Query`], implemented over either.

use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;

use layerstore_schema::header::{HEADER_KEY, Header};
use layerstore_schema::record::{
    BlobRecord, ContainerRecord, DiffRecord, ImageRecord, ItemRecord, KeptBlobRecord, LayerRecord,
    LeaseRecord, RecordError,
};
use layerstore_schema::table::{self, LayerKey, Owner};
use redb::{Key, ReadableTable, TableDefinition, Value};

use super::StoreBeside;
use super::guard::{Guarded, Health};
use super::journal::Touched;
use super::rows::Table;
use super::valid::{self, Stored};
use crate::error::MetaError;
use crate::sys::call::{Call, point};
use crate::types::TreeDigest;

/// A snapshot of the store at one commit.
#[derive(Debug)]
pub(crate) struct ReadTxn(pub(super) Guarded<redb::ReadTransaction>);

/// The write transaction: it sees its own changes, and nobody else does before the commit. It notes what it
/// touches for the journal, and the stores beside this one when a record comes to stand on something there.
pub(crate) struct WriteTxn(
    pub(super) Guarded<redb::WriteTransaction>,
    pub(super) RefCell<Touched>,
    pub(super) Arc<[StoreBeside]>,
);

impl WriteTxn {
    /// Wraps a transaction that has changed nothing yet.
    pub(super) fn new(txn: redb::WriteTransaction, health: Health) -> Self {
        WriteTxn::beside(txn, health, Arc::default())
    }

    /// As [`new`](Self::new), of a store that is read with these.
    pub(super) fn beside(txn: redb::WriteTransaction, health: Health, stores: Arc<[StoreBeside]>) -> Self {
        WriteTxn(Guarded::new(txn, health), RefCell::default(), stores)
    }

    /// Drops a table, if there is one.
    pub(super) fn delete<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), MetaError> {
        self.0.run(|txn| txn.delete_table(definition)).map(drop)
    }

    /// Makes the changes everybody's.
    pub(super) fn commit(self) -> Result<(), MetaError> {
        self.0.finish(redb::WriteTransaction::commit)
    }
}

impl std::fmt::Debug for WriteTxn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriteTxn")
    }
}

/// A table that was opened through `S`.
pub(crate) type Opened<'t, S, K, V> = Table<K, V, <S as Tables>::Table<'t, K, V>>;

/// Opens tables for reading.
pub(crate) trait Tables {
    /// What redb has for an open table.
    type Table<'t, K: Key + 'static, V: Value + 'static>: ReadableTable<K, V>
    where
        Self: 't;

    /// Opens one.
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<Opened<'_, Self, K, V>, MetaError>;
}

impl Tables for ReadTxn {
    type Table<'t, K: Key + 'static, V: Value + 'static> = redb::ReadOnlyTable<K, V>;

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<Opened<'_, Self, K, V>, MetaError> {
        // redb reads the file by itself here.
        point(Call::Read).map_err(redb::StorageError::from)?;
        let table = self.0.run(|txn| txn.open_table(definition))?;
        Ok(Table::new(table, self.0.health().clone()))
    }
}

impl Tables for WriteTxn {
    type Table<'t, K: Key + 'static, V: Value + 'static> = redb::Table<'t, K, V>;

    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<Opened<'_, Self, K, V>, MetaError> {
        let table = self.0.run(|txn| txn.open_table(definition))?;
        Ok(Table::new(table, self.0.health().clone()))
    }
}

/// Whether a short id stands for one thing, none, or several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PrefixMatch {
    /// No id begins like this.
    None,
    /// Exactly one does.
    One(String),
    /// At least these two do.
    Several(String, String),
}

/// Everything that can be asked of the store.
pub(crate) trait Query: Tables + Sized {
    /// The header; `None` in a database without one.
    fn header(&self) -> Result<Option<Vec<u8>>, MetaError> {
        let meta = self.open(table::META)?;
        Ok(meta.get(HEADER_KEY)?.map(|row| row.value().to_vec()))
    }

    /// A layer by id.
    fn layer(&self, id: &str) -> Result<Option<LayerRecord>, MetaError> {
        get(self, table::LAYERS, id, "layer", id)
    }

    /// An image by id.
    fn image(&self, id: &str) -> Result<Option<ImageRecord>, MetaError> {
        get(self, table::IMAGES, id, "image", id)
    }

    /// A container by id.
    fn container(&self, id: &str) -> Result<Option<ContainerRecord>, MetaError> {
        get(self, table::CONTAINERS, id, "container", id)
    }

    /// A layer that a record refers to.
    fn layer_ref(&self, id: &str) -> Result<LayerRecord, MetaError> {
        self.layer(id)?.ok_or_else(|| missing("layer", id))
    }

    /// All layers, by id.
    fn layers(&self) -> Result<Vec<LayerRecord>, MetaError> {
        all(self, table::LAYERS, "layer")
    }

    /// All images, by id.
    fn images(&self) -> Result<Vec<ImageRecord>, MetaError> {
        all(self, table::IMAGES, "image")
    }

    /// All containers, by id.
    fn containers(&self) -> Result<Vec<ContainerRecord>, MetaError> {
        all(self, table::CONTAINERS, "container")
    }

    /// Gives each container to `each`, by id: there may be more than who asks wants to hold.
    fn each_container(
        &self,
        each: &mut dyn FnMut(ContainerRecord) -> Result<(), MetaError>,
    ) -> Result<(), MetaError> {
        for row in self.open(table::CONTAINERS)?.iter()? {
            let (key, value) = row?;
            each(decode(value.value(), "container", key.value())?)?;
        }
        Ok(())
    }

    /// The id that has a name.
    fn named(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError> {
        let names = self.open(table::NAMES)?;
        Ok(names.get((owner.code(), name))?.map(|row| row.value().to_owned()))
    }

    /// The ids of the things of a kind that have a name which begins with `prefix`, by these names: one with several comes as often.
    fn named_with(&self, owner: Owner, prefix: &str) -> Result<Vec<String>, MetaError> {
        let mut ids = Vec::new();
        for row in self.open(table::NAMES)?.range((owner.code(), prefix)..)? {
            let (key, id) = row?;
            let (of, name) = key.value();
            if of != owner.code() || !name.starts_with(prefix) {
                break;
            }
            ids.push(id.value().to_owned());
        }
        Ok(ids)
    }

    /// What ids of a kind begin with `prefix`.
    fn by_prefix(&self, owner: Owner, prefix: &str) -> Result<PrefixMatch, MetaError> {
        let definition = match owner {
            Owner::Layer => table::LAYERS,
            Owner::Image => table::IMAGES,
            Owner::Container => table::CONTAINERS,
        };
        let rows = self.open(definition)?;
        let mut ids = Vec::with_capacity(2);
        for row in rows.range(prefix..)?.take(2) {
            let (key, _) = row?;
            if key.value().starts_with(prefix) {
                ids.push(key.value().to_owned());
            }
        }
        let second = ids.pop();
        Ok(match (ids.pop(), second) {
            (Some(first), Some(second)) => PrefixMatch::Several(first, second),
            (None, Some(only)) => PrefixMatch::One(only),
            _ => PrefixMatch::None,
        })
    }

    /// Layers whose parent is `parent`.
    fn children(&self, parent: &str) -> Result<Vec<String>, MetaError> {
        pairs(self, table::CHILDREN, parent)
    }

    /// Images whose top layer, mapped or not, is `layer`.
    fn images_of_layer(&self, layer: &str) -> Result<Vec<String>, MetaError> {
        pairs(self, table::IMAGES_BY_LAYER, layer)
    }

    /// Images known by a manifest digest.
    fn images_by_digest(&self, digest: &str) -> Result<Vec<String>, MetaError> {
        pairs(self, table::IMAGES_BY_DIGEST, digest)
    }

    /// Containers made from `image`.
    fn containers_of_image(&self, image: &str) -> Result<Vec<String>, MetaError> {
        pairs(self, table::CONTAINERS_BY_IMAGE, image)
    }

    /// The container whose writable layer is `layer`.
    fn container_of_layer(&self, layer: &str) -> Result<Option<String>, MetaError> {
        let rows = self.open(table::CONTAINERS_BY_LAYER)?;
        Ok(rows.get(layer)?.map(|row| row.value().to_owned()))
    }

    /// Layers found by a digest of one kind.
    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<String>, MetaError> {
        let rows = self.open(table::LAYERS_BY_DIGEST)?;
        let mut ids = Vec::new();
        for row in rows.range((key.code(), digest, "")..)? {
            let (found, _) = row?;
            let (code, row_digest, layer) = found.value();
            if (code, row_digest) != (key.code(), digest) {
                break;
            }
            ids.push(layer.to_owned());
        }
        Ok(ids)
    }

    /// One layer found by a digest of one kind, however many there are.
    fn layer_by(&self, key: LayerKey, digest: &str) -> Result<Option<String>, MetaError> {
        let rows = self.open(table::LAYERS_BY_DIGEST)?;
        let Some(row) = rows.range((key.code(), digest, "")..)?.next() else { return Ok(None) };
        let (found, _) = row?;
        let (code, row_digest, layer) = found.value();
        Ok(((code, row_digest) == (key.code(), digest)).then(|| layer.to_owned()))
    }

    /// The directory of a tree digest.
    fn diff(&self, tree: &TreeDigest) -> Result<Option<DiffRecord>, MetaError> {
        get(self, table::DIFFS, &tree.0, "diff", tree)
    }

    /// All sealed directories.
    fn diffs(&self) -> Result<Vec<(TreeDigest, DiffRecord)>, MetaError> {
        let mut found = Vec::new();
        for row in self.open(table::DIFFS)?.iter()? {
            let (key, value) = row?;
            let tree = TreeDigest(*key.value());
            found.push((tree, decode(value.value(), "diff", &tree)?));
        }
        Ok(found)
    }

    /// One data item's record.
    fn item(&self, owner: Owner, id: &str, key: &str) -> Result<Option<ItemRecord>, MetaError> {
        get(self, table::ITEMS, (owner.code(), id, key), "item", key)
    }

    /// The data items of a thing, by key.
    fn items(&self, owner: Owner, id: &str) -> Result<Vec<(String, ItemRecord)>, MetaError> {
        let mut found = Vec::new();
        for row in self.open(table::ITEMS)?.range((owner.code(), id, "")..)? {
            let (key, value) = row?;
            let (code, of, name) = key.value();
            if (code, of) != (owner.code(), id) {
                break;
            }
            found.push((name.to_owned(), decode(value.value(), "item", name)?));
        }
        Ok(found)
    }

    /// The record of bytes kept in the database.
    fn blob(&self, hash: &[u8; 32]) -> Result<Option<BlobRecord>, MetaError> {
        get(self, table::BLOBS, hash, "blob", &blake3::Hash::from_bytes(*hash))
    }

    /// A layer blob kept as delivered.
    fn kept_blob(&self, digest: &str) -> Result<Option<KeptBlobRecord>, MetaError> {
        get(self, table::KEPT_BLOBS, digest, "kept blob", digest)
    }

    /// All layer blobs kept as delivered.
    fn kept_blobs(&self) -> Result<Vec<(String, KeptBlobRecord)>, MetaError> {
        let mut found = Vec::new();
        for row in self.open(table::KEPT_BLOBS)?.iter()? {
            let (key, value) = row?;
            found.push((key.value().to_owned(), decode(value.value(), "kept blob", key.value())?));
        }
        Ok(found)
    }

    /// A lease by id.
    fn lease(&self, id: &str) -> Result<Option<LeaseRecord>, MetaError> {
        get(self, table::LEASES, id, "lease", id)
    }

    /// All leases, by id, expired ones included.
    fn leases(&self) -> Result<Vec<LeaseRecord>, MetaError> {
        all(self, table::LEASES, "lease")
    }

    /// How many layers, images and containers there are.
    fn counts(&self) -> Result<(u64, u64, u64), MetaError> {
        Ok((
            self.open(table::LAYERS)?.len()?,
            self.open(table::IMAGES)?.len()?,
            self.open(table::CONTAINERS)?.len()?,
        ))
    }

    /// A sum over all records.
    fn usage(&self, key: &str) -> Result<u64, MetaError> {
        Ok(self.open(table::USAGE)?.get(key)?.map_or(0, |row| row.value()))
    }
}

impl<T: Tables> Query for T {}

/// A layer and all below it, topmost first; `get` reads one.
///
/// Returns what `get` does, and [`MetaError::Record`] if a damaged record makes a layer stand on itself.
pub(crate) fn chain(
    top: &str,
    get: impl Fn(&str) -> Result<LayerRecord, MetaError>,
) -> Result<Vec<LayerRecord>, MetaError> {
    let mut chain = vec![get(top)?];
    let mut seen = HashSet::from([top.to_owned()]);
    while let Some(parent) = chain.last().and_then(|layer| layer.parent.clone()) {
        if !seen.insert(parent.clone()) {
            let source = RecordError { kind: "layer", reason: "it stands on itself".to_owned() };
            return Err(MetaError::Record { kind: "layer", key: parent, source });
        }
        chain.push(get(&parent)?);
    }
    Ok(chain)
}

/// The error for a row that a record refers to.
pub(super) fn missing(kind: &'static str, key: impl ToString) -> MetaError {
    MetaError::Missing { kind, key: key.to_string() }
}

/// Reads the record of a row, which is a valid one.
pub(super) fn decode<R: Stored>(bytes: &[u8], kind: &'static str, key: &R::Key) -> Result<R, MetaError> {
    valid::decode(bytes, kind, key).map_err(|source| MetaError::Record { kind, key: key.to_string(), source })
}

fn get<'k, R: Stored, K: Key + 'static>(
    tables: &impl Tables,
    definition: TableDefinition<'static, K, &'static [u8]>,
    key: impl Borrow<K::SelfType<'k>>,
    kind: &'static str,
    name: &R::Key,
) -> Result<Option<R>, MetaError> {
    let rows = tables.open(definition)?;
    rows.get(key)?.map(|row| decode(row.value(), kind, name)).transpose()
}

fn all<R: Stored<Key = str>>(
    tables: &impl Tables,
    definition: TableDefinition<'static, &'static str, &'static [u8]>,
    kind: &'static str,
) -> Result<Vec<R>, MetaError> {
    let mut records = Vec::new();
    for row in tables.open(definition)?.iter()? {
        let (key, value) = row?;
        records.push(decode(value.value(), kind, key.value())?);
    }
    Ok(records)
}

fn pairs(
    tables: &impl Tables,
    definition: TableDefinition<'static, (&'static str, &'static str), ()>,
    first: &str,
) -> Result<Vec<String>, MetaError> {
    let rows = tables.open(definition)?;
    let mut found = Vec::new();
    for row in rows.range((first, "")..)? {
        let (key, _) = row?;
        let (of, second) = key.value();
        if of != first {
            break;
        }
        found.push(second.to_owned());
    }
    Ok(found)
}

/// Reads the header of a database, as far as this build knows it.
pub(crate) fn read_header(txn: &impl Query, path: &std::path::Path) -> Result<Header, MetaError> {
    let bytes = match txn.header() {
        // A database without the table is somebody else's.
        Err(MetaError::Database { source, .. }) if matches!(*source, redb::Error::TableDoesNotExist(_)) => {
            None
        }
        // Nobody gets further.
        Err(MetaError::NotADatabase { path, reason, .. }) => {
            return Err(MetaError::NotADatabase { path, reason, readable: false });
        }
        bytes => bytes?,
    };
    let bytes = bytes.ok_or_else(|| MetaError::NoHeader { path: path.to_owned() })?;
    Header::decode(&bytes).map_err(|source| MetaError::Format { path: path.to_owned(), source })
}
