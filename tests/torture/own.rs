//! Layers that a worker makes for itself, and images on them: what they must be after each operation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::model::{Image, Owned, must};
use super::op::{Answer, Op, Refusal};

/// A layer that is neither a container's nor an image's by birth.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnLayer {
    /// Its only name.
    pub name: String,
    pub parent: Option<String>,
    /// What was put or written into it, without what is below, by path.
    pub files: BTreeMap<String, Content>,
    pub sealed: bool,
    /// Whether nothing is in it, no directory either: an archive then makes it what the archive is.
    pub blank: bool,
    /// How many have asked for its mount, as of a container.
    pub mounts: Option<u64>,
}

impl Owned {
    /// What is left open by who died in an operation on such a layer, besides that it was done or was not.
    pub(super) fn half_written(&self, op: &Op) -> Option<Owned> {
        let Op::WriteFile { id, .. } = op else { return None };
        let mut after = self.clone();
        // Directories, and a part of a file that nobody counts.
        after.own.get_mut(id)?.blank = false;
        Some(after)
    }

    /// Does what an operation on such layers did; `None` if it is not about them.
    pub(super) fn done_to_own(&mut self, op: &Op, answer: &Answer) -> Option<Result<(), String>> {
        Some(match op {
            Op::MakeLayer { id, name, parent, template, files } => {
                let (name, parent) = (name.clone(), parent.clone());
                let begun = match template {
                    Some(template) => {
                        OwnLayer { name, parent, mounts: None, ..self.own.get(template)?.clone() }
                    }
                    None => {
                        let sealed = files.is_some();
                        let files = files.clone().unwrap_or_default();
                        let blank = files.is_empty();
                        OwnLayer { name, parent, files, sealed, blank, mounts: None }
                    }
                };
                must(self.own.insert(id.clone(), begun).is_none(), "the id was taken")
            }
            Op::ApplyDiff { id, files } => {
                let used = self.is_used(id);
                let layer = self.own.get_mut(id)?;
                layer.files.extend(files.clone());
                layer.sealed |= layer.blank;
                layer.blank &= files.is_empty();
                must(!used && layer.mounts.is_none(), "it is used or mounted")
            }
            Op::Seal { id } => {
                let layer = self.own.get_mut(id)?;
                let good = layer.sealed || layer.mounts.is_none();
                layer.sealed = true;
                must(good, "it is mounted")
            }
            Op::Unseal { id } => {
                let used = self.is_used(id);
                let layer = self.own.get_mut(id)?;
                let good = !layer.sealed || !used && layer.mounts.is_none();
                layer.sealed = false;
                must(good, "it is used or mounted")
            }
            Op::DeleteOwn { id } => {
                let (used, layer) = (self.is_used(id), self.own.remove(id)?);
                must(!used && layer.mounts.is_none(), "it is used or mounted")
            }
            Op::MakeImage { id, name, top } => {
                let files = self.own.get(top)?.files.clone();
                let image = Image { made: Some((id.clone(), top.clone())), files };
                must(self.images.insert(name.clone(), image).is_none(), "the name was taken")
            }
            Op::Mount { id } => {
                let used = self.is_used(id);
                let layer = self.own.get_mut(id)?;
                let count = layer.mounts.unwrap_or_default() + 1;
                let good = layer.mounts.is_some() || layer.sealed || !used;
                layer.mounts = Some(count);
                must(good, "others stand on it")
                    .and_then(|()| must(answer.count == Some(count), format!("the count must be {count}")))
            }
            Op::Unmount { id } => {
                let layer = self.own.get_mut(id)?;
                let left = layer.mounts.map(|mounts| mounts.saturating_sub(1));
                layer.mounts = left.filter(|left| *left > 0);
                must(answer.count == left && left.is_some(), format!("{left:?} must be left"))
            }
            Op::WriteFile { id, path, content } => {
                let layer = self.own.get_mut(id)?;
                layer.files.insert(path.clone(), content.clone());
                layer.blank = false;
                must(layer.mounts.is_some() && !layer.sealed, "it cannot be written to")
            }
            _ => return None,
        })
    }

    /// Whether such an operation can be refused so; `None` if it is not about such layers.
    pub(super) fn refused_to_own(&self, op: &Op, refusal: Refusal) -> Option<Result<(), String>> {
        // Something of this worker is mounted: perhaps it stands on the layer.
        let mounted = || {
            let layers = self.own.values().any(|layer| layer.mounts.is_some());
            layers || self.containers.values().any(|container| container.mounts.is_some())
        };
        Some(match (op, refusal) {
            // Only what it stands on is others'.
            (Op::MakeLayer { parent: Some(parent), .. }, Refusal::NotFound | Refusal::Vanished) => {
                must(!self.own.contains_key(parent), "its parent is there")
            }
            (Op::ApplyDiff { id, .. } | Op::DeleteOwn { id }, Refusal::InUse) => {
                must(self.is_used(id), "nothing stands on it")
            }
            (Op::Unseal { id }, Refusal::InUse) => {
                must(self.own.get(id)?.sealed && self.is_used(id), "nothing stands on it")
            }
            (
                Op::ApplyDiff { .. } | Op::DeleteOwn { .. } | Op::Seal { .. } | Op::Unseal { .. },
                Refusal::Mounted,
            ) => must(mounted(), "nothing is mounted"),
            (
                Op::ApplyDiff { .. } | Op::Seal { .. } | Op::Unseal { .. } | Op::Mount { .. },
                Refusal::Busy,
            ) => Ok(()),
            (Op::Mount { id }, Refusal::InUse) => {
                let layer = self.own.get(id)?;
                let good = self.is_used(id) && !layer.sealed && layer.mounts.is_none();
                must(good, "nothing stands on it")
            }
            _ => return None,
        })
    }

    /// Whether a layer or an image of the worker stands on this layer. Nobody else makes any.
    pub fn is_used(&self, id: &str) -> bool {
        let mut tops = self.images.values().filter_map(|image| image.made.as_ref());
        self.own.values().any(|layer| layer.parent.as_deref() == Some(id)) || tops.any(|(_, top)| top == id)
    }
}
