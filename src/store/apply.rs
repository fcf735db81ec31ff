//! Archives that are put on top of what a layer has.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::AsFd;

use layerstore_schema::manifest::{Kind, Manifest};
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, Limits, SyncPoint, copy_into};
use crate::error::{Error, ImportError, InUseError, MetaError};
use crate::layer::{self, Layer, SealedContent, UnpackedLayer};
use crate::meta::Query;
use crate::sys::file::duplicate;
use crate::sys::moment;
use crate::types::LayerId;

use super::hold::HeldDirectory;
use super::home::Home;
use super::import::{Durability, Rows};
use super::layer::{changed_meanwhile, found};
use super::mount::patiently;
use super::remove::Mounts;
use super::snapshot::refuse_snapshot;
use super::staged::described;
use super::written::Old;
use super::{ApplyOptions, StagedDiff, Store};

impl Store {
    /// Changes a layer by an archive of changes, in any compression that is known: all of it or nothing.
    ///
    /// An empty layer becomes what [`put_layer`](Self::put_layer) makes: sealed, with the archive's digests. A layer that
    /// has something gets what the archive says on top: names are replaced and deleted, and what was deleted from the layers
    /// below stays so. It has no diffID then, as no archive has its content. It is sealed if it was, and writable if it was.
    /// A container's layer stays writable in any case.
    ///
    /// The layer gets another directory, so that nobody sees a part of the changes. Until then it takes the space of both.
    ///
    /// # Locking
    ///
    /// Who wants to mount the layer for writing waits meanwhile, if it is writable.
    ///
    /// Returns what [`stage_diff`](Self::stage_diff) and [`StagedDiff::apply_to`] do.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ApplyOptions, ContainerOptions, LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let from = store.create_container(None, &ContainerOptions::default())?;
    /// let mut tar = Vec::new();
    /// store.diff(&from, &mut tar)?;
    /// let layer = store.create_layer(None, &LayerOptions::named("copy"))?;
    /// let layer = store.apply_diff(&layer.id, &*tar, &ApplyOptions::default())?;
    /// assert_eq!(layer.diff_size, Some(tar.len() as u64));
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn apply_diff(
        &self,
        layer: &LayerId,
        diff: impl Read + Send,
        options: &ApplyOptions,
    ) -> Result<Layer, Error> {
        // What cannot be changed need not be unpacked.
        let target = Target::find(self, layer.as_str(), options)?;
        self.stage_diff_in(target.home.store, diff, options)?.apply_to(layer)
    }
}

impl StagedDiff {
    /// Changes a layer by it, in one transaction: see [`Store::apply_diff`].
    ///
    /// Returns [`Error::InUse`] if an image or another layer stands on the layer and
    /// [`change_under_others`](ApplyOptions::change_under_others) is not set, a lease keeps it, it or a layer above it is
    /// mounted, someone else changes it, or it is a [snapshot](Layer::snapshot_name) of containerd's; [`Error::Mount`] with [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted
    /// without syncs when the machine went down; [`Error::Unsynced`] if it was not on the disk when the machine went down;
    /// [`Error::Tree`] with [`Whiteout`](crate::TreeError::Whiteout) if it is writable and whiteouts cannot be made devices; and
    /// [`Error::Lookup`] if it is not there.
    pub fn apply_to(self, layer: &LayerId) -> Result<Layer, Error> {
        let StagedDiff { store, staged_in, unpacked, options, point, .. } = self;
        let target = Target::find(&store, layer.as_str(), &options)?;
        let held = target.hold()?;
        moment::pass("to be sealed");
        let applied = target.apply(&staged_in, &point, unpacked, &options);
        let applied = applied.or_else(|error| Err(target.explain(error)?));
        let record = match held {
            Some(held) => held.release_after(applied),
            None => applied,
        }?;
        Ok(Layer::from_record(record)?)
    }
}

/// The layer that is going to be changed.
struct Target<'s> {
    home: Home<'s>,
    record: LayerRecord,
    number: u64,
    /// Whether it is a container's.
    of_container: bool,
}

impl<'s> Target<'s> {
    fn find(handle: &'s Store, id: &str, options: &ApplyOptions) -> Result<Self, Error> {
        let home = handle.layer_home(id)?;
        home.store.begin_writing()?;
        let view = home.seen_from().begin_read()?;
        let container = view.container_of_layer(id)?;
        if let Some(container) = &container
            && home.is_transient(id)?
        {
            let (layer, container) = (id.to_owned(), container.clone());
            return Err(InUseError::LayerOfContainer { layer, container }.into());
        }
        let txn = home.store.database().begin_read()?;
        let record = found(&txn, id)?;
        refuse_snapshot(&record, None)?;
        home.refuse_used(&txn, &record.id, options.change_under_others)?;
        view.verify_chain(id)?;
        patiently(|| home.hold_mounts(|| home.refuse_mounted_above(&record.id)))?;
        // The mark that says so is in the workdir, which goes with the directory.
        home.seen_from().refuse_in_doubt(home.store, &record)?;
        let number = layer::directory(&txn, &record)?;
        let number = number.ok_or_else(|| InUseError::ReadOnly { layer: record.id.clone() })?;
        Ok(Target { home, record, number, of_container: container.is_some() })
    }

    /// A sealed directory changes for nobody; one that may be mounted for writing must not be meanwhile.
    fn hold(&self) -> Result<Option<HeldDirectory>, Error> {
        match self.record.content {
            LayerContent::Writable(number) => self.home.hold_directory(&self.record.id, number).map(Some),
            LayerContent::Sealed(_) | LayerContent::Additional(_) => Ok(None),
        }
    }

