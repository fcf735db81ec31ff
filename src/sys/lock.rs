//! Exclusive locks that belong to an open file description (OFD locks and `flock`): two opens of one file exclude
//! each other even inside one process, and the kernel drops the lock with the last descriptor.

use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::FlockOperation;

use super::call::{Call, call};

/// Takes the lock if nobody holds it; returns whether it did. The file must be open for writing.
pub(crate) fn try_exclusive(file: BorrowedFd<'_>) -> io::Result<bool> {
    match call(Call::TryLock, || fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file()))) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes the lock, and waits for whoever holds it.
#[cfg(test)]
pub(crate) fn exclusive(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::Lock, || fcntl(file, FcntlArg::F_OFD_SETLKW(&whole_file()))).map(drop)
}

/// Takes the `flock` of an open file or directory, and waits for whoever holds it. It ends with the handle.
pub(crate) fn flock_exclusive(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::Lock, || rustix::fs::flock(file, FlockOperation::LockExclusive))
}

/// Shares the `flock` of an open file or directory, and waits for who has it alone. It ends with the handle.
pub(crate) fn flock_shared(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::Lock, || rustix::fs::flock(file, FlockOperation::LockShared))
}

/// Takes the `flock` alone if nobody else has it or shares it; returns whether it did. One that was shared before is given
/// up in either case.
pub(crate) fn try_flock_exclusive(file: BorrowedFd<'_>) -> io::Result<bool> {
    match call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        locked => locked.map(|()| true),
    }
}

/// Whether someone else holds the `flock`. Asking takes it for a moment.
pub(crate) fn is_flock_held(file: BorrowedFd<'_>) -> io::Result<bool> {
    match call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::NonBlockingLockShared)) {
        Ok(()) => call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::Unlock)).map(|()| false),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether someone else holds the lock.
pub(crate) fn is_held(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut lock = whole_file();
    call(Call::TryLock, || fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn two_opens_exclude_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let second = file.reopen().unwrap();
        assert!(!is_held(second.as_fd()).unwrap());
        assert!(try_exclusive(file.as_file().as_fd()).unwrap());
        assert!(is_held(second.as_fd()).unwrap());
        assert!(!try_exclusive(second.as_fd()).unwrap());
        drop(file);
        exclusive(second.as_fd()).unwrap();
    }

    #[test]
    fn many_share_what_one_has_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let opened = || std::fs::File::open(file.path()).unwrap();
        let (first, second, third) = (opened(), opened(), opened());
        flock_shared(first.as_fd()).unwrap();
        flock_shared(second.as_fd()).unwrap();
        assert!(!is_flock_held(third.as_fd()).unwrap(), "it can be shared by one more");
        assert!(!try_flock_exclusive(third.as_fd()).unwrap(), "but not be had alone");
        drop(first);
        assert!(!try_flock_exclusive(third.as_fd()).unwrap());
        drop(second);
        assert!(try_flock_exclusive(third.as_fd()).unwrap());
        let late = opened();
        assert!(is_flock_held(late.as_fd()).unwrap());
        drop(third);
        flock_exclusive(late.as_fd()).unwrap();
    }
}
