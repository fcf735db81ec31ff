//! What one worker's own things must be, after each operation. Nobody else changes them, so nothing is left open but the
//! operation in which a process was killed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::log::Entry;
use super::op::{Answer, Change, Op, Outcome, Refusal};
use super::own::OwnLayer;
use super::snapshots::Snapshot;

/// The things of one slot.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Owned {
    /// By id.
    pub containers: BTreeMap<String, Container>,
    /// By their only name.
    pub images: BTreeMap<String, Image>,
    /// Layers with a name, by id.
    pub layers: BTreeMap<String, String>,
    /// Layers that were made as such, by id.
    #[serde(default)]
    pub own: BTreeMap<String, OwnLayer>,
    /// Snapshots, by key or name.
    #[serde(default)]
    pub snapshots: BTreeMap<String, Snapshot>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Container {
    pub image: Option<String>,
    pub names: BTreeSet<String>,
    pub metadata: String,
    pub flag: Option<String>,
    pub volatile: bool,
    /// Whether it has ids of its own.
    pub ids: bool,
    /// The file in its directory.
    pub data: Option<Content>,
    pub items: BTreeMap<String, Content>,
    /// What was written into it, by path.
    pub files: BTreeMap<String, Content>,
    /// How many have asked for its mount; `None` if it is not mounted. A mount whose maker died before it was recorded
    /// has no count, so 0.
    pub mounts: Option<u64>,
    /// Whether it has a run directory.
    pub run_directory: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Image {
    /// Id and top layer; `None` if whoever made it died before it could say.
    pub made: Option<(String, String)>,
    /// The files of its top layer.
    pub files: BTreeMap<String, Content>,
}

impl Image {
    fn id(&self) -> Option<&str> {
        self.made.as_ref().map(|(id, _)| id.as_str())
    }
}

impl Owned {
    /// The image of this name has been seen in the store: takes over what could not be known of it.
    fn adopt(&mut self, seen: &Owned) {
        for (name, image) in &mut self.images {
            if image.made.is_none()
                && let Some(known) = seen.images.get(name)
            {
                image.made.clone_from(&known.made);
            }
        }
    }

    /// What a reboot leaves of it.
    pub fn forget_run_state(&mut self) {
        for container in self.containers.values_mut() {
            container.mounts = None;
            container.run_directory = false;
        }
        for layer in self.own.values_mut() {
            layer.mounts = None;
        }
    }

    /// Does what the operation did, or explains why it cannot have had this outcome.
    pub fn apply(&mut self, op: &Op, outcome: &Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Done(answer) => self.done(op, answer),
            Outcome::Refused(refusal) => self.refused(op, *refusal),
        }
        .map_err(|why| format!("{op:?} cannot have come to {outcome:?}: {why}"))
    }

    fn done(&mut self, op: &Op, answer: &Answer) -> Result<(), String> {
        if let Some(done) = self.done_to_own(op, answer).or_else(|| self.done_to_snapshots(op)) {
            return done;
        }
        match op {
            Op::Create { id, image, names, metadata, volatile, ids } => {
                let container = Container {
                    image: image.clone(),
                    names: names.clone(),
                    metadata: metadata.clone(),
                    volatile: *volatile,
                    ids: *ids,
                    ..Container::default()
                };
                must(self.containers.insert(id.clone(), container).is_none(), "the id was taken")
            }
            Op::Update { id, change, fails } => {
                must(!fails, "its body fails")?;
                self.container(id)?.update(change);
                Ok(())
            }
            Op::Mount { id } => {
                let container = self.container(id)?;
                let count = container.mounts.unwrap_or_default() + 1;
                container.mounts = Some(count);
                must(answer.count == Some(count), format!("the count must be {count}"))
            }
            Op::Unmount { id } => {
                let container = self.container(id)?;
                let mounts = container.mounts.ok_or("it is not mounted")?;
                let left = mounts.saturating_sub(1);
                container.mounts = (left > 0).then_some(left);
                must(answer.count == Some(left), format!("{left} must be left"))
            }
            Op::WriteFile { id, path, content } => {
                let container = self.container(id)?;
                container.files.insert(path.clone(), content.clone());
                must(container.mounts.is_some(), "it is not mounted")
            }
            Op::UseRunDirectory { id } => {
                self.container(id)?.run_directory = true;
                Ok(())
            }
            Op::WriteData { id, content } => {
                self.container(id)?.data = Some(content.clone());
                Ok(())
            }
            Op::Commit { id, name } => {
                let files = self.container(id)?.files.clone();
                let image = Image { made: answer.image.clone(), files };
                must(self.images.insert(name.clone(), image).is_none(), "the name was taken")
            }
            Op::Delete { id } => {
                let container = self.containers.remove(id).ok_or("there is no such container")?;
                must(container.mounts.is_none(), "it is mounted")
            }
            Op::DeleteRegardless { id } => {
                self.containers.remove(id).map(drop).ok_or_else(|| "there is no such container".to_owned())
            }
            Op::DeleteImage { name, id } => {
                self.images.remove(name).ok_or("there is no such image")?;
                must(!self.has_containers(id), "containers stand on it")
            }
            Op::NameLayer { layer, name } => {
                self.layers.insert(layer.clone(), name.clone());
                Ok(())
            }
            Op::DeleteLayer { layer } => {
                self.layers.remove(layer).ok_or("there is no such layer")?;
                let is_top = self
                    .images
                    .values()
                    .any(|image| image.made.as_ref().is_some_and(|(_, top)| top == layer));
                must(!is_top, "an image has it")
            }
            _ => Ok(()),
        }
    }

    fn refused(&mut self, op: &Op, refusal: Refusal) -> Result<(), String> {
        if let Some(refused) = self.refused_to_own(op, refusal) {
            return refused;
        }
        match (op, refusal) {
            _ if Self::refused_to_snapshots(op, refusal) => Ok(()),
            // Whether these may be is a question of the other workers.
            (_, Refusal::Locked) | (Op::Create { .. }, Refusal::NotFound) => Ok(()),
            // The layers below its own may be those of a shared image that is gone and still mounted.
            (Op::DeleteImage { .. }, Refusal::Mounted) => Ok(()),
            (Op::Create { names, .. }, Refusal::NameInUse) => {
                must(names.iter().any(|name| is_contended(name)), "nobody else wants its names")
            }
            (Op::Update { id, change, .. }, Refusal::NameInUse) => {
                let held = self.container(id)?.names.clone();
                let mut wanted = change.names.iter().flatten();
                must(
                    wanted.any(|name| is_contended(name) && !held.contains(name)),
                    "nobody else wants its names",
                )
            }
            (Op::Update { fails: true, .. }, Refusal::Aborted) => Ok(()),
            (Op::Commit { .. }, Refusal::Vanished) => Ok(()),
            (Op::Delete { id }, Refusal::Mounted) => {
                must(self.container(id)?.mounts.is_some(), "it is not mounted")
            }
            (Op::DeleteImage { id, .. }, Refusal::InUse) => {
                must(self.has_containers(id), "no container stands on it")
            }
            (Op::DeleteLayer { layer }, Refusal::InUse) => {
                let alone =
                    self.images.is_empty() && self.containers.is_empty() && self.layers.keys().eq([layer]);
                must(!alone, "nothing stands on it")
            }
            (
                Op::Load { .. }
                | Op::Remove { .. }
                | Op::MountImage { .. }
                | Op::MoveName { .. }
                | Op::RemoveName { .. }
                | Op::Export { .. }
                | Op::RemoveLayerOfImage { .. },
                _,
            ) => Ok(()),
            _ => Err("nobody else can be in its way".to_owned()),
        }
    }

    /// The states in which the store may be if the operation was done or cut short, besides the one before it.
    fn perhaps(&self, op: &Op) -> Vec<Owned> {
        let mut after = self.clone();
        let mut answer = Answer::default();
        // What a mount answers is known; an image that was made has yet to be seen.
        match op {
            Op::Mount { id } | Op::Unmount { id } => {
                let mounts = self.mounts_of(id).unwrap_or(0);
                let mounting = matches!(op, Op::Mount { .. });
                answer.count = Some(if mounting { mounts + 1 } else { mounts.saturating_sub(1) });
            }
            Op::Update { fails: true, .. } => return Vec::new(),
            _ => {}
        }
        if after.done(op, &answer).is_err() {
            return Vec::new();
        }
        let mut states = vec![after];
        match op {
            // Mounted, and not yet counted.
            Op::Mount { id } if self.mounts_of(id).is_none() => {
                let mut uncounted = self.clone();
                match uncounted.own.get_mut(id) {
                    Some(layer) => layer.mounts = Some(0),
                    None => uncounted.containers.get_mut(id).unwrap().mounts = Some(0),
                }
                states.push(uncounted);
            }
            // Unmounted, and not yet gone.
            Op::DeleteRegardless { id } => {
                let mut unmounted = self.clone();
                unmounted.containers.get_mut(id).unwrap().mounts = None;
                states.push(unmounted);
            }
            _ => states.extend(self.half_written(op)),
        }
        states
    }

    pub fn has_containers(&self, image: &str) -> bool {
        self.containers.values().any(|container| container.image.as_deref() == Some(image))
    }

    /// How many have asked for the mount of a container or a layer.
    pub fn mounts_of(&self, id: &str) -> Option<u64> {
        let of_container = self.containers.get(id).and_then(|container| container.mounts);
        of_container.or_else(|| self.own.get(id)?.mounts)
    }

    fn container(&mut self, id: &str) -> Result<&mut Container, String> {
        self.containers.get_mut(id).ok_or_else(|| "there is no such container".to_owned())
    }

    /// The ids of its images, as far as they are known.
    pub fn image_ids(&self) -> impl Iterator<Item = &str> {
        self.images.values().filter_map(Image::id)
    }
}

