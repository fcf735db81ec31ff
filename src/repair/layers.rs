//! Layers unpacked again from a blob: for their records and tar-splits, and for their directories.

use layerstore_schema::record::{LayerBlob as BlobRow, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use super::records::is_one;
use super::trees::record_of;
use super::{Mended, Repair};
use crate::check::{Casualty, LayerPlan, Offer};
use crate::disk::Staging;
use crate::error::{Error, ImportError, LookupError, RepairError};
use crate::layer::{self, ImportOptions, Layer, SealedLayer};
use crate::meta::{Query, Unused};
use crate::types::{Digest, Name, Timestamp, TreeDigest};

impl Repair<'_> {
    /// Unpacks a layer into a directory of its own. The diffID is the layer's, or it is an error.
    pub(super) fn unpack(&self, layer: &str, offer: &Offer<'_>) -> Result<SealedLayer, Error> {
        let not_found = || LookupError::NotFound { kind: "layer", key: layer.to_owned() };
        let plan = self.supplies.plan(layer, self.records.layers.get(layer)).ok_or_else(not_found)?;
        let options = ImportOptions { name: offer.name(), ..self.store.import_options() };
        let staging = Staging::create(&self.stage()?, self.store.fresh_number()?)?;
        let records = self.store.spool().map_err(ImportError::Io)?;
        let input = offer.open(self.store)?;
        let unpacked = layer::unpack(input.reader, offer.algorithm(), staging, records, &options)?;
        let found = &unpacked.streams().diff_id;
        if *found != plan.diff_id {
            let (expected, found) = (plan.diff_id.to_string(), found.to_string());
            return Err(ImportError::DiffId { blob: offer.name(), expected, found }.into());
        }
        let txn = self.store.begin_read()?;
        let below = txn.stack(plan.parent.as_deref())?;
        drop(txn);
        let spool = || Ok(self.store.spool()?);
        Ok(layer::seal(unpacked, &below, spool, &options)?)
    }

    /// Makes a layer's record again, or what it says of its tar.
    pub(super) fn layer(&mut self, id: &str, casualty: &Casualty) -> Result<Mended, Error> {
        let seen = self.records.layers.get(id).cloned();
        let Some(plan) = self.supplies.plan(id, seen.as_ref()) else {
            return match casualty {
                Casualty::Layer(_) => self.forget_copies(&[id.to_owned()]),
                _ => Ok(None),
            };
        };
        if let (Casualty::Layer(_), Some(seen)) = (casualty, &seen)
            && self.supplies.agree_with(seen)
            && Layer::from_record(seen.clone()).is_ok()
        {
            return Ok(None);
        }
        let mut failed = None;
        for offer in self.supplies.blobs_of_layer(id, seen.as_ref()) {
            let sealed = match self.unpack(id, &offer) {
                Ok(sealed) => sealed,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            let of_split = matches!(casualty, Casualty::Split(_));
            if of_split
                && let Some(LayerContent::Sealed(tree)) = seen.as_ref().map(|seen| &seen.content)
                && *tree != sealed.content.tree.0
            {
                let (tree, found) = (TreeDigest(*tree).to_string(), sealed.content.tree.to_string());
                failed = Some(RepairError::TreeDiffers { tree, found }.into());
                continue;
            }
            self.insert(&plan, seen.as_ref(), sealed)?;
            return Ok(Some(match (of_split, seen) {
                (true, _) => ("rebuild-split", format!("made its tar-split again from {}", offer.name())),
                (false, Some(_)) => ("restore-record", format!("set its record right by {}", offer.name())),
                (false, None) => {
                    let lost = "its metadata, flags and labels are lost";
                    ("restore-record", format!("made its record again from {}; {lost}", offer.name()))
                }
            }));
        }
        failed.map_or(Ok(None), Err)
    }

    fn insert(&self, plan: &LayerPlan, seen: Option<&LayerRecord>, sealed: SealedLayer) -> Result<(), Error> {
        self.store.sync_filesystem()?;
        let SealedLayer { directory, .. } = &sealed;
        let number = directory.number();
        let written = self.store.database().write::<_, Error>(|txn| {
            if txn.layer(&plan.id).ok().flatten().as_ref() != seen {
                return Err(RepairError::Changed { thing: format!("the layer {}", plan.id) }.into());
            }
            // A row that is there may name a damaged directory: that is found by itself.
            let new_tree = !matches!(txn.diff(&sealed.content.tree), Ok(Some(_)));
            if new_tree {
                let record = record_of(number, &sealed.content.manifest, sealed.content.usage);
                txn.replace_diff(&sealed.content.tree, &record, &sealed.content.manifest_blob)?;
            }
            let split = txn.replace_blob(&sealed.split)?;
            let record = LayerRecord {
                parent: plan.parent.clone(),
                diff_id: Some(plan.diff_id.to_string()),
                ..self.base_record(plan, seen)
            };
            txn.replace_layer(&sealed.describe(split, record))?;
            txn.normalize(Unused::Keep)?;
            Ok(new_tree)
        });
        let needed = !matches!(written, Ok(false));
        self.settle(needed.then_some(sealed.directory), &written);
        written.map(drop)
    }

    /// What is left of a layer's record: itself, or what the indexes know.
    fn base_record(&self, plan: &LayerPlan, seen: Option<&LayerRecord>) -> LayerRecord {
        if let Some(seen) = seen {
            let mut record = seen.clone();
            record.names.retain(|text| is_one::<Name>(text));
            record.blobs.retain(|blob| is_one::<Digest>(&blob.digest));
            record.toc_digest = record.toc_digest.filter(|text| is_one::<Digest>(text));
            return record;
        }
        let blob = BlobRow {
            digest: plan.blob.digest.to_string(),
            size: plan.blob.size,
            media_type: plan.blob.media_type.clone(),
        };
        LayerRecord {
            names: self.supplies.names(Owner::Layer, &plan.id),
            blobs: vec![blob],
            ..LayerRecord::new(plan.id.as_str(), Timestamp::now().into(), LayerContent::Sealed([0; 32]))
        }
    }
}
