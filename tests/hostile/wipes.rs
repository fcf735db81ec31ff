//! A wipe removes what the store has, and nothing else, whatever stands in its directories.

use std::os::unix::fs::symlink;

use layerstore::WipeOptions;

use super::scene::{Scene, in_each_mode};
use super::*;
use crate::support::TestCommand;

/// A store that has an image of two layers.
fn filled(mode: Mode) -> Scene {
    let scene = Scene::new(mode);
    let victim = scene.victim();
    let layers = [
        Layer::new([Member::directory("etc"), Member::file("etc/passwd", b"x")]),
        Layer::new([Member::symlink("victim", victim.to_str().unwrap())]),
    ];
    let written = Image::new(layers).write(scene.dir.join("layout"), TAG);
    let store = scene.open();
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("hostile")).unwrap();
    scene
}

/// The directories of the two layers, that with the file first.
fn diffs(scene: &Scene) -> [PathBuf; 2] {
    let entries = std::fs::read_dir(scene.dir.root().join("diffs")).unwrap();
    let mut diffs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    diffs.sort_by_key(|diff| !diff.join("etc").exists());
    diffs.try_into().unwrap()
}

fn wipe_of(root: &Path) -> String {
    TestCommand::layerstore().args(["--root", root.to_str().unwrap(), "wipe", "--force"]).assert_failure()
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
        let error = wipe_of(&root);
        assert!(error.contains(root.to_str().unwrap()), "{error}");
        before.assert_same(&Tree::scan(dir.path()));
    }
    let missing = dir.join("missing");
    wipe_of(&missing);
    assert!(!missing.exists());
}

#[test]
fn links_in_a_store_are_removed_and_not_followed() {
    in_each_mode("hostile::wipes::links_in_a_store_are_removed_and_not_followed", |mode| {
        let scene = filled(mode);
        let victim = scene.victim();
        let [lower, upper] = diffs(&scene);
        // In a layer, in place of a layer, and beside the layers.
        symlink(&victim, lower.join("etc/link")).unwrap();
        std::fs::remove_dir_all(&upper).unwrap();
        symlink(&victim, &upper).unwrap();
        symlink(&victim, scene.dir.root().join("trash/link")).unwrap();
        let store = scene.open();
        store.wipe().unwrap();
        store.gc(false).unwrap();
        assert_eq!(store.layers().unwrap(), []);
        assert!(!lower.exists() && !upper.is_symlink());
    });
}

#[test]
fn a_directory_of_the_store_that_became_a_link_is_not_followed() {
    in_each_mode("hostile::wipes::a_directory_of_the_store_that_became_a_link_is_not_followed", |mode| {
        for which in ["diffs", "trash", "blobs", "locks", "work", "data"] {
            let mut scene = filled(mode);
            let diffs = diffs(&scene);
            scene.change_victim(|victim| {
                for diff in &diffs {
                    std::fs::create_dir_all(victim.join(diff.file_name().unwrap()).join("etc")).unwrap();
                }
            });
            let own = scene.dir.root().join(which);
            if own.exists() {
                std::fs::rename(&own, scene.dir.join("away")).unwrap();
            }
            symlink(scene.victim(), &own).unwrap();
            let options = StoreOptions::at(scene.dir.root()).run_root(scene.dir.run_root()).reserve(0);
            let outcome =
                Store::open(&options).and_then(|store| store.wipe().and_then(|()| store.gc(false).map(drop)));
            // Where there is something to do, it is done nowhere else, and what is in the way is named.
            let needed = ["diffs", "trash", "blobs", "locks"].contains(&which);
            match outcome {
                Err(error) => assert!(error.to_string().contains(which), "{which}: {error}"),
                Ok(()) => assert!(!needed, "{which} was wiped behind a link"),
            }
            assert!(own.is_symlink(), "{which}");
        }
    });
}

#[test]
fn a_store_behind_a_link_is_wiped_and_the_link_stays() {
    in_each_mode("hostile::wipes::a_store_behind_a_link_is_wiped_and_the_link_stays", |mode| {
        let scene = filled(mode);
        let link = scene.dir.join("link");
        symlink(scene.dir.root(), &link).unwrap();
        let options = StoreOptions::at(&link).run_root(scene.dir.run_root()).reserve(0);
        let store = Store::open(&options).unwrap();
        store.wipe_with(&WipeOptions::default()).unwrap();
        assert_eq!(store.layers().unwrap(), []);
        assert!(link.is_symlink() && scene.dir.root().join("store.redb").exists());
        scene.assert_victim();
        // A link to what is no store is as good as that.
        let into = scene.dir.join("into-the-victim");
        symlink(scene.victim(), &into).unwrap();
        wipe_of(&into);
    });
}

/// Where somebody mounts the victim, and the word that the wipe, or the sweep that follows, says of it. The mount stays, at that
/// place or where a layer was moved to with it.
#[test]
fn a_mount_in_a_store_is_not_crossed() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    type Find = fn(&Scene) -> PathBuf;
    let places: [(&str, Find, &str); 6] = [
        ("in a layer", |scene| diffs(scene)[0].join("etc"), "mount"),
        ("over a layer", |scene| diffs(scene)[0].clone(), "mounted"),
        // What has no number is nobody's, and stays as it is.
        ("in the trash", |scene| scene.dir.create_dir("root/trash/mount"), ""),
        ("over all layers", |scene| scene.dir.root().join("diffs"), "diffs"),
        ("over the trash", |scene| scene.dir.root().join("trash"), "trash"),
        ("over the blobs", |scene| scene.dir.root().join("blobs"), "blobs"),
    ];
    in_each_mode("hostile::wipes::a_mount_in_a_store_is_not_crossed", |mode| {
        let mut wrong = Vec::new();
        for (place, find, told) in places {
            let mut scene = filled(mode);
            // The victim has what a layer's directory has, by the same names.
            let names = diffs(&scene).map(|diff| diff.file_name().unwrap().to_owned());
            scene.change_victim(|victim| {
                for name in &names {
                    std::fs::create_dir_all(victim.join(name).join("etc")).unwrap();
                    std::fs::write(victim.join(name).join("etc/passwd"), "the victim's").unwrap();
                }
            });
            let [lower, _] = diffs(&scene);
            rustix::mount::mount_bind(scene.victim(), find(&scene)).unwrap();
            let options = StoreOptions::at(scene.dir.root()).run_root(scene.dir.run_root()).reserve(0);
            let wipe = || -> Result<String, Error> {
                let store = Store::open(&options)?;
                store.wipe()?;
                Ok(format!("{:?}", store.gc(false)?))
            };
            let said = wipe().unwrap_or_else(|error| format!("{error}: {error:?}"));
            scene.assert_victim();
            if !said.to_lowercase().contains(told) {
                wrong.push(format!("{mode:?}, {place}: {said}"));
            }
            let mounts = scene.dir.mounts();
            assert_eq!(mounts.len(), 1, "{place}: {said}");
            mounts.iter().for_each(|mount| machine::unmount(mount));
            scene.assert_victim();
            // Once it is gone, the rest can go, too.
            let again = wipe();
            assert!(again.is_ok(), "{place}: {said}, {again:?}");
            assert!(!lower.exists(), "{place}");
            assert_eq!(scene.open().layers().unwrap(), []);
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
