//! What a mount left in the layers below, brought back: a plain changeset from a directory that is none.
//!
//! The store's own mounts copy what is changed. A mount that somebody else made may be told otherwise, or not told at all
//! where the kernel's defaults are others (`redirect_dir`, `metacopy`):
//!
//! - a renamed directory is not copied. It says where below the things are that are in it ("redirect"), and has only
//!   those that were changed since. As a changeset it is an opaque directory with all that it shows;
//! - a file whose owner, mode or attributes were changed has these, and not its bytes ("metacopy"). As a changeset it has
//!   them;
//! - names of one file in a lower layer stay names of one file when it is written to through one of them, though only that
//!   one is in the directory ("index"). As a changeset it has them all ([`links`](super::links)).
//!
//! Where things are is told by paths in what the layers below show together. Those have been resolved themselves by then, so
//! a path in a layer that an archive brought is never followed, whatever its attributes say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use layerstore_schema::manifest::{Entry, Kind, path_order};

use super::compare::{Shown, is_directory, merge, parent};
use super::stack::Stack;
use super::writable::UNREAD;
use crate::disk::{KeptFile, LeftBelow, ScannedEntry, ScannedKind};
use crate::error::ScanError;
use crate::sys::handle::Handle;
use crate::sys::stat::FileId;
use crate::types::{ContentHash, Metadata, RelPath};

/// Where the bytes of a file are that are not in the directory itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Where that path leads from.
    pub(crate) holder: Holder,
    /// The path there.
    pub(crate) path: Vec<u8>,
    /// The bytes' hash as the stack has it.
    pub(crate) content: ContentHash,
}

/// What has a file that is not where the changeset has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Holder {
    /// A layer below, by its position in the stack, topmost first.
    Below(usize),
    /// The directory itself.
    Directory,
    /// The index in its workdir.
    Index,
}

/// A directory as a plain changeset.
#[derive(Default, Debug)]
pub(crate) struct Resolved {
    /// What it has, in manifest order, with nothing left below.
    pub(crate) entries: Vec<ScannedEntry>,
    /// Where the bytes of files are that are not in the directory, by path.
    pub(crate) elsewhere: HashMap<Vec<u8>, Place>,
    /// The names of files that only the index has.
    pub(crate) kept: Vec<Vec<u8>>,
}

/// Makes a plain changeset of what is `left` in a directory above the stack `below`, and `kept` in its index. `owned` gives the metadata of what is
/// below as the mount shows it, for one that maps ids; `handle` what the filesystem calls the file at a path in a layer below.
///
/// Returns [`ScanError::LeftBelow`] if something is not where the directory says.
pub(crate) fn resolve(
    left: Vec<ScannedEntry>,
    kept: Vec<KeptFile>,
    below: &Stack,
    owned: impl Fn(&mut Metadata),
    handle: impl Fn(usize, &[u8]) -> Option<Handle>,
) -> Result<Resolved, ScanError> {
    let linked: Vec<_> =
        left.iter().filter_map(|entry| Some((entry.path.clone(), entry.linked_below.clone()?))).collect();
    let paths: BTreeSet<Vec<u8>> = left.iter().map(|entry| entry.path.clone()).collect();
    let mut resolving = Resolving {
        below: merge(below),
        paths,
        owned,
        directories: HashMap::new(),
        taken: BTreeSet::new(),
        resolved: Resolved::default(),
    };
    for entry in left {
        resolving.add(entry)?;
    }
    resolving.link_names_below(&linked, kept, handle);
    Ok(resolving.finish())
}

/// A directory of the changeset.
#[derive(Clone, Default)]
pub(super) struct Merged {
    /// The path below that it is merged with, if there is one.
    with: Option<Vec<u8>>,
    /// Whether a plain changeset hides what the layers below have at its own path.
    pub(super) hides: bool,
}

