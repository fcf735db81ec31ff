//! Asking the kernel, file by file.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use layerstore_schema::manifest::ContentHash;
use rustix::fs::FileType;

use super::DedupOptions;
use super::candidates::{Candidates, Located, Tree, path_in};
use super::report::{DedupReport, SkipReason};
use crate::disk;
use crate::error::{Error, LayoutError};
use crate::layer::Progress;
use crate::store::Store;
use crate::sys::stat::FileId;
use crate::sys::{beneath, stat};

/// With how many files a file is compared at the most, if the kernel finds those of one hash different.
const MOST_FIRST: usize = 4;

/// How many directories are kept open.
const MOST_OPEN: usize = 64;

/// Goes through all files, and lets each share its extents with the first that has the same content.
pub(super) struct Sharer<'a> {
    store: &'a Store,
    options: &'a DedupOptions<'a>,
    candidates: &'a Candidates,
    report: &'a mut DedupReport,
    /// The first file of each content; more than one if the kernel finds that they are different.
    first: HashMap<ContentHash, Vec<First<'a>>>,
    open: HashMap<u64, OwnedFd>,
    /// The bytes that are done.
    done: u64,
}

/// A file that others are compared with.
struct First<'a> {
    tree: &'a Tree,
    path: Vec<u8>,
}

/// A file that is open, and as long as it should be.
struct Whole {
    file: OwnedFd,
    id: FileId,
}

/// What came of one file and another that should be equal.
enum Outcome {
    Done,
    Differs,
}

impl<'a> Sharer<'a> {
    pub(super) fn new(
        store: &'a Store,
        options: &'a DedupOptions<'a>,
        candidates: &'a Candidates,
        report: &'a mut DedupReport,
    ) -> Self {
        let (first, open) = (HashMap::new(), HashMap::new());
        Sharer { store, options, candidates, report, first, open, done: 0 }
    }

    /// Returns [`Error::CannotShare`] if the filesystem has no shared extents.
    pub(super) fn run(mut self) -> Result<(), Error> {
        for tree in &self.candidates.trees {
            match tree.files(self.store, self.options)? {
                Some(files) => {
                    let repeated = &self.candidates.repeated;
                    for file in files.into_iter().filter(|file| repeated.contains(&file.content)) {
                        self.look_at(tree, file)?;
                    }
                }
                None => self.report.skip(self.store.diff_path(tree.number), SkipReason::Gone),
            }
        }
        Ok(())
    }

    fn look_at(&mut self, tree: &'a Tree, file: Located) -> Result<(), Error> {
        let mut firsts = self.first.remove(&file.content).unwrap_or_default();
        let is_candidate = !firsts.is_empty();
        match self.open_whole(tree, &file.path, file.size) {
            Ok(opened) => {
                let found = self.share_with_any(&opened, &file, tree, &mut firsts)?;
                if !found && firsts.len() < MOST_FIRST {
                    firsts.push(First { tree, path: file.path });
                }
            }
            Err(reason) => self.report.skip(path_in(self.store, tree.number, &file.path), reason),
        }
        self.first.insert(file.content, firsts);
        if is_candidate {
            self.report.candidates = self.report.candidates.saturating_add(1);
            self.report.candidate_bytes = self.report.candidate_bytes.saturating_add(file.size);
            self.done = self.done.saturating_add(file.size);
            if let Some(progress) = self.options.progress {
                progress(&Progress::Sharing { done: self.done, total: self.candidates.bytes });
            }
        }
        Ok(())
    }

    /// Returns false if the file is equal to none of the others, which are fewer by those that are gone.
    fn share_with_any(
        &mut self,
        opened: &Whole,
        file: &Located,
        tree: &Tree,
        firsts: &mut Vec<First<'a>>,
    ) -> Result<bool, Error> {
        let path = || path_in(self.store, tree.number, &file.path);
        let mut different = None;
        let mut position = 0;
        while let Some(first) = firsts.get(position) {
            let Ok(other) = self.open_whole(first.tree, &first.path, file.size) else {
                // It was told when its turn came, or went since.
                firsts.remove(position);
                continue;
            };
            match self.share(&other, opened, file.size) {
                Ok(Outcome::Done) => return Ok(true),
                Ok(Outcome::Differs) => {
                    let on_record = tree.is_sealed(self.store)? && first.tree.is_sealed(self.store)?;
                    let other = path_in(self.store, first.tree.number, &first.path);
                    let reason = if on_record { SkipReason::Differs { other } } else { SkipReason::Changed };
                    different = Some(reason);
                    position = position.saturating_add(1);
                }
                Err(error) if disk::shares_nothing(&error) => return Err(self.store.cannot_share()),
                Err(error) => {
                    self.report.skip(path(), SkipReason::Refused(error));
                    return Ok(true);
                }
            }
        }
        if let Some(reason) = different {
            self.report.skip(path(), reason);
        }
        Ok(false)
    }

    fn share(&mut self, first: &Whole, other: &Whole, size: u64) -> io::Result<Outcome> {
        let (from, to) = (first.file.as_fd(), other.file.as_fd());
        if first.id == other.id || disk::share_all(from, to) {
            self.report.bytes_shared_before = self.report.bytes_shared_before.saturating_add(size);
            return Ok(Outcome::Done);
        }
        self.report.bytes_asked = self.report.bytes_asked.saturating_add(size);
        if self.options.dry_run {
            return Ok(Outcome::Done);
        }
        let sharing = disk::share_extents(from, to, size)?;
        self.report.bytes_shared = self.report.bytes_shared.saturating_add(sharing.shared);
        Ok(if sharing.differ { Outcome::Differs } else { Outcome::Done })
    }

    fn open_whole(&mut self, tree: &Tree, path: &[u8], size: u64) -> Result<Whole, SkipReason> {
        let opened = |root: &OwnedFd| -> Result<Whole, SkipReason> {
            let file = beneath::open_file_beneath(root.as_fd(), path)?;
            let found = stat::stat(file.as_fd())?;
            if found.kind != FileType::RegularFile || found.size != size {
                return Err(SkipReason::Changed);
            }
            Ok(Whole { file, id: found.id })
        };
        if let Some(root) = self.open.get(&tree.number) {
            return opened(root);
        }
        let root = self.store.open_diff(tree.number).map_err(|error| match error {
            LayoutError::Io { source, .. } => source.into(),
            error => SkipReason::Refused(io::Error::other(error)),
        })?;
        if self.open.len() >= MOST_OPEN {
            self.open.clear();
        }
        opened(self.open.entry(tree.number).or_insert(root))
    }
}
