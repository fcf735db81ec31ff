//! How many calls are worked on at a time.

use std::io;
use std::sync::Arc;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What a call does. Those of one kind wait for each other when there are many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It looks at records, and is done at once.
    Look,
    /// It reads, writes or deletes files, or waits for others who write: a commit may take minutes.
    Long,
}

/// How many calls of each kind are worked on at a time; others wait.
const EACH: u16 = 32;

/// Permits for threads: each one at work has one.
#[derive(Clone, Debug)]
pub struct Threads {
    looks: Arc<Semaphore>,
    long: Arc<Semaphore>,
    each: u16,
}

impl Threads {
    /// How many threads there may be in all.
    pub const MAX: usize = 2 * EACH as usize;

    /// As many for each kind of work.
    pub fn new(each: u16) -> Self {
        let permits = || Arc::new(Semaphore::new(each.into()));
        Threads { looks: permits(), long: permits(), each }
    }

    /// Waits until there may be one more.
    pub async fn permit(&self, work: Work) -> Result<OwnedSemaphorePermit, AcquireError> {
        let permits = match work {
            Work::Look => &self.looks,
            Work::Long => &self.long,
        };
        Arc::clone(permits).acquire_owned().await
    }

    /// Waits until no thread is at work, also for those whose callers went away.
    pub async fn all_done(&self) -> io::Result<()> {
        let all = async |permits: &Semaphore| permits.acquire_many(self.each.into()).await.map(drop);
        all(&self.long).await.map_err(io::Error::other)?;
        all(&self.looks).await.map_err(io::Error::other)
    }
}

impl Default for Threads {
    fn default() -> Self {
        Threads::new(EACH)
    }
}
