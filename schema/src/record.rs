//! The records of the store, as `rkyv` archives in little-endian form without alignment.
//!
//! A record is read with checked access only: bytes that are no archive of its type give [`RecordError`], and none
//! a crash. That they are the bytes that were written is what the database's checksums say. Ids, names and digests
//! stand here as text; the store's own types check them.

use rkyv::{Archive, Deserialize, Serialize};

use crate::manifest::Timestamp;

/// A record whose bytes are not of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the bytes of a {kind} record are damaged: {reason}")]
pub struct RecordError {
    /// Which type of record was expected.
    pub kind: &'static str,
    /// What the check found.
    pub reason: String,
}

/// A value that a table holds.
pub trait Record: Sized {
    /// The bytes to store.
    ///
    /// Returns [`RecordError`] if the record is too large to archive (4 GiB).
    fn encode(&self) -> Result<Vec<u8>, RecordError>;

    /// Reads stored bytes.
    ///
    /// Returns [`RecordError`] if they are not an archive of this type.
    fn decode(bytes: &[u8]) -> Result<Self, RecordError>;
}

macro_rules! record {
    ($type:ident, $kind:literal) => {
        impl Record for $type {
            fn encode(&self) -> Result<Vec<u8>, RecordError> {
                rkyv::to_bytes::<rkyv::rancor::Error>(self)
                    .map(|bytes| bytes.to_vec())
                    .map_err(|error| RecordError { kind: $kind, reason: error.to_string() })
            }

            fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
                // What rkyv says tells of memory addresses, and is never the same.
                rkyv::from_bytes::<Self, rkyv::rancor::Failure>(bytes).map_err(|_| RecordError {
                    kind: $kind,
                    reason: format!("its {} bytes are no such record", bytes.len()),
                })
            }
        }
    };
}

/// A point in time, as [`Timestamp`].
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Time { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }
}

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Timestamp { seconds: time.seconds, nanoseconds: time.nanoseconds }
    }
}

/// A range of an id map: `length` ids from `container` on stand for those from `host` on.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// The first id inside.
    pub container: u32,
    /// The first id outside.
    pub host: u32,
    /// How many.
    pub length: u32,
}

/// Where a layer's files are.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum LayerContent {
    /// In the directory that `diffs` names for this tree digest, shared and never written.
    Sealed([u8; 32]),
    /// In a directory of its own, `diffs/<number>`, with `work/<number>`, which mounts write to.
    Writable(u64),
    /// Outside the store: in the directory `diff` of this directory of an additional layer store, an absolute path. It is
    /// never written, and nothing here says what should be in it.
    Additional(Vec<u8>),
}

/// A form in which the layer was delivered: a blob of an image.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The digest of the blob.
    pub digest: String,
    /// Its length in bytes.
    pub size: u64,
    /// The media type it was delivered under.
    pub media_type: String,
}

/// A layer.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// The permanent id: the key of the row.
    pub id: String,
    /// The layer below.
    pub parent: Option<String>,
    /// The movable names, each with a row in `names`.
    pub names: Vec<String>,
    /// The caller's small string.
    pub metadata: String,
    /// When the row was made.
    pub created: Time,
    /// Where the files are.
    pub content: LayerContent,
    /// The digest of the uncompressed tar, if the layer came from one or was exported.
    pub diff_id: Option<String>,
    /// The length of that tar.
    pub diff_size: Option<u64>,
    /// The blobs that carried this layer.
    pub blobs: Vec<LayerBlob>,
    /// The row in `blobs` that holds the tar-split.
    pub split: Option<[u8; 32]>,
    /// Whether the tar named every directory above its files: then its tree does not depend on the parent, and
    /// equal tars make equal trees.
    pub self_contained: bool,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// How the blob was compressed that the layer came from: a name of [`COMPRESSIONS`].
    pub compression: Option<String>,
    /// The digest of the table of contents of a blob that can be read in parts.
    pub toc_digest: Option<String>,
    /// The users that own something in the tar, ascending, at most [`OWNERS_KEPT`].
    pub uids: Vec<u32>,
    /// The groups.
    pub gids: Vec<u32>,
    /// The SELinux label that every mount of the layer gets.
    pub mount_label: Option<String>,
    /// Whether its mounts leave out syncs.
    pub volatile: bool,
    /// Whether it is never mounted for writing.
    pub read_only: bool,
    /// How user ids map to the host's.
    pub uid_map: Vec<IdRange>,
    /// How group ids map to the host's.
    pub gid_map: Vec<IdRange>,
}
record!(LayerRecord, "layer");

