//! What an operation must do to the model, and what it must answer.

use std::collections::BTreeMap;

use layerstore::{
    ContainerId, CreateError, Digest, Error, ImageId, ImportError, InUseError, LookupError, MetaError,
    MountError, Name, OciError,
};

use super::action::{Action, Change, Place, Target, Value, roll_back, said};
use super::images::{self, Files};
use super::op::Content;
use super::state::{Container, Image, Kind, Layer, State};

/// An id that the store chooses, until it is known.
pub const UNKNOWN: &str = "?";

impl State {
    /// The state after an operation and its answer, or the error, which changes nothing.
    pub fn predict(&self, action: &Action, place: &Place) -> Result<(State, Value), String> {
        let mut next = self.clone();
        let value = next.apply(action, place).map_err(said)?;
        Ok((next, value))
    }

    fn apply(&mut self, action: &Action, place: &Place) -> Result<Value, Error> {
        match action {
            Action::Load { image, names } => self.load(*image, names),
            Action::CreateContainer { id, image, names } => {
                self.create_container(id, image.as_deref(), names)
            }
            Action::CreateImage { id, layer, names, content } => {
                self.create_image(id, layer.as_deref(), names, *content)
            }
            Action::RemoveContainer(id) => self.remove_container(id, place),
            Action::EndMountsToRemove(kind, id) => self.end_mounts_to_remove(*kind, id, place),
            Action::RemoveImage(id) => self.remove_image(id, place),
            Action::RemoveLayer(id) => self.remove_layer(id, place),
            Action::CreateLayer { id, parent, template, names } => {
                self.new_layer(id, parent.as_deref(), names)?.writable = true;
                if let Some(template) = template {
                    // The id of the new layer itself is none yet.
                    let there = self.layers.get(template).filter(|_| template != id);
                    let from = there.ok_or_else(|| not_found(Kind::Layer, template))?.clone();
                    let made = self.layers.get_mut(id).unwrap();
                    let (common, parent) = (std::mem::take(&mut made.common), made.parent.take());
                    *made = Layer { common, parent, ..from };
                }
                Ok(Value::Nothing)
            }
            Action::WriteData { container, content } => {
                let row = self.containers.get_mut(container);
                row.ok_or_else(|| not_found(Kind::Container, container))?.data = Some(content.clone());
                Ok(Value::Nothing)
            }
            Action::MakeDirectory(of) => {
                let known = self.common(of.kind, &of.id).is_some();
                known.then_some(Value::Nothing).ok_or_else(|| not_found(of.kind, &of.id).into())
            }
            Action::RemoveRegardless(id) => {
                let row = self.containers.get(id).ok_or_else(|| not_found(Kind::Container, id))?;
                let layer = row.layer.clone();
                self.mounts.remove(&layer);
                self.views.remove(&layer);
                self.remove_container(id, place)
            }
            Action::Wipe => {
                *self = State { littered: self.littered, ..State::default() };
                Ok(Value::Nothing)
            }
            Action::PutLayer { id, parent, names, files } => {
                self.new_layer(id, parent.as_deref(), names)?.fill(files);
                Ok(Value::Nothing)
            }
            Action::ApplyDiff { layer, files } => self.apply_diff(layer, files, place),
            Action::Seal(id) => self.seal(id, place),
            Action::Unseal(id) => self.unseal(id, place),
            Action::Write { changes, go_on, roll_back } => self.write(changes, *go_on, *roll_back),
            Action::DropBlobs(digests) => {
                let asked = |digest: &String| digests.as_ref().is_none_or(|list| list.contains(digest));
                let bytes = self.kept.iter().filter(|(digest, _)| asked(digest)).map(|(_, size)| size).sum();
                self.kept.retain(|digest, _| !asked(digest));
                Ok(Value::Number(bytes))
            }
            Action::Mount(of) => {
                let layer = self.layer_of(of)?;
                if !self.mounts.contains_key(&layer) {
                    if of.kind == Kind::Image || !self.layers[&layer].writable {
                        self.views.insert(layer.clone());
                    } else if let Some(above) = self.standing_on(&layer) {
                        return Err(above.into());
                    }
                }
                let count = self.mounts.entry(layer).or_default();
                *count += 1;
                Ok(Value::Number(*count))
            }
            Action::Unmount { of, all } => self.unmount(of, *all, place),
            Action::WriteFile { container, file, content } => self.change_file(container, |layer, _| {
                layer.files.insert(file.clone(), Some(content.clone()));
            }),
            Action::RemoveFile { container, file } => self.change_file(container, |layer, is_below| {
                if is_below(file) {
                    layer.files.insert(file.clone(), None);
                } else {
                    layer.files.remove(file);
                }
            }),
            Action::Commit { container, names, .. } => self.commit(container, names),
            Action::Save { image, .. } => {
                let known = self.images.contains_key(image);
                known.then_some(Value::Nothing).ok_or_else(|| not_found(Kind::Image, image).into())
            }
            // What a killed process left is no business of the model; nothing else leaves anything.
            Action::Gc { dry_run } => {
                self.littered &= *dry_run;
                Ok(Value::Found(Vec::new()))
            }
            Action::Check { .. } => Ok(Value::Found(Vec::new())),
            Action::Reopen => Ok(Value::Nothing),
        }
    }

