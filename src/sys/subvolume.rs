//! Subvolumes of btrfs: directories that are filesystems of their own. Who may write to a filesystem can make them, and take
//! the right to write in them away.

#![expect(unsafe_code, reason = "the ioctls of btrfs have no wrapper in nix or rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::call::{Call, call};
use super::stat::FileId;

/// The inode of each subvolume's root directory: `BTRFS_FIRST_FREE_OBJECTID`.
const ROOT: u64 = 256;

/// `BTRFS_SUBVOL_RDONLY` of linux/btrfs.h.
const READ_ONLY: u64 = 1 << 1;

/// Whether a directory is the root of a subvolume, if it is in a directory of this filesystem and no mount.
pub(crate) fn is_root(directory: FileId, above: (u32, u32)) -> bool {
    directory.inode == ROOT && directory.filesystem != above
}

/// Lets a subvolume be written to again. What is none of btrfs stays as it is, and is an error.
pub(crate) fn make_writable(subvolume: BorrowedFd<'_>) -> io::Result<()> {
    let mut flags = 0_u64;
    call(Call::SetMode, || {
        // SAFETY: The kernel writes 64 bits to `flags`, which lives until the call returns.
        unsafe { ioctl::flags(subvolume.as_raw_fd(), &raw mut flags) }
    })?;
    if flags & READ_ONLY == 0 {
        return Ok(());
    }
    flags &= !READ_ONLY;
    call(Call::SetMode, || {
        // SAFETY: The kernel reads 64 bits from `flags`, which lives until the call returns.
        unsafe { ioctl::set_flags(subvolume.as_raw_fd(), &raw const flags) }
    })
    .map(drop)
}

mod ioctl {
    nix::ioctl_read!(flags, 0x94, 25, u64);
    nix::ioctl_write_ptr!(set_flags, 0x94, 26, u64);
}