/// What can stand in [`LayerRecord::compression`].
pub const COMPRESSIONS: [&str; 5] = ["none", "gzip", "zstd", "bzip2", "xz"];

/// How many owners of each kind a layer's record keeps: the lowest.
pub const OWNERS_KEPT: usize = 4096;

impl LayerRecord {
    /// A layer with nothing but an id, a time and a content.
    pub fn new(id: impl Into<String>, created: Time, content: LayerContent) -> Self {
        LayerRecord {
            id: id.into(),
            parent: None,
            names: Vec::new(),
            metadata: String::new(),
            created,
            content,
            diff_id: None,
            diff_size: None,
            blobs: Vec::new(),
            split: None,
            self_contained: false,
            flags: Vec::new(),
            labels: Vec::new(),
            compression: None,
            toc_digest: None,
            uids: Vec::new(),
            gids: Vec::new(),
            mount_label: None,
            volatile: false,
            read_only: false,
            uid_map: Vec::new(),
            gid_map: Vec::new(),
        }
    }

    /// Forgets what was known of the content, which is going to be another.
    pub fn forget_content(&mut self) {
        (self.diff_id, self.diff_size, self.split) = (None, None, None);
        (self.compression, self.toc_digest) = (None, None);
        self.self_contained = false;
        self.blobs.clear();
        self.uids.clear();
        self.gids.clear();
    }
}

/// An image.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageRecord {
    /// The permanent id: the key of the row.
    pub id: String,
    /// The movable names, each with a row in `names`.
    pub names: Vec<String>,
    /// Every name the image has had, the newest first.
    pub names_history: Vec<String>,
    /// The caller's small string.
    pub metadata: String,
    /// When the image was made, as its config says, else when the row was made.
    pub created: Time,
    /// The topmost layer.
    pub top_layer: Option<String>,
    /// Copies of the top layer for other id maps.
    pub mapped_top_layers: Vec<String>,
    /// The digests of the manifests that the image was loaded with.
    pub digests: Vec<String>,
    /// Other digests that the image is known by, whatever its data items are.
    pub given_digests: Vec<String>,
    /// The data items that are manifests: key, and the digest that the image is known by for its sake.
    pub manifests: Vec<(String, String)>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// The caller's directory is `data/<number>`.
    pub directory: Option<u64>,
}
record!(ImageRecord, "image");

impl ImageRecord {
    /// Every digest that the image is known by, each once.
    pub fn known_digests(&self) -> Vec<&str> {
        let mut known: Vec<&str> = Vec::new();
        let of_manifests = self.manifests.iter().map(|(_, digest)| digest);
        for digest in self.digests.iter().chain(&self.given_digests).chain(of_manifests) {
            if !known.contains(&digest.as_str()) {
                known.push(digest);
            }
        }
        known
    }
}

/// A container.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRecord {
    /// The permanent id: the key of the row.
    pub id: String,
    /// The movable names, each with a row in `names`.
    pub names: Vec<String>,
    /// The image it was made from.
    pub image: Option<String>,
    /// Its own writable layer.
    pub layer: String,
    /// The caller's small string.
    pub metadata: String,
    /// When the row was made.
    pub created: Time,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Options that every mount of the container gets.
    pub mount_options: Vec<String>,
    /// The SELinux label that every mount of the container gets.
    pub mount_label: Option<String>,
    /// The SELinux label of the container's processes.
    pub process_label: Option<String>,
    /// Whether mounts of the container skip syncs.
    pub volatile: bool,
    /// How the container's user ids map to the host's.
    pub uid_map: Vec<IdRange>,
    /// How the container's group ids map to the host's.
    pub gid_map: Vec<IdRange>,
    /// The caller's directory is `data/<number>`.
    pub directory: Option<u64>,
}
record!(ContainerRecord, "container");

/// A diff directory with sealed content.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct DiffRecord {
    /// The directory is `diffs/<number>`.
    pub number: u64,
    /// The bytes of its regular files, each counted once.
    pub content_bytes: u64,
    /// The bytes its files take on the disk.
    pub disk_bytes: u64,
    /// How many inodes it takes.
    pub inodes: u64,
    /// The row in `blobs` that holds the manifest.
    pub manifest: [u8; 32],
}
record!(DiffRecord, "diff");

