//! The snapshotter, as containerd's own suite for snapshotters and the tests of its overlay snapshotter look at one.

use std::collections::BTreeMap;
use std::path::Path;

use layerstore::Store;
use layerstore::snapshotter::{Code, CommitOptions, Info, SnapshotError, Snapshotter, SnapshotterOptions};

use crate::support::mounter::Mounted;
use crate::support::tree::Tree;
use crate::support::{Dir, store};

mod damage;
mod guards;
mod labels;
mod mounts;
mod records;
mod settings;
mod sharing;
mod stores;
mod trees;

/// A store with snapshots.
struct Snapshots {
    dir: Dir,
    store: Store,
    snapshotter: Snapshotter,
}

impl std::ops::Deref for Snapshots {
    type Target = Snapshotter;

    fn deref(&self) -> &Snapshotter {
        &self.snapshotter
    }
}

impl Snapshots {
    fn new(name: &str) -> Self {
        Self::with(name, SnapshotterOptions::default())
    }

    fn with(name: &str, options: SnapshotterOptions) -> Self {
        let dir = Dir::new(name);
        let store = store::open(&dir);
        Self { snapshotter: Snapshotter::new(store.clone(), options).unwrap(), store, dir }
    }

    /// Mounts a snapshot.
    fn mount(&self, key: &str) -> Mounted {
        Mounted::new(&self.mounts(key).unwrap(), self.dir.join("mnt").join(key))
    }

    /// Prepares a snapshot, lets `write` change its files through a mount, and commits it.
    fn layer(&self, name: &str, parent: Option<&str>, write: impl FnOnce(&Path)) {
        let key = format!("{name}-active");
        self.prepare(&key, parent, &none()).unwrap();
        write(self.mount(&key).path());
        self.snapshotter.commit(name, &key, &CommitOptions::default()).unwrap();
    }

    /// What a view of a snapshot shows.
    fn tree(&self, name: &str) -> Tree {
        let key = format!("{name}-view");
        self.view(&key, Some(name), &none()).unwrap();
        let tree = Tree::scan(self.mount(&key).path());
        self.remove(&key).unwrap();
        tree
    }

    fn names(&self, filters: &[&str]) -> Vec<String> {
        let mut names = Vec::new();
        let mut note = |info: Info| {
            names.push(info.name);
            Ok(())
        };
        self.walk(filters, &mut note).unwrap();
        names
    }
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn assert_code<T: std::fmt::Debug>(result: Result<T, SnapshotError>, code: Code) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
}
