//! Images made of layers that are there: names and their history, manifests and digests, directories.

use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, CreateError, Digest, Error, GarbageKind, Image, ImageOptions,
    InUseError, LayerOptions, LookupError, NewItem, RepairOptions, Store, ValueError,
};

use super::{base, entries, on, open};
use crate::support::Dir;
use crate::support::damage::codes;

fn history(store: &Store, key: &str) -> Vec<String> {
    store.image(key).unwrap().names_history.iter().map(ToString::to_string).collect()
}

fn names(image: &Image) -> Vec<&str> {
    image.names.iter().map(layerstore::Name::as_str).collect()
}

#[test]
fn an_image_has_all_that_it_is_given() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (_, layer) = base(&store, "base");
    let mut options = on(&layer, "demo:1");
    options.id = Some("0f1e2d".parse().unwrap());
    options.names.push("demo:1".to_owned());
    options.names_history = vec!["old:2".to_owned(), "demo:1".to_owned(), "old:1".to_owned()];
    options.mapped_top_layers = vec![layer.clone()];
    options.metadata = "a text".to_owned();
    options.created = Some(layerstore::Timestamp { seconds: 7, nanoseconds: 8 });
    options.digests = vec![Digest::sha256(b"elsewhere")];
    options.items = vec![NewItem::new("manifest", "{}"), NewItem::new("notes", vec![7; 300_000])];
    options.flags = vec![("flag".to_owned(), "[1, true]".to_owned())];
    options.labels = vec![("label".to_owned(), "value".to_owned())];
    let image = store.create_image(&options).unwrap();
    assert_eq!(store.image("0f1e2d").unwrap(), image);
    assert_eq!(names(&image), ["demo:1"], "a name is given once");
    assert_eq!(history(&store, "demo:1"), ["demo:1", "old:2", "old:1"]);
    assert_eq!(image.digests, [Digest::sha256(b"elsewhere"), Digest::sha256(b"{}")]);
    assert_eq!((image.created.seconds, image.created.nanoseconds), (7, 8));
    assert_eq!((image.top_layer, image.mapped_top_layers), (Some(layer.clone()), vec![layer.clone()]));
    assert_eq!((image.flags, image.labels), (options.flags.clone(), options.labels.clone()));
    let items = store.items(&image.id).unwrap();
    let sizes: Vec<_> = items.iter().map(|item| (item.key.as_str(), item.size)).collect();
    assert_eq!(sizes, [("manifest", 2), ("notes", 300_000)]);
    assert_eq!(items[1].digest, Digest::sha256(&[7; 300_000]));
    assert_eq!(store.images_by_top_layer(&layer).unwrap().len(), 2);
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());

    // Nothing is half made.
    let refused = store.create_image(&options);
    assert!(matches!(refused, Err(Error::Create(CreateError::IdInUse { .. }))), "{refused:?}");
    let named = store.create_image(&on(&layer, "feed")).unwrap();
    let mut by_name = ImageOptions::default();
    by_name.id = Some("feed".parse().unwrap());
    let refused = store.create_image(&by_name);
    assert!(matches!(refused, Err(Error::Create(CreateError::IdIsName { .. }))), "{refused:?}");
    store.remove_image(&named.id).unwrap();
    let mut missing = ImageOptions::named("other");
    missing.top_layer = Some("beef".parse().unwrap());
    let refused = store.create_image(&missing);
    assert!(
        matches!(refused, Err(Error::Lookup(LookupError::NotFound { kind: "layer", .. }))),
        "{refused:?}"
    );
    for (flag, key) in [("{", "key"), ("1", ""), ("1", "a\nb")] {
        let mut bad = ImageOptions::named("other");
        bad.flags = vec![("flag".to_owned(), flag.to_owned())];
        bad.items = vec![NewItem::new(key, "")];
        let refused = store.create_image(&bad);
        assert!(
            matches!(refused, Err(Error::Value(ValueError::Flag { .. } | ValueError::ItemKey(_)))),
            "{refused:?}"
        );
    }
    assert!(store.image("other").is_err() && store.images().unwrap().len() == 2);
}

#[test]
fn an_image_without_layers_has_a_random_id() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let [first, second] = [(); 2].map(|()| store.create_image(&ImageOptions::default()).unwrap());
    assert_ne!(first.id, second.id);
    assert_eq!(first.id.as_str().len(), 64);
    assert_eq!(store.remove_image(&first.id).unwrap(), []);
}

