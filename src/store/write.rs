//! Several changes in one transaction: all of them are seen at once, or none is.

use layerstore_schema::table::Owner;

use crate::error::{Error, InUseError, LookupError};
use crate::meta::{self, PreparedBlob, Query};
use crate::types::{Digest, ImageId, Name, stored_list};

use super::{Store, ThingId};

/// The changes of one [`Store::write`].
#[derive(Debug)]
pub struct WriteTxn<'t> {
    txn: &'t meta::WriteTxn,
}

impl Store {
    /// Runs `body`, and commits what it changed if it succeeds.
    ///
    /// # Locking
    ///
    /// Only one write transaction runs at a time, over all processes: do nothing slow in `body`, and call no other
    /// writing method of the store, which would wait for this one.
    ///
    /// Returns the error of `body`, or [`Error::Meta`] if another process keeps the lock for too long or the database
    /// fails. Nothing is changed then, unless [`is_outcome_unknown`](Error::is_outcome_unknown) says otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let web = store.create_container(None, &ContainerOptions::named("web"))?;
    /// store.write(|txn| {
    ///     txn.add_name(&web, &"web-1".parse()?)?;
    ///     txn.put_item(&web, "spec", b"{}")
    /// })?;
    /// assert_eq!(store.item(&web, "spec")?, b"{}");
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn write<T>(&self, body: impl FnOnce(&WriteTxn<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.tidy_once();
        self.database().write(|txn| body(&WriteTxn { txn }))
    }
}

impl WriteTxn<'_> {
    /// The names of a thing, with what this transaction changed.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn names(&self, of: impl Into<ThingId>) -> Result<Vec<Name>, Error> {
        let of = of.into();
        let names = match self.record(&of)? {
            AnyRecord::Layer(record) => record.names,
            AnyRecord::Image(record) => record.names,
            AnyRecord::Container(record) => record.names,
        };
        Ok(stored_list(of.kind().word(), of.as_str(), &names)?)
    }

    /// Gives a thing exactly these names.
    ///
    /// Returns [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if another thing of the kind has one.
    pub fn set_names(&self, of: impl Into<ThingId>, names: &[Name]) -> Result<(), Error> {
        self.change_names(&of.into(), |held| {
            held.clear();
            for name in names {
                push_name(held, name);
            }
        })
    }

    /// Gives a thing one name more.
    ///
    /// Returns [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if another thing of the kind has it.
    pub fn add_name(&self, of: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        self.change_names(&of.into(), |held| push_name(held, name))
    }

    /// Takes a name from a thing; nothing happens if it does not have it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn remove_name(&self, of: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        self.change_names(&of.into(), |held| held.retain(|other| other != name.as_str()))
    }

    /// Moves a name to an image from whichever image has it.
    ///
    /// Returns [`Error::Lookup`] if the image is not there.
    pub fn move_name(&self, to: &ImageId, name: &Name) -> Result<(), Error> {
        // Before the name is taken from its holder: the caller may go on after an error.
        self.record(&to.into())?;
        let current = self.txn.named(Owner::Image, name.as_str())?;
        if current.as_deref() != Some(to.as_str()) {
            self.txn.take_image_name(name.as_str())?;
        }
        self.add_name(to, name)
    }

    /// Replaces a thing's metadata.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn set_metadata(&self, of: impl Into<ThingId>, metadata: &str) -> Result<(), Error> {
        let of = of.into();
        match self.record(&of)? {
            AnyRecord::Layer(mut record) => {
                record.metadata = metadata.to_owned();
                self.txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                record.metadata = metadata.to_owned();
                self.txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                record.metadata = metadata.to_owned();
                self.txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    /// Stores a data item under `key`, in place of the one that is there.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InUse`] with
    /// [`DocumentOfImage`](InUseError::DocumentOfImage) if the item is the manifest or config that an image was loaded
    /// with, and the bytes are others.
    pub fn put_item(&self, of: impl Into<ThingId>, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let of = of.into();
        let record = self.record(&of)?;
        let digest = Digest::sha256(bytes).to_string();
        refuse_document(&record, key, Some(&digest))?;
        self.txn.put_item(of.owner(), of.as_str(), key, digest, &PreparedBlob::from_bytes(bytes))?;
        Ok(())
    }

    /// Removes a data item.
    ///
    /// Returns [`Error::Lookup`] if the thing has none with this key, and [`Error::InUse`] with
    /// [`DocumentOfImage`](InUseError::DocumentOfImage) if the item is the manifest or config that an image was loaded
    /// with.
    pub fn remove_item(&self, of: impl Into<ThingId>, key: &str) -> Result<(), Error> {
        let of = of.into();
        if self.txn.item(of.owner(), of.as_str(), key)?.is_none() {
            let (kind, id) = (of.kind().word(), of.as_str().to_owned());
            return Err(LookupError::NoItem { kind, id, key: key.to_owned() }.into());
        }
        refuse_document(&self.record(&of)?, key, None)?;
        self.txn.remove_item(of.owner(), of.as_str(), key)?;
        Ok(())
    }

    fn change_names(&self, of: &ThingId, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Error> {
        match self.record(of)? {
            AnyRecord::Layer(mut record) => {
                change(&mut record.names);
                self.txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                change(&mut record.names);
                for name in record.names.iter().rev() {
                    if !record.names_history.contains(name) {
                        record.names_history.insert(0, name.clone());
                    }
                }
                self.txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                change(&mut record.names);
                self.txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    fn record(&self, of: &ThingId) -> Result<AnyRecord, Error> {
        let id = of.as_str();
        let record = match of {
            ThingId::Layer(_) => self.txn.layer(id)?.map(AnyRecord::Layer),
            ThingId::Image(_) => self.txn.image(id)?.map(AnyRecord::Image),
            ThingId::Container(_) => self.txn.container(id)?.map(AnyRecord::Container),
        };
        let missing = LookupError::NotFound { kind: of.kind().word(), key: id.to_owned() };
        record.ok_or_else(|| missing.into())
    }
}

/// Refuses to change a document that an image was loaded with, without which it could not be saved.
fn refuse_document(record: &AnyRecord, key: &str, digest: Option<&str>) -> Result<(), Error> {
    let AnyRecord::Image(image) = record else { return Ok(()) };
    let config = key.parse::<Digest>().is_ok_and(|config| config.hex() == image.id);
    let own = match key.strip_prefix("manifest-") {
        Some(manifest) => image.digests.iter().any(|digest| digest == manifest).then_some(manifest),
        None => config.then_some(key),
    };
    let allowed = match own {
        Some(own) => digest == Some(own),
        None if key == "manifest" && !image.digests.is_empty() => {
            digest.is_some_and(|digest| image.digests.iter().any(|own| own == digest))
        }
        None => true,
    };
    if allowed {
        return Ok(());
    }
    Err(InUseError::DocumentOfImage { image: image.id.clone(), key: key.to_owned() }.into())
}

enum AnyRecord {
    Layer(layerstore_schema::record::LayerRecord),
    Image(layerstore_schema::record::ImageRecord),
    Container(layerstore_schema::record::ContainerRecord),
}

fn push_name(names: &mut Vec<String>, name: &Name) {
    if !names.iter().any(|held| held == name.as_str()) {
        names.push(name.as_str().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{Store, StoreOptions, SyncMode};
    use crate::types::ImageId;

    #[test]
    fn a_name_stays_when_it_cannot_be_moved() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&StoreOptions::at(dir.path().join("store")).sync(SyncMode::Off).reserve(0)).unwrap();
        let name = "busybox".parse().unwrap();
        let image: ImageId = "aa".repeat(32).parse().unwrap();
        let missing: ImageId = "bb".repeat(32).parse().unwrap();
        store
            .write(|txn| {
                txn.txn.put_image(&record(&image))?;
                txn.add_name(&image, &name)?;
                assert!(txn.move_name(&missing, &name).is_err());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.image("busybox").unwrap().id, image);
    }

    #[test]
    fn names_that_cannot_be_given_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(
            &StoreOptions::at(dir.path().join("store")).sync(crate::store::SyncMode::Off).reserve(0),
        )
        .unwrap();
        let names = ["old", "taken", "new"].map(|name| name.parse().unwrap());
        let images: [ImageId; 2] = ["aa", "bb"].map(|id| id.repeat(32).parse().unwrap());
        store
            .write(|txn| {
                for (image, name) in images.iter().zip(&names) {
                    txn.txn.put_image(&record(image))?;
                    txn.add_name(image, name)?;
                }
                assert!(txn.set_names(&images[0], &[names[2].clone(), names[1].clone()]).is_err());
                Ok(())
            })
            .unwrap();
        assert_eq!(store.image("old").unwrap().id, images[0]);
        assert!(store.image("new").is_err());
    }

    fn record(id: &ImageId) -> layerstore_schema::record::ImageRecord {
        layerstore_schema::record::ImageRecord {
            id: id.to_string(),
            names: Vec::new(),
            names_history: Vec::new(),
            metadata: String::new(),
            created: layerstore_schema::record::Time::default(),
            top_layer: None,
            mapped_top_layers: Vec::new(),
            digests: Vec::new(),
            flags: Vec::new(),
            labels: Vec::new(),
        }
    }
}
