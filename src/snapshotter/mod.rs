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
//! The store sees its own mounts, and not those that others make of a [`MountEntry`]. It cannot refuse what would take the files
//! from below such a mount, so this is left to its callers, as it is with containerd's own snapshotters:
//!
//! - commit an active snapshot when nothing writes to it any more. What is written meanwhile may be in it or not, and what is
//!   written later is found as damage. An equal layer that is there already keeps its directory, and the mount loses its own;
//! - remove a snapshot when it is not mounted any more;
//! - by other means than this module, such as the command line: do not seal, fill or remove the layers of snapshots, nor mount active ones.
//!   Nothing of the store removes them by itself: a layer with a name is needed. A committed snapshot is
//!   [`read_only`](crate::Layer::read_only), so nobody unseals it.
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
//! let snapshots = Snapshotter::new(store, SnapshotterOptions::default());
//! let mounts = snapshots.prepare("unpack base", None, &Default::default())?;
//! assert_eq!((mounts[0].kind.as_str(), mounts.len()), ("bind", 1));
//! std::fs::write(std::path::Path::new(&mounts[0].source).join("motd"), "hello\n").unwrap();
//! snapshots.commit("base", "unpack base", &CommitOptions::default())?;
//! assert_eq!(snapshots.stat("base")?.kind, Kind::Committed);
//! snapshots.walk(&["kind==active"], |info| panic!("{info:?}"))?;
//! # Ok::<(), layerstore::snapshotter::SnapshotError>(())
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

pub use crate::error::{Code, SnapshotError};
use crate::error::{Error, InUseError, LookupError, MetaError};
use crate::store::{LayerOptions, MountEntry, Removal, SealOptions, Store};
use crate::sys::moment;
use crate::types::LayerId;

mod filter;
mod idmap;
mod info;
mod mounts;
mod options;
mod record;
#[cfg(test)]
mod tests;

use filter::Filters;
use idmap::Maps;
use record::Record;

pub use info::{Info, Kind, Usage};
pub use options::{CommitOptions, SnapshotterOptions};

/// Where the changes of a snapshot are.
const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";

/// The name that a snapshot is to be committed by, as who unpacks an image says when it prepares it.
const REFERENCE: &str = "containerd.io/snapshot.ref";

/// Snapshots in a store. It has no state of its own, so any number of them, in any number of processes, work on one store.
#[derive(Clone, Debug)]
pub struct Snapshotter {
    store: Store,
    options: Arc<SnapshotterOptions>,
}

impl Snapshotter {
    /// Snapshots in `store`. Nothing is read or made.
    pub fn new(store: Store, options: SnapshotterOptions) -> Self {
        Snapshotter { store, options: Arc::new(options) }
    }

