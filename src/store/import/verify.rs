//! Whether a blob and the archive in it are the ones that the image names.

use std::io::Read;

use super::LayerImport;
use crate::error::{BlobError, ImportError, OciError};
use crate::layer::{LayerBlob, Streams};
use crate::timing::{self, Stage};
use crate::types::Hasher;

/// Refuses streams that are not the layer's, once they were read.
pub(super) fn check_digests(layer: &LayerImport<'_>, streams: &Streams) -> Result<(), ImportError> {
    let blob = layer.blob.as_ref().map_or_else(String::new, |blob| blob.digest.to_string());
    if let Some(expected) = &layer.blob
        && expected.digest != streams.blob_digest
    {
        return Err(ImportError::BlobDigest { expected: blob, found: streams.blob_digest.to_string() });
    }
    if layer.diff_id != streams.diff_id {
        let (expected, found) = (layer.diff_id.to_string(), streams.diff_id.to_string());
        return Err(ImportError::DiffId { blob, expected, found });
    }
    Ok(())
}

/// Reads a blob to its end and refuses another one.
pub(super) fn check_blob(input: &mut dyn Read, blob: &LayerBlob) -> Result<(), ImportError> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let copied = timing::spanned(Stage::Hash, || std::io::copy(input, &mut hasher));
    let found = hasher.finish();
    if found == blob.digest {
        return Ok(());
    }
    match copied {
        // A source that checks its blobs itself found the same, and may have read no further.
        Err(error)
            if !matches!(OciError::from_io(&error), Some(OciError::Blob(BlobError::Digest { .. }))) =>
        {
            Err(error.into())
        }
        _ => Err(ImportError::BlobDigest { expected: blob.digest.to_string(), found: found.to_string() }),
    }
}

/// Names the layer that an error is about. A damaged blob shows as any error of decompression or of the archive:
/// its digest tells whether that is the cause.
pub(super) fn diagnose(layer: &LayerImport<'_>, error: ImportError) -> ImportError {
    let cause = layer.blob.as_ref().and_then(|blob| {
        let mut input = (layer.open)().ok()?;
        check_blob(&mut input.reader, blob).err()
    });
    match cause {
        Some(cause @ ImportError::BlobDigest { .. }) => cause,
        _ => ImportError::InLayer { layer: layer.name(), source: Box::new(error) },
    }
}
