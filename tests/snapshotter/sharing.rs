//! Snapshots among the other layers of a store, and among several users of it.

use std::sync::Barrier;
use std::thread;

use layerstore::snapshotter::{Code, CommitOptions, Kind, Snapshotter, SnapshotterOptions};
use layerstore::{Error, InUseError, LayerOptions, SealOptions};

use super::{Snapshots, assert_code, none};
use crate::support::machine;
use crate::support::store::{self, assert_whole};

#[test]
fn other_handles_see_the_same() {
    let snapshots = Snapshots::new("snapshot-handles");
    let other = Snapshotter::new(store::open(&snapshots.dir), SnapshotterOptions::default()).unwrap();
    snapshots.prepare("a", None, &none()).unwrap();
    assert_eq!(other.stat("a").unwrap(), snapshots.stat("a").unwrap());
    assert_eq!(other.mounts("a").unwrap(), snapshots.mounts("a").unwrap());
    other.commit("base", "a", &CommitOptions::default()).unwrap();
    assert_code(snapshots.stat("a"), Code::NotFound);
    snapshots.remove("base").unwrap();
    assert_code(other.stat("base"), Code::NotFound);
}

#[test]
fn of_many_with_one_key_one_is_first() {
    let snapshots = Snapshots::new("snapshot-race");
    let threads = 8;
    let barrier = Barrier::new(threads);
    let race = |act: &(dyn Fn() -> bool + Sync)| {
        thread::scope(|scope| {
            let run = || {
                barrier.wait();
                act()
            };
            let started: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            started.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>()
        })
    };
    let first = |result: Result<(), layerstore::snapshotter::SnapshotError>, otherwise: &[Code]| match result
    {
        Ok(()) => true,
        Err(error) => {
            assert!(otherwise.contains(&error.code()), "{error}");
            false
        }
    };
    assert_eq!(race(&|| first(snapshots.prepare("key", None, &none()).map(drop), &[Code::AlreadyExists])), 1);
    let commit = || snapshots.commit("base", "key", &CommitOptions::default());
    let late = [Code::AlreadyExists, Code::NotFound, Code::Unavailable, Code::FailedPrecondition];
    assert_eq!(race(&|| first(commit(), &late)), 1);
    assert_eq!(snapshots.stat("base").unwrap().kind, Kind::Committed);
    assert_eq!(race(&|| first(snapshots.remove("base"), &[Code::NotFound])), 1);
    assert_whole(&snapshots.store);
}

#[test]
fn a_committed_snapshot_is_a_sealed_layer_that_nobody_unseals() {
    let snapshots = Snapshots::new("snapshot-layer");
    snapshots.prepare("a", None, &none()).unwrap();
    let active = snapshots.store.layer("snapshot:a").unwrap();
    snapshots.store.add_names(&active.id, &["mine".parse().unwrap()]).unwrap();
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    let layer = snapshots.store.layer("snapshot:base").unwrap();
    assert!(layer.tree.is_some() && layer.read_only);
    // A name that somebody else gave it stays.
    assert_eq!(snapshots.store.layer("mine").unwrap(), layer);
    let refused = snapshots.store.unseal(&layer.id);
    assert!(matches!(refused, Err(Error::InUse(InUseError::ReadOnly { .. }))), "{refused:?}");
}

#[test]
fn what_was_sealed_by_another_is_not_mounted_for_writing_and_can_be_committed() {
    let snapshots = Snapshots::new("snapshot-sealed");
    snapshots.prepare("a", None, &none()).unwrap();
    let layer = snapshots.store.layer("snapshot:a").unwrap();
    let mut said = SealOptions::default();
    said.renamed = Some(("snapshot:a".to_owned(), "snapshot:a".to_owned()));
    snapshots.store.seal_with(&layer.id, &said).unwrap();
    assert_code(snapshots.mounts("a"), Code::FailedPrecondition);
    snapshots.store.unseal(&layer.id).unwrap();
    snapshots.mounts("a").unwrap();
    snapshots.store.seal_with(&layer.id, &said).unwrap();
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    assert_eq!(snapshots.stat("base").unwrap().kind, Kind::Committed);
    assert_whole(&snapshots.store);
}

#[test]
fn equal_snapshots_share_a_directory() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let snapshots = Snapshots::new("snapshot-shared");
    let write = |root: &std::path::Path| {
        std::fs::write(root.join("file"), "equal").unwrap();
        for path in [root.join("file"), root.to_owned()] {
            let file = std::fs::File::open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    };
    snapshots.layer("one", None, write);
    snapshots.layer("two", None, write);
    let directory = |name: &str| {
        let layer = snapshots.store.layer(&format!("snapshot:{name}")).unwrap();
        snapshots.store.layer_places(&layer.id).unwrap().upper
    };
    assert_eq!(directory("one"), directory("two"));
    snapshots.remove("one").unwrap();
    assert!(snapshots.tree("two").get("file").is_some());
    assert_whole(&snapshots.store);
}

#[test]
fn a_seal_gives_all_or_nothing() {
    let snapshots = Snapshots::new("seal-with");
    let store = &snapshots.store;
    let base = store.create_layer(None, &LayerOptions::named("base")).unwrap();
    let layer = store.create_layer(None, &LayerOptions::named("layer")).unwrap();
    let above = store.create_layer(&layer.id, &LayerOptions::default()).unwrap();
    let mut options = SealOptions::default();
    options.names = Some(vec!["sealed".to_owned(), "base".to_owned()]);
    options.labels = Some(vec![("key".to_owned(), "value".to_owned())]);
    options.flags = vec![("flag".to_owned(), "1".to_owned())];
    options.read_only = true;
    // A name that is taken, a parent that is not there, that stands on it, or that comes too late.
    let refused = |options: &SealOptions| {
        store.seal_with(&layer.id, options).unwrap_err();
        assert_eq!(store.layer("layer").unwrap(), layer);
    };
    refused(&options);
    options.names = Some(vec!["sealed".to_owned()]);
    for parent in [&"missing".parse().unwrap(), &above.id, &layer.id, &base.id] {
        options.parent = Some(parent.clone());
        refused(&options);
    }
    store.remove_layer(&above.id).unwrap();
    let sealed = store.seal_with(&layer.id, &options).unwrap();
    assert_eq!(sealed, store.layer("sealed").unwrap());
    assert!(sealed.tree.is_some() && sealed.read_only);
    assert_eq!((sealed.parent.as_ref(), sealed.names.len()), (Some(&base.id), 1));
    assert_eq!((&sealed.labels, &sealed.flags), (options.labels.as_ref().unwrap(), &options.flags));
    // One that is sealed gets what is new.
    let mut more = SealOptions::default();
    more.labels = Some(Vec::new());
    let relabelled = store.seal_with(&layer.id, &more).unwrap();
    assert_eq!((relabelled.labels.len(), relabelled.names), (0, sealed.names));
    assert_whole(store);
}
