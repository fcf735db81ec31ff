//! Snapshots as containerd has them, on a store.
//!
//! The methods are those of containerd's interface `snapshots.Snapshotter`, and what they do, return and refuse is what its overlay
//! snapshotter does. Nothing is mounted here: who asks gets [`MountEntry`]s and mounts by himself.
//!
//! A snapshot is a layer of the store like any other: check, repair, backups, garbage collection and the command line know it
//! without knowing of snapshots. Its key is a name of the layer, the labels are its labels, the kind and the times are flags.
//! An *active* snapshot is a layer that is written to; a *committed* one is sealed, so it has a digest, is verified, and shares its
//! directory with equal layers; a *view* is an empty sealed layer, which stands for one that looks at what is below.
//!
//! # Who mounts
//!
//! The store sees its own mounts, and not those that others make of a [`MountEntry`]. So it takes every snapshot for mounted, and refuses
//! with [`InUseError::Snapshot`] what would take its files away, change or rename it by other means than
//! this module. What this module is asked for it does; that is left to its callers, as it is with containerd's own snapshotters:
//!
//! - commit an active snapshot when nothing writes to it any more. What is written meanwhile may be in it or not, and what is
//!   written later is found as damage. An equal layer that is there already keeps its directory, and the mount loses its own;
//! - remove a snapshot when it is not mounted any more.
//!
//! # Crashes
//!
//! Each method is one transaction, after which it has happened, and before which it has not: a process that is killed leaves at
//! the most a directory that no record names, which the next writer or [`cleanup`](Snapshotter::cleanup) removes. There is no state
//! besides the store, so nothing is lost with a process and nothing has to be loaded by the next.
//!
//! # Examples
//!
//! ```
//! # let dir = tempfile::tempdir().unwrap();
//! use layerstore::snapshotter::{CommitOptions, Kind, Snapshotter, SnapshotterOptions};
//! use layerstore::{Store, StoreOptions};
//!
//! let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
//! let snapshots = Snapshotter::new(store, SnapshotterOptions::default())?;
//! let mounts = snapshots.prepare("unpack base", None, &Default::default())?;
//! assert_eq!((mounts[0].kind.as_str(), mounts.len()), ("bind", 1));
//! std::fs::write(std::path::Path::new(&mounts[0].source).join("motd"), "hello\n").unwrap();
//! snapshots.commit("base", "unpack base", &CommitOptions::default())?;
//! assert_eq!(snapshots.stat("base")?.kind, Kind::Committed);
//! snapshots.walk(&["kind==active"], |info| panic!("{info:?}"))?;
//! # Ok::<(), layerstore::snapshotter::SnapshotError>(())
//! ```

use std::sync::Arc;

pub use crate::error::{Code, SnapshotError};
use crate::error::{Error, InUseError, LookupError};
use crate::store::{MountEntry, Removal, Store};
use crate::sys::moment;

mod commit;
mod create;
mod filter;
mod idmap;
mod info;
mod mounts;
mod options;
mod query;
mod record;
#[cfg(test)]
mod tests;
mod words;

use record::Record;

pub use info::{Info, Kind, Usage};
pub use options::{CommitOptions, SnapshotterOptions};

/// Snapshots in a store. It has no state of its own, so any number of them, in any number of processes, work on one store.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: Store,
    options: Arc<SnapshotterOptions>,
}

impl Snapshotter {
    /// Snapshots in `store`. Nothing is read or made.
    ///
    /// Returns [`SnapshotError::Setting`] if the store was opened with a setting that cannot hold for what others mount and write to:
    /// a preferred [`mount_program`](crate::StoreOptions::mount_program), [`force_mask`](crate::StoreOptions::force_mask) or
    /// [`use_composefs`](crate::StoreOptions::use_composefs). Returns what [`SnapshotterOptions::check`] does, and
    /// [`SnapshotError::InvalidArgument`] for a mount option that the kernel would not take with the attributes of this store.
    pub fn new(store: Store, options: SnapshotterOptions) -> Result<Self, SnapshotError> {
        options.check()?;
        if let Some((setting, reason)) = store.options().unfit_for_snapshots() {
            return Err(SnapshotError::Setting { setting, reason });
        }
        words::check_class(&options.mount_options, store.uses_user_attributes())?;
        Ok(Snapshotter { store, options: Arc::new(options) })
    }

