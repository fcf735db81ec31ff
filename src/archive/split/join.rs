//! The way back: a split and its files into the archive.

use std::io::{self, BufReader, Read, Write};

use super::contents::{self, Supply};
use super::record::{CUT, Record, Records, damaged};
use super::{BEYOND, Content, MAGIC, Open, VERSION};
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
    /// back and has to be of the length and content it is asked for by: once for each place that it has in the table, in the table's order,
    /// and before its turn comes, on another thread where there are many. `verified` is told each content that was right.
    ///
    /// Returns [`SplitError::Damaged`] if the contents are not in their order, or the parts of one are not, or stand apart: else a
    /// file would be read once for each record; and [`SplitError::Mismatch`] if a file is not what was imported. Of a large one that is
    /// known only at its end, so after any error what was written is to be thrown away.
    pub(crate) fn join(
        self,
        out: &mut dyn Write,
        open: Open<'_>,
        verified: &mut dyn FnMut(&ContentHash),
    ) -> Result<u64, SplitError> {
        let Self { input, contents } = self;
        let records = Records::new(input).map_err(SplitError::Read)?;
        contents::supply(&contents, open, |supply| write(records, &contents, supply, out, verified))
    }
}

/// Writes what the records say, with the bytes of contents where they refer to them.
fn write(
    mut records: Records<impl Read>,
    contents: &[Content],
    supply: &mut Supply<'_, '_>,
    out: &mut dyn Write,
    verified: &mut dyn FnMut(&ContentHash),
) -> Result<u64, SplitError> {
    let mut current: Option<Current<'_>> = None;
    loop {
        match records.next()? {
            Record::Raw => out.write_all(records.raw()).map_err(write_error)?,
            Record::Content { ordinal, offset, len } => {
                let known = usize::try_from(ordinal).ok().and_then(|ordinal| contents.get(ordinal));
                let content = known.ok_or(SplitError::Damaged("a record refers to no content"))?;
                if offset.checked_add(len).is_none_or(|end| end > content.size) {
                    return Err(SplitError::Damaged(BEYOND));
                }
                let position = match current.take() {
                    Some(same) if same.ordinal == ordinal => same.position,
                    Some(later) if later.ordinal > ordinal => return Err(SplitError::Damaged(APART)),
                    done => {
                        done.map_or(Ok(()), |done| done.finish(supply, verified))?;
                        0
                    }
                };
                let gap = offset.checked_sub(position).ok_or(SplitError::Damaged(BACKWARDS))?;
                supply.read(ordinal, gap, &mut |_| Ok(()))?;
                supply.read(ordinal, len, &mut |bytes| out.write_all(bytes).map_err(write_error))?;
                current = Some(Current { ordinal, content, position: offset.saturating_add(len) });
            }
            Record::End { total } => {
                current.map_or(Ok(()), |done| done.finish(supply, verified))?;
                out.flush().map_err(write_error)?;
                return Ok(total);
            }
        }
    }
}

/// The content that the last record referred to, and how far records got in it.
struct Current<'c> {
    ordinal: u32,
    content: &'c Content,
    position: u64,
}

impl Current<'_> {
    fn finish(
        self,
        supply: &mut Supply<'_, '_>,
        verified: &mut dyn FnMut(&ContentHash),
    ) -> Result<(), SplitError> {
        supply.finish(self.ordinal)?;
        verified(&self.content.hash);
        Ok(())
    }
}

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
