//! Stores whose tests are not about the disk.

use std::path::Path;

use layerstore::{
    CheckLevel, CheckOptions, Layer, MountOptions, Store, StoreOptions, SyncMode, ThingId, UnmountMode,
};

use super::Dir;
use super::tree::{Kind, Tree};

/// Opens the store of a directory, or makes it: without syncs and without a reserve.
pub fn open(dir: &Dir) -> Store {
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    Store::open(&options).unwrap()
}

/// Nothing is damaged, and nothing lies about.
#[track_caller]
pub fn assert_whole(store: &Store) {
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    let report = store.check(&options).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let garbage = store.gc(true).unwrap();
    assert!(garbage.removed.is_empty(), "{garbage:?}");
}

/// What a layer changes, as lines.
pub fn changes(store: &Store, layer: &Layer) -> Vec<String> {
    store.changes(layer).unwrap().iter().map(ToString::to_string).collect()
}

/// A layer's tar.
pub fn exported(store: &Store, layer: &Layer) -> Vec<u8> {
    let mut out = Vec::new();
    store.diff(layer, &mut out).unwrap();
    out
}

/// What a tree shows, but for the times of directories.
pub fn shown(at: &Path) -> Tree {
    let mut tree = Tree::scan(at);
    for node in tree.nodes.values_mut().filter(|node| node.kind == Kind::Directory) {
        node.mtime = (0, 0);
    }
    tree
}

/// What the store's mount of a thing shows, but for the times of directories.
pub fn shown_by_store(store: &Store, what: impl Into<ThingId>) -> Tree {
    let what = what.into();
    let mut options = MountOptions::default();
    options.read_only = true;
    let mount = store.mount(what.clone(), &options).unwrap();
    let tree = shown(mount.path());
    store.unmount(what, UnmountMode::Plain).unwrap();
    tree
}
