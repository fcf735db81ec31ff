//! What there is beside the damage: documents, blobs and files from which something can be made again, in the store
//! and in images outside it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use layerstore_schema::manifest::Kind;
use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::error::{Error, is_denied};
use crate::layer::LayerBlob;
use crate::meta::{BlobKind, IndexRow, ReadTxn, Records, read_blob, stored_rows};
use crate::oci::{Descriptor, Document, MANIFEST_ITEM, ResolvedImage, Source, blob_input};
use crate::store::{BlobInput, Store};
use crate::types::{Algorithm, ChainId, ContentHash, DiffId, Name, TreeDigest};

/// What the documents of an image say about one of its layers.
#[derive(Clone, Debug)]
pub(crate) struct LayerPlan {
    /// The layer's id.
    pub(crate) id: String,
    /// The layer below.
    pub(crate) parent: Option<String>,
    /// The digest of its tar.
    pub(crate) diff_id: DiffId,
    /// The blob that the image names.
    pub(crate) blob: LayerBlob,
}

/// A blob that carries a layer.
#[derive(Clone, Debug)]
pub(crate) enum Offer<'s> {
    /// Kept in the store: digest and number.
    Kept(String, u64),
    /// In an image outside.
    Outside(&'s Source, Box<Descriptor>),
}

impl Offer<'_> {
    /// As a message names it.
    pub(crate) fn name(&self) -> String {
        match self {
            Offer::Kept(digest, _) => format!("the kept blob {digest}"),
            Offer::Outside(source, descriptor) => format!("{} in {}", descriptor.digest, source.name()),
        }
    }

    /// Opens it.
    pub(crate) fn open(&self, store: &Store) -> Result<BlobInput, Error> {
        match self {
            Offer::Kept(_, number) => {
                Ok(BlobInput { reader: Box::new(store.open_kept_blob(*number)?), extent: None })
            }
            Offer::Outside(source, descriptor) => blob_input(source, descriptor),
        }
    }

    /// The algorithm of its digest.
    pub(crate) fn algorithm(&self) -> Algorithm {
        match self {
            Offer::Kept(digest, _) if digest.starts_with("sha512:") => Algorithm::Sha512,
            Offer::Kept(..) => Algorithm::Sha256,
            Offer::Outside(_, descriptor) => descriptor.digest.algorithm(),
        }
    }
}

/// A file of a sealed directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The number of the directory.
    pub(crate) number: u64,
    /// The path in it.
    pub(crate) path: Vec<u8>,
}

/// Everything from which something can be made again.
#[derive(Debug, Default)]
pub(crate) struct Supplies<'s> {
    /// What is known of layers, by id.
    pub(crate) layers: BTreeMap<String, LayerPlan>,
    /// Images by id, with their documents.
    pub(crate) images: BTreeMap<String, ResolvedImage>,
    /// Manifests and configs by digest, with where they are.
    documents: HashMap<String, (Document, String)>,
    /// Blobs of images outside, by their own digest and by that of their content.
    outside: HashMap<String, Vec<(&'s Source, Descriptor)>>,
    /// Kept blobs whose file is there with its right size, by digest.
    kept: BTreeMap<String, u64>,
    /// What the indexes say, before anything is set right.
    rows: BTreeSet<IndexRow>,
}

