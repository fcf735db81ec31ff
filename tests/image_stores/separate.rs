//! A separate store for images, and containers in the other.

use std::os::unix::fs::MetadataExt;

use rustix::mount::{MountFlags, mount};

use super::*;

#[test]
fn images_have_a_store_of_their_own() {
    let dir = Dir::new("split");
    let old = load(&Store::open(&at(&dir, "own")).unwrap(), &dir, "old", &["old\n"]);
    let open = || Store::open(&at(&dir, "own").image_store_root(dir.join("images"))).unwrap();
    let store = open();
    let image = load(&store, &dir, "base", &["one\n"]);
    assert_eq!(image.image_store, None, "it is not another's");
    assert_eq!(store.images().unwrap().len(), 2);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let own = Store::open(&at(&dir, "own")).unwrap();
    assert_eq!(
        (own.images().unwrap(), own.containers().unwrap().len()),
        (vec![store.image("old").unwrap()], 1)
    );
    // The images are a store that is complete without this one.
    let images = Store::open(&at(&dir, "images")).unwrap();
    assert_eq!((images.images().unwrap().len(), images.layers().unwrap().len()), (1, 2));
    is_clean(&images);
    is_clean(&store);
    if machine::is_root() {
        let mount = store.mount(&web, &MountOptions::default()).unwrap();
        assert_eq!(std::fs::read(mount.path().join("etc/name")).unwrap(), b"one\n");
        store.unmount(&web, UnmountMode::Plain).unwrap();
        store.mount(&image, &MountOptions::default()).unwrap();
        let refused = open().remove_image(&image.id);
        assert!(matches!(refused, Err(Error::InUse(_))), "{refused:?}");
        store.unmount(&image, UnmountMode::Plain).unwrap();
    }
    let mine = store.commit(&web.id, &CommitOptions::named("mine")).unwrap();
    assert_eq!(images.image("mine").unwrap().id, mine.id);
    // Names, items and metadata are changed where a thing is, together.
    store
        .write(|txn| {
            txn.add_name(&image, &name("alias"))?;
            txn.add_name(&old, &name("older"))?;
            txn.put_item(&image, "key", b"value")?;
            txn.set_metadata(&web, "web")
        })
        .unwrap();
    assert_eq!(names(&images.image("alias").unwrap()), ["base", "alias"]);
    assert_eq!(own.image("older").unwrap().id, old.id);
    assert_eq!(images.item(&image, "key").unwrap(), b"value");
    let nothing: Result<(), _> = store.write(|txn| {
        txn.add_name(&image, &name("never"))?;
        txn.set_metadata(&old.id, "never")?;
        Err(LookupError::NoLayers { image: "never".to_owned() }.into())
    });
    assert!(nothing.is_err());
    is_not_found(store.image("never"));
    assert_eq!(own.image("old").unwrap().metadata, "");
    // Whoever has both knows of the container.
    let refused = open().remove_image(&image.id);
    assert!(matches!(refused, Err(Error::InUse(InUseError::ImageOfContainer { .. }))), "{refused:?}");
    let refused = store.remove_layer(&image.top_layer.clone().unwrap());
    assert!(matches!(refused, Err(Error::InUse(InUseError::LayerHasChild { .. }))), "{refused:?}");
    store.remove_container(&web.id).unwrap();
    assert_eq!(store.remove_image(&mine.id).unwrap().len(), 1);
    assert_eq!(store.remove_image(&image.id).unwrap().len(), 2);
    assert_eq!(store.remove_image(&old.id).unwrap().len(), 2);
    is_clean(&store);
    assert!(store.gc(false).unwrap().removed.is_empty());
    let status = store.status().unwrap();
    assert_eq!((status.layers, status.images, status.containers), (0, 0, 0));
}

#[test]
fn several_processes_share_separate_images() {
    let dir = Dir::new("split-processes");
    let run = |store: &str, arguments: &[&str]| {
        let command = crate::support::TestCommand::layerstore().args(["--sync", "off", "--root"]);
        command.arg(dir.join(store)).arg("--image-store-root").arg(dir.join("images")).args(arguments)
    };
    let written = oci::Image::new([base()]).write(dir.join("base.oci"), "1");
    run("one", &["load", &written.reference(), "--name", "base"]).assert_success();
    for store in ["one", "two"] {
        run(store, &["create-container", "base", "--name", "web"]).assert_success();
        assert_eq!(run(store, &["containers", "--json"]).json().as_array().unwrap().len(), 1);
        run(store, &["check"]).assert_success();
    }
    assert!(run("two", &["rmi", "base"]).assert_exit(1).contains("is used by the container web"));
    for store in ["one", "two"] {
        run(store, &["rm", "web"]).assert_success();
    }
    run("two", &["rmi", "base"]).assert_success();
    assert_eq!(run("one", &["images", "--json"]).json().as_array().unwrap().len(), 0);
}

