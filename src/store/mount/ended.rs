//! How mounts end, and what of their directories is in doubt after that.

use layerstore_schema::record::{LayerContent, LayerRecord, MountRecord};
use layerstore_schema::table::Owner;

use crate::disk::{DiffName, Subdirectory};
use crate::error::{Error, InUseError, LookupError, MountError};
use crate::overlay;
use crate::store::part::Part;
use crate::store::{Store, SyncMode, ThingId};
use crate::sys::moment;
use crate::types::LayerId;

use super::{UnmountMode, remove_quietly};

/// How often mounts are ended that are in the way of a removal.
const TRIES: usize = 8;

impl Store {
    /// Gives one mount back, and unmounts with the last. Returns how many are left. A layer that is not there any more is unmounted by its
    /// id, as [`mounts`](Self::mounts) tells it: what is mounted for reading can be removed in another mount namespace.
    ///
    /// With [`UnmountMode::Detach`] the mount leaves the tree even while processes use it. Its mount point stays then: what they may write to
    /// is not mounted for writing, sealed or removed until they end.
    ///
    /// Returns [`Error::Mount`] with [`NotMounted`](crate::MountError::NotMounted) if it is not mounted, and with
    /// [`Busy`](crate::MountError::Busy) if processes use it; the count is unchanged then. It is
    /// [`MadeOutside`](crate::MountError::MadeOutside) if this process is in a user namespace that has only a copy of the mount.
    pub fn unmount(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<u64, Error> {
        self.unmount_thing(&what.into(), mode, |count| count.saturating_sub(1))
    }

    /// Unmounts, however many have asked for the mount.
    ///
    /// Returns what [`unmount`](Self::unmount) does.
    pub fn unmount_all(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<(), Error> {
        self.unmount_thing(&what.into(), mode, |_| 0).map(drop)
    }

    fn unmount_thing(
        &self,
        what: &ThingId,
        mode: UnmountMode,
        next: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Error> {
        match (self.layer_and_home(what), what) {
            (Err(missing @ Error::Lookup(LookupError::NotFound { .. })), ThingId::Layer(layer)) => {
                match self.unmount_counting(layer.as_str(), None, mode, next) {
                    Err(Error::Mount(MountError::NotMounted { .. })) => Err(missing),
                    unmounted => unmounted,
                }
            }
            (found, _) => {
                let (layer, home) = found?;
                self.unmount_counting(&layer.id, Some((&layer, home)), mode, next)
            }
        }
    }

    /// Takes away all mounts of a thing, even while processes use them, and in whatever mount namespace: they leave the tree, and end with their
    /// last users. Nothing happens if there is none.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer, and else what [`unmount`](Self::unmount) does.
    pub fn end_mounts(&self, what: impl Into<ThingId>) -> Result<(), Error> {
        let layer = self.layer_of(&self.begin_read()?, &what.into())?;
        self.end_mounts_of_layer(&layer.id.parse()?)
    }

    /// Runs `remove`, and if nothing but a mount of the container or layer `what` is in its way, [ends](Self::end_mounts) the mounts and runs it
    /// again. What stays for another reason stays mounted. Mounts that nobody sees from here end when the thing is removed. The mounts of an
    /// image are those of its layers: they stay.
    ///
    /// Returns what `remove` does, and what [`end_mounts`](Self::end_mounts) does before it has removed anything.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = layerstore::Store::open(&layerstore::StoreOptions::at(dir.path().join("store")))?;
    /// # let web = store.create_container(None, &layerstore::ContainerOptions::named("web"))?;
    /// store.end_mounts_to(&web, || store.remove_container(&web.id))?;
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn end_mounts_to<T>(
        &self,
        what: impl Into<ThingId>,
        mut remove: impl FnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let what = what.into();
        let layer = match &what {
            ThingId::Image(_) => return remove(),
            what => self.layer_of(&self.begin_read()?, what).map(|layer| layer.id),
        };
        // What is not there is told by the removal.
        let Ok(layer) = layer else { return remove() };
        let layer: LayerId = layer.parse()?;
        let mut tries = TRIES;
        let removed = loop {
            match remove() {
                // Somebody may mount it between the two.
                Err(Error::InUse(kept)) if kept.is_mounted() && tries > 0 => {
                    // What is still there by then was mounted by way of another store, and is not ended here.
                    let left = if matches!(kept, InUseError::MountedElsewhere { .. }) { 1 } else { TRIES };
                    tries = tries.saturating_sub(1).min(left);
                    self.end_mounts_of_layer(&layer)?;
                }
                removed => break removed?,
            }
        };
        if let Err(error) = self.detach_elsewhere(layer.as_str()) {
            tracing::warn!(%layer, %error, "what other mount namespaces have mounted of a layer that is gone is left");
        }
        Ok(removed)
    }

    pub(in crate::store) fn end_mounts_of_layer(&self, layer: &LayerId) -> Result<(), Error> {
        self.unmount_if_mounted(layer)?;
        self.detach_elsewhere(layer.as_str())
    }

    /// Takes away the mount of a layer that may have no record any more, even while processes use it.
    pub(in crate::store) fn unmount_if_mounted(&self, layer: &LayerId) -> Result<(), Error> {
        match self.unmount_layer(layer, UnmountMode::Detach) {
            Err(Error::Mount(MountError::NotMounted { .. })) => Ok(()),
            done => done,
        }
    }

    /// The same; one that is not mounted is an error.
    pub(in crate::store) fn unmount_layer(&self, layer: &LayerId, mode: UnmountMode) -> Result<(), Error> {
        let txn = self.begin_read()?;
        let record: Option<LayerRecord> = txn.layer(layer.as_str())?;
        let home = txn.home(Owner::Layer, layer.as_str())?.map_or(self, Part::store);
        drop(txn);
        let record = record.as_ref().map(|record| (record, home));
        self.unmount_counting(layer.as_str(), record, mode, |_| 0).map(drop)
    }

    fn layer_and_home(&self, what: &ThingId) -> Result<(LayerRecord, &Store), Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, what)?;
        let home = txn.home(Owner::Layer, &layer.id)?.map_or(self, Part::store);
        Ok((layer, home))
    }

    /// `record` is that of the layer with the store that has it; `None` for the mount of a layer that is gone.
    pub(in crate::store) fn unmount_counting(
        &self,
        layer: &str,
        record: Option<(&LayerRecord, &Store)>,
        mode: UnmountMode,
        next: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Error> {
        let target = self.mount_point(layer)?;
        let namespace = self.mount_namespace()?;
        self.run()?.update_mount::<_, Error>(layer, namespace, |slot| {
            let counted = &mut slot.record;
            let left = next(counted.as_ref().map_or(1, |counted| counted.count));
            if left > 0
                && let Some(counted) = counted
                && overlay::is_mounted(&target)?
            {
                counted.count = left;
                return Ok(left);
            }
            let by_program = record.is_some_and(|(layer, home)| Self::may_have_marks(home, layer, &target));
            // One that was detached may be written to still: so that is done only if processes use it.
            let (unmounted, lingers) = match overlay::unmount(&target, UnmountMode::Plain) {
                Err(MountError::Busy { .. }) if mode == UnmountMode::Detach => {
                    (overlay::unmount(&target, mode), true)
                }
                unmounted => (unmounted, false),
            };
            match unmounted {
                // A count that the kernel does not confirm goes with the error that says so.
                Err(error @ MountError::NotMounted { .. }) => {
                    let Some(ended) = counted.take() else { return Err(error.into()) };
                    if !ended.read_only && !slot.elsewhere {
                        Self::settle_ended(record);
                    }
                    self.vouch_for_ended(layer, &ended)?;
                    return Ok(0);
                }
                unmounted => unmounted?,
            }
            moment::pass("unmounted");
            let ended = counted.take();
            // With the directory would go what is mounted there in other mount namespaces. Where one is and no mount, the kernel is
            // asked who writes.
            if !slot.elsewhere && !lingers {
                remove_quietly(&target);
            }
            if by_program && !lingers && !slot.elsewhere {
                Self::settle_ended(record);
            }
            if let (Some((layer, home)), Some(ended)) = (record, ended) {
                Self::vouch_for_volatile(home, layer, &ended)?;
            }
            Ok(0)
        })
    }

    /// A mount of this boot has ended, and whoever ended it has not said so: the process died, or was another program. What
    /// was written is the kernel's still.
    pub(crate) fn vouch_for_ended(&self, layer: &str, ended: &MountRecord) -> Result<(), Error> {
        let txn = self.begin_read()?;
        let home = txn.home(Owner::Layer, layer)?.map_or(self, Part::store);
        txn.layer(layer)?.map_or(Ok(()), |record| Self::vouch_for_volatile(home, &record, ended))
    }

    /// The kernel refuses to mount a directory again that was mounted without syncs, until somebody says that its
    /// files are on the disk. The end of a view says nothing of what others have written.
    fn vouch_for_volatile(home: &Store, layer: &LayerRecord, ended: &MountRecord) -> Result<(), Error> {
        if ended.read_only { Ok(()) } else { Self::end_doubt(home, layer) }
    }

    /// Takes the mark away that says that a volatile mount has not ended, and brings the files to the disk before.
    pub(super) fn end_doubt(home: &Store, layer: &LayerRecord) -> Result<(), Error> {
        let LayerContent::Writable(number) = layer.content else { return Ok(()) };
        let work = home.layout().entry_path(Subdirectory::Work, DiffName::Entry(number));
        if overlay::has_volatile_mark(&work) {
            if home.sync_mode() != SyncMode::Off {
                home.sync_filesystem()?;
            }
            overlay::clear_volatile_mark(&work)?;
        }
        Ok(())
    }

    /// Refuses to make something that lasts of a directory whose files are in doubt: it was mounted without syncs when the
    /// machine went down. `home` has the layer, and this handle its mounts.
    ///
    /// Returns [`Error::Mount`] with [`VolatileLeft`](MountError::VolatileLeft) if it is so.
    pub(crate) fn refuse_in_doubt(&self, home: &Store, layer: &LayerRecord) -> Result<(), Error> {
        let LayerContent::Writable(number) = layer.content else { return Ok(()) };
        let work = home.layout().entry_path(Subdirectory::Work, DiffName::Entry(number));
        if !overlay::has_volatile_mark(&work) || overlay::is_mounted(&self.mount_point(&layer.id)?)? {
            return Ok(());
        }
        // A mount of this boot that ended without a word: what was written is the kernel's still.
        let counted = self.run_if_usable()?.map(|run| run.mounts()).transpose()?;
        let wrote = |mount: &crate::meta::CountedMount| mount.layer == layer.id && !mount.record.read_only;
        match counted.is_some_and(|counted| counted.iter().any(wrote)) || self.is_lent(&layer.id)? {
            true => Ok(()),
            false => Err(MountError::VolatileLeft { work }.into()),
        }
    }
}