    /// What is known of a snapshot.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is none with this key or name.
    pub fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        let record = self.find(key)?;
        self.with_parent(record.clone()).and_then(|info| self.shown(info, &record))
    }

    /// Changes the labels of a snapshot, and says what is known of it then. `labels.<label>` in `field_paths` is one label, which goes if
    /// `info` has none or an empty one; `labels`, or no path at all, are all of them. Nothing else of a snapshot can be changed:
    /// without paths, the rest of `info` is passed over.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if another field is named, and [`SnapshotError::NotFound`] if there is no
    /// snapshot with the name in `info`.
    pub fn update(&self, info: &Info, field_paths: &[&str]) -> Result<Info, SnapshotError> {
        for path in field_paths {
            if *path != "labels" && !path.starts_with("labels.") {
                return Err(SnapshotError::InvalidArgument {
                    what: "the field",
                    value: (*path).to_owned(),
                    reason: "only labels can be changed".to_owned(),
                });
            }
        }
        let found = self.find(&info.name)?;
        let updated = self.store.write(|txn| {
            let record = match txn.layer(&found.layer) {
                Err(Error::Lookup(LookupError::NotFound { .. })) => return Ok(None),
                layer => Record::of(layer?),
            };
            // It may have been committed meanwhile, by another name.
            let Some(mut record) = record.filter(|record| record.info.name == info.name) else {
                return Ok(None);
            };
            let mut labels = record.info.labels;
            for path in field_paths {
                match path.strip_prefix("labels.") {
                    Some(label) => {
                        let value = info.labels.get(label).cloned().unwrap_or_default();
                        labels.insert(label.to_owned(), value);
                    }
                    None => labels.clone_from(&info.labels),
                }
            }
            if field_paths.is_empty() {
                labels.clone_from(&info.labels);
            }
            if self.options.upperdir_label {
                // As it was shown: it is not kept.
                labels.remove(UPPERDIR);
            }
            let kept = record::labels(&labels);
            txn.set_labels(&record.layer, &kept)?;
            record.info.updated = SystemTime::now();
            txn.set_flag(&record.layer, record::UPDATED, &record::nanoseconds(record.info.updated))?;
            record.info.labels = kept.into_iter().collect();
            Ok(Some(record))
        });
        let record = updated?.ok_or_else(|| not_found(&info.name))?;
        self.with_parent(record.clone()).and_then(|info| self.shown(info, &record))
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
    /// committed.
    pub fn mounts(&self, key: &str) -> Result<Vec<MountEntry>, SnapshotError> {
        self.mounts_of(&self.find(key)?)
    }

    /// Makes a snapshot that is written to, above a committed one or above nothing, and says how it is mounted. Its root directory
    /// has the metadata of the one below, or the mode 0755; with id maps in the labels it belongs to the root user that they give.
    ///
    /// With [`adopt_references`](SnapshotterOptions::adopt_references) and the label `containerd.io/snapshot.ref` it is asked first
    /// whether there is a committed snapshot with the same label above the same parent: then nothing is made, and who unpacks an image
    /// need not unpack this layer, nor fetch it.
    ///
    /// Returns [`SnapshotError::AlreadyExists`] if the key is taken, or for the reference; [`SnapshotError::NotFound`] with the parent
    /// if there is none such; [`SnapshotError::InvalidArgument`] if it is not committed, the key is empty or too long, or an id map is
    /// none; and [`SnapshotError::FailedPrecondition`] if the store lies at a path with a comma, colon or backslash, which cannot be said
    /// in mount options, or is only read.
    pub fn prepare(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        self.create(Kind::Active, key, parent, labels)
    }

    /// Makes a snapshot that is looked at, and says how it is mounted.
    ///
    /// Returns what [`prepare`](Self::prepare) does, but for references.
    pub fn view(
        &self,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        self.create(Kind::View, key, parent, labels)
    }

    /// Makes a committed snapshot of an active one, whose key is free then. All its files are read, for their digests, and brought to
    /// the disk as far as [`SyncMode`](crate::SyncMode) says. One that was prepared above nothing can be moved onto a parent.
    ///
    /// Returns [`SnapshotError::AlreadyExists`] if the name is taken, [`SnapshotError::NotFound`] if there is no snapshot with this
    /// key, or no such parent, [`SnapshotError::FailedPrecondition`] if it is not active, or the parent not committed, and
    /// [`SnapshotError::InvalidArgument`] if it has another parent. Returns [`SnapshotError::Store`] if its files cannot be read; with
    /// [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted without syncs when the machine went down; and with
    /// [`Busy`](InUseError::Busy), whose code is [`Code::Unavailable`], while somebody else seals or fills it.
    pub fn commit(&self, name: &str, key: &str, options: &CommitOptions) -> Result<(), SnapshotError> {
        let new = record::name_of(name)?;
        if self.lookup(name)?.is_some() {
            return Err(exists(name));
        }
        let record = self.find(key)?;
        let precondition = |key: &str, reason: &str| SnapshotError::FailedPrecondition {
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        if record.info.kind != Kind::Active {
            return Err(precondition(key, "is not active"));
        }
        let mut moved_onto = None;
        if let Some(wanted) = options.parent.as_deref().filter(|parent| !parent.is_empty()) {
            let below = self.find(wanted)?;
            if below.info.kind != Kind::Committed {
                return Err(precondition(wanted, "is not committed, and nothing can stand on it"));
            }
            match &record.parent {
                None => moved_onto = Some(below),
                Some(held) if *held == below.layer => {}
                Some(_) => {
                    return Err(SnapshotError::InvalidArgument {
                        what: "the parent",
                        value: wanted.to_owned(),
                        reason: format!("the snapshot {key:?} was prepared above another one"),
                    });
                }
            }
        }
        let seal = SealOptions {
            names: None,
            labels: Some(record::labels(&options.labels)),
            flags: record::flags(Kind::Committed),
            parent: moved_onto.as_ref().map(|below| below.layer.clone()),
            read_only: true,
            // What else it is called was given by others, perhaps just now.
            renamed: Some((record::name_of(key)?.as_str().to_owned(), new.as_str().to_owned())),
        };
        moment::pass("snapshot found");
        match self.store.seal_with(&record.layer, &seal) {
            Ok(_) => Ok(()),
            Err(Error::Meta(MetaError::NameInUse { .. })) => Err(exists(name)),
            Err(Error::InUse(error)) => {
                // By another commit of it, which may be done.
                self.find(key)?;
                Err(failed(error.into(), key))
            }
            Err(error) => Err(failed_above(error, key, moved_onto.as_ref())),
        }
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
        let end = if self.options.async_remove { Removal::leave } else { Removal::finish };
        removal.map(end).map_err(|error| failed(error, key))?;
        // It is gone, whatever becomes of a note that no other layer will ever have.
        if let Err(error) = self.store.forget_lent(layer.as_str()) {
            tracing::debug!(%error, key, "a note of a mount is left");
        }
        Ok(())
    }

    /// Shows the snapshots that one of the filters lets through, by name; without a filter, all. They are of one moment, and nothing is
    /// locked while they are looked at: `visit` may call everything. All are in memory until then, as the order is that of the names and a
    /// snapshot of the database would keep from reuse what others change meanwhile: some hundred bytes each, and their labels. Where the changes are
    /// ([`upperdir_label`](SnapshotterOptions::upperdir_label)) is looked up when a snapshot is shown, and one that has gone by then is left
    /// out.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if a filter is none, and what `visit` returns, after which nothing more is
    /// shown.
    pub fn walk(
        &self,
        filters: &[&str],
        mut visit: impl FnMut(Info) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let filters = Filters::parse(filters)?;
        for (record, info) in self.all()? {
            if filters.let_through(&info) {
                match self.shown(info, &record) {
                    Err(SnapshotError::NotFound { .. }) => {}
                    info => visit(info?)?,
                }
            }
        }
        Ok(())
    }

    /// Deletes what asynchronous removals left, and what crashes left.
    ///
    /// Returns [`SnapshotError::Store`] if that cannot be found out. What cannot be deleted stays for the next time.
    pub fn cleanup(&self) -> Result<(), SnapshotError> {
        self.store.gc(false).map(drop).map_err(SnapshotError::from)
    }

    /// Ends the use. Nothing is held that would have to be given back, so nothing happens, however often.
    pub fn close(&self) -> Result<(), SnapshotError> {
        Ok(())
    }
}

impl Snapshotter {
    fn create(
        &self,
        kind: Kind,
        key: &str,
        parent: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<Vec<MountEntry>, SnapshotError> {
        let name = record::name_of(key)?;
        let parent = match parent.filter(|parent| !parent.is_empty()) {
            Some(parent) => {
                let found = self.find(parent)?;
                if found.info.kind != Kind::Committed {
                    return Err(SnapshotError::InvalidArgument {
                        what: "the parent",
                        value: parent.to_owned(),
                        reason: "it is not committed".to_owned(),
                    });
                }
                Some(found)
            }
            None => None,
        };
        let below = parent.as_ref().map(|parent| &parent.layer);
        let mut options = LayerOptions::named(name.as_str());
        options.root_owner = Maps::of(labels)?.map(|maps| maps.root()).transpose()?;
        options.labels = record::labels(labels);
        options.flags = record::flags(kind);
        options.read_only = kind == Kind::View;
        moment::pass("snapshot found");
        if let Some(reference) = labels.get(REFERENCE)
            && kind == Kind::Active
            && self.options.adopt_references
            && self.has_reference(reference, parent.as_ref())?
        {
            return Err(exists(reference));
        }
        let layer = match self.store.create_layer(below, &options) {
            Err(Error::Meta(MetaError::NameInUse { .. })) => return Err(exists(key)),
            layer => layer.map_err(|error| failed_above(error, key, parent.as_ref()))?,
        };
        let id = layer.id.clone();
        let mounts =
            Record::of(layer).ok_or_else(|| not_found(key)).and_then(|record| self.mounts_of(&record));
        if mounts.is_err()
            && let Err(error) = self.store.remove_layer(&id)
        {
            tracing::warn!(%error, key, "a snapshot that cannot be mounted is left");
        }
        mounts
    }

    /// Whether there is a committed snapshot for a reference above a parent: by the label, as containerd then looks for it by that alone.
    fn has_reference(&self, reference: &str, parent: Option<&Record>) -> Result<bool, SnapshotError> {
        let layers = match parent {
            Some(parent) => {
                let above = self.store.layers_above(&parent.layer);
                above.map_err(|error| failed(error, &parent.info.name))?
            }
            None => self.store.layers()?.into_iter().filter(|layer| layer.parent.is_none()).collect(),
        };
        let is_it = |Info { kind, labels, .. }: &Info| {
            *kind == Kind::Committed && labels.get(REFERENCE).is_some_and(|label| label == reference)
        };
        Ok(layers.into_iter().filter_map(Record::of).any(|record| is_it(&record.info)))
    }

    /// All snapshots, by name.
    fn all(&self) -> Result<Vec<(Record, Info)>, SnapshotError> {
        let mut records: Vec<Record> = self.store.layers()?.into_iter().filter_map(Record::of).collect();
        let names: HashMap<LayerId, String> =
            records.iter().map(|record| (record.layer.clone(), record.info.name.clone())).collect();
        records.sort_by(|one, other| one.info.name.cmp(&other.info.name));
        let with_parent = |record: Record| {
            let parent = record.parent.as_ref().and_then(|parent| names.get(parent)).cloned();
            let info = Info { parent, ..record.info.clone() };
            (record, info)
        };
        Ok(records.into_iter().map(with_parent).collect())
    }

    fn find(&self, key: &str) -> Result<Record, SnapshotError> {
        self.lookup(key)?.ok_or_else(|| not_found(key))
    }

    fn lookup(&self, key: &str) -> Result<Option<Record>, SnapshotError> {
        let Ok(name) = record::name_of(key) else { return Ok(None) };
        let layer = match self.store.layer(name.as_str()) {
            Err(Error::Lookup(_)) => return Ok(None),
            layer => layer?,
        };
        Ok(Record::of(layer).filter(|record| record.info.name == key))
    }

    fn with_parent(&self, record: Record) -> Result<Info, SnapshotError> {
        let parent = match &record.parent {
            // It cannot have gone while something stood on it.
            Some(parent) => match self.store.layer(parent.as_str()) {
                Err(Error::Lookup(_)) => return Err(not_found(&record.info.name)),
                layer => Record::of(layer?).map(|parent| parent.info.name),
            },
            None => None,
        };
        Ok(Info { parent, ..record.info })
    }

    /// A snapshot as it is shown, with labels that are not kept.
    fn shown(&self, mut info: Info, record: &Record) -> Result<Info, SnapshotError> {
        if self.options.upperdir_label {
            let directory = self.directory(record)?.to_string_lossy().into_owned();
            info.labels.insert(UPPERDIR.to_owned(), directory);
        }
        Ok(info)
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
