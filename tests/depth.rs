//! Stacks as deep as the kernel can mount.

use layerstore::oci::{LoadOptions, Source};
use layerstore::{
    ContainerOptions, Error, Limits, MountError, MountOptions, Store, StoreOptions, SyncMode, UnmountMode,
};

use crate::support::Dir;
use crate::support::machine;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;

/// Loads an image in which each of `depth` layers has a file of its own.
fn load(dir: &Dir, store: &Store, depth: usize) -> layerstore::Image {
    let layers = (0..depth).map(|number| {
        let name = format!("layer-{number}");
        Layer::new([Member::file(&name, name.as_bytes()), Member::file("last", name.as_bytes())])
    });
    let layout = dir.join(format!("layout-{depth}"));
    let written = Image::new(layers).write(&layout, "deep");
    let (reference, granted) = (written.reference().parse().unwrap(), store.options().granted());
    let source = Source::open_within(&reference, store.root(), granted).unwrap();
    store.load(&source, &LoadOptions::named(format!("deep-{depth}"))).unwrap()
}

fn store(dir: &Dir) -> Store {
    // As many as are granted without a word can be mounted.
    let limits = Limits::default().with("layers", 501).unwrap();
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off);
    Store::open(&options.limits(limits)).unwrap()
}

#[test]
fn five_hundred_layers_are_mounted() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("depth");
    let store = store(&dir);
    let image = load(&dir, &store, 500);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let mount = store.mount(&web, &MountOptions::default()).unwrap();
    for number in 0..500 {
        let name = format!("layer-{number}");
        assert_eq!(std::fs::read_to_string(mount.path().join(&name)).unwrap(), name);
    }
    assert_eq!(std::fs::read_to_string(mount.path().join("last")).unwrap(), "layer-499");
    std::fs::write(mount.path().join("layer-0"), "changed").unwrap();
    let changes: Vec<_> = store.changes(&web).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["C /layer-0"]);
    store.unmount(&web, UnmountMode::Plain).unwrap();
}

#[test]
fn one_layer_more_is_refused_by_name() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("too-deep");
    let store = store(&dir);
    let image = load(&dir, &store, 501);
    let web = store.create_container(&image.id, &ContainerOptions::named("web")).unwrap();
    let error = store.mount(&web, &MountOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Mount(MountError::TooManyLayers { limit: 500, .. })), "{error}");
}
