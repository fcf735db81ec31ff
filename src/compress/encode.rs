//! Compression of what goes out.

use std::fmt;
use std::io::{self, Write};
use std::ops::RangeInclusive;

use flate2::GzBuilder;
use flate2::write::GzEncoder;

use super::Compression;
use crate::error::CompressError;

const GZIP_LEVELS: RangeInclusive<i32> = 0..=9;
const GZIP_DEFAULT: i32 = 6;
const ZSTD_LEVELS: RangeInclusive<i32> = 1..=22;
const ZSTD_DEFAULT: i32 = 3;
/// RFC 1952: the operating system is not known. The header says nothing of the machine it was made on.
const GZIP_OS_UNKNOWN: u8 = 255;

/// Compresses what is written into it.
///
/// # Close semantics
///
/// The stream is complete only after [`finish`](Encoder::finish); an encoder that is dropped before leaves a stream
/// that readers refuse as cut off.
pub(crate) struct Encoder<W: Write> {
    compression: Compression,
    format: Format<W>,
}

enum Format<W: Write> {
    None(W),
    Gzip(Box<GzEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// Starts a stream. Without a level, gzip has 6 and zstd has 3, the defaults of their own tools.
    ///
    /// Returns [`CompressError::ReadOnly`] for bzip2 and xz, [`CompressError::Level`] if the level is not one of
    /// 0 to 9 for gzip and 1 to 22 for zstd, and [`CompressError::NoLevels`] if there is a level but no
    /// compression.
    pub(crate) fn new(inner: W, compression: Compression, level: Option<i32>) -> Result<Self, CompressError> {
        let format = match compression {
            Compression::None if level.is_some() => return Err(CompressError::NoLevels),
            Compression::None => Format::None(inner),
            Compression::Gzip => {
                let level = checked(compression, level.unwrap_or(GZIP_DEFAULT), GZIP_LEVELS)?;
                let level = flate2::Compression::new(level.unsigned_abs());
                let header = GzBuilder::new().mtime(0).operating_system(GZIP_OS_UNKNOWN);
                Format::Gzip(Box::new(header.write(inner, level)))
            }
            Compression::Zstd => {
                let level = zstd_level(level)?;
                let mut encoder =
                    zstd::stream::write::Encoder::new(inner, level).map_err(CompressError::Start)?;
                encoder.include_checksum(true).map_err(CompressError::Start)?;
                Format::Zstd(encoder)
            }
            // That form needs who understands the archive.
            Compression::ZstdChunked | Compression::Bzip2 | Compression::Xz => {
                return Err(CompressError::ReadOnly { compression: compression.name() });
            }
        };
        Ok(Encoder { compression, format })
    }

    /// Ends the stream and gives the writer back, with nothing of the stream left to write.
    pub(crate) fn finish(self) -> io::Result<W> {
        match self.format {
            Format::None(inner) => Ok(inner),
            Format::Gzip(encoder) => encoder.finish(),
            Format::Zstd(encoder) => encoder.finish(),
        }
    }
}

/// The level of a zstd stream, if it has one.
pub(crate) fn zstd_level(level: Option<i32>) -> Result<i32, CompressError> {
    checked(Compression::Zstd, level.unwrap_or(ZSTD_DEFAULT), ZSTD_LEVELS)
}

fn checked(compression: Compression, level: i32, levels: RangeInclusive<i32>) -> Result<i32, CompressError> {
    if levels.contains(&level) {
        return Ok(level);
    }
    let (lowest, highest) = levels.into_inner();
    Err(CompressError::Level { compression: compression.name(), level, lowest, highest })
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.format {
            Format::None(inner) => inner.write(bytes),
            Format::Gzip(encoder) => encoder.write(bytes),
            Format::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.format {
            Format::None(inner) => inner.flush(),
            Format::Gzip(encoder) => encoder.flush(),
            Format::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("compression", &self.compression).finish_non_exhaustive()
    }
}
