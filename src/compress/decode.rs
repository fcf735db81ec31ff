//! Decompression of whatever comes.

use std::fmt;
use std::io::{self, BufReader, Cursor, Read};

use bzip2::bufread::MultiBzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::gzip::Members;
use super::{Compression, HEAD};

/// The largest zstd window granted, as a power of two: what `zstd -d` grants, and what `--ultra -22` uses.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The memory granted to the xz decoder: twice the dictionary of `xz -9`, and a margin for its own state.
const XZ_MEMORY_MAX: u64 = (1 << 27) + (1 << 24);
/// How much is asked of the source at once.
const BUFFER: usize = 128 * 1024;

/// Reads a stream decompressed, whichever of the known compressions it has.
///
/// Memory is bounded: a stream that wants a larger window or dictionary than is granted is refused.
///
/// # Errors
///
/// Reading fails with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the stream ends inside a member, frame or
/// block, and with another kind if it is malformed or its checksum is wrong.
pub(crate) struct Decoder<R: Read> {
    compression: Compression,
    format: Format<Source<R>>,
}

/// The stream with its head put back.
type Source<R> = BufReader<io::Chain<Cursor<Vec<u8>>, R>>;

enum Format<S: io::BufRead> {
    None(S),
    Gzip(Box<Members<S>>),
    Zstd(zstd::stream::read::Decoder<'static, S>),
    Bzip2(MultiBzDecoder<S>),
    Xz(XzDecoder<S>),
}

impl<R: Read> Decoder<R> {
    /// Reads the head of `source` and tells its compression by it.
    pub(crate) fn new(mut source: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD);
        source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        let compression = Compression::detect(&head);
        let source = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(source));
        let format = match compression {
            Compression::None => Format::None(source),
            Compression::Gzip => Format::Gzip(Box::new(Members::new(source))),
            Compression::Zstd | Compression::ZstdChunked => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Format::Zstd(decoder)
            }
            Compression::Bzip2 => Format::Bzip2(MultiBzDecoder::new(source)),
            Compression::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)?;
                Format::Xz(XzDecoder::new_stream(source, stream))
            }
        };
        Ok(Decoder { compression, format })
    }

    /// The compression that was found.
    pub(crate) fn compression(&self) -> Compression {
        self.compression
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.format {
            Format::None(stream) => stream.read(buffer),
            Format::Gzip(stream) => stream.read(buffer),
            Format::Zstd(stream) => stream.read(buffer),
            Format::Bzip2(stream) => stream.read(buffer),
            Format::Xz(stream) => stream.read(buffer),
        }
    }
}

impl<R: Read> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}
