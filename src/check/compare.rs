//! One directory against its manifest.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, path_order};

use super::{Finding, SealedTree};
use crate::disk::{ScannedEntry, ScannedKind};
use crate::types::{ContentHash, Metadata};

/// How many paths of one directory are named; the others are counted.
const PATHS_NAMED: usize = 100;

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

impl<'a> From<&'a ScannedEntry> for Found<'a> {
    fn from(entry: &'a ScannedEntry) -> Self {
        let kind = match &entry.kind {
            ScannedKind::File { size } => FoundKind::File { size: *size, content: None },
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

/// Compares two lists, both in manifest order.
pub(super) fn compare<'a>(
    tree: &SealedTree,
    expected: &[Entry],
    found: impl Iterator<Item = Found<'a>>,
) -> Vec<Finding> {
    let mut findings = Differences { tree, findings: Vec::new(), more: 0 };
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
                findings.add(|tree| Finding::PathMissing { tree, path: shown(&entry.path) });
            }
            (None, Some(other)) => findings.add(|tree| Finding::PathExtra { tree, path: shown(other.path) }),
            (None, None) => {}
        }
    }
}

struct Differences<'t> {
    tree: &'t SealedTree,
    findings: Vec<Finding>,
    more: u64,
}

impl Differences<'_> {
    fn add(&mut self, finding: impl FnOnce(SealedTree) -> Finding) {
        if self.findings.len() < PATHS_NAMED {
            self.findings.push(finding(self.tree.clone()));
        } else {
            self.more += 1;
        }
    }

    fn compare(&mut self, expected: &Entry, found: &Found<'_>) {
        let mut what = kind_differences(&expected.kind, &found.kind);
        what.extend(metadata_differences(&expected.metadata, found.metadata));
        if !what.is_empty() {
            let what = what.join(", ");
            self.add(|tree| Finding::PathChanged { tree, path: shown(&expected.path), what });
        } else if let (
            Kind::File { content: expected_content, .. },
            FoundKind::File { content: Some(content), .. },
        ) = (&expected.kind, &found.kind)
            && expected_content != content
        {
            let (wanted, found) = (*expected_content, *content);
            self.add(|tree| Finding::ContentChanged {
                tree,
                path: shown(&expected.path),
                expected: wanted,
                found,
            });
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        if self.more > 0 {
            self.findings.push(Finding::MorePaths { tree: self.tree.clone(), count: self.more });
        }
        self.findings
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
