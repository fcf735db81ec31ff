//! Stores of every format that was ever released open with this build, and say what they said.
//!
//! `schema/golden/v<format>/store.tar.zst` is a store, `expected.json` beside it all that it says. Neither is ever
//! changed; a new format adds a directory. [`makes_the_golden_store`] made them. The stores belong to a user
//! namespace with one id, so that every process may open them: root, and an ordinary user as root of a namespace.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{
    Algorithm, ContainerOptions, Error, Hasher, LayoutError, MetaError, Store, StoreOptions, SyncMode,
    ThingId, WatchOptions,
};
use layerstore_schema::header::{HEADER_KEY, Header, HeaderError};
use layerstore_schema::table;
use redb::{Builder, ConcurrencyMode, ReadableTable};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use serde_json::{Value, json};

use crate::support::oci::{self, Compression, Layer};
use crate::support::tar::Member;
use crate::support::{Dir, machine};

/// The directory with the golden store of a format.
fn golden(format: u32) -> PathBuf {
    machine::repository().join(format!("schema/golden/v{format}"))
}

fn options(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

/// Unpacks a golden store.
fn unpacked(format: u32) -> Dir {
    let dir = Dir::new("golden");
    let path = golden(format).join("store.tar.zst");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    unpack(&zstd::decode_all(&bytes[..]).unwrap(), dir.path());
    dir
}

/// Unpacks with everything that a layer's directory has; no tar program does that in every environment.
fn unpack(bytes: &[u8], top: &Path) {
    let mut archive = tar::Archive::new(bytes);
    let mut times = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = top.join(entry.path().unwrap());
        let mode = Mode::from_raw_mode(entry.header().mode().unwrap());
        let records: BTreeMap<String, Vec<u8>> =
            entry.pax_extensions().unwrap().map_or_else(BTreeMap::new, |list| {
                list.map(|record| record.unwrap())
                    .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                    .collect()
            });
        let kind = entry.header().entry_type();
        if kind.is_hard_link() {
            std::fs::hard_link(top.join(entry.link_name().unwrap().unwrap()), &path).unwrap();
            continue;
        } else if kind.is_dir() {
            std::fs::create_dir_all(&path).unwrap();
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(entry.link_name().unwrap().unwrap(), &path).unwrap();
        } else if kind.is_fifo() {
            rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        } else if kind.is_character_special() {
            // A whiteout, which everybody may make.
            rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, mode, 0).unwrap();
        } else {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            std::fs::write(&path, content).unwrap();
        }
        for (key, value) in &records {
            if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()).unwrap();
            }
        }
        if !kind.is_symlink() {
            rustix::fs::chmod(&path, mode).unwrap();
        }
        let mtime = records.get("mtime").map_or_else(
            || entry.header().mtime().unwrap().to_string(),
            |text| String::from_utf8(text.clone()).unwrap(),
        );
        times.push((path, mtime));
    }
    for (path, mtime) in times.iter().rev() {
        let (seconds, fraction) = mtime.split_once('.').unwrap_or((mtime, ""));
        let time = Timespec {
            tv_sec: seconds.parse().unwrap(),
            tv_nsec: format!("{fraction:0<9}").parse().unwrap(),
        };
        let both = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

/// All that a store says.
fn describe(store: &Store) -> Value {
    // In the boot in which the store was made they are the one, and ever after the other. Reading a layer verifies it.
    let status = store.status().unwrap();
    json!({
        "not_synced": status.unsynced + status.unverified,
        "uuid": store.uuid(),
        "layers": store.layers().unwrap().iter().map(|layer| describe_layer(store, layer)).collect::<Vec<_>>(),
        "images": store.images().unwrap().iter().map(|image| describe_image(store, image)).collect::<Vec<_>>(),
        "containers": store
            .containers()
            .unwrap()
            .iter()
            .map(|container| describe_container(store, container))
            .collect::<Vec<_>>(),
        "events": events(store),
        "leases": store.leases().unwrap().iter().map(describe_lease).collect::<Vec<_>>(),
    })
}

fn describe_lease(lease: &layerstore::Lease) -> Value {
    json!({
        "id": lease.id.as_str(),
        "things": lease.things.iter().map(|thing| [thing.kind().word(), thing.as_str()]).collect::<Vec<_>>(),
        "created": time(lease.created),
        "expires": time(lease.expires),
    })
}

fn describe_layer(store: &Store, layer: &layerstore::Layer) -> Value {
    let blob = |blob: &layerstore::LayerBlob| json!({ "digest": blob.digest.to_string(), "size": blob.size, "media_type": blob.media_type });
    json!({
        "id": layer.id.as_str(),
        "parent": layer.parent.as_ref().map(|parent| parent.as_str()),
        "names": texts(&layer.names),
        "metadata": layer.metadata,
        "created": time(layer.created),
        "tree": layer.tree.map(|tree| tree.to_string()),
        "diff_id": layer.diff_id.as_ref().map(|diff_id| diff_id.to_string()),
        "diff_size": layer.diff_size,
        "blobs": layer.blobs.iter().map(blob).collect::<Vec<_>>(),
        "flags": layer.flags,
        "labels": layer.labels,
        "content_bytes": layer_size(store, layer),
        "items": items(store, layer),
        "changes": changes(store, layer),
        "export": layer.tree.map(|_| exported(store, layer)),
    })
}

fn describe_image(store: &Store, image: &layerstore::Image) -> Value {
    json!({
        "id": image.id.as_str(),
        "names": texts(&image.names),
        "names_history": texts(&image.names_history),
        "metadata": image.metadata,
        "created": time(image.created),
        "top_layer": image.top_layer.as_ref().map(|layer| layer.as_str()),
        "digests": texts(&image.digests),
        "flags": image.flags,
        "labels": image.labels,
        "items": items(store, image),
    })
}

fn describe_container(store: &Store, container: &layerstore::Container) -> Value {
    json!({
        "id": container.id.as_str(),
        "names": texts(&container.names),
        "image": container.image.as_ref().map(|image| image.as_str()),
        "layer": container.layer.as_str(),
        "metadata": container.metadata,
        "created": time(container.created),
        "flags": container.flags,
        "labels": container.labels,
        "mount_options": container.mount_options,
        "mount_label": container.mount_label,
        "items": items(store, container),
        "changes": changes(store, container),
    })
}

fn events(store: &Store) -> Value {
    let mut watch = store.watch(&WatchOptions::oldest()).unwrap();
    let events = std::iter::from_fn(|| watch.try_next().unwrap());
    let event = |event: layerstore::Event| {
        json!({
            "sequence": event.sequence,
            "time": time(event.time),
            "kind": event.kind.word(),
            "subject": [event.subject.word(), event.subject.to_string()],
            "names": texts(&event.names),
            "aspects": texts(&event.aspects),
        })
    };
    events.map(event).collect()
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn time(time: layerstore::Timestamp) -> Value {
    json!([time.seconds, time.nanoseconds])
}

/// The bytes of the content; how many the disk takes is the disk's business.
fn layer_size(store: &Store, layer: &layerstore::Layer) -> Option<u64> {
    store.layer_size(&layer.id).unwrap().map(|(_, content)| content)
}

fn items(store: &Store, of: impl Into<ThingId>) -> Value {
    let of = of.into();
    let list = store.items(&of).unwrap();
    let item = |item: &layerstore::Item| {
        let bytes = store.item(&of, &item.key).unwrap();
        assert_eq!(item.size, bytes.len() as u64);
        assert_eq!(item.digest.to_string(), oci::digest(&bytes));
        json!({ "key": item.key, "size": item.size, "digest": item.digest.to_string() })
    };
    list.iter().map(item).collect()
}

fn changes(store: &Store, of: impl Into<ThingId>) -> Value {
    store.changes(of).unwrap().iter().map(change).collect()
}

fn change(change: &layerstore::Change) -> String {
    format!("{:?} {}", change.kind, change.path.as_bytes().escape_ascii())
}

fn exported(store: &Store, layer: &layerstore::Layer) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    store.diff(layer, &mut hasher).unwrap();
    let digest = hasher.finish();
    assert_eq!(Some(&digest), layer.diff_id.as_ref().map(|diff_id| &diff_id.0));
    digest.to_string()
}

#[test]
fn the_store_of_format_1_says_what_it_said() {
    let dir = unpacked(1);
    let store = Store::open(&options(&dir).create(false)).unwrap();
    let expected: Value =
        serde_json::from_slice(&std::fs::read(golden(1).join("expected.json")).unwrap()).unwrap();
    let found = describe(&store);
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&found[key], value, "{key}");
    }
    // It is as alive as any other.
    let web = store.container("web").unwrap();
    store.write(|txn| txn.put_item(&web, "new", b"item")).unwrap();
    let image = store.image("golden").unwrap();
    store.create_container(&image.id, &ContainerOptions::named("second")).unwrap();
    assert_eq!(store.containers().unwrap().len(), 2);
    let other = oci::Image::new([Layer::new([Member::file("other", b"other")])]);
    load(&store, &other, &dir.join("other"), "other");
    assert_eq!(store.images().unwrap().len(), 2);
}

