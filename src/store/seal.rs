//! A layer that was written to becomes a sealed one, and a sealed one writable.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::{LayerKey, Owner};

use crate::composefs;
use crate::disk::{self, EntryLock, Filled, Limits, LockState, Marks, NamedLock, Staging};
use crate::error::{CreateError, Error, ImportError, InUseError, LayoutError, MetaError, ScanError};
use crate::layer::{self, Layer, SealedContent};
use crate::meta::{Query, unsynced};
use crate::sys::moment;
use crate::types::{ContentHash, LayerId, TreeDigest};

use super::container::checked_names;
use super::garbage::{self, Sweep};
use super::home::Home;
use super::image::check_flags;
use super::import::{Durability, Rows};
use super::layer::{changed_meanwhile, found, refuse_renamed};
use super::remove::{Gone, Mounts, standing_on};
use super::written::Old;
use super::{Store, SyncMode};

/// How often something is tried that others can come in the way of.
const TRIES: usize = 3;

/// How many names are deleted at the most when a dead process is found at a layer.
const LIMIT: u64 = 1000;

/// What a layer gets in the moment in which it is sealed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SealOptions {
    /// Its names from then on; `None` leaves those that it has.
    pub names: Option<Vec<String>>,
    /// Its labels; `None` leaves those that it has.
    pub labels: Option<Vec<(String, String)>>,
    /// Flags to set: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// The layer below it from then on, in place of the one that it has or has not. What it shows is then its own changes
    /// above that.
    pub parent: Option<LayerId>,
    /// It is never to be made writable again.
    pub read_only: bool,
    /// A name that the layer must still have when it is sealed: for callers that found it by that name. One that was renamed
    /// meanwhile, such as by another who seals it, is left as it is.
    pub still_named: Option<String>,
}

impl Store {
    /// Seals a layer that was written to: its directory is read, gets a tree digest, and is never written to again. From
    /// then on it is shared with equal ones, and [`check`](Self::check) finds what is changed in it. A layer that is sealed
    /// stays as it is. What mounts left in the layers below is brought in, as [`settle`](Self::settle) does. Its
    /// [`Quota`](crate::Quota) goes.
    ///
    /// # Locking
    ///
    /// Who wants to mount the layer for writing waits meanwhile.
    ///
    /// Returns [`Error::Mount`] with [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted without syncs when the machine
    /// went down; [`Error::InUse`] if the layer is mounted, or a layer above it is while an equal layer has a directory that both
    /// are to share; if someone else is sealing or filling it, or it belongs to a container;
    /// [`Error::Import`] if its directory cannot be read, and [`Error::Lookup`] if it is not there.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let layer = store.create_layer(None, &LayerOptions::default())?;
    /// let layer = store.seal(&layer.id)?;
    /// assert!(layer.tree.is_some());
    /// assert!(store.unseal(&layer.id)?.tree.is_none());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn seal(&self, id: &LayerId) -> Result<Layer, Error> {
        self.seal_with(id, &SealOptions::default())
    }

    /// As [`seal`](Self::seal), and in the same transaction gives the layer what it is to have from then on: nobody sees it sealed
    /// and without that, or with that and not sealed. A layer that is sealed is given it as well.
    ///
    /// Returns what `seal` does, [`Error::Value`] if a name or a flag is none, [`Error::Meta`] with
    /// [`NameInUse`](crate::MetaError::NameInUse) if another layer has a name, [`Error::Create`] if the new parent belongs to a
    /// container or stands on the layer, [`Error::InUse`] if something stands on the layer that is to get another parent, and
    /// [`Error::Lookup`] if that parent is not there, or the layer has lost the name that it must still have.
    pub fn seal_with(&self, id: &LayerId, options: &SealOptions) -> Result<Layer, Error> {
        let sealed = self.layer_home(id.as_str())?.seal(id, &Gift::new(options)?)?;
        Ok(Layer::from_record(sealed)?)
    }

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
    /// went down; [`Error::InUse`] if the layer is mounted, or a layer above it is; if someone else is sealing or filling it;
    /// [`Error::Scan`] if its directory cannot be read, or what was left below is not there any more; and
    /// [`Error::Lookup`] if it is not there.
    pub fn settle(&self, id: &LayerId) -> Result<bool, Error> {
        self.layer_home(id.as_str())?.settle(id.as_str())
    }

    /// Makes a sealed layer writable. Its tree digest, diffID, blobs and sizes go, as what they said is no longer so. If no
    /// other layer shares its directory, that is the one that is written to; else it gets a copy, by reflink where the
    /// filesystem can. A layer that is writable stays as it is. It gets the limits that the
    /// [store](crate::StoreOptions::quota) gives to new layers.
    ///
    /// Returns [`Error::InUse`] if an image or another layer stands on the layer, it is mounted, a lease keeps it, or it is
    /// [`read_only`](crate::LayerOptions::read_only); [`Error::InOtherStore`] if it is in a store that is only read;
    /// [`Error::Unsynced`] if it was not on the disk when the machine went down; and [`Error::Lookup`] if it is not there.
    pub fn unseal(&self, id: &LayerId) -> Result<Layer, Error> {
        Ok(Layer::from_record(self.layer_home(id.as_str())?.unseal(id.as_str(), false)?)?)
    }
}

