//! Records against records, and indexes against records. Pure: everything comes from one snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use layerstore_schema::header::{Header, incompatible};
use layerstore_schema::record::{ImageRecord, ItemRecord, LayerContent};
use layerstore_schema::table::Owner;

use super::{Damage, Scope};
use crate::disk::{Layout, XattrNamespace};
use crate::image::{Container, Image};
use crate::layer::Layer;
use crate::meta::{BlobKind, IndexRow, Records};
use crate::store::Lease;
use crate::types::TreeDigest;

/// Checks what the records say of each other.
pub(super) fn check(records: &Records, scope: &Scope) -> Vec<Damage> {
    let mut damages = Vec::new();
    for record in &records.damaged {
        if scope.has(record.kind, &record.key) {
            let (kind, key, reason) = (record.kind, record.key.clone(), record.reason.clone());
            damages.push(Damage::RecordDamaged { kind, key, reason });
        }
    }
    check_layers(records, scope, &mut damages);
    check_images(records, scope, &mut damages);
    check_containers(records, scope, &mut damages);
    for ((owner, id, key), item) in &records.items {
        check_item(records, scope, (*owner, id, key), item, &mut damages);
    }
    if scope.is_everything() {
        check_diffs(records, &mut damages);
        check_blobs(records, &mut damages);
        check_kept_blobs(records, &mut damages);
        check_leases(records, &mut damages);
    }
    damages
}

fn damaged_value(kind: &'static str, key: &str, error: &crate::error::MetaError) -> Damage {
    let reason = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    Damage::RecordDamaged { kind, key: key.to_owned(), reason }
}

fn check_layers(records: &Records, scope: &Scope, damages: &mut Vec<Damage>) {
    let circles = circles(records);
    let mut told = BTreeSet::new();
    for (id, layer) in records.layers.iter().filter(|(id, _)| scope.has_layer(id)) {
        if let Err(error) = Layer::from_record(layer.clone()) {
            damages.push(damaged_value("layer", id, &error));
        }
        if let Some(parent) = &layer.parent
            && !records.layers.contains_key(parent)
            && !records.is_damaged("layer", parent)
        {
            damages.push(Damage::ParentMissing { layer: id.clone(), parent: parent.clone() });
        }
        if let Some((first, length)) = circles.get(id.as_str())
            && told.insert(*first)
        {
            damages.push(Damage::ParentCycle { layer: id.clone(), length: *length });
        }
        if let LayerContent::Sealed(tree) = &layer.content {
            let name = TreeDigest(*tree).to_string();
            if !records.diffs.contains_key(tree) && !records.is_damaged("diff", &name) {
                damages.push(Damage::TreeMissing { layer: id.clone(), tree: name });
            }
        }
        if let Some(split) = &layer.split {
            check_blob_user(records, || format!("layer {id}"), split, damages);
        }
    }
    check_names("layer", records.layers.iter().map(|(id, layer)| (id, &layer.names)), scope, damages);
}

/// The layers that are on a circle of parents: for each, one that stands for its circle, and how many are on it. Every layer is
/// come to twice at the most, however long the chains are.
fn circles(records: &Records) -> HashMap<&str, (&str, u64)> {
    let mut circles = HashMap::new();
    // In which walk each was come to first.
    let mut walks: HashMap<&str, &str> = HashMap::new();
    for start in records.layers.keys().map(String::as_str) {
        let parent_of = |id: &str| {
            let parent = records.layers.get(id)?.parent.as_ref()?;
            records.layers.get_key_value(parent).map(|(parent, _)| parent.as_str())
        };
        let mut next = Some(start);
        while let Some(id) = next
            && !walks.contains_key(id)
        {
            walks.insert(id, start);
            next = parent_of(id);
        }
        // Where an earlier walk came along there is nothing new; where this one did, it has gone round.
        if let Some(first) = next.filter(|id| walks.get(id) == Some(&start)) {
            let around = std::iter::successors(Some(first), |id| parent_of(id).filter(|id| *id != first));
            let circle: Vec<_> = around.collect();
            let length = u64::try_from(circle.len()).unwrap_or(u64::MAX);
            circles.extend(circle.into_iter().map(|id| (id, (first, length))));
        }
    }
    circles
}

