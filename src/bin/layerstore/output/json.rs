//! What programs read. Fields are only ever added: `docs/cli.md` lists them.

use jiff::Timestamp;
use layerstore::{Change, ChangeKind, Container, Event, IdExtent, Image, Item, Layer, Mount, Name, Usage};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// An image.
#[derive(Debug, Serialize)]
pub struct ImageJson {
    pub id: String,
    pub names: Vec<String>,
    pub names_history: Vec<String>,
    pub created: Timestamp,
    pub top_layer: Option<String>,
    pub mapped_top_layers: Vec<String>,
    pub digests: Vec<String>,
    pub size: u64,
    pub metadata: String,
    pub flags: Map<String, Value>,
    pub labels: Map<String, Value>,
    /// The root of the other store that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_store: Option<String>,
}

impl ImageJson {
    /// The image, whose layers take `size` bytes.
    pub fn new(image: &Image, size: u64) -> Self {
        ImageJson {
            id: image.id.to_string(),
            names: names(&image.names),
            names_history: names(&image.names_history),
            created: time(image.created),
            top_layer: image.top_layer.as_ref().map(ToString::to_string),
            mapped_top_layers: image.mapped_top_layers.iter().map(ToString::to_string).collect(),
            digests: image.digests.iter().map(ToString::to_string).collect(),
            size,
            metadata: image.metadata.clone(),
            flags: flags(&image.flags),
            labels: labels(&image.labels),
            image_store: image.image_store.as_ref().map(|root| root.to_string_lossy().into_owned()),
        }
    }
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerJson {
    pub id: String,
    pub parent: Option<String>,
    pub names: Vec<String>,
    pub created: Timestamp,
    pub writable: bool,
    pub size: Option<u64>,
    pub content_size: Option<u64>,
    pub tree: Option<String>,
    pub diff_id: Option<String>,
    pub diff_size: Option<u64>,
    pub blobs: Vec<BlobJson>,
    pub compression: Option<&'static str>,
    pub toc_digest: Option<String>,
    pub uids: Vec<u32>,
    pub gids: Vec<u32>,
    pub mount_label: Option<String>,
    pub volatile: bool,
    pub read_only: bool,
    pub uid_map: Vec<String>,
    pub gid_map: Vec<String>,
    pub metadata: String,
    pub flags: Map<String, Value>,
    pub labels: Map<String, Value>,
    /// The root of the other store that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_store: Option<String>,
    /// The directory of the additional layer store that has its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional: Option<String>,
}

impl LayerJson {
    /// The layer; `size` is what it takes on the disk and what its files hold, unless it is written to.
    pub fn new(layer: &Layer, size: Option<(u64, u64)>) -> Self {
        let blob = |blob: &layerstore::LayerBlob| BlobJson {
            digest: blob.digest.to_string(),
            size: blob.size,
            media_type: blob.media_type.clone(),
        };
        LayerJson {
            id: layer.id.to_string(),
            parent: layer.parent.as_ref().map(ToString::to_string),
            names: names(&layer.names),
            created: time(layer.created),
            writable: layer.is_writable(),
            size: size.map(|(disk, _)| disk),
            content_size: size.map(|(_, content)| content),
            tree: layer.tree.as_ref().map(ToString::to_string),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            diff_size: layer.diff_size,
            blobs: layer.blobs.iter().map(blob).collect(),
            compression: layer.compression.map(layerstore::Compression::name),
            toc_digest: layer.toc_digest.as_ref().map(ToString::to_string),
            uids: layer.uids.clone(),
            gids: layer.gids.clone(),
            mount_label: layer.mount_label.clone(),
            volatile: layer.volatile,
            read_only: layer.read_only,
            uid_map: texts(&layer.uid_map),
            gid_map: texts(&layer.gid_map),
            metadata: layer.metadata.clone(),
            flags: flags(&layer.flags),
            labels: labels(&layer.labels),
            image_store: layer.image_store.as_ref().map(|root| root.to_string_lossy().into_owned()),
            additional: layer.additional.as_ref().map(|path| path.to_string_lossy().into_owned()),
        }
    }
}

/// A blob that carried a layer.
#[derive(Debug, Serialize)]
pub struct BlobJson {
    pub digest: String,
    pub size: u64,
    pub media_type: String,
}

/// A container.
#[derive(Debug, Serialize)]
pub struct ContainerJson {
    pub id: String,
    pub names: Vec<String>,
    pub image: Option<String>,
    pub layer: String,
    pub created: Timestamp,
    pub mount: Option<MountJson>,
    /// Only if it was asked for: it has to be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub metadata: String,
    pub flags: Map<String, Value>,
    pub labels: Map<String, Value>,
    pub mount_options: Vec<String>,
    pub mount_label: Option<String>,
    pub process_label: Option<String>,
    pub volatile: bool,
    pub uid_map: Vec<String>,
    pub gid_map: Vec<String>,
}

impl ContainerJson {
    /// The container, where it is mounted, and what was written into it.
    pub fn new(container: &Container, mount: Option<&Mount>, size: Option<u64>) -> Self {
        ContainerJson {
            id: container.id.to_string(),
            names: names(&container.names),
            image: container.image.as_ref().map(ToString::to_string),
            layer: container.layer.to_string(),
            created: time(container.created),
            mount: mount.map(MountJson::from),
            size,
            metadata: container.metadata.clone(),
            flags: flags(&container.flags),
            labels: labels(&container.labels),
            mount_options: container.mount_options.clone(),
            mount_label: container.mount_label.clone(),
            process_label: container.process_label.clone(),
            volatile: container.volatile,
            uid_map: container.id_maps.as_ref().map_or_else(Vec::new, |maps| texts(&maps.uids)),
            gid_map: container.id_maps.as_ref().map_or_else(Vec::new, |maps| texts(&maps.gids)),
        }
    }
}

fn texts(map: &[IdExtent]) -> Vec<String> {
    map.iter().map(ToString::to_string).collect()
}

/// A mount.
#[derive(Debug, Serialize)]
pub struct MountJson {
    pub path: Bytes,
    pub count: u64,
    pub read_only: bool,
}

impl From<&Mount> for MountJson {
    fn from(mount: &Mount) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let path = Bytes(mount.path().as_os_str().as_bytes().to_vec());
        MountJson { path, count: mount.count, read_only: mount.read_only }
    }
}

