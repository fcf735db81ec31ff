//! A diff directory as a manifest: the changes it stands for, whatever form they take on this disk.

mod entry;
mod found;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};

use layerstore_schema::manifest::{Entry, Kind, Manifest};

use super::hash_files;
use super::looks::Written;
use super::masked;
use super::overlay_form::XattrNamespace;
use super::program_marks::{self, ProgramMark};
use super::usage::{Tally, Usage};
use super::walk::{Access, Life, Step, Walker, failed, is_gone, path_buf};
use crate::error::{ScanError, TreeError};
use crate::sys::handle::{Handle, handle_at};
use crate::sys::stat::Stat;
use crate::sys::xattr::Target;
use crate::sys::{beneath, stat};
use crate::types::ContentHash;

pub(crate) use entry::{LeftBelow, ScannedEntry, ScannedKind, Withheld, WithheldPart, has_owner};
use found::Scan;

/// Lists a diff directory in manifest order, without reading file content.
///
/// Returns [`ScanError::Redirected`] if overlayfs left an entry whose content lies in another layer.
pub(crate) fn list(root: BorrowedFd<'_>, namespace: XattrNamespace) -> Result<Vec<ScannedEntry>, ScanError> {
    let entries = list_as_left(root, namespace, Life::Still)?;
    refuse_left_below(&entries, namespace).map(|()| entries)
}

pub(super) fn refuse_left_below(
    entries: &[ScannedEntry],
    namespace: XattrNamespace,
) -> Result<(), ScanError> {
    match entries.iter().find(|entry| entry.is_left_below()) {
        None => Ok(()),
        Some(entry) => {
            let attribute = match entry.left_below {
                Some(LeftBelow::Tree { .. }) => namespace.redirect(),
                Some(LeftBelow::Content { .. }) => namespace.metacopy(),
                None => namespace.links(),
            };
            let xattr = String::from_utf8_lossy(attribute).into_owned();
            Err(ScanError::Redirected { path: path_buf(&entry.path), xattr })
        }
    }
}

/// Lists a directory that mounts have written to, with what they left in the layers below.
///
/// Returns [`ScanError`] if it cannot be read, or is more than a manifest may have.
pub(crate) fn list_as_left(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    life: Life,
) -> Result<Vec<ScannedEntry>, ScanError> {
    walk(root, namespace, (Access::AsIs, life), None).map(|walked| walked.entries)
}

/// A directory as a walk found it.
pub(super) struct Walked {
    pub(super) entries: Vec<ScannedEntry>,
    pub(super) usage: Usage,
    /// With [`Access::PassBy`]: what may not be read.
    pub(super) withheld: Vec<Withheld>,
}

/// Lists a directory and measures it, each file with one look, but for those that are `written`.
pub(super) fn walk(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    (access, life): (Access, Life),
    written: Option<Written<'_>>,
) -> Result<Walked, ScanError> {
    let found = stat::stat(root).map_err(failed(b".", "examine"))?;
    let masked = masked::mask_of(root, namespace).map_err(failed(b".", "read the xattrs of"))?.is_some();
    let by_program = program_marks::is_by_program(root, namespace);
    let by_program = by_program.map_err(failed(b".", "read the xattrs of"))?;
    let mut scan = Scan::new(namespace, masked, access);
    let mut tally = Tally::default();
    tally.add(&found);
    let mut walker = Walker::with(root, access, life)?;
    if written.is_some() {
        walker.trust_listed_inodes();
    }
    let opaque = scan.directory(b"", &found, walker.directory().as_fd(), by_program)?;
    // Whether each directory above, the root first, is opaque.
    let mut opaque = vec![opaque];
    // The names that a program says are gone, with the files that say so.
    let mut gone: Vec<(Vec<u8>, Stat)> = Vec::new();
    while let Some(step) = walker.next_step_knowing(|id| written?.look(id))? {
        if let Step::Enter(item) | Step::Leaf(item) = &step {
            tally.add(&item.stat);
        }
        match step {
            Step::Enter(item) => {
                let directory = walker.directory().as_fd();
                opaque.push(scan.directory(walker.path(), &item.stat, directory, by_program)?);
            }
            Step::Leave(_) => drop(opaque.pop()),
            Step::Leaf(item) => {
                if let Some(reason) = walker.take_refusal() {
                    let target = Target::Name(item.dir.as_fd(), &item.name);
                    scan.add(walker.path(), &item.stat, target, false, None)?;
                    scan.withhold(walker.path(), WithheldPart::Names, reason);
                    continue;
                }
                // A program leaves whiteouts also where nothing is below.
                let hidden = by_program && opaque.contains(&true);
                match program_marks::mark_of(&item.name, &item.stat).filter(|_| by_program) {
                    Some(ProgramMark::Opaque) => {}
                    Some(ProgramMark::Gone(_)) if hidden => {}
                    Some(ProgramMark::Gone(name)) => {
                        let mut path = walker.path().to_vec();
                        path.truncate(path.len().saturating_sub(item.name.len()));
                        path.extend_from_slice(name);
                        gone.push((path, item.stat));
                    }
                    None => {
                        let within = if hidden { Some(true) } else { opaque.last().copied() };
                        let target = Target::Name(item.dir.as_fd(), &item.name);
                        let bare = written.is_some_and(|written| written.is_bare(&item.stat));
                        match scan.add(walker.path(), &item.stat, target, bare, within) {
                            Err(ScanError::Tree(TreeError::Io { source, .. }))
                                if life == Life::Changing && is_gone(&source) => {}
                            added => drop(added?),
                        }
                    }
                }
            }
        }
    }
    scan.finish_links();
    scan.add_gone(gone)?;
    Ok(Walked { entries: scan.entries, usage: tally.usage, withheld: scan.withheld })
}

