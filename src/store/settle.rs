//! Settling: what mounts left in the layers below comes into the layer itself, in a new directory.

use std::collections::{HashMap, HashSet};

use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, Limits, Staging};
use crate::error::Error;
use crate::sys::moment;
use crate::types::{ContentHash, LayerId};

use super::Store;
use super::home::Home;
use super::import::{Durability, Rows};
use super::layer::{changed_meanwhile, found};
use super::remove::Mounts;
use super::snapshot::refuse_snapshot;
use super::written::Old;

impl Store {
    /// Brings into a layer that is written to what mounts left in the layers below: mounts with `redirect_dir=on` leave the
    /// things in a renamed directory there, those with `metacopy=on` the bytes of a file of which only owner, mode or
    /// attributes were changed. The store's own mounts leave nothing, and do not show what others left so; a mount that
    /// somebody else made from a [`MountEntry`](crate::MountEntry) does if it is not told what the entry says. The layer gets a
    /// directory of its own for it, and keeps it if there was nothing to be brought in.
    ///
    /// Reading a layer needs none of this: [`changes`](Self::changes), [`diff`](Self::diff) and the rest look below by
    /// themselves, and [`seal`](Self::seal) does this, too. Returns whether there was something.
    ///
    /// # Locking
    ///
    /// Who wants to mount the layer for writing waits meanwhile.
    ///
    /// Returns [`Error::Mount`] with [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted without syncs when the machine
    /// went down; [`Error::InUse`] if the layer is mounted, or a layer above it is; if someone else is sealing or filling it, or
    /// it is a [snapshot](crate::Layer::snapshot_name) of containerd's; [`Error::Scan`] if its directory cannot be read, or what was left below is not there any more;
    /// [`Error::Tree`] with [`Whiteout`](crate::TreeError::Whiteout) if whiteouts cannot be made devices; and [`Error::Lookup`] if it is
    /// not there.
    pub fn settle(&self, id: &LayerId) -> Result<bool, Error> {
        self.layer_home(id.as_str())?.settle(id.as_str())
    }
}

impl Home<'_> {
    fn settle(&self, id: &str) -> Result<bool, Error> {
        let store = self.store;
        store.begin_writing()?;
        let record = found(&store.database().begin_read()?, id)?;
        let LayerContent::Writable(number) = record.content else { return Ok(false) };
        refuse_snapshot(&record, None)?;
        // The mark that says so is in the workdir, which goes with the directory.
        self.seen_from().begin_read()?.verify_layer(&record)?;
        self.seen_from().refuse_in_doubt(store, &record)?;
        let held = self.hold_directory(id, number)?;
        let settled = self.settle_held(&record, number);
        held.release_after(settled)
    }

    /// Gives a layer whose directory this process holds another one, if mounts left something below.
    fn settle_held(&self, record: &LayerRecord, number: u64) -> Result<bool, Error> {
        let store = self.store;
        let txn = self.seen_from().begin_read()?;
        if found(&txn, &record.id)?.content != record.content {
            return Err(changed_meanwhile(&record.id));
        }
        store.settle_marks(number)?;
        if txn.written(record)?.is_plain() {
            return Ok(false);
        }
        drop(txn);
        let point = store.layout().sync_point()?;
        let limited = store.layout().limits_of(number)?;
        let limits = limited.map(|limited| limited.limits).unwrap_or_default();
        let (staging, _) = self.stage_settled(record, Old::Goes, limits)?;
        disk::make_whiteouts_devices(staging.directory(), store.layout().xattrs())?;
        store.sync_writable(&point)?;
        let settle = |rows: &mut Rows<'_>| {
            let current = found(rows.txn, &record.id)?;
            if current.content != record.content {
                return Err(changed_meanwhile(&record.id));
            }
            self.refuse_mounted_above(&record.id)?;
            let content = LayerContent::Writable(staging.number());
            rows.txn.put_layer(&LayerRecord { content, ..current.clone() })?;
            rows.release(&current)?;
            Ok((true, true))
        };
        let written =
            self.hold_user(|| store.write_rows(&HashSet::new(), Durability::is_done, Mounts::Wait, settle));
        store.settle_directory(staging.filled(), written)
    }

    /// Makes a plain changeset of a layer that is written to, beside its directory, which must fit into the limits. With it come the hashes of files that
    /// were copied, by inode.
    pub(super) fn stage_settled(
        &self,
        layer: &LayerRecord,
        old: Old,
        limits: Limits,
    ) -> Result<(Staging, HashMap<u64, ContentHash>), Error> {
        let staging = self.store.stage()?;
        self.store.limit(&staging, limits)?;
        let txn = self.seen_from().begin_read()?;
        let known = txn.written(layer)?.settle(&staging, old, &self.store.import_options().unpack)?;
        if !limits.is_none() {
            self.store.layout().refuse_over_limit(staging.number())?;
        }
        moment::pass("to be sealed");
        Ok((staging, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests_of_confinement::assert_confined;
    use crate::store::{LayerOptions, StoreOptions, SyncMode};

    #[test]
    fn what_is_settled_is_written_nowhere_else() {
        for old in [Old::Stays, Old::Goes] {
            let prepare = |dir: &std::path::Path| {
                let options = StoreOptions::at(dir.join("store")).run_root(dir.join("run"));
                let store = Store::open(&options.sync(SyncMode::Off).reserve(0)).unwrap();
                let layer = store.create_layer(None, &LayerOptions::default()).unwrap();
                let record = found(&store.database().begin_read().unwrap(), layer.id.as_str()).unwrap();
                let LayerContent::Writable(number) = record.content else { panic!("{record:?}") };
                let at = dir.join("store/diffs").join(number.to_string()).join("d");
                std::fs::create_dir(&at).unwrap();
                for name in ["early", "late"] {
                    std::fs::write(at.join(name), name).unwrap();
                }
                (store, record)
            };
            assert_confined("file settled", prepare, |(store, record)| {
                let home = store.layer_home(&record.id).unwrap();
                drop(home.stage_settled(record, old, Limits::default()));
            });
        }
    }
}