    fn load(&mut self, number: u8, names: &[String]) -> Result<Value, Error> {
        let known = &images::ALL.1[usize::from(number)];
        let names = if names.is_empty() { std::slice::from_ref(&known.tag) } else { names };
        checked(names)?;
        for layer in &known.layers {
            if let Some(row) = self.layers.get(&layer.id)
                && row.diff_id.as_ref() != Some(&layer.diff_id)
            {
                return Err(ImportError::OtherContent { layer: layer.id.clone() }.into());
            }
        }
        let mut below = None;
        for layer in &known.layers {
            let row = self.layers.entry(layer.id.clone()).or_insert_with(|| Layer {
                parent: below.clone(),
                diff_id: Some(layer.diff_id.clone()),
                files: layer.files.clone(),
                ..Layer::default()
            });
            if !row.blobs.contains(&layer.blob) {
                row.blobs.push(layer.blob.clone());
            }
            if layer.keep {
                self.kept.insert(layer.blob.clone(), layer.size);
            }
            below = Some(layer.id.clone());
        }
        let further = self.images.get(&known.id).is_some_and(|image| {
            let items = &image.common.items;
            items.get("manifest").is_some_and(|first| {
                let twin = |(key, bytes): (&String, &Vec<u8>)| key.starts_with("manifest-") && bytes == first;
                *first != known.manifest && items.iter().any(twin)
            })
        });
        let first = (!further).then(|| ("manifest".to_owned(), known.manifest.clone()));
        let items = [
            (format!("manifest-{}", known.manifest_digest), known.manifest.clone()),
            (format!("sha256:{}", known.id), known.config.clone()),
        ];
        self.bring_in(&known.id, below, &known.manifest_digest, names);
        let common = &mut self.images.get_mut(&known.id).unwrap().common;
        common.items.extend(items.into_iter().chain(first));
        let noted = common.items.remove("loaded-names").unwrap_or_else(|| b"{}".to_vec());
        let mut noted: BTreeMap<String, String> = serde_json::from_slice(&noted).unwrap();
        noted.retain(|name, _| common.names.contains(name) && !names.contains(name));
        if further {
            noted.extend(names.iter().map(|name| (name.clone(), known.manifest_digest.clone())));
        }
        if !noted.is_empty() {
            common.items.insert("loaded-names".to_owned(), serde_json::to_vec(&noted).unwrap());
        }
        Ok(Value::Image(known.id.clone()))
    }

    /// The record of an image that came in; new, or that of the same image.
    pub fn bring_in(&mut self, id: &str, top: Option<String>, manifest: &str, names: &[String]) {
        let fresh = || Image { top, ..Image::default() };
        let mut image = self.images.remove(id).unwrap_or_else(fresh);
        if !image.digests.iter().any(|held| held == manifest) {
            image.digests.push(manifest.to_owned());
        }
        for name in names {
            if !image.common.names.contains(name) {
                self.take_image_name(name);
                image.common.names.push(name.clone());
            }
        }
        remember(&mut image.history, names);
        self.images.insert(id.to_owned(), image);
    }

