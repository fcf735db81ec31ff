//! The table of contents against the archive: whoever reads one sees what readers of the other see.

use std::collections::{HashMap, VecDeque};

use super::toc::{Toc, TocEntry};
use crate::archive::{Entry, EntryKind};
use crate::error::{ChunkedError, shown};
use crate::types::{Digest, Limits, Timestamp};

/// No entry of a table is shorter: `{"type":"dir","name":"a"}`, and a comma.
const SHORTEST_ENTRY: u64 = 26;

/// What a table and an archive both say of a member, in a form that takes as much memory for every member but for its
/// name: links and xattrs, of which one member can have a megabyte, are there as hashes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Facts {
    /// The name as it stands there; a directory's without trailing slashes.
    pub path: Box<[u8]>,
    /// The length of the file.
    pub size: u64,
    kind: EntryKind,
    mode: u16,
    owner: (u32, u32),
    mtime: Timestamp,
    link: blake3::Hash,
    xattrs: blake3::Hash,
    is_sparse: bool,
}

impl From<Entry> for Facts {
    fn from(entry: Entry) -> Self {
        let mut xattrs = blake3::Hasher::new();
        for part in entry.xattrs.iter().flat_map(|(name, value)| [name, value]) {
            xattrs.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Facts {
            path: entry.path.into(),
            size: entry.size,
            kind: entry.kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            link: blake3::hash(&entry.link),
            xattrs: xattrs.finalize(),
            is_sparse: entry.sparse.is_some(),
        }
    }
}

/// What was seen of an archive while it was read, to be compared with its table.
///
/// It is in memory until the end, since the table comes last. So it takes no more members, and no more bytes of names, than
/// the table can have: an archive with more does not agree with it, whatever comes then.
#[derive(Default, Debug)]
pub(crate) struct Listing {
    members: Vec<(Facts, Option<Digest>)>,
    /// How many more members, and bytes of names, the table can have.
    members_left: usize,
    names_left: u64,
    /// The first member that the table has no room for.
    beyond: Option<String>,
}

impl Listing {
    /// For a table of this length, which is not yet known.
    pub(crate) fn for_length(unpacked: u64, limits: &Limits) -> Self {
        let members = (unpacked / SHORTEST_ENTRY).min(limits.toc_entries);
        let members_left = usize::try_from(members).unwrap_or(usize::MAX);
        Listing { members_left, names_left: unpacked, ..Listing::default() }
    }

    /// For a table that is known.
    pub(crate) fn for_table(toc: &Toc) -> Self {
        let names_left = toc.entries.iter().map(|entry| entry.entry.path.len() as u64).sum();
        Listing { members_left: toc.entries.len(), names_left, ..Listing::default() }
    }

    /// Adds a member, with the digest of its content if it has any.
    pub(crate) fn push(&mut self, member: impl Into<Facts>, content: Option<Digest>) {
        if self.beyond.is_some() {
            return;
        }
        let member = member.into();
        let left = self.names_left.checked_sub(member.path.len() as u64);
        match (self.members_left.checked_sub(1), left) {
            (Some(members), Some(names)) => {
                (self.members_left, self.names_left) = (members, names);
                self.members.push((member, content));
            }
            // Nothing of it is needed any more.
            _ => {
                self.beyond = Some(shown(&member.path));
                self.members = Vec::new();
            }
        }
    }

    /// How many bytes of memory it takes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let names: usize = self.members.iter().map(|(member, _)| member.path.len()).sum();
        self.members.capacity() * size_of::<(Facts, Option<Digest>)>() + names
    }

    /// Compares: each member of the archive has its entry in the table, with the same metadata and content, and there are
    /// no others. Names are compared as they stand there, and members of one name in their order.
    ///
    /// Returns [`ChunkedError::Disagrees`] naming the first that differs, or one that the table has no room for.
    pub(crate) fn agrees_with(&self, toc: &Toc) -> Result<(), ChunkedError> {
        let only_archive = "only the archive has it";
        if let Some(beyond) = &self.beyond {
            return Err(ChunkedError::Disagrees { entry: beyond.clone(), what: only_archive });
        }
        let mut pending: HashMap<&[u8], VecDeque<&TocEntry>> = HashMap::new();
        for entry in &toc.entries {
            pending.entry(&entry.entry.path).or_default().push_back(entry);
        }
        for (member, content) in &self.members {
            let disagrees = |what| ChunkedError::Disagrees { entry: shown(&member.path), what };
            let entry = pending.get_mut(&*member.path).and_then(VecDeque::pop_front);
            let entry = entry.ok_or_else(|| disagrees(only_archive))?;
            if let Some(what) = difference(member, content.as_ref(), entry) {
                return Err(disagrees(what));
            }
        }
        match toc
            .entries
            .iter()
            .find(|entry| pending.get(&*entry.entry.path).is_some_and(|left| !left.is_empty()))
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
fn difference(member: &Facts, content: Option<&Digest>, entry: &TocEntry) -> Option<&'static str> {
    let TocEntry { entry, content: said } = entry;
    let checks = [
        ("its type", member.kind == entry.kind),
        ("its mode", member.mode == entry.mode),
        ("its owner", member.owner == entry.owner),
        ("its time", member.mtime == entry.mtime),
        ("its link", member.link == entry.link),
        ("its xattrs", member.xattrs == entry.xattrs),
        ("its length", member.size == entry.size && member.is_sparse == entry.is_sparse),
        ("its content", content == said.as_ref().map(|said| &said.digest)),
    ];
    checks.into_iter().find_map(|(what, same)| (!same).then_some(what))
}
