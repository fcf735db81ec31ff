//! Work on a thread that can reach one staged directory and what goes into it, and nothing else: a second wall, should the first one have
//! a hole.
//!
//! The first wall is that nothing of a layer is resolved but beneath the directory's handle, part by part, and never through a link. This
//! one does not know what a path is: the kernel refuses the thread, and those that it starts, whatever lies elsewhere. So it
//! also holds where somebody moves a directory out of the staged one while a handle of it is open.

#[cfg(test)]
pub(crate) mod tests;

use std::os::fd::BorrowedFd;
use std::thread::{Scope, ScopedJoinHandle};
use std::{io, thread};

use super::staging::Staging;
use crate::sys::landlock::{self, Access, Rules};
use crate::sys::thread::start;
use crate::timing::{self, Stage};

/// What a thread can reach.
#[derive(Debug)]
pub(crate) struct Confinement(io::Result<Rules>);

impl Confinement {
    /// Nothing at all: for work on what goes from thread to thread.
    pub(crate) fn to_nothing() -> Self {
        Confinement(Rules::new())
    }

    /// A staged directory, to fill it.
    pub(crate) fn to(staging: &Staging) -> Self {
        match staging.aside() {
            Ok(aside) => Self::to_nothing().and(&[staging.directory(), aside], Access::Fill),
            Err(error) => Confinement(Err(error)),
        }
    }

    /// A directory besides, to read it. It need not stay open.
    pub(crate) fn and_read(self, directory: BorrowedFd<'_>) -> Self {
        self.and(&[directory], Access::Read)
    }

    /// A directory besides, to read it and to give its files second names in the staged one.
    pub(crate) fn and_link(self, directory: BorrowedFd<'_>) -> Self {
        self.and(&[directory], Access::Link)
    }

    fn and(self, directories: &[BorrowedFd<'_>], access: Access) -> Self {
        let add = |rules: Rules| {
            directories.iter().try_for_each(|directory| rules.allow(*directory, access)).map(|()| rules)
        };
        Confinement(self.0.and_then(add))
    }

    /// Does `work` on a thread of its own, as [`start`](Self::start) does. The thread ends before this returns.
    ///
    /// Returns the error of making the thread, and one that says so if `work` panics.
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let unpack = self.start(scope, "unpack", work)?;
            timing::spanned(Stage::QueueWait, || unpack.join())
                .map_err(|_| io::Error::other("the unpacking thread died"))
        })
    }

    /// Starts a thread of the name `name` that does `work`, and can open, make and remove files only there. Where the kernel has no
    /// Landlock, only the thread is its own.
    ///
    /// Whatever `work` needs of other directories must be open already, or opened with `O_PATH`; and
    /// it must not mount, run programs or call what belongs to the user of the library.
    ///
    /// Returns the error of making the thread.
    pub(crate) fn start<'scope, T: Send + 'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'scope,
    ) -> io::Result<ScopedJoinHandle<'scope, T>> {
        start(scope, name, move || {
            self.confine(name);
            work()
        })
    }

    fn confine(self, thread: &str) {
        let Err(error) = self.0.and_then(|rules| rules.confine_thread()) else { return };
        if landlock::against().is_some() {
            tracing::debug!(thread, %error, "a thread is not confined");
        } else {
            // As where the caller's thread was confined sixteen times, which is the most.
            tracing::warn!(thread, %error, "a thread is not confined");
        }
    }
}
