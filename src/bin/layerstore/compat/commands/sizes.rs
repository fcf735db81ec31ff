//! Sizes of images and containers, as the reference counts them: layers by the length of their tar, and the library by
//! that of their files.

use std::collections::HashSet;

use layerstore::{Container, Image, Item, Store};

use super::super::failure::Failure;

/// The data items of an image and its layers: of each the length of its tar if that is known, else of its files.
pub fn of_image(store: &Store, image: &Image, items: &[Item]) -> Result<u64, Failure> {
    let mut size = of_items(items);
    let mut counted = HashSet::new();
    for top in image.top_layer.iter().chain(&image.mapped_top_layers) {
        for layer in store.layer_chain(top)? {
            if counted.insert(layer.id.clone()) {
                let length = layer.diff_size.map_or_else(|| store.diff_size(&layer, None), Ok)?;
                size = size.saturating_add(length);
            }
        }
    }
    Ok(size)
}

/// The data items of a container, the files in its directories, and what its layer changes.
pub fn of_container(store: &Store, container: &Container) -> Result<u64, Failure> {
    let beside = store.size(container)?.saturating_sub(store.size(&container.layer)?);
    Ok(beside.saturating_add(store.diff_size(container, None)?))
}

fn of_items(items: &[Item]) -> u64 {
    items.iter().fold(0, |sum, item| sum.saturating_add(item.size))
}
