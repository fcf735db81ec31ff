//! Opening below a directory handle.
//!
//! Resolution never leaves the directory, never follows a symbolic link or a magic link, and never crosses a
//! mount, whatever stands in the tree and whoever changes it meanwhile. The kernel checks each step (`openat2`); where it
//! does not have that call, or a seccomp filter refuses it, [`walk`] takes the steps one by one and checks them here.

#[cfg(test)]
pub(crate) mod tests;
mod walk;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use rustix::fs::FileType;

use super::call::{Call, call};
use super::{path, stat};

/// Longest path handed to the kernel in one call, well below its `PATH_MAX` of 4096.
const CHUNK: usize = 3900;

/// A lookup that raced with a rename somewhere on the machine fails with EAGAIN; that many are tried again.
const RACES: usize = 128;

/// Opens the directory at `path`, an ordinary path that may hold symbolic links: for what the user named.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    call(Call::Open, || nix::fcntl::open(path, flags, Mode::empty()))
}

/// Opens the directory that stands at `path` itself: a link there is ENOTDIR.
pub(crate) fn open_directory_itself(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    call(Call::Open, || nix::fcntl::open(path, flags, Mode::empty()))
}

/// Opens the directory at `path` below `root` for reading; the root itself if `path` is empty.
///
/// `path` may be longer than `PATH_MAX`. A symbolic link on the way, the last part included, is ELOOP or
/// ENOTDIR; a mount is EXDEV.
pub(crate) fn open_directory_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    in_chunks(root, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
}

/// As [`open_directory`], of a directory whose names nobody asks for: what is in it can be opened.
pub(crate) fn pin_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    call(Call::Open, || nix::fcntl::open(path, flags, Mode::empty()))
}

/// As [`open_directory_beneath`], of a directory whose names nobody asks for: what is in it can be opened.
pub(crate) fn pin_directory_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    in_chunks(root, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
}

/// Opens the directory that what stands at `path` below `root` lies in, and gives the last name of the path with it.
pub(crate) fn open_parent_beneath<'p>(
    root: BorrowedFd<'_>,
    path: &'p [u8],
) -> io::Result<(OwnedFd, &'p [u8])> {
    let (above, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => {
            (path.get(..slash).unwrap_or_default(), path.get(slash.saturating_add(1)..).unwrap_or_default())
        }
        None => (&b""[..], path),
    };
    Ok((open_directory_beneath(root, above)?, name))
}

/// Opens the regular file at `path` below `root` for reading, in the manner of [`open_directory_beneath`]. Anything else is
/// an error that [`is_no_file`] knows, and nothing was opened of it: to open a device does something, and a tree that a container writes to
/// may have one in the place of the file that was found there.
pub(crate) fn open_file_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    let pinned = in_chunks(root, path, OFlag::O_PATH)?;
    refuse_others(pinned.as_fd())?;
    open_again(pinned.as_fd(), OFlag::O_RDONLY | OFlag::O_CLOEXEC)
}

/// The same where nobody but the store's owner writes: in a sealed tree, or among the store's own files. What else stands there
/// is opened before it is refused, but nothing waits for it. That is a call less for each file.
pub(crate) fn open_sealed_file_beneath(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    if MISSING.load(Ordering::Relaxed) {
        return open_file_beneath(root, path);
    }
    // As `walk` takes no file for an answer, in case that it has to be asked.
    let (dir, path) = enter_chunks(root, path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let dir = dir.as_ref().map_or(root, AsFd::as_fd);
    match by_kernel(dir, path, flags) {
        Err(error) if is_refused(&error) && is_missing(dir) => open_file_beneath(dir, path),
        opened => {
            let file = opened?;
            refuse_others(file.as_fd()).map(|()| file)
        }
    }
}

fn refuse_others(file: BorrowedFd<'_>) -> io::Result<()> {
    match stat::stat(file)?.kind {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Errno::ELOOP.into()),
        FileType::Directory => Err(Errno::EISDIR.into()),
        _ => Err(Errno::ENXIO.into()),
    }
}

/// Whether what stands at the path of a file that was to be opened is no regular file.
pub(crate) fn is_no_file(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR | libc::ENXIO))
}

/// A path that leads to what a descriptor stands for, for the calls that take no descriptor, or none with `O_PATH`. Whoever
/// follows it ends there, also if that is a symbolic link.
pub(super) fn open_path(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Opens what a descriptor stands for, by a path that leads to it.
///
/// It is there, so what is missing is `/proc`: that is another error than where there is no file, in whose place one would be made.
pub(super) fn open_again(file: BorrowedFd<'_>, flags: OFlag) -> io::Result<OwnedFd> {
    let path = open_path(file);
    let opened = call(Call::Open, || nix::fcntl::open(path.as_str(), flags, Mode::empty()));
    opened.map_err(path::without_proc)
}

/// Opens what stands at the one name `name` in `dir`, which may be a mount, and no link: ELOOP or ENOTDIR.
pub(crate) fn open_name(dir: BorrowedFd<'_>, name: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    call(Call::Open, || openat(dir, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()))
}

/// Creates the file `name` in `dir` and opens it for reading and writing. Fails with EEXIST if anything at
/// all stands there. The mode is subject to the umask.
pub(crate) fn create_file(dir: BorrowedFd<'_>, name: &[u8], mode: u16) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    call(Call::Create, || openat(dir, name, flags, Mode::from_bits_truncate(u32::from(mode))))
}

/// As [`create_file`], for its owner alone: with mode 0600, whatever the umask.
pub(crate) fn create_private_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    create_file(dir, name, PRIVATE).and_then(made_private)
}

