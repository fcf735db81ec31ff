//! Whether an image can fit at all: asked before anything is unpacked, of what is known then. Only what does not fit is refused,
//! where zeros, which become holes, count like all that is not known yet; the rest finds out as it goes, and leaves nothing behind.

use std::collections::HashSet;

use layerstore_schema::table::LayerKey;

use super::reuse::find_additional;
use super::{ImageImport, LayerImport};
use crate::disk;
use crate::error::{Error, ImportError};
use crate::store::Store;
use crate::types::ChainId;

impl Store {
    /// Fails if what is not here yet has no room, even if nothing took more than its sizes say.
    pub(super) fn refuse_without_space(
        &self,
        import: &ImageImport<'_>,
        chains: &[ChainId],
    ) -> Result<(), Error> {
        let free = self.layout().free_space()?;
        let txn = self.begin_read()?;
        let mut seen = HashSet::new();
        let (mut bytes, mut inodes) = (0u64, 0u64);
        // What may be in an additional layer store, and takes nothing here then.
        let mut perhaps_served = Vec::new();
        for (layer, chain) in import.layers.iter().zip(chains) {
            let known = txn.layer(chain.0.hex())?.is_some()
                || !seen.insert(&layer.diff_id)
                || !txn.layers_by(LayerKey::DiffId, &layer.diff_id.to_string())?.is_empty();
            if known {
                continue;
            }
            let least = least_bytes(layer, free.may_compress);
            // Its directory, and the file of its blob.
            let files = if layer.keep_blob && self.options().keep_blobs { 2 } else { 1 };
            bytes = bytes.saturating_add(least);
            inodes = inodes.saturating_add(files);
            if layer.toc_digest.is_some() && !self.options().additional_layer_stores.is_empty() {
                perhaps_served.push((layer, least, files));
            }
        }
        // To look one up makes the other program fetch it, so that is done only where it decides.
        for (layer, least, files) in perhaps_served {
            if bytes <= free.bytes && free.inodes.is_none_or(|free| inodes <= free) {
                break;
            }
            if find_additional(self, import, layer)?.is_some() {
                bytes = bytes.saturating_sub(least);
                inodes = inodes.saturating_sub(files);
            }
        }
        if bytes > free.bytes {
            let reserved = disk::reserved(self.layout());
            return Err(ImportError::NoSpace { needed: bytes, free: free.bytes, reserved }.into());
        }
        match free.inodes {
            Some(free) if inodes > free => Err(ImportError::NoInodes { needed: inodes, free }.into()),
            _ => Ok(()),
        }
    }
}

/// What a layer takes at the least. The blob may be kept at no cost, by reflink; the files are no smaller than it.
fn least_bytes(layer: &LayerImport<'_>, may_compress: bool) -> u64 {
    let blob = layer.blob.as_ref().map_or(0, |blob| blob.size);
    match layer.unpacked_size {
        Some(size) if !may_compress => size.max(blob),
        _ => blob,
    }
}
