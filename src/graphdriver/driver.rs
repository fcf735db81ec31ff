//! The driver itself: opening, creating, removing, listing.

use std::path::Path;

use super::options::{CreateOptions, Dialect, DriverOptions};
use crate::dedup::{DedupOptions, DedupReport};
use crate::error::{Error, LookupError, MountError};
use crate::layer::Layer;
use crate::store::{LayerOptions, Removal, Store, StoreOptions, SyncMode, Usage};
use crate::sys::userns::IdMaps;
use crate::types::LayerId;

/// The flag of layers that are always mounted for writing.
const READ_WRITE: &str = "graphdriver.read-write";

/// A store as a graph driver. Cheap to clone, and to be shared between threads.
///
/// # Close semantics
///
/// Dropping it ends nothing: mounts last until they are [put](Self::put) back as often as they were [got](Self::get), by whatever
/// process.
#[derive(Clone, Debug)]
pub struct Driver {
    store: Store,
    dialect: Dialect,
    id_maps: Option<IdMaps>,
}

impl Driver {
    /// Opens the store that `place` names with a driver's options, and makes it if it is missing.
    ///
    /// Returns [`Error::Config`] if an option asks for what this store never does, [`Error::Value`] if its maps are none, and what
    /// [`Store::open`] does.
    pub fn open(place: StoreOptions, options: &DriverOptions) -> Result<Self, Error> {
        options.id_maps.as_ref().map_or(Ok(()), IdMaps::check)?;
        let store = Store::open(&place.driver_options(&options.given)?)?;
        Ok(Driver { id_maps: options.id_maps.clone(), ..Driver::new(store, options.dialect) })
    }

    /// A store that is open already, with the options that it has.
    pub fn new(store: Store, dialect: Dialect) -> Self {
        Driver { store, dialect, id_maps: None }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whose conventions it follows.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The name of the driver: `overlay` or `overlay2`.
    pub fn name(&self) -> &'static str {
        self.dialect.name()
    }

    /// What is on the disk when a call returns.
    pub fn sync_mode(&self) -> SyncMode {
        self.store.options().sync_mode()
    }

    /// The directories of the other stores that are read.
    pub fn additional_image_stores(&self) -> Vec<&Path> {
        self.store.image_stores().iter().map(Store::root).collect()
    }

    /// Creates an empty layer for an image, above `parent` or nothing.
    ///
    /// Its root directory has owner, mode and attributes of that of its parent. On nothing, it belongs to root of the
    /// [`id_maps`](CreateOptions::id_maps), and has the mode that the [dialect](Dialect::root_mode) says.
    ///
    /// Returns [`Error::Create`] if the id is taken, [`Error::Lookup`] if the parent is not there, [`Error::Mount`] with
    /// [`TooManyLayers`](MountError::TooManyLayers) if it would stand on more layers than the dialect
    /// [allows](Dialect::max_depth), and [`Error::Config`] if it has options that are for layers that are written to.
    pub fn create(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<(), Error> {
        self.make(id, parent, None, options, false)
    }

    /// Creates an empty layer for a container, above `parent` or nothing: as [`create`](Self::create), but that it is always
    /// mounted for writing.
    ///
    /// Returns what [`create`](Self::create) does, and [`Error::Quota`] if a limit cannot be kept to.
    pub fn create_read_write(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
    ) -> Result<(), Error> {
        self.make(id, parent, None, options, true)
    }

    /// Creates a layer that shows what `template` does. With the template's own parent it is a copy beside it, which takes no
    /// space until it is written to if the template is sealed; with another one, or with limits, it is an empty layer above the
    /// template.
    ///
    /// Returns what [`create`](Self::create) does.
    pub fn create_from_template(
        &self,
        id: &LayerId,
        template: &LayerId,
        parent: Option<&LayerId>,
        options: &CreateOptions,
        read_write: bool,
    ) -> Result<(), Error> {
        let beside = self.layer(template)?.parent.as_ref() == parent && options.storage_options.is_empty();
        match beside {
            true => self.make(id, parent, Some(template), options, read_write),
            false => self.make(id, Some(template), None, options, read_write),
        }
    }

    fn make(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        template: Option<&LayerId>,
        options: &CreateOptions,
        read_write: bool,
    ) -> Result<(), Error> {
        let quota = options.quota(read_write)?;
        if let Some(parent) = parent {
            self.layer(parent)?;
            let (count, limit) = (self.store.layer_chain(parent)?.len(), self.dialect.max_depth());
            if count > limit {
                return Err(MountError::TooManyLayers { count, limit }.into());
            }
        }
        let maps = self.maps_or_own(options.id_maps.as_ref()).cloned().unwrap_or_default();
        // What it stands on, or is a copy of, says otherwise.
        let on_nothing = parent.is_none() && template.is_none();
        let root_owner = maps.to_host(0, 0).filter(|_| on_nothing);
        let layer = LayerOptions {
            mount_label: options.mount_label.clone(),
            uid_map: maps.uids,
            gid_map: maps.gids,
            root_mode: Some(self.dialect.root_mode()),
            template: template.cloned(),
            root_owner,
            quota,
            flags: if read_write { vec![(READ_WRITE.to_owned(), "true".to_owned())] } else { Vec::new() },
            ..LayerOptions::with_id(id.clone())
        };
        self.store.create_layer(parent, &layer).map(drop)
    }

    /// Removes a layer with its files, and ends its mount, even while processes use it. One that is not there is no error.
    ///
    /// Returns [`Error::InUse`] if another layer, an image or a container of the store stands on it, or a lease keeps it, and
    /// [`Error::InOtherStore`] if it is in a store that is only read; it stays mounted then.
    pub fn remove(&self, id: &LayerId) -> Result<(), Error> {
        self.deferred_remove(id).map(drop)
    }

    /// Removes a layer as [`remove`](Self::remove) does, and leaves the deleting of its files to what is returned.
    ///
    /// Returns what [`remove`](Self::remove) does.
    pub fn deferred_remove(&self, id: &LayerId) -> Result<Removal, Error> {
        match self.store.end_mounts_to(id, || self.store.begin_removing_layer(id)) {
            Err(error) if is_missing(&error) => Ok(Removal::default()),
            removed => removed,
        }
    }

    /// Whether there is a layer with this id, here or in another store that is read.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn exists(&self, id: &LayerId) -> Result<bool, Error> {
        match self.layer(id) {
            Err(error) if is_missing(&error) => Ok(false),
            found => found.map(|_| true),
        }
    }

