//! All members of a bzip2 stream, one after the other.

use std::io::{self, BufRead};

use ::bzip2::bufread::BzDecoder;

use super::members::{self, Member, peek};

/// What compressors that make members of their own accord (pbzip2) put in each is more than this: the smallest block of the format
/// has 100,000 bytes.
const SMALL: u64 = 64 << 10;
/// So many members may be small. Each has megabytes of memory that are filled with zeros before it is read, and an empty one takes
/// fourteen bytes: millions of them would be no bytes for any limit, and minutes for the processor.
const SMALL_MEMBERS: u32 = 1000;

/// Reads the members of a bzip2 stream as one. Whatever stands behind a member has to be the next one.
pub(super) type Members<R> = members::Members<BzDecoder<R>>;

impl<R: BufRead> Member for BzDecoder<R> {
    type Source = R;
    /// How many small members there were.
    type Past = u32;

    fn begin(source: R) -> Self {
        BzDecoder::new(source)
    }

    fn next(self, small: &mut u32) -> io::Result<Option<Self>> {
        if self.total_out() < SMALL {
            *small = small.saturating_add(1);
        }
        if *small > SMALL_MEMBERS {
            let reason = format!(
                "the bzip2 stream has more than {SMALL_MEMBERS} members of less than {} KiB: compress it as a whole",
                SMALL >> 10
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let mut source = self.into_inner();
        let follows = peek(&mut source)?.is_some();
        Ok(follows.then(|| BzDecoder::new(source)))
    }
}
