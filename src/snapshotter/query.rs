//! What is known of snapshots, and their labels.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::SystemTime;

use super::filter::Filters;
use super::record::{self, Record};
use super::{Info, Snapshotter, not_found};
use crate::error::{Error, LookupError, SnapshotError};
use crate::layer::SNAPSHOT_PREFIX;
use crate::types::LayerId;

/// Where the changes of a snapshot are.
const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";

impl Snapshotter {
    /// What is known of a snapshot.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is none with this key or name.
    pub fn stat(&self, key: &str) -> Result<Info, SnapshotError> {
        let record = self.find(key)?;
        self.whole(record)
    }

    /// Changes the labels of a snapshot, and says what is known of it then. `labels.<label>` in `field_paths` is one label, which goes if
    /// `info` has none or an empty one; `labels`, or no path at all, are all of them. Nothing else of a snapshot can be changed:
    /// without paths, the rest of `info` is passed over.
    ///
    /// Returns [`SnapshotError::NotFound`] if there is no snapshot with the name in `info`, and [`SnapshotError::InvalidArgument`] if
    /// another field is named.
    pub fn update(&self, info: &Info, field_paths: &[&str]) -> Result<Info, SnapshotError> {
        let found = self.find(&info.name)?;
        for path in field_paths {
            if *path != "labels" && !path.starts_with("labels.") {
                return Err(SnapshotError::InvalidArgument {
                    what: "the field",
                    value: (*path).to_owned(),
                    reason: "only labels can be changed".to_owned(),
                });
            }
        }
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
        self.whole(updated?.ok_or_else(|| not_found(&info.name))?)
    }

    /// Shows the snapshots that one of the filters lets through, by name; without a filter, all. They are of one moment, and nothing is
    /// locked while they are looked at: `visit` may call everything. All are in memory until then, as the order is that of the names and a
    /// snapshot of the database would keep from reuse what others change meanwhile: some hundred bytes each, and their labels.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if a filter is none, and what `visit` returns, after which nothing more is
    /// shown.
    pub fn walk(
        &self,
        filters: &[&str],
        mut visit: impl FnMut(Info) -> Result<(), SnapshotError>,
    ) -> Result<(), SnapshotError> {
        let filters = Filters::parse(filters)?;
        for (info, directory) in self.all()? {
            if filters.let_through(&info) {
                visit(shown(info, directory))?;
            }
        }
        Ok(())
    }

    /// All snapshots, by name, with the directories that are to be shown.
    fn all(&self) -> Result<Vec<(Info, Option<PathBuf>)>, SnapshotError> {
        let mut records: Vec<(Record, Option<PathBuf>)> = if self.options.upperdir_label {
            let placed = self.store.layers_with_directories(SNAPSHOT_PREFIX, Record::of)?;
            placed.into_iter().map(|(record, directory)| (record, Some(directory))).collect()
        } else {
            let named = self.store.layers_named(SNAPSHOT_PREFIX)?;
            named.into_iter().filter_map(Record::of).map(|record| (record, None)).collect()
        };
        let names: HashMap<LayerId, String> =
            records.iter().map(|(record, _)| (record.layer.clone(), record.info.name.clone())).collect();
        records.sort_by(|(one, _), (other, _)| one.info.name.cmp(&other.info.name));
        let with_parent = |(record, directory): (Record, Option<PathBuf>)| {
            let parent = record.parent.as_ref().and_then(|parent| names.get(parent)).cloned();
            (Info { parent, ..record.info }, directory)
        };
        Ok(records.into_iter().map(with_parent).collect())
    }

    pub(super) fn find(&self, key: &str) -> Result<Record, SnapshotError> {
        self.lookup(key)?.ok_or_else(|| not_found(key))
    }

    pub(super) fn lookup(&self, key: &str) -> Result<Option<Record>, SnapshotError> {
        let Ok(name) = record::name_of(key) else { return Ok(None) };
        let layer = match self.store.layer(name.as_str()) {
            Err(Error::Lookup(_)) => return Ok(None),
            layer => layer?,
        };
        Ok(Record::of(layer).filter(|record| record.info.name == key))
    }

    /// All that is shown of a snapshot.
    fn whole(&self, record: Record) -> Result<Info, SnapshotError> {
        let parent = match &record.parent {
            // It cannot have gone while something stood on it.
            Some(parent) => match self.store.layer(parent.as_str()) {
                Err(Error::Lookup(_)) => return Err(not_found(&record.info.name)),
                layer => Record::of(layer?).map(|parent| parent.info.name),
            },
            None => None,
        };
        let directory = self.options.upperdir_label.then(|| self.directory(&record)).transpose()?;
        Ok(shown(Info { parent, ..record.info }, directory))
    }
}

/// A snapshot as it is shown: its directory is a label that is not kept.
fn shown(mut info: Info, directory: Option<PathBuf>) -> Info {
    if let Some(directory) = directory {
        info.labels.insert(UPPERDIR.to_owned(), directory.to_string_lossy().into_owned());
    }
    info
}
