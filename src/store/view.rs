//! Reading several stores as one: the own store, the separate one for its images, and other stores that are only read.
//!
//! Stores are asked in order, and the first that has a thing has it for all: what another store has under the same id or
//! name is not seen. A thing is whole in its store, but for what it stands on: a container or an image here can stand on a
//! layer there. A layer's files are taken from the store that has the layer, which knows what stands on them and is mounted;
//! only one that does not have them takes them from another, since a tree digest says what they are.

use std::collections::HashSet;
use std::sync::Arc;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{
    ContainerRecord, DiffRecord, ImageRecord, ItemRecord, KeptBlobRecord, LayerContent, LayerRecord,
};
use layerstore_schema::table::{LayerKey, Owner};

use crate::disk::AdditionalDirectory;
use crate::error::{CreateError, Error, MetaError};
use crate::image::{self, Container, Image};
use crate::layer::Layer;
use crate::meta::{self, Database, PrefixMatch, Query, ReadTxn};
use crate::types::TreeDigest;

use super::Store;
use super::part::{Begin, Directory, Part, Role};

/// A snapshot of each store, in the order in which they are asked.
#[derive(Debug)]
pub(crate) struct View<'s> {
    parts: Vec<Part<'s>>,
}

impl Store {
    /// Begins a snapshot of everything that this handle reads.
    pub(crate) fn begin_read(&self) -> Result<View<'_>, MetaError> {
        self.view(Database::begin_read)
    }

    /// The same for who deletes what he does not find: see [`Database::begin_verified_read`].
    pub(crate) fn begin_verified_read(&self) -> Result<View<'_>, MetaError> {
        self.view(Database::begin_verified_read)
    }

    fn view(&self, begin: Begin) -> Result<View<'_>, MetaError> {
        let own = Part::new(self, Role::Own, begin);
        let run = self.transient(own.txn()?)?;
        let mut parts = Vec::with_capacity(1);
        parts.extend(self.separate_images().map(|store| Part::new(store, Role::Images, begin)));
        parts.push(own);
        parts.extend(run.map(|run| Part::of_run(self, run, begin)));
        parts.extend(self.image_stores().iter().map(|store| Part::new(store, Role::Other, begin)));
        Ok(View { parts })
    }
}

impl<'s> View<'s> {
    /// The first store that has something, with what it has.
    fn first<T>(
        &self,
        ask: impl Fn(&ReadTxn) -> Result<Option<T>, MetaError>,
    ) -> Result<Option<(&Part<'s>, T)>, MetaError> {
        for part in &self.parts {
            if let Some(found) = ask(part.txn()?)? {
                return Ok(Some((part, found)));
            }
        }
        Ok(None)
    }

