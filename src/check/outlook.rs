//! Which remedy there is for what was found. Looks at records and documents, and at manifests for files that lie
//! somewhere else too; reads no content.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind};
use layerstore_schema::table::Owner;

use super::casualty::Casualty;
use super::doomed::{are_copies, dependents, doomed};
use super::finding::{Cure, tree_of};
use super::supplies::{Offer, Place, Supplies, equal_files};
use super::{Damage, Finding, Losses, LostFile, Remedy, SealedTree};
use crate::error::Error;
use crate::meta::{BlobKind, Query, ReadTxn, Records, read_blob, stores_beside};
use crate::oci::MANIFEST_ITEM;
use crate::store::{Store, way_past_refusal};
use crate::sys::mount::info;
use crate::types::{ContentHash, Digest, TreeDigest};

/// Tells remedies.
pub(super) struct Outlook<'a> {
    store: &'a Store,
    txn: &'a ReadTxn,
    records: &'a Records,
    supplies: &'a Supplies<'a>,
    /// What is lost of each tree that is damaged.
    lost: BTreeMap<[u8; 32], BTreeSet<ContentHash>>,
    /// Where else the lost contents are.
    copies: HashMap<ContentHash, Vec<Place>>,
    /// Directories and paths that are found damaged, and are no copies.
    damaged: BTreeSet<(u64, &'a [u8])>,
    /// Trees whose directory is not what they are.
    directories: &'a BTreeSet<[u8; 32]>,
    /// The stores that this one was used with, and is not now: what is missing may be there.
    not_given: Vec<String>,
    /// Trees whose manifest is damaged.
    manifests: BTreeSet<[u8; 32]>,
    /// Where something is mounted.
    mounts: Vec<PathBuf>,
}

impl<'a> Outlook<'a> {
    /// Looks where else the contents are that were lost.
    pub(super) fn new(
        store: &'a Store,
        txn: &'a ReadTxn,
        records: &'a Records,
        supplies: &'a Supplies<'a>,
        (damages, losses): (&[Damage], &'a Losses),
    ) -> Result<Self, Error> {
        let (mut lost, mut damaged) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeSet::new());
        for LostFile { tree, path, content } in &losses.files {
            lost.entry(*tree).or_default().insert(*content);
            damaged.extend(records.diffs.get(tree).map(|diff| (diff.number, path.as_slice())));
        }
        for tree in &losses.directories {
            if let Ok(manifest) = store.manifest(txn, &TreeDigest(*tree)) {
                let contents = manifest.entries().iter().filter_map(|entry| match entry.kind {
                    Kind::File { content, .. } => Some(content),
                    _ => None,
                });
                lost.entry(*tree).or_default().extend(contents);
            }
        }
        let of_manifests = damages.iter().filter(|damage| is_of_manifest(damage));
        let manifests = of_manifests.flat_map(|damage| Casualty::of(damage, records));
        let manifests = manifests.filter_map(|casualty| match casualty {
            Casualty::Tree(tree) => Some(tree),
            _ => None,
        });
        let manifests = manifests.collect();
        let wanted = lost.values().flatten().copied().collect();
        let copies = equal_files(store, txn, records, &wanted);
        let directories = &losses.directories;
        let not_given = not_given(store, txn)?;
        let failed = |source| Error::Io { action: "read", path: info::TABLE.into(), source };
        Ok(Outlook {
            store,
            txn,
            records,
            supplies,
            lost,
            copies,
            damaged,
            directories,
            not_given,
            manifests,
            mounts: info::read().map_err(failed)?.into_iter().map(|mount| mount.target).collect(),
        })
    }

    /// The damage with its remedy.
    pub(super) fn finding(&self, damage: Damage) -> Finding {
        if !self.not_given.is_empty() && is_of_other_store(&damage) {
            let remedy = Remedy::OpenOther { flags: self.not_given.clone() };
            return out_of_sight(damage, remedy);
        }
        if let Damage::NotExamined { by_mode, .. } = damage {
            return out_of_sight(damage, Remedy::Allow { advice: way_past_refusal(by_mode) });
        }
        if let Some(target) = self.hidden_by(&damage) {
            return out_of_sight(damage, Remedy::Unmount { target });
        }
        let casualties = Casualty::of(&damage, self.records);
        let mut cures: Vec<Cure> = casualties
            .iter()
            .filter(|casualty| casualties.len() == 1 || !self.is_intact(casualty))
            .map(|casualty| {
                let remedy = self.remedy(casualty, &damage);
                let casualty = match intruder(self.txn, &damage) {
                    Some(intruder) if !remedy.removes().is_empty() => intruder,
                    _ => casualty.clone(),
                };
                let removes = match remedy.removes() {
                    [] => BTreeSet::new(),
                    _ => doomed(self.records, [casualty.clone()]),
                };
                Cure { casualty, remedy, removes }
            })
            .collect();
        // Of several that may be wrong, one that can be set right is.
        if cures.iter().any(|cure| cure.removes.is_empty()) {
            cures.retain(|cure| cure.removes.is_empty());
        }
        let remedy = self.of_path(&damage, &cures).or_else(|| told(&cures));
        Finding { remedy: remedy.unwrap_or(Remedy::Leave), damage, cures }
    }

