//! Which remedy there is for what was found. Looks at records and documents, and at manifests for files that lie
//! somewhere else too; reads no content.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind};
use layerstore_schema::record::LayerContent;
use layerstore_schema::table::Owner;

use super::casualty::Casualty;
use super::supplies::{Offer, Place, Supplies, equal_files};
use super::{Damage, Finding, Remedy, SealedTree, compare};
use crate::meta::{Query, ReadTxn, Records, read_blob};
use crate::oci::MANIFEST_ITEM;
use crate::store::Store;
use crate::types::{ContentHash, Digest};

/// Tells remedies.
pub(super) struct Outlook<'a> {
    store: &'a Store,
    txn: &'a ReadTxn,
    records: &'a Records,
    supplies: &'a Supplies<'a>,
    /// Where else the contents of damaged files are.
    copies: HashMap<ContentHash, Vec<Place>>,
    /// Directories and paths that are found damaged, and are no copies.
    damaged: BTreeSet<(PathBuf, PathBuf)>,
}

impl<'a> Outlook<'a> {
    /// Looks where else the contents are that `damages` are about.
    pub(super) fn new(
        store: &'a Store,
        txn: &'a ReadTxn,
        records: &'a Records,
        supplies: &'a Supplies<'a>,
        damages: &[Damage],
    ) -> Self {
        let damaged = damages.iter().filter_map(|damage| {
            let (tree, path) = path_of(damage)?;
            let number = records.diffs.get(&tree.digest.0)?.number;
            Some((store.diff_path(number), path.clone()))
        });
        let damaged = damaged.collect();
        let mut outlook = Outlook { store, txn, records, supplies, copies: HashMap::new(), damaged };
        let contents = damages.iter().filter_map(|damage| match outlook.entry(damage)?.kind {
            Kind::File { content, .. } => Some(content),
            _ => None,
        });
        let wanted = contents.collect();
        outlook.copies = equal_files(store, txn, records, &wanted);
        outlook
    }

    /// The damage with its remedy.
    pub(super) fn finding(&self, damage: Damage) -> Finding {
        let remedy = self.of_path(&damage).or_else(|| {
            let casualties = Casualty::of(&damage, self.records);
            let mut remedies: Vec<_> = casualties
                .iter()
                .filter(|casualty| casualties.len() == 1 || !self.is_intact(casualty))
                .map(|casualty| self.remedy(casualty, &damage))
                .collect();
            let own = remedies.iter().position(|remedy| remedy.removes().is_empty()).unwrap_or(0);
            (own < remedies.len()).then(|| remedies.swap_remove(own))
        });
        Finding { remedy: remedy.unwrap_or(Remedy::Leave), damage }
    }

    /// Whether a record is as the documents of its image say.
    fn is_intact(&self, casualty: &Casualty) -> bool {
        match casualty {
            Casualty::Layer(id) => {
                self.records.layers.get(id).is_some_and(|layer| self.supplies.agree_with(layer))
            }
            Casualty::Image(id) => self
                .records
                .images
                .get(id)
                .is_some_and(|image| self.supplies.top_layer(id).is_none_or(|top| top == image.top_layer)),
            _ => false,
        }
    }

    fn entry(&self, damage: &Damage) -> Option<Entry> {
        let (tree, path) = path_of(damage)?;
        let manifest = self.store.manifest(self.txn, &tree.digest).ok()?;
        let path = path.strip_prefix("/").ok()?;
        manifest.get(path.as_os_str().as_encoded_bytes()).cloned()
    }

    /// The remedy for one path.
    fn of_path(&self, damage: &Damage) -> Option<Remedy> {
        if matches!(damage, Damage::PathExtra { .. }) {
            return Some(Remedy::Forget);
        }
        let entry = self.entry(damage)?;
        let intact = match damage {
            Damage::PathChanged { what, .. } => !what.split(", ").any(|word| matches!(word, "size" | "kind")),
            _ => false,
        };
        let (tree, _) = path_of(damage)?;
        match entry.kind {
            Kind::File { content, .. } if !intact => Some(self.of_content(&content, tree)),
            _ => Some(Remedy::RestoreMetadata),
        }
    }

    fn of_content(&self, content: &ContentHash, tree: &SealedTree) -> Remedy {
        let places = self.copies.get(content).into_iter().flatten();
        let good = places.map(|place| (self.store.diff_path(place.number), compare::shown(&place.path)));
        if let Some((directory, path)) = good.into_iter().find(|place| !self.damaged.contains(place)) {
            let path = path.strip_prefix("/").unwrap_or(&path);
            return Remedy::RestoreFile {
                from: format!("the equal file {}", directory.join(path).display()),
            };
        }
        match self.offer(&tree.digest.0) {
            Some(offer) => Remedy::RestoreFile { from: offer.name() },
            None => self.needs_source(&tree.digest.0),
        }
    }

    fn layers_of(&self, tree: &[u8; 32]) -> Vec<String> {
        let content = LayerContent::Sealed(*tree);
        let layers = self.records.layers.values().filter(|layer| layer.content == content);
        layers.map(|layer| layer.id.clone()).collect()
    }