/// Changes the header of an unpacked store.
fn with_header(change: impl FnOnce(Header) -> Option<Vec<u8>>) -> Dir {
    let dir = unpacked(1);
    let path = dir.root().join("store.redb");
    let mut builder = Builder::new();
    builder.set_concurrency_mode(ConcurrencyMode::MultiWriter);
    let database = builder.create(path).unwrap();
    let txn = database.begin_write().unwrap();
    {
        let mut meta = txn.open_table(table::META).unwrap();
        let bytes = meta.get(HEADER_KEY).unwrap().unwrap().value().to_vec();
        match change(Header::decode(&bytes).unwrap()) {
            Some(bytes) => drop(meta.insert(HEADER_KEY, bytes.as_slice()).unwrap()),
            None => drop(meta.remove(HEADER_KEY).unwrap()),
        };
    }
    txn.commit().unwrap();
    dir
}

fn refusal(dir: &Dir) -> Error {
    Store::open(&options(dir)).expect_err("the store was opened")
}

#[test]
fn what_this_build_does_not_know_is_refused() {
    let flag = 1 << 40;
    let dir = with_header(|header| {
        Some(Header { incompatible: header.incompatible | flag, ..header }.encode().to_vec())
    });
    let error = refusal(&dir);
    assert!(
        matches!(&error, Error::Meta(MetaError::Format { source: HeaderError::Features(found), .. }) if *found == flag),
        "{error:?}"
    );
    let dir = with_header(|header| Some(Header { format: 2, ..header }.encode().to_vec()));
    let error = refusal(&dir);
    let newer = HeaderError::Newer { found: 2 };
    assert!(matches!(&error, Error::Meta(MetaError::Format { source, .. }) if *source == newer), "{error:?}");
    let dir = unpacked(1);
    let marker = dir.root().join("LAYERSTORE");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replacen("layerstore 1", "layerstore 2", 1)).unwrap();
    let error = refusal(&dir);
    assert!(matches!(error, Error::Layout(LayoutError::NewerFormat { found: 2, .. })), "{error:?}");
}