fn check_images(records: &Records, scope: &Scope, damages: &mut Vec<Damage>) {
    for (id, image) in records.images.iter().filter(|(id, _)| scope.has_image(id)) {
        if let Err(error) = Image::from_record(image.clone()) {
            damages.push(damaged_value("image", id, &error));
        }
        for layer in image.top_layer.iter().chain(&image.mapped_top_layers) {
            if !records.layers.contains_key(layer) && !records.is_damaged("layer", layer) {
                damages.push(Damage::ImageLayerMissing { image: id.clone(), layer: layer.clone() });
            }
        }
        for key in document_keys(image) {
            let row = (Owner::Image.code(), id.clone(), key);
            let shown = format!("image {id} {}", row.2);
            if !records.items.contains_key(&row) && !records.is_damaged("item", &shown) {
                damages.push(Damage::DocumentMissing { image: id.clone(), key: row.2 });
            }
        }
    }
    check_names("image", records.images.iter().map(|(id, image)| (id, &image.names)), scope, damages);
}

/// The keys of the data items that an image was loaded with, and cannot be saved without.
pub(super) fn document_keys(image: &ImageRecord) -> Vec<String> {
    if image.digests.is_empty() {
        return Vec::new();
    }
    let own = ["manifest".to_owned(), format!("sha256:{}", image.id)];
    own.into_iter().chain(image.digests.iter().map(|digest| format!("manifest-{digest}"))).collect()
}

fn check_containers(records: &Records, scope: &Scope, damages: &mut Vec<Damage>) {
    if !scope.is_everything() {
        return;
    }
    let mut writers: HashMap<&str, &str> = HashMap::new();
    for (id, container) in &records.containers {
        let first = *writers.entry(&container.layer).or_insert(id);
        if first != id {
            let (container, layer, other) = (id.clone(), container.layer.clone(), first.to_owned());
            damages.push(Damage::ContainerLayerShared { container, layer, other });
        }
        if let Err(error) = Container::from_record(container.clone()) {
            damages.push(damaged_value("container", id, &error));
        }
        let layer = &container.layer;
        if !records.layers.contains_key(layer) && !records.is_damaged("layer", layer) {
            damages.push(Damage::ContainerLayerMissing { container: id.clone(), layer: layer.clone() });
        }
        if let Some(image) = &container.image
            && !records.images.contains_key(image)
            && !records.is_damaged("image", image)
        {
            damages.push(Damage::ContainerImageMissing { container: id.clone(), image: image.clone() });
        }
    }
    let named = records.containers.iter().map(|(id, container)| (id, &container.names));
    check_names("container", named, scope, damages);
}

fn check_names<'r>(
    kind: &'static str,
    things: impl Iterator<Item = (&'r String, &'r Vec<String>)>,
    scope: &Scope,
    damages: &mut Vec<Damage>,
) {
    let mut holders: HashMap<&str, &str> = HashMap::new();
    for (id, names) in things {
        for name in names {
            let first = *holders.entry(name).or_insert(id);
            if first != id && scope.has(kind, id) {
                let (name, holder, other) = (name.clone(), id.clone(), first.to_owned());
                damages.push(Damage::NameShared { kind, name, holder, other });
            }
        }
    }
}

fn check_item(
    records: &Records,
    scope: &Scope,
    (code, id, key): (u8, &str, &str),
    item: &ItemRecord,
    damages: &mut Vec<Damage>,
) {
    let word = Owner::from_code(code).map_or("thing", Owner::word);
    if !scope.has(word, id) {
        return;
    }
    let there = is_there(records, code, id);
    let owner = || format!("{word} {id}");
    if !there && !records.is_damaged(word, id) {
        damages.push(Damage::ItemUnowned { owner: owner(), key: key.to_owned() });
    }
    check_blob_user(records, || format!("the data item {key:?} of {word} {id}"), &item.blob, damages);
    let is_wrong = |size| size != item.size || size > BlobKind::Item.most();
    if records.blobs.get(&item.blob).is_some_and(|blob| is_wrong(blob.size)) {
        damages.push(Damage::ItemDamaged { owner: owner(), key: key.to_owned(), what: "size" });
    }
}

fn check_blob_user(
    records: &Records,
    user: impl FnOnce() -> String,
    hash: &[u8; 32],
    damages: &mut Vec<Damage>,
) {
    let name = hash_text(hash);
    if !records.blobs.contains_key(hash) && !records.is_damaged("blob", &name) {
        damages.push(Damage::BlobMissing { user: user(), hash: name });
    }
}

fn hash_text(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_string()
}

