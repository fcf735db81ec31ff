//! Unsealing: a sealed layer is written to again, in its own directory if nobody else has it, else in a copy.

use std::collections::HashSet;
use std::os::fd::AsFd;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::LayerKey;

use crate::composefs;
use crate::disk;
use crate::error::{Error, InUseError};
use crate::layer::{self, Layer};
use crate::meta::{Query, unsynced};
use crate::types::{LayerId, TreeDigest};

use super::home::Home;
use super::import::{Durability, Rows};
use super::layer::{changed_meanwhile, found};
use super::remove::Mounts;
use super::{Store, SyncMode};

/// How often something is tried that others can come in the way of.
const TRIES: usize = 3;

impl Store {
    /// Makes a sealed layer writable. Its tree digest, diffID, blobs and sizes go, as what they said is no longer so. If no
    /// other layer shares its directory, that is the one that is written to; else it gets a copy, by reflink where the
    /// filesystem can. A layer that is writable stays as it is. It gets the limits that the
    /// [store](crate::StoreOptions::quota) gives to new layers.
    ///
    /// Returns [`Error::InUse`] if an image or another layer stands on the layer, it is mounted, a lease keeps it, or it is
    /// [`read_only`](crate::LayerOptions::read_only); [`Error::InOtherStore`] if it is in a store that is only read;
    /// [`Error::Unsynced`] if it was not on the disk when the machine went down; [`Error::Tree`] with
    /// [`Whiteout`](crate::TreeError::Whiteout) if its whiteouts are no devices, and cannot be made such; and [`Error::Lookup`] if
    /// it is not there.
    pub fn unseal(&self, id: &LayerId) -> Result<Layer, Error> {
        Ok(Layer::from_record(self.layer_home(id.as_str())?.unseal(id.as_str(), false)?)?)
    }
}

impl Home<'_> {
    /// Makes a sealed layer writable, as [`Store::unseal`] does.
    pub(super) fn unseal(&self, id: &str, change_under_others: bool) -> Result<LayerRecord, Error> {
        self.store.begin_writing()?;
        let mut tries = TRIES;
        loop {
            tries = tries.saturating_sub(1);
            match self.try_unseal(id, change_under_others) {
                Err(Error::InUse(InUseError::Changed { .. })) if tries > 0 => {}
                unsealed => return unsealed,
            }
        }
    }

    fn try_unseal(&self, id: &str, change_under_others: bool) -> Result<LayerRecord, Error> {
        let store = self.store;
        let txn = store.database().begin_read()?;
        let record = found(&txn, id)?;
        let tree = match record.content {
            LayerContent::Sealed(tree) => TreeDigest(tree),
            LayerContent::Writable(_) => return Ok(record),
            LayerContent::Additional(_) => return Err(InUseError::ReadOnly { layer: record.id }.into()),
        };
        self.refuse_change(&txn, &record, change_under_others)?;
        store.verify_layer(&txn, &record)?;
        let number = layer::directory(&txn, &record)?.ok_or_else(|| changed_meanwhile(id))?;
        let alone = is_alone(&txn, &record, &tree)?;
        // Its files may be those of other layers' images too.
        let shared = || composefs::may_be_shared(store.layout(), number);
        let in_doubt = unsynced(&txn)?.contains_key(&number);
        drop(txn);
        let limits = store.default_limits();
        // What is in a directory that got no project before it was filled counts for none.
        // They become devices, which is done where nobody sees a part of it.
        let has_files_for_whiteouts = || {
            let root = store.open_diff(number)?;
            Ok::<_, Error>(disk::may_have_xattr_whiteouts(root.as_fd(), store.layout().xattrs())?)
        };
        let can_stay = || {
            let can_stay = alone
                && !shared()?
                && !has_files_for_whiteouts()?
                && (limits.is_none() || store.layout().limits_of(number)?.is_some());
            Ok::<_, Error>(can_stay)
        };
        // Nothing keeps a directory from being given up for another while it is looked at.
        let has_moved = || {
            let txn = store.database().begin_read()?;
            let now = found(&txn, id)?;
            Ok::<_, Error>(now.content != record.content || layer::directory(&txn, &now)? != Some(number))
        };
        let in_place = match can_stay() {
            Err(_) if has_moved()? => return Err(changed_meanwhile(id)),
            can_stay => can_stay?,
        };
        let checked = |rows: &mut Rows<'_>| {
            let current = found(rows.txn, id)?;
            self.refuse_change(rows.txn, &current, change_under_others)?;
            let same =
                current.content == record.content && layer::directory(rows.txn, &current)? == Some(number);
            // Nobody who mounts an image names its files from here on: they look under this lock, too.
            if same && is_alone(rows.txn, &current, &tree)? == alone && !(in_place && shared()?) {
                Ok(current)
            } else {
                Err(changed_meanwhile(id))
            }
        };
        let unseal = |rows: &mut Rows<'_>, number| {
            let current = checked(rows)?;
            let mut writable = LayerRecord { content: LayerContent::Writable(number), ..current.clone() };
            writable.forget_content();
            rows.txn.put_layer(&writable)?;
            rows.release(&current)?;
            Ok(writable)
        };
        if in_place {
            if in_doubt && store.sync_mode() != SyncMode::Off {
                // Nothing says from now on what should be in it.
                store.or_distrust(store.sync_filesystem())?;
            }
            let held = self.hold_directory(id, number)?;
            // Also if there are to be none: who sealed it may have died before those of then were taken away.
            if store.layout().limits_of(number)?.is_some_and(|found| found.limits != limits) {
                store.layout().change_limits(number, limits)?;
            }
            let unsealed = self.hold_user(|| {
                let write = |rows: &mut Rows<'_>| unseal(rows, number);
                store.write_rows(&HashSet::new(), Durability::is_done, Mounts::Wait, write)
            });
            return held.release_after(unsealed);
        }
        let point = store.layout().sync_point()?;
        let staging = match self.stage_copy(id, limits) {
            Err(_) if has_moved()? => return Err(changed_meanwhile(id)),
            staging => staging?,
        };
        disk::make_whiteouts_devices(staging.directory(), store.layout().xattrs())?;
        store.sync_writable(&point)?;
        let written = self.hold_user(|| {
            store.write_rows(&HashSet::new(), Durability::is_done, Mounts::Wait, |rows| {
                self.refuse_mounted(id)?;
                unseal(rows, staging.number()).map(|record| (record, true))
            })
        });
        store.settle_directory(staging.filled(), written)
    }

    /// Refuses to write to a layer that is read-only, or that others need as it is.
    fn refuse_change(
        &self,
        txn: &impl Query,
        layer: &LayerRecord,
        change_under_others: bool,
    ) -> Result<(), Error> {
        if layer.read_only {
            return Err(InUseError::ReadOnly { layer: layer.id.clone() }.into());
        }
        self.refuse_used(txn, &layer.id, change_under_others)
    }
}

/// Whether no other layer shares the directory of a sealed one.
fn is_alone(txn: &impl Query, layer: &LayerRecord, tree: &TreeDigest) -> Result<bool, Error> {
    let sharers = txn.layers_by(LayerKey::Tree, &tree.to_string())?;
    Ok(sharers.iter().all(|sharer| *sharer == layer.id))
}
