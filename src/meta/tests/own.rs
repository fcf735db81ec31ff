//! What redb keeps for itself in a file, verified before a change. An end of the process, as by a panic in a panic, is the end of
//! these tests.

use std::fs;
use std::ops::Range;

use twox_hash::XxHash3_128;

use super::damage::{Bench, Numbers};
use super::power::{from_environment, without_message};
use super::*;
use crate::meta::exercise::{Edit, Golden, put};
use crate::meta::page::{Commit, Node, PAGE, PageNumber, TableRow, Widths};
use crate::meta::system;
use crate::sys::file::File;

const LISTS: Widths = Widths { key: Some(16), value: None };
const RECORDS: Widths = Widths { key: Some(5), value: None };

fn verified(path: &Path) -> Vec<Range<u64>> {
    system::verify(&File::open(path).unwrap()).unwrap()
}

/// A file that grows, shrinks, is compacted and read meanwhile. Each write verifies what the last one left.
#[test]
fn what_redb_writes_is_found_to_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let mut numbers = Numbers(0x1357_9bdf_0246_8ace);
    let mut readers = Vec::new();
    let mut most = 0;
    for round in 0..from_environment("LAYERSTORE_DAMAGE_RUNS", 60) {
        let key = format!("item-{}", numbers.below(20));
        let bound = 1 << numbers.below(22);
        let length = numbers.below(bound);
        let written = database.write::<_, MetaError>(|txn| match length % 3 {
            0 => txn.remove_item(Owner::Image, "i", &key).map(drop),
            _ => {
                let bytes: Vec<u8> = (0..length).map(|at| (at ^ at >> 8 ^ round as usize) as u8).collect();
                txn.put_item(Owner::Image, "i", &key, "sha256:x".into(), &PreparedBlob::from_bytes(&bytes))
            }
        });
        written.unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        match numbers.below(8) {
            0 | 1 => readers.push(database.begin_read().unwrap()),
            2 => readers.clear(),
            3 => {
                readers.clear();
                database.compact().unwrap();
            }
            _ => {}
        }
        most = most.max(verified(database.path()).len());
    }
    assert!(most > 5, "the lists of freed pages were never long");
}

