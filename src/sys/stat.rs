//! What `statx` says of a file.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxAttributes, StatxFlags, statx};

use super::call::{Call, call};

/// The state of one inode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stat {
    pub(crate) kind: FileType,
    /// Permission bits: 0 to 0o7777.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// Bytes on the disk.
    pub(crate) allocated: u64,
    pub(crate) mtime: (i64, u32),
    /// Major and minor number of a device file.
    pub(crate) device: (u32, u32),
    /// Filesystem and inode number: what makes the inode unique on this machine.
    pub(crate) id: FileId,
    /// Whether a filesystem is mounted here.
    pub(crate) is_mount: bool,
}

impl Stat {
    /// Of an inode of which nothing is known but what it is.
    pub(crate) fn of_kind(kind: FileType) -> Self {
        let (id, links) = (FileId::default(), 1);
        let (mode, uid, gid, size, allocated) = (0, 0, 0, 0, 0);
        let (mtime, device, is_mount) = ((0, 0), (0, 0), false);
        Stat { kind, mode, uid, gid, links, size, allocated, mtime, device, id, is_mount }
    }
}

/// Filesystem (major, minor) and inode number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FileId {
    pub(crate) filesystem: (u32, u32),
    pub(crate) inode: u64,
}

impl FileId {
    /// The number of the filesystem as `stat` has it.
    pub(crate) fn device(&self) -> u64 {
        libc::makedev(self.filesystem.0, self.filesystem.1)
    }
}

/// The state of what stands at `name` in `dir`; of a symbolic link itself.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    call(Call::Stat, || statx(dir, name, flags, wanted())).map(|found| convert(&found))
}

/// The state of what an ordinary path leads to, as `flags` say.
pub(super) fn stat_path(path: &Path, flags: AtFlags) -> io::Result<Stat> {
    call(Call::Stat, || statx(CWD, path, flags, wanted())).map(|found| convert(&found))
}

/// The state of an open file.
pub(crate) fn stat(file: BorrowedFd<'_>) -> io::Result<Stat> {
    call(Call::Stat, || statx(file, c"", AtFlags::EMPTY_PATH, wanted())).map(|found| convert(&found))
}

/// What a file of this kind is called in a sentence.
pub(crate) fn describe(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Unknown => "something unknown",
    }
}

/// Which mount something is in: its number, and where the kernel gives none (before 5.8), the filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    number: Option<u64>,
    filesystem: (u32, u32),
}

/// The mount that an open file is in.
pub(crate) fn mount(file: BorrowedFd<'_>) -> io::Result<Mount> {
    let found = call(Call::Stat, || statx(file, c"", AtFlags::EMPTY_PATH, wanted() | StatxFlags::MNT_ID))?;
    let is_told = found.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let filesystem = (found.stx_dev_major, found.stx_dev_minor);
    Ok(Mount { number: is_told.then_some(found.stx_mnt_id), filesystem })
}

fn wanted() -> StatxFlags {
    StatxFlags::BASIC_STATS
}

fn convert(found: &Statx) -> Stat {
    Stat {
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        mode: found.stx_mode & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        links: found.stx_nlink,
        size: found.stx_size,
        allocated: found.stx_blocks.saturating_mul(512),
        mtime: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        device: (found.stx_rdev_major, found.stx_rdev_minor),
        id: FileId { filesystem: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino },
        is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
    }
}
