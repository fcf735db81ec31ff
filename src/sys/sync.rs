//! Making what was written survive a power cut, and how much more can be written.

use std::io;
use std::os::fd::BorrowedFd;

use super::call::{Call, call};
use crate::timing::{self, Stage};

/// Writes out everything of the filesystem that `file` lies on.
pub(crate) fn filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    timing::during(Stage::Sync, || call(Call::Sync, || nix::unistd::syncfs(file)))
}

/// Writes out one file with its metadata; for a directory: its names.
pub(crate) fn file(file: BorrowedFd<'_>) -> io::Result<()> {
    timing::during(Stage::Sync, || call(Call::Sync, || nix::unistd::fsync(file)))
}

/// Room on a filesystem, for this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FreeSpace {
    pub(crate) bytes: u64,
    /// `None` on a filesystem without a limit, which says 0 of 0.
    pub(crate) inodes: Option<u64>,
    /// Whether files may take less than their length: it is of a kind that can compress them.
    pub(crate) may_compress: bool,
}

/// The kinds of filesystems that can compress, by their magic numbers: Btrfs, bcachefs, F2FS and ZFS.
const COMPRESSING: [u32; 4] = [0x9123_683e, 0xca45_1a4e, 0xf2f5_2010, 0x2fc1_2fc1];

/// Whether nothing can be written to the filesystem that `file` lies on, or not by way of this mount.
pub(crate) fn is_read_only(file: BorrowedFd<'_>) -> io::Result<bool> {
    let found = call(Call::FreeSpace, || rustix::fs::fstatvfs(file))?;
    Ok(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// How much room is on the filesystem that `file` lies on.
pub(crate) fn free_space(file: BorrowedFd<'_>) -> io::Result<FreeSpace> {
    let found = call(Call::FreeSpace, || rustix::fs::fstatvfs(file))?;
    // The field's type differs between machines; the numbers have 32 bits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a magic number has 32 bits")]
    let kind = call(Call::FreeSpace, || rustix::fs::fstatfs(file))?.f_type as u32;
    Ok(FreeSpace {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        inodes: (found.f_files > 0).then_some(found.f_favail),
        may_compress: COMPRESSING.contains(&kind),
    })
}
