//! A damaged database file.

use std::sync::Once;

use super::place::{Place, place};
use crate::meta::exercise::{Edit, Golden, exercise, is_writable, names_a_larger_page, put};

/// No file that is tried is longer.
const LONGEST: usize = 1 << 23;

const PAGE: usize = 4096;

/// Reads bytes as changes of a sound database file, or as the whole of one, and does everything with it that a store does.
/// The lowest bit of the first byte says whether the file is only read, the next one which of the two the rest is, and the third one
/// whether the changes are of the few pages that redb keeps for itself, which a commit trusts.
///
/// - Every call ends with an answer or an error; redb's panics are kept in, and nothing else panics.
/// - What verifies, and can be read, is what was written.
/// - No lock is left: the file, whole again, can be written at once.
///
/// Files that name a page larger than they are themselves are left out: redb takes memory for a page before it reads it, up to
/// 4 GiB for a damaged number.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_database(bytes: &[u8]) {
    thread_local!(static BENCH: Option<(Place, Golden)> = bench());
    static QUIET: Once = Once::new();
    QUIET.call_once(let_redb_panic);
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    BENCH.with(|bench| {
        assert!(bench.is_some(), "no place to work in");
        let Some((dir, golden)) = bench else { return };
        let file = match mode & 6 {
            0 => edited(bytes, golden, &(0..golden.bytes.len() / PAGE).collect::<Vec<_>>()),
            4 => edited(bytes, golden, &golden.own.iter().map(|offset| offset / PAGE).collect::<Vec<_>>()),
            _ => bytes.to_vec(),
        };
        if names_a_larger_page(&file) {
            return;
        }
        let outcome = exercise(dir, &file, mode & 1 == 1);
        assert!(outcome.is_ok(), "{outcome:?}");
        let Ok(outcome) = outcome else { return };
        if mode & 2 == 0 && outcome.sound && outcome.rows.is_some() {
            assert!(outcome.rows.as_ref() == Some(&golden.rows), "verified, and not what was written");
        }
        let path = dir.join("store.redb");
        assert!(put(&path, &golden.bytes).is_ok());
        let written = is_writable(&path);
        assert!(written.is_ok(), "a lock is left: {written:?}");
    });
}

fn bench() -> Option<(Place, Golden)> {
    let dir = place().ok()?;
    let golden = Golden::make(&dir).ok().filter(|golden| !names_a_larger_page(&golden.bytes))?;
    Some((dir, golden))
}

/// The fuzzer ends with the first panic, kept in or not. Here those of redb are what is looked for.
fn let_redb_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|location| location.file().contains("/redb-")) {
            report(panic);
        }
    }));
}

/// More than one run has time for make no other damage.
const MOST_EDITS: usize = 1000;

/// A file with the changes that the bytes say, of these pages.
fn edited(mut bytes: &[u8], golden: &Golden, pages: &[usize]) -> Vec<u8> {
    let mut file = golden.bytes.clone();
    let page = |number: usize| pages.get(number % pages.len().max(1)).copied().unwrap_or_default();
    for _ in 0..MOST_EDITS {
        let [kind, a, b, c, d, rest @ ..] = bytes else { break };
        bytes = rest;
        let low = usize::from(u16::from_le_bytes([*a, *b]));
        let high = usize::from(u16::from_le_bytes([*c, *d]));
        let offset = low | high << 16;
        let offset = page(offset / PAGE) * PAGE + offset % PAGE;
        let edit = match kind % 8 {
            0 => Edit::Zero(page(low)),
            1 => Edit::Copy { from: page(low), to: page(high) },
            2 => Edit::Resize((low | high << 16) % LONGEST),
            3 => Edit::Resize(low % (2 * golden.bytes.len() / PAGE) * PAGE),
            4 => Edit::Flip(offset, kind / 8),
            // At the beginning of a page, where its shape is written down.
            5 => {
                let (written, rest) = bytes.split_at(bytes.len().min(usize::from(kind / 8) % 8 + 1));
                bytes = rest;
                Edit::Write(page(low) * PAGE + high % 128, written.to_vec())
            }
            6 => {
                let (written, rest) = bytes.split_at(bytes.len().min(usize::from(kind / 8) + 1));
                bytes = rest;
                Edit::Write(offset % 512, written.to_vec())
            }
            _ => {
                let (written, rest) = bytes.split_at(bytes.len().min(usize::from(kind / 8) + 1));
                bytes = rest;
                Edit::Write(offset, written.to_vec())
            }
        };
        edit.apply(&mut file);
    }
    file
}
