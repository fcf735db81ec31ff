//! Containers that a reboot drops.

use layerstore::oci::{CommitOptions, LoadOptions, Source};
use layerstore::{
    CheckOptions, ContainerOptions, CreateError, Error, GarbageKind, Image, InUseError, LayerOptions,
    LookupError, MetaError, MountOptions, Name, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::machine;
use crate::support::oci::{self, Layer};
use crate::support::tar::Member;
use crate::support::{Dir, database};

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

fn load(store: &Store, dir: &Dir) -> Image {
    let layers = [Layer::new([Member::directory("etc"), Member::file("etc/motd", b"hello\n")])];
    let written = oci::Image::new(layers).write(dir.join("layout"), "1");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named("base")).unwrap()
}

fn names(store: &Store) -> Vec<String> {
    let mut names: Vec<_> = store.containers().unwrap().iter().map(|one| one.names[0].to_string()).collect();
    names.sort();
    names
}

fn is_clean(store: &Store) {
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.findings.is_empty() && report.garbage.is_empty(), "{report:?}");
}

#[test]
fn a_transient_container_is_a_container_until_the_reboot() {
    let dir = Dir::new("transient");
    let store = Store::open(&options(&dir).transient(true)).unwrap();
    let image = load(&store, &dir);
    let plain = Store::open(&options(&dir)).unwrap();
    plain.create_container(&image.id, &ContainerOptions::named("kept")).unwrap();
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    // Everybody sees both, whatever run root they have.
    let elsewhere = Store::open(&options(&dir).run_root(dir.join("other-run"))).unwrap();
    for store in [&store, &plain, &elsewhere] {
        assert_eq!(names(store), ["kept", "web"]);
        assert_eq!(store.container("web").unwrap(), web);
        assert_eq!(store.container(&web.id.as_str()[..9]).unwrap().id, web.id);
        assert_eq!(store.containers_of_image(&image.id).unwrap().len(), 2);
        assert_eq!(store.container_of_layer(&web.layer).unwrap().as_ref(), Some(&web.id));
        assert_eq!(store.layers().unwrap().len(), 3);
        assert_eq!(store.status().unwrap().containers, 2);
        assert!(store.changes(&web).unwrap().is_empty());
        is_clean(store);
        assert!(store.gc(false).unwrap().removed.is_empty());
        assert!(store.gc(true).unwrap().removed.is_empty());
    }
    // Its id and name are taken, for either kind.
    for store in [&store, &plain] {
        for name in ["web", "kept"] {
            let taken = store.create_container(&image.id, &ContainerOptions::named(name));
            assert!(matches!(taken, Err(Error::Meta(MetaError::NameInUse { .. }))), "{taken:?}");
        }
        let mut same = ContainerOptions::default();
        same.id = Some(web.id.clone());
        let taken = store.create_container(&image.id, &same);
        assert!(matches!(taken, Err(Error::Create(CreateError::IdInUse { .. }))), "{taken:?}");
    }
    // Its records change as others do.
    plain
        .write(|txn| {
            txn.add_name(&web, &"alias".parse()?)?;
            txn.put_item(&web, "spec", b"{}")?;
            txn.set_metadata(&image, "seen")
        })
        .unwrap();
    assert_eq!(store.container("alias").unwrap().id, web.id);
    assert_eq!(store.item(&web, "spec").unwrap(), b"{}");
    assert_eq!(store.image("base").unwrap().metadata, "seen");
    let nothing: Result<(), _> = plain.write(|txn| {
        txn.set_metadata(&web, "never")?;
        Err(LookupError::NoLayers { image: "never".to_owned() }.into())
    });
    assert!(nothing.is_err() && store.container("web").unwrap().metadata.is_empty());
    if machine::is_root() {
        let mount = store.mount(&web, &MountOptions::default()).unwrap();
        std::fs::write(mount.path().join("etc/motd"), b"changed\n").unwrap();
        let refused = store.remove_container(&web.id);
        assert!(matches!(refused, Err(Error::InUse(InUseError::Mounted { .. }))), "{refused:?}");
        store.unmount(&web, UnmountMode::Plain).unwrap();
        assert_eq!(plain.changes(&web).unwrap().len(), 2);
    }
    let mine = store.commit(&web.id, &CommitOptions::named("mine")).unwrap();
    plain.remove_image(&mine.id).unwrap();
    // It keeps its image.
    let kept = plain.container("kept").unwrap();
    plain.remove_container(&kept.id).unwrap();
    for store in [&store, &plain] {
        let refused = store.remove_image(&image.id);
        assert!(matches!(refused, Err(Error::InUse(InUseError::ImageOfContainer { .. }))), "{refused:?}");
        let refused = store.remove_layer(&image.top_layer.clone().unwrap());
        assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
    }
    plain.remove_container(&web.id).unwrap();
    assert!(names(&store).is_empty());
    assert!(matches!(store.remove_container(&web.id), Err(Error::Lookup(_))));
    assert_eq!(store.remove_image(&image.id).unwrap().len(), 1);
    assert_eq!(std::fs::read_dir(dir.join("root/diffs")).unwrap().count(), 0);
    is_clean(&store);
}

