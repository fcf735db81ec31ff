//! One database file, open for reading all the time and for writing as long as a write takes.
//!
//! Readers keep a read-only handle: it takes no lock that a writer waits for, and each transaction follows the
//! commits of every process. A writer opens its own handle, runs one transaction and drops it; with
//! [`super::backend`] that costs two syncs in all.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use layerstore_schema::header::Access;
use redb::{Builder, ConcurrencyMode, DatabaseError, ReadOnlyDatabase, ReadableDatabase};

use super::backend::{Backend, LockTimeout, Phase, PhaseSwitch};
use super::holder::HolderFile;
use super::{ReadTxn, WriteTxn, read_header};
use crate::error::MetaError;
use crate::sys::file::File;

/// How a database is opened.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseOptions {
    /// How long a writer waits for another; zero tries once.
    pub(crate) lock_timeout: Duration,
    /// Memory for redb's page cache, in bytes.
    pub(crate) cache_size: usize,
    /// Whether commits reach the disk before they return.
    pub(crate) sync: bool,
}

impl Default for DatabaseOptions {
    fn default() -> Self {
        DatabaseOptions { lock_timeout: Duration::from_secs(60), cache_size: 16 << 20, sync: true }
    }
}

/// A database file.
pub(crate) struct Database {
    path: PathBuf,
    options: DatabaseOptions,
    reader: Mutex<Option<Arc<ReadOnlyDatabase>>>,
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
        Database { path, options, reader: Mutex::new(None) }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a snapshot of the newest commit. Waits for nobody.
    pub(crate) fn begin_read(&self) -> Result<ReadTxn, MetaError> {
        let reader = self.reader()?;
        match reader.begin_read() {
            Ok(txn) => Ok(ReadTxn(txn)),
            Err(error) => {
                // A handle that has seen an I/O error stays dead: the next caller gets a new one.
                self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(error.into())
            }
        }
    }

    fn reader(&self) -> Result<Arc<ReadOnlyDatabase>, MetaError> {
        let mut slot = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*slot {
            return Ok(Arc::clone(reader));
        }
        let open = || self.builder().open_read_only(&self.path);
        let reader = match open() {
            // No writer is there now, and the last one left without a word: by our own doing (see `backend`), or
            // because it died. A writer that opens looks after the second case, and while it is there readers
            // trust the file.
            Err(DatabaseError::RepairAborted) => {
                let _writer = self.open_writer(false)?;
                open().map_err(|error| self.open_error(error))?
            }
            other => other.map_err(|error| self.open_error(error))?,
        };
        let reader = Arc::new(reader);
        *slot = Some(Arc::clone(&reader));
        Ok(reader)
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
        let writer = self.open_writer(false)?;
        self.write_through(&writer, |txn| {
            self.check_writable(txn)?;
            body(txn)
        })
    }

    /// As [`write`](Self::write), makes the file if it is missing, and asks for no header.
    pub(crate) fn write_or_create<T, E: From<MetaError>>(
        &self,
        body: impl FnOnce(&WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let writer = self.open_writer(true)?;
        self.write_through(&writer, body)
    }

    /// Runs `body` with the write lock held, and writes nothing. Makes the file if it is missing.
    pub(crate) fn hold<T, E: From<MetaError>>(&self, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let writer = self.open_writer(true)?;
        let _txn = self.begin_write(&writer)?;
        body()
    }

    fn check_writable(&self, txn: &WriteTxn) -> Result<(), MetaError> {
        let path = self.path.clone();
        match read_header(txn, &self.path)?.access() {
            Ok(Access::ReadWrite | Access::Migrate(_)) => Ok(()),
            Ok(Access::ReadOnly) => Err(MetaError::ReadOnly { path }),
            Err(source) => Err(MetaError::Format { path, source }),
        }
    }

    fn write_through<T, E: From<MetaError>>(
        &self,
        writer: &Writer,
        body: impl FnOnce(&WriteTxn) -> Result<T, E>,
    ) -> Result<T, E> {
        let txn = self.begin_write(writer)?;
        let value = body(&txn)?;
        txn.write_journal()?;
        let _span = tracing::debug_span!("commit").entered();
        txn.0.commit().map_err(MetaError::from)?;
        Ok(value)
    }

    fn begin_write(&self, writer: &Writer) -> Result<WriteTxn, MetaError> {
        let _span = tracing::debug_span!("lock wait").entered();
        writer.database.begin_write().map(WriteTxn::new).map_err(|error| self.writer_error(error.into()))
    }

    fn open_writer(&self, create: bool) -> Result<Writer, MetaError> {
        let io_error =
            |source: io::Error| MetaError::Open { path: self.path.clone(), source: Box::new(source.into()) };
        let open = if create { File::ensure } else { File::open_to_write };
        let file = open(&self.path).map_err(io_error)?;
        let fresh = file.length().map_err(io_error)? == 0;
        let empty = fresh.then(|| file.try_clone()).transpose().map_err(io_error)?;
        let phase = PhaseSwitch::new(if fresh { Phase::Creating } else { Phase::Opening });
        let holder = HolderFile::open(&self.path.with_extension("holder"));
        let backend = Backend::new(file, phase.clone(), self.options.lock_timeout, holder, self.options.sync)
            .map_err(|error| self.writer_error(error))?;
        let mut builder = self.builder();
        let repairing = phase.clone();
        builder.set_repair_callback(move |_| repairing.set(Phase::Creating));
        let database = builder.create_with_backend(backend).map_err(|error| {
            // What a full disk let it write of a new file is no database, and would be in the way of the next try.
            // After any other error the file may be somebody else's.
            let full = matches!(&error, DatabaseError::Storage(redb::StorageError::Io(error))
                if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
            if full
                && let Some(file) = &empty
                && let Err(error) = file.set_length(0)
            {
                tracing::warn!(path = %self.path.display(), %error, "cannot empty a file that was not made");
            }
            self.writer_error(error.into())
        })?;
        if fresh && self.options.sync {
            sync_parent(&self.path).map_err(io_error)?;
        }
        phase.set(Phase::Running);
        Ok(Writer { database, phase })
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::new();
        builder.set_concurrency_mode(ConcurrencyMode::MultiWriter).set_cache_size(self.options.cache_size);
        builder
    }

    fn open_error(&self, error: DatabaseError) -> MetaError {
        MetaError::Open { path: self.path.clone(), source: Box::new(error.into()) }
    }

    /// Finds the lock timeout in what redb made of it.
    fn writer_error(&self, error: redb::Error) -> MetaError {
        if let redb::Error::Io(io_error) = &error
            && let Some(timeout) = io_error.get_ref().and_then(|inner| inner.downcast_ref::<LockTimeout>())
        {
            return MetaError::Locked { holder: timeout.holder.clone(), waited: timeout.waited };
        }
        MetaError::Open { path: self.path.clone(), source: Box::new(error) }
    }
}

/// A handle for one write transaction.
struct Writer {
    database: redb::Database,
    phase: PhaseSwitch,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.phase.set(Phase::Closing);
    }
}

/// A new file is durable when its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync(),
        None => Ok(()),
    }
}
