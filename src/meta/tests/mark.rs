//! The mark in the header that says that a commit is under way: who finds it in a file whose writer is gone looks after the file.

use super::*;
use crate::meta::recorder::{Event, Recorder};

fn header_of(path: &Path) -> Vec<u8> {
    let mut header = std::fs::read(path).unwrap();
    header.truncate(320);
    header
}

fn is_marked(path: &Path) -> bool {
    header_of(path)[9] & 2 != 0
}

/// Leaves the file as a writer does that dies within a commit, before anything has changed.
pub(super) fn mark(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[9] |= 2;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn who_ends_a_transaction_leaves_no_mark() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let path = database.path();
    assert!(!is_marked(path), "made");
    with_shared_tree(&database);
    assert!(!is_marked(path), "written");
    let given_up: Result<(), MetaError> = database.write(|_| Err(MetaError::Blob { key: "made up".into() }));
    given_up.unwrap_err();
    assert!(!is_marked(path), "given up");
    database.compact().unwrap();
    assert!(!is_marked(path), "compacted");
    drop(database.open_write().unwrap().commit().unwrap());
    assert!(!is_marked(path), "committed with another store");
}

#[test]
fn who_dies_within_a_commit_leaves_a_mark_until_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    with_shared_tree(&store(dir.path()));
    let options = DatabaseOptions { recorder: Some(recorder.clone()), ..Default::default() };
    let path = dir.path().join("store.redb");
    let mut marks = 0;
    for steps in 0.. {
        recorder.die_after(steps);
        let database = Database::new(path.clone(), options.clone());
        let done = database.write::<_, MetaError>(|txn| txn.put_layer(&layer("ac", None)));
        recorder.die();
        let marked = is_marked(&path);
        marks += u32::from(marked);
        let fresh = Database::new(path.clone(), options.clone());
        let before = header_of(&path);
        assert!(fresh.begin_read().unwrap().layer("ab").unwrap().is_some());
        assert_eq!(header_of(&path), before, "who reads changes nothing");
        let written = recorder.len();
        fresh.write::<_, MetaError>(|txn| txn.remove_layer("ac").map(drop)).ok();
        fresh.write::<_, MetaError>(|txn| txn.put_layer(&layer("aa", None))).unwrap();
        assert!(!is_marked(&path), "after {steps} steps");
        // Else the power may take the dead one's commit, and leave the pages that were written over those of the one before.
        let first: Vec<_> = recorder.events().into_iter().skip(written).take(2).collect();
        let brought =
            |first: &[Event]| matches!(first, [Event::Write { data, .. }, Event::Sync] if *data == before);
        assert!(!marked || brought(&first), "after {steps} steps: {first:?}");
        // Who dies before the last of all steps, which takes the mark away, leaves a commit that is done.
        if done.is_ok() && !marked {
            break;
        }
    }
    assert!(marks > 1, "{marks}");
}

#[test]
fn who_does_not_sync_leaves_the_mark_for_who_does() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    with_shared_tree(&store(dir.path()));
    let open = |sync, passing| {
        let options =
            DatabaseOptions { sync, passing, recorder: Some(recorder.clone()), ..Default::default() };
        Database::new(dir.path().join("store.redb"), options)
    };
    let commit = |database: &Database| {
        database
            .write::<_, MetaError>(|txn| {
                txn.put_item(Owner::Layer, "aa", "k", String::new(), &PreparedBlob::from_bytes(b"1"))
            })
            .unwrap();
    };
    let (lazy, syncing) = (open(false, false), open(true, false));
    let path = lazy.path();
    for _ in 0..2 {
        commit(&lazy);
        assert!(is_marked(path));
    }
    let header = header_of(path);
    assert!(syncing.begin_read().unwrap().layer("aa").unwrap().is_some());
    let written = recorder.len();
    commit(&syncing);
    assert!(!is_marked(path));
    let first: Vec<_> = recorder.events().into_iter().skip(written).take(2).collect();
    assert!(matches!(&first[..], [Event::Write { data, .. }, Event::Sync] if *data == header), "{first:?}");
    commit(&open(false, true));
    assert!(!is_marked(path), "nobody counts on it");
}

#[test]
fn who_deletes_by_the_rows_brings_their_commit_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    with_shared_tree(&store(dir.path()));
    let options = DatabaseOptions { recorder: Some(recorder.clone()), ..Default::default() };
    let path = dir.path().join("store.redb");
    let database = Database::new(path.clone(), options.clone());
    let events_of = |database: &Database| {
        let before = recorder.len();
        database.begin_verified_read().unwrap();
        recorder.events().split_off(before)
    };
    assert!(events_of(&database).is_empty(), "it is there");
    mark(&path);
    let header = header_of(&path);
    for _ in 0..2 {
        let events = events_of(&database);
        let brought =
            matches!(&events[..], [Event::Write { offset: 0, data }, Event::Sync] if *data == header);
        assert!(brought, "{events:?}");
    }
    // He may be the one who deletes.
    let events = database.hold::<_, MetaError>(|| Ok(events_of(&database))).unwrap();
    assert!(matches!(&events[..], [Event::Sync]), "{events:?}");
    let lazy = Database::new(path.clone(), DatabaseOptions { sync: false, ..options });
    assert!(events_of(&lazy).is_empty());
    assert_eq!(header_of(&path), header);
}
