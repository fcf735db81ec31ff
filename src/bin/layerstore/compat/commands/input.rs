//! A tar that comes in, and what is said when it is none.

use std::fs::File;
use std::io::{self, Read};

use layerstore::{ArchiveError, Error, ImportError};

use super::super::call::Call;
use super::super::failure::{self, Failure};
use super::super::golang::call_failed;
use super::super::table::FILE;

/// The file that a flag names, or standard input.
pub struct Input(Box<dyn Read + Send>);

impl Input {
    /// Opens it.
    pub fn open(call: &Call<'_>) -> Result<Self, Failure> {
        Ok(Input(match call.flags.text(&FILE) {
            Some(path) => {
                Box::new(File::open(path).map_err(|error| Failure::Text(call_failed("open", path, &error)))?)
            }
            None => Box::new(io::stdin()),
        }))
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl Read for &mut Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// Says why a layer cannot be filled from what came in.
pub fn explained(error: &Error) -> Failure {
    let Error::Import(cause) = error else { return Failure::Text(failure::text(error)) };
    // The reference unpacks in a process of its own, and says what that one says.
    let reason = reason(cause).map_or_else(|| failure::text(error), str::to_owned);
    Failure::Text(format!(
        "unpacking failed (error: exit status 1; output: {reason})\nexhausting input failed (error: {reason})"
    ))
}

/// The reference's words for bytes that are cut off or no tar. What else can go wrong has words of its own.
fn reason(error: &ImportError) -> Option<&'static str> {
    const CUT: &str = "unexpected EOF";
    match error {
        ImportError::Archive(ArchiveError::Short { .. } | ArchiveError::Truncated { .. }) => Some(CUT),
        ImportError::Archive(
            ArchiveError::NotTar
            | ArchiveError::Checksum { .. }
            | ArchiveError::LoneEndBlock { .. }
            | ArchiveError::Number { .. }
            | ArchiveError::Extension { .. }
            | ArchiveError::Sparse { .. },
        ) => Some("archive/tar: invalid tar header"),
        ImportError::Archive(ArchiveError::Read(error)) | ImportError::Io(error)
            if error.kind() == io::ErrorKind::UnexpectedEof =>
        {
            Some(CUT)
        }
        _ => None,
    }
}