    /// The mount over the directory that a damage is of, or in it.
    fn hidden_by(&self, damage: &Damage) -> Option<PathBuf> {
        let path = match damage {
            Damage::DirectoryUnreadable { path, .. } | Damage::DataMissing { path, .. } => path,
            _ => return None,
        };
        let path = info::resolved(path).ok()?;
        self.mounts.iter().find(|target| target.starts_with(&path)).cloned()
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

    /// The remedy for one path. With a content lost for good, its whole directory is.
    fn of_path(&self, damage: &Damage, cures: &[Cure]) -> Option<Remedy> {
        let (tree, _) = path_of(damage)?;
        if let Some(Cure { remedy: remedy @ Remedy::NeedsSource { .. }, .. }) = cures.first() {
            return Some(remedy.clone());
        }
        if matches!(damage, Damage::PathExtra { .. }) {
            return Some(Remedy::Forget);
        }
        let entry = self.entry(damage)?;
        let intact = match damage {
            Damage::PathChanged { what, .. } => !what.split(", ").any(|word| matches!(word, "size" | "kind")),
            _ => false,
        };
        match entry.kind {
            Kind::File { content, .. } if !intact => Some(self.of_content(&content, tree)),
            _ => Some(Remedy::RestoreMetadata),
        }
    }

    fn of_content(&self, content: &ContentHash, tree: &SealedTree) -> Remedy {
        if let Some(Place { number, path }) = self.copy_of(content) {
            let path = self.store.diff_path(*number).join(OsStr::from_bytes(path));
            return Remedy::RestoreFile { from: format!("the equal file {}", path.display()) };
        }
        match self.offer(&tree.digest.0) {
            Some(offer) => Remedy::RestoreFile { from: offer.name() },
            None => self.needs_source(&tree.digest.0),
        }
    }

    /// A file with a lost content that is not known to be damaged itself.
    fn copy_of(&self, content: &ContentHash) -> Option<&Place> {
        let mut places = self.copies.get(content)?.iter();
        places.find(|place| {
            let lies_in = |tree: &&[u8; 32]| {
                self.records.diffs.get(*tree).is_some_and(|diff| diff.number == place.number)
            };
            !self.damaged.contains(&(place.number, place.path.as_slice()))
                && !self.directories.iter().any(|tree| lies_in(&tree))
        })
    }

    /// The remedy for a sealed directory, its row or its manifest.
    fn of_tree(&self, tree: &[u8; 32]) -> Remedy {
        if self.layers_of(tree).is_empty() && self.records.are_readable(&["layer"]) {
            return Remedy::Forget;
        }
        if self.manifests.contains(tree) {
            if !self.directories.contains(tree) {
                return Remedy::RebuildManifest;
            }
        } else if self.store.manifest(self.txn, &TreeDigest(*tree)).is_ok() {
            let mut lost = self.lost.get(tree).into_iter().flatten();
            if lost.all(|content| self.copy_of(content).is_some()) {
                return Remedy::RestoreFile { from: "the files that are good, and equal ones".to_owned() };
            }
        }
        match self.offer(tree) {
            Some(offer) => Remedy::UnpackLayer { from: offer.name() },
            None => self.needs_source(tree),
        }
    }

    fn layers_of(&self, tree: &[u8; 32]) -> Vec<String> {
        tree_of(self.records, tree).layers
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
        if are_copies(self.records, &layers) {
            return Remedy::Forget;
        }
        let wanted = layers.iter().map(|layer| self.wanted(layer)).collect();
        let removes = dependents(self.records, &doomed(self.records, [Casualty::Tree(*tree)]));
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
        let removes = || {
            let first = intruder(self.txn, damage).unwrap_or_else(|| casualty.clone());
            dependents(self.records, &doomed(self.records, [first]))
        };
        match casualty {
            Casualty::Rows => match damage {
                Damage::TreeUnused { .. }
                | Damage::ItemUnowned { .. }
                | Damage::KeptBlobUnused { .. }
                | Damage::BlobUsersWrong { counted: 0, .. }
                | Damage::LeaseDangling { .. }
                | Damage::RecordDamaged { kind: "lease", .. }
                | Damage::JournalDamaged { .. }
                | Damage::UnsyncedUnused { .. } => Remedy::Forget,
                _ => Remedy::RebuildIndex,
            },
            Casualty::Header => Remedy::RebuildIndex,
            Casualty::MountRecord(_) | Casualty::Data(..) | Casualty::Composefs(..) => Remedy::Forget,
            Casualty::ImageOfContainer(id) if self.has_documents_of(id) => {
                Remedy::RestoreRecord { from: "the manifest and config of its image".to_owned() }
            }
            Casualty::Name(..) | Casualty::ImageOfContainer(_) => Remedy::RebuildIndex,
            Casualty::KeptBlob(digest) => match self.supplies.outside(digest) {
                Some(offer) => Remedy::RestoreBlob { from: offer.name() },
                None => Remedy::ForgetBlob,
            },
            Casualty::Tree(tree) => self.of_tree(tree),
            Casualty::Split(layer) => match self.offer_for(layer) {
                Some(offer) => Remedy::RebuildSplit { from: offer.name() },
                None => Remedy::NeedsSource { wanted: vec![self.wanted(layer)], removes: removes() },
            },
            Casualty::Layer(layer) => match self.offer_for(layer) {
                Some(offer) => Remedy::RestoreRecord { from: offer.name() },
                None if are_copies(self.records, std::slice::from_ref(layer)) => Remedy::Forget,
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
            Casualty::Root(_) => Remedy::MakePrivate,
            Casualty::Shut(path, mode) => Remedy::RestoreMode { path: path.clone(), mode: *mode },
            Casualty::Stray => Remedy::Leave,
            Casualty::Additional(_) => Remedy::Serve,
            Casualty::Neighbour => Remedy::Separate,
        }
    }

    /// Whether the image of a container can be made again.
    fn has_documents_of(&self, container: &str) -> bool {
        let image = self.records.containers.get(container).and_then(|container| container.image.as_ref());
        image.is_some_and(|image| self.supplies.images.contains_key(image))
    }

    fn of_item(&self, owner: u8, id: &str, key: &str, removes: Vec<String>) -> Remedy {
        let digests = document_digests(self.records, owner, id, key);
        let row = self.records.items.get(&(owner, id.to_owned(), key.to_owned()));
        if digests.is_empty()
            && row.is_some_and(|item| read_blob(self.txn, &item.blob, BlobKind::Item).is_ok())
        {
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

/// The remedy that stands for all.
fn told(cures: &[Cure]) -> Option<Remedy> {
    let mut told = cures.first()?.remedy.clone();
    if let Remedy::NeedsSource { removes, .. } | Remedy::RemoveWithForce { removes } = &mut told {
        for other in cures.iter().flat_map(|cure| cure.remedy.removes()) {
            if !removes.contains(other) {
                removes.push(other.clone());
            }
        }
    }
    Some(told)
}

/// What may be there, and only cannot be seen: nothing is done about it.
fn out_of_sight(damage: Damage, remedy: Remedy) -> Finding {
    let cure = Cure { casualty: Casualty::Stray, remedy: remedy.clone(), removes: BTreeSet::new() };
    Finding { damage, remedy, cures: vec![cure] }
}

/// Whether what is missing can be in another store.
fn is_of_other_store(damage: &Damage) -> bool {
    matches!(
        damage,
        Damage::ParentMissing { .. }
            | Damage::ImageLayerMissing { .. }
            | Damage::ContainerImageMissing { .. }
    )
}

/// The stores that records of this one stood on something of, and which it is not read with now.
fn not_given(store: &Store, txn: &ReadTxn) -> Result<Vec<String>, Error> {
    let given: Vec<&Store> = store.separate_images().into_iter().chain(store.image_stores()).collect();
    let mut noted = stores_beside(txn)?;
    // One that was made anew in the same place does not have it, and there is none other to ask for.
    noted.retain(|noted| !given.iter().any(|given| given.uuid() == noted.uuid || given.root() == noted.root));
    let flag = |is_of_images| if is_of_images { "--image-store-root" } else { "--image-store" };
    Ok(noted.iter().map(|noted| format!("{} {}", flag(noted.is_of_images), noted.root.display())).collect())
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
fn intruder(query: &impl Query, damage: &Damage) -> Option<Casualty> {
    let Damage::ContainerLayerShared { container, layer, other } = damage else { return None };
    let holder = query.container_of_layer(layer).ok().flatten();
    let intruder = if holder.as_ref() == Some(container) { other } else { container };
    Some(Casualty::Container(intruder.clone()))
}
