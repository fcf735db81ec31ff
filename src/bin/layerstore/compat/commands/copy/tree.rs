//! Copying a file or a tree from one root directory to another. Links lead nowhere out of either.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use layerstore::{IdExtent, IdMaps};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::super::super::golang::call_failed;

/// Whose the copies are.
pub struct Owners {
    /// The maps under which the source's owners are seen.
    pub from: IdMaps,
    /// Those under which the target's are.
    pub to: IdMaps,
    /// In place of the source's: a user and a group, as the target's processes see them.
    pub chown: Option<(u32, u32)>,
}

impl Owners {
    fn of(&self, stat: &Stat) -> (Uid, Gid) {
        let (user, group) = self
            .chown
            .unwrap_or((inside(&self.from.uids, stat.st_uid), inside(&self.from.gids, stat.st_gid)));
        (Uid::from_raw(outside(&self.to.uids, user)), Gid::from_raw(outside(&self.to.gids, group)))
    }
}

/// The number in a map of a number outside of it; what has none stays as it is.
fn inside(map: &[IdExtent], id: u32) -> u32 {
    let within = |run: &IdExtent| Some(id.checked_sub(run.outside)?).filter(|offset| *offset < run.count);
    map.iter().find_map(|run| Some(run.inside.saturating_add(within(run)?))).unwrap_or(id)
}

fn outside(map: &[IdExtent], id: u32) -> u32 {
    let within = |run: &IdExtent| Some(id.checked_sub(run.inside)?).filter(|offset| *offset < run.count);
    map.iter().find_map(|run| Some(run.outside.saturating_add(within(run)?))).unwrap_or(id)
}

/// Copies from below one directory to below another.
pub struct Copier<'a> {
    /// What is `/` for the source.
    pub from: &'a OwnedFd,
    /// What is `/` for the target.
    pub to: &'a OwnedFd,
    /// Whose the copies are.
    pub owners: Owners,
}

impl Copier<'_> {
    /// Copies a file to the file `to`, or the content of a directory into the directory `to`.
    ///
    /// Returns the text of the failed call.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<(), String> {
        let source = open_below(self.from, from).map_err(failed("open", from))?;
        let stat = rustix::fs::fstat(&source).map_err(failed("stat", from))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            let (parent, name) = (to.parent().unwrap_or(Path::new("/")), to.file_name());
            let name = name.ok_or_else(|| failed("open", to)(Errno::ISDIR))?;
            let parent = self.make_directories(parent)?;
            let (above, last) =
                (from.parent().unwrap_or(Path::new("/")), from.file_name().unwrap_or_default());
            let above = open_below(self.from, above).map_err(failed("open", from))?;
            return self.copy_other(above.as_fd(), last, parent.as_fd(), name).map_err(failed("copy", to));
        }
        let target = self.make_directories(to)?;
        let tree = Tree { copier: self, from: &source, to: &target };
        tree.copy().map_err(|(path, error)| failed("copy", &from.join(path))(error))
    }

    /// Copies what is no directory, in place of what is there.
    fn copy_other(
        &self,
        from: BorrowedFd<'_>,
        name: impl rustix::path::Arg + Copy,
        to: BorrowedFd<'_>,
        as_name: impl rustix::path::Arg + Copy,
    ) -> Result<(), Errno> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        remove(to, as_name)?;
        let mode = Mode::from_raw_mode(stat.st_mode);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = File::from(rustix::fs::openat(to, as_name, flags, Mode::from(0o600))?);
                io::copy(&mut &source, &mut &target).map_err(errno)?;
                copy_xattrs(&source, &target)?;
            }
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(link, to, as_name)?;
            }
            kind => rustix::fs::mknodat(to, as_name, kind, mode, stat.st_rdev)?,
        }
        let (user, group) = self.owners.of(&stat);
        rustix::fs::chownat(to, as_name, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // Changing the owner takes set-id bits away.
            rustix::fs::chmodat(to, as_name, mode, AtFlags::empty())?;
        }
        rustix::fs::utimensat(to, as_name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens a directory of the target, and makes it and those above it if they are missing.
    fn make_directories(&self, path: &Path) -> Result<OwnedFd, String> {
        let mut made = PathBuf::from("/");
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let parent = open_below(self.to, &made).map_err(failed("open", &made))?;
            made.push(name);
            match rustix::fs::mkdirat(&parent, name, Mode::from(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed("mkdir", &made)(error)),
            }
        }
        let directory = open_below(self.to, &made).map_err(failed("open", &made))?;
        let stat = rustix::fs::fstat(&directory).map_err(failed("stat", &made))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Ok(directory),
            _ => Err(failed("mkdir", &made)(Errno::NOTDIR)),
        }
    }
}

