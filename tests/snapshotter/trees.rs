//! What is written through mounts, committed, and seen in the snapshots above.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use layerstore::snapshotter::{Code, CommitOptions};

use super::{Snapshots, assert_code, none};
use crate::support::machine;
use crate::support::store::assert_whole;
use crate::support::tree::Tree;

macro_rules! snapshots {
    ($name:literal) => {{
        if !machine::is_root() {
            skip!("mounting needs root or a user namespace");
        }
        Snapshots::new($name)
    }};
}

fn write(root: &Path, path: &str, content: &str) {
    fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
    fs::write(root.join(path), content).unwrap();
}

fn paths(tree: &Tree) -> Vec<String> {
    let paths = tree.nodes.keys().filter(|path| !path.is_empty());
    paths.map(|path| String::from_utf8(path.clone()).unwrap()).collect()
}

#[test]
fn each_level_shows_its_own_tree() {
    let snapshots = snapshots!("snapshot-basic");
    let written = {
        snapshots.prepare("active", None, &none()).unwrap();
        let mounted = snapshots.mount("active");
        write(mounted.path(), "foo", "foo\n");
        write(mounted.path(), "a/b/c/d", "deep");
        let written = Tree::scan(mounted.path());
        // While it is mounted still.
        snapshots.commit("base", "active", &CommitOptions::default()).unwrap();
        written
    };
    written.assert_same(&snapshots.tree("base"));

    snapshots.prepare("active", Some("base"), &none()).unwrap();
    let changed = {
        let mounted = snapshots.mount("active");
        written.assert_same(&Tree::scan(mounted.path()));
        write(mounted.path(), "bar", "bar\n");
        write(mounted.path(), "foo", "changed\n");
        fs::remove_dir_all(mounted.join("a/b")).unwrap();
        Tree::scan(mounted.path())
    };
    // Who was mounted in between finds what was written before.
    changed.assert_same(&Tree::scan(snapshots.mount("active").path()));
    snapshots.commit("next", "active", &CommitOptions::default()).unwrap();
    assert_eq!(paths(&snapshots.tree("next")), ["a", "bar", "foo"]);
    changed.assert_same(&snapshots.tree("next"));
    written.assert_same(&snapshots.tree("base"));
    assert_code(snapshots.remove("base"), Code::FailedPrecondition);
    snapshots.remove("next").unwrap();
    snapshots.remove("base").unwrap();
    assert_whole(&snapshots.store);
}

#[test]
fn a_change_of_the_same_length_in_the_same_second_is_one() {
    let snapshots = snapshots!("snapshot-second");
    for round in 0..5 {
        let (base, next) = (format!("base-{round}"), format!("next-{round}"));
        snapshots.layer(&base, None, |root| write(root, "file", "one"));
        snapshots.layer(&next, Some(&base), |root| {
            let time = fs::metadata(root.join("file")).unwrap().modified().unwrap();
            write(root, "file", "two");
            fs::File::options().write(true).open(root.join("file")).unwrap().set_modified(time).unwrap();
        });
        snapshots.view("look", Some(&next), &none()).unwrap();
        assert_eq!(fs::read_to_string(snapshots.mount("look").join("file")).unwrap(), "two");
        snapshots.remove("look").unwrap();
    }
}

#[test]
fn a_directory_that_was_removed_and_made_again_is_empty() {
    let snapshots = snapshots!("snapshot-opaque");
    snapshots.layer("base", None, |root| {
        write(root, "dir/one", "1");
        write(root, "dir/sub/two", "2");
    });
    snapshots.layer("next", Some("base"), |root| fs::remove_dir_all(root.join("dir")).unwrap());
    snapshots.layer("again", Some("next"), |root| write(root, "dir/three", "3"));
    snapshots.layer("at-once", Some("base"), |root| {
        fs::remove_dir_all(root.join("dir")).unwrap();
        write(root, "dir/three", "3");
    });
    snapshots.layer("above", Some("at-once"), |root| write(root, "dir/four", "4"));
    assert_eq!(paths(&snapshots.tree("next")), Vec::<String>::new());
    for name in ["again", "at-once"] {
        assert_eq!(paths(&snapshots.tree(name)), ["dir", "dir/three"], "{name}");
    }
    assert_eq!(paths(&snapshots.tree("above")), ["dir", "dir/four", "dir/three"]);
}

