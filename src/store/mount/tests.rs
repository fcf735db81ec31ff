//! Mounts of a store on kernels that are older than this one, as far as that can be played.

use super::*;
use crate::overlay::{IdMapSupport, Probe};
use crate::store::Sweep;
use crate::store::{
    BlobInput, ContainerOptions, IdMapping, ImageImport, LayerImport, LayerOptions, StoreOptions,
};
use crate::sys::userns::IdMaps;
use crate::types::{DiffId, Digest, Timestamp, TreeDigest};

fn open(dir: &Path) -> Store {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off);
    Store::open(&options.reserve(0)).unwrap()
}

/// Lets the store remember of the kernel what `change` makes of it.
fn pretend(store: &Store, change: impl FnOnce(&mut Probe)) {
    let mut probe = store.probe().unwrap();
    change(&mut probe);
    store.run().unwrap().set_fact(probe::PROBE_FACT, &probe.to_string()).unwrap();
}

/// An image of as many layers, each with a file of its own and one that all have.
fn image(store: &Store, count: usize) -> crate::Image {
    let layers = (0..count).map(|number| {
        let mut tar = tar::Builder::new(Vec::new());
        for path in [format!("own{number}"), "all".to_owned()] {
            let content = number.to_string();
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        LayerImport {
            diff_id: DiffId(Digest::sha256(&tar)),
            blob: None,
            chunked: None,
            toc_digest: None,
            unpacked_size: None,
            keep_blob: false,
            open: Box::new(move || {
                Ok(BlobInput { reader: Box::new(std::io::Cursor::new(tar.clone())), extent: None })
            }),
        }
    });
    let import = ImageImport {
        id: Digest::sha256(b"image").hex().parse().unwrap(),
        names: vec!["image".parse().unwrap()],
        references: Vec::new(),
        created: Timestamp::default(),
        layers: layers.collect(),
        digests: Vec::new(),
        items: Vec::new(),
        keep_finished: None,
        progress: None,
    };
    store.import_image(&import).unwrap()
}

#[test]
fn every_interface_mounts_the_deepest_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    if !store.probe().unwrap().overlay {
        return eprintln!("skipped: no right to make overlay mounts here");
    }
    let image = image(&store, 499);
    let written = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    // Each has what the one after it has not.
    type Change = fn(&mut Probe);
    let interfaces: [(&str, Change); 3] = [
        ("descriptors", |_| {}),
        ("paths", |probe| probe.lower_descriptors = false),
        ("mount(2)", |probe| probe.lower_paths = false),
    ];
    for (name, without) in interfaces {
        pretend(&store, without);
        let rows = store.capabilities().unwrap();
        assert!(
            rows.iter().any(|row| row.name == "lower layers" && row.value.to_string() == name),
            "{rows:?}"
        );
        let mount = store.mount(&written, &MountOptions::default()).unwrap();
        let read = |path: &str| std::fs::read_to_string(mount.path().join(path)).unwrap();
        assert_eq!((read("own0"), read("own498"), read("all")), ("0".into(), "498".into(), "498".into()));
        std::fs::write(mount.path().join("own0"), "0").unwrap();
        std::fs::write(mount.path().join(name), name).unwrap();
        store.unmount(&written, UnmountMode::Plain).unwrap();
        let view = store.mount(&image, &MountOptions::default()).unwrap();
        assert!(view.path().join("own0").exists() && !view.path().join(name).exists());
        store.unmount(&image, UnmountMode::Plain).unwrap();
    }
    let entry = store.mount_entry(&written, &MountOptions::default());
    let what = "for a caller who mounts by itself, all paths are whole, and a page is too short";
    assert!(matches!(entry, Err(Error::Mount(MountError::OptionsTooLong { limit: 4095, .. }))), "{what}");
}

