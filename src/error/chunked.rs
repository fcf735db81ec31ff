//! Blobs whose files can be fetched one by one.

use std::io;

use super::LimitError;

/// A blob in the form `zstd:chunked` cannot be read in parts, or an archive not be written in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkedError {
    /// What an annotation or the footer says of the places in the blob is malformed.
    #[error("the place of the table of contents is no place in a blob: {what} is {found:?}")]
    Place {
        /// Which annotation, or which number of the footer.
        what: &'static str,
        /// What it says, or its beginning.
        found: String,
    },
    /// Something is larger than is granted.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Something of an archive that is to be written is larger than readers of the form take.
    #[error("{what}: {found} is more than the {limit} that readers of zstd:chunked take; use zstd")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How much it is.
        found: u64,
        /// How much there may be.
        limit: u64,
    },
    /// Where the table of contents, or the tar-split, should be is something else.
    #[error("{what} of the blob has the digest {found}, and not {expected}; fetch the image again")]
    Digest {
        /// What should be there.
        what: &'static str,
        /// The digest that was expected.
        expected: String,
        /// The digest of what is there.
        found: String,
    },
    /// The blob ends before, or is in another form.
    #[error("the blob has no table of contents: {0}")]
    Absent(&'static str),
    /// The bytes of the table of contents, or of the tar-split, cannot be decompressed.
    #[error("cannot decompress {what} of the blob")]
    Decompress {
        /// What was decompressed.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The table of contents is not in its form.
    #[error("the table of contents is malformed")]
    Json(#[source] serde_json::Error),
    /// A newer program wrote it.
    #[error("the table of contents has version {found}, this program knows 1")]
    Version {
        /// Its version.
        found: u64,
    },
    /// An entry of the table of contents is refused.
    #[error("the table of contents has a bad entry {entry:?}: {reason}")]
    Entry {
        /// The entry's name, or its beginning.
        entry: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The table of contents and the archive say different things of a file.
    #[error(
        "the table of contents and the archive disagree on {entry:?}: {what}; take the layer from elsewhere"
    )]
    Disagrees {
        /// The entry's name, or its beginning.
        entry: String,
        /// What they disagree on.
        what: &'static str,
    },
    /// The tar-split of the blob is not in its form.
    #[error("the tar-split of the blob is malformed: {0}")]
    Split(&'static str),
    /// The blob has no tar-split, or none that its table of contents vouches for: what its archive was is known only to
    /// who reads all of it.
    #[error("the blob has no tar-split, so it cannot be fetched in parts; fetch all of it")]
    NoSplit,
    /// An archive has a member that the form has no place for.
    #[error("{member:?} cannot be written as zstd:chunked: {reason}; use zstd")]
    Unrepresentable {
        /// The member.
        member: String,
        /// What has no place.
        reason: &'static str,
    },
    /// The bytes of a chunk are not those that the table of contents names.
    #[error("a part of {entry:?} is not what the table of contents says: {reason}; fetch it again")]
    Chunk {
        /// The file.
        entry: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The source of a blob's ranges failed, or gave less than was asked for.
    #[error("cannot fetch the bytes {start} to {end} of the blob")]
    Source {
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl ChunkedError {
    /// Whether there is no table of contents with the digest that was looked for, which says nothing of the archive.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, ChunkedError::Absent(_) | ChunkedError::Digest { .. })
    }
}
