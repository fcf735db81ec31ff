//! How redb reaches the database file: its own file backend, with what a store of many processes needs.
//!
//! * **Waiting for the writer ends.** redb waits for the write lock for ever; here the wait has a limit, and its
//!   error names the holder.
//! * **The write lock is waited for once.** redb takes it to open the file, gives it up, and takes it again for the transaction, at the
//!   end of the queue. Here it is kept in between, so a writer waits once, and what the opening has read is still the newest.
//! * **Opening and closing write nothing.** redb would mark a file that it opens, and its close would take the mark away: a
//!   reader who finds one whose writer is gone has to look after the file. Here the file is marked for as long as it takes to
//!   commit: the headers of a commit have the mark, and when the second is on the disk it goes, without a sync. So a
//!   file is marked when its writer died within a commit, or did not sync, and otherwise costs its readers nothing. A real repair
//!   does write ([`Phase`]). A close has nothing to say that the last commit has not recorded, so it does not get the write lock.
//! * **What a dead writer left is synced first.** Whether his commit is on the disk nobody knows, and what is written next may take the
//!   place of pages of the one before. So a handle that finds the mark brings it there before its first write ([`bring_to_disk`]).
//! * **A sync with nothing to sync is skipped.**
//! * **A page that rotted is not read**: see [`super::checksums`].
//!
//! Every lock call goes to redb's backend: a call left out would mean a file without locks.

use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{BackendError, StorageBackend};

use super::DatabaseOptions;
use super::checksums::Checksums;
use super::holder::HolderFile;
use super::page::{self, Unmarking};
use super::queue::wait_in_queue;
use crate::sys::call::{Call, call, point};
use crate::sys::file::File;

/// The byte that redb's multi-writer mode locks for the length of a write transaction.
pub(super) const WRITER_BYTE: Bound<u64> = Bound::Included(1 << 62);

/// The least time to wait for any other lock. They are held for a few reads or writes, by readers too, and a commit in
/// its middle has no better answer than to wait.
pub(super) const SHORT_LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What the handle is doing, which decides what its syncs and locks mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The file is repaired: everything syncs. The write lock is kept.
    Repairing,
    /// The file is opened and sound: its header stays as it is, and nothing syncs. The write lock is kept.
    Opening,
    /// Transactions run: a sync with something to sync does.
    Running,
    /// A transaction is committed, and the handle keeps the write lock until it is dropped.
    Keeping,
    /// The handle is dropped: the write lock is refused.
    Closing,
}

/// The phase of one handle, shared between the handle and its backend.
#[derive(Clone, Debug)]
pub(super) struct PhaseSwitch(Arc<AtomicU8>);

impl PhaseSwitch {
    pub(super) fn new(phase: Phase) -> Self {
        PhaseSwitch(Arc::new(AtomicU8::new(phase as u8)))
    }

    pub(super) fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    pub(super) fn is(&self, phase: Phase) -> bool {
        self.0.load(Ordering::Acquire) == phase as u8
    }
}

/// The write lock was not to be had in time.
#[derive(Debug, thiserror::Error)]
#[error("the write lock is held by {holder}")]
pub(super) struct LockTimeout {
    pub(super) holder: String,
    pub(super) waited: Duration,
}

/// A file backend with a limited wait and the fewest syncs.
#[derive(Debug)]
pub(super) struct Backend {
    inner: Box<dyn StorageBackend>,
    /// The same open file, for the blocking lock call.
    file: Arc<File>,
    phase: PhaseSwitch,
    /// Whether the handle has the write lock still that redb gave up after the opening.
    kept: AtomicBool,
    unsynced: AtomicBool,
    /// Whether another writer, who died, may have left what is not on the disk.
    inherited: AtomicBool,
    /// Whether the length of the file was taken for right at the opening, in place of what the header said. Until the write lock was to be
    /// had, another writer may have cut the file down again, and redb does not measure it anew if he committed nothing.
    measured: AtomicBool,
    /// Of a commit whose last header is written.
    ending: Mutex<Option<Unmarking>>,
    /// How long the file is, for as long as the handle has the write lock: nobody else makes it longer or shorter then.
    length: Mutex<Option<u64>>,
    /// Whether it has that.
    locked: AtomicBool,
    timeout: Duration,
    holder: HolderFile,
    syncs: bool,
    /// Whether the mark goes at the end of a commit. A commit that is not synced keeps it for who does sync, unless nobody counts on
    /// the file.
    unmarks: bool,
    /// Of what is read; none for a file that this process makes.
    checksums: Option<Checksums>,
}