/// A data item: a named blob of a layer, image or container.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ItemRecord {
    /// Length in bytes.
    pub size: u64,
    /// The SHA-256 digest, as `sha256:<hex>`.
    pub digest: String,
    /// The row in `blobs` that holds the bytes.
    pub blob: [u8; 32],
}
record!(ItemRecord, "item");

/// Bytes kept in the database, shared by all that refer to them. The key is their BLAKE3 hash.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// The first part of its keys in `blob_chunks`.
    pub number: u64,
    /// Length in bytes.
    pub size: u64,
    /// The length of the chunks together, as stored.
    pub stored: u64,
    /// Whether the chunks are one zstd frame.
    pub compressed: bool,
    /// How many rows refer to it.
    pub users: u64,
}
record!(BlobRecord, "blob");

/// A layer blob kept as delivered, in `blobs/<number>`.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct KeptBlobRecord {
    /// The file is `blobs/<number>`.
    pub number: u64,
    /// Length in bytes.
    pub size: u64,
}
record!(KeptBlobRecord, "kept blob");

/// What may not be removed before a time.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The id: the key of the row.
    pub id: String,
    /// The things: kind, as in [`crate::table::Owner`], and id.
    pub things: Vec<(u8, String)>,
    /// When it was made.
    pub created: Time,
    /// When it ends.
    pub expires: Time,
}
record!(LeaseRecord, "lease");

/// What one transaction did to one thing or one kept blob.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// When the transaction was about to be committed.
    pub time: Time,
    /// What was done.
    pub action: Action,
    /// The kind of thing, as in [`crate::table::Owner`], or [`crate::table::JOURNAL_BLOB`].
    pub owner: u8,
    /// Its id; the digest of a blob.
    pub id: String,
    /// The names that it has after the transaction; of a removed thing, those that it had.
    pub names: Vec<String>,
    /// Which parts of a thing changed: a sum of the numbers in [`aspect`]. Zero unless it was there before and
    /// after.
    pub aspects: u32,
}
record!(JournalRecord, "journal");

/// What a change did.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// The thing was created.
    Created,
    /// Its record, names or data items changed: see [`JournalRecord::aspects`].
    Changed,
    /// It was removed.
    Removed,
}

/// The parts of a thing that a change is about.
pub mod aspect {
    /// Its names.
    pub const NAMES: u32 = 1;
    /// Its metadata.
    pub const METADATA: u32 = 2;
    /// Its data items.
    pub const ITEMS: u32 = 4;
    /// Its flags.
    pub const FLAGS: u32 = 8;
    /// Its labels.
    pub const LABELS: u32 = 16;
    /// The digests that it is known by: manifests of an image, blobs of a layer.
    pub const DIGESTS: u32 = 32;
    /// Anything else in its record.
    pub const RECORD: u32 = 64;
}

/// How often a layer is mounted, and where. In the run database.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MountRecord {
    /// Mounts asked for and not given up.
    pub count: u64,
    /// The mount point.
    pub target: String,
    /// Whether the mount refuses writes.
    pub read_only: bool,
}
record!(MountRecord, "mount");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_from_any_alignment() {
        let record = KeptBlobRecord { number: 7, size: u64::MAX };
        let bytes = record.encode().unwrap();
        let mut shifted = vec![0];
        shifted.extend_from_slice(&bytes);
        assert_eq!(KeptBlobRecord::decode(&shifted[1..]).unwrap(), record);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let record = ItemRecord { size: 1, digest: "sha256:00".repeat(9), blob: [1; 32] };
        let bytes = record.encode().unwrap();
        for end in 0..bytes.len() {
            // A part may be the bytes of another record by chance, never those of this one.
            assert_ne!(ItemRecord::decode(&bytes[..end]).as_ref(), Ok(&record), "cut at {end}");
        }
        assert!(LayerRecord::decode(&bytes).is_err());
        let reason = |bytes: &[u8]| LayerRecord::decode(bytes).unwrap_err().reason;
        assert_eq!(reason(&bytes[..7]), "its 7 bytes are no such record");
        assert_eq!(reason(&[bytes.clone(), vec![0; 7]].concat()), reason(&[vec![0; 7], bytes].concat()));
    }
}
