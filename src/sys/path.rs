//! Calls that take an ordinary path, which may hold symbolic links: for what the user named, and for `/proc`.

use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatFs};

use super::beneath::open_again;
use super::call::{Call, call};
use super::file::{File, duplicate};
use super::stat::{self, Stat};

/// The numbers of the null device.
const NULL: (u32, u32) = (1, 3);

/// The magic number of the filesystem of `/proc`.
const PROC: u32 = 0x9fa0;

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// The magic number of the filesystem of pipes without a name.
const PIPES: u32 = 0x5049_5045;

/// The state of what `path` leads to.
pub(crate) fn stat(path: &Path) -> io::Result<Stat> {
    stat::stat_path(path, AtFlags::empty())
}

/// The state of what stands at `path` itself, be it a symbolic link.
pub(crate) fn stat_itself(path: &Path) -> io::Result<Stat> {
    stat::stat_path(path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

/// Whether `path` leads to a directory, as far as can be seen.
pub(crate) fn is_directory(path: &Path) -> bool {
    stat(path).is_ok_and(|found| found.kind == FileType::Directory)
}

/// Whether `path` leads to a regular file, as far as can be seen.
pub(crate) fn is_file(path: &Path) -> bool {
    stat(path).is_ok_and(|found| found.kind == FileType::RegularFile)
}

/// Whether something stands at `path` itself, be it a link that leads nowhere.
pub(crate) fn exists(path: &Path) -> io::Result<bool> {
    match stat_itself(path) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// What to make of an error about something in `/proc` that is there whenever `/proc` is.
pub(super) fn without_proc(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            let reason = "there is no /proc here, which this needs: mount it (mount -t proc proc /proc)";
            io::Error::new(io::ErrorKind::Unsupported, reason)
        }
        _ => error,
    }
}

/// The magic number of the filesystem that `path` lies on.
pub(crate) fn filesystem(path: &Path) -> io::Result<u32> {
    call(Call::FreeSpace, || rustix::fs::statfs(path)).map(|found| magic(&found))
}

/// The same of an open file.
pub(super) fn filesystem_of(file: BorrowedFd<'_>) -> io::Result<u32> {
    call(Call::FreeSpace, || rustix::fs::fstatfs(file)).map(|found| magic(&found))
}

fn magic(found: &StatFs) -> u32 {
    // The field's type differs between machines.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a magic number has 32 bits")]
    let magic = found.f_type as u32;
    magic
}

/// Opens the regular file that stands at `path` itself, for reading, or for writing too if `writes`. What else stands there is the error,
/// and is neither opened nor followed, whoever exchanges it meanwhile: a fifo would be waited for, and a device do something.
pub(crate) fn open_regular(path: &Path, writes: bool) -> io::Result<Result<(File, Stat), FileType>> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let pinned = call(Call::Open, || rustix::fs::open(path, flags, Mode::empty()))?;
    let found = stat::stat(pinned.as_fd())?;
    if found.kind != FileType::RegularFile {
        return Ok(Err(found.kind));
    }
    let access = if writes { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let file = open_again(pinned.as_fd(), access | OFlag::O_CLOEXEC)?;
    Ok(Ok((file.into(), found)))
}

/// Opens for reading what `path` leads to, if it is something that ends: a regular file, the null device, or a pipe without a name,
/// such as a shell makes for `<(...)` and names `/dev/fd/N`. Such a pipe is waited for, as its writer is somebody's whom the caller
/// knows. `None` if it is anything else, which is not opened: a pipe with a name might be waited for without end, and a
/// device do whatever it does when it is opened.
pub(crate) fn open_ending(path: &Path) -> io::Result<Option<File>> {
    if !ends(&stat(path)?, || filesystem(path))? {
        return Ok(None);
    }
    // Another one may stand there by now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = call(Call::Open, || rustix::fs::open(path, flags, Mode::empty()))?;
    let found = stat::stat(opened.as_fd())?;
    let on = || filesystem_of(opened.as_fd());
    if !ends(&found, on)? {
        return Ok(None);
    }
    if found.kind == FileType::Fifo {
        call(Call::Open, || rustix::fs::fcntl_setfl(&opened, OFlags::empty()))?;
    }
    Ok(Some(File::from(opened)))
}

fn ends(found: &Stat, filesystem: impl FnOnce() -> io::Result<u32>) -> io::Result<bool> {
    Ok(match found.kind {
        FileType::RegularFile => true,
        FileType::CharacterDevice => found.device == NULL,
        FileType::Fifo => filesystem()? == PIPES,
        _ => false,
    })
}

/// Opens for writing what `path` leads to, if the last link to it is one of `/proc`, such as `/dev/stdout` leads to: it is a file that
/// somebody has open, of whatever kind. What is written comes after what the file has.
pub(crate) fn open_descriptor(path: &Path) -> io::Result<Option<File>> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = read_link(&at) else { break };
        let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if filesystem(parent)? != PROC {
            at = parent.join(target);
            continue;
        }
        let is_own = resolve(parent)? == resolve(Path::new("/proc/self/fd"))?;
        // Opened anew, these would have another offset, and who writes to them later would write over it.
        return Ok(Some(match at.file_name().and_then(OsStr::to_str) {
            Some("1") if is_own => File::from(duplicate(io::stdout().as_fd())?),
            Some("2") if is_own => File::from(duplicate(io::stderr().as_fd())?),
            _ => File::open_to_append(path)?,
        }));
    }
    Ok(None)
}

