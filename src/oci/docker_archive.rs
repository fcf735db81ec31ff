//! Archives in the form of `docker save`: `manifest.json` names a config and uncompressed layers.
//!
//! Three generations are read: layers as `<id>/layer.tar`, some of them links to others; layers as
//! `<diffID>.tar`, as skopeo writes them; and `blobs/sha256/<digest>`, which docker writes since 25. The last
//! is an image layout too, and read through `oci-archive:` it yields the original manifest.
//!
//! The format has no manifest of its own, so one is made: the config's bytes are kept, so the image ID is
//! kept; the manifest's digest is that of no registry. Layers are described as they are found. An
//! uncompressed one is named by its diffID; a compressed one that no name promises a digest for is hashed.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use super::blob::{BlobReader, Extent};
use super::config::ImageConfig;
use super::dir::io_error;
use super::document::{Document, check_layers, parse_typed, parse_value};
use super::layout::{Files, check_digest, digest_in_name};
use super::manifest::{Descriptor, Manifest};
use super::media_type::{LayerType, OCI_CONFIG};
use super::reference::docker_name;
use super::shape;
use crate::compress::Compression;
use crate::error::{Choices, Limit, OciError, shown};
use crate::types::{Algorithm, DiffId, Digest, Hasher, Limits};

/// The list of an archive's images.
pub(super) const MANIFEST_FILE: &str = "manifest.json";

/// An archive with its list read.
#[derive(Debug)]
pub(super) struct DockerArchive {
    files: Files,
    images: Vec<Entry>,
    /// Where the blobs of the images that were resolved are.
    blobs: Mutex<HashMap<Digest, Extent>>,
    /// What was found out of members by reading them, by where they are: the list can name one again and again.
    read: Mutex<HashMap<Place, Found>>,
    limits: Limits,
}

/// Where a member is in the archive: its offset and its length.
type Place = (u64, u64);

/// What is in a member.
#[derive(Debug, Clone)]
struct Found {
    compression: Compression,
    /// The digest of its bytes, if it was needed.
    digest: Option<Digest>,
}

/// One image of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// An image of the archive, with a manifest made for it.
pub(super) struct DockerImage {
    pub(super) manifest: Document,
    pub(super) config: Document,
    pub(super) names: Vec<String>,
}

