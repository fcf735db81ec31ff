//! Layers whose files are in additional layer stores: looked up, used as they are, and given back.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerBlob as BlobRow, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::archive::base64;
use crate::compress::Decoder;
use crate::disk::{self, AdditionalDirectory, XattrNamespace};
use crate::error::{AdditionalLayerError, Error, ExportError, ScanError};
use crate::layer::{self, AdditionalLayerInfo, Layer, LayerBlob, UNREAD};
use crate::sys::file::File;
use crate::types::{DiffId, Digest, Hashing, LayerId, Limits, stored};

use super::home::Home;
use super::image::{insert as insert_items, prepare};
use super::import::Durability;
use super::remove::Mounts;
use super::{LayerOptions, Store};

/// A directory in which another program shows layers, and fills them when they are read: such as that of the stargz store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdditionalLayerStore {
    path: PathBuf,
    with_reference: bool,
}

impl AdditionalLayerStore {
    /// The one at `path`, an absolute path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        AdditionalLayerStore { path: path.into(), with_reference: false }
    }

    /// Whether it has its layers below the references of images: in `store.conf` that is `:ref`.
    #[must_use]
    pub fn with_reference(mut self, with_reference: bool) -> Self {
        self.with_reference = with_reference;
        self
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it has its layers below the references of images.
    pub fn has_references(&self) -> bool {
        self.with_reference
    }
}

/// A layer in an additional layer store, that no store of this library has yet.
///
/// # Close semantics
///
/// The other program knows that it is used, until the value is dropped. A layer that was made of it with
/// [`put_as`](Self::put_as) counts by itself.
#[derive(Debug)]
pub struct AdditionalLayer {
    store: Store,
    directory: AdditionalDirectory,
    toc_digest: Digest,
    info: AdditionalLayerInfo,
    /// Whether a record has it, so that it stays in use.
    on_record: bool,
}

impl Store {
    /// Looks for a layer in the additional layer stores, in the order in which they were given (see
    /// [`StoreOptions::additional_layer_store`](crate::StoreOptions::additional_layer_store)): by the digest of its table of
    /// contents, and in those that tell images apart, by the `reference` of its image as well. `None` if none of them has it.
    ///
    /// What the store says of the layer is read, and nobody checks it: an additional layer store is trusted, as the files
    /// are that it serves.
    ///
    /// Returns [`Error::AdditionalLayer`] if what it says is malformed, or of another layer.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use layerstore::{AdditionalLayerStore, LayerOptions, Store, StoreOptions};
    ///
    /// # let toc = layerstore::Digest::sha256(b"");
    /// let lazy = AdditionalLayerStore::at("/var/lib/stargz-store/store").with_reference(true);
    /// let store = Store::open(&StoreOptions::at("/var/lib/demo").additional_layer_store(lazy))?;
    /// if let Some(found) = store.lookup_additional_layer(&toc, "docker.io/library/debian:12")? {
    ///     let layer = found.put_as(None, &LayerOptions::named("lazy"))?;
    ///     store.mount(&layer, &Default::default())?;
    /// }
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn lookup_additional_layer(
        &self,
        toc_digest: &Digest,
        reference: &str,
    ) -> Result<Option<AdditionalLayer>, Error> {
        let encoded = base64::encoded(reference.as_bytes());
        let stores = self.options().additional_layer_stores.iter();
        let mut found = stores.filter_map(|store| {
            let reference = store.with_reference.then_some(encoded.as_str());
            AdditionalDirectory::find(&store.path, reference, toc_digest)
        });
        let Some(directory) = found.next() else { return Ok(None) };
        directory.tell_use();
        // From here on it is given back whatever happens.
        let mut layer = AdditionalLayer {
            store: self.clone(),
            directory,
            toc_digest: toc_digest.clone(),
            info: AdditionalLayerInfo::default(),
            on_record: false,
        };
        let info = AdditionalLayerInfo::parse(&layer.directory.read_info(self.options().granted())?);
        layer.info = info.map_err(|reason| layer.directory.bad_info(reason))?;
        if let Some(said) = &layer.info.toc_digest {
            layer.expect("digest of the table of contents", toc_digest, said)?;
        }
        Ok(Some(layer))
    }
}

impl AdditionalLayer {
    /// What the store says of it.
    pub fn info(&self) -> &AdditionalLayerInfo {
        &self.info
    }

    /// The digest of its table of contents.
    pub fn toc_digest(&self) -> &Digest {
        &self.toc_digest
    }

