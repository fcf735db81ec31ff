//! All that a store says, as JSON.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use layerstore::snapshotter::{Info, Snapshotter, SnapshotterOptions};
use layerstore::{Algorithm, Hasher, IdExtent, Store, ThingId, WatchOptions};
use serde_json::{Value, json};

use crate::support::oci;

/// All that a store says.
pub(super) fn describe(store: &Store) -> Value {
    // In the boot in which the store was made they are the one, and ever after the other. Reading a layer verifies it.
    let status = store.status().unwrap();
    json!({
        "not_synced": status.unsynced + status.unverified,
        "uuid": store.uuid(),
        "layers": store.layers().unwrap().iter().map(|layer| describe_layer(store, layer)).collect::<Vec<_>>(),
        "images": store.images().unwrap().iter().map(|image| describe_image(store, image)).collect::<Vec<_>>(),
        "containers": store
            .containers()
            .unwrap()
            .iter()
            .map(|container| describe_container(store, container))
            .collect::<Vec<_>>(),
        "events": events(store),
        "snapshots": snapshots(store),
        "leases": store.leases().unwrap().iter().map(describe_lease).collect::<Vec<_>>(),
    })
}

fn describe_lease(lease: &layerstore::Lease) -> Value {
    json!({
        "id": lease.id.as_str(),
        "things": lease.things.iter().map(|thing| [thing.kind().word(), thing.as_str()]).collect::<Vec<_>>(),
        "created": time(lease.created),
        "expires": time(lease.expires),
    })
}

fn describe_layer(store: &Store, layer: &layerstore::Layer) -> Value {
    let blob = |blob: &layerstore::LayerBlob| json!({ "digest": blob.digest.to_string(), "size": blob.size, "media_type": blob.media_type });
    json!({
        "id": layer.id.as_str(),
        "parent": layer.parent.as_ref().map(|parent| parent.as_str()),
        "names": texts(&layer.names),
        "metadata": layer.metadata,
        "created": time(layer.created),
        "additional": layer.additional,
        "compression": layer.compression.map(|compression| compression.name()),
        "toc_digest": layer.toc_digest.as_ref().map(ToString::to_string),
        "uids": layer.uids,
        "gids": layer.gids,
        "mount_label": layer.mount_label,
        "volatile": layer.volatile,
        "read_only": layer.read_only,
        "uid_map": extents(&layer.uid_map),
        "gid_map": extents(&layer.gid_map),
        "tree": layer.tree.map(|tree| tree.to_string()),
        "diff_id": layer.diff_id.as_ref().map(|diff_id| diff_id.to_string()),
        "diff_size": layer.diff_size,
        "blobs": layer.blobs.iter().map(blob).collect::<Vec<_>>(),
        "flags": layer.flags,
        "labels": layer.labels,
        "content_bytes": layer_size(store, layer),
        "items": items(store, layer),
        // The files of an additional layer are where the store was made.
        "changes": layer.additional.is_none().then(|| changes(store, layer)),
        // What has no original may be written in another way by another release.
        "export": (layer.tree.is_some() && layer.diff_id.is_some()).then(|| exported(store, layer)),
    })
}

fn describe_image(store: &Store, image: &layerstore::Image) -> Value {
    json!({
        "id": image.id.as_str(),
        "names": texts(&image.names),
        "names_history": texts(&image.names_history),
        "metadata": image.metadata,
        "created": time(image.created),
        "top_layer": image.top_layer.as_ref().map(|layer| layer.as_str()),
        "mapped_top_layers": texts(&image.mapped_top_layers),
        "digests": texts(&image.digests),
        "manifests": image.manifests.iter().map(|(key, digest)| [key.clone(), digest.to_string()]).collect::<Vec<_>>(),
        "directory": files(&store.image_directory(&image.id).unwrap()),
        "flags": image.flags,
        "labels": image.labels,
        "items": items(store, image),
    })
}

fn describe_container(store: &Store, container: &layerstore::Container) -> Value {
    json!({
        "id": container.id.as_str(),
        "names": texts(&container.names),
        "image": container.image.as_ref().map(|image| image.as_str()),
        "layer": container.layer.as_str(),
        "metadata": container.metadata,
        "created": time(container.created),
        "flags": container.flags,
        "labels": container.labels,
        "mount_options": container.mount_options,
        "mount_label": container.mount_label,
        "process_label": container.process_label,
        "volatile": container.volatile,
        "uid_map": container.id_maps.as_ref().map(|maps| extents(&maps.uids)),
        "gid_map": container.id_maps.as_ref().map(|maps| extents(&maps.gids)),
        "directory": files(&store.container_directory(&container.id).unwrap()),
        "items": items(store, container),
        "changes": changes(store, container),
    })
}

fn events(store: &Store) -> Value {
    let mut watch = store.watch(&WatchOptions::oldest()).unwrap();
    let events = std::iter::from_fn(|| watch.try_next().unwrap());
    let event = |event: layerstore::Event| {
        json!({
            "sequence": event.sequence,
            "time": time(event.time),
            "kind": event.kind.word(),
            "subject": [event.subject.word(), event.subject.to_string()],
            "names": texts(&event.names),
            "aspects": texts(&event.aspects),
        })
    };
    events.map(event).collect()
}

/// The snapshots that a face of the store sees in it.
fn snapshots(store: &Store) -> Value {
    let mut found = Vec::new();
    let visit = |info: Info| {
        let nanoseconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_nanos().to_string();
        found.push(json!({
            "name": info.name,
            "kind": info.kind.word(),
            "parent": info.parent,
            "labels": info.labels,
            "created": nanoseconds(info.created),
            "updated": nanoseconds(info.updated),
        }));
        Ok(())
    };
    Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap().walk(&[], visit).unwrap();
    found.sort_by_key(|snapshot| snapshot["name"].to_string());
    found.into()
}

fn extents(map: &[IdExtent]) -> Vec<[u32; 3]> {
    map.iter().map(|extent| [extent.inside, extent.outside, extent.count]).collect()
}

/// The names in a caller's directory.
fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn texts(values: &[impl ToString]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn time(time: layerstore::Timestamp) -> Value {
    json!([time.seconds, time.nanoseconds])
}

/// The bytes of the content; how many the disk takes is the disk's business.
fn layer_size(store: &Store, layer: &layerstore::Layer) -> Option<u64> {
    store.layer_size(&layer.id).unwrap().map(|(_, content)| content)
}

fn items(store: &Store, of: impl Into<ThingId>) -> Value {
    let of = of.into();
    let list = store.items(&of).unwrap();
    let item = |item: &layerstore::Item| {
        let bytes = store.item(&of, &item.key).unwrap();
        assert_eq!(item.size, bytes.len() as u64);
        assert_eq!(item.digest.to_string(), oci::digest(&bytes));
        json!({ "key": item.key, "size": item.size, "digest": item.digest.to_string() })
    };
    list.iter().map(item).collect()
}

fn changes(store: &Store, of: impl Into<ThingId>) -> Value {
    store.changes(of).unwrap().iter().map(change).collect()
}

fn change(change: &layerstore::Change) -> String {
    format!("{:?} {}", change.kind, change.path.as_bytes().escape_ascii())
}

fn exported(store: &Store, layer: &layerstore::Layer) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    store.diff(layer, &mut hasher).unwrap();
    let digest = hasher.finish();
    assert_eq!(Some(&digest), layer.diff_id.as_ref().map(|diff_id| &diff_id.0));
    digest.to_string()
}
