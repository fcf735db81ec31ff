//! What one stack of layers shows and another does not, whichever layers are in them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use layerstore_schema::manifest::{Entry, Kind, Manifest, path_order};

use super::changes::{Change, ChangeKind};
use super::stack::Stack;
use crate::types::{Metadata, RelPath};

/// Something that a stack shows at a path.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Shown<'m> {
    /// Which layer it is in, by its position in the stack, topmost first.
    pub(crate) layer: usize,
    /// What it is: of a hard link, the entry of its first name in the layer.
    pub(crate) entry: &'m Entry,
}

/// A path at which two stacks differ.
#[derive(Clone, Debug)]
pub(crate) struct Difference<'m> {
    pub(crate) path: &'m [u8],
    pub(crate) kind: ChangeKind,
    /// Whether it is more than a directory in which something differs.
    pub(crate) of_itself: bool,
    /// What stands there in the newer one.
    pub(crate) shown: Option<Shown<'m>>,
    /// What stood there in the older one.
    pub(crate) was: Option<&'m Entry>,
}

impl Difference<'_> {
    /// As the public value; `None` for the root directory, which is never listed.
    pub(crate) fn change(&self) -> Option<Change> {
        // Paths of a manifest are relative already.
        let path = RelPath::from_archive(self.path).ok().filter(|path| !path.is_root())?;
        Some(Change { path, kind: self.kind })
    }
}

/// How two stacks differ, in manifest order. Of what is deleted, only the topmost directory is listed; a directory in
/// which something differs is modified. The times of directories do not count.
pub(crate) fn compare<'m>(new: &'m Stack, old: &'m Stack) -> Vec<Difference<'m>> {
    let (new, old) = (merge(new), merge(old));
    let mut found: BTreeMap<&[u8], ChangeKind> = BTreeMap::new();
    for (path, shown) in &new {
        match old.get(path) {
            None => drop(found.insert(path, ChangeKind::Added)),
            Some(was) if differs(shown.entry, was.entry) => drop(found.insert(path, ChangeKind::Modified)),
            Some(_) => {}
        }
    }
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        // Under a directory that is gone, everything is.
        if new.get(parent(path)).is_some_and(|above| is_directory(above.entry)) {
            found.insert(path, ChangeKind::Deleted);
        }
    }
    let changed: BTreeSet<&[u8]> = found.keys().copied().collect();
    for mut path in changed.iter().copied() {
        while !path.is_empty() {
            path = parent(path);
            if found.contains_key(path) {
                break;
            }
            found.insert(path, ChangeKind::Modified);
        }
    }
    let difference = |(path, kind)| Difference {
        path,
        kind,
        of_itself: changed.contains(path),
        shown: new.get(path).copied(),
        was: old.get(path).map(|shown| shown.entry),
    };
    let mut differences: Vec<_> = found.into_iter().map(difference).collect();
    differences.sort_by(|a, b| path_order(a.path, b.path));
    differences
}

/// Everything that a stack shows, by path.
pub(super) fn merge(stack: &Stack) -> BTreeMap<&[u8], Shown<'_>> {
    let mut tree: BTreeMap<&[u8], Shown<'_>> = BTreeMap::new();
    let manifests: Vec<_> = stack.manifests().enumerate().collect();
    for (layer, manifest) in manifests.into_iter().rev() {
        for entry in manifest.entries() {
            let path = entry.path.as_slice();
            if entry.kind != (Kind::Directory { opaque: false }) {
                remove_below(&mut tree, path);
            }
            match &entry.kind {
                Kind::Whiteout => drop(tree.remove(path)),
                _ => drop(tree.insert(path, Shown { layer, entry: first_name(manifest, entry) })),
            }
        }
    }
    tree
}

fn first_name<'m>(manifest: &'m Manifest, entry: &'m Entry) -> &'m Entry {
    match &entry.kind {
        Kind::HardLink { target } => manifest.get(target).unwrap_or(entry),
        _ => entry,
    }
}

fn remove_below(tree: &mut BTreeMap<&[u8], Shown<'_>>, path: &[u8]) {
    if path.is_empty() {
        tree.clear();
        return;
    }
    // '0' is the byte after '/'.
    let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
    let between = (Bound::Included(&*first), Bound::Excluded(&*end));
    let below: Vec<&[u8]> = tree.range::<[u8], _>(between).map(|(path, _)| *path).collect();
    for path in below {
        tree.remove(path);
    }
}

