//! What becomes of snapshots when the files of one were damaged, and another has the same.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use layerstore::snapshotter::{Code, CommitOptions};

use super::{Snapshots, assert_code, none};
use crate::support::machine;
use crate::support::mounter::Mounted;
use crate::support::store::assert_whole;

macro_rules! snapshots {
    ($name:literal) => {{
        if !machine::is_root() {
            skip!("mounting needs root or a user namespace");
        }
        Snapshots::new($name)
    }};
}

/// Prepares a snapshot with the one tree of these tests.
fn prepare(snapshots: &Snapshots, key: &str) {
    snapshots.prepare(key, None, &none()).unwrap();
    let mounted = snapshots.mount(key);
    fs::write(mounted.join("file"), "content").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for path in [mounted.join("file"), mounted.path().to_owned()] {
        File::open(path).unwrap().set_modified(time).unwrap();
    }
}

fn commit(snapshots: &Snapshots, name: &str) {
    prepare(snapshots, "active");
    snapshots.commit(name, "active", &CommitOptions::default()).unwrap();
}

/// The only directory of the store that has the file.
fn directory(snapshots: &Snapshots) -> PathBuf {
    let diffs = fs::read_dir(snapshots.store.root().join("diffs")).unwrap();
    let mut with_file = diffs.map(|entry| entry.unwrap().path()).filter(|path| path.join("file").exists());
    let found = with_file.next().unwrap();
    assert_eq!(with_file.next(), None);
    found
}

#[test]
fn good_files_take_the_place_of_damaged_ones() {
    let empty = |at: PathBuf| File::create(at.join("file")).map(drop);
    let change = |at: PathBuf| fs::write(at.join("file"), "CONTENT");
    let remove = |at: PathBuf| fs::remove_dir_all(at);
    for damage in [empty as fn(PathBuf) -> std::io::Result<()>, change, remove] {
        let snapshots = snapshots!("snapshot-damage");
        commit(&snapshots, "old");
        damage(directory(&snapshots)).unwrap();
        commit(&snapshots, "new");
        for name in ["new", "old"] {
            snapshots.view("look", Some(name), &none()).unwrap();
            assert_eq!(
                fs::read_to_string(snapshots.mount("look").join("file")).unwrap(),
                "content",
                "{name}"
            );
            snapshots.remove("look").unwrap();
        }
        directory(&snapshots);
        assert_whole(&snapshots.store);
    }
}

#[test]
fn whole_files_keep_their_place() {
    let snapshots = snapshots!("snapshot-whole");
    commit(&snapshots, "old");
    let place = directory(&snapshots);
    commit(&snapshots, "new");
    assert_eq!(directory(&snapshots), place);
}

#[test]
fn damaged_files_are_not_taken_from_below_a_mount() {
    let snapshots = snapshots!("snapshot-damage-mounted");
    commit(&snapshots, "old");
    let place = directory(&snapshots);
    snapshots.prepare("container", Some("old"), &none()).unwrap();
    snapshots.view("bound", Some("old"), &none()).unwrap();
    fs::write(place.join("file"), "CONTENT").unwrap();
    prepare(&snapshots, "active");
    let commit = || snapshots.commit("new", "active", &CommitOptions::default());
    for key in ["container", "bound"] {
        let mounted: Mounted = snapshots.mount(key);
        let refused = commit();
        assert!(refused.as_ref().unwrap_err().to_string().contains("is mounted at"), "{refused:?}");
        assert_code(refused, Code::FailedPrecondition);
        assert_eq!(fs::read_to_string(mounted.join("file")).unwrap(), "CONTENT");
    }
    assert!(place.exists());
    commit().unwrap();
    assert_eq!(fs::read_to_string(directory(&snapshots).join("file")).unwrap(), "content");
}

/// A container may have mounted something in the directory itself, where it is seen by all.
#[test]
fn what_is_mounted_inside_is_in_the_way_of_a_commit() {
    let snapshots = snapshots!("snapshot-inside");
    let entries = snapshots.prepare("key", None, &none()).unwrap();
    let other = snapshots.prepare("other", None, &none()).unwrap();
    let inside = Mounted::new(&other, PathBuf::from(&entries[0].source).join("mnt"));
    let refused = snapshots.commit("base", "key", &CommitOptions::default()).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    drop(inside);
    snapshots.commit("base", "key", &CommitOptions::default()).unwrap();
}
