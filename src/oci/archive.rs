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
use super::tar_index::TarIndex;
use crate::compress::{Compression, Decoder, is_zero};
use crate::error::OciError;
use crate::sys::file::File;
use crate::sys::path;
use crate::types::Limits;

/// Opens an archive. What a compressed one decompresses to goes into `tmp_dir`.
pub(super) fn open(path: &Path, tmp_dir: &Path, limits: &Limits) -> Result<TarIndex, OciError> {
    // A pipe is opened once only: with a second handle, its writer could come and go between the two.
    match path::stat(path).map_err(io_error("stat", path))?.kind {
        FileType::RegularFile => {}
        FileType::Fifo | FileType::CharacterDevice => {
            let pipe = File::open(path).map_err(io_error("open", path))?;
            return spool(pipe, path, tmp_dir, limits);
        }
        _ => return Err(OciError::FileKind { path: path.to_owned(), expected: "an archive file" }),
    }
    let mut file = File::open(path).map_err(io_error("open", path))?;
    let compression = Compression::of(&mut file).map_err(io_error("read", path))?;
    file.rewind().map_err(io_error("read", path))?;
    if compression == Compression::None {
        return TarIndex::read(Arc::new(file), path, limits);
    }
    spool(file, path, tmp_dir, limits)
}

/// Takes in an archive that cannot be read at an offset: a compressed one, or a pipe such as `/dev/stdin`.
fn spool(archive: File, path: &Path, tmp_dir: &Path, limits: &Limits) -> Result<TarIndex, OciError> {
    let plain = anonymous_file(tmp_dir)?;
    let mut archive =
        Decoder::new(archive, limits).map_err(io_error("read", path))?.called(path.display().to_string());
    decompress(&mut archive, &plain).map_err(blob_error("decompress", path))?;
    TarIndex::read(Arc::new(plain), path, limits)
}

/// Writes what is in a stream to a file. Memory is bounded, and so is what comes of it; zeros, which bombs are made of, become
/// holes that take no space.
fn decompress(from: &mut impl Read, to: &File) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut length = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return to.set_length(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        if !is_zero(bytes) {
            to.write_all_at(bytes, length)?;
        }
        length = length.saturating_add(count as u64);
    }
}
