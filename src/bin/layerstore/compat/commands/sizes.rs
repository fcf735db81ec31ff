//! Sizes of images and containers.

use layerstore::{Container, Image, Item, Layer, LayerId, Store};

use super::super::failure::{Failure, known};
use super::super::lookup;

/// The data items of an image and its layers: of each the length of its tar if that is known, else of its files.
pub fn of_image(store: &Store, image: &Image, items: &[Item]) -> Result<u64, Failure> {
    let mut size = of_items(items);
    let mut next = image.top_layer.clone();
    while let Some(id) = next {
        let layer = located(store, &id)?;
        size = size.saturating_add(layer.diff_size.map_or_else(|| difference(store, &layer), Ok)?);
        next = layer.parent;
    }
    for id in &image.mapped_top_layers {
        let layer = located(store, id)?;
        size = size.saturating_add(layer.diff_size.map_or_else(|| difference(store, &layer), Ok)?);
    }
    Ok(size)
}

/// The data items of a container, and what its layer changes.
pub fn of_container(store: &Store, container: &Container) -> Result<u64, Failure> {
    let items = of_items(&store.items(container)?);
    let layer = located(store, &container.layer)?;
    Ok(items.saturating_add(difference(store, &layer)?))
}

fn of_items(items: &[Item]) -> u64 {
    items.iter().fold(0, |sum, item| sum.saturating_add(item.size))
}

fn located(store: &Store, id: &LayerId) -> Result<Layer, Failure> {
    let missing = || Failure::Text(format!("locating layer with ID \"{id}\": {}", known::LAYER));
    lookup::layer(store, id.as_str())?.ok_or_else(missing)
}

/// The length of the files that a layer changes.
fn difference(store: &Store, layer: &Layer) -> Result<u64, Failure> {
    Ok(store.diff_size(layer, None)?)
}
