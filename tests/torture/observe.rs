//! What a store has, in the words of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use layerstore::{Error, Kind, Layer, LayerId, Store, ThingId};

use super::content::Content;
use super::images::SharedImage;
use super::log::Worker;
use super::model::{Container, Image, Owned};
use super::op::Shared;
use super::own::OwnLayer;
use super::snapshots;

/// The id of the container whose items and metadata all workers change.
pub const ARENA: &str = "arena";
/// The flag that workers set.
pub const FLAG: &str = "torture";
/// The file in a container's directory.
pub const DATA: &str = "state/file";
/// Where the arena's metadata stands in [`Shared::items`].
pub const METADATA: &str = "the metadata";
/// The items that are only written together, and together with the metadata.
pub const PAIR: [&str; 2] = ["pair-a", "pair-b"];

/// Something that the store cannot have, or an error in reading it.
#[derive(Debug)]
pub enum Trouble {
    Error(Error),
    Wrong(String),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Error(error)
    }
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Trouble::Wrong(text)
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::Wrong(text) => f.write_str(text),
            Trouble::Error(error) => {
                write!(f, "{error}")?;
                let mut next = std::error::Error::source(error);
                while let Some(error) = next {
                    write!(f, ": {error}")?;
                    next = error.source();
                }
                write!(f, " ({error:?})")
            }
        }
    }
}

/// The things of one slot. Nobody changes them meanwhile.
pub fn owned(store: &Store, slot: usize) -> Result<Owned, Trouble> {
    let prefix = Worker::prefix(slot);
    let mut seen = Owned::default();
    for container in store.containers()? {
        let id = container.id.as_str();
        if !id.starts_with(&prefix) {
            continue;
        }
        let mut items = BTreeMap::new();
        for item in store.items(&container)? {
            let content = Content::of(&store.item(&container, &item.key)?)?;
            items.insert(item.key, content);
        }
        let mount = store.mounted(&container)?;
        seen.containers.insert(
            id.to_owned(),
            Container {
                image: container.image.as_ref().map(ToString::to_string),
                names: container.names.iter().map(ToString::to_string).collect(),
                metadata: container.metadata.clone(),
                flag: container.flags.iter().find(|flag| flag.0 == FLAG).map(|flag| flag.1.clone()),
                volatile: container.volatile,
                ids: container.id_maps.is_some(),
                data: data(store, &container)?,
                items,
                files: files(store, &container)?,
                mounts: mount.map(|mount| mount.count),
                run_directory: store.run_root().join("containers").join(id).is_dir(),
            },
        );
    }
    for image in store.images()? {
        let names: Vec<_> = image.names.iter().filter(|name| name.as_str().starts_with(&prefix)).collect();
        let Some(name) = names.first() else { continue };
        if names.len() != image.names.len() || names.len() > 1 {
            return Err(format!("the image {} has the names {:?}", image.id, image.names).into());
        }
        let top = image.top_layer.as_ref().ok_or_else(|| format!("the image {name} has no layer"))?;
        let made = Some((image.id.to_string(), top.to_string()));
        seen.images.insert(name.to_string(), Image { made, files: files(store, &image)? });
    }
    seen.snapshots = snapshots::observe(store, &prefix)?;
    for layer in store.layers()? {
        let name = layer.names.iter().find(|name| name.as_str().starts_with(&prefix));
        if layer.id.as_str().starts_with(&prefix) {
            seen.own.insert(layer.id.to_string(), own(store, &layer)?);
        } else if let Some(name) = name {
            seen.layers.insert(layer.id.to_string(), name.to_string());
        }
    }
    Ok(seen)
}

/// A layer that a worker made as such.
fn own(store: &Store, layer: &Layer) -> Result<OwnLayer, Trouble> {
    let [name] = &layer.names[..] else {
        return Err(format!("the layer {} has the names {:?}", layer.id, layer.names).into());
    };
    Ok(OwnLayer {
        name: name.to_string(),
        parent: layer.parent.as_ref().map(ToString::to_string),
        files: files(store, layer)?,
        sealed: !layer.is_writable(),
        blank: is_blank(store, layer)?,
        mounts: store.mounted(layer)?.map(|mount| mount.count),
    })
}

/// Whether a layer has nothing of its own.
fn is_blank(store: &Store, layer: &Layer) -> Result<bool, Trouble> {
    let mut tar = Vec::new();
    store.diff(layer, &mut tar)?;
    let mut archive = tar::Archive::new(tar.as_slice());
    let entries = archive.entries().map_err(|error| Trouble::Wrong(error.to_string()))?;
    let named = entries.filter(|entry| {
        let path = entry.as_ref().map(|entry| entry.path_bytes().into_owned());
        path.is_ok_and(|path| !matches!(&path[..], b"." | b"./" | b"/" | b""))
    });
    Ok(named.count() == 0)
}

