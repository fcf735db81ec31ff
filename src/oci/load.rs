//! An image from outside into the store.

use std::collections::HashSet;
use std::time::Duration;

use super::config::ImageConfig;
use super::document::check_layers;
use super::manifest::{CONTAINERD_NAME, Descriptor, REF_NAME};
use super::platform::Platform;
use super::reference::docker_name;
use super::source::{ResolvedImage, ResolvedLayer, Selection, Source};
use crate::chunked::ChunkedBlob;
use crate::compress::Compression;
use crate::error::{Error, ImportError};
use crate::image::Image;
use crate::layer::{LayerBlob, ProgressFn};
use crate::store::{BlobInput, ImageImport, LayerImport, Store};
use crate::sys::file::duplicate;
use crate::types::{Digest, Name, Timestamp};

/// The key of the data item that holds an image's manifest, byte for byte as it came.
pub(crate) const MANIFEST_ITEM: &str = "manifest";

/// The key of the data item that holds what the source's index said about the image.
pub(super) const ANNOTATIONS_ITEM: &str = "index-annotations";

/// How often a load begins anew because others removed a layer that it had counted on.
const TRIES: usize = 3;
/// The annotation of a layer's descriptor that tells the length of its tar. What gzip says at its end is that length
/// modulo 4 GiB, and of the last member only.
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";
/// The annotation of a layer in the form eStargz with the digest of its table of contents.
const ESTARGZ_TOC: &str = "containerd.io/snapshot/stargz/toc.digest";

/// How an image is loaded.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct LoadOptions<'a> {
    /// The names it gets, moved from whichever images have them. If there are none: those that the source has for
    /// it.
    pub names: Vec<String>,
    /// Which image of a source with several, by platform; if `None`, this machine's.
    pub platform: Option<Platform>,
    /// Which image of a source with several, by tag; if `None`, that of the reference.
    pub tag: Option<String>,
    /// Whether the lowest layers that were finished are kept for so long if a later one fails, under a lease with the id
    /// `load-<image id>`: the next try does not read them again. The lease of an earlier try keeps its end if that is
    /// later; [`Progress::FinishedKept`](crate::Progress::FinishedKept) tells the end. Nothing is kept when the disk is
    /// full. If `None`, a load that fails leaves nothing.
    pub keep_finished: Option<Duration>,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl LoadOptions<'_> {
    /// One name for the image, and the defaults.
    pub fn named(name: impl Into<String>) -> Self {
        LoadOptions { names: vec![name.into()], ..LoadOptions::default() }
    }
}

impl std::fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadOptions")
            .field("names", &self.names)
            .field("platform", &self.platform)
            .field("tag", &self.tag)
            .field("keep_finished", &self.keep_finished)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Loads an image: its layers, its documents and its names, all or nothing. Layers that the store has are not
    /// read again.
    ///
    /// The image's id is the digest of its config, so loading it twice gives one image, also if it comes with another manifest the
    /// second time. Its first manifest stays what it is saved as; a later one is found by its digest and by the names that it was
    /// loaded with ([`Store::manifest_of`]). Every digest and size is checked while the bytes pass, also those of a layer that is
    /// there, if the store does not know its blob; when the call returns, all of it is on the disk, unless the store was opened with
    /// another [`SyncMode`](crate::SyncMode) than `Full`.
    ///
    /// # Locking
    ///
    /// No lock is held while data moves; the records are inserted in one short write transaction. Of two loads of one
    /// image at a time both unpack its layers; the one that ends later finds them there, and drops its own.
    ///
    /// Returns [`Error::Oci`] if the source has no such image or its documents are damaged, and [`Error::Import`] if
    /// a layer is damaged or refused, as with [`UnpackError::OwnerNotMapped`](crate::UnpackError::OwnerNotMapped) if the user namespace of
    /// this process has no id for an owner in it; the store is as before then, unless [`LoadOptions::keep_finished`] is set.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use layerstore::{Store, StoreOptions, oci};
    ///
    /// let store = Store::open(&StoreOptions::at("/var/lib/demo"))?;
    /// let source = oci::Source::open(&"oci:debian.oci:12".parse()?, store.root())?;
    /// let image = store.load(&source, &oci::LoadOptions::named("debian:12"))?;
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn load(&self, source: &Source, options: &LoadOptions<'_>) -> Result<Image, Error> {
        let selection = Selection { tag: options.tag.clone(), platform: options.platform.clone() };
        let resolved = source.resolve(&selection)?;
        // The source may have been opened with other limits.
        check_layers(resolved.layers.len(), &resolved.manifest.digest.to_string(), self.options().granted())?;
        let config_name = resolved.config.digest.to_string();
        let config = ImageConfig::parse(&resolved.config, &config_name)?;
        config.check_type(&config_name)?;
        let import = ImageImport {
            id: resolved.config.digest.hex().parse()?,
            references: references(&resolved, &options.names),
            names: names(&resolved, &options.names)?,
            created: created(&config),
            layers: resolved.layers.iter().map(|layer| layer_import(source, layer)).collect(),
            digests: vec![resolved.manifest.digest.clone()],
            items: items(&resolved),
            first_items: first_items(&resolved),
            keep_finished: options.keep_finished,
            progress: options.progress,
        };
        let mut tries = 1;
        loop {
            match self.import_image(&import) {
                // Others removed a layer that was there when it began.
                Err(Error::Import(ImportError::Vanished { .. })) if tries < TRIES => {
                    tries = tries.saturating_add(1);
                }
                loaded => return loaded,
            }
        }
    }
}

