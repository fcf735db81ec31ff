//! A bit that has flipped in a database takes nothing from the living.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::support::{load, open};
use super::*;
use crate::CheckOptions;
use crate::error::LayoutError;
use crate::store::{ContainerOptions, StoreOptions, SyncMode};

/// Where directories and files lie that rows name by a number.
const NUMBERED: [&str; 5] = ["diffs", "work", "blobs", "data", "composefs"];

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Everything that has a number.
fn standing(root: &Path) -> BTreeSet<PathBuf> {
    let below = |which| fs::read_dir(root.join(which)).into_iter().flatten();
    NUMBERED.into_iter().flat_map(below).map(|entry| entry.unwrap().path()).collect()
}

/// The same numbers in each run.
fn below(state: &mut u64, end: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state % end as u64).unwrap()
}

/// Where a file has one of the numbers.
fn places(bytes: &[u8], living: &BTreeSet<PathBuf>) -> Vec<usize> {
    let numbers: BTreeSet<[u8; 8]> = living
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap().to_le_bytes())
        .collect();
    bytes
        .windows(8)
        .enumerate()
        .filter(|(_, window)| numbers.iter().any(|number| number == window))
        .map(|(at, _)| at)
        .collect()
}

#[test]
fn a_flipped_bit_makes_no_garbage_of_what_lives() {
    let dir = scratch();
    let root = dir.path().join("root");
    let options = StoreOptions::at(&root).run_root(dir.path().join("run")).sync(SyncMode::Off).reserve(0);
    let store = open(dir.path());
    load(dir.path(), &store, "image");
    let image = store.image("image").unwrap().id;
    let kept = store.create_container(&image, &ContainerOptions::named("kept")).unwrap();
    fs::write(store.container_directory(&kept.id).unwrap().join("file"), "of its caller").unwrap();
    store.run_directory(&kept.id).unwrap();
    let transient = Store::open(&options.clone().transient(true)).unwrap();
    let dropped = transient.create_container(&image, &ContainerOptions::named("dropped")).unwrap();
    transient.run_directory(&dropped.id).unwrap();
    let run = store.run().unwrap().rows().path().to_owned();
    drop((store, transient));
    let living = standing(&root);
    assert!(living.len() >= 7, "{living:?}");
    let run_directories =
        [&kept.id, &dropped.id].map(|id| dir.path().join("run/containers").join(id.as_str()));
    let mut state = 0x5bd1_e995_9e37_79b9;
    for path in [root.join("store.redb"), run] {
        let whole = fs::read(&path).unwrap();
        let mut flips = Vec::new();
        for place in places(&whole, &living) {
            flips.extend((0..2).map(|_| (place + below(&mut state, 8), below(&mut state, 8))));
        }
        assert!(flips.len() >= 2, "{}", path.display());
        let used: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] != 0).collect();
        flips.extend((0..30).map(|_| (used[below(&mut state, used.len())], below(&mut state, 8))));
        // Which of its two commits is the last one says a bit of the header that has no checksum.
        flips.retain(|flip| *flip != (9, 0));
        let file = fs::File::options().write(true).open(&path).unwrap();
        let mut refused = 0;
        for (round, (at, bit)) in flips.into_iter().enumerate() {
            file.write_all_at(&[whole[at] ^ 1 << bit], at as u64).unwrap();
            let what = format!("bit {bit} of byte {at} of {}", path.display());
            if let Ok(store) = Store::open(&options) {
                // What a check calls garbage, `gc` removes.
                let checked = store.check(&CheckOptions::default());
                let garbage = checked.map(|report| report.garbage).unwrap_or_default();
                assert_eq!(garbage, Vec::<PathBuf>::new(), "{what}");
                if round % 4 == 0 {
                    // As the first write after a boot.
                    fs::remove_file(root.join("collected")).ok();
                    store.begin_writing().unwrap();
                } else {
                    refused += usize::from(store.gc(round % 4 == 1).is_err());
                }
            }
            assert_eq!(standing(&root), living, "{what}");
            assert!(run_directories.iter().all(|path| path.exists()), "{what}");
            file.write_all_at(&[whole[at]], at as u64).unwrap();
        }
        assert!(refused > 0, "nothing that counts was flipped in {}", path.display());
    }
    let store = Store::open(&options).unwrap();
    assert_eq!(store.gc(false).unwrap().removed, []);
    super::support::is_clean(&store);
}

/// A row that says another number and has the right checksum all the same, and one whose directory somebody took away, are
/// not told apart.
#[test]
fn nothing_goes_while_something_is_missing_that_may_be_it() {
    let dir = scratch();
    let store = open(dir.path());
    let container = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let diffs = dir.path().join("root/diffs");
    let number = fs::read_dir(&diffs).unwrap().next().unwrap().unwrap().file_name();
    fs::rename(diffs.join(&number), diffs.join("77")).unwrap();
    fs::create_dir_all(dir.path().join("root/data/78")).unwrap();
    for announced in [false, true] {
        if announced {
            fs::write(dir.path().join("root/locks/77"), "").unwrap();
        }
        assert_eq!(store.check(&CheckOptions::default()).unwrap().garbage.len(), usize::from(!announced));
        for dry_run in [true, false] {
            let report = store.gc(dry_run).unwrap();
            let removed: Vec<_> = report.removed.iter().map(|garbage| garbage.kind).collect();
            // Of the callers' directories none is missing.
            assert_eq!(removed, if announced { vec![] } else { vec![GarbageKind::Data] }, "{dry_run}");
            let [left] = &report.left[..] else { panic!("{:?}", report.left) };
            assert_eq!(left.path, diffs.join("77"));
            assert!(
                matches!(&left.error, Error::Layout(LayoutError::InDoubt { missing, .. })
                    if *missing == diffs.join(&number)),
                "{:?}",
                left.error
            );
        }
        assert_eq!(dir.path().join("root/locks/77").exists(), announced);
    }
    store.remove_container(&container.id).unwrap();
    let removed: Vec<_> = store.gc(false).unwrap().removed.iter().map(|garbage| garbage.kind).collect();
    assert_eq!(removed, [GarbageKind::Directory, GarbageKind::Lock]);
}
