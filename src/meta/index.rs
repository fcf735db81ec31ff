//! Which index rows a record implies. The one place that knows: writing a record puts exactly these rows, a
//! check compares the tables with them, a repair writes them again.

use std::collections::BTreeSet;

use layerstore_schema::manifest::TreeDigest;
use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerContent, LayerRecord};
use layerstore_schema::table::{self, LayerKey, Owner};
use redb::TableDefinition;

use super::{Query, Tables, WriteTxn};
use crate::error::MetaError;

/// An index whose rows are pairs.
type PairTable = TableDefinition<'static, (&'static str, &'static str), ()>;

/// A row of an index table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum IndexRow {
    /// `names`: kind, name, id.
    Name(u8, String, String),
    /// `children`: parent, child.
    Child(String, String),
    /// `layers_by_digest`: kind of digest, digest, layer.
    LayerDigest(u8, String, String),
    /// `images_by_digest`: digest, image.
    ImageDigest(String, String),
    /// `images_by_layer`: layer, image.
    ImageLayer(String, String),
    /// `containers_by_image`: image, container.
    ContainerImage(String, String),
    /// `containers_by_layer`: layer, container.
    ContainerLayer(String, String),
}

impl IndexRow {
    /// The table it stands in.
    pub(crate) fn table(&self) -> &'static str {
        match self {
            IndexRow::Name(..) => "names",
            IndexRow::Child(..) => "children",
            IndexRow::LayerDigest(..) => "layers_by_digest",
            IndexRow::ImageDigest(..) => "images_by_digest",
            IndexRow::ImageLayer(..) => "images_by_layer",
            IndexRow::ContainerImage(..) => "containers_by_image",
            IndexRow::ContainerLayer(..) => "containers_by_layer",
        }
    }

    /// The thing whose record implies the row: kind and id. The kind is `None` if the row has one that is none.
    pub(crate) fn implied_by(&self) -> (Option<Owner>, &str) {
        match self {
            IndexRow::Name(owner, _, id) => (Owner::from_code(*owner), id),
            IndexRow::Child(_, layer) | IndexRow::LayerDigest(_, _, layer) => (Some(Owner::Layer), layer),
            IndexRow::ImageDigest(_, image) | IndexRow::ImageLayer(_, image) => (Some(Owner::Image), image),
            IndexRow::ContainerImage(_, container) | IndexRow::ContainerLayer(_, container) => {
                (Some(Owner::Container), container)
            }
        }
    }

    /// What the row is found by.
    pub(crate) fn key(&self) -> &str {
        match self {
            IndexRow::Name(_, key, _) | IndexRow::LayerDigest(_, key, _) => key,
            IndexRow::Child(key, _)
            | IndexRow::ImageDigest(key, _)
            | IndexRow::ImageLayer(key, _)
            | IndexRow::ContainerImage(key, _)
            | IndexRow::ContainerLayer(key, _) => key,
        }
    }
}

/// A record that implies index rows.
pub(crate) trait Indexed {
    /// The kind of thing.
    const OWNER: Owner;

    /// Its id.
    fn id(&self) -> &str;

    /// Its names.
    fn names(&self) -> &[String];

    /// Its rows besides those of its names.
    fn own_rows(&self) -> Vec<IndexRow>;

    /// All its rows.
    fn rows(&self) -> BTreeSet<IndexRow> {
        let name_row = |name: &String| IndexRow::Name(Self::OWNER.code(), name.clone(), self.id().to_owned());
        self.names().iter().map(name_row).chain(self.own_rows()).collect()
    }
}

impl Indexed for LayerRecord {
    const OWNER: Owner = Owner::Layer;

    fn id(&self) -> &str {
        &self.id
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn own_rows(&self) -> Vec<IndexRow> {
        let by = |key: LayerKey, digest: &str| {
            IndexRow::LayerDigest(key.code(), digest.to_owned(), self.id.clone())
        };
        let mut rows = Vec::new();
        rows.extend(self.parent.iter().map(|parent| IndexRow::Child(parent.clone(), self.id.clone())));
        rows.extend(self.diff_id.iter().map(|digest| by(LayerKey::DiffId, digest)));
        rows.extend(self.toc_digest.iter().map(|digest| by(LayerKey::Toc, digest)));
        rows.extend(self.blobs.iter().map(|blob| by(LayerKey::Blob, &blob.digest)));
        if let LayerContent::Sealed(tree) = self.content {
            rows.push(by(LayerKey::Tree, &TreeDigest(tree).to_string()));
        }
        rows
    }
}

impl Indexed for ImageRecord {
    const OWNER: Owner = Owner::Image;

    fn id(&self) -> &str {
        &self.id
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn own_rows(&self) -> Vec<IndexRow> {
        let digests = self.known_digests().into_iter();
        let digests = digests.map(|digest| IndexRow::ImageDigest(digest.to_owned(), self.id.clone()));
        let tops = self.top_layer.iter().chain(&self.mapped_top_layers);
        digests.chain(tops.map(|layer| IndexRow::ImageLayer(layer.clone(), self.id.clone()))).collect()
    }
}

impl Indexed for ContainerRecord {
    const OWNER: Owner = Owner::Container;

