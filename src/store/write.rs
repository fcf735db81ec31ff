//! Several changes in one transaction: all of them are seen at once, or none is.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use layerstore_schema::table::Owner;

use crate::error::{Error, InUseError, LookupError, MetaError, ValueError};
use crate::image;
use crate::meta::{self, OpenWrite, PreparedBlob, Query, read_blob};
use crate::sys::moment;
use crate::types::{Digest, ImageId, Name, stored_list};

use super::image::{check_flags, check_item_key};
use super::part::Part;
use super::{Store, ThingId};

/// The changes of one [`Store::write`].
#[derive(Debug)]
pub struct WriteTxn<'t> {
    store: &'t Store,
    txn: &'t meta::WriteTxn,
    /// The transaction of the separate store for images, begun by the first change there.
    images: &'t OnceCell<OpenWrite>,
    /// The transaction of the run database, if there are containers that the next boot drops.
    run: Option<&'t OpenWrite>,
}

impl Store {
    /// Runs `body`, and commits what it changed if it succeeds.
    ///
    /// # Locking
    ///
    /// Only one write transaction runs at a time, over all processes: do nothing slow in `body`, and call no other
    /// writing method of the store, which would wait for this one.
    ///
    /// With a separate store for images there are two transactions, of which that of the images is committed first: if the
    /// machine goes down between the two, or the second cannot be committed, the changes of containers have not happened.
    /// So it is with transient containers.
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
        self.begin_writing()?;
        let mut body = Some(body);
        loop {
            // The lock of the run database comes before that of the store.
            let run = match self.transient(&self.database().begin_read()?)? {
                Some(run) => Some(run.rows().open_write_without_header()?),
                None => None,
            };
            moment::pass("transient looked for");
            let written = self.database().write::<_, Error>(|txn| {
                if run.is_none() && self.has_new_transient(txn)? {
                    return Ok(None);
                }
                let Some(body) = body.take() else { return Ok(None) };
                let images = OnceCell::new();
                let value = body(&WriteTxn { store: self, txn, images: &images, run: run.as_ref() })?;
                for open in images.into_inner().into_iter().chain(run) {
                    open.commit()?;
                }
                Ok(Some(value))
            })?;
            if let Some(value) = written {
                return Ok(value);
            }
        }
    }
}

impl Store {
    /// Whether a thing is in the store itself.
    pub(super) fn has(&self, what: &ThingId) -> Result<bool, Error> {
        has(&self.database().begin_read()?, what)
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

    /// Moves a name to a thing from whichever thing of its kind has it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn move_name(&self, to: impl Into<ThingId>, name: &Name) -> Result<(), Error> {
        let to = to.into();
        // Before the name is taken from its holder: the caller may go on after an error.
        self.copy_up(&to)?;
        self.record(&to)?;
        for txn in self.all_with(to.owner())? {
            let holder = txn.named(to.owner(), name.as_str())?;
            if holder.is_some_and(|holder| holder != to.as_str()) {
                txn.take_name(to.owner(), name.as_str())?;
            }
        }
        self.add_name(to, name)
    }

    /// Sets a flag of a thing to a JSON value.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::Value`] if the flag has no name or the value is no
    /// JSON.
    pub fn set_flag(&self, of: impl Into<ThingId>, flag: &str, value: &str) -> Result<(), Error> {
        let flag = (flag.to_owned(), value.to_owned());
        check_flags(std::slice::from_ref(&flag))?;
        self.change_flags(&of.into(), |flags| match flags.iter_mut().find(|(name, _)| *name == flag.0) {
            Some(held) => *held = flag,
            None => flags.push(flag),
        })
    }

