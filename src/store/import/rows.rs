//! The rows of an import, inserted in one transaction.

use layerstore_schema::record::{
    DiffRecord, ImageRecord, KeptBlobRecord, LayerBlob as BlobRow, LayerContent, LayerRecord,
};
use layerstore_schema::table::Owner;

use super::work::CopiedBlob;
use super::{ImageImport, LayerImport, Needed, Ready};
use crate::error::{Error, ImportError};
use crate::layer::SealedLayer;
use crate::meta::{PreparedBlob, Query, WriteTxn};
use crate::types::{ChainId, Digest, Timestamp};

/// Inserts everything of an import, in one transaction.
pub(super) fn insert(
    txn: &WriteTxn,
    import: &ImageImport<'_>,
    chains: &[ChainId],
    ready: &[Ready],
    blobs: &[(Digest, CopiedBlob)],
    items: &[(&String, Digest, PreparedBlob)],
) -> Result<(ImageRecord, Needed), Error> {
    let (needed, parent) = insert_layers(txn, import, chains, ready, blobs)?;
    // What an earlier try left for this one.
    txn.remove_lease(&lease_id(import))?;
    let record = insert_image(txn, import, parent.as_deref())?;
    for (key, digest, blob) in items {
        if blob.size() > 0 {
            txn.put_item(Owner::Image, &record.id, key, digest.to_string(), blob)?;
        } else {
            txn.remove_item(Owner::Image, &record.id, key)?;
        }
    }
    Ok((record, needed))
}

/// Inserts the rows of the layers that are ready, the lowest of the image, with those of their blobs. Returns also the
/// id of the topmost.
pub(super) fn insert_layers(
    txn: &WriteTxn,
    import: &ImageImport<'_>,
    chains: &[ChainId],
    ready: &[Ready],
    blobs: &[(Digest, CopiedBlob)],
) -> Result<(Needed, Option<String>), Error> {
    let mut needed = Needed::default();
    let mut parent: Option<&str> = None;
    for ((layer, chain), ready) in import.layers.iter().zip(chains).zip(ready) {
        needed.layers.push(insert_layer(txn, layer, chain, parent, ready)?);
        parent = Some(chain.0.hex());
    }
    let carried = |digest: &Digest| {
        let mut blobs = import.layers.iter().zip(ready).filter_map(|(layer, _)| layer.blob.as_ref());
        blobs.any(|blob| blob.digest == *digest)
    };
    for (digest, blob) in blobs {
        let name = digest.to_string();
        let new = carried(digest) && txn.kept_blob(&name)?.is_none();
        if new {
            let (number, size) = (blob.file.number(), blob.size);
            txn.put_kept_blob(&name, &KeptBlobRecord { number, size })?;
        }
        needed.blobs.push(new);
    }
    Ok((needed, parent.map(str::to_owned)))
}

/// The lease that keeps what was finished of an import that failed.
pub(super) fn lease_id(import: &ImageImport<'_>) -> String {
    format!("load-{}", import.id)
}

/// Inserts the row of one layer; `false` if its staged directory is not needed.
fn insert_layer(
    txn: &WriteTxn,
    layer: &LayerImport<'_>,
    chain: &ChainId,
    parent: Option<&str>,
    ready: &Ready,
) -> Result<bool, Error> {
    let id = chain.0.hex();
    let blob_row = layer.blob.as_ref().map(|blob| BlobRow {
        digest: blob.digest.to_string(),
        size: blob.size,
        media_type: blob.media_type.clone(),
    });
    // Another process may have brought the same layer in meanwhile.
    if let Some(mut known) = txn.layer(id)? {
        if let Some(row) = blob_row
            && known.blobs.iter().all(|blob| blob.digest != row.digest)
        {
            known.blobs.push(row);
            txn.put_layer(&known)?;
        }
        return Ok(false);
    }
    let record = LayerRecord {
        id: id.to_owned(),
        parent: parent.map(str::to_owned),
        names: Vec::new(),
        metadata: String::new(),
        created: Timestamp::now().into(),
        content: LayerContent::Sealed([0; 32]),
        diff_id: Some(layer.diff_id.to_string()),
        diff_size: None,
        blobs: blob_row.into_iter().collect(),
        split: None,
        self_contained: true,
        flags: Vec::new(),
        labels: Vec::new(),
    };
    match ready {
        Ready::Sealed(sealed) => insert_sealed(txn, record, sealed),
        Ready::Shared(donor) => insert_shared(txn, record, donor).map(|()| true),
        // It was there when the import began, and has been removed since.
        Ready::Known => Err(ImportError::Vanished { layer: id.to_owned() }.into()),
    }
}

fn insert_sealed(txn: &WriteTxn, record: LayerRecord, sealed: &SealedLayer) -> Result<bool, Error> {
    let new_tree = txn.diff(&sealed.tree)?.is_none();
    if new_tree {
        let diff = DiffRecord {
            number: sealed.directory.number(),
            content_bytes: sealed.manifest.content_bytes(),
            disk_bytes: sealed.usage.allocated,
            inodes: sealed.usage.inodes,
            manifest: [0; 32],
        };
        txn.put_diff(&sealed.tree, diff, &sealed.manifest_blob)?;
    }
    let split = txn.put_blob(&sealed.split)?;
    txn.put_layer(&LayerRecord {
        content: LayerContent::Sealed(sealed.tree.0),
        diff_size: Some(sealed.streams.diff_size),
        split: Some(split),
        self_contained: sealed.self_contained,
        ..record
    })?;
    Ok(new_tree)
}

fn insert_shared(txn: &WriteTxn, record: LayerRecord, donor: &LayerRecord) -> Result<(), Error> {
    let gone = || ImportError::Vanished { layer: donor.id.clone() };
    let donor = txn.layer(&donor.id)?.ok_or_else(gone)?;
    if let Some(split) = &donor.split {
        txn.share_blob(split)?;
    }
    txn.put_layer(&LayerRecord {
        content: donor.content,
        diff_size: donor.diff_size,
        split: donor.split,
        self_contained: donor.self_contained,
        ..record
    })?;
    Ok(())
}

/// Inserts the image, or brings the one with this id up to date.
fn insert_image(txn: &WriteTxn, import: &ImageImport<'_>, top: Option<&str>) -> Result<ImageRecord, Error> {
    let mut record = txn.image(import.id.as_str())?.unwrap_or_else(|| ImageRecord {
        id: import.id.to_string(),
        names: Vec::new(),
        names_history: Vec::new(),
        metadata: String::new(),
        created: import.created.into(),
        top_layer: top.map(str::to_owned),
        mapped_top_layers: Vec::new(),
        digests: Vec::new(),
        flags: Vec::new(),
        labels: Vec::new(),
    });
    for digest in import.digests.iter().map(ToString::to_string) {
        if !record.digests.contains(&digest) {
            record.digests.push(digest);
        }
    }
    for name in &import.names {
        let held = record.names.iter().any(|held| held == name.as_str());
        if !held {
            txn.take_image_name(name.as_str())?;
            record.names.push(name.as_str().to_owned());
        }
        record.names_history.retain(|old| old != name.as_str());
        record.names_history.insert(0, name.as_str().to_owned());
    }
    txn.put_image(&record)?;
    Ok(record)
}
