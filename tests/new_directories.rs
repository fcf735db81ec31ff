//! The directory of a new layer that is written to is not synced: if the power takes it, it is made again. The reboot is a
//! change of the boot that the database names, the power cut the removal of the directory.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    BackupMode, CheckOptions, Container, ContainerOptions, Error, IdMapping, IdMaps, LayerId, LayerOptions,
    MountOptions, Note, Store, StoreOptions, SyncMode, UnmountMode,
};
use layerstore_schema::table::{self, MADE_EMPTY};
use redb::ReadableTable;

use crate::support::oci::{Image, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::Member;
use crate::support::tree::Tree;
use crate::support::{Dir, database, machine};

fn options(dir: &Dir, mode: SyncMode) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).reserve(0).sync(mode)
}

fn open(dir: &Dir, mode: SyncMode) -> Store {
    Store::open(&options(dir, mode)).unwrap()
}

/// An image whose root is like no other.
fn load(dir: &Dir, store: &Store, name: &str) -> layerstore::Image {
    let root = Member::directory(".").mode(0o1751).mtime(5, 7);
    let root = if machine::is_root() { root.owner(3, 4) } else { root };
    let image = Image::new([Layer::new([root, Member::file("file", name)])]).write(dir.join(name), "1");
    let source = Source::open(&image.reference().parse().unwrap(), dir.path()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

/// A container above such an image, with the directory of its layer.
fn container(dir: &Dir, store: &Store, options: &ContainerOptions) -> (Container, PathBuf) {
    let image = load(dir, store, "image");
    let container = store.create_container(&image.id, options).unwrap();
    let path = upper(store, &container.layer);
    (container, path)
}

fn upper(store: &Store, layer: &LayerId) -> PathBuf {
    store.layer_places(layer).unwrap().upper
}

/// How many directories are noted.
fn noted(dir: &Dir) -> usize {
    let mut found = 0;
    database::edit(&dir.root(), |txn| {
        found = txn.open_table(table::UNSYNCED).unwrap().range(MADE_EMPTY..).unwrap().count();
    });
    found
}

/// Another boot, in which these directories are not there.
fn cut_power(dir: &Dir, lost: &[&Path]) {
    database::reboot(&dir.root());
    lost.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
}

type Use = fn(&Store, &LayerId) -> Result<(), Error>;

/// What can be done to a layer that is written to.
const USES: [(&str, Use); 10] = [
    ("changes", |store, layer| store.changes(layer).map(drop)),
    ("diff", |store, layer| store.diff(layer, &mut std::io::sink()).map(drop)),
    ("files", |store, layer| store.files(layer).map(drop)),
    ("places", |store, layer| store.layer_places(layer).map(drop)),
    ("native diff", |store, layer| store.native_diff(layer).map(drop)),
    ("settle", |store, layer| store.settle(layer).map(drop)),
    ("seal", |store, layer| store.seal(layer).map(drop)),
    ("a layer above it", |store, layer| store.create_layer(layer, &LayerOptions::default()).map(drop)),
    ("a copy", |store, layer| {
        let mut options = LayerOptions::default();
        options.template = Some(layer.clone());
        store.create_layer(None, &options).map(drop)
    }),
    ("mount", |store, layer| {
        if machine::is_root() {
            store.mount(layer, &MountOptions::default())?;
            store.unmount(layer, UnmountMode::Plain)?;
        } else {
            store.files(layer)?;
        }
        Ok(())
    }),
];

#[test]
fn what_the_power_took_is_made_again_before_it_is_used() {
    for mode in [SyncMode::Full, SyncMode::Records] {
        for (name, use_it) in USES {
            let dir = Dir::new("new-directories");
            let store = open(&dir, mode);
            let image = load(&dir, &store, "image");
            let layer = store.create_layer(image.top_layer.as_ref(), &LayerOptions::default()).unwrap();
            let path = upper(&store, &layer.id);
            let before = Tree::scan(&path);
            assert_eq!(noted(&dir), 1, "{name}");
            cut_power(&dir, &[&path]);
            let store = open(&dir, mode);
            assert_whole(&store);
            use_it(&store, &layer.id).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(Tree::scan(&path), before, "{name}");
            assert_eq!(noted(&dir), usize::from(name == "a layer above it"), "{name}");
            assert_whole(&store);
        }
    }
}

#[test]
fn a_container_is_as_it_was() {
    let dir = Dir::new("new-directories-container");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    let before = Tree::scan(&path);
    assert_eq!(before.get("").unwrap().mode & 0o7777, 0o1751);
    cut_power(&dir, &[&path]);
    let store = open(&dir, SyncMode::Full);
    store.commit(&web.id, &CommitOptions::named("committed")).unwrap();
    assert_eq!(Tree::scan(&path), before);
    assert_eq!(noted(&dir), 0);
    assert_whole(&store);
}

#[test]
fn a_container_gets_its_ids_again() {
    let has_ids = machine::is_root() && [10_003, 20_004].iter().all(|id| machine::is_mapped(*id));
    if !has_ids {
        skip!("giving files to others needs root of the machine, or of a namespace with ranges of ids");
    }
    let dir = Dir::new("new-directories-ids");
    let store = open(&dir, SyncMode::Full);
    let mut options = ContainerOptions::named("web");
    options.ids = IdMapping::Maps(IdMaps {
        uids: vec!["0:10000:1000".parse().unwrap()],
        gids: vec!["0:20000:1000".parse().unwrap()],
    });
    let (web, path) = container(&dir, &store, &options);
    let before = Tree::scan(&path);
    let root = before.get("").unwrap();
    assert_eq!((root.uid, root.gid), (10_003, 20_004));
    cut_power(&dir, &[&path]);
    open(&dir, SyncMode::Full).changes(&web).unwrap();
    assert_eq!(Tree::scan(&path), before);
}

#[test]
fn a_masked_directory_is_masked_again() {
    let dir = Dir::new("new-directories-mask");
    let open = || Store::open(&options(&dir, SyncMode::Full).force_mask(0o700).mount_program("/bin/true"));
    let store = open().unwrap();
    if let Err(error) = store.create_layer(None, &LayerOptions::default()) {
        skip!("there are no such attributes here: {error}");
    }
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    let layer = store.create_layer(None, &LayerOptions::default()).unwrap().id;
    let before = Tree::scan(&path);
    let root = before.get("").unwrap();
    assert!(root.mode & 0o7777 == 0o700 && !root.xattrs.is_empty(), "{root:?}");
    let lower = upper(&store, &layer);
    cut_power(&dir, &[&path, &lower]);
    let store = open().unwrap();
    store.changes(&web).unwrap();
    store.changes(&layer).unwrap();
    assert_eq!(Tree::scan(&path), before);
    assert!(!Tree::scan(&lower).get("").unwrap().xattrs.is_empty());
    assert_whole(&store);
}

#[test]
fn layers_that_stand_on_each_other_are_made_again_from_below() {
    let dir = Dir::new("new-directories-chain");
    let store = open(&dir, SyncMode::Records);
    let image = load(&dir, &store, "image");
    let (mut chain, mut below) = (Vec::new(), image.top_layer.clone());
    for _ in 0..5 {
        let layer = store.create_layer(below.as_ref(), &LayerOptions::default()).unwrap();
        chain.push(upper(&store, &layer.id));
        below = Some(layer.id);
    }
    let before = Tree::scan(&chain[0]);
    let lost: Vec<_> = chain.iter().map(PathBuf::as_path).collect();
    cut_power(&dir, &lost);
    let store = open(&dir, SyncMode::Records);
    store.changes(below.unwrap()).unwrap();
    lost.iter().for_each(|path| assert_eq!(Tree::scan(path), before));
    assert_eq!(noted(&dir), 0);
    assert_whole(&store);
}

#[test]
fn what_is_missing_in_the_same_boot_is_a_loss() {
    let dir = Dir::new("new-directories-same-boot");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    std::fs::remove_dir(&path).unwrap();
    let refused = open(&dir, SyncMode::Full).changes(&web);
    assert!(matches!(refused, Err(Error::LayerMissing { .. })), "{refused:?}");
    let codes: Vec<_> = store.check(&CheckOptions::default()).unwrap().findings;
    assert!(codes.iter().any(|found| found.damage.code() == "directory-missing"), "{codes:?}");
}

#[test]
fn what_is_there_stays_as_it_is_and_is_missed_afterwards() {
    let dir = Dir::new("new-directories-there");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    let before = Tree::scan(&path);
    cut_power(&dir, &[]);
    assert_eq!(noted(&dir), 1);
    let store = open(&dir, SyncMode::Full);
    store.changes(&web).unwrap();
    assert_eq!(Tree::scan(&path), before);
    assert_eq!(noted(&dir), 0);
    std::fs::remove_dir(&path).unwrap();
    let refused = store.changes(&web);
    assert!(matches!(refused, Err(Error::LayerMissing { .. })), "{refused:?}");
}

#[test]
fn a_check_tells_what_is_to_be_made_again() {
    let dir = Dir::new("new-directories-told");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    cut_power(&dir, &[&path]);
    let notes = open(&dir, SyncMode::Full).check(&CheckOptions::default()).unwrap().notes;
    let told = Note::MadeAgain { thing: format!("layer {}", web.layer), path };
    assert_eq!(notes, [told]);
}

/// What an operator removes, or a disk loses, while nobody uses it.
#[test]
fn what_is_lost_after_the_first_write_of_a_boot_is_missed() {
    let dir = Dir::new("new-directories-settled");
    let store = open(&dir, SyncMode::Full);
    let (_, kept) = container(&dir, &store, &ContainerOptions::named("web"));
    let (_, lost) = container(&dir, &store, &ContainerOptions::named("www"));
    cut_power(&dir, &[&lost]);
    std::fs::remove_file(dir.root().join("collected")).unwrap();
    open(&dir, SyncMode::Full).create_layer(None, &LayerOptions::default()).unwrap();
    assert_eq!(noted(&dir), 2, "the lost one, and the newest");
    std::fs::remove_dir(&kept).unwrap();
    let found = open(&dir, SyncMode::Full).check(&CheckOptions::default()).unwrap().findings;
    let codes: Vec<_> = found.iter().map(|found| found.damage.code()).collect();
    assert_eq!(codes, ["directory-missing"], "{found:?}");
}

#[test]
fn a_copy_that_is_put_back_makes_nothing_again() {
    let dir = Dir::new("new-directories-backup");
    let store = open(&dir, SyncMode::Full);
    let (web, _) = container(&dir, &store, &ContainerOptions::named("web"));
    let copy = dir.join("copy");
    store.backup(&copy, BackupMode::New).unwrap();
    assert_eq!(noted(&dir), 1);
    store.remove_container(&web.id).unwrap();
    drop(store);
    std::fs::rename(copy, dir.root().join("store.redb")).unwrap();
    assert_eq!(noted(&dir), 0);
    database::reboot(&dir.root());
    let store = open(&dir, SyncMode::Full);
    let refused = store.changes(&web);
    assert!(matches!(refused, Err(Error::LayerMissing { .. })), "{refused:?}");
}

#[test]
fn a_note_goes_with_its_layer_and_with_a_sync() {
    let dir = Dir::new("new-directories-notes");
    let store = open(&dir, SyncMode::Full);
    let (web, _) = container(&dir, &store, &ContainerOptions::named("web"));
    assert_eq!(noted(&dir), 1);
    // It is not what somebody has to care for.
    let status = store.status().unwrap();
    assert_eq!((status.unsynced, status.unverified), (0, 0));
    assert!(store.check(&CheckOptions::default()).unwrap().notes.is_empty());
    assert_whole(&store);
    store.remove_container(&web.id).unwrap();
    assert_eq!(noted(&dir), 0);

    let image = load(&dir, &store, "image");
    store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    assert_eq!((noted(&dir), store.sync().unwrap(), noted(&dir)), (1, 0, 0));
    store.create_container(&image.id, &ContainerOptions::named("www")).unwrap();
    // Nothing new comes in with it, and nothing is synced.
    load(&dir, &store, "image");
    assert_eq!(noted(&dir), 1);
    load(&dir, &store, "other");
    assert_eq!(noted(&dir), 0);
}

#[test]
fn what_no_record_tells_is_synced() {
    let dir = Dir::new("new-directories-own");
    let store = open(&dir, SyncMode::Full);
    let mut options = LayerOptions::default();
    options.root_mode = Some(0o555);
    store.create_layer(None, &options).unwrap();
    let mut options = LayerOptions::default();
    options.root_owner = Some((nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw()));
    store.create_layer(None, &options).unwrap();
    assert_eq!(noted(&dir), 0);
    // A copy has files.
    let layer = store.create_layer(None, &LayerOptions::default()).unwrap();
    assert_eq!(noted(&dir), 1);
    let mut options = LayerOptions::default();
    options.template = Some(layer.id);
    store.create_layer(None, &options).unwrap();
    assert_eq!(noted(&dir), 1);
}

#[test]
fn who_must_not_write_makes_nothing() {
    let dir = Dir::new("new-directories-read-only");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    cut_power(&dir, &[&path]);
    let reader = Store::open(&options(&dir, SyncMode::Full).read_only(true)).unwrap();
    let refused = reader.changes(&web);
    assert!(matches!(refused, Err(Error::LayerMissing { .. })), "{refused:?}");
    open(&dir, SyncMode::Full).changes(&web).unwrap();
    reader.changes(&web).unwrap();
}

#[test]
fn who_does_not_sync_leaves_the_note() {
    let dir = Dir::new("new-directories-off");
    let store = open(&dir, SyncMode::Off);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    for _ in 0..2 {
        cut_power(&dir, &[&path]);
        open(&dir, SyncMode::Off).changes(&web).unwrap();
        assert_eq!((noted(&dir), path.exists()), (1, true));
    }
    open(&dir, SyncMode::Records).changes(&web).unwrap();
    assert_eq!(noted(&dir), 0);
}

#[test]
fn garbage_is_collected_while_a_directory_is_to_be_made_again() {
    let dir = Dir::new("new-directories-garbage");
    let store = open(&dir, SyncMode::Full);
    let (web, path) = container(&dir, &store, &ContainerOptions::named("web"));
    let half_done = dir.root().join("diffs/12345.aside");
    std::fs::create_dir(&half_done).unwrap();
    cut_power(&dir, &[&path]);
    let report = open(&dir, SyncMode::Full).gc(false).unwrap();
    assert!(report.left.is_empty() && !half_done.exists(), "{report:?}");
    store.remove_container(&web.id).unwrap();
    assert_whole(&store);
}
