//! Removing images and layers, and giving back what they held.

use std::io;
use std::path::PathBuf;

use layerstore_schema::record::LayerRecord;

use crate::disk::{self, AdditionalDirectory, EntryLock, NamedLock};
use crate::error::{Error, LayoutError, LookupError, MetaError};
use crate::meta::{Freed, Query, ReadTxn, Records, WriteTxn};
use crate::sys::moment;
use crate::types::{Digest, ImageId, LayerId, Name};

use super::garbage::{self, Sweep, Uncollected};
use super::layer::{found, refuse_renamed};
use super::mount::patiently;
use super::snapshot::refuse_snapshot;
use super::users::{Gone, unneeded, unused_image, user_beside, user_of};
use super::{Store, ThingId};

impl Store {
    /// Removes an image, with every layer of it that no other image, container, layer, name or lease needs. Returns the
    /// ids of the removed layers, the topmost first.
    ///
    /// Returns [`Error::InUse`] if a container stands on the image, a lease keeps it or a layer of it is mounted,
    /// [`Error::InOtherStore`] if it is in a store that is only read, [`Error::Lookup`] if it is not there, and
    /// [`Error::Meta`] with [`TransientUnseen`](crate::MetaError::TransientUnseen) if transient containers that cannot be
    /// seen may stand on it.
    pub fn remove_image(&self, id: &ImageId) -> Result<Vec<LayerId>, Error> {
        let (layers, removal) = self.begin_removing_image(id)?;
        removal.finish();
        Ok(layers)
    }

    /// Removes the records of an image. Returns its layers that went with it, what no row names any more, and the store that it
    /// was in.
    pub(super) fn doom_image(&self, id: &ImageId) -> Result<(Store, Doomed, Vec<LayerId>), Error> {
        let (home, doomed) = match self.separate_images() {
            Some(images) if images.database().begin_read()?.image(id.as_str())?.is_some() => {
                self.begin_writing()?;
                // Nobody makes a container on it, or mounts a layer of it, meanwhile.
                let doom = || images.doom_own_image(id, Some(self));
                (images, patiently(|| self.hold_users(doom))?)
            }
            _ => {
                let doomed = patiently(|| self.doom_own_image(id, None));
                (self, doomed.map_err(|error| self.said_where(error, &id.into()))?)
            }
        };
        self.drop_run_directory(&id.into());
        let (doomed, layers) = doomed;
        let layers = layers.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?;
        Ok((home.clone(), doomed, layers))
    }

    /// Removes an image of this store; `user` is the store whose containers stand on images here.
    fn doom_own_image(&self, id: &ImageId, user: Option<&Store>) -> Result<(Doomed, Vec<String>), Error> {
        let is_done = |txn: &ReadTxn| Ok(txn.image(id.as_str())?.is_none());
        self.write_dooming(Mounts::Wait, is_done, |txn| {
            let beside = self.rows_beside(user)?;
            let record = unused_image(txn, id, &beside)?;
            let mut freed = txn.remove_image(id.as_str())?;
            let mut layers = Vec::new();
            for top in record.top_layer.iter().chain(&record.mapped_top_layers) {
                self.remove_unneeded(txn, top, (&beside, user), &mut freed, &mut layers)?;
            }
            Ok((freed, layers))
        })
    }

    /// The layers that [`remove_image`](Self::remove_image) would remove with an image, the topmost first. Nothing is changed.
    ///
    /// Returns [`Error::InUse`] if a container stands on the image or a lease keeps it, [`Error::InOtherStore`] if it is in a
    /// store that is only read, and [`Error::Lookup`] if it is not there. Mounts are not looked for.
    pub fn layers_removed_with(&self, id: &ImageId) -> Result<Vec<LayerId>, Error> {
        let (store, user) = match self.separate_images() {
            Some(images) if images.has(&id.into())? => (images, Some(self)),
            _ => (self, None),
        };
        let txn = store.database().begin_read()?;
        let beside = store.rows_beside(user)?;
        let record = unused_image(&txn, id, &beside).map_err(|error| store.said_where(error, &id.into()))?;
        let mut gone = Gone::with_image(&record.id);
        let mut layers = Vec::new();
        for top in record.top_layer.iter().chain(&record.mapped_top_layers) {
            for layer in unneeded(&txn, top, &mut gone.clone())? {
                if user_beside(&beside, &layer.id)?.is_some() {
                    break;
                }
                layers.push(layer.id.parse()?);
                gone.layers.insert(layer.id);
            }
        }
        Ok(layers)
    }

