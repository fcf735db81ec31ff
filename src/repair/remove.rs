//! What cannot be had again, with everything that stands on it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use layerstore_schema::record::LayerContent;

use super::{Mended, Repair, RepairReport, Repaired, thing};
use crate::check::{Casualty, Finding, are_copies, dependents, doomed};
use crate::error::{Error, RepairError};
use crate::meta::{Freed, Query, Records, RowKey, Unused, WriteTxn};
use crate::store::{Loss, Mounts, Store, refuse_loss};

impl Repair<'_> {
    /// Forgets layers that are nothing but copies with other ids, which mounts make anew; `None` if one is more than that.
    pub(super) fn forget_copies(&self, layers: &[String]) -> Result<Mended, Error> {
        if !are_copies(&self.records, layers) {
            return Ok(None);
        }
        self.store.write_mending(Mounts::Wait, |txn| {
            let now = Records::read(txn)?;
            let changed = |layer: &&String| self.records.layers.get(*layer) != now.layers.get(*layer);
            if let Some(layer) = layers.iter().find(changed) {
                return Err(RepairError::Changed { thing: format!("the layer {layer}") }.into());
            }
            if !are_copies(&now, layers) {
                return Ok((Freed::default(), ()));
            }
            self.store.refuse_mounted_above(layers)?;
            let mut freed = Freed::default();
            for layer in layers {
                erase(txn, &Casualty::Layer(layer.clone()), &now, &mut freed)?;
            }
            // What it was a copy of stays, and what only it had is nobody's now.
            freed.add(txn.normalize(Unused::Keep)?);
            Ok((freed, ()))
        })?;
        Ok(Some(("forget", "forgot it; the next mount that needs it copies the image again".to_owned())))
    }
}

impl Store {
    /// Removes what was found and has no other remedy, as far as it was announced.
    pub(super) fn remove_lost(
        &self,
        findings: &[Finding],
        announced: &BTreeSet<Casualty>,
        unused: Unused,
        report: &mut RepairReport,
    ) -> Result<(), Error> {
        let seen = Records::read(&self.database().begin_read()?)?;
        for casualty in to_remove(findings) {
            // Another user may mend it.
            if report.refused.contains(&casualty) {
                continue;
            }
            let thing = thing(&seen, &casualty);
            match self.remove_casualty(&casualty, &seen, announced, unused) {
                Ok(removed) => report.repaired.extend(removed.into_iter().map(|what| Repaired {
                    code: Repaired::REMOVED,
                    thing: thing.clone(),
                    what: format!("removed {what}"),
                })),
                Err(error) => report.fail(&casualty, thing, error),
            }
        }
        Ok(())
    }

    /// Removes one thing with all that stands on it; returns what went.
    fn remove_casualty(
        &self,
        casualty: &Casualty,
        seen: &Records,
        announced: &BTreeSet<Casualty>,
        unused: Unused,
    ) -> Result<Vec<String>, Error> {
        self.write_mending(Mounts::Wait, |txn| {
            let now = Records::read(txn)?;
            // It went with another, or somebody has mended it meanwhile.
            if !is_same(casualty, seen, &now) {
                return Ok((Freed::default(), Vec::new()));
            }
            let going = doomed(&now, [casualty.clone()]);
            if !going.is_subset(announced) {
                let more =
                    going.difference(announced).map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(RepairError::NotAnnounced { thing: thing(&now, casualty), more }.into());
            }
            self.refuse_mounted_of(&now, &going, Loss::Everything)?;
            let removed = dependents(&now, &going);
            let mut freed = Freed::default();
            for one in &going {
                erase(txn, one, &now, &mut freed)?;
            }
            if let Casualty::Tree(tree) = casualty {
                txn.erase(&RowKey::Diff(*tree))?;
                freed.diffs.extend(now.diffs.get(tree).map(|diff| diff.number));
            }
            freed.add(txn.normalize(unused)?);
            Ok((freed, removed))
        })
    }

    /// Fails if one of these layers is mounted, or may be by containerd: the kernel reads its directory, and those below it. Called with
    /// the lock of the run database.
    pub(super) fn refuse_mounted_of(
        &self,
        records: &Records,
        going: &BTreeSet<Casualty>,
        loss: Loss,
    ) -> Result<(), Error> {
        refuse_each(records, going, loss, |layer| self.refuse_mounted(layer, || mounted_by(records, layer)))
    }

    /// The same for who only says what a repair would do: without the lock, and of mounts of this mount namespace alone.
    pub(super) fn would_refuse(
        &self,
        records: &Records,
        going: &BTreeSet<Casualty>,
        loss: Loss,
    ) -> Result<(), Error> {
        refuse_each(records, going, loss, |layer| {
            self.refuse_mounted_here(layer, || mounted_by(records, layer)).map(drop)
        })
    }
}

