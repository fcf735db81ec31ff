//! Layers as things of their own: empty ones, and copies of others.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::AsFd;

use layerstore_schema::record::{IdRange, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{self, Filled, Limits, Stage, Staging, SyncPoint, copy_into};
use crate::error::{CreateError, Error, InUseError, LookupError, MetaError, QuotaError};
use crate::image;
use crate::layer::{Layer, SealedContent};
use crate::meta::{Query, named_numbers};
use crate::sys::userns::IdExtent;
use crate::types::{LayerId, Timestamp};

use super::container::{checked_names, random_id};
use super::home::Home;
use super::image::{NewItem, PreparedItems, check_flags, insert as insert_items, prepare};
use super::import::Durability;
use super::new_directory::NewDirectory;
use super::part::{Directory, Part};
use super::remove::Mounts;
use super::snapshot::refuse_uncommitted;
use super::staged::ApplyOptions;
use super::written::Old;
use super::{Quota, Store, SyncMode};

/// What a new layer is given.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LayerOptions {
    /// The id; a random one if `None`.
    pub id: Option<LayerId>,
    /// The names.
    pub names: Vec<String>,
    /// The caller's small string.
    pub metadata: String,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Data items.
    pub items: Vec<NewItem>,
    /// The SELinux label for every mount.
    pub mount_label: Option<String>,
    /// Its mounts leave out syncs, as with the mount option `volatile`.
    pub volatile: bool,
    /// It is never mounted for writing. One that is made empty is sealed at once.
    pub read_only: bool,
    /// The mode of its root directory, if it stands on no layer whose root it could take after; 0755 if `None`. Only for
    /// [`Store::create_layer`], without a template.
    pub root_mode: Option<u16>,
    /// How user ids map to the host's: kept for the caller.
    pub uid_map: Vec<IdExtent>,
    /// How group ids map to the host's.
    pub gid_map: Vec<IdExtent>,
    /// Begin with what this layer has, its own changes, without those of the layers below it. Only for
    /// [`Store::create_layer`].
    pub template: Option<LayerId>,
    /// Owner and group of its root directory, for one whose processes have other ids; those of the layer below if `None`. Only for
    /// [`Store::create_layer`].
    pub root_owner: Option<(u32, u32)>,
    /// How much may be written into it. Only for [`Store::create_layer`]; sealing takes the limits away.
    pub quota: Quota,
    /// What is known of the archive that the layer is filled from. Only for [`Store::put_layer`].
    pub apply: ApplyOptions,
}

impl LayerOptions {
    /// A layer with one name.
    pub fn named(name: impl Into<String>) -> Self {
        LayerOptions { names: vec![name.into()], ..LayerOptions::default() }
    }

    /// A layer with this id.
    pub fn with_id(id: LayerId) -> Self {
        LayerOptions { id: Some(id), ..LayerOptions::default() }
    }
}

impl Store {
    /// Creates a layer above another, or above nothing: an empty one that mounts write to, or with
    /// [`read_only`](LayerOptions::read_only) an empty one that is sealed. Others may stand on either.
    ///
    /// With a [`template`](LayerOptions::template), it begins with that layer's changes. If the template is sealed, both
    /// share its directory, and the new layer is sealed with the same digests, until one of them is
    /// [unsealed](Self::unseal); if it is writable, or in another store, its directory is copied, by reflink where the
    /// filesystem can. With a separate store for images, the layer is there.
    ///
    /// Its root directory has the metadata of that of the layer below it. When the call returns, directory and
    /// record survive a power cut, unless [`SyncMode`] is `Off`.
    ///
    /// Returns [`Error::Value`] if a name, a flag or an item's key is none, [`Error::Create`] if the id is taken or the parent
    /// belongs to a container, [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if a name is taken,
    /// [`Error::Quota`] if the layer is to be limited and cannot be, or is made sealed,
    /// [`Error::Lookup`] if parent or template are not there, and [`Error::Unsynced`] if one of them was not on the disk
    /// when the machine went down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let base = store.create_layer(None, &LayerOptions::named("base"))?;
    /// let next = store.create_layer(&base.id, &LayerOptions::default())?;
    /// assert!(next.is_writable());
    /// assert_eq!(next.parent, Some(base.id));
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn create_layer<'l>(
        &self,
        parent: impl Into<Option<&'l LayerId>>,
        options: &LayerOptions,
    ) -> Result<Layer, Error> {
        let record = self.home_of_new().create_layer(parent.into(), options)?;
        Ok(Layer::from_record(record)?)
    }
}

