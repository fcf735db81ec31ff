//! One directory against its manifest.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, Manifest, path_order};

use super::{Damage, SealedTree};
use crate::disk::{self, ExaminedEntry, ScannedKind};
use crate::sys::userns::OtherSide;
use crate::types::{ContentHash, Metadata};

/// How many paths of one directory are named; the others are counted.
pub(super) const PATHS_NAMED: usize = 100;

/// What stands at a path, with its content if that was read.
pub(super) struct Found<'a> {
    path: &'a [u8],
    kind: FoundKind<'a>,
    metadata: &'a Metadata,
}

enum FoundKind<'a> {
    File { size: u64, content: Option<ContentHash> },
    Other(&'a Kind),
}

impl<'a> From<&'a ExaminedEntry> for Found<'a> {
    fn from(ExaminedEntry { entry, content }: &'a ExaminedEntry) -> Self {
        let kind = match &entry.kind {
            ScannedKind::File { size } => FoundKind::File { size: *size, content: *content },
            ScannedKind::Other(kind) => FoundKind::Other(kind),
        };
        Found { path: &entry.path, kind, metadata: &entry.metadata }
    }
}

impl<'a> From<&'a Entry> for Found<'a> {
    fn from(entry: &'a Entry) -> Self {
        let kind = match &entry.kind {
            Kind::File { size, content } => FoundKind::File { size: *size, content: Some(*content) },
            kind => FoundKind::Other(kind),
        };
        Found { path: &entry.path, kind, metadata: &entry.metadata }
    }
}

/// In what a directory is other than its manifest says.
#[derive(Default)]
pub(super) struct Differences {
    /// The first of them, and how many more there are.
    pub(super) damages: Vec<Damage>,
    /// Every file whose content is not there, as far as was looked.
    pub(super) lost: Vec<LostFile>,
}

/// A file of a sealed directory that does not have its content.
#[derive(Clone, Debug)]
pub(super) struct LostFile {
    pub(super) tree: [u8; 32],
    pub(super) path: Vec<u8>,
    pub(super) content: ContentHash,
}

/// In what two manifests differ; owners count as right if they are in the terms of the user namespace beside this one.
fn differences(tree: &SealedTree, expected: &Manifest, found: &Manifest) -> Differences {
    compare_in_any_terms(tree, expected.entries(), found.entries(), |entry| {
        disk::has_owner(&entry.kind).then_some(&mut entry.metadata)
    })
}

/// Whether a directory is as its manifest says, but for owners that are those of the user namespace beside this one.
pub(crate) fn is_of_other_side(tree: &SealedTree, expected: &Manifest, found: &Manifest) -> bool {
    let seen = compare(tree, expected.entries(), found.entries().iter().map(Found::from));
    has_owner_differences(&seen) && !has_owner_differences(&differences(tree, expected, found))
}

fn has_owner_differences(differences: &Differences) -> bool {
    differences.damages.iter().any(|damage| {
        matches!(damage, Damage::PathChanged { what, .. } if what.split(", ").any(|word| word == "owner"))
    })
}

/// Compares two lists, both in manifest order.
///
/// A directory that an ordinary user filled has its owners on record as they were seen there: by the numbers of the
/// machine, or by those of the user namespace in which it was filled. Seen from the other side every file has another
/// owner, and is the same file. So owners that all differ in just this way are no difference. `metadata` gives that of what has an
/// owner.
fn compare_in_any_terms<E: Clone>(
    tree: &SealedTree,
    expected: &[Entry],
    found: &[E],
    metadata: impl Fn(&mut E) -> Option<&mut Metadata>,
) -> Differences
where
    for<'a> Found<'a>: From<&'a E>,
{
    let seen = compare(tree, expected, found.iter().map(Found::from));
    if !has_owner_differences(&seen) {
        return seen;
    }
    let Some(other_side) = OtherSide::of_this_process() else { return seen };
    let mut translated = found.to_vec();
    for metadata in translated.iter_mut().filter_map(metadata) {
        (metadata.uid, metadata.gid) = (other_side.user(metadata.uid), other_side.group(metadata.gid));
    }
    let other = compare(tree, expected, translated.iter().map(Found::from));
    if has_owner_differences(&other) { seen } else { other }
}

/// As [`differences`], for as much of a directory as could be read.
pub(super) fn differences_seen(
    tree: &SealedTree,
    expected: &[Entry],
    found: &[ExaminedEntry],
) -> Differences {
    compare_in_any_terms(tree, expected, found, |found| {
        found.entry.kind.has_owner().then_some(&mut found.entry.metadata)
    })
}