impl Container {
    fn update(&mut self, change: &Change) {
        if let Some(names) = &change.names {
            self.names.clone_from(names);
        }
        if let Some(metadata) = &change.metadata {
            self.metadata.clone_from(metadata);
        }
        if let Some(flag) = &change.flag {
            self.flag = Some(flag.clone());
        }
        for key in &change.remove {
            self.items.remove(key);
        }
        self.items.extend(change.put.clone());
    }
}

/// Whether all workers want this name of a container.
pub fn is_contended(name: &str) -> bool {
    name.starts_with("wanted-")
}

pub(super) fn must(good: bool, why: impl Into<String>) -> Result<(), String> {
    if good { Ok(()) } else { Err(why.into()) }
}

/// Every state in which the things of one slot may be, after what its workers saw and did.
///
/// An error says what cannot be.
pub fn states_after<'a>(
    start: &Owned,
    entries: impl Iterator<Item = &'a Entry>,
) -> Result<Vec<Owned>, String> {
    let mut states = vec![start.clone()];
    for entry in entries {
        match entry {
            Entry::Started { worker, seen, .. } => {
                choose(&mut states, seen).map_err(|why| format!("when {worker:?} began: {why}"))?;
            }
            Entry::Attempt(attempt) => match &attempt.outcome {
                Some(outcome) => {
                    let mut why = String::new();
                    states.retain_mut(|state| match state.apply(&attempt.op, outcome) {
                        Ok(()) => true,
                        Err(error) => {
                            why = error;
                            false
                        }
                    });
                    if states.is_empty() {
                        return Err(format!("{:?}: {why}", attempt.worker));
                    }
                }
                None => {
                    let more: Vec<_> = states.iter().flat_map(|state| state.perhaps(&attempt.op)).collect();
                    states.extend(more);
                }
            },
        }
    }
    Ok(states)
}

