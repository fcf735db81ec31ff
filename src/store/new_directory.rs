//! The directories of new layers that are written to. They are empty, so nothing of them is lost that could not be made again:
//! instead of syncing one, the transaction that inserts the layer notes that it was not. A filesystem that loses the
//! directory with the power loses it whole, since it gets its name last; and then it is made again, as it was, before it is used.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use layerstore_schema::record::LayerRecord;
use layerstore_schema::table::Owner;

use crate::disk::{self, DiffName, Limits, Stage, Staging, Subdirectory};
use crate::error::{Error, LayoutError, LookupError};
use crate::image;
use crate::meta::{WriteTxn, made_empty, made_empty_in};
use crate::sys::sync;

use super::garbage::Sweep;
use super::part::Part;
use super::unsynced::lost_in;
use super::view::View;
use super::{Store, SyncMode};

/// What the transaction notes that inserts a new layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum NewDirectory<'s> {
    /// Nothing.
    Settled,
    /// That its directory was made in this boot, and not synced.
    MadeIn(&'s str),
}

impl NewDirectory<'_> {
    /// Notes it.
    pub(super) fn note(self, txn: &WriteTxn, number: u64) -> Result<(), Error> {
        match self {
            NewDirectory::Settled => Ok(()),
            NewDirectory::MadeIn(boot) => Ok(txn.mark_made_empty(number, boot)?),
        }
    }
}

impl Store {
    /// Makes a directory for a layer that is going to be written to. `is_on_record`: the records say how its root was made.
    pub(super) fn stage_new(&self, limits: Limits, is_on_record: bool) -> Result<Staging, Error> {
        // No record says which limits it has.
        if limits.is_none() && is_on_record {
            return Ok(Staging::create_aside(&Stage::create(self.layout())?, self.fresh_number()?)?);
        }
        let staging = self.stage()?;
        self.limit(&staging, limits)?;
        Ok(staging)
    }

    /// Comes when the root of a new directory is as it should be, and before the layer is inserted.
    pub(super) fn finish_new(&self, staging: &mut Staging) -> Result<NewDirectory<'_>, Error> {
        if staging.is_made_aside() {
            staging.put_in_place()?;
            return Ok(NewDirectory::MadeIn(self.boot_id()?));
        }
        // Only a throw-away store goes without.
        if self.sync_mode() != SyncMode::Off {
            staging.sync()?;
        }
        Ok(NewDirectory::Settled)
    }

    /// Comes with the first write of a boot: forgets which directories were new in an earlier one, of those that are there. If one is
    /// missing from now on, that is a loss.
    pub(super) fn settle_made(&self) -> Result<(), Error> {
        let boot = self.boot_id()?;
        let mut noted = made_empty(&self.database().begin_read()?)?;
        noted.retain(|_, of| of != boot && *of != lost_in(boot));
        if noted.is_empty() || self.sync_mode() == SyncMode::Off {
            return Ok(());
        }
        let there = self.layout().entries(Subdirectory::Diffs)?;
        let there = there.into_iter().filter(|name| matches!(name, DiffName::Entry(_)));
        let settled: Vec<u64> =
            there.map(|name| name.number()).filter(|number| noted.contains_key(number)).collect();
        if settled.is_empty() {
            return Ok(());
        }
        self.sync_filesystem()?;
        self.database().write(|txn| Ok(txn.forget_unsynced(settled.iter().copied())?))
    }

    fn sync_made(&self, root: BorrowedFd<'_>, number: u64) -> Result<(), Error> {
        let diffs = self.layout().subdirectory(Subdirectory::Diffs)?;
        let synced = sync::file(root).and_then(|()| sync::file(diffs.as_fd()));
        synced.map_err(|source| Error::Io { action: "sync", path: self.diff_path(number), source })
    }
}

/// Whether a directory was made empty in another boot, and perhaps never came to the disk.
fn made_in_another_boot(part: &Part<'_>, number: u64) -> Result<bool, Error> {
    match made_empty_in(part.txn()?, number)? {
        Some(boot) => Ok(boot != part.store().boot_id()?),
        None => Ok(false),
    }
}

fn is_missing(error: &LayoutError) -> bool {
    matches!(error, LayoutError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

impl View<'_> {
    /// Makes the directory of a layer again if it was made empty in another boot, not synced, and is not there. A process that must
    /// not write leaves it.
    ///
    /// Returns [`Error::Unsynced`] or [`Error::LayerMissing`] if a layer below it, from which its root has its metadata, is not whole.
    pub(super) fn ensure_made(&self, part: &Part<'_>, layer: &LayerRecord, number: u64) -> Result<(), Error> {
        let store = part.store();
        if !made_in_another_boot(part, number)? || store.is_read_only() || store.verified().contains(&number)
        {
            return Ok(());
        }
        let root = match store.open_diff(number) {
            Err(error) if is_missing(&error) => {
                let path = store.diff_path(number);
                tracing::warn!(layer = layer.id, path = %path.display(), "was not on the disk: made again");
                self.make_again(store, layer, number)?;
                store.open_diff(number)
            }
            opened => opened,
        };
        let root = match root {
            // It was removed meanwhile, with its layer.
            Err(error) if is_missing(&error) => return Ok(()),
            root => root?,
        };
        if store.sync_mode() == SyncMode::Off {
            // The note stays for who syncs.
            store.verified().insert(number);
            return Ok(());
        }
        // Also if it was there: another process may just have made it.
        store.sync_made(root.as_fd(), number)?;
        store.vouch_for(number)
    }

    /// What the directory of a layer takes that is written to: nothing, if it is to be made again.
    pub(super) fn written_usage(&self, layer: &LayerRecord) -> Result<disk::Usage, Error> {
        let directory = self.directory(layer)?;
        let opened = directory.open(&layer.id);
        if matches!(opened, Err(Error::LayerMissing { .. }))
            && let Some(number) = directory.number()
            && let Some(part) = self.home(Owner::Layer, &layer.id)?
            && made_in_another_boot(part, number)?
        {
            return Ok(disk::Usage::default());
        }
        Ok(disk::usage(opened?.as_fd())?)
    }

    fn make_again(&self, store: &Store, layer: &LayerRecord, number: u64) -> Result<(), Error> {
        if let Some(parent) = &layer.parent {
            self.verify_chain(parent)?;
        }
        let staging = store.stage_new(Limits::default(), true)?;
        if let Some(parent) = &layer.parent {
            let missing = || LookupError::NotFound { kind: "layer", key: parent.clone() };
            let below = self.layer(parent)?.ok_or_else(missing)?;
            self.directory(&below)?.prepare_above(parent, &staging)?;
        }
        let container = self.container_on(&layer.id)?;
        if let Some(maps) = container.as_ref().and_then(image::id_maps) {
            store.give_to(&staging, store.owner_of(&staging)?, &maps)?;
        }
        if staging.replace_lost(number)? && !store.named_numbers()?.diffs.contains(&number) {
            // It was removed meanwhile.
            Sweep::limited(store, u64::MAX)?.freed(&[number], &[]);
        }
        Ok(())
    }
}
