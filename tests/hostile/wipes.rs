//! A wipe removes what the store has, and nothing else, whatever stands in its directories.

use std::os::unix::fs::symlink;

use layerstore::WipeOptions;

use super::*;
use crate::support::machine;
use crate::support::store::open;

/// A directory with a store that has an image, and a victim beside it.
struct Wiped {
    dir: Dir,
    before: Tree,
}

impl Wiped {
    fn new() -> Self {
        let dir = Dir::new("hostile-wipe");
        dir.write("victim/hello", "hello");
        dir.write("victim/dir/secret", "secret");
        let before = Tree::scan(dir.join("victim"));
        let layers = [
            Layer::new([Member::directory("etc"), Member::file("etc/passwd", b"x")]),
            Layer::new([Member::symlink("victim", dir.join("victim").to_str().unwrap())]),
        ];
        let written = Image::new(layers).write(dir.join("layout"), TAG);
        let store = open(&dir);
        let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
        store.load(&source, &LoadOptions::named("hostile")).unwrap();
        Self { dir, before }
    }

    /// The directories of the two layers, that with the file first.
    fn diffs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.root().join("diffs")).unwrap();
        let mut diffs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        diffs.sort_by_key(|diff| !diff.join("etc").exists());
        diffs
    }

    #[track_caller]
    fn assert_victim(&self) {
        self.before.assert_same(&Tree::scan(self.dir.join("victim")));
    }
}

#[test]
fn what_is_no_store_is_not_wiped() {
    let dir = Dir::new("hostile-wipe");
    for root in ["empty", "files", "file"] {
        match root {
            "empty" => drop(dir.create_dir(root)),
            "files" => drop(dir.write("files/diffs/1/file", "somebody's")),
            _ => drop(dir.write(root, "a file")),
        }
        let root = dir.join(root);
        let before = Tree::scan(dir.path());
        let wipe = |force: &[&str]| {
            let arguments = [&["--root", root.to_str().unwrap(), "wipe"], force].concat();
            crate::support::TestCommand::layerstore().args(arguments).assert_failure()
        };
        let error = wipe(&["--force"]);
        assert!(error.contains(root.to_str().unwrap()), "{error}");
        before.assert_same(&Tree::scan(dir.path()));
    }
    let missing = dir.join("missing");
    crate::support::TestCommand::layerstore()
        .args(["--root", missing.to_str().unwrap(), "wipe", "--force"])
        .assert_failure();
    assert!(!missing.exists());
}

#[test]
fn links_in_a_store_are_removed_and_not_followed() {
    let wiped = Wiped::new();
    let victim = wiped.dir.join("victim");
    let [lower, upper] = wiped.diffs().try_into().unwrap();
    // In a layer, in place of a layer, and beside the layers.
    symlink(&victim, lower.join("etc/link")).unwrap();
    std::fs::remove_dir_all(&upper).unwrap();
    symlink(&victim, &upper).unwrap();
    symlink(&victim, wiped.dir.root().join("trash/link")).unwrap();
    let store = open(&wiped.dir);
    store.wipe().unwrap();
    store.gc(false).unwrap();
    wiped.assert_victim();
    assert_eq!(store.layers().unwrap(), []);
    assert!(!lower.exists() && !upper.is_symlink());
}

#[test]
fn a_directory_of_the_store_that_became_a_link_is_not_followed() {
    for which in ["diffs", "trash", "blobs", "locks", "work", "data"] {
        let wiped = Wiped::new();
        let victim = wiped.dir.join("victim");
        for diff in wiped.diffs() {
            let name = diff.file_name().unwrap();
            std::fs::create_dir_all(wiped.dir.join("victim").join(name).join("etc")).unwrap();
        }
        let before = Tree::scan(&victim);
        let own = wiped.dir.root().join(which);
        if own.exists() {
            std::fs::rename(&own, wiped.dir.join("away")).unwrap();
        }
        symlink(&victim, &own).unwrap();
        let wipe = |store: Store| store.wipe().and_then(|()| store.gc(false).map(drop));
        let options = StoreOptions::at(wiped.dir.root()).run_root(wiped.dir.run_root()).reserve(0);
        // Whether there is anything to do in there or not: it is done nowhere else.
        let _outcome = Store::open(&options).and_then(wipe);
        before.assert_same(&Tree::scan(&victim));
        assert!(own.is_symlink(), "{which}");
    }
}

#[test]
fn a_store_behind_a_link_is_wiped_and_the_link_stays() {
    let wiped = Wiped::new();
    let link = wiped.dir.join("link");
    symlink(wiped.dir.root(), &link).unwrap();
    let options = StoreOptions::at(&link).run_root(wiped.dir.run_root()).reserve(0);
    let store = Store::open(&options).unwrap();
    store.wipe_with(&WipeOptions::default()).unwrap();
    assert_eq!(store.layers().unwrap(), []);
    assert!(link.is_symlink() && wiped.dir.root().join("store.redb").exists());
    wiped.assert_victim();
    // A link to what is no store is as good as that.
    let into = wiped.dir.join("into-the-victim");
    symlink(wiped.dir.join("victim"), &into).unwrap();
    crate::support::TestCommand::layerstore()
        .args(["--root", into.to_str().unwrap(), "wipe", "--force"])
        .assert_failure();
    wiped.assert_victim();
}

#[test]
fn a_mount_in_a_store_is_not_crossed() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    for place in ["in a layer", "over a layer", "in the trash"] {
        let wiped = Wiped::new();
        let [lower, _] = wiped.diffs().try_into().unwrap();
        let at = match place {
            "in a layer" => lower.join("etc"),
            "over a layer" => lower.clone(),
            _ => wiped.dir.create_dir("root/trash/mount"),
        };
        rustix::mount::mount_bind(wiped.dir.join("victim"), &at).unwrap();
        let store = open(&wiped.dir);
        let outcome = store.wipe().and_then(|()| store.gc(false));
        wiped.assert_victim();
        // A layer is moved before it is emptied, and takes the mount with it.
        let mounts = wiped.dir.mounts();
        assert_eq!(mounts.len(), 1, "{place}: {outcome:?}");
        mounts.iter().for_each(|mount| machine::unmount(mount));
        wiped.assert_victim();
        // Once it is gone, the rest can go, too.
        let again = store.wipe().and_then(|()| store.gc(false));
        assert!(again.is_ok(), "{place}: {outcome:?}, {again:?}");
        assert!(!lower.exists(), "{place}");
        assert_eq!(store.layers().unwrap(), []);
        wiped.assert_victim();
    }
}
