//! Leases that are over, and the layers that only they have kept.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::LayerKey;

use super::{GarbageKind, GcReport};
use crate::disk::{DiffName, Part, Subdirectory, Trash};
use crate::error::Error;
use crate::meta::{Query, ReadTxn};
use crate::store::{Gone, Store, is_over, is_unmounted};
use crate::types::{Timestamp, TreeDigest};

impl Store {
    pub(super) fn collect_leases(
        &self,
        dry_run: bool,
        user: Option<&Store>,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let mut found = GcReport::default();
        self.list_leases(user, &mut found)?;
        if found.removed.is_empty() {
            return Ok(());
        }
        let ended = if dry_run { None } else { Some(self.end_expired_leases(u64::MAX, user)?) };
        for garbage in found.removed {
            let is_gone = ended.as_ref().is_none_or(|ended| {
                let ids = if garbage.kind == GarbageKind::Lease { &ended.leases } else { &ended.layers };
                garbage.id.as_ref().is_some_and(|id| ids.contains(id))
            });
            if is_gone {
                report.add(garbage.kind, garbage.path, garbage.id, garbage.bytes);
            }
        }
        Ok(())
    }

    fn list_leases(&self, user: Option<&Store>, report: &mut GcReport) -> Result<(), Error> {
        let (txn, now) = (self.database().begin_read()?, Timestamp::now());
        let (mut gone, mut layers) = (Gone::default(), Vec::new());
        for lease in txn.leases()?.into_iter().filter(|lease| is_over(lease, now)) {
            let mut with_it = gone.clone();
            let found = self.unneeded_of(&txn, &lease, &mut with_it)?;
            let refuse = |store: &Store, layer: &str| store.refuse_mounted_here(layer, String::new).map(drop);
            if is_unmounted(&found, [Some(self), user], refuse)? {
                gone = with_it;
                layers.extend(found);
                report.add(GarbageKind::Lease, self.database().path().to_owned(), Some(lease.id), 0);
            }
        }
        let mut counted = HashSet::new();
        for layer in layers {
            let (path, bytes) = self.freed_by(&txn, &layer, &gone.layers, &mut counted)?;
            report.add(GarbageKind::Layer, path, Some(layer.id), bytes);
        }
        Ok(())
    }

    /// The directory of a layer, and what goes with it when the layers in `gone` do: that and its blobs, unless they are
    /// shared with others or counted already.
    fn freed_by(
        &self,
        txn: &ReadTxn,
        layer: &LayerRecord,
        gone: &BTreeSet<String>,
        counted: &mut HashSet<u64>,
    ) -> Result<(PathBuf, u64), Error> {
        let trash = Trash::look(self.layout())?;
        let part = |which, number| Part { which, name: DiffName::Entry(number) };
        let is_freed = |key: LayerKey, digest: &str| -> Result<bool, Error> {
            Ok(txn.layers_by(key, digest)?.iter().all(|layer| gone.contains(layer)))
        };
        let (mut path, mut doomed) = (self.database().path().to_owned(), Vec::new());
        if let LayerContent::Sealed(tree) = layer.content
            && let Some(diff) = txn.diff(&TreeDigest(tree))?
        {
            path = part(Subdirectory::Diffs, diff.number).path(self.layout());
            if is_freed(LayerKey::Tree, &TreeDigest(tree).to_string())? {
                doomed.push(part(Subdirectory::Diffs, diff.number));
            }
        }
        for blob in &layer.blobs {
            if let Some(kept) = txn.kept_blob(&blob.digest)?
                && is_freed(LayerKey::Blob, &blob.digest)?
            {
                doomed.push(part(Subdirectory::Blobs, kept.number));
            }
        }
        doomed.retain(|part| counted.insert(part.name.number()));
        Ok((path, doomed.into_iter().map(|part| trash.measure(part)).fold(0, u64::saturating_add)))
    }
}
