//! The second step: the table of contents before the records.

use std::io::{self, Read, Write};

use super::record::{Record, RecordWriter, Records};
use super::{Content, MAGIC, Source, VERSION};
use crate::error::SplitError;

/// Writes the split whose records stand in `spool`, and returns `out`.
///
/// `contents` has an item for each content, in the order of [`ordinals`](crate::archive::Entry::ordinal): the hash and
/// length of its file, or `None` if the file did not survive. For each `None`, `replaced` is called in the same order
/// and gives the whole file, holes as zeros; its bytes are put among the records.
///
/// Memory is bounded but for the table.
pub(crate) fn assemble<'a, W: Write>(
    mut out: W,
    contents: &[Option<Content>],
    mut spool: impl Read,
    replaced: &mut dyn FnMut(u32) -> io::Result<Source<'a>>,
) -> Result<W, SplitError> {
    let kept: Vec<Content> = contents.iter().copied().flatten().collect();
    write_table(&mut out, &kept)?;
    if kept.len() == contents.len() {
        io::copy(&mut spool, &mut out).map_err(write_error)?;
        return Ok(out);
    }
    let mut places = Vec::with_capacity(contents.len());
    let mut next = 0u32;
    for content in contents {
        places.push(content.map(|_| next));
        next = next.saturating_add(u32::from(content.is_some()));
    }
    let mut records = Records::new(spool).map_err(SplitError::Read)?;
    let mut writer = RecordWriter::new(out).map_err(write_error)?;
    let mut current: Option<Replaced<'a>> = None;
    loop {
        match records.next()? {
            Record::Raw => writer.raw(records.raw()).map_err(write_error)?,
            Record::End { .. } => return writer.finish().map_err(write_error),
            Record::Content { ordinal, offset, len } => {
                let place = usize::try_from(ordinal).ok().and_then(|ordinal| places.get(ordinal));
                match place.ok_or(SplitError::Damaged("a record refers to no content"))? {
                    Some(place) => writer.content(*place, offset, len).map_err(write_error)?,
                    None => {
                        let open = match current.take().filter(|open| open.ordinal == ordinal) {
                            Some(open) => open,
                            None => Replaced::open(ordinal, replaced)?,
                        };
                        current.insert(open).copy(&mut writer, offset, len)?;
                    }
                }
            }
        }
    }
}

fn write_table(out: &mut impl Write, contents: &[Content]) -> Result<(), SplitError> {
    let count = u32::try_from(contents.len())
        .map_err(|_| SplitError::Damaged("it has more contents than a table can hold"))?;
    let mut table = Vec::with_capacity(contents.len().saturating_mul(40).saturating_add(16));
    table.extend_from_slice(&MAGIC);
    table.extend_from_slice(&VERSION.to_le_bytes());
    table.extend_from_slice(&count.to_le_bytes());
    for content in contents {
        table.extend_from_slice(&content.hash.0);
        table.extend_from_slice(&content.size.to_le_bytes());
    }
    out.write_all(&table).map_err(write_error)
}

fn write_error(source: io::Error) -> SplitError {
    SplitError::Write { what: "the tar-split", source }
}

/// A replaced content, read from front to back.
struct Replaced<'a> {
    ordinal: u32,
    source: Source<'a>,
    position: u64,
}

impl<'a> Replaced<'a> {
    fn open(
        ordinal: u32,
        replaced: &mut dyn FnMut(u32) -> io::Result<Source<'a>>,
    ) -> Result<Self, SplitError> {
        let source = replaced(ordinal).map_err(|source| SplitError::Replaced { ordinal, source })?;
        Ok(Replaced { ordinal, source, position: 0 })
    }

    fn copy<W: Write>(
        &mut self,
        writer: &mut RecordWriter<W>,
        offset: u64,
        len: u64,
    ) -> Result<(), SplitError> {
        let gap = offset.checked_sub(self.position).ok_or(SplitError::Damaged(super::join::BACKWARDS))?;
        self.read(gap, &mut |_| Ok(()))?;
        self.read(len, &mut |bytes| writer.raw(bytes).map_err(write_error))
    }

    fn read(
        &mut self,
        len: u64,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), SplitError>,
    ) -> Result<(), SplitError> {
        let failed = |source| SplitError::Replaced { ordinal: self.ordinal, source };
        let mut buffer = [0; 16 * 1024];
        let mut left = len;
        while left > 0 {
            let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let piece = buffer.get_mut(..length).unwrap_or_default();
            self.source.read_exact(piece).map_err(failed)?;
            sink(piece)?;
            left = left.saturating_sub(length as u64);
        }
        self.position = self.position.saturating_add(len);
        Ok(())
    }
}