pub(super) struct Resolving<'b, F> {
    pub(super) below: BTreeMap<&'b [u8], Shown<'b>>,
    /// The paths that are in the directory itself.
    pub(super) paths: BTreeSet<Vec<u8>>,
    owned: F,
    pub(super) directories: HashMap<Vec<u8>, Merged>,
    /// What was taken from below: the kernel renames a directory once, so that nothing is taken twice.
    taken: BTreeSet<&'b [u8]>,
    pub(super) resolved: Resolved,
}

impl<F: Fn(&mut Metadata)> Resolving<'_, F> {
    fn add(&mut self, mut entry: ScannedEntry) -> Result<(), ScanError> {
        let above = match entry.path.is_empty() {
            true => Merged { with: Some(Vec::new()), hides: false },
            false => self.directories.get(parent(&entry.path)).cloned().unwrap_or_default(),
        };
        let beside = |name: &[u8]| above.with.as_ref().map(|above| join(above, name));
        let found = match entry.left_below.take() {
            Some(LeftBelow::Tree { redirect } | LeftBelow::Content { redirect: Some(redirect) }) => {
                match absolute(&redirect, &entry.path)? {
                    Some(path) => Some(path),
                    None => beside(&redirect),
                }
            }
            Some(LeftBelow::Content { redirect: None }) => {
                let found = beside(name(&entry.path));
                return self.add_file(entry, found);
            }
            None => return self.add_plain(entry, &above),
        };
        match entry.kind {
            ScannedKind::File { .. } => self.add_file(entry, found),
            ScannedKind::Other(_) => self.add_directory(entry, &above, found),
        }
    }

    /// Adds what says nothing of the layers below.
    fn add_plain(&mut self, entry: ScannedEntry, above: &Merged) -> Result<(), ScanError> {
        match entry.kind {
            ScannedKind::Other(Kind::Directory { opaque: true }) => {
                self.directories.insert(entry.path.clone(), Merged { with: None, hides: true });
            }
            ScannedKind::Other(Kind::Directory { opaque: false }) => {
                let with = match entry.path.is_empty() {
                    true => above.with.clone(),
                    false => above.with.as_ref().map(|above| join(above, name(&entry.path))),
                };
                return self.add_directory(entry, above, with);
            }
            // There is nothing left that it could hide.
            ScannedKind::Other(Kind::Whiteout) if above.hides => return Ok(()),
            _ => {}
        }
        self.resolved.entries.push(entry);
        Ok(())
    }

    /// Adds a directory that is merged with the one at `with` below.
    fn add_directory(
        &mut self,
        mut entry: ScannedEntry,
        above: &Merged,
        with: Option<Vec<u8>>,
    ) -> Result<(), ScanError> {
        let in_place = !above.hides && with.as_ref() == Some(&entry.path);
        let path = entry.path.clone();
        let merged = Merged { with: with.clone(), hides: !in_place };
        self.directories.insert(path.clone(), merged);
        if !in_place {
            entry.kind = ScannedKind::Other(Kind::Directory { opaque: !above.hides });
        }
        self.resolved.entries.push(entry);
        match with {
            Some(with) if !in_place => self.take(&with, &path),
            _ => Ok(()),
        }
    }

    /// Adds a file whose bytes are at `found` below.
    fn add_file(&mut self, mut entry: ScannedEntry, found: Option<Vec<u8>>) -> Result<(), ScanError> {
        let shown = found.as_ref().and_then(|path| self.below.get(path.as_slice()));
        let (Some(shown), Some(Kind::File { size, content })) = (shown, shown.map(|shown| &shown.entry.kind))
        else {
            return Err(missing(&entry.path, &found.unwrap_or_default()));
        };
        entry.kind = ScannedKind::File { size: *size };
        let holder = Holder::Below(shown.layer);
        let place = Place { holder, path: shown.entry.path.clone(), content: *content };
        self.resolved.elsewhere.insert(entry.path.clone(), place);
        self.resolved.entries.push(entry);
        Ok(())
    }

    /// Takes all that is below the directory `from` of the layers below to `to`, but for what is there already.
    fn take(&mut self, from: &[u8], to: &[u8]) -> Result<(), ScanError> {
        // '0' is the byte after '/'.
        let (first, end) = (join(from, b""), [from, b"0"].concat());
        let between = (Bound::Included(&*first), Bound::Excluded(&*end));
        for (&path, shown) in self.below.range::<[u8], _>(between) {
            let rest = path.get(first.len()..).unwrap_or_default();
            let path_here = join(to, rest);
            let is_own = |own: &[u8]| own.len() > to.len() && self.paths.contains(own);
            if std::iter::successors(Some(path_here.as_slice()), |path| Some(parent(path)))
                .take_while(|own| own.len() > to.len())
                .any(is_own)
            {
                continue;
            }
            if !self.taken.insert(path) {
                return Err(missing(to, from));
            }
            let entry = self.taken(shown.entry, path_here);
            if !is_directory(shown.entry) {
                let content = match shown.entry.kind {
                    Kind::File { content, .. } => content,
                    _ => UNREAD,
                };
                let holder = Holder::Below(shown.layer);
                let place = Place { holder, path: shown.entry.path.clone(), content };
                self.resolved.elsewhere.insert(entry.path.clone(), place);
            }
            self.resolved.entries.push(entry);
        }
        Ok(())
    }

    /// What is below at another path, as if it had been copied.
    pub(super) fn taken(&self, below: &Entry, path: Vec<u8>) -> ScannedEntry {
        let mut metadata = below.metadata.clone();
        (self.owned)(&mut metadata);
        let kind = match &below.kind {
            Kind::File { size, .. } => ScannedKind::File { size: *size },
            Kind::Directory { .. } => ScannedKind::Other(Kind::Directory { opaque: false }),
            kind => ScannedKind::Other(kind.clone()),
        };
        ScannedEntry {
            path,
            kind,
            metadata,
            id: FileId::default(),
            allocated: 0,
            left_below: None,
            linked_below: None,
        }
    }

    /// Names of one file below are names of one file here.
    fn finish(self) -> Resolved {
        let Resolved { mut entries, mut elsewhere, kept } = self.resolved;
        entries.sort_unstable_by(|a, b| path_order(&a.path, &b.path));
        let mut first_names: HashMap<(usize, Vec<u8>), Vec<u8>> = HashMap::new();
        for entry in entries.iter_mut().filter(|entry| !self.paths.contains(&entry.path)) {
            let Some(Place { holder: Holder::Below(layer), path, .. }) = elsewhere.get(&entry.path) else {
                continue;
            };
            let inode = (*layer, path.clone());
            if let Some(first) = first_names.get(&inode) {
                elsewhere.remove(&entry.path);
                entry.kind = ScannedKind::Other(Kind::HardLink { target: first.clone() });
                entry.metadata = Metadata::default();
            } else {
                first_names.insert(inode, entry.path.clone());
            }
        }
        elsewhere.retain(|path, _| {
            let found = entries.binary_search_by(|entry| path_order(&entry.path, path)).ok();
            let entry = found.and_then(|at| entries.get(at));
            entry.is_some_and(|entry| matches!(entry.kind, ScannedKind::File { .. }))
        });
        Resolved { entries, elsewhere, kept }
    }
}

/// The path that a redirect names from the root; `None` for one that is a name.
fn absolute(redirect: &[u8], of: &[u8]) -> Result<Option<Vec<u8>>, ScanError> {
    let is_name = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
    let path = redirect.strip_prefix(b"/");
    let parts = path.unwrap_or(redirect);
    let is_right =
        parts.split(|&byte| byte == b'/').all(is_name) && (path.is_some() || !parts.contains(&b'/'));
    if is_right { Ok(path.map(<[u8]>::to_vec)) } else { Err(missing(of, redirect)) }
}

fn missing(path: &[u8], target: &[u8]) -> ScanError {
    let shown = |path: &[u8]| RelPath::from_archive(path).unwrap_or_default().as_path().to_owned();
    ScanError::LeftBelow { path: shown(path), target: shown(target) }
}

fn join(above: &[u8], name: &[u8]) -> Vec<u8> {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

/// The last part of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests;
