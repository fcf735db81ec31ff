//! One database file, open for reading all the time and for writing as long as a write takes.
//!
//! Readers keep a read-only handle ([`super::reader`]): it takes no lock that a writer waits for, and each transaction follows the
//! commits of every process. A writer opens its own handle, runs one transaction and drops it; with
//! [`super::backend`] that costs two syncs in all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layerstore_schema::header::Access;
use redb::backends::FileBackend;
use redb::{Builder, ConcurrencyMode, DatabaseError, StorageBackend};

use super::backend::{Backend, LockTimeout, Phase, PhaseSwitch, SHORT_LOCK_TIMEOUT, WRITER_BYTE};
use super::file;
use super::guard::{Guarded, Health};
use super::holder::HolderFile;
use super::queue::wait_in_queue;
use super::reader::Reader;
use super::system::{self, Fault};
use super::{Query, StoreBeside, WriteTxn, read_header};
use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::moment;
use crate::sys::path;
use crate::sys::range_lock::LockedRange;
use crate::sys::stat::FileId;
use crate::timing::{self, Stage};

/// How a database is opened.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseOptions {
    /// How long a writer waits for another; zero tries once.
    pub(crate) lock_timeout: Duration,
    /// Memory for redb's page cache, in bytes.
    pub(crate) cache_size: usize,
    /// Whether commits reach the disk before they return.
    pub(crate) sync: bool,
    /// Whether nobody counts on the file after a power cut.
    pub(crate) passing: bool,
    /// Whether the file is only read, by whatever process this is: nothing is written beside it either.
    pub(crate) read_only: bool,
    /// The other stores that this one is read with: see [`super::beside`].
    pub(crate) beside: Arc<[StoreBeside]>,
    /// Who writes down what reaches the file.
    #[cfg(test)]
    pub(super) recorder: Option<super::recorder::Recorder>,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        DatabaseOptions {
            lock_timeout: Duration::from_secs(60),
            cache_size: 16 << 20,
            sync: true,
            passing: false,
            read_only: false,
            beside: Arc::default(),
            #[cfg(test)]
            recorder: None,
        }
    }
}

