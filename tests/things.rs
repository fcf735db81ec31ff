//! Images, containers, and what can be asked of anything: made, named, found, emptied and taken away.

mod anything;
mod containers;
mod images;
mod unknown;

use layerstore::{ContainerOptions, ImageOptions, LayerId, Store, StoreOptions, SyncMode};

use crate::support::Dir;

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

fn open(dir: &Dir) -> Store {
    Store::open(&options(dir)).unwrap()
}

/// An image of one empty layer, made from nothing.
fn base(store: &Store, name: &str) -> (layerstore::Image, LayerId) {
    let container = store.create_container(None, &ContainerOptions::default()).unwrap();
    let image = store.commit(&container.id, &layerstore::oci::CommitOptions::named(name)).unwrap();
    store.remove_container(&container.id).unwrap();
    let layer = image.top_layer.clone().unwrap();
    (image, layer)
}

fn on(layer: &LayerId, name: &str) -> ImageOptions {
    let mut options = ImageOptions::named(name);
    options.top_layer = Some(layer.clone());
    options
}

/// What stands in a directory of the store.
fn entries(dir: &Dir, which: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir.root().join(which)) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}
