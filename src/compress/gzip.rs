//! All members of a gzip stream, one after the other.

use std::io::{self, BufRead};

use flate2::bufread::GzDecoder;

use super::members::{self, Member, peek};

/// What a member begins with.
const MAGIC: u8 = 0x1f;

/// Reads the members of a gzip stream as one.
///
/// Zero bytes after a member are padding, as GNU gzip has it (tapes and block devices leave such tails); any other
/// byte has to begin the next member. gzip(1) warns of other bytes and leaves them out, where readers in Go refuse the stream; so a blob
/// that has some would be a layer for one program and none for the next.
pub(super) type Members<R> = members::Members<GzDecoder<R>>;

impl<R: BufRead> Member for GzDecoder<R> {
    type Source = R;
    type Past = ();

    fn begin(source: R) -> Self {
        GzDecoder::new(source)
    }

    fn next(self, (): &mut ()) -> io::Result<Option<Self>> {
        let mut source = self.into_inner();
        match skip_zeros(&mut source)? {
            None => Ok(None),
            Some(MAGIC) => Ok(Some(GzDecoder::new(source))),
            Some(_) => Err(super::behind("gzip")),
        }
    }
}

/// Consumes zeros. Returns the byte that follows, which stays there.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<Option<u8>> {
    while peek(source)? == Some(0) {
        // What was peeked at is in the buffer.
        let available = source.fill_buf()?;
        let zeros = available.iter().position(|&byte| byte != 0).unwrap_or(available.len());
        source.consume(zeros);
    }
    peek(source)
}
