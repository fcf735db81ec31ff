//! Containers with ids of their own on one image: by id-mapped mounts, and by copies of the image where there are none.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use layerstore::oci::{LoadOptions, Source};
use layerstore::{
    Container, ContainerOptions, Error, IdMapping, IdMaps, Image, LayerId, MountError, MountOptions,
    RepairOptions, Store, StoreOptions, SyncMode, UnmountMode,
};
use layerstore_schema::record::{DiffRecord, LayerContent, LayerRecord, Record};
use layerstore_schema::table;
use redb::ReadableTable;

use crate::support::oci::{Image as OciImage, Layer};
use crate::support::store::assert_whole;
use crate::support::tar::Member;
use crate::support::tree::Tree;
use crate::support::{Dir, TestCommand};
use crate::support::{database, machine};

/// A store whose mounts map ids, if the kernel can, or never do.
fn open(dir: &Dir, id_mapped_mounts: bool) -> Store {
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options.id_mapped_mounts(id_mapped_mounts)).unwrap()
}

/// A capability of root: `cap_net_raw=ep`, in the form without an id.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// An access control list with entries of the user 5 and the group 7.
fn default_acl() -> Vec<u8> {
    let none = u32::MAX;
    let entries =
        [(1_u16, 7_u16, none), (2, 6, 5), (4, 5, none), (8, 5, 7), (0x10, 7, none), (0x20, 5, none)];
    let entries = entries.iter().flat_map(|(tag, rights, id)| {
        [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    });
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

/// An image in which everything stands that a map or a copy could get wrong.
fn load(dir: &Dir, store: &Store) -> Image {
    let layers = [
        Layer::new([
            Member::directory(".").mode(0o755),
            Member::directory("bin"),
            Member::file("bin/su", "su").mode(0o4755),
            Member::file("bin/write", "write").mode(0o2755).owner(0, 5),
            Member::file("bin/ping", "ping").mode(0o755).xattr("security.capability", CAPABILITY),
            Member::hard_link("bin/ping6", "bin/ping"),
            Member::directory("www").owner(33, 34).mode(0o1777),
            Member::file("www/page", "page").owner(33, 34),
            Member::symlink("www/link", "page").owner(33, 34),
            Member::file("gone", "gone"),
            Member::directory("hidden"),
            Member::file("hidden/below", "below"),
            Member::directory("log"),
            Member::file("log/lower", "lower").mode(0o664),
        ]),
        Layer::new([
            Member::whiteout("gone"),
            Member::directory("hidden").mode(0o700),
            Member::opaque("hidden"),
            Member::file("hidden/above", "above").owner(1000, 1049),
            Member::file("www/page", "newer").owner(33, 34).mode(0o640),
            // Nothing of the layer below is made in it, so nothing there inherits it.
            Member::directory("log").xattr("system.posix_acl_default", default_acl()),
        ]),
    ];
    let written = OciImage::new(layers).write(dir.join("layout"), "image");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("image")).unwrap()
}

fn maps(text: &str) -> IdMaps {
    IdMaps::both(text.split(' ').map(|extent| extent.parse().unwrap()).collect::<Vec<_>>())
}

/// Two maps of several pieces, of ids that a user namespace with ranges has too.
const FIRST: &str = "0:10000:1000 1000:30000:50";
const SECOND: &str = "0:20000:33 33:50000:1 34:20034:966 1000:40000:1 1001:42001:100";

fn container(store: &Store, image: &Image, name: &str, map: &str) -> Container {
    let mut options = ContainerOptions::named(name);
    options.ids = IdMapping::Maps(maps(map));
    store.create_container(&image.id, &options).unwrap()
}

fn owner(path: impl AsRef<Path>) -> (u32, u32) {
    let found = path.as_ref().symlink_metadata().unwrap();
    (found.uid(), found.gid())
}

/// Why ids cannot be mapped at all by this process.
fn obstacle() -> Option<&'static str> {
    let has_ids = machine::is_root() && [0, 10_000, 50_000, 59_999].iter().all(|id| machine::is_mapped(*id));
    (!has_ids)
        .then_some("giving files to others needs root of the machine, or of a namespace with ranges of ids")
}

fn mount(store: &Store, container: &Container) -> layerstore::Mount {
    store.mount(container, &MountOptions::default()).unwrap()
}

