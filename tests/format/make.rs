//! Making the golden store: something of every table and of every kind of record, and in its records something of every field.
//!
//! It belongs to a user namespace with one id, so that every process may open it: root, and an ordinary user as root of a
//! namespace. So it lacks what only root outside of one can make: composefs images, which can be made anew, and the limits of
//! quotas, which are in the filesystem and in no file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use layerstore::snapshotter::{CommitOptions, Snapshotter, SnapshotterOptions};
use layerstore::{
    ContainerOptions, Digest, IdExtent, IdMapping, IdMaps, Image, ImageOptions, LayerOptions, MountOptions,
    NewItem, Store, UnmountMode,
};
use serde_json::json;

use super::describe::describe;
use super::{diff_directories, load, options};
use crate::additional::{Served, put};
use crate::support::oci::{self, Compression, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

/// Once, when the format is released, as an ordinary user:
/// `LAYERSTORE_GOLDEN=schema/golden/v1 unshare -Urm cargo test --test main -- --ignored makes_the_golden_store`.
#[test]
#[ignore = "makes the golden store of a new format"]
fn makes_the_golden_store() {
    let Some(target) = std::env::var_os("LAYERSTORE_GOLDEN").map(PathBuf::from) else { return };
    assert!(machine::in_user_namespace(), "run it with `unshare -Urm`");
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
    container.process_label = Some("system_u:system_r:container_t:s0".to_owned());
    container.volatile = true;
    let container = store.create_container(&image.id, &container).unwrap();
    store.write(|txn| txn.put_item(&container, "spec", b"{}")).unwrap();
    let after = diff_directories(&store);
    let upper = after.iter().find(|path| !before.contains(path)).unwrap();
    std::fs::write(upper.join("written"), "by the container").unwrap();

    let century = std::time::Duration::from_secs(100 * 365 * 24 * 60 * 60);
    store.lease(&"kept".parse().unwrap(), &image, century).unwrap();
    store.image_directory(&image.id).unwrap();
    store.write_container_file(&container.id, "sub/file", b"a caller's").unwrap();

    layer_with_everything(&store);
    snapshots(&store);
    mapped_copy(&dir, &image);
    let mut masked = LayerOptions::named("masked");
    masked.apply.toc_digest = Some(Digest::sha256(b"a table of contents"));
    let with_mask = Store::open(&options(&dir).force_mask(0o700).mount_program("/bin/true")).unwrap();
    let tar = archive(&[Member::directory("d").mode(0o1777), Member::file("d/f", b"masked").mode(0o4711)]);
    with_mask.put_layer(None, &masked, &*tar).unwrap();
    let served = Served::new(&dir, false);
    put(&served.open(&dir));

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

/// A layer of its own, writable, with all that its record can have.
fn layer_with_everything(store: &Store) {
    let extent = |inside, outside| IdExtent { inside, outside, count: 1000 };
    let mut layer = LayerOptions::with_id("everything".parse().unwrap());
    layer.names = vec!["of its own".to_owned()];
    layer.metadata = "a layer's metadata".to_owned();
    layer.flags = vec![("flag".to_owned(), "{}".to_owned())];
    layer.labels = vec![("label".to_owned(), "of a layer".to_owned())];
    layer.mount_label = Some("system_u:object_r:container_file_t:s0:c1".to_owned());
    layer.volatile = true;
    layer.uid_map = vec![extent(0, 100_000), extent(1000, 1000)];
    layer.gid_map = vec![extent(0, 200_000)];
    let base = store.create_layer(None, &layer).unwrap();

    let mut image = ImageOptions::named("by hand");
    image.id = Some("by-hand".parse().unwrap());
    image.names_history = vec!["called so elsewhere".to_owned()];
    image.top_layer = Some(base.id);
    image.digests = vec![Digest::sha256(b"given")];
    image.flags = vec![("flag".to_owned(), "2".to_owned())];
    image.labels = vec![("label".to_owned(), "of an image".to_owned())];
    let mut signed = NewItem::new("manifest-signed", b"signed");
    signed.digest = Some(Digest::sha256(b"what was signed"));
    image.items = vec![signed];
    store.create_image(&image).unwrap();
}

/// A snapshot of each kind, with a key that a name cannot have.
fn snapshots(store: &Store) {
    let snapshotter = Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap();
    let labels = BTreeMap::from([("containerd.io/gc.root".to_owned(), "1".to_owned())]);
    let mounts = snapshotter.prepare("extract", None, &labels).unwrap();
    std::fs::write(Path::new(&mounts[0].source).join("file"), "of a snapshot").unwrap();
    snapshotter.commit("default/1/sha256:base", "extract", &CommitOptions::default()).unwrap();
    snapshotter.prepare("100 % running", Some("default/1/sha256:base"), &labels).unwrap();
    snapshotter.view("looking", Some("default/1/sha256:base"), &BTreeMap::new()).unwrap();
}

/// A container with ids of its own, and the copy of its image that a kernel needs which maps none.
fn mapped_copy(dir: &Dir, image: &Image) {
    let store = Store::open(&options(dir).id_mapped_mounts(false)).unwrap();
    // The only id that there is.
    let own = vec![IdExtent { inside: 0, outside: 0, count: 1 }];
    let mut container = ContainerOptions::named("mapped");
    container.ids = IdMapping::Maps(IdMaps { uids: own.clone(), gids: own });
    let container = store.create_container(&image.id, &container).unwrap();
    store.mount(&container, &MountOptions::default()).unwrap();
    store.unmount(&container, UnmountMode::Plain).unwrap();
    assert_eq!(store.image(image.id.as_str()).unwrap().mapped_top_layers.len(), 1);
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
