//! Where images come from: opens a layout or an archive, and finds the image that is asked for.

use std::path::Path;
use std::sync::Arc;

use super::archive;
use super::blob::BlobReader;
use super::config::ImageConfig;
use super::dir::Dir;
use super::docker_archive::DockerArchive;
use super::document::{Document, check_layers};
use super::layout::{Files, Layout, check_digest, tag_of};
use super::load;
use super::manifest::{Annotations, Descriptor, Manifest};
use super::media_type::{self, LayerType};
use super::platform::{Platform, choose};
use super::reference::{Reference, Transport};
use crate::compress::Compression;
use crate::error::{Choices, OciError};
use crate::types::{DiffId, Limits, Timestamp};

/// A layout or archive that is open for reading. It can be shared between threads that each read a blob.
///
/// # Examples
///
/// ```no_run
/// use layerstore::oci::{Selection, Source};
///
/// let source = Source::open(&"oci:debian:12".parse()?, "/tmp".as_ref())?;
/// let image = source.resolve(&Selection::default())?;
/// for layer in &image.layers {
///     let mut blob = source.blob(&layer.descriptor)?;
///     std::io::copy(&mut blob, &mut std::io::sink())?;
///     blob.finish()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Source {
    kind: Kind,
    tag: Option<String>,
}

#[derive(Debug)]
enum Kind {
    Layout(Layout),
    Docker(DockerArchive),
}

/// Which image of a source is wanted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Selection {
    /// The tag; if `None`, that of the reference the source was opened with.
    pub tag: Option<String>,
    /// The platform; if `None`, that of this machine where there is a choice, else whatever there is.
    pub platform: Option<Platform>,
}

/// An image of a source: its documents as they came, and its layers.
#[derive(Clone, PartialEq, Debug)]
pub struct ResolvedImage {
    /// The manifest. In a docker archive there is none: this one was made, and its digest is no registry's.
    pub manifest: Document,
    /// The config, whose digest is the image ID.
    pub config: Document,
    /// The layers, bottom first.
    pub layers: Vec<ResolvedLayer>,
    /// The annotations that the layout's index has for the image.
    pub annotations: Annotations,
    /// The tag in the layout's index.
    pub tag: Option<String>,
    /// In a docker archive: all names of the image.
    pub names: Vec<String>,
    /// What the image runs on, as its config says.
    pub platform: Platform,
}

/// A layer of an image.
#[derive(Clone, PartialEq, Debug)]
pub struct ResolvedLayer {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of the blob's content once it is uncompressed.
    pub diff_id: DiffId,
    /// How the blob is compressed, if its media type is right.
    pub compression: Compression,
    /// Whether the layer must not be pushed to other registries.
    pub nondistributable: bool,
}

impl Source {
    /// Opens what `reference` names. A compressed archive is decompressed into a nameless file in `tmp_dir`.
    ///
    /// Returns [`OciError::Format`] if it is no layout or archive of the kind, [`OciError::LayoutVersion`] if it is
    /// a layout of another version, [`OciError::Archive`] or [`OciError::Member`] if a tar is damaged, and
    /// [`OciError::Limit`] if it asks for more than the default [`Limits`] grant. What it grants to an index or a manifest is
    /// asked when one is looked for.
    pub fn open(reference: &Reference, tmp_dir: &Path) -> Result<Self, OciError> {
        Self::open_within(reference, tmp_dir, &Limits::DEFAULT)
    }

    /// The same, with other limits for documents, indexes and archives than the default ones. Those of a store are its
    /// options' [`granted`](crate::StoreOptions::granted).
    ///
    /// Returns what [`open`](Self::open) does.
    pub fn open_within(reference: &Reference, tmp_dir: &Path, limits: &Limits) -> Result<Self, OciError> {
        let path = reference.path();
        let tar = || archive::open(path, tmp_dir, limits).map(Files::Tar);
        let kind = match reference.transport() {
            Transport::Layout => Kind::Layout(Layout::open(Files::Dir(Arc::new(Dir::open(path)?)), limits)?),
            Transport::OciArchive => Kind::Layout(Layout::open(tar()?, limits)?),
            Transport::DockerArchive => Kind::Docker(DockerArchive::open(tar()?, limits)?),
        };
        Ok(Source { kind, tag: reference.tag().map(str::to_owned) })
    }

    /// The tags or names of the images in it, in no order.
    pub fn tags(&self) -> Vec<String> {
        match &self.kind {
            Kind::Layout(layout) => {
                let mut tags: Vec<_> =
                    layout.entries().iter().filter_map(tag_of).map(str::to_owned).collect();
                // One tag can have an image for each of several platforms.
                tags.dedup();
                tags
            }
            Kind::Docker(archive) => archive.names(),
        }
    }

    /// Finds an image, and reads and checks its manifest and config.
    ///
    /// Returns [`OciError::TagMissing`], [`OciError::TagNeeded`] or [`OciError::PlatformMissing`], which list what
    /// there is; [`OciError::NotAnImage`], [`OciError::Encrypted`] or [`OciError::UnknownLayerType`] if it is
    /// nothing that can be unpacked; and [`OciError::Blob`] or [`OciError::Malformed`] if a document is damaged.
    pub fn resolve(&self, selection: &Selection) -> Result<ResolvedImage, OciError> {
        let tag = selection.tag.as_deref().or(self.tag.as_deref());
        let image = match &self.kind {
            Kind::Layout(layout) => resolve_layout(layout, tag, selection.platform.as_ref())?,
            Kind::Docker(archive) => {
                let image = archive.image(tag)?;
                let mut resolved = ResolvedImage::new(image.manifest, image.config, archive.limits())?;
                resolved.tag = tag.map(str::to_owned).or_else(|| image.names.first().cloned());
                resolved.names = image.names;
                resolved
            }
        };
        if let Some(wanted) = &selection.platform
            && !image.platform.os.is_empty()
            && !wanted.accepts(&image.platform)
        {
            let available = Choices(vec![image.platform.to_string()]);
            return Err(OciError::PlatformMissing { wanted: wanted.to_string(), available });
        }
        Ok(image)
    }

