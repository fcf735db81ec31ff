//! The names of a tree, as many at a time as are removed together.
//!
//! A walk leaves a directory when it has been everywhere in it. So what it has come by may go like this: first all
//! that is no directory, in any order and by any thread; then the directories that were left, in that order. Meanwhile
//! the walk goes on:
//!
//! ```text
//! caller's thread   | gathers 1 | gathers 2, unlinks 1 | directories of 1, gathers 3, unlinks 2 | ..
//! others                        |            unlinks 1 |                             unlinks 2 | ..
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::ignore_missing;
use crate::disk::parallel;
use crate::disk::walk::{Access, Item, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::{moment, stat};

/// How many names a round has at the most: enough for starting threads not to count.
const NAMES: usize = 4096;

/// How many directories these are in at the most, which stay open for so long. Up to three rounds are there at once.
const HANDLES: usize = 64;

/// How many bytes the paths of these directories have at the most, unless it is a single one.
const BYTES: usize = 1 << 20;

/// How many names of one directory a thread takes at a time. While it removes one, nobody else can remove another there.
const PIECE: usize = 256;

/// A thread for fewer files would cost more than it gains.
const FILES_OF_A_THREAD: usize = 64;

/// Removes everything in a directory. `remove` removes each name; `limit` counts them, and is counted down. Returns
/// whether all is gone.
pub(super) fn empty_within(
    root: BorrowedFd<'_>,
    access: Access,
    remove: impl Fn(&Item) -> io::Result<()> + Sync,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    loop {
        let before = *limit;
        match empty_as_far(root, access, &remove, limit)? {
            // What it had open was of names that are gone now.
            Err(error) if error.is_out_of_descriptors() && *limit < before => {}
            ended => return ended,
        }
    }
}

/// The same as far as the walk comes. Returns how it ended; all that it met is gone.
fn empty_as_far(
    root: BorrowedFd<'_>,
    access: Access,
    remove: &(impl Fn(&Item) -> io::Result<()> + Sync),
    limit: &mut u64,
) -> Result<Result<bool, TreeError>, TreeError> {
    let mut rounds = Rounds { walker: Walker::new(root, access)?, limit, end: None };
    let (mut next, mut left) = (rounds.next(), Names::default());
    while let Some(round) = next {
        let first = || {
            remove_all(&left.names, remove)?;
            Ok(rounds.next())
        };
        next = round.remove_files(remove, first)?;
        left = round.directories;
    }
    remove_all(&left.names, remove)?;
    Ok(rounds.end.unwrap_or(Ok(true)))
}

fn remove_all(names: &[Doomed], remove: &impl Fn(&Item) -> io::Result<()>) -> Result<(), TreeError> {
    names.iter().try_for_each(|name| name.remove(remove))
}

/// A walk, a round at a time.
struct Rounds<'l> {
    walker: Walker,
    limit: &'l mut u64,
    /// Why there are no more, and whether that is all.
    end: Option<Result<bool, TreeError>>,
}

impl Rounds<'_> {
    fn next(&mut self) -> Option<Round> {
        if self.end.is_some() {
            return None;
        }
        let mut round = Round::default();
        while round.has_room() {
            let step = match self.walker.next_step() {
                Ok(Some(step)) if *self.limit > 0 => step,
                ended => {
                    self.end = Some(ended.map(|step| step.is_none()));
                    break;
                }
            };
            let (item, names) = match step {
                Step::Enter(_) => continue,
                Step::Leaf(item) => (item, &mut round.files),
                Step::Leave(item) => (item, &mut round.directories),
            };
            names.push(item, self.walker.path());
            *self.limit = self.limit.saturating_sub(1);
        }
        Some(round)
    }
}

/// Names that go together.
#[derive(Debug, Default)]
struct Round {
    files: Names,
    /// They are empty when this round's files are gone, and the directories of those before.
    directories: Names,
}

impl Round {
    fn has_room(&self) -> bool {
        let both = |of: fn(&Names) -> usize| of(&self.files).saturating_add(of(&self.directories));
        both(|names| names.names.len()) < NAMES
            && both(|names| names.handles) < HANDLES
            && both(|names| names.bytes) < BYTES
    }

    /// Removes the files. The calling thread does `first` before it takes part.
    fn remove_files<F>(
        &self,
        remove: &(impl Fn(&Item) -> io::Result<()> + Sync),
        first: impl FnOnce() -> Result<F, TreeError>,
    ) -> Result<F, TreeError> {
        let of_one_directory = |one: &Doomed, other: &Doomed| Arc::ptr_eq(&one.item.dir, &other.item.dir);
        let pieces = self.files.names.chunk_by(of_one_directory).flat_map(|names| names.chunks(PIECE));
        let pieces: Vec<_> = pieces.collect();
        let workers = parallel::workers(self.files.names.len(), FILES_OF_A_THREAD);
        let work = |(): &mut (), piece: &&[Doomed]| remove_all(piece, remove);
        parallel::each_beside(&pieces, workers, || (), work, first).map(|(first, _)| first)
    }
}

/// Names in the order of a walk, and what they take besides.
#[derive(Debug, Default)]
struct Names {
    names: Vec<Doomed>,
    /// How many directories they are in. One that the walk comes back to counts again: it may have been opened anew.
    handles: usize,
    /// How long the paths of these are.
    bytes: usize,
}

impl Names {
    /// Adds what stands at `path`.
    fn push(&mut self, item: Item, path: &[u8]) {
        let above = match self.names.last() {
            Some(last) if Arc::ptr_eq(&last.item.dir, &item.dir) => Arc::clone(&last.above),
            _ => {
                let above = path.strip_suffix(&item.name[..]).unwrap_or(path);
                self.handles = self.handles.saturating_add(1);
                self.bytes = self.bytes.saturating_add(above.len());
                above.into()
            }
        };
        self.names.push(Doomed { item, above });
    }
}

/// One name.
#[derive(Debug)]
struct Doomed {
    item: Item,
    /// What stands before the name in its path. All names of a directory share it: it may be long.
    above: Arc<[u8]>,
}

impl Doomed {
    fn remove(&self, remove: &impl Fn(&Item) -> io::Result<()>) -> Result<(), TreeError> {
        let Item { dir, name, .. } = &self.item;
        let path = || [&self.above[..], name].concat();
        let is_mount = || stat::stat_at(dir.as_fd(), name).is_ok_and(|found| found.is_mount);
        match ignore_missing(remove(&self.item)) {
            // The kernel removes nothing that something is mounted on, and some filesystems nothing that is busy otherwise.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && is_mount() => {
                return Err(TreeError::Mount { path: path_buf(&path()) });
            }
            removed => removed.map_err(|error| failed(&path(), "remove")(error))?,
        }
        moment::pass("deleting");
        Ok(())
    }
}
