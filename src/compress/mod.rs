//! Compression formats: detect, decode, encode. Knows nothing of tar.
//!
//! | format | told by | read | written |
//! | --- | --- | --- | --- |
//! | none | nothing below | yes | yes |
//! | gzip | `1f 8b 08` | all members, zero padding after them | yes, the same bytes every time |
//! | zstd | `28 b5 2f fd`, or a skippable frame | all frames, window limited | yes |
//! | bzip2 | `BZh`, a digit, a block's or the stream's end mark | all streams, of which few are small | no |
//! | xz | `fd 37 7a 58 5a 00` | all streams, memory limited | no |
//!
//! A stream is told by its content: media types and file names lie. A stream that ends too early is an error of
//! kind [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof), never a silent end.

use std::io::{self, Read};

mod bzip2;
mod decode;
mod encode;
mod gzip;
mod members;

pub(crate) use decode::{Decoder, is_zstd_window, zstd_window_log};
pub(crate) use encode::{Encoder, zstd_level};

/// How a stream is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip (RFC 1952): what most registries hold.
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// Zstandard in a form whose files can be fetched one by one ([`ChunkedBlob`](crate::ChunkedBlob)). Only written: what
    /// reads it reads [`Zstd`](Self::Zstd).
    ZstdChunked,
    /// Bzip2. Only read.
    Bzip2,
    /// Xz. Only read.
    Xz,
}

/// How many bytes [`Compression::detect`] looks at.
const HEAD: usize = 10;

impl Compression {
    /// Tells the compression by the first bytes of a stream; ten are enough, and fewer do if there are no more.
    pub fn detect(prefix: &[u8]) -> Self {
        match prefix {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            // Three letters alone could be the name of a tar's first member.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, 0x50, 0x90, ..] => Compression::Bzip2,
            _ => Compression::None,
        }
    }

    /// The compression of a stream, of which the beginning is read.
    pub(crate) fn of(stream: impl Read) -> io::Result<Self> {
        let mut head = Vec::with_capacity(HEAD);
        stream.take(HEAD as u64).read_to_end(&mut head)?;
        Ok(Compression::detect(&head))
    }

    /// The compression with this [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Zstd, Self::ZstdChunked, Self::Bzip2, Self::Xz]
            .into_iter()
            .find(|one| one.name() == name)
    }

    /// The name, as media types and messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::ZstdChunked => "zstd:chunked",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }
}

/// Says that something stands behind a stream which is not part of it.
fn behind(format: &str) -> io::Error {
    let reason = format!("the {format} stream has ended, and what stands behind it is no other one");
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// Whether there are only zeros. Blocks without a branch inside are compared fastest.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(256).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests;
