//! Records that name paths, or are not those of their rows: a database that somebody else wrote, or that a fault of the disk made
//! another one. What such a record names is asked for, mounted, checked, repaired and removed; all of it ends, and nothing
//! outside of the store is touched.

use layerstore::oci::{CommitOptions, Reference, SaveOptions};
use layerstore::{
    CheckLevel, CheckOptions, ContainerOptions, Finding, MountOptions, RepairOptions, ThingId, UnmountMode,
    WatchOptions,
};
use layerstore_schema::record::{
    Action, ContainerRecord, ImageRecord, ItemRecord, JournalRecord, KeptBlobRecord, LayerBlob, LayerContent,
    LayerRecord, LeaseRecord, Record, Time,
};
use layerstore_schema::table::{self, Owner};
use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::scene::{Scene, in_each_mode_within};
use super::*;
use crate::support::database;

/// A path out of any directory of the store and of its run root that is two below, and no id, and no digest's digits.
const OUT: &str = "../../victim";

/// The same, as a digest.
const OUT_DIGEST: &str = "sha256:../../victim";

/// What is done with the records; some of it with the path of the victim.
type Change = fn(&WriteTransaction, &str);

/// What has to come of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A deep check tells of it, and after a repair with force finds nothing.
    Mended,
    /// A deep check tells of it, and no repair can say what it should be.
    Left,
    /// Nobody has to: it is text, or a note that means nothing here.
    Nothing,
}

use Told::{Left, Mended, Nothing};

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;

/// Changes the record of a row.
fn edit_at<R: Record>(txn: &WriteTransaction, rows: Rows, key: &str, change: impl FnOnce(&mut R)) {
    let mut rows = txn.open_table(rows).unwrap();
    let mut record = R::decode(rows.get(key).unwrap().unwrap().value()).unwrap();
    change(&mut record);
    rows.insert(key, record.encode().unwrap().as_slice()).unwrap();
}

/// The key of the first row.
fn first(txn: &WriteTransaction, rows: Rows) -> String {
    let rows = txn.open_table(rows).unwrap();
    let (key, _) = rows.first().unwrap().unwrap();
    key.value().to_owned()
}

/// Gives a row another key.
fn move_row(txn: &WriteTransaction, rows: Rows, from: &str, to: &str) {
    let mut rows = txn.open_table(rows).unwrap();
    let bytes = rows.remove(from).unwrap().unwrap().value().to_owned();
    rows.insert(to, bytes.as_slice()).unwrap();
}

fn image(txn: &WriteTransaction, change: impl FnOnce(&mut ImageRecord)) {
    edit_at(txn, table::IMAGES, &first(txn, table::IMAGES), change);
}

fn container(txn: &WriteTransaction, change: impl FnOnce(&mut ContainerRecord)) {
    edit_at(txn, table::CONTAINERS, &first(txn, table::CONTAINERS), change);
}

/// The upper layer of the image, and the lower one.
fn layers(txn: &WriteTransaction) -> [String; 2] {
    let (mut top, mut below) = (None, None);
    image(txn, |image| top = image.top_layer.clone());
    let top = top.unwrap();
    edit_at(txn, table::LAYERS, &top, |layer: &mut LayerRecord| below = layer.parent.clone());
    [top, below.unwrap()]
}

/// Changes the upper layer of the image.
fn layer(txn: &WriteTransaction, change: impl FnOnce(&mut LayerRecord)) {
    let [top, _] = layers(txn);
    edit_at(txn, table::LAYERS, &top, change);
}

