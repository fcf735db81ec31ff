//! Layers that were not synced: noted, brought to the disk later, and verified before their first use after a reboot.
//! The reboot is a change of the boot that the database names; the damage is what filesystems leave after a power cut.

use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    BackupMode, CheckOptions, ContainerOptions, Error, MountOptions, Note, Store, StoreOptions, SyncMode,
    UnmountMode, UnsyncedError,
};
use layerstore_schema::table;

use crate::support::oci::{Image, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::Member;
use crate::support::{Dir, database};

/// Two layers, the lower of which has all that matters.
fn image() -> Image {
    let base = [
        Member::directory("."),
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n"),
        Member::file("large", vec![7; 600_000]),
    ];
    Image::new([Layer::new(base), Layer::new([Member::directory("."), Member::file("app", "v1")])])
}

fn open(dir: &Dir, mode: SyncMode) -> Store {
    Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root()).reserve(0).sync(mode)).unwrap()
}

fn load(dir: &Dir, store: &Store, image: &Image, name: &str) -> layerstore::Image {
    let layout = dir.join(format!("layout-{name}"));
    if !layout.exists() {
        image.write(&layout, name);
    }
    let source = Source::open(&format!("oci:{}:{name}", layout.display()).parse().unwrap(), dir.path());
    store.load(&source.unwrap(), &LoadOptions::named(name)).unwrap()
}

/// A store with the image and a container, loaded without syncing the layers.
fn fixture() -> (Dir, Store, layerstore::Image, layerstore::Container) {
    let dir = Dir::new("unsynced");
    let store = open(&dir, SyncMode::Records);
    let image = load(&dir, &store, &image(), "demo");
    let container = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    (dir, store, image, container)
}

/// What is not synced, and what is to be verified.
#[track_caller]
fn counts(store: &Store) -> (u64, u64) {
    let status = store.status().unwrap();
    (status.unsynced, status.unverified)
}

fn entries(dir: &Dir, which: &str) -> Vec<PathBuf> {
    let list = std::fs::read_dir(dir.root().join(which)).unwrap();
    let mut paths: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// The directory of the lower layer.
fn base(dir: &Dir) -> PathBuf {
    entries(dir, "diffs").into_iter().find(|path| path.join("etc").exists()).unwrap()
}

fn truncate(path: &Path) {
    std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
}

/// Asserts that the layer is refused, and returns the path that is named.
#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> PathBuf {
    match result {
        Err(Error::Unsynced(UnsyncedError::Layer { path, .. })) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_not_synced_is_noted_until_a_sync() {
    let (dir, store, ..) = fixture();
    assert_eq!(counts(&store), (4, 0), "two layers and two blobs");
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.is_clean() && report.notes.len() == 4, "{report:?}");
    assert!(report.notes.iter().all(|note| matches!(note, Note::Unsynced { .. })));
    assert_eq!(store.sync().unwrap(), 4);
    assert_eq!(counts(&store), (0, 0));
    assert_eq!(store.sync().unwrap(), 0);
    // With `Off` it is noted too, should the database survive.
    load(&dir, &open(&dir, SyncMode::Off), &Image::new([Layer::new([Member::file("a", "a")])]), "a");
    assert_eq!(counts(&store), (2, 0));
}

#[test]
fn a_full_import_syncs_what_was_left() {
    let (dir, store, ..) = fixture();
    let full = open(&dir, SyncMode::Full);
    // Nothing new comes in with it.
    load(&dir, &full, &image(), "demo");
    assert_eq!(counts(&store), (0, 0));
    load(&dir, &store, &Image::new([Layer::new([Member::file("a", "a")])]), "a");
    assert_eq!(counts(&store), (2, 0));
    load(&dir, &full, &Image::new([Layer::new([Member::file("b", "b")])]), "b");
    assert_eq!(counts(&store), (0, 0));
}

#[test]
fn a_sync_does_not_bring_back_what_a_reboot_took() {
    let (dir, store, ..) = fixture();
    database::reboot(&dir.root());
    assert_eq!(counts(&store), (0, 4));
    assert_eq!(store.sync().unwrap(), 0);
    load(&dir, &open(&dir, SyncMode::Full), &Image::new([Layer::new([Member::file("a", "a")])]), "a");
    assert_eq!(counts(&store), (0, 4));
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.notes.iter().all(|note| matches!(note, Note::Unverified { .. })), "{report:?}");
}

#[test]
fn a_note_goes_with_what_it_is_about() {
    let (_dir, store, image, container) = fixture();
    store.remove_container(&container.id).unwrap();
    store.drop_blobs(None).unwrap();
    assert_eq!(counts(&store), (2, 0));
    store.remove_image(&image.id).unwrap();
    assert_eq!(counts(&store), (0, 0));
    assert_whole(&store);
}

