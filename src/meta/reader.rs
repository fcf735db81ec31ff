//! How a database file is read: by a handle that is kept, takes no lock that a writer waits for, and follows the commits of every process.
//!
//! What cannot be read like that is read privately, as it was left: a file that this process may not look after, and one of which only what
//! redb keeps for itself is damaged.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageBackend, StorageError};

use super::backend::{Backend, Phase, PhaseSwitch, SHORT_LOCK_TIMEOUT};
use super::database::Database;
use super::file;
use super::guard::{Guarded, Health};
use super::page::{self, Flaw};
use super::private::{PrivateBackend, read_header_bytes};
use super::{ChangeCounter, ReadTxn, read_header};
use crate::error::MetaError;
use crate::sys::call::{Call, point};
use crate::sys::file::File;
use crate::sys::moment;

/// How often a file that may not be written is opened, beside others who write it.
const PRIVATE_TRIES: u32 = 100;

impl Database {
    /// Begins a snapshot of the newest commit. Waits for nobody but a compaction.
    ///
    /// Returns [`MetaError::Replaced`] if the path does not lead to the file of the first use any more.
    pub(crate) fn begin_read(&self) -> Result<ReadTxn, MetaError> {
        // Who opens the file looks at it himself.
        if self.is_open() {
            self.check_identity(file::examine(&self.path)?)?;
        }
        // A handle that has seen an I/O error stays dead, whatever became of its cause. One that reads privately ends with
        // the next commit of whoever may write, which may come at any moment.
        let mut tries = if self.options.read_only { PRIVATE_TRIES } else { 2 };
        loop {
            tries = tries.saturating_sub(1);
            match self.try_begin_read() {
                Err(error) if error.is_missing_file() => return Err(error),
                // Not that of somebody who writes at this moment, if it is there twice.
                Err(MetaError::Damaged { .. }) if tries > 1 => tries = 1,
                Err(error) if tries > 0 => tracing::debug!(%error, "opening the database anew"),
                begun => return begun.map_err(|error| self.judged(error)),
            }
        }
    }

    fn try_begin_read(&self) -> Result<ReadTxn, MetaError> {
        let reader = self.reader()?;
        let begun = point(Call::Read).map_err(|error| StorageError::from(error).into());
        begun.and_then(|()| reader.begin_read()).inspect_err(|_| {
            let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            slot.take_if(|current| Arc::ptr_eq(current, &reader));
        })
    }