    /// The snapshots in `store` to be listed and measured, whatever its settings: so nothing that hands out mounts is to be asked of it.
    pub fn to_look_at(store: Store) -> Self {
        Snapshotter { store, options: Arc::default() }
    }

    /// What a snapshot takes by itself. What is written to is measured; of committed ones it is known; a view takes nothing.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is none with this key or name.
    pub fn usage(&self, key: &str) -> Result<Usage, SnapshotError> {
        let record = self.find(key)?;
        if record.info.kind == Kind::View {
            return Ok(Usage::default());
        }
        let usage = self.store.layer_usage(&record.layer).map_err(|error| failed(error, key))?;
        Ok(Usage { inodes: usage.inodes, size: usage.total })
    }

    /// How an active snapshot or a view is mounted: always the same, whoever asks and how often.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is none with this key, and [`SnapshotError::FailedPrecondition`] if it is
    /// committed, or cannot be mounted: see [`prepare`](Self::prepare).
    pub fn mounts(&self, key: &str) -> Result<Vec<MountEntry>, SnapshotError> {
        self.mounts_of(&self.find(key)?)
    }

    /// Removes a snapshot that no other stands on. Its key is free at once; with
    /// [`async_remove`](SnapshotterOptions::async_remove) its files are [`cleanup`](Self::cleanup)'s.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is none with this key or name, or it has another since then, as it was committed, and
    /// [`SnapshotError::FailedPrecondition`] if another stands on it, a lease keeps it, it is mounted by the store, or the store is only
    /// read.
    pub fn remove(&self, key: &str) -> Result<(), SnapshotError> {
        let layer = self.find(key)?.layer;
        moment::pass("snapshot found");
        // By its name, as it may have been committed by another meanwhile.
        let removal = self.store.begin_removing_layer_named(&layer, &record::name_of(key)?);
        let end = if self.options.async_remove { Removal::leave } else { drop };
        removal.map(end).map_err(|error| failed(error, key))?;
        // It is gone, whatever becomes of a note that no other layer will ever have.
        if let Err(error) = self.store.forget_lent(layer.as_str()) {
            tracing::debug!(%error, key, "a note of a mount is left");
        }
        Ok(())
    }

    /// Deletes what asynchronous removals left, and what crashes left.
    ///
    /// Returns [`SnapshotError::Store`] if that cannot be found out. What cannot be deleted stays for the next time, such as a directory
    /// in which a filesystem is mounted: a warning has its path. It is not unmounted here, as it is not known whose it is.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        for left in self.store.gc(false)?.left {
            let error: &dyn std::error::Error = &left.error;
            tracing::warn!(path = %left.path.display(), error, "garbage cannot be removed");
        }
        Ok(())
    }

    /// Ends the use. Nothing is held that would have to be given back, so nothing happens, however often.
    pub fn close(&self) -> Result<(), SnapshotError> {
        Ok(())
    }
}

fn not_found(key: &str) -> SnapshotError {
    SnapshotError::NotFound { key: key.to_owned() }
}

fn exists(key: &str) -> SnapshotError {
    SnapshotError::AlreadyExists { key: key.to_owned() }
}

/// What a failure of the store means for a snapshot that is to stand on another, which may have gone meanwhile.
fn failed_above(error: Error, key: &str, parent: Option<&Record>) -> SnapshotError {
    match (&error, parent) {
        (Error::Lookup(LookupError::NotFound { key: missing, .. }), Some(parent))
            if missing == parent.layer.as_str() =>
        {
            not_found(&parent.info.name)
        }
        _ => failed(error, key),
    }
}

/// What a failure of the store means for a snapshot.
fn failed(error: Error, key: &str) -> SnapshotError {
    match error {
        Error::Lookup(LookupError::NotFound { .. }) => not_found(key),
        Error::InUse(error @ (InUseError::Busy { .. } | InUseError::Changed { .. })) => {
            SnapshotError::Store(error.into())
        }
        Error::InUse(error) => SnapshotError::FailedPrecondition {
            key: key.to_owned(),
            reason: format!("cannot be changed: {error}"),
        },
        error => error.into(),
    }
}
