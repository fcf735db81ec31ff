//! Records of images and containers, data items, kept blobs, and single rows.

use std::str::FromStr;

use layerstore_schema::header::Header;
use layerstore_schema::record::{ContainerRecord, ImageRecord, KeptBlobRecord};
use layerstore_schema::table::Owner;

use super::{Mended, Repair};
use crate::check::{self, Offer, Remedy, digest_of, document_digests};
use crate::disk::StagedBlob;
use crate::error::{Error, RepairError};
use crate::image::Image;
use crate::meta::{BlobKind, PreparedBlob, Query, RowKey, Unused, WriteTxn, read_blob};
use crate::oci::MANIFEST_ITEM;
use crate::store::Mounts;
use crate::types::{Digest, ImageId, LayerId, Name, Timestamp};

impl Repair<'_> {
    /// Writes one thing, with the rows that follow from it.
    fn write(&self, change: impl FnOnce(&WriteTxn) -> Result<(), Error>) -> Result<(), Error> {
        self.store.database().write::<_, Error>(|txn| {
            change(txn)?;
            txn.normalize(Unused::Keep)?;
            Ok(())
        })
    }

    /// Gives the database the UUID of the marker file, which is never rewritten.
    pub(super) fn header(&self) -> Result<Mended, Error> {
        let digits = self.store.uuid().chars().filter(char::is_ascii_hexdigit).collect::<String>();
        let Ok(number) = u128::from_str_radix(&digits, 16) else { return Ok(None) };
        self.write(|txn| {
            let header = txn.header()?.and_then(|bytes| Header::decode(&bytes).ok());
            if let Some(header) = header {
                let uuid = number.swap_bytes().to_le_bytes();
                txn.replace_header(&Header { uuid, ..header })?;
            }
            Ok(())
        })?;
        Ok(Some(("rebuild-index", "gave it the UUID of the marker file".to_owned())))
    }

    /// Puts a kept blob back, or forgets it: the layer does not need it.
    pub(super) fn kept_blob(&self, digest: &str) -> Result<Mended, Error> {
        let old = self.records.kept_blobs.get(digest);
        if let Some(old) = old
            && !check::is_lost(self.store, digest, old)?
        {
            return self.kept_blob_size(digest, old);
        }
        let old = old.map(|record| record.number);
        let restored = match self.supplies.outside(digest) {
            Some(offer) => Some((self.copy_blob(digest, &offer)?, offer.name())),
            None => None,
        };
        let new = restored.as_ref().map(|(blob, _)| blob);
        let size = new.map(StagedBlob::reader).transpose()?.map(|file| file.length()).transpose();
        let size = size.map_err(RepairError::Io)?.unwrap_or_default();
        let written = self.store.write_mending(Mounts::GoOn, |txn| {
            if txn.kept_blob(digest).ok().flatten().map(|record| record.number) != old {
                return Err(RepairError::Changed { thing: format!("the kept blob {digest}") }.into());
            }
            txn.erase(&RowKey::KeptBlob(digest.to_owned()))?;
            if let Some(blob) = new {
                txn.put_kept_blob(digest, &KeptBlobRecord { number: blob.number(), size })?;
            }
            let mut freed = txn.normalize(Unused::Keep)?;
            freed.blobs.extend(old);
            Ok((freed, ()))
        });
        let (blob, from) = restored.unzip();
        self.settle(blob.map(StagedBlob::filled), &written);
        written?;
        Ok(Some(match from {
            Some(from) => ("restore-blob", format!("took it from {from}")),
            None => (
                Remedy::ForgetBlob.code(),
                "forgot it: the layer has its files, and a save compresses them anew, so that the image gets another digest; \
                 loading the image again keeps the blob again"
                    .to_owned(),
            ),
        }))
    }

    /// Sets the size of a kept blob right by its file, which has the digest.
    fn kept_blob_size(&self, digest: &str, old: &KeptBlobRecord) -> Result<Mended, Error> {
        let size = self.store.open_kept_blob(old.number)?.length().map_err(RepairError::Io)?;
        if size == old.size {
            return Ok(None);
        }
        self.write(|txn| {
            if txn.kept_blob(digest)?.as_ref() != Some(old) {
                return Err(RepairError::Changed { thing: format!("the kept blob {digest}") }.into());
            }
            txn.put_kept_blob(digest, &KeptBlobRecord { number: old.number, size })?;
            Ok(())
        })?;
        Ok(Some(("restore-record", "set its size right by its file".to_owned())))
    }

    /// Copies a blob into the store and verifies the copy.
    fn copy_blob(&self, digest: &str, offer: &Offer<'_>) -> Result<StagedBlob, Error> {
        let mut input = offer.open(self.store)?;
        let blob = StagedBlob::create(&self.stage()?, self.store.fresh_number()?)?;
        match input.extent.take() {
            Some((file, offset, length)) => blob.fill_from(&file, offset, length)?,
            None => {
                // A stream is brought into a file first.
                let mut spool = self.store.spool().map_err(RepairError::Io)?;
                let length = std::io::copy(&mut input.reader, &mut spool).map_err(RepairError::Io)?;
                blob.fill_from(&spool, 0, length)?;
            }
        }
        let found = digest_of(blob.reader()?, offer.algorithm()).map_err(RepairError::Io)?.to_string();
        if found != digest {
            return Err(RepairError::BlobDigest { expected: digest.to_owned(), found }.into());
        }
        self.store.sync_filesystem()?;
        Ok(blob)
    }

    /// Removes a composefs image. Who mounts the layer makes it again.
    pub(super) fn composefs_image(&self, tree: &[u8; 32], number: u64) -> Result<Mended, Error> {
        self.store.remove_layer_image(&self.layers_of(tree), number)?;
        Ok(Some(("forget", "removed it; the next mount of the layer makes it again".to_owned())))
    }

    /// Forgets what the run database says of a mount. Whether there is one, the kernel knows.
    pub(super) fn mount_record(&self, layer: &str) -> Result<Mended, Error> {
        self.store.run()?.forget_damaged_mounts(layer)?;
        Ok(Some(("forget", "forgot how often its mount was asked for".to_owned())))
    }

    /// Lets an image or a container forget a directory that is not there.
    pub(super) fn data_directory(&self, kind: &str, id: &str) -> Result<Mended, Error> {
        let (images, containers) = (&self.records.images, &self.records.containers);
        self.write(|txn| {
            if kind == Owner::Image.word()
                && let Some(record) = txn.image(id)?
                && images.get(id).is_some_and(|seen| seen.directory == record.directory)
            {
                txn.replace_image(&ImageRecord { directory: None, ..record })?;
            } else if kind == Owner::Container.word()
                && let Some(record) = txn.container(id)?
                && containers.get(id).is_some_and(|seen| seen.directory == record.directory)
            {
                txn.replace_container(&ContainerRecord { directory: None, ..record })?;
            }
            Ok(())
        })?;
        Ok(Some(("forget", "forgot its directory; the next who asks for it gets an empty one".to_owned())))
    }

    /// Takes a name from one of two things that have it.
    pub(super) fn name(&self, kind: &str, holder: &str, name: &str) -> Result<Mended, Error> {
        self.write(|txn| {
            if kind == Owner::Layer.word()
                && let Some(mut record) = txn.layer(holder)?
            {
                record.names.retain(|held| held != name);
                txn.replace_layer(&record)?;
            } else if kind == Owner::Image.word()
                && let Some(mut record) = txn.image(holder)?
            {
                record.names.retain(|held| held != name);
                txn.replace_image(&record)?;
            } else if kind == Owner::Container.word()
                && let Some(mut record) = txn.container(holder)?
            {
                record.names.retain(|held| held != name);
                txn.replace_container(&record)?;
            }
            Ok(())
        })?;
        Ok(Some(("rebuild-index", format!("took the name {name:?} from it, which another has"))))
    }

    /// Brings a container's image back, or lets the container forget it.
    pub(super) fn image_of_container(&mut self, id: &str) -> Result<Mended, Error> {
        let image = self.records.containers.get(id).and_then(|container| container.image.clone());
        if let Some(image) = &image
            && let Some((code, what)) = self.image(image)?
        {
            return Ok(Some((code, format!("its image {image}: {what}"))));
        }
        self.write(|txn| {
            if let Some(record) = txn.container(id)?
                && record.image == image
            {
                txn.replace_container(&ContainerRecord { image: None, ..record })?;
            }
            Ok(())
        })?;
        let image = image.unwrap_or_default();
        Ok(Some(("rebuild-index", format!("let it forget its image {image}; its layers stay"))))
    }

    /// Makes an image's record again from its documents, or sets right what they say.
    pub(super) fn image(&mut self, id: &str) -> Result<Mended, Error> {
        let (Some(image), Some(top_layer)) = (self.supplies.images.get(id), self.supplies.top_layer(id))
        else {
            return Ok(None);
        };
        let seen = self.records.images.get(id);
        if seen.is_some_and(|seen| seen.top_layer == top_layer && Image::from_record(seen.clone()).is_ok()) {
            return Ok(None);
        }
        let manifest = image.manifest.digest.to_string();
        let names = self.supplies.names(Owner::Image, id);
        let record = seen.cloned().unwrap_or_else(|| ImageRecord {
            id: id.to_owned(),
            names_history: names.clone(),
            names,
            created: image.created().into(),
            ..ImageRecord::default()
        });
        let mut record = ImageRecord { top_layer, digests: self.own_manifests(id), ..readable_image(record) };
        if !record.digests.contains(&manifest) {
            record.digests.push(manifest.clone());
        }
        let documents = [
            (MANIFEST_ITEM.to_owned(), &image.manifest),
            (format!("{MANIFEST_ITEM}-{manifest}"), &image.manifest),
            (image.config.digest.to_string(), &image.config),
        ];
        let documents =
            documents.map(|(key, document)| (key, PreparedBlob::from_bytes(&document.bytes), document));
        self.write(|txn| {
            if txn.image(id).ok().flatten().as_ref() != seen {
                return Err(RepairError::Changed { thing: format!("the image {id}") }.into());
            }
            txn.replace_image(&record)?;
            for (key, bytes, document) in &documents {
                if !matches!(txn.item(Owner::Image, id, key), Ok(Some(_))) {
                    txn.replace_item((Owner::Image.code(), id, key), document.digest.to_string(), bytes)?;
                }
            }
            Ok(())
        })?;
        Ok(Some(match seen {
            Some(_) => ("restore-record", "set its top layer right by its config".to_owned()),
            None => {
                let lost = "its metadata, flags and labels are lost";
                ("restore-record", format!("made its record again from its manifest and config; {lost}"))
            }
        }))
    }

    /// The manifests that an image has as data items.
    fn own_manifests(&self, id: &str) -> Vec<String> {
        let items = self.records.items.keys();
        let own = items.filter(|(owner, of, _)| *owner == Owner::Image.code() && of == id);
        let digests = own.filter_map(|(_, _, key)| key.strip_prefix("manifest-").map(str::to_owned));
        digests.filter(|text| is_one::<Digest>(text)).collect()
    }

    /// Makes a container's record again from what the indexes say of it: its layer, image and names.
    pub(super) fn container(&mut self, id: &str) -> Result<Mended, Error> {
        let Some(layer) = self.supplies.container_layer(&self.records, id) else { return Ok(None) };
        let seen = self.records.containers.get(id);
        let record = seen.cloned().unwrap_or_else(|| ContainerRecord {
            id: id.to_owned(),
            names: self.supplies.names(Owner::Container, id),
            image: self.supplies.container_image(&self.records, id),
            created: Timestamp::now().into(),
            ..ContainerRecord::default()
        });
        self.write(|txn| {
            if txn.container(id).ok().flatten().as_ref() != seen {
                return Err(RepairError::Changed { thing: format!("the container {id}") }.into());
            }
            let mut record = ContainerRecord { layer, ..record };
            record.names.retain(|text| is_one::<Name>(text));
            record.image = record.image.filter(|text| is_one::<ImageId>(text));
            Ok(txn.replace_container(&record)?)
        })?;
        Ok(Some(match seen {
            Some(_) => ("restore-record", "set its layer right by the index".to_owned()),
            None => {
                let lost = "its metadata, mount options, id maps, flags and labels are lost";
                ("restore-record", format!("made its record again from the indexes; {lost}"))
            }
        }))
    }

    /// Puts a document of an image back.
    pub(super) fn item(&self, owner: u8, id: &str, key: &str) -> Result<Mended, Error> {
        let digests = document_digests(&self.records, owner, id, key);
        if digests.is_empty() {
            return self.item_record((owner, id, key));
        }
        let found = digests.iter().find_map(|digest| Some((digest, self.supplies.document(digest)?)));
        let Some((digest, (document, place))) = found else { return Ok(None) };
        let bytes = PreparedBlob::from_bytes(&document.bytes);
        self.write(|txn| {
            if txn.image(id)?.is_some() {
                txn.replace_item((owner, id, key), document.digest.to_string(), &bytes)?;
            }
            Ok(())
        })?;
        Ok(Some(("restore-item", format!("took its data item {key:?} from {digest} in {place}"))))
    }

    /// Sets the size and digest of a data item right by its bytes: they have the hash that the record names.
    fn item_record(&self, (owner, id, key): (u8, &str, &str)) -> Result<Mended, Error> {
        let row = self.records.items.get(&(owner, id.to_owned(), key.to_owned()));
        let txn = self.store.database().begin_read()?;
        let Some(bytes) = row.and_then(|item| read_blob(&txn, &item.blob, BlobKind::Item).ok()) else {
            return Ok(None);
        };
        drop(txn);
        let digest = Digest::sha256(&bytes).to_string();
        let bytes = PreparedBlob::from_bytes(&bytes);
        self.write(|txn| {
            let owner_kind = Owner::from_code(owner);
            let now = owner_kind.map(|owner| txn.item(owner, id, key)).transpose()?.flatten();
            if now.as_ref() != row {
                return Err(RepairError::Changed { thing: format!("the data item {key:?} of {id}") }.into());
            }
            Ok(txn.replace_item((owner, id, key), digest, &bytes)?)
        })?;
        Ok(Some(("restore-record", format!("set its data item {key:?} right by its bytes"))))
    }
}

/// The record without what is no name, id or digest: nobody can find the image by it, and no reader takes the record with it.
fn readable_image(mut record: ImageRecord) -> ImageRecord {
    record.names.retain(|text| is_one::<Name>(text));
    record.names_history.retain(|text| is_one::<Name>(text));
    record.mapped_top_layers.retain(|text| is_one::<LayerId>(text));
    record.given_digests.retain(|text| is_one::<Digest>(text));
    record.manifests.retain(|(_, digest)| is_one::<Digest>(digest));
    record
}

/// Whether a text is such a value.
pub(super) fn is_one<T: FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}
