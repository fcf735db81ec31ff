//! Walking a tree depth first, names in byte order: the order of a manifest.
//!
//! Nothing is resolved by path, so depth and path length have no limit; a mount inside the tree is an error, or
//! left out of a tree that [lives](Life::Changing). A name that vanishes during the walk is left out, as if the walk had come
//! later.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::FileType;

use super::dir_stack::{DirStack, Popped};
use crate::error::{TreeError, is_denied};
use crate::sys::directory::DirEntry;
use crate::sys::pinned::Pinned;
use crate::sys::stat::{FileId, Stat};
use crate::sys::{beneath, directory, stat, subvolume};

/// Where a walk is, and what is still to be visited.
#[derive(Debug)]
pub(super) struct Walker {
    dirs: DirStack,
    listings: Vec<Listing>,
    /// The path of the last entry returned.
    path: Vec<u8>,
    access: Access,
    life: Life,
    lists_inodes: bool,
    refusal: Option<io::Error>,
}

/// Whether others may change a tree while it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Life {
    /// Nobody does. What is not as it was listed is an error, and so is a mount in the tree.
    Still,
    /// A container runs in it. What vanishes while it is looked at was not there, and what is mounted in it is none of it.
    Changing,
}

/// What to do about directories whose mode keeps their owner out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// They are errors.
    AsIs,
    /// Each is a leaf ([`Walker::take_refusal`]): for trees of which as much is read as this process may.
    PassBy,
    /// They are given the owner's permissions: for trees about to be removed.
    Force,
    /// The same, and of what is no directory nobody asks but what it is: for trees of which nothing is kept. A file that something is mounted
    /// on is found when it is removed.
    Unlink,
}

impl Access {
    fn is_forced(self) -> bool {
        matches!(self, Access::Force | Access::Unlink)
    }
}

/// The names of one directory that are still to be visited.
#[derive(Debug)]
struct Listing {
    names: std::vec::IntoIter<DirEntry>,
    /// Length of the directory's own path.
    path_len: usize,
    /// The directory's own name and state; `None` for the root. No handle: those are the stack's to bound.
    entry: Option<(Vec<u8>, Stat)>,
}

/// One entry of a directory.
#[derive(Debug)]
pub(super) struct Item {
    /// The directory it lies in.
    pub(super) dir: Arc<OwnedFd>,
    /// Its name there.
    pub(super) name: Vec<u8>,
    /// Its state when the walk came by; with [`Access::Unlink`], of what is no directory, only what it is.
    pub(super) stat: Stat,
}

/// One step of a walk.
#[derive(Debug)]
pub(super) enum Step {
    /// A directory, which is open now ([`Walker::directory`]); what is in it comes next.
    Enter(Item),
    /// Everything in the directory has been visited.
    Leave(Item),
    /// Anything but a directory; with [`Access::PassBy`] also one in which this process may not look.
    Leaf(Item),
}

impl Walker {
    /// Begins below `root`, which is no step of the walk itself.
    pub(super) fn new(root: BorrowedFd<'_>, access: Access) -> Result<Self, TreeError> {
        Walker::with(root, access, Life::Still)
    }

    /// The same for reading only, in a tree that others may change.
    pub(super) fn reading(root: BorrowedFd<'_>, life: Life) -> Result<Self, TreeError> {
        Walker::with(root, Access::AsIs, life)
    }

    pub(super) fn with(root: BorrowedFd<'_>, access: Access, life: Life) -> Result<Self, TreeError> {
        let begin = || {
            let root = beneath::open_directory_beneath(root, b"")?;
            let names = sorted_names(root.as_fd())?;
            Ok((DirStack::new(root)?, names))
        };
        let (dirs, names) = begin().map_err(failed(b".", "read"))?;
        let listings = vec![Listing { names, path_len: 0, entry: None }];
        Ok(Walker { dirs, listings, path: Vec::new(), access, life, lists_inodes: false, refusal: None })
    }

    /// The path of the last step, relative to the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory that the walk is in: after [`Step::Enter`] the one entered.
    pub(super) fn directory(&self) -> &Arc<OwnedFd> {
        self.dirs.current()
    }

    /// Why the leaf of the last step is a directory, if it is one.
    pub(super) fn take_refusal(&mut self) -> Option<io::Error> {
        self.refusal.take()
    }

    /// The next step; `None` at the end.
    pub(super) fn next_step(&mut self) -> Result<Option<Step>, TreeError> {
        self.next_step_knowing(|_| None)
    }

    /// Takes the numbers of listings for those of the files, if this filesystem is one on which they are: see
    /// [`next_step_knowing`](Self::next_step_knowing).
    pub(super) fn trust_listed_inodes(&mut self) {
        self.lists_inodes = directory::lists_inodes(self.directory().as_fd());
    }

