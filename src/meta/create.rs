//! Making a database file: it has its name when it is whole, and never before.
//!
//! The file is written without a name, so what a process that dies leaves of it goes with the process, and is
//! brought to the disk before it is named. Of two processes that make it at a time the first one's file stays,
//! and the other's goes away unseen.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::backend::Backend;
use super::{Database, WriteTxn};
use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::{beneath, node, sync};

impl Database {
    /// Makes the file with what `body` writes into it; `false` if there is a file of this name already.
    pub(crate) fn create<E: From<MetaError>>(
        &self,
        body: impl FnOnce(&WriteTxn) -> Result<(), E>,
    ) -> Result<bool, E> {
        let failed = |source| self.io_error(source);
        let place = Place::of(self.path()).map_err(failed)?;
        let file = place.unnamed_file().map_err(failed)?;
        let database = self.open_private(&file)?;
        let txn = WriteTxn(database.begin_write().map_err(MetaError::from)?);
        body(&txn)?;
        txn.0.commit().map_err(MetaError::from)?;
        drop(database);
        let syncs = self.options().sync;
        if syncs {
            self.sync(&file)?;
        }
        if !place.name(&file).map_err(failed)? {
            return Ok(false);
        }
        if syncs {
            // Some filesystems bring a new name to the disk with the file, others with its directory.
            sync::file(file.as_fd()).and_then(|()| place.sync()).map_err(failed)?;
        }
        Ok(true)
    }

    /// Opens a file that no other process knows; an empty one becomes a database. Nothing is synced.
    pub(super) fn open_private(&self, file: &File) -> Result<redb::Database, MetaError> {
        let open = || -> Result<_, redb::Error> {
            let inner = self.file_backend(file.try_clone()?)?;
            let backend = Backend::private(inner, file.try_clone()?, self.options());
            Ok(self.builder().create_with_backend(backend)?)
        };
        open().map_err(|error| self.writer_error(error))
    }

    /// Brings what was written to the disk.
    pub(super) fn sync(&self, file: &File) -> Result<(), MetaError> {
        let sync = || -> Result<_, redb::Error> { Ok(self.file_backend(file.try_clone()?)?.sync_data()?) };
        sync().map_err(|error| self.writer_error(error))
    }
}

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Place<'a> {
    dir: OwnedFd,
    name: &'a OsStr,
}

impl<'a> Place<'a> {
    /// Opens the directory that `path` lies in.
    pub(super) fn of(path: &'a Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok(Place { dir: beneath::open_directory(parent.unwrap_or(Path::new(".")))?, name })
    }

    fn unnamed_file(&self) -> io::Result<File> {
        beneath::unnamed_file(self.dir.as_fd()).map(File::from)
    }

    /// Gives the file its name; `false` if something has the name.
    fn name(&self, file: &File) -> io::Result<bool> {
        match node::name_file(file.as_fd(), self.dir.as_fd(), self.name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            named => named.map(|()| true),
        }
    }

    /// Brings the names of the directory to the disk.
    fn sync(&self) -> io::Result<()> {
        sync::file(self.dir.as_fd())
    }
}
