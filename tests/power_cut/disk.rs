//! A disk in memory with a volatile write cache, that keeps a record of all it was sent.
//!
//! What a disk holds after a power cut is everything it was sent before its last flush, and of the rest whatever chance
//! decides: each block of each write by itself. So from the record every state can be made that a cut could leave.

use std::collections::HashMap;
use std::sync::Arc;

use crate::support::random::Random;

/// The unit that is written whole or not at all.
pub const BLOCK: usize = 4096;

type Block = Arc<[u8; BLOCK]>;

/// The content of a disk: blocks that are missing are zeros.
#[derive(Clone, Default)]
pub struct Content(HashMap<u64, Block>);

/// What a disk was sent, in order.
pub enum Event {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    Zero {
        offset: u64,
        length: u64,
    },
    Flush,
    /// Something that happened elsewhere, between what was sent before and after.
    Mark(Vec<u8>),
}

impl Content {
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        for (block, within, part) in pieces(offset, length) {
            if let Some(data) = self.0.get(&block) {
                bytes[part.clone()].copy_from_slice(&data[within..within + part.len()]);
            }
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.write_some(offset, bytes, &mut || true);
    }

    /// Writes the blocks that `reached` says arrived.
    fn write_some(&mut self, offset: u64, bytes: &[u8], reached: &mut impl FnMut() -> bool) {
        for (block, within, part) in pieces(offset, bytes.len()) {
            if reached() {
                let data = self.0.entry(block).or_insert_with(|| Arc::new([0; BLOCK]));
                Arc::make_mut(data)[within..within + part.len()].copy_from_slice(&bytes[part]);
            }
        }
    }

    pub fn zero(&mut self, offset: u64, length: u64) {
        let end = offset + length;
        let mut next = offset;
        while next < end {
            let (block, within) = (next / BLOCK as u64, (next % BLOCK as u64) as usize);
            let count = (BLOCK - within).min((end - next) as usize);
            if count == BLOCK {
                self.0.remove(&block);
            } else if let Some(data) = self.0.get_mut(&block) {
                Arc::make_mut(data)[within..within + count].fill(0);
            }
            next += count as u64;
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { offset, bytes } => self.write(*offset, bytes),
            Event::Zero { offset, length } => self.zero(*offset, *length),
            Event::Flush | Event::Mark(_) => {}
        }
    }
}

/// The blocks of a range: number, place in the block, and part of the range.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let count = (BLOCK - within).min(length - done);
        let part = done..done + count;
        done += count;
        Some((at / BLOCK as u64, within, part))
    })
}

/// What becomes of the writes that no flush followed.
#[derive(Clone, Copy, Debug)]
pub enum Cache {
    /// None was written.
    Lost,
    /// All were.
    Written,
    /// Each block of them by chance.
    Mixed,
}

/// Goes through a record, from the beginning, and makes what cuts leave.
pub struct Replay {
    position: usize,
    /// Everything up to the last flush.
    durable: Content,
    flushed: usize,
}

impl Replay {
    /// The record of a disk that had this content when it began.
    pub fn new(durable: Content) -> Self {
        Replay { position: 0, durable, flushed: 0 }
    }

    /// What a cut before the event at `position` leaves. Positions must not go back.
    pub fn cut(&mut self, events: &[Event], position: usize, cache: Cache, random: &mut Random) -> Content {
        assert!(self.position <= position);
        self.position = position;
        let last_flush = events[..position].iter().rposition(|event| matches!(event, Event::Flush));
        let flushed = last_flush.unwrap_or(0).max(self.flushed);
        for event in &events[self.flushed..flushed] {
            self.durable.apply(event);
        }
        self.flushed = flushed;
        let mut content = self.durable.clone();
        for event in &events[flushed..position] {
            match (cache, event) {
                (Cache::Lost, _) => {}
                (Cache::Mixed, Event::Write { offset, bytes }) => {
                    content.write_some(*offset, bytes, &mut || random.below(2) == 0);
                }
                (Cache::Mixed, Event::Zero { .. }) if random.below(2) == 0 => {}
                (Cache::Mixed | Cache::Written, event) => content.apply(event),
            }
        }
        content
    }
}

#[test]
fn a_cut_keeps_what_was_flushed_and_chance_the_rest() {
    let write = |offset: u64, byte: u8| Event::Write { offset, bytes: vec![byte; 2 * BLOCK] };
    let size = 4 * BLOCK;
    let events = [write(0, 1), Event::Flush, write(BLOCK as u64, 2), Event::Mark(Vec::new()), Event::Flush];
    let mut random = Random::new(1);
    let mut at = |position, cache| {
        Replay::new(Content::default()).cut(&events, position, cache, &mut random).read(0, size)
    };
    assert_eq!(at(1, Cache::Lost), vec![0; size]);
    assert_eq!(at(3, Cache::Lost), [vec![1; 2 * BLOCK], vec![0; 2 * BLOCK]].concat());
    let all = [vec![1; BLOCK], vec![2; 2 * BLOCK], vec![0; BLOCK]].concat();
    assert_eq!(at(4, Cache::Written), all);
    assert_eq!(at(5, Cache::Lost), all);
    let mixed: std::collections::BTreeSet<_> = (0..50).map(|_| at(4, Cache::Mixed)).collect();
    assert_eq!(mixed.len(), 4);
}

#[test]
fn parts_of_blocks_are_written_and_zeroed() {
    let mut content = Content::default();
    content.write(4000, &[7; 200]);
    content.zero(4050, 100);
    assert_eq!(content.read(3999, 202), [vec![0], vec![7; 50], vec![0; 100], vec![7; 50], vec![0]].concat());
}