/// Opens the regular file `name` in `dir` for reading and writing. Anything else is an error that [`is_no_file`] knows, and is
/// neither opened nor followed, whoever exchanges it meanwhile.
pub(crate) fn open_file_for_writing(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let pinned = open_name(dir, name, OFlag::O_PATH)?;
    refuse_others(pinned.as_fd())?;
    open_again(pinned.as_fd(), OFlag::O_RDWR | OFlag::O_CLOEXEC)
}

/// Makes a file without a name in the filesystem of `dir`: it goes with its last handle. Its mode is 0600, whatever the umask.
pub(crate) fn unnamed_file(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    call(Call::Create, || openat(dir, ".", flags, Mode::S_IRUSR | Mode::S_IWUSR)).and_then(made_private)
}

/// The same of a file that is created with mode 0600, whatever the umask, if it is missing: it is there, as a rule.
pub(crate) fn ensure_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    match open_file_for_writing(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => ensure_new_file(dir, name),
        opened => opened,
    }
}

/// As [`ensure_file`], for one that is missing as a rule.
pub(crate) fn ensure_new_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let mut tries = ENSURE_TRIES;
    loop {
        tries = tries.saturating_sub(1);
        match create_private_file(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        match open_file_for_writing(dir, name) {
            // Whoever had it has taken it away.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries > 0 => {}
            opened => return opened,
        }
    }
}

/// How often a file may be taken away before it is opened: others that come and go do so a few times.
const ENSURE_TRIES: u32 = 1000;

/// The mode of files that are their owner's alone.
const PRIVATE: u16 = 0o600;

fn made_private(file: OwnedFd) -> io::Result<OwnedFd> {
    super::node::set_mode(file.as_fd(), PRIVATE).map(|()| file)
}

/// Opens the directory that `child` lies in. Meant for going back up a path that was walked down: the caller
/// compares the inode with the one it came from, as a rename may have moved `child` meanwhile.
pub(crate) fn open_parent(child: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    call(Call::Open, || openat(child, c"..", flags, Mode::empty()))
}

fn in_chunks(root: BorrowedFd<'_>, path: &[u8], last: OFlag) -> io::Result<OwnedFd> {
    let (dir, path) = enter_chunks(root, path)?;
    resolve(dir.as_ref().map_or(root, AsFd::as_fd), path, last)
}

/// Goes down so far that the kernel takes the rest of the path at once.
fn enter_chunks<'p>(root: BorrowedFd<'_>, path: &'p [u8]) -> io::Result<(Option<OwnedFd>, &'p [u8])> {
    let mut reached: Option<OwnedFd> = None;
    let mut rest = path;
    loop {
        let dir = reached.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() <= CHUNK {
            return Ok((reached, if rest.is_empty() { b"." } else { rest }));
        }
        let cut = rest.get(..CHUNK).and_then(|head| head.iter().rposition(|&byte| byte == b'/'));
        let (head, tail) = cut.and_then(|at| rest.split_at_checked(at)).ok_or(Errno::ENAMETOOLONG)?;
        reached = Some(resolve(dir, head, OFlag::O_PATH | OFlag::O_DIRECTORY)?);
        rest = tail.strip_prefix(b"/").unwrap_or(tail);
    }
}

/// Whether it is known that there is no `openat2` here.
static MISSING: AtomicBool = AtomicBool::new(false);

fn resolve(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    if !MISSING.load(Ordering::Relaxed) {
        match by_kernel(dir, path, flags) {
            Err(error) if is_refused(&error) && is_missing(dir) => {}
            opened => return opened,
        }
    }
    walk::open(dir, path, flags)
}

fn by_kernel(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    let mut races = 0;
    loop {
        match call(Call::Open, || openat2(dir, path, how)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && races < RACES => {
                races = races.saturating_add(1);
            }
            opened => return opened,
        }
    }
}

/// Whether the call is unknown: to the kernel before 5.6, or to the seccomp filter of an old container runtime, which says EPERM.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM))
}

/// Tells a call that is refused always from one that was refused for what it was to open. The answer is kept.
fn is_missing(dir: BorrowedFd<'_>) -> bool {
    let missing = by_kernel(dir, b".", OFlag::O_PATH).is_err_and(|error| is_refused(&error));
    // A test has filters for some of its threads.
    if missing && !cfg!(test) {
        tracing::debug!("no openat2 here: paths are walked part by part");
        MISSING.store(true, Ordering::Relaxed);
    }
    missing
}
