//! What is printed: bytes as they are, to standard output; one line for each failure, to standard error.

use std::cell::{Cell, RefCell};
use std::io::{self, BufWriter, Stderr, Stdout, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::failure::Failure;
use super::golang;

/// Standard output and standard error.
#[derive(Debug)]
pub struct Console {
    out: RefCell<BufWriter<Stdout>>,
    err: Stderr,
    /// Whether the other side of standard output has closed the pipe.
    closed: Cell<bool>,
}

impl Console {
    /// The streams of this process, not yet written to.
    pub fn new() -> Self {
        Console {
            out: RefCell::new(BufWriter::new(io::stdout())),
            err: io::stderr(),
            closed: Cell::new(false),
        }
    }

    /// Prints a line.
    pub fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        self.checked(writeln!(self.out.borrow_mut(), "{text}"))
    }

    /// Prints bytes.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.checked(self.out.borrow_mut().write_all(bytes))
    }

    /// Prints a value as one line of JSON.
    pub fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        self.bytes(&golang::json(value).map_err(Failure::Output)?)
    }

    /// Prints a line to standard error. If that cannot be written, there is nobody to tell.
    pub fn tell(&self, text: impl std::fmt::Display) {
        self.flush().ok();
        writeln!(&self.err, "{text}").ok();
    }

    /// Prints a line of the log.
    pub fn log(&self, level: &str, message: &str) {
        let message = golang::quoted(message.as_bytes());
        self.tell(format_args!(
            "time=\"{}\" level={level} msg={message}",
            golang::log_time(Timestamp::now())
        ));
    }

    /// Brings everything out.
    pub fn flush(&self) -> Result<(), Failure> {
        self.checked(self.out.borrow_mut().flush())
    }

    /// Whether whoever reads standard output has seen enough.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    fn checked(&self, written: io::Result<()>) -> Result<(), Failure> {
        self.noted(written).map_err(Failure::Output)
    }

    fn noted<T>(&self, written: io::Result<T>) -> io::Result<T> {
        if matches!(&written, Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            self.closed.set(true);
        }
        written
    }
}

impl Write for &Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.noted(self.out.borrow_mut().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.noted(self.out.borrow_mut().flush())
    }
}
