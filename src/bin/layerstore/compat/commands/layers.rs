//! `layers`, `layer`.

use std::collections::{BTreeMap, HashSet};

use layerstore::{Container, Image, Layer};

use super::super::call::Call;
use super::super::failure::Failure;
use super::super::lookup;
use super::super::records::LayerRecord;
use super::super::table::{QUICK, TREE};

pub fn list(call: &Call<'_>) -> Result<(), Failure> {
    let mut layers = lookup::layers(&call.store)?;
    // Those of other stores stand behind the own ones.
    layers.sort_by_cached_key(|layer| {
        (call.store_order(layer.image_store.as_deref()), layer.created, layer.id.clone())
    });
    if call.flags.is(&TREE) {
        return Tree::new(call, &layers)?.print();
    }
    if call.is_json() {
        // The reference's word for no layers at all.
        return if layers.is_empty() {
            call.console.json(&())
        } else {
            call.console.json(&records(call, &layers)?)
        };
    }
    let users = Users::new(call)?;
    for layer in &layers {
        call.console.line(&layer.id)?;
        if call.flags.is(&QUICK) {
            continue;
        }
        for name in &layer.names {
            call.console.line(format_args!("\tname: {name}"))?;
        }
        for image in users.images_of(layer) {
            call.console.line(format_args!("\timage: {}", image.id))?;
            for name in &image.names {
                call.console.line(format_args!("\t\tname: {name}"))?;
            }
        }
        for container in users.containers_of(layer) {
            call.console.line(format_args!("\tcontainer: {}", container.id))?;
            for name in &container.names {
                call.console.line(format_args!("\t\tname: {name}"))?;
            }
        }
    }
    Ok(())
}

pub fn show(call: &Call<'_>) -> Result<(), Failure> {
    let mut layers = Vec::new();
    for word in &call.args {
        layers.extend(lookup::layer(&call.store, word)?);
    }
    if call.is_json() {
        call.console.json(&records(call, &layers)?)?;
    } else {
        layers.iter().try_for_each(|layer| describe(call, layer))?;
    }
    if layers.len() == call.args.len() { Ok(()) } else { Err(Failure::Told) }
}

fn records(call: &Call<'_>, layers: &[Layer]) -> Result<Vec<LayerRecord>, Failure> {
    layers.iter().map(|layer| LayerRecord::new(layer, &call.store)).collect()
}

fn describe(call: &Call<'_>, layer: &Layer) -> Result<(), Failure> {
    call.console.line(format_args!("ID: {}", layer.id))?;
    for (kind, map) in [("UID", &layer.uid_map), ("GID", &layer.gid_map)] {
        for run in map {
            let (inside, outside, count) = (run.inside, run.outside, run.count);
            call.console
                .line(format_args!("{kind} mapping: (container={inside}, host={outside}, size={count})"))?;
        }
    }
    if let Some(parent) = &layer.parent {
        call.console.line(format_args!("Parent: {parent}"))?;
    }
    layer.names.iter().try_for_each(|name| call.console.line(format_args!("Name: {name}")))?;
    if layer.image_store.is_some() { call.console.line("Read Only: true") } else { Ok(()) }
}

/// Who stands on which layer.
struct Users {
    images: Vec<Image>,
    containers: Vec<Container>,
}

impl Users {
    fn new(call: &Call<'_>) -> Result<Self, Failure> {
        Ok(Users { images: call.store.images()?, containers: call.store.containers()? })
    }

    fn images_of(&self, layer: &Layer) -> impl Iterator<Item = &Image> {
        let is_top = |image: &&Image| {
            image.top_layer.iter().chain(&image.mapped_top_layers).any(|top| *top == layer.id)
        };
        self.images.iter().filter(is_top)
    }

    fn containers_of(&self, layer: &Layer) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.layer == layer.id)
    }
}

/// The lines of the tree.
mod lines {
    pub const BRANCH: &str = "\u{251c}\u{2500}";
    pub const LAST: &str = "\u{2514}\u{2500}";
    pub const DOWN: &str = "\u{2502} ";
    pub const BLANK: &str = "  ";
}

/// Layers under their parents.
struct Tree<'a> {
    call: &'a Call<'a>,
    users: Users,
    children: BTreeMap<Option<&'a str>, Vec<&'a Layer>>,
}

impl<'a> Tree<'a> {
    fn new(call: &'a Call<'a>, layers: &'a [Layer]) -> Result<Self, Failure> {
        let known: HashSet<&str> = layers.iter().map(|layer| layer.id.as_str()).collect();
        let mut children: BTreeMap<Option<&str>, Vec<&Layer>> = BTreeMap::new();
        for layer in layers {
            let parent = layer.parent.as_ref().map(layerstore::LayerId::as_str);
            children.entry(parent.filter(|parent| known.contains(parent))).or_default().push(layer);
        }
        Ok(Tree { call, users: Users::new(call)?, children })
    }

    /// Prints it without recursion: a stack of layers is as deep as somebody makes it.
    fn print(&self) -> Result<(), Failure> {
        self.call.console.line("(base)")?;
        let mut open = self.nodes_below(None, "");
        while let Some((layer, before, is_last)) = open.pop() {
            let (branch, down) =
                if is_last { (lines::LAST, lines::BLANK) } else { (lines::BRANCH, lines::DOWN) };
            self.call.console.line(format_args!("{before}{branch}{}", layer.id))?;
            let before = format!("{before}{down}");
            self.print_details(layer, &before)?;
            open.extend(self.nodes_below(Some(layer.id.as_str()), &before));
        }
        Ok(())
    }

    /// The layers above `parent` with what stands before their lines, and whether it is the last: the first to print at
    /// the end.
    fn nodes_below(&self, parent: Option<&str>, before: &str) -> Vec<(&'a Layer, String, bool)> {
        let children = self.children.get(&parent).map_or(&[][..], Vec::as_slice);
        let from_the_end = children.iter().rev().enumerate();
        from_the_end.map(|(index, layer)| (*layer, before.to_owned(), index == 0)).collect()
    }

    fn print_details(&self, layer: &Layer, before: &str) -> Result<(), Failure> {
        let line = |what: &str, text: &dyn std::fmt::Display| {
            self.call.console.line(format_args!("{before}{what}: {text}"))
        };
        for name in &layer.names {
            line("name", name)?;
        }
        if let Some(mount) = self.call.store.mounted(layer)? {
            line("mount", &mount.path().display())?;
        }
        for image in self.users.images_of(layer) {
            line("image", &image.id)?;
            image.names.iter().try_for_each(|name| line("image name", name))?;
        }
        for container in self.users.containers_of(layer) {
            line("container", &container.id)?;
            container.names.iter().try_for_each(|name| line("container name", name))?;
        }
        Ok(())
    }
}
