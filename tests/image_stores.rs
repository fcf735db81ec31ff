//! Several stores read as one: other stores that are only read, and a separate one for images.

use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    ApplyOptions, CheckOptions, ContainerOptions, Error, Image, ImageOptions, InUseError, Kind, LayerOptions,
    LookupError, MetaError, MountOptions, Name, NewItem, RepairOptions, Store, StoreOptions, SyncMode,
    UnmountMode,
};

use crate::support::Dir;
use crate::support::machine;
use crate::support::oci::{self, Layer};
use crate::support::tar::{Member, archive};

fn at(dir: &Dir, name: &str) -> StoreOptions {
    StoreOptions::at(dir.join(name)).run_root(dir.join(format!("{name}.run"))).sync(SyncMode::Off).reserve(0)
}

fn base() -> Layer {
    Layer::new([Member::directory("etc"), Member::file("etc/motd", b"hello\n")])
}

/// Loads an image of the base layer, and one more for each content.
fn load(store: &Store, dir: &Dir, name: &str, contents: &[&str]) -> Image {
    let upper = contents.iter().map(|content| Layer::new([Member::file("etc/name", content.as_bytes())]));
    let written =
        oci::Image::new([base()].into_iter().chain(upper)).write(dir.join(format!("{name}.oci")), "1");
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn names(image: &Image) -> Vec<&str> {
    image.names.iter().map(Name::as_str).collect()
}

fn is_clean(store: &Store) {
    let found = store.check(&CheckOptions::default()).unwrap().findings;
    assert!(found.is_empty(), "{found:?}");
}

fn is_not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Lookup(LookupError::NotFound { .. }))), "{result:?}");
}

fn is_elsewhere<T: std::fmt::Debug>(result: Result<T, Error>, other: &Path) {
    assert!(matches!(&result, Err(Error::InOtherStore { root, .. }) if root == other), "{result:?}");
}