impl<'s> Supplies<'s> {
    /// Looks what there is. Damaged documents and kept blobs are passed over.
    ///
    /// Returns [`Error::Oci`] if an image of a source cannot be read.
    pub(crate) fn find(
        store: &Store,
        txn: &ReadTxn,
        records: &Records,
        sources: &'s [&'s Source],
    ) -> Result<Self, Error> {
        let mut supplies = Supplies { rows: stored_rows(txn)?, ..Supplies::default() };
        for source in sources {
            for image in source.images()? {
                for layer in &image.layers {
                    let blob = (*source, layer.descriptor.clone());
                    for digest in [layer.diff_id.to_string(), layer.descriptor.digest.to_string()] {
                        supplies.outside.entry(digest).or_default().push(blob.clone());
                    }
                }
                supplies.add_image(image, &source.name());
            }
        }
        let owners: BTreeSet<&String> = records
            .items
            .keys()
            .filter(|(owner, ..)| *owner == Owner::Image.code())
            .map(|key| &key.1)
            .collect();
        for id in owners {
            if let Some(image) = own_image(txn, records, id) {
                supplies.add_image(image, "the store");
            }
        }
        for (digest, record) in &records.kept_blobs {
            let may_be_good = match store.open_kept_blob(record.number) {
                Ok(file) => file.length().is_ok_and(|size| size == record.size),
                // Another user may read it.
                Err(error) => is_denied(&error),
            };
            if may_be_good {
                supplies.kept.insert(digest.clone(), record.number);
            }
        }
        Ok(supplies)
    }

    fn add_image(&mut self, image: ResolvedImage, place: &str) {
        let mut below: Option<ChainId> = None;
        for layer in &image.layers {
            let chain = ChainId::of(below.as_ref(), &layer.diff_id);
            let plan = LayerPlan {
                id: chain.0.hex().to_owned(),
                parent: below.map(|chain| chain.0.hex().to_owned()),
                diff_id: layer.diff_id.clone(),
                blob: LayerBlob {
                    digest: layer.descriptor.digest.clone(),
                    size: layer.descriptor.size,
                    media_type: layer.descriptor.media_type.clone(),
                },
            };
            self.layers.insert(plan.id.clone(), plan);
            below = Some(chain);
        }
        for document in [&image.manifest, &image.config] {
            self.documents.insert(document.digest.to_string(), (document.clone(), place.to_owned()));
        }
        self.images.insert(image.config.digest.hex().to_owned(), image);
    }

    /// A document by its digest, with where it is.
    pub(crate) fn document(&self, digest: &str) -> Option<&(Document, String)> {
        self.documents.get(digest)
    }

    /// The names that the index has for a thing.
    pub(crate) fn names(&self, owner: Owner, id: &str) -> Vec<String> {
        let names = self.rows.iter().filter_map(|row| match row {
            IndexRow::Name(code, name, of) if *code == owner.code() && of == id => Some(name.clone()),
            _ => None,
        });
        names.filter(|name| name.parse::<Name>().is_ok()).collect()
    }

    /// The layer that the index has for a container, if it is there to be written to by this one alone.
    pub(crate) fn container_layer(&self, records: &Records, id: &str) -> Option<String> {
        let of = |row: &IndexRow| match row {
            IndexRow::ContainerLayer(layer, container) if container == id => Some(layer.clone()),
            _ => None,
        };
        let free = |layer: &String| {
            let record = records.layers.get(layer);
            record.is_some_and(|record| matches!(record.content, LayerContent::Writable(_)))
                && records.containers.values().all(|other| other.id == id || other.layer != *layer)
        };
        self.rows.iter().filter_map(of).find(free)
    }

    /// The image that the index has for a container.
    pub(crate) fn container_image(&self, records: &Records, id: &str) -> Option<String> {
        let mut images = self.rows.iter().filter_map(|row| match row {
            IndexRow::ContainerImage(image, container) if container == id => Some(image.clone()),
            _ => None,
        });
        images.find(|image| records.images.contains_key(image) || records.is_damaged("image", image))
    }

    /// A kept blob turned out to be damaged: it is no supply.
    pub(crate) fn drop_kept(&mut self, digest: &str) {
        self.kept.remove(digest);
    }

    /// Blobs that carry a layer, the best first.
    pub(crate) fn blobs_of(&self, diff_id: &str, digests: &[String]) -> Vec<Offer<'s>> {
        let kept = digests
            .iter()
            .filter_map(|digest| self.kept.get(digest).map(|number| Offer::Kept(digest.clone(), *number)));
        let keys = std::iter::once(diff_id).chain(digests.iter().map(String::as_str));
        let outside = keys.flat_map(|key| self.outside.get(key).into_iter().flatten());
        kept.chain(outside.map(|(source, descriptor)| Offer::Outside(source, Box::new(descriptor.clone()))))
            .collect()
    }

    /// The blob with this digest in an image outside.
    pub(crate) fn outside(&self, digest: &str) -> Option<Offer<'s>> {
        let found = self.outside.get(digest)?.iter().find(|(_, blob)| blob.digest.to_string() == digest);
        found.map(|(source, descriptor)| Offer::Outside(source, Box::new(descriptor.clone())))
    }

    /// What is known of a layer: by documents, else by its own record.
    pub(crate) fn plan(&self, id: &str, record: Option<&LayerRecord>) -> Option<LayerPlan> {
        if let Some(plan) = self.layers.get(id) {
            return Some(plan.clone());
        }
        let record = record?;
        let diff_id = DiffId(record.diff_id.as_ref()?.parse().ok()?);
        let blob = record.blobs.first();
        let blob = LayerBlob {
            digest: blob.map_or(Some(diff_id.0.clone()), |blob| blob.digest.parse().ok())?,
            size: blob.map_or(record.diff_size.unwrap_or_default(), |blob| blob.size),
            media_type: blob.map(|blob| blob.media_type.clone()).unwrap_or_default(),
        };
        Some(LayerPlan { id: id.to_owned(), parent: record.parent.clone(), diff_id, blob })
    }

    /// Whether a layer's record says what the documents say of it, or there are none.
    pub(crate) fn agree_with(&self, record: &LayerRecord) -> bool {
        self.layers.get(&record.id).is_none_or(|plan| {
            record.parent == plan.parent && record.diff_id == Some(plan.diff_id.to_string())
        })
    }

    /// The top layer of an image that has documents.
    pub(crate) fn top_layer(&self, image: &str) -> Option<Option<String>> {
        let mut top: Option<ChainId> = None;
        for layer in &self.images.get(image)?.layers {
            top = Some(ChainId::of(top.as_ref(), &layer.diff_id));
        }
        Some(top.map(|top| top.0.hex().to_owned()))
    }

    /// The blobs from which a layer can be unpacked.
    pub(crate) fn blobs_of_layer(&self, id: &str, record: Option<&LayerRecord>) -> Vec<Offer<'s>> {
        let Some(plan) = self.plan(id, record) else { return Vec::new() };
        let mut digests = vec![plan.blob.digest.to_string()];
        digests.extend(record.iter().flat_map(|record| record.blobs.iter().map(|blob| blob.digest.clone())));
        digests.dedup();
        self.blobs_of(&plan.diff_id.to_string(), &digests)
    }
}