    fn take_image_name(&mut self, name: &str) {
        for image in self.images.values_mut() {
            image.common.names.retain(|held| held != name);
        }
    }

    fn create_container(&mut self, id: &str, image: Option<&str>, names: &[String]) -> Result<Value, Error> {
        checked(names)?;
        let parent = match image {
            None => None,
            Some(image) => {
                let row = self.images.get(image).ok_or_else(|| not_found(Kind::Image, image))?;
                let none = || CreateError::NoLayers { id: image.to_owned() };
                Some(row.top.clone().ok_or_else(none)?)
            }
        };
        if self.containers.contains_key(id) {
            return Err(CreateError::IdInUse { kind: "container", id: id.to_owned() }.into());
        }
        self.refuse_name(Kind::Container, id)?;
        let mut container =
            Container { image: image.map(str::to_owned), layer: UNKNOWN.to_owned(), ..Container::default() };
        container.common.metadata = format!("of {id}");
        self.containers.insert(id.to_owned(), container);
        self.layers.insert(UNKNOWN.to_owned(), Layer { parent, writable: true, ..Layer::default() });
        self.set_names(&Target { kind: Kind::Container, id: id.to_owned() }, |held| add(held, names))?;
        Ok(Value::Nothing)
    }

    fn create_image(
        &mut self,
        id: &str,
        layer: Option<&str>,
        names: &[String],
        content: Content,
    ) -> Result<Value, Error> {
        checked(names)?;
        if self.images.contains_key(id) {
            return Err(CreateError::IdInUse { kind: "image", id: id.to_owned() }.into());
        }
        self.refuse_name(Kind::Image, id)?;
        if let Some(layer) = layer.filter(|layer| !self.layers.contains_key(*layer)) {
            return Err(not_found(Kind::Layer, layer).into());
        }
        if let Some((layer, container)) =
            layer.and_then(|layer| Some((layer, self.container_of_layer(layer)?)))
        {
            return Err(CreateError::ParentOfContainer { layer: layer.to_owned(), container }.into());
        }
        let mut image = Image { top: layer.map(str::to_owned), ..Image::default() };
        image.digests = vec![Digest::sha256(&content.bytes()).to_string()];
        image.common.items.insert("manifest-made".to_owned(), content.bytes());
        add(&mut image.common.names, names);
        remember(&mut image.history, names);
        names.iter().for_each(|name| self.take_image_name(name));
        self.images.insert(id.to_owned(), image);
        Ok(Value::Nothing)
    }

    fn remove_container(&mut self, id: &str, place: &Place) -> Result<Value, Error> {
        let _: ContainerId = id.parse()?;
        let row = self.containers.get(id).ok_or_else(|| not_found(Kind::Container, id))?;
        let layer = row.layer.clone();
        let shown = shown(&row.common.names, id);
        self.refuse_mounted(&layer, format!("the container {shown}"), place)?;
        self.containers.remove(id);
        self.forget_layer(&layer);
        Ok(Value::Nothing)
    }

    /// Only what nothing else keeps loses its mounts.
    fn end_mounts_to_remove(&mut self, kind: Kind, id: &str, place: &Place) -> Result<Value, Error> {
        let (layer, remove): (_, fn(&mut Self, &str, &Place) -> _) = match kind {
            Kind::Container => (self.containers.get(id).map(|row| row.layer.clone()), Self::remove_container),
            _ => (Some(id.to_owned()), Self::remove_layer),
        };
        match (remove(self, id, place), layer) {
            (Err(Error::InUse(kept)), Some(layer)) if kept.is_mounted() => {
                self.mounts.remove(&layer);
                self.views.remove(&layer);
                remove(self, id, place)
            }
            (removed, _) => removed,
        }
    }

