//! Layers that cannot be brought in or out.

use std::io;
use std::path::PathBuf;

use super::{
    ArchiveError, ChunkedError, CompressError, LayoutError, LimitError, MetaError, ScanError, SplitError,
    TreeError, UnpackError, ValueError,
};

/// A layer cannot be imported. Nothing of it is in the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The archive is damaged, or says something that is refused.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A member cannot be written.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// A member's path cannot be in a layer.
    #[error(transparent)]
    Path(#[from] ValueError),
    /// A marker for a deleted name has content, which no file could keep.
    #[error("the marker {member:?} has content; a marker is an empty file")]
    MarkerWithContent {
        /// The member.
        member: String,
    },
    /// A member belongs to somebody who is nobody on the host.
    #[error("{member:?} belongs to {uid}:{gid}, which the id maps do not have; give maps with these ids")]
    Unmapped {
        /// The member.
        member: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The tar-split cannot be made.
    #[error("cannot keep what the archive's bytes were")]
    Split(#[from] SplitError),
    /// The directory cannot be read back.
    #[error("cannot read the unpacked layer back")]
    Scan(#[from] ScanError),
    /// The directory cannot be measured.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A directory of the store cannot be made or read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The records of the layers below cannot be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The uncompressed layer is not the one that the image's config, or the caller, names.
    #[error("the layer {blob} has the diffID {found}, and {expected} was expected: fetch it again")]
    DiffId {
        /// The blob that carried the layer.
        blob: String,
        /// What the image's config, or the caller, says.
        expected: String,
        /// What the content has.
        found: String,
    },
    /// The blob is not the one that the manifest names.
    #[error("the blob {expected} has the digest {found}; fetch the image again")]
    BlobDigest {
        /// What the manifest says.
        expected: String,
        /// What the content has.
        found: String,
    },
    /// The blob's table of contents is malformed, or says something else than its archive.
    #[error(transparent)]
    Chunked(#[from] ChunkedError),
    /// Reading the blob or writing the layer failed.
    #[error("cannot read or write the layer's data")]
    Io(#[source] io::Error),
    /// The disk is too full for the image, even if nothing of it grew when it is unpacked.
    #[error(
        "the image needs at least {} MB and {} MB are free{}",
        needed.div_ceil(1_000_000), free / 1_000_000, held_back(*reserved)
    )]
    NoSpace {
        /// The bytes of its layers: of their tars where they are known, else of their blobs.
        needed: u64,
        /// The bytes that are free.
        free: u64,
        /// The bytes that the store holds back beside them, so that removing works on a full disk: see
        /// [`StoreOptions::reserve`](crate::StoreOptions::reserve).
        reserved: u64,
    },
    /// The filesystem has too few inodes for the image, even if each layer were an empty directory.
    #[error("the image needs at least {needed} inodes and {free} are free")]
    NoInodes {
        /// Its layers and blobs.
        needed: u64,
        /// The inodes that are free.
        free: u64,
    },
    /// One of the layers of an image failed.
    #[error("cannot import the layer {layer}")]
    InLayer {
        /// Its blob or diffID.
        layer: String,
        /// The cause.
        #[source]
        source: Box<ImportError>,
    },
    /// A layer that has the id of one to be loaded is another one: it was made with this id, or written to since it was
    /// loaded.
    #[error(
        "the layer {layer} is not what the image has by this id, or has been changed; remove it and what stands on it \
         first"
    )]
    OtherContent {
        /// The layer.
        layer: String,
    },
    /// A layer that was there when the import began was removed meanwhile.
    #[error("the layer {layer} was removed while the image was loaded; load it again")]
    Vanished {
        /// The layer.
        layer: String,
    },
    /// Another layer of the image failed first.
    #[error("given up because another layer failed")]
    GivenUp,
}

impl From<io::Error> for ImportError {
    /// A limit that was met in a reader is told as what it is.
    fn from(error: io::Error) -> Self {
        match LimitError::inside(&error) {
            Some(limit) => ArchiveError::Limit(limit.clone()).into(),
            None => ImportError::Io(error),
        }
    }
}

impl ImportError {
    /// The limit that was met, if that is what went wrong.
    pub(super) fn limit(&self) -> Option<&LimitError> {
        match self {
            ImportError::InLayer { source, .. } => source.limit(),
            ImportError::Archive(error) => error.limit(),
            ImportError::Unpack(UnpackError::Limit(limit)) => Some(limit),
            ImportError::Chunked(ChunkedError::Limit(limit)) => Some(limit),
            _ => None,
        }
    }

    /// Whether it is about what is in the layer's directory.
    pub(super) fn is_of_directory(&self) -> bool {
        match self {
            ImportError::InLayer { source, .. } => source.is_of_directory(),
            ImportError::Scan(_) | ImportError::Tree(_) | ImportError::Unpack(UnpackError::Io { .. }) => true,
            _ => false,
        }
    }

    /// Whether something belongs to an owner that there is not in this user namespace.
    pub(super) fn is_of_owner(&self) -> bool {
        match self {
            ImportError::InLayer { source, .. } => source.is_of_owner(),
            ImportError::Unpack(error) => matches!(error, UnpackError::OwnerNotMapped { .. }),
            _ => false,
        }
    }

    /// Whether a blob could be read, and what it holds could not be decompressed.
    pub(super) fn is_damaged_stream(&self) -> bool {
        match self {
            ImportError::InLayer { source, .. } => source.is_damaged_stream(),
            // What the system says has a number; what a decompressor says has none.
            ImportError::Io(error) => error.raw_os_error().is_none(),
            _ => false,
        }
    }
}

fn held_back(reserved: u64) -> String {
    match reserved / 1_000_000 {
        0 => String::new(),
        megabytes => format!(
            "; the store's file `reserve` holds {megabytes} MB back, with which removing works on a full disk"
        ),
    }
}

fn damaged_file(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!(": /{} is damaged", path.display()))
}

