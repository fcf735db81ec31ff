//! What is known of snapshots: kinds, parents, times, keys; lists of them.

use std::time::SystemTime;

use layerstore::snapshotter::{Code, CommitOptions, Kind, SnapshotError, SnapshotterOptions, Usage};
use layerstore::{CheckOptions, LayerOptions};

use super::{Snapshots, assert_code, labels, none};
use crate::support::store::assert_whole;

fn commit(snapshots: &Snapshots, name: &str, parent: Option<&str>) {
    let key = format!("{name}-active");
    snapshots.prepare(&key, parent, &none()).unwrap();
    snapshots.commit(name, &key, &CommitOptions::default()).unwrap();
}

#[test]
fn a_snapshot_is_known_by_key_and_then_by_name() {
    let snapshots = Snapshots::new("snapshot-stat");
    let before = SystemTime::now();
    snapshots.prepare("default/1/a b%", None, &none()).unwrap();
    let active = snapshots.stat("default/1/a b%").unwrap();
    assert_eq!(
        (active.kind, active.name.as_str(), active.parent.as_deref()),
        (Kind::Active, "default/1/a b%", None)
    );
    assert!(
        active.created == active.updated && active.created >= before && active.created <= SystemTime::now()
    );
    snapshots.commit("default/2/sha256:0123", "default/1/a b%", &CommitOptions::default()).unwrap();
    assert_code(snapshots.stat("default/1/a b%"), Code::NotFound);
    let base = snapshots.stat("default/2/sha256:0123").unwrap();
    assert_eq!((base.kind, base.parent), (Kind::Committed, None));
    assert!(base.created >= active.created && base.created == base.updated);
    snapshots.view("view", Some("default/2/sha256:0123"), &none()).unwrap();
    assert_eq!(snapshots.stat("view").unwrap().kind, Kind::View);
    for missing in ["", "default", "default/2/sha256", "snapshot:view", &"k".repeat(5000)] {
        assert_code(snapshots.stat(missing), Code::NotFound);
    }
    // The digest of the layer is no key, nor is any layer a snapshot.
    let plain = snapshots.store.create_layer(None, &LayerOptions::named("plain")).unwrap();
    assert_code(snapshots.stat("plain"), Code::NotFound);
    assert_code(snapshots.stat(plain.id.as_str()), Code::NotFound);
    assert_whole(&snapshots.store);
}

#[test]
fn parents_are_committed_snapshots() {
    let snapshots = Snapshots::new("snapshot-parents");
    commit(&snapshots, "base", None);
    commit(&snapshots, "next", Some("base"));
    snapshots.prepare("web", Some("next"), &none()).unwrap();
    for (name, parent) in [("base", None), ("next", Some("base")), ("web", Some("next"))] {
        assert_eq!(snapshots.stat(name).unwrap().parent.as_deref(), parent, "{name}");
    }
    assert_code(snapshots.prepare("x", Some("web"), &none()), Code::InvalidArgument);
    assert_code(snapshots.view("x", Some("missing"), &none()), Code::NotFound);
    assert_code(snapshots.commit("x", "next", &CommitOptions::default()), Code::FailedPrecondition);
    assert_code(snapshots.commit("x", "missing", &CommitOptions::default()), Code::NotFound);
    assert_code(snapshots.commit("base", "web", &CommitOptions::default()), Code::AlreadyExists);
    assert_eq!(snapshots.stat("web").unwrap().kind, Kind::Active);
}

#[test]
fn a_key_is_used_once_and_free_after_removal() {
    let snapshots = Snapshots::new("snapshot-keys");
    commit(&snapshots, "base", None);
    snapshots.prepare("a", None, &none()).unwrap();
    snapshots.view("v", Some("base"), &none()).unwrap();
    for taken in ["a", "v", "base"] {
        assert_code(snapshots.prepare(taken, None, &none()), Code::AlreadyExists);
        assert_code(snapshots.view(taken, Some("base"), &none()), Code::AlreadyExists);
    }
    assert_code(snapshots.prepare("", None, &none()), Code::InvalidArgument);
    assert_code(snapshots.commit("", "a", &CommitOptions::default()), Code::InvalidArgument);
    // Removed, it can be anything: first a view, then something to write to.
    snapshots.remove("a").unwrap();
    snapshots.view("a", Some("base"), &none()).unwrap();
    snapshots.remove("a").unwrap();
    snapshots.prepare("a", Some("base"), &none()).unwrap();
    snapshots.commit("next", "a", &CommitOptions::default()).unwrap();
    snapshots.remove("next").unwrap();
    commit(&snapshots, "next", None);
    assert_code(snapshots.remove("a"), Code::NotFound);
    assert_whole(&snapshots.store);
}

#[test]
fn what_others_stand_on_stays() {
    let snapshots = Snapshots::new("snapshot-children");
    commit(&snapshots, "base", None);
    commit(&snapshots, "next", Some("base"));
    snapshots.view("view", Some("next"), &none()).unwrap();
    for needed in ["base", "next"] {
        assert_code(snapshots.remove(needed), Code::FailedPrecondition);
    }
    for free in ["view", "next", "base"] {
        snapshots.remove(free).unwrap();
    }
    assert_eq!(snapshots.names(&[]), Vec::<String>::new());
    assert_whole(&snapshots.store);
}

