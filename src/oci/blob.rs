//! Blobs: read with their size and digest checked on the way.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::{BlobError, OciError};
use crate::sys::file::File;
use crate::timing::{self, Stage};
use crate::types::{Digest, Hasher};

/// Part of a file: a blob in a layout is all of one, a member of an archive a part.
///
/// Reads are positioned, so that extents of one file can be read at the same time.
#[derive(Clone, Debug)]
pub struct Extent {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Extent {
    pub(super) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Extent { file, offset, length }
    }

    /// The file.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its length.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads it from the start.
    pub fn reader(&self) -> ExtentReader {
        ExtentReader { extent: self.clone(), position: 0 }
    }
}

/// Reads an [`Extent`] from its start to its end.
#[derive(Debug)]
pub struct ExtentReader {
    extent: Extent,
    position: u64,
}

impl Read for ExtentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.extent.length.saturating_sub(self.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        let at = self.extent.offset.saturating_add(self.position);
        let count = self.extent.file.read_at(buffer, at)?;
        self.position = self.position.saturating_add(count as u64);
        Ok(count)
    }
}

/// Counts and hashes what is read, and reports a wrong size or digest as soon as it is known: too many bytes
/// when the first of them comes, too few or other ones in place of the end of file.
///
/// The error is an [`io::Error`] with a [`BlobError`] inside; see [`OciError::from_io`].
#[derive(Debug)]
pub struct VerifyReader<R> {
    inner: R,
    digest: Digest,
    size: u64,
    count: u64,
    /// `None` once the digest was compared.
    hasher: Option<Hasher>,
    failed: Option<BlobError>,
}

impl<R: Read> VerifyReader<R> {
    /// Reads `inner`, which must be `size` bytes with this digest.
    pub fn new(inner: R, digest: Digest, size: u64) -> Self {
        let hasher = Some(Hasher::new(digest.algorithm()));
        VerifyReader { inner, digest, size, count: 0, hasher, failed: None }
    }

    /// Reads what is left, and says whether size and digest are right. A decompressor may stop before the end of
    /// its input, so this belongs after every reader on top of a blob.
    pub fn finish(mut self) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn fail(&mut self, error: BlobError) -> io::Error {
        self.failed = Some(error.clone());
        error.into()
    }

    fn size_error(&self) -> BlobError {
        BlobError::Size { digest: self.digest.to_string(), expected: self.size, found: self.count }
    }

    fn at_end(&mut self) -> io::Result<usize> {
        if self.count < self.size {
            let error = self.size_error();
            return Err(self.fail(error));
        }
        if let Some(hasher) = self.hasher.take() {
            let found = hasher.finish();
            if found != self.digest {
                let (expected, found) = (self.digest.to_string(), found.to_string());
                return Err(self.fail(BlobError::Digest { expected, found }));
            }
        }
        Ok(0)
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // A reader that failed once must not look like one that ended.
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        // One byte past the expected size is asked for, to see whether there is one.
        let left =
            usize::try_from(self.size.saturating_sub(self.count)).unwrap_or(usize::MAX).saturating_add(1);
        let wanted = buffer.len().min(left);
        let count = self.inner.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        if count == 0 {
            return self.at_end();
        }
        self.count = self.count.saturating_add(count as u64);
        if self.count > self.size {
            let error = self.size_error();
            return Err(self.fail(error));
        }
        if let Some(hasher) = &mut self.hasher {
            timing::during(Stage::Hash, || hasher.update(buffer.get(..count).unwrap_or_default()));
        }
        Ok(count)
    }
}

/// Reads a blob of a layout or an archive, checking it as [`VerifyReader`] does.
#[derive(Debug)]
pub struct BlobReader {
    reader: VerifyReader<ExtentReader>,
    extent: Extent,
}

impl BlobReader {
    /// Returns [`OciError::Blob`] at once if the extent has another size.
    pub(super) fn new(extent: Extent, digest: &Digest, size: u64) -> Result<Self, OciError> {
        if extent.length != size {
            let (digest, found) = (digest.to_string(), extent.length);
            return Err(BlobError::Size { digest, expected: size, found }.into());
        }
        let reader = VerifyReader::new(extent.reader(), digest.clone(), size);
        Ok(BlobReader { reader, extent })
    }

    /// Where the bytes are, for copies by reflink. Such a copy must be verified by who makes it.
    pub fn extent(&self) -> &Extent {
        &self.extent
    }

    /// Reads what is left, and says whether size and digest are right.
    ///
    /// Returns an [`io::Error`] with a [`BlobError`] inside if they are not.
    pub fn finish(self) -> io::Result<()> {
        self.reader.finish()
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest: &Digest, size: u64) -> Result<Vec<u8>, BlobError> {
        let mut reader = VerifyReader::new(bytes, digest.clone(), size);
        let mut out = Vec::new();
        match reader.read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => match OciError::from_io(&error) {
                Some(OciError::Blob(inner)) => {
                    assert!(reader.read(&mut [0; 8]).is_err(), "an error must not turn into an end");
                    Err(inner)
                }
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn size_and_digest_are_checked() {
        let digest = Digest::sha256(b"hello");
        assert_eq!(read(b"hello", &digest, 5).unwrap(), b"hello");
        assert!(matches!(read(b"hullo", &digest, 5), Err(BlobError::Digest { .. })));
        assert!(matches!(read(b"hell", &digest, 5), Err(BlobError::Size { found: 4, .. })));
        assert!(matches!(read(b"hello", &digest, 4), Err(BlobError::Size { found: 5, expected: 4, .. })));
        assert!(matches!(read(b"", &digest, 0), Err(BlobError::Digest { .. })));
    }

    #[test]
    fn an_endless_blob_stops_at_its_size() {
        let mut reader = VerifyReader::new(io::repeat(0), Digest::sha256(b""), 1000);
        let copied = io::copy(&mut reader, &mut io::sink());
        assert!(OciError::from_io(&copied.unwrap_err()).is_some());
        assert_eq!(reader.count, 1001);
    }

    #[test]
    fn finish_reads_what_a_decompressor_left() {
        let mut reader = VerifyReader::new(&b"hello"[..], Digest::sha256(b"hellO"), 5);
        reader.read_exact(&mut [0; 2]).unwrap();
        let error = reader.finish().unwrap_err();
        assert!(matches!(OciError::from_io(&error), Some(OciError::Blob(BlobError::Digest { .. }))));
    }

    #[test]
    fn the_error_survives_wrapping() {
        let inner: io::Error = BlobError::Digest { expected: "a".into(), found: "b".into() }.into();
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, inner));
        assert!(matches!(OciError::from_io(&wrapped), Some(OciError::Blob(_))));
        assert!(OciError::from_io(&io::Error::from_raw_os_error(5)).is_none());

        let corrupt = VerifyReader::new(&b"\x1f\x8b\x08"[..], Digest::sha256(b""), 2);
        let error = io::copy(&mut flate2::read::MultiGzDecoder::new(corrupt), &mut io::sink()).unwrap_err();
        assert!(OciError::from_io(&error).is_some(), "{error:?}");
    }
}