fn check_diffs(records: &Records, damages: &mut Vec<Damage>) {
    let used = records.used_trees();
    let damaged_layers = !records.are_readable(&["layer"]);
    for (tree, diff) in &records.diffs {
        let name = TreeDigest(*tree).to_string();
        // A layer that cannot be read may be the one that has it.
        if !used.contains(tree) && !damaged_layers {
            let path = format!("diffs/{}", diff.number).into();
            damages.push(Damage::TreeUnused { tree: name.clone(), path });
        }
        check_blob_user(records, || format!("the manifest of the tree {name}"), &diff.manifest, damages);
    }
    let mut holders: BTreeMap<u64, String> = BTreeMap::new();
    let trees = records.diffs.iter().map(|(tree, diff)| (diff.number, format!("tree {}", TreeDigest(*tree))));
    let writable = records.layers.values().filter_map(|layer| match layer.content {
        LayerContent::Writable(number) => Some((number, format!("layer {}", layer.id))),
        LayerContent::Sealed(_) | LayerContent::Additional(_) => None,
    });
    for (number, thing) in trees.chain(writable) {
        if let Some(other) = holders.insert(number, thing.clone()) {
            damages.push(Damage::DirectoryShared { thing, other, path: format!("diffs/{number}").into() });
        }
    }
}

/// Users and chunks of the bytes in the database.
fn check_blobs(records: &Records, damages: &mut Vec<Damage>) {
    let users = records.blob_users();
    // What refers to bytes cannot be counted if it cannot be read.
    let countable = records.are_readable(&["item", "diff", "layer"]);
    let mut numbers = BTreeSet::new();
    for (hash, blob) in &records.blobs {
        numbers.insert(blob.number);
        let counted = users.get(hash).copied().unwrap_or_default();
        if countable && (counted != blob.users || counted == 0) {
            damages.push(Damage::BlobUsersWrong { hash: hash_text(hash), stored: blob.users, counted });
        }
        let chunks = records.chunks.get(&blob.number).copied().unwrap_or_default();
        let gapless = chunks.count == u64::from(chunks.last) + 1;
        if chunks.bytes != blob.stored || !gapless {
            let (expected, found) = (blob.stored, chunks.bytes);
            damages.push(Damage::BlobChunksWrong { hash: hash_text(hash), expected, found });
        }
    }
    if !records.are_readable(&["blob"]) {
        return;
    }
    for (number, chunks) in &records.chunks {
        if !numbers.contains(number) {
            let (hash, found) = (format!("number {number}"), chunks.bytes);
            damages.push(Damage::BlobChunksWrong { hash, expected: 0, found });
        }
    }
}

fn check_kept_blobs(records: &Records, damages: &mut Vec<Damage>) {
    if !records.are_readable(&["layer"]) {
        return;
    }
    let used = records.used_blobs();
    for digest in records.kept_blobs.keys().filter(|digest| !used.contains(digest.as_str())) {
        damages.push(Damage::KeptBlobUnused { digest: digest.clone() });
    }
}

