//! Who needs an image or a layer, so that it cannot be removed.

use std::collections::BTreeSet;

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};
use layerstore_schema::table::Owner;

use super::lease::keeper_of;
use crate::error::{Error, InUseError, LookupError, MetaError};
use crate::image;
use crate::meta::{Query, ReadTxn};
use crate::types::ImageId;

/// A thing as messages name it: by its first name, and its id.
pub(super) fn shown(names: &[String], id: &str) -> String {
    names.first().map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"))
}

/// What counts as removed, though it is still there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone {
    pub(crate) layers: BTreeSet<String>,
    image: Option<String>,
}

impl Gone {
    /// As if an image were gone, and nothing else.
    pub(super) fn with_image(image: &str) -> Self {
        Gone { image: Some(image.to_owned()), ..Gone::default() }
    }
}

/// `top` and the layers below it as far down as nothing needs them, but for what is `gone`, which gets them. A name is a need:
/// somebody gave it.
pub(super) fn unneeded(txn: &impl Query, top: &str, gone: &mut Gone) -> Result<Vec<LayerRecord>, Error> {
    let mut found = Vec::new();
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        let Some(layer) = txn.layer(&id)? else { break };
        if !layer.names.is_empty() || user_of(txn, &id, gone)?.is_some() || !gone.layers.insert(id) {
            break;
        }
        next = layer.parent.clone();
        found.push(layer);
    }
    Ok(found)
}

/// An image that nothing uses, here or in the rows beside.
pub(super) fn unused_image(txn: &impl Query, id: &ImageId, beside: &[ReadTxn]) -> Result<ImageRecord, Error> {
    let missing = || LookupError::NotFound { kind: "image", key: id.to_string() };
    let record = txn.image(id.as_str())?.ok_or_else(missing)?;
    // First: who removes containers that are in the way does so for nothing then.
    if let Some(kept) = keeper_of(txn, &[(Owner::Image, id.as_str())])? {
        return Err(kept.into());
    }
    let mut used = container_on(txn, id)?;
    // Rows that have the image themselves need no other.
    for rows in beside {
        if used.is_none() && rows.image(id.as_str())?.is_none() {
            used = container_on(rows, id)?;
        }
    }
    match used {
        Some(ContainerRecord { id: container, names, .. }) => {
            let (image, container) = (shown(&record.names, &record.id), shown(&names, &container));
            Err(InUseError::ImageOfContainer { image, container }.into())
        }
        None => Ok(record),
    }
}

/// A container that stands on an image.
fn container_on(txn: &impl Query, image: &ImageId) -> Result<Option<ContainerRecord>, MetaError> {
    let first = txn.containers_of_image(image.as_str())?.into_iter().next();
    Ok(first.map(|container| txn.container(&container)).transpose()?.flatten())
}

/// Why a layer cannot be removed, by rows that are not in the store's database. Those that have the layer themselves need no
/// other.
pub(super) fn user_beside(beside: &[ReadTxn], layer: &str) -> Result<Option<InUseError>, Error> {
    for rows in beside {
        if rows.layer(layer)?.is_none()
            && let Some(error) = user_of(rows, layer, &Gone::default())?
        {
            return Ok(Some(error));
        }
    }
    Ok(None)
}

/// Why a layer cannot be removed, but for what is `gone`.
pub(super) fn user_of(txn: &impl Query, layer: &str, gone: &Gone) -> Result<Option<InUseError>, Error> {
    let name = || layer.to_owned();
    if let Some(above) = standing_on(txn, layer, gone)? {
        return Ok(Some(above));
    }
    if let Some(container) = txn.container_of_layer(layer)? {
        return Ok(Some(InUseError::LayerOfContainer { layer: name(), container }));
    }
    Ok(keeper_of(txn, &[(Owner::Layer, layer)])?)
}

/// What shows the content of a layer as a part of its own: another layer, or an image; but for what is `gone`.
pub(super) fn standing_on(
    txn: &impl image::Lookup,
    layer: &str,
    gone: &Gone,
) -> Result<Option<InUseError>, Error> {
    let name = || layer.to_owned();
    if let Some(child) = txn.children(layer)?.into_iter().find(|child| !gone.layers.contains(child)) {
        return Ok(Some(InUseError::LayerHasChild { layer: name(), child }));
    }
    let image = txn.images_of_layer(layer)?.into_iter().find(|image| gone.image.as_ref() != Some(image));
    Ok(image.map(|image| InUseError::LayerOfImage { layer: name(), image }))
}
