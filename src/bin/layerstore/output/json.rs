//! What programs read. Fields are only ever added: `docs/cli.md` lists them.

use std::borrow::Cow;
use std::fmt::Display;

use jiff::Timestamp;
use layerstore::{
    Change, ChangeKind, Container, Digest, Event, IdExtent, Image, ImageId, Item, Layer, LayerBlob, LayerId,
    Mount, Name, Usage,
};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// An image.
#[derive(Debug, Serialize)]
pub struct ImageJson<'a> {
    pub id: &'a str,
    #[serde(serialize_with = "texts")]
    pub names: &'a [Name],
    #[serde(serialize_with = "texts")]
    pub names_history: &'a [Name],
    pub created: Timestamp,
    pub top_layer: Option<&'a str>,
    #[serde(serialize_with = "texts")]
    pub mapped_top_layers: &'a [LayerId],
    #[serde(serialize_with = "shown")]
    pub digests: &'a [Digest],
    pub size: u64,
    pub metadata: &'a str,
    #[serde(serialize_with = "flags")]
    pub flags: &'a [(String, String)],
    #[serde(serialize_with = "labels")]
    pub labels: &'a [(String, String)],
    /// The root of the other store that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_store: Option<Cow<'a, str>>,
}

impl<'a> ImageJson<'a> {
    /// The image, whose layers take `size` bytes.
    pub fn new(image: &'a Image, size: u64) -> Self {
        ImageJson {
            id: image.id.as_str(),
            names: &image.names,
            names_history: &image.names_history,
            created: time(image.created),
            top_layer: image.top_layer.as_ref().map(LayerId::as_str),
            mapped_top_layers: &image.mapped_top_layers,
            digests: &image.digests,
            size,
            metadata: &image.metadata,
            flags: &image.flags,
            labels: &image.labels,
            image_store: image.image_store.as_ref().map(|root| root.to_string_lossy()),
        }
    }
}

/// A layer.
#[derive(Debug, Serialize)]
pub struct LayerJson<'a> {
    pub id: &'a str,
    pub parent: Option<&'a str>,
    #[serde(serialize_with = "texts")]
    pub names: &'a [Name],
    pub created: Timestamp,
    pub writable: bool,
    pub size: Option<u64>,
    pub content_size: Option<u64>,
    pub tree: Option<String>,
    pub diff_id: Option<String>,
    pub diff_size: Option<u64>,
    pub blobs: Vec<BlobJson<'a>>,
    pub compression: Option<&'static str>,
    pub toc_digest: Option<String>,
    pub uids: &'a [u32],
    pub gids: &'a [u32],
    pub mount_label: Option<&'a str>,
    pub volatile: bool,
    pub read_only: bool,
    #[serde(serialize_with = "shown")]
    pub uid_map: &'a [IdExtent],
    #[serde(serialize_with = "shown")]
    pub gid_map: &'a [IdExtent],
    pub metadata: &'a str,
    #[serde(serialize_with = "flags")]
    pub flags: &'a [(String, String)],
    #[serde(serialize_with = "labels")]
    pub labels: &'a [(String, String)],
    /// The root of the other store that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_store: Option<Cow<'a, str>>,
    /// The directory of the additional layer store that has its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub additional: Option<Cow<'a, str>>,
}

impl<'a> LayerJson<'a> {
    /// The layer; `size` is what it takes on the disk and what its files hold, unless it is written to.
    pub fn new(layer: &'a Layer, size: Option<(u64, u64)>) -> Self {
        LayerJson {
            id: layer.id.as_str(),
            parent: layer.parent.as_ref().map(LayerId::as_str),
            names: &layer.names,
            created: time(layer.created),
            writable: layer.is_writable(),
            size: size.map(|(disk, _)| disk),
            content_size: size.map(|(_, content)| content),
            tree: layer.tree.as_ref().map(ToString::to_string),
            diff_id: layer.diff_id.as_ref().map(ToString::to_string),
            diff_size: layer.diff_size,
            blobs: layer.blobs.iter().map(BlobJson::from).collect(),
            compression: layer.compression.map(layerstore::Compression::name),
            toc_digest: layer.toc_digest.as_ref().map(ToString::to_string),
            uids: &layer.uids,
            gids: &layer.gids,
            mount_label: layer.mount_label.as_deref(),
            volatile: layer.volatile,
            read_only: layer.read_only,
            uid_map: &layer.uid_map,
            gid_map: &layer.gid_map,
            metadata: &layer.metadata,
            flags: &layer.flags,
            labels: &layer.labels,
            image_store: layer.image_store.as_ref().map(|root| root.to_string_lossy()),
            additional: layer.additional.as_ref().map(|path| path.to_string_lossy()),
        }
    }
}

/// A blob that carried a layer.
#[derive(Debug, Serialize)]
pub struct BlobJson<'a> {
    pub digest: String,
    pub size: u64,
    pub media_type: &'a str,
}

impl<'a> From<&'a LayerBlob> for BlobJson<'a> {
    fn from(blob: &'a LayerBlob) -> Self {
        BlobJson { digest: blob.digest.to_string(), size: blob.size, media_type: &blob.media_type }
    }
}

/// A container.
#[derive(Debug, Serialize)]
pub struct ContainerJson<'a> {
    pub id: &'a str,
    #[serde(serialize_with = "texts")]
    pub names: &'a [Name],
    pub image: Option<&'a str>,
    pub layer: &'a str,
    pub created: Timestamp,
    pub mount: Option<MountJson>,
    /// Only if it was asked for: it has to be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub metadata: &'a str,
    #[serde(serialize_with = "flags")]
    pub flags: &'a [(String, String)],
    #[serde(serialize_with = "labels")]
    pub labels: &'a [(String, String)],
    pub mount_options: &'a [String],
    pub mount_label: Option<&'a str>,
    pub process_label: Option<&'a str>,
    pub volatile: bool,
    #[serde(serialize_with = "shown")]
    pub uid_map: &'a [IdExtent],
    #[serde(serialize_with = "shown")]
    pub gid_map: &'a [IdExtent],
}

impl<'a> ContainerJson<'a> {
    /// The container, where it is mounted, and what was written into it.
    pub fn new(container: &'a Container, mount: Option<&Mount>, size: Option<u64>) -> Self {
        let maps = container.id_maps.as_ref();
        ContainerJson {
            id: container.id.as_str(),
            names: &container.names,
            image: container.image.as_ref().map(ImageId::as_str),
            layer: container.layer.as_str(),
            created: time(container.created),
            mount: mount.map(MountJson::from),
            size,
            metadata: &container.metadata,
            flags: &container.flags,
            labels: &container.labels,
            mount_options: &container.mount_options,
            mount_label: container.mount_label.as_deref(),
            process_label: container.process_label.as_deref(),
            volatile: container.volatile,
            uid_map: maps.map_or(&[], |maps| &maps.uids),
            gid_map: maps.map_or(&[], |maps| &maps.gids),
        }
    }
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

/// What has a text, such as a name.
fn texts<S: Serializer>(values: &[impl AsRef<str>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(AsRef::as_ref))
}

/// What can be written as text, such as a digest.
fn shown<S: Serializer>(values: &[impl Display], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}

/// Flags: their values are JSON.
fn flags<S: Serializer>(flags: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let value = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let flags: Map<_, _> = flags.iter().map(|(name, text)| (name.clone(), value(text))).collect();
    flags.serialize(serializer)
}

fn labels<S: Serializer>(labels: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let labels: Map<_, _> =
        labels.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    labels.serialize(serializer)
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
