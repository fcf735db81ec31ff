//! What a source gives of a blob, read where it stands there: range after range, and in them chunk after chunk.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;

use zstd::stream::raw::{DParameter, Decoder, Operation};

use super::toc::Chunk;
use crate::compress::{is_zstd_window, zstd_window_log};
use crate::error::{ChunkedError, Limit, LimitError};
use crate::types::{Algorithm, Digest, Hasher, Limits};

/// How much is read of a source at once.
const PIECE: usize = 64 * 1024;

/// Why a range cannot be read.
pub(super) fn failed(range: &Range<u64>) -> impl Fn(io::Error) -> ChunkedError + use<> {
    let Range { start, end } = *range;
    move |source| ChunkedError::Source { start, end, source }
}

/// Reads one chunk out of what is fetched, and compares its digest.
pub(super) struct ChunkReader {
    decoder: Option<Decoder<'static>>,
    /// Where its bytes begin in the blob, and where they end.
    range: Range<u64>,
    /// How much of it is left.
    left: u64,
    hasher: Option<Hasher>,
    digest: Digest,
}

impl ChunkReader {
    pub(super) fn new(
        chunk: &Chunk,
        digest: &Digest,
        fetched: &mut Fetched<'_>,
        limits: &Limits,
    ) -> Result<Self, ChunkedError> {
        let failed = |source| ChunkedError::Decompress { what: "a chunk", source };
        let decoder = match chunk.zeros {
            true => None,
            false => {
                fetched.seek(chunk.range.start)?;
                let mut decoder = Decoder::new().map_err(failed)?;
                decoder.set_parameter(DParameter::WindowLogMax(zstd_window_log(limits))).map_err(failed)?;
                Some(decoder)
            }
        };
        let hasher = Some(Hasher::new(Algorithm::Sha256));
        Ok(ChunkReader {
            decoder,
            range: chunk.range.clone(),
            left: chunk.size,
            hasher,
            digest: digest.clone(),
        })
    }

    /// Gives 0 at the end, and only if the digest is right.
    pub(super) fn read(
        &mut self,
        fetched: &mut Fetched<'_>,
        out: &mut [u8],
        refused: &dyn Fn(&'static str) -> ChunkedError,
        limits: &Limits,
    ) -> Result<usize, ChunkedError> {
        if self.left == 0 {
            return match self.hasher.take().map(Hasher::finish) {
                Some(found) if found != self.digest => Err(refused("its digest is another")),
                _ => Ok(0),
            };
        }
        let most = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let out = out.get_mut(..most).unwrap_or_default();
        let count = match &mut self.decoder {
            None => {
                out.fill(0);
                out.len()
            }
            Some(decoder) => loop {
                let input = fetched.fill(self.range.end)?;
                let ended = input.is_empty();
                let status = decoder.run_on_buffers(input, out);
                let status = status.map_err(|error| match is_zstd_window(&error) {
                    true => LimitError::new("a chunk", Limit::WindowBytes, limits.window_bytes, None).into(),
                    false => refused("it cannot be decompressed"),
                })?;
                fetched.consume(status.bytes_read);
                match status.bytes_written {
                    0 if ended => return Err(refused("it is too short")),
                    0 => {}
                    count => break count,
                }
            },
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(out.get(..count).unwrap_or_default());
        }
        self.left = self.left.saturating_sub(count as u64);
        Ok(count)
    }
}

/// What a source gives, with its place in the blob.
pub(super) struct Fetched<'a> {
    reader: Box<dyn Read + Send + 'a>,
    ranges: VecDeque<Range<u64>>,
    /// The range that is being read.
    current: Range<u64>,
    /// The place of the first byte of what is in the buffer.
    position: u64,
    buffer: Vec<u8>,
    at: usize,
}

impl<'a> Fetched<'a> {
    pub(super) fn new(reader: Box<dyn Read + Send + 'a>, ranges: Vec<Range<u64>>) -> Self {
        let (buffer, at) = (Vec::with_capacity(PIECE), 0);
        Fetched { reader, ranges: ranges.into(), current: 0..0, position: 0, buffer, at }
    }

    /// Goes to a place in the blob, which is in the range that is read or begins the next.
    fn seek(&mut self, start: u64) -> Result<(), ChunkedError> {
        loop {
            let end = if self.current.contains(&start) { start } else { self.current.end };
            while self.position < end {
                let skipped = self.fill(end)?.len();
                self.consume(skipped);
            }
            if self.position == start && self.current.contains(&start) {
                return Ok(());
            }
            let lost = || failed(&(start..start.saturating_add(1)))(io::ErrorKind::InvalidInput.into());
            self.current = self.ranges.pop_front().ok_or_else(lost)?;
            self.position = self.current.start;
        }
    }

    /// Bytes from here on, at most up to `end`; none if that is here.
    fn fill(&mut self, end: u64) -> Result<&[u8], ChunkedError> {
        let left =
            |to: u64, position: u64| usize::try_from(to.saturating_sub(position)).unwrap_or(usize::MAX);
        if self.at == self.buffer.len() && self.position < end.min(self.current.end) {
            self.buffer.resize(PIECE.min(left(self.current.end, self.position)), 0);
            self.at = 0;
            let read = loop {
                match self.reader.read(&mut self.buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            let read = read.and_then(|count| match count {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                count => Ok(count),
            });
            match read {
                Ok(count) => self.buffer.truncate(count),
                Err(error) => {
                    self.buffer.clear();
                    return Err(failed(&self.current)(error));
                }
            }
        }
        let there = self.buffer.get(self.at..).unwrap_or_default();
        Ok(there.get(..there.len().min(left(end, self.position))).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at = self.at.saturating_add(count);
        self.position = self.position.saturating_add(count as u64);
    }
}
