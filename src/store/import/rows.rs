//! The rows of an import, inserted in one transaction.

use std::collections::HashSet;

use layerstore_schema::record::{
    DiffRecord, ImageRecord, KeptBlobRecord, LayerBlob as BlobRow, LayerContent, LayerRecord,
};
use layerstore_schema::table::{LayerKey, Owner};

use super::manifests::LoadedNames;
use super::work::CopiedBlob;
use super::{Durability, ImageImport, LayerImport, Needed, Prepared, PreparedItems, Ready, manifests};
use crate::error::{Error, ImportError, MetaError};
use crate::image;
use crate::layer::{self, SealedContent, SealedLayer};
use crate::meta::{Freed, PreparedBlob, Query, WriteTxn, unsynced};
use crate::types::{ChainId, Digest, Timestamp, TreeDigest};

/// The lease that keeps what was finished of an import that failed.
pub(super) fn lease_id(import: &ImageImport<'_>) -> String {
    format!("load-{}", import.id)
}

/// The rows of one import, being inserted.
pub(in crate::store) struct Rows<'a> {
    pub(in crate::store) txn: &'a WriteTxn,
    /// Numbers whose places are taken by what was staged.
    damaged: &'a HashSet<u64>,
    durability: &'a Durability,
    /// Which of what was staged they name.
    pub(super) needed: Needed,
    /// What has lost its place.
    pub(in crate::store) freed: Freed,
    /// The layers whose files now are in other directories.
    pub(super) replaced: Vec<String>,
    /// The layers, bottom first.
    layers: Vec<String>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        txn: &'a WriteTxn,
        damaged: &'a HashSet<u64>,
        durability: &'a Durability,
    ) -> Result<Self, Error> {
        if let Durability::Synced { also } = durability {
            txn.forget_unsynced(also.iter().copied())?;
        }
        let (needed, freed, replaced, layers) = Default::default();
        Ok(Rows { txn, damaged, durability, needed, freed, replaced, layers })
    }

    /// Inserts everything of an import.
    pub(super) fn image(
        &mut self,
        import: &ImageImport<'_>,
        chains: &[ChainId],
        prepared: &Prepared,
        [items, first_items]: &[PreparedItems<'_>; 2],
        noted: LoadedNames,
    ) -> Result<ImageRecord, Error> {
        let top = self.layers(import, chains, prepared)?;
        // What an earlier try left for this one.
        self.txn.remove_lease(&lease_id(import))?;
        let further = manifests::is_further(self.txn, import)?;
        let record = insert_image(self.txn, import, top.as_deref())?;
        for (key, digest, blob) in items {
            self.put_item(&record, key, digest, blob)?;
        }
        for (key, digest, blob) in first_items {
            match further {
                Some(manifest) => self.put_item(&record, &format!("{key}-{manifest}"), digest, blob)?,
                None => self.put_item(&record, key, digest, blob)?,
            }
        }
        manifests::note_names(self.txn, &record, noted, &import.names, further)?;
        // With the digests of its manifests.
        Ok(self.txn.image(&record.id)?.unwrap_or(record))
    }

    fn put_item(
        &self,
        image: &ImageRecord,
        key: &str,
        digest: &Digest,
        blob: &PreparedBlob,
    ) -> Result<(), MetaError> {
        if blob.size() > 0 {
            return self.txn.put_item(Owner::Image, &image.id, key, digest.to_string(), blob);
        }
        self.txn.remove_item(Owner::Image, &image.id, key).map(drop)
    }

    /// Inserts the rows of the layers that are ready, the lowest of the image, with those of their blobs. Returns the id
    /// of the topmost.
    pub(super) fn layers(
        &mut self,
        import: &ImageImport<'_>,
        chains: &[ChainId],
        prepared: &Prepared,
    ) -> Result<Option<String>, Error> {
        let ready = || import.layers.iter().zip(&prepared.ready);
        for ((layer, ready), chain) in ready().zip(chains) {
            let vanished = prepared.vanished.contains(chain.0.hex());
            let of = match ready {
                Ready::Repeated(of) => Some(*of),
                _ => None,
            };
            let sealed = of.map_or(Some(ready), |of| prepared.ready.get(of)).and_then(Ready::sealed);
            let needed = self.insert_layer(layer, chain, (ready, sealed), vanished)?;
            self.needed.layers.push(needed && of.is_none());
            if let Some(lowest) = of.and_then(|of| self.needed.layers.get_mut(of)) {
                *lowest |= needed;
            }
            self.layers.push(chain.0.hex().to_owned());
        }
        for (digest, blob) in &prepared.blobs {
            let carries =
                ready().filter_map(|(layer, _)| layer.blob.as_ref()).any(|blob| blob.digest == *digest);
            let needed = carries && self.insert_kept_blob(&digest.to_string(), blob)?;
            self.needed.blobs.push(needed);
        }
        Ok(self.layers.last().cloned())
    }

    /// Inserts the row of one layer, with what was unpacked for it or for one below; `false` if its staged directory is not needed.
    fn insert_layer(
        &mut self,
        layer: &LayerImport<'_>,
        chain: &ChainId,
        (ready, sealed): (&Ready, Option<&SealedLayer>),
        vanished: bool,
    ) -> Result<bool, Error> {
        let id = chain.0.hex();
        let blob_row = layer.blob.as_ref().map(|blob| BlobRow {
            digest: blob.digest.to_string(),
            size: blob.size,
            media_type: blob.media_type.clone(),
        });
        // Another process may have brought the same layer in meanwhile.
        if let Some(mut known) = self.txn.layer(id)? {
            let expected = (Some(layer.diff_id.to_string()), self.layers.last());
            if (known.diff_id.clone(), known.parent.as_ref()) != expected {
                return Err(ImportError::OtherContent { layer: id.to_owned() }.into());
            }
            let is_compared = match ready {
                Ready::Sealed(_) | Ready::Shared(_) | Ready::Repeated(_) => true,
                Ready::Known => !matches!(known.content, LayerContent::Additional(_)),
                Ready::Elsewhere | Ready::Additional(_) => false,
            };
            if let Some(row) = blob_row
                && is_compared
                && known.blobs.iter().all(|blob| blob.digest != row.digest)
            {
                known.blobs.push(row);
                self.txn.put_layer(&known)?;
            }
            return match sealed {
                Some(sealed) if vanished => self.replace_vanished(known, sealed),
                Some(sealed) => self.replace_damaged(known, sealed),
                None => Ok(false),
            };
        }
        if matches!(ready, Ready::Elsewhere) {
            return Ok(false);
        }
        let record = LayerRecord {
            parent: self.layers.last().cloned(),
            diff_id: Some(layer.diff_id.to_string()),
            blobs: blob_row.into_iter().collect(),
            toc_digest: toc_digest(layer, ready, sealed),
            ..LayerRecord::new(id, Timestamp::now().into(), LayerContent::Sealed([0; 32]))
        };
        if let Some(sealed) = sealed {
            return self.insert_sealed(record, sealed);
        }
        match ready {
            Ready::Shared(donor) => insert_shared(self.txn, record, donor).map(|()| true),
            Ready::Additional(found) => {
                self.txn.put_layer(&found.described(record))?;
                Ok(true)
            }
            // It was there when the import began, and has been removed since.
            Ready::Known | Ready::Elsewhere | Ready::Sealed(_) | Ready::Repeated(_) => {
                Err(ImportError::Vanished { layer: id.to_owned() }.into())
            }
        }
    }

    /// Inserts the row of a layer that was unpacked, but for the digest of its stream; `false` if its staged directory
    /// is not needed.
    pub(in crate::store) fn insert_sealed(
        &mut self,
        record: LayerRecord,
        sealed: &SealedLayer,
    ) -> Result<bool, Error> {
        let needed = self.insert_tree(sealed.directory.number(), &sealed.content)?;
        let split = self.txn.put_blob(&sealed.split)?;
        self.txn.put_layer(&sealed.describe(split, record))?;
        Ok(needed)
    }

    /// Gives a layer that is there the files that were unpacked, if it has them in an additional layer store.
    fn replace_vanished(&mut self, known: LayerRecord, sealed: &SealedLayer) -> Result<bool, Error> {
        if !matches!(known.content, LayerContent::Additional(_)) {
            return Ok(false);
        }
        self.replaced.push(known.id.clone());
        let needed = self.insert_sealed(LayerRecord { read_only: false, ..known.clone() }, sealed)?;
        self.release(&known)?;
        Ok(needed)
    }

    /// Gives a layer that is there the files that were unpacked, if its own are damaged.
    fn replace_damaged(&mut self, known: LayerRecord, sealed: &SealedLayer) -> Result<bool, Error> {
        let LayerContent::Sealed(tree) = known.content else { return Ok(false) };
        let tree = TreeDigest(tree);
        let damaged = self.txn.diff(&tree)?.is_some_and(|diff| self.damaged.contains(&diff.number));
        if !damaged {
            return Ok(false);
        }
        self.replaced.push(known.id.clone());
        if tree == sealed.content.tree {
            return self.insert_tree(sealed.directory.number(), &sealed.content);
        }
        // Unpacked by a process of other privileges, or above a layer to which the same has happened.
        let split = known.split;
        let needed = self.insert_sealed(known, sealed)?;
        if let Some(split) = split {
            self.txn.release_blob(&split)?;
        }
        self.freed.diffs.extend(self.txn.drop_diff_if_unused(&tree)?);
        Ok(needed)
    }

    /// Says that a tree is in the directory with this number, unless it is in a good one already.
    pub(in crate::store) fn insert_tree(
        &mut self,
        number: u64,
        sealed: &SealedContent,
    ) -> Result<bool, Error> {
        let usage = &sealed.usage;
        match self.txn.diff(&sealed.tree)? {
            None => {
                let diff = DiffRecord {
                    number,
                    content_bytes: sealed.manifest.content_bytes(),
                    disk_bytes: usage.allocated,
                    inodes: usage.inodes,
                    manifest: [0; 32],
                };
                self.txn.put_diff(&sealed.tree, diff, &sealed.manifest_blob)?;
            }
            Some(diff) if self.damaged.contains(&diff.number) => {
                self.replaced.extend(self.txn.layers_by(LayerKey::Tree, &sealed.tree.to_string())?);
                let old = self.txn.move_diff(&sealed.tree, number, usage.allocated, usage.inodes)?;
                self.freed.diffs.push(old);
            }
            Some(_) => return Ok(false),
        }
        self.mark(number)?;
        Ok(true)
    }

    /// Inserts the row of a kept blob; `false` if the staged file is not needed.
    fn insert_kept_blob(&mut self, digest: &str, blob: &CopiedBlob) -> Result<bool, Error> {
        match self.txn.kept_blob(digest)? {
            Some(kept) if !self.damaged.contains(&kept.number) => return Ok(false),
            _ => self.freed.blobs.extend(self.txn.drop_kept_blob(digest)?),
        }
        let (number, size) = (blob.file.number(), blob.size);
        self.txn.put_kept_blob(digest, &KeptBlobRecord { number, size })?;
        self.mark(number)?;
        Ok(true)
    }

    fn mark(&self, number: u64) -> Result<(), Error> {
        match self.durability {
            Durability::Unsynced { boot } => Ok(self.txn.mark_unsynced(number, boot)?),
            Durability::Synced { .. } => Ok(()),
        }
    }

    /// Gives back what the layer had by its record `old` and has no more.
    pub(in crate::store) fn release(&mut self, old: &LayerRecord) -> Result<(), Error> {
        let freed = self.txn.release_content(old)?;
        self.freed.diffs.extend(freed.diffs);
        self.freed.blobs.extend(freed.blobs);
        Ok(())
    }

    /// Notes that this layer was inserted, and that it must not stand on what is not synced.
    pub(in crate::store) fn inserted_chain(&mut self, layer: &str) -> Result<(), Error> {
        let mut next = Some(layer.to_owned());
        let mut seen: HashSet<String> = self.layers.iter().cloned().collect();
        while let Some(id) = next
            && seen.insert(id.clone())
            && let Some(layer) = self.txn.layer(&id)?
        {
            // What is below in another store is that one's to sync.
            next = layer.parent;
            self.layers.push(id);
        }
        Ok(())
    }

    /// Whether the layers stand on something that another process has brought in since, and not synced.
    pub(super) fn stand_on_unsynced(&self) -> Result<bool, Error> {
        if matches!(self.durability, Durability::Unsynced { .. }) {
            return Ok(false);
        }
        let marks = unsynced(self.txn)?;
        if marks.is_empty() {
            return Ok(false);
        }
        for id in &self.layers {
            // What is in another store is that one's to sync.
            let Some(layer) = self.txn.layer(id)? else { continue };
            if layer::directory(self.txn, &layer)?.is_some_and(|number| marks.contains_key(&number)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn insert_shared(txn: &WriteTxn, record: LayerRecord, donor: &LayerRecord) -> Result<(), Error> {
    let gone = || ImportError::Vanished { layer: donor.id.clone() };
    // It may have been unsealed since, and perhaps sealed with another content.
    let current = txn.layer(&donor.id)?.filter(|current| current.content == donor.content);
    let donor = current.filter(|current| current.diff_id == record.diff_id).ok_or_else(gone)?;
    if let Some(split) = &donor.split {
        txn.share_blob(split)?;
    }
    txn.put_layer(&LayerRecord {
        content: donor.content,
        diff_size: donor.diff_size,
        split: donor.split,
        self_contained: donor.self_contained,
        compression: donor.compression,
        uids: donor.uids,
        gids: donor.gids,
        ..record
    })?;
    Ok(())
}

/// Inserts the image, or brings the one with this id up to date.
fn insert_image(txn: &WriteTxn, import: &ImageImport<'_>, top: Option<&str>) -> Result<ImageRecord, Error> {
    let mut record = txn.image(import.id.as_str())?.unwrap_or_else(|| ImageRecord {
        id: import.id.to_string(),
        created: import.created.into(),
        top_layer: top.map(str::to_owned),
        ..ImageRecord::default()
    });
    for digest in import.digests.iter().map(ToString::to_string) {
        if !record.digests.contains(&digest) {
            record.digests.push(digest);
        }
    }
    let mut held: HashSet<_> = record.names.iter().cloned().collect();
    for name in &import.names {
        if held.insert(name.as_str().to_owned()) {
            txn.take_name(Owner::Image, name.as_str())?;
            record.names.push(name.as_str().to_owned());
        }
    }
    let given: Vec<_> = import.names.iter().map(ToString::to_string).collect();
    image::remember(&mut record, &given);
    txn.put_image(&record)?;
    Ok(record)
}

/// The digest of the table of contents, if the archive was compared with it: in this import, or when the layer came that
/// this one shares its content with.
fn toc_digest(layer: &LayerImport<'_>, ready: &Ready, sealed: Option<&SealedLayer>) -> Option<String> {
    let compared = sealed.and_then(|sealed| sealed.toc_digest.as_ref()).map(ToString::to_string);
    let said = || layer.chunked.as_ref().map(|chunked| chunked.toc_digest.to_string());
    match ready {
        Ready::Sealed(_) => compared,
        Ready::Repeated(_) => compared.filter(|known| said().as_ref() == Some(known)),
        Ready::Shared(donor) => donor.toc_digest.clone().filter(|known| said().as_ref() == Some(known)),
        // The record has the one by which it was found.
        Ready::Known | Ready::Elsewhere | Ready::Additional(_) => None,
    }
}
