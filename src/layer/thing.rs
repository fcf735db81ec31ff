//! The value that describes a layer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::record::{IdRange, LayerContent, LayerRecord, RecordError};

use crate::compress::Compression;
use crate::error::MetaError;
use crate::sys::userns::IdExtent;
use crate::types::{DiffId, Digest, LayerId, Name, Timestamp, TreeDigest, stored, stored_list, stored_own};

/// A layer: a file tree as changes to its parent.
///
/// A value is what the store held when it was read; it does not follow later changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The permanent id; for a layer that was loaded, the hex digits of its chain ID.
    pub id: LayerId,
    /// The layer below; `None` for a base layer.
    pub parent: Option<LayerId>,
    /// The movable names.
    pub names: Vec<Name>,
    /// The caller's small string.
    pub metadata: String,
    /// When it came into the store.
    pub created: Timestamp,
    /// The digest of its content; `None` for a layer that is written to, and for one of an additional layer store.
    pub tree: Option<TreeDigest>,
    /// The directory of an additional layer store that has its files (see
    /// [`Store::lookup_additional_layer`](crate::Store::lookup_additional_layer)); `None` if this store has them.
    pub additional: Option<PathBuf>,
    /// The digest of its uncompressed tar, if it came from one.
    pub diff_id: Option<DiffId>,
    /// The length of that tar in bytes.
    pub diff_size: Option<u64>,
    /// The blobs that are known to carry it: that it came from, and others that images named. The store may have their
    /// bytes, of images that were loaded (see [`StoreOptions::keep_blobs`](crate::StoreOptions::keep_blobs)), or only know them by
    /// digest and length.
    pub blobs: Vec<LayerBlob>,
    /// How the blob was compressed that it came from.
    pub compression: Option<Compression>,
    /// The digest of the table of contents of that blob. Of layers that came with images, and of those whose
    /// [`ChunkedBlob`](crate::ChunkedBlob) was given, it was compared with all of the archive; else it is what the caller said.
    pub toc_digest: Option<Digest>,
    /// The users that own something in its tar, ascending; at most the lowest 4096.
    pub uids: Vec<u32>,
    /// The groups.
    pub gids: Vec<u32>,
    /// The SELinux label that every mount of it gets.
    pub mount_label: Option<String>,
    /// Whether its mounts leave out syncs.
    pub volatile: bool,
    /// Whether it is never mounted for writing.
    pub read_only: bool,
    /// How user ids map to the host's: kept for the caller.
    pub uid_map: Vec<IdExtent>,
    /// How group ids map to the host's.
    pub gid_map: Vec<IdExtent>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// The root of the other store that it was read from (see [`StoreOptions::image_store`](crate::StoreOptions::image_store));
    /// `None` for one of the store's own.
    pub image_store: Option<PathBuf>,
}

/// A blob that carried a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The media type it was delivered under.
    pub media_type: String,
}

impl Layer {
    /// Whether the layer can be written to.
    pub fn is_writable(&self) -> bool {
        self.tree.is_none() && self.additional.is_none()
    }

    /// The length of the blob that it came from.
    pub fn blob_size(&self) -> Option<u64> {
        self.blobs.first().map(|blob| blob.size)
    }

    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if an id, name or digest in it is none.
    pub(crate) fn from_record(record: LayerRecord) -> Result<Self, MetaError> {
        let id = &record.id;
        let blob = |blob: layerstore_schema::record::LayerBlob| {
            let digest = stored("layer", id, &blob.digest)?;
            Ok(LayerBlob { digest, size: blob.size, media_type: blob.media_type })
        };
        Ok(Layer {
            id: stored("layer", id, id)?,
            parent: record.parent.map(|parent| stored_own("layer", id, parent)).transpose()?,
            names: stored_list("layer", id, record.names)?,
            created: record.created.into(),
            tree: match record.content {
                LayerContent::Sealed(tree) => Some(TreeDigest(tree)),
                LayerContent::Writable(_) | LayerContent::Additional(_) => None,
            },
            additional: match &record.content {
                LayerContent::Additional(path) => Some(PathBuf::from(OsStr::from_bytes(path))),
                LayerContent::Sealed(_) | LayerContent::Writable(_) => None,
            },
            diff_id: record
                .diff_id
                .as_deref()
                .map(|digest| stored("layer", id, digest).map(DiffId))
                .transpose()?,
            blobs: record.blobs.into_iter().map(blob).collect::<Result<_, MetaError>>()?,
            compression: record.compression.as_deref().map(|name| compression(id, name)).transpose()?,
            toc_digest: record.toc_digest.as_deref().map(|digest| stored("layer", id, digest)).transpose()?,
            uids: record.uids,
            gids: record.gids,
            mount_label: record.mount_label,
            volatile: record.volatile,
            read_only: record.read_only,
            uid_map: record.uid_map.iter().map(extent).collect(),
            gid_map: record.gid_map.iter().map(extent).collect(),
            metadata: record.metadata,
            diff_size: record.diff_size,
            flags: record.flags,
            labels: record.labels,
            image_store: None,
        })
    }
}

fn compression(id: &str, name: &str) -> Result<Compression, MetaError> {
    Compression::from_name(name).ok_or_else(|| {
        let source = RecordError { kind: "layer", reason: format!("there is no compression {name:?}") };
        MetaError::Record { kind: "layer", key: id.to_owned(), source }
    })
}

fn extent(range: &IdRange) -> IdExtent {
    IdExtent { inside: range.container, outside: range.host, count: range.length }
}