    fn id(&self) -> &str {
        &self.id
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn own_rows(&self) -> Vec<IndexRow> {
        let mut rows = vec![IndexRow::ContainerLayer(self.layer.clone(), self.id.clone())];
        rows.extend(self.image.iter().map(|image| IndexRow::ContainerImage(image.clone(), self.id.clone())));
        rows
    }
}

impl WriteTxn {
    /// Turns the rows of the old record into those of the new one, touching only what differs.
    ///
    /// Returns [`MetaError::NameInUse`] if a new name belongs to another thing. Nothing is changed then: the caller may go
    /// on and commit.
    pub(super) fn update_index(
        &self,
        old: &BTreeSet<IndexRow>,
        new: &BTreeSet<IndexRow>,
    ) -> Result<(), MetaError> {
        for row in new.difference(old) {
            if let IndexRow::Name(owner, name, id) = row {
                self.refuse_taken(*owner, name, id)?;
            }
        }
        for row in old.difference(new) {
            self.remove_index_row(row)?;
        }
        for row in new.difference(old) {
            self.insert_index_row(row)?;
        }
        Ok(())
    }

    /// Adds one row. Returns [`MetaError::NameInUse`] if it is a name that another thing has.
    pub(crate) fn insert_index_row(&self, row: &IndexRow) -> Result<(), MetaError> {
        match row {
            IndexRow::Name(owner, name, id) => self.insert_name(*owner, name, id),
            IndexRow::Child(parent, child) => self.insert_pair(table::CHILDREN, parent, child),
            IndexRow::LayerDigest(kind, digest, layer) => {
                let mut rows = self.open(table::LAYERS_BY_DIGEST)?;
                rows.insert((*kind, &**digest, &**layer), ())?;
                Ok(())
            }
            IndexRow::ImageDigest(digest, image) => self.insert_pair(table::IMAGES_BY_DIGEST, digest, image),
            IndexRow::ImageLayer(layer, image) => self.insert_pair(table::IMAGES_BY_LAYER, layer, image),
            IndexRow::ContainerImage(image, container) => {
                self.insert_pair(table::CONTAINERS_BY_IMAGE, image, container)
            }
            IndexRow::ContainerLayer(layer, container) => {
                self.open(table::CONTAINERS_BY_LAYER)?.insert(&**layer, &**container)?;
                Ok(())
            }
        }
    }

    fn insert_pair(&self, definition: PairTable, first: &str, second: &str) -> Result<(), MetaError> {
        self.open(definition)?.insert((first, second), ())?;
        Ok(())
    }

    fn remove_pair(&self, definition: PairTable, first: &str, second: &str) -> Result<(), MetaError> {
        self.open(definition)?.remove((first, second))?;
        Ok(())
    }

    fn insert_name(&self, owner: u8, name: &str, id: &str) -> Result<(), MetaError> {
        self.refuse_taken(owner, name, id)?;
        self.open(table::NAMES)?.insert((owner, name), id)?;
        Ok(())
    }

    fn refuse_taken(&self, owner: u8, name: &str, id: &str) -> Result<(), MetaError> {
        let names = self.open(table::NAMES)?;
        match names.get((owner, name))? {
            Some(holder) if holder.value() != id => Err(MetaError::NameInUse {
                kind: Owner::from_code(owner).map_or("thing", Owner::word),
                name: name.to_owned(),
                holder: holder.value().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes one row away.
    pub(crate) fn remove_index_row(&self, row: &IndexRow) -> Result<(), MetaError> {
        match row {
            IndexRow::Name(owner, name, _) => {
                self.open(table::NAMES)?.remove((*owner, &**name))?;
                Ok(())
            }
            IndexRow::Child(parent, child) => self.remove_pair(table::CHILDREN, parent, child),
            IndexRow::LayerDigest(kind, digest, layer) => {
                let mut rows = self.open(table::LAYERS_BY_DIGEST)?;
                rows.remove((*kind, &**digest, &**layer))?;
                Ok(())
            }
            IndexRow::ImageDigest(digest, image) => self.remove_pair(table::IMAGES_BY_DIGEST, digest, image),
            IndexRow::ImageLayer(layer, image) => self.remove_pair(table::IMAGES_BY_LAYER, layer, image),
            IndexRow::ContainerImage(image, container) => {
                self.remove_pair(table::CONTAINERS_BY_IMAGE, image, container)
            }
            IndexRow::ContainerLayer(layer, _) => {
                self.open(table::CONTAINERS_BY_LAYER)?.remove(&**layer)?;
                Ok(())
            }
        }
    }
}

/// Every index row that stands in the tables.
pub(crate) fn stored_rows(txn: &impl Query) -> Result<BTreeSet<IndexRow>, MetaError> {
    let mut rows = BTreeSet::new();
    for row in txn.open(table::NAMES)?.iter()? {
        let (key, id) = row?;
        let (owner, name) = key.value();
        rows.insert(IndexRow::Name(owner, name.to_owned(), id.value().to_owned()));
    }
    for row in txn.open(table::LAYERS_BY_DIGEST)?.iter()? {
        let (key, _) = row?;
        let (kind, digest, layer) = key.value();
        rows.insert(IndexRow::LayerDigest(kind, digest.to_owned(), layer.to_owned()));
    }
    for row in txn.open(table::CONTAINERS_BY_LAYER)?.iter()? {
        let (layer, container) = row?;
        rows.insert(IndexRow::ContainerLayer(layer.value().to_owned(), container.value().to_owned()));
    }
    type Make = fn(String, String) -> IndexRow;
    let pairs: [(PairTable, Make); 4] = [
        (table::CHILDREN, IndexRow::Child),
        (table::IMAGES_BY_DIGEST, IndexRow::ImageDigest),
        (table::IMAGES_BY_LAYER, IndexRow::ImageLayer),
        (table::CONTAINERS_BY_IMAGE, IndexRow::ContainerImage),
    ];
    for (definition, make) in pairs {
        for row in txn.open(definition)?.iter()? {
            let (key, _) = row?;
            let (first, second) = key.value();
            rows.insert(make(first.to_owned(), second.to_owned()));
        }
    }
    Ok(rows)
}