/// The documents that an image of the store has as its data items.
fn own_image(txn: &ReadTxn, records: &Records, id: &str) -> Option<ResolvedImage> {
    let algorithm = if id.len() == 128 { "sha512" } else { "sha256" };
    let key = |key: &str| (Owner::Image.code(), id.to_owned(), key.to_owned());
    let config = records.items.get(&key(&format!("{algorithm}:{id}")))?;
    let config = read_blob(txn, &config.blob, BlobKind::Item).ok()?;
    // The manifest stands there twice, and older ones may be there too.
    let manifests = records.items.range(key(MANIFEST_ITEM)..).take_while(|((owner, of, key), _)| {
        *owner == Owner::Image.code() && of == id && key.starts_with(MANIFEST_ITEM)
    });
    let mut manifests = manifests.filter_map(|(_, item)| read_blob(txn, &item.blob, BlobKind::Item).ok());
    manifests.find_map(|manifest| ResolvedImage::of_documents(manifest, config.clone()).ok())
}

/// Where files with given contents lie in sealed directories, as far as manifests tell.
pub(crate) fn equal_files(
    store: &Store,
    txn: &ReadTxn,
    records: &Records,
    wanted: &BTreeSet<ContentHash>,
) -> HashMap<ContentHash, Vec<Place>> {
    let mut found: HashMap<ContentHash, Vec<Place>> = HashMap::new();
    if wanted.is_empty() {
        return found;
    }
    for (tree, diff) in &records.diffs {
        // One that cannot be read has nothing to offer.
        let Ok(manifest) = store.manifest(txn, &TreeDigest(*tree)) else { continue };
        for entry in manifest.entries() {
            if let Kind::File { content, .. } = entry.kind
                && wanted.contains(&content)
            {
                let place = Place { number: diff.number, path: entry.path.clone() };
                found.entry(content).or_default().push(place);
            }
        }
    }
    found
}
