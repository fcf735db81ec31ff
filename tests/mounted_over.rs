//! Something is mounted over what a store has, or in it. Nothing is done across the mount, nothing goes for its sake, and who looks is told what
//! to unmount. [`hostile`](crate::hostile) has the same for wipes.

use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Source};
use layerstore::{CheckLevel, CheckOptions, ContainerOptions, Error, LayoutError, Remedy, RepairOptions};

use crate::support::oci::{Image, Layer};
use crate::support::store::{assert_whole, open};
use crate::support::tar::Member;
use crate::support::tree::Tree;
use crate::support::{Dir, machine};

/// A store with an image and a container, and somebody's files beside it, with names as the store's directories have them.
struct Fixture {
    dir: Dir,
    victim: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let dir = Dir::new("mounted-over");
        let layer = Layer::new([Member::directory("etc"), Member::file("etc/passwd", b"x")]);
        let written = Image::new([layer]).write(dir.join("layout"), "1");
        let store = open(&dir);
        let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
        let image = store.load(&source, &LoadOptions::named("image")).unwrap();
        let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        store.container_directory(&web.id).unwrap();
        for which in ["diffs", "data", "blobs", "work"] {
            for entry in std::fs::read_dir(dir.root().join(which)).into_iter().flatten() {
                let name = entry.unwrap().file_name();
                std::fs::create_dir_all(dir.join("victim").join(&name).join("etc")).unwrap();
            }
        }
        dir.write("victim/4242/precious", "somebody's");
        dir.write("victim/etc/precious", "somebody's");
        let victim = dir.join("victim");
        Fixture { dir, victim }
    }

    fn counts(&self) -> (usize, usize, usize) {
        let store = open(&self.dir);
        let layers = store.layers().unwrap().len();
        (layers, store.images().unwrap().len(), store.containers().unwrap().len())
    }

    /// The directory of the sealed layer.
    fn sealed(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.dir.root().join("diffs")).unwrap();
        entries.map(|entry| entry.unwrap().path()).find(|path| path.join("etc").exists()).unwrap()
    }
}

fn force() -> RepairOptions<'static> {
    let mut options = RepairOptions::default();
    options.force = true;
    options
}

fn deep() -> CheckOptions<'static> {
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    options
}

fn bind(from: &Path, to: &Path) {
    rustix::mount::mount_bind(from, to).unwrap();
}

#[test]
fn a_mount_over_a_directory_of_the_root_is_named_and_not_crossed() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    for which in ["diffs", "work", "blobs", "data", "composefs", "content", "trash", "locks"] {
        let fixture = Fixture::new();
        let (counts, before) = (fixture.counts(), Tree::scan(&fixture.victim));
        let at = fixture.dir.create_dir(Path::new("root").join(which));
        bind(&fixture.victim, &at);
        let store = open(&fixture.dir);
        let looked: [Result<(), Error>; 3] = [
            store.check(&CheckOptions::default()).map(drop),
            store.repair(&force()).map(drop),
            store.gc(false).map(drop),
        ];
        for looked in looked {
            let error = looked.unwrap_err();
            let is_named = matches!(&error, Error::Layout(LayoutError::Mounted { path }) if *path == at);
            assert!(is_named, "{which}: {error:?}");
        }
        assert_eq!(fixture.counts(), counts, "{which}");
        // Whether the rest can go or not, nothing of this does.
        let web = store.container("web").unwrap();
        let removed = store.remove_container(&web.id).and_then(|()| store.wipe());
        before.assert_same(&Tree::scan(&fixture.victim));
        assert_eq!(fixture.dir.mounts(), std::slice::from_ref(&at), "{which}: {removed:?}");
        machine::unmount(&at);
        store.wipe().unwrap();
        store.gc(false).unwrap();
        assert_whole(&store);
        assert_eq!(fixture.counts(), (0, 0, 0), "{which}");
        before.assert_same(&Tree::scan(&fixture.victim));
    }
}

