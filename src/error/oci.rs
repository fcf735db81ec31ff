//! Errors of image layouts, archives, and the documents in them.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::{ArchiveError, LimitError, ValueError, shown};

/// What can go wrong when an image is read from, or written to, a layout or an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OciError {
    /// Text that is no reference to a layout or an archive.
    #[error(
        "{text:?} names no image: {reason}; write oci:DIR[:TAG], oci-archive:FILE[:TAG] or \
         docker-archive:FILE[:REPO:TAG] (the first colon after DIR or FILE ends it)"
    )]
    Reference {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Text that is no platform.
    #[error("{0:?} is no platform: write os/architecture or os/architecture/variant, such as linux/arm/v7")]
    Platform(String),
    /// A call of the operating system failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file it was tried on.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A path in a layout is a link, a device or something else that is not what the layout needs there.
    #[error("{} is not {expected} (links in an image layout are not followed)", path.display())]
    FileKind {
        /// The path.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// A directory or archive without the file that marks the format.
    #[error("{} is no {format}: it has no {missing}", path.display())]
    Format {
        /// The directory or archive.
        path: PathBuf,
        /// The format that was asked for.
        format: &'static str,
        /// The member that is not there.
        missing: &'static str,
    },
    /// A directory with other things in it, which an image layout must not be mixed with.
    #[error("{} is not empty and no image layout; give an empty or new directory", .0.display())]
    NotEmpty(PathBuf),
    /// An archive that is there, and is not to be replaced. [`SaveOptions::replace`](crate::oci::SaveOptions::replace) and
    /// [`Sink::create_or_replace`](crate::oci::Sink::create_or_replace) replace it.
    #[error("{} exists; choose another path, or have it replaced", .0.display())]
    ArchiveExists(PathBuf),
    /// A version of the image layout that this program does not know.
    #[error("{} has the image layout version {version:?}; this program reads 1.x", path.display())]
    LayoutVersion {
        /// The layout.
        path: PathBuf,
        /// The version it states.
        version: String,
    },
    /// The image, or what it comes in, asks for more than is granted.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A document that is no JSON, or not of the right shape.
    #[error("{what} is malformed")]
    Malformed {
        /// The document.
        what: String,
        /// The place and the cause.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A document with more JSON values than are read: in memory they take many times what they take in it.
    #[error(
        "{what} has more than {most} JSON values, which is what a document of its length may have, and no limit grants more; \
         make the image anew with a smaller document"
    )]
    Values {
        /// The document.
        what: String,
        /// How many it may have.
        most: usize,
    },
    /// An image whose files are not given as layers.
    #[error("{what} has a root filesystem of the type {found}; images of the type \"layers\" can be loaded")]
    RootFsType {
        /// The config.
        what: String,
        /// The type.
        found: String,
    },
    /// A document that two readers could take for different things.
    #[error("{what} is ambiguous: {reason}")]
    Ambiguous {
        /// The document.
        what: String,
        /// The contradiction.
        reason: String,
    },
    /// A document whose schema version is not 2.
    #[error(
        "{what} has schema version {found}; only 2 is supported (push or copy it again with a current tool)"
    )]
    SchemaVersion {
        /// The document.
        what: String,
        /// The version, as text; "none" if missing.
        found: String,
    },
    /// A document that says it is something else than its descriptor does.
    #[error("{what} calls itself {found:?}, but its descriptor says {expected:?}")]
    MediaType {
        /// The document.
        what: String,
        /// The media type of the descriptor.
        expected: String,
        /// The media type in the document.
        found: String,
    },
    /// A descriptor whose size is missing, negative, or no whole number.
    #[error("{what} has a descriptor of {digest} with the size {size}; expected a whole number of bytes")]
    DescriptorSize {
        /// The document with the descriptor.
        what: String,
        /// The digest in the descriptor.
        digest: String,
        /// The size, as text; "missing" if there is none.
        size: String,
    },
    /// A digest in a document that is none.
    #[error("{what} has a wrong value")]
    Value {
        /// The document.
        what: String,
        /// The value and its rule.
        #[source]
        source: ValueError,
    },
    /// A manifest that has not one layer for each diffID of its config.
    #[error("{manifest} has {layers} layers, but its config {config} has {diff_ids} diffIDs")]
    LayerCount {
        /// The manifest.
        manifest: String,
        /// The digest of the config.
        config: String,
        /// How many layers the manifest has.
        layers: usize,
        /// How many diffIDs the config has.
        diff_ids: usize,
    },
    /// A layer that was never a tar, or is no more what it was, below what is to be committed.
    #[error(
        "the layer {layer} has no diffID, as it did not come from a tar or was written to; no image can name it"
    )]
    NoDiffId {
        /// The layer.
        layer: String,
    },
    /// A manifest that describes something else than an image, such as a signature or a chart.
    #[error("{digest} is no container image but an artifact of type {artifact_type:?}")]
    NotAnImage {
        /// The digest of the manifest.
        digest: String,
        /// The type of the artifact.
        artifact_type: String,
    },
    /// A descriptor in an index that leads to neither a manifest nor an index.
    #[error("{digest} has the media type {media_type:?}, which is neither an image manifest nor an index")]
    UnknownManifestType {
        /// The digest.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// A layer in a format that this program does not read.
    #[error("the layer {digest} has the media type {media_type:?}, which is not supported")]
    UnknownLayerType {
        /// The digest of the layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// A layer that is encrypted.
    #[error("the layer {digest} is encrypted ({media_type}); decrypt the image before it is loaded")]
    Encrypted {
        /// The digest of the layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
    /// A blob that the layout or archive does not hold.
    #[error("{} does not hold the blob {digest}", path.display())]
    BlobMissing {
        /// The layout or archive.
        path: PathBuf,
        /// The digest of the blob.
        digest: String,
    },
    /// A blob that is not what its descriptor says.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A tag that the layout or archive does not have.
    #[error("{} has no image {tag:?}; it has {available}", path.display())]
    TagMissing {
        /// The layout or archive.
        path: PathBuf,
        /// The tag that was asked for.
        tag: String,
        /// The tags there are.
        available: Choices,
    },
    /// No tag was given, and there are several images.
    #[error("{} has several images, name one of them: {available}", path.display())]
    TagNeeded {
        /// The layout or archive.
        path: PathBuf,
        /// The tags there are.
        available: Choices,
    },
    /// A layout or archive without any image.
    #[error("{} holds no image", .0.display())]
    NoImage(PathBuf),
    /// No image for the platform.
    #[error("no image for the platform {wanted}; there are {available}")]
    PlatformMissing {
        /// The platform that was asked for.
        wanted: String,
        /// The platforms there are.
        available: Choices,
    },
    /// An index that contains itself.
    #[error("the index {0} refers to itself")]
    IndexLoop(String),
    /// A tar archive that cannot be read.
    #[error("{} is no usable tar archive", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it, and where.
        #[source]
        source: ArchiveError,
    },
    /// A member of an archive that cannot be used.
    #[error("the member {member:?} of {} cannot be used: {reason}", path.display())]
    Member {
        /// The archive.
        path: PathBuf,
        /// The name of the member.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A member that the archive's own list names, but that is not there.
    #[error("{} does not hold the member {member:?} that its manifest.json names", path.display())]
    MemberMissing {
        /// The archive.
        path: PathBuf,
        /// The name of the member.
        member: String,
    },
    /// An archive in which a member was cut off by an earlier error.
    #[error("{} cannot be finished, since an earlier error cut off one of its members; write it again", .0.display())]
    Unfinished(PathBuf),
    /// A layer whose compression does not go into the format being written.
    #[error("the layer {digest} is compressed ({media_type}); a docker archive takes uncompressed layers")]
    CompressedLayer {
        /// The digest of the layer.
        digest: String,
        /// Its media type.
        media_type: String,
    },
}

impl OciError {
    /// Finds the error of a blob, or a limit, in an error of a reader above it, such as a decompressor.
    ///
    /// A blob reader can only report an [`io::Error`]; the typed error is inside, however often the readers
    /// between have wrapped it.
    pub fn from_io(error: &io::Error) -> Option<OciError> {
        let mut next: Option<&(dyn StdError + 'static)> = error.get_ref().map(|inner| inner as _);
        while let Some(current) = next {
            if let Some(found) = current.downcast_ref::<BlobError>() {
                return Some(OciError::Blob(found.clone()));
            }
            if let Some(found) = current.downcast_ref::<LimitError>() {
                return Some(OciError::Limit(found.clone()));
            }
            next = match current.downcast_ref::<io::Error>() {
                // The `source` of an `io::Error` skips the error inside, so this looks at that first.
                Some(wrapped) => wrapped.get_ref().map(|inner| inner as _),
                None => current.source(),
            };
        }
        None
    }
}

/// A blob that is not what its descriptor says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The size is another.
    #[error("the blob {digest} has {found} bytes, but its descriptor says {expected}")]
    Size {
        /// The digest of the blob.
        digest: String,
        /// The size in the descriptor.
        expected: u64,
        /// The size found; reading stops one byte past the expected size.
        found: u64,
    },
    /// The digest is another.
    #[error("the blob {expected} is corrupt: its content has the digest {found}")]
    Digest {
        /// The digest in the descriptor.
        expected: String,
        /// The digest of the content.
        found: String,
    },
}

impl From<BlobError> for io::Error {
    fn from(error: BlobError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// What there is to choose from, in a message: the first few, and how many more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices(pub Vec<String>);

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        if self.0.is_empty() {
            return write!(f, "none");
        }
        for (index, choice) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", shown(choice))?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
