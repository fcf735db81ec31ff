//! What can be asked of and done to anything: lists of one moment, lookups, single changes, locks on digests, removal.

use layerstore::config::{Environment, Settings};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Digest, Error, GarbageKind, InUseError, Kind, LayerOptions,
    LookupError, MetaError, MountError, MountOptions, RepairOptions, Store, StoreOptions, Thing, UnmountMode,
    ValueError,
};

use super::{base, entries, on, open};
use crate::support::damage::codes;
use crate::support::{Dir, machine};

fn parsed(names: &[&str]) -> Vec<layerstore::Name> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// A container `web` on an image `demo`.
fn small(store: &Store) -> (layerstore::Image, layerstore::Container) {
    let (image, _) = base(store, "demo");
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    (image, web)
}

#[test]
fn any_mix_of_kinds_is_listed_at_once() {
    let dir = Dir::new("things");
    let store = open(&dir);
    small(&store);
    let kinds = [Kind::Layer, Kind::Image, Kind::Container];
    for mask in 0..8 {
        let asked: Vec<_> = (0..3).filter(|bit| mask >> bit & 1 == 1).map(|bit| kinds[bit]).collect();
        let things = store.list(&asked).unwrap();
        let counts = [things.layers.len(), things.images.len(), things.containers.len()];
        let expected = [2, 1, 1].into_iter().enumerate();
        let expected: Vec<_> =
            expected.map(|(bit, count)| if mask >> bit & 1 == 1 { count } else { 0 }).collect();
        assert_eq!(counts.to_vec(), expected, "{asked:?}");
    }
}

#[test]
fn what_is_exact_wins_over_what_is_short_across_kinds() {
    let dir = Dir::new("things-exact");
    let store = open(&dir);
    let mut options = ContainerOptions::named("web");
    options.id = Some("ec0".parse().unwrap());
    store.create_container(None, &options).unwrap();
    let is = |key: &str, kind: Kind| assert_eq!(store.thing(key).unwrap().id().kind(), kind, "{key}");
    is("e", Kind::Container);
    let mut image = layerstore::ImageOptions::default();
    image.id = Some("e".parse().unwrap());
    image.names = vec!["ec".to_owned()];
    store.create_image(&image).unwrap();
    is("e", Kind::Image);
    is("ec", Kind::Image);
    is("ec0", Kind::Container);
    // Nor do several that begin so keep it from being found.
    options.id = Some("ec1".parse().unwrap());
    options.names.clear();
    store.create_container(None, &options).unwrap();
    is("e", Kind::Image);
    store.create_layer(None, &layerstore::LayerOptions::with_id("ec10".parse().unwrap())).unwrap();
    is("ec1", Kind::Container);
    is("ec10", Kind::Layer);
    store.remove_image(&"e".parse().unwrap()).unwrap();
    let several = store.thing("ec").unwrap_err();
    assert!(matches!(several, Error::Lookup(LookupError::Ambiguous { .. })), "{several}");
}

#[test]
fn a_list_is_of_one_moment() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, _) = base(&store, "demo");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let made = store.create_container(&image.id, &ContainerOptions::default()).unwrap();
                store.remove_container(&made.id).unwrap();
            }
        });
        for _ in 0..300 {
            let things = store.list(&[Kind::Layer, Kind::Container]).unwrap();
            assert_eq!(things.layers.len(), things.containers.len() + 1);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        churn.join().unwrap();
    });
}

#[test]
fn things_are_looked_up_in_the_order_that_is_asked_for() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, web) = small(&store);
    store.add_names(&image, &parsed(&["web"])).unwrap();
    store.add_names(&web.layer, &parsed(&["web"])).unwrap();
    let kind = |kinds: &[Kind]| store.lookup("web", kinds).unwrap().id().kind();
    assert_eq!(kind(&[Kind::Layer, Kind::Image, Kind::Container]), Kind::Layer);
    assert_eq!(kind(&[Kind::Image, Kind::Container]), Kind::Image);
    assert_eq!(kind(&[Kind::Container]), Kind::Container);
    assert!(matches!(store.thing("web").unwrap(), Thing::Container(_)));
    assert!(store.exists("web").unwrap() && store.exists(image.id.as_str()).unwrap());
    assert!(!store.exists("we").unwrap(), "the beginning of a name is none");
}

