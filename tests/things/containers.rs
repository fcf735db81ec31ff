//! Containers: what they are given, their directories and files, ids of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    AutoIdMaps, CheckOptions, ContainerOptions, CreateError, Error, ExportError, HostRanges, IdExtent,
    IdMapping, IdMaps, LookupError, MountError, MountOptions, NewItem, Store, UnmountMode, ValueError,
};

use super::{base, entries, open};
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;
use crate::support::{Dir, machine};

fn load(dir: &Dir, store: &Store, layers: impl IntoIterator<Item = Layer>) -> layerstore::Image {
    let written = Image::new(layers).write(dir.join("layout"), "image");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("image")).unwrap()
}

fn maps(text: &str) -> IdMaps {
    IdMaps::both(text.split_whitespace().map(|extent| extent.parse().unwrap()).collect::<Vec<IdExtent>>())
}

fn with_ids(name: &str, ids: IdMapping) -> ContainerOptions {
    let mut options = ContainerOptions::named(name);
    options.ids = ids;
    options
}

/// The owners of a layer's tar by path.
fn owners(tar: &[u8]) -> BTreeMap<String, (u64, u64)> {
    let mut archive = tar::Archive::new(tar);
    let owner = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let entry = entry.unwrap();
        let (uid, gid) = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
        (entry.path().unwrap().to_string_lossy().into_owned(), (uid, gid))
    };
    archive.entries().unwrap().map(owner).collect()
}

#[test]
fn a_container_has_all_that_it_is_given() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, _) = base(&store, "base");
    let mut options = ContainerOptions::named("web");
    options.id = Some("c0".parse().unwrap());
    options.layer = Some("c0-layer".parse().unwrap());
    options.items = vec![NewItem::new("spec", "{}"), NewItem::new("manifest", "no image's")];
    options.flags = vec![("Volatile".to_owned(), "true".to_owned())];
    options.labels = vec![("a".to_owned(), "b".to_owned())];
    options.mount_options = vec!["nodev".to_owned()];
    options.mount_label = Some("system_u:object_r:container_file_t:s0".to_owned());
    options.process_label = Some("system_u:system_r:container_t:s0".to_owned());
    options.volatile = true;
    options.ids = IdMapping::Maps(maps("0:0:1"));
    let web = store.create_container(&image.id, &options).unwrap();
    assert_eq!(open(&dir).container("web").unwrap(), web);
    assert_eq!((web.layer.as_str(), web.volatile), ("c0-layer", true));
    assert_eq!((&web.flags, &web.labels), (&options.flags, &options.labels));
    assert_eq!((&web.mount_label, &web.process_label), (&options.mount_label, &options.process_label));
    assert_eq!(web.id_maps, Some(maps("0:0:1")));
    assert_eq!(store.item(&web, "spec").unwrap(), b"{}");
    assert_eq!(store.container_by_layer(&web.layer).unwrap(), web);

    // The id of the layer is taken, too, and nothing is left of a container that cannot be made.
    let before = entries(&dir, "diffs").len();
    options.id = None;
    options.names = vec!["other".to_owned()];
    let refused = store.create_container(&image.id, &options);
    assert!(matches!(refused, Err(Error::Create(CreateError::IdInUse { kind: "layer", .. }))), "{refused:?}");
    options.id = Some("web".parse().unwrap());
    options.layer = None;
    let refused = store.create_container(&image.id, &options);
    assert!(
        matches!(refused, Err(Error::Create(CreateError::IdIsName { kind: "container", .. }))),
        "{refused:?}"
    );
    for ids in ["", "0:1:0", "1:1:1", "0:1:5 3:100:3"] {
        let refused = store.create_container(&image.id, &with_ids("other", IdMapping::Maps(maps(ids))));
        assert!(matches!(refused, Err(Error::Value(ValueError::IdMap { .. }))), "{ids}: {refused:?}");
    }
    assert_eq!(entries(&dir, "diffs").len(), before);
    let parent = image.top_layer.unwrap();
    let of_nobody = store.container_by_layer(&parent);
    assert!(matches!(of_nobody, Err(Error::Lookup(LookupError::NotFound { kind: "container", .. }))));
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn files_of_a_container_stay_below_its_directory() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    for nothing in [store.read_container_file(&web.id, "a/b"), store.read_container_run_file(&web.id, "pid")]
    {
        assert!(matches!(nothing, Err(Error::Io { .. })), "{nothing:?}");
    }
    assert!(entries(&dir, "data").is_empty(), "reading makes nothing");
    store.write_container_file(&web.id, "a/b", b"one").unwrap();
    store.write_container_file(&web.id, "a/b", b"two").unwrap();
    store.write_container_run_file(&web.id, "pid", b"7").unwrap();
    assert_eq!(store.read_container_file(&web.id, Path::new("a/b")).unwrap(), b"two");
    assert_eq!(store.read_container_run_file(&web.id, "pid").unwrap(), b"7");
    assert_eq!(store.size(&web).unwrap(), 3 + 1);
    let (kept, run) = (store.container_directory(&web.id).unwrap(), store.run_directory(&web.id).unwrap());
    assert_eq!(std::fs::read(kept.join("a/b")).unwrap(), b"two");
    assert_eq!(std::fs::read(run.join("pid")).unwrap(), b"7");

    let outside = dir.write("outside", "secret");
    symlink(dir.path(), kept.join("up")).unwrap();
    for path in ["../outside", "a/../../outside", "", "/"] {
        assert!(store.write_container_file(&web.id, path, b"x").is_err(), "{path}");
        assert!(store.read_container_file(&web.id, path).is_err(), "{path}");
    }
    for path in ["up/outside", "missing", "a"] {
        let refused = store.read_container_file(&web.id, path);
        assert!(matches!(refused, Err(Error::Io { .. })), "{path}: {refused:?}");
    }
    assert!(store.write_container_file(&web.id, "up/outside", b"x").is_err());
    assert_eq!(std::fs::read(outside).unwrap(), b"secret");
    // What looks absolute begins at the directory, as in an archive.
    store.write_container_file(&web.id, "/etc/passwd", b"mine").unwrap();
    assert_eq!(std::fs::read(kept.join("etc/passwd")).unwrap(), b"mine");

    store.remove_container(&web.id).unwrap();
    assert!(!kept.exists() && !run.exists() && entries(&dir, "data").is_empty());
    assert!(store.read_container_file(&web.id, "a/b").is_err());
}