#[test]
fn a_name_that_is_taken_stays_in_both_histories() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (_, layer) = base(&store, "base");
    let mut first = on(&layer, "a");
    first.names.push("b".to_owned());
    let first = store.create_image(&first).unwrap();
    let second = store.create_image(&on(&layer, "b")).unwrap();
    assert_eq!(names(&second), ["b"]);
    assert_eq!(names(&store.image(first.id.as_str()).unwrap()), ["a"]);
    assert_eq!(history(&store, first.id.as_str()), ["a", "b"]);
    assert_eq!(history(&store, second.id.as_str()), ["b"]);

    let parsed = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>();
    store.write(|txn| txn.set_names(&first, &parsed(&["c", "a", "d", "c"]))).unwrap();
    assert_eq!(history(&store, "a"), ["c", "d", "a", "b"], "new ones first, none twice");
    store.write(|txn| txn.remove_name(&first, &"a".parse()?)).unwrap();
    store.write(|txn| txn.add_name(&first, &"a".parse()?)).unwrap();
    assert_eq!(history(&store, "c"), ["a", "c", "d", "b"], "what is given again comes first");
    store.write(|txn| txn.set_names(&first, &[])).unwrap();
    assert_eq!(history(&store, first.id.as_str()), ["a", "c", "d", "b"], "it never shrinks");
}

#[test]
fn an_image_is_found_by_the_digest_of_each_manifest() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let found = |bytes: &[u8]| store.images_by_digest(&Digest::sha256(bytes)).unwrap().len();
    let mut options = ImageOptions::named("demo");
    let mut signed = NewItem::new("manifest-signed", "signed bytes");
    signed.digest = Some(Digest::sha256(b"payload"));
    options.items = vec![NewItem::new("manifest", "one"), signed, NewItem::new("config", "config")];
    let image = store.create_image(&options).unwrap();
    assert_eq!([found(b"one"), found(b"payload"), found(b"signed bytes"), found(b"config")], [1, 1, 0, 0]);
    assert_eq!(image.manifests.len(), 2);
    assert_eq!(store.items(&image).unwrap()[2].digest, Digest::sha256(b"signed bytes"));

    // Replaced, given again by another digest, and removed.
    store.write(|txn| txn.put_item(&image, "manifest", b"two")).unwrap();
    assert_eq!([found(b"one"), found(b"two")], [0, 1]);
    let digest = Digest::sha256(b"another payload");
    store.write(|txn| txn.put_manifest(&image.id, "manifest-signed", b"signed anew", &digest)).unwrap();
    assert_eq!([found(b"payload"), found(b"another payload")], [0, 1]);
    let refused = store.write(|txn| txn.put_manifest(&image.id, "config", b"x", &digest));
    assert!(matches!(refused, Err(Error::Value(ValueError::ManifestKey(_)))), "{refused:?}");
    store.write(|txn| txn.remove_item(&image, "manifest")).unwrap();
    assert_eq!(found(b"two"), 0);
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());

    // A digest that was given stays whatever becomes of the items; two images may share one.
    let mut other = ImageOptions::named("other");
    other.digests = vec![Digest::sha256(b"given"), digest.clone()];
    other.items = vec![NewItem::new("manifest", "given")];
    let other = store.create_image(&other).unwrap();
    assert_eq!(other.digests, [Digest::sha256(b"given"), digest.clone()], "each once");
    store.write(|txn| txn.remove_item(&other, "manifest")).unwrap();
    assert_eq!([found(b"given"), store.images_by_digest(&digest).unwrap().len()], [1, 2]);
    store.remove_image(&other.id).unwrap();
    store.remove_image(&image.id).unwrap();
    assert_eq!([found(b"given"), found(b"another payload")], [0, 0]);
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());
}

#[test]
fn the_directory_of_an_image_goes_with_it() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let image = store.create_image(&ImageOptions::named("demo")).unwrap();
    let path = store.image_directory(&image.id).unwrap();
    assert!(path.starts_with(dir.root()) && path.is_absolute());
    std::fs::write(path.join("mine"), "text").unwrap();
    assert_eq!(store.image_directory(&image.id).unwrap(), path, "it is made once");
    assert_eq!(open(&dir).image_directory(&image.id).unwrap(), path);
    let run = store.image_run_directory(&image.id).unwrap();
    std::fs::write(run.join("socket"), "").unwrap();
    assert!(run.starts_with(dir.run_root()));
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert!(store.check(&CheckOptions::default()).unwrap().is_clean());

    std::fs::remove_dir_all(&path).unwrap();
    assert_eq!(codes(&store, CheckLevel::Default), ["data-missing"]);
    let report = store.repair(&RepairOptions::default()).unwrap();
    assert!(report.is_complete(), "{:?}", report.left);
    assert_eq!(report.repaired[0].code, "forget");
    let path = store.image_directory(&image.id).unwrap();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "an empty one");

    store.remove_image(&image.id).unwrap();
    assert!(!path.exists() && !run.exists());
    assert!(entries(&dir, "data").is_empty() && entries(&dir, "trash").is_empty());
    let gone = store.image_directory(&image.id);
    assert!(matches!(gone, Err(Error::Lookup(LookupError::NotFound { kind: "image", .. }))), "{gone:?}");
}

