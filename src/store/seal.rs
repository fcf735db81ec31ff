//! Sealing: a layer that was written to gets a tree digest, and is never written to again.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{Filled, Life, Limits};
use crate::error::{CreateError, Error, ImportError, InUseError, MetaError, ScanError};
use crate::layer::{Layer, SealedContent};
use crate::meta::Query;
use crate::types::{LayerId, Name};

use super::Store;
use super::container::checked_names;
use super::foreign::{owned_in, refuse_foreign};
use super::garbage::Sweep;
use super::home::Home;
use super::image::check_flags;
use super::import::Rows;
use super::layer::{changed_meanwhile, found, refuse_renamed};
use super::remove::Mounts;
use super::snapshot::refuse_snapshot;
use super::users::{Gone, standing_on};
use super::written::Old;

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
    /// A name that the layer must still have when it is sealed, and the one that it gets in its place; its other names stay, also
    /// those that it got meanwhile. For callers that found it by that name: one that was renamed meanwhile, such as by another who
    /// seals it, is left as it is.
    pub renamed: Option<(String, String)>,
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
    /// went down; [`Error::InUse`] if the layer is mounted, or still written to through a mount that was detached or is in another
    /// mount namespace, or a layer above it is mounted while an equal layer has a directory that both are to share; if someone else is sealing or filling it, it belongs to a container, or is a
    /// [snapshot](Layer::snapshot_name) of containerd's;
    /// [`Error::Import`] if its directory cannot be read, [`Error::Scan`] with [`Owner`](crate::ScanError::Owner) if something in it was written in
    /// another user namespace and has another owner here, and [`Error::Lookup`] if it is not there.
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
}

/// [`SealOptions`] that were checked as far as they can be without a transaction.
struct Gift<'o> {
    options: &'o SealOptions,
    names: Option<Vec<String>>,
    renamed: Option<(&'o str, Name)>,
}

impl<'o> Gift<'o> {
    fn new(options: &'o SealOptions) -> Result<Self, Error> {
        check_flags(&options.flags)?;
        let renamed = |(from, to): &'o (String, String)| Ok::<_, Error>((from.as_str(), to.parse()?));
        Ok(Gift {
            options,
            names: options.names.as_deref().map(checked_names).transpose()?,
            renamed: options.renamed.as_ref().map(renamed).transpose()?,
        })
    }

    fn is_empty(&self) -> bool {
        let SealOptions { names, labels, flags, parent, read_only, renamed } = self.options;
        let gives =
            names.is_some() || labels.is_some() || !flags.is_empty() || parent.is_some() || *read_only;
        !gives && renamed.is_none()
    }

    fn give(&self, record: &mut LayerRecord) {
        let options = self.options;
        record.read_only |= options.read_only;
        record.names = self.names.clone().unwrap_or(std::mem::take(&mut record.names));
        if let Some((from, to)) = &self.renamed {
            // Before the others, as the first name is the one that is shown.
            let others = record.names.iter().filter(|name| name != from && *name != to.as_str());
            record.names =
                std::iter::once(to.as_str()).chain(others.map(String::as_str)).map(str::to_owned).collect();
        }
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
        if !gift.is_empty() || matches!(record.content, LayerContent::Writable(_)) {
            refuse_snapshot(&record, gift.options.renamed.as_ref().map(|(old, _)| old.as_str()))?;
        }
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
        self.seen_from().begin_read()?.verify_layer(&record)?;
        self.seen_from().refuse_in_doubt(store, &record)?;
        let held = self.hold_directory(&record.id, number)?;
        // What is sealed is not looked at again. A snapshot is mounted by containerd, which says when it is done with it.
        let unwritten = match refuse_snapshot(&record, None) {
            Ok(()) => self.refuse_written(&record.id, number),
            Err(_) => Ok(()),
        };
        let sealed = unwritten.and_then(|()| self.seal_held(&record, number, gift));
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
            if let Err(error) = self.seen_from().drop_mount_point(id.as_str()) {
                tracing::debug!(%error, "a mount point is left for the next collection");
            }
        }
        held.release_after(sealed)
    }

    /// Refuses what a layer cannot be given.
    fn refuse_gift(&self, record: &LayerRecord, gift: &Gift<'_>) -> Result<(), Error> {
        if let Some((name, _)) = &gift.renamed {
            refuse_renamed(record, name)?;
        }
        let view = self.seen_from().begin_read()?;
        let new = gift.renamed.iter().map(|(_, to)| to.as_str());
        for name in gift.names.iter().flatten().map(String::as_str).chain(new) {
            if let Some(holder) = view.named_here(Owner::Layer, name)?.filter(|holder| *holder != record.id) {
                return Err(MetaError::NameInUse { kind: "layer", name: name.to_owned(), holder }.into());
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

    /// Whether the index of a mount that somebody else made has what belongs into the layer.
    fn has_kept(&self, record: &LayerRecord) -> Result<bool, Error> {
        let txn = self.seen_from().begin_read()?;
        let index = txn.directory(record)?.index(Life::Still)?;
        Ok(index.is_some() && !txn.written(record)?.is_plain())
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
        store.settle_marks(number)?;
        let root = store.open_diff(number)?;
        let namespace = store.layout().xattrs();
        let plain = match self.has_kept(record)? {
            // What only the index of a mount has, the directory does not tell of.
            true => None,
            false => match SealedContent::read(root.as_fd(), &HashMap::new(), namespace) {
                Err(ImportError::Scan(ScanError::Redirected { .. })) => None,
                content => Some(content?),
            },
        };
        let (settled, content) = match plain {
            Some(content) => (None, content),
            None => {
                let (staging, known) = self.stage_settled(record, Old::Goes, Limits::default())?;
                let content = SealedContent::read(staging.directory(), &known, namespace)?;
                (Some(staging.filled()), content)
            }
        };
        content.refuse_marker_names()?;
        refuse_foreign(store.layout(), owned_in(&content.manifest))?;
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
        let spoiled = store.spoiled([&content])?;
        let written = self.hold_user(|| store.write_rows(&spoiled, sync, Mounts::Wait, seal));
        match settled {
            Some(directory) => store.settle_directory(directory, written),
            None => written.map(|(sealed, _)| sealed),
        }
    }
}
