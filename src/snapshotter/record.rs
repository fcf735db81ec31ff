//! A snapshot as a layer: its key is a name, its kind and times are flags, its labels are labels.
//!
//! | of the snapshot | in the layer's record |
//! | --- | --- |
//! | key or name | the name `snapshot:` and the key; bytes that a name cannot have, and `%`, as `%` and two digits |
//! | kind | the flag `snapshot.kind`: `"active"`, `"view"` or `"committed"` |
//! | created, updated | the flags `snapshot.created` and `snapshot.updated`: nanoseconds since 1970 |
//! | labels | the labels; one without a value is none |
//! | parent | the layer below |
//!
//! A layer without such a name and such a kind is no snapshot, whatever else it is.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Info, Kind};
use crate::error::SnapshotError;
use crate::layer::Layer;
use crate::types::{LayerId, Name};

const PREFIX: &str = "snapshot:";
const KIND: &str = "snapshot.kind";
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
        let name = layer.names.iter().find_map(|name| key_of(name.as_str()))?;
        let flag = |wanted: &str| layer.flags.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let kind = Kind::from_word(flag(KIND)?.trim_matches('"'))?;
        let created = flag(CREATED).and_then(|value| time(value)).unwrap_or_else(|| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(layer.created.seconds).unwrap_or_default())
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
    vec![flag(KIND, format!("\"{kind}\"")), flag(CREATED, now.clone()), flag(UPDATED, now)]
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
    let mut name = PREFIX.to_owned();
    let last = key.chars().count().saturating_sub(1);
    for (at, character) in key.chars().enumerate() {
        if character == '%' || character.is_control() || (at == last && character.is_whitespace()) {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                name.push_str(&format!("%{byte:02x}"));
            }
        } else {
            name.push(character);
        }
    }
    name.parse().map_err(|_| invalid("it is longer than the name of a layer can be, 1015 bytes".to_owned()))
}

/// The key that a layer's name is for.
fn key_of(name: &str) -> Option<String> {
    let mut left = name.strip_prefix(PREFIX)?;
    let mut key = Vec::with_capacity(left.len());
    while let Some((plain, escaped)) = left.split_once('%') {
        key.extend(plain.bytes());
        key.push(u8::from_str_radix(escaped.get(..2)?, 16).ok()?);
        left = escaped.get(2..)?;
    }
    key.extend(left.bytes());
    String::from_utf8(key).ok().filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_is_a_name_and_back() {
        for key in [
            "default/12/sha256:0123",
            "a",
            " a ",
            "\n",
            "50%",
            "%41",
            "a\u{7f}b",
            "\u{e4}\u{2003}",
            "\t\u{85}",
        ] {
            assert_eq!(key_of(name_of(key).unwrap().as_str()).as_deref(), Some(key), "{key:?}");
        }
        for bad in ["", &"k".repeat(1016)] {
            assert_eq!(name_of(bad).unwrap_err().code(), crate::error::Code::InvalidArgument);
        }
        assert!(name_of(&"k".repeat(1015)).is_ok());
    }

    #[test]
    fn other_names_are_no_keys() {
        for name in
            ["base", "snapshot", "snapshot:", "snapshot:%", "snapshot:%4", "snapshot:%zz", "snapshot:%ff"]
        {
            assert_eq!(key_of(name), None, "{name}");
        }
    }
}