    /// What an error means that says that files or rows of the layer are missing: it may be gone, or have others.
    fn explain(&self, error: Error) -> Result<Error, Error> {
        if !matches!(error, Error::Meta(MetaError::Missing { .. }) | Error::LayerMissing { .. }) {
            return Ok(error);
        }
        let now = found(&self.home.store.database().begin_read()?, &self.record.id)?;
        Ok(if now.content == self.record.content { error } else { changed_meanwhile(&now.id) })
    }

    fn apply(
        &self,
        staged_in: &Store,
        point: &SyncPoint,
        unpacked: UnpackedLayer,
        options: &ApplyOptions,
    ) -> Result<LayerRecord, Error> {
        let store = self.home.store;
        if let LayerContent::Writable(number) = self.record.content {
            store.settle_marks(number)?;
        }
        let txn = self.home.seen_from().begin_read()?;
        let lowers = txn.lowers(self.record.parent.as_deref())?;
        let own = txn.listing_on(&lowers, &self.record)?;
        let below = lowers.stack().push(own.clone());
        drop(txn);
        let in_place = staged_in.uuid() == store.uuid();
        let is_empty = is_empty(&own);
        let writable = matches!(self.record.content, LayerContent::Writable(_));
        if is_empty && !self.of_container && in_place {
            let sealed = store.seal_unpacked(unpacked, &below)?;
            let sync = || store.sync_staged(point, true);
            let spoiled = store.spoiled([&sealed.content])?;
            let written = self.replace(sync, options, &spoiled, |rows, record| {
                let needed = rows.insert_sealed(described(record, &sealed, options), &sealed)?;
                rows.inserted_chain(&self.record.id)?;
                Ok(needed)
            });
            return store.settle_directory(sealed.directory, written);
        }
        let import = store.import_options();
        let (mut staging, mut contents) = layer::complete(unpacked, &below, &import)?;
        let mut point = point;
        let here;
        // What is unpacked already counts for no limits, and another directory has its own.
        let limited = if writable { store.layout().limits_of(self.number)? } else { None };
        if !in_place || limited.is_some() {
            here = store.layout().sync_point()?;
            point = &here;
            let copy = store.stage()?;
            store.limit(&copy, limited.map(|limited| limited.limits).unwrap_or_default())?;
            let path = || staged_in.diff_path(staging.number());
            layer::prepare_writable(staging.directory(), path, staged_in.layout().xattrs(), &copy)?;
            copy_into(staging.directory(), &copy, store.layout().xattrs())?;
            staging = copy;
            // Other files have other numbers, and soon those of files that are gone.
            contents = HashMap::new();
        }
        // What mounts left below would be hidden, or found by others, once the archive's changes lie above.
        let settled = match &self.record.content {
            LayerContent::Writable(_)
                if !self.home.seen_from().begin_read()?.written(&self.record)?.is_plain() =>
            {
                Some(self.home.stage_settled(&self.record, Old::Stays, Limits::default())?.0)
            }
            _ => None,
        };
        let from = match &settled {
            Some(settled) => duplicate(settled.directory()).map_err(ImportError::from)?,
            None => store.open_diff(self.number)?,
        };
        copy_into(from.as_fd(), &staging, store.layout().xattrs())?;
        if writable {
            disk::make_whiteouts_devices(staging.directory(), store.layout().xattrs())?;
            if limited.is_some() {
                store.layout().refuse_over_limit(staging.number())?;
            }
            store.sync_writable(point)?;
            let written = self.replace(Durability::is_done, options, &HashSet::new(), |rows, record| {
                let content = LayerContent::Writable(staging.number());
                rows.txn.put_layer(&LayerRecord { content, ..record })?;
                Ok(true)
            });
            return store.settle_directory(staging.filled(), written);
        }
        let content = SealedContent::read(staging.directory(), &contents, store.layout().xattrs())?;
        let directory = staging.filled();
        let sync = || store.sync_staged(point, true);
        let spoiled = store.spoiled([&content])?;
        let written = self.replace(sync, options, &spoiled, |rows, record| {
            let needed = rows.insert_tree(directory.number(), &content)?;
            rows.txn.put_layer(&LayerRecord { content: LayerContent::Sealed(content.tree.0), ..record })?;
            rows.inserted_chain(&self.record.id)?;
            Ok(needed)
        });
        store.settle_directory(directory, written)
    }

    /// Gives the layer what `insert` makes of its record, which says nothing of a content any more, if it is still as it
    /// was found.
    fn replace(
        &self,
        sync: impl Fn() -> Result<Durability, Error>,
        options: &ApplyOptions,
        spoiled: &HashSet<u64>,
        mut insert: impl FnMut(&mut Rows<'_>, LayerRecord) -> Result<bool, Error>,
    ) -> Result<(LayerRecord, bool), Error> {
        let (home, id) = (self.home, &self.record.id);
        // What is mounted above must not lose its directory.
        let write = |rows: &mut Rows<'_>| {
            let current = found(rows.txn, id)?;
            home.refuse_used(rows.txn, id, options.change_under_others)?;
            home.refuse_mounted_above(id)?;
            if current.content != self.record.content
                || layer::directory(rows.txn, &current)? != Some(self.number)
            {
                return Err(changed_meanwhile(id));
            }
            let mut bare = current.clone();
            bare.forget_content();
            let needed = insert(rows, bare)?;
            rows.release(&current)?;
            Ok((rows.txn.layer_ref(id)?, needed))
        };
        home.hold_user(|| home.store.write_rows(spoiled, sync, Mounts::Wait, write))
    }
}

/// Whether a layer changes nothing but the metadata of the root.
fn is_empty(manifest: &Manifest) -> bool {
    match manifest.entries() {
        [] => true,
        [root] => root.kind == Kind::Directory { opaque: false },
        _ => false,
    }
}