#[test]
fn layers_are_made_in_the_separate_store_and_changed_there() {
    let dir = Dir::new("split-layers");
    let options = at(&dir, "store").image_store_root(dir.join("images"));
    let store = Store::open(&options).unwrap();
    let images = store.separate_images().unwrap();
    let base = store.put_layer(None, &LayerOptions::named("base"), &*one_file("a", b"1")).unwrap();
    let top = store.create_layer(&base.id, &LayerOptions::named("top")).unwrap();
    assert_eq!(images.layers().unwrap().len(), 2);
    // One that others stand on stays as it is, and the top is filled, sealed and written to.
    assert!(matches!(store.unseal(&base.id), Err(Error::InUse(InUseError::LayerHasChild { .. }))));
    let filled = store.apply_diff(&top.id, &*one_file("b", b"2"), &ApplyOptions::default()).unwrap();
    assert!(!filled.is_writable());
    let open = store.unseal(&top.id).unwrap();
    assert!(open.is_writable());
    assert!(store.seal(&top.id).unwrap().tree.is_some());
    let mut copy = LayerOptions::named("copy");
    copy.template = Some(top.id.clone());
    assert_eq!(store.create_layer(None, &copy).unwrap().tree, store.layer("top").unwrap().tree);
    // The layer of a container is in the store itself.
    let container = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let layer = container.layer.clone();
    let applied = store.apply_diff(&layer, &*one_file("c", b"3"), &ApplyOptions::default()).unwrap();
    assert!(applied.is_writable());
    let staged = store.stage_diff(&*one_file("d", b"4"), &ApplyOptions::default()).unwrap();
    staged.apply_to(&layer).unwrap();
    let changes = store.changes(&container).unwrap();
    let changes: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["A /c", "A /d"]);
    is_clean(&store);
    is_clean(images);
}

/// Hashes of files are kept by the numbers of their inodes until a layer is sealed: in another directory other files have these
/// numbers, on another filesystem for certain.
#[test]
fn a_diff_that_was_unpacked_in_another_store_is_sealed_with_its_own_hashes() {
    let dir = Dir::new("split-inodes");
    for store in ["own", "images"] {
        dir.create_dir(store);
        if let Err(error) = mount("none", dir.join(store), "tmpfs", MountFlags::empty(), None) {
            skip!("stores on filesystems of their own: {error}");
        }
    }
    let files = |which: &str| -> Vec<u8> {
        let file = |number| Member::file(format!("{which}{number}"), format!("{which} {number}").as_bytes());
        archive(&(0..200).map(file).collect::<Vec<_>>())
    };
    let own = Store::open(&at(&dir, "own")).unwrap();
    let layer = own.put_layer(None, &LayerOptions::named("layer"), &*files("old")).unwrap();
    let store = Store::open(&at(&dir, "own").image_store_root(dir.join("images"))).unwrap();
    // The files that are unpacked there get numbers that files here get next.
    let inode = |at: &Path| {
        std::fs::write(at, "").unwrap();
        let inode = at.metadata().unwrap().ino();
        std::fs::remove_file(at).unwrap();
        inode
    };
    let next = inode(&dir.join("own/probe"));
    let mut probes = (0..2000).map(|_| inode(&dir.join("images/probe")));
    assert!(probes.any(|inode| inode >= next + 100), "the numbers there stay below {next}");
    let staged = store.stage_diff(&*files("new"), &ApplyOptions::default()).unwrap();
    let applied = staged.apply_to(&layer.id).unwrap();
    assert!(!applied.is_writable() && applied.tree != layer.tree, "{applied:?}");
    let mut deep = CheckOptions::default();
    deep.level = CheckLevel::Deep;
    let found = own.check(&deep).unwrap().findings;
    assert!(found.is_empty(), "{:?}", found.first());
}

