//! Project quotas: for which project the files of a directory count, and how much a project may take.
//!
//! The calls are those that XFS has brought, which ext4 understands too. They are made on a descriptor (Linux 5.14), and
//! below that on the block device, as far as `/dev` has it.

#![expect(
    unsafe_code,
    reason = "neither nix nor rustix has FS_IOC_FSSETXATTR, quotactl_fd, or quotactl for projects"
)]

use std::ffi::{CString, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::call::{Call, call};
use super::{mount, path, stat};

/// What the files of a directory count for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Project {
    /// The number of the project; 0 is everything that has none.
    pub(crate) id: u32,
    /// Whether what is made in the directory counts for the same project.
    pub(crate) is_inherited: bool,
}

/// What a project may take, and takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Account {
    /// How many bytes it may take; 0 if as many as there are.
    pub(crate) most_bytes: u64,
    /// The same of inodes.
    pub(crate) most_inodes: u64,
    /// How many bytes it takes.
    pub(crate) bytes: u64,
    /// The same of inodes.
    pub(crate) inodes: u64,
}

/// What the kernel does with the projects of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nothing.
    Off,
    /// It counts, and refuses nothing.
    Counting,
    /// It refuses what is over a limit.
    Enforcing,
}

/// Which way the kernel is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// `quotactl_fd`.
    Descriptor,
    /// `quotactl`.
    Device,
}

/// What a file or directory counts for.
pub(crate) fn project(of: BorrowedFd<'_>) -> io::Result<Project> {
    let found = attributes(of)?;
    Ok(Project { id: found.project, is_inherited: found.flags & INHERIT != 0 })
}

/// Lets a directory count for a project, and everything that is made in it from now on.
pub(crate) fn set_project(directory: BorrowedFd<'_>, id: u32) -> io::Result<()> {
    let mut wanted = attributes(directory)?;
    wanted.project = id;
    wanted.flags |= INHERIT;
    call(Call::Quota, || {
        // SAFETY: The kernel reads as many bytes as `Attributes` has, which lives until the call returns.
        unsafe { ioctl::set_attributes(directory.as_raw_fd(), &raw const wanted) }
    })?;
    Ok(())
}

/// What a project may take and takes on the filesystem that `on` lies on; nothing is known of one that never was.
pub(crate) fn account(on: BorrowedFd<'_>, project: u32) -> io::Result<Account> {
    match limits(on, GET_LIMITS, project, Limits::default()) {
        Ok(found) => Ok(Account {
            most_bytes: found.most_blocks.saturating_mul(BLOCK),
            most_inodes: found.most_inodes,
            bytes: found.blocks.saturating_mul(BLOCK),
            inodes: found.inodes,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Account::default()),
        Err(error) => Err(error),
    }
}

/// Says how many bytes and inodes a project may take; 0 of either is no limit, and 0 of both forgets the project when it has no
/// files any more.
pub(crate) fn set_limits(on: BorrowedFd<'_>, project: u32, bytes: u64, inodes: u64) -> io::Result<()> {
    let blocks = bytes.div_ceil(BLOCK);
    let wanted = Limits {
        version: LIMITS_VERSION,
        flags: PROJECT_FLAG,
        fields: LIMIT_FIELDS,
        id: project,
        most_blocks: blocks,
        advised_blocks: blocks,
        most_inodes: inodes,
        advised_inodes: inodes,
        ..Limits::default()
    };
    limits(on, SET_LIMITS, project, wanted).map(drop)
}

/// What the kernel does with projects on the filesystem that `on` lies on.
pub(crate) fn state(on: BorrowedFd<'_>) -> io::Result<State> {
    let mut found = StateOfAll { version: STATE_VERSION, ..StateOfAll::default() };
    match control(on, GET_STATE, 0, (&raw mut found).cast(), size_of::<StateOfAll>()) {
        Ok(()) => {}
        Err(error) if is_absent(&error) => return Ok(State::Off),
        Err(error) => return Err(error),
    }
    Ok(match found.flags & (PROJECTS_COUNTED | PROJECTS_ENFORCED) {
        0 => State::Off,
        flags if flags & PROJECTS_ENFORCED == 0 => State::Counting,
        _ => State::Enforcing,
    })
}

/// Whether an error says that the filesystem, or the kernel, has no projects or keeps no quotas.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    use libc::{EINVAL, ENODEV, ENOENT, ENOSYS, ENOTBLK, ENOTTY, EOPNOTSUPP, ESRCH};
    let absent = [EINVAL, ENODEV, ENOENT, ENOSYS, ENOTBLK, ENOTTY, EOPNOTSUPP, ESRCH];
    error.raw_os_error().is_some_and(|number| absent.contains(&number))
}

