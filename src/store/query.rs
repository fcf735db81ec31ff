//! Reading the store: lists, lookups, data items.

use crate::error::{Error, LookupError};
use crate::image::{Container, Image, Item, find_container, find_image, find_layer};
use crate::layer::Layer;
use crate::meta::{Query, read_blob};
use crate::types::{ContainerId, ImageId, LayerId, Name, stored};

use super::{Store, ThingId};

impl Store {
    /// All layers, by id. One snapshot: no layer in it lacks its parent.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers(&self) -> Result<Vec<Layer>, Error> {
        let records = self.database().begin_read()?.layers()?;
        Ok(records.into_iter().map(Layer::from_record).collect::<Result<_, _>>()?)
    }

    /// All images, by id.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        let records = self.database().begin_read()?.images()?;
        Ok(records.into_iter().map(Image::from_record).collect::<Result<_, _>>()?)
    }

    /// All containers, by id.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn containers(&self) -> Result<Vec<Container>, Error> {
        let records = self.database().begin_read()?.containers()?;
        Ok(records.into_iter().map(Container::from_record).collect::<Result<_, _>>()?)
    }

    /// The layer with this id, name, diffID or blob digest, or the only one whose id begins like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn layer(&self, key: &str) -> Result<Layer, Error> {
        let record = find_layer::<Error>(&self.database().begin_read()?, key)?;
        Ok(Layer::from_record(record)?)
    }

    /// The image with this id, name, or manifest or config digest, or the only one whose id begins like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn image(&self, key: &str) -> Result<Image, Error> {
        let record = find_image::<Error>(&self.database().begin_read()?, key)?;
        Ok(Image::from_record(record)?)
    }

    /// The container with this id or name, or the only one whose id begins like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn container(&self, key: &str) -> Result<Container, Error> {
        let record = find_container::<Error>(&self.database().begin_read()?, key)?;
        Ok(Container::from_record(record)?)
    }

    /// A layer and all below it, topmost first.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_chain(&self, top: &LayerId) -> Result<Vec<Layer>, Error> {
        let txn = self.database().begin_read()?;
        find_layer::<Error>(&txn, top.as_str())?;
        Ok(txn.chain(top.as_str())?.into_iter().map(Layer::from_record).collect::<Result<_, _>>()?)
    }

    /// The images whose top layer this is.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn images_of_layer(&self, layer: &LayerId) -> Result<Vec<ImageId>, Error> {
        let ids = self.database().begin_read()?.images_of_layer(layer.as_str())?;
        Ok(ids.iter().map(|id| stored("image", id, id)).collect::<Result<_, _>>()?)
    }

    /// The container whose writable layer this is.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn container_of_layer(&self, layer: &LayerId) -> Result<Option<ContainerId>, Error> {
        let id = self.database().begin_read()?.container_of_layer(layer.as_str())?;
        Ok(id.map(|id| stored("container", &id, &id)).transpose()?)
    }

    /// The containers that were made from an image.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn containers_of_image(&self, image: &ImageId) -> Result<Vec<ContainerId>, Error> {
        let ids = self.database().begin_read()?.containers_of_image(image.as_str())?;
        Ok(ids.iter().map(|id| stored("container", id, id)).collect::<Result<_, _>>()?)
    }

    /// The data items of a thing, by key.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn items(&self, of: impl Into<ThingId>) -> Result<Vec<Item>, Error> {
        let of = of.into();
        let txn = self.database().begin_read()?;
        let items = txn.items(of.owner(), of.as_str())?;
        if items.is_empty() {
            prove_there(&txn, &of)?;
        }
        Ok(items.into_iter().map(|(key, record)| Item::from_record(key, record)).collect::<Result<_, _>>()?)
    }

    /// The bytes of a data item.
    ///
    /// Returns [`Error::Lookup`] if the thing has none with this key, and [`Error::Meta`] if its bytes are damaged.
    pub fn item(&self, of: impl Into<ThingId>, key: &str) -> Result<Vec<u8>, Error> {
        let of = of.into();
        let txn = self.database().begin_read()?;
        let Some(record) = txn.item(of.owner(), of.as_str(), key)? else {
            let (kind, id) = (of.kind().word(), of.as_str().to_owned());
            return Err(LookupError::NoItem { kind, id, key: key.to_owned() }.into());
        };
        Ok(read_blob(&txn, &record.blob)?)
    }

    /// Who has a name.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn name_holder(&self, kind: crate::image::Kind, name: &Name) -> Result<Option<String>, Error> {
        Ok(self.database().begin_read()?.named(kind.owner(), name.as_str())?)
    }
}

/// Returns [`Error::Lookup`] if a thing is not there.
fn prove_there(txn: &impl Query, of: &ThingId) -> Result<(), Error> {
    let id = of.as_str();
    let there = match of {
        ThingId::Layer(_) => txn.layer(id)?.is_some(),
        ThingId::Image(_) => txn.image(id)?.is_some(),
        ThingId::Container(_) => txn.container(id)?.is_some(),
    };
    let missing = || LookupError::NotFound { kind: of.kind().word(), key: id.to_owned() };
    if there { Ok(()) } else { Err(missing().into()) }
}
