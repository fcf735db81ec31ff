//! The note of where the containers are that the next boot drops.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::table::{self, TRANSIENT_KEY};

use super::{Tables, WriteTxn};
use crate::error::MetaError;

/// In which run root the rows of a boot are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TransientNote {
    /// The boot.
    pub(crate) boot: String,
    /// What the run database with the rows calls them: another one in its place, as of another mount namespace, has others.
    pub(crate) things: String,
    /// The run root, absolute.
    pub(crate) run_root: PathBuf,
}

/// The note, if there ever were such containers.
pub(crate) fn transient_note(txn: &impl Tables) -> Result<Option<TransientNote>, MetaError> {
    let meta = txn.open(table::META)?;
    let Some(row) = meta.get(TRANSIENT_KEY)? else { return Ok(None) };
    let mut parts = row.value().splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let [boot, things] = [next(), next()].map(|text| String::from_utf8_lossy(text).into_owned());
    let run_root = PathBuf::from(OsStr::from_bytes(next()));
    Ok(Some(TransientNote { boot, things, run_root }))
}

impl WriteTxn {
    /// Replaces the note.
    pub(crate) fn put_transient_note(&self, note: &TransientNote) -> Result<(), MetaError> {
        let mut bytes = format!("{}\n{}\n", note.boot, note.things).into_bytes();
        bytes.extend_from_slice(note.run_root.as_os_str().as_bytes());
        self.open(table::META)?.insert(TRANSIENT_KEY, bytes.as_slice())?;
        Ok(())
    }

    /// Removes the note.
    pub(crate) fn remove_transient_note(&self) -> Result<(), MetaError> {
        self.open(table::META)?.remove(TRANSIENT_KEY)?;
        Ok(())
    }
}