impl Home<'_> {
    fn create_layer(&self, parent: Option<&LayerId>, options: &LayerOptions) -> Result<LayerRecord, Error> {
        let store = self.store;
        store.begin_writing()?;
        let point = store.layout().sync_point()?;
        let items = prepare(&options.items)?;
        let mut record = self.new_layer(parent, options)?;
        let mut sealed = options.read_only;
        let refuse_quota = || match options.quota.is_asked_for() {
            true => Err(QuotaError::Sealed { layer: record.id.clone() }),
            false => Ok(()),
        };
        let limits = options.quota.or(store.options().quota);
        let mut staging = match &options.template {
            None => {
                if sealed {
                    refuse_quota()?;
                }
                let parent = record.parent.as_deref();
                let staging = match sealed {
                    true => self.stage_above_layer(parent, || store.stage())?,
                    false => {
                        let has_own_mode = parent.is_none() && options.root_mode.is_some();
                        let is_on_record = !has_own_mode && options.root_owner.is_none();
                        self.stage_above_layer(parent, || store.stage_new(limits, is_on_record))?
                    }
                };
                if let (None, Some(mode)) = (&record.parent, options.root_mode) {
                    set_root_mode(store, &staging, mode)?;
                }
                staging
            }
            Some(template) => {
                let txn = self.seen_from().begin_read()?;
                let template = found(&txn, template.as_str())?;
                txn.verify_layer(&template)?;
                drop(txn);
                if let LayerContent::Sealed(_) = template.content {
                    refuse_quota()?;
                    if store.database().begin_read()?.layer(&template.id)?.is_some() {
                        return self.share_template(&point, &record, &items, &template);
                    }
                    sealed = true;
                }
                if sealed {
                    refuse_quota()?;
                }
                let staging =
                    self.stage_copy(&template.id, if sealed { Limits::default() } else { limits })?;
                if !sealed {
                    disk::make_whiteouts_devices(staging.directory(), store.layout().xattrs())?;
                }
                staging
            }
        };
        if let Some(owner) = options.root_owner {
            let owned = disk::set_root_owner(staging.directory(), store.layout().xattrs(), owner);
            let path = store.diff_path(staging.number());
            owned.map_err(|source| Error::Io { action: "give another owner to", path, source })?;
        }
        if sealed {
            let namespace = store.layout().xattrs();
            let content = SealedContent::read(staging.directory(), &HashMap::new(), namespace)?;
            content.refuse_marker_names()?;
            let directory = staging.filled();
            record.content = LayerContent::Sealed(content.tree.0);
            let number = directory.number();
            let sync = || store.sync_staged(&point, true);
            let written = store.write_rows(&store.spoiled([&content])?, sync, Mounts::GoOn, |rows| {
                self.refuse_taken(rows.txn, &record)?;
                let needed = rows.insert_tree(number, &content)?;
                rows.txn.put_layer(&record)?;
                insert_items(rows.txn, Owner::Layer, &record.id, &items)?;
                rows.inserted_chain(&record.id)?;
                Ok(((), needed))
            });
            store.settle_directory(directory, written)?;
            return Ok(record);
        }
        let new = match options.template {
            None => store.finish_new(&mut staging)?,
            Some(_) => store.sync_writable(&point).map(|()| NewDirectory::Settled)?,
        };
        record.content = LayerContent::Writable(staging.number());
        let written = store.write_rows(&HashSet::new(), Durability::is_done, Mounts::GoOn, |rows| {
            self.refuse_taken(rows.txn, &record)?;
            rows.txn.put_layer(&record)?;
            new.note(rows.txn, staging.number())?;
            insert_items(rows.txn, Owner::Layer, &record.id, &items)?;
            Ok(((), true))
        });
        store.settle_directory(staging.filled(), written)?;
        Ok(record)
    }

    /// A layer that has the very content of another.
    fn share_template(
        &self,
        point: &SyncPoint,
        record: &LayerRecord,
        items: &PreparedItems<'_>,
        template: &LayerRecord,
    ) -> Result<LayerRecord, Error> {
        let sync = || self.store.sync_staged(point, false);
        self.store.write_rows(&HashSet::new(), sync, Mounts::GoOn, |rows| {
            let (txn, record) = (rows.txn, record.clone());
            self.refuse_taken(txn, &record)?;
            let template = txn.layer(&template.id)?.filter(|now| now.content == template.content);
            let template = template.ok_or_else(|| changed_meanwhile(&record.id))?;
            if let Some(split) = &template.split {
                txn.share_blob(split)?;
            }
            let record = LayerRecord {
                // What the tar did not name may come from layers that are not below this one.
                self_contained: template.self_contained && template.parent == record.parent,
                id: record.id,
                parent: record.parent,
                names: record.names,
                metadata: record.metadata,
                created: record.created,
                flags: record.flags,
                labels: record.labels,
                mount_label: record.mount_label,
                volatile: record.volatile,
                read_only: record.read_only,
                uid_map: record.uid_map,
                gid_map: record.gid_map,
                ..template
            };
            txn.put_layer(&record)?;
            insert_items(txn, Owner::Layer, &record.id, items)?;
            rows.inserted_chain(&record.id)?;
            Ok(record)
        })
    }

    /// The record of a new layer, with no content yet, if nothing is in its way now.
    pub(super) fn new_layer(
        &self,
        parent: Option<&LayerId>,
        options: &LayerOptions,
    ) -> Result<LayerRecord, Error> {
        check_flags(&options.flags)?;
        let id: LayerId = options.id.clone().map_or_else(random_id, Ok)?;
        let record = LayerRecord {
            parent: parent.map(ToString::to_string),
            names: checked_names(&options.names)?,
            metadata: options.metadata.clone(),
            flags: options.flags.clone(),
            labels: options.labels.clone(),
            mount_label: options.mount_label.clone(),
            volatile: options.volatile,
            read_only: options.read_only,
            uid_map: options.uid_map.iter().map(range).collect(),
            gid_map: options.gid_map.iter().map(range).collect(),
            ..LayerRecord::new(id.as_str(), Timestamp::now().into(), LayerContent::Writable(0))
        };
        let txn = self.store.database().begin_read()?;
        self.refuse_taken(&txn, &record)?;
        if let Some(parent) = &record.parent {
            self.user.map_or(Ok(()), |user| user.refuse_outside_images(parent))?;
            let view = self.seen_from().begin_read()?;
            found(&view, parent)?;
            view.verify_chain(parent)?;
        }
        Ok(record)
    }

    /// Gives an empty directory, which `stage` makes, for a layer above `parent` the metadata of that one's root.
    fn stage_above_layer(
        &self,
        parent: Option<&str>,
        stage: impl Fn() -> Result<Staging, Error>,
    ) -> Result<Staging, Error> {
        match parent {
            None => stage(),
            Some(parent) => {
                self.stage_like(parent, stage, |staging, below| below.prepare_above(parent, staging))
            }
        }
    }

    /// Makes a copy of a layer's directory, which must fit into the limits.
    pub(super) fn stage_copy(&self, of: &str, limits: Limits) -> Result<Staging, Error> {
        let txn = self.seen_from().begin_read()?;
        let layer = found(&txn, of)?;
        let home = txn.home(Owner::Layer, of)?.map_or(self.store, Part::store);
        self.seen_from().refuse_in_doubt(home, &layer)?;
        // The copy may stand on other layers, in which what mounts left is not; and it has no mark of a program.
        if let LayerContent::Writable(_) = layer.content
            && !txn.written(&layer)?.is_plain()
        {
            return Ok(self.stage_settled(&layer, Old::Stays, limits)?.0);
        }
        drop(txn);
        let stage = || {
            let staging = self.store.stage()?;
            // Before anything is in it: what it gets then counts.
            self.store.limit(&staging, limits)?;
            Ok(staging)
        };
        self.stage_like(of, stage, |staging, from| {
            from.prepare_above(of, staging)?;
            copy_into(from.open(of)?.as_fd(), staging, from.layout().xattrs())?;
            match limits.is_none() {
                true => Ok(()),
                false => Ok(self.store.layout().refuse_over_limit(staging.number())?),
            }
        })
    }

    /// Makes a directory with the help of the directory of a layer, which may be another one from one moment to the next.
    fn stage_like(
        &self,
        layer: &str,
        stage: impl Fn() -> Result<Staging, Error>,
        fill: impl Fn(&Staging, &Directory<'_>) -> Result<(), Error>,
    ) -> Result<Staging, Error> {
        let directory = || -> Result<Directory<'_>, Error> {
            let txn = self.seen_from().begin_read()?;
            Ok(txn.directory(&found(&txn, layer)?)?)
        };
        loop {
            let (staging, from) = (stage()?, directory()?);
            match fill(&staging, &from) {
                Err(_) if directory()? != from => {}
                filled => return filled.map(|()| staging),
            }
        }
    }

    /// Refuses a new layer whose id or name is taken, or whose parent cannot be one. `txn` is of the store that gets it.
    pub(super) fn refuse_taken(&self, txn: &impl Query, record: &LayerRecord) -> Result<(), Error> {
        let view = self.seen_from().begin_read()?;
        let taken = view.home(Owner::Layer, &record.id)?.is_some_and(|part| !part.is_other());
        if taken || txn.layer(&record.id)?.is_some() {
            return Err(CreateError::IdInUse { kind: "layer", id: record.id.clone() }.into());
        }
        view.refuse_name(Owner::Layer, &record.id)?;
        if let Some(parent) = &record.parent {
            refuse_uncommitted(&found(&view, parent)?)?;
            if let Some(container) = view.container_of_layer(parent)? {
                return Err(CreateError::ParentOfContainer { layer: parent.clone(), container }.into());
            }
        }
        for name in record.names.iter().collect::<BTreeSet<_>>() {
            if let Some(holder) = view.named_here(Owner::Layer, name)? {
                return Err(MetaError::NameInUse { kind: "layer", name: name.clone(), holder }.into());
            }
        }
        Ok(())
    }
}