/// [`SealOptions`] that were checked as far as they can be without a transaction.
struct Gift<'o> {
    options: &'o SealOptions,
    names: Option<Vec<String>>,
}

impl<'o> Gift<'o> {
    fn new(options: &'o SealOptions) -> Result<Self, Error> {
        check_flags(&options.flags)?;
        Ok(Gift { options, names: options.names.as_deref().map(checked_names).transpose()? })
    }

    fn is_empty(&self) -> bool {
        let SealOptions { names, labels, flags, parent, read_only, still_named } = self.options;
        let gives =
            names.is_some() || labels.is_some() || !flags.is_empty() || parent.is_some() || *read_only;
        !gives && still_named.is_none()
    }

    fn give(&self, record: &mut LayerRecord) {
        let options = self.options;
        record.read_only |= options.read_only;
        record.names = self.names.clone().unwrap_or(std::mem::take(&mut record.names));
        record.labels = options.labels.clone().unwrap_or(std::mem::take(&mut record.labels));
        for flag in &options.flags {
            record.flags.retain(|(name, _)| *name != flag.0);
            record.flags.push(flag.clone());
        }
        if let Some(parent) = &options.parent {
            record.parent = Some(parent.to_string());
        }
    }
}

impl Home<'_> {
    fn seal(&self, id: &LayerId, gift: &Gift<'_>) -> Result<LayerRecord, Error> {
        let store = self.store;
        store.begin_writing()?;
        let of_container = |container| InUseError::LayerOfContainer { layer: id.to_string(), container };
        if let Some(container) = store.begin_read()?.container_of_layer(id.as_str())? {
            return Err(of_container(container).into());
        }
        let record = found(&store.database().begin_read()?, id.as_str())?;
        if !gift.is_empty() {
            // Before all is read for nothing.
            self.refuse_gift(&record, gift)?;
            if let Some(parent) = &gift.options.parent {
                self.seen_from().begin_read()?.verify_chain(parent.as_str())?;
            }
        }
        let LayerContent::Writable(number) = record.content else {
            return if gift.is_empty() { Ok(record) } else { self.give_sealed(&record, gift) };
        };
        self.seen_from().refuse_in_doubt(store, &record)?;
        let held = self.hold_directory(&record.id, number)?;
        let sealed = self.seal_held(&record, number, gift);
        if sealed.is_ok() {
            // While the lock is held: nobody makes it writable again.
            if let Err(error) = store.layout().change_limits(number, Limits::default()) {
                // Of an equal layer, the directory is gone.
                tracing::debug!(%error, "the limits of a sealed layer are left");
            }
            match Sweep::limited(store, u64::MAX) {
                Ok(mut sweep) => sweep.workdir(number),
                Err(error) => tracing::warn!(%error, "left for the next collection"),
            }
            if let Err(error) = self.seen_from().forget_lent(id.as_str()) {
                tracing::debug!(%error, "that others mounted a layer is kept until the next boot");
            }
        }
        held.release_after(sealed)
    }

    /// Refuses what a layer cannot be given.
    fn refuse_gift(&self, record: &LayerRecord, gift: &Gift<'_>) -> Result<(), Error> {
        if let Some(name) = &gift.options.still_named {
            refuse_renamed(record, name)?;
        }
        let view = self.seen_from().begin_read()?;
        for name in gift.names.iter().flatten() {
            if let Some(holder) = view.named_here(Owner::Layer, name)?.filter(|holder| *holder != record.id) {
                return Err(MetaError::NameInUse { kind: "layer", name: name.clone(), holder }.into());
            }
        }
        let Some(parent) = &gift.options.parent else { return Ok(()) };
        let parent = parent.to_string();
        self.user.map_or(Ok(()), |user| user.refuse_outside_images(&parent))?;
        found(&view, &parent)?;
        if let Some(container) = view.container_of_layer(&parent)? {
            return Err(CreateError::ParentOfContainer { layer: parent, container }.into());
        }
        if record.parent.as_ref() != Some(&parent)
            && let Some(above) = standing_on(&view, &record.id, &Gone::default())?
        {
            return Err(above.into());
        }
        if view.chain(&parent)?.iter().any(|below| below.id == record.id) {
            return Err(CreateError::ParentAbove { layer: record.id.clone(), parent }.into());
        }
        Ok(())
    }

    /// Gives a layer something that is sealed already.
    fn give_sealed(&self, record: &LayerRecord, gift: &Gift<'_>) -> Result<LayerRecord, Error> {
        let store = self.store;
        let point = store.layout().sync_point()?;
        let sync = || store.sync_staged(&point, false);
        let give = |rows: &mut Rows<'_>| {
            let mut current = found(rows.txn, &record.id)?;
            if current.content != record.content {
                return Err(changed_meanwhile(&record.id));
            }
            self.refuse_gift(&current, gift)?;
            if gift.options.parent.is_some() {
                self.refuse_mounted_above(&record.id)?;
            }
            gift.give(&mut current);
            rows.txn.put_layer(&current)?;
            rows.inserted_chain(&record.id)?;
            Ok(current)
        };
        self.hold_user(|| store.write_rows(&HashSet::new(), sync, Mounts::Wait, give))
    }

    /// Seals what is in `diffs/<number>`, which this process holds.
    fn seal_held(&self, record: &LayerRecord, number: u64, gift: &Gift<'_>) -> Result<LayerRecord, Error> {
        let store = self.store;
        // It may have been given up before it was held.
        if found(&store.database().begin_read()?, &record.id)?.content != record.content {
            return Err(changed_meanwhile(&record.id));
        }
        let point = store.layout().sync_point()?;
        // What is read as opaque is to be so for the kernel, too.
        store.settle_marks(number, Marks::Opaque)?;
        let root = store.open_diff(number)?;
        let namespace = store.layout().xattrs();
        let (settled, content) = match SealedContent::read(root.as_fd(), &HashMap::new(), namespace) {
            Err(ImportError::Scan(ScanError::Redirected { .. })) => {
                let (staging, known) = self.stage_settled(record, Old::Goes, Limits::default())?;
                let content = SealedContent::read(staging.directory(), &known, namespace)?;
                (Some(staging.filled()), content)
            }
            content => (None, content?),
        };
        let number = settled.as_ref().map_or(number, Filled::number);
        let sync = || store.sync_staged(&point, true);
        let seal = |rows: &mut Rows<'_>| {
            let current = found(rows.txn, &record.id)?;
            if let Some(container) = rows.txn.container_of_layer(&record.id)? {
                return Err(InUseError::LayerOfContainer { layer: record.id.clone(), container }.into());
            }
            if current.content != record.content {
                return Err(changed_meanwhile(&record.id));
            }
            let needed = rows.insert_tree(number, &content)?;
            if !needed || settled.is_some() {
                // The layer gets the directory of an equal one or a new one, and this one goes.
                self.refuse_mounted_above(&record.id)?;
            }
            if !gift.is_empty() {
                self.refuse_gift(&current, gift)?;
            }
            let mut sealed = LayerRecord { content: LayerContent::Sealed(content.tree.0), ..current.clone() };
            gift.give(&mut sealed);
            rows.txn.put_layer(&sealed)?;
            rows.release(&current)?;
            rows.inserted_chain(&record.id)?;
            Ok((sealed, needed))
        };
        let written = self.hold_user(|| store.write_rows(&HashSet::new(), sync, Mounts::Wait, seal));
        match settled {
            Some(directory) => store.settle_directory(directory, written),
            None => written.map(|(sealed, _)| sealed),
        }
    }

    fn settle(&self, id: &str) -> Result<bool, Error> {
        let store = self.store;
        store.begin_writing()?;
        let record = found(&store.database().begin_read()?, id)?;
        let LayerContent::Writable(number) = record.content else { return Ok(false) };
        // The mark that says so is in the workdir, which goes with the directory.
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
        store.settle_marks(number, Marks::Opaque)?;
        if txn.written(record)?.is_plain() {
            return Ok(false);
        }
        drop(txn);
        let point = store.layout().sync_point()?;
        let limited = store.layout().limits_of(number)?;
        let limits = limited.map(|limited| limited.limits).unwrap_or_default();
        let (staging, _) = self.stage_settled(record, Old::Goes, limits)?;
        store.sync_writable(&point, &staging, true)?;
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

    /// Makes a sealed layer writable, as [`Store::unseal`] does.
    pub(super) fn unseal(&self, id: &str, change_under_others: bool) -> Result<LayerRecord, Error> {
        self.store.begin_writing()?;
        let mut tries = TRIES;
        loop {
            tries -= 1;
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
        let in_place =
            alone && !shared()? && (limits.is_none() || store.layout().limits_of(number)?.is_some());
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
            Err(_) if found(&store.database().begin_read()?, id)?.content != record.content => {
                return Err(changed_meanwhile(id));
            }
            staging => staging?,
        };
        store.sync_writable(&point, &staging, true)?;
        let written = self.hold_user(|| {
            store.write_rows(&HashSet::new(), Durability::is_done, Mounts::Wait, |rows| {
                self.refuse_mounted(id)?;
                unseal(rows, staging.number()).map(|record| (record, true))
            })
        });
        store.settle_directory(staging.filled(), written)
    }

    /// Keeps the directory of a layer from being mounted for writing, and from being given up.
    ///
    /// Returns [`Error::InUse`] if it is mounted, or someone else does the same.
    pub(super) fn hold_directory(&self, layer: &str, number: u64) -> Result<HeldDirectory, Error> {
        let hold = || {
            self.hold_mounts(|| {
                self.refuse_mounted(layer)?;
                Ok(EntryLock::create(self.store.layout())?.name(number)?)
            })
        };
        let is_taken = |error: &Error| {
            let Error::Layout(LayoutError::Io { source, .. }) = error else { return false };
            source.kind() == io::ErrorKind::AlreadyExists
        };
        let mut held = hold();
        if held.as_ref().is_err_and(is_taken)
            && disk::lock_state(self.store.layout(), number)? != LockState::Held
        {
            // By someone who died.
            Sweep::limited(self.store, LIMIT)?.announced()?;
            held = hold();
        }
        match held {
            Err(error) if is_taken(&error) => Err(InUseError::Busy { layer: layer.to_owned() }.into()),
            held => Ok(HeldDirectory { lock: held? }),
        }
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

/// A layer's directory that nobody mounts for writing.
pub(super) struct HeldDirectory {
    lock: NamedLock,
}

impl HeldDirectory {
    /// Lets go of it after the transaction that was to give it, or take from it, a place. If nobody knows whether that was
    /// committed, the name of the lock stays, and who finds it dead asks the rows.
    pub(super) fn release_after<T>(self, written: Result<T, Error>) -> Result<T, Error> {
        if !written.as_ref().is_err_and(Error::is_outcome_unknown) {
            garbage::give_up(&self.lock);
        }
        written
    }
}

/// Whether no other layer shares the directory of a sealed one.
fn is_alone(txn: &impl Query, layer: &LayerRecord, tree: &TreeDigest) -> Result<bool, Error> {
    let sharers = txn.layers_by(LayerKey::Tree, &tree.to_string())?;
    Ok(sharers.iter().all(|sharer| *sharer == layer.id))
}
