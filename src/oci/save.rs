//! An image of the store to the outside.

use std::io::{self, Write};

use layerstore_schema::record::{ImageRecord, LayerRecord};

use super::load::{ANNOTATIONS_ITEM, MANIFEST_ITEM};
use super::manifest::{Annotations, Descriptor, Manifest};
use super::media_type::LayerType;
use super::reference::{Reference, Transport};
use super::sink::{BlobWriter, Sink, SinkImage};
use super::{Document, ImageConfig, media_type};
use crate::chunked::{ChunkedBlob, is_of_blob};
use crate::compress::Compression;
use crate::disk::{DiffName, Subdirectory, parallel};
use crate::error::{BlobError, Error, ExportError, LookupError, OciError};
use crate::image::Image;
use crate::layer::{self, Progress, ProgressFn};
use crate::store::{Store, blob_as_delivered};
use crate::sys::file::File;
use crate::types::{Digest, ImageId};

/// How an image is saved.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SaveOptions<'a> {
    /// Which of the image's manifests, by a digest of [`Image::manifests`]; if `None`, the first that it was loaded with.
    /// [`Store::manifest_of`] tells the one that a name or a digest means.
    pub manifest: Option<Digest>,
    /// The tag; if `None`, that of the reference.
    pub tag: Option<String>,
    /// How layers are compressed; if `None`, as the image's manifest says.
    pub compression: Option<Compression>,
    /// The level of the compression; if `None`, its default.
    pub level: Option<i32>,
    /// Whether an archive that is there is replaced, with all images in it. It stays until the new one is whole.
    pub replace: bool,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl std::fmt::Debug for SaveOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaveOptions")
            .field("manifest", &self.manifest)
            .field("tag", &self.tag)
            .field("compression", &self.compression)
            .field("level", &self.level)
            .field("replace", &self.replace)
            .finish_non_exhaustive()
    }
}

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedImage {
    /// The digest of the manifest that was written.
    pub manifest: Digest,
    /// Whether it is, byte for byte, the manifest that the image came with.
    pub unchanged: bool,
    /// How many layers went out as other blobs than they came as, though their compression was to stay: the store does not have
    /// those blobs, or not any more.
    pub compressed_anew: u64,
}

impl Store {
    /// Saves an image into an OCI layout, in which other images stay, or as an archive, which is a new one or, with
    /// [`SaveOptions::replace`], takes the place of one that is there. What fails leaves what was there.
    ///
    /// A layer goes out as the blob it came in, if that was kept or was a plain tar; then the manifest is the one
    /// that came, byte for byte. Else its tar, which is always the one that came, is compressed anew, and only
    /// its descriptor changes in the manifest: digest, size, type, and the annotations that say where its table of contents
    /// is, if it has one. The image's config and every diffID are always the same.
    ///
    /// Returns [`Error::Lookup`] if the image is not there or has not the manifest that is asked for, [`Error::OwnPlace`] if `to` is in
    /// the store, [`Error::Oci`] with [`ArchiveExists`](OciError::ArchiveExists) if an archive is there and is not to be replaced, or if
    /// the target cannot be written, and [`Error::Export`] if a layer is damaged, or with [`KeptBlob`](ExportError::KeptBlob) a blob that the store keeps.
    pub fn save(
        &self,
        image: &ImageId,
        to: &Reference,
        options: &SaveOptions<'_>,
    ) -> Result<SavedImage, Error> {
        self.refuse_own_place(to.path())?;
        let saving = Saving::new(self, image, options)?;
        let begin = if options.replace { Sink::create_or_replace } else { Sink::create };
        let mut sink = begin(to, &self.scratch())?;
        let compression =
            if sink.needs_plain_layers() { Some(Compression::None) } else { options.compression };
        let mut manifest = saving.manifest.clone();
        if to.transport() == Transport::DockerArchive || media_type_conflict(&saving, compression) {
            manifest.convert_to_oci()?;
        }
        sink.put_document(&saving.config)?;
        let plans = saving.plan(&sink, compression)?;
        saving.write_kept(&mut sink, &plans)?;
        let written = saving.encode(&sink, &plans)?;
        let (mut unchanged, mut compressed_anew) = (true, 0_u64);
        for (position, EncodedLayer { writer, media_type, chunked }) in written {
            let old = &saving.manifest.layers;
            let mut annotations =
                old.get(position).map(|layer| layer.annotations.clone()).unwrap_or_default();
            annotations.retain(|key, _| !is_of_blob(key));
            annotations.extend(chunked.iter().flat_map(ChunkedBlob::annotations));
            let descriptor = sink.put_written(writer, &media_type)?.with_annotations(&annotations);
            if old.get(position).is_none_or(|old| old.digest != descriptor.digest) {
                let keeps_form = old.get(position).map(|old| keeps_form(old, compression)).transpose()?;
                compressed_anew = compressed_anew.saturating_add(u64::from(keeps_form == Some(true)));
                manifest.replace_layer(position, &descriptor);
                unchanged = false;
            }
        }
        let document = if unchanged { saving.document.clone() } else { manifest.to_document() };
        let tags = saving.tags(to, options);
        sink.add_image(&SinkImage {
            manifest: &document,
            platform: Some(saving.parsed_config.platform.clone()),
            tags: &tags,
            annotations: &saving.annotations,
        })?;
        sink.finish()?;
        Ok(SavedImage { manifest: document.digest, unchanged, compressed_anew })
    }
}

