//! Copying a file or a tree from one root directory to another. Links lead nowhere out of either.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use layerstore::{IdExtent, IdMaps};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::super::super::golang::call_failed;
use super::beneath::{self, directory, errno, follow, path_of, pin, remove, remove_all};

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
    /// What is copied is what `from` leads to. Two paths mean something else than they say, as scripts rely on it: a link to
    /// a directory is put into the directory `to` itself, unless `from` ends in `/`; and if `to` does, a file gets its own
    /// name there.
    ///
    /// Returns the text of the failed call.
    pub fn copy(&self, from: &Path, to: &Path) -> Result<(), String> {
        let source = follow(self.from, from).map_err(failed("stat", from))?;
        let stat = rustix::fs::fstat(&source).map_err(failed("stat", from))?;
        if kind_of(&stat) != FileType::Directory {
            return self.copy_file(&source, from, to, &stat);
        }
        let target = self.make_directories(to, Mode::from(0o755))?;
        if let Some((above, name)) = self.link(from) {
            let copied = self.copy_other(above.as_fd(), &name, target.as_fd());
            return copied.map_err(failed("copy", from));
        }
        let itself = rustix::fs::fstat(&target).map_err(failed("stat", to))?;
        let tree = Tree { copier: self, from: &source, to: &target, itself: (itself.st_dev, itself.st_ino) };
        tree.copy().map_err(|(path, error)| failed("copy", &from.join(path))(error))
    }

    /// Copies to a path what is no directory.
    fn copy_file(&self, source: &OwnedFd, from: &Path, to: &Path, stat: &Stat) -> Result<(), String> {
        let to = match from.file_name() {
            Some(name) if ends_in_slash(to) => &to.join(name),
            _ => to,
        };
        let name = to.file_name().ok_or_else(|| failed("open", to)(Errno::ISDIR))?;
        let parent = self.make_directories(to.parent().unwrap_or(Path::new("/")), Mode::from(0o700))?;
        let content = match kind_of(stat) {
            FileType::RegularFile => {
                Content::File(beneath::read(source).map_err(failed("open", from))?.into())
            }
            FileType::Socket => return Err(failed("open", from)(Errno::NXIO)),
            _ => Content::Node,
        };
        let removed = remove(&parent, name);
        removed.and_then(|()| self.put(content, stat, parent.as_fd(), name)).map_err(failed("copy", to))
    }

    /// The link that a path is, if it is one: the directory that it is in, and its name.
    fn link(&self, path: &Path) -> Option<(OwnedFd, CString)> {
        let name = path.file_name().filter(|_| !ends_in_slash(path))?;
        let above = follow(self.from, path.parent()?).ok()?;
        let stat = rustix::fs::statat(&above, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let name = CString::new(name.as_bytes()).ok()?;
        (kind_of(&stat) == FileType::Symlink).then_some((above, name))
    }

    /// Copies an entry that is no directory into another directory, in place of what has the name there. Sockets are
    /// left out: nobody listens at a copy.
    fn copy_other(&self, from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>) -> Result<(), Errno> {
        let (source, stat) = pin(from, name)?;
        let content = match kind_of(&stat) {
            FileType::RegularFile => Content::File(beneath::read(&source)?.into()),
            FileType::Symlink => Content::Link(rustix::fs::readlinkat(&source, c"", Vec::new())?),
            FileType::Socket => return Ok(()),
            _ => Content::Node,
        };
        remove_all(to, name)?;
        self.put(content, &stat, to, name)
    }

    /// Makes what is no directory where nothing is, with owner, mode and times. These are set by handles: the name may be another's by
    /// then, where a container runs.
    fn put(
        &self,
        content: Content,
        stat: &Stat,
        to: BorrowedFd<'_>,
        name: impl rustix::path::Arg + Copy,
    ) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let (user, group) = self.owners.of(stat);
        let (user, group) = (Some(user), Some(group));
        match &content {
            Content::File(source) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let target = File::from(rustix::fs::openat(to, name, flags, Mode::from(0o600))?);
                io::copy(&mut &*source, &mut &target).map_err(errno)?;
                copy_xattrs(source, &target)?;
                rustix::fs::fchown(&target, user, group)?;
                // Changing the owner takes set-id bits away.
                rustix::fs::fchmod(&target, mode)?;
                return rustix::fs::futimens(&target, &times(stat));
            }
            Content::Link(text) => rustix::fs::symlinkat(text, to, name)?,
            Content::Node => rustix::fs::mknodat(to, name, kind_of(stat), mode, stat.st_rdev)?,
        }
        let (made, found) = pin(to, name)?;
        if kind_of(&found) != kind_of(stat) || found.st_nlink != 1 {
            return Err(Errno::STALE);
        }
        rustix::fs::chownat(&made, c"", user, group, AtFlags::EMPTY_PATH)?;
        if let Content::Link(_) = content {
            return rustix::fs::utimensat(to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW);
        }
        rustix::fs::chmodat(CWD, path_of(made.as_fd()), mode, AtFlags::empty())?;
        rustix::fs::utimensat(CWD, path_of(made.as_fd()), &times(stat), AtFlags::empty())
    }

    /// Opens a directory of the target, and makes it and those above it if they are missing. Those are the root user's.
    fn make_directories(&self, path: &Path, mode: Mode) -> Result<OwnedFd, String> {
        let mut made = PathBuf::from("/");
        let mut directory = follow(self.to, &made).map_err(failed("open", &made))?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            made.push(name);
            let is_new = match rustix::fs::mkdirat(&directory, name, mode) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(failed("mkdir", &made)(error)),
            };
            // A link that leads nowhere is in the way too.
            directory = follow(self.to, &made)
                .map_err(|error| failed("mkdir", &made)(if is_new { error } else { Errno::EXIST }))?;
            let stat = rustix::fs::fstat(&directory).map_err(failed("stat", &made))?;
            if kind_of(&stat) != FileType::Directory {
                return Err(failed("mkdir", &made)(Errno::NOTDIR));
            }
            if is_new && self.owners.to != IdMaps::default() {
                let (user, group) = (outside(&self.owners.to.uids, 0), outside(&self.owners.to.gids, 0));
                let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
                rustix::fs::chownat(&directory, "", user, group, AtFlags::EMPTY_PATH)
                    .map_err(failed("chown", &made))?;
            }
        }
        Ok(directory)
    }
}