#[test]
fn sizes_are_those_of_contents() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let layers = [
        Layer::new([Member::file("a", vec![1; 1000]), Member::hard_link("twin", "a")]),
        Layer::new([Member::file("a", vec![2; 50])]),
    ];
    let image = load(&dir, &store, layers);
    let top = image.top_layer.clone().unwrap();
    let items: u64 = store.items(&image).unwrap().iter().map(|item| item.size).sum();
    assert_eq!(store.size(&top).unwrap(), 50);
    assert_eq!(store.size(&image).unwrap(), 1050 + items);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    assert_eq!(store.size(&web).unwrap(), 0);
    store.write(|txn| txn.put_item(&web, "spec", &[0; 77])).unwrap();
    assert_eq!(store.size(&web).unwrap(), 77);
}

/// An image with files of root and of 33:34, in directories of several layers.
fn image_with_owners(dir: &Dir, store: &Store) -> layerstore::Image {
    let layers = [
        Layer::new([
            Member::directory("."),
            Member::directory("etc"),
            Member::file("etc/passwd", "root:x:0:0::/:\nwww:x:33:34::/:\nnobody:x:65534:65534::/:\n"),
            Member::file("etc/group", "root:x:0:\nbroken\nbig:x:1999:\nnogroup:x:65534:\n"),
            Member::directory("www").owner(33, 34),
            Member::file("www/page", "text").owner(33, 34),
        ]),
        Layer::new([Member::directory("www").owner(33, 34), Member::file("www/other", "x").owner(33, 34)]),
    ];
    load(dir, store, layers)
}

