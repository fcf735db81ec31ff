//! Stores whose tests are not about the disk.

use layerstore::{CheckLevel, CheckOptions, Store, StoreOptions, SyncMode};

use super::Dir;

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
