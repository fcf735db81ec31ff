//! Snapshots for who deletes what no row names. A reader takes what it reads for right, and a bit that has flipped in the number
//! of a directory makes that directory one which no row names.
//!
//! So the pages by which it is told what is needed are held against their checksums before: in the file, from its header down to
//! the rows, with the snapshot begun, so that nobody writes to them meanwhile. That takes no lock, and nobody waits for it. It
//! costs one reading of these tables; what images have in bytes, which is most of a file, is none of them. And where the file
//! has the mark of a commit, that commit is brought to the disk first, with the write lock if nobody has it.

use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use layerstore_schema::table;
use redb::TableHandle;

use super::backend::{Backend, bring_to_disk};
use super::file;
use super::page::{self, Commit, HEADER, TableRow};
use super::system::{self, Fault, Kind, TABLES, Walk};
use super::{Database, ReadTxn};
use crate::error::MetaError;
use crate::sys::call::{Call, call};
use crate::sys::file::File;
use crate::sys::moment;

/// How often somebody may commit while a snapshot is begun. That takes microseconds, and a commit milliseconds.
const TRIES: u32 = 1000;

/// The tables by which anything is deleted: the records that name directories and files, the note of where more of them are, and
/// the indexes that say what stands on what.
fn deciding() -> [&'static str; 14] {
    [
        table::META.name(),
        table::FACTS.name(),
        table::LAYERS.name(),
        table::IMAGES.name(),
        table::CONTAINERS.name(),
        table::DIFFS.name(),
        table::KEPT_BLOBS.name(),
        table::LEASES.name(),
        table::CHILDREN.name(),
        table::LAYERS_BY_DIGEST.name(),
        table::IMAGES_BY_DIGEST.name(),
        table::IMAGES_BY_LAYER.name(),
        table::CONTAINERS_BY_IMAGE.name(),
        table::CONTAINERS_BY_LAYER.name(),
    ]
}

impl Database {
    /// As [`begin_read`](Self::begin_read), of a file in which every page of the deciding tables is as it was written, and of a commit
    /// that is on the disk: for who deletes what he does not find.
    ///
    /// Returns [`MetaError::Damaged`] if one is not, or if what redb keeps for itself is damaged.
    pub(crate) fn begin_verified_read(&self) -> Result<ReadTxn, MetaError> {
        self.begin_verified(&deciding())
    }

    /// As [`begin_verified_read`](Self::begin_verified_read), where nothing is decided by but the note of where the containers are
    /// that the next boot drops.
    ///
    /// Returns what that does.
    pub(crate) fn begin_read_with_note(&self) -> Result<ReadTxn, MetaError> {
        self.begin_verified(&[table::META.name()])
    }

    /// Verifies what redb keeps for itself, which who only reads does not come to.
    ///
    /// Returns [`MetaError::Damaged`] if it is damaged.
    pub(crate) fn verify_own(&self) -> Result<(), MetaError> {
        self.begin_verified(&[]).map(drop)
    }

    /// Brings the last commit to the disk, which may not be there if the file has the mark. Else something is
    /// deleted that the one before names, and a power cut leaves that one.
    ///
    /// Who holds the write lock has done that himself before he wrote, and waiting for him may be waiting for the caller: then what
    /// is in the kernel's memory is synced.
    fn bring_last_commit_to_disk(&self, file: &File) -> Result<(), MetaError> {
        if !self.options().sync || self.options().read_only {
            return Ok(());
        }
        let locked = || {
            let writer = self.open_writer_within(Duration::ZERO, Backend::trusting)?;
            let txn = self.begin_write(&writer)?;
            // The transaction goes before the handle.
            Ok((writer, txn))
        };
        let backend = |file: &File| {
            let file = file.try_clone().map_err(|source| self.io_error(source))?;
            self.file_backend(file).map_err(|error| self.writer_error(error))
        };
        let done = match locked() {
            Ok((writer, _txn)) => bring_to_disk(&*backend(&writer.file)?),
            Err(MetaError::Locked { .. }) => {
                let backend = backend(file)?;
                call(Call::Sync, || backend.sync_data())
            }
            Err(error) => return Err(error),
        };
        done.map_err(|source| self.io_error(source))
    }

