//! Reading the store: lists, lookups, data items.

use layerstore_schema::table::LayerKey;

use crate::error::{Error, LookupError};
use crate::image::{Container, Image, Item, find_container, find_image, find_layer};
use crate::layer::Layer;
use crate::meta::{Query, read_blob};
use crate::types::{ContainerId, DiffId, Digest, ImageId, LayerId, Name, stored};

use super::{Store, Thing, ThingId};

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

    /// The layer with this id, name, diffID, blob digest or digest of a table of contents, or the only one whose id begins
    /// like this.
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

    /// The container, else the image, else the layer that `key` finds.
    ///
    /// Returns [`Error::Lookup`] if nothing is found, or more than one thing of the first kind that has any.
    pub fn thing(&self, key: &str) -> Result<Thing, Error> {
        let missing = |error: &Error| matches!(error, Error::Lookup(LookupError::NotFound { .. }));
        let txn = self.database().begin_read()?;
        match find_container::<Error>(&txn, key) {
            Err(error) if missing(&error) => {}
            found => return Ok(Thing::Container(Container::from_record(found?)?)),
        }
        match find_image::<Error>(&txn, key) {
            Err(error) if missing(&error) => {}
            found => return Ok(Thing::Image(Image::from_record(found?)?)),
        }
        match find_layer::<Error>(&txn, key) {
            Err(error) if missing(&error) => {
                let kind = "container, image or layer";
                Err(LookupError::NotFound { kind, key: key.to_owned() }.into())
            }
            found => Ok(Thing::Layer(Layer::from_record(found?)?)),
        }
    }

    /// A layer and all below it, topmost first.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_chain(&self, top: &LayerId) -> Result<Vec<Layer>, Error> {
        let txn = self.database().begin_read()?;
        find_layer::<Error>(&txn, top.as_str())?;
        Ok(txn.chain(top.as_str())?.into_iter().map(Layer::from_record).collect::<Result<_, _>>()?)
    }

    /// The layers that a blob with this digest carried, by id.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers_by_blob_digest(&self, digest: &Digest) -> Result<Vec<Layer>, Error> {
        self.layers_by(LayerKey::Blob, &digest.to_string())
    }

    /// The layers whose uncompressed tar has this digest, by id.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers_by_diff_id(&self, diff_id: &DiffId) -> Result<Vec<Layer>, Error> {
        self.layers_by(LayerKey::DiffId, &diff_id.to_string())
    }

    /// The layers that came with this digest of their blob's table of contents, by id. Nothing has checked what they came
    /// with.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers_by_toc_digest(&self, digest: &Digest) -> Result<Vec<Layer>, Error> {
        self.layers_by(LayerKey::Toc, &digest.to_string())
    }

    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<Layer>, Error> {
        let txn = self.database().begin_read()?;
        let layer = |id: &String| Ok(Layer::from_record(txn.layer_ref(id)?)?);
        txn.layers_by(key, digest)?.iter().map(layer).collect()
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
    /// Returns [`Error::Meta`] if the database fails.
    pub fn items(&self, of: impl Into<ThingId>) -> Result<Vec<Item>, Error> {
        let of = of.into();
        let items = self.database().begin_read()?.items(of.owner(), of.as_str())?;
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