    fn remove_image(&mut self, id: &str, place: &Place) -> Result<Value, Error> {
        let _: ImageId = id.parse()?;
        let row = self.images.get(id).cloned().ok_or_else(|| not_found(Kind::Image, id))?;
        if let Some(container) = self.containers_of_image(id).first() {
            let image = shown(&row.common.names, id);
            let container = shown(&self.containers[container].common.names, container);
            return Err(InUseError::ImageOfContainer { image, container }.into());
        }
        self.images.remove(id);
        let mut removed = Vec::new();
        let mut next = row.top;
        while let Some(layer) = next {
            if self.user_of(&layer).is_some() || !self.layers[&layer].common.names.is_empty() {
                break;
            }
            self.refuse_mounted(&layer, format!("the image's layer {layer}"), place)?;
            next = self.forget_layer(&layer).parent;
            removed.push(layer);
        }
        Ok(Value::Layers(removed))
    }

    fn remove_layer(&mut self, id: &str, place: &Place) -> Result<Value, Error> {
        if !self.layers.contains_key(id) {
            return Err(not_found(Kind::Layer, id).into());
        }
        if let Some(user) = self.user_of(id) {
            return Err(user.into());
        }
        self.refuse_mounted(id, format!("the layer {id}"), place)?;
        self.forget_layer(id);
        Ok(Value::Nothing)
    }

    fn user_of(&self, id: &str) -> Option<InUseError> {
        self.standing_on(id).or_else(|| {
            let container = self.container_of_layer(id)?;
            Some(InUseError::LayerOfContainer { layer: id.to_owned(), container })
        })
    }

    fn standing_on(&self, id: &str) -> Option<InUseError> {
        let layer = id.to_owned();
        if let Some(child) = self.children(id).first().cloned() {
            return Some(InUseError::LayerHasChild { layer, child });
        }
        let image = self.images_of_layer(id).first().cloned()?;
        Some(InUseError::LayerOfImage { layer, image })
    }

    /// Refuses an id that is the name of another thing of the kind.
    fn refuse_name(&self, kind: Kind, id: &str) -> Result<(), Error> {
        match self.holder(kind, id) {
            Some(holder) => {
                Err(CreateError::IdIsName { kind: kind.word(), id: id.to_owned(), holder }.into())
            }
            None => Ok(()),
        }
    }

    fn new_layer(&mut self, id: &str, parent: Option<&str>, names: &[String]) -> Result<&mut Layer, Error> {
        checked(names)?;
        if self.layers.contains_key(id) {
            return Err(CreateError::IdInUse { kind: "layer", id: id.to_owned() }.into());
        }
        self.refuse_name(Kind::Layer, id)?;
        if let Some(parent) = parent {
            self.layers.get(parent).ok_or_else(|| not_found(Kind::Layer, parent))?;
            if let Some(container) = self.container_of_layer(parent) {
                return Err(CreateError::ParentOfContainer { layer: parent.to_owned(), container }.into());
            }
        }
        self.layers.insert(id.to_owned(), Layer { parent: parent.map(str::to_owned), ..Layer::default() });
        self.set_names(&Target { kind: Kind::Layer, id: id.to_owned() }, |held| add(held, names))?;
        Ok(self.layers.get_mut(id).unwrap())
    }

    fn apply_diff(&mut self, id: &str, files: &Files, place: &Place) -> Result<Value, Error> {
        let row = self.layers.get(id).ok_or_else(|| not_found(Kind::Layer, id))?;
        let stays_writable = row.writable && !row.files.is_empty() || self.container_of_layer(id).is_some();
        let is_empty = row.files.is_empty();
        if let Some(above) = self.standing_on(id) {
            return Err(above.into());
        }
        self.refuse_mounted(id, format!("the layer {id}"), place)?;
        self.forget_digests(id);
        let row = self.layers.get_mut(id).unwrap();
        row.writable = stays_writable;
        if is_empty && !stays_writable {
            row.fill(files);
        } else {
            row.files.extend(files.clone());
        }
        Ok(Value::Nothing)
    }

    fn seal(&mut self, id: &str, place: &Place) -> Result<Value, Error> {
        let row = self.layers.get(id).ok_or_else(|| not_found(Kind::Layer, id))?;
        if row.writable {
            if let Some(container) = self.container_of_layer(id) {
                return Err(InUseError::LayerOfContainer { layer: id.to_owned(), container }.into());
            }
            self.refuse_mounted(id, format!("the layer {id}"), place)?;
            self.layers.get_mut(id).unwrap().writable = false;
        }
        Ok(Value::Nothing)
    }

