//! What a thing holds, in bytes of content: what its files say, and not what they take on the disk.

use std::collections::HashSet;
use std::os::fd::AsFd;

use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk;
use crate::error::{Error, LookupError, MetaError};
use crate::image::Container;
use crate::types::{LayerId, TreeDigest};

use super::view::View;
use super::{Store, ThingId};

impl Store {
    /// The bytes of what a thing holds. Of a layer: its own files, each counted once. Of an image: the files of all its
    /// layers, and its data items. Of a container: what was written into its layer, its data items, and the files in its
    /// directories. What is written to is walked, all else is known.
    ///
    /// [`usage`](Self::usage) tells what it takes on the disk.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn size(&self, of: impl Into<ThingId>) -> Result<u64, Error> {
        let of = of.into();
        let txn = self.begin_read()?;
        let missing = || LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() };
        let mut bytes: u64 = 0;
        match &of {
            ThingId::Layer(id) => {
                return self.content_of(&txn, &txn.layer(id.as_str())?.ok_or_else(missing)?);
            }
            ThingId::Image(id) => {
                let image = txn.image(id.as_str())?.ok_or_else(missing)?;
                let mut seen = HashSet::new();
                for top in image.top_layer.iter().chain(&image.mapped_top_layers) {
                    for layer in txn.chain(top)? {
                        if seen.insert(layer.id.clone()) {
                            bytes = bytes.saturating_add(self.content_of(&txn, &layer)?);
                        }
                    }
                }
            }
            ThingId::Container(id) => {
                let container = txn.container(id.as_str())?.ok_or_else(missing)?;
                bytes = self.content_of(&txn, &txn.layer_ref(&container.layer)?)?;
                bytes = bytes.saturating_add(self.directory_bytes(&txn, &of)?);
            }
        }
        let items = txn.items(of.owner(), of.as_str())?;
        Ok(items.iter().fold(bytes, |bytes, (_, item)| bytes.saturating_add(item.size)))
    }

    fn content_of(&self, txn: &View<'_>, layer: &LayerRecord) -> Result<u64, Error> {
        match layer.content {
            LayerContent::Writable(_) => Ok(txn.written_usage(layer)?.apparent),
            LayerContent::Additional(_) => {
                Ok(disk::usage(txn.directory(layer)?.open(&layer.id)?.as_fd())?.apparent)
            }
            LayerContent::Sealed(tree) => {
                let tree = TreeDigest(tree);
                let missing = || MetaError::Missing { kind: "diff", key: tree.to_string() };
                Ok(txn.diff(&tree)?.ok_or_else(missing)?.1.content_bytes)
            }
        }
    }

    /// The container whose writable layer this is.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there, or is no container's.
    pub fn container_by_layer(&self, layer: &LayerId) -> Result<Container, Error> {
        let txn = self.begin_read()?;
        let missing = |kind| LookupError::NotFound { kind, key: layer.to_string() };
        if txn.layer(layer.as_str())?.is_none() {
            return Err(missing("layer").into());
        }
        let id = txn.container_of_layer(layer.as_str())?.ok_or_else(|| missing("container"))?;
        let record = txn.container(&id)?.ok_or(MetaError::Missing { kind: "container", key: id })?;
        Ok(txn.container_value(record)?)
    }
}