    /// Removes a layer that nothing stands on.
    ///
    /// Returns [`Error::InUse`] if a layer, image or container stands on it, a lease keeps it, it is mounted, or it is a
    /// [snapshot](crate::Layer::snapshot_name) of containerd's; [`Error::InOtherStore`] if it is in a store that is only read;
    /// [`Error::Lookup`] if it is not there; and [`Error::Meta`] with
    /// [`TransientUnseen`](crate::MetaError::TransientUnseen) if transient containers that cannot be seen may stand on it.
    pub fn remove_layer(&self, id: &LayerId) -> Result<(), Error> {
        self.begin_removing_layer(id).map(drop)
    }

    /// Tells whether something needs a layer, before its mounts are ended to remove it. Nothing is changed, and what this says
    /// may be outdated when it returns: a removal looks for itself.
    ///
    /// Returns what [`remove_layer`](Self::remove_layer) would refuse, but for mounts.
    pub fn check_removable(&self, id: &LayerId) -> Result<(), Error> {
        let layer = id.as_str();
        let (home, user) = match self.separate_images() {
            Some(images) if images.database().begin_read()?.layer(layer)?.is_some() => (images, Some(self)),
            _ => (self, None),
        };
        let txn = home.database().begin_read()?;
        let Some(record) = txn.layer(layer)? else {
            let missing = LookupError::NotFound { kind: "layer", key: id.to_string() };
            return Err(self.said_where(missing.into(), &id.into()));
        };
        refuse_snapshot(&record, None)?;
        home.refuse_used(&txn, layer, user)
    }

    /// Refuses to remove a layer that something needs, here or in the rows beside, those of the store `user` included.
    fn refuse_used(&self, txn: &impl Query, layer: &str, user: Option<&Store>) -> Result<(), Error> {
        let used = match user_of(txn, layer, &Gone::default())? {
            None => user_beside(&self.rows_beside(user)?, layer)?,
            used => used,
        };
        used.map_or(Ok(()), |used| Err(used.into()))
    }

    /// Removes the record of a layer, if it still has a name that is given. Returns what no row names any more, and the store
    /// that it is in.
    pub(super) fn doom_layer(&self, id: &LayerId, named: Option<&Name>) -> Result<(Store, Doomed), Error> {
        match self.separate_images() {
            Some(images) if images.database().begin_read()?.layer(id.as_str())?.is_some() => {
                self.begin_writing()?;
                let doom = || {
                    let txn = images.database().begin_read()?;
                    refuse_what_stays(&found(&txn, id.as_str())?, named)?;
                    images.refuse_used(&txn, id.as_str(), Some(self))?;
                    drop(txn);
                    // Last, as below.
                    self.refuse_mounted(id.as_str(), || format!("the layer {id}"))?;
                    Ok((images.clone(), images.doom_own_layer(id, named)?))
                };
                patiently(|| self.hold_users(doom))
            }
            _ => match patiently(|| self.doom_own_layer(id, named)) {
                Err(error) => Err(self.said_where(error, &id.into())),
                Ok(doomed) => Ok((self.clone(), doomed)),
            },
        }
    }

    /// What is not here may be in a store that is only read.
    fn said_where(&self, error: Error, of: &ThingId) -> Error {
        match error {
            Error::Lookup(LookupError::NotFound { .. }) => self.not_here(of).unwrap_or(error),
            error => error,
        }
    }

    fn doom_own_layer(&self, id: &LayerId, named: Option<&Name>) -> Result<Doomed, Error> {
        let is_done = |txn: &ReadTxn| Ok(txn.layer(id.as_str())?.is_none());
        let removed = self.write_dooming(Mounts::Wait, is_done, |txn| {
            let layer = id.to_string();
            let record = found(txn, &layer)?;
            refuse_what_stays(&record, named)?;
            self.refuse_used(txn, &layer, None)?;
            // Last: nobody ends mounts of what stays in any case.
            self.refuse_mounted(&layer, || format!("the layer {layer}"))?;
            Ok((txn.remove_layer(&layer)?, ()))
        });
        removed.map(|(doomed, ())| doomed)
    }

