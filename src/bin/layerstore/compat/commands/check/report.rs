//! What a check found, in the reference's groups and words.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore::{Damage, LayerId, SealedTree, ThingId};
use serde_json::{Map, Value, json};

use super::super::super::call::Call;
use super::super::super::console::Console;
use super::super::super::failure::Failure;

/// The groups, in the order in which they are told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Group {
    Layer,
    ReadOnlyLayer,
    Image,
    ReadOnlyImage,
    Container,
}

impl Group {
    /// All of them.
    pub const ALL: [Group; 5] =
        [Group::Layer, Group::ReadOnlyLayer, Group::Image, Group::ReadOnlyImage, Group::Container];

    /// How a finding begins.
    pub fn heading(self) -> &'static str {
        match self {
            Group::Layer => "layer",
            Group::ReadOnlyLayer => "read-only layer",
            Group::Image => "image",
            Group::ReadOnlyImage => "read-only image",
            Group::Container => "container",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Group::Layer => "Layers",
            Group::ReadOnlyLayer => "ROLayers",
            Group::Image => "Images",
            Group::ReadOnlyImage => "ROImages",
            Group::Container => "Containers",
        }
    }
}

/// The lines of each damaged thing.
#[derive(Debug, Default)]
pub struct Report {
    things: BTreeMap<(Group, String), Vec<String>>,
    is_other: bool,
    /// Whether bytes are damaged that data items may have.
    has_damaged_bytes: bool,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.things.is_empty()
    }

    /// How many findings a group has.
    pub fn count(&self, group: Group) -> usize {
        self.of(group).map(|(_, lines)| lines.len()).sum()
    }

    /// The ids of a group that have findings.
    pub fn ids(&self, group: Group) -> impl Iterator<Item = &str> {
        self.of(group).map(|(id, _)| id)
    }

    /// Prints the groups.
    pub fn print(&self, console: &Console) -> Result<(), Failure> {
        for ((group, id), lines) in &self.things {
            console.line(format_args!("{} {id}:", group.heading()))?;
            lines.iter().try_for_each(|line| console.line(format_args!(" {line}")))?;
        }
        Ok(())
    }

    /// The report as JSON: a finding is an empty object in it.
    pub fn document(&self) -> Map<String, Value> {
        let of_group = |group| -> Value {
            let things = self.of(group);
            things
                .map(|(id, lines)| (id.to_owned(), vec![json!({}); lines.len()].into()))
                .collect::<Map<_, _>>()
                .into()
        };
        Group::ALL.map(|group| (group.field().to_owned(), of_group(group))).into_iter().collect()
    }

    fn of(&self, group: Group) -> impl Iterator<Item = (&str, &Vec<String>)> {
        let things = self.things.iter().filter(move |((of, _), _)| *of == group);
        things.map(|((_, id), lines)| (id.as_str(), lines))
    }

    /// Says whether what is added next is about a store that is only read.
    pub fn of_other(&mut self, is_other: bool) {
        self.is_other = is_other;
    }

    /// A line about a thing. What is the same in several words is told once.
    fn line(&mut self, group: Group, id: &str, text: impl std::fmt::Display) {
        let group = match group {
            Group::Layer if self.is_other => Group::ReadOnlyLayer,
            Group::Image if self.is_other => Group::ReadOnlyImage,
            group => group,
        };
        self.add_line(group, id, format!("{} {id}: {text}", group.heading()));
    }

    fn add_line(&mut self, group: Group, id: &str, line: String) {
        let lines = self.things.entry((group, id.to_owned())).or_default();
        if !lines.contains(&line) {
            lines.push(line);
        }
    }

    /// A finding of the library. The quick form does not say which files differ.
    pub fn add(&mut self, damage: &Damage, is_quick: bool) {
        const WRONG_DIGEST: &str = "layer content incorrect digest";
        self.has_damaged_bytes |= damage.thing().starts_with("bytes ");
        match damage {
            Damage::ParentMissing { layer, .. } => self.line(Group::Layer, layer, "layer is missing"),
            Damage::ImageLayerMissing { image, layer } => {
                self.line(Group::Image, image, format_args!("layer {layer}: image layer is missing"));
            }
            Damage::ContainerImageMissing { container, image } => {
                self.add_line(Group::Container, container, format!("image {image}: image missing"));
            }
            Damage::ContainerLayerMissing { container, layer } => {
                self.line(Group::Container, container, format_args!("layer {layer}: layer is missing"));
            }
            Damage::PathMissing { tree, .. }
            | Damage::PathExtra { tree, .. }
            | Damage::PathChanged { tree, .. }
            | Damage::ContentChanged { tree, .. }
                if is_quick =>
            {
                self.of_tree(tree, WRONG_DIGEST);
            }
            Damage::PathMissing { tree, path } => self.path(tree, '-', path),
            Damage::PathExtra { tree, path } => self.path(tree, '+', path),
            Damage::PathChanged { tree, path, .. } | Damage::ContentChanged { tree, path, .. } => {
                self.path(tree, '-', path);
                self.path(tree, '+', path);
            }
            Damage::DiffIdWrong { layer, .. } => self.line(Group::Layer, layer, WRONG_DIGEST),
            Damage::SplitDamaged { layer, .. } => {
                self.line(Group::Layer, layer, "file integrity checksum failed");
            }
            Damage::ItemDamaged { owner, key, what } => {
                let wrong =
                    |kind: &str| format!("data item \"{key}\": {kind} data item has incorrect {what}");
                self.of_owner(owner, wrong);
            }
            // The reference has nothing like it; it is told nevertheless.
            other => {
                let thing = other.thing();
                match kind_and_id(&thing) {
                    Some((group, id)) => self.line(group, id, other),
                    None => self.line(Group::Layer, &thing, other),
                }
            }
        }
    }

    /// Something that no record names. What is no directory of a layer, the reference knows nothing of.
    pub fn add_garbage(&mut self, path: &Path) {
        let is_layer = path.parent().is_some_and(|parent| parent.ends_with("diffs"));
        if let Some(number) = path.file_name().filter(|_| is_layer) {
            self.add_unaccounted(&number.to_string_lossy());
        }
    }

    /// Something that would be a layer of the reference's driver, without a record.
    pub fn add_unaccounted(&mut self, id: &str) {
        self.line(Group::Layer, id, "layer in lower level storage driver not accounted for");
    }

    fn of_tree(&mut self, tree: &SealedTree, text: &str) {
        tree.layers.iter().for_each(|layer| self.line(Group::Layer, layer, text));
    }

    fn path(&mut self, tree: &SealedTree, sign: char, path: &Path) {
        let path = PathBuf::from("/").join(path);
        self.of_tree(tree, &format!("{sign}{}, layer content modified", path.display()));
    }

    fn of_owner(&mut self, owner: &str, text: impl Fn(&str) -> String) {
        match kind_and_id(owner) {
            Some((group, id)) => self.line(group, id, text(group.heading())),
            None => self.line(Group::Layer, owner, text("layer")),
        }
    }

    /// Data items that cannot be read: the library tells of the bytes, and scripts ask whose they are.
    pub fn add_unreadable_items(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        if !self.has_damaged_bytes {
            return Ok(());
        }
        let layers = call.store.layers()?.into_iter().map(|layer| (Group::Layer, ThingId::Layer(layer.id)));
        let images = call.store.images()?.into_iter().map(|image| (Group::Image, ThingId::Image(image.id)));
        let containers = call.store.containers()?.into_iter();
        let containers = containers.map(|container| (Group::Container, ThingId::Container(container.id)));
        for (group, owner) in layers.chain(images).chain(containers) {
            for item in call.store.items(&owner)? {
                if call.store.item(&owner, &item.key).is_err() {
                    let (key, kind) = (&item.key, group.heading());
                    let text = format_args!("data item \"{key}\": {kind} data item is missing");
                    self.line(group, owner.as_str(), text);
                }
            }
        }
        Ok(())
    }

    /// Layers that no image and no container stands on, if they are older than `max`.
    pub fn add_unused(&mut self, call: &Call<'_>, max: Duration) -> Result<(), Failure> {
        for layer in super::unused_layers(call, max)? {
            self.line(Group::Layer, layer.id.as_str(), "layer not referenced by any images or containers");
        }
        Ok(())
    }

    /// An image has the findings of its layers, and a container those of its image.
    pub fn inherit(&mut self, call: &Call<'_>) -> Result<(), Failure> {
        for image in call.store.images()? {
            let Some(top) = &image.top_layer else { continue };
            let group = if image.image_store.is_some() { Group::ReadOnlyImage } else { Group::Image };
            for layer in chain(call, top)? {
                for from in [Group::Layer, Group::ReadOnlyLayer] {
                    self.copy((from, layer.as_str()), (group, image.id.as_str()));
                }
            }
        }
        for container in call.store.containers()? {
            if let Some(image) = &container.image {
                for from in [Group::Image, Group::ReadOnlyImage] {
                    self.copy((from, image.as_str()), (Group::Container, container.id.as_str()));
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, (from, id): (Group, &str), to: (Group, &str)) {
        let lines = self.things.get(&(from, id.to_owned())).cloned().unwrap_or_default();
        if !lines.is_empty() {
            self.things.entry((to.0, to.1.to_owned())).or_default().extend(lines);
        }
    }
}

/// A layer and those below it, as far as they are there.
pub fn chain(call: &Call<'_>, top: &LayerId) -> Result<Vec<LayerId>, Failure> {
    let mut ids: Vec<LayerId> = Vec::new();
    let mut next = Some(top.clone());
    while let Some(id) = next {
        // A circle is told as what it is.
        if ids.contains(&id) {
            break;
        }
        next = super::super::super::lookup::layer(&call.store, id.as_str())?.and_then(|layer| layer.parent);
        ids.push(id);
    }
    Ok(ids)
}

fn kind_and_id(thing: &str) -> Option<(Group, &str)> {
    let (kind, id) = thing.split_once(' ')?;
    let group = match kind {
        "layer" => Group::Layer,
        "image" => Group::Image,
        "container" => Group::Container,
        _ => return None,
    };
    Some((group, id))
}