#[test]
fn mounts_write_to_layers_of_the_separate_store_alone() {
    if !machine::is_root() {
        return;
    }
    let dir = Dir::new("split-mounts");
    let other = Store::open(&at(&dir, "other")).unwrap();
    let open = other.create_layer(None, &LayerOptions::named("open")).unwrap();
    let options = at(&dir, "store").image_store_root(dir.join("images")).image_store(other.root());
    let store = Store::open(&options).unwrap();
    let layer = store.create_layer(None, &LayerOptions::named("layer")).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    std::fs::write(mount.path().join("new"), b"new").unwrap();
    assert!(matches!(store.seal(&layer.id), Err(Error::InUse(InUseError::Mounted { .. }))));
    let applied = store.apply_diff(&layer.id, &*one_file("b", b"2"), &ApplyOptions::default());
    assert!(matches!(applied, Err(Error::InUse(InUseError::Mounted { .. }))), "{applied:?}");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert!(store.seal(&layer.id).unwrap().tree.is_some());
    let mount = store.mount(&open, &MountOptions::default()).unwrap();
    assert!(mount.read_only);
    store.unmount(&open, UnmountMode::Plain).unwrap();
}

#[test]
fn a_layer_that_is_mounted_here_stays_when_its_lease_there_ends() {
    if !machine::is_root() {
        return;
    }
    let dir = Dir::new("split-lease");
    let store = Store::open(&at(&dir, "store").image_store_root(dir.join("images"))).unwrap();
    let mut options = LayerOptions::default();
    options.id = Some("kept".parse().unwrap());
    let layer = store.put_layer(None, &options, &*one_file("a", b"1")).unwrap();
    let lease = "for-now".parse().unwrap();
    store.lease(&lease, &layer, std::time::Duration::from_secs(600)).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    let refused = store.end_lease(&lease);
    assert!(matches!(refused, Err(Error::InUse(InUseError::Mounted { .. }))), "{refused:?}");
    assert_eq!(std::fs::read(mount.path().join("a")).unwrap(), b"1");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert_eq!(store.end_lease(&lease).unwrap(), [layer.id]);
    assert!(store.gc(true).unwrap().removed.is_empty());
}

/// Whichever store has it: who unmounts to remove a thing unmounts nothing that stays.
#[test]
fn what_something_else_keeps_stays_mounted() {
    if !machine::is_root() {
        return;
    }
    let dir = Dir::new("split-kept");
    let lease = "kept".parse().unwrap();
    let hour = std::time::Duration::from_secs(3600);
    for options in [at(&dir, "one"), at(&dir, "own").image_store_root(dir.join("images"))] {
        let store = Store::open(&options).unwrap();
        let base = store.create_layer(None, &LayerOptions::default()).unwrap();
        let child = store.create_layer(&base.id, &LayerOptions::default()).unwrap();
        let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
        store.lease(&lease, &web, hour).unwrap();
        let mut options = MountOptions::default();
        options.change_under_others = true;
        store.mount(&base, &options).unwrap();
        store.mount(&web, &options).unwrap();
        let refused = store.end_mounts_to(&base, || store.remove_layer(&base.id));
        assert!(matches!(refused, Err(Error::InUse(InUseError::LayerHasChild { .. }))), "{refused:?}");
        let refused = store.end_mounts_to(&web, || store.remove_container(&web.id));
        assert!(matches!(refused, Err(Error::InUse(InUseError::Leased { .. }))), "{refused:?}");
        assert_eq!(store.mounts().unwrap().len(), 2);
        store.end_lease(&lease).unwrap();
        store.remove_layer(&child.id).unwrap();
        store.end_mounts_to(&base, || store.remove_layer(&base.id)).unwrap();
        store.end_mounts_to(&web, || store.remove_container(&web.id)).unwrap();
        assert!(store.mounts().unwrap().is_empty());
        is_not_found(store.end_mounts_to(&web, || store.remove_container(&web.id)));
    }
}