    /// Drops the blobs that were kept as delivered, all or those with the given digests, and returns how many bytes
    /// that frees. Layers stay as they are; a later save compresses them anew.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn drop_blobs(&self, digests: Option<&[Digest]>) -> Result<u64, Error> {
        let of_images = match self.separate_images() {
            Some(images) => images.drop_blobs(digests)?,
            None => 0,
        };
        let asked =
            |digest: &str| digests.is_none_or(|list| list.iter().any(|one| one.to_string() == digest));
        let is_done = |txn: &ReadTxn| Ok(!txn.kept_blobs()?.iter().any(|(digest, _)| asked(digest)));
        let own = self.write_removing(Mounts::GoOn, EVERYTHING, is_done, |txn| {
            let mut freed = Freed::default();
            let mut bytes = 0u64;
            for (digest, record) in txn.kept_blobs()? {
                if asked(&digest) {
                    freed.blobs.extend(txn.drop_kept_blob(&digest)?);
                    bytes = bytes.saturating_add(record.size);
                }
            }
            Ok((freed, bytes))
        })?;
        Ok(own.saturating_add(of_images))
    }

    /// Removes `top` and the layers below it as far down as nothing needs them, here or in the rows beside. One that is
    /// mounted, here or by the store `user`, is an error.
    pub(super) fn remove_unneeded(
        &self,
        txn: &WriteTxn,
        top: &str,
        (beside, user): (&[ReadTxn], Option<&Store>),
        freed: &mut Freed,
        removed: &mut Vec<String>,
    ) -> Result<(), Error> {
        for layer in unneeded(txn, top, &mut Gone::default())? {
            if user_beside(beside, &layer.id)?.is_some() {
                break;
            }
            if let Some(user) = user {
                user.refuse_mounted(&layer.id, || format!("the image's layer {}", layer.id))?;
            }
            self.refuse_mounted(&layer.id, || format!("the image's layer {}", layer.id))?;
            let more = txn.remove_layer(&layer.id)?;
            freed.add(more);
            removed.push(layer.id);
        }
        Ok(())
    }

    /// Runs a write transaction that removes things, and deletes what no row names after it. `is_done` says whether the
    /// things are gone; `limit` is how many names are deleted, and more are left for a collection.
    pub(super) fn write_removing<T: Clone>(
        &self,
        mounts: Mounts,
        limit: u64,
        is_done: impl Fn(&ReadTxn) -> Result<bool, MetaError>,
        body: impl FnMut(&WriteTxn) -> Result<(Freed, T), Error>,
    ) -> Result<T, Error> {
        let (doomed, value) = self.write_dooming(mounts, is_done, body)?;
        doomed.delete(self, limit);
        Ok(value)
    }

    /// The same without the deleting: returns what is to be deleted.
    ///
    /// The database writes before it frees, so on a full disk it gets the reserve; the next [`Store::open`] sets it
    /// aside again.
    pub(super) fn write_dooming<T: Clone>(
        &self,
        mounts: Mounts,
        is_done: impl Fn(&ReadTxn) -> Result<bool, MetaError>,
        mut body: impl FnMut(&WriteTxn) -> Result<(Freed, T), Error>,
    ) -> Result<(Doomed, T), Error> {
        self.begin_writing()?;
        let mut seen = None;
        let mut attempt = |seen: &mut Option<(Doomed, T)>| -> Result<_, Error> {
            // Without what `looked` is about, who makes the first transient container may stand on what goes here.
            let mut write = |looked: bool| {
                self.database().write::<_, Error>(|txn| {
                    if !looked && self.has_new_transient(txn)? {
                        return Ok(None);
                    }
                    let (freed, value) = body(txn)?;
                    let removal = (Doomed::announce(self, freed), value);
                    *seen = Some(removal.clone());
                    moment::pass("before the commit");
                    Ok(Some(removal))
                })
            };
            loop {
                let written = match mounts {
                    Mounts::Wait => self.hold_run(&mut write)?,
                    Mounts::GoOn => write(true)?,
                };
                if let Some(removal) = written {
                    return Ok(removal);
                }
            }
        };
        let mut written = attempt(&mut seen);
        // The run root may be on the same full disk, where even opening its database needs the reserve.
        if let Err(error) = &written
            && error.is_out_of_space()
            && disk::release_reserve(self.layout())? > 0
        {
            tracing::warn!("the disk is full: using the reserve");
            let unknown = error.is_outcome_unknown();
            written = match seen.take() {
                // It was done, and only what comes after was not: to do it again would not find the thing.
                Some(removal) if unknown && is_done(&self.database().begin_verified_read()?)? => Ok(removal),
                first => {
                    first.iter().for_each(|(doomed, _)| doomed.give_up());
                    attempt(&mut seen)
                }
            };
        }
        moment::pass("after the commit");
        match written {
            Ok(removal) => Ok(removal),
            Err(error) => {
                // The rows say what became of it, and who finds the locks dead will ask them.
                if let Some((doomed, _)) = seen
                    && !error.is_outcome_unknown()
                {
                    doomed.give_up();
                }
                Err(error)
            }
        }
    }
}