#[test]
fn a_walk_shows_what_a_filter_lets_through() {
    let snapshots = Snapshots::new("snapshot-walk");
    let (red, blue) =
        (labels(&[("color", "red")]), labels(&[("color", "blue"), ("containerd.io/gc.root", "now")]));
    snapshots.prepare("base-active", None, &none()).unwrap();
    let mut options = CommitOptions::default();
    options.labels = red.clone();
    snapshots.commit("base", "base-active", &options).unwrap();
    commit(&snapshots, "plain", None);
    snapshots.prepare("active", Some("base"), &blue).unwrap();
    snapshots.prepare("unlabelled", None, &none()).unwrap();
    snapshots.view("view", Some("base"), &red).unwrap();
    for (filters, names) in [
        (&[][..], &["active", "base", "plain", "unlabelled", "view"][..]),
        (&["kind==committed"], &["base", "plain"]),
        (&["kind==active"], &["active", "unlabelled"]),
        (&["kind==view"], &["view"]),
        (&["name==base"], &["base"]),
        (&["parent==base"], &["active", "view"]),
        (&["labels.color==red"], &["base", "view"]),
        (&["labels.color"], &["active", "base", "view"]),
        (&["labels.color!=red"], &["active", "plain", "unlabelled"]),
        (&[r#"labels."containerd.io/gc.root""#], &["active"]),
        (&["kind==view,labels.color==red"], &["view"]),
        (&["kind==view,labels.color==blue"], &[]),
        (&["kind==view", "labels.color==blue"], &["active", "view"]),
        (&["name~=/^(base|plain)$/"], &["base", "plain"]),
    ] {
        assert_eq!(snapshots.names(filters), names, "{filters:?}");
    }
    assert_code(snapshots.walk(&["kind", "=="], |_| Ok(())), Code::InvalidArgument);
    // Each is shown whole, and every method may be called meanwhile.
    let mut seen = 0;
    snapshots
        .walk(&[], |info| {
            assert_eq!(snapshots.stat(&info.name)?, info);
            snapshots.update(&info, &["labels"])?;
            seen += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!(seen, 5);
    let stopped = snapshots.walk(&[], |_| Err(SnapshotError::Visitor("enough".into())));
    assert_code(stopped, Code::Aborted);
}

#[test]
fn usage_is_measured_and_then_known() {
    let snapshots = Snapshots::new("snapshot-usage");
    let mounts = snapshots.prepare("active", None, &none()).unwrap();
    let root = std::path::PathBuf::from(&mounts[0].source);
    assert_eq!(snapshots.usage("active").unwrap().inodes, 1);
    std::fs::write(root.join("file"), vec![1; 1 << 20]).unwrap();
    let active = snapshots.usage("active").unwrap();
    assert!(active.inodes == 2 && active.size >= 1 << 20, "{active:?}");
    snapshots.commit("base", "active", &CommitOptions::default()).unwrap();
    let committed = snapshots.usage("base").unwrap();
    assert!(committed.inodes == 2 && committed.size >= 1 << 20, "{committed:?}");
    // Of the record: nothing is measured, and nothing below counts.
    std::fs::write(root.join("more"), vec![1; 1 << 20]).unwrap();
    assert_eq!(snapshots.usage("base").unwrap(), committed);
    snapshots.prepare("next", Some("base"), &none()).unwrap();
    assert!(snapshots.usage("next").unwrap().size < 1 << 20);
    snapshots.view("view", Some("base"), &none()).unwrap();
    assert_eq!(snapshots.usage("view").unwrap(), Usage::default());
    assert_code(snapshots.usage("missing"), Code::NotFound);
}

#[test]
fn closing_ends_nothing() {
    let snapshots = Snapshots::new("snapshot-close");
    snapshots.close().unwrap();
    snapshots.close().unwrap();
    snapshots.prepare("a", None, &none()).unwrap();
}

#[test]
fn files_can_be_left_to_cleanup() {
    let mut options = SnapshotterOptions::default();
    options.async_remove = true;
    let snapshots = Snapshots::with("snapshot-async", options);
    let mounts = snapshots.prepare("a", None, &none()).unwrap();
    std::fs::write(std::path::Path::new(&mounts[0].source).join("file"), "left").unwrap();
    snapshots.remove("a").unwrap();
    assert_code(snapshots.stat("a"), Code::NotFound);
    // The key is free, and the files are somewhere.
    snapshots.prepare("a", None, &none()).unwrap();
    let garbage = || snapshots.store.gc(true).unwrap().removed.len();
    assert!(garbage() > 0);
    snapshots.cleanup().unwrap();
    assert_eq!(garbage(), 0);
    assert_eq!(snapshots.names(&[]), ["a"]);
    assert_whole(&snapshots.store);
}

#[test]
fn what_is_written_after_the_commit_is_found() {
    let snapshots = Snapshots::new("snapshot-after");
    let mounts = snapshots.prepare("a", None, &none()).unwrap();
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    std::fs::write(std::path::Path::new(&mounts[0].source).join("late"), "late").unwrap();
    let report = snapshots.store.check(&CheckOptions::default()).unwrap();
    assert!(!report.is_clean());
}
