//! The writing half of an import: small files are filled on worker threads, while the parser goes on with the
//! next member. A file is open before its turn comes, so nothing on another thread can change where it lands.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::disk::{FileWriter, Looks, WrittenFile};
use crate::error::UnpackError;
use crate::sys::thread::start;
use crate::timing::{self, Stage};
use crate::types::ContentHash;

/// Files up to this size are handed to the workers; larger ones are written as they are read.
pub(super) const SMALL_FILE: u64 = 256 * 1024;

/// How many files are open at the most, those that workers are at included.
const OPEN: usize = 56;

/// How many batches of files wait for a worker at the most. A batch has less than twice [`SMALL_FILE`] bytes: a bound on memory.
const QUEUE: usize = 1;

/// A file with all its bytes, to be written.
struct Job {
    ordinal: Option<u32>,
    writer: FileWriter,
    content: Vec<u8>,
}

/// What became of a batch: its files, up to the first that could not be written.
type Outcome = Result<Vec<(Option<u32>, WrittenFile)>, UnpackError>;

/// Worker threads that fill files.
pub(super) struct FilePool<'scope> {
    /// There until the pool ends, which ends the workers.
    jobs: Option<SyncSender<Vec<Job>>>,
    workers: Vec<ScopedJoinHandle<'scope, ()>>,
    results: Receiver<Outcome>,
    /// Files that are not handed over yet, and how many bytes they have.
    batch: Vec<Job>,
    batched: u64,
    /// How many files go to a worker at once. To wake a thread costs more than to write a small file, so one that is faster than the
    /// parser is woken for many.
    most: usize,
    done: Contents,
}

/// What is known about the contents of an archive: by their number in it, and by the inode that got them.
#[derive(Debug, Default)]
pub(super) struct Contents {
    by_ordinal: HashMap<u32, (ContentHash, u64)>,
    by_inode: HashMap<u64, ContentHash>,
    looks: Looks,
}

impl Contents {
    /// Notes a written file.
    pub(super) fn add(&mut self, ordinal: Option<u32>, file: &WrittenFile) {
        if let Some(ordinal) = ordinal {
            self.by_ordinal.insert(ordinal, (file.content, file.size));
        }
        self.by_inode.insert(file.inode, file.content);
        if let Some(look) = &file.look {
            self.looks.add(look);
        }
    }

    /// The content hashes of the files that were written, by inode.
    pub(super) fn by_inode(&self) -> &HashMap<u64, ContentHash> {
        &self.by_inode
    }

    /// How the files without attributes were when everything was done to them.
    pub(super) fn looks(&self) -> &Looks {
        &self.looks
    }

    /// Hash and size of each content of the archive, in its order.
    ///
    /// Returns [`io::ErrorKind::InvalidData`] if a number is missing, which no parser leaves.
    pub(super) fn in_order(&self) -> io::Result<Vec<(ContentHash, u64)>> {
        (0..u32::try_from(self.by_ordinal.len()).unwrap_or(u32::MAX))
            .map(|ordinal| self.by_ordinal.get(&ordinal).copied())
            .collect::<Option<_>>()
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl<'scope> FilePool<'scope> {
    /// Starts `workers` threads, which end with the pool.
    ///
    /// Returns the error of making a thread if there is not even one.
    pub(super) fn start(scope: &'scope Scope<'scope, '_>, workers: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<Vec<Job>>(QUEUE);
        let (sender, results) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut started = Vec::new();
        for _ in 0..workers.max(1) {
            let (queue, sender) = (Arc::clone(&queue), sender.clone());
            match start(scope, "fill", move || timing::spanned(Stage::Write, || work(&queue, &sender))) {
                Ok(worker) => started.push(worker),
                Err(error) if started.is_empty() => return Err(error),
                // Fewer do as well, where a limit of processes refuses more.
                Err(_) => break,
            }
        }
        // One is being filled.
        let batches = started.len().saturating_add(QUEUE + 1);
        let most = OPEN.checked_div(batches).unwrap_or_default().max(1);
        let (batch, done) = (Vec::with_capacity(most), Contents::default());
        Ok(FilePool { jobs: Some(jobs), workers: started, results, batch, batched: 0, most, done })
    }

    /// Hands a file with all its bytes to a worker, when there are some more for it. Waits while the queue is full.
    ///
    /// Returns the first error of any file handed in before.
    pub(super) fn write(
        &mut self,
        ordinal: Option<u32>,
        writer: FileWriter,
        content: Vec<u8>,
    ) -> Result<(), UnpackError> {
        self.batched = self.batched.saturating_add(u64::try_from(content.len()).unwrap_or(u64::MAX));
        self.batch.push(Job { ordinal, writer, content });
        if self.batch.len() < self.most && self.batched < SMALL_FILE {
            return Ok(());
        }
        self.collect()?;
        self.hand_over()
    }

    fn hand_over(&mut self) -> Result<(), UnpackError> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(self.most));
        self.batched = 0;
        if batch.is_empty() {
            return Ok(());
        }
        let are_gone =
            |jobs: &SyncSender<Vec<Job>>| timing::spanned(Stage::QueueWait, || jobs.send(batch).is_err());
        if self.jobs.as_ref().is_none_or(are_gone) {
            // The workers end early on an error only, and that error waits among the results.
            return self.wait();
        }
        Ok(())
    }

    /// Notes a file that was written without a worker.
    pub(super) fn add(&mut self, ordinal: Option<u32>, file: &WrittenFile) {
        self.done.add(ordinal, file);
    }

    fn collect(&mut self) -> Result<(), UnpackError> {
        while let Ok(outcome) = self.results.try_recv() {
            self.note(outcome)?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), UnpackError> {
        while let Ok(outcome) = timing::spanned(Stage::QueueWait, || self.results.recv()) {
            self.note(outcome)?;
        }
        Ok(())
    }

    fn note(&mut self, outcome: Outcome) -> Result<(), UnpackError> {
        for (ordinal, file) in outcome? {
            self.done.add(ordinal, &file);
        }
        Ok(())
    }

    /// Waits for all files.
    ///
    /// Returns the first error of any.
    pub(super) fn finish(mut self) -> Result<Contents, UnpackError> {
        self.hand_over()?;
        self.jobs = None;
        self.wait()?;
        for worker in self.workers.drain(..) {
            let ended = timing::spanned(Stage::QueueWait, || worker.join());
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        Ok(std::mem::take(&mut self.done))
    }
}

impl Drop for FilePool<'_> {
    /// A scope waits for what its threads do, and not until they are gone with all that is theirs.
    fn drop(&mut self) {
        self.jobs = None;
        for worker in self.workers.drain(..) {
            // Whatever it says: the first error is told already.
            drop(worker.join());
        }
    }
}

fn work(queue: &Mutex<Receiver<Vec<Job>>>, results: &Sender<Outcome>) {
    loop {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = timing::spanned(Stage::QueueWait, next) else { return };
        let outcome: Outcome = batch.into_iter().map(write).collect();
        let failed = outcome.is_err();
        if results.send(outcome).is_err() || failed {
            return;
        }
    }
}

fn write(Job { ordinal, mut writer, content }: Job) -> Result<(Option<u32>, WrittenFile), UnpackError> {
    writer.write_all(&content)?;
    Ok((ordinal, writer.finish()?))
}
