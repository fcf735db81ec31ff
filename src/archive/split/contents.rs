//! The files that an archive is joined from: opened, read and verified in the order of the table, ahead of who writes the archive.
//!
//! ```text
//! table -> [open, read, hash] -> batches -> [records, write]
//!               own thread                    this thread
//! ```
//!
//! A batch has a piece of a large file, or many small ones, since waking a thread costs more than reading one. The queue is short, so
//! memory stays bounded whatever the speeds are.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::{mem, thread};

use super::{BEYOND, Content, Open, Source};
use crate::error::SplitError;
use crate::sys::thread::start;
use crate::timing::{self, Stage};

/// How many bytes a batch has at the most.
pub(super) const BATCH: usize = 128 * 1024;

/// How many files a batch has at the most, however small they are.
const FILES_OF_A_BATCH: usize = 256;

/// How many batches wait in the queue at the most.
pub(super) const QUEUE: usize = 4;

/// For fewer files, a thread would cost more than it gains.
const FILES_OF_A_THREAD: usize = 32;

/// Runs `consume` with the bytes of all contents.
pub(super) fn supply<T>(
    contents: &[Content],
    open: Open<'_>,
    consume: impl FnOnce(&mut Supply<'_, '_>) -> T,
) -> T {
    let reading = || Reading::new(contents, open);
    let bytes = contents.iter().map(|content| content.size).fold(0, u64::saturating_add);
    if contents.len() < FILES_OF_A_THREAD && bytes <= BATCH as u64 {
        return consume(&mut Supply::new(Origin::Here(Box::new(reading()))));
    }
    let (batches, ahead) = sync_channel(QUEUE);
    let (back, used) = channel();
    thread::scope(|scope| {
        let Ok(reader) = start(scope, "read", move || run(reading(), &batches, &used)) else {
            // Where a limit of processes refuses one, it only takes longer.
            return consume(&mut Supply::new(Origin::Here(Box::new(reading()))));
        };
        // With the queue gone the reader stops at its next batch, however this ends.
        let consumed = consume(&mut Supply::new(Origin::Ahead(ahead, back)));
        let ended = timing::during(Stage::QueueWait, || reader.join());
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        consumed
    })
}

/// Fills batches for as long as somebody wants them, in memory that comes back.
fn run(mut reading: Reading<'_, '_>, batches: &SyncSender<Batch>, used: &Receiver<Batch>) {
    loop {
        let mut batch = used.try_recv().unwrap_or_default();
        reading.fill(&mut batch);
        let is_last = batch.parts.is_empty();
        if timing::during(Stage::QueueWait, || batches.send(batch)).is_err() || is_last {
            return;
        }
    }
}

/// Bytes of one or several contents, one after the other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

/// Some bytes of a content.
struct Part {
    ordinal: u32,
    /// Where they are in the batch.
    bytes: Range<usize>,
    verdict: Verdict,
}

/// What is known of a content with a part of it.
enum Verdict {
    /// More of it comes.
    Open,
    /// It ends here, and all of it is what it should be.
    Right,
    /// It is not, or cannot be read.
    Wrong(SplitError),
}

/// Reads contents into batches.
struct Reading<'c, 'o> {
    contents: &'c [Content],
    next: usize,
    open: Open<'o>,
    /// Of the content whose turn it is, if it was begun: the file, and how much of it was read.
    begun: Option<(Source<'o>, u64)>,
    /// All of a file is hashed, also what the archive does not have: a hole that is no hole any more is a change too.
    hasher: blake3::Hasher,
}

impl<'c, 'o> Reading<'c, 'o> {
    fn new(contents: &'c [Content], open: Open<'o>) -> Self {
        Reading { contents, next: 0, open, begun: None, hasher: blake3::Hasher::new() }
    }

    /// Reads as many contents as fit, or as much of a large one. There are no parts in the batch if none is left.
    fn fill(&mut self, batch: &mut Batch) {
        let Batch { bytes, parts } = batch;
        parts.clear();
        // With room for the byte that shows that a file has grown.
        bytes.resize(BATCH.saturating_add(1), 0);
        let mut filled = 0_usize;
        while let Some(content) = self.contents.get(self.next) {
            // Small files stay whole: nothing of them is given out before it is verified.
            let fits = filled == 0 || content.size <= BATCH.saturating_sub(filled) as u64;
            if !fits || parts.len() >= FILES_OF_A_BATCH {
                break;
            }
            let ordinal = u32::try_from(self.next).unwrap_or(u32::MAX);
            let (count, verdict) = self.read(content, bytes.get_mut(filled..).unwrap_or_default());
            let end = filled.saturating_add(count);
            parts.push(Part { ordinal, bytes: filled..end, verdict });
            filled = end;
            if self.begun.is_some() {
                break;
            }
            self.next = self.next.saturating_add(1);
        }
    }

