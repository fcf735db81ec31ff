//! Records to values.

use layerstore_schema::record::{ContainerRecord, ImageRecord, ItemRecord};

use super::{Container, Image, Item};
use crate::error::MetaError;
use crate::types::{stored, stored_list};

impl Image {
    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if an id, name or digest in it is none.
    pub(crate) fn from_record(record: ImageRecord) -> Result<Self, MetaError> {
        let id = &record.id;
        Ok(Image {
            id: stored("image", id, id)?,
            names: stored_list("image", id, &record.names)?,
            names_history: stored_list("image", id, &record.names_history)?,
            created: record.created.into(),
            top_layer: record.top_layer.as_deref().map(|layer| stored("image", id, layer)).transpose()?,
            digests: stored_list("image", id, &record.digests)?,
            metadata: record.metadata,
            flags: record.flags,
            labels: record.labels,
            image_store: None,
        })
    }
}

impl Container {
    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if an id, name or digest in it is none.
    pub(crate) fn from_record(record: ContainerRecord) -> Result<Self, MetaError> {
        let id = &record.id;
        Ok(Container {
            id: stored("container", id, id)?,
            names: stored_list("container", id, &record.names)?,
            image: record.image.as_deref().map(|image| stored("container", id, image)).transpose()?,
            layer: stored("container", id, &record.layer)?,
            metadata: record.metadata,
            created: record.created.into(),
            flags: record.flags,
            labels: record.labels,
            mount_options: record.mount_options,
            mount_label: record.mount_label,
        })
    }
}

impl Item {
    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if its digest is none.
    pub(crate) fn from_record(key: String, record: ItemRecord) -> Result<Self, MetaError> {
        let digest = stored("item", &key, &record.digest)?;
        Ok(Item { key, size: record.size, digest })
    }
}