#[test]
fn in_the_same_boot_nothing_is_read() {
    let (dir, store, image, _) = fixture();
    truncate(&base(&dir).join("large"));
    store.create_container(&image.id, &ContainerOptions::default()).unwrap();
}

#[test]
fn a_whole_layer_is_verified_once() {
    let (dir, store, image, _) = fixture();
    database::reboot(&dir.root());
    store.create_container(&image.id, &ContainerOptions::default()).unwrap();
    assert_eq!(counts(&store), (0, 2), "the blobs are left");
    let out = format!("oci:{}:1", dir.join("out").display()).parse().unwrap();
    assert!(store.save(&image.id, &out, &SaveOptions::default()).unwrap().unchanged);
    assert_eq!(counts(&store), (0, 0));
    // Now that it is known to be on the disk, nobody looks again.
    truncate(&base(&dir).join("large"));
    open(&dir, SyncMode::Full).create_container(&image.id, &ContainerOptions::default()).unwrap();
}

#[test]
fn a_store_that_is_only_read_remembers_in_the_process() {
    let (dir, store, image, _) = fixture();
    drop(store);
    database::reboot(&dir.root());
    database::edit_header(&dir.root(), |header| header.read_only_compatible |= 1 << 40);
    let store = open(&dir, SyncMode::Full);
    store.diff(image.top_layer.clone().unwrap(), std::io::sink()).unwrap();
    assert_eq!(counts(&store), (0, 4));
    let top = entries(&dir, "diffs").into_iter().find(|path| path.join("app").exists()).unwrap();
    std::fs::write(top.join("extra"), "").unwrap();
    store.diff(image.top_layer.clone().unwrap(), std::io::sink()).unwrap();
    refused(open(&dir, SyncMode::Full).diff(image.top_layer.unwrap(), std::io::sink()));
}

#[test]
fn a_damaged_layer_is_refused_and_named() {
    let (dir, store, image, container) = fixture();
    // Delayed allocation: the file has its name and no bytes.
    truncate(&base(&dir).join("large"));
    database::reboot(&dir.root());
    let path = Path::new("/large");
    assert_eq!(refused(store.create_container(&image.id, &ContainerOptions::default())), path);
    assert_eq!(refused(store.mount(&container, &MountOptions::default())), path);
    assert_eq!(refused(store.mount_entry(&container, &MountOptions::default())), path);
    assert_eq!(refused(store.commit(&container.id, &CommitOptions::default())), path);
    let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
    assert_eq!(refused(store.diff(&chain[1], std::io::sink())), path);
    // The layer above it is whole, and what needs no files is not refused.
    store.diff(&chain[0], std::io::sink()).unwrap();
    store.changes(&container).unwrap();
    let error = store.mount_entry(&container, &MountOptions::default()).unwrap_err().to_string();
    assert!(error.contains(chain[1].id.as_str()) && error.contains("load its image again"), "{error}");
}

/// What happened, how, and the path that is named.
type Loss = (&'static str, fn(&Path), &'static str);

#[test]
fn every_kind_of_loss_is_seen() {
    let losses: [Loss; 4] = [
        ("a file is missing", |base| std::fs::remove_file(base.join("etc/passwd")).unwrap(), "/etc"),
        ("zeros", |base| std::fs::write(base.join("large"), vec![0; 600_000]).unwrap(), "/large"),
        ("the directory is missing", |base| std::fs::remove_dir_all(base).unwrap(), "/"),
        (
            "the directory is empty",
            |base| {
                std::fs::remove_dir_all(base).unwrap();
                std::fs::create_dir(base).unwrap();
            },
            "/",
        ),
    ];
    for (what, lose, path) in losses {
        let (dir, store, image, _) = fixture();
        lose(&base(&dir));
        database::reboot(&dir.root());
        let named = refused(store.create_container(&image.id, &ContainerOptions::default()));
        assert_eq!(named, Path::new(path), "{what}");
        load(&dir, &store, &self::image(), "demo");
        store.create_container(&image.id, &ContainerOptions::default()).unwrap();
        assert_whole(&store);
    }
}