/// What a write reads more than redb does, in the ordinary case.
#[test]
fn to_verify_costs_a_few_pages() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    for round in 0..20 {
        with_shared_tree(&database);
        let own = verified(database.path());
        let pages: u64 = own.iter().map(|pages| pages.end - pages.start).sum();
        assert!(own.len() <= 6 && pages <= 8, "round {round}: {own:?}");
        database.write(|txn| txn.remove_layer("ab").and_then(|_| txn.remove_layer("aa"))).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_what_redb_keeps_for_itself_keeps_writers_out_and_nobody_else() {
    let bench = Bench::new();
    let own: Vec<usize> = bench.golden.own.iter().flat_map(|page| *page..page + PAGE as usize).collect();
    // redb leaves what it does not use of a page empty, or, built for tests, full.
    let used: Vec<usize> =
        own.into_iter().filter(|at| !matches!(bench.golden.bytes[*at], 0 | 0xff)).collect();
    let mut numbers = Numbers(from_environment("LAYERSTORE_DAMAGE_SEED", 0x0f1e_2d3c_4b5a_6978));
    let mut refused = 0;
    let runs = from_environment("LAYERSTORE_DAMAGE_RUNS", 60);
    for _ in 0..runs {
        let at = used[numbers.below(used.len())];
        let outcome = bench.run(&[Edit::Flip(at, numbers.below(8) as u8)], false);
        assert!(outcome.rows.as_ref() == Some(&bench.golden.rows), "byte {at}: {:?}", outcome.errors);
        refused += u64::from(outcome.errors.iter().any(|error| matches!(error, MetaError::Damaged { .. })));
    }
    // What is left behind the entries of a page means nothing.
    assert!(refused * 4 > runs * 3, "{refused} of {runs} files were refused");
}

/// Where a page is in the file.
fn bytes_of(page: PageNumber) -> Range<usize> {
    let pages = page.pages().unwrap();
    let at = |page: u64| usize::try_from((page + 1) * PAGE).unwrap();
    at(pages.start)..at(pages.end)
}

fn place(inner: &[u8], outer: &[u8]) -> usize {
    inner.as_ptr() as usize - outer.as_ptr() as usize
}

/// Changes the rows of a tree by hand. Returns its new checksum.
fn forge_tree(
    file: &mut [u8],
    (page, checksum): (PageNumber, u128),
    widths: Widths,
    change: &dyn Fn(&[u8], &mut [u8]),
) -> u128 {
    let at = bytes_of(page);
    let bytes = file[at.clone()].to_vec();
    let used = match Node::read(&bytes, widths, checksum).unwrap() {
        Node::Leaf(leaf) => {
            for (key, value) in leaf.rows() {
                let start = at.start + place(value, &bytes);
                change(key, &mut file[start..start + value.len()]);
            }
            let (_, last) = leaf.rows().last().unwrap();
            place(last, &bytes) + last.len()
        }
        Node::Branch(branch) => {
            for (number, child) in branch.children().enumerate() {
                let sum = forge_tree(file, child, widths, change);
                file[at.start + 8 + 16 * number..][..16].copy_from_slice(&sum.to_le_bytes());
            }
            let last = branch.keys().last().unwrap();
            place(last, &bytes) + last.len()
        }
    };
    XxHash3_128::oneshot(&file[at.start..][..used])
}

/// Changes the rows of one of redb's tables by hand, and makes all checksums right.
fn forge(golden: &Golden, table: &str, widths: Widths, change: impl Fn(&[u8], &mut [u8])) -> Vec<u8> {
    let mut file = golden.bytes.clone();
    let root = Commit::read(&file).unwrap().system.unwrap();
    let tables = file[bytes_of(root.page)].to_vec();
    let Node::Leaf(leaf) = Node::read(&tables, Widths::TABLES, root.checksum).unwrap() else {
        panic!("a branch")
    };
    let row = leaf.rows().find(|(name, _)| *name == table.as_bytes()).unwrap().1;
    let of_table = TableRow::read(row).unwrap().root.unwrap();
    let table_sum = forge_tree(&mut file, (of_table.page, of_table.checksum), widths, &change);
    let table_name = table.as_bytes();
    let sum = forge_tree(&mut file, (root.page, root.checksum), Widths::TABLES, &|name, row| {
        if name == table_name {
            row[18..34].copy_from_slice(&table_sum.to_le_bytes());
        }
    });
    let slot = if file[9] & 1 == 0 { 64 } else { 192 };
    file[slot + 48..][..16].copy_from_slice(&sum.to_le_bytes());
    let sum = XxHash3_128::oneshot(&file[slot..][..112]);
    file[slot + 112..][..16].copy_from_slice(&sum.to_le_bytes());
    file
}

fn refused(bench: &Bench, what: &str, file: &[u8]) {
    let path = bench.dir.path().join("store.redb");
    put(&path, file).unwrap();
    let fault = system::verify(&File::open(&path).unwrap());
    assert!(matches!(fault, Err(system::Fault::Damaged(_))), "{what}: {fault:?}");
    let outcome = bench.run_bytes(what, file, false);
    assert!(outcome.rows.as_ref() == Some(&bench.golden.rows), "{what}: {:?}", outcome.errors);
    assert!(!outcome.errors.is_empty(), "{what}");
}

/// Checksums are no signatures.
#[test]
fn lists_and_records_made_by_hand_are_refused_if_they_cannot_be() {
    let bench = Bench::new();
    let golden = &bench.golden;
    let same = forge(golden, "system_pages_unreachable", LISTS, |_, _| {});
    assert!(same == golden.bytes, "what is not changed is the same");
    let user = Commit::read(&golden.bytes).unwrap().user.unwrap().page.0;
    let own = (golden.own[0] / PAGE as usize - 1) as u64;
    let pages = golden.bytes.len() as u64 / PAGE;
    for (what, page) in [
        ("beyond the end", pages),
        ("far beyond the end", 1 << 19),
        ("in another region", 1 << 20 | 1),
        ("larger than there is", 10 << 59),
        ("of an order that is none", 31 << 59 | 3),
        ("the user's tables", user),
        ("redb's own tables", own),
    ] {
        for table in ["data_pages_unreachable", "system_pages_unreachable"] {
            let file = forge(golden, table, LISTS, |_, list| {
                list[..2].copy_from_slice(&1_u16.to_le_bytes());
                list[2..10].copy_from_slice(&page.to_le_bytes());
            });
            refused(&bench, what, &file);
        }
    }
    let twice = forge(golden, "data_pages_unreachable", LISTS, |_, list| {
        let first: [u8; 8] = list[2..10].try_into().unwrap();
        list[..2].copy_from_slice(&2_u16.to_le_bytes());
        list[10..18].copy_from_slice(&first);
    });
    refused(&bench, "listed twice", &twice);
    let long = forge(golden, "data_pages_unreachable", LISTS, |_, list| list[..2].fill(0xff));
    refused(&bench, "a list that is longer than its row", &long);
    // The bits of single pages: four levels, whose last one ends before those of pages of two.
    let single = |record: &[u8]| u32::from_le_bytes(record[8..12].try_into().unwrap()) as usize;
    let all_free = forge(golden, "allocator_state", RECORDS, |key, record| {
        if key[0] == 3 {
            let end = single(record);
            record[end - 8..end].fill(0);
        }
    });
    refused(&bench, "what is used is free", &all_free);
    let no_level = forge(golden, "allocator_state", RECORDS, |key, record| {
        if key[0] == 3 {
            record[92 + 20 + 4] ^= 1;
        }
    });
    refused(&bench, "the levels do not fit", &no_level);
    let no_regions = forge(golden, "allocator_state", RECORDS, |key, record| {
        if key[0] == 4 {
            record[..4].fill(1);
        }
    });
    refused(&bench, "a record of regions that is none", &no_regions);
}

/// redb gives what it changes or moves a new checksum.
#[test]
fn rot_does_not_become_right_by_writing() {
    let bench = Bench::new();
    let first = PAGE as usize;
    let rows = first..bench.golden.bytes.len();
    let used: Vec<usize> = rows.filter(|at| bench.golden.bytes[*at] != 0).collect();
    let mut numbers = Numbers(from_environment("LAYERSTORE_DAMAGE_SEED", 0x1122_3344_5566_7788));
    let mut rotten = 0;
    for _ in 0..from_environment("LAYERSTORE_DAMAGE_RUNS", 60) {
        let at = used[numbers.below(used.len())];
        let outcome = bench.run(&[Edit::Flip(at, numbers.below(8) as u8)], false);
        assert!(outcome.sound || !outcome.sound_after, "byte {at}: {:?}", outcome.errors);
        rotten += u64::from(!outcome.sound);
    }
    assert!(rotten > 10, "{rotten} files were not sound");
}

/// Nothing of the user's is lost with what redb keeps for itself: a copy has it all.
#[test]
fn a_copy_of_what_is_left_is_whole() {
    let bench = Bench::new();
    for page in &bench.golden.own {
        let mut bytes = bench.golden.bytes.clone();
        Edit::Zero(page / PAGE as usize).apply(&mut bytes);
        let path = bench.dir.path().join("store.redb");
        put(&path, &bytes).unwrap();
        for read_only in [false, true] {
            let database =
                Database::new(path.clone(), DatabaseOptions { read_only, ..DatabaseOptions::default() });
            let copy = bench.dir.path().join("copy.redb");
            let copied = without_message(|| database.backup(&copy, true));
            copied.unwrap_or_else(|error| panic!("page {page}: {error:?}"));
            assert!(without_message(|| database.verify()).is_err(), "page {page}");
            let copy = Database::new(copy, DatabaseOptions::default());
            copy.verify().unwrap();
            assert!(every_row(&copy.begin_read().unwrap()).unwrap() == bench.golden.rows);
            copy.write::<_, MetaError>(|_| Ok(())).unwrap();
        }
    }
}

/// A file as it is, which made redb end the process.
#[test]
fn files_that_ended_the_process_end_in_an_error() {
    let bench = Bench::new();
    let files = Path::new("fuzz/regressions/database");
    let mut tried = 0;
    for file in fs::read_dir(files).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // The first byte says what the rest is: see `fuzzing::database`.
        let (mode, bytes) = bytes.split_first().unwrap();
        assert_eq!(mode & 2, 2, "{}", path.display());
        let outcome = bench.run_bytes(&path.display().to_string(), bytes, false);
        assert!(outcome.rows.is_some() && !outcome.errors.is_empty(), "{:?}", outcome.errors);
        // And nothing is lost with them.
        put(&bench.dir.path().join("store.redb"), bytes).unwrap();
        let database = Database::new(bench.dir.path().join("store.redb"), DatabaseOptions::default());
        let copy = bench.dir.path().join("copy.redb");
        database.backup(&copy, true).unwrap();
        let copy = Database::new(copy, DatabaseOptions::default());
        copy.verify().unwrap();
        copy.write::<_, MetaError>(|_| Ok(())).unwrap();
        tried += 1;
    }
    assert!(tried >= 2);
}
