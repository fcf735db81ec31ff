//! What cannot be had again, with everything that stands on it.

use layerstore_schema::record::LayerContent;

use super::{RepairReport, Repaired, Unrepaired};
use crate::check::{Casualty, Finding, Remedy, dependents, document_digests, doomed, intruder};
use crate::error::Error;
use crate::meta::{Freed, Records, RowKey, Unused, WriteTxn};
use crate::store::{Mounts, Store};

impl Store {
    /// Removes what was found and has no other remedy.
    pub(super) fn remove_lost(&self, findings: &[Finding], report: &mut RepairReport) -> Result<(), Error> {
        let txn = self.database().begin_read()?;
        let seen = Records::read(&txn)?;
        let mut casualties = Vec::new();
        for finding in findings {
            match (intruder(&txn, &finding.damage), &finding.remedy) {
                (_, Remedy::RebuildIndex | Remedy::Leave) => {}
                (Some(intruder), _) => casualties.push(intruder),
                (None, _) => casualties.extend(Casualty::of(&finding.damage, &seen)),
            }
        }
        drop(txn);
        casualties.sort();
        casualties.dedup();
        for casualty in casualties {
            let stays = match &casualty {
                Casualty::Rows | Casualty::Stray | Casualty::Header => true,
                // An image can be lived with that cannot be saved.
                Casualty::Item(owner, id, key) => !document_digests(&seen, *owner, id, key).is_empty(),
                _ => false,
            };
            if stays {
                continue;
            }
            match self.remove_casualty(&casualty, &seen) {
                Ok(removed) => report.repaired.extend(removed.into_iter().map(|what| Repaired {
                    code: "removed",
                    thing: casualty.to_string(),
                    what: format!("removed {what}"),
                })),
                Err(error) => report.failed.push(Unrepaired { thing: casualty.to_string(), error }),
            }
        }
        Ok(())
    }

    /// Removes one thing with all that stands on it; returns what went.
    fn remove_casualty(&self, casualty: &Casualty, seen: &Records) -> Result<Vec<String>, Error> {
        self.write_mending(Mounts::Wait, |txn| {
            let now = Records::read(txn)?;
            // It went with another, or somebody has mended it meanwhile.
            if !is_same(casualty, seen, &now) {
                return Ok((Freed::default(), Vec::new()));
            }
            let going = doomed(&now, [casualty.clone()]);
            for one in &going {
                if let Casualty::Layer(id) = one {
                    self.refuse_mounted(id, || format!("the layer {id}"))?;
                }
            }
            let removed = dependents(&now, [casualty.clone()]);
            let mut freed = Freed::default();
            for one in &going {
                erase(txn, one, &now, &mut freed)?;
            }
            if let Casualty::Tree(tree) = casualty {
                txn.erase(&RowKey::Diff(*tree))?;
                freed.diffs.extend(now.diffs.get(tree).map(|diff| diff.number));
            }
            let more = txn.normalize(Unused::Remove)?;
            freed.diffs.extend(more.diffs);
            freed.blobs.extend(more.blobs);
            Ok((freed, removed))
        })
    }
}

fn erase(txn: &WriteTxn, casualty: &Casualty, records: &Records, freed: &mut Freed) -> Result<(), Error> {
    match casualty {
        Casualty::Layer(id) => {
            if let Some(LayerContent::Writable(number)) = records.layers.get(id).map(|layer| &layer.content) {
                freed.diffs.push(*number);
            }
            txn.erase(&RowKey::Layer(id.clone()))?;
        }
        Casualty::Image(id) => txn.erase(&RowKey::Image(id.clone()))?,
        Casualty::Container(id) => txn.erase(&RowKey::Container(id.clone()))?,
        Casualty::Item(owner, id, key) => txn.erase(&RowKey::Item(*owner, id.clone(), key.clone()))?,
        Casualty::KeptBlob(digest) => txn.erase(&RowKey::KeptBlob(digest.clone()))?,
        _ => {}
    }
    Ok(())
}

/// Whether the row that is damaged is still the one that was seen.
fn is_same(casualty: &Casualty, seen: &Records, now: &Records) -> bool {
    match casualty {
        Casualty::Layer(id) | Casualty::Split(id) | Casualty::Written(id) => {
            let there = now.layers.contains_key(id) || now.is_damaged("layer", id);
            // One that is missing is named by those that lack it.
            let lacked = now.layers.values().any(|layer| layer.parent.as_ref() == Some(id))
                || now.images.values().any(|image| image.top_layer.as_ref() == Some(id));
            seen.layers.get(id) == now.layers.get(id) && (there || lacked)
        }
        Casualty::Tree(tree) => {
            seen.diffs.get(tree) == now.diffs.get(tree)
                && (now.diffs.contains_key(tree)
                    || now.used_trees().contains(tree)
                    || is_damaged_tree(tree, now))
        }
        Casualty::Image(id) => {
            seen.images.get(id) == now.images.get(id)
                && (now.images.contains_key(id) || now.is_damaged("image", id))
        }
        Casualty::Container(id) => {
            seen.containers.get(id) == now.containers.get(id)
                && (now.containers.contains_key(id) || now.is_damaged("container", id))
        }
        Casualty::Item(owner, id, key) => {
            let row = (*owner, id.clone(), key.clone());
            let damaged = RowKey::Item(*owner, id.clone(), key.clone());
            seen.items.get(&row) == now.items.get(&row)
                && (now.items.contains_key(&row) || now.damaged.iter().any(|record| record.row == damaged))
        }
        _ => true,
    }
}

fn is_damaged_tree(tree: &[u8; 32], records: &Records) -> bool {
    records.damaged.iter().any(|record| record.row == RowKey::Diff(*tree))
}
