//! The tables of `store.redb` and of `run.redb`.
//!
//! A table of records is keyed by what permanently names the record. An *index* table has rows that can be
//! computed from the records, and no more: a check proves it, a repair rebuilds it. Composite keys are ordered,
//! so everything that belongs to one thing is one range.

use redb::{Key, TableDefinition, Value};

/// A row without a value: all is said by its key.
pub type Mark = ();

/// The header: see [`crate::header`].
pub const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// The key of [`META`] that says where the rows of containers are that the next boot drops: a boot id, what their
/// tables are called, and the path of a run root, with line feeds between.
pub const TRANSIENT_KEY: &str = "transient";
/// The key of [`META`] that names the other stores which records stand on something of: for each `images` or `read`, its UUID
/// and its path, with spaces between; and a zero byte between two of them.
pub const BESIDE_KEY: &str = "stores-beside";
/// Layer id to [`crate::record::LayerRecord`].
pub const LAYERS: TableDefinition<&str, &[u8]> = TableDefinition::new("layers");
/// Image id to [`crate::record::ImageRecord`].
pub const IMAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("images");
/// Container id to [`crate::record::ContainerRecord`].
pub const CONTAINERS: TableDefinition<&str, &[u8]> = TableDefinition::new("containers");
/// Tree digest to [`crate::record::DiffRecord`].
pub const DIFFS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("diffs");
/// ([`Owner`], id, key) to [`crate::record::ItemRecord`].
pub const ITEMS: TableDefinition<(u8, &str, &str), &[u8]> = TableDefinition::new("items");
/// BLAKE3 hash to [`crate::record::BlobRecord`].
pub const BLOBS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("blobs");
/// (blob number, position) to bytes, at most [`CHUNK`] of them.
pub const BLOB_CHUNKS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("blob_chunks");
/// Blob digest to [`crate::record::KeptBlobRecord`].
pub const KEPT_BLOBS: TableDefinition<&str, &[u8]> = TableDefinition::new("kept_blobs");
/// Lease id to [`crate::record::LeaseRecord`].
pub const LEASES: TableDefinition<&str, &[u8]> = TableDefinition::new("leases");
/// Running number to [`crate::record::JournalRecord`]; the newest [`JOURNAL_ROWS`] are kept, and there may be older
/// ones, fewer than [`JOURNAL_SPARE`], which are told to nobody.
pub const JOURNAL: TableDefinition<u64, &[u8]> = TableDefinition::new("journal");
/// Number of a directory in `diffs/` or of a file in `blobs/` to the boot id in which it was filled: its bytes may not
/// be on the disk yet. With [`MADE_EMPTY`] in the key, of a directory that was made empty, for a layer that is written to.
pub const UNSYNCED: TableDefinition<u64, &str> = TableDefinition::new("unsynced");
/// Is added to a number, which is below it, where it is a key of [`UNSYNCED`]: the directory was made empty in that boot, and
/// may itself not be on the disk yet.
pub const MADE_EMPTY: u64 = 1 << 63;

/// Index: ([`Owner`], name) to id.
pub const NAMES: TableDefinition<(u8, &str), &str> = TableDefinition::new("names");
/// Index: (parent, child).
pub const CHILDREN: TableDefinition<(&str, &str), Mark> = TableDefinition::new("children");
/// Index: ([`LayerKey`], digest, layer id).
pub const LAYERS_BY_DIGEST: TableDefinition<(u8, &str, &str), Mark> =
    TableDefinition::new("layers_by_digest");
/// Index: (manifest digest, image id).
pub const IMAGES_BY_DIGEST: TableDefinition<(&str, &str), Mark> = TableDefinition::new("images_by_digest");
/// Index: (top layer or mapped top layer, image id).
pub const IMAGES_BY_LAYER: TableDefinition<(&str, &str), Mark> = TableDefinition::new("images_by_layer");
/// Index: (image, container id).
pub const CONTAINERS_BY_IMAGE: TableDefinition<(&str, &str), Mark> =
    TableDefinition::new("containers_by_image");
