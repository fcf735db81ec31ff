//! Layers, images and containers as JSON. The order of the fields, and which are left out, are the reference's.

use std::collections::BTreeMap;

use layerstore::{Compression, Container, Digest, IdExtent, Image, Item, Layer, Name, Store};
use serde::Serialize;
use serde_json::{Map, Value};

use super::failure::Failure;
use super::golang;
use super::idmap;

/// What the reference writes for a compression.
fn compression_number(compression: Option<Compression>) -> u8 {
    match compression {
        Some(Compression::Bzip2) => 1,
        Some(Compression::Gzip) => 2,
        Some(Compression::Xz) => 3,
        Some(Compression::Zstd) => 4,
        _ => 0,
    }
}

/// A run of ids.
#[derive(Debug, Serialize)]
struct IdMap {
    container_id: u32,
    host_id: u32,
    size: u32,
}

fn id_maps(map: &[IdExtent]) -> Vec<IdMap> {
    let one = |run: &IdExtent| IdMap { container_id: run.inside, host_id: run.outside, size: run.count };
    map.iter().map(one).collect()
}

/// A layer.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayerRecord {
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    metadata: String,
    #[serde(skip_serializing_if = "String::is_empty", rename = "mountlabel")]
    mount_label: String,
    created: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    compressed_diff_digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    compressed_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    diff_digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    toc_digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    diff_size: u64,
    #[serde(skip_serializing_if = "is_none")]
    compression: u8,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "uidset")]
    uids: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "gidset")]
    gids: Vec<u32>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    flags: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "uidmap")]
    uid_map: Vec<IdMap>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "gidmap")]
    gid_map: Vec<IdMap>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    big_data_names: Vec<String>,
}

impl LayerRecord {
    /// The layer, with the data items that the store has of it.
    pub fn new(layer: &Layer, store: &Store) -> Result<Self, Failure> {
        // With a table of contents it was never fetched as the plain archive that it was taken in as.
        let is_staged = |digest: &Digest| {
            layer.toc_digest.is_some() && layer.diff_id.as_ref().is_some_and(|id| id.0 == *digest)
        };
        let blob = layer.blobs.first().filter(|blob| !is_staged(&blob.digest));
        Ok(LayerRecord {
            id: layer.id.to_string(),
            names: texts(&layer.names),
            parent: layer.parent.as_ref().map(ToString::to_string).unwrap_or_default(),
            metadata: layer.metadata.clone(),
            created: golang::time(layer.created),
            compressed_diff_digest: blob.map(|blob| blob.digest.to_string()).unwrap_or_default(),
            compressed_size: blob.map_or(0, |blob| blob.size),
            diff_digest: layer.diff_id.as_ref().map(ToString::to_string).unwrap_or_default(),
            diff_size: layer.diff_size.unwrap_or_default(),
            compression: compression_number(layer.compression),
            mount_label: layer.mount_label.clone().unwrap_or_default(),
            toc_digest: layer.toc_digest.as_ref().map(ToString::to_string).unwrap_or_default(),
            uids: layer.uids.clone(),
            gids: layer.gids.clone(),
            uid_map: id_maps(&layer.uid_map),
            gid_map: id_maps(&layer.gid_map),
            flags: flags(&layer.flags),
            big_data_names: keys(&store.items(layer)?),
        })
    }
}

/// An image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageRecord {
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names_history: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    layer: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mapped_layers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    metadata: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    big_data_names: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    big_data_sizes: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    big_data_digests: BTreeMap<String, String>,
    created: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    flags: Map<String, Value>,
}

impl ImageRecord {
    /// The image, with its data items.
    pub fn new(image: &Image, items: &[Item]) -> Self {
        let history = texts(&image.names_history);
        let names = texts(&image.names);
        ImageRecord {
            id: image.id.to_string(),
            digest: digests(image, items).first().map(ToString::to_string).unwrap_or_default(),
            // The names that it was created with are no history.
            names_history: if history == names { Vec::new() } else { history },
            names,
            layer: image.top_layer.as_ref().map(ToString::to_string).unwrap_or_default(),
            mapped_layers: image.mapped_top_layers.iter().map(ToString::to_string).collect(),
            metadata: image.metadata.clone(),
            big_data_names: keys(items),
            big_data_sizes: sizes(items),
            big_data_digests: item_digests(items),
            created: golang::time(image.created),
            flags: flags(&image.flags),
        }
    }
}

/// A container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContainerRecord {
    id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<String>,
    image: String,
    layer: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    metadata: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    big_data_names: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    big_data_sizes: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    big_data_digests: BTreeMap<String, String>,
    created: String,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "uidmap")]
    uid_map: Vec<IdMap>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "gidmap")]
    gid_map: Vec<IdMap>,
    flags: BTreeMap<String, Value>,
}

impl ContainerRecord {
    /// The container, with the data items that the store has of it.
    pub fn new(container: &Container, store: &Store) -> Result<Self, Failure> {
        let items = store.items(container)?;
        let maps = container.id_maps.as_ref().map(idmap::shown).transpose()?.unwrap_or_default();
        Ok(ContainerRecord {
            id: container.id.to_string(),
            names: texts(&container.names),
            image: container.image.as_ref().map(ToString::to_string).unwrap_or_default(),
            layer: container.layer.to_string(),
            metadata: container.metadata.clone(),
            big_data_names: keys(&items),
            big_data_sizes: sizes(&items),
            big_data_digests: item_digests(&items),
            created: golang::time(container.created),
            uid_map: id_maps(&maps.uids),
            gid_map: id_maps(&maps.gids),
            flags: container_flags(container),
        })
    }
}

/// The digests that an image is known by: those it was given, and those of its manifests.
pub fn digests(image: &Image, items: &[Item]) -> Vec<Digest> {
    let manifests = items.iter().filter(|item| item.key.starts_with("manifest")).map(|item| &item.digest);
    let mut digests: Vec<Digest> = Vec::new();
    for digest in image.digests.iter().chain(manifests) {
        if !digests.contains(digest) {
            digests.push(digest.clone());
        }
    }
    digests
}

/// The keys of data items.
pub fn keys(items: &[Item]) -> Vec<String> {
    items.iter().map(|item| item.key.clone()).collect()
}

/// Names as text.
pub fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn sizes(items: &[Item]) -> BTreeMap<String, u64> {
    items.iter().map(|item| (item.key.clone(), item.size)).collect()
}

fn item_digests(items: &[Item]) -> BTreeMap<String, String> {
    items.iter().map(|item| (item.key.clone(), item.digest.to_string())).collect()
}

/// The flags that a container was given, and those that are said of it in other words here.
fn container_flags(container: &Container) -> BTreeMap<String, Value> {
    let labels = [("MountLabel", &container.mount_label), ("ProcessLabel", &container.process_label)];
    let mut all: BTreeMap<String, Value> =
        labels.map(|(name, label)| (name.to_owned(), label.clone().unwrap_or_default().into())).into();
    if container.volatile {
        all.insert("Volatile".to_owned(), true.into());
    }
    if !container.mount_options.is_empty() {
        all.insert("MountOpts".to_owned(), container.mount_options.clone().into());
    }
    all.extend(flags(&container.flags));
    all
}

fn flags(flags: &[(String, String)]) -> Map<String, Value> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let mut sorted: Vec<_> = flags.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    sorted.into_iter().collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_none(compression: &u8) -> bool {
    *compression == 0
}
