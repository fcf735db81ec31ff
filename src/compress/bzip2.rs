//! All members of a bzip2 stream, one after the other.

use std::io::{self, BufRead, Read};

use ::bzip2::bufread::BzDecoder;

/// What compressors that make members of their own accord (pbzip2) put in each is more than this: the smallest block of the format
/// has 100,000 bytes.
const SMALL: u64 = 64 << 10;
/// So many members may be small. Each has megabytes of memory that are filled with zeros before it is read, and an empty one takes
/// fourteen bytes: millions of them would be no bytes for any limit, and minutes for the processor.
const SMALL_MEMBERS: u32 = 1000;

/// Reads the members of a bzip2 stream as one. Whatever stands behind a member has to be the next one.
pub(super) struct Members<R> {
    /// `None` only while one member hands the source on to the next, and at the end.
    member: Option<BzDecoder<R>>,
    /// How many small members there were.
    small: u32,
}

impl<R: BufRead> Members<R> {
    /// Begins with the first member, which must be there.
    pub(super) fn new(source: R) -> Self {
        Members { member: Some(BzDecoder::new(source)), small: 0 }
    }

    /// Goes to the next member; `false` at the end of the stream.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(member) = self.member.take() else { return Ok(false) };
        if member.total_out() < SMALL {
            self.small = self.small.saturating_add(1);
        }
        if self.small > SMALL_MEMBERS {
            let reason = format!(
                "the bzip2 stream has more than {SMALL_MEMBERS} members of less than {} KiB: compress it as a whole",
                SMALL >> 10
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let mut source = member.into_inner();
        if source.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.member = Some(BzDecoder::new(source));
        Ok(true)
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            if !self.advance()? {
                break;
            }
        }
        Ok(0)
    }
}
