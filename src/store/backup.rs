//! A copy of the database, and making it smaller.

use std::path::{Path, PathBuf};

use crate::disk::DATABASE;
use crate::error::{Error, MetaError};
use crate::sys::path;

use super::Store;

/// What [`Store::backup`] does if its path is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackupMode {
    /// It fails.
    #[default]
    New,
    /// It replaces the file.
    Replace,
}

/// What [`Store::compact`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// The length of the database file before, in bytes.
    pub bytes_before: u64,
    /// Its length now.
    pub bytes_after: u64,
}

impl Store {
    /// Writes a copy of the database to the file `to`: every record, name and data item of one moment, and no layer's
    /// files. Returns the length of the copy in bytes.
    ///
    /// The copy has mode 0600, and its name when it is whole and on the disk. It takes the place of `store.redb` when
    /// no process has the store open; what the store got since is garbage then, for [`Store::gc`], and what it lost
    /// since is found by [`Store::check`]. If there are new layers whose directories nobody has synced, the store's filesystem is synced
    /// first.
    ///
    /// Returns [`Error::Meta`] with [`BackupInStore`](crate::MetaError::BackupInStore) if `to` leads to the store's own
    /// database or lies in its root or run root, whatever `mode` is; with [`BackupExists`](crate::MetaError::BackupExists)
    /// if a file stands there and `mode` is [`BackupMode::New`]; with [`BackupNotFile`](crate::MetaError::BackupNotFile)
    /// if something else does; and with [`UnknownTable`](crate::MetaError::UnknownTable) if a newer version has put more
    /// into the store than this one can copy.
    ///
    /// # Locking
    ///
    /// None: a copy of any size is made of one snapshot, and others read and write meanwhile. Until its end the database
    /// file grows by what they change. A process that dies leaves a file `.<name>.<hex digits>` beside `to`.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{BackupMode, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// store.backup(&dir.path().join("store.backup"), BackupMode::New)?;
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn backup(&self, to: &Path, mode: BackupMode) -> Result<u64, Error> {
        if self.is_own_place(to) {
            return Err(MetaError::BackupInStore { path: to.to_owned(), root: self.root().to_owned() }.into());
        }
        if !self.made_now()?.is_empty() {
            self.sync_filesystem()?;
        }
        Ok(self.database().backup(to, mode == BackupMode::Replace)?)
    }

    /// Refuses a path for output that leads to a file of this store, or of one that is read with it, or into one of their
    /// directories: by links too, and whether something stands there or not. What is mounted in these directories, as
    /// containers are, is no part of the store.
    ///
    /// [`backup`](Self::backup) and [`save`](Self::save) ask this themselves. Whoever writes something else of a store to a path that
    /// a user gives asks first.
    ///
    /// Returns [`Error::OwnPlace`] if it does.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{Error, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let refused = store.refuse_own_place(&store.root().join("store.redb"));
    /// assert!(matches!(refused, Err(Error::OwnPlace { .. })));
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn refuse_own_place(&self, to: &Path) -> Result<(), Error> {
        if !self.is_own_place(to) || self.is_on_another_filesystem(to) {
            return Ok(());
        }
        Err(Error::OwnPlace { path: to.to_owned(), root: self.root().to_owned() })
    }

    /// Whether `to` leads to the database, or lies below a directory of the store, by whatever path. What cannot be
    /// examined is none of them: the store would not have been opened.
    fn is_own_place(&self, to: &Path) -> bool {
        let id = |path: &Path| path::stat(path).ok().map(|found| found.id);
        let directories = self.options().directories();
        let directories =
            directories.iter().flat_map(|directory| [directory.clone(), directory.join(DATABASE)]);
        let own: Vec<_> = directories.chain([self.run_root()]).filter_map(|path| id(&path)).collect();
        let is_own = |path: &Path| id(path).is_some_and(|id| own.contains(&id));
        is_own(to) || nearest(to).is_some_and(|there| there.ancestors().any(is_own))
    }

    /// Whether something else is mounted where `to` leads.
    fn is_on_another_filesystem(&self, to: &Path) -> bool {
        let filesystem = |path: &Path| path::stat(path).ok().map(|found| found.id.filesystem);
        let directories = self.options().directories();
        let mut own = directories.iter().map(|directory| filesystem(directory));
        let there = nearest(to).and_then(|there| filesystem(&there));
        there.is_some() && own.all(|own| own != there)
    }

    /// Gives space in the database file that nothing needs back to the filesystem. The file never shrinks by itself to
    /// what it holds, as its space is used again by what comes.
    ///
    /// Returns [`Error::Meta`] with [`InUse`](crate::MetaError::InUse) if something in the store is being read, by this
    /// process or another, and with [`Locked`](crate::MetaError::Locked) if it is being written for longer than the lock
    /// timeout. Nothing is lost or changed in either case, nor by a crash at any moment.
    ///
    /// # Locking
    ///
    /// Holds the store write lock until the end, and whoever begins to read waits: seconds for each gigabyte.
    pub fn compact(&self) -> Result<CompactReport, Error> {
        self.begin_writing()?;
        let done = self.database().compact()?;
        Ok(CompactReport { bytes_before: done.before, bytes_after: done.after })
    }
}

/// What stands at a path, or else above it, by its path without links.
fn nearest(to: &Path) -> Option<PathBuf> {
    let to = std::path::absolute(to).ok()?;
    to.ancestors().find_map(|path| path::resolve(path).ok())
}