/// A database file.
pub(crate) struct Database {
    pub(super) path: PathBuf,
    pub(super) options: DatabaseOptions,
    pub(super) reader: Mutex<Option<Arc<Reader>>>,
    /// Which file it was when it was used first.
    identity: Mutex<Option<FileId>>,
    /// Whether it was read without what redb keeps for itself, which is damaged.
    pub(super) reads_the_rest: AtomicBool,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Names the file at `path`; it is opened by the first use.
    pub(crate) fn new(path: PathBuf, options: DatabaseOptions) -> Self {
        Database {
            path,
            options,
            reader: Mutex::new(None),
            identity: Mutex::new(None),
            reads_the_rest: AtomicBool::new(false),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was read though a part of the file is damaged, which only writers need.
    pub(crate) fn reads_the_rest(&self) -> bool {
        self.reads_the_rest.load(Ordering::Acquire)
    }

    pub(super) fn options(&self) -> &DatabaseOptions {
        &self.options
    }

    /// Verifies every page of the file: its checksum, and that the note of what is free fits what is used. Changes nothing
    /// in the file; what redb would mend is mended in memory. Readers go on, and writers wait.
    ///
    /// Returns [`MetaError::Damaged`] or [`MetaError::Open`] if something is wrong.
    pub(crate) fn verify(&self) -> Result<(), MetaError> {
        let waited = self.options.lock_timeout.max(SHORT_LOCK_TIMEOUT);
        let failed = |source| self.io_error(source);
        let file = Arc::new(self.open_file(false)?);
        // What is written from the first look on would be taken for damage.
        if !wait_in_queue(&file, WRITER_BYTE, WRITER_BYTE, false, waited).map_err(failed)? {
            let holder = HolderFile::open(&self.path.with_extension("holder")).describe();
            return Err(MetaError::Locked { holder, waited });
        }
        let _locked = LockedRange::of(&file, WRITER_BYTE, WRITER_BYTE);
        moment::pass("verifying");
        // In redb's words it is the primary, and despite two phases.
        self.verify_alone().map_err(|error| match error.is_damage() {
            true => {
                tracing::debug!(%error, "verifying the database");
                let path = self.path.clone();
                match file::cut(&file) {
                    Some(reason) => MetaError::NotADatabase { path, reason, readable: self.is_readable() },
                    None => MetaError::Damaged { path },
                }
            }
            false => error,
        })
    }

    fn verify_alone(&self) -> Result<(), MetaError> {
        let Reader::Private { database, .. } = &mut self.open_privately(Ok)? else { return Ok(()) };
        let check = |database: &mut redb::Database| {
            database.check_integrity().map_err(|error| self.writer_error(error.into()))
        };
        match database.run_mut(check)? {
            true => Ok(()),
            false => Err(MetaError::Damaged { path: self.path.clone() }),
        }
    }

    /// Whether the path leads to another file than at the first use, or to none.
    pub(crate) fn is_replaced(&self) -> Result<bool, MetaError> {
        match path::stat_itself(&self.path) {
            Ok(found) => Ok(self.check_identity(found.id).is_err()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(self.io_error(error)),
        }
    }

    /// A handle on a file that is not the store's any more would go on with what nobody else sees.
    pub(super) fn check_identity(&self, found: FileId) -> Result<(), MetaError> {
        let mut known = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if *known.get_or_insert(found) == found {
            Ok(())
        } else {
            Err(MetaError::Replaced { path: self.path.clone() })
        }
    }

    /// Runs `body` in the write transaction, and commits if it succeeds. Only one runs at a time, over all
    /// processes.
    ///
    /// Returns [`MetaError::Locked`] as the caller's error if the lock timeout passes, and [`MetaError::ReadOnly`] or
    /// [`MetaError::Format`] if the store has, perhaps only since it was opened, features that this build does not
    /// know.
    pub(crate) fn write<T, E: From<MetaError>>(
        &self,
        body: impl FnOnce(&WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        self.write_without_header(|txn| {
            self.check_writable(txn)?;
            body(txn)
        })
    }

    /// Begins a write transaction that is to be committed together with another store's.
    ///
    /// Returns what [`write`](Self::write) does.
    pub(crate) fn open_write(&self) -> Result<OpenWrite, MetaError> {
        let open = self.open_write_without_header()?;
        self.check_writable(&open.txn)?;
        Ok(open)
    }

    /// As [`open_write`](Self::open_write), of a database that has no header.
    pub(crate) fn open_write_without_header(&self) -> Result<OpenWrite, MetaError> {
        timing::spanned(Stage::Commit, || {
            let writer = self.open_writer()?;
            let txn = self.begin_write(&writer)?;
            Ok(OpenWrite { txn, writer })
        })
    }

    /// As [`write`](Self::write), of a database that has no header.
    pub(crate) fn write_without_header<T, E: From<MetaError>>(
        &self,
        body: impl FnOnce(&WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        timing::spanned(Stage::Commit, || {
            let writer = self.open_writer()?;
            self.write_through(&writer, body)
        })
    }

    /// Whether this is the same file, by whatever path.
    pub(crate) fn is_same_file(&self, other: &Database) -> Result<bool, MetaError> {
        let id = |database: &Database| -> Result<FileId, MetaError> {
            Ok(path::stat_itself(&database.path).map_err(|source| database.io_error(source))?.id)
        };
        Ok(id(self)? == id(other)?)
    }

    /// Opens the file, for writing too if `writes`, if it is that of the first use and what a store has.
    pub(super) fn open_file(&self, writes: bool) -> Result<File, MetaError> {
        let (file, found) = file::open(&self.path, writes)?;
        self.check_identity(found.id)?;
        file::check_header(&file, found.size, &self.path)?;
        Ok(file)
    }

    /// Returns [`MetaError::OpenForReading`] if the file is only read.
    pub(crate) fn require_open_for_writing(&self) -> Result<(), MetaError> {
        match self.options.read_only {
            true => Err(MetaError::OpenForReading { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Whether this build may write the store; for what changes files and no rows.
    ///
    /// Returns [`MetaError::ReadOnly`] or [`MetaError::Format`] if not.
    pub(crate) fn require_writable(&self) -> Result<(), MetaError> {
        self.check_writable(&self.begin_read()?)
    }

    pub(super) fn check_writable(&self, txn: &impl Query) -> Result<(), MetaError> {
        let path = self.path.clone();
        match read_header(txn, &self.path)?.access() {
            Ok(Access::ReadWrite | Access::Migrate(_)) => Ok(()),
            Ok(Access::ReadOnly) => Err(MetaError::ReadOnly { path }),
            Err(source) => Err(MetaError::Format { path, source }),
        }
    }

    pub(super) fn write_through<T, E: From<MetaError>>(
        &self,
        writer: &Writer,
        body: impl FnOnce(&WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let txn = self.begin_write(writer)?;
        let value = body(&txn)?;
        txn.write_journal()?;
        txn.commit()?;
        Ok(value)
    }

    pub(super) fn begin_write(&self, writer: &Writer) -> Result<WriteTxn, MetaError> {
        let begin = |database: &redb::Database| {
            database.begin_write().map_err(|error| self.writer_error(error.into()))
        };
        let txn = writer.database.run(begin)?;
        // Dropped like after a panic if the file is not right: redb is not to go on with it.
        let txn = WriteTxn::beside(txn, writer.database.health().clone(), Arc::clone(&self.options.beside));
        match system::verify(&writer.file) {
            Ok(_) => Ok(txn),
            Err(Fault::Io(error)) => Err(self.io_error(error)),
            Err(Fault::Damaged(reason)) => {
                tracing::warn!(path = %self.path.display(), reason, "nothing is written to a damaged database");
                Err(writer.database.health().damaged())
            }
        }
    }

    pub(super) fn open_writer(&self) -> Result<Writer, MetaError> {
        self.open_writer_within(self.options.lock_timeout, |backend| backend)
    }

    pub(super) fn open_writer_within(
        &self,
        lock_timeout: Duration,
        adapt: fn(Backend) -> Backend,
    ) -> Result<Writer, MetaError> {
        self.require_open_for_writing()?;
        let file = Arc::new(self.open_file(true)?);
        let same = file.try_clone().map_err(|source| self.io_error(source))?;
        let phase = PhaseSwitch::new(Phase::Opening);
        let holder = HolderFile::open(&self.path.with_extension("holder"));
        let inner = self.file_backend(same).map_err(|error| self.writer_error(error))?;
        let options = DatabaseOptions { lock_timeout, ..self.options.clone() };
        let backend = adapt(Backend::new(inner, Arc::clone(&file), phase.clone(), holder, &options));
        let mut builder = self.builder();
        let repairing = phase.clone();
        builder.set_repair_callback(move |_| repairing.set(Phase::Repairing));
        let database = self.open_with(&builder, backend).map_err(|error| self.judged(error))?;
        phase.set(Phase::Running);
        Ok(Writer { database, phase, file })
    }

    /// An error with what there is to be read of the file, if that is in question.
    pub(super) fn judged(&self, error: MetaError) -> MetaError {
        match error {
            MetaError::NotADatabase { path, reason, .. } => {
                MetaError::NotADatabase { path, reason, readable: self.is_readable() }
            }
            error => error,
        }
    }

    /// Opens the database behind `backend`.
    pub(super) fn open_with(
        &self,
        builder: &Builder,
        backend: impl StorageBackend,
    ) -> Result<Guarded<redb::Database>, MetaError> {
        let health = Health::new(&self.path);
        let opened = health
            .run(|| builder.create_with_backend(backend).map_err(|error| self.writer_error(error.into())))?;
        Ok(Guarded::new(opened, health))
    }

    /// What writes to the file in the end.
    pub(super) fn file_backend(&self, file: File) -> Result<Box<dyn StorageBackend>, redb::Error> {
        let backend = FileBackend::new(file.into_std())?;
        #[cfg(test)]
        if let Some(recorder) = &self.options.recorder {
            return Ok(Box::new(recorder.wrap(backend)));
        }
        Ok(Box::new(backend))
    }

    pub(super) fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).set_cache_size(self.options.cache_size);
        builder
    }

    pub(super) fn io_error(&self, source: io::Error) -> MetaError {
        file::opening_failed(&self.path, source.into())
    }

    pub(super) fn open_error(&self, error: DatabaseError) -> MetaError {
        file::opening_failed(&self.path, error.into())
    }

    /// Finds the lock timeout in what redb made of it.
    pub(super) fn writer_error(&self, error: redb::Error) -> MetaError {
        if let redb::Error::Io(io_error) = &error
            && let Some(timeout) = io_error.get_ref().and_then(|inner| inner.downcast_ref::<LockTimeout>())
        {
            return MetaError::Locked { holder: timeout.holder.clone(), waited: timeout.waited };
        }
        file::opening_failed(&self.path, error)
    }
}

/// A write transaction that is committed by whoever holds it; dropping it changes nothing.
#[derive(Debug)]
pub(crate) struct OpenWrite {
    // Goes before the handle.
    txn: WriteTxn,
    writer: Writer,
}

/// The lock of a committed write transaction, kept until this is dropped.
#[derive(Debug)]
pub(crate) struct Committed {
    _writer: Writer,
}

impl OpenWrite {
    /// The transaction.
    pub(crate) fn txn(&self) -> &WriteTxn {
        &self.txn
    }

    /// Makes the changes everybody's, and keeps the lock: nobody writes before the other store's are, too.
    pub(crate) fn commit(self) -> Result<Committed, MetaError> {
        timing::spanned(Stage::Commit, || {
            self.txn.write_journal()?;
            self.writer.phase.set(Phase::Keeping);
            self.txn.commit()?;
            Ok(Committed { _writer: self.writer })
        })
    }
}

/// A handle for one write transaction.
pub(super) struct Writer {
    pub(super) database: Guarded<redb::Database>,
    phase: PhaseSwitch,
    /// The same open file.
    pub(super) file: Arc<File>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.phase.set(Phase::Closing);
    }
}
