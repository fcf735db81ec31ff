//! The database as a file: a copy of one moment, and making it smaller.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use layerstore_schema::table::{TableVisitor, visit_all};
use redb::{CompactionError, Key, StorageError, TableDefinition, TableHandle, Value};
use rustix::fs::FileType;

use super::create::{Draft, Place};
use super::{Database, DatabaseOptions, ReadTxn, Tables, WriteTxn, made_empty};
use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::path;
use crate::sys::stat::describe;

/// How many bytes the file had before and after a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    pub(crate) before: u64,
    pub(crate) after: u64,
}

impl Database {
    /// Writes a copy of this moment to `to`, which is there when it is whole and on the disk. Returns its length.
    ///
    /// Others read and write meanwhile; the space of what they replace is not used again before the end.
    ///
    /// Returns [`MetaError::BackupExists`] if a file stands there and `replace` does not allow it,
    /// [`MetaError::BackupNotFile`] if something else does, and [`MetaError::UnknownTable`] if there is more to copy than
    /// this build can read.
    pub(crate) fn backup(&self, to: &Path, replace: bool) -> Result<u64, MetaError> {
        let failed = |source: io::Error| backup_error(to, source.into());
        match path::stat(to).map(|found| found.kind) {
            Ok(kind) if kind != FileType::RegularFile => {
                return Err(MetaError::BackupNotFile { path: to.to_owned(), what: describe(kind) });
            }
            _ => {}
        }
        let place = Place::of(to).map_err(failed)?;
        if !replace && place.is_taken().map_err(failed)? {
            return Err(MetaError::BackupExists { path: to.to_owned() });
        }
        let snapshot = self.begin_read()?;
        let draft = Draft::new(place).map_err(failed)?;
        // Of its own: an error is of the copy, and not of the store.
        let copy = Database::new(
            to.to_owned(),
            DatabaseOptions { sync: false, read_only: false, ..self.options().clone() },
        );
        copy.copy_from(&snapshot, draft.file()).map_err(|error| match error {
            MetaError::Open { source, .. } => backup_error(to, *source),
            error => error,
        })?;
        drop(snapshot);
        let length = draft.file().length().map_err(failed)?;
        if !draft.publish(replace).map_err(failed)? {
            return Err(MetaError::BackupExists { path: to.to_owned() });
        }
        Ok(length)
    }

    /// Fills an empty file with every table of a snapshot, as small as it can be.
    fn copy_from(&self, snapshot: &ReadTxn, file: &File) -> Result<(), MetaError> {
        let failed = |source: redb::Error| backup_error(self.path(), source);
        let mut database = self.open_private(file)?;
        let begin = |database: &redb::Database| database.begin_write().map_err(|error| failed(error.into()));
        let target = WriteTxn::new(database.run(begin)?, database.health().clone());
        snapshot.copy_to(&target)?;
        // They are on the disk; and what is missing when the copy is put back is not to be made again as if it were new.
        made_empty(&target)?.into_keys().try_for_each(|number| target.forget_made_empty(number))?;
        target.0.finish(|txn| txn.commit().map_err(|error| failed(error.into())))?;
        database.run_mut(|database| database.compact().map_err(|error| failed(error.into())))?;
        Ok(())
    }

    /// Gives space that nothing needs back to the filesystem.
    ///
    /// Holds the write lock, and keeps others from beginning to read, until it is done. A crash on the way loses
    /// nothing.
    ///
    /// Returns [`MetaError::InUse`] if somebody, in whatever process, is reading, and [`MetaError::Locked`] if
    /// somebody writes for longer than the lock timeout.
    pub(crate) fn compact(&self) -> Result<Compacted, MetaError> {
        let length = || path::stat(self.path()).map(|stat| stat.size).map_err(|source| self.io_error(source));
        let before = length()?;
        let mut writer = self.open_writer()?;
        // The format may be newer than this build: nothing in it is changed, but the tables are.
        let txn = self.begin_write(&writer)?;
        self.check_writable(&txn)?;
        txn.0.finish(redb::WriteTransaction::abort)?;
        let compacted = |error| match error {
            CompactionError::TransactionInProgress => MetaError::InUse { path: self.path().to_owned() },
            error => self.writer_error(error.into()),
        };
        writer.database.run_mut(|database| database.compact().map_err(compacted))?;
        drop(writer);
        Ok(Compacted { before, after: length()? })
    }
}

fn backup_error(path: &Path, source: redb::Error) -> MetaError {
    MetaError::Backup { path: path.to_owned(), source: Box::new(source) }
}

impl ReadTxn {
    /// Copies every row of every table.
    ///
    /// Returns [`MetaError::UnknownTable`] if there is a table that this build does not know.
    fn copy_to(&self, target: &WriteTxn) -> Result<(), MetaError> {
        let list = |txn: &redb::ReadTransaction| {
            let mut names: BTreeSet<String> =
                txn.list_tables()?.map(|handle| handle.name().to_owned()).collect();
            let multimaps = txn.list_multimap_tables()?;
            names.extend(multimaps.map(|handle| redb::MultimapTableHandle::name(&handle).to_owned()));
            Ok::<_, StorageError>(names)
        };
        let left = self.0.run(list)?;
        let mut copy = Copy { from: self, to: target, left };
        visit_all(&mut copy)?;
        copy.left.pop_first().map_or(Ok(()), |name| Err(MetaError::UnknownTable { name }))
    }
}

struct Copy<'t> {
    from: &'t ReadTxn,
    to: &'t WriteTxn,
    /// The tables that were not copied yet.
    left: BTreeSet<String>,
}

impl TableVisitor for Copy<'_> {
    type Error = MetaError;

    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), MetaError> {
        if !self.left.remove(table.name()) {
            return Ok(());
        }
        let mut to = self.to.open(table)?;
        for row in self.from.open(table)?.iter()? {
            let (key, value) = row?;
            to.insert(key.value(), value.value())?;
        }
        Ok(())
    }
}
