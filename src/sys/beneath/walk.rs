//! The same without `openat2`: one part of the path at a time, each checked on the descriptor that was got.
//!
//! A descriptor stays what it is, whatever its name becomes. So what was checked is what the next part is looked up in, and who
//! renames things meanwhile gains what he has without: a part that is found at its old or at its new place, below the root
//! when it was looked up. `..` is never looked up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::call::{Call, call};
use crate::sys::stat;

/// Opens what stands at `path` below `root` with the flags `last`, which are either with `O_PATH` or those of a directory: these
/// open nothing that has an effect, so the mount may be looked at when it is done.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8], last: OFlag) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    if path.starts_with(b"/") {
        return Err(Errno::EXDEV.into());
    }
    let mount = stat::mount(root)?;
    let mut parts = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).peekable();
    let mut reached: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::EXDEV.into());
        }
        let flags = if parts.peek().is_some() { OFlag::O_PATH | OFlag::O_DIRECTORY } else { last };
        let opened = open_part(reached.as_ref().map_or(root, AsFd::as_fd), part, flags)?;
        if stat::mount(opened.as_fd())? != mount {
            return Err(Errno::EXDEV.into());
        }
        reached = Some(opened);
    }
    reached.map_or_else(|| open_part(root, b".", last), Ok)
}

fn open_part(dir: BorrowedFd<'_>, part: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    call(Call::Open, || openat(dir, part, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()))
}