/// As the reference's index of shortened ids.
/// A name may come from an archive. What lists show of an id is twelve digits.
#[test]
fn a_name_is_nothing_that_people_take_for_anothers_id() {
    let dir = Dir::new("things-disguised");
    let store = open(&dir);
    let victim = "12cb0ed419e7aa";
    let mut options = ContainerOptions::default();
    options.id = Some(victim.parse().unwrap());
    store.create_container(None, &options).unwrap();
    let shown = &victim[..12];
    let refused = |found: Result<layerstore::Thing, Error>| {
        let refused = found.unwrap_err();
        let Error::Lookup(LookupError::Ambiguous { second, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(second, victim);
    };
    // Of the same kind, and of another that is looked through after it and before it.
    let disguised = store.create_container(None, &ContainerOptions::named(shown)).unwrap();
    refused(store.container(shown).map(layerstore::Thing::Container));
    refused(store.thing(shown));
    store.remove_container(&disguised.id).unwrap();
    let mut image = layerstore::ImageOptions::default();
    image.names = vec![shown.to_owned()];
    store.create_image(&image).unwrap();
    refused(store.thing(shown));
    refused(store.lookup(shown, &[Kind::Image, Kind::Container]));
    assert_eq!(
        store.lookup(shown, &[Kind::Image]).unwrap().id().kind(),
        Kind::Image,
        "no container is looked for"
    );
    for own in [&victim[..11], &victim[..13], victim] {
        assert_eq!(store.thing(own).unwrap().id().as_str(), victim);
    }
    // A name that is no beginning of an id is one like others, and so is one that few digits are shown of.
    for name in ["12cb0ed419e8", "12cb"] {
        let made = store.create_container(None, &ContainerOptions::named(name)).unwrap();
        assert_eq!(store.container(name).unwrap().id, made.id);
    }
}

#[test]
fn the_beginning_of_an_id_stands_for_it_if_it_is_alone() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let ids = ["19b36c2c326c", "28b36c2c326c", "28b36c2c3999", "abc"];
    for id in ids {
        let mut options = ContainerOptions::default();
        options.id = Some(id.parse().unwrap());
        store.create_container(None, &options).unwrap();
    }
    let found = |key: &str| store.container(key).map(|found| found.id.to_string());
    assert_eq!(found("1").unwrap(), ids[0]);
    assert_eq!(found("28b36c2c32").unwrap(), ids[1]);
    for id in ids {
        assert_eq!(found(id).unwrap(), id);
    }
    for ambiguous in ["2", "28b36c2c3"] {
        assert!(matches!(found(ambiguous), Err(Error::Lookup(LookupError::Ambiguous { .. }))), "{ambiguous}");
        assert!(store.exists(ambiguous).is_err());
    }
    for missing in ["", " ", "3", "19b36c2c326c0", "19b3 6c", " 19b3", "19b3 ", "b36c"] {
        assert!(matches!(found(missing), Err(Error::Lookup(LookupError::NotFound { .. }))), "{missing:?}");
    }
    // What goes makes room, and what comes takes it.
    store.remove_container(&ids[2].parse().unwrap()).unwrap();
    assert_eq!(found("2").unwrap(), ids[1]);
    let mut options = ContainerOptions::default();
    options.id = Some("29".parse().unwrap());
    store.create_container(None, &options).unwrap();
    assert!(found("2").is_err());
    let all: Vec<_> = store.containers().unwrap().iter().map(|found| found.id.to_string()).collect();
    assert_eq!(all, [ids[0], ids[1], "29", "abc"]);
}

#[test]
fn single_calls_do_what_transactions_do() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, web) = small(&store);
    for of in [(&image).into(), (&web).into(), layerstore::ThingId::from(&web.layer)] {
        store.set_names(&of, &parsed(&["a", "b", "a"])).unwrap();
        store.add_names(&of, &parsed(&["c", "b"])).unwrap();
        store.remove_names(&of, &parsed(&["a", "z"])).unwrap();
        assert_eq!(store.names(&of).unwrap(), parsed(&["b", "c"]), "{}", of.kind());
        store.set_metadata(&of, "text").unwrap();
        assert_eq!(store.metadata(&of).unwrap(), "text");
        store.put_item(&of, "key", b"bytes").unwrap();
        let info = store.item_info(&of, "key").unwrap();
        assert_eq!((info.size, info.digest), (5, Digest::sha256(b"bytes")));
        store.remove_item(&of, "key").unwrap();
        assert!(matches!(store.item_info(&of, "key"), Err(Error::Lookup(LookupError::NoItem { .. }))));
        store.set_flag(&of, "flag", "{\"a\": [1]}").unwrap();
        store.set_flag(&of, "other", "true").unwrap();
        store.set_flag(&of, "flag", "2").unwrap();
        store.clear_flag(&of, "other").unwrap();
        let refused = store.set_flag(&of, "flag", "no JSON");
        assert!(matches!(refused, Err(Error::Value(ValueError::Flag { .. }))), "{refused:?}");
        let flags = match store.lookup(of.as_str(), &[of.kind()]).unwrap() {
            Thing::Layer(layer) => layer.flags,
            Thing::Image(image) => image.flags,
            Thing::Container(container) => container.flags,
            _ => unreachable!(),
        };
        assert_eq!(flags, [("flag".to_owned(), "2".to_owned())]);
    }
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn names_move_between_things_of_a_kind() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (_, first) = small(&store);
    let second = store.create_container(None, &ContainerOptions::named("other")).unwrap();
    let refused = store.add_names(&second, &parsed(&["new", "web"]));
    assert!(matches!(refused, Err(Error::Meta(MetaError::NameInUse { .. }))), "{refused:?}");
    assert_eq!(store.names(&second).unwrap(), parsed(&["other"]), "all or nothing");
    store.move_names(&second, &parsed(&["new", "web", "other"])).unwrap();
    assert_eq!(store.names(&second).unwrap(), parsed(&["other", "new", "web"]));
    assert_eq!(store.names(&first).unwrap(), []);
    store.move_names(&first.layer, &parsed(&["web"])).unwrap();
    assert_eq!(store.container("web").unwrap().id, second.id, "a layer's name is another");
}

