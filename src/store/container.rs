//! Creating and removing containers.

use std::collections::BTreeSet;
use std::io;

use layerstore_schema::record::{ContainerRecord, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{self, Limits, Staging};
use crate::error::{CreateError, Error, InUseError, LookupError, MetaError};
use crate::image::{Container, id_ranges};
use crate::meta::{Query, ReadTxn, WriteTxn};
use crate::overlay;
use crate::sys::moment;
use crate::sys::userns::IdMaps;
use crate::types::{ContainerId, ImageId, LayerId, Name, Timestamp};

use super::image::{self, NewItem, PreparedItems, check_flags, prepare};
use super::layer::changed_meanwhile;
use super::lease::keeper_of;
use super::mount::patiently;
use super::new_directory::NewDirectory;
use super::part::Directory;
use super::remove::{Doomed, Mounts};
use super::userns::{Wanted, ids_not_ours};
use super::users::{shown, standing_on};
use super::view::View;
use super::{IdMapping, Quota, Store};

/// How often a container is made before an image that is another one each time is an error. Images are replaced far less
/// often than a directory is made.
const TRIES: usize = 16;

/// What a new container is given.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ContainerOptions {
    /// The id; a random one if `None`.
    pub id: Option<ContainerId>,
    /// The names.
    pub names: Vec<String>,
    /// The caller's small string.
    pub metadata: String,
    /// The id of its layer; a random one if `None`.
    pub layer: Option<LayerId>,
    /// Data items.
    pub items: Vec<NewItem>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Overlay options for every mount, such as `nodev`.
    pub mount_options: Vec<String>,
    /// The SELinux label for every mount.
    pub mount_label: Option<String>,
    /// The SELinux label of its processes, for whoever starts them.
    pub process_label: Option<String>,
    /// Whether its mounts skip syncs: faster, and after a power cut the container is only to be removed.
    pub volatile: bool,
    /// How its ids map to the host's.
    pub ids: IdMapping,
    /// How much may be written into its layer.
    pub quota: Quota,
}

impl ContainerOptions {
    /// A container with one name.
    pub fn named(name: impl Into<String>) -> Self {
        ContainerOptions { names: vec![name.into()], ..ContainerOptions::default() }
    }
}

