//! A descriptor that becomes readable when a file is written to: inotify, or where that is not to be had a timer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// A descriptor that says "look again". It may say so for nothing.
#[derive(Debug)]
pub(crate) struct Wakeup(OwnedFd);

impl Wakeup {
    /// Wakes when somebody has written to the file at `path`, through any descriptor, and when the path may lead to
    /// another file from now on.
    ///
    /// Returns an error where the user's inotify instances or watches are used up, among others.
    pub(crate) fn on_write(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // A file that loses a name, with another put in its place, changes its attributes: it has fewer links.
        let replaced = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_DELETE_SELF;
        inotify.add_watch(path, AddWatchFlags::IN_MODIFY | replaced)?;
        Ok(Wakeup(inotify.into()))
    }

    /// Wakes at every interval.
    pub(crate) fn every(interval: Duration) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let expiration = Expiration::Interval(TimeSpec::from_duration(interval));
        timer.set(expiration, TimerSetTimeFlags::empty())?;
        Ok(Wakeup(timer.into()))
    }

    /// Waits until it wakes, a signal comes, or the time is over.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<()> {
        // In milliseconds, rounded up: nobody is woken just before the time is over, again and again.
        let timeout =
            PollTimeout::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the descriptor unreadable until it wakes again, and returns whether it was readable. Comes before the look, so
    /// that nothing is missed.
    pub(crate) fn clear(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let mut woken = false;
        loop {
            match nix::unistd::read(self.0.as_fd(), &mut buffer) {
                // A full buffer may not be all.
                Ok(read) if read > buffer.len() / 2 => woken = true,
                Ok(_) => return Ok(true),
                Err(Errno::EAGAIN) => return Ok(woken),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(wakeup: &Wakeup) -> bool {
        let mut fds = [PollFd::new(wakeup.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn writing_wakes_until_it_is_cleared() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let wakeup = Wakeup::on_write(file.path()).unwrap();
        assert!(!is_readable(&wakeup));
        for _ in 0..2 {
            std::fs::write(file.path(), b"x").unwrap();
            wakeup.wait(Duration::from_secs(60)).unwrap();
            assert!(is_readable(&wakeup));
            wakeup.clear().unwrap();
            assert!(!is_readable(&wakeup));
        }
    }

    #[test]
    fn a_timer_wakes_again_and_again() {
        let wakeup = Wakeup::every(Duration::from_millis(1)).unwrap();
        for _ in 0..3 {
            wakeup.wait(Duration::from_secs(60)).unwrap();
            assert!(is_readable(&wakeup));
            wakeup.clear().unwrap();
        }
    }
}
