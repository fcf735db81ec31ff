//! Several changes in one transaction: all of them are seen at once, or none is.

use std::cell::OnceCell;

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};

use crate::error::{Error, InUseError, LookupError, ValueError};
use crate::layer::Layer;
use crate::meta::{self, OpenWrite, PreparedBlob, Query};
use crate::sys::moment;
use crate::types::{Digest, ImageId, LayerId};

mod home;
mod names;

use home::AnyRecord;

use super::image::{check_flags, check_item_key};
use super::snapshot::refuse_renaming;
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
        if let Some(images) = self.separate_images()
            && images.is_writable()
        {
            // What comes before the first write there may take long, and comes before any lock.
            images.begin_writing()?;
        }
        let mut body = Some(body);
        loop {
            // The lock of the run database comes before that of the store.
            let run = match self.transient(&self.database().begin_read()?)? {
                Some(run) => Some(run.rows().open_write_without_header()?),
                None => None,
            };
            moment::pass("transient looked for");
            // The locks of both outlast the commit here: who gets them sees all of it.
            let mut committed = Vec::new();
            let written = self.database().write::<_, Error>(|txn| {
                if run.is_none() && self.has_new_transient(txn)? {
                    return Ok(None);
                }
                let Some(body) = body.take() else { return Ok(None) };
                let images = OnceCell::new();
                let value = body(&WriteTxn { store: self, txn, images: &images, run: run.as_ref() })?;
                for open in images.into_inner().into_iter().chain(run) {
                    committed.push(open.commit()?);
                }
                moment::pass("others committed");
                Ok(Some(value))
            });
            drop(committed);
            if let Some(value) = written? {
                return Ok(value);
            }
        }
    }
}

impl WriteTxn<'_> {
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

    /// A layer, with what this transaction changed.
    ///
    /// Returns [`Error::Lookup`] if it is not there, and [`Error::InOtherStore`] if it is in a store that is only read.
    pub fn layer(&self, id: &LayerId) -> Result<Layer, Error> {
        match self.record(&id.into())? {
            AnyRecord::Layer(record) => Ok(Layer::from_record(record)?),
            AnyRecord::Image(_) | AnyRecord::Container(_) => {
                Err(LookupError::NotFound { kind: "layer", key: id.to_string() }.into())
            }
        }
    }

    /// Gives a thing exactly these labels.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InOtherStore`] if it is in a store that is only
    /// read.
    pub fn set_labels(&self, of: impl Into<ThingId>, labels: &[(String, String)]) -> Result<(), Error> {
        let of = of.into();
        let txn = self.home(&of)?;
        match self.record(&of)? {
            AnyRecord::Layer(record) => txn.put_layer(&LayerRecord { labels: labels.to_vec(), ..record })?,
            AnyRecord::Image(record) => txn.put_image(&ImageRecord { labels: labels.to_vec(), ..record })?,
            AnyRecord::Container(record) => {
                txn.put_container(&ContainerRecord { labels: labels.to_vec(), ..record })?;
            }
        }
        Ok(())
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
    /// image was loaded with, and the bytes are others, [`Error::Value`] if the key is none, and [`Error::Meta`] with
    /// [`TooLarge`](crate::MetaError::TooLarge) if there are more than 1 GiB of them.
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
                let before = record.clone();
                change(&mut record.flags);
                refuse_renaming(&before, &record)?;
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