#[test]
fn owners_and_modes_are_kept_over_commits() {
    let snapshots = snapshots!("snapshot-owners");
    if !machine::is_mapped(1) {
        skip!("a second id is needed");
    }
    snapshots.layer("base", None, |root| {
        write(root, "opt/a/b.txt", "b");
        write(root, "etc/foo", "foo");
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o710)).unwrap();
    });
    snapshots.layer("next", Some("base"), |root| {
        for path in ["opt", "opt/a", "opt/a/b.txt"] {
            chown(root.join(path), Some(1), Some(1)).unwrap();
        }
    });
    snapshots.layer("last", Some("next"), |root| write(root, "opt/a/b.txt", "changed"));
    let tree = snapshots.tree("last");
    for path in ["opt", "opt/a", "opt/a/b.txt"] {
        let node = tree.get(path).unwrap();
        assert_eq!((node.uid, node.gid), (1, 1), "{path}");
    }
    let etc = tree.get("etc").unwrap();
    assert_eq!((etc.mode & 0o7777, etc.uid), (0o710, 0));
}

#[test]
fn lower_files_are_moved_linked_and_deleted() {
    let snapshots = snapshots!("snapshot-moves");
    snapshots.layer("base", None, |root| {
        for path in ["f1", "f2", "f3", "dir/lower", "gone/file"] {
            write(root, path, path);
        }
    });
    let check = |name: &str| {
        snapshots.view("look", Some(name), &none()).unwrap();
        let view = snapshots.mount("look");
        assert_eq!(fs::read_to_string(view.join("moved")).unwrap(), "f1");
        // What was there is another file now, by a rename over it.
        assert_eq!(fs::read_to_string(view.join("f2")).unwrap(), "new");
        assert_eq!(
            fs::metadata(view.join("f3")).unwrap().ino(),
            fs::metadata(view.join("linked")).unwrap().ino()
        );
        assert_eq!(fs::read_to_string(view.join("dir2/lower")).unwrap(), "dir/lower");
        for gone in ["f1", "dir", "gone"] {
            assert!(!view.join(gone).exists(), "{gone}");
        }
        drop(view);
        snapshots.remove("look").unwrap();
    };
    snapshots.layer("next", Some("base"), |root| {
        fs::rename(root.join("f1"), root.join("moved")).unwrap();
        write(root, "new", "new");
        fs::rename(root.join("new"), root.join("f2")).unwrap();
        fs::hard_link(root.join("f3"), root.join("linked")).unwrap();
        fs::remove_dir_all(root.join("gone")).unwrap();
        // A directory of a lower layer is never moved by a redirect, which would mean nothing in an archive: programs copy.
        let moved = fs::rename(root.join("dir"), root.join("dir2"));
        assert_eq!(moved.unwrap_err().kind(), std::io::ErrorKind::CrossesDevices);
        write(root, "dir2/lower", "dir/lower");
        fs::remove_dir_all(root.join("dir")).unwrap();
    });
    check("next");
    snapshots.layer("last", Some("next"), |root| write(root, "other", "other"));
    check("last");
    // A directory that is of this snapshot alone is moved.
    snapshots.layer("own", Some("last"), |root| {
        write(root, "mine/file", "mine");
        fs::rename(root.join("mine"), root.join("yours")).unwrap();
    });
    assert!(snapshots.tree("own").get("yours/file").is_some());
}

#[test]
fn a_view_refuses_writes() {
    let snapshots = snapshots!("snapshot-read-only");
    snapshots.layer("base", None, |root| write(root, "file", "file"));
    snapshots.layer("next", Some("base"), |root| write(root, "more", "more"));
    for (key, parent) in [("nothing", None), ("one", Some("base")), ("two", Some("next"))] {
        snapshots.view(key, parent, &none()).unwrap();
        let view = snapshots.mount(key);
        let refused = fs::write(view.join("new"), "new").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{key}");
        drop(view);
        let layer = snapshots.store.layer(&format!("snapshot:{key}")).unwrap();
        assert_eq!(snapshots.store.layer_usage(&layer.id).unwrap().inodes, 1);
    }
}

