//! Labels: changed one by one or all at once, kept as given, and those that say what to do.

use layerstore::snapshotter::{Code, CommitOptions, Kind, SnapshotterOptions};

use super::{Snapshots, assert_code, labels, none};

const REFERENCE: &str = "containerd.io/snapshot.ref";
const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";
const UIDS: &str = "containerd.io/snapshot/uidmapping";
const GIDS: &str = "containerd.io/snapshot/gidmapping";

fn commit(snapshots: &Snapshots, name: &str, parent: Option<&str>, given: &[(&str, &str)]) {
    let key = format!("{name}-active");
    snapshots.prepare(&key, parent, &none()).unwrap();
    let mut options = CommitOptions::default();
    options.labels = labels(given);
    snapshots.commit(name, &key, &options).unwrap();
}

#[test]
fn labels_are_changed_one_by_one_or_all_at_once() {
    let snapshots = Snapshots::new("snapshot-update");
    let root = ("containerd.io/gc.root", "2026-01-01T00:00:00Z");
    commit(&snapshots, "base", None, &[("l1", "v1"), ("l2", "v2"), root]);
    let first = snapshots.stat("base").unwrap();
    assert_eq!(first.labels, labels(&[("l1", "v1"), ("l2", "v2"), root]));
    let change = |given: &[(&str, &str)], paths: &[&str]| {
        let mut info = snapshots.stat("base").unwrap();
        info.labels = labels(given);
        let updated = snapshots.update(&info, paths).unwrap();
        assert_eq!(snapshots.stat("base").unwrap(), updated);
        updated.labels
    };
    // What is not named stays; what is named and not there goes.
    let changed = change(&[("l1", "updated"), ("l2", "not named")], &["labels.l1"]);
    assert_eq!(changed, labels(&[("l1", "updated"), ("l2", "v2"), root]));
    assert_eq!(
        change(&[("l3", "v3")], &["labels.l2", "labels.l3"]),
        labels(&[("l1", "updated"), ("l3", "v3"), root])
    );
    assert_eq!(
        change(&[("a.b/c", "dots")], &["labels.a.b/c", "labels.l3"]),
        labels(&[("a.b/c", "dots"), ("l1", "updated"), root])
    );
    assert_eq!(change(&[("all", "of them"), ("empty", "")], &["labels"]), labels(&[("all", "of them")]));
    assert_eq!(change(&[root], &[]), labels(&[root]));
    assert_eq!(change(&[], &[]), none());

    // Nothing else changes, whatever is said.
    let mut info = snapshots.stat("base").unwrap();
    (info.kind, info.parent, info.created) = (Kind::Active, Some("x".to_owned()), std::time::UNIX_EPOCH);
    let updated = snapshots.update(&info, &[]).unwrap();
    assert_eq!((updated.kind, updated.parent, updated.created), (Kind::Committed, None, first.created));
    assert!(updated.updated > first.updated);
    for field in ["parent", "name", "kind", "created", "labels2", "label", ""] {
        assert_code(snapshots.update(&info, &["labels", field]), Code::InvalidArgument);
    }
    info.name = "other".to_owned();
    assert_code(snapshots.update(&info, &[]), Code::NotFound);
}

#[test]
fn a_commit_replaces_labels() {
    let snapshots = Snapshots::new("snapshot-inherit");
    snapshots
        .prepare("a", None, &labels(&[("containerd.io/snapshot/x", "kept as given"), ("empty", "")]))
        .unwrap();
    assert_eq!(snapshots.stat("a").unwrap().labels, labels(&[("containerd.io/snapshot/x", "kept as given")]));
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    assert_eq!(snapshots.stat("base").unwrap().labels, none());
    snapshots.prepare("b", Some("base"), &none()).unwrap();
    assert_eq!(snapshots.stat("b").unwrap().labels, none());
}