#[test]
fn it_goes_with_the_reboot() {
    let dir = Dir::new("transient-reboot");
    let store = Store::open(&options(&dir).transient(true)).unwrap();
    let image = load(&store, &dir);
    store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    drop(store);
    // All that a reboot takes away.
    std::fs::remove_dir_all(dir.run_root()).unwrap();
    database::reboot(&dir.root());
    let store = Store::open(&options(&dir)).unwrap();
    assert!(store.containers().unwrap().is_empty() && store.layers().unwrap().len() == 1);
    let found = store.check(&CheckOptions::default()).unwrap();
    assert!(found.is_clean() && found.garbage.len() == 1, "{found:?}");
    let removed = store.gc(false).unwrap().removed;
    assert_eq!(removed.iter().map(|garbage| garbage.kind).collect::<Vec<_>>(), [GarbageKind::Directory]);
    assert_eq!(store.remove_image(&image.id).unwrap().len(), 1);
    // And the next one is as good as the first.
    let store = Store::open(&options(&dir).transient(true).run_root(dir.join("new-run"))).unwrap();
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    assert_eq!(names(&store), ["web"]);
}

#[test]
fn a_boot_has_them_in_one_run_root() {
    let dir = Dir::new("transient-elsewhere");
    let store = Store::open(&options(&dir).transient(true)).unwrap();
    store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let other = Store::open(&options(&dir).transient(true).run_root(dir.join("other-run"))).unwrap();
    let refused = other.create_container(None, &ContainerOptions::named("web-2"));
    assert!(matches!(&refused, Err(Error::TransientElsewhere { run_root }) if *run_root == dir.run_root()));
    assert_eq!(names(&other), ["web"]);
    assert!(other.gc(false).unwrap().removed.iter().all(|garbage| garbage.kind != GarbageKind::Directory));
}

#[test]
fn processes_share_transient_containers() {
    let dir = Dir::new("transient-processes");
    std::thread::scope(|scope| {
        for name in ["one", "two", "three"] {
            let dir = &dir;
            scope.spawn(move || {
                dir.layerstore(["--transient", "create-container", "--name", name]).assert_success();
            });
        }
    });
    let listed = dir.layerstore(["containers", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().len(), 3);
    assert_eq!(dir.layerstore(["status", "--json"]).json()["containers"], 3);
    dir.layerstore(["check"]).assert_success();
    dir.layerstore(["rm", "one", "two"]).assert_success();
    std::fs::remove_dir_all(dir.run_root()).unwrap();
    assert!(dir.layerstore(["containers", "--json"]).json().as_array().unwrap().is_empty());
    // They may run where it is to be seen, unless somebody says otherwise.
    dir.layerstore(["gc"]).assert_exit(1);
    let collected = dir.layerstore(["gc", "--forget-transient", "--json"]).stdout();
    assert!(collected.contains("directory"), "{collected}");
}

#[test]
fn they_have_directories_and_can_be_wiped() {
    let dir = Dir::new("transient-directories");
    let store = Store::open(&options(&dir).transient(true)).unwrap();
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    store.write_container_file(&web.id, "note", b"here").unwrap();
    store.set_flag(&web, "Kept", "true").unwrap();
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert_eq!(store.read_container_file(&web.id, "note").unwrap(), b"here");
    assert_eq!(store.size(&web).unwrap(), 4);
    let directory = store.container_directory(&web.id).unwrap();
    store.wipe().unwrap();
    assert!(store.containers().unwrap().is_empty());
    assert!(!directory.exists());
    assert!(store.gc(true).unwrap().removed.is_empty());
    is_clean(&store);
}

#[test]
fn a_name_is_given_once_whether_its_holder_goes_with_the_reboot_or_not() {
    let dir = Dir::new("transient-names");
    let name = |name: &str| name.parse::<Name>().unwrap();
    let transient = Store::open(&options(&dir).transient(true)).unwrap();
    let store = Store::open(&options(&dir)).unwrap();
    let kept = store.create_container(None, &ContainerOptions::named("kept")).unwrap();
    let web = transient.create_container(None, &ContainerOptions::named("web")).unwrap();
    store.add_names(&web.layer, &[name("layer")]).unwrap();
    for refused in [
        store.add_names(&kept, &[name("web")]),
        store.add_names(&web, &[name("kept")]),
        store.set_names(&kept, &[name("new"), name("web")]),
        store.add_names(&kept.layer, &[name("layer")]),
        store.create_layer(None, &LayerOptions::named("layer")).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Meta(MetaError::NameInUse { .. }))), "{refused:?}");
    }
    assert!(store.container("new").is_err(), "all or nothing");
    store.move_names(&kept, &[name("web")]).unwrap();
    assert_eq!(store.container("web").unwrap().id, kept.id);
    assert!(store.container(web.id.as_str()).unwrap().names.is_empty());
    store.move_names(&web, &[name("kept"), name("web")]).unwrap();
    assert_eq!(store.container("kept").unwrap().id, web.id);
    assert!(store.container(kept.id.as_str()).unwrap().names.is_empty());
    is_clean(&store);
}

#[test]
fn containers_of_both_kinds_that_are_made_at_once_share_no_name() {
    for round in 0..6 {
        // Each time the first transient container comes while the others are made.
        let dir = Dir::new(&format!("transient-race-{round}"));
        let stores = [false, true].map(|transient| Store::open(&options(&dir).transient(transient)).unwrap());
        let begin = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (store, begin) = (stores[worker % 2].clone(), &begin);
                scope.spawn(move || {
                    begin.wait();
                    for number in 0..8 {
                        let options = ContainerOptions::named(format!("web-{number}"));
                        match store.create_container(None, &options).map(drop) {
                            Ok(()) | Err(Error::Meta(MetaError::NameInUse { .. })) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
            }
        });
        let all: Vec<_> = (0..8).map(|number| format!("web-{number}")).collect();
        assert_eq!(names(&stores[0]), all, "round {round}");
    }
}