/// Two containers with different maps are mounted at a time, written to, and what comes out has the image's ids.
fn two_maps_at_once(store: &Store, image: &Image) {
    let first = container(store, image, "first", FIRST);
    let second = container(store, image, "second", SECOND);
    let (one, two) = (mount(store, &first), mount(store, &second));
    for (path, of_first, of_second) in [
        ("", (10_000, 10_000), (20_000, 20_000)),
        ("bin/su", (10_000, 10_000), (20_000, 20_000)),
        ("bin/write", (10_000, 10_005), (20_000, 20_005)),
        ("www", (10_033, 10_034), (50_000, 20_034)),
        ("www/page", (10_033, 10_034), (50_000, 20_034)),
        ("www/link", (10_033, 10_034), (50_000, 20_034)),
        ("hidden/above", (30_000, 30_049), (40_000, 42_049)),
    ] {
        assert_eq!(
            (owner(one.path().join(path)), owner(two.path().join(path))),
            (of_first, of_second),
            "{path}"
        );
    }
    for (container, mount, root) in [(&first, &one, 10_000), (&second, &two, 20_000)] {
        let at = |path: &str| mount.path().join(path);
        assert!(!at("gone").exists() && !at("hidden/below").exists());
        assert_eq!(std::fs::read(at("www/page")).unwrap(), b"newer");
        // Copied up with the owner it is seen with; new files have that of the process.
        let before = owner(at("www/page"));
        std::fs::write(at("www/page"), "written").unwrap();
        assert_eq!(owner(at("www/page")), before);
        std::fs::write(at("new"), "new").unwrap();
        chown(at("new"), Some(root), Some(root)).unwrap();
        let mut tar = Vec::new();
        store.diff(container, &mut tar).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let entry = entry.unwrap();
            let ids = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
            found.insert(entry.path().unwrap().display().to_string(), ids);
        }
        let expected = [("new", (0, 0)), ("www/", (33, 34)), ("www/page", (33, 34))];
        assert_eq!(found, expected.map(|(path, ids)| (path.to_owned(), ids)).into());
        let changes: Vec<_> = store.changes(container).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(changes, ["A /new", "C /www", "C /www/page"]);
    }
    for container in [&first, &second] {
        store.unmount(container, UnmountMode::Plain).unwrap();
    }
    assert_whole(store);
}

#[test]
fn containers_with_different_maps_share_an_image() {
    if !machine::is_real_root() {
        skip!("id-mapped mounts need root of the machine");
    }
    let dir = Dir::new("id-maps-shared");
    let store = open(&dir, true);
    let image = load(&dir, &store);
    let probe = container(&store, &image, "probe", FIRST);
    if store
        .capabilities()
        .unwrap()
        .iter()
        .any(|row| row.name == "id-mapped mounts" && row.value == layerstore::CapabilityValue::No)
    {
        skip!("this kernel maps no ids in mounts here");
    }
    store.remove_container(&probe.id).unwrap();
    two_maps_at_once(&store, &image);
    assert_eq!(store.image("image").unwrap().mapped_top_layers, [], "nothing was copied");
}

#[test]
fn without_id_mapped_mounts_an_image_is_copied_once_for_each_map() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-copied");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let before = store.layers().unwrap().len();
    two_maps_at_once(&store, &image);
    let copies = store.image("image").unwrap().mapped_top_layers;
    assert_eq!(copies.len(), 2);
    let copy = store.layer(copies[0].as_str()).unwrap();
    assert!(copy.read_only && copy.parent.is_none() && copy.tree.is_some());
    assert_eq!(IdMaps { uids: copy.uid_map, gids: copy.gid_map }, maps(FIRST));
    // The next container with the map takes the one that is there.
    let third = container(&store, &image, "third", FIRST);
    assert_eq!(owner(mount(&store, &third).path().join("www")), (10_033, 10_034));
    assert_eq!(store.image("image").unwrap().mapped_top_layers, copies);
    assert!(matches!(store.remove_image(&image.id), Err(Error::InUse(_))), "containers stand on it");
    assert!(matches!(store.remove_layer(&copies[0]), Err(Error::InUse(_))), "the image has it");
    store.unmount(&third, UnmountMode::Plain).unwrap();
    for container in store.containers().unwrap() {
        store.remove_container(&container.id).unwrap();
    }
    assert_eq!(store.layers().unwrap().len(), before + 2);
    let removed = store.remove_image(&image.id).unwrap();
    assert!(copies.iter().all(|copy| removed.contains(copy)));
    assert_eq!(store.layers().unwrap(), []);
    assert_eq!(std::fs::read_dir(store.root().join("diffs")).unwrap().count(), 0);
    assert_whole(&store);
}

