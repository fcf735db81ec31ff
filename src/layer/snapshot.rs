//! Which layers are snapshots: containerd's, which mounts them by itself.
//!
//! | of the snapshot | in the layer's record |
//! | --- | --- |
//! | key or name | the name `snapshot:` and the key; bytes that a name cannot have, and `%`, as `%` and two digits |
//! | kind | the flag `snapshot.kind`: `"active"`, `"view"` or `"committed"` |
//!
//! A layer without such a name and such a flag is no snapshot, whatever else it is.

use layerstore_schema::record::LayerRecord;

use super::Layer;
use crate::types::Name;

/// What the name of a snapshot begins with.
pub(crate) const SNAPSHOT_PREFIX: &str = "snapshot:";
/// The flag with the kind of a snapshot.
pub(crate) const SNAPSHOT_KIND: &str = "snapshot.kind";
const COMMITTED: &str = "committed";

/// A layer that is a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotName<'l> {
    /// The name that makes it one.
    pub(crate) name: &'l str,
    /// Its kind, as the flag has it.
    kind: &'l str,
}

impl<'l> SnapshotName<'l> {
    /// The snapshot that a record is of.
    pub(crate) fn of(layer: &'l LayerRecord) -> Option<Self> {
        let names = layer.names.iter().map(String::as_str);
        Self::find(names, &layer.flags).map(|(name, kind)| SnapshotName { name, kind })
    }

    /// The key by which containerd asks for it.
    pub(crate) fn key(self) -> String {
        snapshot_key(self.name).unwrap_or_default()
    }

    /// Whether containerd never mounts it itself, but only what stands on it.
    pub(crate) fn is_committed(self) -> bool {
        self.kind.trim_matches('"') == COMMITTED
    }

    fn find<'n>(
        mut names: impl Iterator<Item = &'n str>,
        flags: &'n [(String, String)],
    ) -> Option<(&'n str, &'n str)> {
        let name = names.find(|name| snapshot_key(name).is_some())?;
        let (_, kind) = flags.iter().find(|(flag, _)| flag == SNAPSHOT_KIND)?;
        Some((name, kind))
    }
}

impl Layer {
    /// The name that makes the layer a snapshot of containerd's: `snapshot:` and its key. `None` for every other layer.
    ///
    /// The store does not see how containerd mounts such a layer, so it refuses to change or remove it with
    /// [`InUseError::Snapshot`](crate::InUseError::Snapshot), but for who says this name:
    /// [`Store::begin_removing_layer_named`](crate::Store::begin_removing_layer_named) and
    /// [`SealOptions::renamed`](crate::SealOptions::renamed).
    pub fn snapshot_name(&self) -> Option<&Name> {
        let (found, _) = SnapshotName::find(self.names.iter().map(Name::as_str), &self.flags)?;
        self.names.iter().find(|name| name.as_str() == found)
    }
}

/// The text of the layer's name for a key.
pub(crate) fn snapshot_name(key: &str) -> String {
    let mut name = SNAPSHOT_PREFIX.to_owned();
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
    name
}

/// The key that a layer's name is for.
pub(crate) fn snapshot_key(name: &str) -> Option<String> {
    let mut left = name.strip_prefix(SNAPSHOT_PREFIX)?;
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
            let name: Name = snapshot_name(key).parse().unwrap();
            assert_eq!(snapshot_key(name.as_str()).as_deref(), Some(key), "{key:?}");
        }
    }

    #[test]
    fn other_names_are_no_keys() {
        for name in
            ["base", "snapshot", "snapshot:", "snapshot:%", "snapshot:%4", "snapshot:%zz", "snapshot:%ff"]
        {
            assert_eq!(snapshot_key(name), None, "{name}");
        }
    }
}
