//! Files of an image layout, reached beneath a directory handle.
//!
//! A layout may come from a stranger, as an archive does. Names are walked part by part, and no link in it is
//! followed: not a blob that leads to `/etc/shadow`, nor a pipe that never ends.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use rustix::fs::FileType;
use rustix::io::Errno;

use super::blob::Extent;
use crate::disk::remove_tree;
use crate::error::{OciError, TreeError};
use crate::sys::file::File;
use crate::sys::lock::{self, Locked};
use crate::sys::{beneath, directory, node, path, stat, sync};

/// An open directory, and its path for messages.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

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
        let fd = beneath::open_directory(path).map_err(io_error("open the directory", path))?;
        Ok(Dir { fd, path: path.to_owned() })
    }

    /// Opens a directory, which is created first if it is not there; returns whether it was.
    pub(super) fn ensure(path: &Path) -> Result<(Self, bool), OciError> {
        let is_new = match path::make_directory(path, 0o755) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            made => made.map(|()| true).map_err(io_error("create the directory", path))?,
        };
        Ok((Dir::open(path)?, is_new))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory `name` in this one, created if it is not there.
    pub(super) fn ensure_child(&self, name: &str) -> Result<Dir, OciError> {
        let path = self.path.join(name);
        let made = node::make_directory(self.fd.as_fd(), name.as_bytes(), 0o755);
        or_exists(made).map_err(io_error("create the directory", &path))?;
        let opened =
            beneath::open_name(self.fd.as_fd(), name.as_bytes(), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        match opened.map_err(|error| (errno(&error), error)) {
            Ok(fd) => Ok(Dir { fd, path }),
            Err((Some(Errno::NOTDIR | Errno::LOOP), _)) => {
                Err(OciError::FileKind { path, expected: "a directory" })
            }
            Err((_, error)) => Err(io_error("open the directory", &path)(error)),
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
            let flags =
                if last { OFlag::O_RDONLY | OFlag::O_NONBLOCK } else { OFlag::O_PATH | OFlag::O_DIRECTORY };
            let at = parent.as_ref().map_or(self.fd.as_fd(), OwnedFd::as_fd);
            let opened = beneath::open_name(at, part.as_bytes(), flags);
            match opened.map_err(|error| (errno(&error), error)) {
                Ok(fd) if last => return regular_file(fd, path).map(Some),
                Ok(fd) => parent = Some(fd),
                Err((Some(Errno::NOENT), _)) => return Ok(None),
                Err((Some(Errno::NOTDIR), _)) => {
                    return Err(OciError::FileKind { path, expected: "below directories" });
                }
                Err((Some(Errno::LOOP | Errno::NXIO), _)) => {
                    return Err(OciError::FileKind { path, expected: "a regular file" });
                }
                Err((_, error)) => return Err(io_error("open", &path)(error)),
            }
        }
        Ok(None)
    }

    /// Whether there is nothing in the directory.
    pub(super) fn is_empty(&self) -> Result<bool, OciError> {
        let entries = directory::list(self.fd.as_fd()).map_err(io_error("read the directory", &self.path))?;
        Ok(entries.is_empty())
    }

    /// Creates a file under a name that no other process uses, to be renamed when it is complete.
    pub(super) fn create_temporary(self: &Arc<Self>) -> Result<TemporaryFile, OciError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!(".layerstore-{}-{number}.tmp", std::process::id());
            match beneath::create_file(self.fd.as_fd(), name.as_bytes(), 0o644) {
                Ok(fd) => {
                    return Ok(TemporaryFile { file: fd.into(), dir: Arc::clone(self), name, kept: false });
                }
                // The leftover of a killed process with the same number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(io_error("create", &self.path.join(name))(error)),
            }
        }
    }

    /// Writes a small file so that a reader finds the old or the new content, never a part.
    pub(super) fn replace_file(self: &Arc<Self>, name: &str, bytes: &[u8]) -> Result<(), OciError> {
        let mut temporary = self.create_temporary()?;
        let path = self.path.join(name);
        temporary.file.write_all(bytes).map_err(io_error("write", &path))?;
        temporary.file.sync().map_err(io_error("sync", &path))?;
        temporary.rename(self, name)
    }

    /// Makes everything written below the directory durable, with one call for all files.
    pub(super) fn sync_filesystem(&self) -> Result<(), OciError> {
        sync::filesystem(self.fd.as_fd()).map_err(io_error("sync the filesystem of", &self.path))
    }

    /// Makes the names in the directory durable.
    pub(super) fn sync(&self) -> Result<(), OciError> {
        sync::file(self.fd.as_fd()).map_err(io_error("sync the directory", &self.path))
    }

    /// Waits until no other process has the directory locked. The lock ends with the handle returned.
    pub(super) fn lock(&self) -> Result<Locked, OciError> {
        beneath::open_directory_beneath(self.fd.as_fd(), b"")
            .and_then(lock::flock_exclusive)
            .map_err(io_error("lock the directory", &self.path))
    }

    /// Shares a lock on the directory with all who ask for it in this way. It ends with the handle returned.
    pub(super) fn lock_shared(&self) -> Result<Locked, OciError> {
        beneath::open_directory_beneath(self.fd.as_fd(), b"")
            .and_then(lock::flock_shared)
            .map_err(io_error("lock the directory", &self.path))
    }

    /// Whether nobody but the holder of this shared lock has it; then it is exclusive from now on.
    pub(super) fn child_lock_is_ours(&self, shared: &Locked) -> Result<bool, OciError> {
        lock::try_flock_alone(shared.as_fd()).map_err(io_error("lock the directory", &self.path))
    }

    /// Removes the directory `name` with all that is in it, if it is there.
    pub(super) fn remove_child_tree(&self, name: &str) -> Result<(), OciError> {
        remove_tree(self.fd.as_fd(), name.as_bytes())
            .map_err(TreeError::into_io)
            .map_err(io_error("remove", &self.path.join(name)))
    }

    /// Removes the file `name`, if it is there.
    pub(super) fn remove_file(&self, name: &str) -> Result<(), OciError> {
        ignore_missing(node::remove_file(self.fd.as_fd(), name.as_bytes()))
            .map_err(io_error("remove", &self.path.join(name)))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn regular_file(fd: OwnedFd, path: PathBuf) -> Result<Extent, OciError> {
    let found = stat::stat(fd.as_fd()).map_err(io_error("stat", &path))?;
    if found.kind != FileType::RegularFile {
        return Err(OciError::FileKind { path, expected: "a regular file" });
    }
    Ok(Extent::new(Arc::new(File::from(fd)), 0, found.size))
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
        let bytes = name.as_os_str().as_encoded_bytes();
        node::rename(self.dir.fd.as_fd(), self.name.as_bytes(), to.fd.as_fd(), bytes)
            .map_err(io_error("rename a file to", &to.path.join(name)))?;
        self.kept = true;
        Ok(())
    }

    /// Gives the file its name in `to`; `false` if something has that name.
    pub(super) fn rename_new(mut self, to: &Dir, name: impl AsRef<Path>) -> Result<bool, OciError> {
        let name = name.as_ref();
        let bytes = name.as_os_str().as_encoded_bytes();
        let path = to.path.join(name);
        match node::rename_noreplace(self.dir.fd.as_fd(), self.name.as_bytes(), to.fd.as_fd(), bytes) {
            Ok(()) => self.kept = true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            // Filesystems such as NFS have no such call.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                if path::exists(&path).map_err(io_error("examine", &path))? {
                    return Ok(false);
                }
                self.rename(to, name)?;
            }
            Err(error) => return Err(io_error("rename a file to", &path)(error)),
        }
        Ok(true)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = node::remove_file(self.dir.fd.as_fd(), self.name.as_bytes())
        {
            tracing::warn!(path = %self.dir.path.join(&self.name).display(), %error, "cannot remove a temporary file");
        }
    }
}

/// A file in `dir` without a name; it is gone when it is closed, however that comes.
pub(super) fn anonymous_file(dir: &Path) -> Result<File, OciError> {
    let handle = Arc::new(Dir::open(dir)?);
    match beneath::unnamed_file(handle.as_fd()).map_err(|error| (errno(&error), error)) {
        Ok(fd) => Ok(fd.into()),
        // Not every filesystem has nameless files: there, the name is taken back at once.
        Err((Some(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL), _)) => {
            let temporary = handle.create_temporary()?;
            temporary.file.try_clone().map_err(io_error("open", dir))
        }
        Err((_, error)) => Err(io_error("create a temporary file in", dir)(error)),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

/// What is gone already need not be removed.
fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What is there already need not be made.
fn or_exists(made: io::Result<()>) -> io::Result<()> {
    made.or_else(|error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })
}