/// Every path below a directory.
fn paths(root: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut next = vec![root.to_owned()];
    while let Some(path) = next.pop() {
        if path.symlink_metadata().unwrap().is_dir() {
            next.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        paths.push(path);
    }
    paths.sort();
    paths
}

#[test]
fn what_another_store_has_is_read_as_if_it_were_here() {
    let dir = Dir::new("other-store");
    let image = {
        let other = Store::open(&at(&dir, "other")).unwrap();
        let image = load(&other, &dir, "base", &["one\n"]);
        // A container there is that store's own business.
        other.create_container(&image.id, &ContainerOptions::named("theirs")).unwrap();
        image
    };
    let before = paths(&dir.join("other"));
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    let found = store.images().unwrap();
    assert_eq!(found.iter().map(|image| &image.id).collect::<Vec<_>>(), [&image.id]);
    assert_eq!(found[0].image_store.as_deref(), Some(dir.join("other").as_path()));
    let layers = store.layers().unwrap();
    assert_eq!(layers.len(), 2, "without that of the container there");
    assert!(layers.iter().all(|layer| layer.image_store.is_some()));
    assert!(store.containers().unwrap().is_empty());
    for key in ["base", image.id.as_str(), &image.id.as_str()[..8], &image.digests[0].to_string()] {
        assert_eq!(store.image(key).unwrap().id, image.id, "{key}");
    }
    assert!(!store.items(&image).unwrap().is_empty());
    assert!(!store.item(&image, "manifest").unwrap().is_empty());
    assert_eq!(store.changes(&image).unwrap().len(), 2);
    let mut tar = Vec::new();
    store.diff(&image, &mut tar).unwrap();
    let usage = store.usage(&image).unwrap();
    assert!(usage.total > 0 && usage.unique == 0, "{usage:?}");
    let saved = format!("oci:{}:1", dir.join("saved").display()).parse().unwrap();
    assert!(store.save(&image.id, &saved, &SaveOptions::default()).unwrap().unchanged);
    // What is there cannot be removed here, nor changed but for names.
    let top = image.top_layer.clone().unwrap();
    is_elsewhere(store.remove_image(&image.id), &dir.join("other"));
    is_elsewhere(store.remove_layer(&top), &dir.join("other"));
    is_elsewhere(store.layers_removed_with(&image.id), &dir.join("other"));
    is_not_found(store.container("theirs"));
    is_clean(&store);
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert_eq!(paths(&dir.join("other")), before);
}

#[test]
fn containers_stand_on_images_of_another_store() {
    let dir = Dir::new("other-store-containers");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    assert_eq!(store.containers_of_image(&image.id).unwrap(), std::slice::from_ref(&web.id));
    assert_eq!(store.layer_chain(&web.layer).unwrap().len(), 3);
    assert!(store.changes(&web).unwrap().is_empty());
    is_clean(&store);
    if machine::is_root() {
        let mount = store.mount(&web, &MountOptions::default()).unwrap();
        assert_eq!(std::fs::read(mount.path().join("etc/name")).unwrap(), b"one\n");
        std::fs::write(mount.path().join("etc/name"), b"mine\n").unwrap();
        store.unmount(&web, UnmountMode::Plain).unwrap();
        assert_eq!(store.changes(&web).unwrap().len(), 2);
        let view = store.mount(&image, &MountOptions::default()).unwrap();
        assert_eq!(std::fs::read(view.path().join("etc/name")).unwrap(), b"one\n");
        store.unmount(&image, UnmountMode::Plain).unwrap();
    }
    let mine = store.commit(&web.id, &CommitOptions::named("mine")).unwrap();
    assert_eq!(mine.image_store, None);
    let own: Vec<_> =
        store.layers().unwrap().into_iter().filter(|layer| layer.image_store.is_none()).collect();
    assert_eq!(own.len(), 2, "the container's and the new one; what is there is not copied");
    is_clean(&store);
    let saved = format!("oci-archive:{}:1", dir.join("mine.oci").display()).parse().unwrap();
    store.save(&mine.id, &saved, &SaveOptions::default()).unwrap();
    store.remove_container(&web.id).unwrap();
    assert_eq!(store.remove_image(&mine.id).unwrap().len(), 1);
    is_clean(&store);
    assert!(store.gc(false).unwrap().removed.is_empty());
}

#[test]
fn only_what_no_store_has_is_loaded() {
    let dir = Dir::new("other-store-load");
    load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &[]);
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    let image = load(&store, &dir, "mine", &["two\n"]);
    let chain = store.layer_chain(&image.top_layer.clone().unwrap()).unwrap();
    assert_eq!(chain.iter().map(|layer| layer.image_store.is_some()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(std::fs::read_dir(dir.join("own/diffs")).unwrap().count(), 1);
    let saved = format!("oci:{}:1", dir.join("saved").display()).parse().unwrap();
    assert!(store.save(&image.id, &saved, &SaveOptions::default()).unwrap().unchanged);
    is_clean(&store);
    // Without the other store the image is not whole, and nothing of it is taken for garbage.
    let alone = Store::open(&at(&dir, "own")).unwrap();
    assert_eq!(alone.check(&CheckOptions::default()).unwrap().findings.len(), 1);
    assert!(alone.gc(false).unwrap().removed.is_empty());
    assert!(alone.changes(&image).is_err());
    assert_eq!(store.changes(&image).unwrap().len(), 2);
}

#[test]
fn new_names_make_a_record_here() {
    let dir = Dir::new("other-store-names");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    store.write(|txn| txn.add_name(&image, &name("alias"))).unwrap();
    let copy = store.image("alias").unwrap();
    assert_eq!((&copy.id, names(&copy), copy.image_store.clone()), (&image.id, vec!["base", "alias"], None));
    assert_eq!(store.items(&copy).unwrap(), store.items(&image).unwrap());
    assert_eq!(store.images().unwrap().len(), 1, "what is there has an id that came before");
    store.write(|txn| txn.put_item(&copy, "key", b"value")).unwrap();
    is_clean(&store);
    assert!(store.remove_image(&image.id).unwrap().is_empty());
    let original = store.image("base").unwrap();
    assert_eq!((names(&original), original.image_store.is_some()), (vec!["base"], true));
    is_not_found(store.image("alias"));
    for change in ["set", "remove", "move"] {
        store
            .write(|txn| match change {
                "set" => txn.set_names(&image, &[name("new")]),
                "remove" => txn.remove_name(&image, &name("base")),
                _ => txn.move_name(&image.id, &name("new")),
            })
            .unwrap();
        assert_eq!(store.image(image.id.as_str()).unwrap().image_store, None, "{change}");
        store.remove_image(&image.id).unwrap();
    }
    is_clean(&store);
    // A name that is taken here stays where it is.
    let own = load(&store, &dir, "taken", &["other\n"]);
    store.write(|txn| txn.move_name(&own.id, &name("base"))).unwrap();
    store.write(|txn| txn.add_name(&image, &name("alias"))).unwrap();
    assert_eq!(names(&store.image("alias").unwrap()), ["alias"]);
    assert_eq!(store.image("base").unwrap().id, own.id);
}

#[test]
fn stores_are_asked_in_order() {
    let dir = Dir::new("other-store-order");
    let [first, second, own] = ["first", "second", "own"].map(|store| {
        let image = load(&Store::open(&at(&dir, store)).unwrap(), &dir, store, &[store]);
        Store::open(&at(&dir, store)).unwrap().write(|txn| txn.add_name(&image, &name("shared"))).unwrap();
        image
    });
    let open = |stores: [&str; 2]| {
        Store::open(&at(&dir, "own").image_stores(stores.map(|store| dir.join(store)))).unwrap()
    };
    let store = open(["first", "second"]);
    assert_eq!(store.image("shared").unwrap().id, own.id);
    let listed: Vec<_> = store.images().unwrap().into_iter().map(|image| image.id).collect();
    assert_eq!(listed, [&own.id, &first.id, &second.id].map(Clone::clone));
    store.write(|txn| txn.remove_name(&own, &name("shared"))).unwrap();
    assert_eq!(store.image("shared").unwrap().id, first.id);
    assert_eq!(open(["second", "first"]).image("shared").unwrap().id, second.id);
    // The layer that all have is the own one.
    let base = store.layer_chain(&second.top_layer.clone().unwrap()).unwrap().pop().unwrap();
    assert_eq!(base.image_store, None);
}

#[test]
fn what_comes_into_another_store_is_seen() {
    let dir = Dir::new("other-store-live");
    let other = Store::open(&at(&dir, "other")).unwrap();
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    for content in ["one", "two", "three"] {
        let before = store.change_counter();
        let image = load(&other, &dir, content, &[content]);
        assert_ne!(store.change_counter(), before);
        assert_eq!(store.image(content).unwrap().id, image.id);
        other.remove_image(&image.id).unwrap();
        is_not_found(store.image(content));
    }
}

#[test]
fn a_store_is_not_read_beside_itself() {
    let dir = Dir::new("other-store-itself");
    Store::open(&at(&dir, "own")).unwrap();
    let itself = Store::open(&at(&dir, "own").image_store(dir.join("own/../own"))).unwrap_err();
    assert!(matches!(itself, Error::SameStore { .. }), "{itself}");
    let missing = Store::open(&at(&dir, "own").image_store(dir.join("missing"))).unwrap_err();
    assert!(matches!(missing, Error::ImageStore { .. }), "{missing}");
    let new = Store::open(&at(&dir, "new").image_store(dir.join("missing"))).unwrap_err();
    assert!(matches!(new, Error::ImageStore { .. }), "{new}");
    assert!(!dir.join("new").exists(), "made for nothing");
    assert!(!dir.join("missing").exists());
}

#[test]
fn the_program_reads_other_stores() {
    let dir = Dir::new("other-store-program");
    load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let other = dir.join("other");
    let run = |arguments: &[&str]| {
        dir.layerstore(["--sync", "off"]).args(arguments).args(["--image-store", other.to_str().unwrap()])
    };
    let images = run(&["images", "--json"]).json();
    assert_eq!(images[0]["image_store"], other.to_str().unwrap());
    assert!(run(&["images"]).stdout().contains(other.to_str().unwrap()));
    run(&["create-container", "base", "--name", "web"]).assert_success();
    run(&["names", "base", "--add", "alias"]).assert_success();
    let images = run(&["images", "--json"]).json();
    assert_eq!((images.as_array().unwrap().len(), &images[0]["image_store"]), (1, &serde_json::Value::Null));
    run(&["check"]).assert_success();
    let status = dir.layerstore(["check", "--json"]).output().status;
    assert_eq!(status.code(), Some(3), "alone it is not whole");
    run(&["rm", "web"]).assert_success();
    run(&["rmi", images[0]["id"].as_str().unwrap()]).assert_success();
    let kept = format!("is in the store {}, which is only read here", other.display());
    assert!(run(&["rmi", "base"]).assert_exit(1).contains(&kept));
    run(&["create-container", "base", "--name", "stays"]).assert_success();
    assert!(run(&["rmi", "--force", "base"]).assert_exit(1).contains(&kept));
    run(&["rm", "stays"]).assert_success();
    let layers = run(&["layers", "--json"]).json();
    assert!(run(&["rm", "--layer", layers[0]["id"].as_str().unwrap()]).assert_exit(1).contains(&kept));
    let shown = run(&["layers"]).stdout();
    assert!(shown.contains("STORE") && shown.contains(other.to_str().unwrap()), "{shown}");
    let status = run(&["status"]).stdout();
    assert!(status.contains(&format!("reads       {}", other.display())), "{status}");
    assert_eq!(
        run(&["status", "--json"]).json()["image_stores"],
        serde_json::json!([other.to_str().unwrap()])
    );
    let wiped = run(&["wipe", "--force"]).stdout();
    assert_eq!(wiped, "removed 0 containers, 0 images and 0 layers\n");
    assert_eq!(run(&["images", "--json"]).json().as_array().unwrap().len(), 1);
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn damage_of_another_store_is_marked_as_such() {
    let dir = Dir::new("other-store-damage");
    load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let other = dir.join("other");
    let run = |arguments: &[&str]| {
        dir.layerstore(["--sync", "off"]).args(arguments).args(["--image-store", other.to_str().unwrap()])
    };
    run(&["create-container", "base", "--name", "web"]).assert_success();
    run(&["check", "--image-stores"]).assert_success();
    std::fs::remove_dir_all(other.join("diffs")).unwrap();
    std::fs::create_dir(other.join("diffs")).unwrap();
    run(&["check"]).assert_success();
    let output = run(&["check", "--image-stores"]).output();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    let marked = format!("{}, only read here: layer ", other.display());
    assert!(text.contains(&marked) && text.contains("  directory-missing: "), "{text}");
    let output = run(&["check", "--image-stores", "--json"]).output();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["findings"], serde_json::json!([]));
    assert_eq!(json["image_stores"][0]["root"], other.to_str().unwrap());
    assert_eq!(json["image_stores"][0]["findings"].as_array().unwrap().len(), 2, "{json}");
    assert!(json["image_stores"][0]["findings"][0]["thing"].as_str().unwrap().contains("layer"));
}

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
fn nothing_is_found_in_empty_stores() {
    let dir = Dir::new("split-empty");
    Store::open(&at(&dir, "other")).unwrap();
    let options = at(&dir, "own").image_store_root(dir.join("images")).image_store(dir.join("other"));
    let store = Store::open(&options).unwrap();
    let layer: layerstore::LayerId = "aa".repeat(32).parse().unwrap();
    let image: layerstore::ImageId = "bb".repeat(32).parse().unwrap();
    let container: layerstore::ContainerId = "cc".repeat(32).parse().unwrap();
    for key in ["", "nothing", layer.as_str(), image.as_str()] {
        is_not_found(store.layer(key));
        is_not_found(store.image(key));
        is_not_found(store.container(key));
        is_not_found(store.thing(key));
    }
    is_not_found(store.layer_chain(&layer));
    is_not_found(store.create_container(&image, &ContainerOptions::default()));
    is_not_found(store.remove_container(&container));
    is_not_found(store.remove_image(&image));
    is_not_found(store.remove_layer(&layer));
    is_not_found(store.commit(&container, &CommitOptions::default()));
    is_not_found(store.lease(&"kept".parse().unwrap(), &image, std::time::Duration::from_secs(9)));
    assert!(store.end_lease(&"kept".parse().unwrap()).is_err());
    assert!(store.item(&image, "key").is_err());
    for of in [layerstore::ThingId::from(&layer), (&image).into(), (&container).into()] {
        is_not_found(store.changes(&of));
        is_not_found(store.diff(&of, std::io::sink()));
        is_not_found(store.usage(&of));
        is_not_found(store.mount(&of, &MountOptions::default()));
        is_not_found(store.unmount(&of, UnmountMode::Plain));
        is_not_found(store.mounted(&of));
        is_not_found(store.write(|txn| txn.add_name(&of, &name("new"))));
        is_not_found(store.write(|txn| txn.set_metadata(&of, "new")));
        is_not_found(store.write(|txn| txn.put_item(&of, "key", b"value")));
        is_not_found(store.items(&of));
    }
    assert!(store.images_of_layer(&layer).unwrap().is_empty());
    assert!(store.containers_of_image(&image).unwrap().is_empty());
    assert!(store.images().unwrap().is_empty() && store.layers().unwrap().is_empty());
    assert_eq!(store.status().unwrap().images, 0);
    assert_eq!(store.drop_blobs(None).unwrap(), 0);
    assert!(store.gc(false).unwrap().removed.is_empty());
    is_clean(&store);
}

/// The tar of one file.
fn one_file(path: &str, content: &[u8]) -> Vec<u8> {
    archive(&[Member::file(path, content)])
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

#[test]
fn layers_stand_on_those_of_other_stores_which_stay_as_they_are() {
    let dir = Dir::new("other-layers");
    let other = Store::open(&at(&dir, "other")).unwrap();
    let base = other.put_layer(None, &LayerOptions::named("base"), &*one_file("a", b"1")).unwrap();
    let open = other.create_layer(None, &LayerOptions::named("open")).unwrap();
    let store = Store::open(&at(&dir, "store").image_store(other.root())).unwrap();
    let top = store.put_layer(&base.id, &LayerOptions::named("top"), &*one_file("b", b"2")).unwrap();
    assert_eq!(top.parent.as_ref(), Some(&base.id));
    assert_eq!(store.diff_size(&top, None).unwrap(), 1);
    let writable = store.create_layer(&base.id, &LayerOptions::default()).unwrap();
    assert!(writable.is_writable());
    let mut copy = LayerOptions::named("copy");
    copy.template = Some(base.id.clone());
    assert_eq!(store.create_layer(None, &copy).unwrap().tree, base.tree);
    for refused in [
        store.unseal(&base.id).map(drop),
        store.seal(&open.id).map(drop),
        store.apply_diff(&open.id, &*one_file("c", b"3"), &ApplyOptions::default()).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::InOtherStore { .. })), "{refused:?}");
    }
    assert_eq!(other.layers().unwrap().len(), 2);
    is_clean(&store);
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

/// What is mounted stands on the files of the store that has the layer, though another store has the same tree: only that
/// store knows what must stay.
#[test]
fn files_come_from_the_store_that_has_the_layer() {
    if !machine::is_root() {
        return;
    }
    for split in [true, false] {
        let dir = Dir::new("equal-trees");
        let own = Store::open(&at(&dir, "own")).unwrap();
        let mine = own.put_layer(None, &LayerOptions::default(), &*one_file("a", b"1")).unwrap();
        let mut image = ImageOptions::named("mine");
        image.top_layer = Some(mine.id.clone());
        let mine = own.create_image(&image).unwrap();
        drop(own);
        let other = Store::open(&at(&dir, "other")).unwrap();
        let theirs = other.put_layer(None, &LayerOptions::default(), &*one_file("a", b"1")).unwrap();
        let mut image = ImageOptions::named("theirs");
        image.top_layer = Some(theirs.id.clone());
        let theirs = other.create_image(&image).unwrap();
        drop(other);
        let options = at(&dir, "own");
        let store = Store::open(&match split {
            true => options.image_store_root(dir.join("other")),
            false => options.image_store(dir.join("other")),
        })
        .unwrap();
        let (stays, goes) = if split { (&mine, &theirs) } else { (&theirs, &mine) };
        let web = store.create_container(&stays.id, &ContainerOptions::named("web")).unwrap();
        let mount = store.mount(&web, &MountOptions::default()).unwrap();
        store.remove_image(&goes.id).unwrap();
        assert_eq!(std::fs::read(mount.path().join("a")).unwrap(), b"1", "split {split}");
        store.unmount(&web, UnmountMode::Plain).unwrap();
        is_clean(&store);
    }
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
fn what_another_store_has_is_changed_there_or_named_here() {
    let dir = Dir::new("other-store-changes");
    let other = Store::open(&at(&dir, "other")).unwrap();
    let layer = other.put_layer(None, &LayerOptions::named("layer"), &*one_file("a", b"1")).unwrap();
    let image = load(&other, &dir, "base", &["one\n"]);
    let store = Store::open(&at(&dir, "own").image_store(other.root())).unwrap();
    type Change = fn(&Store, &layerstore::ThingId) -> Result<(), Error>;
    let changes: [(&str, Change); 5] = [
        ("metadata", |store, of| store.set_metadata(of, "new")),
        ("item", |store, of| store.put_item(of, "key", b"value")),
        ("no item", |store, of| store.remove_item(of, "manifest")),
        ("flag", |store, of| store.set_flag(of, "flag", "1")),
        ("no flag", |store, of| store.clear_flag(of, "flag")),
    ];
    for (what, change) in changes {
        for of in [(&layer).into(), (&image).into()] {
            let refused = change(&store, &of).unwrap_err();
            assert!(
                matches!(&refused, Error::InOtherStore { root, .. } if root == other.root()),
                "{what}: {refused:?}"
            );
            let advice = if of.kind() == Kind::Image { "give it a name first" } else { "open that store" };
            assert!(refused.to_string().contains(advice), "{what}: {refused}");
        }
    }
    let refused = store.image_directory(&image.id).unwrap_err();
    assert!(matches!(refused, Error::InOtherStore { .. }), "{refused:?}");
    let refused = store.add_names(&layer, &[name("more")]).unwrap_err();
    assert!(matches!(refused, Error::InOtherStore { .. }), "{refused:?}");
    // What the message says helps.
    store.add_names(&image, &[name("mine")]).unwrap();
    for (what, change) in &changes[..2] {
        change(&store, &(&image).into()).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    store.image_directory(&image.id).unwrap();
    assert_eq!(
        (store.metadata(&image).unwrap().as_str(), other.metadata(&image).unwrap().as_str()),
        ("new", "")
    );
    assert!(other.item(&image, "key").is_err());
    is_clean(&store);
    // Who opens the store without the other one is told that there may be one.
    let alone = Store::open(&at(&dir, "own")).unwrap();
    let found = alone.check(&CheckOptions::default()).unwrap().findings;
    assert_eq!(found.iter().map(layerstore::Finding::code).collect::<Vec<_>>(), ["image-layer-missing"]);
    assert!(
        found[0].to_string().contains("if it is in another store, open that one too (--image-store)"),
        "{}",
        found[0]
    );
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

/// Everything that misses something, as a check tells it, after a repair with and without force has left it.
fn left_alone(store: &Store) -> Vec<String> {
    let found = |store: &Store| store.check(&CheckOptions::default()).unwrap().findings;
    let before = found(store);
    for (force, dry_run) in [(false, true), (true, true), (false, false), (true, false)] {
        let mut options = RepairOptions::default();
        (options.force, options.dry_run) = (force, dry_run);
        let report = store.repair(&options).unwrap();
        assert!(report.repaired.is_empty() && report.failed.is_empty(), "{report:?}");
        assert_eq!(report.left, before, "force {force}, dry run {dry_run}");
    }
    assert_eq!(found(store), before);
    assert!(before.iter().all(|finding| finding.remedy.code() == "leave"), "{before:?}");
    let texts: Vec<String> = before.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().all(|text| text.contains("a repair leaves it: open with --image-store")),
        "{texts:?}"
    );
    texts
}

#[test]
fn what_stands_on_a_store_that_is_not_given_is_left_alone() {
    let dir = Dir::new("store-not-given");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &["one\n"]);
    let with = || at(&dir, "own").image_store(dir.join("other"));
    let (web, layer, named) = {
        let store = Store::open(&with()).unwrap();
        let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        let layer = store.create_layer(image.top_layer.as_ref(), &LayerOptions::named("above")).unwrap();
        store.add_names(&image.id, &[name("mine")]).unwrap();
        (web, layer, store.image("mine").unwrap())
    };
    let alone = Store::open(&at(&dir, "own")).unwrap();
    let texts = left_alone(&alone);
    let flag = format!("--image-store {}", dir.join("other").display());
    assert!(texts.iter().all(|text| text.contains(&flag)), "{texts:?}");
    for thing in [format!("layer {}", layer.id), format!("image {}", named.id)] {
        assert!(texts.iter().any(|text| text.starts_with(&thing)), "{thing}: {texts:?}");
    }
    // Given again, under whatever path, nothing is missing and nothing was forgotten.
    let store = Store::open(&with()).unwrap();
    is_clean(&store);
    assert_eq!(store.container("web").unwrap().image, Some(image.id.clone()));
    drop(store);
    std::fs::rename(dir.join("other"), dir.join("moved")).unwrap();
    is_clean(&Store::open(&at(&dir, "own").image_store(dir.join("moved"))).unwrap());
    // Who can do without it removes what needs it.
    alone.remove_container(&web.id).unwrap();
    alone.remove_layer(&layer.id).unwrap();
    alone.remove_image(&named.id).unwrap();
    is_clean(&alone);
}

#[test]
fn what_stands_on_a_separate_store_that_is_not_given_is_left_alone() {
    let dir = Dir::new("images-not-given");
    let with = at(&dir, "own").image_store_root(dir.join("images"));
    let image = {
        let store = Store::open(&with).unwrap();
        let image = load(&store, &dir, "base", &[]);
        store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
        image
    };
    let texts = left_alone(&Store::open(&at(&dir, "own")).unwrap());
    let flag = format!("--image-store-root {}", dir.join("images").display());
    assert!(!texts.is_empty() && texts.iter().all(|text| text.contains(&flag)), "{texts:?}");
    let store = Store::open(&with).unwrap();
    is_clean(&store);
    assert_eq!(store.container("web").unwrap().image, Some(image.id));
}

#[test]
fn what_a_store_that_is_given_has_lost_is_repaired() {
    let dir = Dir::new("given-and-lost");
    let image = load(&Store::open(&at(&dir, "other")).unwrap(), &dir, "base", &[]);
    let store = Store::open(&at(&dir, "own").image_store(dir.join("other"))).unwrap();
    store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    Store::open(&at(&dir, "other")).unwrap().wipe().unwrap();
    let mut options = RepairOptions::default();
    options.force = true;
    assert!(store.repair(&options).unwrap().is_complete());
    is_clean(&store);
    assert!(store.containers().unwrap().is_empty());
}