#[test]
fn what_is_there_for_a_reference_is_not_unpacked_again() {
    let mut options = SnapshotterOptions::default();
    options.adopt_references = true;
    let snapshots = Snapshots::with("snapshot-reference", options);
    let target = "sha256:0123";
    let wanted = labels(&[(REFERENCE, target)]);
    // Not there yet; and what is still being unpacked is not it.
    snapshots.prepare("a/1/unpack", None, &wanted).unwrap();
    snapshots.prepare("b/2/unpack", None, &wanted).unwrap();
    let mut options = CommitOptions::default();
    options.labels = wanted.clone();
    snapshots.commit("a/3/sha256:0123", "a/1/unpack", &options).unwrap();
    assert_code(snapshots.prepare("b/4/unpack", None, &wanted), Code::AlreadyExists);
    assert_code(snapshots.stat("b/4/unpack"), Code::NotFound);
    // containerd finds it so.
    let filter = format!(r#"labels."{REFERENCE}"=={target},parent=="""#);
    assert_eq!(snapshots.names(&[&format!("kind==committed,{filter}")]), ["a/3/sha256:0123"]);
    // Above another parent it is not the same, be it nothing, and who wants to look does not unpack.
    snapshots.prepare("above", Some("a/3/sha256:0123"), &wanted).unwrap();
    snapshots.view("view", Some("a/3/sha256:0123"), &wanted).unwrap();
    snapshots.prepare("other", None, &labels(&[(REFERENCE, "sha256:4567")])).unwrap();
    // A name that is the reference says nothing: containerd would not find it.
    commit(&snapshots, "sha256:89ab", Some("a/3/sha256:0123"), &[]);
    let named = labels(&[(REFERENCE, "sha256:89ab")]);
    snapshots.prepare("c", Some("a/3/sha256:0123"), &named).unwrap();
    commit(&snapshots, "a/5/sha256:89ab", Some("a/3/sha256:0123"), &[(REFERENCE, "sha256:89ab")]);
    assert_code(snapshots.prepare("d", Some("a/3/sha256:0123"), &named), Code::AlreadyExists);
    snapshots.prepare("e", None, &named).unwrap();
    // Who was not told to adopt unpacks it again, and so fetches it.
    let plain =
        layerstore::snapshotter::Snapshotter::new(snapshots.store.clone(), SnapshotterOptions::default())
            .unwrap();
    plain.prepare("d", Some("a/3/sha256:0123"), &named).unwrap();
}

#[test]
fn the_upper_directory_is_shown_and_not_kept() {
    let mut options = SnapshotterOptions::default();
    options.upperdir_label = true;
    let snapshots = Snapshots::with("snapshot-upperdir", options);
    let mounts = snapshots.prepare("a", None, &labels(&[("own", "label")])).unwrap();
    let source = mounts[0].source.to_str().unwrap().to_owned();
    let shown = snapshots.stat("a").unwrap();
    assert_eq!(shown.labels, labels(&[("own", "label"), (UPPERDIR, &source)]));
    for paths in [&["labels.own"][..], &["labels"], &[]] {
        assert_eq!(snapshots.update(&shown, paths).unwrap().labels, shown.labels);
        let kept = snapshots.store.layer("snapshot:a").unwrap().labels;
        assert_eq!(kept, [("own".to_owned(), "label".to_owned())]);
    }
    snapshots
        .walk(&[], |info| {
            assert_eq!(info.labels, shown.labels);
            Ok(())
        })
        .unwrap();
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    assert_eq!(snapshots.stat("base").unwrap().labels, labels(&[(UPPERDIR, &source)]));
    let plain =
        layerstore::snapshotter::Snapshotter::new(snapshots.store.clone(), SnapshotterOptions::default())
            .unwrap();
    assert_eq!(plain.stat("base").unwrap().labels, none());
}

/// As the labels that are kept: a list is of one moment, and read in one transaction.
#[test]
fn upper_directories_in_a_list_are_those_of_its_moment() {
    let mut options = SnapshotterOptions::default();
    options.upperdir_label = true;
    let snapshots = Snapshots::with("snapshot-upperdirs", options);
    let mut sources = Vec::new();
    for key in ["a", "b"] {
        sources.push(snapshots.prepare(key, None, &none()).unwrap()[0].source.to_str().unwrap().to_owned());
    }
    let mut shown = Vec::new();
    snapshots
        .walk(&[], |mut info| {
            if info.name == "a" {
                snapshots.remove("b").unwrap();
            }
            shown.push(info.labels.remove(UPPERDIR).unwrap());
            Ok(())
        })
        .unwrap();
    assert_eq!(shown, sources);
}

#[test]
fn an_update_of_none_says_so_whatever_it_wants() {
    let snapshots = Snapshots::new("snapshot-update-none");
    let mut info = {
        snapshots.prepare("a", None, &none()).unwrap();
        snapshots.stat("a").unwrap()
    };
    assert_code(snapshots.update(&info, &["parent"]), Code::InvalidArgument);
    info.name = "missing".to_owned();
    assert_code(snapshots.update(&info, &["parent"]), Code::NotFound);
}

#[test]
fn id_maps_are_said_in_mounts() {
    let mut options = SnapshotterOptions::default();
    options.remap_ids = true;
    let snapshots = Snapshots::with("snapshot-maps", options);
    let own = std::fs::metadata(snapshots.dir.path()).unwrap();
    let (uid, gid) = {
        use std::os::unix::fs::MetadataExt;
        (own.uid(), own.gid())
    };
    // Without privileges nobody gives directories away: then root is who it is already.
    let (uid, gid) = if crate::support::machine::is_real_root() { (100_000, 200_000) } else { (uid, gid) };
    let (uids, gids) = (format!("0:{uid}:65536"), format!("0:{gid}:10,10:300000:10"));
    let maps = labels(&[(UIDS, &uids), (GIDS, &gids)]);
    commit(&snapshots, "base", None, &[]);
    for (key, parent) in [("bind", None), ("overlay", Some("base"))] {
        let mounts = snapshots.prepare(key, parent, &maps).unwrap();
        let words: Vec<&str> = mounts[0].options.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[..2], [format!("uidmap={uids}"), format!("gidmap={gids}")]);
        use std::os::unix::fs::MetadataExt;
        let directory = match parent {
            None => mounts[0].source.to_str().unwrap(),
            Some(_) => words.iter().find_map(|word| word.strip_prefix("upperdir=")).unwrap(),
        };
        let root = std::fs::metadata(directory).unwrap();
        assert_eq!((root.uid(), root.gid()), (uid, gid), "{key}");
    }
    for (uids, gids) in [
        ("", "0:1:2"),
        ("0:1:2", ""),
        ("x", "0:1:2"),
        ("1:1:2", "0:1:2"),
        ("0:1", "0:1:2"),
        ("0:1:0", "0:1:2"),
    ] {
        let bad = labels(&[(UIDS, uids), (GIDS, gids)]);
        assert_code(snapshots.prepare("bad", Some("base"), &bad), Code::InvalidArgument);
        assert_code(snapshots.stat("bad"), Code::NotFound);
    }
    // Who does not remap says nothing of maps in mounts.
    let plain =
        layerstore::snapshotter::Snapshotter::new(snapshots.store.clone(), SnapshotterOptions::default())
            .unwrap();
    let mounts = plain.mounts("bind").unwrap();
    assert_eq!(mounts[0].options, ["rw", "rbind"]);
}