#[test]
fn a_kernel_that_maps_no_ids_gets_a_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    if !store.probe().unwrap().overlay {
        return eprintln!("skipped: no right to make overlay mounts here");
    }
    let image = image(&store, 1);
    let ids = IdMapping::Maps(IdMaps::both(["0:0:1".parse().unwrap()]));
    let options = ContainerOptions { ids, ..ContainerOptions::named("web") };
    let web = store.create_container(&image.id, &options).unwrap();
    let copies = || store.image("image").unwrap().mapped_top_layers.len();
    if store.probe().unwrap().id_maps != IdMapSupport::None {
        store.mount(&web, &MountOptions::default()).unwrap();
        store.unmount(&web, UnmountMode::Plain).unwrap();
        assert_eq!(copies(), 0);
    }
    pretend(&store, |probe| probe.id_maps = IdMapSupport::None);
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(std::fs::read(mount.path().join("own0")).unwrap(), b"0");
    assert_eq!(copies(), 1);
    // What is below a mount is not taken away.
    let copy = store.image("image").unwrap().mapped_top_layers[0].to_string();
    let refused = store.refuse_mounted_above(std::slice::from_ref(&copy));
    assert!(matches!(refused, Err(Error::InUse(InUseError::Mounted { .. }))), "{refused:?}");
    store.unmount(&web, UnmountMode::Plain).unwrap();
    store.refuse_mounted_above(&[copy]).unwrap();
}

/// A layer of its own, with its tree and the number of its directory.
fn sealed(store: &Store, content: &str) -> (LayerRecord, TreeDigest, u64) {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(content.len() as u64);
    tar.append_data(&mut header, "file", content.as_bytes()).unwrap();
    let layer = store.put_layer(None, &LayerOptions::default(), &*tar.into_inner().unwrap()).unwrap();
    let txn = store.begin_read().unwrap();
    let record = txn.layer_ref(layer.id.as_str()).unwrap();
    let number = txn.directory(&record).unwrap().number().unwrap();
    (record, layer.tree.unwrap(), number)
}

fn shared_files(store: &Store) -> Option<usize> {
    Some(std::fs::read_dir(store.root().join("content")).ok()?.count())
}

#[test]
fn files_named_by_hashes_go_with_the_last_layer_that_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let image = image(&store, 2);
    let (other, tree, number) = sealed(&store, "1");
    store.name_files(&store, &other, &tree, number).unwrap();
    let layers = store.begin_read().unwrap().chain(image.top_layer.as_ref().unwrap().as_str()).unwrap();
    for layer in &layers {
        let LayerContent::Sealed(tree) = layer.content else { panic!("{layer:?}") };
        let number = store.begin_read().unwrap().directory(layer).unwrap().number().unwrap();
        store.name_files(&store, layer, &TreeDigest(tree), number).unwrap();
    }
    assert_eq!(shared_files(&store), Some(2));
    store.remove_image(&image.id).unwrap();
    assert_eq!(shared_files(&store), Some(1), "the other layer has it");
    store.remove_layer(&other.id.parse().unwrap()).unwrap();
    assert_eq!(shared_files(&store), Some(0));
    assert!(store.gc(false).unwrap().removed.is_empty());
    assert_eq!(shared_files(&store), None);
}

#[test]
fn who_has_just_sealed_a_layer_leaves_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (layer, tree, number) = sealed(&store, "content");
    let data = store.name_files(&store, &layer, &tree, number).unwrap().unwrap();
    let work = store.layout().ensure_workdir(number).unwrap();
    Sweep::limited(&store, u64::MAX).unwrap().workdir(number);
    assert!(data.path.exists() && store.diff_path(number).exists() && !work.exists());
}

#[test]
fn a_layer_is_not_written_to_where_an_image_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (layer, tree, number) = sealed(&store, "content");
    // Made writable while its files are about to be named.
    let (faster, id) = (store.clone(), layer.id.clone());
    moment::meanwhile("files to be named", move || {
        faster.unseal(&id.parse().unwrap()).unwrap();
    });
    let missed = store.name_files(&store, &layer, &tree, number);
    assert!(missed.is_err() || number != written(&store, &layer.id), "{missed:?}");
    store.gc(false).unwrap();
    // Files named while it is about to be made writable.
    let (layer, tree, number) = sealed(&store, "other content");
    let (faster, record) = (store.clone(), layer.clone());
    moment::meanwhile("locked", move || {
        faster.name_files(&faster, &record, &tree, number).unwrap();
    });
    store.unseal(&layer.id.parse().unwrap()).unwrap();
    assert_ne!(written(&store, &layer.id), number);
    let file = std::fs::metadata(store.diff_path(written(&store, &layer.id)).join("file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::nlink(&file), 1);
}

/// The number of the directory of a layer that is written to.
fn written(store: &Store, layer: &str) -> u64 {
    let record = store.begin_read().unwrap().layer_ref(layer).unwrap();
    let LayerContent::Writable(number) = record.content else { panic!("{record:?}") };
    number
}