    /// All images in it that can be read, or those with the tag it was opened with.
    ///
    /// Returns [`OciError::TagMissing`] if no image has that tag.
    pub(crate) fn images(&self) -> Result<Vec<ResolvedImage>, OciError> {
        let mut images = Vec::new();
        match &self.kind {
            Kind::Layout(layout) => {
                let roots = match &self.tag {
                    Some(tag) => layout.tagged(Some(tag))?,
                    None => layout.entries().iter().collect(),
                };
                for descriptor in layout.images(&roots)? {
                    let image = layout.document(&descriptor).and_then(|manifest| {
                        let parsed = Manifest::parse(&manifest, &descriptor.digest.to_string())?;
                        ResolvedImage::new(manifest, layout.document(&parsed.config)?, layout.limits())
                    });
                    images.extend(image.ok());
                }
            }
            Kind::Docker(archive) => {
                for image in archive.images(self.tag.as_deref())? {
                    images.extend(ResolvedImage::new(image.manifest, image.config, archive.limits()).ok());
                }
            }
        }
        Ok(images)
    }

    /// Where it is, for messages.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            Kind::Layout(layout) => layout.path().display().to_string(),
            Kind::Docker(archive) => archive.path().display().to_string(),
        }
    }

    /// Opens a blob; it is checked while it is read. In a docker archive, only the blobs of images that were
    /// resolved are known.
    ///
    /// Returns [`OciError::BlobMissing`] if it is not there, and [`OciError::Blob`] if it has another size.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<BlobReader, OciError> {
        match &self.kind {
            Kind::Layout(layout) => layout.blob(&descriptor.digest, descriptor.size),
            Kind::Docker(archive) => archive.blob(&descriptor.digest, descriptor.size),
        }
    }
}

fn resolve_layout(
    layout: &Layout,
    tag: Option<&str>,
    platform: Option<&Platform>,
) -> Result<ResolvedImage, OciError> {
    let roots = layout.tagged(tag)?;
    let images = layout.images(&roots)?;
    let chosen = match (images.as_slice(), platform) {
        // A single image is taken even if it is for another machine, unless a platform was asked for by name; then
        // its config decides.
        ([only], _) => only,
        (several, Some(wanted)) => choose(several, wanted)?,
        (several, None) => choose(several, &Platform::host())?,
    };
    let manifest = layout.document(chosen)?;
    let parsed = Manifest::parse(&manifest, &chosen.digest.to_string())?;
    let config = layout.document(&parsed.config)?;
    let mut resolved = ResolvedImage::new(manifest, config, layout.limits())?;
    // The root with the tag may be an index, and the image below it have annotations of its own.
    let root = roots.iter().find(|root| root.digest == chosen.digest).or(roots.first());
    resolved.annotations = root.map(|root| root.annotations.clone()).unwrap_or_default();
    resolved.annotations.extend(chosen.annotations.clone());
    resolved.tag = tag.or_else(|| root.and_then(|root| tag_of(root))).map(str::to_owned);
    Ok(resolved)
}

impl ResolvedImage {
    /// When the image was made, as its config says; else now.
    pub(crate) fn created(&self) -> Timestamp {
        let config = ImageConfig::parse(&self.config, &self.config.digest.to_string());
        config.map_or_else(|_| Timestamp::now(), |config| load::created(&config))
    }

    /// Joins the documents of an image that was loaded before.
    pub(crate) fn of_documents(manifest: Vec<u8>, config: Vec<u8>) -> Result<Self, OciError> {
        let manifest = Document::new(manifest, "");
        let media_type = media_type::of_manifest(&manifest)?;
        let manifest = Document::new(manifest.bytes, media_type);
        let parsed = Manifest::parse(&manifest, &manifest.digest.to_string())?;
        check_digest(&config, &parsed.config.digest)?;
        let digest = parsed.config.digest.clone();
        let config = Document { bytes: config, digest, media_type: parsed.config.media_type };
        ResolvedImage::new(manifest, config, &Limits::NONE)
    }

    /// Joins a manifest and its config, which must agree on the number of layers.
    fn new(manifest: Document, config: Document, limits: &Limits) -> Result<Self, OciError> {
        let (manifest_name, config_name) = (manifest.digest.to_string(), config.digest.to_string());
        let parsed = Manifest::parse(&manifest, &manifest_name)?;
        check_layers(parsed.layers.len(), &manifest_name, limits)?;
        let parsed_config = ImageConfig::parse(&config, &config_name)?;
        if parsed.layers.len() != parsed_config.diff_ids.len() {
            return Err(OciError::LayerCount {
                manifest: manifest_name,
                config: config_name,
                layers: parsed.layers.len(),
                diff_ids: parsed_config.diff_ids.len(),
            });
        }
        let mut layers = Vec::with_capacity(parsed.layers.len());
        for (descriptor, diff_id) in parsed.layers.into_iter().zip(parsed_config.diff_ids) {
            let kind = LayerType::parse(&descriptor.media_type, &descriptor.digest.to_string())?;
            let (compression, nondistributable) = (kind.compression, kind.nondistributable);
            layers.push(ResolvedLayer { descriptor, diff_id, compression, nondistributable });
        }
        let platform = parsed_config.platform;
        let (annotations, names) = (Annotations::new(), Vec::new());
        Ok(ResolvedImage { manifest, config, layers, annotations, tag: None, names, platform })
    }
}