    /// A blob from which a tree can be unpacked.
    fn offer(&self, tree: &[u8; 32]) -> Option<Offer<'_>> {
        self.layers_of(tree).into_iter().find_map(|layer| self.offer_for(&layer))
    }

    fn offer_for(&self, layer: &str) -> Option<Offer<'_>> {
        self.supplies.blobs_of_layer(layer, self.records.layers.get(layer)).into_iter().next()
    }

    fn needs_source(&self, tree: &[u8; 32]) -> Remedy {
        let layers = self.layers_of(tree);
        let wanted = layers.iter().map(|layer| self.wanted(layer)).collect();
        let removes = dependents(self.records, layers.iter().map(|layer| Casualty::Layer(layer.clone())));
        Remedy::NeedsSource { wanted, removes }
    }

    /// What an image must have for a layer to be made again.
    fn wanted(&self, layer: &str) -> String {
        let plan = self.supplies.plan(layer, self.records.layers.get(layer));
        plan.map_or_else(
            || format!("the layer of chain ID sha256:{layer}"),
            |plan| format!("the layer {} ({})", plan.diff_id, plan.blob.digest),
        )
    }

    fn remedy(&self, casualty: &Casualty, damage: &Damage) -> Remedy {
        let removes =
            || dependents(self.records, [intruder(self.txn, damage).unwrap_or_else(|| casualty.clone())]);
        match casualty {
            Casualty::Rows => match damage {
                Damage::TreeUnused { .. }
                | Damage::ItemUnowned { .. }
                | Damage::KeptBlobUnused { .. }
                | Damage::LeaseDangling { .. }
                | Damage::RecordDamaged { kind: "lease", .. }
                | Damage::JournalDamaged { .. }
                | Damage::UnsyncedUnused { .. } => Remedy::Forget,
                _ => Remedy::RebuildIndex,
            },
            Casualty::Header => Remedy::RebuildIndex,
            Casualty::MountRecord(_) => Remedy::Forget,
            Casualty::Name(..) | Casualty::ImageOfContainer(_) => Remedy::RebuildIndex,
            Casualty::KeptBlob(digest) => match self.supplies.outside(digest) {
                Some(offer) => Remedy::RestoreBlob { from: offer.name() },
                None => Remedy::Forget,
            },
            Casualty::Tree(_) if is_of_manifest(damage) => Remedy::RebuildManifest,
            Casualty::Tree(tree)
                if self.layers_of(tree).is_empty() && self.records.are_readable(&["layer"]) =>
            {
                Remedy::Forget
            }
            Casualty::Tree(tree) => match self.offer(tree) {
                Some(offer) => Remedy::UnpackLayer { from: offer.name() },
                None => self.needs_source(tree),
            },
            Casualty::Split(layer) => match self.offer_for(layer) {
                Some(offer) => Remedy::RebuildSplit { from: offer.name() },
                None => Remedy::NeedsSource { wanted: vec![self.wanted(layer)], removes: removes() },
            },
            Casualty::Layer(layer) => match self.offer_for(layer) {
                Some(offer) => Remedy::RestoreRecord { from: offer.name() },
                None => Remedy::NeedsSource { wanted: vec![self.wanted(layer)], removes: removes() },
            },
            Casualty::Image(image) if self.supplies.images.contains_key(image) => {
                Remedy::RestoreRecord { from: "its manifest and config".to_owned() }
            }
            Casualty::Image(image) => {
                let wanted = vec![format!("the config sha256:{image}")];
                Remedy::NeedsSource { wanted, removes: removes() }
            }
            Casualty::Container(id) if self.supplies.container_layer(self.records, id).is_some() => {
                Remedy::RestoreRecord { from: "the indexes".to_owned() }
            }
            Casualty::Container(_) | Casualty::Written(_) => Remedy::RemoveWithForce { removes: removes() },
            Casualty::Item(owner, id, key) => self.of_item(*owner, id, key, removes()),
            Casualty::Stray => Remedy::Leave,
        }
    }

    fn of_item(&self, owner: u8, id: &str, key: &str, removes: Vec<String>) -> Remedy {
        let digests = document_digests(self.records, owner, id, key);
        let row = self.records.items.get(&(owner, id.to_owned(), key.to_owned()));
        if digests.is_empty() && row.is_some_and(|item| read_blob(self.txn, &item.blob).is_ok()) {
            return Remedy::RestoreRecord { from: "its bytes, which have the hash that it names".to_owned() };
        }
        let found = digests.iter().find_map(|digest| Some((digest, self.supplies.document(digest)?)));
        match found {
            Some((digest, (_, place))) => Remedy::RestoreItem { from: format!("{digest} in {place}") },
            None if digests.is_empty() => Remedy::RemoveWithForce { removes },
            None => {
                // Without it the image cannot be saved, and is as good as before in all other respects.
                let wanted = digests.iter().map(|digest| format!("the document {digest}")).collect();
                Remedy::NeedsSource { wanted, removes: Vec::new() }
            }
        }
    }
}

