//! Making what was written survive a power cut, and how much more can be written.

use std::io;
use std::os::fd::BorrowedFd;

use super::call::{Call, call};

/// Writes out everything of the filesystem that `file` lies on.
pub(crate) fn filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::Sync, || nix::unistd::syncfs(file))
}

/// Writes out one file with its metadata; for a directory: its names.
pub(crate) fn file(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::Sync, || nix::unistd::fsync(file))
}

/// How many bytes and inodes are free for this process on the filesystem that `file` lies on. Filesystems
/// without an inode limit say 0 of 0: `None`.
pub(crate) fn free_space(file: BorrowedFd<'_>) -> io::Result<(u64, Option<u64>)> {
    let found = call(Call::FreeSpace, || rustix::fs::fstatvfs(file))?;
    let bytes = found.f_bavail.saturating_mul(found.f_frsize);
    Ok((bytes, (found.f_files > 0).then_some(found.f_favail)))
}