#[test]
fn a_layer_that_is_mounted_here_stays_when_its_lease_there_is_over() {
    if !machine::is_root() {
        return;
    }
    let dir = Dir::new("split-lease-over");
    let open = || Store::open(&at(&dir, "store").image_store_root(dir.join("images"))).unwrap();
    let store = open();
    let layer = store.put_layer(None, &LayerOptions::default(), &*one_file("a", b"1")).unwrap();
    store.lease(&"short".parse().unwrap(), &layer, std::time::Duration::from_millis(1)).unwrap();
    let mount = store.mount(&layer, &MountOptions::default()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(store.gc(false).unwrap().removed.is_empty());
    // The first write through a handle looks for such leases, too.
    open().create_layer(None, &LayerOptions::named("new")).unwrap();
    assert_eq!(std::fs::read(mount.path().join("a")).unwrap(), b"1");
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    assert_eq!(store.gc(false).unwrap().removed.len(), 2, "the lease and its layer");
}

/// The separate store has to be whole without the one that uses it.
#[test]
fn nothing_new_among_the_images_stands_on_a_layer_outside() {
    let dir = Dir::new("split-outside");
    let old = load(&Store::open(&at(&dir, "own")).unwrap(), &dir, "old", &["old\n"]);
    let top = old.top_layer.clone().unwrap();
    let store = Store::open(&at(&dir, "own").image_store_root(dir.join("images"))).unwrap();
    let web = store.create_container(&old.id, &ContainerOptions::named("web")).unwrap();
    let mut image = ImageOptions::named("new");
    image.top_layer = Some(top.clone());
    for refused in [
        store.commit(&web.id, &CommitOptions::named("new")).map(drop),
        store.create_image(&image).map(drop),
        store.create_layer(&top, &LayerOptions::default()).map(drop),
        store.put_layer(&top, &LayerOptions::default(), &*one_file("a", b"1")).map(drop),
    ] {
        assert!(matches!(&refused, Err(Error::OutsideImages { .. })), "{refused:?}");
    }
    drop(store);
    let store = Store::open(&at(&dir, "own")).unwrap();
    store.commit(&web.id, &CommitOptions::named("new")).unwrap();
    is_clean(&store);
}

#[test]
fn things_are_made_and_changed_in_the_store_that_they_are_in() {
    let dir = Dir::new("split-things");
    let options = at(&dir, "store").image_store_root(dir.join("images"));
    let store = Store::open(&options).unwrap();
    let images = store.separate_images().unwrap();
    let layer = store.put_layer(None, &LayerOptions::named("base"), &*one_file("a", b"12")).unwrap();
    let mut wanted = ImageOptions::named("made");
    wanted.top_layer = Some(layer.id.clone());
    wanted.items = vec![NewItem::new("manifest", "{}")];
    let image = store.create_image(&wanted).unwrap();
    assert_eq!(images.image("made").unwrap(), image);
    assert!(store.image_directory(&image.id).unwrap().starts_with(dir.join("images")));
    let run = store.image_run_directory(&image.id).unwrap();
    assert!(run.starts_with(dir.join("store.run")));
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    assert!(store.container_directory(&web.id).unwrap().starts_with(dir.join("store")));
    store.write_container_file(&web.id, "note", b"123").unwrap();
    store.set_flag(&image, "Kept", "true").unwrap();
    store.move_names(&layer, &[name("moved")]).unwrap();
    assert_eq!(images.layer("moved").unwrap().id, layer.id);
    assert_eq!((store.size(&image).unwrap(), store.size(&web).unwrap()), (4, 3));
    let listed = store.list(&[Kind::Layer, Kind::Image, Kind::Container]).unwrap();
    assert_eq!((listed.layers.len(), listed.images.len(), listed.containers.len()), (2, 1, 1));
    is_clean(&store);
    is_clean(images);
    store.remove_regardless(&image).unwrap();
    assert!(!run.exists());
    assert!(images.images().unwrap().is_empty());
    store.wipe().unwrap();
    assert!(store.layers().unwrap().is_empty() && store.containers().unwrap().is_empty());
    assert!(images.layers().unwrap().is_empty());
    assert!(images.gc(true).unwrap().removed.is_empty());
}

#[test]
fn a_name_is_given_once_in_the_store_and_that_for_its_images() {
    let dir = Dir::new("split-names");
    let old = load(&Store::open(&at(&dir, "own")).unwrap(), &dir, "old", &["old\n"]);
    let old_layer = old.top_layer.clone().unwrap();
    let store = Store::open(&at(&dir, "own").image_store_root(dir.join("images"))).unwrap();
    let new = load(&store, &dir, "new", &["new\n"]);
    let layer = store.create_layer(None, &LayerOptions::named("layer")).unwrap();
    store.add_names(&old_layer, &[name("old-layer")]).unwrap();
    for refused in [
        store.add_names(&old, &[name("new")]),
        store.set_names(&new, &[name("new"), name("old")]),
        store.add_names(&layer, &[name("old-layer")]),
        store.add_names(&old_layer, &[name("layer")]),
        store.create_layer(None, &LayerOptions::named("old-layer")).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Meta(MetaError::NameInUse { .. }))), "{refused:?}");
    }
    // Moving takes it from whoever has it.
    store.move_names(&old, &[name("new")]).unwrap();
    assert_eq!(
        (names(&store.image("new").unwrap()), store.image("new").unwrap().id),
        (vec!["old", "new"], old.id)
    );
    store.move_names(&new, &[name("new"), name("old")]).unwrap();
    assert_eq!(names(&store.image(new.id.as_str()).unwrap()), ["new", "old"]);
    is_clean(&store);
    is_clean(store.separate_images().unwrap());
}