/// Index: layer id to container id.
pub const CONTAINERS_BY_LAYER: TableDefinition<&str, &str> = TableDefinition::new("containers_by_layer");
/// Index: [`usage`] key to a sum over all records.
pub const USAGE: TableDefinition<&str, u64> = TableDefinition::new("usage");

/// In `run.redb`: (layer id, mount namespace) to [`crate::record::MountRecord`].
pub const MOUNTS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("mounts");
/// In `run.redb`: what was found out about this boot, by name.
pub const FACTS: TableDefinition<&str, &str> = TableDefinition::new("facts");

/// Does something with a table of any type.
pub trait TableVisitor {
    /// Why it may fail.
    type Error;

    /// Does it.
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Self::Error>;
}

/// Visits every table of `store.redb` that this build knows. Returns the first error of the visitor.
pub fn visit_all<T: TableVisitor>(visitor: &mut T) -> Result<(), T::Error> {
    visitor.visit(META)?;
    visitor.visit(LAYERS)?;
    visitor.visit(IMAGES)?;
    visitor.visit(CONTAINERS)?;
    visitor.visit(DIFFS)?;
    visitor.visit(ITEMS)?;
    visitor.visit(BLOBS)?;
    visitor.visit(BLOB_CHUNKS)?;
    visitor.visit(KEPT_BLOBS)?;
    visitor.visit(LEASES)?;
    visitor.visit(JOURNAL)?;
    visitor.visit(UNSYNCED)?;
    visitor.visit(NAMES)?;
    visitor.visit(CHILDREN)?;
    visitor.visit(LAYERS_BY_DIGEST)?;
    visitor.visit(IMAGES_BY_DIGEST)?;
    visitor.visit(IMAGES_BY_LAYER)?;
    visitor.visit(CONTAINERS_BY_IMAGE)?;
    visitor.visit(CONTAINERS_BY_LAYER)?;
    visitor.visit(USAGE)
}

/// The length of a blob chunk. A redb value of exactly a power of two takes twice its size on disk, so a chunk
/// stays below one.
pub const CHUNK: usize = 256 * 1024 - 256;

/// How long a data item may be: who reads one has it in memory.
pub const ITEM_BYTES_MAX: u64 = 1 << 30;

/// How many rows the journal keeps.
pub const JOURNAL_ROWS: u64 = 4096;

/// Rows older than those are removed when the newest number passes a multiple of this: there may be one fewer of them.
pub const JOURNAL_SPARE: u64 = 256;

/// What stands for a kept blob in the journal, in place of a kind of [`Owner`].
pub const JOURNAL_BLOB: u8 = 4;

/// The kinds of things that have names and data items.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Owner {
    /// A layer.
    Layer = 1,
    /// An image.
    Image = 2,
    /// A container.
    Container = 3,
}

impl Owner {
    /// The number that stands in keys.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Owner::Layer),
            2 => Some(Owner::Image),
            3 => Some(Owner::Container),
            _ => None,
        }
    }

    /// The word for messages.
    pub const fn word(self) -> &'static str {
        match self {
            Owner::Layer => "layer",
            Owner::Image => "image",
            Owner::Container => "container",
        }
    }
}

/// By which digest [`LAYERS_BY_DIGEST`] finds a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LayerKey {
    /// A blob that carried it.
    Blob = 1,
    /// Its uncompressed tar.
    DiffId = 2,
    /// The table of contents of a blob.
    Toc = 3,
    /// Its tree digest, in hex.
    Tree = 4,
}

impl LayerKey {
    /// The number that stands in keys.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// The keys of [`USAGE`].
pub mod usage {
    /// Bytes on disk of all rows of `diffs`.
    pub const DIFF_BYTES: &str = "diff-bytes";
    /// Inodes of all rows of `diffs`.
    pub const DIFF_INODES: &str = "diff-inodes";
    /// Bytes of all rows of `kept_blobs`.
    pub const KEPT_BLOB_BYTES: &str = "kept-blob-bytes";
    /// Stored bytes of all rows of `blobs`.
    pub const BLOB_BYTES: &str = "blob-bytes";
}