#[test]
fn a_damaged_header_is_named() {
    let error = refusal(&with_header(|header| Some(header.encode()[..40].to_vec())));
    let length = HeaderError::Length(40);
    assert!(
        matches!(&error, Error::Meta(MetaError::Format { source, .. }) if *source == length),
        "{error:?}"
    );
    let error = refusal(&with_header(|_| None));
    assert!(matches!(error, Error::Meta(MetaError::NoHeader { .. })), "{error:?}");
    let dir = unpacked(1);
    std::fs::write(dir.root().join("LAYERSTORE"), "not a marker\n").unwrap();
    let error = refusal(&dir);
    assert!(matches!(error, Error::Marker { .. }), "{error:?}");
}

#[test]
fn unknown_flags_that_do_no_harm_are_borne() {
    let dir = with_header(|header| Some(Header { compatible: 1 << 40, ..header }.encode().to_vec()));
    let store = Store::open(&options(&dir)).unwrap();
    store.create_container(None, &ContainerOptions::named("new")).unwrap();

    let dir =
        with_header(|header| Some(Header { read_only_compatible: 1 << 40, ..header }.encode().to_vec()));
    let store = Store::open(&options(&dir)).unwrap();
    assert_eq!(store.containers().unwrap().len(), 1);
    let before = diff_directories(&store).len();
    let error = store.create_container(None, &ContainerOptions::named("new")).unwrap_err();
    assert!(matches!(error, Error::Meta(MetaError::ReadOnly { .. })), "{error:?}");
    assert_eq!(store.containers().unwrap().len(), 1);
    assert_eq!(diff_directories(&store).len(), before, "nothing is left of it");
}

fn load(store: &Store, image: &oci::Image, layout: &Path, tag: &str) -> layerstore::Image {
    let written = image.write(layout, tag);
    let reference = Reference::new(Transport::Layout, &written.layout, Some(tag)).unwrap();
    let source = Source::open(&reference, store.root()).unwrap();
    store.load(&source, &LoadOptions::named(tag)).unwrap()
}