#[test]
fn containers_that_are_mounted_at_once_share_a_copy() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-at-once");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let containers: Vec<_> =
        (0..4).map(|number| container(&store, &image, &format!("web{number}"), SECOND)).collect();
    std::thread::scope(|scope| {
        for container in &containers {
            let store = open(&dir, false);
            scope.spawn(move || {
                assert_eq!(owner(mount(&store, container).path().join("www")), (50_000, 20_034));
            });
        }
    });
    assert_eq!(store.image("image").unwrap().mapped_top_layers.len(), 1);
    for container in &containers {
        store.unmount(container, UnmountMode::Plain).unwrap();
    }
    assert_whole(&store);
}

#[test]
fn a_copy_is_what_a_mapped_mount_shows() {
    if !machine::is_real_root() {
        skip!("id-mapped mounts need root of the machine");
    }
    let dir = Dir::new("id-maps-same");
    let store = open(&dir, true);
    let image = load(&dir, &store);
    // An owner that the map has no place for is nobody in both.
    for (name, map) in [("all", FIRST), ("some", "0:10000:40")] {
        let web = container(&store, &image, name, map);
        let by_mount = Tree::scan(mount(&store, &web).path());
        store.unmount(&web, UnmountMode::Plain).unwrap();
        if !store.image("image").unwrap().mapped_top_layers.is_empty() {
            skip!("this kernel maps no ids in mounts here");
        }
        let copying = open(&dir, false);
        let by_copy = Tree::scan(mount(&copying, &web).path());
        copying.unmount(&web, UnmountMode::Plain).unwrap();
        by_mount.assert_same(&by_copy);
        let node = |path: &str| by_copy.get(path).unwrap().clone();
        assert_eq!((node("bin/su").mode, node("bin/write").mode), (0o4755, 0o2755));
        assert!(node("log/lower").xattrs.is_empty() && !node("log").xattrs.is_empty());
        let root = u32::from_le_bytes(
            node("bin/ping").xattrs[&b"security.capability"[..]][20..24].try_into().unwrap(),
        );
        assert_eq!(root, 10_000, "a capability of the container's root");
        copying.remove_container(&web.id).unwrap();
        // With what mounts by maps, the copy is not looked at.
        let copies = store.image("image").unwrap().mapped_top_layers;
        assert_eq!(copies.len(), 1);
        store.remove_image(&image.id).unwrap();
        load(&dir, &store);
    }
}

#[test]
fn a_copy_that_is_lost_is_made_anew() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-lost");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let web = container(&store, &image, "web", FIRST);
    let diffs = || {
        let entries = std::fs::read_dir(store.root().join("diffs")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = diffs();
    mount(&store, &web);
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let copy = diffs().difference(&before).next().unwrap().clone();
    std::fs::remove_dir_all(&copy).unwrap();
    let first = store.image("image").unwrap().mapped_top_layers;
    assert_eq!(owner(mount(&store, &web).path().join("www/page")), (10_033, 10_034));
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let second = store.image("image").unwrap().mapped_top_layers;
    assert!(second.len() == 1 && second != first);
    assert_whole(&store);
    // A repair has it from the image's own layers.
    let copy = diffs().difference(&before).next().unwrap().clone();
    std::fs::remove_dir_all(&copy).unwrap();
    store.repair(&layerstore::RepairOptions::default()).unwrap();
    assert_whole(&store);
    assert_eq!(owner(mount(&store, &web).path().join("www/page")), (10_033, 10_034));
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(store.image("image").unwrap().mapped_top_layers, second);
}

/// What is made from now on is masked, and a copy of what was made before is as that is.
#[test]
fn a_copy_has_owners_of_its_own_in_a_store_with_a_mask() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-mask");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let web = container(&store, &image, "web", FIRST);
    drop(store);
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let options = options.id_mapped_mounts(false).force_mask(0o700).mount_program("/bin/true");
    let store = Store::open(&options).unwrap();
    assert_eq!(owner(mount(&store, &web).path().join("www/page")), (10_033, 10_034));
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_whole(&store);
}

