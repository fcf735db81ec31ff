//! Everything that a store shows, against the model.

use std::collections::BTreeMap;
use std::fmt::Debug;

use layerstore::{
    Algorithm, ChainId, Container as ContainerValue, Digest, Hasher, Image as ImageValue,
    Layer as LayerValue, Name, Store, Thing, ThingId,
};

use super::action::{Action, DATA, Target, said};
use super::op::NAMES;
use super::predict::UNKNOWN;
use super::state::{Common, Container, Image, Kind, Layer, State};

/// What differs, in words.
pub type Same = Result<(), String>;

/// Fails with both sides if they differ.
pub fn same<T: PartialEq + Debug>(what: impl FnOnce() -> String, store: &T, model: &T) -> Same {
    if store == model {
        return Ok(());
    }
    Err(format!("{}:\n    the store: {store:?}\n    the model: {model:?}", what()))
}

impl State {
    /// Fills in what only the store could choose: ids, and documents with times in them.
    pub fn learn(&mut self, action: &Action, store: &Store) -> Same {
        match action {
            Action::CreateContainer { id, .. } => self.learn_container(id, store),
            Action::Commit { names, .. } => self.learn_commit(names, store),
            _ => Ok(()),
        }
    }

    fn learn_container(&mut self, id: &str, store: &Store) -> Same {
        let container = store.container(id).map_err(said)?;
        let layer = container.layer.to_string();
        if self.layers.contains_key(&layer) {
            return Err(format!("the new container {id} has the layer {layer}, which was there before"));
        }
        let row = self.layers.remove(UNKNOWN).unwrap();
        self.layers.insert(layer.clone(), row);
        self.containers.get_mut(id).unwrap().layer = layer;
        Ok(())
    }

    fn learn_commit(&mut self, names: &[String], store: &Store) -> Same {
        let mut images = store.images().map_err(said)?;
        images.retain(|image| !self.images.contains_key(image.id.as_str()));
        let [image] = images.as_slice() else {
            return Err(format!("a commit made {} images", images.len()));
        };
        let top = image.top_layer.clone().ok_or("a committed image without layers")?;
        let layer = store.layer(top.as_str()).map_err(said)?;
        let row = self.layers.remove(UNKNOWN).unwrap();
        same(|| format!("parent of {top}"), &layer.parent.as_ref().map(ToString::to_string), &row.parent)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        store.diff(&layer, &mut hasher).map_err(said)?;
        let diff_id = layerstore::DiffId(hasher.finish());
        same(|| format!("diffID of {top}"), &layer.diff_id, &Some(diff_id.clone()))?;
        let parent = row.parent.as_ref().map(|parent| ChainId(format!("sha256:{parent}").parse().unwrap()));
        let chain = ChainId::of(parent.as_ref(), &diff_id);
        same(|| "chain ID".to_owned(), &top.as_str(), &chain.0.hex())?;

        let known = self.layers.entry(top.to_string()).or_insert(row);
        known.diff_id = Some(diff_id.to_string());
        if !known.blobs.contains(&diff_id.to_string()) {
            known.blobs.push(diff_id.to_string());
        }
        let id = image.id.to_string();
        let items = items(store, &image.into())?;
        let (manifest, config) = (items.get("manifest"), items.get(&format!("sha256:{id}")));
        let digest = Digest::sha256(manifest.map_or(&[], Vec::as_slice)).to_string();
        let config = Digest::sha256(config.map_or(&[], Vec::as_slice));
        same(|| "digest of the config".to_owned(), &config.hex(), &id.as_str())?;
        let keys: Vec<_> = items.keys().cloned().collect();
        let expected = ["manifest".to_owned(), format!("manifest-{digest}"), format!("sha256:{id}")];
        same(|| "items of a committed image".to_owned(), &keys, &expected.to_vec())?;
        self.bring_in(&id, Some(top.to_string()), &digest, names);
        self.images.get_mut(&id).unwrap().common.items = items;
        Ok(())
    }

    /// Compares all that the store shows.
    pub fn compare(&self, store: &Store) -> Same {
        self.compare_lists(store)?;
        self.compare_relations(store)?;
        self.compare_lookups(store)?;
        self.compare_sums(store)?;
        self.compare_mounts(store)
    }

