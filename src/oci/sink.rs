//! Where images go: blobs and images are put into a layout or an archive, which is complete with `finish`.

use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::archive_writer::ArchiveWriter;
use super::blob::VerifyReader;
use super::dir::{TemporaryFile, anonymous_file, blob_error, io_error};
use super::document::Document;
use super::layout::blob_name;
use super::layout_writer::LayoutWriter;
use super::manifest::{Annotations, CONTAINERD_NAME, Descriptor, Manifest, REF_NAME};
use super::media_type::LayerType;
use super::platform::Platform;
use super::reference::{Reference, Transport, docker_name};
use crate::compress::Compression;
use crate::error::OciError;
use crate::sys::file::File;
use crate::types::{Algorithm, Digest, Hasher};

/// A layout or archive that is open for writing.
///
/// Put the blobs of an image first, then add the image, and finish at the end. A sink that is dropped without
/// [`Sink::finish`] leaves an archive that was there before as it was; a layout that was there may keep
/// blobs that no image names; one that was not is removed, unless another process writes to it too.
///
/// # Locking
///
/// Several processes can write to one layout; each holds its lock for as long as it replaces the index.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    path: PathBuf,
    tmp_dir: PathBuf,
    tag: Option<String>,
    /// What the index gets.
    entries: Vec<Descriptor>,
    /// What a docker archive's own list gets.
    docker: Option<Vec<Value>>,
}

#[derive(Debug)]
enum Target {
    Layout(LayoutWriter),
    // A tar header with its block makes it large.
    Archive(Box<ArchiveWriter>),
}

/// An image whose blobs are in the sink.
#[derive(Clone, Debug)]
pub struct SinkImage<'a> {
    /// The manifest; it is put into the sink as well.
    pub manifest: &'a Document,
    /// What the image runs on.
    pub platform: Option<Platform>,
    /// The tags; if none, that of the reference the sink was created with, if it has one.
    pub tags: &'a [String],
    /// More annotations for the index.
    pub annotations: &'a Annotations,
}

impl Sink {
    /// Opens a layout, or begins an archive. Blobs of unknown size for an archive wait in `tmp_dir`.
    ///
    /// Returns [`OciError::NotEmpty`] if a layout's directory has other things in it, and [`OciError::ArchiveExists`] if
    /// there is an archive.
    pub fn create(reference: &Reference, tmp_dir: &Path) -> Result<Self, OciError> {
        Self::begin(reference, tmp_dir, false)
    }

    /// As [`Sink::create`]; an archive that is there is replaced in the end.
    pub fn create_or_replace(reference: &Reference, tmp_dir: &Path) -> Result<Self, OciError> {
        Self::begin(reference, tmp_dir, true)
    }

    fn begin(reference: &Reference, tmp_dir: &Path, replace: bool) -> Result<Self, OciError> {
        let path = reference.path();
        let target = match reference.transport() {
            Transport::Layout => Target::Layout(LayoutWriter::create(path)?),
            _ => Target::Archive(Box::new(ArchiveWriter::create(path, replace)?)),
        };
        Ok(Sink {
            target,
            path: path.to_owned(),
            tmp_dir: tmp_dir.to_owned(),
            tag: reference.tag().map(str::to_owned),
            entries: Vec::new(),
            docker: (reference.transport() == Transport::DockerArchive).then(Vec::new),
        })
    }

    /// Whether layers must be uncompressed: a docker archive names them by their diffIDs.
    pub fn needs_plain_layers(&self) -> bool {
        self.docker.is_some()
    }

    /// Whether the blob is there already, and need not be put.
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, OciError> {
        match &self.target {
            Target::Layout(layout) => layout.has_blob(&descriptor.digest, descriptor.size),
            Target::Archive(archive) => Ok(archive.has_blob(&descriptor.digest)),
        }
    }

    /// Puts a blob whose digest and size are known. Nothing is read if it is there already.
    ///
    /// Returns [`OciError::Blob`] if what `reader` yields is something else. An archive cannot be finished then.
    pub fn put_blob(&mut self, descriptor: &Descriptor, reader: impl Read) -> Result<(), OciError> {
        if self.has_blob(descriptor)? {
            return Ok(());
        }
        let (digest, size) = (&descriptor.digest, descriptor.size);
        let mut reader = VerifyReader::new(reader, digest.clone(), size);
        match &mut self.target {
            Target::Archive(archive) => archive.put_blob(digest, size, reader),
            Target::Layout(layout) => {
                let mut temporary = layout.create_temporary()?;
                io::copy(&mut reader, &mut temporary.file).map_err(blob_error("write", &self.path))?;
                layout.keep_blob(temporary, digest)
            }
        }
    }

    /// Puts a document.
    pub fn put_document(&mut self, document: &Document) -> Result<(), OciError> {
        self.put_blob(&Descriptor::of(document), document.bytes.as_slice())
    }

    /// Begins a blob whose digest and size come out as it is written. Several can be written at a time, on threads
    /// of their own.
    pub fn blob_writer(&self) -> Result<BlobWriter, OciError> {
        let file = match &self.target {
            Target::Layout(layout) => Pending::Named(layout.create_temporary()?),
            Target::Archive(_) => Pending::Anonymous(anonymous_file(&self.tmp_dir)?),
        };
        Ok(BlobWriter { file, hasher: Hasher::new(Algorithm::Sha256), size: 0 })
    }

