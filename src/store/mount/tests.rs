//! Mounts of a store on kernels that are older than this one, as far as that can be played.

use layerstore_schema::record::{LayerContent, LayerRecord};

use super::*;
use crate::error::MountError;
use crate::overlay::{IdMapSupport, Probe};
use crate::store::{
    BlobInput, ContainerOptions, IdMapping, ImageImport, LayerImport, LayerOptions, StoreOptions, Sweep,
    SyncMode,
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
        first_items: Vec::new(),
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

/// Whatever became of that namespace: a mount that is ended there counts nowhere.
#[test]
fn what_is_ended_elsewhere_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let layer = store.create_layer(None, &LayerOptions::default()).unwrap();
    let other = store.create_layer(None, &LayerOptions::default()).unwrap();
    let namespace = store.mount_namespace().unwrap() + 1;
    for mounted in [&layer, &other] {
        let target = store.mount_point(mounted.id.as_str()).unwrap();
        std::fs::create_dir_all(&target).unwrap();
        let target = target.to_string_lossy().into_owned();
        let record = MountRecord { count: 2, target, read_only: false };
        let run = store.run().unwrap();
        run.update_mount::<_, Error>(mounted.id.as_str(), namespace, |slot| {
            slot.record = Some(record);
            Ok(())
        })
        .unwrap();
    }
    store.end_mounts(&layer).unwrap();
    store.end_mounts(&layer).unwrap();
    let left = store.run().unwrap().mounts().unwrap();
    assert_eq!(left.iter().map(|mount| &*mount.layer).collect::<Vec<_>>(), [other.id.as_str()]);
    let points = RunLayout::layers_with_mount_points(&store.run_root()).unwrap();
    assert_eq!(points, [other.id]);
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
    // It is of what the image was then.
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(7);
    tar.append_data(&mut header, "own0", &b"changed"[..]).unwrap();
    let more = crate::store::ApplyOptions { change_under_others: true, ..Default::default() };
    store.apply_diff(image.top_layer.as_ref().unwrap(), &*tar.into_inner().unwrap(), &more).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    assert_eq!(std::fs::read(mount.path().join("own0")).unwrap(), b"changed");
    store.unmount(&web, UnmountMode::Plain).unwrap();
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
    // Who only looks takes nothing.
    let (left, tree, number) = sealed(&store, "left");
    let data = store.name_files(&store, &left, &tree, number).unwrap().unwrap();
    std::fs::remove_dir_all(&data.path).unwrap();
    std::fs::remove_file(store.diff_path(number).join("file")).unwrap();
    store.gc(true).unwrap();
    assert_eq!(shared_files(&store), Some(1));
    store.gc(false).unwrap();
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
    assert_eq!(shared_files(&store), Some(0), "what is written to has no other name");
    store.gc(false).unwrap();
    // Made writable when its files have names by their hashes, and these are not yet at their place.
    let (layer, tree, number) = sealed(&store, "more content");
    let (faster, id) = (store.clone(), layer.id.clone());
    moment::meanwhile("files named", move || {
        faster.unseal(&id.parse().unwrap()).unwrap();
    });
    let missed = store.name_files(&store, &layer, &tree, number);
    assert!(missed.is_err() && number != written(&store, &layer.id), "{missed:?}");
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

/// A store that waits for nobody, and a layer that is written to, with the number of its directory.
fn impatient(dir: &Path) -> (Store, LayerId, u64) {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off);
    let store = Store::open(&options.reserve(0).lock_timeout(Duration::ZERO)).unwrap();
    let layer =
        store.create_layer(None, &LayerOptions { volatile: true, ..LayerOptions::default() }).unwrap();
    let number = written(&store, layer.id.as_str());
    (store, layer.id, number)
}

#[test]
fn a_layer_that_somebody_seals_or_fills_is_not_mounted_for_writing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, layer, number) = impatient(dir.path());
    if !store.probe().unwrap().overlay {
        return eprintln!("skipped: no right to make overlay mounts here");
    }
    let lock = crate::disk::EntryLock::create(store.layout()).unwrap().name(number).unwrap();
    let busy = store.mount(&layer, &MountOptions::default());
    assert!(matches!(busy, Err(Error::InUse(InUseError::Busy { .. }))), "{busy:?}");
    assert!(store.run().unwrap().mounts().unwrap().is_empty(), "nothing stays noted of it");
    let view = MountOptions { read_only: true, ..MountOptions::default() };
    store.mount(&layer, &view).unwrap();
    store.unmount(&layer, UnmountMode::Plain).unwrap();
    lock.remove().unwrap();
    store.mount(&layer, &MountOptions::default()).unwrap();
    store.unmount(&layer, UnmountMode::Plain).unwrap();
}

