//! Where the records are that a transaction changes: in the store, in its separate store for images, or in the run root.

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerRecord};
use layerstore_schema::table::Owner;

use crate::error::{Error, LookupError};
use crate::meta::{self, BlobKind, OpenWrite, PreparedBlob, Query, read_blob};
use crate::store::part::Part;
use crate::store::{Store, ThingId};

use super::WriteTxn;

/// The record of a thing.
pub(super) enum AnyRecord {
    Layer(LayerRecord),
    Image(ImageRecord),
    Container(ContainerRecord),
}

impl Store {
    /// Whether a thing is in the store itself.
    pub(in crate::store) fn has(&self, what: &ThingId) -> Result<bool, Error> {
        has(&self.database().begin_read()?, what)
    }
}

impl WriteTxn<'_> {
    /// The transactions of all databases that have things of a kind and can be written: a name belongs to one thing of all
    /// of them.
    pub(super) fn all_with(&self, owner: Owner) -> Result<Vec<&meta::WriteTxn>, Error> {
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
    pub(super) fn home(&self, of: &ThingId) -> Result<&meta::WriteTxn, Error> {
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
        if images.has(of)? { self.images_txn() } else { Ok(self.txn) }
    }

    /// Makes an own record of an image that is in a store which is only read, with its names, as far as they are free, and
    /// data items. It stands on the layers there.
    pub(super) fn copy_up(&self, of: &ThingId) -> Result<(), Error> {
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
            let mut is_free = true;
            for txn in self.all_with(Owner::Image)? {
                is_free &= txn.named(Owner::Image, &name)?.is_none();
            }
            if is_free {
                record.names.push(name);
            }
        }
        to.put_image(&record)?;
        for (key, item) in from.items(Owner::Image, id.as_str())? {
            let blob = PreparedBlob::from_bytes(&read_blob(from, &item.blob, BlobKind::Item)?);
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

    pub(super) fn record(&self, of: &ThingId) -> Result<AnyRecord, Error> {
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
    pub(in crate::store) fn not_here(&self, of: &ThingId) -> Result<Error, Error> {
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
