//! Layers whose files can be fetched one by one: zstd:chunked.
//!
//! A blob in this form is a sequence of zstd frames that any decoder reads as the layer's tar. It has three more
//! frames at its end, of the kind that decoders skip: a *table of contents*, which lists every member of the archive with
//! its metadata, digest and place in the blob; a *tar-split*, which is everything of the archive but the contents of
//! files; and a *footer*, which says where the two are. So does the blob's descriptor in the image's manifest, in
//! annotations, with the digest of the table. Who has that needs only those parts of the blob that he does not have.
//!
//! ```text
//! [headers][chunk][chunk][headers][chunk] .. [headers, end] [skipped: table] [skipped: tar-split] [skipped: footer]
//! ```
//!
//! | part | what it does |
//! | --- | --- |
//! | [`place`] | annotations and footer: where the table is |
//! | [`toc`] | the table: read, every number of it checked |
//! | [`xattrs`] | the xattrs of one entry, no more than are granted |
//! | [`compare`] | the table against the archive |
//! | [`tar_split`] | tar-splits in the form that others have for them |
//! | [`rollsum`] | where files are cut into chunks |
//! | [`write`](mod@write) | an archive into a blob of this form |
//! | [`assemble`] | the archive of a blob of which only parts are fetched |
//! | [`fetched`] | what is fetched of a blob, chunk by chunk |
//! | [`pipe`](mod@pipe) | what one function writes is what another reads |
//!
//! The form is that of the project containers/storage, whose comments are its only description: `pkg/chunked/internal/minimal`
//! (places, table), `pkg/chunked/compressor` (frames and chunks). That of the tar-split is vbatts/tar-split's. The table's own
//! form comes from CRFS and eStargz. What those programs write today is read and written; also read is what
//! early versions wrote (skopeo 1.9 does), which had no tar-split and other names for the annotations.
//!
//! Everything here is attacker input: no number is believed before it is compared with what is there.

mod assemble;
mod compare;
mod fetched;
mod pipe;
mod place;
mod rollsum;
mod tar_split;
mod toc;
mod write;
mod xattrs;

pub use assemble::RangeSource;
pub(crate) use assemble::{Plan, fetch_table, read_ranges};
pub(crate) use compare::Listing;
pub(crate) use pipe::pipe;
pub(crate) use place::is_of_blob;
pub use place::{BlobSpan, ChunkedBlob};
pub(crate) use toc::Toc;
pub(crate) use write::encode;

use std::io::{self, Read};

use crate::compress::{is_zstd_window, zstd_window_log};
use crate::error::{ChunkedError, Limit, LimitError};
use crate::types::{Digest, Limits};

/// The most bytes of a table of contents, or of a tar-split, that are written: what containers/storage reads.
const WRITTEN_TABLE_MAX: u64 = Limits::DEFAULT.toc_bytes;

/// The most entries of a table of contents that are written, chunks included.
const WRITTEN_ENTRIES_MAX: u64 = Limits::DEFAULT.toc_entries;

/// Decompresses `bytes`, which must have this digest, to exactly `unpacked` bytes.
fn unpack(
    what: &'static str,
    bytes: &[u8],
    digest: &Digest,
    unpacked: u64,
    limits: &Limits,
) -> Result<Vec<u8>, ChunkedError> {
    let found = Digest::of(digest.algorithm(), bytes);
    if found != *digest {
        let (expected, found) = (digest.to_string(), found.to_string());
        return Err(ChunkedError::Digest { what, expected, found });
    }
    let failed = |source| cannot_decompress(what, source, limits);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes).map_err(failed)?;
    decoder.window_log_max(zstd_window_log(limits)).map_err(failed)?;
    let mut out = Vec::new();
    decoder.take(unpacked.saturating_add(1)).read_to_end(&mut out).map_err(failed)?;
    if out.len() as u64 != unpacked {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is not as long as it should be")));
    }
    Ok(out)
}

/// Why bytes of a blob cannot be decompressed: a window that is not granted is told as that.
fn cannot_decompress(what: &'static str, source: io::Error, limits: &Limits) -> ChunkedError {
    if is_zstd_window(&source) {
        return LimitError::new(what, Limit::WindowBytes, limits.window_bytes, None).into();
    }
    ChunkedError::Decompress { what, source }
}

#[cfg(test)]
mod tests;
