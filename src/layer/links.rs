//! Names of one file that a mount with `index=on` kept together.
//!
//! When a file of a lower layer with several names is written to through one of them, only that name comes into the
//! directory; the mount shows the new content under the others, too, as the index in its workdir knows the file by what
//! the filesystem calls it. If that one name is removed, the index alone has the file. Read without the index, the others have the old content. So they become names here.

use std::collections::{BTreeMap, HashMap};

use layerstore_schema::manifest::{Kind, path_order};

use super::compare::{is_directory, parent};
use super::resolve::{Holder, Place, Resolving};
use super::writable::UNREAD;
use crate::disk::{KeptFile, ScannedEntry, ScannedKind};
use crate::sys::handle::Handle;
use crate::types::Metadata;

/// A file below: the position of its layer, and its first name there.
type InLayer = (usize, Vec<u8>);

impl<F: Fn(&mut Metadata)> Resolving<'_, F> {
    /// Gives the files that are `linked` to files below the names of these that the mount shows. A name that nothing below
    /// shows is of no concern. Files that are `kept` by the index alone get these names, too.
    pub(super) fn link_names_below(
        &mut self,
        linked: &[(Vec<u8>, Handle)],
        kept: Vec<KeptFile>,
        handle: impl Fn(usize, &[u8]) -> Option<Handle>,
    ) {
        if linked.is_empty() && kept.is_empty() {
            return;
        }
        // The files below that have several names, with these.
        let mut files: BTreeMap<(usize, &[u8]), Vec<&[u8]>> = BTreeMap::new();
        for (path, shown) in self.below.iter().filter(|(_, shown)| !is_directory(shown.entry)) {
            files.entry((shown.layer, &shown.entry.path)).or_default().push(*path);
        }
        files.retain(|_, names| names.len() > 1);
        let mut by_handle: HashMap<Handle, (InLayer, Vec<Vec<u8>>)> = HashMap::new();
        for ((layer, first), names) in files {
            if let Some(handle) = handle(layer, first) {
                let names = names.into_iter().map(<[u8]>::to_vec).collect();
                by_handle.insert(handle, ((layer, first.to_vec()), names));
            }
        }
        for (path, handle) in linked {
            if let Some((file, names)) = by_handle.get(handle) {
                self.link(path, (file.0, &file.1), names);
            }
        }
        for KeptFile { mut file, origin } in kept {
            let Some(((layer, first), names)) = by_handle.get(&origin) else { continue };
            let shown = self.names_of((*layer, first), names);
            let mut place = Place { holder: Holder::Index, path: file.path.clone(), content: UNREAD };
            // Only its owner, mode or attributes were changed.
            if file.left_below.take().is_some()
                && let Some(Kind::File { size, content }) =
                    names.first().and_then(|name| self.kind_below(name))
            {
                file.kind = ScannedKind::File { size };
                place = Place { holder: Holder::Below(*layer), path: first.clone(), content };
            }
            self.resolved.kept.extend(shown.iter().cloned());
            self.name(file, place, shown);
        }
    }

    fn kind_below(&self, path: &[u8]) -> Option<Kind> {
        self.below.get(path).map(|shown| shown.entry.kind.clone())
    }

    /// Those of the `names` of a file below that are shown, with the names it has in directories that were renamed.
    fn names_of(&self, (layer, first): (usize, &[u8]), names: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let taken = |place: &Place| place.holder == Holder::Below(layer) && place.path == first;
        let elsewhere = &self.resolved.elsewhere;
        let is_taken = |own: &[u8]| elsewhere.get(own).is_some_and(taken) && !self.paths.contains(own);
        let moved = self.resolved.entries.iter().filter(|entry| is_taken(&entry.path));
        let in_place = names.iter().filter(|name| self.shows_below(name));
        moved.map(|entry| entry.path.clone()).chain(in_place.cloned()).collect()
    }

    /// Makes what stands at `path` of one file with the `names` of a file below.
    fn link(&mut self, path: &[u8], below: (usize, &[u8]), names: &[Vec<u8>]) {
        let mut more = self.names_of(below, names);
        let is_name = |entry: &ScannedEntry| {
            let ScannedKind::Other(Kind::HardLink { target }) = &entry.kind else { return false };
            target == path
        };
        let own = self.resolved.entries.iter().filter(|entry| is_name(entry));
        more.extend(own.map(|entry| entry.path.clone()));
        let Some(file) = self.resolved.entries.iter().find(|entry| entry.path == path).cloned() else {
            return;
        };
        let place = self.resolved.elsewhere.remove(path).unwrap_or_else(|| Place {
            holder: Holder::Directory,
            path: path.to_vec(),
            content: UNREAD,
        });
        more.push(path.to_vec());
        self.name(file, place, more);
    }

    /// Gives a file that is at `place` these names, and no other thing one of them.
    fn name(&mut self, file: ScannedEntry, place: Place, mut names: Vec<Vec<u8>>) {
        self.resolved.entries.retain(|entry| !names.contains(&entry.path));
        names.iter().for_each(|path| drop(self.resolved.elsewhere.remove(path)));
        names.iter().for_each(|path| self.add_parents(path));
        names.sort_unstable_by(|a, b| path_order(a, b));
        let mut names = names.into_iter();
        let Some(first) = names.next() else { return };
        self.resolved.elsewhere.insert(first.clone(), place);
        for name in names {
            let kind = ScannedKind::Other(Kind::HardLink { target: first.clone() });
            let metadata = Metadata::default();
            let link =
                ScannedEntry { path: name, kind, metadata, allocated: 0, linked_below: None, ..file.clone() };
            self.resolved.entries.push(link);
        }
        self.resolved.entries.push(ScannedEntry { path: first, linked_below: None, ..file });
    }

    /// Whether what the layers below have at a path is seen through the directory, where it is.
    fn shows_below(&self, path: &[u8]) -> bool {
        let above = std::iter::successors(Some(path), |path| (!path.is_empty()).then(|| parent(path)));
        let own = above.filter(|above| self.paths.contains(*above));
        own.clone().next() != Some(path)
            && own
                .into_iter()
                .all(|above| self.directories.get(above).is_some_and(|directory| !directory.hides))
    }

    /// Adds the directories above a path that only the layers below have.
    fn add_parents(&mut self, path: &[u8]) {
        let mut above = parent(path);
        while !above.is_empty() && !self.resolved.entries.iter().any(|entry| entry.path == above) {
            if let Some(shown) = self.below.get(above) {
                let directory = self.taken(shown.entry, above.to_vec());
                self.resolved.entries.push(directory);
            }
            above = parent(above);
        }
    }
}
