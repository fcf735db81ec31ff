//! What the benchmarks share: a place to work in, and stores with something in them.
#![allow(dead_code, unused_imports, reason = "each benchmark uses a part of it")]

#[path = "../../tests/support/tar/mod.rs"]
pub mod tar;

use std::io::Write;
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{ContainerOptions, Image, Store, StoreOptions, SyncMode};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use tar::Member;

/// A temporary directory: below `LAYERSTORE_BENCH_DIR`, else on a tmpfs if there is one, so that a disk's moods do
/// not show. What syncing costs shows only on a disk.
pub fn place() -> tempfile::TempDir {
    let shared = PathBuf::from("/dev/shm");
    let parent = std::env::var_os("LAYERSTORE_BENCH_DIR").map(PathBuf::from);
    let parent = parent.unwrap_or_else(|| if shared.is_dir() { shared } else { std::env::temp_dir() });
    tempfile::Builder::new().prefix("layerstore-bench-").tempdir_in(parent).unwrap()
}

pub fn options(top: &Path) -> StoreOptions {
    StoreOptions::at(top.join("root")).run_root(top.join("run")).reserve(0)
}

/// A layout with one image, whose layers are these uncompressed tars.
pub fn write_layout(layout: &Path, tars: &[Vec<u8>]) {
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let kind = |what: &str| format!("application/vnd.oci.image.{what}");
    let put = |bytes: &[u8], media_type: String| {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len() })
    };
    let diff_ids: Vec<_> = tars.iter().map(|tar| put(tar, String::new())["digest"].clone()).collect();
    let layers: Vec<_> = tars
        .iter()
        .map(|tar| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            put(&encoder.finish().unwrap(), kind("layer.v1.tar+gzip"))
        })
        .collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = put(&serde_json::to_vec(&config).unwrap(), kind("config.v1+json"));
    let media_type = kind("manifest.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let manifest = put(&serde_json::to_vec(&manifest).unwrap(), media_type);
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

/// A layer of `count` files of `size` bytes each, in directories of a hundred.
pub fn many_files(count: usize, size: usize) -> Vec<u8> {
    let mut members = Vec::new();
    for number in 0..count {
        let directory = format!("dir{:04}", number / 100);
        if number % 100 == 0 {
            members.push(Member::directory(&directory));
        }
        let content: Vec<u8> = (0..size).map(|at| (at * 31 + number * 7 + at * number % 251) as u8).collect();
        members.push(Member::file(format!("{directory}/file{number:06}"), content));
    }
    tar::archive(&members)
}

/// Loads the image with this tag, or the only one.
pub fn load(store: &Store, layout: &Path, tag: Option<&str>, name: &str) -> Image {
    let reference = Reference::new(Transport::Layout, layout, tag).unwrap();
    let source = Source::open(&reference, store.root()).unwrap();
    store.load(&source, &LoadOptions::named(name)).unwrap()
}

/// A store with one image, and `count` containers of it: so with as many layers.
pub fn filled(top: &Path, count: usize) -> (Store, Image) {
    write_layout(&top.join("layout"), &[many_files(10, 100)]);
    let store = Store::open(&options(top).sync(SyncMode::Off)).unwrap();
    let image = load(&store, &top.join("layout"), None, "image");
    for number in 0..count {
        store.create_container(&image.id, &ContainerOptions::named(format!("container-{number}"))).unwrap();
    }
    (store, image)
}

/// The real image, if it was built: `LAYERSTORE_IMAGES`, else `target/images/debian`.
pub fn debian() -> Option<PathBuf> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/debian");
    let path = std::env::var_os("LAYERSTORE_IMAGES").map_or_else(built, PathBuf::from);
    path.join("stamp").is_file().then(|| path.join("gzip"))
}
