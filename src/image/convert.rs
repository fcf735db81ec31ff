//! Records to values.

use layerstore_schema::record::{ContainerRecord, IdRange, ImageRecord, ItemRecord};

use super::{Container, Image, Item};
use crate::error::MetaError;
use crate::sys::userns::{IdExtent, IdMaps};
use crate::types::{stored, stored_list, stored_own};

impl Image {
    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if an id, name or digest in it is none.
    pub(crate) fn from_record(record: ImageRecord) -> Result<Self, MetaError> {
        let id = &record.id;
        let known = record.known_digests();
        let digests = known.iter().map(|digest| stored("image", id, digest)).collect::<Result<_, _>>()?;
        let manifests = record.manifests.iter();
        let manifests =
            manifests.map(|(key, digest)| Ok::<_, MetaError>((key.clone(), stored("image", id, digest)?)));
        Ok(Image {
            id: stored("image", id, id)?,
            names: stored_list("image", id, record.names)?,
            names_history: stored_list("image", id, record.names_history)?,
            created: record.created.into(),
            top_layer: record.top_layer.map(|layer| stored_own("image", id, layer)).transpose()?,
            mapped_top_layers: stored_list("image", id, record.mapped_top_layers)?,
            digests,
            manifests: manifests.collect::<Result<_, _>>()?,
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
        let id_maps = id_maps(&record);
        Ok(Container {
            id: stored("container", id, id)?,
            names: stored_list("container", id, record.names)?,
            image: record.image.map(|image| stored_own("container", id, image)).transpose()?,
            layer: stored_own("container", id, record.layer)?,
            metadata: record.metadata,
            created: record.created.into(),
            flags: record.flags,
            labels: record.labels,
            mount_options: record.mount_options,
            mount_label: record.mount_label,
            process_label: record.process_label,
            volatile: record.volatile,
            id_maps,
        })
    }
}

/// How a container's ids map to the host's.
pub(crate) fn id_maps(record: &ContainerRecord) -> Option<IdMaps> {
    let extents = |ranges: &[IdRange]| {
        let extent =
            |range: &IdRange| IdExtent { inside: range.container, outside: range.host, count: range.length };
        ranges.iter().map(extent).collect()
    };
    let maps = IdMaps { uids: extents(&record.uid_map), gids: extents(&record.gid_map) };
    (maps != IdMaps::default()).then_some(maps)
}

/// Id maps as records hold them.
pub(crate) fn id_ranges(extents: &[IdExtent]) -> Vec<IdRange> {
    let range =
        |extent: &IdExtent| IdRange { container: extent.inside, host: extent.outside, length: extent.count };
    extents.iter().map(range).collect()
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
