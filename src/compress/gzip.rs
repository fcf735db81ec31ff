//! All members of a gzip stream, one after the other.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// What a member begins with.
const MAGIC: u8 = 0x1f;

/// Reads the members of a gzip stream as one.
///
/// Zero bytes after a member are padding, as GNU gzip has it (tapes and block devices leave such tails); any other
/// byte has to begin the next member. gzip(1) warns of other bytes and leaves them out, where readers in Go refuse the stream; so a blob
/// that has some would be a layer for one program and none for the next.
pub(super) struct Members<R> {
    /// `None` only while one member hands the source on to the next, and after a failure in between.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Members<R> {
    /// Begins with the first member, which must be there.
    pub(super) fn new(source: R) -> Self {
        Members { member: Some(GzDecoder::new(source)) }
    }

    /// Goes to the next member; `false` at the end of the stream.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(member) = self.member.take() else { return Ok(false) };
        let mut source = member.into_inner();
        let found = skip_zeros(&mut source)?;
        if found && source.fill_buf()?.first() != Some(&MAGIC) {
            return Err(super::behind("gzip"));
        }
        if found {
            self.member = Some(GzDecoder::new(source));
        }
        Ok(found)
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

/// Consumes zeros; whether something else follows.
fn skip_zeros(source: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let available = match source.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(false);
        }
        match available.iter().position(|&byte| byte != 0) {
            Some(zeros) => {
                source.consume(zeros);
                return Ok(true);
            }
            None => {
                let zeros = available.len();
                source.consume(zeros);
            }
        }
    }
}
