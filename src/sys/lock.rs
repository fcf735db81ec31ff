//! Exclusive locks that belong to an open file description (OFD locks and `flock`): two opens of one file exclude
//! each other even inside one process, and the kernel drops the lock with the last descriptor. Others give it up when
//! their guard is dropped: a process that another thread has forked has the descriptor too, until it runs another
//! program, and if it never does, for as long as it lives.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::FlockOperation;

use super::call::{Call, call};
use crate::timing::{self, Stage};

/// An open file or directory that is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    file: OwnedFd,
    unlock: fn(BorrowedFd<'_>) -> io::Result<()>,
}

impl AsFd for Locked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        if let Err(error) = (self.unlock)(self.file.as_fd()) {
            tracing::debug!(%error, "a lock is given up by closing its file");
        }
    }
}

/// Takes the lock if nobody holds it. The file must be open for writing.
pub(crate) fn try_exclusive(file: OwnedFd) -> io::Result<Option<Locked>> {
    match call(Call::TryLock, || fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_WRLCK)))) {
        Ok(_) => Ok(Some(Locked { file, unlock })),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the lock, and waits for whoever holds it.
#[cfg(test)]
pub(crate) fn exclusive(file: OwnedFd) -> io::Result<Locked> {
    call(Call::Lock, || fcntl(&file, FcntlArg::F_OFD_SETLKW(&whole_file(libc::F_WRLCK))))?;
    Ok(Locked { file, unlock })
}

fn unlock(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::TryLock, || fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_UNLCK)))).map(drop)
}

/// Takes the `flock` of an open file or directory, and waits for whoever holds it.
pub(crate) fn flock_exclusive(file: OwnedFd) -> io::Result<Locked> {
    take(&file, FlockOperation::NonBlockingLockExclusive, FlockOperation::LockExclusive)?;
    Ok(Locked { file, unlock: flock_unlock })
}

/// Shares the `flock` of an open file or directory, and waits for who has it alone.
pub(crate) fn flock_shared(file: OwnedFd) -> io::Result<Locked> {
    take(&file, FlockOperation::NonBlockingLockShared, FlockOperation::LockShared)?;
    Ok(Locked { file, unlock: flock_unlock })
}

/// A lock that is free costs one call, and counts for no wait.
fn take(file: &OwnedFd, at_once: FlockOperation, waiting: FlockOperation) -> io::Result<()> {
    match call(Call::TryLock, || rustix::fs::flock(file, at_once)) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            timing::spanned(Stage::LockWait, || call(Call::Lock, || rustix::fs::flock(file, waiting)))
        }
        taken => taken,
    }
}

/// Takes the `flock` if nobody else has it or shares it.
pub(crate) fn try_flock_exclusive(file: OwnedFd) -> io::Result<Option<Locked>> {
    let locked = try_flock_alone(file.as_fd())?;
    Ok(locked.then_some(Locked { file, unlock: flock_unlock }))
}

/// Takes a `flock` alone that is shared, if nobody else shares it; returns whether it did. It is shared no more in either case.
pub(crate) fn try_flock_alone(file: BorrowedFd<'_>) -> io::Result<bool> {
    match call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        locked => locked.map(|()| true),
    }
}

fn flock_unlock(file: BorrowedFd<'_>) -> io::Result<()> {
    call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::Unlock))
}

/// Whether someone else holds the `flock`. Asking takes it for a moment.
pub(crate) fn is_flock_held(file: BorrowedFd<'_>) -> io::Result<bool> {
    match call(Call::TryLock, || rustix::fs::flock(file, FlockOperation::NonBlockingLockShared)) {
        Ok(()) => flock_unlock(file).map(|()| false),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether someone else holds the lock.
pub(crate) fn is_held(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    call(Call::TryLock, || fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn opened(file: &tempfile::NamedTempFile) -> OwnedFd {
        file.reopen().unwrap().into()
    }

    #[test]
    fn two_opens_exclude_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(!is_held(opened(&file).as_fd()).unwrap());
        let first = try_exclusive(opened(&file)).unwrap().unwrap();
        assert!(is_held(opened(&file).as_fd()).unwrap());
        assert!(try_exclusive(opened(&file)).unwrap().is_none());
        drop(first);
        exclusive(opened(&file)).unwrap();
    }

    #[test]
    fn many_share_what_one_has_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let first = flock_shared(opened(&file)).unwrap();
        let second = flock_shared(opened(&file)).unwrap();
        let third = opened(&file);
        assert!(!is_flock_held(third.as_fd()).unwrap(), "it can be shared by one more");
        assert!(!try_flock_alone(third.as_fd()).unwrap(), "but not be had alone");
        drop(first);
        assert!(!try_flock_alone(third.as_fd()).unwrap());
        drop(second);
        let third = try_flock_exclusive(third).unwrap().unwrap();
        let late = opened(&file);
        assert!(is_flock_held(late.as_fd()).unwrap());
        drop(third);
        flock_exclusive(late).unwrap();
    }

    #[test]
    fn only_who_waits_for_a_lock_counts_as_waiting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for lock in [flock_exclusive, flock_shared] {
            let (held, timings) = timing::measure(|| lock(opened(&file)).unwrap());
            assert_eq!(timings.of(Stage::LockWait), Duration::ZERO);
            let ((), timings) = std::thread::scope(|scope| {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(30));
                    drop(held);
                });
                timing::measure(|| drop(flock_exclusive(opened(&file)).unwrap()))
            });
            assert!(timings.of(Stage::LockWait) >= Duration::from_millis(10), "{timings:?}");
        }
    }

    /// As one has that was forked, and has not come to run another program.
    #[test]
    fn a_copy_of_the_descriptor_keeps_no_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let copy = |locked: &Locked| locked.as_fd().try_clone_to_owned().unwrap();
        let locked = try_exclusive(opened(&file)).unwrap().unwrap();
        let _forked = copy(&locked);
        drop(locked);
        assert!(!is_held(opened(&file).as_fd()).unwrap());
        for lock in [flock_exclusive, flock_shared] {
            let locked = lock(opened(&file)).unwrap();
            let _forked = copy(&locked);
            drop(locked);
            assert!(try_flock_exclusive(opened(&file)).unwrap().is_some());
        }
    }
}
