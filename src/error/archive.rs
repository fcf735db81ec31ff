//! Archives and compressed streams that cannot be read or written.

use std::io;

use super::LimitError;

/// A compressed stream that cannot be written as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompressError {
    /// The level is outside of what the format has.
    #[error("{level} is no {compression} level: choose one from {lowest} to {highest}")]
    Level {
        /// The format.
        compression: &'static str,
        /// The level asked for.
        level: i32,
        /// The fastest level.
        lowest: i32,
        /// The densest level.
        highest: i32,
    },
    /// The format has no levels.
    #[error("a stream without compression has no level: leave the level out or choose gzip or zstd")]
    NoLevels,
    /// The format is only ever read.
    #[error("{compression} is read but not written: choose gzip, zstd or none")]
    ReadOnly {
        /// The format.
        compression: &'static str,
    },
    /// The stream could not be started.
    #[error("cannot start a compressed stream")]
    Start(#[source] io::Error),
}

/// A tar archive that cannot be read or written. `member` is the path of the member as it stands in the
/// archive, made printable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Reading the archive's bytes failed.
    #[error("cannot read the archive")]
    Read(#[source] io::Error),
    /// Keeping the bytes around the contents failed.
    #[error("cannot keep the structure of the archive")]
    Keep(#[source] io::Error),
    /// Writing the archive's bytes failed.
    #[error("cannot write the archive")]
    Write(#[source] io::Error),
    /// Reading a file that goes into the archive failed.
    #[error("cannot read the content of {member:?} for the archive")]
    Content {
        /// The member.
        member: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that goes into the archive has not the size that was announced.
    #[error("{member:?} is not {size} bytes long any more: it changed while it was being archived")]
    ContentSize {
        /// The member.
        member: String,
        /// The size announced.
        size: u64,
    },
    /// The first block is no tar header.
    #[error("not a tar archive: its first 512 bytes are no tar header")]
    NotTar,
    /// The stream has no bytes at all, compressed or not. An archive without members has end blocks.
    #[error(
        "the archive is empty: it has no bytes, and even a tar without members has some; did what wrote it fail?"
    )]
    Empty,
    /// The stream is shorter than a tar header.
    #[error("not a tar archive: it has {length} bytes, and a tar header alone has 512")]
    Short {
        /// How many bytes there are.
        length: usize,
    },
    /// The bytes end too early.
    #[error("the archive is cut off {place}: fetch it again")]
    Truncated {
        /// Where it ends.
        place: String,
    },
    /// A header whose checksum is wrong.
    #[error(
        "the block at byte {offset} of the archive, after {previous:?}, is no tar header: its checksum is wrong"
    )]
    Checksum {
        /// Where the header begins.
        offset: u64,
        /// The member before it.
        previous: String,
    },
    /// A block of zeros between members. Readers disagree on whether the archive ends there.
    #[error("the archive goes on after a single end block at byte {offset}, after {previous:?}")]
    LoneEndBlock {
        /// Where the zeros begin.
        offset: u64,
        /// The member before it.
        previous: String,
    },
    /// A number that is malformed or out of range.
    #[error("{member:?} has a bad {field}: {reason}")]
    Number {
        /// The member.
        member: String,
        /// Which number.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A type of member that has no place in a layer.
    #[error("{member:?} is of type {typeflag:?}, which is not supported in a layer")]
    Type {
        /// The member.
        member: String,
        /// The type byte, made printable.
        typeflag: String,
    },
    /// A member that can have no content has some. Readers disagree on whether to skip it.
    #[error("{member:?} is no regular file but claims {size} bytes of content")]
    Body {
        /// The member.
        member: String,
        /// The claimed size.
        size: u64,
    },
    /// A path or link target that no filesystem can hold.
    #[error("{member:?} has a bad {field}: {reason}")]
    Name {
        /// The member.
        member: String,
        /// The path or the link target.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An extension header (PAX, GNU long name) that is malformed, or that readers disagree on.
    #[error("the extension header {member:?} is refused: {reason}")]
    Extension {
        /// The name of the extension header, or of the member it belongs to.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The map of a sparse file is malformed.
    #[error("{member:?} has a bad sparse map: {reason}")]
    Sparse {
        /// The member.
        member: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The archive asks for more than is granted.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A whiteout that names nothing that can be deleted.
    #[error("the whiteout {path:?} is refused: {reason}")]
    Whiteout {
        /// The path of the whiteout.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Metadata that a tar archive cannot say.
    #[error("{member:?} cannot be put in a tar archive: {reason}")]
    Unrepresentable {
        /// The member.
        member: String,
        /// What cannot be said.
        reason: &'static str,
    },
}

impl From<ArchiveError> for io::Error {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::Read(source) | ArchiveError::Keep(source) | ArchiveError::Write(source) => {
                source.kind()
            }
            ArchiveError::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}

impl ArchiveError {
    /// Takes back what passed through [`Read`](std::io::Read) as an [`io::Error`]; any other error is one of
    /// reading the archive.
    pub(crate) fn from_read(error: io::Error) -> Self {
        match error.downcast::<ArchiveError>() {
            Ok(error) => error,
            Err(error) => match LimitError::inside(&error) {
                Some(limit) => ArchiveError::Limit(limit.clone()),
                None => ArchiveError::Read(error),
            },
        }
    }

    /// The limit that was met, if that is what went wrong.
    pub(super) fn limit(&self) -> Option<&LimitError> {
        match self {
            ArchiveError::Limit(limit) => Some(limit),
            ArchiveError::Read(error) => LimitError::inside(error),
            _ => None,
        }
    }
}

/// A tar-split that cannot be made, or cannot be joined with its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Reading the tar-split's bytes failed.
    #[error("cannot read the tar-split")]
    Read(#[source] io::Error),
    /// Writing failed: the tar-split when making it, the archive when joining.
    #[error("cannot write {what}")]
    Write {
        /// What was being written.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The bytes are not those of a tar-split.
    #[error("the tar-split is damaged: {0}")]
    Damaged(&'static str),
    /// A newer program wrote it.
    #[error("the tar-split has version {found}, this program knows {known}: use a newer one")]
    Version {
        /// Its version.
        found: u32,
        /// The newest version this program reads.
        known: u32,
    },
    /// A file's content could not be opened or read.
    #[error("cannot read the file with content {content}")]
    Content {
        /// The content hash.
        content: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A replaced file's content could not be opened or read.
    #[error("cannot read the replaced content number {ordinal}")]
    Replaced {
        /// The content's number in the archive.
        ordinal: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file's content is not what was imported.
    #[error("the file with content {content} has changed since it came in")]
    Mismatch {
        /// The content hash that was expected.
        content: String,
    },
}
