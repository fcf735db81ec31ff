mod race;

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::disk::open_below;
use crate::store::{StoreOptions, SyncMode};

/// A tar with one member, of a directory (a path that ends with a slash) or a file.
fn tar_of(path: &str, mode: u32) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(0);
    if path.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    tar.append_data(&mut header, path, std::io::empty()).unwrap();
    tar.into_inner().unwrap()
}

/// A compressed layer, whose blob stands in a file of `dir`.
fn layer(dir: &Path, tar: &[u8]) -> LayerImport<'static> {
    let diff_id = DiffId(Digest::sha256(tar));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    let blob = encoder.finish().unwrap();
    let path = dir.join(diff_id.0.hex());
    std::fs::write(&path, &blob).unwrap();
    let (digest, size) = (Digest::sha256(&blob), blob.len() as u64);
    LayerImport {
        diff_id,
        blob: Some(LayerBlob { digest, size, media_type: String::new() }),
        chunked: None,
        toc_digest: None,
        unpacked_size: None,
        keep_blob: true,
        open: Box::new(move || {
            let file = File::open(&path).unwrap();
            let extent = Some((file.try_clone().unwrap(), 0, size));
            Ok(BlobInput { reader: Box::new(file), extent })
        }),
    }
}

fn image(layers: Vec<LayerImport<'_>>) -> ImageImport<'_> {
    let digits: String = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    ImageImport {
        id: Digest::sha256(digits.as_bytes()).hex().parse().unwrap(),
        references: Vec::new(),
        names: Vec::new(),
        created: Timestamp::default(),
        layers,
        digests: Vec::new(),
        items: Vec::new(),
        first_items: Vec::new(),
        keep_finished: None,
        progress: None,
    }
}

fn open(dir: &Path) -> Store {
    Store::open(&StoreOptions::at(dir.join("store")).sync(SyncMode::Off).reserve(0)).unwrap()
}

/// A shell gives a process 1024 descriptors.
#[test]
fn a_deep_image_needs_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layers = (0..500).map(|n| layer(dir.path(), &tar_of(&format!("file-{n}"), 0o644))).collect();
    let (before, most) = (open_below(dir.path()), AtomicUsize::new(0));
    let progress = |progress: &Progress<'_>| {
        if matches!(progress, Progress::Syncing) {
            most.store(open_below(dir.path()), Ordering::Relaxed);
        }
    };
    let import = ImageImport { progress: Some(&progress), ..image(layers) };
    store.import_image(&import).unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!((before + 1..before + 50).contains(&most), "{before} {most}");
    let left = store.gc(true).unwrap();
    assert!(left.removed.is_empty(), "{left:?}");
}

#[test]
fn a_panic_of_the_progress_function_reaches_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layers: Vec<_> = (0..4).map(|n| layer(dir.path(), &tar_of(&format!("file-{n}"), 0o644))).collect();
    let lowest = layers[0].blob.as_ref().unwrap().digest.clone();
    // The other workers wait for this layer.
    let progress = |progress: &Progress<'_>| match progress {
        Progress::LayerDone { blob } if **blob == lowest => panic!("by the caller"),
        _ => {}
    };
    let import = ImageImport { progress: Some(&progress), ..image(layers) };
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.import_image(&import)));
    assert!(result.is_err());
    assert!(store.gc(true).unwrap().removed.is_empty());
}

/// A root directory that was inherited from the layer below is not passed on to where nothing lies below.
#[test]
fn an_inherited_root_stays_with_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (base, top) = (tar_of("./", 0o700), tar_of("file", 0o644));
    let upper = store.import_image(&image(vec![layer(dir.path(), &base), layer(dir.path(), &top)])).unwrap();
    let alone = store.import_image(&image(vec![layer(dir.path(), &top)])).unwrap();
    let tree = |image: &Image| store.layer(image.top_layer.as_ref().unwrap().as_str()).unwrap().tree;
    let fresh = open(&dir.path().join("fresh"));
    let expected = fresh.import_image(&image(vec![layer(dir.path(), &top)])).unwrap();
    let expected = fresh.layer(expected.top_layer.unwrap().as_str()).unwrap().tree;
    assert_ne!(tree(&upper), tree(&alone));
    assert_eq!(tree(&alone), expected);
}