/// Compares two lists, both in manifest order.
fn compare<'a>(tree: &SealedTree, expected: &[Entry], found: impl Iterator<Item = Found<'a>>) -> Differences {
    let mut findings = Comparison { tree, found: Differences::default(), more: 0 };
    let mut expected = expected.iter().peekable();
    let mut found = found.peekable();
    loop {
        let order = match (expected.peek(), found.peek()) {
            (None, None) => return findings.finish(),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(expected), Some(found)) => path_order(&expected.path, found.path),
        };
        let entry = if order == Ordering::Greater { None } else { expected.next() };
        let other = if order == Ordering::Less { None } else { found.next() };
        match (entry, other) {
            (Some(entry), Some(other)) => findings.compare(entry, &other),
            (Some(entry), None) => {
                findings.lose(entry);
                findings.add(|tree| Damage::PathMissing { tree, path: shown(&entry.path) });
            }
            (None, Some(other)) => findings.add(|tree| Damage::PathExtra { tree, path: shown(other.path) }),
            (None, None) => {}
        }
    }
}

struct Comparison<'t> {
    tree: &'t SealedTree,
    found: Differences,
    more: u64,
}

impl Comparison<'_> {
    fn add(&mut self, finding: impl FnOnce(SealedTree) -> Damage) {
        if self.found.damages.len() < PATHS_NAMED {
            self.found.damages.push(finding(self.tree.clone()));
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// Notes that an entry does not have its content, if it should have one.
    fn lose(&mut self, entry: &Entry) {
        if let Kind::File { content, .. } = entry.kind {
            self.found.lost.push(LostFile { tree: self.tree.digest.0, path: entry.path.clone(), content });
        }
    }

    fn compare(&mut self, expected: &Entry, found: &Found<'_>) {
        let kind = kind_differences(&expected.kind, &found.kind);
        let other_kind = !kind.is_empty();
        let mut what = kind;
        what.extend(metadata_differences(&expected.metadata, found.metadata));
        if other_kind {
            self.lose(expected);
        }
        let is_told = !what.is_empty();
        if is_told {
            let what = what.join(", ");
            self.add(|tree| Damage::PathChanged { tree, path: shown(&expected.path), what });
        }
        // Of another size, it has another content for sure.
        if let (false, Kind::File { content: wanted, .. }, FoundKind::File { content: Some(content), .. }) =
            (other_kind, &expected.kind, &found.kind)
            && wanted != content
        {
            self.lose(expected);
            // Paths are counted once.
            if is_told && self.found.damages.len() >= PATHS_NAMED {
                return;
            }
            let (expected_content, found) = (*wanted, *content);
            self.add(|tree| Damage::ContentChanged {
                tree,
                path: shown(&expected.path),
                expected: expected_content,
                found,
            });
        }
    }

    fn finish(mut self) -> Differences {
        if self.more > 0 {
            self.found.damages.push(Damage::MorePaths { tree: self.tree.clone(), count: self.more });
        }
        self.found
    }
}

fn kind_differences(expected: &Kind, found: &FoundKind<'_>) -> Vec<&'static str> {
    match (expected, found) {
        (Kind::File { size, .. }, FoundKind::File { size: other, .. }) if size == other => Vec::new(),
        (Kind::File { .. }, FoundKind::File { .. }) => vec!["size"],
        (expected, FoundKind::Other(found)) if expected == *found => Vec::new(),
        (Kind::Symlink { .. }, FoundKind::Other(Kind::Symlink { .. }))
        | (Kind::HardLink { .. }, FoundKind::Other(Kind::HardLink { .. })) => vec!["target"],
        (Kind::Directory { .. }, FoundKind::Other(Kind::Directory { .. })) => vec!["opaque"],
        _ => vec!["kind"],
    }
}

fn metadata_differences(expected: &Metadata, found: &Metadata) -> Vec<&'static str> {
    let fields = [
        (expected.mode != found.mode, "mode"),
        ((expected.uid, expected.gid) != (found.uid, found.gid), "owner"),
        (expected.mtime != found.mtime, "mtime"),
        (expected.xattrs != found.xattrs, "xattrs"),
    ];
    fields.into_iter().filter_map(|(differs, name)| differs.then_some(name)).collect()
}

/// A path below the layer's root, as a user of the layer sees it.
pub(super) fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&[b"/", path].concat()))
}
