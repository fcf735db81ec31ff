//! The write lock of a database without a transaction: for who keeps writers out, and writes nothing himself.

use std::sync::Arc;

use redb::StorageBackend;

use super::Database;
use super::backend::{Backend, Phase, PhaseSwitch, WRITER_BYTE};
use super::holder::HolderFile;
use super::page;
use super::private::read_header_bytes;
use crate::error::MetaError;

/// The write lock, until this is dropped.
struct Held(Backend);

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.0.close() {
            tracing::debug!(%error, "a lock is given up by closing its file");
        }
    }
}

impl Database {
    /// Runs `body` with the write lock held, and writes nothing.
    ///
    /// Returns [`MetaError::Locked`] as the caller's error if the lock timeout passes.
    pub(crate) fn hold<T, E: From<MetaError>>(&self, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if let Some(_held) = self.lock_alone()? {
            return body();
        }
        let writer = self.open_writer()?;
        let _txn = self.begin_write(&writer)?;
        body()
    }

    /// Takes the lock alone: a write transaction reads, verifies and locks more than that. `None` if the last commit left
    /// [its mark](super::backend). Whoever begins to read such a file, as `body` may, looks after it unless he finds a writer, and
    /// here he would find nothing but the lock.
    fn lock_alone(&self) -> Result<Option<Held>, MetaError> {
        self.require_open_for_writing()?;
        let io_error = |source| self.io_error(source);
        let file = Arc::new(self.open_file(true)?);
        let same = file.try_clone().map_err(io_error)?;
        let inner = self.file_backend(same).map_err(|error| self.writer_error(error))?;
        let holder = HolderFile::open(&self.path().with_extension("holder"));
        let phase = PhaseSwitch::new(Phase::Running);
        let backend = Backend::new(inner, Arc::clone(&file), phase, holder, self.options());
        backend.lock_range(WRITER_BYTE, WRITER_BYTE).map_err(|error| self.writer_error(error.into()))?;
        let held = Held(backend);
        let header = read_header_bytes(&file).map_err(io_error)?;
        Ok((!page::is_marked(&header)).then_some(held))
    }
}