#[test]
fn layers_that_name_paths_lead_nowhere() {
    try_in_each_mode(
        "hostile::records::layers_that_name_paths_lead_nowhere",
        &[
            ("an id", |txn, _| layer(txn, |layer| layer.id = OUT.into()), Mended),
            ("a key", |txn, _| move_row(txn, table::LAYERS, &layers(txn)[0], OUT), Mended),
            ("id and key", id_and_key_of_a_layer, Mended),
            ("the layer of the container, wherever it is named", layer_everywhere, Mended),
            ("a parent", |txn, _| layer(txn, |layer| layer.parent = Some(OUT.into())), Mended),
            ("a name", |txn, _| layer(txn, |layer| layer.names = vec![OUT.into()]), Mended),
            ("a name that is none", |txn, _| layer(txn, |layer| layer.names = vec!["\n".into()]), Mended),
            ("a diffID", |txn, _| layer(txn, |layer| layer.diff_id = Some(OUT_DIGEST.into())), Mended),
            ("a table", |txn, _| layer(txn, |layer| layer.toc_digest = Some(OUT_DIGEST.into())), Mended),
            (
                "a blob",
                |txn, _| {
                    let blob = LayerBlob { digest: OUT_DIGEST.into(), size: 1, media_type: OUT.into() };
                    layer(txn, |layer| layer.blobs = vec![blob]);
                },
                Mended,
            ),
            ("a compression", |txn, _| layer(txn, |layer| layer.compression = Some(OUT.into())), Mended),
            (
                "an empty directory, as that of an additional layer store",
                |txn, victim| {
                    let content = LayerContent::Additional(format!("{victim}/empty").into());
                    layer(txn, |layer| layer.content = content);
                },
                Left,
            ),
            (
                "a directory of the victim, as that of an additional layer store",
                |txn, victim| layer(txn, |layer| layer.content = LayerContent::Additional(victim.into())),
                Left,
            ),
        ],
    );
}

fn id_and_key_of_a_layer(txn: &WriteTransaction, _: &str) {
    layer(txn, |layer| layer.id = OUT.into());
    move_row(txn, table::LAYERS, &layers(txn)[0], OUT);
}

/// The writable layer of the container is called by a path in every row.
fn layer_everywhere(txn: &WriteTransaction, _: &str) {
    let mut old = String::new();
    container(txn, |container| old = std::mem::replace(&mut container.layer, OUT.into()));
    let mut parent = None;
    edit_at(txn, table::LAYERS, &old, |layer: &mut LayerRecord| {
        layer.id = OUT.into();
        parent = layer.parent.clone();
    });
    move_row(txn, table::LAYERS, &old, OUT);
    let mut owners = txn.open_table(table::CONTAINERS_BY_LAYER).unwrap();
    let container = owners.remove(old.as_str()).unwrap().unwrap().value().to_owned();
    owners.insert(OUT, container.as_str()).unwrap();
    let mut children = txn.open_table(table::CHILDREN).unwrap();
    let parent = parent.unwrap();
    children.remove((parent.as_str(), old.as_str())).unwrap();
    children.insert((parent.as_str(), OUT), ()).unwrap();
}

#[test]
fn images_and_containers_that_name_paths_lead_nowhere() {
    try_in_each_mode(
        "hostile::records::images_and_containers_that_name_paths_lead_nowhere",
        &[
            ("an image's id", |txn, _| image(txn, |image| image.id = OUT.into()), Mended),
            ("an image's key", |txn, _| rename(txn, table::IMAGES), Mended),
            (
                "an image's id and key",
                |txn, _| {
                    image(txn, |image| image.id = OUT.into());
                    rename(txn, table::IMAGES);
                },
                Mended,
            ),
            ("a top layer", |txn, _| image(txn, |image| image.top_layer = Some(OUT.into())), Mended),
            ("a copy", |txn, _| image(txn, |image| image.mapped_top_layers = vec![OUT.into()]), Mended),
            ("a digest", |txn, _| image(txn, |image| image.digests = vec![OUT_DIGEST.into()]), Mended),
            (
                "a manifest",
                |txn, _| image(txn, |image| image.manifests = vec![(OUT.into(), OUT_DIGEST.into())]),
                Mended,
            ),
            ("a container's id", |txn, _| container(txn, |container| container.id = OUT.into()), Mended),
            ("a container's key", |txn, _| rename(txn, table::CONTAINERS), Mended),
            (
                "a container's id and key",
                |txn, _| {
                    container(txn, |container| container.id = OUT.into());
                    rename(txn, table::CONTAINERS);
                },
                Mended,
            ),
            (
                "a container's layer",
                |txn, _| container(txn, |container| container.layer = OUT.into()),
                Mended,
            ),
            (
                "a container's image",
                |txn, _| container(txn, |container| container.image = Some(OUT.into())),
                Mended,
            ),
            (
                "mount options",
                |txn, victim| {
                    container(txn, |container| container.mount_options = vec![format!("upperdir={victim}")])
                },
                Nothing,
            ),
        ],
    );
}

