//! Decompression of whatever comes.

use std::fmt;
use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::{Compression, HEAD, bzip2, gzip, is_zero};
use crate::error::{Limit, LimitError};
use crate::types::{Budget, Limits};

/// The exponents that a zstd window can have.
const ZSTD_WINDOW_LOGS: std::ops::RangeInclusive<u32> = 10..=31;
/// The memory that the xz decoder needs for itself, beside its dictionary.
const XZ_STATE: u64 = 16 << 20;
/// How much is asked of the source at once.
const BUFFER: usize = 128 * 1024;
/// So many zeros in a row count for the expansion like other bytes: the next ones take nothing on the disk, as whoever writes them
/// leaves a hole in the middle of so many.
const ZEROS_WRITTEN: u64 = 256 * 1024;

/// Reads a stream decompressed, whichever of the known compressions it has.
///
/// Memory is bounded: a stream that wants a larger window or dictionary than is granted is refused. So is what comes out:
/// no more is given than is granted, of which most is refused with one buffer more than that decoded. Streams that are
/// [`within`](Self::within) one budget are measured together.
///
/// # Errors
///
/// Reading fails with a [`LimitError`] inside if the stream asks for more than is granted, with
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the stream ends inside a member, frame or block, and with another kind if it
/// is malformed or its checksum is wrong.
pub(crate) struct Decoder<R: Read> {
    /// What the stream is called in errors.
    name: String,
    compression: Compression,
    format: Format<Source<R>>,
    budget: Budget,
    /// How many bytes of the stream were read, some of them ahead.
    taken: Arc<AtomicU64>,
    /// How many bytes came out.
    given: u64,
    /// How many of them were zeros that expand as they like.
    zeros: u64,
    /// How many zeros came one after the other, up to now.
    run: u64,
    /// The most bytes that were given at any time beyond what the expansion grants for those that were read.
    beyond: u64,
}

/// The stream with its head put back.
type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, Counted<R>>>;

/// Counts what is read through it. The decoders keep their source to themselves, so the count is beside it.
struct Counted<R> {
    inner: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.taken.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(count)
    }
}

enum Format<S: io::BufRead> {
    None(S),
    Gzip(Box<gzip::Members<S>>),
    Zstd(zstd::stream::read::Decoder<'static, S>),
    Bzip2(bzip2::Members<S>),
    Xz(XzDecoder<S>),
}

impl<R: Read> Decoder<R> {
    /// Reads the head of `source` and tells its compression by it.
    pub(crate) fn new(source: R, limits: &Limits) -> io::Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let mut source = Counted { inner: source, taken: Arc::clone(&taken) };
        let mut head = Vec::with_capacity(HEAD);
        source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        let compression = Compression::detect(&head);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
        let format = match compression {
            Compression::None => Format::None(source),
            Compression::Gzip => Format::Gzip(Box::new(gzip::Members::new(source))),
            Compression::Zstd | Compression::ZstdChunked => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(zstd_window_log(limits))?;
                Format::Zstd(decoder)
            }
            Compression::Bzip2 => Format::Bzip2(bzip2::Members::new(source)),
            Compression::Xz => {
                let stream =
                    Stream::new_stream_decoder(limits.window_bytes.saturating_add(XZ_STATE), CONCATENATED)?;
                Format::Xz(XzDecoder::new_stream(source, stream))
            }
        };
        let name = "the blob".to_owned();
        let budget = Budget::new(limits);
        Ok(Decoder { name, compression, format, budget, taken, given: 0, zeros: 0, run: 0, beyond: 0 })
    }

    /// The same, with a name for the stream in errors.
    pub(crate) fn called(self, name: impl Into<String>) -> Self {
        Decoder { name: name.into(), ..self }
    }

    /// The same, as one of several streams that have no more than is left of a budget, with whose limits it was made.
    pub(crate) fn within(self, budget: &Budget) -> Self {
        Decoder { budget: budget.clone(), ..self }
    }

    /// The compression that was found.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }

    /// Counts what came out, before anybody has it.
    fn count(&mut self, bytes: &[u8]) -> Result<(), LimitError> {
        let count = bytes.len() as u64;
        self.given = self.given.saturating_add(count);
        self.budget.take_unpacked(count, &self.name)?;
        if self.compression == Compression::None {
            return Ok(());
        }
        // Disks of virtual machines and swap files begin with any number of zeros; beyond what is granted they are a bomb's.
        self.run = if is_zero(bytes) { self.run.saturating_add(count) } else { 0 };
        let holes = self.run.saturating_sub(ZEROS_WRITTEN).min(count);
        self.zeros = self.zeros.saturating_add(self.budget.take_zeros(holes));
        let expanded = self.given.saturating_sub(self.zeros);
        let taken = self.budget.delivered(self.taken.load(Ordering::Relaxed));
        let granted = self.budget.limits().expansion;
        let beyond = expanded.saturating_sub(taken.saturating_mul(granted));
        let more = beyond.saturating_sub(self.beyond);
        self.beyond = self.beyond.max(beyond);
        // What one stream may have beyond it, all streams of an image have together.
        let is_left = more == 0 || self.budget.take_expanded(more);
        let found = expanded.div_ceil(taken.max(1));
        if !is_left || expanded > self.budget.limits().expansion_floor && found > granted {
            return Err(LimitError::new(&*self.name, Limit::Expansion, granted, Some(found)));
        }
        Ok(())
    }

    /// A window that is not granted is told by its name; the decoders have words of their own for it.
    fn told(&self, error: io::Error) -> io::Error {
        let is_xz = |error: &io::Error| {
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
            matches!(inner, Some(liblzma::stream::Error::MemLimit))
        };
        // Said where a frame has to begin.
        if self.given > 0 && error.to_string() == "Unknown frame descriptor" {
            return super::behind("zstd");
        }
        let wants_memory = match self.compression {
            Compression::Zstd => is_zstd_window(&error),
            Compression::Xz => is_xz(&error),
            _ => false,
        };
        if !wants_memory {
            return error;
        }
        LimitError::new(&*self.name, Limit::WindowBytes, self.budget.limits().window_bytes, None).into()
    }
}

/// The largest zstd window that is granted, as a power of two.
pub(crate) fn zstd_window_log(limits: &Limits) -> u32 {
    let (least, most) = ZSTD_WINDOW_LOGS.into_inner();
    limits.window_bytes.max(1).ilog2().clamp(least, most)
}

/// Whether a zstd decoder fails because the window is larger than it may be: it says so as text only.
pub(crate) fn is_zstd_window(error: &io::Error) -> bool {
    error.to_string() == "Frame requires too much memory for decoding"
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.format {
            Format::None(stream) => stream.read(buffer),
            Format::Gzip(stream) => stream.read(buffer),
            Format::Zstd(stream) => stream.read(buffer),
            Format::Bzip2(stream) => stream.read(buffer),
            Format::Xz(stream) => stream.read(buffer),
        };
        let count = read.map_err(|error| self.told(error))?;
        self.count(buffer.get(..count).unwrap_or_default())?;
        Ok(count)
    }
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}