/// A layer cannot be written out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The tar-split and the files do not fit together.
    #[error("the layer {layer} does not give its original bytes{}", damaged_file(path))]
    Damaged {
        /// The layer.
        layer: String,
        /// The file in the layer that is missing or has changed, if it is a file.
        path: Option<PathBuf>,
        /// What does not fit.
        #[source]
        source: SplitError,
    },
    /// The copy of a layer's blob, kept as it came, is not that blob any more.
    #[error("the blob {digest} that the store keeps in {} is damaged: {reason}", path.display())]
    KeptBlob {
        /// Its digest.
        digest: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file has a name that means in an archive that another is deleted.
    #[error(
        "/{} cannot be written out: in a layer's archive, a name that begins with .wh. deletes another; rename or remove it",
        path.display()
    )]
    MarkerName {
        /// The file in the layer.
        path: PathBuf,
    },
    /// A file became shorter or longer while it was written out.
    #[error("/{} was {size} bytes long and is not any more: somebody writes to it", path.display())]
    Changed {
        /// The file in the layer.
        path: PathBuf,
        /// How long it was.
        size: u64,
    },
    /// A file of a container with id maps belongs to an id that is none of the container's.
    #[error(
        "/{} belongs to {uid}:{gid} on the host, which is nobody in the container; give it to one of the container's ids",
        path.display()
    )]
    Unmapped {
        /// The file in the layer.
        path: PathBuf,
        /// Its owner on the host.
        uid: u32,
        /// Its group on the host.
        gid: u32,
    },
    /// The archive cannot be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A path in the layer's directory cannot stand in an archive.
    #[error(transparent)]
    Path(#[from] ValueError),
    /// The compression cannot be done.
    #[error(transparent)]
    Compress(#[from] CompressError),
    /// The archive cannot be written with a table of contents.
    #[error(transparent)]
    Chunked(#[from] ChunkedError),
    /// The layer's directory cannot be read.
    #[error("cannot read the layer's directory")]
    Scan(#[from] ScanError),
    /// The layer's directory cannot be measured or copied.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A directory of the store cannot be opened.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The layer's records cannot be read.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// Reading the layer or writing the stream failed.
    #[error("cannot write the layer out")]
    Io(#[from] io::Error),
}
