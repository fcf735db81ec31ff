//! The beginning of an archive, looked at before anything is made for it.

use std::io::{self, Cursor, Read};

use crate::archive::Reader;
use crate::compress::Decoder;
use crate::error::{ArchiveError, ImportError};
use crate::types::Limits;

/// An archive whose beginning was read: it is read from the beginning all the same.
pub type Peeked<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// Reads an archive, in any compression that is known, up to its first member, and gives it back as it was. Who would make a store
/// for it knows then that it is an archive at least.
///
/// Returns [`ImportError::Archive`] if it is none, or is empty, or its first member asks for more than the default
/// [`Limits`] grant.
///
/// # Examples
///
/// ```
/// use std::io::Read;
///
/// assert!(layerstore::peek_archive(&b"no tar"[..]).is_err());
/// let tar = [0; 1024]; // one without a member
/// let mut archive = layerstore::peek_archive(&tar[..])?;
/// let mut bytes = Vec::new();
/// archive.read_to_end(&mut bytes).unwrap();
/// assert_eq!(bytes, tar);
/// # Ok::<(), layerstore::ImportError>(())
/// ```
pub fn peek_archive<R: Read>(archive: R) -> Result<Peeked<R>, ImportError> {
    peek_archive_within(archive, "the archive", &Limits::DEFAULT)
}

/// The same, of an archive that errors call `name`, for a store that grants other limits.
///
/// Returns what [`peek_archive`] does.
pub fn peek_archive_within<R: Read>(
    mut archive: R,
    name: &str,
    limits: &Limits,
) -> Result<Peeked<R>, ImportError> {
    let mut seen = Vec::new();
    let recorder = Recorder { inner: &mut archive, seen: &mut seen };
    let mut decoder = Decoder::new(recorder, limits)?.called(name);
    let mut first = [0; 1];
    let read = decoder.read(&mut first)?;
    if read == 0 {
        return Err(ArchiveError::Empty.into());
    }
    let input = first.get(..read).unwrap_or_default().chain(decoder);
    Reader::with_limits(input, (), *limits).next_entry()?;
    Ok(Cursor::new(seen).chain(archive))
}

/// Keeps what is read through it.
struct Recorder<'r, R> {
    inner: &'r mut R,
    seen: &'r mut Vec<u8>,
}

impl<R: Read> Read for Recorder<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.seen.extend_from_slice(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}