fn rename(txn: &WriteTransaction, rows: Rows) {
    move_row(txn, rows, &first(txn, rows), OUT);
}

#[test]
fn other_rows_that_name_paths_lead_nowhere() {
    try_in_each_mode(
        "hostile::records::other_rows_that_name_paths_lead_nowhere",
        &[
            ("the ids behind names", ids_behind_names, Mended),
            ("the digest of a kept blob", kept_blob, Mended),
            ("the key of an item", |txn, _| item(txn, |key, _| *key = OUT.into()), Nothing),
            ("the digest of an item", |txn, _| item(txn, |_, item| item.digest = OUT_DIGEST.into()), Mended),
            ("a lease, and what it keeps", lease, Mended),
            ("an event", event, Mended),
            (
                "the run root of containers that the next boot drops",
                |txn, victim| {
                    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
                    note(txn, table::TRANSIENT_KEY, &format!("{}\nthings\n{victim}", boot.trim()));
                },
                Nothing,
            ),
            (
                "other stores",
                |txn, victim| note(txn, table::BESIDE_KEY, &format!("images 0 {victim}\0read 1 {victim}")),
                Nothing,
            ),
        ],
    );
}

fn ids_behind_names(txn: &WriteTransaction, _: &str) {
    let mut names = txn.open_table(table::NAMES).unwrap();
    for (kind, name) in [(Owner::Image, "hostile"), (Owner::Container, "web")] {
        assert!(names.insert((kind.code(), name), OUT).unwrap().is_some());
    }
}

fn kept_blob(txn: &WriteTransaction, _: &str) {
    let record = KeptBlobRecord { number: 999, size: 5 };
    let mut rows = txn.open_table(table::KEPT_BLOBS).unwrap();
    rows.insert(OUT_DIGEST, record.encode().unwrap().as_slice()).unwrap();
}

/// Changes the item that the image was given besides its documents.
fn item(txn: &WriteTransaction, change: impl Fn(&mut String, &mut ItemRecord)) {
    let image = first(txn, table::IMAGES);
    let mut rows = txn.open_table(table::ITEMS).unwrap();
    let row = |key| (Owner::Image.code(), image.as_str(), key);
    let mut record = ItemRecord::decode(rows.remove(row("own")).unwrap().unwrap().value()).unwrap();
    let mut key = "own".to_owned();
    change(&mut key, &mut record);
    rows.insert(row(&key), record.encode().unwrap().as_slice()).unwrap();
}

fn lease(txn: &WriteTransaction, _: &str) {
    let (created, expires) = (Time::default(), Time { seconds: i64::MAX, nanoseconds: 0 });
    let things = [Owner::Layer, Owner::Container].map(|owner| (owner.code(), OUT.to_owned())).into();
    let record = LeaseRecord { id: OUT.to_owned(), things, created, expires };
    txn.open_table(table::LEASES).unwrap().insert(OUT, record.encode().unwrap().as_slice()).unwrap();
}

