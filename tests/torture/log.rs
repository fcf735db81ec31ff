//! The log of a round: each worker writes what it is about to do, and then what came of it. Who was killed between the
//! two may have done it or not; what is not in the log was never begun.
//!
//! A line is one `write` to a file opened with `O_APPEND`, so lines of several processes do not mix, and their order is
//! one in which they happened: an operation whose answer stands before the intent of another came before it. A kill can
//! cut the last line of a process; that line counts as not written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Owned;
use super::op::{Op, Outcome};

/// A line of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Line {
    /// A worker has begun, and found this of its own things.
    Started {
        worker: Worker,
        seen: Owned,
        patient: bool,
    },
    Intent {
        worker: Worker,
        number: u64,
        op: Op,
    },
    Answer {
        worker: Worker,
        number: u64,
        outcome: Outcome,
    },
    /// A worker found something that must not be, and stopped.
    Failed {
        worker: Worker,
        message: String,
    },
    /// A worker has done all it was to do, and left nothing mounted.
    Ended {
        worker: Worker,
    },
    /// A worker was found dead. Nothing of it happens after this line.
    Died {
        worker: Worker,
    },
}

/// One process.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Whose things it has: those whose ids and names begin with [`Worker::prefix`].
    pub slot: usize,
    /// Which process of this slot it is. No other has the same, in all rounds on the store.
    pub incarnation: String,
}

impl Worker {
    /// How ids and names of a slot's own things begin.
    pub fn prefix(slot: usize) -> String {
        format!("w{slot}-")
    }

    /// A word for what this process makes with its operation of this number.
    pub fn word(&self, number: u64) -> String {
        format!("{}{}-{number}", Self::prefix(self.slot), self.incarnation)
    }
}

impl Line {
    pub fn worker(&self) -> &Worker {
        match self {
            Line::Started { worker, .. }
            | Line::Intent { worker, .. }
            | Line::Answer { worker, .. }
            | Line::Failed { worker, .. }
            | Line::Ended { worker }
            | Line::Died { worker } => worker,
        }
    }
}

/// The log, open for writing.
#[derive(Debug)]
pub struct Log(File);

impl Log {
    pub fn append_to(path: &Path) -> Self {
        Self(OpenOptions::new().append(true).create(true).open(path).unwrap())
    }

    pub fn write(&mut self, line: &Line) {
        // The first line feed ends what a kill has cut.
        let mut bytes = b"\n".to_vec();
        serde_json::to_writer(&mut bytes, line).unwrap();
        bytes.push(b'\n');
        let written = self.0.write(&bytes).unwrap();
        assert_eq!(written, bytes.len(), "a line of the log must be one write");
    }
}

/// One operation, from its intent to its answer or the end of its process.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub worker: Worker,
    pub op: Op,
    /// Where in the log it began.
    pub start: usize,
    /// Where it ended; `usize::MAX` if it may still go on.
    pub end: usize,
    /// What came of it; `None` if that is not known.
    pub outcome: Option<Outcome>,
    /// Whether its worker waits for locks as long as it takes.
    pub patient: bool,
}

impl Attempt {
    /// Whether the two may have run at the same time.
    pub fn overlaps(&self, other: &Attempt) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// What one worker saw or did.
#[derive(Clone, Debug)]
pub enum Entry {
    Started { worker: Worker, seen: Box<Owned> },
    Attempt(Box<Attempt>),
}

/// A log that was read.
#[derive(Debug, Default)]
pub struct History {
    pub entries: Vec<Entry>,
    pub failures: Vec<String>,
    /// How many processes died by a signal.
    pub deaths: usize,
}

impl History {
    /// Reads a log in which every line counts.
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap_or_default();
        let (lines, cut) = parse_lines(&bytes);
        let mut history = Self::of(&lines, usize::MAX);
        if cut > history.deaths {
            history.failures.push(format!("{cut} lines of the log are cut, and {} died", history.deaths));
        }
        history
    }

    /// Puts lines together. Only answers among the first `certain` lines count: what was answered later may not be in
    /// a copy of the store that was made from then on, or may be.
    pub fn of(lines: &[Line], certain: usize) -> Self {
        let mut history = History::default();
        let mut running: std::collections::HashMap<Worker, usize> = Default::default();
        let mut patience: std::collections::HashMap<Worker, bool> = Default::default();
        for (at, line) in lines.iter().enumerate() {
            let worker = line.worker().clone();
            match line {
                Line::Started { seen, patient, .. } => {
                    patience.insert(worker.clone(), *patient);
                    // What it saw after the copy was begun need not be in the copy.
                    if at < certain {
                        history.entries.push(Entry::Started { worker, seen: Box::new(seen.clone()) });
                    }
                }
                Line::Intent { op, .. } => {
                    running.insert(worker.clone(), history.entries.len());
                    let patient = patience.get(&worker).copied().unwrap_or(true);
                    let (start, end) = (at, usize::MAX);
                    history.entries.push(Entry::Attempt(Box::new(Attempt {
                        worker,
                        op: op.clone(),
                        start,
                        end,
                        outcome: None,
                        patient,
                    })));
                }
                Line::Answer { outcome, .. } => {
                    let attempt = running.remove(&worker).map(|index| &mut history.entries[index]);
                    let Some(Entry::Attempt(attempt)) = attempt else {
                        history.failures.push(format!("line {at}: an answer without an intent: {line:?}"));
                        continue;
                    };
                    if at < certain {
                        (attempt.end, attempt.outcome) = (at, Some(outcome.clone()));
                    }
                }
                Line::Failed { message, .. } => {
                    history.failures.push(format!("{worker:?} failed: {message}"));
                }
                Line::Ended { .. } => {}
                Line::Died { .. } => {
                    history.deaths += 1;
                    if let Some(index) = running.remove(&worker)
                        && let Entry::Attempt(attempt) = &mut history.entries[index]
                        && at < certain
                    {
                        attempt.end = at;
                    }
                }
            }
        }
        history
    }

    /// Every operation, in the order in which they began.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> + Clone {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Attempt(attempt) => Some(&**attempt),
            Entry::Started { .. } => None,
        })
    }

    /// What the workers of one slot saw and did, in order.
    pub fn of_slot(&self, slot: usize) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| match entry {
            Entry::Started { worker, .. } => worker.slot == slot,
            Entry::Attempt(attempt) => attempt.worker.slot == slot,
        })
    }
}

/// All whole lines among bytes of a log, and how many are cut.
pub fn parse_lines(bytes: &[u8]) -> (Vec<Line>, usize) {
    let pieces = bytes.split(|byte| *byte == b'\n').filter(|piece| !piece.is_empty());
    let mut cut = 0;
    let whole = pieces.filter_map(|piece| serde_json::from_slice(piece).inspect_err(|_| cut += 1).ok());
    (whole.collect(), cut)
}

#[test]
fn a_line_that_a_kill_has_cut_is_not_there() {
    let worker = || Worker { slot: 1, incarnation: "1.0".to_owned() };
    let line = serde_json::to_vec(&Line::Intent { worker: worker(), number: 0, op: Op::Gc }).unwrap();
    let died = serde_json::to_vec(&Line::Died { worker: worker() }).unwrap();
    let bytes = [b"\n", &line[..], b"\n", b"\n", &line[..9], b"\n", &died, b"\n"].concat();
    let (lines, cut) = parse_lines(&bytes);
    assert_eq!((lines.len(), cut), (2, 1));
    let history = History::of(&lines, usize::MAX);
    let attempt = history.attempts().next().unwrap();
    assert_eq!((attempt.start, attempt.end, attempt.outcome.clone()), (0, 1, None));
}
