//! What a store must show, as plain maps, and what an operation does to them.

use std::collections::{BTreeMap, BTreeSet};

use super::op::{Change, Kind, Op, Target, layer_of, tar};
use crate::types::Digest;

/// What every thing has.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) names: BTreeSet<String>,
    pub(super) metadata: String,
    /// The digests of its items.
    pub(super) items: BTreeMap<String, String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) common: Common,
    pub(super) parent: Option<String>,
    pub(super) is_writable: bool,
    pub(super) diff_id: Option<String>,
    /// What it changes, as the store says it.
    pub(super) changes: Vec<String>,
    /// The kind of snapshot that it is.
    pub(super) snapshot: Option<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) common: Common,
    pub(super) top: Option<String>,
}

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) common: Common,
    pub(super) image: Option<String>,
    pub(super) layer: String,
}

/// All that a user sees of a store, without what chance and time decide.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) layers: BTreeMap<String, Layer>,
    pub(super) images: BTreeMap<String, Image>,
    pub(super) containers: BTreeMap<String, Container>,
    pub(super) leases: BTreeMap<String, BTreeSet<Target>>,
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
                self.refuse_leased(Kind::Layer, &removed.layer)?;
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
            Op::CopyLayer { id, of, parent } => self.copy_layer(id, of, parent.as_deref()),
            Op::ApplyDiff { id, files } => self.apply_diff(id, files),
            Op::Seal(id) => {
                let is_containers = self.containers.values().any(|container| container.layer == *id);
                let layer = self.layers.get_mut(id)?;
                if layer.is_writable && (is_containers || layer.snapshot.is_some()) {
                    return None;
                }
                layer.is_writable = false;
                Some(())
            }
            Op::Unseal(id) => {
                let is_needed = self.is_below(id) || self.refuse_leased(Kind::Layer, id).is_none();
                let layer = self.layers.get_mut(id)?;
                if layer.is_writable {
                    return Some(());
                }
                (layer.is_writable, layer.diff_id) = (true, None);
                (!is_needed && layer.snapshot.is_none()).then_some(())
            }
            Op::RemoveLayer(id) => {
                let is_used = self.is_used(id);
                self.layers.remove(id).filter(|layer| !is_used && layer.snapshot.is_none()).map(drop)
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
            Op::EndLease(id) => {
                for thing in self.leases.remove(id)?.into_iter().filter(|thing| thing.kind == Kind::Layer) {
                    self.remove_unneeded(Some(thing.id));
                }
                Some(())
            }
            Op::Snapshot(snapshot) => self.snapshot(snapshot),
            Op::Dedup | Op::Gc | Op::Check | Op::Reopen => Some(()),
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

    pub(super) fn new_layer(
        &mut self,
        id: &str,
        parent: Option<&str>,
        names: &[String],
    ) -> Option<&mut Layer> {
        if self.layers.contains_key(id) || self.holder(Kind::Layer, id).is_some() {
            return None;
        }
        if let Some(parent) = parent
            && !self.can_be_below(parent)
        {
            return None;
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
        if layer.is_some_and(|layer| !self.can_be_below(layer)) {
            return None;
        }
        for image in self.images.values_mut() {
            image.common.names.retain(|name| !names.contains(name));
        }
        let items = BTreeMap::from([("manifest".to_owned(), Digest::sha256(content).to_string())]);
        let common = Common { names: names.iter().cloned().collect(), items, ..Common::default() };
        self.images.insert(id.to_owned(), Image { common, top: layer.map(str::to_owned) });
        Some(())
    }

    fn remove_image(&mut self, id: &str) -> Option<()> {
        self.refuse_leased(Kind::Image, id)?;
        if self.containers.values().any(|container| container.image.as_deref() == Some(id)) {
            return None;
        }
        let top = self.images.remove(id)?.top;
        self.remove_unneeded(top);
        Some(())
    }

    /// Removes a layer and those below it as far down as nothing needs them. A name is a need.
    fn remove_unneeded(&mut self, mut next: Option<String>) {
        while let Some(id) = next.filter(|id| !self.is_used(id)) {
            let is_named = |layer: &Layer| !layer.common.names.is_empty();
            if self.layers.get(&id).is_none_or(is_named) {
                break;
            }
            next = self.layers.remove(&id).and_then(|removed| removed.parent);
        }
    }

    /// A sealed layer and its copy share what they have; of one that is written to the copy is written to as well.
    fn copy_layer(&mut self, id: &str, of: &str, parent: Option<&str>) -> Option<()> {
        let Layer { is_writable, diff_id, changes, .. } = self.layers.get(of)?.clone();
        let copy = self.new_layer(id, parent, &[])?;
        (copy.is_writable, copy.diff_id, copy.changes) = (is_writable, diff_id, changes);
        self.tell_changes(id)
    }

    fn apply_diff(&mut self, id: &str, files: &[(String, u8)]) -> Option<()> {
        let layer = self.layers.get(id)?;
        let is_containers = self.containers.values().any(|container| container.layer == id);
        let is_empty = layer.changes.is_empty();
        let stays_writable = layer.is_writable && !is_empty || is_containers;
        if self.is_below(id) || layer.snapshot.is_some() || self.refuse_leased(Kind::Layer, id).is_none() {
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
    pub(super) fn fill(&mut self, id: &str, files: &[(String, u8)]) -> Option<()> {
        let layer = self.layers.get_mut(id)?;
        layer.diff_id = Some(Digest::sha256(&tar(files).ok()?).to_string());
        layer.changes.extend(files.iter().map(|(name, _)| format!("A /{name}")));
        self.tell_changes(id)
    }

    /// Says what a layer does to the files of those below it, which may be others now.
    pub(super) fn tell_changes(&mut self, id: &str) -> Option<()> {
        let name = |change: &String| change.split_once('/').map(|(_, name)| name.to_owned());
        let mut below = BTreeSet::new();
        let mut next = self.parent(id);
        while let Some(layer) = next {
            below.extend(self.layers.get(&layer)?.changes.iter().filter_map(name));
            next = self.parent(&layer);
        }
        let layer = self.layers.get_mut(id)?;
        // In the order of their names.
        let own: BTreeSet<_> = layer.changes.iter().filter_map(name).collect();
        let told = |name: &String| format!("{} /{name}", if below.contains(name) { "C" } else { "A" });
        layer.changes = own.iter().map(told).collect();
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
                self.common(of)?.items.insert(key.clone(), Digest::sha256(content).to_string());
                Some(())
            }
            Change::RemoveItem(of, key) => self.common(of)?.items.remove(key).map(drop),
        }
    }

    fn set_names(&mut self, of: &Target, change: impl FnOnce(&mut BTreeSet<String>)) -> Option<()> {
        let mut names = self.common(of)?.names.clone();
        change(&mut names);
        let is_others = |name: &String| self.holder(of.kind, name).is_some_and(|holder| holder != of.id);
        let is_snapshot =
            of.kind == Kind::Layer && self.layers.get(&of.id).is_some_and(|layer| layer.snapshot.is_some());
        // A snapshot may not lose the name that makes it one.
        if names.iter().any(is_others) || is_snapshot && !names.contains(&of.id) {
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

    pub(super) fn is_used(&self, id: &str) -> bool {
        self.is_below(id)
            || self.containers.values().any(|container| container.layer == id)
            || self.refuse_leased(Kind::Layer, id).is_none()
    }

    /// Whether there is such a layer, and others can stand on it.
    fn can_be_below(&self, id: &str) -> bool {
        self.layers.get(id).is_some_and(|layer| !layer.is_uncommitted())
            && !self.containers.values().any(|container| container.layer == id)
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