impl DockerArchive {
    pub(super) fn open(files: Files, limits: &Limits) -> Result<Self, OciError> {
        let Some(bytes) = files.document(MANIFEST_FILE, limits)? else {
            let path = files.path().to_owned();
            return Err(OciError::Format { path, format: "docker archive", missing: MANIFEST_FILE });
        };
        let images = parse_list(&bytes)?;
        let (blobs, read) = Default::default();
        Ok(DockerArchive { files, images, blobs, read, limits: *limits })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The names of all images.
    pub(super) fn names(&self) -> Vec<String> {
        self.images.iter().flat_map(|image| image.repo_tags.clone().unwrap_or_default()).collect()
    }

    /// Describes the image with this name, or the only one if none is given.
    pub(super) fn image(&self, tag: Option<&str>) -> Result<DockerImage, OciError> {
        self.describe(self.choose(tag)?)
    }

    /// Describes the image with this name, or all that can be read if none is given.
    pub(super) fn images(&self, tag: Option<&str>) -> Result<Vec<DockerImage>, OciError> {
        match tag {
            Some(tag) => Ok(vec![self.image(Some(tag))?]),
            None => Ok(self.images.iter().filter_map(|entry| self.describe(entry).ok()).collect()),
        }
    }

    fn describe(&self, entry: &Entry) -> Result<DockerImage, OciError> {
        let names = entry.repo_tags.clone().unwrap_or_default();
        self.limits.check(Limit::Names, names.len() as u64, || self.path().display().to_string())?;
        let config = self.member(&entry.config)?;
        let mut bytes = Vec::new();
        super::document::check_size(config.length(), &entry.config, &self.limits)?;
        config.reader().read_to_end(&mut bytes).map_err(io_error("read", &self.path()))?;
        if let Some(promised) = digest_in_name(&entry.config) {
            check_digest(&bytes, &promised)?;
        }
        let document = Document::new(bytes, OCI_CONFIG);
        let parsed = ImageConfig::parse(&document, &entry.config)?;
        let members = entry.layers.as_deref().unwrap_or_default();
        check_layers(members.len(), &entry.config, &self.limits)?;
        if members.len() != parsed.diff_ids.len() {
            return Err(OciError::LayerCount {
                manifest: MANIFEST_FILE.to_owned(),
                config: document.digest.to_string(),
                layers: members.len(),
                diff_ids: parsed.diff_ids.len(),
            });
        }
        let mut layers = Vec::with_capacity(members.len());
        for (name, diff_id) in members.iter().zip(&parsed.diff_ids) {
            layers.push(self.layer(name, diff_id)?);
        }
        self.remember(&document.digest, config);
        let manifest = Manifest::new(Descriptor::of(&document), layers).to_document();
        Ok(DockerImage { manifest, config: document, names })
    }

    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader, OciError> {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let extent = blobs.get(digest).cloned();
        drop(blobs);
        let missing = || OciError::BlobMissing { path: self.path(), digest: digest.to_string() };
        BlobReader::new(extent.ok_or_else(missing)?, digest, size)
    }

    fn choose(&self, tag: Option<&str>) -> Result<&Entry, OciError> {
        let available = || {
            let unnamed =
                self.images.iter().filter(|image| image.repo_tags.as_ref().is_none_or(Vec::is_empty));
            Choices(
                self.names().into_iter().chain(unnamed.map(|_| "an image without name".to_owned())).collect(),
            )
        };
        match (tag, self.images.as_slice()) {
            (_, []) => Err(OciError::NoImage(self.path())),
            (None, [only]) => Ok(only),
            (None, _) => Err(OciError::TagNeeded { path: self.path(), available: available() }),
            (Some(tag), images) => {
                let full = docker_name(tag);
                let is_named = |name: &String| name == tag || (full.is_ok() && docker_name(name) == full);
                let found = images.iter().find(|image| image.repo_tags.iter().flatten().any(is_named));
                let missing = || OciError::TagMissing {
                    path: self.path(),
                    tag: tag.to_owned(),
                    available: available(),
                };
                found.ok_or_else(missing)
            }
        }
    }

    fn layer(&self, name: &str, diff_id: &DiffId) -> Result<Descriptor, OciError> {
        let extent = self.member(name)?;
        let failed = |error: io::Error| io_error("read", &self.path().join(name))(error);
        let place = (extent.offset(), extent.length());
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(&place).cloned();
        let mut found = match known {
            Some(found) => found,
            None => Found { compression: Compression::of(extent.reader()).map_err(&failed)?, digest: None },
        };
        let compression = found.compression;
        let kind = LayerType { compression, nondistributable: false };
        let digest = if compression == Compression::None {
            diff_id.0.clone()
        } else if let Some(promised) = digest_in_name(name) {
            promised
        } else if let Some(known) = &found.digest {
            known.clone()
        } else {
            let digest = hash(&extent).map_err(failed)?;
            found.digest = Some(digest.clone());
            digest
        };
        self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(place, found);
        let descriptor = Descriptor::new(kind.oci(), digest, extent.length());
        self.remember(&descriptor.digest, extent);
        Ok(descriptor)
    }

    fn member(&self, name: &str) -> Result<Extent, OciError> {
        let missing = || OciError::MemberMissing { path: self.path(), member: shown(name) };
        self.files.file(name)?.ok_or_else(missing)
    }

    fn remember(&self, digest: &Digest, extent: Extent) {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone(), extent);
    }

    pub(super) fn path(&self) -> PathBuf {
        self.files.path().to_owned()
    }
}

fn parse_list(bytes: &[u8]) -> Result<Vec<Entry>, OciError> {
    parse_typed(&parse_value(bytes, MANIFEST_FILE, &shape::LIST)?, MANIFEST_FILE)
}

/// The names of the layers of each image in the list of a docker archive, if it is one.
#[cfg(any(test, feature = "__fuzzing"))]
pub(super) fn layers_in_list(bytes: &[u8]) -> Option<Vec<Vec<String>>> {
    let list = parse_list(bytes).ok()?;
    Some(list.into_iter().map(|entry| entry.layers.unwrap_or_default()).collect())
}

fn hash(extent: &Extent) -> io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    io::copy(&mut io::BufReader::with_capacity(256 << 10, extent.reader()), &mut hasher)?;
    Ok(hasher.finish())
}