    fn compare_lists(&self, store: &Store) -> Same {
        let layers = store.layers().map_err(said)?;
        let rows = layers.iter().map(|layer| Ok((layer.id.to_string(), self.layer_row(store, layer)?)));
        compare_maps("layer", &rows.collect::<Result<_, String>>()?, &self.layers)?;
        let images = store.images().map_err(said)?;
        let rows = images.iter().map(|image| Ok((image.id.to_string(), image_row(store, image)?)));
        compare_maps("image", &rows.collect::<Result<_, String>>()?, &self.images)?;
        let containers = store.containers().map_err(said)?;
        let rows = containers.iter().map(|row| Ok((row.id.to_string(), container_row(store, row)?)));
        compare_maps("container", &rows.collect::<Result<_, String>>()?, &self.containers)
    }

    /// A layer as the store has it; its files are those of the model.
    fn layer_row(&self, store: &Store, layer: &LayerValue) -> Result<Layer, String> {
        let id = layer.id.to_string();
        Ok(Layer {
            common: common(store, &layer.into(), &layer.names, &layer.metadata, &layer.flags)?,
            parent: layer.parent.as_ref().map(ToString::to_string),
            writable: layer.is_writable(),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            blobs: layer.blobs.iter().map(|blob| blob.digest.to_string()).collect(),
            files: self.layers.get(&id).map(|row| row.files.clone()).unwrap_or_default(),
        })
    }

    fn compare_relations(&self, store: &Store) -> Same {
        for id in self.layers.keys() {
            let layer = id.parse().unwrap();
            let chain = store.layer_chain(&layer).map_err(said)?;
            let chain: Vec<_> = chain.iter().map(|layer| layer.id.to_string()).collect();
            same(|| format!("chain of {id}"), &chain, &self.chain(Some(id)))?;
            let images = texts(&store.images_of_layer(&layer).map_err(said)?);
            same(|| format!("images of {id}"), &images, &self.images_of_layer(id))?;
            let container = store.container_of_layer(&layer).map_err(said)?;
            let container = container.map(|container| container.to_string());
            same(|| format!("container of {id}"), &container, &self.container_of_layer(id))?;
        }
        for id in self.images.keys() {
            let containers = texts(&store.containers_of_image(&id.parse().unwrap()).map_err(said)?);
            same(|| format!("containers of {id}"), &containers, &self.containers_of_image(id))?;
        }
        Ok(())
    }

    fn compare_lookups(&self, store: &Store) -> Same {
        for key in &self.keys() {
            let layer = store.layer(key).map(|layer| layer.id.to_string()).map_err(said);
            same(|| format!("layer({key:?})"), &layer, &self.find(Kind::Layer, key).map_err(said))?;
            let image = store.image(key).map(|image| image.id.to_string()).map_err(said);
            same(|| format!("image({key:?})"), &image, &self.find(Kind::Image, key).map_err(said))?;
            let container = store.container(key).map(|container| container.id.to_string()).map_err(said);
            let expected = self.find(Kind::Container, key).map_err(said);
            same(|| format!("container({key:?})"), &container, &expected)?;
            let thing = store.thing(key).map_err(said).map(|thing| match thing {
                Thing::Layer(layer) => (Kind::Layer, layer.id.to_string()),
                Thing::Image(image) => (Kind::Image, image.id.to_string()),
                Thing::Container(container) => (Kind::Container, container.id.to_string()),
                other => panic!("{other:?}"),
            });
            same(|| format!("thing({key:?})"), &thing, &self.find_thing(key))?;
        }
        let kinds = [
            (Kind::Layer, layerstore::Kind::Layer),
            (Kind::Image, layerstore::Kind::Image),
            (Kind::Container, layerstore::Kind::Container),
        ];
        for name in NAMES {
            for (ours, theirs) in kinds {
                let holder = store.name_holder(theirs, &name.parse().unwrap()).map_err(said)?;
                same(|| format!("who has {name:?}"), &holder, &self.holder(ours, name))?;
            }
        }
        Ok(())
    }

