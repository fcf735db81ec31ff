//! Calls that take an ordinary path, which may hold symbolic links: for what the user named, and for `/proc`.

use std::fs::DirBuilder;
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType};

use super::call::{Call, call};
use super::file::File;
use super::stat::{self, Stat};

/// The state of what `path` leads to.
pub(crate) fn stat(path: &Path) -> io::Result<Stat> {
    stat::stat_path(path, AtFlags::empty())
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
    match stat::stat_path(path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The magic number of the filesystem that `path` lies on.
pub(crate) fn filesystem(path: &Path) -> io::Result<u32> {
    let found = call(Call::FreeSpace, || rustix::fs::statfs(path))?;
    // The field's type differs between machines.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a magic number has 32 bits")]
    Ok(found.f_type as u32)
}

/// The whole content of a file.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The whole content of a text file.
pub(crate) fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
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
