//! Making images of layers that are there, and finding images by what they are made of.

use layerstore_schema::record::ImageRecord;
use layerstore_schema::table::Owner;

use crate::error::{CreateError, Error, LookupError, ValueError, shown};
use crate::image::{self, Image};
use crate::meta::{self, PreparedBlob, Query, WriteTxn};
use crate::types::{Digest, ImageId, LayerId, Timestamp};

use super::Store;
use super::container::{checked_names, random_id};
use super::snapshot::refuse_uncommitted;
use super::view::View;

/// A data item that a new image or container is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewItem {
    /// The key.
    pub key: String,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// If it is a manifest of an image: the digest that the image is known by for its sake, where that is not the digest
    /// of the bytes, as with signed manifests of old.
    pub digest: Option<Digest>,
}

impl NewItem {
    /// An item.
    pub fn new(key: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        NewItem { key: key.into(), bytes: bytes.into(), digest: None }
    }
}

/// What a new image is given.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ImageOptions {
    /// The id; a random one if `None`.
    pub id: Option<ImageId>,
    /// The names. An image that has one of them loses it, and keeps it in its history.
    pub names: Vec<String>,
    /// Names that it had elsewhere, the newest first: they come after its names in its history.
    pub names_history: Vec<String>,
    /// The topmost layer; `None` for an image without layers.
    pub top_layer: Option<LayerId>,
    /// Copies of the top layer for other id maps.
    pub mapped_top_layers: Vec<LayerId>,
    /// The caller's small string.
    pub metadata: String,
    /// When the image was made; now if `None`.
    pub created: Option<Timestamp>,
    /// Digests that the image is known by, besides those of its manifests.
    pub digests: Vec<Digest>,
    /// Data items. Those under the keys `manifest` and `manifest-...` are manifests: the image is found by their digests.
    pub items: Vec<NewItem>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
}

impl ImageOptions {
    /// An image with one name.
    pub fn named(name: impl Into<String>) -> Self {
        ImageOptions { names: vec![name.into()], ..ImageOptions::default() }
    }
}

impl Store {
    /// Makes an image of a layer that is there. One transaction: the image is seen with all that it is given, or not
    /// at all.
    ///
    /// Returns [`Error::Value`] if a name, a flag or an item's key is none, [`Error::Create`] if the id is taken or a layer
    /// is a container's, and [`Error::Lookup`] if a layer is not there.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{Digest, ImageOptions, NewItem, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let mut options = ImageOptions::named("nothing:1");
    /// options.items.push(NewItem::new("manifest", b"{}"));
    /// let image = store.create_image(&options)?;
    /// assert_eq!(store.images_by_digest(&Digest::sha256(b"{}"))?, [image]);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn create_image(&self, options: &ImageOptions) -> Result<Image, Error> {
        if let Some(images) = self.separate_images() {
            for layer in options.top_layer.iter().chain(&options.mapped_top_layers) {
                self.refuse_outside_images(layer.as_str())?;
            }
            return images.create_image(options);
        }
        self.begin_writing()?;
        let names = checked_names(&options.names)?;
        let names_history = checked_names(&options.names_history)?;
        check_flags(&options.flags)?;
        let items = prepare(&options.items)?;
        let id = options.id.clone().map_or_else(random_id, Ok)?;
        let mut record = ImageRecord {
            id: id.to_string(),
            names,
            names_history,
            metadata: options.metadata.clone(),
            created: options.created.unwrap_or_else(Timestamp::now).into(),
            top_layer: options.top_layer.as_ref().map(ToString::to_string),
            mapped_top_layers: options.mapped_top_layers.iter().map(ToString::to_string).collect(),
            given_digests: options.digests.iter().map(ToString::to_string).collect(),
            flags: options.flags.clone(),
            labels: options.labels.clone(),
            ..ImageRecord::default()
        };
        let names = record.names.clone();
        image::remember(&mut record, &names);
        let record = self.database().write::<_, Error>(|txn| {
            if txn.image(&record.id)?.is_some() {
                return Err(CreateError::IdInUse { kind: "image", id: record.id.clone() }.into());
            }
            let view = self.begin_read()?;
            view.refuse_name(Owner::Image, &record.id)?;
            for layer in record.top_layer.iter().chain(&record.mapped_top_layers) {
                let missing = || LookupError::NotFound { kind: "layer", key: layer.clone() };
                refuse_uncommitted(&view.layer(layer)?.ok_or_else(missing)?)?;
                if let Some(container) = view.container_of_layer(layer)? {
                    return Err(CreateError::ParentOfContainer { layer: layer.clone(), container }.into());
                }
            }
            for name in &record.names {
                txn.take_name(Owner::Image, name)?;
            }
            txn.put_image(&record)?;
            insert(txn, Owner::Image, &record.id, &items)?;
            // The manifests among the items have changed it.
            Ok(txn.image(&record.id)?.unwrap_or_else(|| record.clone()))
        })?;
        Ok(Image::from_record(record)?)
    }

    /// The images that are known by a digest: one that was given to them, or that of one of their manifests. By id; none
    /// if there is none.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn images_by_digest(&self, digest: &Digest) -> Result<Vec<Image>, Error> {
        let txn = self.begin_read()?;
        let ids = txn.images_by_digest(&digest.to_string())?;
        images(&txn, &ids)
    }

    /// The images that have this layer at the top, or among the copies of it for other id maps. By id.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn images_by_top_layer(&self, layer: &LayerId) -> Result<Vec<Image>, Error> {
        let txn = self.begin_read()?;
        if txn.layer(layer.as_str())?.is_none() {
            return Err(LookupError::NotFound { kind: "layer", key: layer.to_string() }.into());
        }
        let ids = txn.images_of_layer(layer.as_str())?;
        images(&txn, &ids)
    }
}

