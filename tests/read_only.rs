//! Stores that are only read: because it was asked for, or because their filesystem is read-only.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    BackupMode, CheckLevel, CheckOptions, Container, ContainerOptions, Error, Image, MountOptions, Store,
    StoreOptions, SyncMode, UnmountMode, WatchOptions,
};
use rustix::mount::MountFlags;

use crate::support::Dir;
use crate::support::command::TestCommand;
use crate::support::database;
use crate::support::machine;
use crate::support::oci::{self, Layer};
use crate::support::tar::Member;

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(1 << 16)
}

/// A store with an image and a container, as the last writer left it.
fn fill(dir: &Dir) -> (Image, Container) {
    let store = Store::open(&options(dir)).unwrap();
    let written = oci::Image::new([
        Layer::new([Member::directory("etc"), Member::file("etc/motd", b"hello\n")]),
        Layer::new([Member::file("etc/name", b"one\n")]),
    ]);
    let reference = written.write(dir.join("layout"), "1").reference().parse().unwrap();
    let source = Source::open(&reference, store.root()).unwrap();
    let image = store.load(&source, &LoadOptions::named("base")).unwrap();
    let container = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    store.write(|txn| txn.put_item(&container, "spec", b"{}")).unwrap();
    (image, container)
}

/// Where the store is seen by way of a mount that is read-only; the error says why there is none.
fn read_only_view(dir: &Dir) -> Result<PathBuf, String> {
    if !machine::is_root() {
        return Err("mounting needs root or a user namespace".to_owned());
    }
    let view = dir.create_dir("view");
    rustix::mount::mount_bind(dir.root(), &view).map_err(|error| format!("cannot bind: {error}"))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    let set = rustix::mount::mount_remount(&view, flags, "");
    set.map_err(|error| format!("cannot make a mount read-only: {error}"))?;
    Ok(view)
}

type Stamps = BTreeMap<PathBuf, (u64, i64, i64, u32)>;

/// What changes with everything that is written: the change time of a directory does with each name.
fn stamps(root: &Path) -> Stamps {
    let mut stamps = Stamps::new();
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        let found = path.symlink_metadata().unwrap();
        if found.is_dir() {
            next.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        stamps.insert(path, (found.len(), found.ctime(), found.ctime_nsec(), found.mode()));
    }
    stamps
}

/// Everything that can be read.
fn read_all(store: &Store, dir: &Dir, image: &Image, container: &Container) {
    assert_eq!((store.images().unwrap().len(), store.containers().unwrap().len()), (1, 1));
    assert_eq!(store.layers().unwrap().len(), 3);
    assert_eq!(store.image("base").unwrap().id, image.id);
    assert_eq!(store.item(container, "spec").unwrap(), b"{}");
    assert!(store.changes(container).unwrap().is_empty());
    assert_eq!(store.changes(image).unwrap().len(), 2);
    let mut tar = Vec::new();
    store.diff(image, &mut tar).unwrap();
    assert!(!tar.is_empty());
    store.usage(image).unwrap();
    assert_eq!(store.status().unwrap().containers, 1);
    let mut check = CheckOptions::default();
    check.level = CheckLevel::Deep;
    let found = store.check(&check).unwrap().findings;
    assert!(found.is_empty(), "{found:?}");
    assert!(store.gc(true).unwrap().removed.is_empty());
    store.change_counter();
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    assert!(watch.try_next().unwrap().is_none());
    store.backup(&dir.join("backup"), BackupMode::Replace).unwrap();
    for target in ["oci", "oci-archive"] {
        let to = format!("{target}:{}:1", dir.join(format!("saved-{target}")).display()).parse().unwrap();
        assert!(store.save(&image.id, &to, &SaveOptions::default()).unwrap().unchanged);
    }
    assert!(store.mounted(container).unwrap().is_none());
}

