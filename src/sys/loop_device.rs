//! A file as a block device, for filesystems of older kernels that mount nothing else.

#![expect(unsafe_code, reason = "the ioctls of loop devices have no wrapper in nix or rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::call::{Call, call};

/// Another process may take the device that the kernel named as free: that many times it is asked again.
const RACES: usize = 64;

/// A loop device that shows a file, read-only. The kernel frees it when nobody has it open and nothing of it is mounted.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    /// Keeps the device until it is mounted.
    _device: OwnedFd,
}

impl LoopDevice {
    /// Shows `file`.
    pub(crate) fn attach(file: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let control = call(Call::Open, || open("/dev/loop-control", flags, Mode::empty()))?;
        let backing = u32::try_from(file.as_raw_fd()).map_err(|_| io::Error::from(Errno::EBADF))?;
        for _ in 0..RACES {
            let number = call(Call::Mount, || {
                // SAFETY: The call takes no argument and touches no memory of this process.
                unsafe { ioctl::get_free(control.as_raw_fd()) }
            })?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
            let device = call(Call::Open, || open(&path, flags, Mode::empty()))?;
            let request = Configuration::of(backing);
            let configured = call(Call::Mount, || {
                // SAFETY: The kernel reads a structure of linux/loop.h, which `Configuration` is; it lives until the call
                // returns.
                unsafe { ioctl::configure(device.as_raw_fd(), &raw const request) }
            });
            match configured {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
                configured => return configured.map(|_| LoopDevice { path, _device: device }),
            }
        }
        Err(Errno::EBUSY.into())
    }

    /// The path of the device.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// `LO_FLAGS_READ_ONLY` and `LO_FLAGS_AUTOCLEAR`.
const READ_ONLY_AUTOCLEAR: u32 = 1 | 4;

/// `struct loop_config` of linux/loop.h, with its `struct loop_info64`.
#[repr(C)]
pub(crate) struct Configuration {
    file: u32,
    block_size: u32,
    _info: [u64; 5],
    _numbers: [u32; 3],
    flags: u32,
    _names: [u8; 64 + 64 + 32],
    _init: [u64; 2],
    _reserved: [u64; 8],
}

impl Configuration {
    fn of(file: u32) -> Self {
        Configuration {
            file,
            block_size: 0,
            _info: [0; 5],
            _numbers: [0; 3],
            flags: READ_ONLY_AUTOCLEAR,
            _names: [0; 160],
            _init: [0; 2],
            _reserved: [0; 8],
        }
    }
}

// 8 bytes, loop_info64 of 232, and 64 reserved.
const _: () = assert!(size_of::<Configuration>() == 304);
const _: () = assert!(std::mem::offset_of!(Configuration, flags) == 8 + 52);

mod ioctl {
    nix::ioctl_none_bad!(get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, super::Configuration);
}
