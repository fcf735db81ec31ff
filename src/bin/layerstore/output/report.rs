//! What goes to standard error: failures and notes.

use std::error::Error;
use std::io::{self, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};

use super::table::Table;
use super::text::printable;
use crate::args::Color;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = AnsiColor::Yellow.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Tells a failure: the message, each cause on its own line, and what to do.
pub fn failure(error: &dyn Error, hint: Option<&str>, color: Color) {
    let mut stderr = stderr(color);
    // A standard error that cannot be written to leaves nobody to tell.
    write_failure(&mut stderr, error, hint).ok();
}

/// Tells something that is no failure.
pub fn note(text: &str, color: Color) {
    writeln!(stderr(color), "{NOTE}note:{NOTE:#} {}", printable(text)).ok();
}

/// An error with its causes, on one line.
pub fn line(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Messages of other crates often contain their cause.
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        next = cause.source();
    }
    told
}

/// Prints tables that are not the answer, with an empty line between them.
pub fn tables(tables: &[Table], color: Color) {
    let mut stderr = stderr(color);
    for (at, table) in tables.iter().enumerate() {
        let apart = if at > 0 { writeln!(stderr) } else { Ok(()) };
        apart.and_then(|()| table.write(&mut stderr)).ok();
    }
}

fn stderr(color: Color) -> AutoStream<io::Stderr> {
    AutoStream::new(io::stderr(), super::choice(color))
}

fn write_failure(out: &mut impl Write, error: &dyn Error, hint: Option<&str>) -> io::Result<()> {
    let mut told = error.to_string();
    writeln!(out, "{ERROR}error:{ERROR:#} {}", printable(&told))?;
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Messages of other crates often contain their cause.
        if !told.contains(&text) {
            writeln!(out, "  caused by: {}", printable(&text))?;
            told = text;
        }
        next = cause.source();
    }
    match hint {
        Some(hint) => writeln!(out, "  {HINT}hint:{HINT:#} {hint}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        source: Option<Box<Link>>,
    }

    fn chain(texts: &[&'static str]) -> Link {
        let (text, rest) = texts.split_first().unwrap();
        let source = (!rest.is_empty()).then(|| Box::new(chain(rest)));
        Link { text, source }
    }

    fn told(texts: &[&'static str], hint: Option<&str>) -> String {
        let mut out = Vec::new();
        write_failure(&mut out, &chain(texts), hint).unwrap();
        anstream::adapter::strip_bytes(&out).into_vec().try_into().unwrap()
    }

    #[test]
    fn causes_follow_the_message_each_on_a_line() {
        assert_eq!(
            told(&["cannot load", "a layer is damaged", "unexpected end"], Some("fetch it again")),
            "error: cannot load\n  caused by: a layer is damaged\n  caused by: unexpected end\n  hint: fetch it again\n"
        );
    }

    #[test]
    fn nothing_is_told_twice_or_rings_the_bell() {
        assert_eq!(
            told(&["cannot load: no such file", "no such file", "deep\x07"], None),
            "error: cannot load: no such file\n  caused by: deep\\u{7}\n"
        );
    }
}