impl Store {
    /// Creates a container with a writable layer of its own: on the image's top layer, or empty if there is no
    /// image.
    ///
    /// The layer's root directory has the metadata of the layer below it. When the call returns, directory and
    /// records survive a power cut, unless [`SyncMode`](super::SyncMode) is `Off` or the container is
    /// [transient](super::StoreOptions::transient).
    ///
    /// With ids of its own, the layer's directory belongs to the host's id of the container's root, mounts show the files of
    /// the image with the host's ids, and what comes out by [`diff`](Self::diff) and [`commit`](Self::commit) has the
    /// container's. Ids that are chosen are another container's at no time.
    ///
    /// Returns [`Error::Value`] if a name, flag, key or id map is none, [`Error::Create`] if the id is taken or there are too
    /// few ids, [`Error::InUse`] with [`Changed`](InUseError::Changed) if the image is replaced again and again,
    /// [`Error::Meta`] with
    /// [`NameInUse`](crate::MetaError::NameInUse) if a name is, [`Error::Mount`] with [`Option`](crate::MountError::Option) if a
    /// mount option is none that a mount takes or [`IdMap`](crate::MountError::IdMap) if it is to have ids of its own in a store with a
    /// `force_mask`, [`Error::Quota`] if its layer is to be limited and cannot be, [`Error::Unsynced`] if a layer of the image was not on the
    /// disk when the machine went down, [`Error::TransientElsewhere`] if transient containers are in another run root, and
    /// [`Error::Lookup`] if the image is gone.
    pub fn create_container<'i>(
        &self,
        image: impl Into<Option<&'i ImageId>>,
        options: &ContainerOptions,
    ) -> Result<Container, Error> {
        self.begin_writing()?;
        let image = image.into();
        let names = checked_names(&options.names)?;
        check_flags(&options.flags)?;
        overlay::check(&options.mount_options)?;
        let items = prepare(&options.items)?;
        let id = options.id.clone().map_or_else(random_id, Ok)?;
        let layer_id = options.layer.clone().map_or_else(random_id, Ok)?;
        self.options().refuse_masked(&options.ids)?;
        let wanted = match &options.ids {
            IdMapping::Auto(auto) => Some(self.wanted_ids(auto, image)?),
            IdMapping::Maps(maps) => maps.check().map(|()| None)?,
            IdMapping::Host => None,
        };
        let mut tries = TRIES;
        loop {
            tries = tries.saturating_sub(1);
            let ids = (id.clone(), layer_id.clone(), names.clone());
            match self.try_create(image, options, ids, &items, wanted.as_ref()) {
                Err(Error::InUse(InUseError::Changed { .. })) if tries > 0 => {}
                made => return Ok(Container::from_record(made?)?),
            }
        }
    }

    /// Creates a container above what an image is now.
    ///
    /// Returns [`InUseError::Changed`] if it is another one by the time that the container is inserted.
    fn try_create(
        &self,
        image: Option<&ImageId>,
        options: &ContainerOptions,
        (id, layer_id, names): (ContainerId, LayerId, Vec<String>),
        items: &PreparedItems<'_>,
        wanted: Option<&Wanted>,
    ) -> Result<ContainerRecord, Error> {
        let (parent, mut staging) = self.stage_above(image, options.quota.or(self.options().quota))?;
        moment::pass("staged");
        let owner = self.owner_of(&staging)?;
        let layer = new_layer(&layer_id, parent, staging.number());
        let record = ContainerRecord {
            id: id.to_string(),
            names,
            image: image.map(ToString::to_string),
            layer: layer.id.clone(),
            metadata: options.metadata.clone(),
            created: layer.created,
            flags: options.flags.clone(),
            labels: options.labels.clone(),
            mount_options: options.mount_options.clone(),
            mount_label: options.mount_label.clone(),
            process_label: options.process_label.clone(),
            volatile: options.volatile,
            ..ContainerRecord::default()
        };
        let written = loop {
            let maps = match (&options.ids, wanted) {
                (IdMapping::Maps(maps), _) => Some(maps.clone()),
                (_, Some(wanted)) => Some(wanted.choose(&self.begin_read()?.containers()?)?),
                _ => None,
            };
            let record = match &maps {
                None => record.clone(),
                Some(maps) => {
                    staging.take_out()?;
                    self.give_to(&staging, owner, maps)?;
                    let (uid_map, gid_map) = (id_ranges(&maps.uids), id_ranges(&maps.gids));
                    ContainerRecord { uid_map, gid_map, ..record.clone() }
                }
            };
            // The next boot drops a transient one: nothing of it is to be on the disk.
            let directory = match self.options().transient {
                true => NewDirectory::Settled,
                false => self.finish_new(&mut staging)?,
            };
            let choice = wanted.zip(maps.as_ref());
            let new = NewContainer { image, record: &record, layer: &layer, directory, items, choice };
            match self.insert_container(&new) {
                Ok(Insertion::IdsTaken) => {}
                Ok(Insertion::OtherImage) => {
                    return Err(changed_meanwhile(layer.parent.as_deref().unwrap_or_default()));
                }
                Ok(Insertion::Done) => break Ok(record),
                Err(error) => break Err(error),
            }
        };
        moment::pass("after the commit");
        // If the commit does not know whether the rows are there, the database does, unless it cannot be read: then the
        // directory stays, and gc finds it if it is not needed.
        let keep = match &written {
            Err(error) if error.is_outcome_unknown() => {
                let row = self.begin_verified_read().and_then(|view| view.layer(&layer.id));
                row.map_or(true, |row| row.is_some())
            }
            written => written.is_ok(),
        };
        if keep {
            staging.keep();
        }
        written
    }

    /// Who owns the root of a staged directory.
    pub(super) fn owner_of(&self, staging: &Staging) -> Result<(u32, u32), Error> {
        let found = disk::stat_of_root(staging.directory(), self.layout().xattrs()).map_err(|source| {
            Error::Io { action: "examine", path: self.diff_path(staging.number()), source }
        })?;
        Ok((found.uid, found.gid))
    }

    /// Gives the root of a staged directory to the host's ids of its owner in the container, or of the container's root
    /// where the owner is nobody there.
    pub(super) fn give_to(&self, staging: &Staging, owner: (u32, u32), maps: &IdMaps) -> Result<(), Error> {
        let Some((uid, gid)) = maps.root_to_host(owner.0, owner.1) else {
            return Ok(());
        };
        let owned = disk::set_root_owner(staging.directory(), self.layout().xattrs(), (uid, gid));
        let path = self.diff_path(staging.number());
        owned.map_err(|source| match source.kind() {
            // Who may give away nothing, and ids that are not mapped.
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => ids_not_ours(uid, gid),
            _ => Error::Io { action: "change the owner of", path, source },
        })
    }

    /// Makes the directory of a layer above an image's. Returns the image's layer with it.
    fn stage_above(
        &self,
        image: Option<&ImageId>,
        limits: Limits,
    ) -> Result<(Option<LayerRecord>, Staging), Error> {
        loop {
            let (parent, below) = self.top_layer_of(image)?.unzip();
            match self.new_writable_directory(parent.as_ref().zip(below.as_ref()), limits) {
                // The image was removed meanwhile, and perhaps loaded again.
                Err(_) if self.top_layer_of(image)?.map(|(_, directory)| directory) != below => {}
                staging => return Ok((parent, staging?)),
            }
        }
    }

    /// An image's top layer, and its directory.
    fn top_layer_of(&self, image: Option<&ImageId>) -> Result<Option<(LayerRecord, Directory<'_>)>, Error> {
        let Some(image) = image else { return Ok(None) };
        let txn = self.begin_read()?;
        let record = txn.image(image.as_str())?.ok_or_else(|| no_image(image))?;
        let top = record.top_layer.ok_or(CreateError::NoLayers { id: record.id })?;
        txn.verify_chain(&top)?;
        let layer = txn.layer_ref(&top)?;
        let directory = txn.directory(&layer)?;
        Ok(Some((layer, directory)))
    }

    /// Makes a directory for a layer above the one that has the directory `below`.
    fn new_writable_directory(
        &self,
        below: Option<(&LayerRecord, &Directory<'_>)>,
        limits: Limits,
    ) -> Result<Staging, Error> {
        let staging = self.stage_new(limits, !self.options().transient)?;
        if let Some((layer, below)) = below {
            below.prepare_above(&layer.id, &staging)?;
        }
        Ok(staging)
    }

    /// Removes a container and its writable layer, with everything written into it.
    ///
    /// The directory is moved away at once and deleted after the transaction; a crash in between leaves garbage
    /// that [`gc`](Store::gc) removes.
    ///
    /// Returns [`Error::InUse`] if a lease keeps the container or its layer, or it is mounted, here or
    /// [elsewhere](InUseError::MountedElsewhere), and [`Error::Lookup`] if it is not there.
    pub fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        self.begin_removing_container(id).map(drop)
    }

    /// Removes the records of a container, and returns what no row names any more.
    pub(super) fn doom_container(&self, id: &ContainerId) -> Result<Doomed, Error> {
        self.begin_writing()?;
        let doomed = match patiently(|| self.doom_transient(id, false))? {
            Some(doomed) => doomed,
            None => patiently(|| self.doom_kept_container(id))?,
        };
        self.drop_run_directory(&id.into());
        Ok(doomed)
    }

    fn doom_kept_container(&self, id: &ContainerId) -> Result<Doomed, Error> {
        let is_done = |txn: &ReadTxn| Ok(txn.container(id.as_str())?.is_none());
        let removed = self.write_dooming(Mounts::Wait, is_done, |txn| {
            let record = txn
                .container(id.as_str())?
                .ok_or_else(|| LookupError::NotFound { kind: "container", key: id.to_string() })?;
            if let Some(above) = standing_on(txn, &record.layer, &Default::default())? {
                return Err(above.into());
            }
            let things = [(Owner::Container, id.as_str()), (Owner::Layer, record.layer.as_str())];
            if let Some(kept) = keeper_of(txn, &things)? {
                return Err(kept.into());
            }
            // Last: nobody ends mounts of what stays in any case.
            self.refuse_mounted(&record.layer, || {
                format!("the container {}", shown(&record.names, &record.id))
            })?;
            let mut freed = txn.remove_container(id.as_str())?;
            freed.add(txn.remove_layer(&record.layer)?);
            Ok((freed, ()))
        });
        removed.map(|(doomed, ())| doomed)
    }
}

