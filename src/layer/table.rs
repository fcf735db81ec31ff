//! The table of contents that a blob brings along, compared with the archive in it: what is on record of a layer must be true
//! of its files, whoever wrote the table.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use crate::chunked::{BlobSpan, ChunkedBlob, Listing, Toc};
use crate::compress::Compression;
use crate::error::{ChunkedError, LimitError};
use crate::types::{Digest, Limits};

/// A table of contents that is no longer than is granted.
#[derive(Clone, Debug)]
pub(crate) struct Table(Place);

#[derive(Clone, Debug)]
enum Place {
    /// It should be in the blob.
    InBlob(ChunkedBlob),
    /// It was read before, and has this digest.
    Known(Digest, Arc<Toc>),
}

impl Table {
    /// The one that should be in a blob.
    ///
    /// Returns [`LimitError`] if it is said to be longer than is granted: it is not read then.
    pub(crate) fn in_blob(blob: ChunkedBlob, limits: &Limits) -> Result<Self, LimitError> {
        blob.check(limits)?;
        Ok(Table(Place::InBlob(blob)))
    }

    /// One that was read before, and has this digest.
    pub(crate) fn known(digest: Digest, toc: Arc<Toc>) -> Self {
        Table(Place::Known(digest, toc))
    }

    /// A listing that takes what an archive can have that agrees with it.
    pub(super) fn listing(&self, limits: &Limits) -> Listing {
        match &self.0 {
            Place::InBlob(blob) => Listing::for_length(blob.toc.unpacked, limits),
            Place::Known(_, toc) => Listing::for_table(toc),
        }
    }

    pub(super) fn span(&self) -> Option<BlobSpan> {
        match &self.0 {
            Place::InBlob(blob) => Some(blob.toc),
            Place::Known(..) => None,
        }
    }

    /// Compares an archive with it, in a blob that has these bytes where the table should be. Returns its digest.
    pub(super) fn compare(
        &self,
        bytes: &[u8],
        listing: &Listing,
        compression: Compression,
        limits: &Limits,
    ) -> Result<&Digest, ChunkedError> {
        match &self.0 {
            Place::InBlob(_) if compression != Compression::Zstd => {
                Err(ChunkedError::Absent("it is not compressed with zstd"))
            }
            Place::InBlob(blob) => {
                listing.agrees_with(&Toc::read(blob, bytes, limits)?)?;
                Ok(&blob.toc_digest)
            }
            Place::Known(digest, toc) => {
                listing.agrees_with(toc)?;
                Ok(digest)
            }
        }
    }
}

/// What was found of the table of contents that a blob should have.
#[derive(Debug)]
pub(crate) enum TocFound {
    /// None was looked for.
    None,
    /// There is none with the digest that was given, which says nothing of the archive.
    Absent(ChunkedError),
    /// It has this digest, and agrees with the archive in everything.
    Agrees(Digest),
}

/// Keeps a part of what is read through it.
pub(super) struct Window<'w, R> {
    inner: R,
    span: Range<u64>,
    position: u64,
    kept: &'w mut Vec<u8>,
}

impl<'w, R> Window<'w, R> {
    pub(super) fn new(inner: R, span: Option<BlobSpan>, kept: &'w mut Vec<u8>) -> Self {
        Window { inner, span: span.map_or(0..0, |span| span.offset..span.end()), position: 0, kept }
    }
}

impl<R: Read> Read for Window<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        let end = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        let (from, to) = (self.span.start.max(self.position), self.span.end.min(end));
        if from < to {
            let at =
                |offset: u64| usize::try_from(offset.saturating_sub(self.position)).unwrap_or(usize::MAX);
            let part = out.get(at(from)..at(to)).unwrap_or_default();
            self.kept.extend_from_slice(part);
        }
        self.position = end;
        Ok(count)
    }
}
