//! Records against records, and indexes against records. Pure: everything comes from one snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use layerstore_schema::record::{ItemRecord, LayerContent};
use layerstore_schema::table::{Owner, usage};

use super::{Finding, Scope};
use crate::image::{Container, Image};
use crate::layer::Layer;
use crate::meta::{IndexRow, Records};
use crate::store::Lease;
use crate::types::TreeDigest;

/// Checks what the records say of each other.
pub(super) fn check(records: &Records, scope: &Scope) -> Vec<Finding> {
    let mut findings = Vec::new();
    for record in &records.damaged {
        if scope.has(record.kind, &record.key) {
            let (kind, key, reason) = (record.kind, record.key.clone(), record.reason.clone());
            findings.push(Finding::RecordDamaged { kind, key, reason });
        }
    }
    check_layers(records, scope, &mut findings);
    check_images(records, scope, &mut findings);
    check_containers(records, scope, &mut findings);
    for ((owner, id, key), item) in &records.items {
        check_item(records, scope, (*owner, id, key), item, &mut findings);
    }
    if scope.is_everything() {
        check_diffs(records, &mut findings);
        check_blobs(records, &mut findings);
        check_kept_blobs(records, &mut findings);
        check_leases(records, &mut findings);
    }
    findings
}

/// Whether the record is there but cannot be read: then it is found as that, and nothing that refers to it lacks it.
fn is_damaged(records: &Records, kind: &str, key: &str) -> bool {
    records.damaged.iter().any(|record| record.kind == kind && record.key == key)
}

fn damaged_value(kind: &'static str, key: &str, error: &crate::error::MetaError) -> Finding {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Finding::RecordDamaged { kind, key: key.to_owned(), reason }
}

fn check_layers(records: &Records, scope: &Scope, findings: &mut Vec<Finding>) {
    let mut on_circle = BTreeSet::new();
    for (id, layer) in records.layers.iter().filter(|(id, _)| scope.has_layer(id)) {
        if let Err(error) = Layer::from_record(layer.clone()) {
            findings.push(damaged_value("layer", id, &error));
        }
        if let Some(parent) = &layer.parent
            && !records.layers.contains_key(parent)
            && !is_damaged(records, "layer", parent)
        {
            findings.push(Finding::ParentMissing { layer: id.clone(), parent: parent.clone() });
        }
        if let Some(circle) = circle_of(records, id)
            && on_circle.insert(id.clone())
        {
            let length = u64::try_from(circle.len()).unwrap_or(u64::MAX);
            findings.push(Finding::ParentCycle { layer: id.clone(), length });
            on_circle.extend(circle);
        }
        if let LayerContent::Sealed(tree) = &layer.content {
            let name = TreeDigest(*tree).to_string();
            if !records.diffs.contains_key(tree) && !is_damaged(records, "diff", &name) {
                findings.push(Finding::TreeMissing { layer: id.clone(), tree: name });
            }
        }
        if let Some(split) = &layer.split {
            check_blob_user(records, || format!("layer {id}"), split, findings);
        }
    }
    check_names("layer", records.layers.iter().map(|(id, layer)| (id, &layer.names)), scope, findings);
}

/// The circle of parents that the layer itself is on.
fn circle_of(records: &Records, id: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut circle = Vec::new();
    let mut next = records.layers.get(id);
    while let Some(layer) = next {
        if !seen.insert(&layer.id) {
            return (layer.id == id).then_some(circle);
        }
        circle.push(layer.id.clone());
        next = layer.parent.as_ref().and_then(|parent| records.layers.get(parent));
    }
    None
}

fn check_images(records: &Records, scope: &Scope, findings: &mut Vec<Finding>) {
    for (id, image) in records.images.iter().filter(|(id, _)| scope.has_image(id)) {
        if let Err(error) = Image::from_record(image.clone()) {
            findings.push(damaged_value("image", id, &error));
        }
        for layer in image.top_layer.iter().chain(&image.mapped_top_layers) {
            if !records.layers.contains_key(layer) && !is_damaged(records, "layer", layer) {
                findings.push(Finding::ImageLayerMissing { image: id.clone(), layer: layer.clone() });
            }
        }
    }
    check_names("image", records.images.iter().map(|(id, image)| (id, &image.names)), scope, findings);
}

fn check_containers(records: &Records, scope: &Scope, findings: &mut Vec<Finding>) {
    if !scope.is_everything() {
        return;
    }
    for (id, container) in &records.containers {
        if let Err(error) = Container::from_record(container.clone()) {
            findings.push(damaged_value("container", id, &error));
        }
        let layer = &container.layer;
        if !records.layers.contains_key(layer) && !is_damaged(records, "layer", layer) {
            findings.push(Finding::ContainerLayerMissing { container: id.clone(), layer: layer.clone() });
        }
        if let Some(image) = &container.image
            && !records.images.contains_key(image)
            && !is_damaged(records, "image", image)
        {
            findings.push(Finding::ContainerImageMissing { container: id.clone(), image: image.clone() });
        }
    }
    let named = records.containers.iter().map(|(id, container)| (id, &container.names));
    check_names("container", named, scope, findings);
}

