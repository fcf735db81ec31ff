//! Opening and removing below a root directory that others may change meanwhile, a container for one.
//!
//! The kernel resolves paths within it (`openat2`). Where that call is missing, before Linux 5.6 or for a seccomp filter that does not know
//! it, their parts are opened one by one, each in the directory that the one before has led to.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Stat, StatxAttributes,
    StatxFlags,
};
use rustix::io::Errno;

/// How many links may be on the way, as in the kernel.
const LINKS: usize = 40;

/// A lookup that raced with a rename somewhere on the machine fails with EAGAIN; that many are tried again.
const RACES: usize = 128;

const PIN: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a path leads to with `root` for its `/`, also through links, but not those of `/proc` that lead to open files. Nothing is
/// opened but a handle: see [`read`].
pub fn follow(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    by_kernel(root.as_fd(), path, PIN, resolve).unwrap_or_else(|| follow_parts(root.as_fd(), path))
}

/// Opens a directory of a tree for reading; no part of the path is a link.
pub fn directory(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match by_kernel(root.as_fd(), path, READ, resolve) {
        // Trees may be deeper than a path that the kernel takes at once.
        Some(Err(Errno::NAMETOOLONG)) | None => directory_by_parts(root.as_fd(), path),
        Some(opened) => opened,
    }
}

/// A handle of what stands at a name, a link itself, and what it is.
pub fn pin(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<(OwnedFd, Stat), Errno> {
    let pinned = rustix::fs::openat(directory, name, PIN | OFlags::NOFOLLOW, Mode::empty())?;
    let stat = rustix::fs::fstat(&pinned)?;
    Ok((pinned, stat))
}

/// Opens what a handle is of for reading. It is a regular file: to open others may do something, or wait.
pub fn read(pinned: impl AsFd) -> Result<OwnedFd, Errno> {
    let stat = rustix::fs::fstat(&pinned)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    rustix::fs::openat(CWD, path_of(pinned.as_fd()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A path that leads to what a handle is of, whatever its name is by now, for the calls that take no such handle.
pub fn path_of(pinned: BorrowedFd<'_>) -> PathBuf {
    Path::new("/proc/self/fd").join(pinned.as_raw_fd().to_string())
}

/// Removes a name that is no directory, if it is there.
pub fn remove(directory: impl AsFd, name: impl rustix::path::Arg) -> Result<(), Errno> {
    ignore_missing(rustix::fs::unlinkat(directory, name, AtFlags::empty()))
}

/// Removes whatever has a name, of a directory all that is in it.
///
/// Returns [`Errno::BUSY`] if something is mounted there.
pub fn remove_all(above: impl AsFd, name: &CStr) -> Result<(), Errno> {
    match remove(above.as_fd(), name) {
        Err(Errno::ISDIR) => {
            let top = rustix::fs::openat(above.as_fd(), name, READ | OFlags::NOFOLLOW, Mode::empty())?;
            empty(&top)?;
            ignore_missing(rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR))
        }
        removed => removed,
    }
}

/// Removes everything in a directory. Directories are held by their paths: there may be more of them than a process may have open.
fn empty(top: &OwnedFd) -> Result<(), Errno> {
    if is_mount(top)? {
        return Err(Errno::BUSY);
    }
    let (mut open, mut emptied) = (vec![PathBuf::new()], Vec::new());
    while let Some(path) = open.pop() {
        let directory = directory(top, &path)?;
        // Who is in another mount is not to be emptied, though it may be here that it is seen.
        if is_mount(&directory)? {
            return Err(Errno::BUSY);
        }
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match remove(&directory, name) {
                Err(Errno::ISDIR) => open.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes()))),
                removed => removed?,
            }
        }
        emptied.push(path);
    }
    for path in emptied.iter().rev() {
        let Some(name) = path.file_name() else { continue };
        let above = directory(top, path.parent().unwrap_or(Path::new("")))?;
        ignore_missing(rustix::fs::unlinkat(&above, name, AtFlags::REMOVEDIR))?;
    }
    Ok(())
}

fn is_mount(directory: &OwnedFd) -> Result<bool, Errno> {
    let found = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn ignore_missing(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

/// Asks the kernel; `None` if it has not the call.
fn by_kernel(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Option<Result<OwnedFd, Errno>> {
    let open = |path: &Path, flags| rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
    let mut races = 0;
    loop {
        match open(path, flags) {
            Err(Errno::AGAIN) if races < RACES => races = usize::saturating_add(races, 1),
            // A filter that does not know the call may say either; a file that may not be opened says the second as well.
            Err(Errno::NOSYS | Errno::PERM)
                if matches!(open(Path::new("."), PIN), Err(Errno::NOSYS | Errno::PERM)) =>
            {
                return None;
            }
            opened => return Some(opened),
        }
    }
}

fn follow_parts(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    fn push(rest: &mut Vec<Vec<u8>>, path: &[u8]) {
        rest.extend(path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
    }
    let path = path.as_os_str().as_bytes();
    if path.is_empty() {
        return Err(Errno::NOENT);
    }
    let (mut rest, mut links) = (Vec::new(), 0);
    push(&mut rest, path);
    // The directories from the root to where the path has led, without the root: what `..` goes back on.
    let mut way: Vec<OwnedFd> = Vec::new();
    while let Some(part) = rest.pop() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                way.pop();
                continue;
            }
            _ => {}
        }
        let (found, stat) = pin(way.last().map_or(root, AsFd::as_fd), part.as_slice())?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => way.push(found),
            FileType::Symlink => {
                links = usize::saturating_add(links, 1);
                // Those of `/proc` do not lead where they say.
                if links > LINKS || rustix::fs::fstatfs(&found)?.f_type == PROC_SUPER_MAGIC {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&found, c"", Vec::new())?.into_bytes();
                if target.starts_with(b"/") {
                    way.clear();
                }
                push(&mut rest, &target);
            }
            _ if rest.is_empty() => return Ok(found),
            _ => return Err(Errno::NOTDIR),
        }
    }
    way.pop().map_or_else(|| rustix::fs::openat(root, c".", PIN, Mode::empty()), Ok)
}