#[test]
fn ids_are_mapped_in_mounts_and_back_in_what_comes_out() {
    if !machine::is_real_root() {
        skip!("id-mapped mounts need root of the machine");
    }
    let dir = Dir::new("things");
    let store = open(&dir);
    let image = image_with_owners(&dir, &store);
    let web = store
        .create_container(&image.id, &with_ids("web", IdMapping::Maps(maps("0:100000:1000 1000:300000:50"))))
        .unwrap();
    // Known before it is mounted, so that a runtime can map these too.
    let above = store.parent_owners(&web).unwrap();
    assert_eq!((above.uids, above.gids), (vec![0], vec![0]));
    let mount = match store.mount(&web, &MountOptions::default()) {
        Err(Error::Mount(MountError::IdMap { reason })) => skip!("{reason}"),
        mount => mount.unwrap(),
    };
    let owner = |path: &str| {
        let found = mount.path().join(path).symlink_metadata().unwrap();
        (found.uid(), found.gid())
    };
    for (path, host) in [
        ("", (100_000, 100_000)),
        ("etc/passwd", (100_000, 100_000)),
        ("www", (100_033, 100_034)),
        ("www/page", (100_033, 100_034)),
    ] {
        assert_eq!(owner(path), host, "{path}");
    }
    let above = store.parent_owners(&web).unwrap();
    assert_eq!((&above.uids[..], &above.gids[..]), (&[0][..], &[0][..]));
    assert_eq!(store.parent_owners(&web.layer).unwrap(), above);
    assert_eq!(store.parent_owners(&image).unwrap(), Default::default(), "the image has no maps");

    // Changed in place, given away, made, removed.
    let at = |path: &str| mount.path().join(path);
    std::fs::set_permissions(at("www/page"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(owner("www/page"), (100_033, 100_034), "copied up with the host's ids");
    chown(at("etc/passwd"), Some(300_007), Some(100_005)).unwrap();
    std::fs::create_dir(at("new")).unwrap();
    chown(at("new"), Some(100_000), Some(100_000)).unwrap();
    std::fs::remove_file(at("www/other")).unwrap();
    std::fs::hard_link(at("www/page"), at("www/same")).unwrap();
    let changes: Vec<_> = store.changes(&web).unwrap().iter().map(ToString::to_string).collect();
    let expected =
        ["C /etc", "C /etc/passwd", "A /new", "C /www", "D /www/other", "C /www/page", "A /www/same"];
    assert_eq!(changes, expected);
    let mut tar = Vec::new();
    store.diff(&web, &mut tar).unwrap();
    let expected = [
        ("etc/", (0, 0)),
        ("etc/passwd", (1007, 5)),
        ("new/", (0, 0)),
        ("www/", (33, 34)),
        ("www/.wh.other", (0, 0)),
        ("www/page", (33, 34)),
        ("www/same", (33, 34)),
    ];
    assert_eq!(owners(&tar), expected.map(|(path, ids)| (path.to_owned(), ids)).into());

    let next = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    let view = store.mount(&next, &MountOptions::default()).unwrap();
    let page = view.path().join("www/page").metadata().unwrap();
    assert_eq!((page.uid(), page.gid()), (33, 34));
    store.unmount(&next, UnmountMode::Plain).unwrap();

    // Read-only, the files that were written are shown as they were.
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let mut options = MountOptions::default();
    options.read_only = true;
    let again = store.mount(&web, &options).unwrap();
    assert!(again.read_only);
    for (path, host) in [
        ("www/page", (100_033, 100_034)),
        ("etc/passwd", (300_007, 100_005)),
        ("etc/group", (100_000, 100_000)),
    ] {
        assert_eq!(owner(path), host, "{path}");
    }
    store.unmount(&web, UnmountMode::Plain).unwrap();

    // Nobody of the container.
    store.mount(&web, &MountOptions::default()).unwrap();
    std::fs::write(at("mine"), "of the host's root").unwrap();
    store.unmount(&web, UnmountMode::Plain).unwrap();
    let refused = store.diff(&web, &mut Vec::new());
    assert!(
        matches!(&refused, Err(Error::Export(ExportError::Unmapped { path, uid: 0, gid: 0 })) if path == Path::new("mine")),
        "{refused:?}"
    );
}

fn auto(ranges: &[(u32, u32)]) -> AutoIdMaps {
    let mut auto = AutoIdMaps::default();
    auto.ranges = Some(HostRanges { uids: ranges.to_vec(), gids: ranges.to_vec() });
    auto
}

#[test]
fn chosen_ids_suffice_for_the_image_and_are_nobody_elses() {
    if !machine::is_real_root() {
        skip!("giving a directory to ids of another needs root of the machine");
    }
    let dir = Dir::new("things");
    let store = open(&dir);
    let image = image_with_owners(&dir, &store);
    let chosen = |name: &str, auto: AutoIdMaps| {
        store
            .create_container(&image.id, &with_ids(name, IdMapping::Auto(auto)))
            .map(|made| made.id_maps.unwrap())
    };
    let ranges = [(500_000, 4000), (600_000, 3000)];
    assert_eq!(chosen("a", auto(&ranges)).unwrap(), maps("0:500000:2000"), "the highest id is 1999");
    assert_eq!(chosen("b", auto(&ranges)).unwrap(), maps("0:502000:2000"));
    let mut small = auto(&ranges);
    small.size = Some(500);
    small.additional = maps("100:7:1");
    assert_eq!(chosen("c", small).unwrap(), maps("0:600000:100 101:600100:399 100:7:1"));
    assert_eq!(chosen("d", auto(&ranges)).unwrap(), maps("0:600499:2000"));
    let refused = chosen("e", auto(&ranges)).unwrap_err();
    assert!(
        matches!(refused, Error::Create(CreateError::TooFewIds { needed: 2000, free: 501, .. })),
        "{refused}"
    );
    // What a removed container had is free again, also in pieces.
    store.remove_container(&store.container("a").unwrap().id).unwrap();
    let mut large = auto(&ranges);
    large.size = Some(2400);
    assert_eq!(chosen("f", large).unwrap(), maps("0:500000:2000 2000:602499:400"));

    let mut limited = auto(&ranges);
    limited.max_size = Some(1999);
    let refused = chosen("e", limited).unwrap_err();
    assert!(
        matches!(refused, Error::Create(CreateError::TooManyIds { needed: 2000, limit: 1999 })),
        "{refused}"
    );
    let mut files = auto(&ranges);
    (files.passwd, files.group) = (Some(dir.write("passwd", "a:x:3:4")), Some(dir.write("group", "")));
    files.min_size = Some(2);
    assert_eq!(chosen("g", files).unwrap(), maps("0:602899:5"));
    let mut nobody = AutoIdMaps::default();
    nobody.user = Some("no such user".to_owned());
    let refused = chosen("e", nobody).unwrap_err();
    assert!(matches!(refused, Error::Create(CreateError::TooFewIds { free: 0, .. })), "{refused}");
    assert_eq!(store.containers().unwrap().len(), 5);
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn containers_that_are_made_at_once_get_ids_of_their_own() {
    if !machine::is_real_root() {
        skip!("giving a directory to ids of another needs root of the machine");
    }
    let dir = Dir::new("things");
    let store = open(&dir);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let dir = &dir;
            scope.spawn(move || {
                let store = open(dir);
                for round in 0..5 {
                    let name = format!("{worker}-{round}");
                    let options = with_ids(&name, IdMapping::Auto(auto(&[(500_000, 20 * 1024)])));
                    store.create_container(None, &options).unwrap();
                }
            });
        }
    });
    let containers = store.containers().unwrap();
    let mut firsts: Vec<_> = containers.iter().map(|made| made.id_maps.clone().unwrap()).collect();
    firsts.sort_by_key(|maps| maps.uids[0].outside);
    let expected: Vec<_> = (0..20).map(|n| maps(&format!("0:{}:1024", 500_000 + n * 1024))).collect();
    assert_eq!(firsts, expected);
    for container in &containers {
        let host = container.id_maps.as_ref().unwrap().uids[0].outside;
        let count =
            entries(&dir, "diffs").iter().filter(|path| path.metadata().unwrap().uid() == host).count();
        assert_eq!(count, 1, "its directory belongs to its root");
    }
}
