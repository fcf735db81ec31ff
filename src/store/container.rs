//! Creating and removing containers.

use std::path::PathBuf;

use layerstore_schema::record::{ContainerRecord, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{Stage, Staging};
use crate::error::{CreateError, Error, InUseError, LookupError};
use crate::image::Container;
use crate::layer;
use crate::meta::{Query, ReadTxn};
use crate::sys::{moment, path};
use crate::types::{ContainerId, ImageId, LayerId, Name, Timestamp};

use super::lease::keeper_of;
use super::remove::{EVERYTHING, Mounts, shown};
use super::{Store, SyncMode};

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
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Overlay options for every mount, such as `volatile`.
    pub mount_options: Vec<String>,
    /// The SELinux label for every mount.
    pub mount_label: Option<String>,
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
    /// records survive a power cut, unless [`SyncMode`] is `Off`.
    ///
    /// Returns [`Error::Value`] if a name is none, [`Error::Create`] if the id is taken, [`Error::Meta`] with
    /// [`NameInUse`](crate::MetaError::NameInUse) if a name is, [`Error::Unsynced`] if a layer of the image was not on the
    /// disk when the machine went down, and [`Error::Lookup`] if the image is gone.
    pub fn create_container<'i>(
        &self,
        image: impl Into<Option<&'i ImageId>>,
        options: &ContainerOptions,
    ) -> Result<Container, Error> {
        self.tidy_once();
        let image = image.into();
        let names = checked_names(&options.names)?;
        let id = options.id.clone().map_or_else(random_id, Ok)?;
        let layer_id: LayerId = random_id()?;
        let (parent, staging) = self.stage_above(image)?;
        let content = LayerContent::Writable(staging.number());
        let layer = LayerRecord {
            parent: parent.map(|parent| parent.id),
            ..LayerRecord::new(layer_id.as_str(), Timestamp::now().into(), content)
        };
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
            uid_map: Vec::new(),
            gid_map: Vec::new(),
        };
        let written = self.database().write::<_, Error>(|txn| {
            if txn.container(&record.id)?.is_some() {
                return Err(CreateError::IdInUse { kind: "container", id: record.id.clone() }.into());
            }
            // The image may have been removed since its top layer was looked up.
            if let Some(image) = image
                && txn.image(image.as_str())?.is_none()
            {
                return Err(no_image(image).into());
            }
            txn.put_layer(&layer)?;
            txn.put_container(&record)?;
            moment::pass("before the commit");
            Ok(())
        });
        moment::pass("after the commit");
        // If the commit does not know whether the rows are there, the database does, unless it cannot be read: then the
        // directory stays, and gc finds it if it is not needed.
        let keep = match &written {
            Err(error) if error.is_outcome_unknown() => {
                let row = self.database().begin_read().and_then(|txn| txn.layer(&layer.id));
                row.map_or(true, |row| row.is_some())
            }
            written => written.is_ok(),
        };
        if keep {
            staging.keep();
        }
        written?;
        Ok(Container::from_record(record)?)
    }

    /// Makes the directory of a layer above an image's. Returns the image's layer with it.
    fn stage_above(&self, image: Option<&ImageId>) -> Result<(Option<LayerRecord>, Staging), Error> {
        loop {
            let (parent, below) = self.top_layer_of(image)?.unzip();
            match self.new_writable_directory(below) {
                // The image was removed meanwhile, and perhaps loaded again.
                Err(_) if self.top_layer_of(image)?.map(|(_, number)| number) != below => {}
                staging => return Ok((parent, staging?)),
            }
        }
    }

    /// An image's top layer, and the number of its directory.
    fn top_layer_of(&self, image: Option<&ImageId>) -> Result<Option<(LayerRecord, u64)>, Error> {
        let Some(image) = image else { return Ok(None) };
        let txn = self.database().begin_read()?;
        let record = txn.image(image.as_str())?.ok_or_else(|| no_image(image))?;
        let top = record.top_layer.ok_or(CreateError::NoLayers { id: record.id })?;
        self.verify_chain(&txn, &top)?;
        let layer = txn.layer_ref(&top)?;
        let number = layer::directory(&txn, &layer)?;
        Ok(Some((layer, number)))
    }

    /// Makes `diffs/<n>` for a layer above the one whose directory is `below`, durable.
    fn new_writable_directory(&self, below: Option<u64>) -> Result<Staging, Error> {
        let staging = Staging::create(&Stage::create(self.layout())?, self.fresh_number()?)?;
        layer::prepare_writable(self.layout(), &staging, below)?;
        // What is written into it cannot be compared with anything later, so only a throw-away store goes without.
        if self.sync_mode() != SyncMode::Off {
            staging.sync()?;
        }
        Ok(staging)
    }

    /// Removes a container and its writable layer, with everything written into it.
    ///
    /// The directory is moved away at once and deleted after the transaction; a crash in between leaves garbage
    /// that [`gc`](Store::gc) removes.
    ///
    /// Returns [`Error::InUse`] if the container is mounted or a lease keeps it, and [`Error::Lookup`] if it is not there.
    pub fn remove_container(&self, id: &ContainerId) -> Result<(), Error> {
        let is_done = |txn: &ReadTxn| Ok(txn.container(id.as_str())?.is_none());
        self.write_removing(Mounts::Wait, EVERYTHING, is_done, |txn| {
            let record = txn
                .container(id.as_str())?
                .ok_or_else(|| LookupError::NotFound { kind: "container", key: id.to_string() })?;
            self.refuse_mounted(&record.layer, || {
                format!("the container {}", shown(&record.names, &record.id))
            })?;
            if let Some(child) = txn.children(&record.layer)?.into_iter().next() {
                return Err(InUseError::LayerHasChild { layer: record.layer, child }.into());
            }
            if let Some(kept) = keeper_of(txn, Owner::Container, id.as_str())? {
                return Err(kept.into());
            }
            txn.remove_container(id.as_str())?;
            Ok((txn.remove_layer(&record.layer)?, ()))
        })?;
        // What stays is garbage for the next gc, and no failure of this.
        if let Err(error) = self.remove_run_directory(id) {
            tracing::warn!(container = %id, %error, "run directory not removed");
        }
        Ok(())
    }

    /// Removes the run directory of a container that is gone; `false` if there is none, or if the container is there.
    pub(crate) fn remove_run_directory(&self, id: &ContainerId) -> Result<bool, Error> {
        let run = self.run_layout()?;
        if !path::exists(&run.container(id)).unwrap_or(false) {
            return Ok(false);
        }
        let number = self.fresh_number()?;
        // Nobody makes a container while the write lock is held, so this is not the directory of a new one.
        let moved = self.database().hold(|| {
            let gone = self.database().begin_read()?.container(id.as_str())?.is_none();
            Ok::<_, Error>(gone && run.discard_container(id, number)?)
        })?;
        moment::pass("run directory discarded");
        if moved {
            run.delete_trash(number.to_string().as_bytes())?;
        }
        Ok(moved)
    }

    /// The container's directory for what a reboot drops, such as sockets and pid files: `<run root>/containers/<id>`.
    /// It is made if it is missing, and goes with the container.
    ///
    /// Returns [`Error::Lookup`] if the container is not there.
    pub fn run_directory(&self, id: &ContainerId) -> Result<PathBuf, Error> {
        let container = self.container(id.as_str())?;
        Ok(self.run_layout()?.ensure_container(&container.id)?)
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