#[test]
fn a_directory_that_no_image_has_is_garbage() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let image = store.create_image(&ImageOptions::named("demo")).unwrap();
    store.image_directory(&image.id).unwrap();
    let stray = dir.root().join("data/4711");
    std::fs::create_dir(&stray).unwrap();
    std::fs::create_dir_all(dir.run_root().join("images/gone")).unwrap();
    std::fs::write(dir.root().join("data/notes"), "none of ours").unwrap();
    let report = store.check(&CheckOptions::default()).unwrap();
    let codes: Vec<_> = report.findings.iter().map(layerstore::Finding::code).collect();
    assert_eq!((codes, report.garbage.len()), (vec!["stray"], 1));
    let dry = store.gc(true).unwrap().removed;
    let removed = store.gc(false).unwrap().removed;
    assert_eq!(dry, removed);
    let kinds: Vec<_> = removed.iter().map(|garbage| garbage.kind).collect();
    assert_eq!(kinds, [GarbageKind::Data, GarbageKind::RunDirectory]);
    assert!(!stray.exists() && store.image_directory(&image.id).unwrap().exists());
}

#[test]
fn a_container_of_an_image_without_documents_is_committed_with_new_ones() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (_, layer) = base(&store, "base");
    let made = store.create_image(&on(&layer, "made")).unwrap();
    let web = store.create_container(&made.id, &ContainerOptions::named("web")).unwrap();
    let next = store.commit(&web.id, &CommitOptions::named("next")).unwrap();
    let config: serde_json::Value =
        serde_json::from_slice(&store.item(&next, &format!("sha256:{}", next.id)).unwrap()).unwrap();
    let layers = store.layer_chain(next.top_layer.as_ref().unwrap()).unwrap();
    let diff_ids: Vec<_> =
        layers.iter().rev().map(|layer| layer.diff_id.as_ref().unwrap().to_string()).collect();
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
    assert_eq!((layers.len(), &layers[1].id), (2, &layer));
    // It can be taken to another store.
    let to = format!("oci:{}:1", dir.join("layout").display()).parse().unwrap();
    store.save(&next.id, &to, &SaveOptions::default()).unwrap();
    let refused = store.save(&made.id, &to, &SaveOptions::default());
    assert!(refused.is_err(), "{refused:?}");
    store.wipe().unwrap();
    let source = Source::open(&to, store.root()).unwrap();
    let loaded = store.load(&source, &LoadOptions::named("next")).unwrap();
    assert_eq!((loaded.id, loaded.top_layer), (next.id, next.top_layer));
}

#[test]
fn what_goes_with_an_image_is_known_before() {
    let dir = Dir::new("things");
    let store = open(&dir);
    let (_, layer) = base(&store, "base");
    let middle = store.create_layer(&layer, &LayerOptions::default()).unwrap();
    let top = store.create_layer(&middle.id, &LayerOptions::default()).unwrap();
    let mapped = store.create_layer(&middle.id, &LayerOptions::default()).unwrap();
    let mut options = on(&top.id, "demo");
    options.mapped_top_layers = vec![mapped.id.clone()];
    let image = store.create_image(&options).unwrap();
    let going = store.layers_removed_with(&image.id).unwrap();
    assert_eq!(going, [top.id.clone(), mapped.id, middle.id], "the base is another image's");
    store.add_names(&top, &["kept".parse().unwrap()]).unwrap();
    assert_eq!(store.layers_removed_with(&image.id).unwrap(), going[1..2], "a name keeps what it is on");
    store.remove_names(&top, &["kept".parse().unwrap()]).unwrap();
    let web = store.create_container(&image.id, &ContainerOptions::default()).unwrap();
    let refused = store.layers_removed_with(&image.id);
    assert!(matches!(refused, Err(Error::InUse(InUseError::ImageOfContainer { .. }))), "{refused:?}");
    store.remove_container(&web.id).unwrap();
    assert_eq!(store.layers().unwrap().len(), 4, "nothing is removed");
    assert_eq!(store.remove_image(&image.id).unwrap(), going);
}