/// Also with force nothing is removed: it is there, and cannot be seen.
#[test]
fn what_a_mount_hides_is_not_taken_for_lost() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    for place in ["over a layer", "in a layer", "over a directory of a container"] {
        let fixture = Fixture::new();
        let (counts, before) = (fixture.counts(), Tree::scan(&fixture.victim));
        let store = open(&fixture.dir);
        let at = match place {
            "over a layer" => fixture.sealed(),
            "in a layer" => fixture.sealed().join("etc"),
            _ => {
                let mut data = std::fs::read_dir(fixture.dir.root().join("data")).unwrap();
                data.next().unwrap().unwrap().path()
            }
        };
        bind(&fixture.victim, &at);
        let findings = store.check(&deep()).unwrap().findings;
        assert!(!findings.is_empty(), "{place}");
        for finding in &findings {
            assert_eq!(finding.remedy, Remedy::Unmount { target: at.clone() }, "{place}: {finding}");
        }
        let report = store.repair(&force()).unwrap();
        assert!(report.repaired.is_empty() && !report.is_complete(), "{place}: {report:?}");
        assert_eq!(fixture.counts(), counts, "{place}");
        machine::unmount(&at);
        before.assert_same(&Tree::scan(&fixture.victim));
        assert!(store.check(&deep()).unwrap().is_clean(), "{place}");
        assert_whole(&store);
    }
}

/// The things are gone, and who removed them hears which files are not.
#[test]
fn a_removal_tells_what_a_mount_keeps() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let mut commands = Vec::new();
    for json in [&[][..], &["--json"]] {
        for command in [&["wipe", "--force"][..], &["rmi", "--force", "image"], &["rm", "web"]] {
            commands.extend([false, true].map(|is_whole| ([command, json].concat(), is_whole)));
        }
    }
    for (command, is_whole) in commands {
        let fixture = Fixture::new();
        let before = Tree::scan(&fixture.victim);
        let sealed = fixture.sealed();
        let at = match command[0] {
            "rm" => {
                let mut diffs = std::fs::read_dir(sealed.parent().unwrap()).unwrap();
                diffs.find_map(|entry| Some(entry.unwrap().path()).filter(|path| *path != sealed)).unwrap()
            }
            _ => sealed,
        };
        let inner = at.join("etc");
        std::fs::create_dir_all(&inner).unwrap();
        bind(&fixture.victim, if is_whole { &at } else { &inner });
        let output = fixture.dir.layerstore(&command).output();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{command:?}: {told}");
        let [mount] = &fixture.dir.mounts()[..] else { panic!("{command:?}: one mount") };
        let left = if is_whole { mount } else { mount.parent().unwrap() };
        let expected = format!(
            "note: {} is left: a filesystem is mounted at {}; when that is unmounted, `layerstore gc` removes it\n",
            left.display(),
            mount.display()
        );
        assert_eq!(told, expected, "{command:?}");
        if command.contains(&"--json") {
            let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            // The image comes after its containers.
            let told = told.as_array().and_then(|list| list.last()).unwrap_or(&told);
            assert_eq!(told["left"], serde_json::json!([left]), "{command:?}");
        }
        before.assert_same(&Tree::scan(&fixture.victim));
        machine::unmount(mount);
        assert!(left.exists(), "{command:?}");
        assert!(open(&fixture.dir).gc(false).unwrap().left.is_empty());
        assert!(!left.exists(), "{command:?}");
        assert_whole(&open(&fixture.dir));
    }
}

/// What nobody names any more is emptied as far as the mount, and goes when that has gone.
#[test]
fn garbage_with_a_mount_in_it_waits() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let fixture = Fixture::new();
    let before = Tree::scan(&fixture.victim);
    let store = open(&fixture.dir);
    let garbage = fixture.dir.create_dir("root/diffs/4242/a/b");
    bind(&fixture.victim, &garbage);
    let report = store.gc(false).unwrap();
    assert!(!report.left.is_empty(), "{report:?}");
    before.assert_same(&Tree::scan(&fixture.victim));
    let mounts = fixture.dir.mounts();
    assert_eq!(mounts.len(), 1);
    machine::unmount(&mounts[0]);
    assert!(store.gc(false).unwrap().left.is_empty());
    assert_whole(&store);
    before.assert_same(&Tree::scan(&fixture.victim));
}