/// The file in a container's directory, if there is one.
fn data(store: &Store, container: &layerstore::Container) -> Result<Option<Content>, Trouble> {
    match store.read_container_file(&container.id, DATA) {
        Ok(bytes) => Ok(Some(Content::of(&bytes)?)),
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The files that workers wrote into a container, or into the container that an image was made of.
pub fn files(store: &Store, of: impl Into<ThingId>) -> Result<BTreeMap<String, Content>, Trouble> {
    let mut tar = Vec::new();
    store.diff(of, &mut tar)?;
    let mut files = BTreeMap::new();
    let wrong = |error: std::io::Error| Trouble::Wrong(format!("the tar of a layer cannot be read: {error}"));
    for entry in tar::Archive::new(tar.as_slice()).entries().map_err(wrong)? {
        let mut entry = entry.map_err(wrong)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        // What was being written when a process died.
        if !entry.header().entry_type().is_file() || path.ends_with(".part") {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(wrong)?;
        let content = Content::of(&bytes).map_err(|why| format!("/{path}: {why}"))?;
        files.insert(path, content);
    }
    Ok(files)
}

/// The things of all workers.
pub fn shared(store: &Store) -> Result<Shared, Trouble> {
    let arena = store.container(ARENA)?;
    let mut shared = Shared::default();
    for image in store.images()? {
        shared.images.insert(image.id.to_string());
        for name in image.names.iter().filter(|name| name.as_str().starts_with("shared-")) {
            let other = shared.names.insert(name.to_string(), image.id.to_string());
            if let Some(other) = other {
                return Err(format!("{other} and {} have the name {name} in one snapshot", image.id).into());
            }
        }
    }
    // One snapshot lists all items; their bytes may be of a later one.
    let listed = store.items(&arena)?;
    let digest = |key: &str| listed.iter().find(|item| item.key == key).map(|item| &item.digest);
    if digest(PAIR[0]) != digest(PAIR[1]) {
        return Err("two items that are only written together differ in one snapshot".to_owned().into());
    }
    for item in &listed {
        let content = Content::of(&store.item(&arena, &item.key)?)?;
        shared.items.insert(item.key.clone(), content.word);
    }
    let metadata = store.container(ARENA)?.metadata;
    if !metadata.is_empty() {
        shared.items.insert(METADATA.to_owned(), metadata);
    }
    Ok(shared)
}

/// Looks whether every image has the layers and documents that it must have. Returns the layers that nothing needs, each
/// before the one that it stands on.
pub fn check_layers(store: &Store, images: &[SharedImage]) -> Result<Vec<LayerId>, Trouble> {
    let layers: BTreeMap<String, Layer> =
        store.layers()?.into_iter().map(|layer| (layer.id.to_string(), layer)).collect();
    let mut needed = BTreeSet::new();
    let mut need = |id: &str| {
        let mut next = Some(id.to_owned());
        while let Some(id) = next {
            let layer = layers.get(&id).ok_or_else(|| format!("the layer {id} is missing"))?;
            next = layer.parent.as_ref().map(ToString::to_string);
            needed.insert(id);
        }
        Ok::<_, String>(())
    };
    for image in store.images()? {
        if let Some(top) = &image.top_layer {
            need(top.as_str())?;
        }
        if image.digests.is_empty() || store.item(&image, "manifest")?.is_empty() {
            return Err(format!("the image {} has an empty manifest", image.id).into());
        }
        let Some(shared) = images.iter().find(|shared| shared.id == image.id.as_str()) else { continue };
        let top = image.top_layer.as_ref().ok_or_else(|| format!("{} has no layer", image.id))?;
        let chain = store.layer_chain(top)?;
        let ids: Vec<&str> = chain.iter().rev().map(|layer| layer.id.as_str()).collect();
        if ids != shared.layers {
            return Err(
                format!("the image {} has the layers {ids:?}, not {:?}", image.id, shared.layers).into()
            );
        }
    }
    let mut ids = BTreeMap::new();
    for container in store.containers()? {
        for extent in container.id_maps.iter().flat_map(|maps| &maps.uids) {
            let end = extent.outside + extent.count;
            if ids.range(..end).next_back().is_some_and(|(_, taken)| *taken > extent.outside) {
                return Err(format!("another container has ids of {}: {extent:?}", container.id).into());
            }
            ids.insert(extent.outside, end);
        }
        need(container.layer.as_str())?;
        if store.container_of_layer(&container.layer)? != Some(container.id.clone()) {
            return Err(format!("the layer of the container {} is another's", container.id).into());
        }
        for name in &container.names {
            let holder = store.name_holder(Kind::Container, name)?;
            if holder.as_deref() != Some(container.id.as_str()) {
                return Err(format!("the name {name} of {} leads to {holder:?}", container.id).into());
            }
        }
    }
    for layer in layers.values().filter(|layer| !layer.names.is_empty()) {
        need(layer.id.as_str())?;
    }
    let mut lonely: Vec<&Layer> =
        layers.values().filter(|layer| !needed.contains(layer.id.as_str())).collect();
    let depth = |layer: &Layer| {
        std::iter::successors(Some(layer), |layer| layers.get(layer.parent.as_ref()?.as_str())).count()
    };
    lonely.sort_by_key(|layer| std::cmp::Reverse(depth(layer)));
    Ok(lonely.into_iter().map(|layer| layer.id.clone()).collect())
}
