//! What was written into a container becomes an image.

use std::io::{self, Seek, Write};

use layerstore_schema::record::LayerRecord;
use layerstore_schema::table::Owner;

use super::config::{History, ImageConfig};
use super::document::Document;
use super::load::{MANIFEST_ITEM, created};
use super::manifest::{Descriptor, Manifest};
use super::media_type;
use super::platform::Platform;
use crate::error::{ArchiveError, Error, ExportError, ImportError, LookupError, OciError};
use crate::image::Image;
use crate::layer::{LayerBlob, ProgressFn};
use crate::store::{BlobInput, ImageImport, LayerImport, Store, View};
use crate::sys::file::File;
use crate::types::{Algorithm, ContainerId, DiffId, Hashing, ImageId, Name, Timestamp, stored};

/// How a container is committed.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CommitOptions<'a> {
    /// The names of the new image, moved from whichever images have them.
    pub names: Vec<String>,
    /// Who made it, for the history.
    pub author: Option<String>,
    /// A note, for the history.
    pub comment: Option<String>,
    /// When it was made; if `None`, now.
    pub created: Option<Timestamp>,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl CommitOptions<'_> {
    /// One name for the image, and the defaults.
    pub fn named(name: impl Into<String>) -> Self {
        CommitOptions { names: vec![name.into()], ..CommitOptions::default() }
    }
}

impl std::fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommitOptions")
            .field("names", &self.names)
            .field("author", &self.author)
            .field("comment", &self.comment)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Makes an image of a container: the image it stands on, and one layer more with everything that was written.
    /// The container stays as it is, mounted or not; what is being written while it is read may be in the image or
    /// not.
    ///
    /// The new layer is stored as a plain tar; saving can compress it. Where the image below has no documents, as one that
    /// [`create_image`](Store::create_image) made, the new image has those that its layers give.
    ///
    /// Returns [`Error::Lookup`] if the container is not there, [`Error::Export`] if its directory cannot be read, [`Error::Scan`] with
    /// [`Owner`](crate::ScanError::Owner) if something in it was written in another user namespace and has another owner here, [`Error::Mount`] with
    /// [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted without syncs when the machine went down, and
    /// [`Error::Unsynced`] if a layer below it was not on the disk when the machine went down.
    pub fn commit(&self, container: &ContainerId, options: &CommitOptions<'_>) -> Result<Image, Error> {
        self.begin_writing()?;
        let txn = self.begin_read()?;
        let not_found = || LookupError::NotFound { kind: "container", key: container.to_string() };
        let record = txn.container(container.as_str())?.ok_or_else(not_found)?;
        let layer = txn.layer_ref(&record.layer)?;
        txn.verify_chain(&layer.id)?;
        self.refuse_in_doubt(self, &layer)?;
        let mut base = Base::of(self, &txn, record.image.as_deref(), &layer)?;
        let (tar, diff_id, size) = self.spool_layer(&txn, &layer)?;
        drop(txn);

        let now = options.created.unwrap_or_else(Timestamp::now);
        let time = rfc3339(now);
        base.config.push_layer(
            diff_id.clone(),
            History {
                created: Some(time.clone()),
                created_by: Some(format!("layerstore commit {container}")),
                author: options.author.clone(),
                comment: options.comment.clone(),
                empty_layer: None,
            },
        );
        base.config.set_created(&time);
        if let Some(author) = &options.author {
            base.config.set_author(author);
        }
        let config = base.config.to_document();
        base.manifest.push_layer(Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size));
        base.manifest.set_config(&Descriptor::of(&config));
        let manifest = base.manifest.to_document();

        let mut layers = base.layers;
        layers.push(new_layer(&tar, diff_id, size));
        let names = options.names.iter().map(|name| name.parse()).collect::<Result<Vec<Name>, _>>()?;
        self.import_image(&ImageImport {
            id: config.digest.hex().parse()?,
            references: Vec::new(),
            names,
            created: created(&base.config),
            layers,
            digests: vec![manifest.digest.clone()],
            items: vec![
                (format!("{MANIFEST_ITEM}-{}", manifest.digest), manifest.bytes.clone()),
                (config.digest.to_string(), config.bytes),
            ],
            first_items: vec![(MANIFEST_ITEM.to_owned(), manifest.bytes)],
            keep_finished: None,
            progress: options.progress,
        })
    }

    /// Writes the tar of a layer that may be written to meanwhile into a file, so that all that follows speaks of the
    /// same bytes.
    fn spool_layer(&self, txn: &View<'_>, layer: &LayerRecord) -> Result<(File, DiffId, u64), Error> {
        let io_error = |error| Error::from(ImportError::Io(error));
        let file = self.spool().map_err(io_error)?;
        let mut hashing = Hashing::new(file, Algorithm::Sha256);
        let mut buffered = io::BufWriter::with_capacity(128 * 1024, &mut hashing);
        self.export(txn, layer, None, &mut buffered).map_err(|error| match error {
            // It is the store's own disk.
            Error::Export(ExportError::Archive(ArchiveError::Write(error))) => io_error(error),
            error => error,
        })?;
        buffered.flush().map_err(io_error)?;
        drop(buffered);
        let (file, digest, size) = hashing.finish();
        Ok((file, DiffId(digest), size))
    }
}