fn attributes(of: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut found = Attributes::default();
    call(Call::Quota, || {
        // SAFETY: The kernel writes as many bytes as `Attributes` has, which lives until the call returns.
        unsafe { ioctl::get_attributes(of.as_raw_fd(), &raw mut found) }
    })?;
    Ok(found)
}

fn limits(on: BorrowedFd<'_>, command: c_int, project: u32, mut limits: Limits) -> io::Result<Limits> {
    control(on, command, project, (&raw mut limits).cast(), size_of::<Limits>())?;
    Ok(limits)
}

/// Asks by the descriptor, and by the device where the kernel does not know that.
fn control(on: BorrowedFd<'_>, command: c_int, id: u32, data: *mut u8, length: usize) -> io::Result<()> {
    match control_by(Way::Descriptor, on, command, id, data, length) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            control_by(Way::Device, on, command, id, data, length)
        }
        done => done,
    }
}

/// `data` is for a command of this module, and `length` bytes long, as the command has it.
fn control_by(
    way: Way,
    on: BorrowedFd<'_>,
    command: c_int,
    id: u32,
    data: *mut u8,
    length: usize,
) -> io::Result<()> {
    debug_assert!(length == if command == GET_STATE { size_of::<StateOfAll>() } else { size_of::<Limits>() });
    let command = (command << 8) | PROJECTS;
    if way == Way::Descriptor {
        call(Call::Quota, || {
            // SAFETY: The kernel reads or writes at `data` what the command says, which is a structure of this module's
            // and alive until the call returns: both callers pass a local variable of the command's type.
            let done = unsafe { libc::syscall(libc::SYS_quotactl_fd, on.as_raw_fd(), command, id, data) };
            nix::errno::Errno::result(done)
        })?;
        return Ok(());
    }
    let device = device_of(on)?;
    let device = CString::new(device.into_os_string().as_bytes())?;
    call(Call::Quota, || {
        // SAFETY: As above; `device` ends with a zero byte and lives until the call returns. The number of the project
        // goes through as it is: the kernel takes the bits for an unsigned one.
        let done = unsafe { libc::quotactl(command, device.as_ptr(), id.cast_signed(), data.cast()) };
        nix::errno::Errno::result(done)
    })?;
    Ok(())
}

/// The block device of the filesystem that `on` lies on, as the mount table or the kernel names it.
fn device_of(on: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let wanted = stat::stat(on)?.id.filesystem;
    let sources = mount::info::read()?.into_iter().map(|mount| PathBuf::from(mount.source));
    let described = format!("/sys/dev/block/{}:{}/uevent", wanted.0, wanted.1);
    let described = path::read_to_string(Path::new(&described)).unwrap_or_default();
    let name = described.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let named = name.map(|name| Path::new("/dev").join(name));
    let is_it = |path: &PathBuf| {
        let found = path.is_absolute().then(|| path::stat(path));
        matches!(found, Some(Ok(found)) if found.kind == FileType::BlockDevice && found.device == wanted)
    };
    let missing = || io::Error::from_raw_os_error(libc::ENOTBLK);
    sources.chain(named).find(is_it).ok_or_else(missing)
}