fn check_names<'r>(
    kind: &'static str,
    things: impl Iterator<Item = (&'r String, &'r Vec<String>)>,
    scope: &Scope,
    findings: &mut Vec<Finding>,
) {
    let mut holders: HashMap<&str, &str> = HashMap::new();
    for (id, names) in things {
        for name in names {
            let first = *holders.entry(name).or_insert(id);
            if first != id && scope.has(kind, id) {
                let (name, holder, other) = (name.clone(), id.clone(), first.to_owned());
                findings.push(Finding::NameShared { kind, name, holder, other });
            }
        }
    }
}

fn check_item(
    records: &Records,
    scope: &Scope,
    (code, id, key): (u8, &str, &str),
    item: &ItemRecord,
    findings: &mut Vec<Finding>,
) {
    let word = Owner::from_code(code).map_or("thing", Owner::word);
    if !scope.has(word, id) {
        return;
    }
    let there = is_there(records, code, id);
    let owner = || format!("{word} {id}");
    if !there && !is_damaged(records, word, id) {
        findings.push(Finding::ItemUnowned { owner: owner(), key: key.to_owned() });
    }
    check_blob_user(records, || format!("the data item {key:?} of {word} {id}"), &item.blob, findings);
    if records.blobs.get(&item.blob).is_some_and(|blob| blob.size != item.size) {
        findings.push(Finding::ItemDamaged { owner: owner(), key: key.to_owned(), what: "size" });
    }
}

fn check_blob_user(
    records: &Records,
    user: impl FnOnce() -> String,
    hash: &[u8; 32],
    findings: &mut Vec<Finding>,
) {
    let name = hash_text(hash);
    if !records.blobs.contains_key(hash) && !is_damaged(records, "blob", &name) {
        findings.push(Finding::BlobMissing { user: user(), hash: name });
    }
}

fn hash_text(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_string()
}

fn check_diffs(records: &Records, findings: &mut Vec<Finding>) {
    let used: BTreeSet<&[u8; 32]> = records
        .layers
        .values()
        .filter_map(|layer| match &layer.content {
            LayerContent::Sealed(tree) => Some(tree),
            LayerContent::Writable(_) => None,
        })
        .collect();
    let damaged_layers = records.damaged.iter().any(|record| record.kind == "layer");
    for (tree, diff) in &records.diffs {
        let name = TreeDigest(*tree).to_string();
        // A layer that cannot be read may be the one that has it.
        if !used.contains(tree) && !damaged_layers {
            let path = format!("diffs/{}", diff.number).into();
            findings.push(Finding::TreeUnused { tree: name.clone(), path });
        }
        check_blob_user(records, || format!("the manifest of the tree {name}"), &diff.manifest, findings);
    }
    let mut holders: BTreeMap<u64, String> = BTreeMap::new();
    let trees = records.diffs.iter().map(|(tree, diff)| (diff.number, format!("tree {}", TreeDigest(*tree))));
    let writable = records.layers.values().filter_map(|layer| match layer.content {
        LayerContent::Writable(number) => Some((number, format!("layer {}", layer.id))),
        LayerContent::Sealed(_) => None,
    });
    for (number, thing) in trees.chain(writable) {
        if let Some(other) = holders.insert(number, thing.clone()) {
            findings.push(Finding::DirectoryShared { thing, other, path: format!("diffs/{number}").into() });
        }
    }
}

/// Users and chunks of the bytes in the database.
fn check_blobs(records: &Records, findings: &mut Vec<Finding>) {
    let mut users: HashMap<&[u8; 32], u64> = HashMap::new();
    let items = records.items.values().map(|item| &item.blob);
    let manifests = records.diffs.values().map(|diff| &diff.manifest);
    let splits = records.layers.values().filter_map(|layer| layer.split.as_ref());
    for hash in items.chain(manifests).chain(splits) {
        *users.entry(hash).or_default() += 1;
    }
    // What refers to bytes cannot be counted if it cannot be read.
    let countable = records.damaged.iter().all(|record| !matches!(record.kind, "item" | "diff" | "layer"));
    let mut numbers = BTreeSet::new();
    for (hash, blob) in &records.blobs {
        numbers.insert(blob.number);
        let counted = users.get(hash).copied().unwrap_or_default();
        if countable && counted != blob.users {
            findings.push(Finding::BlobUsersWrong { hash: hash_text(hash), stored: blob.users, counted });
        }
        let chunks = records.chunks.get(&blob.number).copied().unwrap_or_default();
        let gapless = chunks.count == u64::from(chunks.last) + 1;
        if chunks.bytes != blob.stored || !gapless {
            let (expected, found) = (blob.stored, chunks.bytes);
            findings.push(Finding::BlobChunksWrong { hash: hash_text(hash), expected, found });
        }
    }
    if records.damaged.iter().any(|record| record.kind == "blob") {
        return;
    }
    for (number, chunks) in &records.chunks {
        if !numbers.contains(number) {
            let (hash, found) = (format!("number {number}"), chunks.bytes);
            findings.push(Finding::BlobChunksWrong { hash, expected: 0, found });
        }
    }
}