#[test]
fn loading_the_image_again_replaces_what_is_damaged() {
    let (dir, store, image, container) = fixture();
    let (old, blobs) = (base(&dir), entries(&dir, "blobs"));
    truncate(&old.join("large"));
    blobs.iter().for_each(|blob| truncate(blob));
    database::reboot(&dir.root());
    let other = open(&dir, SyncMode::Full);
    assert_eq!(load(&dir, &other, &self::image(), "demo").id, image.id);
    assert_eq!(counts(&store), (0, 0));
    assert_ne!(base(&dir), old);
    assert!(!old.exists() && blobs.iter().all(|blob| !blob.exists()));
    // The layer has the id that it had: what stands on it is whole again.
    store.mount_entry(&container, &MountOptions::default()).unwrap();
    let out = format!("oci:{}:1", dir.join("out").display()).parse().unwrap();
    assert!(store.save(&image.id, &out, &SaveOptions::default()).unwrap().unchanged);
    assert_whole(&store);
}

#[test]
fn a_damaged_layer_is_not_shared() {
    let (dir, store, ..) = fixture();
    truncate(&base(&dir).join("large"));
    database::reboot(&dir.root());
    // The same archive above nothing, as before, and above another layer.
    let base = [
        Member::directory("."),
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n"),
        Member::file("large", vec![7; 600_000]),
    ];
    let above = Image::new([Layer::new([Member::directory("."), Member::file("x", "x")]), Layer::new(&base)]);
    let above = load(&dir, &store, &above, "above");
    store.create_container(&above.id, &ContainerOptions::default()).unwrap();
    // One directory has the tree, so the first image is whole again as well.
    store.mount_entry(&store.container("web").unwrap(), &MountOptions::default()).unwrap();
    assert_whole(&store);
}

#[test]
fn an_equal_tree_of_another_archive_replaces_a_damaged_one() {
    let (dir, store, ..) = fixture();
    truncate(&base(&dir).join("large"));
    database::reboot(&dir.root());
    let reordered = [
        Member::directory("."),
        Member::file("large", vec![7; 600_000]),
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n"),
    ];
    load(&dir, &store, &Image::new([Layer::new(reordered)]), "reordered");
    store.mount_entry(&store.container("web").unwrap(), &MountOptions::default()).unwrap();
    assert_whole(&store);
}

#[test]
fn a_damaged_blob_is_refused_and_replaced() {
    let (dir, store, image, _) = fixture();
    entries(&dir, "blobs").iter().for_each(|blob| truncate(blob));
    database::reboot(&dir.root());
    let out = format!("oci:{}:1", dir.join("out").display()).parse().unwrap();
    let error = store.save(&image.id, &out, &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Unsynced(UnsyncedError::Blob { .. })), "{error:?}");
    load(&dir, &store, &self::image(), "demo");
    assert!(store.save(&image.id, &out, &SaveOptions::default()).unwrap().unchanged);
    assert_whole(&store);
}

#[test]
fn a_copy_of_the_database_has_the_notes() {
    let (dir, store, ..) = fixture();
    store.backup(&dir.join("copy"), BackupMode::New).unwrap();
    drop(store);
    std::fs::rename(dir.join("copy"), dir.root().join("store.redb")).unwrap();
    assert_eq!(counts(&open(&dir, SyncMode::Full)), (4, 0));
}

#[test]
fn a_note_about_nothing_is_found() {
    let (dir, store, ..) = fixture();
    database::edit(&dir.root(), |txn| {
        txn.open_table(table::UNSYNCED).unwrap().insert(12345, "some boot").unwrap();
    });
    let report = store.check(&CheckOptions::default()).unwrap();
    let codes: Vec<_> = report.findings.iter().map(|finding| finding.code()).collect();
    assert_eq!(codes, ["unsynced-unused"]);
}

#[test]
fn what_is_mounted_is_not_replaced() {
    let (dir, store, image, container) = fixture();
    database::reboot(&dir.root());
    let other = open(&dir, SyncMode::Full);
    // It is found whole, and that cannot be noted: another process is writing.
    let mut mounted = None;
    let written = other.write(|_| {
        mounted = Some(store.mount(&container, &MountOptions::default()));
        Ok(())
    });
    written.unwrap();
    let Ok(mount) = mounted.unwrap() else { skip!("no right to mount here") };
    std::fs::write(base(&dir).join("large"), vec![8; 600_000]).unwrap();
    let layout = dir.join("layout-demo");
    let source =
        Source::open(&format!("oci:{}:demo", layout.display()).parse().unwrap(), dir.path()).unwrap();
    let refused = other.load(&source, &LoadOptions::default()).unwrap_err();
    assert!(matches!(refused, Error::InUse(_)), "{refused:?}");
    assert!(mount.path().join("large").exists(), "the kernel reads the directory still");
    store.unmount(&container, UnmountMode::Plain).unwrap();
    let again = load(&dir, &other, &self::image(), "demo");
    assert_eq!(again.id, image.id);
    assert_whole(&other);
}
