//! Writing one regular file, hashing what is written.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Shared, failed, member};
use crate::error::{Limit, LimitError, UnpackError};
use crate::sys::file::File;
use crate::sys::{extent, stat};
use crate::types::{ContentHash, Metadata, RelPath};

/// The size of the pieces in which files are copied.
const PIECE: usize = 128 * 1024;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Fills one regular file of a layer, on whatever thread. Needs nothing of the tree but the open file, so a
/// later entry may replace or remove the file meanwhile.
#[derive(Debug)]
pub(crate) struct FileWriter {
    file: File,
    path: RelPath,
    metadata: Metadata,
    real_size: u64,
    position: u64,
    /// Whether the last thing was a hole, so that the length must still be set.
    ends_in_hole: bool,
    hasher: blake3::Hasher,
    shared: Arc<Shared>,
}

/// A file as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WrittenFile {
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its length.
    pub(crate) size: u64,
    /// The hash of its bytes.
    pub(crate) content: ContentHash,
}

impl FileWriter {
    pub(super) fn new(
        file: OwnedFd,
        path: RelPath,
        metadata: Metadata,
        real_size: u64,
        shared: Arc<Shared>,
    ) -> Self {
        let (file, hasher) = (file.into(), blake3::Hasher::new());
        FileWriter { file, path, metadata, real_size, position: 0, ends_in_hole: false, hasher, shared }
    }

    /// Writes `bytes` at the end. One system call: large pieces are faster.
    ///
    /// Returns [`UnpackError::SizeMismatch`] if the file gets longer than was announced.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.end_after(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        self.file.write_all_at(bytes, self.position).map_err(failed(&self.path, "write"))?;
        self.hasher.update(bytes);
        self.position = end;
        self.ends_in_hole = false;
        Ok(())
    }

    /// Leaves a hole of `length` zero bytes.
    ///
    /// Returns [`UnpackError::Limit`] if the layer's sparse files have more of them than is allowed.
    pub(crate) fn skip(&mut self, length: u64) -> Result<(), UnpackError> {
        if length == 0 {
            return Ok(());
        }
        let end = self.end_after(length)?;
        if !take_holes(&self.shared.holes_left, length) {
            let granted = self.shared.options.limits.hole_bytes;
            return Err(LimitError::new(self.path.to_string(), Limit::HoleBytes, granted, None).into());
        }
        let mut left = length;
        while left > 0 {
            let zeros = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
            self.hasher.update(zeros);
            left = left.saturating_sub(u64::try_from(zeros.len()).unwrap_or(left));
        }
        self.position = end;
        self.ends_in_hole = true;
        Ok(())
    }

    /// Fills the file with the bytes and holes of another, and finishes it; `None` if that one cannot be read to its end.
    pub(crate) fn copy(mut self, from: &File) -> Result<Option<WrittenFile>, UnpackError> {
        let mut piece = vec![0; PIECE];
        let size = self.real_size;
        let mut at = self.position;
        while at < size {
            // A filesystem that knows no holes has none.
            let (start, end) =
                extent::next_data(from.as_fd(), at).unwrap_or(Some((at, size))).unwrap_or((size, size));
            let (start, end) = (start.clamp(at, size), end.min(size));
            self.skip(start.saturating_sub(at))?;
            at = start;
            while at < end {
                let wanted = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE).min(PIECE);
                let buffer = piece.get_mut(..wanted).unwrap_or_default();
                if from.read_exact_at(buffer, at).is_err() {
                    return Ok(None);
                }
                self.write_all(buffer)?;
                at = at.saturating_add(u64::try_from(wanted).unwrap_or_default());
            }
        }
        self.finish().map(Some)
    }

    /// Gives the file its length, owner, attributes, mode and time.
    ///
    /// Returns [`UnpackError::SizeMismatch`] if the file is shorter than was announced.
    pub(crate) fn finish(self) -> Result<WrittenFile, UnpackError> {
        if self.position != self.real_size {
            return Err(self.size_mismatch(self.position));
        }
        let file = OwnedFd::from(self.file);
        if self.ends_in_hole {
            extent::set_length(file.as_fd(), self.real_size).map_err(failed(&self.path, "set the length"))?;
        }
        let found = stat::stat(file.as_fd()).map_err(failed(&self.path, "examine"))?;
        self.shared.describe_file(&self.path, file.as_fd(), &found, &self.metadata)?;
        let content = ContentHash(*self.hasher.finalize().as_bytes());
        Ok(WrittenFile { inode: found.id.inode, size: self.real_size, content })
    }

    /// Where the file ends with `length` more bytes.
    fn end_after(&self, length: u64) -> Result<u64, UnpackError> {
        let end = self.position.saturating_add(length);
        if end > self.real_size { Err(self.size_mismatch(end)) } else { Ok(end) }
    }

    fn size_mismatch(&self, found: u64) -> UnpackError {
        UnpackError::SizeMismatch { member: member(&self.path), expected: self.real_size, found }
    }
}

/// Takes `bytes` from what is left of the layer's holes; false if that many are not left.
fn take_holes(left: &AtomicU64, bytes: u64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
}