/// Makes the golden store of the current format, once, when the format is released: as an ordinary user,
/// `LAYERSTORE_GOLDEN=schema/golden/v1 unshare -Ur cargo test --test main -- --ignored makes_the_golden_store`.
#[test]
#[ignore = "makes the golden store of a new format"]
fn makes_the_golden_store() {
    let Some(target) = std::env::var_os("LAYERSTORE_GOLDEN").map(PathBuf::from) else { return };
    assert!(machine::in_user_namespace(), "run it with `unshare -Ur`");
    let dir = Dir::new("golden-new");
    let store = Store::open(&options(&dir)).unwrap();
    let image = load(&store, &golden_image(), &dir.join("layout"), "golden");
    store
        .write(|txn| {
            txn.add_name(&image, &"localhost/golden:1".parse()?)?;
            txn.set_metadata(&image, "an image's metadata")?;
            txn.put_item(&image, "small", b"an item")?;
            // Longer than a chunk.
            let noise: Vec<u8> = (0..300_000u32).map(|at| (at / 100) as u8).collect();
            txn.put_item(&image, "large", &noise)?;
            txn.put_item(&image, "empty", b"")?;
            let top = image.top_layer.clone().unwrap();
            txn.add_name(&top, &"a layer's name".parse()?)?;
            txn.put_item(&top, "of the layer", b"item")
        })
        .unwrap();
    let before = diff_directories(&store);
    let mut container = ContainerOptions::named("web");
    container.id = Some("0123456789abcdef".parse().unwrap());
    container.metadata = "a container's metadata".to_owned();
    container.flags = vec![("flag".to_owned(), "[1, true]".to_owned())];
    container.labels = vec![("label".to_owned(), "value".to_owned())];
    container.mount_options = vec!["nodev".to_owned()];
    container.mount_label = Some("system_u:object_r:container_file_t:s0".to_owned());
    let container = store.create_container(&image.id, &container).unwrap();
    store.write(|txn| txn.put_item(&container, "spec", b"{}")).unwrap();
    let after = diff_directories(&store);
    let upper = after.iter().find(|path| !before.contains(path)).unwrap();
    std::fs::write(upper.join("written"), "by the container").unwrap();

    let century = std::time::Duration::from_secs(100 * 365 * 24 * 60 * 60);
    store.lease(&"kept".parse().unwrap(), &image, century).unwrap();

    let described = describe(&store);
    drop(store);
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("expected.json"), serde_json::to_string_pretty(&described).unwrap() + "\n")
        .unwrap();
    let tar = std::process::Command::new("tar")
        .args(["--create", "--format=posix", "--sort=name", "--numeric-owner", "--owner=0", "--group=0"])
        .args(["--xattrs", "--xattrs-include=user.*", "--pax-option=delete=atime,delete=ctime"])
        .arg("--directory")
        .arg(dir.path())
        .arg("root")
        .output()
        .unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    std::fs::write(target.join("store.tar.zst"), zstd::encode_all(&tar.stdout[..], 19).unwrap()).unwrap();
}

fn diff_directories(store: &Store) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.root().join("diffs")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Every kind of entry that needs no privileges, in every compression.
fn golden_image() -> oci::Image {
    let base = Layer::new([
        Member::directory(".").mode(0o755),
        Member::directory("etc").xattr("user.a", b"1").mtime(1_000_000_000, 123_456_789),
        Member::file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n").xattr("user.empty", b""),
        Member::file("etc/old", b"goes in the next layer"),
        Member::hard_link("etc/shadow", "etc/passwd"),
        Member::symlink("link", "etc/passwd"),
        Member::fifo("fifo"),
        Member::file("setuid", b"#!/bin/sh\n").mode(0o4755),
        Member::directory("sticky").mode(0o1777),
        Member::file(b"odd\xff name", b"odd"),
        Member::file("ancient", b"").mtime(-1, 500_000_000),
        Member::directory("hidden"),
        Member::file("hidden/below", b"below"),
    ]);
    let sparse = Member::file("sparse", b"data")
        .pax("GNU.sparse.major", "0")
        .pax("GNU.sparse.minor", "1")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.size", "100000")
        .pax("GNU.sparse.map", "50000,4");
    let middle = Layer::new([
        Member::whiteout("etc/old"),
        Member::directory("hidden").xattr("user.overlay.origin", b"a layer's own"),
        Member::opaque("hidden"),
        Member::file("hidden/above", b"above"),
        // Not named by the archive: it inherits.
        Member::file("sticky/file", b"file"),
        Member::file("twice", b"first"),
        Member::file("twice", b"second"),
        sparse,
    ]);
    let mut unended = Member::file("end", b"no padding").to_bytes();
    unended.truncate(512 + 10);
    oci::Image::new([
        base,
        middle.compression(Compression::Zstd),
        Layer::from_tar(unended).compression(Compression::None),
    ])
    .config(|config| config["x-unknown"] = json!("kept"))
    .manifest(|manifest| manifest["annotations"] = json!({ "org.example": "kept" }))
}