/// What is removed for want of anything else.
pub(super) fn to_remove(findings: &[Finding]) -> BTreeSet<Casualty> {
    let cures = findings.iter().flat_map(|finding| &finding.cures);
    cures.filter(|cure| !cure.removes.is_empty()).map(|cure| cure.casualty.clone()).collect()
}

/// Fails at the first layer that is going and that containerd may have mounted, or that `refuse` refuses.
fn refuse_each(
    records: &Records,
    going: &BTreeSet<Casualty>,
    loss: Loss,
    refuse: impl Fn(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    for one in going {
        if let Casualty::Layer(layer) = one {
            records.layers.get(layer).map_or(Ok(()), |record| refuse_loss(record, loss))?;
            refuse(layer)?;
        }
    }
    Ok(())
}

/// What has to be unmounted for a layer, as `unmount` takes it.
fn mounted_by(records: &Records, layer: &str) -> String {
    let named = |kind: &str, names: &[String], id: &str| {
        names.first().map_or_else(|| format!("the {kind} {id}"), |name| format!("the {kind} {name} ({id})"))
    };
    let container = records.containers.values().find(|container| container.layer == layer);
    let image = || records.images.values().find(|image| image.top_layer.as_deref() == Some(layer));
    match container {
        Some(container) => named("container", &container.names, &container.id),
        None => image()
            .map_or_else(|| format!("the layer {layer}"), |image| named("image", &image.names, &image.id)),
    }
}

fn erase(txn: &WriteTxn, casualty: &Casualty, records: &Records, freed: &mut Freed) -> Result<(), Error> {
    match casualty {
        Casualty::Layer(id) => {
            match records.layers.get(id).map(|layer| &layer.content) {
                Some(LayerContent::Writable(number)) => freed.diffs.push(*number),
                Some(LayerContent::Additional(path)) => freed.additional.push(OsStr::from_bytes(path).into()),
                Some(LayerContent::Sealed(_)) | None => {}
            }
            txn.erase(&RowKey::Layer(id.clone()))?;
            forget_as_copy(txn, id, records)?;
        }
        Casualty::Image(id) => {
            freed.data.extend(records.images.get(id).and_then(|image| image.directory));
            txn.erase(&RowKey::Image(id.clone()))?;
        }
        Casualty::Container(id) => {
            freed.data.extend(records.containers.get(id).and_then(|container| container.directory));
            txn.erase(&RowKey::Container(id.clone()))?;
        }
        Casualty::Item(owner, id, key) => txn.erase(&RowKey::Item(*owner, id.clone(), key.clone()))?,
        Casualty::KeptBlob(digest) => txn.erase(&RowKey::KeptBlob(digest.clone()))?,
        _ => {}
    }
    Ok(())
}

/// Takes a layer that goes from the images that have it as a copy.
fn forget_as_copy(txn: &WriteTxn, layer: &String, records: &Records) -> Result<(), Error> {
    for image in records.images.values().filter(|image| image.mapped_top_layers.contains(layer)) {
        // It may have gone before.
        if let Some(mut image) = txn.image(&image.id)? {
            image.mapped_top_layers.retain(|copy| copy != layer);
            txn.replace_image(&image)?;
        }
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
                || now.images.values().any(|image| {
                    image.top_layer.iter().chain(&image.mapped_top_layers).any(|layer| layer == id)
                });
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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::archive::made::{Member, archive};
    use crate::check::{CheckOptions, tree_of};
    use crate::store::{LayerOptions, StoreOptions, SyncMode};

    /// It is told by the layers that have it, and others come and go meanwhile.
    #[test]
    fn what_was_refused_stays_by_another_name_too() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store")).run_root(dir.path().join("run"));
        let store = Store::open(&options.sync(SyncMode::Off).reserve(0)).unwrap();
        let put = || {
            store.put_layer(None, &LayerOptions::default(), &*archive(&[Member::file("f", "f")])).unwrap();
        };
        put();
        let read = || Records::read(&store.database().begin_read().unwrap()).unwrap();
        let before = read();
        let (tree, diff) = before.diffs.iter().next().unwrap();
        put();
        std::fs::remove_dir_all(store.diff_path(diff.number)).unwrap();
        let found = store.check(&CheckOptions::default()).unwrap().findings;
        let lost = Casualty::Tree(*tree);
        assert_eq!(to_remove(&found), BTreeSet::from([lost.clone()]), "{found:?}");
        assert_ne!(thing(&before, &lost), thing(&read(), &lost));
        let mut report = RepairReport::default();
        let error = RepairError::Io(io::ErrorKind::PermissionDenied.into());
        report.fail(&lost, thing(&before, &lost), error.into());
        let announced = super::super::announced(&found);
        store.remove_lost(&found, &announced, Unused::Remove, &mut report).unwrap();
        assert_eq!(tree_of(&read(), tree).layers.len(), 2, "{report:?}");
        // Else it would go.
        report.refused.clear();
        store.remove_lost(&found, &announced, Unused::Remove, &mut report).unwrap();
        assert!(read().layers.is_empty(), "{report:?}");
    }
}