/// Everything that writes.
fn refuse_all(store: &Store, dir: &Dir, image: &Image, container: &Container) {
    let reference = format!("oci:{}:1", dir.join("layout").display()).parse().unwrap();
    let source = Source::open(&reference, &std::env::temp_dir()).unwrap();
    let layer = image.top_layer.clone().unwrap();
    let lease = "kept".parse().unwrap();
    let refused: [(&str, Result<(), Error>); 14] = [
        ("create", store.create_container(&image.id, &ContainerOptions::named("new")).map(drop)),
        ("write", store.write(|txn| txn.set_metadata(container, "new"))),
        ("load", store.load(&source, &LoadOptions::named("new")).map(drop)),
        ("commit", store.commit(&container.id, &CommitOptions::default()).map(drop)),
        ("remove container", store.remove_container(&container.id)),
        ("remove image", store.remove_image(&image.id).map(drop)),
        ("remove layer", store.remove_layer(&layer)),
        ("drop blobs", store.drop_blobs(None).map(drop)),
        ("lease", store.lease(&lease, image, Duration::from_secs(9)).map(drop)),
        ("end lease", store.end_lease(&lease).map(drop)),
        ("sync", store.sync().map(drop)),
        ("compact", store.compact().map(drop)),
        ("gc", store.gc(false).map(drop)),
        ("mount", store.mount(container, &MountOptions::default()).map(drop)),
    ];
    for (what, result) in refused {
        match result {
            Err(Error::ReadOnly { root, .. }) => assert_eq!(root, store.root(), "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn nothing_is_written_to_a_store_that_is_opened_for_reading() {
    let dir = Dir::new("read-only");
    let (image, container) = fill(&dir);
    let before = stamps(&dir.root());
    let store = Store::open(&options(&dir).read_only(true)).unwrap();
    assert!(store.is_read_only());
    read_all(&store, &dir, &image, &container);
    refuse_all(&store, &dir, &image, &container);
    assert_eq!(stamps(&dir.root()), before);
    // Nor where the run root would be in it.
    let inside = Store::open(&StoreOptions::at(dir.root()).read_only(true)).unwrap();
    assert!(inside.status().unwrap().mounts.is_empty());
    let refused = inside.mount(&image, &MountOptions::default());
    assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
    assert_eq!(stamps(&dir.root()), before);
}

#[test]
fn no_store_is_made_for_reading() {
    let dir = Dir::new("read-only-none");
    let missing = Store::open(&options(&dir).read_only(true)).unwrap_err();
    assert!(matches!(missing, Error::Layout(_)), "{missing}");
    assert!(!dir.root().exists());
    dir.layerstore(["--no-write", "images"]).assert_exit(1);
    assert!(!dir.root().exists());
}

#[test]
fn what_others_write_meanwhile_is_read() {
    let dir = Dir::new("read-only-beside");
    let (image, _) = fill(&dir);
    let reader = Store::open(&options(&dir).read_only(true)).unwrap();
    let names =
        |store: &Store| store.containers().unwrap().iter().map(|one| one.names[0].to_string()).collect();
    let before: Vec<String> = names(&reader);
    assert_eq!(before, ["web"]);
    for round in 0..20 {
        let writer = Store::open(&options(&dir)).unwrap();
        let name = format!("web-{round}");
        let made = writer.create_container(&image.id, &ContainerOptions::named(&name)).unwrap();
        assert_eq!(reader.container(&name).unwrap().id, made.id);
        writer.remove_container(&made.id).unwrap();
        assert_eq!(names(&reader), before);
    }
}

#[test]
fn what_was_not_synced_is_verified_and_not_noted() {
    let dir = Dir::new("read-only-unsynced");
    let (image, _) = fill(&dir);
    database::reboot(&dir.root());
    let before = stamps(&dir.root());
    let store = Store::open(&options(&dir).read_only(true)).unwrap();
    let unverified = store.status().unwrap().unverified;
    assert!(unverified > 0);
    store.diff(&image, std::io::sink()).unwrap();
    assert_eq!(store.status().unwrap().unverified, unverified);
    assert_eq!(stamps(&dir.root()), before);
}

#[test]
fn readers_see_whole_stores_beside_a_busy_writer() {
    const ROUNDS: usize = 60;
    let dir = Dir::new("read-only-busy");
    let (image, _) = fill(&dir);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // A handle of its own each time, as a process has.
                let store = Store::open(&options(&dir)).unwrap();
                let name = format!("web-{round}");
                let made = store.create_container(&image.id, &ContainerOptions::named(name)).unwrap();
                if round % 2 == 0 {
                    store.remove_container(&made.id).unwrap();
                }
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let store = Store::open(&options(&dir).read_only(true)).unwrap();
                    for _ in 0..5 {
                        let count = store.containers().unwrap().len();
                        assert!(count >= seen && count <= seen + ROUNDS, "{count} after {seen}");
                        // Every second one stays.
                        seen = count.saturating_sub(1);
                        assert!(store.layers().unwrap().len() >= 3);
                    }
                }
            });
        }
    });
    let store = Store::open(&options(&dir).read_only(true)).unwrap();
    assert_eq!(store.containers().unwrap().len(), 1 + ROUNDS / 2);
}