/// A data item, without its bytes.
#[derive(Debug, Serialize)]
pub struct ItemJson {
    pub key: String,
    pub size: u64,
    pub digest: String,
}

impl From<&Item> for ItemJson {
    fn from(item: &Item) -> Self {
        ItemJson { key: item.key.clone(), size: item.size, digest: item.digest.to_string() }
    }
}

/// A changed path.
#[derive(Debug, Serialize)]
pub struct ChangeJson {
    pub kind: &'static str,
    pub path: Bytes,
}

impl From<&Change> for ChangeJson {
    fn from(change: &Change) -> Self {
        let kind = match change.kind {
            ChangeKind::Added => "added",
            ChangeKind::Modified => "modified",
            ChangeKind::Deleted => "deleted",
        };
        ChangeJson { kind, path: Bytes([b"/", change.path.as_bytes()].concat()) }
    }
}

/// What a thing takes.
#[derive(Debug, Serialize)]
pub struct UsageJson {
    pub kind: &'static str,
    pub id: String,
    pub names: Vec<String>,
    pub total: u64,
    pub unique: u64,
    pub content: u64,
    pub inodes: u64,
    pub mapped: u64,
}

impl UsageJson {
    /// What `usage` says of a thing.
    pub fn new(kind: &'static str, id: &str, thing_names: &[Name], usage: &Usage) -> Self {
        UsageJson {
            kind,
            id: id.to_owned(),
            names: names(thing_names),
            total: usage.total,
            unique: usage.unique,
            content: usage.content,
            inodes: usage.inodes,
            mapped: usage.mapped,
        }
    }
}

/// A change of the store.
#[derive(Debug, Serialize)]
pub struct EventJson {
    pub sequence: u64,
    pub time: Timestamp,
    pub event: &'static str,
    pub kind: &'static str,
    pub id: String,
    pub names: Vec<String>,
    pub changed: Vec<&'static str>,
}

impl From<&Event> for EventJson {
    fn from(event: &Event) -> Self {
        EventJson {
            sequence: event.sequence,
            time: time(event.time),
            event: event.kind.word(),
            kind: event.subject.word(),
            id: event.subject.to_string(),
            names: names(&event.names),
            changed: event.aspects.iter().map(|aspect| aspect.word()).collect(),
        }
    }
}

/// Bytes that are text as a rule: a string, or if they are no UTF-8 an object with their hex digits. A program that
/// expects a string stumbles over the object, and never takes another path for the one that is meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let hex: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
                serializer.collect_map([("bytes", hex)])
            }
        }
    }
}

/// A time of a record; times out of the range of RFC 3339 become its ends.
pub fn time(time: layerstore::Timestamp) -> Timestamp {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or_default();
    let end = if time.seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::new(time.seconds, nanoseconds).unwrap_or(end)
}

/// Names as text.
pub fn names(names: &[Name]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Flags: their values are JSON.
fn flags(flags: &[(String, String)]) -> Map<String, Value> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    flags.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

fn labels(labels: &[(String, String)]) -> Map<String, Value> {
    labels.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_never_lost() {
        let json = |bytes: &[u8]| serde_json::to_string(&Bytes(bytes.to_vec())).unwrap();
        assert_eq!(json(b"/a\nb"), r#""/a\nb""#);
        assert_eq!(json(b"/\xff"), r#"{"bytes":"2fff"}"#);
    }

    #[test]
    fn times_are_rfc_3339() {
        let shown = |seconds, nanoseconds| time(layerstore::Timestamp { seconds, nanoseconds }).to_string();
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1, 500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(shown(-1, 500_000_000), "1969-12-31T23:59:59.5Z");
        assert_eq!(shown(i64::MAX, 0), Timestamp::MAX.to_string());
    }
}
