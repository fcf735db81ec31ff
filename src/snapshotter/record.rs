//! A snapshot as a layer: its key is a name, its kind and times are flags, its labels are labels.
//!
//! | of the snapshot | in the layer's record |
//! | --- | --- |
//! | key or name, kind | a name and a flag: see `layer/snapshot.rs` |
//! | created, updated | the flags `snapshot.created` and `snapshot.updated`: nanoseconds since 1970 |
//! | labels | the labels; one without a value is none |
//! | parent | the layer below |

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Info, Kind};
use crate::error::SnapshotError;
use crate::layer::{Layer, SNAPSHOT_KIND, snapshot_key, snapshot_name};
use crate::types::{LayerId, Name};

const CREATED: &str = "snapshot.created";
pub(super) const UPDATED: &str = "snapshot.updated";

/// A layer that is a snapshot.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) layer: LayerId,
    pub(super) parent: Option<LayerId>,
    pub(super) is_sealed: bool,
    /// Without the name of its parent, which is in another record.
    pub(super) info: Info,
}

impl Record {
    /// The snapshot that a layer is.
    pub(super) fn of(layer: Layer) -> Option<Record> {
        if layer.image_store.is_some() {
            return None;
        }
        let name = layer.names.iter().find_map(|name| snapshot_key(name.as_str()))?;
        let flag = |wanted: &str| layer.flags.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let kind = Kind::from_word(flag(SNAPSHOT_KIND)?.trim_matches('"'))?;
        let created = flag(CREATED).and_then(|value| time(value)).unwrap_or_else(|| {
            let since = Duration::from_secs(u64::try_from(layer.created.seconds).unwrap_or_default());
            UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
        });
        let updated = flag(UPDATED).and_then(|value| time(value)).unwrap_or(created);
        let labels = layer.labels.into_iter().collect();
        Some(Record {
            layer: layer.id,
            parent: layer.parent,
            is_sealed: layer.tree.is_some(),
            info: Info { kind, name, parent: None, labels, created, updated },
        })
    }
}

/// The flags of a snapshot that is made now.
pub(super) fn flags(kind: Kind) -> Vec<(String, String)> {
    let now = nanoseconds(SystemTime::now());
    let flag = |name: &str, value: String| (name.to_owned(), value);
    vec![flag(SNAPSHOT_KIND, format!("\"{kind}\"")), flag(CREATED, now.clone()), flag(UPDATED, now)]
}

/// A time as the value of a flag.
pub(super) fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

fn time(value: &str) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_nanos(value.parse().ok()?))
}

/// Labels as a record has them. One without a value is none: that is how a single label is taken away.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let kept = labels.iter().filter(|(_, value)| !value.is_empty());
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The layer's name for a key.
///
/// Returns [`SnapshotError::InvalidArgument`] if it is empty, or too long for a name.
pub(super) fn name_of(key: &str) -> Result<Name, SnapshotError> {
    let invalid =
        |reason: String| SnapshotError::InvalidArgument { what: "the key", value: key.to_owned(), reason };
    if key.is_empty() {
        return Err(invalid("it is empty".to_owned()));
    }
    let name = snapshot_name(key);
    name.parse().map_err(|_| invalid("it is longer than the name of a layer can be, 1015 bytes".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_no_name_is_refused() {
        for bad in ["", &"k".repeat(1016)] {
            assert_eq!(name_of(bad).unwrap_err().code(), crate::error::Code::InvalidArgument);
        }
        assert!(name_of(&"k".repeat(1015)).is_ok());
    }
}