/// Lists a directory that another program has made of an archive. The marks of overlayfs for what was left below came with the
/// archive there, and mean nothing.
///
/// Returns [`ScanError`] if it cannot be read.
pub(crate) fn list_of_another(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
) -> Result<Vec<ScannedEntry>, ScanError> {
    let mut entries = list_as_left(root, namespace, Life::Still)?;
    for entry in &mut entries {
        (entry.left_below, entry.linked_below) = (None, None);
    }
    Ok(entries)
}

/// What the filesystem calls the file at a path, if it has names of that kind.
pub(crate) fn handle(root: BorrowedFd<'_>, path: &[u8]) -> Option<Handle> {
    let (above, name) = beneath::open_parent_beneath(root, path).ok()?;
    handle_at(above.as_fd(), name).ok()
}

/// Makes the manifest of a diff directory. Files whose inode is in `known` are not read again; the others
/// are, on all processors.
///
/// Returns what [`list`] does, and [`ScanError::Changed`] if a file is written to meanwhile.
pub(crate) fn scan(
    root: BorrowedFd<'_>,
    known: &HashMap<u64, ContentHash>,
    namespace: XattrNamespace,
) -> Result<Manifest, ScanError> {
    measured_scan(root, known, None, namespace).map(|(manifest, _)| manifest)
}

/// As [`scan`], and with what the directory takes on the disk. Those of the `known` files that were just `written` are not even looked at.
pub(crate) fn measured_scan(
    root: BorrowedFd<'_>,
    known: &HashMap<u64, ContentHash>,
    written: Option<Written<'_>>,
    namespace: XattrNamespace,
) -> Result<(Manifest, Usage), ScanError> {
    let Walked { entries: listed, usage, .. } = walk(root, namespace, (Access::AsIs, Life::Still), written)?;
    refuse_left_below(&listed, namespace)?;
    let is_unknown = |entry: &ScannedEntry| !known.contains_key(&entry.id.inode);
    let read = hash_files(root, listed.iter().filter(|entry| is_unknown(entry)), Life::Still)?;
    let mut entries = Vec::with_capacity(listed.len());
    for ScannedEntry { path, kind, metadata, id, .. } in listed {
        let kind = match kind {
            ScannedKind::Other(kind) => kind,
            ScannedKind::File { size } => match known.get(&id.inode).or_else(|| read.get(&id)) {
                Some(&content) => Kind::File { size, content },
                None => return Err(ScanError::Changed { path: path_buf(&path) }),
            },
        };
        entries.push(Entry { path, kind, metadata });
    }
    Ok((Manifest::new(entries)?, usage))
}

/// A listing without names that are gone by now. The next name of a file that has others becomes its first.
pub(crate) fn without(entries: Vec<ScannedEntry>, gone: &HashSet<Vec<u8>>) -> Vec<ScannedEntry> {
    // What each of these names was, and the first name that its file has now.
    let mut files: HashMap<Vec<u8>, (ScannedEntry, Option<Vec<u8>>)> = HashMap::new();
    let mut left = Vec::with_capacity(entries.len());
    for mut entry in entries {
        if gone.contains(&entry.path) {
            files.insert(entry.path.clone(), (entry, None));
            continue;
        }
        if let ScannedKind::Other(Kind::HardLink { target }) = &mut entry.kind
            && let Some((file, first)) = files.get_mut(target)
        {
            match first {
                Some(first) => target.clone_from(first),
                None => {
                    *first = Some(entry.path.clone());
                    entry = ScannedEntry { path: entry.path, ..file.clone() };
                }
            }
        }
        left.push(entry);
    }
    left
}

#[cfg(test)]
mod tests;
