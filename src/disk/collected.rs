//! The file that says in which boot garbage was last looked for everywhere.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;

use super::kind::{Own, opening_failed};
use super::layout::Layout;
use super::names::COLLECTED;
use crate::error::LayoutError;
use crate::sys::beneath;
use crate::sys::file::File;

/// No release writes more into it.
const LIMIT: u64 = 256;

/// The boot that is noted; `None` if there is no note.
///
/// Returns [`LayoutError::OtherKind`] if it is no file.
pub(crate) fn collected_in(layout: &Layout) -> Result<Option<String>, LayoutError> {
    let file = match beneath::open_sealed_file_beneath(layout.root(), COLLECTED.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => File::from(opened.map_err(|source| failed(layout, source))?),
    };
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(|source| LayoutError::Io {
        path: layout.file_path(COLLECTED),
        action: "read",
        source,
    })?;
    Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// Notes a boot.
///
/// Returns what [`collected_in`] does.
pub(crate) fn note_collected(layout: &Layout, boot: &str) -> Result<(), LayoutError> {
    let file = beneath::ensure_file(layout.root(), COLLECTED.as_bytes());
    let mut file = File::from(file.map_err(|source| failed(layout, source))?);
    let written = file.set_length(0).and_then(|()| file.write_all(format!("{boot}\n").as_bytes()));
    written.map_err(|source| LayoutError::Io { path: layout.file_path(COLLECTED), action: "write", source })
}

fn failed(layout: &Layout, source: io::Error) -> LayoutError {
    opening_failed((layout.root().as_fd(), layout.path()), COLLECTED.as_bytes(), Own::File, source)
}
