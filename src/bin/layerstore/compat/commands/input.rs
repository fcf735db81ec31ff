//! A tar that comes in, and what is said when it is none.

use std::fs::File;
use std::io::{self, Read};

use layerstore::Error;

use super::super::call::Call;
use super::super::failure::{self, Failure};
use super::super::golang::call_failed;
use super::super::table::FILE;

/// The length of a tar's header.
const BLOCK: u64 = 512;

/// The file that a flag names, or standard input.
pub struct Input {
    from: Box<dyn Read + Send>,
    length: u64,
}

impl Input {
    /// Opens it.
    pub fn open(call: &Call<'_>) -> Result<Self, Failure> {
        let from: Box<dyn Read + Send> = match call.flags.text(&FILE) {
            Some(path) => {
                Box::new(File::open(path).map_err(|error| Failure::Text(call_failed("open", path, &error)))?)
            }
            None => Box::new(io::stdin()),
        };
        Ok(Input { from, length: 0 })
    }

    /// Says why a layer cannot be filled from it.
    pub fn explain(&self, error: &Error) -> Failure {
        if !matches!(error, Error::Import(_)) {
            return Failure::Text(failure::text(error));
        }
        // The reference unpacks in a process of its own, and says what that one says.
        let reason = if self.length < BLOCK { "unexpected EOF" } else { "archive/tar: invalid tar header" };
        Failure::Text(format!(
            "unpacking failed (error: exit status 1; output: {reason})\nexhausting input failed (error: {reason})"
        ))
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Read for &mut Input {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(bytes)?;
        self.length = self.length.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }
}
