//! Making, renaming and removing the names of a directory, and setting owners, modes and times of open files.
//!
//! Each call takes a directory handle and one name in it, and acts on what stands there, never on what a
//! symbolic link there points at. Nothing is set by name: [`pinned`](super::pinned) is for what cannot be opened.

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;

use nix::fcntl::AtFlags;
use nix::sys::stat::{Mode, SFlag};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags};
use rustix::fs::{IFlags, RenameFlags, renameat_with};

use super::beneath::open_path;
use super::call::{Call, call};

/// A kind of node that `mknod` makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NodeKind {
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket without anyone behind it.
    Socket,
}

/// Makes a directory. The mode is subject to the umask.
pub(crate) fn make_directory(dir: BorrowedFd<'_>, name: &[u8], mode: u16) -> io::Result<()> {
    call(Call::MakeDirectory, || nix::sys::stat::mkdirat(dir, name, bits(mode)))
}

/// Makes a directory for its owner alone: with mode 0700, whatever the umask.
pub(crate) fn make_private_directory(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    make_directory(dir, name, 0o700)?;
    // As a rule it has that already.
    if super::stat::stat_at(dir, name).is_ok_and(|made| made.mode == 0o700) {
        return Ok(());
    }
    // By its name, since not every umask lets the owner open it. Nothing is followed.
    let flag = nix::sys::stat::FchmodatFlags::NoFollowSymlink;
    call(Call::SetMode, || nix::sys::stat::fchmodat(dir, name, Mode::S_IRWXU, flag))
}

/// Asks the filesystem to place what is made in each subdirectory of `directory` apart from what is in the others, as a rule
/// in the part of the disk that is the emptiest: `chattr +T`. Of Linux's filesystems ext2 and ext4 know it, and ext4 by default
/// (Orlov's allocator, `ext4_find_group_orlov`) places a subdirectory beside its parent.
pub(crate) fn spread_subdirectories(directory: BorrowedFd<'_>) -> io::Result<()> {
    let flags = call(Call::SetMode, || rustix::fs::ioctl_getflags(directory))?;
    call(Call::SetMode, || rustix::fs::ioctl_setflags(directory, flags | IFlags::TOPDIR))
}

/// Whether a device can have these numbers: others the kernel cuts off, so that 4096:0 would be made as 0:0, a whiteout.
pub(crate) fn is_device_number((major, minor): (u32, u32)) -> bool {
    major <= 0xfff && minor <= 0xf_ffff
}

/// Makes a device, pipe or socket. The mode is subject to the umask; device numbers count for devices only, and
/// must be [some that a device can have](is_device_number).
pub(crate) fn make_node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: NodeKind,
    mode: u16,
    (major, minor): (u32, u32),
) -> io::Result<()> {
    let kind = match kind {
        NodeKind::CharDevice => SFlag::S_IFCHR,
        NodeKind::BlockDevice => SFlag::S_IFBLK,
        NodeKind::Fifo => SFlag::S_IFIFO,
        NodeKind::Socket => SFlag::S_IFSOCK,
    };
    call(Call::MakeNode, || nix::sys::stat::mknodat(dir, name, kind, bits(mode), libc::makedev(major, minor)))
}

/// Makes a symbolic link.
pub(crate) fn make_symlink(dir: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
    call(Call::MakeLink, || nix::unistd::symlinkat(target, dir, name))
}

/// The target of a symbolic link.
pub(crate) fn read_symlink(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    let target: OsString = call(Call::ReadLink, || nix::fcntl::readlinkat(dir, name))?;
    Ok(target.into_vec())
}

/// Gives what stands at `old` a second name. A symbolic link itself gets the name, not its target.
pub(crate) fn make_hard_link(
    old_dir: BorrowedFd<'_>,
    old: &[u8],
    new_dir: BorrowedFd<'_>,
    new: &[u8],
) -> io::Result<()> {
    call(Call::MakeLink, || nix::unistd::linkat(old_dir, old, new_dir, new, AtFlags::empty()))
}

/// Gives an open file, which may have no name yet, a name. Fails with EEXIST if anything stands there.
pub(crate) fn name_file(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    // Without a capability the kernel takes an open file only by this name of it.
    let open = open_path(file);
    call(Call::MakeLink, || {
        nix::unistd::linkat(nix::fcntl::AT_FDCWD, open.as_bytes(), dir, name, AtFlags::AT_SYMLINK_FOLLOW)
    })
}

/// Renames, replacing what stands at `new`.
pub(crate) fn rename(
    old_dir: BorrowedFd<'_>,
    old: &[u8],
    new_dir: BorrowedFd<'_>,
    new: &[u8],
) -> io::Result<()> {
    call(Call::Rename, || nix::fcntl::renameat(old_dir, old, new_dir, new))
}

/// Renames; fails with EEXIST if anything stands at `new`.
pub(crate) fn rename_noreplace(
    old_dir: BorrowedFd<'_>,
    old: &[u8],
    new_dir: BorrowedFd<'_>,
    new: &[u8],
) -> io::Result<()> {
    call(Call::Rename, || renameat_with(old_dir, old, new_dir, new, RenameFlags::NOREPLACE))
}

/// Removes a name that is no directory.
pub(crate) fn remove_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    call(Call::Remove, || nix::unistd::unlinkat(dir, name, UnlinkatFlags::NoRemoveDir))
}

/// Removes an empty directory.
pub(crate) fn remove_directory(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    call(Call::Remove, || nix::unistd::unlinkat(dir, name, UnlinkatFlags::RemoveDir))
}

/// Sets owner and group of an open file.
pub(crate) fn set_owner(file: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    call(Call::SetOwner, || nix::unistd::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
}

/// Sets the permission bits of an open file.
pub(crate) fn set_mode(file: BorrowedFd<'_>, mode: u16) -> io::Result<()> {
    call(Call::SetMode, || nix::sys::stat::fchmod(file, bits(mode)))
}

/// Sets the modification time of an open file, and leaves its access time alone.
pub(crate) fn set_mtime(file: BorrowedFd<'_>, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    let mtime = TimeSpec::new(seconds, nanoseconds.into());
    call(Call::SetTime, || nix::sys::stat::futimens(file, &TimeSpec::UTIME_OMIT, &mtime))
}

fn bits(mode: u16) -> Mode {
    Mode::from_bits_truncate(u32::from(mode) & 0o7777)
}