    /// Reads on in a content, or begins with it.
    fn read(&mut self, content: &Content, room: &mut [u8]) -> (usize, Verdict) {
        let hash = || content.hash.to_string();
        let unreadable = |source| (0, Verdict::Wrong(SplitError::Content { content: hash(), source }));
        let (mut source, position) = match self.begun.take() {
            Some(begun) => begun,
            None => match (self.open)(&content.hash, content.size) {
                Ok(source) => {
                    self.hasher.reset();
                    (source, 0)
                }
                Err(error) => return unreadable(error),
            },
        };
        let left = usize::try_from(content.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let (wanted, is_last) = if left < room.len() { (left, true) } else { (BATCH, false) };
        // The last bytes are asked for with one more, so that a small file is read with one call.
        let asked = room.get_mut(..wanted.saturating_add(usize::from(is_last))).unwrap_or_default();
        let count = match read_up_to(&mut source, asked, wanted) {
            Ok(count) => count,
            Err(error) => return unreadable(error),
        };
        self.hasher.update(room.get(..count).unwrap_or_default());
        if count == wanted && !is_last {
            self.begun = Some((source, position.saturating_add(count as u64)));
            return (count, Verdict::Open);
        }
        if count == wanted && *self.hasher.finalize().as_bytes() == content.hash.0 {
            return (count, Verdict::Right);
        }
        (count, Verdict::Wrong(SplitError::Mismatch { content: hash() }))
    }
}

/// Reads until a buffer has `enough` bytes, if there are so many: more, if one call gives them.
fn read_up_to(source: &mut Source<'_>, buffer: &mut [u8], enough: usize) -> io::Result<usize> {
    let mut count = 0_usize;
    loop {
        match source.read(buffer.get_mut(count..).unwrap_or_default()) {
            Ok(0) => return Ok(count),
            Ok(more) => count = count.saturating_add(more),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if count >= enough {
            return Ok(count);
        }
    }
}

/// Where batches come from.
enum Origin<'c, 'o> {
    /// This thread.
    Here(Box<Reading<'c, 'o>>),
    /// The reader's queue, and the one that memory goes back by.
    Ahead(Receiver<Batch>, Sender<Batch>),
}

/// Gives out the bytes of contents, in the order of the table.
pub(super) struct Supply<'c, 'o> {
    origin: Origin<'c, 'o>,
    batch: Batch,
    /// The part whose turn it is, and how much of it was given out.
    part: usize,
    given: usize,
}

impl<'c, 'o> Supply<'c, 'o> {
    fn new(origin: Origin<'c, 'o>) -> Self {
        Supply { origin, batch: Batch::default(), part: 0, given: 0 }
    }

    /// Gives the next `len` bytes of a content to `each`, piece by piece.
    ///
    /// Returns what is wrong with the content, as far as that is known by now.
    pub(super) fn read(
        &mut self,
        ordinal: u32,
        len: u64,
        each: &mut dyn FnMut(&[u8]) -> Result<(), SplitError>,
    ) -> Result<(), SplitError> {
        let mut left = len;
        while left > 0 {
            let rest = self.rest_of_part(ordinal)?;
            let now = usize::try_from(left).ok().and_then(|left| rest.get(..left)).unwrap_or(rest);
            each(now)?;
            let count = now.len();
            if count == 0 {
                return Err(SplitError::Damaged(BEYOND));
            }
            self.given = self.given.saturating_add(count);
            left = left.saturating_sub(count as u64);
        }
        Ok(())
    }

    /// Passes by what is left of a content.
    ///
    /// Returns what is wrong with it.
    pub(super) fn finish(&mut self, ordinal: u32) -> Result<(), SplitError> {
        loop {
            let part = self.turn(ordinal)?;
            let (length, is_last) = (part.bytes.len(), matches!(part.verdict, Verdict::Right));
            self.given = length;
            if is_last {
                return Ok(());
            }
        }
    }

    /// What was not given out of the part of a content; nothing at its end.
    fn rest_of_part(&mut self, ordinal: u32) -> Result<&[u8], SplitError> {
        let part = self.turn(ordinal)?.bytes.clone();
        let rest = part.start.saturating_add(self.given)..part.end;
        Ok(self.batch.bytes.get(rest).unwrap_or_default())
    }

    /// Goes on to the next part of a content that is not given out, or to its last.
    fn turn(&mut self, ordinal: u32) -> Result<&Part, SplitError> {
        loop {
            let Some(part) = self.batch.parts.get_mut(self.part) else {
                self.refill()?;
                continue;
            };
            let is_given = self.given >= part.bytes.len() && matches!(part.verdict, Verdict::Open);
            if part.ordinal < ordinal || is_given {
                (self.part, self.given) = (self.part.saturating_add(1), 0);
                continue;
            }
            if let Verdict::Wrong(_) = part.verdict
                && let Verdict::Wrong(error) = mem::replace(&mut part.verdict, Verdict::Open)
            {
                return Err(error);
            }
            break;
        }
        self.batch.parts.get(self.part).ok_or(SplitError::Damaged(BEYOND))
    }

    fn refill(&mut self) -> Result<(), SplitError> {
        let mut used = mem::take(&mut self.batch);
        self.batch = match &mut self.origin {
            Origin::Here(reading) => {
                reading.fill(&mut used);
                used
            }
            Origin::Ahead(batches, back) => {
                // A reader that has come to the end needs no memory.
                drop(back.send(used));
                timing::during(Stage::QueueWait, || batches.recv()).unwrap_or_default()
            }
        };
        (self.part, self.given) = (0, 0);
        let ended = || SplitError::Read(io::Error::other("its files were not read to the end"));
        if self.batch.parts.is_empty() { Err(ended()) } else { Ok(()) }
    }
}