    fn unseal(&mut self, id: &str, place: &Place) -> Result<Value, Error> {
        let row = self.layers.get(id).ok_or_else(|| not_found(Kind::Layer, id))?;
        if !row.writable {
            if let Some(above) = self.standing_on(id) {
                return Err(above.into());
            }
            self.refuse_mounted(id, format!("the layer {id}"), place)?;
            self.forget_digests(id);
            self.layers.get_mut(id).unwrap().writable = true;
        }
        Ok(Value::Nothing)
    }

    /// The content of a layer is going to be another, so its digests go, with the blobs that no other has.
    fn forget_digests(&mut self, id: &str) {
        let row = self.layers.get_mut(id).unwrap();
        row.diff_id = None;
        for blob in std::mem::take(&mut row.blobs) {
            if self.layers.values().all(|other| !other.blobs.contains(&blob)) {
                self.kept.remove(&blob);
            }
        }
    }

    fn refuse_mounted(&self, layer: &str, what: String, place: &Place) -> Result<(), Error> {
        if !self.mounts.contains_key(layer) {
            return Ok(());
        }
        let target = place.run_root.join("mnt").join(layer).display().to_string();
        Err(InUseError::Mounted { what, target }.into())
    }

    /// Takes a layer away, with the blobs that no other has.
    fn forget_layer(&mut self, id: &str) -> Layer {
        let layer = self.layers.remove(id).unwrap();
        for blob in &layer.blobs {
            if self.layers.values().all(|other| !other.blobs.contains(blob)) {
                self.kept.remove(blob);
            }
        }
        layer
    }

    fn layer_of(&self, of: &Target) -> Result<String, LookupError> {
        let missing = || not_found(of.kind, &of.id);
        match of.kind {
            Kind::Layer => self.layers.contains_key(&of.id).then(|| of.id.clone()).ok_or_else(missing),
            Kind::Image => {
                let image = self.images.get(&of.id).ok_or_else(missing)?;
                image.top.clone().ok_or_else(|| LookupError::NoLayers { image: of.id.clone() })
            }
            Kind::Container => self.containers.get(&of.id).map(|row| row.layer.clone()).ok_or_else(missing),
        }
    }

    fn unmount(&mut self, of: &Target, all: bool, place: &Place) -> Result<Value, Error> {
        let layer = self.layer_of(of)?;
        let Some(count) = self.mounts.get_mut(&layer) else {
            let target = place.run_root.join("mnt").join(&layer);
            return Err(MountError::NotMounted { target }.into());
        };
        *count = if all { 0 } else { *count - 1 };
        let left = *count;
        if left == 0 {
            self.mounts.remove(&layer);
            self.views.remove(&layer);
        }
        Ok(if all { Value::Nothing } else { Value::Number(left) })
    }

    fn change_file(
        &mut self,
        container: &str,
        change: impl FnOnce(&mut Layer, &dyn Fn(&str) -> bool),
    ) -> Result<Value, Error> {
        let id = self.find(Kind::Container, container)?;
        let layer = self.containers[&id].layer.clone();
        if self.mounts.contains_key(&layer) {
            let below = self.merged(self.layers[&layer].parent.as_deref());
            change(self.layers.get_mut(&layer).unwrap(), &|file| below.contains_key(file));
        }
        Ok(Value::Nothing)
    }

    /// The image is [`UNKNOWN`] until [`State::learn`] has seen it.
    fn commit(&mut self, container: &str, names: &[String]) -> Result<Value, Error> {
        let row = self.containers.get(container).ok_or_else(|| not_found(Kind::Container, container))?;
        let below = self.layers[&row.layer].clone();
        for layer in self.chain(below.parent.as_deref()).into_iter().rev() {
            if self.layers[&layer].diff_id.is_none() {
                return Err(OciError::NoDiffId { layer }.into());
            }
        }
        checked(names)?;
        let layer = Layer { parent: below.parent, files: below.files, ..Layer::default() };
        self.layers.insert(UNKNOWN.to_owned(), layer);
        Ok(Value::Image(UNKNOWN.to_owned()))
    }