pub(super) fn is_directory(entry: &Entry) -> bool {
    matches!(entry.kind, Kind::Directory { .. })
}

fn differs(new: &Entry, old: &Entry) -> bool {
    if is_directory(new) && is_directory(old) {
        // Making anything in it changes its time.
        return new.metadata != Metadata { mtime: new.metadata.mtime, ..old.metadata.clone() };
    }
    (&new.kind, &new.metadata) != (&old.kind, &old.metadata)
}

/// The directory that a path lies in; of the root, the root.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::Timestamp;

    const DIRECTORY: Kind = Kind::Directory { opaque: false };
    const OPAQUE: Kind = Kind::Directory { opaque: true };

    fn layer(entries: &[(&str, Kind)]) -> Arc<Manifest> {
        let entry = |(path, kind): &(&str, Kind)| Entry {
            path: path.as_bytes().to_vec(),
            kind: kind.clone(),
            metadata: Metadata::default(),
        };
        let root = [("", DIRECTORY)];
        Arc::new(Manifest::new(entries.iter().chain(&root).map(entry).collect()).unwrap())
    }

    fn between(new: &[Arc<Manifest>], old: &[Arc<Manifest>]) -> Vec<String> {
        let [new, old] = [new, old].map(|layers| Stack::new(layers.iter().rev().cloned().collect()));
        compare(&new, &old).iter().filter_map(|found| Some(found.change()?.to_string())).collect()
    }

    #[test]
    fn stacks_that_show_the_same_do_not_differ() {
        let base = layer(&[("a", DIRECTORY), ("a/1", Kind::Fifo), ("a/2", Kind::Fifo), ("b", Kind::Fifo)]);
        let top = layer(&[("a", OPAQUE), ("a/2", Kind::Fifo), ("b", Kind::Whiteout)]);
        let flat = layer(&[("a", DIRECTORY), ("a/2", Kind::Fifo)]);
        assert_eq!(between(&[base.clone(), top.clone()], std::slice::from_ref(&flat)), [""; 0]);
        assert_eq!(between(std::slice::from_ref(&flat), &[base.clone(), top.clone()]), [""; 0]);
        assert_eq!(
            between(&[base.clone(), top.clone()], std::slice::from_ref(&base)),
            ["C /a", "D /a/1", "D /b"]
        );
        assert_eq!(between(std::slice::from_ref(&base), &[base.clone(), top]), ["C /a", "A /a/1", "A /b"]);
    }

    #[test]
    fn only_the_top_of_what_is_deleted_is_told() {
        let old = layer(&[("a", DIRECTORY), ("a/b", DIRECTORY), ("a/b/c", Kind::Fifo), ("a.x", Kind::Fifo)]);
        let new = layer(&[("a.x", Kind::Fifo)]);
        assert_eq!(between(std::slice::from_ref(&new), std::slice::from_ref(&old)), ["D /a"]);
        let file = layer(&[("a", Kind::Fifo), ("a.x", Kind::Fifo)]);
        assert_eq!(between(std::slice::from_ref(&file), std::slice::from_ref(&old)), ["C /a"]);
        assert_eq!(between(&[old], &[file]), ["C /a", "A /a/b", "A /a/b/c"]);
    }

    #[test]
    fn times_of_directories_and_forms_of_links_do_not_count() {
        let later = |manifest: &Manifest, path: &[u8]| {
            let mut entries = manifest.entries().to_vec();
            let entry = entries.iter_mut().find(|entry| entry.path == path).unwrap();
            entry.metadata.mtime = Timestamp { seconds: 5, nanoseconds: 0 };
            Arc::new(Manifest::new(entries).unwrap())
        };
        let link = Kind::HardLink { target: b"d/f".to_vec() };
        let old = layer(&[("d", DIRECTORY), ("d/f", Kind::Fifo), ("e", link)]);
        let apart = layer(&[("d", DIRECTORY), ("d/f", Kind::Fifo), ("e", Kind::Fifo)]);
        assert_eq!(between(&[apart], std::slice::from_ref(&old)), [""; 0]);
        assert_eq!(between(&[later(&old, b"d")], std::slice::from_ref(&old)), [""; 0]);
        assert_eq!(between(&[later(&old, b"d/f")], &[old]), ["C /d", "C /d/f", "C /e"]);
    }
}