    /// Puts a blob that was written with [`Sink::blob_writer`] of this sink.
    pub fn put_written(&mut self, blob: BlobWriter, media_type: &str) -> Result<Descriptor, OciError> {
        let descriptor = Descriptor::new(media_type, blob.hasher.finish(), blob.size);
        if self.has_blob(&descriptor)? {
            return Ok(descriptor);
        }
        match (&mut self.target, blob.file) {
            (Target::Layout(layout), Pending::Named(file)) => layout.keep_blob(file, &descriptor.digest)?,
            (_, mut file) => {
                file.file().rewind().map_err(io_error("rewind a blob for", &self.path))?;
                self.put_blob(&descriptor, file.file())?;
            }
        }
        Ok(descriptor)
    }

    /// Adds an image whose config and layers were put.
    ///
    /// Returns [`OciError::BlobMissing`] if one was not, except for layers that must not be distributed;
    /// [`OciError::CompressedLayer`] for a compressed layer in a docker archive; and [`OciError::Reference`] for a
    /// tag that the format has no room for.
    pub fn add_image(&mut self, image: &SinkImage<'_>) -> Result<(), OciError> {
        let manifest = Manifest::parse(image.manifest, &image.manifest.digest.to_string())?;
        self.check_blobs(&manifest)?;
        let tags: Vec<&str> = match (image.tags, &self.tag) {
            ([], own) => own.as_deref().into_iter().collect(),
            (tags, _) => tags.iter().map(String::as_str).collect(),
        };
        let names = tags.iter().map(|tag| self.annotations_of(tag)).collect::<Result<Vec<_>, _>>()?;
        self.put_document(image.manifest)?;
        let mut entry = Descriptor::of(image.manifest).with_annotations(image.annotations);
        if let Some(platform) = &image.platform {
            entry = entry.with_platform(platform.clone());
        }
        if names.is_empty() {
            self.entries.push(entry.clone());
        }
        self.entries.extend(names.iter().map(|names| entry.clone().with_annotations(names)));
        if let Some(images) = &mut self.docker {
            let names: Vec<_> = names.iter().filter_map(|names| names.get(CONTAINERD_NAME)).collect();
            images.push(json!({
                "Config": blob_name(&manifest.config.digest),
                "RepoTags": names,
                "Layers": manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect::<Vec<_>>(),
            }));
        }
        Ok(())
    }

    /// Makes everything durable, and the images known under their tags. Other images of a layout stay.
    ///
    /// Returns [`OciError::Unfinished`] if a blob of an archive failed before, and [`OciError::ArchiveExists`] if another archive
    /// has come by its name meanwhile.
    pub fn finish(self) -> Result<(), OciError> {
        match self.target {
            Target::Layout(layout) => layout.finish(&self.entries),
            Target::Archive(archive) => archive.finish(&self.entries, self.docker.as_deref()),
        }
    }

    fn check_blobs(&self, manifest: &Manifest) -> Result<(), OciError> {
        let missing =
            |digest: &Digest| OciError::BlobMissing { path: self.path.clone(), digest: digest.to_string() };
        if !self.has_blob(&manifest.config)? {
            return Err(missing(&manifest.config.digest));
        }
        for layer in &manifest.layers {
            let digest = layer.digest.to_string();
            let kind = LayerType::parse(&layer.media_type, &digest)?;
            if self.needs_plain_layers() && kind.compression != Compression::None {
                return Err(OciError::CompressedLayer { digest, media_type: layer.media_type.clone() });
            }
            if !self.has_blob(layer)? && (!kind.nondistributable || self.needs_plain_layers()) {
                return Err(missing(&layer.digest));
            }
        }
        Ok(())
    }

    /// The annotations that carry a tag in the index.
    fn annotations_of(&self, tag: &str) -> Result<Annotations, OciError> {
        if self.docker.is_none() {
            Reference::new(Transport::Layout, &self.path, Some(tag))?;
            return Ok(Annotations::from([(REF_NAME.to_owned(), tag.to_owned())]));
        }
        let full = docker_name(tag).map_err(|reason| OciError::Reference { text: tag.to_owned(), reason })?;
        let short = full.rsplit(':').next().unwrap_or_default().to_owned();
        Ok(Annotations::from([(REF_NAME.to_owned(), short), (CONTAINERD_NAME.to_owned(), full)]))
    }
}

/// A blob that is being written; its digest is computed on the way. Dropping it removes what was written.
#[derive(Debug)]
pub struct BlobWriter {
    file: Pending,
    hasher: Hasher,
    size: u64,
}

#[derive(Debug)]
enum Pending {
    Named(TemporaryFile),
    Anonymous(File),
}

impl Pending {
    fn file(&mut self) -> &mut File {
        match self {
            Pending::Named(temporary) => &mut temporary.file,
            Pending::Anonymous(file) => file,
        }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.file().write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size = self.size.saturating_add(count as u64);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.file().flush()
    }
}
