//! Image archives: a tar, plain or compressed, read in any order without unpacking.
//!
//! Blobs are read from the archive at their offset. A compressed archive has no offsets, so it is first
//! decompressed into a nameless temporary file, with little memory. The file disappears with its last reader.

use std::io::{self, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use super::dir::{anonymous_file, blob_error, io_error};
use super::media_type::LayerCompression;
use super::tar_index::TarIndex;
use crate::compress::Decoder;
use crate::error::OciError;
use crate::sys::file::File;
use crate::sys::path;
use crate::types::Limits;

/// Opens an archive. What a compressed one decompresses to goes into `tmp_dir`.
pub(super) fn open(path: &Path, tmp_dir: &Path, limits: &Limits) -> Result<TarIndex, OciError> {
    // A pipe is opened once only: with a second handle, its writer could come and go between the two.
    match path::stat(path).map_err(io_error("stat", path))?.kind {
        FileType::RegularFile => {}
        FileType::Fifo | FileType::CharacterDevice => return spool(path, tmp_dir, limits),
        _ => return Err(OciError::FileKind { path: path.to_owned(), expected: "an archive file" }),
    }
    let file = File::open(path).map_err(io_error("open", path))?;
    let mut start = [0; 8];
    let count = read_start(&file, &mut start).map_err(io_error("read", path))?;
    let compression = detect(start.get(..count).unwrap_or_default());
    if compression == LayerCompression::None {
        return TarIndex::read(Arc::new(file), path, limits);
    }
    let plain = anonymous_file(tmp_dir)?;
    decompress(file, &plain, limits).map_err(blob_error("decompress", path))?;
    TarIndex::read(Arc::new(plain), path, limits)
}

/// Takes in an archive that cannot be read at an offset, such as `/dev/stdin`.
fn spool(path: &Path, tmp_dir: &Path, limits: &Limits) -> Result<TarIndex, OciError> {
    let mut pipe = File::open(path).map_err(io_error("open", path))?;
    let mut start = Vec::new();
    Read::by_ref(&mut pipe).take(8).read_to_end(&mut start).map_err(io_error("read", path))?;
    let plain = anonymous_file(tmp_dir)?;
    let stream = io::Cursor::new(start).chain(pipe);
    decompress(stream, &plain, limits).map_err(blob_error("decompress", path))?;
    TarIndex::read(Arc::new(plain), path, limits)
}

fn read_start(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut file = file;
    let mut start = Vec::new();
    file.take(buffer.len() as u64).read_to_end(&mut start)?;
    file.rewind()?;
    if let Some(buffer) = buffer.get_mut(..start.len()) {
        buffer.copy_from_slice(&start);
    }
    Ok(start.len())
}

/// The compression that the first bytes of some data speak for.
pub(super) fn detect(start: &[u8]) -> LayerCompression {
    match start {
        [0x1f, 0x8b, ..] => LayerCompression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => LayerCompression::Zstd,
        // A skippable frame, as zstd:chunked and pzstd write them.
        [low, 0x2a, 0x4d, 0x18, ..] if (0x50..=0x5f).contains(low) => LayerCompression::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => LayerCompression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => LayerCompression::Xz,
        _ => LayerCompression::None,
    }
}

/// Writes what is in a stream to a file. Memory is bounded, and so is what comes of it; zeros, which bombs are made of, become
/// holes that take no space.
fn decompress(from: impl Read, to: &File, limits: &Limits) -> io::Result<()> {
    let mut reader = Decoder::new(from, limits)?;
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return to.set_length(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.iter().any(|&byte| byte != 0) {
            to.write_all_at(bytes, length)?;
        }
        length = length.saturating_add(count as u64);
    }
}
