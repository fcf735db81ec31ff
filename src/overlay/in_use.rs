//! Whether some overlay writes to a directory, wherever it is mounted.
//!
//! A mount table tells of one mount namespace, and no longer of a mount that was taken away while processes use it. The kernel itself
//! marks the upper directory of an overlay for as long as that lives, and where `index=on` is asked for it refuses another one with the same
//! (`ovl_get_upper` and `ovl_report_in_use` in the kernel's `fs/overlayfs`).

use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::EBUSY;
use rustix::mount::MountAttrFlags;

use crate::sys::mount::{self as sys, FsContext, Refusal};

/// How long an overlay is given to go when its last user has, and how long between two looks. One with much to write out may take longer.
const PATIENCE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether `directory` is the upper directory of an overlay, and stays that: of the first, if several have it. One that is just going is
/// waited for; the kernel leaves the mounts of a mount namespace that has ended to a thread of its own.
///
/// `false` also if this process may not mount, and of what a program mounts: nobody knows then.
pub(crate) fn stays_upper(directory: &Path) -> bool {
    let begun = Instant::now();
    while is_upper(directory) {
        if begun.elapsed() >= PATIENCE {
            return true;
        }
        thread::sleep(LOOK_AGAIN);
    }
    false
}

/// Asks for an overlay that cannot be: its workdir is its upper directory too, which the kernel refuses when it has looked at
/// the mark. Nothing is written to the disk. The mark is set for that moment, so that of two who ask at a time one may be told
/// of the other; so who changes something by the answer holds the run database's lock, under which the store mounts.
pub(super) fn is_upper(directory: &Path) -> bool {
    refusal_of(directory).is_err_and(|refusal| refusal.source.raw_os_error() == Some(EBUSY))
}

fn refusal_of(directory: &Path) -> Result<(), Refusal> {
    let opened = sys::open_directory(directory)?;
    // A name that needs no escapes, in whatever way an option is read.
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let context = FsContext::open("overlay")?;
    context.string("index", "on")?;
    ["lowerdir", "upperdir", "workdir"].into_iter().try_for_each(|key| context.string(key, &name))?;
    context.create(MountAttrFlags::empty()).map(drop)
}
