//! Everything that is printed: lines, tables and JSON to standard output, the rest to standard error.

pub mod findings;
mod indented;
pub mod json;
mod json_list;
pub mod log;
mod progress;
pub mod report;
pub mod table;
pub mod text;
pub mod timings;
pub mod tree;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use serde_json::Serializer;

pub use progress::ProgressBars;

use crate::args::Color;
use crate::failure::Failure;
use indented::Indented;
use table::Table;

/// How many bytes of JSON are written at once.
const JSON_BUFFER: usize = 64 * 1024;

/// Standard output.
pub struct Output {
    json: bool,
    terminal: bool,
    stream: RefCell<BufWriter<AutoStream<Stdout>>>,
    /// Whether the other side has closed the pipe.
    closed: Cell<bool>,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Output").field("json", &self.json).finish_non_exhaustive()
    }
}

impl Output {
    /// Standard output, not yet written to.
    pub fn new(json: bool, color: Color) -> Self {
        let stdout = io::stdout();
        Output {
            json,
            terminal: stdout.is_terminal(),
            stream: RefCell::new(BufWriter::new(AutoStream::new(stdout, choice(color)))),
            closed: Cell::new(false),
        }
    }

    /// Whether JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether the other side has closed the pipe.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Whether `path` leads to it.
    pub fn is_at(&self, path: &Path) -> Result<bool, Failure> {
        let own = raw_stdout()?.metadata().map_err(Failure::Output)?;
        Ok(std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino())))
    }

    /// Prints a line of text.
    pub fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.checked(writeln!(self.stream.borrow_mut(), "{text}"))
    }

    /// Prints bytes as they are, such as a path.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stream = self.stream.borrow_mut();
        // Past the stream that takes colors away: that one takes bytes for UTF-8.
        let written = stream.flush().and_then(|()| stream.get_mut().as_inner().write_all(bytes));
        self.checked(written)
    }

    /// Prints a table.
    pub fn table(&self, table: &Table) -> Result<(), Failure> {
        self.checked(table.write(&mut *self.stream.borrow_mut()))
    }

    /// Prints a value as JSON: indented for people, who see it on a terminal, and for programs all the same.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut stream = self.stream.borrow_mut();
        // Past the stream that takes colors away, which looks at each byte: JSON has no byte that could be one.
        let written = stream.flush().and_then(|()| {
            let mut raw = BufWriter::with_capacity(JSON_BUFFER, stream.get_mut().as_inner());
            value.serialize(&mut Serializer::with_formatter(&mut raw, Indented::within(0)))?;
            raw.write_all(b"\n")?;
            raw.flush()
        });
        self.checked(written)
    }

    /// Prints as JSON, in the same form, the list of what `of` makes of each of `members`: there may be many.
    pub fn json_list<'m, T: Sync, V: Serialize>(
        &self,
        members: &'m [T],
        of: impl Fn(&'m T) -> V + Sync,
    ) -> Result<(), Failure> {
        self.flush().map_err(Failure::Output)?;
        self.checked(json_list::print(raw_stdout()?, members, of))
    }

    /// Prints a value as JSON on one line: one of many, of which more may come.
    pub fn json_line(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut stream = self.stream.borrow_mut();
        let written = serde_json::to_writer(&mut *stream, value).map_err(io::Error::from);
        self.checked(written.and_then(|()| writeln!(stream)))
    }

    /// Runs `write` with a stream for bytes of any kind.
    ///
    /// Returns [`Failure::Terminal`] if it is a terminal.
    pub fn stream(
        &self,
        what: &'static str,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        if self.terminal {
            return Err(Failure::Terminal { what });
        }
        let mut stream = Noting::new(raw_stdout()?);
        let written = stream.run(write);
        // The operation's own failure only repeats this one, and guesses why.
        let failed = stream.failed.map_or(Ok(()), Err);
        failed.inspect_err(|error| self.note(error)).map_err(Failure::Output).and(written)
    }

    /// Brings out what a command has `printed` about a change that was made. Where that fails, the failure says that it was made:
    /// whoever repeats the command for its output would make it twice.
    pub fn told(&self, printed: Result<(), Failure>, done: impl FnOnce() -> String) -> Result<(), Failure> {
        match printed.and_then(|()| self.flush().map_err(Failure::Output)) {
            Err(Failure::Output(source)) => Err(Failure::Untold { done: done(), source }),
            other => other,
        }
    }

    /// Brings everything out.
    pub fn flush(&self) -> io::Result<()> {
        self.stream.borrow_mut().flush().inspect_err(|error| self.note(error))
    }

    fn checked(&self, written: io::Result<()>) -> Result<(), Failure> {
        written.inspect_err(|error| self.note(error)).map_err(Failure::Output)
    }

    fn note(&self, error: &io::Error) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            self.closed.set(true);
        }
    }
}

/// Standard output without the line buffer of [`io::stdout`], which would search every block of a tar for line feeds.
fn raw_stdout() -> Result<File, Failure> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?))
}

/// A file that remembers how writing to it failed: an operation of the library that writes to it can only tell that
/// some writing failed.
pub struct Noting {
    file: File,
    /// The failure.
    pub failed: Option<io::Error>,
}

impl Noting {
    /// A file that has not failed yet.
    pub fn new(file: File) -> Self {
        Noting { file, failed: None }
    }

    /// Runs `write` with a buffer before the file.
    pub fn run(&mut self, write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut buffer = BufWriter::with_capacity(1 << 18, self);
        let written = write(&mut buffer);
        let flushed = buffer.flush().map_err(Failure::Output);
        written.and(flushed)
    }
}

impl Write for Noting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                self.failed = Some(
                    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error),
                );
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn choice(color: Color) -> ColorChoice {
    match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
}
