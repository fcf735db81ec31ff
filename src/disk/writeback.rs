//! Writing out while more is written: an import syncs its filesystem once at the end, and that sync waits for less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::JoinHandle;

use super::layout::{Layout, SyncPoint};
use crate::error::LayoutError;
use crate::sys::moment;
use crate::sys::thread::start_own;

/// After so many bytes the filesystem is written out once more. With fewer, the commits of its journal cost more than the disk
/// gains by beginning earlier; and most layers have fewer, so that only their end costs a sync.
const STEP: u64 = 128 << 20;

/// For tests.
const WRITTEN_OUT: &str = "written out";

/// What a file takes besides its bytes, more or less: its inode, its name, and what the journal has of both.
const BESIDES: u64 = 4096;

/// Begins to write a filesystem out whenever much was written to it, on a thread beside. Clones count together.
///
/// Nothing relies on it: what is on the disk says the sync at the end, whose descriptor is another, so that it is told of each
/// write that failed here. The last clone to go waits for the thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writeback(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    point: Arc<SyncPoint>,
    /// How many bytes were written since the thread was last started.
    written: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writeback {
    /// Of the filesystem of a store.
    ///
    /// Returns [`LayoutError::Io`] if the root cannot be opened.
    pub(crate) fn of(layout: &Layout) -> Result<Self, LayoutError> {
        let point = Arc::new(layout.sync_point()?);
        Ok(Writeback(Some(Arc::new(Shared { point, written: AtomicU64::new(0), thread: Mutex::default() }))))
    }

    /// A file was written.
    pub(crate) fn wrote_file(&self) {
        self.wrote(BESIDES);
    }

    /// So many bytes were written.
    pub(crate) fn wrote(&self, bytes: u64) {
        let Some(shared) = &self.0 else { return };
        let before = shared.written.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) >= STEP {
            shared.begin();
        }
    }
}

impl Shared {
    /// Starts the thread, if it is not at work.
    fn begin(&self) {
        let mut thread = match self.thread.try_lock() {
            Ok(thread) => thread,
            // Somebody else is just starting it.
            Err(TryLockError::WouldBlock) => return,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        if thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.written.store(0, Ordering::Relaxed);
        let point = Arc::clone(&self.point);
        let write_out = move || {
            if let Err(error) = point.sync() {
                tracing::debug!(%error, "writing out while more is written");
            }
            moment::pass(WRITTEN_OUT);
        };
        // Without a thread it is all left to the sync at the end.
        *thread = start_own("writeback", write_out).ok();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let thread = self.thread.get_mut().map_or_else(|poisoned| poisoned.into_inner().take(), Option::take);
        if let Some(thread) = thread {
            // It has told what there was to tell.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::disk::XattrNamespace;

    /// Whether it has written out when the last clone has gone.
    fn has_written_out(writeback: Writeback, pieces: &[u64]) -> bool {
        let (told, wrote_out) = channel();
        moment::meanwhile(WRITTEN_OUT, move || told.send(()).unwrap());
        pieces.iter().for_each(|bytes| writeback.clone().wrote(*bytes));
        drop(writeback);
        let has = wrote_out.try_recv().is_ok();
        moment::pass(WRITTEN_OUT);
        has
    }

    #[test]
    fn much_is_written_out_before_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        let writes_out = |pieces: &[u64]| has_written_out(Writeback::of(&layout).unwrap(), pieces);
        assert!(!writes_out(&[STEP - 1]));
        assert!(writes_out(&[STEP]));
        assert!(writes_out(&[STEP - 1, 1]));
        assert!(!has_written_out(Writeback::default(), &[STEP]), "for those who want no sync");
    }
}