/// Of several names that others have, the first in the order of their bytes is told, whatever is made or given all of its names.
#[test]
fn of_names_that_are_taken_the_first_is_told() {
    let dir = Dir::new("taken-names");
    let store = open(&dir);
    let is_one = |kind: &str, refused: Error| match refused {
        Error::Meta(MetaError::NameInUse { name, .. }) => assert_eq!(name, "one", "{kind}"),
        refused => panic!("{kind}: {refused:?}"),
    };
    let (mut layer, mut container) = (LayerOptions::default(), ContainerOptions::default());
    for name in ["one", "two"] {
        store.create_layer(None, &LayerOptions::named(name)).unwrap();
        store.create_container(None, &ContainerOptions::named(name)).unwrap();
        layer.names.insert(0, name.to_owned());
        container.names.insert(0, name.to_owned());
    }
    is_one("a new layer", store.create_layer(None, &layer).unwrap_err());
    is_one("a new container", store.create_container(None, &container).unwrap_err());
    let free = store.create_container(None, &ContainerOptions::default()).unwrap();
    is_one("a container", store.set_names(&free, &parsed(&["two", "one"])).unwrap_err());
}

#[test]
fn a_digest_is_locked_by_one_at_a_time() {
    let dir = Dir::new("things");
    let (store, other) = (open(&dir), open(&dir));
    let digests = [Digest::sha256(b"a"), Digest::sha256(b"b")];
    let first = store.lock_digest(&digests[0]).unwrap();
    assert_eq!(first.digest(), &digests[0]);
    assert!(other.try_lock_digest(&digests[0]).unwrap().is_none());
    let second = other.try_lock_digest(&digests[1]).unwrap().unwrap();
    let path = second.path();
    assert!(path.exists() && store.gc(false).unwrap().removed.is_empty());
    drop(second);
    assert!(!path.exists());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(other.lock_digest(&digests[0]).unwrap()));
        drop(first);
        waiter.join().unwrap();
    });
    // A process that died leaves its file.
    std::fs::write(&path, "").unwrap();
    assert_eq!(store.gc(true).unwrap().removed.len(), 1);
    assert_eq!(store.gc(false).unwrap().removed[0].kind, GarbageKind::Lock);
    assert!(!path.exists());
}