/// A directory whose content becomes that of another. Directories are held by their paths: there may be more of them than a
/// process may have open.
struct Tree<'a> {
    copier: &'a Copier<'a>,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
}

impl Tree<'_> {
    /// Copies all of it.
    ///
    /// Returns the path of what failed, and why.
    fn copy(&self) -> Result<(), (PathBuf, Errno)> {
        let mut links = HashMap::new();
        let mut open = vec![PathBuf::new()];
        let mut finished = Vec::new();
        while let Some(path) = open.pop() {
            let stat = self.copy_directory(&path, &mut links, &mut open)?;
            finished.push((path, stat));
        }
        // Writing into a directory changes its time, so it is set last, and those below first.
        for (path, stat) in finished.into_iter().rev() {
            let set = inside_of(self.to, &path).and_then(|to| rustix::fs::futimens(&to, &times(&stat)));
            set.map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Copies the entries of a directory, and its own owner, mode and attributes.
    fn copy_directory(
        &self,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
        open: &mut Vec<PathBuf>,
    ) -> Result<Stat, (PathBuf, Errno)> {
        let at = |error| (path.to_owned(), error);
        let from = inside_of(self.from, path).map_err(at)?;
        let to = inside_of(self.to, path).map_err(at)?;
        let stat = rustix::fs::fstat(&from).map_err(at)?;
        let (user, group) = self.copier.owners.of(&stat);
        rustix::fs::fchown(&to, Some(user), Some(group))
            .and_then(|()| rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode)))
            .and_then(|()| copy_xattrs(&from, &to))
            .map_err(at)?;
        for entry in Dir::read_from(&from).map_err(at)? {
            let entry = entry.map_err(at)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let entry_path = path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            match self.copy_entry(&from, &to, name, &entry_path, links) {
                Ok(true) => open.push(entry_path),
                Ok(false) => {}
                Err(error) => return Err((entry_path, error)),
            }
        }
        Ok(stat)
    }

    /// Copies an entry; of a directory, only that it is there. Returns whether it is one.
    fn copy_entry(
        &self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &CStr,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> Result<bool, Errno> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return match rustix::fs::mkdirat(to, name, Mode::from(0o700)) {
                Ok(()) | Err(Errno::EXIST) => Ok(true),
                Err(error) => Err(error),
            };
        }
        if stat.st_nlink > 1 {
            if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                remove(to.as_fd(), name)?;
                rustix::fs::linkat(self.to, first, to, name, AtFlags::empty())?;
                return Ok(false);
            }
            links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        self.copier.copy_other(from.as_fd(), name, to.as_fd(), name)?;
        Ok(false)
    }
}

/// Opens a directory of a tree for reading; links are not followed.
fn inside_of(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
}

/// Opens what a path leads to, with `root` for its `/`.
fn open_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Removes a name that is no directory, if it is there.
fn remove(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Copies extended attributes, as far as the target takes them.
fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> Result<(), Errno> {
    let mut names = vec![0u8; 64 << 10];
    let length = match rustix::fs::flistxattr(&from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error),
    };
    names.truncate(length);
    let mut value = vec![0u8; 64 << 10];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        let bytes = value.get(..length).unwrap_or_default();
        match rustix::fs::fsetxattr(&to, name, bytes, rustix::fs::XattrFlags::empty()) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[expect(clippy::unnecessary_cast, reason = "the width differs between processors")]
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> String {
    move |error| call_failed(call, path, &error.into())
}