/// `PRJQUOTA` of linux/quota.h.
const PROJECTS: c_int = 2;

// Commands of linux/dqblk_xfs.h.
const GET_LIMITS: c_int = ((b'X' as c_int) << 8) + 3;
const SET_LIMITS: c_int = ((b'X' as c_int) << 8) + 4;
const GET_STATE: c_int = ((b'X' as c_int) << 8) + 8;

/// `FS_XFLAG_PROJINHERIT` of linux/fs.h.
const INHERIT: u32 = 0x200;
/// The unit of blocks in [`Limits`].
const BLOCK: u64 = 512;
/// `FS_DQUOT_VERSION`.
const LIMITS_VERSION: i8 = 1;
/// `FS_PROJ_QUOTA`.
const PROJECT_FLAG: i8 = 2;
/// Hard and soft limits of inodes and blocks: `FS_DQ_LIMIT_MASK`.
const LIMIT_FIELDS: u16 = 0xf;
/// `FS_QSTATV_VERSION1`.
const STATE_VERSION: i8 = 1;
/// `FS_QUOTA_PDQ_ACCT`.
const PROJECTS_COUNTED: u16 = 1 << 4;
/// `FS_QUOTA_PDQ_ENFD`.
const PROJECTS_ENFORCED: u16 = 1 << 5;

/// `struct fsxattr` of linux/fs.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copy_extent_size: u32,
    _reserved: [u8; 8],
}

/// `struct fs_disk_quota` of linux/dqblk_xfs.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Limits {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    most_blocks: u64,
    advised_blocks: u64,
    most_inodes: u64,
    advised_inodes: u64,
    blocks: u64,
    inodes: u64,
    /// Timers and warnings of inodes and blocks, in use by nobody here.
    _timers: [u32; 3],
    _timers_high: [i8; 4],
    _realtime: [u64; 3],
    _realtime_timer: i32,
    _realtime_warnings: u16,
    _reserved: [u8; 10],
}

/// `struct fs_quota_statv`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct StateOfAll {
    version: i8,
    _reserved: u8,
    flags: u16,
    in_core: u32,
    /// The files in which the limits of users, groups and projects stand.
    files: [u64; 9],
    _timers: [u32; 3],
    _warnings: [u16; 4],
    _reserved_too: [u32; 1],
    _reserved_three: [u64; 7],
}

// The kernel copies as many bytes as its own structures have.
const _: () = assert!(size_of::<Attributes>() == 28);
const _: () = assert!(size_of::<Limits>() == 112);
const _: () = assert!(size_of::<StateOfAll>() == 160);

mod ioctl {
    nix::ioctl_read!(get_attributes, b'X', 31, super::Attributes);
    nix::ioctl_write_ptr!(set_attributes, b'X', 32, super::Attributes);
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// What the kernel says of limits, asked in one way.
    fn asked(way: Way, on: BorrowedFd<'_>, project: u32) -> io::Result<(u64, u64)> {
        let mut found = Limits::default();
        let length = size_of::<Limits>();
        control_by(way, on, GET_LIMITS, project, (&raw mut found).cast(), length)?;
        Ok((found.most_blocks * BLOCK, found.most_inodes))
    }

    #[test]
    fn a_kernel_without_the_call_by_descriptor_is_asked_by_the_device() {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let project = (1 << 30) + std::process::id();
        if let Err(why) = set_limits(root.as_fd(), project, 1 << 20, 9) {
            return eprintln!("skipped: no project quotas here: {why}");
        }
        for way in [Way::Descriptor, Way::Device] {
            assert_eq!(asked(way, root.as_fd(), project).unwrap(), (1 << 20, 9), "{way:?}");
        }
        set_limits(root.as_fd(), project, 0, 0).unwrap();
        assert_eq!(account(root.as_fd(), project).unwrap(), Account::default());
        assert_eq!(state(root.as_fd()).unwrap(), State::Enforcing);
    }
}
