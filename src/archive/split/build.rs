//! The first step: records into a spool, while the archive is read.

use std::io::{self, Write};

use super::record::RecordWriter;
use crate::archive::Tap;

/// Keeps what a [`Reader`](crate::archive::Reader) shows its tap. What it writes is only of use to
/// [`assemble`](super::assemble).
///
/// # Close semantics
///
/// The spool is complete only after [`finish`](SplitBuilder::finish).
pub(crate) struct SplitBuilder<W: Write> {
    records: RecordWriter<W>,
    contents: u32,
}

impl<W: Write> SplitBuilder<W> {
    /// Starts a spool, as a rule an unnamed file.
    pub(crate) fn new(spool: W) -> io::Result<Self> {
        Ok(SplitBuilder { records: RecordWriter::new(spool)?, contents: 0 })
    }

    /// Ends the spool. Returns it with the number of contents it refers to.
    pub(crate) fn finish(self) -> io::Result<(W, u32)> {
        let mut spool = self.records.finish()?;
        spool.flush()?;
        Ok((spool, self.contents))
    }
}

impl<W: Write> Tap for SplitBuilder<W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.records.raw(bytes)
    }

    fn content(&mut self, ordinal: u32, offset: u64, len: u64) -> io::Result<()> {
        self.contents = self.contents.max(ordinal.saturating_add(1));
        self.records.content(ordinal, offset, len)
    }
}
