//! Making what was written survive a power cut.

use std::io;
use std::os::fd::BorrowedFd;

/// Writes out everything of the filesystem that `file` lies on.
pub(crate) fn filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// Writes out one file with its metadata; for a directory: its names.
pub(crate) fn file(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(nix::unistd::fsync(file)?)
}