#[test]
fn removal_regardless_of_users_is_found_and_mended() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, web) = small(&store);
    let layer = image.top_layer.clone().unwrap();
    store.lease(&"kept".parse().unwrap(), &image, std::time::Duration::from_secs(1000)).unwrap();
    assert!(matches!(store.remove_layer(&layer), Err(Error::InUse(InUseError::LayerHasChild { .. }))));
    assert!(store.remove_image(&image.id).is_err());
    store.remove_regardless(&layer).unwrap();
    store.remove_regardless(&image).unwrap();
    assert_eq!(codes(&store, CheckLevel::Default), ["parent-missing", "container-image-missing"]);
    let mut options = RepairOptions::default();
    options.force = true;
    assert!(store.repair(&options).unwrap().is_complete());
    assert!(store.container("web").is_err() && store.layers().unwrap().is_empty());
    assert!(entries(&dir, "diffs").is_empty());
    drop(web);

    // A container takes its layer, its directories and its mount along.
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let (kept, run) = (store.container_directory(&web.id).unwrap(), store.run_directory(&web.id).unwrap());
    if machine::is_root() {
        match store.mount(&web, &MountOptions::default()) {
            Err(Error::Mount(error)) => machine::note_skip(&format!("removing what is mounted: {error}")),
            mounted => drop(mounted.unwrap()),
        }
    }
    store.remove_regardless(&web).unwrap();
    assert!(!kept.exists() && !run.exists() && dir.mounts().is_empty());
    assert!(store.layers().unwrap().is_empty() && entries(&dir, "work").is_empty());
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn what_is_deleted_piece_by_piece_leaves_the_empty_store() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let empty = (store.list(&[Kind::Layer, Kind::Image, Kind::Container]).unwrap(), store.status().unwrap());
    let (first, layer) = base(&store, "first");
    let second = store.create_image(&on(&layer, "second")).unwrap();
    let containers = [&first, &second]
        .map(|image| store.create_container(&image.id, &ContainerOptions::default()).unwrap());
    let unused = store.create_container(None, &ContainerOptions::named("unused")).unwrap();
    store.image_directory(&first.id).unwrap();
    store.put_item(&second, "item", b"bytes").unwrap();
    for container in &containers {
        store.remove_container(&container.id).unwrap();
    }
    assert_eq!(store.remove_image(&first.id).unwrap(), [], "the other image needs the layer");
    assert_eq!(store.remove_image(&second.id).unwrap(), [layer]);
    store.remove_container(&unused.id).unwrap();
    let after = (store.list(&[Kind::Layer, Kind::Image, Kind::Container]).unwrap(), store.status().unwrap());
    assert_eq!(after.0, empty.0);
    assert_eq!((after.1.layer_bytes, after.1.item_bytes), (empty.1.layer_bytes, empty.1.item_bytes));
    for which in ["diffs", "blobs", "work", "data", "locks", "trash"] {
        assert_eq!(entries(&dir, which), [] as [std::path::PathBuf; 0], "{which}");
    }
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn a_wiped_store_is_empty_and_lives_on() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let uuid = store.uuid().to_owned();
    let (image, web) = small(&store);
    store.write_container_file(&web.id, "file", b"x").unwrap();
    store.image_run_directory(&image.id).unwrap();
    store.lease(&"kept".parse().unwrap(), &image, std::time::Duration::from_secs(1000)).unwrap();
    let mounted = machine::is_root().then(|| store.mount(&web, &MountOptions::default()));
    match mounted {
        None => machine::note_skip("wiping what is mounted: it needs root or a user namespace"),
        Some(Err(Error::Mount(error))) => machine::note_skip(&format!("wiping what is mounted: {error}")),
        Some(mount) => {
            let mount = mount.unwrap();
            let inside = std::fs::File::create(mount.path().join("open")).unwrap();
            let busy = store.wipe();
            assert!(matches!(busy, Err(Error::Mount(MountError::Busy { .. }))), "{busy:?}");
            assert!(store.exists("web").unwrap() && mount.path().join("open").exists());
            drop(inside);
        }
    }
    store.wipe().unwrap();
    assert_eq!(store.list(&[Kind::Layer, Kind::Image, Kind::Container]).unwrap(), Default::default());
    assert!(dir.mounts().is_empty() && store.status().unwrap().leases.is_empty());
    for which in ["diffs", "blobs", "work", "data", "locks", "trash"] {
        assert_eq!(entries(&dir, which), [] as [std::path::PathBuf; 0], "{which}");
    }
    for which in ["containers", "images", "trash"] {
        assert_eq!(std::fs::read_dir(dir.run_root().join(which)).unwrap().count(), 0, "{which}");
    }
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
    assert_eq!(open(&dir).uuid(), uuid);
    small(&store);
}