/// What a file that is no directory is made of.
enum Content {
    File(File),
    Link(CString),
    /// A device or a fifo.
    Node,
}

/// A directory whose content becomes that of another. Directories are held by their paths: there may be more of them than a
/// process may have open.
struct Tree<'a> {
    copier: &'a Copier<'a>,
    from: &'a OwnedFd,
    to: &'a OwnedFd,
    /// What the target is, which is not copied into itself.
    itself: (u64, u64),
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
        for (path, stat) in finished.into_iter().rev().filter(|(path, _)| !is_root(path)) {
            let set = directory(self.to, &path).and_then(|to| rustix::fs::futimens(&to, &times(&stat)));
            set.map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Copies the entries of a directory, and its own owner, mode and attributes: but of the topmost only the entries, as
    /// its place is the caller's.
    fn copy_directory(
        &self,
        path: &Path,
        links: &mut HashMap<(u64, u64), PathBuf>,
        open: &mut Vec<PathBuf>,
    ) -> Result<Stat, (PathBuf, Errno)> {
        let at = |error| (path.to_owned(), error);
        let from = directory(self.from, path).map_err(at)?;
        let to = directory(self.to, path).map_err(at)?;
        let stat = rustix::fs::fstat(&from).map_err(at)?;
        if !is_root(path) {
            let (user, group) = self.copier.owners.of(&stat);
            rustix::fs::fchown(&to, Some(user), Some(group))
                .and_then(|()| rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode)))
                .and_then(|()| copy_xattrs(&from, &to))
                .map_err(at)?;
        }
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
        if kind_of(&stat) == FileType::Directory {
            if (stat.st_dev, stat.st_ino) == self.itself {
                return Ok(false);
            }
            make_directory(to.as_fd(), name)?;
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            if let Some(first) = links.get(&(stat.st_dev, stat.st_ino)) {
                remove_all(to, name)?;
                let above = directory(self.to, first.parent().unwrap_or(Path::new("")))?;
                let first = first.file_name().ok_or(Errno::INVAL)?;
                rustix::fs::linkat(&above, first, to, name, AtFlags::empty())?;
                return Ok(false);
            }
            links.insert((stat.st_dev, stat.st_ino), path.to_owned());
        }
        self.copier.copy_other(from.as_fd(), name, to.as_fd())?;
        Ok(false)
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Whether a path within a tree is the tree itself.
fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

/// Makes a directory, in place of what has its name and is none.
fn make_directory(above: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let make = || rustix::fs::mkdirat(above, name, Mode::from(0o700));
    match make() {
        Err(Errno::EXIST) => match remove(above, name) {
            Err(Errno::ISDIR) => Ok(()),
            removed => removed.and_then(|()| make()),
        },
        made => made,
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

#[expect(
    clippy::unnecessary_cast,
    clippy::cast_possible_wrap,
    reason = "the width differs between processors, and times before 1970 are negative in any"
)]
fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime as i64, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime as i64, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn failed(call: &'static str, path: &Path) -> impl Fn(Errno) -> String {
    move |error| call_failed(call, path, &error.into())
}
