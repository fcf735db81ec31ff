//! The file of a database: what stands at its path, and whether it can be one.
//!
//! Nothing but a regular file is opened. A fifo would be waited for without end, a device does something when it is opened, and a
//! symbolic link may lead to any file of the machine.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FileType;

use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::path;
use crate::sys::stat::{FileId, Stat, describe};

/// Where the header says how large pages and regions are, and what every store says there: pages of 4 KiB, regions of 4 GiB
/// without pages of their own. redb checks that these numbers are possible, and takes memory for each region of the file.
const GEOMETRY: (u64, [u8; 12]) = (12, [0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);

/// No database is longer, for the same reason: some hundred regions.
const LONGEST: u64 = 1 << 40;

/// Which file stands at the path of a database.
///
/// Returns [`MetaError::NotFile`] if something else does.
pub(super) fn examine(path: &Path) -> Result<FileId, MetaError> {
    match path::stat_itself(path).map_err(failed(path))? {
        Stat { kind: FileType::RegularFile, id, .. } => Ok(id),
        Stat { kind, .. } => Err(no_file(path, kind)),
    }
}

/// Opens it, for writing too if `writes`.
///
/// Returns what [`examine`] does.
pub(super) fn open(path: &Path, writes: bool) -> Result<(File, FileId), MetaError> {
    match path::open_regular(path, writes).map_err(failed(path))? {
        Ok((file, found)) => Ok((file, found.id)),
        Err(kind) => Err(no_file(path, kind)),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> MetaError {
    move |source| MetaError::Open { path: path.to_owned(), source: Box::new(source.into()) }
}

fn no_file(path: &Path, kind: FileType) -> MetaError {
    MetaError::NotFile { path: path.to_owned(), what: describe(kind) }
}

/// Refuses a file for which redb would take any amount of memory, and an empty one, which it would make a database.
pub(super) fn check_geometry(file: &File) -> io::Result<()> {
    let (offset, expected) = GEOMETRY;
    let mut found = expected;
    let read = file.read_exact_at(&mut found, offset);
    if let Err(error) = read {
        return Err(match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::new(io::ErrorKind::InvalidData, "the file is cut short")
            }
            _ => error,
        });
    }
    if found != expected || file.length()? > LONGEST {
        let reason = "it says of itself that its pages or its length are others than a store's";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(())
}