/// Keeps the one state that was seen, or says what is different.
pub fn choose(states: &mut Vec<Owned>, seen: &Owned) -> Result<(), String> {
    for state in states.iter_mut() {
        state.adopt(seen);
    }
    if states.contains(seen) {
        *states = vec![seen.clone()];
        return Ok(());
    }
    let reports: Vec<String> = states.iter().map(|state| differences(state, seen)).collect();
    let shortest = reports.iter().min_by_key(|report| report.len()).cloned().unwrap_or_default();
    Err(format!("none of {} possible states is what the store has; the nearest:\n{shortest}", reports.len()))
}

fn differences(expected: &Owned, seen: &Owned) -> String {
    fn maps<V: PartialEq + std::fmt::Debug>(
        kind: &str,
        expected: &BTreeMap<String, V>,
        seen: &BTreeMap<String, V>,
    ) -> String {
        let keys: BTreeSet<&String> = expected.keys().chain(seen.keys()).collect();
        let mut text = String::new();
        for key in keys {
            let (expected, seen) = (expected.get(key), seen.get(key));
            if expected != seen {
                text += &format!("  {kind} {key}\n    expected {expected:?}\n    seen     {seen:?}\n");
            }
        }
        text
    }
    maps("container", &expected.containers, &seen.containers)
        + &maps("image", &expected.images, &seen.images)
        + &maps("layer", &expected.layers, &seen.layers)
        + &maps("own layer", &expected.own, &seen.own)
        + &maps("snapshot", &expected.snapshots, &seen.snapshots)
}
