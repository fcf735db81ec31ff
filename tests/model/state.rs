//! The model: what a store must show, as plain maps, and what it must answer to a lookup.

use std::collections::{BTreeMap, BTreeSet};

use layerstore::{Digest, LookupError};
use serde::{Deserialize, Serialize};

use super::action::said;
use super::images::Files;

/// The kinds of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    Layer,
    Image,
    Container,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Layer => "layer",
            Kind::Image => "image",
            Kind::Container => "container",
        }
    }
}

/// What every thing has.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Common {
    pub names: Vec<String>,
    pub metadata: String,
    pub flags: Vec<(String, String)>,
    pub items: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Layer {
    pub common: Common,
    pub parent: Option<String>,
    pub writable: bool,
    pub diff_id: Option<String>,
    pub blobs: Vec<String>,
    /// What it changes.
    pub files: Files,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Image {
    pub common: Common,
    pub history: Vec<String>,
    pub top: Option<String>,
    pub digests: Vec<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Container {
    pub common: Common,
    pub image: Option<String>,
    pub layer: String,
    /// The file in its directory.
    pub data: Option<Vec<u8>>,
}

/// A whole store.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct State {
    pub layers: BTreeMap<String, Layer>,
    pub images: BTreeMap<String, Image>,
    pub containers: BTreeMap<String, Container>,
    /// Blobs that are kept as delivered, with their sizes.
    pub kept: BTreeMap<String, u64>,
    /// How many have asked for a layer's mount.
    pub mounts: BTreeMap<String, u64>,
    /// Which of them were mounted read-only.
    pub views: BTreeSet<String>,
    /// Whether a process was killed since the last collection.
    pub littered: bool,
}

impl State {
    pub fn ids(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Layer => self.layers.keys().cloned().collect(),
            Kind::Image => self.images.keys().cloned().collect(),
            Kind::Container => self.containers.keys().cloned().collect(),
        }
    }

    pub fn common(&self, kind: Kind, id: &str) -> Option<&Common> {
        match kind {
            Kind::Layer => self.layers.get(id).map(|layer| &layer.common),
            Kind::Image => self.images.get(id).map(|image| &image.common),
            Kind::Container => self.containers.get(id).map(|container| &container.common),
        }
    }

    pub fn common_mut(&mut self, kind: Kind, id: &str) -> Option<&mut Common> {
        match kind {
            Kind::Layer => self.layers.get_mut(id).map(|layer| &mut layer.common),
            Kind::Image => self.images.get_mut(id).map(|image| &mut image.common),
            Kind::Container => self.containers.get_mut(id).map(|container| &mut container.common),
        }
    }

    /// Who has a name.
    pub fn holder(&self, kind: Kind, name: &str) -> Option<String> {
        let has = |id: &String| self.common(kind, id).unwrap().names.iter().any(|held| held == name);
        self.ids(kind).into_iter().find(has)
    }

    pub fn children(&self, layer: &str) -> Vec<String> {
        let is_child = |entry: &(&String, &Layer)| entry.1.parent.as_deref() == Some(layer);
        self.layers.iter().filter(is_child).map(|(id, _)| id.clone()).collect()
    }

    pub fn images_of_layer(&self, layer: &str) -> Vec<String> {
        let stands = |entry: &(&String, &Image)| entry.1.top.as_deref() == Some(layer);
        self.images.iter().filter(stands).map(|(id, _)| id.clone()).collect()
    }

    pub fn container_of_layer(&self, layer: &str) -> Option<String> {
        self.containers.iter().find(|(_, container)| container.layer == layer).map(|(id, _)| id.clone())
    }

    pub fn containers_of_image(&self, image: &str) -> Vec<String> {
        let stands = |entry: &(&String, &Container)| entry.1.image.as_deref() == Some(image);
        self.containers.iter().filter(stands).map(|(id, _)| id.clone()).collect()
    }

    /// Whether a layer above this one is mounted.
    pub fn is_shown(&self, layer: &str) -> bool {
        self.children(layer).iter().any(|child| self.mounts.contains_key(child) || self.is_shown(child))
    }

    /// A layer and all below it, the topmost first.
    pub fn chain(&self, top: Option<&str>) -> Vec<String> {
        let next = |id: &&str| self.layers[*id].parent.as_deref();
        std::iter::successors(top, next).map(str::to_owned).collect()
    }

    /// Whether nobody writes to any layer that a layer or an image shows. Not so of what is not there.
    pub fn is_sealed(&self, kind: Kind, id: &str) -> bool {
        let top = match kind {
            Kind::Layer => self.layers.contains_key(id).then_some(Some(id)),
            Kind::Image => self.images.get(id).map(|image| image.top.as_deref()),
            Kind::Container => None,
        };
        top.is_some_and(|top| self.chain(top).iter().all(|layer| !self.layers[layer].writable))
    }

    /// The files that a mount of a layer shows.
    pub fn merged(&self, top: Option<&str>) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for layer in self.chain(top).iter().rev() {
            for (name, content) in &self.layers[layer].files {
                match content {
                    Some(content) => drop(files.insert(name.clone(), content.clone())),
                    None => drop(files.remove(name)),
                }
            }
        }
        files
    }

    /// What a layer changes, as the store writes it.
    pub fn changes(&self, layer: &str) -> Vec<String> {
        let below = self.merged(self.layers[layer].parent.as_deref());
        let line = |(name, content): (&String, &Option<Vec<u8>>)| match (content, below.contains_key(name)) {
            (None, true) => Some(format!("D /{name}")),
            (None, false) => None,
            (Some(_), true) => Some(format!("C /{name}")),
            (Some(_), false) => Some(format!("A /{name}")),
        };
        self.layers[layer].files.iter().filter_map(line).collect()
    }

    /// What a lookup of `key` must find.
    pub fn find(&self, kind: Kind, key: &str) -> Result<String, LookupError> {
        let not_found = || LookupError::NotFound { kind: kind.word(), key: key.to_owned() };
        if let Some(id) = self.find_exactly(kind, key) {
            return Ok(id);
        }
        if key.is_empty() {
            return Err(not_found());
        }
        let mut found = self.ids(kind).into_iter().filter(|id| id.starts_with(key));
        match (found.next(), found.next()) {
            (None, _) => Err(not_found()),
            (Some(id), None) => Ok(id),
            (Some(first), Some(second)) => {
                Err(LookupError::Ambiguous { kind: kind.word(), prefix: key.to_owned(), first, second })
            }
        }
    }

    /// What is called just `key`: by its id, a name or a digest.
    fn find_exactly(&self, kind: Kind, key: &str) -> Option<String> {
        let by_id = self.ids(kind).iter().any(|id| id == key).then(|| key.to_owned());
        by_id.or_else(|| self.holder(kind, key)).or_else(|| self.by_digest(kind, key))
    }

    fn by_digest(&self, kind: Kind, key: &str) -> Option<String> {
        let digest: Digest = key.parse().ok()?;
        match kind {
            Kind::Container => None,
            Kind::Image => {
                let known = |entry: &(&String, &Image)| entry.1.digests.iter().any(|held| held == key);
                let by_manifest = self.images.iter().find(known).map(|(id, _)| id.clone());
                let by_config = || self.images.contains_key(digest.hex()).then(|| digest.hex().to_owned());
                by_manifest.or_else(by_config)
            }
            Kind::Layer => {
                let is_diff = |entry: &(&String, &Layer)| entry.1.diff_id.as_deref() == Some(key);
                let is_blob = |entry: &(&String, &Layer)| entry.1.blobs.iter().any(|blob| blob == key);
                let by_diff = self.layers.iter().find(is_diff);
                by_diff.or_else(|| self.layers.iter().find(is_blob)).map(|(id, _)| id.clone())
            }
        }
    }

    /// What a lookup of any kind of thing must find, or say.
    pub fn find_thing(&self, key: &str) -> Result<(Kind, String), String> {
        let kinds = [Kind::Container, Kind::Image, Kind::Layer];
        if let Some(found) = kinds.iter().find_map(|kind| Some((*kind, self.find_exactly(*kind, key)?))) {
            return Ok(found);
        }
        for kind in kinds {
            match self.find(kind, key) {
                Ok(id) => return Ok((kind, id)),
                Err(LookupError::NotFound { .. }) => {}
                Err(error) => return Err(said(error)),
            }
        }
        let kind = "container, image or layer";
        Err(said(LookupError::NotFound { kind, key: key.to_owned() }))
    }

    /// Everything that a lookup may be asked for.
    pub fn keys(&self) -> BTreeSet<String> {
        let mut keys: BTreeSet<String> = super::op::NAMES.iter().map(|name| (*name).to_owned()).collect();
        keys.extend(["", "c", "absent", "sha256:00"].map(str::to_owned));
        keys.extend(self.containers.keys().cloned());
        for id in self.images.keys().chain(self.layers.keys()) {
            keys.extend([1, 2, 8, id.len()].map(|length| id[..length.min(id.len())].to_owned()));
        }
        keys.extend(self.images.keys().map(|id| format!("sha256:{id}")));
        keys.extend(self.images.values().flat_map(|image| image.digests.clone()));
        for layer in self.layers.values() {
            keys.extend(layer.diff_id.clone());
            keys.extend(layer.blobs.clone());
        }
        keys
    }
}