impl Backend {
    /// Over `inner`, which has the same open file as `file`.
    pub(super) fn new(
        inner: Box<dyn StorageBackend>,
        file: Arc<File>,
        phase: PhaseSwitch,
        holder: HolderFile,
        options: &DatabaseOptions,
    ) -> Self {
        Backend {
            inner,
            file,
            phase,
            kept: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            inherited: AtomicBool::new(false),
            measured: AtomicBool::new(false),
            ending: Mutex::new(None),
            length: Mutex::new(None),
            locked: AtomicBool::new(false),
            timeout: options.lock_timeout,
            holder,
            syncs: options.sync,
            unmarks: options.sync || options.passing,
            checksums: Some(Checksums::default()),
        }
    }

    /// For a file that no other process knows yet, and that is synced when it is complete.
    pub(super) fn private(inner: Box<dyn StorageBackend>, file: File, options: &DatabaseOptions) -> Self {
        let options = DatabaseOptions { sync: false, passing: true, ..options.clone() };
        let (file, phase) = (Arc::new(file), PhaseSwitch::new(Phase::Running));
        Backend::new(inner, file, phase, HolderFile::none(), &options).trusting()
    }

    /// The same, which does not look at the checksums of what it reads.
    pub(super) fn trusting(self) -> Self {
        Backend { checksums: None, ..self }
    }

    /// The write that takes the mark away when the next sync has succeeded.
    fn ending(&self) -> MutexGuard<'_, Option<Unmarking>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the commit is on the disk. One byte, so nobody sees a part of it, and it may reach the disk whenever it likes.
    fn unmark(&self) {
        let Some(Unmarking { offset, flags, length }) = self.ending().take().filter(|_| self.unmarks) else {
            return;
        };
        // Without the mark nobody would open it. With it the next writer measures again.
        if self.measured.load(Ordering::Acquire) && !self.measure().is_ok_and(|now| now >= length) {
            tracing::debug!(length, "the mark stays on a file that is shorter than its header says");
            return;
        }
        if let Err(error) = call(Call::Write, || self.inner.write(offset, &[flags])) {
            // The next one looks after the file for nothing.
            tracing::debug!(%error, "the mark of a commit that is done stays");
        }
    }

    /// Asks how long the file is.
    fn measure(&self) -> io::Result<u64> {
        call(Call::Stat, || self.inner.len())
    }

    fn length(&self) -> MutexGuard<'_, Option<u64>> {
        self.length.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes whether the handle has the write lock from now on.
    fn note_lock(&self, locked: bool) {
        let mut length = self.length();
        *length = None;
        self.locked.store(locked, Ordering::Release);
    }

    /// Notes what the header says of the last writer: whether he died.
    fn inherit(&self, died: bool) {
        self.inherited.fetch_or(died, Ordering::AcqRel);
        self.measured.fetch_or(died, Ordering::AcqRel);
    }