    /// The same, without a look at regular files whose state is `known`, where the listing says which file a name is of.
    pub(super) fn next_step_knowing(
        &mut self,
        known: impl Fn(FileId) -> Option<Stat>,
    ) -> Result<Option<Step>, TreeError> {
        loop {
            let Some(listing) = self.listings.last_mut() else { return Ok(None) };
            self.path.truncate(listing.path_len);
            let Some(DirEntry { name, kind, inode }) = listing.names.next() else { return self.leave() };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            let dir = Arc::clone(self.dirs.current());
            if self.access == Access::Unlink && !matches!(kind, FileType::Directory | FileType::Unknown) {
                return Ok(Some(Step::Leaf(Item { dir, name, stat: Stat::of_kind(kind) })));
            }
            let id = FileId { filesystem: self.dirs.filesystem(), inode };
            if self.lists_inodes
                && kind == FileType::RegularFile
                && let Some(stat) = known(id)
            {
                return Ok(Some(Step::Leaf(Item { dir, name, stat })));
            }
            let stat = match stat::stat_at(dir.as_fd(), &name) {
                Err(error) if vanished(&error) => continue,
                stat => stat.map_err(failed(&self.path, "examine"))?,
            };
            if stat.is_mount {
                if self.life == Life::Changing {
                    continue;
                }
                return Err(TreeError::Mount { path: path_buf(&self.path) });
            }
            let item = Item { dir, name, stat };
            if stat.kind != FileType::Directory {
                return Ok(Some(Step::Leaf(item)));
            }
            match self.enter(&item) {
                Err(TreeError::Io { source, .. }) if self.access == Access::PassBy && is_denied(&source) => {
                    self.refusal = Some(source);
                    return Ok(Some(Step::Leaf(item)));
                }
                entered => {
                    if entered? {
                        return Ok(Some(Step::Enter(item)));
                    }
                }
            }
        }
    }

    /// Opens a directory; false if it is gone.
    fn enter(&mut self, item: &Item) -> Result<bool, TreeError> {
        if self.access.is_forced() && item.stat.mode & 0o700 != 0o700 {
            // Who may not change it may still be allowed to go on: the next call decides.
            Pinned::directory_at(item.dir.as_fd(), &item.name)
                .and_then(|directory| directory.set_mode(item.stat.mode | 0o700))
                .unwrap_or_default();
        }
        let opened = match beneath::open_directory_beneath(item.dir.as_fd(), &item.name) {
            Err(error) if vanished(&error) => return Ok(false),
            Err(error) if self.life == Life::Changing && is_gone(&error) => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {
                return Err(TreeError::Mount { path: path_buf(&self.path) });
            }
            opened => opened.map_err(failed(&self.path, "open"))?,
        };
        if self.access.is_forced() && subvolume::is_root(item.stat.id, self.dirs.filesystem()) {
            // Deleting says what is in its way, if this does not take it away.
            subvolume::make_writable(opened.as_fd()).unwrap_or_default();
        }
        if self.access == Access::PassBy {
            // Who may only list a directory knows names and nothing else.
            stat::stat_at(opened.as_fd(), b".").map_err(failed(&self.path, "examine"))?;
        }
        let names = match sorted_names(opened.as_fd()) {
            // It was removed after it was opened.
            Err(error) if vanished(&error) => return Ok(false),
            names => names.map_err(failed(&self.path, "read"))?,
        };
        self.dirs.push(opened).map_err(failed(&self.path, "open"))?;
        self.listings.push(Listing {
            names,
            path_len: self.path.len(),
            entry: Some((item.name.clone(), item.stat)),
        });
        Ok(true)
    }

    fn leave(&mut self) -> Result<Option<Step>, TreeError> {
        let Some(Listing { entry: Some((name, stat)), .. }) = self.listings.pop() else { return Ok(None) };
        match self.dirs.pop().map_err(failed(&self.path, "leave"))? {
            Popped::Moved => Err(TreeError::Moved { path: path_buf(&self.path) }),
            Popped::Up | Popped::AtRoot => {
                Ok(Some(Step::Leave(Item { dir: Arc::clone(self.dirs.current()), name, stat })))
            }
        }
    }
}

/// Makes a system call's error name the path.
pub(super) fn failed(path: &[u8], action: &'static str) -> impl FnOnce(io::Error) -> TreeError {
    move |source| TreeError::Io { path: path_buf(path), action, source }
}

pub(super) fn path_buf(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// Whether an error says that what was found at a path stands there no more: nothing does, or something of another kind, such as
/// the whiteout that overlayfs makes of a name, or a mount.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    matches!(
        number,
        Some(
            libc::ENOENT
                | libc::ENOTDIR
                | libc::EISDIR
                | libc::ELOOP
                | libc::ENXIO
                | libc::EINVAL
                | libc::EXDEV
        )
    )
}

fn sorted_names(dir: BorrowedFd<'_>) -> io::Result<std::vec::IntoIter<DirEntry>> {
    let mut entries = directory::list(dir)?;
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(entries.into_iter())
}