    /// Whether there is a handle for reading.
    fn is_open(&self) -> bool {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Maps the number of the last commit, of the file that is read.
    pub(crate) fn change_counter(&self) -> Result<ChangeCounter, MetaError> {
        let reader = self.reader()?;
        let (Reader::Shared { file, .. } | Reader::Private { file, .. }) = &*reader;
        ChangeCounter::of(file).map_err(|source| self.io_error(source))
    }

    fn reader(&self) -> Result<Arc<Reader>, MetaError> {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        // One that met damage has nothing more to say.
        if let Some(reader) = slot.as_ref().filter(|reader| !reader.health().is_damaged()) {
            return Ok(Arc::clone(reader));
        }
        let health = Health::new(&self.path);
        let open = || {
            point(Call::Open).map_err(|error| self.io_error(error))?;
            let file = self.open_file(false)?;
            let opened = health.run(|| Ok::<_, MetaError>(self.builder().open_read_only(file.own_path())))?;
            Ok::<_, MetaError>(opened.map(|database| (database, file)))
        };
        let shared =
            |(database, file)| Reader::Shared { database: Guarded::new(database, health.clone()), file };
        let reader = match open()? {
            // No writer is there now, and the last one died within a commit. A writer that opens looks after that, and while
            // it is there readers trust the file.
            Err(DatabaseError::RepairAborted) if self.options.read_only => self.open_privately(Ok),
            Err(DatabaseError::RepairAborted) => {
                moment::pass("to look after the last writer");
                self.open_looked_after(open).map(shared)
            }
            other => other.map(shared).map_err(|error| self.open_error(error)),
        };
        let reader = match reader {
            // What is damaged is perhaps only what redb keeps for itself, and that is for writers.
            Err(error) if error.is_damage() => {
                let Ok(rest) = self.open_privately(|header| page::without_system(&header)) else {
                    return Err(error);
                };
                tracing::warn!(%error, "reading what is left of a damaged database");
                self.reads_the_rest.store(true, Ordering::Release);
                rest
            }
            reader => reader?,
        };
        let reader = Arc::new(reader);
        *slot = Some(Arc::clone(&reader));
        Ok(reader)
    }

    /// Opens a file whose last writer died within a commit, after a look at it. Whoever has come to write meanwhile has had
    /// that look, so this waits for nobody: a caller may hold the very lock that the writer waits for.
    fn open_looked_after<T>(
        &self,
        open: impl Fn() -> Result<Result<T, DatabaseError>, MetaError>,
    ) -> Result<T, MetaError> {
        let begun = Instant::now();
        loop {
            // What rotted is for who writes.
            let writer = match self.open_writer_within(Duration::ZERO, Backend::trusting) {
                Err(MetaError::Locked { .. }) if begun.elapsed() < SHORT_LOCK_TIMEOUT => None,
                writer => Some(writer?),
            };
            match open()? {
                // The writer has left again, like the last one.
                Err(DatabaseError::RepairAborted) if writer.is_none() => std::thread::yield_now(),
                opened => return opened.map_err(|error| self.open_error(error)),
            }
        }
    }

    /// Opens a file that may not be written, as the last writer left it, but for what `change` changes in its header.
    pub(super) fn open_privately(
        &self,
        change: impl FnOnce(Vec<u8>) -> Result<Vec<u8>, Flaw>,
    ) -> Result<Reader, MetaError> {
        let file = self.open_file(false)?;
        let prepare = || -> Result<_, redb::Error> {
            let header = read_header_bytes(&file)?;
            let inner = self.file_backend(file.try_clone()?)?;
            let phase = PhaseSwitch::new(Phase::Running);
            let backend = PrivateBackend::new(inner, phase.clone(), self.options.lock_timeout)?;
            let changed =
                change(header.clone()).map_err(|flaw| io::Error::new(io::ErrorKind::InvalidData, flaw))?;
            if changed != header {
                backend.write(0, &changed)?;
            }
            Ok((header, phase, backend))
        };
        let (header, phase, backend) = prepare().map_err(|error| self.writer_error(error))?;
        let database = self.open_with(&self.builder(), backend)?;
        Ok(Reader::Private { database, file, header, phase })
    }

    /// Whether a file that cannot be opened to be written to can be read, as far as what everybody reads first says.
    pub(super) fn is_readable(&self) -> bool {
        let health = Health::new(&self.path);
        let begun = self.open_file(false).and_then(|file| {
            let database = health.run(|| {
                self.builder().open_read_only(file.own_path()).map_err(|error| self.open_error(error))
            })?;
            let reader = Reader::Shared { database: Guarded::new(database, health.clone()), file };
            read_header(&reader.begin_read()?, &self.path)
        });
        begun.is_ok()
    }
}

/// A handle for reading.
pub(super) enum Reader {
    /// It follows the commits of every process. The file is the same, open once more.
    Shared { database: Guarded<ReadOnlyDatabase>, file: File },
    /// It sees the file as it was when it was opened, with this header.
    Private { database: Guarded<redb::Database>, file: File, header: Vec<u8>, phase: PhaseSwitch },
}

impl Reader {
    /// Begins a snapshot. An error makes the caller open another handle.
    fn begin_read(&self) -> Result<ReadTxn, MetaError> {
        let txn = match self {
            Reader::Shared { database, .. } => database.run(ReadableDatabase::begin_read)?,
            Reader::Private { database, file, header, .. } => {
                let txn = database.run(ReadableDatabase::begin_read)?;
                // Once the snapshot is registered its pages stay as they are; before that somebody may have written.
                let now = read_header_bytes(file).map_err(StorageError::from)?;
                if now != *header {
                    return Err(StorageError::from(changed()).into());
                }
                txn
            }
        };
        Ok(ReadTxn(Guarded::new(txn, self.health().clone())))
    }

    fn health(&self) -> &Health {
        match self {
            Reader::Shared { database, .. } => database.health(),
            Reader::Private { database, .. } => database.health(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Reader::Private { phase, .. } = self {
            phase.set(Phase::Closing);
        }
    }
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "somebody wrote the file since it was opened")
}
