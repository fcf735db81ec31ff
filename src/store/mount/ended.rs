//! How mounts end, and what of their directories is in doubt after that.

use layerstore_schema::record::{LayerContent, LayerRecord, MountRecord};
use layerstore_schema::table::Owner;

use crate::disk::{DiffName, Subdirectory};
use crate::error::{Error, MountError};
use crate::overlay;
use crate::store::part::Part;
use crate::store::{Store, SyncMode, ThingId};
use crate::sys::moment;

use super::{UnmountMode, remove_quietly};

impl Store {
    /// Gives one mount back, and unmounts with the last. Returns how many are left.
    ///
    /// With [`UnmountMode::Detach`] the mount leaves the tree even while processes use it.
    ///
    /// Returns [`Error::Mount`] with [`NotMounted`](crate::MountError::NotMounted) if it is not mounted, and with
    /// [`Busy`](crate::MountError::Busy) if processes use it; the count is unchanged then. It is
    /// [`MadeOutside`](crate::MountError::MadeOutside) if this process is in a user namespace that has only a copy of the mount.
    pub fn unmount(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<u64, Error> {
        let (layer, home) = self.layer_and_home(&what.into())?;
        self.unmount_counting(&layer.id, Some((&layer, home)), mode, |count| count.saturating_sub(1))
    }

    /// Unmounts, however many have asked for the mount.
    ///
    /// Returns what [`unmount`](Self::unmount) does.
    pub fn unmount_all(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<(), Error> {
        let (layer, home) = self.layer_and_home(&what.into())?;
        self.unmount_counting(&layer.id, Some((&layer, home)), mode, |_| 0).map(drop)
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
            let mut is_over = mode == UnmountMode::Plain;
            let unmounted = match by_program && !is_over {
                true => match overlay::unmount(&target, UnmountMode::Plain) {
                    Err(MountError::Busy { .. }) => overlay::unmount(&target, mode),
                    unmounted => {
                        is_over = true;
                        unmounted
                    }
                },
                false => overlay::unmount(&target, mode),
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
            // With the directory would go what is mounted there in other mount namespaces.
            if !slot.elsewhere {
                remove_quietly(&target);
            }
            if by_program && is_over && !slot.elsewhere {
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
