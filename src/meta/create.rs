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
use super::guard::Guarded;
use super::{Database, WriteTxn};
use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::stat::stat_at;
use crate::sys::{beneath, node, random, sync};

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
        let txn = WriteTxn::new(database.run(redb::Database::begin_write)?, database.health().clone());
        body(&txn)?;
        txn.commit()?;
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
    pub(super) fn open_private(&self, file: &File) -> Result<Guarded<redb::Database>, MetaError> {
        let prepare = || -> Result<_, redb::Error> {
            let inner = self.file_backend(file.try_clone()?)?;
            Ok(Backend::private(inner, file.try_clone()?, self.options()))
        };
        let backend = prepare().map_err(|error| self.writer_error(error))?;
        self.open_with(&self.builder(), backend)
    }

    /// Brings what was written to the disk.
    pub(super) fn sync(&self, file: &File) -> Result<(), MetaError> {
        let sync = || -> Result<_, redb::Error> { Ok(self.file_backend(file.try_clone()?)?.sync_data()?) };
        sync().map_err(|error| self.writer_error(error))
    }
}

/// A file under a passing name, which goes when it is dropped before it has its own.
///
/// For directories of the user's: not every filesystem has files without names.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    place: Place<'a>,
    file: File,
    name: Vec<u8>,
    published: bool,
}

impl<'a> Draft<'a> {
    /// Makes an empty file, for its owner alone.
    pub(super) fn new(place: Place<'a>) -> io::Result<Self> {
        let chance = u64::from_le_bytes(random::bytes()?);
        let mut name = b".".to_vec();
        name.extend_from_slice(place.name.as_bytes());
        name.extend_from_slice(format!(".{chance:016x}").as_bytes());
        let file = File::from(beneath::create_private_file(place.dir.as_fd(), &name)?);
        Ok(Draft { place, file, name, published: false })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Brings it to the disk under its name; `false` if something stands there that may not be replaced.
    pub(super) fn publish(mut self, replace: bool) -> io::Result<bool> {
        sync::file(self.file.as_fd())?;
        let (dir, name) = (self.place.dir.as_fd(), self.place.name.as_bytes());
        let renamed = match replace {
            true => node::rename(dir, &self.name, dir, name),
            false => match node::rename_noreplace(dir, &self.name, dir, name) {
                // Filesystems such as NFS have no such call.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => match self.place.is_taken()? {
                    true => return Ok(false),
                    false => node::rename(dir, &self.name, dir, name),
                },
                renamed => renamed,
            },
        };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            renamed => renamed?,
        }
        self.published = true;
        self.place.sync()?;
        Ok(true)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = node::remove_file(self.place.dir.as_fd(), &self.name)
        {
            tracing::warn!(name = %self.name.escape_ascii(), %error, "cannot remove an unfinished file");
        }
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

    /// Whether something has the name.
    pub(super) fn is_taken(&self) -> io::Result<bool> {
        match stat_at(self.dir.as_fd(), self.name.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map(|_| true),
        }
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
