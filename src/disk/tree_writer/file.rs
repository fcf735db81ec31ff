//! Writing one regular file, hashing what is written.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::{Shared, failed, member};
use crate::compress::is_zero;
use crate::error::{Limit, LimitError, UnpackError, quoted};
use crate::sys::extent;
use crate::sys::file::File;
use crate::sys::stat::Stat;
use crate::timing::{self, Stage};
use crate::types::{ContentHash, Metadata, RelPath};

/// The size of the pieces in which files are copied.
const PIECE: usize = 128 * 1024;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The unit of holes: what filesystems give space in.
pub(super) const BLOCK: usize = 4096;

/// So many zeros in what is written at once become a hole. Fewer are not worth a further call, and a further extent. More than twice as
/// many in one file have a hole in any case, wherever one call ends and the next begins: what a stream may expand to, whatever its
/// size is, counts on it.
const HOLE: usize = 32 * 1024;

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
#[derive(Clone, Copy, Debug)]
pub(crate) struct WrittenFile {
    /// Its inode number.
    pub(crate) inode: u64,
    /// Its length.
    pub(crate) size: u64,
    /// The hash of its bytes.
    pub(crate) content: ContentHash,
    /// How it was then, if it was given no attributes.
    pub(crate) look: Option<Stat>,
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

    /// Writes `bytes` at the end. One system call, where they have no long run of zeros: large pieces are faster. Such a run
    /// becomes a hole, so that no disk is filled with what is nothing in a blob.
    ///
    /// Returns [`UnpackError::SizeMismatch`] if the file gets longer than was announced.
    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> Result<(), UnpackError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = self.end_after(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        timing::during(Stage::Hash, || self.hasher.update(bytes));
        let (mut rest, mut at) = (bytes, self.position);
        while !rest.is_empty() {
            let hole =
                if self.ends_in_hole && is_zero(rest) { Some(0..rest.len()) } else { find_hole(rest, at) };
            let hole = hole.unwrap_or(rest.len()..rest.len());
            let (data, behind) = rest.split_at_checked(hole.start).unwrap_or((rest, &[]));
            if !data.is_empty() {
                self.file.write_all_at(data, at).map_err(failed(&self.path, "write"))?;
            }
            self.ends_in_hole = !hole.is_empty();
            at = at.saturating_add(u64::try_from(hole.end).unwrap_or(u64::MAX));
            rest = behind.get(hole.len()..).unwrap_or_default();
        }
        self.position = end;
        self.shared.writeback.wrote(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
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
        if !self.shared.budget.take_holes(length) {
            let granted = self.shared.budget.limits().hole_bytes;
            return Err(LimitError::new(quoted(self.path.as_bytes()), Limit::HoleBytes, granted, None).into());
        }
        self.leave(length, end);
        Ok(())
    }

    /// Leaves a hole of `length` zero bytes, which ends at `end`.
    fn leave(&mut self, length: u64, end: u64) {
        let mut left = length;
        while left > 0 {
            let zeros = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
            self.hasher.update(zeros);
            left = left.saturating_sub(u64::try_from(zeros.len()).unwrap_or(left));
        }
        self.position = end;
        self.ends_in_hole = true;
    }

    /// Fills the file with the bytes and holes of another, and finishes it; `None` if that one cannot be read to its end. The other is
    /// the store's, so its holes are not measured again.
    pub(crate) fn copy(mut self, from: &File) -> Result<Option<WrittenFile>, UnpackError> {
        let mut piece = vec![0; PIECE];
        let size = self.real_size;
        let mut at = self.position;
        while at < size {
            // A filesystem that knows no holes has none.
            let (start, end) =
                extent::next_data(from.as_fd(), at).unwrap_or(Some((at, size))).unwrap_or((size, size));
            let (start, end) = (start.clamp(at, size), end.min(size));
            if start > at {
                let length = start.saturating_sub(at);
                let end = self.end_after(length)?;
                self.leave(length, end);
            }
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
        let (inode, look) = self.shared.complete_file(&self.path, file.as_fd(), &self.metadata)?;
        self.shared.writeback.wrote_file();
        let content = ContentHash(*self.hasher.finalize().as_bytes());
        Ok(WrittenFile { inode, size: self.real_size, content, look })
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

/// The first run of zeros in `bytes`, which go to `offset` of a file, that is worth a hole: whole blocks, and what is in the last one.
fn find_hole(bytes: &[u8], offset: u64) -> Option<Range<usize>> {
    if bytes.len() < HOLE {
        return None;
    }
    // Where there are fewer bits than in offsets, holes of the largest files may begin within a block.
    let into = usize::try_from(offset).map_or(0, |offset| offset % BLOCK);
    let mut at = BLOCK.saturating_sub(into) % BLOCK;
    let mut start = at;
    for block in bytes.get(at..).unwrap_or_default().chunks(BLOCK) {
        let end = at.saturating_add(block.len());
        if !is_zero(block) {
            if at.saturating_sub(start) >= HOLE {
                return Some(start..at);
            }
            start = end;
        }
        at = end;
    }
    (at.saturating_sub(start) >= HOLE).then_some(start..at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_zeros_are_holes() {
        let with = |length: usize, data: &[usize]| {
            let mut bytes = vec![0; length];
            data.iter().for_each(|at| bytes[*at] = 1);
            bytes
        };
        let hole = |length, data: &[usize], offset| find_hole(&with(length, data), offset);
        assert_eq!(hole(HOLE, &[], 0), Some(0..HOLE));
        assert_eq!(hole(HOLE - 1, &[], 0), None);
        // Only whole blocks.
        assert_eq!(hole(HOLE, &[], 1), None);
        assert_eq!(hole(HOLE + BLOCK, &[], 1), Some(BLOCK - 1..HOLE + BLOCK));
        assert_eq!(hole(2 * HOLE, &[0], 0), Some(BLOCK..2 * HOLE));
        assert_eq!(hole(2 * HOLE, &[HOLE], 0), Some(0..HOLE));
        assert_eq!(hole(2 * HOLE, &[HOLE - 1, 2 * HOLE - 1], 0), None);
        assert_eq!(hole(3 * HOLE, &[5, HOLE + 7 * BLOCK, 3 * HOLE - 1], 0), Some(BLOCK..HOLE + 7 * BLOCK));
    }
}
