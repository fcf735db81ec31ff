//! What reaches a database file, in order: for tests of power cuts. A process's death is played by handles that
//! lose their locks and write no more.

use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    SetLen(u64),
    /// All before it is on the disk.
    Sync,
}

/// The steps of all handles that share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    events: Vec<Event>,
    /// Raised by each death: older handles are dead.
    generation: u64,
    /// How many steps the living may take.
    steps_left: Option<u64>,
    /// The sync that fails, counted from the next one on.
    failing_sync: Option<u64>,
}

impl Recorder {
    /// Handles on `inner` write down what they do.
    pub(super) fn wrap(&self, inner: FileBackend) -> Recorded {
        Recorded { inner, recorder: self.clone(), generation: self.lock().generation }
    }

    /// What was done until now.
    pub(super) fn events(&self) -> Vec<Event> {
        self.lock().events.clone()
    }

    /// How many steps there were.
    pub(super) fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// All open handles die after so many more steps.
    pub(super) fn die_after(&self, steps: u64) {
        self.lock().steps_left = Some(steps);
    }

    /// All open handles are dead now, if they are not yet; new ones live.
    pub(super) fn die(&self) {
        let mut recording = self.lock();
        recording.generation += 1;
        recording.steps_left = None;
    }

    /// The disk fails at the sync before which there are so many more, or at none any more. The kernel forgets what it was to write:
    /// that is never on the disk, unless somebody writes it again.
    pub(super) fn fail_sync(&self, after: Option<u64>) {
        self.lock().failing_sync = after;
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording {
    fn sync_fails(&mut self) -> bool {
        let Some(left) = self.failing_sync else { return false };
        self.failing_sync = left.checked_sub(1);
        if left > 0 {
            return false;
        }
        let synced = self.events.iter().rposition(|event| matches!(event, Event::Sync));
        for event in self.events.iter_mut().skip(synced.map_or(0, |at| at + 1)) {
            if let Event::Write { data, .. } = event {
                data.clear();
            }
        }
        true
    }
}

/// A handle on the file.
#[derive(Debug)]
pub(super) struct Recorded {
    inner: FileBackend,
    recorder: Recorder,
    generation: u64,
}

impl Recorded {
    fn step(&self, event: Event, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut recording = self.recorder.lock();
        let dead = recording.generation != self.generation || recording.steps_left == Some(0);
        if dead {
            return Err(io::Error::other("the process is dead"));
        }
        if let Some(steps) = &mut recording.steps_left {
            *steps -= 1;
        }
        act()?;
        recording.events.push(event);
        Ok(())
    }
}

impl StorageBackend for Recorded {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.step(Event::SetLen(len), || self.inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.recorder.lock().sync_fails() {
            return Err(io::Error::other("the disk fails"));
        }
        // To the disk of the test: it is slow, and its power stays on.
        self.step(Event::Sync, || Ok(()))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.step(Event::Write { offset, data: data.to_vec() }, || self.inner.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
