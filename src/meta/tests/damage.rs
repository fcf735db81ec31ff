//! Files with bytes that nobody wrote: each call ends, with an answer or an error, and the locks are given up.
//! `LAYERSTORE_DAMAGE_RUNS` and `LAYERSTORE_DAMAGE_SEED` (not 0) say how many random ones, and which.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::exercise::{Edit, Golden, Outcome, exercise, is_writable, names_a_larger_page, put};
use super::power::{from_environment, without_message};
use super::*;

const PAGE: usize = 4096;

/// As a generator goes that needs no crate: the same numbers in each run.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

/// One place to work in, with a sound file to begin with.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) golden: Golden,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let golden = Golden::make(dir.path()).unwrap();
        Bench { dir, golden }
    }

    pub(super) fn run(&self, edits: &[Edit], read_only: bool) -> Outcome {
        let mut bytes = self.golden.bytes.clone();
        edits.iter().for_each(|edit| edit.apply(&mut bytes));
        let outcome = self.run_bytes(&format!("{edits:?}"), &bytes, read_only);
        if outcome.sound
            && let Some(rows) = &outcome.rows
        {
            assert!(*rows == self.golden.rows, "{edits:?}: verified, and not what was written");
        }
        outcome
    }

    /// As [`run`](Self::run), of a whole file.
    pub(super) fn run_bytes(&self, what: &str, bytes: &[u8], read_only: bool) -> Outcome {
        let work = || exercise(self.dir.path(), bytes, read_only).unwrap();
        let outcome = without_message(|| catch_unwind(AssertUnwindSafe(work)));
        let outcome = outcome.unwrap_or_else(|_| panic!("{what}: a panic came out"));
        let path = self.dir.path().join("store.redb");
        put(&path, &self.golden.bytes).unwrap();
        is_writable(&path).unwrap_or_else(|error| panic!("{what}: a lock is left: {error}"));
        outcome
    }
}

#[test]
fn a_sound_file_gives_no_error() {
    let bench = Bench::new();
    for read_only in [false, true] {
        let outcome = bench.run(&[], read_only);
        assert!(outcome.sound && outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!(outcome.rows.as_ref(), Some(&bench.golden.rows));
    }
}

#[test]
fn no_damage_of_a_page_is_more_than_an_error() {
    let bench = Bench::new();
    let pages = bench.golden.bytes.len() / PAGE;
    let used: Vec<usize> = (0..pages)
        .filter(|page| bench.golden.bytes[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0))
        .collect();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut damaged = 0;
    let mut edits = Vec::new();
    // Kind, number of entries, and the first offsets or children.
    for (page, at) in used.iter().zip([0, 2, 3, 4, 8].into_iter().cycle()) {
        let start = page * PAGE;
        edits.push(Edit::Zero(*page));
        edits.push(Edit::Copy { from: used[numbers.below(used.len())], to: *page });
        edits.push(Edit::Write(start + at, vec![0xff]));
        edits.push(Edit::Flip(start + numbers.below(64), numbers.below(8) as u8));
    }
    for edit in edits {
        let outcome = bench.run(std::slice::from_ref(&edit), numbers.below(4) == 0);
        damaged += usize::from(outcome.errors.iter().any(|error| matches!(error, MetaError::Damaged { .. })));
    }
    assert!(damaged > 10, "redb panicked {damaged} times: this tests nothing");
}

#[test]
fn no_damage_of_the_header_is_more_than_an_error() {
    let bench = Bench::new();
    for at in 0..320 {
        bench.run(&[Edit::Write(at, vec![!bench.golden.bytes[at]])], at % 5 == 0);
    }
    for at in [9, 12, 16, 20, 24, 28, 64, 65, 72, 80, 96, 104, 112, 168, 176, 180, 192, 200, 296] {
        for value in [0u64, 1, 0xff, 0x7fff_ffff, u64::MAX, 1 << 59, 4096] {
            bench.run(&[Edit::Write(at, value.to_le_bytes().to_vec())], false);
        }
    }
}

#[test]
fn no_length_of_the_file_is_more_than_an_error() {
    let bench = Bench::new();
    let length = bench.golden.bytes.len();
    let mut lengths = vec![
        0,
        1,
        63,
        64,
        320,
        4095,
        4096,
        4097,
        length - 1,
        length + 1,
        length + PAGE,
        2 * length,
        16 << 20,
    ];
    lengths.extend((1..length / PAGE).step_by(5).map(|page| page * PAGE));
    for length in lengths {
        for read_only in [false, true] {
            bench.run(&[Edit::Resize(length)], read_only);
        }
    }
}

#[test]
fn no_random_damage_is_more_than_an_error() {
    let bench = Bench::new();
    let length = bench.golden.bytes.len();
    let used: Vec<usize> = (0..length).filter(|at| bench.golden.bytes[*at] != 0).collect();
    let mut numbers = Numbers(from_environment("LAYERSTORE_DAMAGE_SEED", 0x0123_4567_89ab_cdef));
    for _ in 0..from_environment("LAYERSTORE_DAMAGE_RUNS", 200) {
        let edits: Vec<Edit> = (0..=numbers.below(3))
            .map(|_| match numbers.below(3) {
                0 => Edit::Flip(used[numbers.below(used.len())], numbers.below(8) as u8),
                1 => Edit::Write(
                    used[numbers.below(used.len())],
                    vec![numbers.below(256) as u8; 1 + numbers.below(16)],
                ),
                _ => Edit::Copy { from: numbers.below(length / PAGE), to: numbers.below(length / PAGE) },
            })
            .collect();
        bench.run(&edits, numbers.below(4) == 0);
    }
}

#[test]
fn a_number_of_a_page_larger_than_the_file_is_found() {
    let mut file = Bench::new().golden.bytes;
    assert!(!names_a_larger_page(&file));
    let branch = (0..file.len()).step_by(PAGE).find(|&at| file[at] == 2).unwrap();
    let children = usize::from(u16::from_le_bytes([file[branch + 2], file[branch + 3]])) + 1;
    // The last byte of the first number, with its order.
    let order = branch + 8 + 16 * children + 7;
    file[order] = 19 << 3;
    assert!(names_a_larger_page(&file));
}