/// The record of a container's layer.
fn new_layer(id: &LayerId, parent: Option<LayerRecord>, number: u64) -> LayerRecord {
    let content = LayerContent::Writable(number);
    LayerRecord {
        parent: parent.map(|parent| parent.id),
        ..LayerRecord::new(id.as_str(), Timestamp::now().into(), content)
    }
}

/// A container that is to be inserted.
pub(super) struct NewContainer<'n> {
    image: Option<&'n ImageId>,
    record: &'n ContainerRecord,
    layer: &'n LayerRecord,
    directory: NewDirectory<'n>,
    items: &'n PreparedItems<'n>,
    /// The ids that were chosen for it, and what was asked for.
    pub(super) choice: Option<(&'n Wanted, &'n IdMaps)>,
}

/// What came of inserting a container.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Insertion {
    Done,
    /// Another container was given the same ids meanwhile.
    IdsTaken,
    /// The image was removed, and another one made with its id, on another layer.
    OtherImage,
}

impl NewContainer<'_> {
    /// Inserts its rows. `view` is of all that the store reads.
    pub(super) fn insert(&self, txn: &WriteTxn, view: &View<'_>) -> Result<Insertion, Error> {
        let (record, layer) = (self.record, self.layer);
        let taken = |kind, id: &str| CreateError::IdInUse { kind, id: id.to_owned() };
        if txn.container(&record.id)?.is_some() || view.container(&record.id)?.is_some() {
            return Err(taken("container", &record.id).into());
        }
        let has_layer = view.home(Owner::Layer, &layer.id)?.is_some_and(|part| !part.is_other());
        if has_layer || txn.layer(&layer.id)?.is_some() {
            return Err(taken("layer", &layer.id).into());
        }
        view.refuse_name(Owner::Container, &record.id)?;
        for name in record.names.iter().collect::<BTreeSet<_>>() {
            if let Some(holder) = view.named(Owner::Container, name)? {
                return Err(MetaError::NameInUse { kind: "container", name: name.clone(), holder }.into());
            }
        }
        // The image may have been removed since its top layer was looked up.
        if let Some(image) = self.image {
            let now = view.image(image.as_str())?.ok_or_else(|| no_image(image))?;
            if now.top_layer != layer.parent {
                return Ok(Insertion::OtherImage);
            }
        }
        txn.put_layer(layer)?;
        if let LayerContent::Writable(number) = layer.content {
            self.directory.note(txn, number)?;
        }
        txn.put_container(record)?;
        image::insert(txn, Owner::Container, &record.id, self.items)?;
        Ok(Insertion::Done)
    }
}

fn no_image(id: &ImageId) -> LookupError {
    LookupError::NotFound { kind: "image", key: id.to_string() }
}

/// Names as records hold them.
pub(super) fn checked_names(names: &[String]) -> Result<Vec<String>, Error> {
    let mut checked: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let name: Name = name.parse()?;
        if !checked.iter().any(|held| held == name.as_str()) {
            checked.push(name.as_str().to_owned());
        }
    }
    Ok(checked)
}

/// 64 random hex digits.
pub(super) fn random_id<T>() -> Result<T, Error>
where
    T: std::str::FromStr,
    Error: From<T::Err>,
{
    let bytes = crate::sys::random::bytes::<32>().map_err(Error::Random)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hex.parse()?)
}