    fn begin_verified(&self, tables: &[&str]) -> Result<ReadTxn, MetaError> {
        let io_error = |source| self.io_error(source);
        let mut flaw = None;
        for _ in 0..TRIES {
            let file = self.open_file(false)?;
            let header = read_header(&file).map_err(io_error)?;
            let txn = self.begin_read()?;
            if self.reads_the_rest() {
                flaw = Some("what the database library keeps for itself is damaged");
                break;
            }
            // Then it is the one that the snapshot is of.
            let now = read_header(&file).map_err(io_error)?;
            moment::pass("to verify a snapshot");
            match (Commit::read(&header), Commit::read(&now)) {
                (Ok(before), Ok(commit)) if before == commit => match verify_all(&file, &commit, tables) {
                    Ok(()) if page::is_marked(&header) => {
                        return self.bring_last_commit_to_disk(&file).map(|()| txn);
                    }
                    Ok(()) => match cut_unmarked(&file, &header).map_err(io_error)? {
                        Some(reason) => return Err(file::cut_short(self.path(), reason)),
                        None => return Ok(txn),
                    },
                    // What this one lists as freed the next one frees, and with it goes the end of the file.
                    Err(_) if !is_last(&file, &commit) => flaw = None,
                    Err(Fault::Io(error)) => return Err(io_error(error)),
                    Err(Fault::Damaged(found)) => {
                        flaw = Some(found);
                        break;
                    }
                },
                (Ok(_), Ok(_)) => flaw = None,
                // Somebody may have written it while it was read.
                (Err(found), _) | (_, Err(found)) => flaw = Some(found),
            }
        }
        let Some(reason) = flaw else { return Err(io_error(io::ErrorKind::Interrupted.into())) };
        tracing::warn!(path = %self.path().display(), reason, "nothing is deleted by a damaged database");
        // In the words of who comes to the end of the file, as every writer does.
        let cut = self.open_file(false).ok().and_then(|file| file::cut(&file));
        Err(match cut {
            Some(reason) => file::cut_short(self.path(), reason),
            None => MetaError::Damaged { path: self.path().to_owned() },
        })
    }
}

/// Says so if the file is shorter than this header says, which has no mark: no writer left it so, or opens it. Who cuts off the end of the
/// file beside this marks the header before.
fn cut_unmarked(file: &File, header: &[u8; HEADER]) -> io::Result<Option<String>> {
    let reason = file::cut(file);
    Ok(if read_header(file)? == *header { reason } else { None })
}

/// These tables, and what redb keeps for itself.
fn verify_all(file: &File, commit: &Commit, tables: &[&str]) -> Result<(), Fault> {
    verify(file, commit, tables)?;
    system::verify_commit(file, commit).map(drop)
}

fn is_last(file: &File, commit: &Commit) -> bool {
    read_header(file).is_ok_and(|now| Commit::read(&now).is_ok_and(|now| now == *commit))
}

fn read_header(file: &File) -> io::Result<[u8; HEADER]> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    Ok(header)
}

/// Reads these tables of a commit whose pages nobody writes to.
fn verify(file: &File, commit: &Commit, names: &[&str]) -> Result<(), Fault> {
    let Some(root) = commit.user else { return Ok(()) };
    let mut walk = Walk::new(file)?;
    let mut tables = Vec::new();
    walk.tree(root, &TABLES, &mut |name, row| {
        if names.iter().any(|wanted| wanted.as_bytes() == name) {
            tables.push(row.to_vec());
        }
        Ok(())
    })?;
    for row in &tables {
        let table = TableRow::read(row).ok_or("the row of a table ends too early")?;
        if !table.is_plain {
            return Err("a table of the store's is none of one value for each key".into());
        }
        if let Some(root) = table.root {
            walk.tree(root, &Kind::rows(table.widths), &mut |_, _| Ok(()))?;
        }
    }
    Ok(())
}