    fn compare_sums(&self, store: &Store) -> Same {
        let status = store.status().map_err(said)?;
        let counts = [status.layers, status.images, status.containers];
        let expected =
            [self.layers.len(), self.images.len(), self.containers.len()].map(|count| count as u64);
        same(|| "counts".to_owned(), &counts, &expected)?;
        same(|| "kept bytes".to_owned(), &status.kept_blob_bytes, &self.kept.values().sum::<u64>())?;
        let mounts: Vec<_> = self.mounts.iter().map(|(layer, count)| (layer.clone(), *count)).collect();
        same(|| "mounts".to_owned(), &status.mounts, &mounts)?;
        // Each tree once, however many layers have it.
        let mut trees = BTreeMap::new();
        for layer in store.layers().map_err(said)? {
            let size = store.layer_size(&layer.id).map_err(said)?;
            if let (Some(tree), Some((on_disk, _))) = (layer.tree, size) {
                trees.insert(tree.to_string(), on_disk);
            }
        }
        same(|| "bytes of layers".to_owned(), &status.layer_bytes, &trees.values().sum())
    }

    fn compare_mounts(&self, store: &Store) -> Same {
        for id in self.layers.keys() {
            let changes = store.changes(Target { kind: Kind::Layer, id: id.clone() }.thing());
            let changes: Vec<_> = changes.map_err(said)?.iter().map(ToString::to_string).collect();
            same(|| format!("changes of {id}"), &changes, &self.changes(id))?;
        }
        for layer in self.layers.keys() {
            let mount =
                store.mounted(Target { kind: Kind::Layer, id: layer.clone() }.thing()).map_err(said)?;
            let count = mount.as_ref().map(|mount| mount.count);
            same(|| format!("mounts of {layer}"), &count, &self.mounts.get(layer).copied())?;
            let Some(mount) = mount else { continue };
            same(|| format!("whether {layer} is read-only"), &mount.read_only, &self.views.contains(layer))?;
            let mut files = BTreeMap::new();
            for entry in std::fs::read_dir(mount.path()).unwrap() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
            same(|| format!("files in the mount of {layer}"), &files, &self.merged(Some(layer)))?;
        }
        Ok(())
    }
}

fn compare_maps<T: PartialEq + Debug>(
    kind: &str,
    store: &BTreeMap<String, T>,
    model: &BTreeMap<String, T>,
) -> Same {
    let ids = |map: &BTreeMap<String, T>| map.keys().cloned().collect::<Vec<_>>();
    same(|| format!("{kind}s"), &ids(store), &ids(model))?;
    for (id, row) in store {
        same(|| format!("{kind} {id}"), row, &model[id])?;
    }
    Ok(())
}

fn image_row(store: &Store, image: &ImageValue) -> Result<Image, String> {
    Ok(Image {
        common: common(store, &image.into(), &image.names, &image.metadata, &image.flags)?,
        history: texts(&image.names_history),
        top: image.top_layer.as_ref().map(ToString::to_string),
        digests: texts(&image.digests),
    })
}

fn container_row(store: &Store, container: &ContainerValue) -> Result<Container, String> {
    Ok(Container {
        common: common(store, &container.into(), &container.names, &container.metadata, &container.flags)?,
        image: container.image.as_ref().map(ToString::to_string),
        layer: container.layer.to_string(),
        data: store.read_container_file(&container.id, DATA).ok(),
    })
}

fn common(
    store: &Store,
    of: &ThingId,
    names: &[Name],
    metadata: &str,
    flags: &[(String, String)],
) -> Result<Common, String> {
    let (names, metadata, flags) = (texts(names), metadata.to_owned(), flags.to_vec());
    Ok(Common { names, metadata, flags, items: items(store, of)? })
}

fn items(store: &Store, of: &ThingId) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut items = BTreeMap::new();
    for item in store.items(of).map_err(said)? {
        let bytes = store.item(of, &item.key).map_err(said)?;
        same(|| format!("size of {}", item.key), &item.size, &(bytes.len() as u64))?;
        same(|| format!("digest of {}", item.key), &item.digest, &Digest::sha256(&bytes))?;
        items.insert(item.key, bytes);
    }
    Ok(items)
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