/// What the new image stands on.
struct Base<'a> {
    config: ImageConfig,
    manifest: Manifest,
    layers: Vec<LayerImport<'a>>,
}

impl Base<'_> {
    fn of(store: &Store, txn: &View<'_>, image: Option<&str>, layer: &LayerRecord) -> Result<Self, Error> {
        let below = match &layer.parent {
            Some(parent) => txn.chain(parent)?,
            None => Vec::new(),
        };
        // One that was made of a layer has no documents, as a rule.
        let image = match image {
            Some(image) if txn.item(Owner::Image, image, MANIFEST_ITEM)?.is_some() => Some(image),
            _ => None,
        };
        let (config, manifest) = match image {
            Some(image) => documents(store, image)?,
            None => new_documents(&below)?,
        };
        below.iter().try_for_each(|layer| store.refuse_outside_images(&layer.id))?;
        let layers = below.iter().rev().map(known_layer).collect::<Result<_, _>>()?;
        Ok(Base { config, manifest, layers })
    }
}

/// Documents that say of an image what its layers say.
fn new_documents(below: &[LayerRecord]) -> Result<(ImageConfig, Manifest), Error> {
    let mut config = ImageConfig::new(&Platform::host());
    let mut descriptors = Vec::with_capacity(below.len());
    for record in below.iter().rev() {
        let diff_id = diff_id_of(record)?;
        descriptors.push(match record.blobs.first() {
            Some(blob) => {
                let digest = stored("layer", &record.id, &blob.digest)?;
                Descriptor::new(blob.media_type.clone(), digest, blob.size)
            }
            None => {
                let size = record.diff_size.unwrap_or_default();
                Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), size)
            }
        });
        let created = Some(rfc3339(record.created.into()));
        config.push_layer(diff_id, History { created, ..History::default() });
    }
    let mut manifest = Manifest::new(Descriptor::of(&config.to_document()), descriptors);
    manifest.convert_to_oci()?;
    Ok((config, manifest))
}

fn diff_id_of(record: &LayerRecord) -> Result<DiffId, Error> {
    let missing = || OciError::NoDiffId { layer: record.id.clone() };
    let text = record.diff_id.as_deref().ok_or_else(missing)?;
    Ok(DiffId(stored("layer", &record.id, text)?))
}

fn documents(store: &Store, image: &str) -> Result<(ImageConfig, Manifest), Error> {
    let id: ImageId = image.parse()?;
    let bytes = store.item(&id, MANIFEST_ITEM)?;
    let untyped = Document::new(bytes, "");
    let media_type = media_type::of_manifest(&untyped)?;
    let document = Document::new(untyped.bytes, media_type);
    let mut manifest = Manifest::parse(&document, &document.digest.to_string())?;
    manifest.convert_to_oci()?;
    let config = store.item(&id, &manifest.config.digest.to_string())?;
    let config = Document::new(config, manifest.config.media_type.clone());
    Ok((ImageConfig::parse(&config, &config.digest.to_string())?, manifest))
}

/// A layer that the store has: nobody will ask for its bytes.
fn known_layer(record: &LayerRecord) -> Result<LayerImport<'static>, Error> {
    let id = record.id.clone();
    Ok(LayerImport {
        diff_id: diff_id_of(record)?,
        blob: None,
        chunked: None,
        toc_digest: None,
        unpacked_size: None,
        keep_blob: false,
        open: Box::new(move || Err(ImportError::Vanished { layer: id.clone() }.into())),
    })
}

fn new_layer(tar: &File, diff_id: DiffId, size: u64) -> LayerImport<'_> {
    let media_type = media_type::OCI_LAYER.to_owned();
    LayerImport {
        blob: Some(LayerBlob { digest: diff_id.0.clone(), size, media_type }),
        diff_id,
        chunked: None,
        toc_digest: None,
        unpacked_size: Some(size),
        keep_blob: false,
        open: Box::new(move || {
            let reopen = || -> io::Result<File> {
                let mut file = tar.try_clone()?;
                file.rewind()?;
                Ok(file)
            };
            Ok(BlobInput { reader: Box::new(reopen().map_err(ImportError::Io)?), extent: None })
        }),
    }
}

fn rfc3339(time: Timestamp) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or_default();
    jiff::Timestamp::new(time.seconds, nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
