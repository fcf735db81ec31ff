//! What a command works with.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use layerstore::Store;

use super::console::Console;
use super::failure::Failure;
use super::flags::{Flag, Flags};
use super::golang::call_failed;
use super::place::Place;
use super::table::{FILE, JSON};

/// A command that is to be run.
#[derive(Debug)]
pub struct Call<'a> {
    /// The flags, those before the command and those behind it.
    pub flags: Flags,
    /// The arguments, as many as the command takes.
    pub args: Vec<String>,
    /// Where the store is.
    pub place: Place,
    /// The store.
    pub store: Store,
    /// Where to print.
    pub console: &'a Console,
}

impl Call<'_> {
    /// An argument; empty if it was left out.
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// Whether JSON is asked for.
    pub fn is_json(&self) -> bool {
        self.flags.is(&JSON)
    }

    /// Where things of another store stand in a list: behind the own ones, in the order in which stores are asked.
    pub fn store_order(&self, other: Option<&Path>) -> usize {
        let Some(other) = other else { return 0 };
        let before = self.store.image_stores().iter().take_while(|store| store.root() != other).count();
        before.saturating_add(1)
    }

    /// Prints to a file that `--file` names, or to standard output.
    pub fn write_out(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(path) = self.flags.text(&FILE) else {
            let mut out = self.console;
            return write(&mut out);
        };
        let failed = |error: io::Error| Failure::Text(call_failed("open", path, &error));
        self.store.refuse_own_place(Path::new(path))?;
        let mut file = io::BufWriter::new(File::create(path).map_err(failed)?);
        write(&mut file)?;
        file.flush().map_err(|error| Failure::Text(call_failed("write", path, &error)))
    }

    /// The bytes of the file that a flag names, or of standard input.
    pub fn read_in(&self, flag: &Flag) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        match self.flags.text(flag) {
            Some(path) => {
                let failed = |error: io::Error| Failure::Text(call_failed("open", path, &error));
                File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(failed)?;
            }
            None => {
                let failed = |error: io::Error| Failure::Text(call_failed("read", "/dev/stdin", &error));
                io::stdin().lock().read_to_end(&mut bytes).map_err(failed)?;
            }
        }
        Ok(bytes)
    }
}