    /// Its directory in the additional layer store.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Reads the layer as it was delivered. Nothing says that these are the right bytes but their digest.
    ///
    /// Returns [`Error::AdditionalLayer`] if the file cannot be opened.
    pub fn blob(&self) -> Result<impl Read + Send + use<>, Error> {
        Ok(self.directory.open_blob()?)
    }

    /// Makes a layer of it above another, or above nothing. Its files stay where they are: mounts take them from there, and
    /// the record says where. It is never written to, and what should be in it is not known here, so no check compares it.
    ///
    /// Of the options, `template`, `apply` and `read_only` mean nothing here. With a separate store for images, the record
    /// is there. The other program is told that the layer is used, and when it is removed, that it is not.
    ///
    /// Returns what [`Store::create_layer`] does.
    pub fn put_as<'l>(
        &self,
        parent: impl Into<Option<&'l LayerId>>,
        options: &LayerOptions,
    ) -> Result<Layer, Error> {
        Ok(Layer::from_record(self.store.home_of_new().put_additional(self, parent.into(), options)?)?)
    }

    /// Gives it back, as dropping it does.
    pub fn release(self) {
        drop(self);
    }

    /// Names and metadata of its files.
    pub(super) fn listing(&self, namespace: XattrNamespace) -> Result<Manifest, Error> {
        let opened = self.directory.open_diff().map_err(|source| AdditionalLayerError::Io {
            action: "open",
            path: self.directory.diff_path(),
            source,
        })?;
        Ok(layer::listing(disk::list_of_another(opened.as_fd(), namespace)?, |_| Ok::<_, ScanError>(UNREAD))?)
    }

    pub(super) fn directory(&self) -> &AdditionalDirectory {
        &self.directory
    }

    /// The record `record` as one of this layer.
    pub(super) fn described(&self, record: LayerRecord) -> LayerRecord {
        let row = |blob: LayerBlob| BlobRow {
            digest: blob.digest.to_string(),
            size: blob.size,
            media_type: blob.media_type,
        };
        let blobs = match record.blobs.is_empty() {
            true => self.info.blob().map(row).into_iter().collect(),
            false => record.blobs,
        };
        let mut flags = record.flags;
        let given = |flags: &[(String, String)], name: &str| flags.iter().any(|(known, _)| known == name);
        for (name, value) in &self.info.flags {
            if !given(&flags, name) {
                flags.push((name.clone(), value.clone()));
            }
        }
        LayerRecord {
            content: LayerContent::Additional(self.directory.to_bytes()),
            read_only: true,
            diff_id: record.diff_id.or_else(|| self.info.diff_id.as_ref().map(ToString::to_string)),
            diff_size: self.info.diff_size,
            toc_digest: Some(self.toc_digest.to_string()),
            compression: self.info.compression.map(|compression| compression.name().to_owned()),
            uids: self.info.uids.clone(),
            gids: self.info.gids.clone(),
            blobs,
            flags,
            ..record
        }
    }

    /// Whether it is the layer with this diffID and blob, as far as its store says. The error says what it is instead.
    pub(super) fn expect_layer(&self, diff_id: &DiffId, blob: Option<&LayerBlob>) -> Result<(), Error> {
        if let Some(said) = &self.info.diff_id {
            self.expect("diffID", &diff_id.0, &said.0)?;
        }
        match (&self.info.blob_digest, blob) {
            (Some(said), Some(blob)) if said.algorithm() == blob.digest.algorithm() => {
                self.expect("blob", &blob.digest, said)
            }
            _ => Ok(()),
        }
    }

    /// It is on record, and what was told when it was found is told for the record.
    pub(super) fn keep_in_use(mut self) {
        self.on_record = true;
    }

    fn expect(&self, what: &'static str, expected: &Digest, found: &Digest) -> Result<(), Error> {
        if expected == found {
            return Ok(());
        }
        let (expected, found) = (expected.to_string(), found.to_string());
        let path = self.directory.path().to_owned();
        Err(AdditionalLayerError::Other { path, what, expected, found }.into())
    }
}

impl Drop for AdditionalLayer {
    fn drop(&mut self) {
        if !self.on_record {
            self.directory.tell_release();
        }
    }
}

impl Home<'_> {
    fn put_additional(
        &self,
        found: &AdditionalLayer,
        parent: Option<&LayerId>,
        options: &LayerOptions,
    ) -> Result<LayerRecord, Error> {
        self.store.begin_writing()?;
        let items = prepare(&options.items)?;
        let record = found.described(self.new_layer(parent, options)?);
        let used = Used::tell(found.directory());
        let written = self.store.write_rows(&HashSet::new(), Durability::is_done, Mounts::GoOn, |rows| {
            self.refuse_taken(rows.txn, &record)?;
            rows.txn.put_layer(&record)?;
            insert_items(rows.txn, Owner::Layer, &record.id, &items)?;
            rows.inserted_chain(&record.id)
        });
        used.keep_after(&written);
        written.map(|()| record)
    }
}

