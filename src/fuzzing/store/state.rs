//! What a store must show, as plain maps, and what an operation does to them.

use std::collections::{BTreeMap, BTreeSet};

use super::op::{Change, Kind, Op, Target, layer_of, tar};
use crate::error::Error;
use crate::store::{Store, ThingId};
use crate::types::Digest;

/// What every thing has.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Common {
    names: BTreeSet<String>,
    metadata: String,
    items: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Layer {
    common: Common,
    parent: Option<String>,
    is_writable: bool,
    diff_id: Option<String>,
    /// What it changes, as the store says it.
    changes: Vec<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Image {
    common: Common,
    top: Option<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
struct Container {
    common: Common,
    image: Option<String>,
    layer: String,
}

/// All that a user sees of a store, without what chance and time decide.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct State {
    layers: BTreeMap<String, Layer>,
    images: BTreeMap<String, Image>,
    containers: BTreeMap<String, Container>,
    leases: BTreeMap<String, BTreeSet<Target>>,
}

/// What must come of an operation.
pub(super) enum Predicted {
    /// It is refused, and changes nothing.
    Refused,
    /// This.
    State(State),
    /// This, or one image more, whose id is that of its content, on the layer below that of the container.
    Committed(State, String),
}

impl Predicted {
    /// Whether `found` is it.
    pub(super) fn is(&self, found: &State) -> bool {
        match self {
            Predicted::Refused => false,
            Predicted::State(state) => state == found,
            Predicted::Committed(before, container) => before.is_before_commit_to(found, container),
        }
    }
}

/// What the store shows.
pub(super) fn observe(store: &Store) -> Result<State, Error> {
    let mut state = State::default();
    for layer in store.layers()? {
        let of = ThingId::Layer(layer.id.clone());
        let changes = store.changes(&layer)?.iter().map(ToString::to_string).collect();
        let row = Layer {
            common: common(store, of, &layer.names, &layer.metadata)?,
            parent: layer.parent.as_ref().map(ToString::to_string),
            is_writable: layer.is_writable(),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            changes,
        };
        state.layers.insert(layer.id.to_string(), row);
    }
    for image in store.images()? {
        let common = common(store, ThingId::Image(image.id.clone()), &image.names, &image.metadata)?;
        let top = image.top_layer.as_ref().map(ToString::to_string);
        state.images.insert(image.id.to_string(), Image { common, top });
    }
    for container in store.containers()? {
        let of = ThingId::Container(container.id.clone());
        let row = Container {
            common: common(store, of, &container.names, &container.metadata)?,
            image: container.image.as_ref().map(ToString::to_string),
            layer: container.layer.to_string(),
        };
        state.containers.insert(container.id.to_string(), row);
    }
    for lease in store.leases()? {
        let target = |thing: &ThingId| match thing {
            ThingId::Layer(id) => Target { kind: Kind::Layer, id: id.to_string() },
            ThingId::Image(id) => Target { kind: Kind::Image, id: id.to_string() },
            ThingId::Container(id) => Target { kind: Kind::Container, id: id.to_string() },
        };
        state.leases.insert(lease.id.to_string(), lease.things.iter().map(target).collect());
    }
    Ok(state)
}

fn common<N: ToString>(store: &Store, of: ThingId, names: &[N], metadata: &str) -> Result<Common, Error> {
    let mut items = BTreeMap::new();
    for item in store.items(of.clone())? {
        let bytes = store.item(of.clone(), &item.key)?;
        items.insert(item.key, bytes);
    }
    Ok(Common {
        names: names.iter().map(ToString::to_string).collect(),
        metadata: metadata.to_owned(),
        items,
    })
}

impl State {
    /// What must come of an operation.
    pub(super) fn predict(&self, op: &Op) -> Predicted {
        let mut next = self.clone();
        match (next.apply(op), op) {
            (None, _) => Predicted::Refused,
            (Some(()), Op::Commit(container)) => Predicted::Committed(next, container.clone()),
            (Some(()), _) => Predicted::State(next),
        }
    }

    /// `None` if it is refused.
    fn apply(&mut self, op: &Op) -> Option<()> {
        match op {
            Op::CreateContainer { id, image, names } => self.create_container(id, image.as_deref(), names),
            Op::RemoveContainer(id) => {
                self.refuse_leased(Kind::Container, id)?;
                let removed = self.containers.remove(id)?;
                self.layers.remove(&removed.layer).map(drop)
            }
            Op::CreateLayer { id, parent, names } => {
                self.new_layer(id, parent.as_deref(), names)?.is_writable = true;
                Some(())
            }
            Op::PutLayer { id, parent, names, files } => {
                self.new_layer(id, parent.as_deref(), names)?;
                self.fill(id, files)
            }
            Op::ApplyDiff { id, files } => self.apply_diff(id, files),
            Op::Seal(id) => {
                let is_containers = self.containers.values().any(|container| container.layer == *id);
                let layer = self.layers.get_mut(id)?;
                if layer.is_writable && is_containers {
                    return None;
                }
                layer.is_writable = false;
                Some(())
            }
            Op::Unseal(id) => {
                let is_below = self.is_below(id);
                let layer = self.layers.get_mut(id)?;
                if layer.is_writable {
                    return Some(());
                }
                (layer.is_writable, layer.diff_id) = (true, None);
                (!is_below).then_some(())
            }
            Op::RemoveLayer(id) => {
                let is_used = self.is_used(id);
                self.layers.remove(id).filter(|_| !is_used).map(drop)
            }
            Op::CreateImage { id, layer, names, content } => {
                self.create_image(id, layer.as_deref(), names, content)
            }
            Op::RemoveImage(id) => self.remove_image(id),
            Op::Write(changes) => changes.iter().try_for_each(|change| self.change(change)),
            Op::Commit(id) => {
                let container = self.containers.get(id)?;
                if container.image.is_some() {
                    // Its documents are any bytes.
                    return None;
                }
                let mut below = self.parent(&container.layer);
                while let Some(layer) = below {
                    self.layers.get(&layer)?.diff_id.as_ref()?;
                    below = self.parent(&layer);
                }
                Some(())
            }
            Op::Lease { id, of } => {
                self.common(of)?;
                self.leases.entry(id.clone()).or_default().insert(of.clone());
                Some(())
            }
            Op::EndLease(id) => self.leases.remove(id).map(drop),
            Op::Gc | Op::Check | Op::Reopen => Some(()),
        }
    }

    fn create_container(&mut self, id: &str, image: Option<&str>, names: &[String]) -> Option<()> {
        let parent = match image {
            Some(image) => Some(self.images.get(image)?.top.clone()?),
            None => None,
        };
        let layer = layer_of(id);
        let is_taken = self.containers.contains_key(id) || self.layers.contains_key(&layer);
        if is_taken || self.holder(Kind::Container, id).is_some() {
            return None;
        }
        let row = Container { image: image.map(str::to_owned), layer: layer.clone(), ..Container::default() };
        self.containers.insert(id.to_owned(), row);
        self.layers.insert(layer, Layer { parent, is_writable: true, ..Layer::default() });
        self.set_names(&Target { kind: Kind::Container, id: id.to_owned() }, |held| {
            held.extend(names.to_vec())
        })
    }

    fn new_layer(&mut self, id: &str, parent: Option<&str>, names: &[String]) -> Option<&mut Layer> {
        if self.layers.contains_key(id) || self.holder(Kind::Layer, id).is_some() {
            return None;
        }
        if let Some(parent) = parent {
            self.layers.get(parent)?;
            if self.containers.values().any(|container| container.layer == parent) {
                return None;
            }
        }
        self.layers.insert(id.to_owned(), Layer { parent: parent.map(str::to_owned), ..Layer::default() });
        self.set_names(&Target { kind: Kind::Layer, id: id.to_owned() }, |held| held.extend(names.to_vec()))?;
        self.layers.get_mut(id)
    }

    fn create_image(
        &mut self,
        id: &str,
        layer: Option<&str>,
        names: &[String],
        content: &[u8],
    ) -> Option<()> {
        if self.images.contains_key(id) || self.holder(Kind::Image, id).is_some() {
            return None;
        }
        if let Some(layer) = layer {
            self.layers.get(layer)?;
            if self.containers.values().any(|container| container.layer == layer) {
                return None;
            }
        }
        for image in self.images.values_mut() {
            image.common.names.retain(|name| !names.contains(name));
        }
        let items = BTreeMap::from([("manifest".to_owned(), content.to_vec())]);
        let common = Common { names: names.iter().cloned().collect(), items, ..Common::default() };
        self.images.insert(id.to_owned(), Image { common, top: layer.map(str::to_owned) });
        Some(())
    }

    fn remove_image(&mut self, id: &str) -> Option<()> {
        self.refuse_leased(Kind::Image, id)?;
        if self.containers.values().any(|container| container.image.as_deref() == Some(id)) {
            return None;
        }
        let mut next = self.images.remove(id)?.top;
        while let Some(layer) = next.filter(|layer| !self.is_used(layer)) {
            if !self.layers.get(&layer)?.common.names.is_empty() {
                break;
            }
            next = self.layers.remove(&layer)?.parent;
        }
        Some(())
    }

    fn apply_diff(&mut self, id: &str, files: &[(String, u8)]) -> Option<()> {
        let layer = self.layers.get(id)?;
        let is_containers = self.containers.values().any(|container| container.layer == id);
        let is_empty = layer.changes.is_empty();
        let stays_writable = layer.is_writable && !is_empty || is_containers;
        if self.is_below(id) {
            return None;
        }
        self.fill(id, files)?;
        let layer = self.layers.get_mut(id)?;
        layer.is_writable = stays_writable;
        if !is_empty || stays_writable {
            layer.diff_id = None;
        }
        Some(())
    }

    /// Adds files to a layer, and makes its diffID what it is if there were none.
    fn fill(&mut self, id: &str, files: &[(String, u8)]) -> Option<()> {
        let mut below = BTreeSet::new();
        let mut next = self.parent(id);
        while let Some(layer) = next {
            let changes = &self.layers.get(&layer)?.changes;
            below.extend(changes.iter().filter_map(|change| Some(change.split_once('/')?.1.to_owned())));
            next = self.parent(&layer);
        }
        let digest = Digest::sha256(&tar(files).ok()?).to_string();
        let layer = self.layers.get_mut(id)?;
        for (name, _) in files {
            let kind = if below.contains(name) { "C" } else { "A" };
            layer.changes.push(format!("{kind} /{name}"));
        }
        // In the order of their names.
        layer.changes.sort_by_key(|change| change.split_once('/').map(|(_, name)| name.to_owned()));
        layer.changes.dedup();
        layer.diff_id = Some(digest);
        Some(())
    }

    fn change(&mut self, change: &Change) -> Option<()> {
        match change {
            Change::SetNames(of, names) => self.set_names(of, |held| *held = names.iter().cloned().collect()),
            Change::AddName(of, name) => self.set_names(of, |held| held.extend([name.clone()])),
            Change::RemoveName(of, name) => self.set_names(of, |held| held.retain(|other| other != name)),
            Change::MoveName(to, name) => {
                self.images.get(to)?;
                self.images.values_mut().for_each(|image| image.common.names.retain(|held| held != name));
                self.images.get_mut(to)?.common.names.insert(name.clone());
                Some(())
            }
            Change::SetMetadata(of, text) => {
                self.common(of)?.metadata.clone_from(text);
                Some(())
            }
            Change::PutItem(of, key, content) => {
                self.common(of)?.items.insert(key.clone(), content.clone());
                Some(())
            }
            Change::RemoveItem(of, key) => self.common(of)?.items.remove(key).map(drop),
        }
    }

    fn set_names(&mut self, of: &Target, change: impl FnOnce(&mut BTreeSet<String>)) -> Option<()> {
        let mut names = self.common(of)?.names.clone();
        change(&mut names);
        let is_others = |name: &String| self.holder(of.kind, name).is_some_and(|holder| holder != of.id);
        if names.iter().any(is_others) {
            return None;
        }
        self.common(of)?.names = names;
        Some(())
    }

    fn common(&mut self, of: &Target) -> Option<&mut Common> {
        match of.kind {
            Kind::Layer => self.layers.get_mut(&of.id).map(|row| &mut row.common),
            Kind::Image => self.images.get_mut(&of.id).map(|row| &mut row.common),
            Kind::Container => self.containers.get_mut(&of.id).map(|row| &mut row.common),
        }
    }

    /// Who has a name.
    fn holder(&self, kind: Kind, name: &str) -> Option<String> {
        let find = |mut rows: Box<dyn Iterator<Item = (&String, &Common)> + '_>| {
            rows.find(|(_, common)| common.names.contains(name)).map(|(id, _)| id.clone())
        };
        match kind {
            Kind::Layer => find(Box::new(self.layers.iter().map(|(id, row)| (id, &row.common)))),
            Kind::Image => find(Box::new(self.images.iter().map(|(id, row)| (id, &row.common)))),
            Kind::Container => find(Box::new(self.containers.iter().map(|(id, row)| (id, &row.common)))),
        }
    }

    fn parent(&self, layer: &str) -> Option<String> {
        self.layers.get(layer)?.parent.clone()
    }

    fn refuse_leased(&self, kind: Kind, id: &str) -> Option<()> {
        let of = Target { kind, id: id.to_owned() };
        (!self.leases.values().any(|things| things.contains(&of))).then_some(())
    }

    /// Whether a layer or an image stands on a layer.
    fn is_below(&self, id: &str) -> bool {
        self.layers.values().any(|layer| layer.parent.as_deref() == Some(id))
            || self.images.values().any(|image| image.top.as_deref() == Some(id))
    }

    fn is_used(&self, id: &str) -> bool {
        self.is_below(id) || self.containers.values().any(|container| container.layer == id)
    }

    /// Whether `after` has all of this, and at most one image more, which stands where the container does.
    fn is_before_commit_to(&self, after: &State, container: &str) -> bool {
        let of_container = self.containers.get(container).and_then(|row| self.parent(&row.layer));
        let is_new = |id: &&String| !self.images.contains_key(*id);
        let new: Vec<_> = after.images.keys().filter(is_new).collect();
        let stands = |image: &&String| {
            let top = after.images.get(*image).and_then(|image| image.top.clone());
            top.is_some_and(|top| after.parent(&top) == of_container)
        };
        self.containers == after.containers
            && self.leases == after.leases
            && self.layers.iter().all(|(id, layer)| after.layers.get(id) == Some(layer))
            && self.images.iter().all(|(id, image)| after.images.get(id) == Some(image))
            && after.layers.len() <= self.layers.len() + 1
            && new.len() <= 1
            && new.iter().all(stands)
    }
}
