//! The records of a split, compressed.

use std::io::{self, BufRead, BufReader, Read, Write};

use crate::error::SplitError;

const END: u8 = 0;
const RAW: u8 = 1;
const CONTENT: u8 = 2;

/// The longest run of bytes in one record.
const RAW_MAX: usize = 65536;
/// Records are mostly zeros and repetition, which the lowest level finds as well as a high one, in half the time.
const LEVEL: i32 = 1;
/// Far beyond what [`LEVEL`] uses.
const WINDOW_LOG_MAX: u32 = 23;

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// Bytes of the archive; they are in [`Records::raw`].
    Raw,
    /// A part of a content.
    Content {
        /// Which.
        ordinal: u32,
        /// Where the part begins in the file.
        offset: u64,
        /// Its length.
        len: u64,
    },
    /// The end.
    End {
        /// The length of the archive.
        total: u64,
    },
}

/// Writes records. Bytes that come in small pieces become large records.
pub(super) struct RecordWriter<W: Write> {
    out: zstd::stream::write::Encoder<'static, W>,
    pending: Vec<u8>,
    total: u64,
}

impl<W: Write> RecordWriter<W> {
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut out = zstd::stream::write::Encoder::new(out, LEVEL)?;
        out.include_checksum(true)?;
        Ok(RecordWriter { out, pending: Vec::new(), total: 0 })
    }

    pub(super) fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.total = self.total.saturating_add(bytes.len() as u64);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(RAW_MAX.saturating_sub(self.pending.len())));
            self.pending.extend_from_slice(now);
            bytes = later;
            if self.pending.len() == RAW_MAX {
                self.write_pending()?;
            }
        }
        Ok(())
    }

    pub(super) fn content(&mut self, ordinal: u32, offset: u64, len: u64) -> io::Result<()> {
        self.write_pending()?;
        self.total = self.total.saturating_add(len);
        self.write(CONTENT, &[u64::from(ordinal), offset, len])
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.write_pending()?;
        let total = self.total;
        self.write(END, &[total])?;
        self.out.finish()
    }

    fn write_pending(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write(RAW, &[self.pending.len() as u64])?;
        self.out.write_all(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    fn write(&mut self, tag: u8, numbers: &[u64]) -> io::Result<()> {
        let mut head = vec![tag];
        for &number in numbers {
            put_number(&mut head, number);
        }
        self.out.write_all(&head)
    }
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Reads records. Nothing is allocated that was not read.
pub(super) struct Records<R: Read> {
    input: BufReader<zstd::stream::read::Decoder<'static, BufReader<R>>>,
    raw: Vec<u8>,
    total: u64,
}

impl<R: Read> Records<R> {
    pub(super) fn new(input: R) -> io::Result<Self> {
        let mut decoder = zstd::stream::read::Decoder::new(input)?;
        decoder.window_log_max(WINDOW_LOG_MAX)?;
        Ok(Records { input: BufReader::with_capacity(RAW_MAX, decoder), raw: Vec::new(), total: 0 })
    }

    /// The bytes of the [`Record::Raw`] that was read last.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Reads the next record. There is none after [`Record::End`].
    pub(super) fn next(&mut self) -> Result<Record, SplitError> {
        match self.byte()? {
            RAW => {
                let len = self.number()?;
                if len == 0 || len > RAW_MAX as u64 {
                    return Err(SplitError::Damaged("a record of bytes has a bad length"));
                }
                self.raw.clear();
                self.input.by_ref().take(len).read_to_end(&mut self.raw).map_err(damaged)?;
                if (self.raw.len() as u64) < len {
                    return Err(SplitError::Damaged(CUT));
                }
                self.count(len)?;
                Ok(Record::Raw)
            }
            CONTENT => {
                let ordinal = u32::try_from(self.number()?)
                    .map_err(|_| SplitError::Damaged("a record refers to no content"))?;
                let (offset, len) = (self.number()?, self.number()?);
                self.count(len)?;
                Ok(Record::Content { ordinal, offset, len })
            }
            END => {
                let total = self.number()?;
                if total != self.total {
                    return Err(SplitError::Damaged("its records are not as long as the archive"));
                }
                if !self.input.fill_buf().map_err(damaged)?.is_empty() {
                    return Err(SplitError::Damaged("it goes on after its end"));
                }
                Ok(Record::End { total })
            }
            _ => Err(SplitError::Damaged("a record of an unknown kind")),
        }
    }

    fn count(&mut self, len: u64) -> Result<(), SplitError> {
        let total = self.total.checked_add(len);
        self.total = total.ok_or(SplitError::Damaged("its records are longer than any archive"))?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, SplitError> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(damaged)?;
        let [byte] = byte;
        Ok(byte)
    }

    fn number(&mut self) -> Result<u64, SplitError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(SplitError::Damaged("a malformed number"))
    }
}

pub(super) const CUT: &str = "it is cut off";

/// What the decoder has to say of bad bytes comes with kinds of its own; what the disk says has others.
pub(super) fn damaged(error: io::Error) -> SplitError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => SplitError::Damaged(CUT),
        _ => SplitError::Read(error),
    }
}
