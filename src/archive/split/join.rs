//! The way back: a split and its files into the archive.

use std::io::{self, BufReader, Read, Write};

use super::record::{CUT, Record, Records, damaged};
use super::{Content, MAGIC, Source, VERSION};
use crate::error::SplitError;
use crate::types::ContentHash;

/// A split that is read from front to back.
pub(crate) struct SplitReader<R: Read> {
    input: BufReader<R>,
    contents: Vec<Content>,
}

pub(super) const BACKWARDS: &str = "the parts of a content are out of order";
const APART: &str = "the contents are out of order, or the parts of one stand apart";

impl<R: Read> SplitReader<R> {
    /// Reads the table of contents.
    ///
    /// Returns [`SplitError::Damaged`] if `input` is no split or is cut off, and [`SplitError::Version`] if a newer
    /// program wrote it.
    pub(crate) fn new(input: R) -> Result<Self, SplitError> {
        let mut input = BufReader::new(input);
        if read_array(&mut input)? != MAGIC {
            return Err(SplitError::Damaged("it does not begin like one"));
        }
        let version = u32::from_le_bytes(read_array(&mut input)?);
        if version != VERSION {
            return Err(SplitError::Version { found: version, known: VERSION });
        }
        let count = u32::from_le_bytes(read_array(&mut input)?);
        // Not reserved at once: the count may be a lie.
        let mut contents = Vec::new();
        for _ in 0..count {
            let hash = ContentHash(read_array(&mut input)?);
            contents.push(Content { hash, size: u64::from_le_bytes(read_array(&mut input)?) });
        }
        Ok(SplitReader { input, contents })
    }

    /// The files that [`join`](SplitReader::join) needs. One can stand here several times.
    #[cfg(any(test, feature = "__fuzzing"))]
    pub(crate) fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// Writes the archive to `out` and returns its length. `open` gives the file of each content, which is read once from front to
    /// back and has to be of the length and content it is asked for by: once for each place that it has in the table.
    ///
    /// Returns [`SplitError::Damaged`] if the contents are not in their order, or the parts of one are not, or stand apart: else a
    /// file would be read once for each record; and [`SplitError::Mismatch`] if a file is not what was imported. That is known
    /// only at the end of the file, so after any error what was written is to be thrown away.
    pub(crate) fn join<'a>(
        self,
        out: &mut dyn Write,
        open: &mut dyn FnMut(&ContentHash, u64) -> io::Result<Source<'a>>,
    ) -> Result<u64, SplitError> {
        let mut records = Records::new(self.input).map_err(SplitError::Read)?;
        let mut buffer = vec![0; BUFFER];
        let mut current: Option<OpenContent<'a>> = None;
        loop {
            match records.next()? {
                Record::Raw => out.write_all(records.raw()).map_err(write_error)?,
                Record::Content { ordinal, offset, len } => {
                    let known = usize::try_from(ordinal).ok().and_then(|ordinal| self.contents.get(ordinal));
                    let content = *known.ok_or(SplitError::Damaged("a record refers to no content"))?;
                    if offset.checked_add(len).is_none_or(|end| end > content.size) {
                        return Err(SplitError::Damaged("a record goes beyond its content"));
                    }
                    let mut part = match current.take() {
                        Some(open) if open.ordinal == ordinal => open,
                        other => {
                            if other.as_ref().is_some_and(|done| done.ordinal > ordinal) {
                                return Err(SplitError::Damaged(APART));
                            }
                            other.map_or(Ok(()), |done| done.finish(&mut buffer))?;
                            OpenContent::open(ordinal, content, open)?
                        }
                    };
                    let gap = offset.checked_sub(part.position).ok_or(SplitError::Damaged(BACKWARDS))?;
                    part.read(gap, &mut buffer, None)?;
                    part.read(len, &mut buffer, Some(&mut *out))?;
                    current = Some(part);
                }
                Record::End { total } => {
                    current.map_or(Ok(()), |done| done.finish(&mut buffer))?;
                    out.flush().map_err(write_error)?;
                    return Ok(total);
                }
            }
        }
    }
}

const BUFFER: usize = 128 * 1024;

fn read_array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], SplitError> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(SplitError::Damaged(CUT)),
        Err(error) => Err(damaged(error)),
    }
}

fn write_error(source: io::Error) -> SplitError {
    SplitError::Write { what: "the archive", source }
}

/// A file that is being joined in. All of it is hashed, also what the archive does not have: a hole that is no hole
/// any more is a change too.
struct OpenContent<'a> {
    ordinal: u32,
    content: Content,
    source: Source<'a>,
    hasher: blake3::Hasher,
    position: u64,
    /// Whether more than the file should have was asked for, and not given.
    ended: bool,
}

impl<'a> OpenContent<'a> {
    fn open(
        ordinal: u32,
        content: Content,
        open: &mut dyn FnMut(&ContentHash, u64) -> io::Result<Source<'a>>,
    ) -> Result<Self, SplitError> {
        let source = open(&content.hash, content.size)
            .map_err(|source| SplitError::Content { content: content.hash.to_string(), source })?;
        Ok(OpenContent { ordinal, content, source, hasher: blake3::Hasher::new(), position: 0, ended: false })
    }

    /// Reads and hashes `len` bytes, and writes them if there is where to. The last of them are asked for with one more, so that a small
    /// file is read with one call.
    fn read(
        &mut self,
        len: u64,
        buffer: &mut [u8],
        mut out: Option<&mut dyn Write>,
    ) -> Result<(), SplitError> {
        let mut left = len;
        let beyond = u64::from(self.position.saturating_add(len) == self.content.size);
        while left > 0 {
            let wanted = usize::try_from(left.saturating_add(beyond)).unwrap_or(usize::MAX);
            let length = buffer.len().min(wanted);
            let count = self.read_some(buffer.get_mut(..length).unwrap_or_default())?;
            if count == 0 || count as u64 > left {
                return Err(self.mismatch());
            }
            self.ended = length as u64 > left && count as u64 == left;
            let bytes = buffer.get(..count).unwrap_or_default();
            self.hasher.update(bytes);
            if let Some(out) = &mut out {
                out.write_all(bytes).map_err(write_error)?;
            }
            left = left.saturating_sub(count as u64);
        }
        self.position = self.position.saturating_add(len);
        Ok(())
    }

    /// Reads what is left of the file and compares.
    fn finish(mut self, buffer: &mut [u8]) -> Result<(), SplitError> {
        self.read(self.content.size.saturating_sub(self.position), buffer, None)?;
        let grown = !self.ended && self.read_some(buffer.get_mut(..1).unwrap_or_default())? > 0;
        if grown || *self.hasher.finalize().as_bytes() != self.content.hash.0 {
            return Err(self.mismatch());
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, SplitError> {
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    let content = || self.content.hash.to_string();
                    return result.map_err(|source| SplitError::Content { content: content(), source });
                }
            }
        }
    }

    fn mismatch(&self) -> SplitError {
        SplitError::Mismatch { content: self.content.hash.to_string() }
    }
}