/// A layer that is going to be on record, announced as used; taken back unless the record was made.
pub(super) struct Used {
    directory: Option<AdditionalDirectory>,
}

impl Used {
    pub(super) fn tell(directory: &AdditionalDirectory) -> Self {
        directory.tell_use();
        Used { directory: Some(directory.clone()) }
    }

    /// The transaction that should have made the record has ended so. A layer that may be on record stays in use.
    pub(super) fn keep_after<T>(mut self, written: &Result<T, Error>) {
        if written.as_ref().map_or_else(Error::is_outcome_unknown, |_| true) {
            self.keep();
        }
    }

    /// The record is there.
    pub(super) fn keep(&mut self) {
        self.directory = None;
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.directory.iter().for_each(AdditionalDirectory::tell_release);
    }
}

/// The blob of a layer on record that can go out as it is: if it has this digest. All of it is read.
pub(crate) fn blob_as_delivered(layer: &LayerRecord, digest: &Digest, size: u64) -> Option<File> {
    let LayerContent::Additional(path) = &layer.content else { return None };
    let directory = AdditionalDirectory::from_bytes(path);
    let hashed = || -> Result<(Digest, u64), Error> {
        let mut out = Hashing::new(io::sink(), digest.algorithm());
        io::copy(&mut directory.open_blob()?.take(size.saturating_add(1)), &mut out)
            .map_err(ExportError::Io)?;
        let (_, found, count) = out.finish();
        Ok((found, count))
    };
    match hashed() {
        Ok((found, count)) if found == *digest && count == size => directory.open_blob().ok(),
        Ok((found, _)) => {
            tracing::warn!(layer = layer.id, %digest, %found, "the additional layer store has another blob");
            None
        }
        Err(error) => {
            tracing::warn!(layer = layer.id, %error, "the blob in the additional layer store cannot be read");
            None
        }
    }
}

/// Writes the tar that a layer came as, from its blob. Returns false, with nothing written, if that has not the layer's
/// diffID, or nobody knows the diffID.
///
/// The blob is read twice: what has been written cannot be taken back.
pub(super) fn write_original(
    directory: &AdditionalDirectory,
    layer: &LayerRecord,
    granted: &Limits,
    out: &mut impl Write,
) -> Result<bool, Error> {
    let Some(expected) = layer.diff_id.as_deref() else { return Ok(false) };
    let expected: Digest = stored("layer", &layer.id, expected)?;
    let limits = &limits_of_known(layer, granted);
    match copy_decompressed(directory, &expected, limits, &mut io::sink()) {
        Ok(found) if found == expected => {}
        Ok(found) => {
            tracing::warn!(layer = layer.id, %expected, %found, "the additional layer store has another blob");
            return Ok(false);
        }
        Err(error) => {
            tracing::warn!(layer = layer.id, %error, "the blob in the additional layer store cannot be read");
            return Ok(false);
        }
    }
    if copy_decompressed(directory, &expected, limits, out)? != expected {
        let (layer, path) = (layer.id.clone(), directory.path().to_owned());
        return Err(AdditionalLayerError::Changed { layer, path }.into());
    }
    Ok(true)
}

/// What the blob of a layer on record may ask for: its diffID says what it is, and what is granted to new ones has nothing to do
/// with it. Memory and time are taken before the diffID is known, so they have bounds in any case.
fn limits_of_known(layer: &LayerRecord, granted: &Limits) -> Limits {
    let unpacked_bytes = granted.unpacked_bytes.max(Limits::DEFAULT.unpacked_bytes);
    Limits {
        unpacked_bytes: unpacked_bytes.max(layer.diff_size.unwrap_or(0)),
        window_bytes: granted.window_bytes.max(Limits::DEFAULT.window_bytes),
        ..Limits::NONE
    }
}

/// Copies the tar in a blob, and returns its digest, of the kind of `expected`.
fn copy_decompressed(
    directory: &AdditionalDirectory,
    expected: &Digest,
    limits: &Limits,
    out: &mut impl Write,
) -> Result<Digest, Error> {
    let mut out = Hashing::new(out, expected.algorithm());
    let mut tar = Decoder::new(directory.open_blob()?, limits).map_err(ExportError::Io)?;
    io::copy(&mut tar, &mut out).map_err(ExportError::Io)?;
    let (_, found, _) = out.finish();
    Ok(found)
}
