//! Layers that need not be unpacked: they are here already, or in another store that is read, or in an additional layer store, or
//! another layer has the same content. None is used again before it is known to be whole.

use std::sync::Arc;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};

use super::work::Work;
use super::{ImageImport, LayerImport, Ready};
use crate::disk::AdditionalDirectory;
use crate::error::{Error, ImportError};
use crate::layer::Stack;
use crate::meta::{Query, ReadTxn};
use crate::store::{AdditionalLayer, Store};
use crate::sys::path;
use crate::types::{ChainId, Digest, TreeDigest};

impl Work<'_> {
    /// A layer that another store has, whole, which this one reads.
    pub(super) fn elsewhere(
        &self,
        chain: &ChainId,
        layer: &LayerImport<'_>,
    ) -> Result<Option<LayerRecord>, Error> {
        if self.store.image_stores().is_empty() {
            return Ok(None);
        }
        let view = self.store.begin_read()?;
        let Some(found) = view.layer(chain.0.hex())? else { return Ok(None) };
        // A layer may have any id.
        if refuse_other(Some(&found), layer).is_err() {
            return Ok(None);
        }
        match view.verify_layer(&found) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "unpacked here");
                Ok(None)
            }
            verified => verified.map(|()| Some(found)),
        }
    }

    /// A layer that an additional layer store has. What such a store says and does not fit is no reason to fail: there is
    /// the blob.
    pub(super) fn additional(
        &self,
        layer: &LayerImport<'_>,
    ) -> Result<Option<(AdditionalLayer, Manifest)>, Error> {
        let Some(found) = find_additional(self.store, self.import, layer)? else { return Ok(None) };
        match found.listing(self.store.layout().xattrs()) {
            Ok(listing) => Ok(Some((found, listing))),
            // What serves it may have failed meanwhile.
            Err(error) => {
                tracing::warn!(path = %found.path().display(), %error, "unpacked here");
                Ok(None)
            }
        }
    }

    /// Whether the files of a layer can be used again: not if their directory is gone, or they were not on the disk when
    /// the machine went down.
    pub(super) fn is_whole(&self, txn: &ReadTxn, layer: &LayerRecord) -> Result<bool, Error> {
        match &layer.content {
            LayerContent::Sealed(tree) => self.is_whole_tree(txn, &layer.id, &TreeDigest(*tree)),
            LayerContent::Writable(_) => Ok(true),
            LayerContent::Additional(path) => {
                let there = AdditionalDirectory::from_bytes(path).open_diff().is_ok();
                if !there {
                    tracing::warn!(layer = layer.id, "its additional layer store is gone: unpacked here");
                    self.state().vanished.insert(layer.id.clone());
                }
                Ok(there)
            }
        }
    }

    pub(super) fn is_whole_tree(&self, txn: &ReadTxn, layer: &str, tree: &TreeDigest) -> Result<bool, Error> {
        if let Some(diff) = txn.diff(tree)?
            && !path::exists(&self.store.diff_path(diff.number)).unwrap_or(true)
            // Whoever removes a layer takes the row first.
            && self.store.database().begin_read()?.diff(tree)?.is_some_and(|now| now.number == diff.number)
        {
            tracing::warn!(layer, number = diff.number, "its directory is missing: unpacked again");
            self.state().damaged.insert(diff.number);
            return Ok(false);
        }
        match self.store.verify_tree(txn, layer, tree) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "unpacked again");
                self.state().damaged.extend(txn.diff(tree)?.map(|diff| diff.number));
                Ok(false)
            }
            verified => verified.map(|()| true),
        }
    }

    /// Whether a blob is kept already, and as it came.
    pub(super) fn has_kept(&self, digest: &Digest) -> Result<bool, Error> {
        let digest = digest.to_string();
        let txn = self.store.database().begin_read()?;
        let Some(kept) = txn.kept_blob(&digest)? else { return Ok(false) };
        match self.store.verify_kept_blob(&txn, &digest, &kept) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "copied again");
                self.state().damaged.insert(kept.number);
                Ok(false)
            }
            verified => verified.map(|()| true),
        }
    }

    /// The stack with a layer on top that is on record.
    pub(super) fn with_known(&self, below: &Stack, known: &LayerRecord) -> Result<Stack, Error> {
        match known.content {
            LayerContent::Sealed(tree) => Ok(below.push(self.manifest(known, &TreeDigest(tree))?)),
            LayerContent::Writable(_) => Ok(below.clone()),
            LayerContent::Additional(_) => Ok(below.push(self.store.begin_read()?.listing(known)?)),
        }
    }

    /// The manifest of a layer that was there a moment ago.
    fn manifest(&self, layer: &LayerRecord, tree: &TreeDigest) -> Result<Arc<Manifest>, Error> {
        let view = self.store.begin_read()?;
        if view.layer(&layer.id)?.is_none() {
            return Err(ImportError::Vanished { layer: layer.id.clone() }.into());
        }
        Ok(view.manifest(tree)?)
    }

    /// Whether the content of `donor`, which came from the same tar, is right here too: it is if nothing in it was
    /// inherited from the layers that lie below the donor.
    pub(super) fn share(
        &self,
        donor: &LayerRecord,
        position: usize,
    ) -> Result<Option<(Ready, Stack)>, Error> {
        let LayerContent::Sealed(tree) = donor.content else { return Ok(None) };
        if !donor.self_contained {
            return Ok(None);
        }
        let below = self.below(position)?;
        let manifest = self.manifest(donor, &TreeDigest(tree))?;
        let root = manifest.get(b"").map(|entry| &entry.metadata);
        let same_root = match below.find(b"") {
            Some(entry) => Some(&entry.metadata) == root,
            // The donor's root may be that of the layers below it; here is nothing to inherit.
            None => donor.parent.is_none(),
        };
        if !same_root {
            return Ok(None);
        }
        Ok(Some((Ready::Shared(Box::new(donor.clone())), below.push(manifest))))
    }
}