/// Owners that stand in an attribute are shown by no map: so they come from there into a copy, whatever the kernel can do.
#[test]
fn an_image_that_was_made_with_a_mask_is_copied_without() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-masked-image");
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let masked = Store::open(&options.clone().force_mask(0o700).mount_program("/bin/true")).unwrap();
    let image = load(&dir, &masked);
    drop(masked);
    let store = Store::open(&options).unwrap();
    let web = container(&store, &image, "web", FIRST);
    let mounted = mount(&store, &web);
    let at = |path: &str| mounted.path().join(path);
    assert_eq!((owner(at("www/page")), owner(at("hidden/above"))), ((10_033, 10_034), (30_000, 30_049)));
    assert_eq!(at("www/page").metadata().unwrap().mode() & 0o7777, 0o640);
    std::fs::write(at("new"), "new").unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(store.image("image").unwrap().mapped_top_layers.len(), 1);
    assert_whole(&store);
    // Maps of a single mount are for mounts that map.
    let mut own = MountOptions::default();
    own.id_maps = Some(maps(SECOND));
    let refused = store.mount(&image, &own);
    assert!(
        matches!(&refused, Err(Error::Mount(MountError::IdMap { reason })) if reason.contains("force_mask")),
        "{refused:?}"
    );
}

/// It costs neither the image nor its containers, whatever is left of it.
#[test]
fn a_repair_forgets_a_copy_that_is_damaged() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-repair");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let web = container(&store, &image, "web", FIRST);
    let damages: [fn(&Dir, &str); 4] = [
        // Its record.
        |dir, copy| {
            database::edit(&dir.root(), |txn| {
                let mut layers = txn.open_table(table::LAYERS).unwrap();
                let record = layers.get(copy).unwrap().unwrap().value().to_owned();
                layers.insert(copy, &record[..1]).unwrap();
            });
        },
        |dir, copy| {
            database::edit(&dir.root(), |txn| {
                txn.open_table(table::LAYERS).unwrap().remove(copy).unwrap().unwrap();
            });
        },
        // Its directory, and what should be in it.
        |dir, copy| {
            database::edit(&dir.root(), |txn| {
                let layers = txn.open_table(table::LAYERS).unwrap();
                let record = LayerRecord::decode(layers.get(copy).unwrap().unwrap().value()).unwrap();
                let LayerContent::Sealed(tree) = record.content else { panic!("it is sealed") };
                let mut diffs = txn.open_table(table::DIFFS).unwrap();
                let diff = DiffRecord::decode(diffs.remove(&tree).unwrap().unwrap().value()).unwrap();
                std::fs::remove_dir_all(dir.root().join(format!("diffs/{}", diff.number))).unwrap();
            });
        },
        // A file that the image's own layers have not, and that is not known here.
        |dir, copy| {
            database::edit(&dir.root(), |txn| {
                let layers = txn.open_table(table::LAYERS).unwrap();
                let record = LayerRecord::decode(layers.get(copy).unwrap().unwrap().value()).unwrap();
                let LayerContent::Sealed(tree) = record.content else { panic!("it is sealed") };
                let diffs = txn.open_table(table::DIFFS).unwrap();
                let diff = DiffRecord::decode(diffs.get(&tree).unwrap().unwrap().value()).unwrap();
                txn.open_table(table::BLOBS).unwrap().remove(&diff.manifest).unwrap();
                std::fs::remove_file(dir.root().join(format!("diffs/{}/www/page", diff.number))).unwrap();
            });
        },
    ];
    for (index, damage) in damages.into_iter().enumerate() {
        mount(&store, &web);
        store.unmount(&web, UnmountMode::Plain).unwrap();
        let copy = store.image("image").unwrap().mapped_top_layers[0].to_string();
        damage(&dir, &copy);
        let mut options = RepairOptions::default();
        (options.force, options.dry_run) = (true, true);
        let planned = store.repair(&options).unwrap();
        assert!(planned.repaired.iter().all(|one| one.code != "removed"), "{index}: {planned:#?}");
        options.dry_run = false;
        // Not even force is needed.
        options.force = index % 2 == 0;
        let report = store.repair(&options).unwrap();
        assert!(report.is_complete(), "{index}: {report:#?}");
        assert!(report.repaired.iter().any(|one| one.code == "forget"), "{index}: {report:#?}");
        assert!(store.image("image").unwrap().mapped_top_layers.is_empty(), "{index}");
        assert_whole(&store);
        assert_eq!(owner(mount(&store, &web).path().join("www/page")), (10_033, 10_034), "{index}");
        store.unmount(&web, UnmountMode::Plain).unwrap();
    }
}