/// When the image was made, as its config says; else now.
pub(super) fn created(config: &ImageConfig) -> Timestamp {
    let time = config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or_else(Timestamp::now, |time| {
        let (seconds, nanoseconds) = (time.as_second(), time.subsec_nanosecond());
        match u32::try_from(nanoseconds) {
            Ok(nanoseconds) => Timestamp { seconds, nanoseconds },
            // Before 1970 both parts are negative.
            Err(_) => Timestamp {
                seconds: seconds.saturating_sub(1),
                nanoseconds: u32::try_from(nanoseconds.saturating_add(1_000_000_000)).unwrap_or_default(),
            },
        }
    })
}

/// The names that were asked for, else those that the source has.
fn names(resolved: &ResolvedImage, asked: &[String]) -> Result<Vec<Name>, Error> {
    let own = || {
        let full = resolved.annotations.get(CONTAINERD_NAME);
        let names = full.or(resolved.tag.as_ref()).cloned();
        if resolved.names.is_empty() { names.into_iter().collect() } else { resolved.names.clone() }
    };
    let names = if asked.is_empty() { own() } else { asked.to_vec() };
    Ok(names.iter().map(|name| name.parse()).collect::<Result<_, _>>()?)
}

/// What additional layer stores may call the image: its names in full, such as `docker.io/library/web:latest`, and as they
/// are.
fn references(resolved: &ResolvedImage, asked: &[String]) -> Vec<String> {
    let annotated = [CONTAINERD_NAME, REF_NAME].into_iter().filter_map(|key| resolved.annotations.get(key));
    let (mut references, mut seen) = (Vec::new(), HashSet::new());
    for name in asked.iter().chain(&resolved.names).chain(annotated).chain(&resolved.tag) {
        for reference in docker_name(name).ok().into_iter().chain([name.clone()]) {
            if seen.insert(reference.clone()) {
                references.push(reference);
            }
        }
    }
    references
}

/// The digest of the table of contents of a blob, in the form `zstd:chunked` or eStargz.
fn toc_digest(descriptor: &Descriptor) -> Option<Digest> {
    let chunked = chunked(descriptor).map(|chunked| chunked.toc_digest);
    chunked.or_else(|| descriptor.annotations.get(ESTARGZ_TOC)?.parse().ok())
}

fn layer_import<'s>(source: &'s Source, layer: &'s ResolvedLayer) -> LayerImport<'s> {
    let descriptor = &layer.descriptor;
    LayerImport {
        diff_id: layer.diff_id.clone(),
        blob: Some(LayerBlob {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
        }),
        chunked: chunked(descriptor),
        toc_digest: toc_digest(descriptor),
        unpacked_size: match layer.compression {
            Compression::None => Some(descriptor.size),
            _ => descriptor.annotations.get(UNCOMPRESSED_SIZE).and_then(|size| size.parse().ok()),
        },
        // A plain tar comes back from the tar-split, byte for byte.
        keep_blob: layer.compression != Compression::None,
        open: Box::new(move || blob_input(source, descriptor)),
    }
}

/// What a descriptor says of a table of contents. What makes no sense is no reason to refuse the layer: others who
/// compress it anew forget to take such annotations away.
fn chunked(descriptor: &Descriptor) -> Option<ChunkedBlob> {
    ChunkedBlob::from_annotations(&descriptor.annotations).unwrap_or_else(|error| {
        tracing::warn!(blob = %descriptor.digest, %error, "its table of contents is not known");
        None
    })
}

/// Opens a blob of a source, with its place in a file where it has one.
pub(crate) fn blob_input(source: &Source, descriptor: &Descriptor) -> Result<BlobInput, Error> {
    let blob = source.blob(descriptor)?;
    let extent = blob.extent();
    let file = duplicate(extent.file()).map_err(ImportError::Io)?;
    let extent = Some((file.into(), extent.offset(), extent.length()));
    Ok(BlobInput { reader: Box::new(blob), extent })
}

fn items(resolved: &ResolvedImage) -> Vec<(String, Vec<u8>)> {
    vec![
        (format!("{MANIFEST_ITEM}-{}", resolved.manifest.digest), resolved.manifest.bytes.clone()),
        (resolved.config.digest.to_string(), resolved.config.bytes.clone()),
    ]
}

fn first_items(resolved: &ResolvedImage) -> Vec<(String, Vec<u8>)> {
    let mut annotations = resolved.annotations.clone();
    annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
    let annotations = if annotations.is_empty() { None } else { serde_json::to_vec(&annotations).ok() };
    vec![
        (MANIFEST_ITEM.to_owned(), resolved.manifest.bytes.clone()),
        (ANNOTATIONS_ITEM.to_owned(), annotations.unwrap_or_default()),
    ]
}
