//! redb's access to a file that may not be written.
//!
//! A reader that comes after a writer that died within a commit has to open the file for writing once, to see that all is well
//! (see [`super::backend`]). Where nobody may write, that is done in memory: what redb would write stays there, and is seen
//! by this handle alone. Locks are the kernel's all the same, so that a writer who comes to the file by another way leaves the
//! pages alone that are being read here.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redb::{BackendError, StorageBackend};

use super::backend::{Phase, PhaseSwitch, WRITER_BYTE};
use crate::sys::call::{Call, point};
use crate::sys::file::File;

/// What is kept of a change.
const PAGE: usize = 4096;

/// How often a lock is tried that somebody holds.
const PAUSE: Duration = Duration::from_millis(5);

/// The part of the header that is another one after each commit.
const HEADER: usize = 512;

/// Reads the header of a database file, to be compared with what it was.
pub(super) fn read_header_bytes(file: &File) -> io::Result<Vec<u8>> {
    let mut header = vec![0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    Ok(header)
}

/// A file with changes that stay in memory.
#[derive(Debug)]
pub(super) struct PrivateBackend {
    inner: Box<dyn StorageBackend>,
    phase: PhaseSwitch,
    patience: Duration,
    changes: Mutex<Changes>,
}

#[derive(Debug)]
struct Changes {
    /// The length as redb sees it.
    length: u64,
    /// Up to where the file's own bytes are seen.
    base: u64,
    /// Changed pages by their number.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl PrivateBackend {
    /// Over a file that is only read. A lock is waited for as long as `patience` lasts.
    pub(super) fn new(
        inner: Box<dyn StorageBackend>,
        phase: PhaseSwitch,
        patience: Duration,
    ) -> io::Result<Self> {
        let length = inner.len()?;
        let changes = Mutex::new(Changes { length, base: length, pages: BTreeMap::new() });
        Ok(PrivateBackend { inner, phase, patience, changes })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file's own bytes, and zeros where it has none.
    fn read_base(&self, base: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = usize::try_from(base.saturating_sub(offset)).unwrap_or(usize::MAX).min(out.len());
        let (own, rest) = out.split_at_mut_checked(there).ok_or(io::ErrorKind::UnexpectedEof)?;
        rest.fill(0);
        if own.is_empty() { Ok(()) } else { self.inner.read(offset, own) }
    }

    fn share(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        let begun = Instant::now();
        while !self.inner.try_lock_shared_range(start, end)? {
            if begun.elapsed() > self.patience {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// The parts of `length` bytes from `offset` on, page by page: number, place in the page, place in the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        let at = offset.checked_add(u64::try_from(done).ok()?)?;
        let within = usize::try_from(at.checked_rem(PAGE as u64)?).ok()?;
        let part = PAGE.checked_sub(within)?.min(length.checked_sub(done)?);
        let end = done.checked_add(part)?;
        let item = (at.checked_div(PAGE as u64)?, within..within.checked_add(part)?, done..end);
        done = end;
        (part > 0).then_some(item)
    })
}

impl StorageBackend for PrivateBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.changes().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        point(Call::Read)?;
        let changes = self.changes();
        self.read_base(changes.base, offset, out)?;
        for (number, within, at) in parts(offset, out.len()) {
            let changed = changes.pages.get(&number).and_then(|page| page.get(within));
            if let (Some(from), Some(to)) = (changed, out.get_mut(at)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut changes = self.changes();
        changes.base = changes.base.min(length);
        changes.length = length;
        // What is cut off does not come back when the file grows again.
        let last = length.div_euclid(PAGE as u64);
        let within = usize::try_from(length.rem_euclid(PAGE as u64)).unwrap_or(PAGE);
        changes.pages.retain(|number, _| *number <= last);
        if let Some(rest) = changes.pages.get_mut(&last).and_then(|page| page.get_mut(within..)) {
            rest.fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut changes = self.changes();
        let base = changes.base;
        for (number, within, at) in parts(offset, data.len()) {
            let page = match changes.pages.entry(number) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let mut page = Box::new([0; PAGE]);
                    self.read_base(base, number.saturating_mul(PAGE as u64), page.as_mut_slice())?;
                    place.insert(page)
                }
            };
            if let (Some(to), Some(from)) = (page.get_mut(within), data.get(at)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    // A lock that others must not have needs a file open for writing; nothing is written here, so one that only writers
    // must not have does.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        // A handle that is dropped would commit once more, on pages that may be others by now.
        if start == WRITER_BYTE && self.phase.is(Phase::Closing) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock).into());
        }
        self.share(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.share(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn changes_are_seen_and_stay_in_memory() {
        let inner = InMemoryBackend::new();
        inner.set_len(10_000).unwrap();
        inner.write(0, &[1; 10_000]).unwrap();
        let private =
            PrivateBackend::new(Box::new(inner), PhaseSwitch::new(Phase::Running), Duration::ZERO).unwrap();
        private.write(4090, &[2; 4110]).unwrap();
        let mut out = [0; 4200];
        private.read(4080, &mut out).unwrap();
        assert!(out[..10].iter().all(|byte| *byte == 1) && out[10..4120].iter().all(|byte| *byte == 2));
        assert!(out[4120..].iter().all(|byte| *byte == 1));
        private.set_len(9_000).unwrap();
        private.set_len(20_000).unwrap();
        let mut end = [7; 2000];
        private.read(8_500, &mut end).unwrap();
        assert!(end[..500].iter().all(|byte| *byte == 1) && end[500..].iter().all(|byte| *byte == 0));
        assert_eq!(private.inner.len().unwrap(), 10_000);
        let mut own = [0; 10_000];
        private.inner.read(0, &mut own).unwrap();
        assert!(own.iter().all(|byte| *byte == 1));
    }
}