    /// What all stores have, each thing once.
    fn all(
        &self,
        ask: impl Fn(&ReadTxn) -> Result<Vec<String>, MetaError>,
    ) -> Result<Vec<String>, MetaError> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for part in &self.parts {
            found.extend(ask(part.txn()?)?.into_iter().filter(|id| seen.insert(id.clone())));
        }
        Ok(found)
    }

    /// Where containers are: in no other store.
    fn own(&self) -> impl Iterator<Item = &Part<'s>> {
        self.parts.iter().filter(|part| part.has_containers())
    }

    /// As [`first`](Self::first), of where containers are.
    fn first_own<T>(
        &self,
        ask: impl Fn(&ReadTxn) -> Result<Option<T>, MetaError>,
    ) -> Result<Option<(&Part<'s>, T)>, MetaError> {
        for part in self.own() {
            if let Some(found) = ask(part.txn()?)? {
                return Ok(Some((part, found)));
            }
        }
        Ok(None)
    }

    /// The store that has a thing.
    pub(crate) fn home(&self, owner: Owner, id: &str) -> Result<Option<&Part<'s>>, MetaError> {
        let found = match owner {
            Owner::Layer => self.first(|txn| Ok(txn.layer(id)?.map(drop)))?,
            Owner::Image => self.first(|txn| Ok(txn.image(id)?.map(drop)))?,
            Owner::Container => self.first_own(|txn| Ok(txn.container(id)?.map(drop)))?,
        };
        Ok(found.map(|(part, ())| part))
    }

    pub(crate) fn layer(&self, id: &str) -> Result<Option<LayerRecord>, MetaError> {
        Ok(self.first(|txn| txn.layer(id))?.map(|(_, record)| record))
    }

    /// A layer that a record refers to.
    pub(crate) fn layer_ref(&self, id: &str) -> Result<LayerRecord, MetaError> {
        self.layer(id)?.ok_or_else(|| MetaError::Missing { kind: "layer", key: id.to_owned() })
    }

    pub(crate) fn image(&self, id: &str) -> Result<Option<ImageRecord>, MetaError> {
        Ok(self.first(|txn| txn.image(id))?.map(|(_, record)| record))
    }

    pub(crate) fn container(&self, id: &str) -> Result<Option<ContainerRecord>, MetaError> {
        Ok(self.first_own(|txn| txn.container(id))?.map(|(_, record)| record))
    }

    /// All containers, by id.
    pub(crate) fn containers(&self) -> Result<Vec<ContainerRecord>, MetaError> {
        let mut containers = Vec::new();
        for part in self.own() {
            containers.extend(part.txn()?.containers()?);
        }
        containers.sort_by(|a: &ContainerRecord, b| a.id.cmp(&b.id));
        Ok(containers)
    }

    /// The same as values.
    pub(crate) fn container_values(&self) -> Result<Vec<Container>, MetaError> {
        let mut containers = Vec::new();
        for part in self.own() {
            part.txn()?.each_container(&mut |record| {
                containers.push(Container::from_record(record)?);
                Ok(())
            })?;
        }
        containers.sort_by(|a: &Container, b| a.id.cmp(&b.id));
        Ok(containers)
    }

    /// All layers: those of the first store by id, then those of the next. Layers of other stores' containers are those
    /// stores' own business.
    pub(crate) fn layers(&self) -> Result<Vec<Layer>, MetaError> {
        let mut layers = Vec::new();
        let mut seen = HashSet::new();
        for part in &self.parts {
            for record in part.txn()?.layers()? {
                let foreign = !part.has_containers() && part.txn()?.container_of_layer(&record.id)?.is_some();
                if !foreign && seen.insert(record.id.clone()) {
                    layers.push(Layer { image_store: part.other(), ..Layer::from_record(record)? });
                }
            }
        }
        Ok(layers)
    }

    /// The layers with a name that begins with `prefix`, in the stores that are not only read. What it costs depends on how many that
    /// are.
    pub(crate) fn layers_named(&self, prefix: &str) -> Result<Vec<Layer>, MetaError> {
        let mut layers = Vec::new();
        let mut seen = HashSet::new();
        for part in self.parts.iter().filter(|part| !part.is_other()) {
            let txn = part.txn()?;
            for id in txn.named_with(Owner::Layer, prefix)? {
                // A row of the index without a record is for a check to tell.
                let Some(record) = txn.layer(&id)? else { continue };
                let foreign = !part.has_containers() && txn.container_of_layer(&id)?.is_some();
                if !foreign && seen.insert(id) {
                    layers.push(Layer::from_record(record)?);
                }
            }
        }
        Ok(layers)
    }

    /// All images: those of the first store by id, then those of the next.
    pub(crate) fn images(&self) -> Result<Vec<Image>, MetaError> {
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        for part in &self.parts {
            for record in part.txn()?.images()? {
                if seen.insert(record.id.clone()) {
                    images.push(Image { image_store: part.other(), ..Image::from_record(record)? });
                }
            }
        }
        Ok(images)
    }

    /// The value of a layer's record, which says where it is.
    pub(crate) fn layer_value(&self, record: LayerRecord) -> Result<Layer, MetaError> {
        let image_store = self.home(Owner::Layer, &record.id)?.and_then(Part::other);
        Ok(Layer { image_store, ..Layer::from_record(record)? })
    }

    /// The value of an image's record, which says where it is.
    pub(crate) fn image_value(&self, record: ImageRecord) -> Result<Image, MetaError> {
        let image_store = self.home(Owner::Image, &record.id)?.and_then(Part::other);
        Ok(Image { image_store, ..Image::from_record(record)? })
    }

    /// The value of a container's record.
    pub(crate) fn container_value(&self, record: ContainerRecord) -> Result<Container, MetaError> {
        Container::from_record(record)
    }

    /// A layer and all below it, topmost first, through whichever stores.
    ///
    /// Returns [`MetaError::Missing`] if one is in none of them, and [`MetaError::Record`] if a damaged record makes a
    /// layer stand on itself.
    pub(crate) fn chain(&self, top: &str) -> Result<Vec<LayerRecord>, MetaError> {
        meta::chain(top, |id| self.layer_ref(id))
    }

    pub(crate) fn named(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError> {
        match owner {
            Owner::Container => Ok(self.first_own(|txn| txn.named(owner, name))?.map(|(_, id)| id)),
            _ => Ok(self.first(|txn| txn.named(owner, name))?.map(|(_, id)| id)),
        }
    }

    /// The thing that has a name in a store that is not only read: of all of these, no two have one.
    pub(crate) fn named_here(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError> {
        for part in self.parts.iter().filter(|part| !part.is_other()) {
            if let Some(id) = part.txn()?.named(owner, name)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// Refuses an id for a new thing by which another is found.
    pub(super) fn refuse_name(&self, owner: Owner, id: &str) -> Result<(), Error> {
        match self.named_here(owner, id)? {
            Some(holder) => {
                Err(CreateError::IdIsName { kind: owner.word(), id: id.to_owned(), holder }.into())
            }
            None => Ok(()),
        }
    }

    pub(crate) fn children(&self, parent: &str) -> Result<Vec<String>, MetaError> {
        self.all(|txn| txn.children(parent))
    }

    pub(crate) fn images_of_layer(&self, layer: &str) -> Result<Vec<String>, MetaError> {
        self.all(|txn| txn.images_of_layer(layer))
    }

    pub(crate) fn images_by_digest(&self, digest: &str) -> Result<Vec<String>, MetaError> {
        self.all(|txn| txn.images_by_digest(digest))
    }

    pub(crate) fn containers_of_image(&self, image: &str) -> Result<Vec<String>, MetaError> {
        let mut found = Vec::new();
        for part in self.own() {
            found.extend(part.txn()?.containers_of_image(image)?);
        }
        Ok(found)
    }

    pub(crate) fn container_of_layer(&self, layer: &str) -> Result<Option<String>, MetaError> {
        Ok(self.first_own(|txn| txn.container_of_layer(layer))?.map(|(_, id)| id))
    }

    /// The record of the container whose own layer this is.
    pub(crate) fn container_on(&self, layer: &str) -> Result<Option<ContainerRecord>, MetaError> {
        Ok(self.container_of_layer(layer)?.map(|id| self.container(&id)).transpose()?.flatten())
    }

    pub(crate) fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<String>, MetaError> {
        self.all(|txn| txn.layers_by(key, digest))
    }

    /// The row of a tree, and the store that has it.
    pub(crate) fn diff(&self, tree: &TreeDigest) -> Result<Option<(&Part<'s>, DiffRecord)>, MetaError> {
        self.first(|txn| txn.diff(tree))
    }

    /// The file of a layer blob, and the store that has it.
    pub(crate) fn kept_blob(&self, digest: &str) -> Result<Option<(&Part<'s>, KeptBlobRecord)>, MetaError> {
        self.first(|txn| txn.kept_blob(digest))
    }

    /// The data items of a thing, by key.
    pub(crate) fn items(&self, owner: Owner, id: &str) -> Result<Vec<(String, ItemRecord)>, MetaError> {
        match self.home(owner, id)? {
            Some(part) => part.txn()?.items(owner, id),
            None => Ok(Vec::new()),
        }
    }

    /// A data item, and the store that has it.
    pub(crate) fn item(
        &self,
        owner: Owner,
        id: &str,
        key: &str,
    ) -> Result<Option<(&Part<'s>, ItemRecord)>, MetaError> {
        let Some(part) = self.home(owner, id)? else { return Ok(None) };
        Ok(part.txn()?.item(owner, id, key)?.map(|item| (part, item)))
    }

    /// The row of a layer's tree: that of the store which has the layer, as nobody else keeps its directory for it.
    pub(crate) fn diff_of(
        &self,
        layer: &LayerRecord,
        tree: &TreeDigest,
    ) -> Result<Option<(&Part<'s>, DiffRecord)>, MetaError> {
        if let Some(home) = self.home(Owner::Layer, &layer.id)?
            && let Some(diff) = home.txn()?.diff(tree)?
        {
            return Ok(Some((home, diff)));
        }
        self.diff(tree)
    }

    /// Where the files of a layer are. The directory of one that is written to is [made again](Self::ensure_made) if the power
    /// took it before it was on the disk, as far as that can be done now: who only asks where it is gets an answer.
    ///
    /// Returns [`MetaError::Missing`] if no store has them.
    pub(crate) fn directory(&self, layer: &LayerRecord) -> Result<Directory<'s>, MetaError> {
        let missing = |kind, key| MetaError::Missing { kind, key };
        let (part, number) = match &layer.content {
            LayerContent::Sealed(tree) => {
                let tree = TreeDigest(*tree);
                let found = self.diff_of(layer, &tree)?;
                let (part, diff) = found.ok_or_else(|| missing("diff", tree.to_string()))?;
                (part, diff.number)
            }
            LayerContent::Writable(number) => {
                let part = self.home(Owner::Layer, &layer.id)?;
                let part = part.ok_or_else(|| missing("layer", layer.id.clone()))?;
                match self.ensure_made(part, layer, *number) {
                    Err(Error::Meta(error)) => return Err(error),
                    Err(error) => tracing::warn!(layer = layer.id, %error, "its directory is not made again"),
                    Ok(()) => {}
                }
                (part, *number)
            }
            LayerContent::Additional(path) => {
                let part = self.home(Owner::Layer, &layer.id)?;
                let part = part.ok_or_else(|| missing("layer", layer.id.clone()))?;
                let directory = AdditionalDirectory::from_bytes(path);
                return Ok(Directory::additional(part.store().layout(), directory));
            }
        };
        Ok(Directory::new(part.store().layout(), number))
    }

    /// The manifest of a sealed layer.
    pub(crate) fn manifest(&self, tree: &TreeDigest) -> Result<Arc<Manifest>, MetaError> {
        match self.diff(tree)? {
            Some((part, _)) => part.store().manifest(part.txn()?, tree),
            None => Err(MetaError::Missing { kind: "diff", key: tree.to_string() }),
        }
    }

    /// Looks at `top` and the layers below it, before their files are used: see [`Store::verify_layer`].
    ///
    /// Returns [`Error::Unsynced`] if one is not whole.
    pub(crate) fn verify_chain(&self, top: &str) -> Result<(), Error> {
        // What is made again has something of what is below it.
        self.chain(top)?.iter().rev().try_for_each(|layer| self.verify_layer(layer))
    }

    /// As [`verify_chain`](Self::verify_chain), for one layer.
    pub(crate) fn verify_layer(&self, layer: &LayerRecord) -> Result<(), Error> {
        match &layer.content {
            LayerContent::Sealed(tree) => match self.diff_of(layer, &TreeDigest(*tree))? {
                Some((part, _)) => part.store().verify_layer(part.txn()?, layer),
                None => Ok(()),
            },
            LayerContent::Writable(number) => match self.home(Owner::Layer, &layer.id)? {
                Some(part) => self.ensure_made(part, layer, *number),
                None => Ok(()),
            },
            LayerContent::Additional(_) => Ok(()),
        }
    }
}

impl image::Lookup for View<'_> {
    fn layer(&self, id: &str) -> Result<Option<LayerRecord>, MetaError> {
        self.layer(id)
    }

    fn image(&self, id: &str) -> Result<Option<ImageRecord>, MetaError> {
        self.image(id)
    }

    fn container(&self, id: &str) -> Result<Option<ContainerRecord>, MetaError> {
        self.container(id)
    }

    fn named(&self, owner: Owner, name: &str) -> Result<Option<String>, MetaError> {
        self.named(owner, name)
    }

    fn images_by_digest(&self, digest: &str) -> Result<Vec<String>, MetaError> {
        self.images_by_digest(digest)
    }

    fn layers_by(&self, key: LayerKey, digest: &str) -> Result<Vec<String>, MetaError> {
        self.layers_by(key, digest)
    }

    fn children(&self, parent: &str) -> Result<Vec<String>, MetaError> {
        self.children(parent)
    }

    fn images_of_layer(&self, layer: &str) -> Result<Vec<String>, MetaError> {
        self.images_of_layer(layer)
    }

    fn by_prefix(&self, owner: Owner, prefix: &str) -> Result<PrefixMatch, MetaError> {
        let mut found = PrefixMatch::None;
        for part in &self.parts {
            if owner == Owner::Container && !part.has_containers() {
                continue;
            }
            found = match (found, Query::by_prefix(part.txn()?, owner, prefix)?) {
                (PrefixMatch::None, next) => next,
                (PrefixMatch::One(first), PrefixMatch::One(second)) if first != second => {
                    PrefixMatch::Several(first, second)
                }
                (PrefixMatch::One(_), several @ PrefixMatch::Several(..)) => several,
                (found, _) => found,
            };
        }
        Ok(found)
    }
}
