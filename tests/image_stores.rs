//! Several stores read as one: other stores that are only read, and a separate one for images.

use std::path::{Path, PathBuf};

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    ApplyOptions, CheckLevel, CheckOptions, ContainerOptions, Error, Image, ImageOptions, InUseError, Kind,
    LayerOptions, LookupError, MetaError, MountOptions, Name, NewItem, RepairOptions, Store, StoreOptions,
    SyncMode, UnmountMode,
};

use crate::support::Dir;
use crate::support::machine;
use crate::support::oci::{self, Layer};
use crate::support::tar::{Member, archive};

mod missing;
mod separate;

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
