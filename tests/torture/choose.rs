//! What a worker does next.

use std::collections::BTreeSet;

use super::content::Content;
use super::images::SharedImage;
use super::model::{Owned, is_contended};
use super::op::{Change, Op};
use crate::support::machine;
use crate::support::random::Random;

/// How many things of its own a worker keeps, so that a round stays short.
const CONTAINERS: usize = 4;
const IMAGES: usize = 3;
const LAYERS: usize = 2;
const OWN_LAYERS: usize = 5;
const SNAPSHOTS: usize = 4;
/// How many names and items all workers want.
const CONTENDED: usize = 3;

/// What a worker knows when it chooses.
pub struct Chooser<'a> {
    pub random: &'a mut Random,
    pub owned: &'a Owned,
    pub held: &'a [usize],
    pub images: &'a [SharedImage],
    pub mounts: bool,
    /// Whether it works on the store of the images alone, which does not know who stands on them.
    pub direct: bool,
    /// Whether it waits for locks as long as it takes.
    pub patient: bool,
    /// What nothing else in the store is called; it begins as all of the worker's own things do.
    pub word: String,
}

impl Chooser<'_> {
    pub fn choose(&mut self) -> Op {
        loop {
            let chosen = match self.random.below(130) {
                _ if self.direct && self.random.once_in(2) => self.change_own(),
                100.. => self.change_own(),
                0..12 => self.create(),
                12..22 => self.delete(),
                22..36 => self.update(),
                36..54 if self.mounts => self.use_mount(),
                54..58 => self.commit(),
                58..62 => self.change_images(),
                62..85 => Some(self.change_shared()),
                85..90 if !self.direct => Some(self.put_shared()),
                90..92 if !self.direct => Some(Op::ReadShared),
                92..94 if !self.direct => Some(Op::LockDigest { number: self.random.below(CONTENDED) }),
                94..98 => Some(Op::Gc),
                98 => Some(Op::Check { deep: self.random.once_in(4) }),
                _ => None,
            };
            if let Some(op) = chosen {
                return op;
            }
        }
    }

    fn create(&mut self) -> Option<Op> {
        if self.direct || self.owned.containers.len() >= CONTAINERS {
            return None;
        }
        let own: Vec<String> = self.owned.image_ids().map(str::to_owned).collect();
        let image = match self.random.below(4) {
            0 => None,
            1 => self.random.pick(own),
            _ => Some(self.images[self.image()].id.clone()),
        };
        Some(Op::Create {
            id: self.word.clone(),
            image,
            names: self.names(&BTreeSet::new()),
            metadata: format!("made as {}", self.word),
            volatile: self.random.once_in(6),
            // Only the machine's root may give a directory to others.
            ids: self.mounts && machine::is_real_root() && self.random.once_in(4),
        })
    }

    fn delete(&mut self) -> Option<Op> {
        let id = self.container()?;
        // It is unmounted before, and not removed if a lock is not to be had then.
        let regardless = self.random.once_in(6) && (self.patient || self.owned.mounts_of(&id).is_none());
        Some(if regardless { Op::DeleteRegardless { id } } else { Op::Delete { id } })
    }

    /// Names that nobody else wants, and perhaps one that all want.
    fn names(&mut self, held: &BTreeSet<String>) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = held.iter().filter(|name| !is_contended(name)).cloned().collect();
        if names.len() > 2 || self.random.once_in(3) {
            names.clear();
        }
        if !self.random.once_in(3) {
            names.insert(format!("{}-name", self.word));
        }
        if self.random.once_in(3) {
            names.insert(format!("wanted-{}", self.random.below(CONTENDED)));
        }
        names
    }

    fn update(&mut self) -> Option<Op> {
        let id = self.container()?;
        let container = self.owned.containers.get(&id)?;
        let mut change = Change::default();
        if self.random.once_in(2) {
            change.names = Some(self.names(&container.names));
        }
        if self.random.once_in(2) {
            change.metadata = Some(format!("as of {}", self.word));
        }
        if self.random.once_in(4) {
            change.flag = Some(format!("\"{}\"", self.word));
        }
        if self.random.once_in(3)
            && let Some(key) = self.random.pick(container.items.keys().cloned())
        {
            change.remove.insert(key);
        }
        for number in 0..self.random.below(3) {
            let key = format!("item-{}", self.random.below(4));
            if !change.remove.contains(&key) {
                let content = self.content(&format!("{}-{number}", self.word));
                change.put.insert(key, content);
            }
        }
        if change == Change::default() {
            return None;
        }
        Some(Op::Update { id, change, fails: self.random.once_in(10) })
    }

    fn use_mount(&mut self) -> Option<Op> {
        let id = match self.random.once_in(3) {
            true => self.random.pick(self.owned.own.keys().cloned())?,
            false => self.container()?,
        };
        let mounts = self.owned.mounts_of(&id).unwrap_or(0);
        let (container, layer) = (self.owned.containers.get(&id), self.owned.own.get(&id));
        // With ids of its own, what root writes into it is nobody's.
        if container.is_some_and(|container| container.ids) && !self.random.once_in(3) {
            return Some(if mounts == 0 { Op::Mount { id } } else { Op::Unmount { id } });
        }
        if container.is_some_and(|container| container.ids)
            || layer.is_some() && mounts == 0 && self.random.once_in(2)
        {
            return container.map(|_| Op::UseRunDirectory { id });
        }
        if layer.is_some_and(|layer| layer.sealed || mounts == 0) {
            return Some(if mounts == 0 { Op::Mount { id } } else { Op::Unmount { id } });
        }
        Some(match (mounts, self.random.below(8)) {
            (0, 0) if container.is_some() => Op::UseRunDirectory { id },
            (0, 1) if container.is_some() => Op::WriteData { id, content: self.content(&self.word.clone()) },
            (0, _) | (1, 0) => Op::Mount { id },
            (_, 1..5) => {
                let path = match self.random.below(3) {
                    0 => "etc/motd".to_owned(),
                    1 => format!("base/file-{}", self.random.below(4)),
                    _ => format!("new/{}", self.word),
                };
                Op::WriteFile { id, path, content: self.content(&self.word.clone()) }
            }
            _ => Op::Unmount { id },
        })
    }

    fn commit(&mut self) -> Option<Op> {
        if self.owned.images.len() >= IMAGES {
            return None;
        }
        let id = self.container()?;
        let container = &self.owned.containers[&id];
        // What stands on a layer of nobody's archive cannot be saved, nor what has an owner who is nobody.
        let made = container.image.as_ref().is_some_and(|image| image.starts_with('w'));
        (!made && !container.ids).then(|| Op::Commit { id, name: format!("{}-image", self.word) })
    }

    fn change_images(&mut self) -> Option<Op> {
        let name = self.random.pick(self.owned.images.keys().cloned());
        match (self.random.below(4), name) {
            (0, _) => {
                let layer = self.random.pick(self.owned.layers.keys().cloned())?;
                Some(Op::DeleteLayer { layer })
            }
            (1, Some(name)) if self.owned.layers.len() < LAYERS => {
                let image = &self.owned.images[&name];
                let (_, layer) = image.made.clone()?;
                // The layer of a container without files may be another worker's too.
                let known = self.owned.layers.contains_key(&layer) || self.owned.own.contains_key(&layer);
                let is_ours = !image.files.is_empty() && !known;
                is_ours.then(|| Op::NameLayer { layer, name: format!("{}-layer", self.word) })
            }
            (_, Some(name)) => {
                let (id, _) = self.owned.images[&name].made.clone()?;
                Some(Op::DeleteImage { name, id })
            }
            _ => None,
        }
    }

    /// Layers of its own, and images on them.
    fn change_own(&mut self) -> Option<Op> {
        let own = &self.owned.own;
        let ids: Vec<String> = own.keys().cloned().collect();
        // What is mounted for writing changes under who stands on it.
        let still: Vec<String> = ids.iter().filter(|id| own[*id].mounts.is_none()).cloned().collect();
        let word = self.word.clone();
        Some(match self.random.below(16) {
            12.. if self.direct => return None,
            12.. => return self.change_snapshots(),
            0..4 if ids.len() < OWN_LAYERS => {
                let parent = match self.random.below(3) {
                    0 => None,
                    1 => self.random.pick(still.clone()),
                    _ => Some(self.images[self.image()].top().to_owned()),
                };
                let template = if self.random.once_in(3) { self.random.pick(still) } else { None };
                let files = (template.is_none() && self.random.once_in(2)).then(|| self.files());
                Op::MakeLayer { name: format!("{word}-own"), id: word, parent, template, files }
            }
            4 | 5 => Op::ApplyDiff { id: self.random.pick(ids)?, files: self.files() },
            6 => Op::Seal { id: self.random.pick(ids)? },
            7 => Op::Unseal { id: self.random.pick(ids)? },
            8 if self.owned.images.len() < IMAGES => {
                let top = self.random.pick(still)?;
                Op::MakeImage { name: format!("{word}-made"), id: word, top }
            }
            9 => return self.change_images(),
            _ => Op::DeleteOwn { id: self.random.pick(ids)? },
        })
    }

    fn change_snapshots(&mut self) -> Option<Op> {
        let of_kind = |committed: bool| -> Vec<String> {
            let snapshots = self.owned.snapshots.iter();
            let keys = snapshots.filter(|(_, snapshot)| snapshot.files.is_some() == committed);
            keys.map(|(key, _)| key.clone()).collect()
        };
        let (committed, active) = (of_kind(true), of_kind(false));
        Some(match self.random.below(6) {
            0..3 if committed.len() + active.len() < SNAPSHOTS => {
                let parent = if self.random.once_in(3) { None } else { self.random.pick(committed) };
                Op::Prepare { key: self.word.clone(), parent }
            }
            0..4 => {
                let key = self.random.pick(active)?;
                let can_move = self.owned.snapshots[&key].parent.is_none() && self.random.once_in(2);
                let onto = if can_move { self.random.pick(committed) } else { None };
                Op::CommitSnapshot {
                    key,
                    name: format!("{}-committed", self.word),
                    onto,
                    files: self.files(),
                }
            }
            _ => {
                let leaves = committed.into_iter().chain(active).filter(|key| !self.owned.is_below(key));
                let leaves: Vec<String> = leaves.collect();
                Op::RemoveSnapshot { key: self.random.pick(leaves)? }
            }
        })
    }

    /// What an archive brings.
    fn files(&mut self) -> std::collections::BTreeMap<String, Content> {
        let word = self.word.clone();
        (0..self.random.below(4))
            .map(|number| {
                let path = match self.random.below(3) {
                    0 => "etc/motd".to_owned(),
                    1 => format!("base/file-{}", self.random.below(4)),
                    _ => format!("new/{word}-{number}"),
                };
                let content = self.content(&format!("{word}-{number}"));
                (path, content)
            })
            .collect()
    }

    fn change_shared(&mut self) -> Op {
        let image = self.image();
        let name = format!("shared-{}", self.random.below(CONTENDED));
        match self.random.below(16) {
            5..8 | 12 if self.direct => Op::Export { image },
            0..5 => Op::Load { image, name },
            5..8 => Op::Remove { image },
            8 | 9 => Op::MoveName { name, image },
            10 => Op::RemoveName { name, image },
            11 => Op::Export { image },
            12 => Op::RemoveLayerOfImage { image },
            13 if self.random.once_in(3) => Op::DropBlobs,
            _ if !self.mounts => Op::Load { image, name },
            _ => match self.held.last() {
                Some(image) if self.held.len() > 1 || self.random.once_in(2) => {
                    Op::UnmountImage { image: *image }
                }
                _ => Op::MountImage { image },
            },
        }
    }

    fn put_shared(&mut self) -> Op {
        let content = self.content(&self.word.clone());
        match self.random.below(CONTENDED + 1) {
            0 => Op::PutPair { content },
            number => Op::PutItem { key: format!("item-{number}"), content },
        }
    }

    /// Of a few bytes as a rule; now and then of more than a chunk of the database.
    fn content(&mut self, word: &str) -> Content {
        let most = if self.random.once_in(12) { 600_000 } else { 2_000 };
        Content::new(word, self.random.below(most))
    }

    fn container(&mut self) -> Option<String> {
        self.random.pick(self.owned.containers.keys().cloned())
    }

    fn image(&mut self) -> usize {
        self.random.below(self.images.len())
    }
}
