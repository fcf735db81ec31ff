//! Snapshots in stores that are only read, that are made of two, or that read others.

use layerstore::snapshotter::{Code, CommitOptions, Kind, Snapshotter, SnapshotterOptions};
use layerstore::{Store, StoreOptions, SyncMode};

use super::{assert_code, none};
use crate::support::Dir;
use crate::support::store::assert_whole;

fn at(dir: &Dir, name: &str) -> StoreOptions {
    StoreOptions::at(dir.join(name)).run_root(dir.join(format!("{name}.run"))).sync(SyncMode::Off).reserve(0)
}

fn snapshots(options: &StoreOptions) -> Snapshotter {
    Snapshotter::new(Store::open(options).unwrap(), SnapshotterOptions::default()).unwrap()
}

fn commit(snapshots: &Snapshotter, name: &str, parent: Option<&str>) {
    snapshots.prepare("to be committed", parent, &none()).unwrap();
    snapshots.commit(name, "to be committed", &CommitOptions::default()).unwrap();
}

fn names(snapshots: &Snapshotter) -> Vec<String> {
    let mut names = Vec::new();
    let mut note = |info: layerstore::snapshotter::Info| {
        names.push(info.name);
        Ok(())
    };
    snapshots.walk(&[], &mut note).unwrap();
    names
}

#[test]
fn a_store_that_is_only_read_shows_snapshots_and_keeps_them() {
    let dir = Dir::new("snapshot-read-only");
    let writer = snapshots(&at(&dir, "own"));
    commit(&writer, "base", None);
    writer.prepare("active", None, &none()).unwrap();
    let reader = snapshots(&at(&dir, "own").read_only(true));
    assert_eq!(names(&reader), ["active", "base"]);
    assert_eq!(reader.stat("base").unwrap(), writer.stat("base").unwrap());
    assert_eq!(reader.usage("base").unwrap(), writer.usage("base").unwrap());
    assert_eq!(reader.mounts("active").unwrap(), writer.mounts("active").unwrap());
    assert_code(reader.prepare("next", Some("base"), &none()), Code::FailedPrecondition);
    assert_code(reader.view("view", Some("base"), &none()), Code::FailedPrecondition);
    assert_code(reader.commit("more", "active", &CommitOptions::default()), Code::FailedPrecondition);
    assert_code(reader.update(&reader.stat("base").unwrap(), &[]), Code::FailedPrecondition);
    assert_code(reader.remove("active"), Code::FailedPrecondition);
    assert_eq!(names(&writer), ["active", "base"]);
}

#[test]
fn a_separate_image_store_has_no_part_in_snapshots() {
    let dir = Dir::new("snapshot-images");
    let options = at(&dir, "own").image_store_root(dir.join("images"));
    let split = snapshots(&options);
    commit(&split, "base", None);
    commit(&split, "next", Some("base"));
    split.view("view", Some("next"), &none()).unwrap();
    assert_eq!(names(&split), ["base", "next", "view"]);
    assert_eq!(split.stat("next").unwrap().parent.as_deref(), Some("base"));
    assert_code(split.remove("base"), Code::FailedPrecondition);
    for name in ["view", "next", "base"] {
        split.remove(name).unwrap();
    }
    assert_eq!(names(&split), Vec::<String>::new());
    assert_whole(&Store::open(&options).unwrap());
}

#[test]
fn snapshots_of_another_store_are_not_ours() {
    let dir = Dir::new("snapshot-others");
    let other = snapshots(&at(&dir, "other"));
    commit(&other, "base", None);
    commit(&other, "theirs", Some("base"));
    let options = at(&dir, "own").image_store(dir.join("other"));
    let own = snapshots(&options);
    assert_eq!(names(&own), Vec::<String>::new());
    assert_code(own.stat("theirs"), Code::NotFound);
    assert_code(own.remove("theirs"), Code::NotFound);
    assert_code(own.prepare("above", Some("theirs"), &none()), Code::NotFound);
    // The same name is free here, and each has its own.
    commit(&own, "base", None);
    own.prepare("active", Some("base"), &none()).unwrap();
    assert_eq!(own.stat("base").unwrap().kind, Kind::Committed);
    assert_eq!(names(&own), ["active", "base"]);
    own.remove("active").unwrap();
    own.remove("base").unwrap();
    assert_code(own.stat("base"), Code::NotFound);
    assert_eq!(names(&other), ["base", "theirs"]);
    assert_whole(&Store::open(&options).unwrap());
}