impl Work<'_> {
    /// The position of a layer below that this import has unpacked from the same tar, if its content is right here too, and the stack
    /// with it. Waits for the layers below: whoever names one layer again and again has it unpacked once.
    pub(super) fn staged(
        &self,
        layer: &LayerImport<'_>,
        position: usize,
    ) -> Result<Option<(usize, Stack)>, Error> {
        if !self.is_repeated(layer, position) {
            return Ok(None);
        }
        let below = self.below(position)?;
        let shapes = self.state().shapes.get(&layer.diff_id).cloned().unwrap_or_default();
        let same = shapes.into_iter().find(|(_, shape)| shape.fits(&below));
        Ok(same.map(|(position, shape)| (position, below.push(shape.manifest))))
    }
}

/// The layer as an additional layer store has it, if what that says fits.
pub(super) fn find_additional(
    store: &Store,
    import: &ImageImport<'_>,
    layer: &LayerImport<'_>,
) -> Result<Option<AdditionalLayer>, Error> {
    let Some(toc) = &layer.toc_digest else { return Ok(None) };
    if store.options().additional_layer_stores.is_empty() {
        return Ok(None);
    }
    let none = [String::new()];
    let references = if import.references.is_empty() { &none[..] } else { &import.references };
    for reference in references {
        let found = store.lookup_additional_layer(toc, reference);
        let fits = |found: &AdditionalLayer| found.expect_layer(&layer.diff_id, layer.blob.as_ref());
        match found.and_then(|found| found.map(|found| fits(&found).map(|()| found)).transpose()) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error @ Error::AdditionalLayer(_)) => tracing::warn!(%error, "unpacked here"),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Refuses a layer that has the id of one of the import and is another.
pub(super) fn refuse_other(known: Option<&LayerRecord>, layer: &LayerImport<'_>) -> Result<(), ImportError> {
    match known {
        Some(known) if known.diff_id.as_deref() != Some(&*layer.diff_id.to_string()) => {
            Err(ImportError::OtherContent { layer: known.id.clone() })
        }
        _ => Ok(()),
    }
}