#[test]
fn the_mark_of_a_mount_that_others_make_is_of_this_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, layer, number) = impatient(dir.path());
    let work = store.layout().ensure_workdir(number).unwrap();
    let record = store.begin_read().unwrap().layer_ref(layer.as_str()).unwrap();
    let mark = work.join("work/incompat/volatile");
    let told: [fn(&Store, &LayerId); 2] = [
        |store, layer| drop(store.mount_parts(layer, &MountOptions::default()).unwrap()),
        |store, layer| drop(store.mount_entry(layer, &MountOptions::default()).unwrap()),
    ];
    for tell in told {
        tell(&store, &layer);
        std::fs::create_dir_all(&mark).unwrap();
        store.refuse_in_doubt(&store, &record).unwrap();
        // Nobody was told since the mark is there.
        store.forget_lent(layer.as_str()).unwrap();
        tell(&store, &layer);
        let refused = store.refuse_in_doubt(&store, &record);
        assert!(matches!(refused, Err(Error::Mount(MountError::VolatileLeft { .. }))), "{refused:?}");
        std::fs::remove_dir_all(work.join("work")).unwrap();
    }
}

#[test]
fn what_is_below_a_mount_is_not_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    if !store.probe().unwrap().overlay {
        return eprintln!("skipped: no right to make overlay mounts here");
    }
    let image = image(&store, 2);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
    let bottom = [chain.last().unwrap().id.to_string()];
    store.refuse_mounted_above(&bottom).unwrap();
    store.mount(&web, &MountOptions::default()).unwrap();
    let refused = store.refuse_mounted_above(&bottom);
    assert!(matches!(refused, Err(Error::InUse(InUseError::Mounted { .. }))), "{refused:?}");
    store.unmount(&web, UnmountMode::Plain).unwrap();
}

#[test]
fn a_layer_that_goes_while_its_mount_is_planned_leaves_no_workdir() {
    let dir = tempfile::tempdir().unwrap();
    let (store, layer, number) = impatient(dir.path());
    let work = store.layout().entry_path(Subdirectory::Work, disk::DiffName::Entry(number));
    let (faster, id) = (store.clone(), layer.clone());
    moment::meanwhile("workdir to be made", move || faster.remove_layer(&id).unwrap());
    let gone = store.mount(&layer, &MountOptions::default());
    assert!(matches!(gone, Err(Error::Lookup(LookupError::NotFound { .. }))), "{gone:?}");
    assert!(!work.exists());

    // For who mounts by himself it is made in the planning.
    let record = store.create_layer(None, &LayerOptions::default()).unwrap();
    let (faster, id) = (store.clone(), record.id.clone());
    moment::meanwhile("workdir to be made", move || faster.remove_layer(&id).unwrap());
    let gone = store.mount_parts(&record, &MountOptions::default());
    assert!(matches!(gone, Err(Error::Lookup(LookupError::NotFound { .. }))), "{gone:?}");
    assert_eq!(std::fs::read_dir(store.root().join("work")).unwrap().count(), 0);
}

#[test]
fn a_store_that_allows_no_volatile_mounts_makes_none() {
    let dir = tempfile::tempdir().unwrap();
    let (store, layer, _) = impatient(dir.path());
    let strict = Store::open(&store.options().clone().volatile_mounts(false)).unwrap();
    let asked = MountOptions { options: vec!["volatile".to_owned()], ..MountOptions::default() };
    let is_volatile = |store: &Store, options: &MountOptions| {
        store.plan_mount(&layer.clone().into(), options).map(|planned| planned.volatile.is_some())
    };
    match is_volatile(&store, &MountOptions::default()) {
        Err(Error::Mount(why)) => return eprintln!("skipped: no mounts here: {why}"),
        planned => assert!(planned.unwrap(), "the layer is"),
    }
    assert!(!is_volatile(&strict, &MountOptions::default()).unwrap());
    assert!(!is_volatile(&strict, &asked).unwrap());
    let view = MountOptions { read_only: true, ..asked };
    assert!(!is_volatile(&store, &view).unwrap(), "nothing is written through a view");
}
