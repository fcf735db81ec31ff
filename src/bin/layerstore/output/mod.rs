//! Everything that is printed: lines, tables and JSON to standard output, the rest to standard error.

#![expect(
    clippy::print_stderr,
    reason = "a failure is told on standard error, and there is nowhere to tell that telling failed"
)]

pub mod json;
pub mod log;
mod progress;
pub mod report;
pub mod table;
pub mod text;
pub mod tree;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

pub use progress::ProgressBars;

use crate::args::Color;
use crate::failure::Failure;
use table::Table;

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
        let written = serde_json::to_writer_pretty(&mut *stream, value).map_err(io::Error::from);
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
        let mut stream =
            BufWriter::with_capacity(1 << 18, Noting { stdout: raw_stdout()?, closed: &self.closed });
        write(&mut stream)?;
        stream.flush().map_err(Failure::Output)
    }

    /// Brings everything out.
    pub fn flush(&self) -> io::Result<()> {
        let flushed = self.stream.borrow_mut().flush();
        self.note(&flushed);
        flushed
    }

    fn checked(&self, written: io::Result<()>) -> Result<(), Failure> {
        self.note(&written);
        written.map_err(Failure::Output)
    }

    fn note<T>(&self, written: &io::Result<T>) {
        note(&self.closed, written);
    }
}

fn note<T>(closed: &Cell<bool>, written: &io::Result<T>) {
    if matches!(written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
        closed.set(true);
    }
}

/// Standard output without the line buffer of [`io::stdout`], which would search every block of a tar for line feeds.
fn raw_stdout() -> Result<File, Failure> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?))
}

/// A stream that notes when the other side closes it.
struct Noting<'a> {
    stdout: File,
    closed: &'a Cell<bool>,
}

impl Write for Noting<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stdout.write(bytes);
        note(self.closed, &written);
        written
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