    /// Takes a flag from a thing; nothing happens if it does not have it.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    pub fn clear_flag(&self, of: impl Into<ThingId>, flag: &str) -> Result<(), Error> {
        self.change_flags(&of.into(), |flags| flags.retain(|(name, _)| name != flag))
    }

    /// Replaces a thing's metadata.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InOtherStore`] if it is in a store that is only
    /// read.
    pub fn set_metadata(&self, of: impl Into<ThingId>, metadata: &str) -> Result<(), Error> {
        let of = of.into();
        let txn = self.home(&of)?;
        match self.record(&of)? {
            AnyRecord::Layer(mut record) => {
                record.metadata = metadata.to_owned();
                txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                record.metadata = metadata.to_owned();
                txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                record.metadata = metadata.to_owned();
                txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    /// Stores a data item under `key`, in place of the one that is there. An image's items `manifest` and `manifest-...` are
    /// its manifests: it is found by their digests.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, [`Error::InOtherStore`] if it is in a store that is only read,
    /// [`Error::InUse`] with [`DocumentOfImage`](InUseError::DocumentOfImage) if the item is the manifest or config that an
    /// image was loaded with, and the bytes are others, and [`Error::Value`] if the key is none.
    pub fn put_item(&self, of: impl Into<ThingId>, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let of = of.into();
        check_item_key(key)?;
        let record = self.record(&of)?;
        let digest = Digest::sha256(bytes).to_string();
        refuse_document(&record, key, Some(&digest))?;
        self.home(&of)?.put_item(of.owner(), of.as_str(), key, digest, &PreparedBlob::from_bytes(bytes))?;
        Ok(())
    }

    /// Stores a manifest of an image, which is known by `digest` for its sake, whatever the digest of the bytes is.
    ///
    /// Returns [`Error::Lookup`] if the image is not there, and [`Error::Value`] if the key is not that of a manifest.
    pub fn put_manifest(&self, of: &ImageId, key: &str, bytes: &[u8], digest: &Digest) -> Result<(), Error> {
        if !meta::is_manifest(key) {
            return Err(ValueError::ManifestKey(key.to_owned()).into());
        }
        self.put_item(of, key, bytes)?;
        Ok(self.home(&of.into())?.name_manifest(of.as_str(), key, Some(&digest.to_string()))?)
    }

    /// Removes a data item.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has none with this key, [`Error::InOtherStore`] if it is in a
    /// store that is only read, and [`Error::InUse`] with [`DocumentOfImage`](InUseError::DocumentOfImage) if the item is
    /// the manifest or config that an image was loaded with.
    pub fn remove_item(&self, of: impl Into<ThingId>, key: &str) -> Result<(), Error> {
        let of = of.into();
        let record = self.record(&of)?;
        if self.home(&of)?.item(of.owner(), of.as_str(), key)?.is_none() {
            let (kind, id) = (of.kind().word(), of.as_str().to_owned());
            return Err(LookupError::NoItem { kind, id, key: key.to_owned() }.into());
        }
        refuse_document(&record, key, None)?;
        self.home(&of)?.remove_item(of.owner(), of.as_str(), key)?;
        Ok(())
    }

    fn change_flags(
        &self,
        of: &ThingId,
        change: impl FnOnce(&mut Vec<(String, String)>),
    ) -> Result<(), Error> {
        let txn = self.home(of)?;
        match self.record(of)? {
            AnyRecord::Layer(mut record) => {
                change(&mut record.flags);
                txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                change(&mut record.flags);
                txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                change(&mut record.flags);
                txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    fn change_names(&self, of: &ThingId, change: impl FnOnce(&mut Vec<String>)) -> Result<(), Error> {
        self.copy_up(of)?;
        let txn = self.home(of)?;
        match self.record(of)? {
            AnyRecord::Layer(mut record) => {
                self.change_list(of, &mut record.names, change)?;
                txn.put_layer(&record)?;
            }
            AnyRecord::Image(mut record) => {
                let given = self.change_list(of, &mut record.names, change)?;
                image::remember(&mut record, &given);
                txn.put_image(&record)?;
            }
            AnyRecord::Container(mut record) => {
                self.change_list(of, &mut record.names, change)?;
                txn.put_container(&record)?;
            }
        }
        Ok(())
    }

    /// Changes the names of a record. Returns those that are new, and nobody else's of the kind.
    fn change_list(
        &self,
        of: &ThingId,
        names: &mut Vec<String>,
        change: impl FnOnce(&mut Vec<String>),
    ) -> Result<Vec<String>, Error> {
        let before = names.clone();
        change(names);
        let given: Vec<_> = names.iter().filter(|name| !before.contains(name)).cloned().collect();
        if given.is_empty() {
            return Ok(given);
        }
        let all = self.all_with(of.owner())?;
        for name in given.iter().collect::<BTreeSet<_>>() {
            for txn in &all {
                if let Some(holder) = txn.named(of.owner(), name)?.filter(|holder| holder != of.as_str()) {
                    let (kind, name) = (of.kind().word(), name.clone());
                    return Err(MetaError::NameInUse { kind, name, holder }.into());
                }
            }
        }
        Ok(given)
    }

    /// The transactions of all databases that have things of a kind and can be written: a name belongs to one thing of all
    /// of them.
    fn all_with(&self, owner: Owner) -> Result<Vec<&meta::WriteTxn>, Error> {
        let mut all = vec![self.txn];
        if owner != Owner::Container && self.store.separate_images().is_some() {
            all.push(self.images_txn()?);
        }
        if owner != Owner::Image {
            all.extend(self.run.map(OpenWrite::txn));
        }
        Ok(all)
    }

    /// The transaction of the store that a thing is in, or would be.
    fn home(&self, of: &ThingId) -> Result<&meta::WriteTxn, Error> {
        if let Some(run) = self.run
            && !matches!(of, ThingId::Image(_))
            && has(run.txn(), of)?
        {
            return Ok(run.txn());
        }
        let Some(images) = self.store.separate_images() else { return Ok(self.txn) };
        if let Some(open) = self.images.get() {
            return Ok(if has(open.txn(), of)? { open.txn() } else { self.txn });
        }
        if !images.has(of)? {
            return Ok(self.txn);
        }
        images.begin_writing()?;
        let open = images.database().open_write()?;
        Ok(self.images.get_or_init(|| open).txn())
    }

    /// Makes an own record of an image that is in a store which is only read, with its names, as far as they are free, and
    /// data items. It stands on the layers there.
    fn copy_up(&self, of: &ThingId) -> Result<(), Error> {
        let ThingId::Image(id) = of else { return Ok(()) };
        if self.store.image_stores().is_empty() || has(self.home(of)?, of)? {
            return Ok(());
        }
        let view = self.store.begin_read()?;
        let Some(part) = view.home(Owner::Image, id.as_str())?.filter(|part| part.is_other()) else {
            return Ok(());
        };
        let from = part.txn()?;
        let Some(mut record) = from.image(id.as_str())? else { return Ok(()) };
        let to = self.images_txn()?;
        record.directory = None;
        let mut names = std::mem::take(&mut record.names);
        for name in names.drain(..) {
            if to.named(Owner::Image, &name)?.is_none() {
                record.names.push(name);
            }
        }
        to.put_image(&record)?;
        for (key, item) in from.items(Owner::Image, id.as_str())? {
            let blob = PreparedBlob::from_bytes(&read_blob(from, &item.blob)?);
            to.put_item(Owner::Image, id.as_str(), &key, item.digest, &blob)?;
        }
        Ok(())
    }

    /// The transaction of the store that new images go to.
    fn images_txn(&self) -> Result<&meta::WriteTxn, Error> {
        let Some(images) = self.store.separate_images() else { return Ok(self.txn) };
        if self.images.get().is_none() {
            images.begin_writing()?;
            let open = images.database().open_write()?;
            self.images.get_or_init(|| open);
        }
        Ok(self.images.get().map_or(self.txn, OpenWrite::txn))
    }

    fn record(&self, of: &ThingId) -> Result<AnyRecord, Error> {
        let (id, txn) = (of.as_str(), self.home(of)?);
        let record = match of {
            ThingId::Layer(_) => txn.layer(id)?.map(AnyRecord::Layer),
            ThingId::Image(_) => txn.image(id)?.map(AnyRecord::Image),
            ThingId::Container(_) => txn.container(id)?.map(AnyRecord::Container),
        };
        match record {
            Some(record) => Ok(record),
            None => Err(self.store.not_here(of)?),
        }
    }
}

impl Store {
    /// Why a thing that the store itself does not have cannot be changed.
    fn not_here(&self, of: &ThingId) -> Result<Error, Error> {
        let (kind, id) = (of.kind().word(), of.as_str().to_owned());
        let other = self.begin_read()?.home(of.owner(), &id)?.and_then(Part::other);
        Ok(match other {
            Some(root) => Error::InOtherStore { kind, id, root },
            None => LookupError::NotFound { kind, key: id }.into(),
        })
    }
}

/// Whether a store has a thing.
fn has(txn: &impl Query, of: &ThingId) -> Result<bool, Error> {
    let id = of.as_str();
    Ok(match of {
        ThingId::Layer(_) => txn.layer(id)?.is_some(),
        ThingId::Image(_) => txn.image(id)?.is_some(),
        ThingId::Container(_) => txn.container(id)?.is_some(),
    })
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
            ..layerstore_schema::record::ImageRecord::default()
        }
    }
}