fn event(txn: &WriteTransaction, _: &str) {
    let mut rows = txn.open_table(table::JOURNAL).unwrap();
    let next = rows.last().unwrap().unwrap().0.value() + 1;
    let (time, action, owner) = (Time::default(), Action::Removed, Owner::Container.code());
    let record =
        JournalRecord { time, action, owner, id: OUT.to_owned(), names: vec![OUT.to_owned()], aspects: 0 };
    rows.insert(next, record.encode().unwrap().as_slice()).unwrap();
}

fn note(txn: &WriteTransaction, key: &str, text: &str) {
    txn.open_table(table::META).unwrap().insert(key, text.as_bytes()).unwrap();
}

#[test]
fn records_that_are_not_those_of_their_rows_are_nobodys() {
    try_in_each_mode(
        "hostile::records::records_that_are_not_those_of_their_rows_are_nobodys",
        &[
            ("the upper layer's in the lower one's row", |txn, _| copy_layer(txn, 0, 1), Mended),
            ("the lower layer's in the upper one's row", |txn, _| copy_layer(txn, 1, 0), Mended),
            (
                "a layer's that there is none of",
                |txn, _| layer(txn, |layer| layer.id = "other".into()),
                Mended,
            ),
            ("an image's", |txn, _| image(txn, |image| image.id = "other".into()), Mended),
            ("a container's", |txn, _| container(txn, |container| container.id = "other".into()), Mended),
        ],
    );
}

fn copy_layer(txn: &WriteTransaction, from: usize, to: usize) {
    let layers = layers(txn);
    let mut found = None;
    edit_at(txn, table::LAYERS, &layers[from], |layer: &mut LayerRecord| found = Some(layer.clone()));
    edit_at(txn, table::LAYERS, &layers[to], |layer: &mut LayerRecord| *layer = found.unwrap());
}

#[test]
fn layers_in_a_circle_stand_on_nothing() {
    try_in_each_mode(
        "hostile::records::layers_in_a_circle_stand_on_nothing",
        &[
            (
                "one that stands on itself",
                |txn, _| layer(txn, |layer| layer.parent = Some(layer.id.clone())),
                Mended,
            ),
            (
                "two that stand on each other",
                |txn, _| {
                    let [top, below] = layers(txn);
                    edit_at(txn, table::LAYERS, &below, |layer: &mut LayerRecord| layer.parent = Some(top));
                },
                Mended,
            ),
            (
                "an image's and a container's",
                |txn, _| {
                    let mut of_container = None;
                    container(txn, |container| of_container = Some(container.layer.clone()));
                    let [_, below] = layers(txn);
                    edit_at(txn, table::LAYERS, &below, |layer: &mut LayerRecord| {
                        layer.parent = of_container
                    });
                },
                Mended,
            ),
        ],
    );
}

/// An image of two layers with an item, and a container with files.
fn filled(mode: Mode) -> Scene {
    let mut scene = Scene::new(mode);
    scene.change_victim(|victim| std::fs::create_dir(victim.join("empty")).unwrap());
    let layers = [Layer::new([Member::file("a", b"a")]), Layer::new([Member::file("b", b"b")])];
    let written = Image::new(layers).write(scene.dir.join("layout"), TAG);
    let store = scene.open();
    let source = Source::open(&written.reference().parse().unwrap(), store.root()).unwrap();
    let image = store.load(&source, &LoadOptions::named("hostile")).unwrap();
    let container = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    store.put_item(&image, "own", b"value").unwrap();
    store.write_container_file(&container.id, "file", b"x").unwrap();
    store.write_container_run_file(&container.id, "file", b"x").unwrap();
    scene
}

