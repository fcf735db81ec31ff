//! Files of an image layout, reached beneath a directory handle.
//!
//! A layout may come from a stranger, as an archive does. Names are walked part by part, and no link in it is
//! followed: not a blob that leads to `/etc/shadow`, nor a pipe that never ends.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::blob::Extent;
use crate::error::OciError;

/// An open directory, and its path for messages.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);

/// Makes an [`OciError::Io`] of what a system call or the standard library reports.
pub(super) fn io_error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> OciError {
    let path = path.to_owned();
    move |source| OciError::Io { action, path, source: source.into() }
}

/// The same for what a reader above a blob reports: the blob's own error, if that is inside.
pub(super) fn blob_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OciError {
    let path = path.to_owned();
    move |source| OciError::from_io(&source).unwrap_or(OciError::Io { action, path, source })
}

impl Dir {
    /// Opens a directory by its path, which may lead through links: the user gave it.
    pub(super) fn open(path: &Path) -> Result<Self, OciError> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY | OFlags::RDONLY, Mode::empty())
            .map_err(io_error("open the directory", path))?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Opens a directory, which is created first if it is not there.
    pub(super) fn ensure(path: &Path) -> Result<Self, OciError> {
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => Dir::open(path),
            Err(error) => Err(io_error("create the directory", path)(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory `name` in this one, created if it is not there.
    pub(super) fn ensure_child(&self, name: &str) -> Result<Dir, OciError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io_error("create the directory", &path)(error)),
        }
        match rustix::fs::openat(&self.fd, name, DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY, Mode::empty())
        {
            Ok(fd) => Ok(Dir { fd, path }),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(OciError::FileKind { path, expected: "a directory" }),
            Err(error) => Err(io_error("open the directory", &path)(error)),
        }
    }

    /// Opens the regular file `name`, parts separated by slashes; `None` if it is not there.
    pub(super) fn file(&self, name: &str) -> Result<Option<Extent>, OciError> {
        let path = self.path.join(name);
        let mut parent: Option<OwnedFd> = None;
        let mut parts = name.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            // A pipe without a writer would hold up an open that waits.
            let kind =
                if last { OFlags::RDONLY | OFlags::NONBLOCK } else { OFlags::PATH | OFlags::DIRECTORY };
            let at = parent.as_ref().map_or(self.fd.as_fd(), OwnedFd::as_fd);
            let flags = kind | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(at, part, flags, Mode::empty()) {
                Ok(fd) if last => return regular_file(fd, path).map(Some),
                Ok(fd) => parent = Some(fd),
                Err(Errno::NOENT) => return Ok(None),
                Err(Errno::NOTDIR) => return Err(OciError::FileKind { path, expected: "below directories" }),
                Err(Errno::LOOP | Errno::NXIO) => {
                    return Err(OciError::FileKind { path, expected: "a regular file" });
                }
                Err(error) => return Err(io_error("open", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Whether there is nothing in the directory.
    pub(super) fn is_empty(&self) -> Result<bool, OciError> {
        let entries =
            rustix::fs::Dir::read_from(&self.fd).map_err(io_error("read the directory", &self.path))?;
        for entry in entries {
            let entry = entry.map_err(io_error("read the directory", &self.path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Creates a file under a name that no other process uses, to be renamed when it is complete.
    pub(super) fn create_temporary(self: &Arc<Self>) -> Result<TemporaryFile, OciError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".layerstore-{}-{number}.tmp", std::process::id());
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(&self.fd, name.as_str(), flags, Mode::from_raw_mode(0o644)) {
                Ok(fd) => {
                    return Ok(TemporaryFile { file: fd.into(), dir: Arc::clone(self), name, kept: false });
                }
                // The leftover of a killed process with the same number.
                Err(Errno::EXIST) => {}
                Err(error) => return Err(io_error("create", &self.path.join(name))(error)),
            }
        }
    }

    /// Writes a small file so that a reader finds the old or the new content, never a part.
    pub(super) fn replace_file(self: &Arc<Self>, name: &str, bytes: &[u8]) -> Result<(), OciError> {
        let mut temporary = self.create_temporary()?;
        let path = self.path.join(name);
        temporary.file.write_all(bytes).map_err(io_error("write", &path))?;
        temporary.file.sync_all().map_err(io_error("sync", &path))?;
        temporary.rename(self, name)
    }

    /// Makes everything written below the directory durable, with one call for all files.
    pub(super) fn sync_filesystem(&self) -> Result<(), OciError> {
        rustix::fs::syncfs(&self.fd).map_err(io_error("sync the filesystem of", &self.path))
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> Result<(), OciError> {
        rustix::fs::fsync(&self.fd).map_err(io_error("sync the directory", &self.path))
    }

    /// Waits until no other process has the directory locked. The lock ends with the handle returned.
    pub(super) fn lock(&self) -> Result<OwnedFd, OciError> {
        let lock = || -> Result<OwnedFd, Errno> {
            let fd = rustix::fs::openat(&self.fd, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?;
            while let Err(error) = rustix::fs::flock(&fd, rustix::fs::FlockOperation::LockExclusive) {
                if error != Errno::INTR {
                    return Err(error);
                }
            }
            Ok(fd)
        };
        lock().map_err(io_error("lock the directory", &self.path))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn regular_file(fd: OwnedFd, path: PathBuf) -> Result<Extent, OciError> {
    let stat = rustix::fs::fstat(&fd).map_err(io_error("stat", &path))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(OciError::FileKind { path, expected: "a regular file" });
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Extent::new(Arc::new(File::from(fd)), 0, length))
}

/// A file that has no final name yet, and is removed if it never gets one.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    pub(super) file: File,
    dir: Arc<Dir>,
    name: String,
    kept: bool,
}

impl TemporaryFile {
    /// Gives the file its name in `to`, in place of another file of this name.
    pub(super) fn rename(mut self, to: &Dir, name: impl AsRef<Path>) -> Result<(), OciError> {
        let name = name.as_ref();
        rustix::fs::renameat(&self.dir.fd, self.name.as_str(), &to.fd, name)
            .map_err(io_error("rename a file to", &to.path.join(name)))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = rustix::fs::unlinkat(&self.dir.fd, self.name.as_str(), AtFlags::empty())
        {
            tracing::warn!(path = %self.dir.path.join(&self.name).display(), %error, "cannot remove a temporary file");
        }
    }
}

/// A file in `dir` without a name; it is gone when it is closed, however that comes.
pub(super) fn anonymous_file(dir: &Path) -> Result<File, OciError> {
    let mode = Mode::from_raw_mode(0o600);
    match rustix::fs::openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Ok(fd) => Ok(fd.into()),
        // Not every filesystem has nameless files: there, the name is taken back at once.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let temporary = Arc::new(Dir::open(dir)?).create_temporary()?;
            temporary.file.try_clone().map_err(io_error("open", dir))
        }
        Err(error) => Err(io_error("create a temporary file in", dir)(error)),
    }
}