#[test]
fn a_store_on_a_read_only_filesystem_opens_for_reading() {
    let dir = Dir::new("read-only-mount");
    let (image, container) = fill(&dir);
    let view = match read_only_view(&dir) {
        Ok(view) => view,
        Err(reason) => skip!("{reason}"),
    };
    let before = stamps(&dir.root());
    let store = Store::open(&StoreOptions::at(&view).run_root(dir.join("run-of-view"))).unwrap();
    assert!(store.is_read_only());
    read_all(&store, &dir, &image, &container);
    refuse_all(&store, &dir, &image, &container);
    let mount = store.mount(&image, &MountOptions::default()).unwrap();
    assert_eq!(std::fs::read(mount.path().join("etc/name")).unwrap(), b"one\n");
    store.unmount(&image, UnmountMode::Plain).unwrap();
    let mut for_reading = MountOptions::default();
    for_reading.read_only = true;
    let mount = store.mount(&container, &for_reading).unwrap();
    assert_eq!(std::fs::read(mount.path().join("etc/motd")).unwrap(), b"hello\n");
    store.unmount(&container, UnmountMode::Plain).unwrap();
    assert_eq!(stamps(&dir.root()), before);
    // Whoever can write it does.
    let writer = Store::open(&options(&dir)).unwrap();
    writer.write(|txn| txn.put_item(&container, "spec", b"[]")).unwrap();
    assert_eq!(store.item(&container, "spec").unwrap(), b"[]");
}

/// Nobody asked for it, so it is the disk that is told of, and what to do about that.
#[test]
fn the_program_names_a_filesystem_that_is_read_only() {
    let dir = Dir::new("read-only-disk-told");
    fill(&dir);
    let view = match read_only_view(&dir) {
        Ok(view) => view,
        Err(reason) => skip!("{reason}"),
    };
    let run_root = view.join("run");
    let within = |run_root: &Path, arguments: &[&str]| {
        let command = TestCommand::layerstore().arg("--root").arg(&view).arg("--runroot").arg(run_root);
        command.args(arguments)
    };
    for arguments in [&["gc"][..], &["repair"], &["create-container", "base"], &["rm", "web"]] {
        for run_root in [&run_root, &dir.join("elsewhere")] {
            let error = within(run_root, arguments).assert_exit(1);
            assert!(error.contains("its filesystem is mounted read-only"), "{arguments:?}: {error}");
            assert!(error.contains("remount,rw"), "{arguments:?}: {error}");
        }
    }
    assert_eq!(within(&run_root, &["status", "--json"]).json()["can_mount"], false);
    assert_eq!(within(&dir.join("elsewhere"), &["status", "--json"]).json()["can_mount"], true);
}

#[test]
fn the_program_reads_a_store_that_it_must_not_write() {
    let dir = Dir::new("read-only-program");
    fill(&dir);
    let before = stamps(&dir.root());
    assert_eq!(dir.layerstore(["--no-write", "images", "--json"]).json().as_array().unwrap().len(), 1);
    assert_eq!(dir.layerstore(["--no-write", "status", "--json"]).json()["containers"], 1);
    dir.layerstore(["--no-write", "check", "--deep"]).assert_success();
    let error = dir.layerstore(["--no-write", "rm", "web"]).assert_exit(1);
    assert!(error.contains("is open for reading only") && error.contains("leave out --no-write"), "{error}");
    assert_eq!(stamps(&dir.root()), before);
}
