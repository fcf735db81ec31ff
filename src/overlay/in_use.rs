//! Whether some overlay writes to a directory, wherever it is mounted.
//!
//! A mount table tells of one mount namespace, and no longer of a mount that was taken away while processes use it. The kernel itself
//! marks the upper directory of an overlay for as long as that lives, and where `index=on` is asked for it refuses another one with the same
//! (`ovl_get_upper` and `ovl_report_in_use` in the kernel's `fs/overlayfs`).

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::sys::mount::{self as sys, FsContext, Refusal};

/// Whether `directory` is the upper directory of an overlay: of the first, if several have it. That of one that is just going is, too:
/// the kernel leaves the mounts of a mount namespace that has ended to a thread of its own.
///
/// Asks for an overlay that cannot be: its workdir is its upper directory too, which the kernel refuses when it has looked at
/// the mark. Nothing is written to the disk. `false` also if this process may not mount, if the kernel has no overlays, and of what a program
/// mounts: nobody knows then.
///
/// # Locking
///
/// The mark is set for that moment, and an overlay that is mounted in it has none for as long as it lives. So the caller holds the lock of
/// the run database, under which the store mounts.
///
/// Returns an error if the kernel could not look: there are too many open files, or too little memory.
pub(crate) fn is_upper(directory: &Path) -> io::Result<bool> {
    let Err(Refusal { source, .. }) = overlay_on_itself(directory) else { return Ok(false) };
    match Errno::from_io_error(&source) {
        Some(Errno::BUSY) => Ok(true),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN | Errno::INTR) => Err(source),
        _ => Ok(false),
    }
}

fn overlay_on_itself(directory: &Path) -> Result<(), Refusal> {
    let opened = sys::open_directory(directory)?;
    // A name that needs no escapes, in whatever way an option is read.
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let context = FsContext::open("overlay")?;
    context.string("index", "on")?;
    ["lowerdir", "upperdir", "workdir"].into_iter().try_for_each(|key| context.string(key, &name))?;
    context.create(MountAttrFlags::empty()).map(drop)
}
