//! Layers and blobs that were not synced: noted when they come in, brought to the disk later, and compared with what
//! they should be before their first use in another boot.
//!
//! In the boot in which something was written, the kernel has in memory what it has not on the disk, so nothing is
//! to be done. After a reboot nobody knows but the disk. What is whole there stays whole, so it is looked at once.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use layerstore_schema::record::{KeptBlobRecord, LayerContent, LayerRecord};

use crate::disk::{self, DamagedPath};
use crate::error::{Error, LayoutError, UnsyncedError};
use crate::meta::{Database, Query, ReadTxn, Unsynced, filled_in, made_empty, made_empty_in, unsynced};
use crate::types::{Digest, Hasher, TreeDigest};

use super::Store;

impl Store {
    /// Brings everything to the disk that was written with [`SyncMode::Records`](crate::SyncMode::Records) or `Off`, by a
    /// `syncfs` of the store's filesystem, and notes that it is there. Returns how many layers and blobs that were. In
    /// `Full` mode there is nothing to do, whoever wrote it.
    ///
    /// What was left unsynced by a boot before this one stays noted: syncing brings nothing back. It is looked at when
    /// it is used.
    ///
    /// Returns [`Error::ReadOnly`] if the store is open for reading only, [`Error::Layout`] if the filesystem reports an
    /// error, and [`Error::Meta`] if the database fails.
    pub fn sync(&self) -> Result<usize, Error> {
        self.begin_writing()?;
        let of_images = match self.separate_images() {
            Some(images) => images.sync()?,
            None => 0,
        };
        let (numbers, made) = (self.unsynced_now()?, self.made_now()?);
        self.or_distrust(self.sync_filesystem())?;
        if !numbers.is_empty() || !made.is_empty() {
            let synced = numbers.iter().chain(&made).copied();
            self.database().write::<_, Error>(|txn| Ok(txn.forget_unsynced(synced)?))?;
        }
        Ok(numbers.len().saturating_add(of_images))
    }

    /// After a sync that failed, nothing of this boot is believed any more that was not synced: the kernel told of what it
    /// could not write, and will not do so again.
    pub(super) fn or_distrust(&self, synced: Result<(), Error>) -> Result<(), Error> {
        synced.inspect_err(|_| {
            if let Err(error) = self.distrust_unsynced() {
                tracing::warn!(%error, "what was not synced is not noted as lost, perhaps");
            }
        })
    }

    fn distrust_unsynced(&self) -> Result<(), Error> {
        let boot = self.boot_id()?;
        self.database().write(|txn| {
            for (number, _) in unsynced(txn)?.into_iter().filter(|(_, of)| of == boot) {
                txn.mark_unsynced(number, &lost_in(boot))?;
            }
            for (number, _) in made_empty(txn)?.into_iter().filter(|(_, of)| of == boot) {
                txn.mark_made_empty(number, &lost_in(boot))?;
            }
            Ok(())
        })
    }

    /// What is not synced and was written in this boot: a `syncfs` that begins now brings it to the disk.
    pub(super) fn unsynced_now(&self) -> Result<Vec<u64>, Error> {
        self.of_this_boot(unsynced(&self.database().begin_read()?)?)
    }

    /// The same of directories that were made empty. There are as many as new containers since the last sync: only who syncs
    /// asks.
    pub(super) fn made_now(&self) -> Result<Vec<u64>, Error> {
        self.of_this_boot(made_empty(&self.database().begin_read()?)?)
    }

    fn of_this_boot(&self, marks: Unsynced) -> Result<Vec<u64>, Error> {
        if marks.is_empty() {
            return Ok(Vec::new());
        }
        let boot = self.boot_id()?;
        Ok(marks.into_iter().filter(|(_, of)| of == boot).map(|(number, _)| number).collect())
    }

    /// How many directories and blobs are not synced, and how many were not when the machine went down.
    pub(super) fn count_unsynced(&self, txn: &ReadTxn) -> Result<(u64, u64), Error> {
        let marks = unsynced(txn)?;
        if marks.is_empty() {
            return Ok((0, 0));
        }
        let boot = self.boot_id()?;
        let (now, before): (Vec<_>, Vec<_>) = marks.values().partition(|of| *of == boot);
        let count = |list: &[&String]| u64::try_from(list.len()).unwrap_or(u64::MAX);
        Ok((count(&now), count(&before)))
    }

    /// Looks at a layer, before its files are used, if it was not synced when the machine went down.
    ///
    /// Returns [`Error::Unsynced`] if it is not whole.
    pub(crate) fn verify_layer(&self, txn: &ReadTxn, layer: &LayerRecord) -> Result<(), Error> {
        self.verify_doubtful(txn, &self.doubtful(txn)?, layer)
    }

    /// As [`verify_layer`](Self::verify_layer), for a directory that the layer with this id has or will have.
    pub(super) fn verify_tree(&self, txn: &ReadTxn, layer: &str, tree: &TreeDigest) -> Result<(), Error> {
        let doubtful = self.doubtful(txn)?;
        self.verify_doubtful_tree(txn, &doubtful, layer, tree)
    }

    /// As [`verify_layer`](Self::verify_layer), for a layer blob kept as delivered.
    pub(crate) fn verify_kept_blob(
        &self,
        txn: &ReadTxn,
        digest: &str,
        record: &KeptBlobRecord,
    ) -> Result<(), Error> {
        if !self.doubtful(txn)?.contains_key(&record.number) {
            return Ok(());
        }
        let _only_one = self.verifying();
        if self.verified().contains(&record.number) {
            return Ok(());
        }
        let _span = tracing::info_span!("verify", blob = %digest).entered();
        match self.blob_damage(digest, record)? {
            Some(what) => Err(UnsyncedError::Blob { digest: digest.to_owned(), what }.into()),
            None => self.vouch_for(record.number),
        }
    }