impl Store {
    /// Which manifest of an image `key` means, by which the image was found: a digest of one of its manifests means that, and a
    /// name the one that it was loaded with. `None` is the first that the image was loaded with: that is what its id means, and
    /// what a name means that was given to it otherwise.
    ///
    /// Returns [`Error::Lookup`] if the image is not there.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use layerstore::{Store, StoreOptions, oci::SaveOptions};
    ///
    /// let store = Store::open(&StoreOptions::at("/var/lib/demo"))?;
    /// let image = store.image("debian:12")?;
    /// let mut options = SaveOptions::default();
    /// options.manifest = store.manifest_of(&image, "debian:12")?;
    /// store.save(&image.id, &"oci:debian.oci:12".parse()?, &options)?;
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn manifest_of(&self, image: &Image, key: &str) -> Result<Option<Digest>, Error> {
        if let Ok(digest) = key.parse::<Digest>() {
            return Ok(Some(digest).filter(|digest| image.manifests.iter().any(|(_, own)| own == digest)));
        }
        if image.names.iter().all(|name| name.as_str() != key) {
            return Ok(None);
        }
        Ok(self.loaded_names(&image.id)?.get(key).and_then(|digest| digest.parse().ok()))
    }
}

/// The keys of a manifest and of what the source's index said about it.
fn document_keys(image: &ImageRecord, manifest: Option<&Digest>) -> (String, String) {
    let first = || (MANIFEST_ITEM.to_owned(), ANNOTATIONS_ITEM.to_owned());
    let Some(manifest) = manifest.map(ToString::to_string) else { return first() };
    let has = |key: &str| image.manifests.iter().any(|(own, digest)| own == key && *digest == manifest);
    if has(MANIFEST_ITEM) {
        return first();
    }
    let own = format!("{MANIFEST_ITEM}-{manifest}");
    let known = image.manifests.iter().find(|(_, digest)| *digest == manifest).map(|(key, _)| key.clone());
    let key = if has(&own) { own } else { known.unwrap_or(own) };
    (key, format!("{ANNOTATIONS_ITEM}-{manifest}"))
}

/// How one layer goes out.
enum Plan<'s> {
    /// The target has it.
    There,
    /// From the file of the kept blob, in the store that has it.
    Kept(&'s Store, u64),
    /// From the additional layer store that has the layer.
    Delivered(File),
    /// The tar as it is, which is the blob.
    Plain,
    /// The tar, compressed.
    Encoded(Compression),
}

/// A layer that was compressed anew.
struct EncodedLayer {
    writer: BlobWriter,
    media_type: String,
    /// Where its table of contents is.
    chunked: Option<ChunkedBlob>,
}

/// An image being saved.
struct Saving<'a> {
    store: &'a Store,
    options: &'a SaveOptions<'a>,
    document: Document,
    manifest: Manifest,
    config: Document,
    parsed_config: ImageConfig,
    annotations: Annotations,
    names: Vec<String>,
    /// Bottom first, as in the manifest.
    layers: Vec<LayerRecord>,
}