#[test]
fn the_root_of_a_new_snapshot_is_0755_or_that_of_the_one_below() {
    let snapshots = snapshots!("snapshot-root-mode");
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    snapshots.prepare("a", None, &none()).unwrap();
    assert_eq!(mode(snapshots.mount("a").path()), 0o755);
    snapshots.view("v", None, &none()).unwrap();
    assert_eq!(mode(snapshots.mount("v").path()), 0o755);
    snapshots.commit("base", "a", &CommitOptions::default()).unwrap();
    snapshots.layer("strict", Some("base"), |root| {
        assert_eq!(mode(root), 0o755);
        fs::set_permissions(root, fs::Permissions::from_mode(0o555)).unwrap();
    });
    snapshots.layer("above", Some("strict"), |root| assert_eq!(mode(root), 0o555));
    assert_eq!(snapshots.tree("above").get("").unwrap().mode & 0o7777, 0o555);
}

#[test]
fn layers_are_committed_onto_another_parent() {
    let snapshots = snapshots!("snapshot-rebase");
    snapshots.layer("base", None, |root| {
        write(root, "dir/one", "1");
        write(root, "gone", "gone");
    });
    snapshots.layer("other", None, |root| write(root, "other", "other"));
    let mut onto_base = CommitOptions::default();
    onto_base.parent = Some("base".to_owned());
    // Unpacked beside the one that it belongs above.
    snapshots.prepare("unpack", None, &none()).unwrap();
    {
        let mounted = snapshots.mount("unpack");
        write(mounted.path(), "dir/two", "2");
    }
    assert_code(snapshots.commit("next", "unpack", &missing_parent()), Code::NotFound);
    snapshots.prepare("active", Some("other"), &none()).unwrap();
    let mut onto_active = CommitOptions::default();
    onto_active.parent = Some("active".to_owned());
    assert_code(snapshots.commit("next", "unpack", &onto_active), Code::FailedPrecondition);
    assert_code(snapshots.commit("next", "active", &onto_base), Code::InvalidArgument);
    snapshots.commit("next", "unpack", &onto_base).unwrap();
    assert_eq!(snapshots.stat("next").unwrap().parent.as_deref(), Some("base"));
    assert_eq!(paths(&snapshots.tree("next")), ["dir", "dir/one", "dir/two", "gone"]);
    assert_code(snapshots.remove("base"), Code::FailedPrecondition);
    // Its own parent, or none, changes nothing.
    let mut onto_other = CommitOptions::default();
    onto_other.parent = Some("other".to_owned());
    snapshots.commit("last", "active", &onto_other).unwrap();
    assert_eq!(snapshots.stat("last").unwrap().parent.as_deref(), Some("other"));
    assert_whole(&snapshots.store);
}

fn missing_parent() -> CommitOptions {
    let mut options = CommitOptions::default();
    options.parent = Some("missing".to_owned());
    options
}

#[test]
fn there_can_be_128_layers() {
    let snapshots = snapshots!("snapshot-128");
    let mut parent: Option<String> = None;
    for level in 1..=128 {
        let name = format!("level-{level}");
        snapshots.layer(&name, parent.as_deref(), |root| {
            for below in [1, level / 2, level - 1] {
                let found = fs::read_to_string(root.join(format!("file-{below}"))).ok();
                assert_eq!(found, (1..level).contains(&below).then(|| below.to_string()), "{level}");
            }
            assert_eq!(
                fs::read_to_string(root.join("last")).ok(),
                (level > 1).then(|| (level - 1).to_string())
            );
            write(root, &format!("file-{level}"), &level.to_string());
            write(root, "last", &level.to_string());
        });
        parent = Some(name);
    }
    let tree = snapshots.tree(parent.as_deref().unwrap());
    assert_eq!(paths(&tree).len(), 129);
}
