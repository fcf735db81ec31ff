//! Others are faster: what comes of a method if a snapshot changes between the look at it and the transaction.

use std::collections::BTreeMap;
use std::path::Path;

mod id_maps;

use super::{Code, CommitOptions, Kind, SnapshotError, Snapshotter, SnapshotterOptions};
use crate::store::{Store, StoreOptions, SyncMode};
use crate::sys::moment;

const FOUND: &str = "snapshot found";

fn open(dir: &Path) -> Snapshotter {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0);
    Snapshotter::new(Store::open(&options).unwrap(), SnapshotterOptions::default()).unwrap()
}

fn prepare(snapshots: &Snapshotter, key: &str) {
    snapshots.prepare(key, None, &BTreeMap::new()).unwrap();
}

fn commit(snapshots: &Snapshotter, name: &str, key: &str) -> Result<(), Code> {
    snapshots.commit(name, key, &CommitOptions::default()).map_err(|error| error.code())
}

#[test]
fn of_two_commits_of_a_key_one_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, other) = (open(dir.path()), open(dir.path()));
    for late in ["same", "another"] {
        prepare(&snapshots, "key");
        let first = other.clone();
        moment::meanwhile(FOUND, move || commit(&first, "same", "key").unwrap());
        let refused = commit(&snapshots, late, "key").unwrap_err();
        assert!([Code::NotFound, Code::AlreadyExists].contains(&refused), "{late}: {refused:?}");
        assert_eq!(snapshots.stat("same").unwrap().kind, Kind::Committed);
        snapshots.remove("same").unwrap();
    }
}

/// Others may name a snapshot's layer at any time, and a name is theirs to take away.
#[test]
fn a_commit_leaves_the_names_that_others_gave() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    prepare(&snapshots, "key");
    let layer = snapshots.store.layer("snapshot:key").unwrap().id;
    let name = |text: &str| -> crate::types::Name { text.parse().unwrap() };
    snapshots.store.write(|txn| txn.add_name(&layer, &name("before"))).unwrap();
    let (other, of) = (open(dir.path()), layer.clone());
    moment::meanwhile(FOUND, move || {
        other.store.write(|txn| txn.add_name(&of, &name("meanwhile"))).unwrap();
    });
    commit(&snapshots, "base", "key").unwrap();
    let names = snapshots.store.layer(layer.as_str()).unwrap().names;
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["snapshot:base", "before", "meanwhile"]
    );
    assert_eq!(snapshots.stat("base").unwrap().kind, Kind::Committed);
}

#[test]
fn a_parent_that_goes_meanwhile_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let removes = || {
        prepare(&snapshots, "key");
        commit(&snapshots, "base", "key").unwrap();
        let other = open(dir.path());
        moment::meanwhile(FOUND, move || other.remove("base").unwrap());
    };
    removes();
    let refused = snapshots.prepare("above", Some("base"), &BTreeMap::new()).unwrap_err();
    assert!(matches!(&refused, SnapshotError::NotFound { key } if key == "base"), "{refused}");
    prepare(&snapshots, "alone");
    removes();
    let options = CommitOptions { parent: Some("base".to_owned()), ..CommitOptions::default() };
    let refused = snapshots.commit("next", "alone", &options).unwrap_err();
    assert!(matches!(&refused, SnapshotError::NotFound { key } if key == "base"), "{refused}");
}

#[test]
fn what_was_committed_meanwhile_is_not_removed_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (snapshots, other) = (open(dir.path()), open(dir.path()));
    prepare(&snapshots, "key");
    moment::meanwhile(FOUND, move || commit(&other, "base", "key").unwrap());
    assert_eq!(snapshots.remove("key").unwrap_err().code(), Code::NotFound);
    assert_eq!(snapshots.stat("base").unwrap().kind, Kind::Committed);
}
