//! What is hurt by a damage: the unit in which remedies are told and repairs are made.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use layerstore_schema::table::Owner;

use super::Damage;
use crate::meta::Records;
use crate::types::TreeDigest;

/// Something of a store that has to be made again, set right, or removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Casualty {
    /// Rows that follow from others, or that nothing refers to.
    Rows,
    /// The header of the database.
    Header,
    /// A kept blob, by digest.
    KeptBlob(String),
    /// The composefs image of a sealed directory: the digest of its tree, and its number.
    Composefs([u8; 32], u64),
    /// A row of the run database, by layer id.
    MountRecord(String),
    /// A name that several things have: the kind of thing, the one that loses it, and the name.
    Name(&'static str, String, String),
    /// What a container says about its image.
    ImageOfContainer(String),
    /// An image's record.
    Image(String),
    /// A layer's record.
    Layer(String),
    /// A container's record.
    Container(String),
    /// A sealed directory, its row or its manifest.
    Tree([u8; 32]),
    /// The tar-split of a layer, or what its record says of it.
    Split(String),
    /// A data item: kind, id and key.
    Item(u8, String, String),
    /// What was written into a container, by the id of its layer.
    Written(String),
    /// What an image or a container says about its directory for its caller: kind and id.
    Data(&'static str, String),
    /// The files of a layer in an additional layer store.
    Additional(String),
    /// The mode of the root or run root.
    Root(PathBuf),
    /// The mode of something that keeps its owner out, and the mode it should have.
    Shut(PathBuf, u16),
    /// Nothing of the store's.
    Stray,
    /// What another program has in the root.
    Neighbour,
}

impl fmt::Display for Casualty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Casualty::Rows => f.write_str("rows"),
            Casualty::Header => f.write_str("header"),
            Casualty::KeptBlob(digest) => write!(f, "kept blob {digest}"),
            Casualty::Composefs(_, number) => write!(f, "composefs image {number}"),
            Casualty::MountRecord(layer) => write!(f, "mount of {layer}"),
            Casualty::Name(kind, id, _) | Casualty::Data(kind, id) => write!(f, "{kind} {id}"),
            Casualty::ImageOfContainer(id) | Casualty::Container(id) => write!(f, "container {id}"),
            Casualty::Image(id) => write!(f, "image {id}"),
            Casualty::Layer(id) | Casualty::Split(id) | Casualty::Written(id) | Casualty::Additional(id) => {
                write!(f, "layer {id}")
            }
            Casualty::Tree(tree) => write!(f, "tree {}", TreeDigest(*tree)),
            Casualty::Item(owner, id, _) => {
                write!(f, "{} {id}", Owner::from_code(*owner).map_or("thing", Owner::word))
            }
            Casualty::Root(path) | Casualty::Shut(path, _) => write!(f, "{path:?}"),
            Casualty::Stray => f.write_str("stray"),
            Casualty::Neighbour => f.write_str("neighbour"),
        }
    }
}

impl Casualty {
    /// What a damage hurts.
    pub(crate) fn of(damage: &Damage, records: &Records) -> Vec<Casualty> {
        match damage {
            Damage::RecordDamaged { kind, key, .. } => of_record(kind, key, records),
            // Either the other is missing, or this one names a wrong one.
            Damage::ParentMissing { layer, parent } => {
                vec![Casualty::Layer(parent.clone()), Casualty::Layer(layer.clone())]
            }
            Damage::ParentCycle { layer, .. } => of_circle(layer, records),
            // A copy that is not there is one that was lost, and nothing that the image stands on.
            Damage::ImageLayerMissing { image, layer }
                if records.images.get(image).is_some_and(|image| image.top_layer.as_ref() != Some(layer)) =>
            {
                vec![Casualty::Layer(layer.clone())]
            }
            Damage::ImageLayerMissing { image, layer } => {
                vec![Casualty::Layer(layer.clone()), Casualty::Image(image.clone())]
            }
            Damage::ContainerLayerMissing { container, .. } => vec![Casualty::Container(container.clone())],
            // One of them is right, and the other has a layer of its own, if the index still knows it.
            Damage::ContainerLayerShared { container, other, .. } => {
                vec![Casualty::Container(container.clone()), Casualty::Container(other.clone())]
            }
            Damage::ContainerImageMissing { container, .. } => {
                vec![Casualty::ImageOfContainer(container.clone())]
            }
            Damage::NameShared { kind, name, holder, .. } => {
                vec![Casualty::Name(kind, holder.clone(), name.clone())]
            }
            Damage::IndexRowMissing { .. }
            | Damage::IndexRowExtra { .. }
            | Damage::UsageWrong { .. }
            | Damage::TreeUnused { .. }
            | Damage::ItemUnowned { .. }
            | Damage::BlobUsersWrong { .. }
            | Damage::KeptBlobUnused { .. }
            | Damage::LeaseDangling { .. }
            | Damage::JournalDamaged { .. }
            | Damage::UnsyncedUnused { .. } => vec![Casualty::Rows],
            Damage::TreeMissing { tree, .. } => of_hex(tree).map(Casualty::Tree).into_iter().collect(),
            Damage::DirectoryShared { path, .. } => of_shared(path, records),
            Damage::DirectoryMissing { thing, tree, .. }
            | Damage::DirectoryUnreadable { thing, tree, .. } => {
                let layer = || Casualty::Written(thing.trim_start_matches("layer ").to_owned());
                vec![tree.map_or_else(layer, |tree| Casualty::Tree(tree.0))]
            }
            // It may be as it should be.
            Damage::NotExamined { .. } => Vec::new(),
            Damage::ModeLost { path, expected, .. } => vec![Casualty::Shut(path.clone(), *expected)],
            Damage::AdditionalMissing { layer, .. } => vec![Casualty::Additional(layer.clone())],
            Damage::ManifestDamaged { tree, .. }
            | Damage::PathMissing { tree, .. }
            | Damage::PathExtra { tree, .. }
            | Damage::PathChanged { tree, .. }
            | Damage::ContentChanged { tree, .. }
            | Damage::MorePaths { tree, .. } => vec![Casualty::Tree(tree.digest.0)],
            Damage::SplitDamaged { layer, .. } | Damage::DiffIdWrong { layer, .. } => {
                vec![Casualty::Split(layer.clone())]
            }
            Damage::ItemDamaged { owner, key, .. } => of_item(owner, key),
            Damage::DocumentMissing { image, key } => {
                vec![Casualty::Item(Owner::Image.code(), image.clone(), key.clone())]
            }
            Damage::BlobMissing { hash, .. }
            | Damage::BlobChunksWrong { hash, .. }
            | Damage::BlobDamaged { hash, .. } => of_bytes(hash, records),
            Damage::KeptBlobMissing { digest, .. } | Damage::KeptBlobDamaged { digest, .. } => {
                vec![Casualty::KeptBlob(digest.clone())]
            }
            Damage::HeaderWrong { .. } => vec![Casualty::Header],
            Damage::ComposefsChanged { tree, number, .. } => {
                vec![Casualty::Composefs(tree.digest.0, *number)]
            }
            Damage::MountRecordDamaged { layer, .. } => vec![Casualty::MountRecord(layer.clone())],
            Damage::DataMissing { kind, id, .. } => vec![Casualty::Data(kind, id.clone())],
            Damage::RootOpen { path, .. } => vec![Casualty::Root(path.clone())],
            Damage::Stray { .. } => vec![Casualty::Stray],
            Damage::Neighbour { .. } => vec![Casualty::Neighbour],
        }
    }
}