impl<'a> Saving<'a> {
    fn new(store: &'a Store, id: &ImageId, options: &'a SaveOptions<'a>) -> Result<Self, Error> {
        let txn = store.begin_read()?;
        let not_found = || LookupError::NotFound { kind: "image", key: id.to_string() };
        let record = txn.image(id.as_str())?.ok_or_else(not_found)?;
        let (manifest_key, annotations_key) = document_keys(&record, options.manifest.as_ref());
        let document = Document::new(store.item(id, &manifest_key)?, "");
        let media_type = media_type::of_manifest(&document)?;
        let document = Document::new(document.bytes, media_type);
        let manifest = Manifest::parse(&document, &document.digest.to_string())?;
        let config_bytes = store.item(id, &manifest.config.digest.to_string())?;
        let config = Document::new(config_bytes, manifest.config.media_type.clone());
        let parsed_config = ImageConfig::parse(&config, &config.digest.to_string())?;
        let mut layers = match &record.top_layer {
            Some(top) => txn.chain(top)?,
            None => Vec::new(),
        };
        layers.reverse();
        if layers.len() != manifest.layers.len() {
            return Err(OciError::LayerCount {
                manifest: document.digest.to_string(),
                config: config.digest.to_string(),
                layers: manifest.layers.len(),
                diff_ids: layers.len(),
            }
            .into());
        }
        let annotations = match store.item(id, &annotations_key) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(Error::Lookup(LookupError::NoItem { .. })) => Annotations::new(),
            Err(error) => return Err(error),
        };
        let names = record.names;
        Ok(Saving { store, options, document, manifest, config, parsed_config, annotations, names, layers })
    }

    /// The tags that the image gets: what was asked for; in a docker archive, which has names, else its own.
    fn tags(&self, to: &Reference, options: &SaveOptions<'_>) -> Vec<String> {
        match (&options.tag, to.transport(), to.tag()) {
            (Some(tag), _, _) => vec![tag.clone()],
            (None, Transport::DockerArchive, None) => self.names.clone(),
            _ => Vec::new(),
        }
    }

    fn plan(&self, sink: &Sink, compression: Option<Compression>) -> Result<Vec<Plan<'_>>, Error> {
        let txn = self.store.begin_read()?;
        let mut plans = Vec::with_capacity(self.layers.len());
        for (descriptor, layer) in self.manifest.layers.iter().zip(&self.layers) {
            let wanted = compression.map_or_else(|| compression_of(descriptor), Ok)?;
            let same_form = keeps_form(descriptor, compression)?;
            plans.push(if same_form && sink.has_blob(descriptor)? {
                Plan::There
            } else if wanted == Compression::None && layer.diff_id == Some(descriptor.digest.to_string()) {
                Plan::Plain
            } else if let Some((part, kept)) = txn.kept_blob(&descriptor.digest.to_string())?
                && same_form
            {
                let holder = part.store();
                holder.verify_kept_blob(part.txn()?, &descriptor.digest.to_string(), &kept)?;
                Plan::Kept(holder, kept.number)
            } else if same_form
                && let Some(blob) = blob_as_delivered(layer, &descriptor.digest, descriptor.size)
            {
                Plan::Delivered(blob)
            } else {
                Plan::Encoded(writable(wanted))
            });
        }
        Ok(plans)
    }

    /// Puts the blobs that exist as they are, or whose digest is known.
    fn write_kept(&self, sink: &mut Sink, plans: &[Plan<'_>]) -> Result<(), Error> {
        for ((descriptor, layer), plan) in self.manifest.layers.iter().zip(&self.layers).zip(plans) {
            match plan {
                Plan::Kept(holder, number) => {
                    let file = holder.open_kept_blob(*number)?;
                    let put = sink.put_blob(descriptor, file);
                    put.map_err(|error| of_kept(error, holder, *number))?;
                }
                Plan::Delivered(blob) => {
                    sink.put_blob(descriptor, blob)?;
                }
                Plan::Plain => {
                    let mut writer = sink.blob_writer()?;
                    self.export(layer, &mut writer)?;
                    sink.put_written(writer, &descriptor.media_type)?;
                }
                Plan::There | Plan::Encoded(_) => continue,
            }
            self.report(&Progress::LayerDone { blob: &descriptor.digest });
        }
        Ok(())
    }

    /// Compresses layers, as many at a time as there are processors.
    fn encode(&self, sink: &Sink, plans: &[Plan<'_>]) -> Result<Vec<(usize, EncodedLayer)>, Error> {
        let jobs: Vec<(usize, Compression)> = plans
            .iter()
            .enumerate()
            .filter_map(|(position, plan)| match plan {
                Plan::Encoded(compression) => Some((position, *compression)),
                _ => None,
            })
            .collect();
        let workers = parallel::workers(jobs.len(), 1);
        parallel::each(
            &jobs,
            workers,
            || (),
            |(), (position, compression)| Ok((*position, self.encode_layer(sink, *position, *compression)?)),
        )
    }

    fn encode_layer(
        &self,
        sink: &Sink,
        position: usize,
        compression: Compression,
    ) -> Result<EncodedLayer, Error> {
        let (Some(layer), Some(descriptor)) = (self.layers.get(position), self.manifest.layers.get(position))
        else {
            return Err(ExportError::Io(io::ErrorKind::InvalidInput.into()).into());
        };
        let old = LayerType::parse(&descriptor.media_type, &descriptor.digest.to_string())?;
        let media_type = LayerType { compression, ..old }.oci();
        self.report(&Progress::LayerStarted { blob: &descriptor.digest, size: layer.diff_size.unwrap_or(0) });
        let write = |inner: &mut dyn Write| {
            self.export(layer, &mut Reporting { inner, saving: self, blob: &descriptor.digest })
        };
        let writer = sink.blob_writer()?;
        let (writer, chunked) = layer::compressed(writer, compression, self.options.level, write)?;
        self.report(&Progress::LayerDone { blob: &descriptor.digest });
        Ok(EncodedLayer { writer, media_type, chunked })
    }

    fn export(&self, layer: &LayerRecord, out: &mut impl Write) -> Result<(), Error> {
        let txn = self.store.begin_read()?;
        self.store.export(&txn, layer, None, out)
    }

    fn report(&self, progress: &Progress<'_>) {
        if let Some(report) = self.options.progress {
            report(progress);
        }
    }
}

/// The error for a blob that could not be put, where it is one that the store keeps: nothing from outside is wrong then.
fn of_kept(error: OciError, holder: &Store, number: u64) -> Error {
    let (digest, reason) = match error {
        OciError::Blob(BlobError::Size { digest, .. }) => (digest, "it has another size"),
        OciError::Blob(BlobError::Digest { expected, .. }) => (expected, "its content has another digest"),
        other => return other.into(),
    };
    let path = holder.layout().entry_path(Subdirectory::Blobs, DiffName::Entry(number));
    ExportError::KeptBlob { digest, path, reason }.into()
}

/// A docker manifest has no name for zstd layers.
fn media_type_conflict(saving: &Saving<'_>, compression: Option<Compression>) -> bool {
    compression.is_some() && saving.document.media_type == media_type::DOCKER_MANIFEST
}

fn compression_of(descriptor: &Descriptor) -> Result<Compression, OciError> {
    let kind = LayerType::parse(&descriptor.media_type, &descriptor.digest.to_string())?;
    Ok(match kind.compression {
        Compression::Zstd if is_chunked(descriptor) => Compression::ZstdChunked,
        compression => compression,
    })
}

/// Whether a layer is to go out compressed as it came. With a table of contents or without, it is zstd.
fn keeps_form(came: &Descriptor, wanted: Option<Compression>) -> Result<bool, OciError> {
    let own = compression_of(came)?;
    Ok(wanted
        .is_none_or(|wanted| wanted == own || (wanted, own) == (Compression::Zstd, Compression::ZstdChunked)))
}

fn is_chunked(descriptor: &Descriptor) -> bool {
    ChunkedBlob::from_annotations(&descriptor.annotations).is_ok_and(|chunked| chunked.is_some())
}

/// The form in which a layer of another form can be written.
fn writable(compression: Compression) -> Compression {
    match compression {
        Compression::None | Compression::Gzip | Compression::Zstd | Compression::ZstdChunked => compression,
        _ => Compression::Gzip,
    }
}

/// Reports what is written through it.
struct Reporting<'a, W: ?Sized> {
    inner: &'a mut W,
    saving: &'a Saving<'a>,
    blob: &'a Digest,
}

impl<W: Write + ?Sized> Write for Reporting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        let bytes = u64::try_from(written).unwrap_or(u64::MAX);
        self.saving.report(&Progress::LayerBytes { blob: self.blob, bytes });
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