    /// The layers, by id, without those of other stores that are read.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn list_layers(&self) -> Result<Vec<LayerId>, Error> {
        let own = self.store.layers()?.into_iter().filter(|layer| layer.image_store.is_none());
        let mut ids: Vec<LayerId> = own.map(|layer| layer.id).collect();
        ids.sort();
        Ok(ids)
    }

    /// What a layer itself takes on the disk, in bytes and inodes.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn read_write_disk_usage(&self, id: &LayerId) -> Result<Usage, Error> {
        self.store.layer_usage(id)
    }

    /// Lets equal files share their space: see [`Store::dedup`].
    ///
    /// Returns what [`Store::dedup`] does.
    pub fn dedup(&self, options: &DedupOptions<'_>) -> Result<DedupReport, Error> {
        self.store.dedup(options)
    }

    /// Comes before a program ends. In moby's dialect it ends all mounts, and in that of containers/storage it deletes what
    /// processes that died have left, as staged layers; mounts stay.
    ///
    /// Returns what [`Store::shutdown`] and [`Store::gc`] do.
    pub fn cleanup(&self) -> Result<(), Error> {
        match self.dialect {
            Dialect::Moby => self.store.shutdown(true).map(drop),
            Dialect::ContainersStorage => self.store.gc(false).map(drop),
        }
    }

    /// The maps that a call gives, or else the driver's.
    pub(super) fn maps_or_own<'m>(&'m self, given: Option<&'m IdMaps>) -> Option<&'m IdMaps> {
        given.or(self.id_maps.as_ref())
    }

    /// The layer with exactly this id.
    pub(super) fn layer(&self, id: &LayerId) -> Result<Layer, Error> {
        let missing = || LookupError::NotFound { kind: "layer", key: id.to_string() };
        match self.store.layer(id.as_str()) {
            Ok(layer) if layer.id == *id => Ok(layer),
            // A name, or the beginning of another's id.
            Ok(_) | Err(Error::Lookup(LookupError::Ambiguous { .. })) => Err(missing().into()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a layer is always mounted for writing.
pub(super) fn is_read_write(layer: &Layer) -> bool {
    layer.flags.iter().any(|(flag, _)| flag == READ_WRITE)
}

/// Whether an error says that the layer is not there.
pub(super) fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Lookup(LookupError::NotFound { .. }))
}