/// How many layers of an image are unpacked.
fn unpacked(store: &Store, layers: Vec<LayerImport<'_>>) -> usize {
    let started = AtomicUsize::new(0);
    let progress = |progress: &Progress<'_>| {
        if matches!(progress, Progress::LayerStarted { .. }) {
            started.fetch_add(1, Ordering::Relaxed);
        }
    };
    store.import_image(&ImageImport { progress: Some(&progress), ..image(layers) }).unwrap();
    started.load(Ordering::Relaxed)
}

fn entries(store: &Store, name: &str) -> usize {
    std::fs::read_dir(store.root().join(name)).unwrap().count()
}

/// A few kilobytes would name a layer thousands of times.
#[test]
fn a_layer_that_is_named_again_is_unpacked_once() {
    // The archive says what the root is; it does not; it does not say what another directory is, either.
    for tar in [tar_of("./", 0o700), tar_of("file", 0o644), tar_of("a/b/file", 0o644)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let again = || (0..40).map(|_| layer(dir.path(), &tar)).collect::<Vec<_>>();
        assert_eq!(unpacked(&store, again()), 1);
        assert_eq!((entries(&store, "blobs"), entries(&store, "diffs")), (1, 1));
        assert_eq!(store.layers().unwrap().len(), 40);
        for found in store.layers().unwrap() {
            let mut out = Vec::new();
            store.diff(&found, &mut out).unwrap();
            assert_eq!(out, tar);
        }
        assert!(store.gc(true).unwrap().removed.is_empty());
        let damages = store.check(&crate::CheckOptions::default()).unwrap();
        assert!(damages.is_clean(), "{damages:?}");
        let top = store.images().unwrap().remove(0);
        store.remove_image(&top.id).unwrap();
        assert_eq!((entries(&store, "blobs"), entries(&store, "diffs")), (0, 0));
    }
}

/// What lies below makes another tree of the same archive.
#[test]
fn a_layer_that_is_named_again_has_the_directories_of_those_below() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = tar_of("a/file", 0o644);
    let [open_to_all, own] = [0o755, 0o700].map(|mode| tar_of("a/", mode));
    let tars = [&open_to_all, &file, &own, &file, &open_to_all, &file, &own, &file];
    let layers = || tars.iter().map(|tar| layer(dir.path(), tar)).collect::<Vec<_>>();
    // Each directory by itself, and the file once for each.
    assert_eq!(unpacked(&store, layers()), 4);
    // As if each were unpacked.
    let each = open(&dir.path().join("each"));
    for count in 1..=tars.len() {
        each.import_image(&image(layers().into_iter().take(count).collect())).unwrap();
    }
    let trees = |store: &Store| {
        let mut trees: Vec<_> =
            store.layers().unwrap().into_iter().map(|layer| (layer.id.to_string(), layer.tree)).collect();
        trees.sort();
        trees
    };
    assert_eq!(trees(&store), trees(&each));
}

/// A blob that has to be unpacked again brings nothing that was not counted.
#[test]
fn a_layer_that_is_unpacked_again_expands_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let granted = |floor: u64| {
        let place = dir.path().join(floor.to_string());
        let limits = crate::Limits::default().with("expansion_floor", floor).unwrap();
        let options = StoreOptions::at(place).sync(SyncMode::Off).reserve(0).limits(limits);
        let (file, own) = (tar_of("a/file", 0o644), tar_of("a/", 0o700));
        let layers = [&file, &own, &file].map(|tar| layer(dir.path(), tar)).into();
        Store::open(&options).unwrap().import_image(&image(layers)).map(drop)
    };
    let length = tar_of("a/file", 0o644).len() as u64;
    granted(length).unwrap();
    let error = granted(length - 1).unwrap_err();
    assert_eq!(error.limit().unwrap().limit, crate::Limit::Expansion, "{error:?}");
}
