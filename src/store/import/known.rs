//! The blobs of layers that are there. What the store knows of a blob it does not read again; what it does not know of it, it
//! believes of nobody: such a blob is read and compared, as that of a layer that is new. So a descriptor that lies about a layer is
//! refused whether the layer is there or not, and every blob that a record names is known to have the layer in it.

use std::io;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::LayerKey;

use super::LayerImport;
use super::verify::{check_blob, check_digests, diagnose};
use super::work::Work;
use crate::disk::Confinement;
use crate::error::{Error, ImportError, MetaError};
use crate::layer::{LayerBlob, read_layer};
use crate::meta::Query;

impl Work<'_> {
    /// A layer that need not be unpacked, as `record` has its content. Its blob may be one that is not known or not kept yet.
    pub(super) fn known(&self, layer: &LayerImport<'_>, record: &LayerRecord) -> Result<(), Error> {
        self.check_known(layer, |blob| says_so(record, layer, blob))
    }

    /// The same, as this import has unpacked its content for the layer at `lower`, with whose blob it was compared.
    pub(super) fn known_below(&self, layer: &LayerImport<'_>, lower: usize) -> Result<(), Error> {
        let lower = self.import.layers.get(lower).and_then(|lower| lower.blob.as_ref());
        self.check_known(layer, |blob| lower == Some(blob))
    }

    fn check_known(
        &self,
        layer: &LayerImport<'_>,
        is_of: impl FnOnce(&LayerBlob) -> bool,
    ) -> Result<(), Error> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        self.report_known(layer);
        let is_known = is_of(blob) || self.is_on_record(layer, blob)?;
        let keep = layer.keep_blob
            && self.store.options().keep_blobs
            && !self.has_kept(&blob.digest)?
            && self.may_copy(&blob.digest);
        if is_known && !keep {
            return Ok(());
        }
        let mut input = (layer.open)()?;
        let copied = if keep { self.copy_blob(&mut input)? } else { None };
        match &copied {
            // Nothing else reads the copy, so its digest is checked here.
            Some(_) if is_known => check_blob(&mut input.reader, blob)?,
            None if is_known => {}
            _ => {
                let name = layer.name();
                let consume = |tar: &mut dyn io::Read| {
                    io::copy(tar, &mut io::sink()).map(drop).map_err(ImportError::from)
                };
                read_layer(
                    (&name, input.reader),
                    blob.digest.algorithm(),
                    &self.budget,
                    Confinement::to_nothing(),
                    consume,
                )
                .and_then(|((), streams)| check_digests(layer, &streams))
                .map_err(|error| diagnose(layer, error))?;
            }
        }
        if let Some(copied) = copied {
            self.keep_copied(blob, copied);
        }
        Ok(())
    }

    /// A layer that another store has. Nothing of it is recorded here, so what that store does not know of its blob is nobody's
    /// business; what it does know holds.
    pub(super) fn known_elsewhere(&self, layer: &LayerImport<'_>, record: &LayerRecord) -> Result<(), Error> {
        self.report_known(layer);
        if let Some(blob) = &layer.blob
            && record.blobs.iter().any(|row| row.digest == blob.digest.to_string() && row.size != blob.size)
        {
            // It cannot be opened with a size that it has not.
            (layer.open)()?;
        }
        Ok(())
    }

    /// Whether some layer of the store came in this blob, and has the content of this one.
    fn is_on_record(&self, layer: &LayerImport<'_>, blob: &LayerBlob) -> Result<bool, MetaError> {
        let txn = self.store.database().begin_read()?;
        for id in txn.layers_by(LayerKey::Blob, &blob.digest.to_string())? {
            if txn.layer(&id)?.is_some_and(|record| says_so(&record, layer, blob)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a record says that the blob has that length, and the content of the layer in it.
fn says_so(record: &LayerRecord, layer: &LayerImport<'_>, blob: &LayerBlob) -> bool {
    if record.diff_id.as_deref() != Some(&*layer.diff_id.to_string()) {
        return false;
    }
    // What an additional layer store has was not compared with a blob.
    let is_compared = !matches!(record.content, LayerContent::Additional(_));
    let digest = blob.digest.to_string();
    let in_blob = is_compared && record.blobs.iter().any(|row| row.digest == digest && row.size == blob.size);
    // A plain tar is its own blob.
    in_blob || (blob.digest == layer.diff_id.0 && record.diff_size == Some(blob.size))
}