    /// Brings to the disk what a writer left that died, before the first write.
    fn sync_inherited(&self) -> io::Result<()> {
        if self.inherited.swap(false, Ordering::AcqRel) && self.syncs {
            bring_to_disk(&*self.inner).inspect_err(|_| self.inherited.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    fn wait_for_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
        exclusive: bool,
    ) -> Result<(), BackendError> {
        let try_lock = || match exclusive {
            true => self.try_lock_range(start, end),
            false => self.try_lock_shared_range(start, end),
        };
        if try_lock()? {
            return Ok(());
        }
        let begun = Instant::now();
        let timeout = if start == WRITER_BYTE { self.timeout } else { self.timeout.max(SHORT_LOCK_TIMEOUT) };
        if !timeout.is_zero() && wait_in_queue(&self.file, start, end, exclusive, timeout)? {
            // The open file has the lock already; this tells redb's backend, which gives it up by its own list.
            try_lock()?;
            return Ok(());
        }
        // One try is no wait, however long it took.
        let waited = if timeout.is_zero() { Duration::ZERO } else { begun.elapsed() };
        let timeout = LockTimeout { holder: self.holder.describe(), waited };
        Err(io::Error::new(io::ErrorKind::TimedOut, timeout).into())
    }
}

/// Brings to the disk what a writer left that died, or whose last sync failed; for who holds the write lock.
///
/// After a sync that failed the kernel takes what it could not write for written, and has told of it: the next sync has nothing to do
/// and succeeds. Only the header can be such a page, as the others were on the disk before it was written. So it is written
/// again, as it is.
pub(super) fn bring_to_disk(inner: &dyn StorageBackend) -> io::Result<()> {
    let mut header = [0; page::HEADER];
    call(Call::Read, || inner.read(0, &mut header))?;
    call(Call::Write, || inner.write(0, &header))?;
    call(Call::Sync, || inner.sync_data())
}

fn is_header(offset: u64, bytes: &[u8]) -> bool {
    offset == 0 && bytes.len() == page::HEADER
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let mut known = self.length();
        if let Some(length) = *known {
            return Ok(length);
        }
        let length = self.measure()?;
        *known = Some(length).filter(|_| self.locked.load(Ordering::Acquire));
        Ok(length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        call(Call::Read, || self.inner.read(offset, out))?;
        if is_header(offset, out) {
            self.inherit(page::is_marked(out));
        }
        self.checksums.as_ref().map_or(Ok(()), |checksums| checksums.read(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.sync_inherited()?;
        self.unsynced.store(true, Ordering::Release);
        *self.length() = None;
        call(Call::SetLength, || self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.phase.is(Phase::Opening) {
            return Ok(());
        }
        if self.syncs && self.unsynced.swap(false, Ordering::AcqRel) {
            call(Call::Sync, || self.inner.sync_data())
                .inspect_err(|_| self.unsynced.store(true, Ordering::Release))?;
        }
        self.unmark();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if is_header(offset, data) {
            // The first commit writes it again. Alone it may say more than the disk has: how long the file is. It says another
            // length without the mark if a writer died before his commit.
            if self.phase.is(Phase::Opening) {
                self.inherit(!page::is_marked(data));
                return Ok(());
            }
            *self.ending() = page::unmarking(data);
        }
        self.sync_inherited()?;
        self.unsynced.store(true, Ordering::Release);
        if let Some(checksums) = &self.checksums {
            checksums.written(offset, data.len());
        }
        call(Call::Write, || self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        point(Call::TryLock)?;
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        point(Call::TryLock)?;
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let writer = start == WRITER_BYTE;
        if writer && self.phase.is(Phase::Closing) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "nothing is left to write").into());
        }
        if writer && self.kept.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.wait_for_range(start, end, true)?;
        if writer {
            self.note_lock(true);
            self.holder.take();
        }
        Ok(())
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.wait_for_range(start, end, false)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        // Closing ends it: redb's backend gives up all on its list.
        if start == WRITER_BYTE && self.phase.is(Phase::Keeping) {
            return Ok(());
        }
        if start == WRITER_BYTE && (self.phase.is(Phase::Opening) || self.phase.is(Phase::Repairing)) {
            self.kept.store(true, Ordering::Release);
            return Ok(());
        }
        if start == WRITER_BYTE {
            self.note_lock(false);
        }
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        point(Call::TryLock)?;
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use redb::backends::FileBackend;

    use super::*;
    use crate::error::MetaError;
    use crate::meta::Database;

    /// Writes the last header of a commit to a file of one page, through a handle that opened it with this mark. Returns whether the mark
    /// went.
    fn ends_a_commit(path: &Path, header: &[u8], died: bool) -> bool {
        let mut begun = header.to_vec();
        begun[9] = if died { begun[9] | 2 } else { begun[9] & !2 };
        std::fs::write(path, &begun).unwrap();
        let file = Arc::new(File::open_to_write(path).unwrap());
        let inner = FileBackend::new(file.try_clone().unwrap().into_std()).unwrap();
        let phase = PhaseSwitch::new(Phase::Opening);
        let options = DatabaseOptions::default();
        let backend =
            Backend::new(Box::new(inner), file, phase.clone(), HolderFile::none(), &options).trusting();
        backend.read(0, &mut [0; page::HEADER]).unwrap();
        phase.set(Phase::Running);
        begun[9] |= 2;
        backend.write(0, begun.get(..page::HEADER).unwrap()).unwrap();
        backend.sync_data().unwrap();
        !page::is_marked(&std::fs::read(path).unwrap())
    }

    #[test]
    fn a_file_that_is_shorter_than_its_header_says_keeps_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let database = Database::new(path.clone(), DatabaseOptions::default());
        database.create(|_| Ok::<_, MetaError>(())).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let cut = &whole[..usize::try_from(page::PAGE).unwrap()];
        assert!(ends_a_commit(&path, &whole, true));
        assert!(ends_a_commit(&path, cut, false), "nothing was measured: what is said is what was there");
        assert!(!ends_a_commit(&path, cut, true));
    }
}