#[test]
fn an_image_of_another_store_is_not_copied() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-other");
    let other = dir.join("other");
    let options = StoreOptions::at(&other).sync(SyncMode::Off).reserve(0);
    let image = load(&dir, &Store::open(&options).unwrap());
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let store = Store::open(&options.clone().image_store(&other).id_mapped_mounts(false)).unwrap();
    let web = container(&store, &image, "web", FIRST);
    let refused = store.mount(&web, &MountOptions::default());
    assert!(
        matches!(&refused, Err(Error::Mount(MountError::IdMap { reason })) if reason.contains("load it")),
        "{refused:?}"
    );
    // In a store for images that is written, the copy is beside the image.
    drop(store);
    let root = dir.join("separate");
    let options = StoreOptions::at(&root).run_root(dir.join("separate-run")).sync(SyncMode::Off).reserve(0);
    let store = Store::open(&options.image_store_root(&other).id_mapped_mounts(false)).unwrap();
    let web = container(&store, &image, "web", FIRST);
    assert_eq!(owner(mount(&store, &web).path().join("www/page")), (10_033, 10_034));
    store.unmount(&web, UnmountMode::Plain).unwrap();
    assert_eq!(store.separate_images().unwrap().image("image").unwrap().mapped_top_layers.len(), 1);
    store.remove_container(&web.id).unwrap();
    store.remove_image(&image.id).unwrap();
    assert_eq!(store.layers().unwrap(), []);
}

#[test]
fn a_variable_switches_id_mapped_mounts_off() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-variable");
    load(&dir, &open(&dir, true));
    let off = |words: &[&str]| -> TestCommand {
        dir.layerstore(words).env("_CONTAINERS_OVERLAY_DISABLE_IDMAP", "yes")
    };
    let words = ["create-container", "image", "--name", "web", "--uidmap", "0:10000:2000"];
    off(&words).args(["--gidmap", "0:10000:2000"]).assert_success();
    let path = off(&["mount", "web"]).stdout_path();
    assert_eq!(owner(path.join("www")), (10_033, 10_034));
    dir.layerstore(["unmount", "web"]).assert_success();
    assert_eq!(open(&dir, true).image("image").unwrap().mapped_top_layers.len(), 1);
    let table = off(&["status"]).stdout();
    let row: Vec<_> =
        table.lines().skip_while(|line| !line.starts_with("id-mapped mounts")).take(2).collect();
    assert!(row[0].ends_with(" no") && row[1].trim_start().starts_with("switched off"), "{row:?}");
    let setting = table.lines().find(|line| line.starts_with("id_mapped_mounts")).unwrap();
    assert!(setting.contains("$_CONTAINERS_OVERLAY_DISABLE_IDMAP"), "{setting}");
    let rows = off(&["status", "--json"]).json();
    let row = rows["capabilities"].as_array().unwrap().iter().find(|row| row["name"] == "id-mapped mounts");
    assert_eq!(row.unwrap()["value"], false);
    let config = off(&["config"]).stdout();
    assert!(
        config.lines().any(|line| line.starts_with("id_mapped_mounts") && line.contains("DISABLE_IDMAP")),
        "{config}"
    );
}

