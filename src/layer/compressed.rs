//! A layer's tar on its way out, in any compression.

use std::io::{self, BufWriter, Write};

use crate::chunked::{self, ChunkedBlob};
use crate::compress::{Compression, Encoder, zstd_level};
use crate::error::{Error, ExportError};

/// How much is collected before it is compressed.
const BUFFER: usize = 128 * 1024;

/// Writes to `out` what `write` writes, compressed. Returns `out`, and where the table of contents is if it has one; with that,
/// `write` runs on a thread of its own.
///
/// Returns [`ExportError::Compress`] if the compression is one that is only read, or has no such level.
pub(crate) fn compressed<W: Write>(
    out: W,
    compression: Compression,
    level: Option<i32>,
    write: impl FnOnce(&mut dyn Write) -> Result<(), Error> + Send,
) -> Result<(W, Option<ChunkedBlob>), Error> {
    if compression == Compression::ZstdChunked {
        let level = zstd_level(level).map_err(ExportError::Compress)?;
        let written = chunked::pipe(
            |tar| write(tar).map_err(Failed),
            |tar| chunked::encode(tar, out, level).map_err(|error| Failed(error.into())),
        );
        return written.map(|(out, blob)| (out, Some(blob))).map_err(|Failed(error)| error);
    }
    let encoder = Encoder::new(out, compression, level).map_err(ExportError::Compress)?;
    let mut buffered = BufWriter::with_capacity(BUFFER, encoder);
    write(&mut buffered)?;
    let encoder = buffered.into_inner().map_err(|error| ExportError::Io(error.into_error()))?;
    Ok((encoder.finish().map_err(ExportError::Io)?, None))
}

/// What went wrong at either end of the pipe.
struct Failed(Error);

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Failed(ExportError::Io(error).into())
    }
}
