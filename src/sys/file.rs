//! Open files: reading, writing, length.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::call::{Call, call, transfer};

/// An open file, closed when dropped.
#[derive(Debug)]
pub(crate) struct File(std::fs::File);

impl File {
    /// Opens what is at `path`, an ordinary path, for reading.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        call(Call::Open, || std::fs::File::open(path)).map(File)
    }

    /// Opens what is at `path` for reading and writing.
    pub(crate) fn open_to_write(path: &Path) -> io::Result<Self> {
        call(Call::Open, || OpenOptions::new().read(true).write(true).open(path)).map(File)
    }

    /// Opens what is at `path` for writing alone, such as a pipe.
    pub(crate) fn open_write_only(path: &Path) -> io::Result<Self> {
        call(Call::Open, || OpenOptions::new().write(true).open(path)).map(File)
    }

    /// The same; what is written comes after what is there.
    pub(crate) fn open_to_append(path: &Path) -> io::Result<Self> {
        call(Call::Open, || OpenOptions::new().append(true).open(path)).map(File)
    }

    /// Opens the regular file at `path` for reading and writing, and creates it with mode 0600, whatever the umask, if it is missing: it
    /// is there, as a rule. Anything else that stands there is an error, and is neither opened nor followed.
    pub(crate) fn ensure(path: &Path) -> io::Result<Self> {
        super::beneath::ensure_file(rustix::fs::CWD, path.as_os_str().as_bytes()).map(File::from)
    }

    /// Creates the file at `path`, or empties the one that is there, and opens it for writing.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        call(Call::Create, || std::fs::File::create(path)).map(File)
    }

    /// Its length in bytes.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(call(Call::Stat, || self.0.metadata())?.len())
    }

    /// Makes it longer, with a hole, or shorter.
    pub(crate) fn set_length(&self, length: u64) -> io::Result<()> {
        call(Call::SetLength, || self.0.set_len(length))
    }

    /// Writes it out to the disk with its metadata; for a directory: its names.
    pub(crate) fn sync(&self) -> io::Result<()> {
        call(Call::Sync, || self.0.sync_all())
    }

    /// A path that leads to this very file while it is open, for a dependency that wants one.
    pub(crate) fn own_path(&self) -> PathBuf {
        super::beneath::open_path(self.as_fd()).into()
    }

    /// Another handle of the same open file: they share their offset and their locks.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        duplicate(self.as_fd()).map(File::from)
    }

    /// The standard library's file, for a dependency that wants one.
    pub(crate) fn into_std(self) -> std::fs::File {
        self.0
    }
}

/// Another handle of the same open file.
pub(crate) fn duplicate(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    call(Call::Duplicate, || file.try_clone_to_owned())
}

impl From<OwnedFd> for File {
    fn from(file: OwnedFd) -> Self {
        File(file.into())
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.0.into()
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        transfer(Call::Read, buffer.len(), |length| (&self.0).read(start(buffer, length)))
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        transfer(Call::Write, bytes.len(), |length| (&self.0).write(bytes.get(..length).unwrap_or(bytes)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        call(Call::Seek, || (&self.0).seek(to))
    }
}

impl FileExt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        transfer(Call::Read, buffer.len(), |length| self.0.read_at(start(buffer, length), offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        transfer(Call::Write, bytes.len(), |length| {
            self.0.write_at(bytes.get(..length).unwrap_or(bytes), offset)
        })
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

fn start(buffer: &mut [u8], length: usize) -> &mut [u8] {
    buffer.get_mut(..length).unwrap_or_default()
}
