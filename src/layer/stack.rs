//! What a stack of layers shows at a path, told from their manifests alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use layerstore_schema::manifest::{Entry, Kind, Manifest, path_order};

/// The manifests of a layer and of all below it. One that stands on another shares what that has, so that the stacks of all
/// layers of a chain take no more than the highest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stack(Option<Arc<Link>>);

#[derive(Debug)]
struct Link {
    manifest: Arc<Manifest>,
    below: Option<Arc<Link>>,
}

impl Drop for Link {
    /// One after the other: a chain may be longer than calls can be nested.
    fn drop(&mut self) {
        let mut next = self.below.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.below.take();
        }
    }
}

impl Stack {
    /// A stack of `manifests`, topmost first.
    #[cfg(test)]
    pub(crate) fn new(manifests: Vec<Arc<Manifest>>) -> Self {
        manifests.into_iter().rev().fold(Stack::default(), |stack, manifest| stack.push(manifest))
    }

    /// This stack with one layer more on top.
    pub(crate) fn push(&self, top: Arc<Manifest>) -> Self {
        Stack(Some(Arc::new(Link { manifest: top, below: self.0.clone() })))
    }

    /// The manifests, topmost first.
    pub(super) fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        std::iter::successors(self.0.as_deref(), |link| link.below.as_deref()).map(|link| &*link.manifest)
    }

    /// What an overlay mount of the stack shows at `path`. A hard link gives the entry of its first name.
    pub(crate) fn find(&self, path: &[u8]) -> Option<&Entry> {
        self.locate(path).map(|(_, entry)| entry)
    }

    /// The same, with the position of the layer that has it, topmost first.
    pub(crate) fn locate(&self, path: &[u8]) -> Option<(usize, &Entry)> {
        for (layer, manifest) in self.manifests().enumerate() {
            match manifest.get(path) {
                Some(Entry { kind: Kind::Whiteout, .. }) => return None,
                Some(Entry { kind: Kind::HardLink { target }, .. }) => {
                    return manifest.get(target).map(|entry| (layer, entry));
                }
                Some(entry) => return Some((layer, entry)),
                None if hides_below(manifest, path) => return None,
                None => {}
            }
        }
        None
    }

    /// The names that an overlay mount of the stack shows in the directory `path`.
    pub(crate) fn children(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut names: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for manifest in self.manifests() {
            for entry in entries_below(manifest, path) {
                let Some(name) = child_name(&entry.path, path) else { continue };
                names.entry(name.to_vec()).or_insert(!matches!(entry.kind, Kind::Whiteout));
            }
            let opaque = matches!(manifest.get(path), Some(entry) if ends_lookup(&entry.kind));
            if opaque || hides_below(manifest, path) {
                break;
            }
        }
        names.into_iter().filter_map(|(name, shown)| shown.then_some(name)).collect()
    }
}

/// Whether `manifest` has something above `path` that hides what lower layers have there.
pub(crate) fn hides_below(manifest: &Manifest, path: &[u8]) -> bool {
    ancestors(path).any(|ancestor| manifest.get(ancestor).is_some_and(|entry| ends_lookup(&entry.kind)))
}

fn ends_lookup(kind: &Kind) -> bool {
    !matches!(kind, Kind::Directory { opaque: false })
}

/// The directories above `path`, the root last.
pub(super) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parent = |path: &[u8]| path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let mut rest = path;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        rest = rest.get(..parent(rest)).unwrap_or_default();
        Some(rest)
    })
}

/// Everything below the directory `path`: in manifest order that is one run.
fn entries_below<'m>(manifest: &'m Manifest, path: &'m [u8]) -> impl Iterator<Item = &'m Entry> {
    let entries = manifest.entries();
    let first = entries.partition_point(|entry| path_order(&entry.path, path).is_le());
    entries.get(first..).unwrap_or_default().iter().take_while(move |entry| is_below(&entry.path, path))
}

fn is_below(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The name of `path` if it stands directly in `directory`.
fn child_name<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    let rest = if directory.is_empty() { path } else { path.strip_prefix(directory)?.strip_prefix(b"/")? };
    (!rest.is_empty() && !rest.contains(&b'/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Metadata;

    fn layer(entries: &[(&str, Kind)]) -> Arc<Manifest> {
        let entry = |(path, kind): &(&str, Kind)| Entry {
            path: path.as_bytes().to_vec(),
            kind: kind.clone(),
            metadata: Metadata::default(),
        };
        let root = Entry { path: Vec::new(), kind: DIRECTORY, metadata: Metadata::default() };
        Arc::new(Manifest::new(entries.iter().map(entry).chain([root]).collect()).unwrap())
    }

    const DIRECTORY: Kind = Kind::Directory { opaque: false };
    const OPAQUE: Kind = Kind::Directory { opaque: true };

    fn stack() -> Stack {
        let base = layer(&[
            ("a", DIRECTORY),
            ("a/1", Kind::Fifo),
            ("a/2", Kind::Fifo),
            ("a-b", Kind::Fifo),
            ("b", DIRECTORY),
            ("b/1", Kind::Fifo),
            ("c", DIRECTORY),
            ("c/1", Kind::Fifo),
        ]);
        let top = layer(&[
            ("a", DIRECTORY),
            ("a/1", Kind::Whiteout),
            ("a/3", Kind::Socket),
            ("a/4", Kind::HardLink { target: b"a/3".to_vec() }),
            ("b", OPAQUE),
            ("b/2", Kind::Fifo),
            ("c", Kind::Symlink { target: b"a".to_vec() }),
        ]);
        Stack::new(vec![base]).push(top)
    }

    #[test]
    fn a_path_shows_its_topmost_layer() {
        let stack = stack();
        for (path, shown) in [
            ("", true),
            ("a/1", false),
            ("a/2", true),
            ("a/3", true),
            ("a-b", true),
            ("b/1", false),
            ("b/2", true),
            ("c", true),
            ("c/1", false),
            ("d", false),
            ("a/1/x", false),
        ] {
            assert_eq!(stack.find(path.as_bytes()).is_some(), shown, "{path}");
        }
        assert_eq!(stack.find(b"a/4").unwrap().kind, Kind::Socket);
    }

    #[test]
    fn a_directory_shows_what_is_not_hidden() {
        let stack = stack();
        let names = |path: &str| {
            let names = stack.children(path.as_bytes());
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(""), "a a-b b c");
        assert_eq!(names("a"), "2 3 4");
        assert_eq!(names("b"), "2");
        assert_eq!(names("c"), "");
    }

    /// As long as no kernel would mount it. Each layer is a part of all stacks above it.
    #[test]
    fn a_long_chain_is_kept_once_and_dropped() {
        let manifest = layer(&[]);
        let mut stacks = vec![Stack::default()];
        for _ in 0..200_000 {
            stacks.push(stacks.last().unwrap().push(manifest.clone()));
        }
        assert_eq!(Arc::strong_count(&manifest), 200_001);
        let top = stacks.pop().unwrap();
        drop(stacks);
        assert_eq!(top.manifests().count(), 200_000);
        drop(top);
        assert_eq!(Arc::strong_count(&manifest), 1);
    }
}
