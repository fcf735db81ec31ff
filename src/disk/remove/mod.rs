//! Removing trees.
//!
//! A tree goes in [rounds](round): one thread walks it, as any other tree is walked, and gathers names; all unlink the files
//! among them; and directories that have become empty go after that.

mod round;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use self::round::empty_within;
use super::walk::{Access, Item, failed, path_buf};
use crate::error::TreeError;
use crate::sys::pinned::Pinned;
use crate::sys::{beneath, node, stat};

/// How often a tree is begun anew that vanishes while it is being removed. Each time somebody has removed something.
const TRIES: u32 = 1000;

/// Removes what stands at `name` in `parent`, a tree or a file; nothing happens if nothing does.
///
/// Modes that keep the owner out are lifted. Nothing is followed, and no mount is crossed: [`TreeError::Mount`] names the first
/// that is met, which stays; of what is beside it anything may be gone. Several processes may
/// remove one tree at a time, and each returns when it is gone.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    let mut limit = u64::MAX;
    remove_tree_by(parent, name, remove, &mut limit).map(drop)
}

/// As [`remove_tree`], and stops when `limit` names have been removed, which is counted down; after an error it may be lower than what
/// was removed. Returns whether all is gone. `remove` removes what is in the tree, a name at a time, but on several threads. It is
/// told no more of a file than what it is.
pub(super) fn remove_tree_by(
    parent: BorrowedFd<'_>,
    name: &[u8],
    remove: impl Fn(&Item) -> io::Result<()> + Sync,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    for _ in 1..TRIES {
        match remove_once(parent, name, &remove, limit) {
            // Another was faster, somewhere in the tree.
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            removed => return removed,
        }
    }
    remove_once(parent, name, &remove, limit)
}

fn remove_once(
    parent: BorrowedFd<'_>,
    name: &[u8],
    remove: impl Fn(&Item) -> io::Result<()> + Sync,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    let found = match stat::stat_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        found => found.map_err(failed(name, "examine"))?,
    };
    if found.is_mount {
        return Err(TreeError::Mount { path: path_buf(name) });
    }
    if *limit == 0 {
        return Ok(false);
    }
    if found.kind != FileType::Directory {
        *limit = limit.saturating_sub(1);
        return ignore_missing(node::remove_file(parent, name))
            .map_err(failed(name, "remove"))
            .map(|()| true);
    }
    if found.mode & 0o700 != 0o700 {
        Pinned::directory_at(parent, name)
            .and_then(|directory| directory.set_mode(found.mode | 0o700))
            .map_err(failed(name, "set the mode of"))?;
    }
    let root = beneath::open_directory_beneath(parent, name).map_err(failed(name, "open"))?;
    if !empty_within(root.as_fd(), Access::Unlink, remove, limit)? {
        return Ok(false);
    }
    drop(root);
    ignore_missing(node::remove_directory(parent, name)).map_err(failed(name, "remove")).map(|()| true)
}

/// Removes everything in a directory. `remove` takes each name away, on several threads.
pub(super) fn empty_directory(
    root: BorrowedFd<'_>,
    remove: impl Fn(&Item) -> io::Result<()> + Sync,
) -> Result<(), TreeError> {
    let mut limit = u64::MAX;
    empty_within(root, Access::Force, remove, &mut limit).map(drop)
}

/// Removes one name. A directory must be empty.
pub(super) fn remove(item: &Item) -> io::Result<()> {
    match item.stat.kind {
        FileType::Directory => node::remove_directory(item.dir.as_fd(), &item.name),
        _ => node::remove_file(item.dir.as_fd(), &item.name),
    }
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}
