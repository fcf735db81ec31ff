//! Stores whose tests are not about the disk.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use layerstore::{
    CheckLevel, CheckOptions, Error, Layer, MountError, MountOptions, Store, StoreOptions, SyncMode, ThingId,
    UnmountMode,
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

/// Unmounts what this process has read. A program that another thread has just started has what was open meanwhile until it runs, for which
/// a busy machine takes seconds.
fn unmount(store: &Store, what: &ThingId) {
    let begun = Instant::now();
    loop {
        match store.unmount(what.clone(), UnmountMode::Plain) {
            Err(Error::Mount(MountError::Busy { holders, .. }))
                if holders.is_empty() && begun.elapsed() < Duration::from_secs(30) =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            unmounted => {
                unmounted.unwrap();
                return;
            }
        }
    }
}

/// What the store's mount of a thing shows, but for the times of directories.
pub fn shown_by_store(store: &Store, what: impl Into<ThingId>) -> Tree {
    let what = what.into();
    let mut options = MountOptions::default();
    options.read_only = true;
    let mount = store.mount(what.clone(), &options).unwrap();
    let tree = shown(mount.path());
    unmount(store, &what);
    tree
}