#[test]
fn a_shutdown_tells_what_is_mounted() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("things");
    let store = open(&dir);
    let (image, web) = small(&store);
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    store.mount(&web, &MountOptions::default()).unwrap();
    store.mount(&image, &MountOptions::default()).unwrap();
    let mut layers = [web.layer.clone(), image.top_layer.clone().unwrap()];
    layers.sort();
    assert_eq!(store.shutdown(false).unwrap(), layers);
    assert_eq!(store.mounted(&web).unwrap().unwrap().count, 2, "nothing was touched");
    let inside = std::fs::File::create(mount.path().join("open")).unwrap();
    assert_eq!(store.shutdown(true).unwrap(), []);
    assert!(dir.mounts().is_empty() && store.status().unwrap().mounts.is_empty());
    drop(inside);
    let again = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(again.count, 1);
    store.unmount(&web, UnmountMode::Plain).unwrap();
}

#[test]
fn a_store_tells_how_it_was_opened() {
    let dir = Dir::new("things");
    let (root, images, other) = (dir.root(), dir.join("images"), dir.join("other"));
    Store::open(&StoreOptions::at(&other)).unwrap();
    let file = dir.write(
        "storage.conf",
        format!(
            "[storage]\ngraphroot = '{}'\nrunroot = '{}'\nimagestore = '{}'\ntransient_store = true\n[storage.options]\n\
             additionalimagestores = ['{}']\npull_options = {{convert_images = 'true'}}\n",
            root.display(),
            dir.run_root().display(),
            images.display(),
            other.display()
        ),
    );
    let mut environment = Environment::of_this_process();
    environment.user = 0;
    environment.variables.clear();
    let settings = Settings::load_file(&environment, &file).unwrap();
    let store = Store::open(&StoreOptions::from_settings(&settings).unwrap()).unwrap();
    assert_eq!((store.root(), &*store.run_root()), (root.as_path(), dir.run_root().as_path()));
    assert_eq!(store.separate_images().unwrap().root(), images);
    assert_eq!(store.image_stores().iter().map(Store::root).collect::<Vec<_>>(), [&other]);
    assert!(store.options().is_transient() && !store.is_read_only());
    assert_eq!(store.options().pull_options()["convert_images"], "true");
    assert!(!open(&Dir::new("things")).options().is_transient());
}
