//! What a layer changes, as a list of paths.

use std::collections::BTreeSet;
use std::fmt;

use layerstore_schema::manifest::Kind;

use super::stack::Stack;
use crate::disk::ScannedKind;
use crate::types::RelPath;

/// How a path differs from the layers below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ChangeKind {
    /// It was not there.
    Added,
    /// It was there, and its content, metadata or kind is another; or it is a directory with changes below.
    Modified,
    /// It was there and is gone.
    Deleted,
}

impl ChangeKind {
    /// The letter that container tools print: `A`, `C` or `D`.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        }
    }
}

/// One changed path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Change {
    /// The path below the root.
    pub path: RelPath,
    /// What happened to it.
    pub kind: ChangeKind,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} /{}", self.kind.letter(), self.path)
    }
}

/// What an entry of a layer means to the layers below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// It hides the name.
    Whiteout,
    /// It hides everything in the directory.
    Opaque,
    /// It stands in the name's place.
    Plain,
}

impl From<&Kind> for Mark {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Whiteout => Mark::Whiteout,
            Kind::Directory { opaque: true } => Mark::Opaque,
            _ => Mark::Plain,
        }
    }
}

impl From<&ScannedKind> for Mark {
    fn from(kind: &ScannedKind) -> Self {
        match kind {
            ScannedKind::File { .. } => Mark::Plain,
            ScannedKind::Other(kind) => kind.into(),
        }
    }
}

/// The changes that the entries of a layer make to the layers below it, in manifest order. The root directory is
/// never listed.
pub(crate) fn changes<'e>(
    upper: impl Iterator<Item = (&'e [u8], Mark)> + Clone,
    below: &Stack,
) -> Vec<Change> {
    let present: BTreeSet<&[u8]> = upper.clone().map(|(path, _)| path).collect();
    let mut changes = Vec::new();
    let mut push = |path: &[u8], kind| {
        // Paths of a manifest are relative already.
        if let Ok(path) = RelPath::from_archive(path) {
            changes.push(Change { path, kind });
        }
    };
    for (path, mark) in upper.filter(|(path, _)| !path.is_empty()) {
        let was_there = below.find(path).is_some();
        match mark {
            Mark::Whiteout if was_there => push(path, ChangeKind::Deleted),
            Mark::Whiteout => {}
            _ => push(path, if was_there { ChangeKind::Modified } else { ChangeKind::Added }),
        }
        if mark == Mark::Opaque {
            for name in below.children(path) {
                let hidden = [path, b"/", &name].concat();
                if !present.contains(hidden.as_slice()) {
                    push(&hidden, ChangeKind::Deleted);
                }
            }
        }
    }
    changes.sort();
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use layerstore_schema::manifest::{Entry, Manifest};

    use super::*;
    use crate::types::Metadata;

    const DIRECTORY: Kind = Kind::Directory { opaque: false };

    fn below(paths: &[(&str, Kind)]) -> Stack {
        let entry = |(path, kind): &(&str, Kind)| Entry {
            path: path.as_bytes().to_vec(),
            kind: kind.clone(),
            metadata: Metadata::default(),
        };
        let root = [("", DIRECTORY)];
        let entries = paths.iter().chain(&root).map(entry).collect();
        Stack::new(vec![Arc::new(Manifest::new(entries).unwrap())])
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let below = below(&[
            ("etc", DIRECTORY),
            ("etc/hosts", Kind::Fifo),
            ("etc/old", Kind::Fifo),
            ("opt", DIRECTORY),
            ("opt/a", Kind::Fifo),
            ("opt/b", Kind::Fifo),
        ]);
        let upper = [
            ("", Mark::Plain),
            ("etc", Mark::Plain),
            ("etc/hosts", Mark::Plain),
            ("etc/never", Mark::Whiteout),
            ("etc/new", Mark::Plain),
            ("etc/old", Mark::Whiteout),
            ("opt", Mark::Opaque),
            ("opt/a", Mark::Plain),
        ];
        let found = changes(upper.iter().map(|(path, mark)| (path.as_bytes(), *mark)), &below);
        let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["C /etc", "C /etc/hosts", "A /etc/new", "D /etc/old", "C /opt", "C /opt/a", "D /opt/b"]
        );
    }

    #[test]
    fn no_entry_is_no_change() {
        assert!(changes([(&b""[..], Mark::Plain)].into_iter(), &Stack::default()).is_empty());
    }
}
