//! Reading the store: lists, lookups, data items.

use layerstore_schema::table::LayerKey;

use crate::error::{Error, LookupError};
use crate::image::{Container, Image, Item, find_container, find_image, find_layer};
use crate::layer::Layer;
use crate::meta::{BlobKind, read_blob};
use crate::types::{ContainerId, DiffId, Digest, ImageId, LayerId, Name, stored};

use super::view::View;
use super::{Store, ThingId};

impl Store {
    /// All layers, by id; after those of the store the ones of each other store that it reads, without those of containers
    /// there. One snapshot of each: no layer in it lacks its parent. The list is whole in memory, and costs no one else anything while it
    /// is held.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers(&self) -> Result<Vec<Layer>, Error> {
        Ok(self.begin_read()?.layers()?)
    }

    /// All images, by id; after those of the store the ones of each other store that it reads. What has an id that came
    /// before is left out.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(self.begin_read()?.images()?)
    }

    /// All containers, by id.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn containers(&self) -> Result<Vec<Container>, Error> {
        Ok(self.begin_read()?.container_values()?)
    }

    /// The layer with this id, name, diffID, blob digest or digest of a table of contents, or the only one whose id begins
    /// like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn layer(&self, key: &str) -> Result<Layer, Error> {
        let view = self.begin_read()?;
        Ok(view.layer_value(find_layer::<Error>(&view, key)?)?)
    }

    /// The image with this id, name, or manifest or config digest, or the only one whose id begins like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn image(&self, key: &str) -> Result<Image, Error> {
        let view = self.begin_read()?;
        Ok(view.image_value(find_image::<Error>(&view, key)?)?)
    }

    /// The container with this id or name, or the only one whose id begins like this.
    ///
    /// Returns [`Error::Lookup`] if there is none, or more than one.
    pub fn container(&self, key: &str) -> Result<Container, Error> {
        let view = self.begin_read()?;
        Ok(view.container_value(find_container::<Error>(&view, key)?)?)
    }

    /// A layer and all below it, topmost first.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_chain(&self, top: &LayerId) -> Result<Vec<Layer>, Error> {
        let txn = self.begin_read()?;
        find_layer::<Error>(&txn, top.as_str())?;
        Ok(txn
            .chain(top.as_str())?
            .into_iter()
            .map(|record| txn.layer_value(record))
            .collect::<Result<_, _>>()?)
    }

    /// The layers that stand on a layer, without those that stand on these.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layers_above(&self, parent: &LayerId) -> Result<Vec<Layer>, Error> {
        let txn = self.begin_read()?;
        find_layer::<Error>(&txn, parent.as_str())?;
        let children = txn.children(parent.as_str())?;
        let layer = |id: String| Ok(txn.layer_value(find_layer::<Error>(&txn, &id)?)?);
        children.into_iter().map(layer).collect()
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

    /// The layers that came with this digest of their blob's table of contents, by id. It was compared with what they came
    /// with, unless the caller only said it: see [`Layer::toc_digest`].
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn layers_by_toc_digest(&self, digest: &Digest) -> Result<Vec<Layer>, Error> {
        self.layers_by(LayerKey::Toc, &digest.to_string())
    }

    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<Layer>, Error> {
        let txn = self.begin_read()?;
        let layer = |id: &String| Ok(txn.layer_value(txn.layer_ref(id)?)?);
        txn.layers_by(key, digest)?.iter().map(layer).collect()
    }

    /// The images whose top layer this is.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn images_of_layer(&self, layer: &LayerId) -> Result<Vec<ImageId>, Error> {
        let ids = self.begin_read()?.images_of_layer(layer.as_str())?;
        Ok(ids.iter().map(|id| stored("image", id, id)).collect::<Result<_, _>>()?)
    }

    /// The container whose writable layer this is.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn container_of_layer(&self, layer: &LayerId) -> Result<Option<ContainerId>, Error> {
        let id = self.begin_read()?.container_of_layer(layer.as_str())?;
        Ok(id.map(|id| stored("container", &id, &id)).transpose()?)
    }

    /// The containers that were made from an image.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn containers_of_image(&self, image: &ImageId) -> Result<Vec<ContainerId>, Error> {
        let ids = self.begin_read()?.containers_of_image(image.as_str())?;
        Ok(ids.iter().map(|id| stored("container", id, id)).collect::<Result<_, _>>()?)
    }

    /// The data items of a thing, by key.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn items(&self, of: impl Into<ThingId>) -> Result<Vec<Item>, Error> {
        let of = of.into();
        let txn = self.begin_read()?;
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
        let txn = self.begin_read()?;
        let Some((part, record)) = txn.item(of.owner(), of.as_str(), key)? else {
            let (kind, id) = (of.kind().word(), of.as_str().to_owned());
            return Err(LookupError::NoItem { kind, id, key: key.to_owned() }.into());
        };
        Ok(read_blob(part.txn()?, &record.blob, BlobKind::Item)?)
    }

    /// Who has a name.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn name_holder(&self, kind: crate::image::Kind, name: &Name) -> Result<Option<String>, Error> {
        Ok(self.begin_read()?.named(kind.owner(), name.as_str())?)
    }
}

/// Returns [`Error::Lookup`] if a thing is not there.
fn prove_there(txn: &View<'_>, of: &ThingId) -> Result<(), Error> {
    let missing = || LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() };
    txn.home(of.owner(), of.as_str())?.map(drop).ok_or_else(|| missing().into())
}

#[cfg(test)]
mod tests {
    use crate::store::{ContainerOptions, Store, StoreOptions};

    #[test]
    fn containers_are_listed_by_id_whatever_the_page_cache_holds() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::at(dir.path().join("root")).page_cache(0);
        assert_eq!(options.database.cache_size, 0);
        let store = Store::open(&options).unwrap();
        let make = |_| store.create_container(None, &ContainerOptions::default()).unwrap();
        let mut made: Vec<_> = (0..20).map(make).collect();
        made.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(store.containers().unwrap(), made);
    }
}