fn directory_by_parts(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let open = |above: BorrowedFd<'_>, part: &[u8], flags| {
        rustix::fs::openat(above, part, flags | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
    };
    if path.is_absolute() {
        return Err(Errno::XDEV);
    }
    let mut reached: Option<OwnedFd> = None;
    for part in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(Errno::XDEV),
            _ => reached = Some(open(reached.as_ref().map_or(root, AsFd::as_fd), part, PIN)?),
        }
    }
    open(reached.as_ref().map_or(root, AsFd::as_fd), b".", READ)
}

/// The error of a system call that the standard library has made.
pub fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    /// What was opened, or why nothing was.
    fn told(opened: Result<OwnedFd, Errno>) -> Result<u64, Errno> {
        opened.map(|file| std::fs::metadata(path_of(file.as_fd())).unwrap().ino())
    }

    fn open(path: &Path) -> OwnedFd {
        rustix::fs::open(path, PIN | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[test]
    fn both_ways_lead_to_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("root/a/b")).unwrap();
        std::fs::write(at("secret"), "x").unwrap();
        std::fs::write(at("root/a/file"), "x").unwrap();
        for (name, target) in [
            ("up", "../../.."),
            ("out", "../secret"),
            ("absolute", "/a/b"),
            ("file", "a/./file"),
            ("slash", "a/file/"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
            ("a/b/sub", "../../up/a"),
        ] {
            symlink(target, at("root").join(name)).unwrap();
        }
        let root = open(&at("root"));
        for path in [
            "/",
            ".",
            "",
            "a",
            "a/",
            "/a//b/..",
            "..",
            "../..",
            "../secret",
            "out",
            "up",
            "up/a/file",
            "absolute",
            "absolute/",
            "absolute/../file",
            "file",
            "file/",
            "slash",
            "dangling",
            "loop",
            "loop/x",
            "a/file/..",
            "a/b/sub/b",
            "none",
            "none/..",
            "absolute/sub/file",
        ] {
            let path = Path::new(path);
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            let kernel = by_kernel(root.as_fd(), path, PIN, resolve).map(told);
            let walked = told(follow_parts(root.as_fd(), path));
            // Elsewhere than in the kernel's tests this is the kernel's answer.
            assert_eq!(kernel.unwrap_or(walked), walked, "{path:?}");
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let kernel = by_kernel(root.as_fd(), path, READ, resolve).map(told);
            let walked = told(directory_by_parts(root.as_fd(), path));
            let (is_opened, same) = (walked.is_ok(), kernel.is_none_or(|kernel| kernel.ok() == walked.ok()));
            assert!(same || path.as_os_str().is_empty() || path.ends_with(".."), "{path:?}");
            assert!(!is_opened || !path.starts_with(".."), "{path:?}");
        }
        assert_eq!(told(follow_parts(root.as_fd(), Path::new("out"))), Err(Errno::NOENT));
        let proc = open(Path::new("/proc"));
        assert_eq!(told(follow_parts(proc.as_fd(), Path::new("self/root"))), Err(Errno::LOOP));
    }

    #[test]
    fn what_is_removed_is_not_followed_and_may_be_deep() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree")).unwrap();
        std::fs::write(dir.path().join("kept"), "x").unwrap();
        let root = open(dir.path());
        let mut deepest = directory(&root, Path::new("tree")).unwrap();
        let name = "d".repeat(200);
        // Longer than any path that the kernel takes.
        for _ in 0..60 {
            rustix::fs::symlinkat("/", &deepest, c"link").unwrap();
            rustix::fs::mkdirat(&deepest, name.as_str(), Mode::from(0o755)).unwrap();
            deepest = directory(&deepest, Path::new(&name)).unwrap();
        }
        rustix::fs::symlinkat("kept", &root, c"link").unwrap();
        remove_all(&root, c"link").unwrap();
        remove_all(&root, c"tree").unwrap();
        remove_all(&root, c"tree").unwrap();
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["kept"]);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = open(dir.path());
        rustix::fs::mknodat(&root, c"pipe", FileType::Fifo, Mode::from(0o600), 0).unwrap();
        let (pinned, _) = pin(&root, c"pipe").unwrap();
        assert_eq!(read(&pinned).unwrap_err(), Errno::INVAL);
    }
}
