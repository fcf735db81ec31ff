//! Streams that are members, one after the other.

use std::io::{self, BufRead, Read};

/// The decoder of one member.
pub(super) trait Member: Read + Sized {
    /// What it reads from.
    type Source: BufRead;
    /// What is remembered of the members before.
    type Past: Default;

    /// Begins with a member, which must be there.
    fn begin(source: Self::Source) -> Self;

    /// Goes on behind the end of this member; `None` at the end of the stream.
    ///
    /// Returns an error if something stands there that does not belong there.
    fn next(self, past: &mut Self::Past) -> io::Result<Option<Self>>;
}

/// Reads all members of a stream as one.
pub(super) struct Members<M: Member> {
    /// `None` at the end, and where the stream was refused.
    member: Option<M>,
    past: M::Past,
    is_refused: bool,
}

impl<M: Member> Members<M> {
    /// Begins with the first member, which must be there.
    pub(super) fn new(source: M::Source) -> Self {
        Members { member: Some(M::begin(source)), past: M::Past::default(), is_refused: false }
    }
}

impl<M: Member> Read for Members<M> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let Some(ended) = self.member.take() else { break };
            // Whoever reads on must not take the refusal for the end.
            self.is_refused = true;
            self.member = ended.next(&mut self.past)?;
            self.is_refused = false;
        }
        if self.is_refused { Err(io::Error::other("the stream was refused before")) } else { Ok(0) }
    }
}

/// The next byte of a stream, which stays in it; `None` at the end.
pub(super) fn peek(source: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        match source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            filled => return Ok(filled?.first().copied()),
        }
    }
}
