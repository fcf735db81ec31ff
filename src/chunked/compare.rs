//! The table of contents against the archive: whoever reads one sees what readers of the other see.

use std::collections::{HashMap, VecDeque};

use super::shown;
use super::toc::{Toc, TocEntry};
use crate::archive::Entry;
use crate::error::ChunkedError;
use crate::types::Digest;

/// What was seen of an archive while it was read, to be compared with its table.
///
/// It is in memory until the end, since the table comes last: as much again as the table takes.
#[derive(Default, Debug)]
pub(crate) struct Listing {
    members: Vec<(Entry, Option<Digest>)>,
}

impl Listing {
    /// Adds a member, with the digest of its content if it has any.
    pub(crate) fn push(&mut self, entry: Entry, content: Option<Digest>) {
        self.members.push((entry, content));
    }

    /// Compares: each member of the archive has its entry in the table, with the same metadata and content, and there are
    /// no others. Names are compared as they stand there, and members of one name in their order.
    ///
    /// Returns [`ChunkedError::Disagrees`] naming the first that differs.
    pub(crate) fn agrees_with(&self, toc: &Toc) -> Result<(), ChunkedError> {
        let mut pending: HashMap<&[u8], VecDeque<&TocEntry>> = HashMap::new();
        for entry in &toc.entries {
            pending.entry(&entry.entry.path).or_default().push_back(entry);
        }
        for (member, content) in &self.members {
            let disagrees = |what| ChunkedError::Disagrees { entry: shown(&member.path), what };
            let entry = pending.get_mut(member.path.as_slice()).and_then(VecDeque::pop_front);
            let entry = entry.ok_or_else(|| disagrees("only the archive has it"))?;
            if let Some(what) = difference(member, content.as_ref(), entry) {
                return Err(disagrees(what));
            }
        }
        match toc
            .entries
            .iter()
            .find(|entry| pending.get(entry.entry.path.as_slice()).is_some_and(|left| !left.is_empty()))
        {
            Some(left) => {
                let what = "only the table has it";
                Err(ChunkedError::Disagrees { entry: shown(&left.entry.path), what })
            }
            None => Ok(()),
        }
    }
}

/// What a member and an entry say differently.
fn difference(member: &Entry, content: Option<&Digest>, entry: &TocEntry) -> Option<&'static str> {
    let TocEntry { entry, content: said } = entry;
    let checks = [
        ("its type", member.kind == entry.kind),
        ("its mode", member.mode == entry.mode),
        ("its owner", (member.uid, member.gid) == (entry.uid, entry.gid)),
        ("its time", member.mtime == entry.mtime),
        ("its link", member.link == entry.link),
        ("its xattrs", member.xattrs == entry.xattrs),
        ("its length", member.size == entry.size && member.sparse.is_none()),
        ("its content", content == said.as_ref().map(|said| &said.digest)),
    ];
    checks.into_iter().find_map(|(what, same)| (!same).then_some(what))
}
