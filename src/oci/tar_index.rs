//! Where the members of an image archive are, so that they can be read in any order without unpacking.
//!
//! The archive is walked once, by the [`Reader`] that layers are read with: it refuses whatever two common readers take for
//! different members, so that nobody who looked into an archive with another program has seen another image in it. The
//! contents are skipped, not read. Sparse members are refused, as their bytes are not in one place.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blob::Extent;
use super::dir::io_error;
use crate::archive::{Entry, EntryKind, Reader};
use crate::error::{ArchiveError, Limit, OciError, shown};
use crate::sys::file::File;
use crate::types::{Limits, RelPath};

/// How many links may lead from one to the next.
const MAX_LINKS: usize = 8;
/// The directory of files whose names say their digests.
const BLOBS: &[u8] = b"blobs/";

/// The members of an uncompressed tar file.
#[derive(Debug)]
pub(super) struct TarIndex {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<RelPath, Member>,
    /// What stands there more than once: some readers take the first and some the last.
    twice: HashSet<RelPath>,
}

#[derive(Debug, Clone)]
enum Member {
    File { offset: u64, size: u64 },
    Link(RelPath),
}

impl TarIndex {
    /// Walks the tar in `file` from its beginning; `path` is its name in errors.
    pub(super) fn read(file: Arc<File>, path: &Path, limits: &Limits) -> Result<Self, OciError> {
        let length = file.length().map_err(io_error("stat", path))?;
        let mut index = TarIndex {
            path: path.to_owned(),
            file: Arc::clone(&file),
            members: HashMap::new(),
            twice: HashSet::new(),
        };
        let failed = |error| match error {
            ArchiveError::Limit(limit) => OciError::Limit(limit),
            source => OciError::Archive { path: path.to_owned(), source },
        };
        // Members have a limit of their own here.
        let mut reader = Reader::with_limits(&*file, (), Limits { entries: u64::MAX, ..*limits });
        let (mut members, mut names): (u64, u64) = (0, 0);
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            members = members.saturating_add(1);
            limits.check(Limit::ArchiveMembers, members, || path.display().to_string())?;
            let length_of_names = (entry.path.len() as u64).saturating_add(entry.link.len() as u64);
            names = names.saturating_add(length_of_names);
            limits.check(Limit::ArchivePathBytes, names, || path.display().to_string())?;
            let offset = reader.offset();
            if entry.stored > length.saturating_sub(offset) {
                return Err(index.unusable(&entry.path, "the archive ends before it does"));
            }
            index.add(&entry, offset)?;
            reader.skip_by_seeking().map_err(failed)?;
        }
        Ok(index)
    }

    /// The file of this name, or that a link of this name leads to; `None` if there is none.
    pub(super) fn file(&self, name: &[u8]) -> Result<Option<Extent>, OciError> {
        let mut path = RelPath::from_archive(name)
            .map_err(|_| self.unusable(name, "its name leads out of the archive"))?;
        for _ in 0..=MAX_LINKS {
            // The digest tells which of several blobs is the one.
            if self.twice.contains(&path) && !path.as_bytes().starts_with(BLOBS) {
                return Err(self.unusable(path.as_bytes(), "the archive has it twice"));
            }
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Member::Link(target)) => path = target.clone(),
                Some(Member::File { offset, size }) => {
                    return Ok(Some(Extent::new(Arc::clone(&self.file), *offset, *size)));
                }
            }
        }
        Err(self.unusable(name, "its links lead in a circle, or through too many links"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes note of a member whose content begins at `offset`.
    fn add(&mut self, entry: &Entry, offset: u64) -> Result<(), OciError> {
        let error = |reason| self.unusable(&entry.path, reason);
        if entry.sparse.is_some() {
            return Err(error("it is sparse; write the archive without --sparse"));
        }
        let name =
            RelPath::from_archive(&entry.path).map_err(|_| error("its name leads out of the archive"))?;
        let target = match entry.kind {
            EntryKind::Symlink => symlink_target(&name.parent().unwrap_or_default(), &entry.link),
            EntryKind::HardLink => RelPath::from_archive(&entry.link).ok(),
            EntryKind::File => {
                self.insert(name, Member::File { offset, size: entry.size });
                return Ok(());
            }
            _ => return Ok(()),
        };
        let target = target.ok_or_else(|| error("it is a link that leads out of the archive"))?;
        self.insert(name, Member::Link(target));
        Ok(())
    }

    fn insert(&mut self, name: RelPath, member: Member) {
        if self.members.insert(name.clone(), member).is_some() {
            self.twice.insert(name);
        }
    }

    fn unusable(&self, member: &[u8], reason: &'static str) -> OciError {
        OciError::Member { path: self.path.clone(), member: shown(member), reason }
    }
}

/// Where a symbolic link in the directory `parent` of the archive leads, by its text alone.
fn symlink_target(parent: &RelPath, target: &[u8]) -> Option<RelPath> {
    if target.first() == Some(&b'/') {
        return None;
    }
    let mut joined = parent.as_bytes().to_vec();
    joined.push(b'/');
    joined.extend_from_slice(target);
    RelPath::from_archive(&joined).ok()
}