    fn write(&mut self, changes: &[Change], go_on: bool, rolled_back: bool) -> Result<Value, Error> {
        let mut all = Vec::new();
        for change in changes {
            let before = self.clone();
            match self.change(change) {
                Err(error) if !go_on => return Err(error),
                Err(error) => {
                    *self = before;
                    all.push(Err(said(error)));
                }
                Ok(()) => all.push(Ok(())),
            }
        }
        if rolled_back { Err(roll_back()) } else { Ok(Value::Changes(all)) }
    }

    fn change(&mut self, change: &Change) -> Result<(), Error> {
        match change {
            Change::SetNames(of, names) => self.set_names(of, |held| {
                held.clear();
                add(held, names);
            }),
            Change::AddName(of, name) => self.set_names(of, |held| add(held, std::slice::from_ref(name))),
            Change::RemoveName(of, name) => self.set_names(of, |held| held.retain(|other| other != name)),
            Change::MoveName(to, name) => {
                let row = self.images.get(to).ok_or_else(|| not_found(Kind::Image, to))?;
                if !row.common.names.contains(name) {
                    self.take_image_name(name);
                }
                let to = Target { kind: Kind::Image, id: to.clone() };
                self.set_names(&to, |held| add(held, std::slice::from_ref(name)))
            }
            Change::SetMetadata(of, text) => {
                let row = self.common_mut(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
                row.metadata.clone_from(text);
                Ok(())
            }
            Change::SetFlag(of, value) => {
                let row = self.common_mut(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
                row.flags = vec![("flag".to_owned(), value.clone())];
                Ok(())
            }
            Change::ClearFlag(of) => {
                let row = self.common_mut(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
                row.flags.clear();
                Ok(())
            }
            Change::PutItem(of, key, content) => {
                let row = self.common_mut(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
                row.items.insert(key.clone(), content.bytes());
                Ok(())
            }
            Change::RemoveItem(of, key) => {
                let row = self.common_mut(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
                let removed = row.items.remove(key);
                let (kind, id, key) = (of.kind.word(), of.id.clone(), key.clone());
                removed.map(drop).ok_or_else(|| LookupError::NoItem { kind, id, key }.into())
            }
        }
    }

    fn set_names(&mut self, of: &Target, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Error> {
        let row = self.common(of.kind, &of.id).ok_or_else(|| not_found(of.kind, &of.id))?;
        let mut names = row.names.clone();
        change(&mut names);
        let mut in_order = names.clone();
        in_order.sort();
        for name in in_order {
            let holder = self.holder(of.kind, &name).filter(|holder| *holder != of.id);
            if let Some(holder) = holder {
                return Err(MetaError::NameInUse { kind: of.kind.word(), name, holder }.into());
            }
        }
        if let (Kind::Image, Some(image)) = (of.kind, self.images.get_mut(&of.id)) {
            let given: Vec<_> =
                names.iter().filter(|name| !image.common.names.contains(name)).cloned().collect();
            remember(&mut image.history, &given);
        }
        self.common_mut(of.kind, &of.id).unwrap().names = names;
        Ok(())
    }
}

impl Layer {
    /// Makes it what a tar of these files is.
    fn fill(&mut self, files: &Files) {
        let digest = Digest::sha256(&images::tar(files)).to_string();
        self.diff_id = Some(digest.clone());
        self.blobs = vec![digest];
        self.files.clone_from(files);
    }
}

fn add(held: &mut Vec<String>, names: &[String]) {
    for name in names {
        if !held.contains(name) {
            held.push(name.clone());
        }
    }
}

/// Names that an image was just given come first, and none stands there twice.
fn remember(history: &mut Vec<String>, given: &[String]) {
    let mut all: Vec<String> = Vec::new();
    add(&mut all, given);
    add(&mut all, history);
    *history = all;
}

fn checked(names: &[String]) -> Result<(), Error> {
    for name in names {
        let _: Name = name.parse()?;
    }
    Ok(())
}

fn not_found(kind: Kind, id: &str) -> LookupError {
    LookupError::NotFound { kind: kind.word(), key: id.to_owned() }
}

fn shown(names: &[String], id: &str) -> String {
    names.first().map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"))
}