impl Store {
    pub(super) fn stage(&self) -> Result<Staging, Error> {
        Ok(Staging::create(&Stage::create(self.layout())?, self.fresh_number()?)?)
    }

    /// Brings the files of a directory to the disk that is going to be written to. They cannot be compared with anything later, so
    /// only a throw-away store goes without.
    pub(super) fn sync_writable(&self, point: &SyncPoint) -> Result<(), Error> {
        match self.sync_mode() {
            SyncMode::Off => Ok(()),
            SyncMode::Full | SyncMode::Records => self.or_distrust(point.sync().map_err(Error::from)),
        }
    }

    /// Lets go of a directory after the transaction that should have given it a row, and says whether it did.
    pub(super) fn settle_directory<T>(
        &self,
        directory: Filled,
        written: Result<(T, bool), Error>,
    ) -> Result<T, Error> {
        let keep = match &written {
            // The database knows, unless it cannot be read: then it stays, and gc finds it if it is not needed.
            Err(error) if error.is_outcome_unknown() => {
                let named = self.database().begin_verified_read().and_then(|txn| named_numbers(&txn));
                named.map_or(true, |named| named.diffs.contains(&directory.number()))
            }
            written => matches!(written, Ok((_, true))),
        };
        if keep {
            directory.keep();
        }
        written.map(|(value, _)| value)
    }
}

