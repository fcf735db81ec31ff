//! Modes that keep the owner of something out, where the mode it should have lets the owner in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::FileType;

use super::layout::Layout;
use crate::error::LayoutError;
use crate::sys::beneath;
use crate::sys::pinned::Pinned;
use crate::sys::privileges;
use crate::sys::stat::Stat;

impl Layout {
    /// The mode of something in the store, if it has lost that which lets its owner in: this user, who can give it back.
    pub(crate) fn lost_mode(&self, path: &Path, expected: u16) -> Option<u16> {
        let (_, found) = pin(self.root(), path.strip_prefix(self.path()).ok()?).ok()?;
        is_lost(&found, expected, privileges::effective_user()).then_some(found.mode & 0o7777)
    }

    /// Gives something in the store its mode back; `false` if it lets its owner in by now.
    pub(crate) fn give_back_mode(&self, path: &Path, mode: u16) -> Result<bool, LayoutError> {
        let Ok(below) = path.strip_prefix(self.path()) else { return Ok(false) };
        let give = || -> io::Result<bool> {
            let (pinned, found) = pin(self.root(), below)?;
            let is_lost = is_lost(&found, mode, privileges::effective_user());
            if is_lost {
                pinned.set_mode(mode)?;
            }
            Ok(is_lost)
        };
        give().map_err(|source| LayoutError::Io { path: path.to_owned(), action: "set the mode of", source })
    }
}

/// Holds what stands at a path, which need not be open to anybody for that.
fn pin(root: BorrowedFd<'_>, path: &Path) -> io::Result<(Pinned, Stat)> {
    let (parent, name) = beneath::open_parent_beneath(root, path.as_os_str().as_bytes())?;
    let pinned = Pinned::at(parent.as_fd(), name)?;
    let found = pinned.stat()?;
    Ok((pinned, found))
}

fn is_lost(found: &Stat, expected: u16, user: u32) -> bool {
    let needed = match found.kind {
        FileType::Directory => 0o500,
        FileType::RegularFile => 0o400,
        _ => return false,
    };
    found.uid == user && expected & needed == needed && found.mode & needed != needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_on_record_and_ones_own_is_given_back() {
        let found = |kind, mode| Stat { mode, uid: 7, ..Stat::of_kind(kind) };
        let (file, directory) = (FileType::RegularFile, FileType::Directory);
        for (kind, mode, expected, user, lost) in [
            (file, 0, 0o644, 7, true),
            (file, 0o200, 0o400, 7, true),
            (file, 0, 0o600, 8, false),
            (file, 0, 0o200, 7, false),
            (file, 0o400, 0o644, 7, false),
            (directory, 0o444, 0o755, 7, true),
            (directory, 0o311, 0o755, 7, true),
            (directory, 0, 0o311, 7, false),
            (FileType::Fifo, 0, 0o644, 7, false),
        ] {
            assert_eq!(is_lost(&found(kind, mode), expected, user), lost, "{mode:o} {expected:o}");
        }
    }
}