/// Tries each change with a store of its own, in each mode. `test` is the path of the test that asks for it.
fn try_in_each_mode(test: &str, cases: &[(&str, Change, Told)]) {
    let most = Duration::from_secs(2) * u32::try_from(cases.len()).unwrap();
    in_each_mode_within(test, most, |mode| {
        let mut wrong = Vec::new();
        for (name, change, told) in cases {
            let scene = filled(mode);
            let victim = scene.victim();
            database::edit(&scene.dir.root(), |txn| change(txn, victim.to_str().unwrap()));
            let store = scene.open();
            let found = findings(&store);
            use_all_of_it(&store, &scene);
            scene.assert_victim();
            let mut repair = RepairOptions::default();
            repair.force = true;
            let report = store.repair(&repair).unwrap();
            scene.assert_victim();
            let left = findings(&store);
            if found.is_empty() != (*told == Nothing) || left.is_empty() != (*told != Left) {
                wrong
                    .push(format!("{mode:?}: {name}: found {found:#?}, left {left:#?}, {:?}", report.failed));
            }
            if left.is_empty() {
                use_all_of_it(&store, &scene);
                take_away(&store);
            }
            store.wipe().unwrap();
            scene.assert_victim();
            // Nothing was made beside the store either.
            let entries = std::fs::read_dir(scene.dir.path()).unwrap();
            let mut beside: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            beside.sort();
            assert_eq!(beside, ["layout", "root", "run", "victim"], "{name}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

fn findings(store: &Store) -> Vec<String> {
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    store.check(&options).unwrap().findings.iter().map(Finding::to_string).collect()
}

/// Everything that a caller does with what a store lists and finds. Whether each works out is not asked: that it ends is.
fn use_all_of_it(store: &Store, scene: &Scene) {
    let mut things: Vec<ThingId> = Vec::new();
    things.extend(store.layers().into_iter().flatten().map(|layer| layer.id.into()));
    things.extend(store.images().into_iter().flatten().map(|image| image.id.into()));
    things.extend(store.containers().into_iter().flatten().map(|container| container.id.into()));
    for word in [OUT, "hostile", "web"] {
        drop(store.thing(word));
        things.extend(store.layer(word).map(|layer| layer.id.into()));
        things.extend(store.image(word).map(|image| image.id.into()));
        things.extend(store.container(word).map(|container| container.id.into()));
    }
    let out = scene.dir.join("saved");
    for thing in &things {
        drop(store.diff(thing.clone(), std::io::sink()));
        drop(store.changes(thing.clone()));
        drop(store.items(thing.clone()));
        drop(store.usage(thing.clone()));
        if machine::is_root() && store.mount(thing.clone(), &MountOptions::default()).is_ok() {
            drop(store.unmount(thing.clone(), UnmountMode::Plain));
        }
        match thing {
            ThingId::Layer(id) => drop(store.layer_chain(id)),
            ThingId::Image(id) => {
                drop(store.image_directory(id));
                drop(store.image_run_directory(id));
                let to = Reference::new(Transport::Layout, &out, Some("x")).unwrap();
                drop(store.save(id, &to, &SaveOptions::default()));
                drop(store.create_container(id, &ContainerOptions::default()));
            }
            ThingId::Container(id) => {
                drop(store.write_container_file(id, "file", b"y"));
                drop(store.write_container_run_file(id, "file", b"y"));
                drop(store.commit(id, &CommitOptions::default()));
            }
        }
    }
    drop((store.status(), store.leases(), store.gc(true)));
    if let Ok(mut watch) = store.watch(&WatchOptions::oldest()) {
        while let Ok(Some(_)) = watch.try_next() {}
    }
    std::fs::remove_dir_all(out).ok();
}

/// What a repair left or made is like what there is of any other store.
fn take_away(store: &Store) {
    let mut watch = store.watch(&WatchOptions::oldest()).unwrap();
    while watch.try_next().unwrap().is_some() {}
    store.forget_transient().unwrap();
    for container in store.containers().unwrap() {
        store.remove_container(&container.id).unwrap();
    }
    for image in store.images().unwrap() {
        store.remove_image(&image.id).unwrap();
    }
    store.drop_blobs(None).unwrap();
    store.gc(false).unwrap();
    assert_eq!(findings(store), [""; 0]);
}