/// The whole content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole content of a text file.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    // Most are of some lines, and come in one piece.
    let mut text = String::with_capacity(1 << 10);
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes a file whole, in place of what it had.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    File::create(path)?.write_all(bytes)
}

/// Where a symbolic link leads.
pub(crate) fn read_link(path: &Path) -> io::Result<PathBuf> {
    call(Call::ReadLink, || std::fs::read_link(path))
}

/// The absolute path without links that `path` leads to.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    call(Call::ReadLink, || std::fs::canonicalize(path))
}

/// The paths of everything in a directory.
pub(crate) fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    call(Call::List, || std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
}

/// Makes a directory. The mode is subject to the umask.
pub(crate) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    call(Call::MakeDirectory, || DirBuilder::new().mode(mode).create(path))
}

/// Makes a directory, and those above it that are missing. The mode is subject to the umask.
pub(crate) fn make_directories(path: &Path, mode: u32) -> io::Result<()> {
    call(Call::MakeDirectory, || DirBuilder::new().recursive(true).mode(mode).create(path))
}

/// Makes a directory, and those above it that are missing, for their owner alone: with mode 0700, whatever the umask.
pub(crate) fn make_private_directories(path: &Path) -> io::Result<()> {
    let missing = |path: &&Path| !path.as_os_str().is_empty() && !is_directory(path);
    let mut missing: Vec<&Path> = path.ancestors().take_while(missing).collect();
    while let Some(next) = missing.pop() {
        match make_directory(next, 0o700) {
            // Another process was faster; what else stands there is told by who opens it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                set_private(next)?;
            }
        }
    }
    Ok(())
}

/// Nothing is followed: where others may write, the name may be another one's by now.
fn set_private(path: &Path) -> io::Result<()> {
    let (mode, flag) = (nix::sys::stat::Mode::S_IRWXU, nix::sys::stat::FchmodatFlags::NoFollowSymlink);
    call(Call::SetMode, || nix::sys::stat::fchmodat(nix::fcntl::AT_FDCWD, path, mode, flag))
}

/// Removes a file.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    call(Call::Remove, || std::fs::remove_file(path))
}

/// Removes an empty directory.
pub(crate) fn remove_directory(path: &Path) -> io::Result<()> {
    call(Call::Remove, || std::fs::remove_dir(path))
}