fn images(txn: &View<'_>, ids: &[String]) -> Result<Vec<Image>, Error> {
    let mut images = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(record) = txn.image(id)? {
            images.push(txn.image_value(record)?);
        }
    }
    Ok(images)
}

/// Data items, compressed and hashed before any lock is taken.
pub(super) type PreparedItems<'o> = Vec<(&'o NewItem, Digest, PreparedBlob)>;

/// Returns [`ValueError::ItemKey`] if a key is none.
pub(super) fn prepare(items: &[NewItem]) -> Result<PreparedItems<'_>, ValueError> {
    let prepared = items.iter().map(|item| {
        check_item_key(&item.key)?;
        Ok((item, Digest::sha256(&item.bytes), PreparedBlob::from_bytes(&item.bytes)))
    });
    prepared.collect()
}

/// Gives a thing that is there its items.
pub(super) fn insert(txn: &WriteTxn, owner: Owner, id: &str, items: &PreparedItems<'_>) -> Result<(), Error> {
    for (item, digest, blob) in items {
        txn.put_item(owner, id, &item.key, digest.to_string(), blob)?;
        if let Some(digest) =
            item.digest.as_ref().filter(|_| owner == Owner::Image && meta::is_manifest(&item.key))
        {
            txn.name_manifest(id, &item.key, Some(&digest.to_string()))?;
        }
    }
    Ok(())
}

/// Returns [`ValueError::ItemKey`] if `key` is no key of a data item.
pub(super) fn check_item_key(key: &str) -> Result<(), ValueError> {
    let good = (1..=1024).contains(&key.len()) && !key.chars().any(char::is_control);
    if good { Ok(()) } else { Err(ValueError::ItemKey(shown(key))) }
}

/// Returns [`ValueError::Flag`] if a flag has no name, or a value that is no JSON.
pub(super) fn check_flags(flags: &[(String, String)]) -> Result<(), ValueError> {
    for (name, value) in flags {
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok();
        if name.is_empty() || !is_json {
            return Err(ValueError::Flag { name: name.clone(), value: shown(value) });
        }
    }
    Ok(())
}