/// Refuses to remove a layer that has another name by now than the one that is given, or that is a snapshot's and given without one.
fn refuse_what_stays(record: &LayerRecord, named: Option<&Name>) -> Result<(), Error> {
    if let Some(name) = named {
        refuse_renamed(record, name.as_str())?;
    }
    Ok(refuse_snapshot(record, named.map(Name::as_str))?)
}

impl Store {
    /// Runs a write transaction of a repair, and deletes what no row names after it. `body` looks for itself whether what
    /// it is about is still as it was.
    pub(crate) fn write_mending<T: Clone>(
        &self,
        mounts: Mounts,
        mut body: impl FnMut(&WriteTxn) -> Result<(Freed, T), Error>,
    ) -> Result<T, Error> {
        self.write_removing(
            mounts,
            EVERYTHING,
            |_| Ok(false),
            |txn| {
                let (mut freed, value) = body(txn)?;
                if !freed.numbers().is_empty() {
                    // Where rows do not fit together, two can name one number.
                    let records = Records::read(txn)?;
                    freed.diffs.retain(|number| !records.names(*number));
                    freed.blobs.retain(|number| !records.names(*number));
                    txn.forget_unsynced(freed.numbers())?;
                }
                Ok((freed, value))
            },
        )
    }
}

/// For a removal that deletes all it frees.
pub(super) const EVERYTHING: u64 = u64::MAX;

/// Whether others may mount, and make transient containers, while things are removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mounts {
    /// Nobody does: what is not mounted during the transaction is not mounted when it is committed.
    Wait,
    /// They may.
    GoOn,
}

/// Numbers that a transaction takes the rows of, announced by lock files before the rows are gone: so if this process
/// dies, the next writer knows where to look.
#[derive(Clone, Debug)]
pub(super) struct Doomed {
    numbers: Vec<u64>,
    locks: Vec<NamedLock>,
    /// Layers of additional layer stores that are needed no more.
    additional: Vec<PathBuf>,
}

impl Doomed {
    pub(super) fn announce(store: &Store, freed: Freed) -> Self {
        let numbers = freed.numbers();
        let mut locks = Vec::new();
        if !numbers.is_empty() {
            // On a full disk there may be no room for a name: it goes without. Or someone is at a number, such as this
            // process, which announces it as well.
            let tell = |error: &LayoutError| match error {
                LayoutError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {}
                error => tracing::warn!(%error, "removing without a lock file"),
            };
            if let Ok(lock) = EntryLock::create(store.layout()).inspect_err(tell) {
                locks.extend(numbers.iter().filter_map(|number| lock.name(*number).inspect_err(tell).ok()));
            }
        }
        Doomed { numbers, locks, additional: freed.additional }
    }

    /// Deletes everything. The rows are gone, so what cannot be deleted now is garbage for the next collection, and
    /// no failure of the removal: it is returned.
    pub(super) fn delete(&self, store: &Store, limit: u64) -> Vec<Uncollected> {
        for path in &self.additional {
            AdditionalDirectory::from_path(path).tell_release();
        }
        if self.numbers.is_empty() {
            return Vec::new();
        }
        match Sweep::limited(store, limit) {
            Ok(sweep) => sweep.freed(&self.numbers, &self.locks),
            Err(error) => {
                tracing::warn!(%error, "left for the next collection");
                vec![Uncollected { path: store.root().to_owned(), error }]
            }
        }
    }

    /// Nothing was removed.
    pub(super) fn give_up(&self) {
        self.locks.iter().for_each(garbage::give_up);
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{ContainerOptions, Store, StoreOptions, SyncMode};

    #[test]
    fn what_cannot_be_deleted_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreOptions::at(dir.path().join("store")).sync(SyncMode::Off).reserve(0)).unwrap();
        let container = store.create_container(None, &ContainerOptions::named("web")).unwrap();
        let trash = store.root().join("trash");
        std::fs::remove_dir(&trash).unwrap();
        std::fs::write(&trash, b"in the way").unwrap();
        store.remove_container(&container.id).unwrap();
        assert!(store.containers().unwrap().is_empty());
        std::fs::remove_file(trash).unwrap();
        let removed = store.gc(false).unwrap().removed;
        assert_eq!(removed.len(), 2, "the directory and its lock file: {removed:?}");
    }
}