/// A copy belongs to its image: it is shown with it, counted with it, and goes when no container needs it.
#[test]
fn copies_are_told_counted_and_dropped() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-dropped");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let before = store.usage(&image.id).unwrap();
    let both = [("first", FIRST), ("second", SECOND)].map(|(name, map)| {
        let made = container(&store, &image, name, map);
        mount(&store, &made);
        store.unmount(&made, UnmountMode::Plain).unwrap();
        made
    });
    let copies = store.image("image").unwrap().mapped_top_layers;
    let usage = store.usage(&image.id).unwrap();
    let taken = |copy| store.usage(copy).unwrap().total;
    assert!(before.mapped == 0 && taken(&copies[0]) > 0, "{usage:?}");
    assert_eq!(usage.mapped, taken(&copies[0]) + taken(&copies[1]));
    // Its own layers do not go with it as long as containers stand on them.
    assert_eq!((usage.total, usage.unique), (before.total + usage.mapped, usage.mapped));

    let layers = dir.layerstore(["layers"]).stdout();
    let row = layers.lines().find(|line| line.starts_with(&copies[0].as_str()[..12])).unwrap();
    assert!(row.ends_with("copy of image image for ids 0:10000:1000 1000:30000:50"), "{row}");
    let du = dir.layerstore(["du"]).stdout();
    assert!(du.lines().any(|line| line.trim_start().starts_with("copies with other owners")), "{du}");
    let du = dir.layerstore(["du", "--json"]).json();
    assert_eq!(
        (&du["summary"]["mapped_copies"], &du["images"][0]["mapped"]),
        (&2.into(), &usage.mapped.into())
    );

    assert_eq!(store.drop_mapped_copies().unwrap(), [], "each has a container");
    store.remove_container(&both[0].id).unwrap();
    assert_eq!(store.drop_mapped_copies().unwrap(), copies[..1]);
    assert_eq!(store.image("image").unwrap().mapped_top_layers, copies[1..]);
    assert_whole(&store);
    store.remove_container(&both[1].id).unwrap();
    let pruned = dir.layerstore(["prune", "--copies", "--json"]).json();
    assert_eq!(pruned["copies"], serde_json::json!([copies[1].as_str()]));
    assert_eq!(store.usage(&image.id).unwrap(), before);
    assert_whole(&store);
}

#[test]
fn a_forced_repair_takes_the_copies_of_an_image_along() {
    if let Some(obstacle) = obstacle() {
        skip!("{obstacle}");
    }
    let dir = Dir::new("id-maps-repair-image");
    let store = open(&dir, false);
    let image = load(&dir, &store);
    let copy = || {
        let web = container(&store, &image, "web", FIRST);
        mount(&store, &web);
        store.unmount(&web, UnmountMode::Plain).unwrap();
        store.remove_container(&web.id).unwrap();
        store.image("image").unwrap().mapped_top_layers[0].clone()
    };
    let is_there = |copy: &LayerId| store.layers().unwrap().iter().any(|layer| layer.id == *copy);
    // Who makes the record of an image anew does not know what copies it had: they are nobody's.
    let first = copy();
    database::edit(&dir.root(), |txn| {
        let mut images = txn.open_table(table::IMAGES).unwrap();
        let bytes = images.get(image.id.as_str()).unwrap().unwrap().value().to_owned();
        images.insert(image.id.as_str(), &bytes[..1]).unwrap();
    });
    let report = store.repair(&RepairOptions::default()).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    assert!(store.image("image").unwrap().mapped_top_layers.is_empty() && is_there(&first));
    assert_eq!(store.drop_mapped_copies().unwrap(), std::slice::from_ref(&first));
    assert!(!is_there(&first));
    assert_whole(&store);

    let second = copy();
    store.drop_blobs(None).unwrap();
    let top = image.top_layer.clone().unwrap();
    database::edit(&dir.root(), |txn| {
        let layers = txn.open_table(table::LAYERS).unwrap();
        let found = LayerRecord::decode(layers.get(top.as_str()).unwrap().unwrap().value()).unwrap();
        let LayerContent::Sealed(tree) = found.content else { panic!("it is sealed") };
        let diffs = txn.open_table(table::DIFFS).unwrap();
        let diff = DiffRecord::decode(diffs.get(&tree).unwrap().unwrap().value()).unwrap();
        txn.open_table(table::BLOBS).unwrap().remove(&diff.manifest).unwrap();
        std::fs::remove_dir_all(dir.root().join(format!("diffs/{}", diff.number))).unwrap();
    });
    let mut options = RepairOptions::default();
    options.force = true;
    let report = store.repair(&options).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!(store.images().unwrap(), [], "{report:#?}");
    assert!(!is_there(&second), "{report:#?}");
    assert_whole(&store);
}
