//! The file of a database: what stands at its path, and whether it can be one.
//!
//! Nothing but a regular file is opened. A fifo would be waited for without end, a device does something when it is opened, and a
//! symbolic link may lead to any file of the machine.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FileType;

use super::page;
use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::path;
use crate::sys::stat::{FileId, Stat, describe};

/// How a file of redb begins.
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// What every store says of its pages and regions, at the end of the part of the header that never changes: pages of 4 KiB, regions of
/// 4 GiB without pages of their own. redb checks that these numbers are possible, and takes memory for each region of the file.
const GEOMETRY: [u8; 12] = [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0];

/// The length of that part.
const HEADER: usize = 24;

/// No database is as long, for the same reason: some hundred regions.
const LONGEST: u64 = (1 << 40) + 1;

/// Which file stands at the path of a database.
///
/// Returns [`MetaError::NotFile`] if something else does.
pub(super) fn examine(path: &Path) -> Result<FileId, MetaError> {
    match path::stat_itself(path).map_err(failed(path))? {
        Stat { kind: FileType::RegularFile, id, .. } => Ok(id),
        Stat { kind, .. } => Err(no_file(path, kind)),
    }
}

/// Opens it, for writing too if `writes`, and says what it was when it was opened.
///
/// Returns what [`examine`] does.
pub(super) fn open(path: &Path, writes: bool) -> Result<(File, Stat), MetaError> {
    path::open_regular(path, writes).map_err(failed(path))?.map_err(|kind| no_file(path, kind))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MetaError {
    |error| opening_failed(path, error.into())
}

fn no_file(path: &Path, kind: FileType) -> MetaError {
    MetaError::NotFile { path: path.to_owned(), what: describe(kind) }
}

/// Refuses a file of this length that cannot be a store's: an empty one, which redb would make a database, and one for which it would
/// take any amount of memory.
///
/// Returns [`MetaError::NotADatabase`] if it is one of these.
pub(super) fn check_header(file: &File, length: u64, path: &Path) -> Result<(), MetaError> {
    let mut header = [0; HEADER];
    let reason = match length {
        0 => "the file is empty",
        LONGEST.. => "the file is longer than that of any store",
        _ => match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the file is cut short",
            Err(error) => return Err(failed(path)(error)),
            Ok(()) if !header.starts_with(&MAGIC) => "the file does not begin as one",
            Ok(()) if !header.ends_with(&GEOMETRY) => {
                "the file says of itself that its pages are others than a store's"
            }
            Ok(()) => return Ok(()),
        },
    };
    Err(no_database(path, reason.to_owned()))
}

fn no_database(path: &Path, reason: String) -> MetaError {
    MetaError::NotADatabase { path: path.to_owned(), reason, readable: false }
}

/// A file that can be read, and is cut short: [`cut`] says how.
pub(super) fn cut_short(path: &Path, reason: String) -> MetaError {
    MetaError::NotADatabase { path: path.to_owned(), reason, readable: true }
}

/// What became of reading in the file at `path`, which could be opened.
pub(super) fn reading_failed(path: &Path, error: redb::Error) -> MetaError {
    match opening_failed(path, error) {
        MetaError::NotADatabase { path, reason, .. } => {
            MetaError::NotADatabase { path, reason, readable: true }
        }
        error => error,
    }
}

/// What became of opening the file at `path`, in the words of who opened a file that is damaged: it is not known to be readable.
pub(super) fn opening_failed(path: &Path, error: redb::Error) -> MetaError {
    let reason = match error {
        redb::Error::Corrupted(reason) => cut_at(path).unwrap_or(reason),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            cut_at(path).unwrap_or_else(|| "the file is cut short".to_owned())
        }
        redb::Error::UpgradeRequired(version) => {
            format!("its pages are of version {version}, which is none that this release reads")
        }
        error => return MetaError::Open { path: path.to_owned(), source: Box::new(error) },
    };
    no_database(path, reason)
}

/// As [`cut`], of what stands at `path`, for who did not come to have it open.
fn cut_at(path: &Path) -> Option<String> {
    cut(&path::open_regular(path, false).ok()?.ok()?.0)
}

/// Says so if the file is shorter than its header says. That alone is no damage: so it is where a writer died before his commit, who left
/// a mark, and the next one looks after it.
pub(super) fn cut(file: &File) -> Option<String> {
    let length = file.length().ok()?;
    let mut header = [0; page::LAYOUT_END];
    let whole = match file.read_exact_at(&mut header, 0) {
        Ok(()) if header.starts_with(&MAGIC) => page::said_length(&header)?,
        _ => return None,
    };
    (length < whole).then(|| format!("the file is cut short: it has {length} of {whole} bytes"))
}