fn of_record(kind: &str, key: &str, records: &Records) -> Vec<Casualty> {
    match kind {
        "layer" => vec![Casualty::Layer(key.to_owned())],
        "image" => vec![Casualty::Image(key.to_owned())],
        "container" => vec![Casualty::Container(key.to_owned())],
        "diff" => of_hex(key).map(Casualty::Tree).into_iter().collect(),
        "blob" => of_bytes(key, records),
        "kept blob" => vec![Casualty::KeptBlob(key.to_owned())],
        "lease" => vec![Casualty::Rows],
        // The text is made for people; the row itself says what it is.
        _ => {
            let row = records.damaged.iter().find(|record| record.kind == kind && record.key == key);
            match row.map(|record| &record.row) {
                Some(crate::meta::RowKey::Item(owner, id, key)) => {
                    vec![Casualty::Item(*owner, id.clone(), key.clone())]
                }
                _ => vec![Casualty::Rows],
            }
        }
    }
}

/// Every layer of a circle: one of them names a wrong parent.
fn of_circle(first: &str, records: &Records) -> Vec<Casualty> {
    let mut circle = vec![Casualty::Layer(first.to_owned())];
    let parent = |id: &str| records.layers.get(id).and_then(|layer| layer.parent.clone());
    let mut next = parent(first);
    while let Some(id) = next.take_if(|id| !circle.contains(&Casualty::Layer(id.clone()))) {
        next = parent(&id);
        circle.push(Casualty::Layer(id));
    }
    circle
}

fn of_item(owner: &str, key: &str) -> Vec<Casualty> {
    let (word, id) = owner.split_once(' ').unwrap_or_default();
    let kinds = [Owner::Layer, Owner::Image, Owner::Container];
    let found = kinds.into_iter().find(|kind| kind.word() == word);
    found.map(|kind| Casualty::Item(kind.code(), id.to_owned(), key.to_owned())).into_iter().collect()
}

/// Everything that some bytes of the database are.
fn of_bytes(hash: &str, records: &Records) -> Vec<Casualty> {
    let Some(hash) = of_hex(hash) else { return vec![Casualty::Rows] };
    let trees = records.diffs.iter().filter(|(_, diff)| diff.manifest == hash);
    let splits = records.layers.values().filter(|layer| layer.split == Some(hash));
    let items = records.items.iter().filter(|(_, item)| item.blob == hash);
    let mut all: BTreeSet<Casualty> = trees.map(|(tree, _)| Casualty::Tree(*tree)).collect();
    all.extend(splits.map(|layer| Casualty::Split(layer.id.clone())));
    all.extend(items.map(|((owner, id, key), _)| Casualty::Item(*owner, id.clone(), key.clone())));
    if all.is_empty() {
        all.insert(Casualty::Rows);
    }
    all.into_iter().collect()
}

/// The sealed directories among those that share one.
fn of_shared(path: &std::path::Path, records: &Records) -> Vec<Casualty> {
    let name = path.file_name().and_then(|name| name.to_str());
    let number: Option<u64> = name.and_then(|name| name.parse().ok());
    let trees = records.diffs.iter().filter(|(_, diff)| Some(diff.number) == number);
    trees.map(|(tree, _)| Casualty::Tree(*tree)).collect()
}

fn of_hex(hex: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(hex).ok().map(|hash| *hash.as_bytes())
}
