//! A diff directory as far as this process may read it.
//!
//! A layer may have a file or a directory whose mode keeps its owner out. Root reads it all the same; an ordinary user does so in
//! a user namespace, and outside of one may not. That is no damage, so a check compares the rest.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use super::hash::hash_allowed;
use super::overlay_form::XattrNamespace;
use super::scan::{ScannedEntry, ScannedKind, Walked, Withheld, refuse_left_below, walk};
use super::walk::{Access, Life};
use crate::error::ScanError;
use crate::types::ContentHash;

/// What could be read of a directory, and what could not.
#[derive(Debug)]
pub(crate) struct Examined {
    /// Every path that is seen, in manifest order.
    pub(crate) entries: Vec<ExaminedEntry>,
    /// What this process may not read.
    pub(crate) withheld: Vec<Withheld>,
}

/// A path, with its content if that was read.
#[derive(Clone, Debug)]
pub(crate) struct ExaminedEntry {
    /// What stands there.
    pub(crate) entry: ScannedEntry,
    /// Of a file whose content was read.
    pub(crate) content: Option<ContentHash>,
}

impl Examined {
    /// How many bytes were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        let sizes =
            self.entries.iter().filter(|found| found.content.is_some()).map(|found| match found.entry.kind {
                ScannedKind::File { size } => size,
                ScannedKind::Other(_) => 0,
            });
        sizes.fold(0, u64::saturating_add)
    }
}

/// Lists a sealed diff directory in manifest order and reads its files, if contents are asked for: but for those that are `known`, by their
/// paths, since somebody has just read them. What this process may not read is left out and listed.
///
/// Returns [`ScanError`] for whatever else is in the way, and if this process may not even look into the root.
pub(crate) fn examine(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    known: Option<&HashMap<&[u8], ContentHash>>,
) -> Result<Examined, ScanError> {
    let Walked { entries, mut withheld, .. } = walk(root, namespace, (Access::PassBy, Life::Still), None)?;
    refuse_left_below(&entries, namespace)?;
    let known_content = |entry: &ScannedEntry| known?.get(entry.path.as_slice()).copied();
    let (hashes, unread) = match known {
        Some(_) => hash_allowed(root, entries.iter().filter(|entry| known_content(entry).is_none()))?,
        None => Default::default(),
    };
    withheld.extend(unread);
    let entries = entries.into_iter().map(|entry| {
        let content = match entry.kind {
            ScannedKind::File { .. } => known_content(&entry).or_else(|| hashes.get(&entry.id).copied()),
            ScannedKind::Other(_) => None,
        };
        ExaminedEntry { entry, content }
    });
    Ok(Examined { entries: entries.collect(), withheld })
}