    /// What was not synced when the machine went down, as far as this handle does not know better.
    fn doubtful(&self, txn: &ReadTxn) -> Result<Unsynced, Error> {
        let mut marks = unsynced(txn)?;
        if !marks.is_empty() {
            let (boot, verified) = (self.boot_id()?, self.verified());
            marks.retain(|number, of| of != boot && !verified.contains(number));
        }
        Ok(marks)
    }

    fn verify_doubtful(&self, txn: &ReadTxn, doubtful: &Unsynced, layer: &LayerRecord) -> Result<(), Error> {
        match layer.content {
            LayerContent::Sealed(tree) => {
                self.verify_doubtful_tree(txn, doubtful, &layer.id, &TreeDigest(tree))
            }
            LayerContent::Writable(_) | LayerContent::Additional(_) => Ok(()),
        }
    }

    fn verify_doubtful_tree(
        &self,
        txn: &ReadTxn,
        doubtful: &Unsynced,
        layer: &str,
        tree: &TreeDigest,
    ) -> Result<(), Error> {
        if doubtful.is_empty() {
            return Ok(());
        }
        let Some(diff) = txn.diff(tree)?.filter(|diff| doubtful.contains_key(&diff.number)) else {
            return Ok(());
        };
        let _only_one = self.verifying();
        if self.verified().contains(&diff.number) {
            return Ok(());
        }
        let _span = tracing::info_span!("verify", layer).entered();
        let manifest = self.manifest(txn, tree)?;
        let damage = match self.open_diff(diff.number) {
            Ok(root) => disk::damaged_path(root.as_fd(), &manifest, self.layout().xattrs())?,
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Some(DamagedPath { path: "/".into(), what: "is missing".to_owned() })
            }
            Err(error) => return Err(error.into()),
        };
        match damage {
            Some(DamagedPath { path, what }) => {
                Err(UnsyncedError::Layer { layer: layer.to_owned(), path, what }.into())
            }
            None => self.vouch_for(diff.number),
        }
    }

    /// Notes that something is whole on the disk. A process that must not write, or comes when another does, remembers
    /// it for itself: the use that asked waits for nobody.
    pub(super) fn vouch_for(&self, number: u64) -> Result<(), Error> {
        self.verified().insert(number);
        if self.is_read_only() {
            return Ok(());
        }
        let lost = lost_in(self.boot_id()?);
        let mut options = self.options().database.clone();
        options.lock_timeout = Duration::ZERO;
        let database = Database::new(self.database().path().to_owned(), options);
        if let Err(error) = database.write::<_, Error>(|txn| {
            // What was read may have been the kernel's memory of what it could not write.
            let noted = filled_in(txn, number)?.or(made_empty_in(txn, number)?);
            let is_on_disk = noted.as_ref() != Some(&lost);
            Ok(txn.forget_unsynced(is_on_disk.then_some(number))?)
        }) {
            tracing::debug!(%error, number, "verified, and not noted");
        }
        Ok(())
    }

    fn blob_damage(&self, digest: &str, record: &KeptBlobRecord) -> Result<Option<String>, Error> {
        let expected: Digest = digest.parse()?;
        let mut file = match self.open_kept_blob(record.number) {
            Ok(file) => file,
            Err(Error::Layout(LayoutError::Io { source, .. }))
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return Ok(Some("its file is missing".to_owned()));
            }
            Err(error) => return Err(error),
        };
        let mut hasher = Hasher::new(expected.algorithm());
        if let Err(error) = io::copy(&mut file, &mut hasher) {
            return Ok(Some(format!("it cannot be read: {error}")));
        }
        let found = hasher.finish();
        Ok((found != expected).then(|| format!("its digest is {found}")))
    }
}

/// What stands in a row instead of the boot in which a sync failed.
pub(super) fn lost_in(boot: &str) -> String {
    format!("lost {boot}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreOptions, SyncMode};

    #[test]
    fn a_sync_that_failed_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("store")).run_root(dir.path().join("run")).reserve(0);
        let store = Store::open(&options.sync(SyncMode::Records)).unwrap();
        let boot = store.boot_id().unwrap();
        let mark = |number, boot: &str| {
            store.database().write::<_, Error>(|txn| Ok(txn.mark_unsynced(number, boot)?)).unwrap();
        };
        mark(7, boot);
        store.database().write::<_, Error>(|txn| Ok(txn.mark_made_empty(9, boot)?)).unwrap();
        let made = || made_empty_in(&store.database().begin_read().unwrap(), 9).unwrap();
        let count = || store.count_unsynced(&store.database().begin_read().unwrap()).unwrap();
        assert_eq!(count(), (1, 0));
        let failed =
            || Err(Error::Io { action: "sync", path: "/".into(), source: io::ErrorKind::Other.into() });
        store.or_distrust(failed()).unwrap_err();
        assert_eq!(count(), (0, 1));
        assert_eq!(made(), Some(lost_in(boot)));
        store.vouch_for(9).unwrap();
        assert_eq!(made(), Some(lost_in(boot)));
        // The kernel has nothing more to say of what it could not write.
        assert_eq!(store.sync().unwrap(), 0);
        assert_eq!(count(), (0, 1));
        // Nor does its memory say what the disk has. After a reboot what is read is from there.
        store.vouch_for(7).unwrap();
        assert_eq!(count(), (0, 1));
        mark(7, &lost_in("an earlier boot"));
        store.vouch_for(7).unwrap();
        assert_eq!(count(), (0, 0));
        assert_eq!(made(), Some(lost_in(boot)), "it is another one");
    }
}