fn set_root_mode(store: &Store, staging: &Staging, mode: u16) -> Result<(), Error> {
    let set = disk::set_root_mode(staging.directory(), store.layout().xattrs(), mode);
    let path = store.diff_path(staging.number());
    set.map_err(|source| Error::Io { action: "set the mode of", path, source })
}

/// A layer that the caller has named.
pub(super) fn found(txn: &impl image::Lookup, id: &str) -> Result<LayerRecord, Error> {
    let missing = || LookupError::NotFound { kind: "layer", key: id.to_owned() };
    Ok(txn.layer(id)?.ok_or_else(missing)?)
}

/// Refuses a layer that has lost the name by which the caller found it: what has that name now, if anything, is another.
pub(super) fn refuse_renamed(layer: &LayerRecord, name: &str) -> Result<(), LookupError> {
    match layer.names.iter().any(|held| held == name) {
        true => Ok(()),
        false => Err(LookupError::NotFound { kind: "layer", key: name.to_owned() }),
    }
}

/// A layer is not any more what it was when its content was looked at.
pub(super) fn changed_meanwhile(layer: &str) -> Error {
    InUseError::Changed { layer: layer.to_owned() }.into()
}

fn range(extent: &IdExtent) -> IdRange {
    IdRange { container: extent.inside, host: extent.outside, length: extent.count }
}