fn check_leases(records: &Records, damages: &mut Vec<Damage>) {
    for (id, lease) in &records.leases {
        if let Err(error) = Lease::from_record(lease.clone()) {
            damages.push(damaged_value("lease", id, &error));
        }
        for (code, thing) in &lease.things {
            let word = Owner::from_code(*code).map_or("thing", Owner::word);
            if !is_there(records, *code, thing) && !records.is_damaged(word, thing) {
                damages.push(Damage::LeaseDangling { lease: id.clone(), thing: format!("{word} {thing}") });
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
pub(super) fn check_indexes(records: &Records, stored: &BTreeSet<IndexRow>) -> Vec<Damage> {
    let implied = records.index_rows();
    let thing = |row: &IndexRow| {
        let (owner, id) = row.implied_by();
        format!("{} {id}", owner.map_or("thing", Owner::word))
    };
    let missing = implied.difference(stored).filter(|row| !is_contested(row, stored)).map(|row| {
        Damage::IndexRowMissing { thing: thing(row), table: row.table(), key: row.key().to_owned() }
    });
    let extra = stored.difference(&implied).filter(|row| {
        let (owner, id) = row.implied_by();
        !records.is_damaged(owner.map_or("thing", Owner::word), id)
    });
    let extra = extra.map(|row| Damage::IndexRowExtra {
        thing: thing(row),
        table: row.table(),
        key: row.key().to_owned(),
    });
    missing.chain(extra).collect()
}

/// Whether what the row is about belongs to another thing that has it too: found as [`Damage::NameShared`] or
/// [`Damage::ContainerLayerShared`].
fn is_contested(row: &IndexRow, stored: &BTreeSet<IndexRow>) -> bool {
    match row {
        IndexRow::Name(owner, name, id) => {
            let first = IndexRow::Name(*owner, name.clone(), String::new());
            stored.range(first..).next().is_some_and(|found| {
                matches!(found, IndexRow::Name(code, other, holder)
                    if code == owner && other == name && holder != id)
            })
        }
        IndexRow::ContainerLayer(layer, id) => {
            let first = IndexRow::ContainerLayer(layer.clone(), String::new());
            stored.range(first..).next().is_some_and(
                |found| matches!(found, IndexRow::ContainerLayer(other, holder) if other == layer && holder != id),
            )
        }
        _ => false,
    }
}

/// The sums over all records.
pub(super) fn check_sums(records: &Records) -> Vec<Damage> {
    let sums = records.sums();
    let mut damages = Vec::new();
    for (sum, kind, counted) in sums {
        let stored = records.usage.get(sum).copied().unwrap_or_default();
        // A record that cannot be read counts in the sum, nobody knows how much.
        if records.are_readable(&[kind]) && stored != counted {
            damages.push(Damage::UsageWrong { sum: sum.to_owned(), stored, counted });
        }
    }
    for (sum, stored) in &records.usage {
        if sums.iter().all(|(known, ..)| known != sum) {
            damages.push(Damage::UsageWrong { sum: sum.clone(), stored: *stored, counted: 0 });
        }
    }
    damages
}

/// Rows that are no records of things: the header and the journal.
pub(super) fn check_rest(records: &Records, header: Option<&Header>, layout: &Layout) -> Vec<Damage> {
    let rows = records.journal.iter();
    let mut damages: Vec<_> = rows
        .map(|(number, reason)| Damage::JournalDamaged { number: *number, reason: reason.clone() })
        .collect();
    if let Some(header) = header {
        let digits: String = layout.uuid().chars().filter(char::is_ascii_hexdigit).collect();
        let own: String = header.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        if digits != own {
            damages.push(Damage::HeaderWrong { what: format!("it has the UUID {own}") });
        }
        let user = header.incompatible & incompatible::USER_XATTRS != 0;
        if user != (layout.xattrs() == XattrNamespace::User) {
            let what = "it is of another class of extended attributes".to_owned();
            damages.push(Damage::HeaderWrong { what });
        }
    }
    damages
}

#[cfg(test)]
mod tests {
    use super::super::CheckOptions;
    use super::*;
    use layerstore_schema::record::{LayerRecord, Time};

    fn records(parents: impl IntoIterator<Item = (String, Option<String>)>) -> Records {
        let layer = |(id, parent): (String, Option<String>)| {
            let record = LayerRecord::new(&id, Time::default(), LayerContent::Writable(0));
            (id, LayerRecord { parent, ..record })
        };
        Records { layers: parents.into_iter().map(layer).collect(), ..Records::default() }
    }

    #[test]
    fn circles_are_told_once_with_their_lengths() {
        // Into the circle of b, c and d lead a and e; f stands on itself; g and h are a chain, and i stands on what is not there.
        let parents = ["a:b", "b:c", "c:d", "d:b", "e:c", "f:f", "g:h", "h:", "i:x"];
        let parents = parents.map(|pair| pair.split_once(':').unwrap());
        let parents = parents.map(|(id, parent)| (id.to_owned(), Some(parent.to_owned())));
        let records = records(parents.map(|(id, parent)| (id, parent.filter(|parent| !parent.is_empty()))));
        let mut found: Vec<_> = circles(&records).into_iter().collect();
        found.sort_unstable();
        let lengths: Vec<_> = found.iter().map(|(id, (_, length))| (*id, *length)).collect();
        assert_eq!(lengths, [("b", 3), ("c", 3), ("d", 3), ("f", 1)]);
        let one: BTreeSet<_> = found.iter().map(|(_, (first, _))| first).collect();
        assert_eq!(one.len(), 2);
        let mut damages = Vec::new();
        let scope = Scope::new(&CheckOptions::default(), &records).unwrap();
        check_layers(&records, &scope, &mut damages);
        let told = damages.iter().filter_map(|damage| match damage {
            Damage::ParentCycle { layer, length } => Some((layer.as_str(), *length)),
            _ => None,
        });
        assert_eq!(told.collect::<Vec<_>>(), [("b", 3), ("f", 1)]);
    }

    /// With a walk to the base for each layer this would take hours.
    #[test]
    fn a_long_chain_is_walked_once() {
        let id = |number: u32| format!("{number:06}");
        let layers = (0..300_000).map(|number| (id(number), number.checked_sub(1).map(id)));
        assert_eq!(circles(&records(layers)), HashMap::new());
        let round = (0..300_000).map(|number| (id(number), Some(id((number + 1) % 300_000))));
        assert_eq!(circles(&records(round)).len(), 300_000);
    }
}