fn check_kept_blobs(records: &Records, findings: &mut Vec<Finding>) {
    if records.damaged.iter().any(|record| record.kind == "layer") {
        return;
    }
    let used: BTreeSet<&str> = records
        .layers
        .values()
        .flat_map(|layer| layer.blobs.iter().map(|blob| blob.digest.as_str()))
        .collect();
    for digest in records.kept_blobs.keys().filter(|digest| !used.contains(digest.as_str())) {
        findings.push(Finding::KeptBlobUnused { digest: digest.clone() });
    }
}

fn check_leases(records: &Records, findings: &mut Vec<Finding>) {
    for (id, lease) in &records.leases {
        if *id != lease.id {
            let reason = format!("it says that it is the record of {:?}", lease.id);
            findings.push(Finding::RecordDamaged { kind: "lease", key: id.clone(), reason });
        } else if let Err(error) = Lease::from_record(lease.clone()) {
            findings.push(damaged_value("lease", id, &error));
        }
        for (code, thing) in &lease.things {
            let word = Owner::from_code(*code).map_or("thing", Owner::word);
            if !is_there(records, *code, thing) && !is_damaged(records, word, thing) {
                findings.push(Finding::LeaseDangling { lease: id.clone(), thing: format!("{word} {thing}") });
            }
        }
    }
}

fn is_there(records: &Records, code: u8, id: &str) -> bool {
    match Owner::from_code(code) {
        Some(Owner::Layer) => records.layers.contains_key(id),
        Some(Owner::Image) => records.images.contains_key(id),
        Some(Owner::Container) => records.containers.contains_key(id),
        None => false,
    }
}

/// Index rows against those that the records imply.
pub(super) fn check_indexes(records: &Records, stored: &BTreeSet<IndexRow>) -> Vec<Finding> {
    let implied = records.index_rows();
    let thing = |row: &IndexRow| {
        let (owner, id) = row.implied_by();
        format!("{} {id}", owner.map_or("thing", Owner::word))
    };
    let missing = implied.difference(stored).filter(|row| !is_contested(row, stored)).map(|row| {
        Finding::IndexRowMissing { thing: thing(row), table: row.table(), key: row.key().to_owned() }
    });
    let extra = stored.difference(&implied).filter(|row| {
        let (owner, id) = row.implied_by();
        !is_damaged(records, owner.map_or("thing", Owner::word), id)
    });
    let extra = extra.map(|row| Finding::IndexRowExtra {
        thing: thing(row),
        table: row.table(),
        key: row.key().to_owned(),
    });
    missing.chain(extra).collect()
}

/// Whether the name that the row is about belongs to another thing that has it too: found as
/// [`Finding::NameShared`].
fn is_contested(row: &IndexRow, stored: &BTreeSet<IndexRow>) -> bool {
    let IndexRow::Name(owner, name, id) = row else { return false };
    let first = IndexRow::Name(*owner, name.clone(), String::new());
    stored.range(first..).next().is_some_and(|found| {
        matches!(found, IndexRow::Name(code, other, holder) if code == owner && other == name && holder != id)
    })
}

/// The sums over all records.
pub(super) fn check_sums(records: &Records) -> Vec<Finding> {
    // A record that cannot be read counts in the sum, nobody knows how much.
    let readable = |kind: &str| records.damaged.iter().all(|record| record.kind != kind);
    let sums: [(&str, &str, u64); 4] = [
        (usage::DIFF_BYTES, "diff", records.diffs.values().map(|diff| diff.disk_bytes).sum()),
        (usage::DIFF_INODES, "diff", records.diffs.values().map(|diff| diff.inodes).sum()),
        (usage::KEPT_BLOB_BYTES, "kept blob", records.kept_blobs.values().map(|blob| blob.size).sum()),
        (usage::BLOB_BYTES, "blob", records.blobs.values().map(|blob| blob.stored).sum()),
    ];
    let wrong = sums.into_iter().filter_map(|(sum, kind, counted)| {
        let stored = records.usage.get(sum).copied().unwrap_or_default();
        let wrong = readable(kind) && stored != counted;
        wrong.then(|| Finding::UsageWrong { sum: sum.to_owned(), stored, counted })
    });
    wrong.collect()
}
