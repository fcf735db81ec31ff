//! A number that changes with every commit of any process, for two system calls and no lock.
//!
//! redb keeps two commit slots in the header page of its file, and one bit that says which of them counts; each slot
//! has the number of its transaction (redb's `docs/design.md`, "Database header"). They are read and not mapped: a
//! map of a file that somebody cuts short ends the process. The number says *that* something changed, never what: a
//! transaction says that.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::error::MetaError;
use crate::sys::file::File;
use crate::sys::path;
use crate::sys::stat::{FileId, stat};

/// The byte whose lowest bit picks the slot.
const GOD_BYTE: usize = 9;

/// Where the transaction numbers of the two slots stand.
const TRANSACTION_IDS: [usize; 2] = [168, 296];

/// The header of an open database file.
#[derive(Debug)]
pub(crate) struct ChangeCounter {
    path: PathBuf,
    file: File,
    id: FileId,
}

impl ChangeCounter {
    /// Opens the database at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self, MetaError> {
        let open = || -> io::Result<_> {
            let file = File::open(path)?;
            let id = stat(file.as_fd())?.id;
            Ok(ChangeCounter { path: path.to_owned(), file, id })
        };
        open().map_err(|source| MetaError::Open {
            path: path.to_owned(),
            source: Box::new(redb::Error::Io(source)),
        })
    }

    /// The number of the last commit. If it cannot be read, or the file is not the store's any more, it is
    /// [`u64::MAX`]: who looks closer because of that is told by the next transaction.
    pub(crate) fn current(&self) -> u64 {
        self.read().unwrap_or(u64::MAX)
    }

    fn read(&self) -> io::Result<u64> {
        if path::stat(&self.path)?.id != self.id {
            return Err(io::ErrorKind::StaleNetworkFileHandle.into());
        }
        let mut header = [0; 304];
        self.file.read_exact_at(&mut header, 0)?;
        let [first, second] = TRANSACTION_IDS;
        let god = header.get(GOD_BYTE).copied().unwrap_or_default();
        let at = if god & 1 == 0 { first } else { second };
        let number = header.get(at..).and_then(<[u8]>::first_chunk);
        Ok(number.copied().map(u64::from_le_bytes).unwrap_or_default())
    }
}