/// Whether the manifest is what is damaged of a tree.
fn is_of_manifest(damage: &Damage) -> bool {
    matches!(
        damage,
        Damage::ManifestDamaged { .. }
            | Damage::BlobMissing { .. }
            | Damage::BlobDamaged { .. }
            | Damage::BlobChunksWrong { .. }
    )
}

fn path_of(damage: &Damage) -> Option<(&SealedTree, &PathBuf)> {
    match damage {
        Damage::PathMissing { tree, path }
        | Damage::PathExtra { tree, path }
        | Damage::PathChanged { tree, path, .. }
        | Damage::ContentChanged { tree, path, .. } => Some((tree, path)),
        _ => None,
    }
}

/// The digests that a data item may have which is one of an image's documents; none if it is not.
pub(crate) fn document_digests(records: &Records, owner: u8, id: &str, key: &str) -> Vec<String> {
    if owner != Owner::Image.code() {
        return Vec::new();
    }
    if key == MANIFEST_ITEM {
        let row = (owner, id.to_owned(), key.to_owned());
        let own = records.items.get(&row).map(|item| item.digest.clone());
        // The newest last: the item is the manifest of the last load.
        let known = records.images.get(id).into_iter().flat_map(|image| image.digests.iter().rev().cloned());
        return own.into_iter().chain(known).collect();
    }
    let digest = key.strip_prefix("manifest-").unwrap_or(key);
    if digest.parse::<Digest>().is_ok() { vec![digest.to_owned()] } else { Vec::new() }
}

/// Of two containers with one layer, the one that is not found by it.
pub(crate) fn intruder(query: &impl Query, damage: &Damage) -> Option<Casualty> {
    let Damage::ContainerLayerShared { container, layer, other } = damage else { return None };
    let holder = query.container_of_layer(layer).ok().flatten();
    let intruder = if holder.as_ref() == Some(container) { other } else { container };
    Some(Casualty::Container(intruder.clone()))
}

/// Everything that goes when these things go, as messages name it.
pub(crate) fn dependents(records: &Records, first: impl IntoIterator<Item = Casualty>) -> Vec<String> {
    let doomed = doomed(records, first);
    let names = |names: &[String], id: &str| match names.first() {
        Some(name) => format!("{name} ({id})"),
        None => id.to_owned(),
    };
    let mut shown = Vec::new();
    for casualty in &doomed {
        shown.push(match casualty {
            Casualty::Container(id) => {
                let of = records.containers.get(id).map(|container| container.names.as_slice());
                format!(
                    "the container {} with all that was written into it",
                    names(of.unwrap_or_default(), id)
                )
            }
            Casualty::Image(id) => {
                let of = records.images.get(id).map(|image| image.names.as_slice());
                format!("the image {}", names(of.unwrap_or_default(), id))
            }
            Casualty::Layer(id) | Casualty::Written(id) => format!("the layer {id}"),
            Casualty::Item(owner, id, key) => {
                let word = Owner::from_code(*owner).map_or("thing", Owner::word);
                format!("the data item {key:?} of {word} {id}")
            }
            Casualty::Tree(_) => format!("the {casualty}"),
            _ => continue,
        });
    }
    shown
}

/// Everything that goes when these things go: what stands on a layer goes with it.
pub(crate) fn doomed(records: &Records, first: impl IntoIterator<Item = Casualty>) -> BTreeSet<Casualty> {
    let mut doomed = BTreeSet::new();
    let mut next: Vec<Casualty> = first.into_iter().collect();
    while let Some(casualty) = next.pop() {
        let casualty = match casualty {
            Casualty::Tree(tree) => {
                let content = LayerContent::Sealed(tree);
                let layers = records.layers.values().filter(|layer| layer.content == content);
                next.extend(layers.map(|layer| Casualty::Layer(layer.id.clone())));
                continue;
            }
            Casualty::Split(id) | Casualty::Written(id) => Casualty::Layer(id),
            other => other,
        };
        if !doomed.insert(casualty.clone()) {
            continue;
        }
        match &casualty {
            Casualty::Layer(id) => {
                let above = records.layers.values().filter(|layer| layer.parent.as_ref() == Some(id));
                next.extend(above.map(|layer| Casualty::Layer(layer.id.clone())));
                let of = records.images.values().filter(|image| {
                    image.top_layer.iter().chain(&image.mapped_top_layers).any(|layer| layer == id)
                });
                next.extend(of.map(|image| Casualty::Image(image.id.clone())));
                let of = records.containers.values().filter(|container| container.layer == *id);
                next.extend(of.map(|container| Casualty::Container(container.id.clone())));
            }
            Casualty::Image(id) => {
                let of = records.containers.values().filter(|container| container.image.as_ref() == Some(id));
                next.extend(of.map(|container| Casualty::Container(container.id.clone())));
            }
            Casualty::Container(id) => {
                let layer = records.containers.get(id).map(|container| container.layer.clone());
                let shared = |layer: &String| {
                    records.containers.values().any(|other| other.id != *id && other.layer == *layer)
                };
                next.extend(layer.filter(|layer| !shared(layer)).map(Casualty::Layer));
            }
            _ => {}
        }
    }
    doomed
}
