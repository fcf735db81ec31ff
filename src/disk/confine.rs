//! Work on a thread that can reach one staged directory and nothing else: a second wall, should the first one have a hole.
//!
//! The first wall is that nothing of a layer is resolved but beneath the directory's handle, part by part, and never through a link. This
//! one does not know what a path is: the kernel refuses the thread, and those that it starts, whatever lies elsewhere. So it
//! also holds where somebody moves a directory out of the staged one while a handle of it is open.

use std::os::fd::BorrowedFd;
use std::{io, thread};

use super::staging::Staging;
use crate::sys::landlock;

/// Does `work`, which fills `staging`, on a thread of its own that can open, make and remove files only there. Where the kernel
/// has no Landlock, only the thread is its own.
///
/// The thread ends before this returns. Whatever `work` needs of other directories must be open already, and it must not mount, run
/// programs or call what belongs to the user of the library.
///
/// Returns the error of making the thread.
pub(crate) fn confined<T: Send>(staging: &Staging, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let directories = [staging.directory(), staging.aside()];
    thread::scope(|scope| {
        let unpack = move || {
            confine(&directories);
            work()
        };
        let thread = thread::Builder::new().name("unpack".into()).spawn_scoped(scope, unpack)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn confine(directories: &[BorrowedFd<'_>]) {
    let Err(error) = landlock::confine_thread(directories) else { return };
    if landlock::against().is_some() {
        tracing::debug!(%error, "the unpacking thread is not confined");
    } else {
        // As where the caller's thread was confined sixteen times, which is the most.
        tracing::warn!(%error, "the unpacking thread is not confined");
    }
}
