//! Byte-range locks that belong to an open file (OFD locks, `fcntl_locking(2)`).

use std::io;
use std::ops::Bound;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::call::{Call, call};
use super::file::File;

/// Waits until no other open file has a conflicting lock on the range, then takes it.
///
/// Waiting happens in the kernel's queue, which is fair. Returns the error of `fcntl`.
pub(crate) fn lock_range(file: &File, start: Bound<u64>, end: Bound<u64>, exclusive: bool) -> io::Result<()> {
    let lock = flock(start, end, if exclusive { libc::F_WRLCK } else { libc::F_RDLCK });
    call(Call::Lock, || fcntl(file, FcntlArg::F_OFD_SETLKW(&lock))).map(drop)
}

/// A range that is locked until this is dropped. The end of the open file would end the lock as well, but a process that another
/// thread has forked may have that open for longer.
#[derive(Debug)]
pub(crate) struct LockedRange<'f> {
    file: &'f File,
    start: Bound<u64>,
    end: Bound<u64>,
}

impl<'f> LockedRange<'f> {
    /// Of a range that the open file has locked.
    pub(crate) fn of(file: &'f File, start: Bound<u64>, end: Bound<u64>) -> Self {
        LockedRange { file, start, end }
    }
}

impl Drop for LockedRange<'_> {
    fn drop(&mut self) {
        if let Err(error) = unlock_range(self.file, self.start, self.end) {
            tracing::debug!(%error, "a lock is given up by closing its file");
        }
    }
}

/// Gives the range up.
pub(crate) fn unlock_range(file: &File, start: Bound<u64>, end: Bound<u64>) -> io::Result<()> {
    call(Call::TryLock, || fcntl(file, FcntlArg::F_OFD_SETLK(&flock(start, end, libc::F_UNLCK)))).map(drop)
}

fn flock(start: Bound<u64>, end: Bound<u64>, kind: libc::c_int) -> libc::flock {
    let first = match start {
        Bound::Unbounded => 0,
        Bound::Included(at) => at,
        Bound::Excluded(at) => at.saturating_add(1),
    };
    let length = match end {
        Bound::Unbounded => 0,
        Bound::Included(at) => at.saturating_add(1).saturating_sub(first),
        Bound::Excluded(at) => at.saturating_sub(first),
    };
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: first.cast_signed(),
        l_len: length.cast_signed(),
        l_pid: 0,
    }
}
