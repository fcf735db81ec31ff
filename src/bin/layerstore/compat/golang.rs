//! How Go prints: JSON, lists, quoted strings, times and time spans. Scripts compare such text byte for byte.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::output::text::is_seen;

/// A value as one line of JSON, with its line feed.
pub fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut line, HtmlSafe)).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

/// Writes what means something in HTML or ends a line in JavaScript as escapes.
struct HtmlSafe;

impl Formatter for HtmlSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, text: &str) -> io::Result<()> {
        let special = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
        for part in text.split_inclusive(special) {
            let end = part.chars().next_back().filter(|c| special(*c));
            let plain = end.and_then(|c| part.strip_suffix(c)).unwrap_or(part);
            writer.write_all(plain.as_bytes())?;
            if let Some(c) = end {
                write!(writer, "\\u{:04x}", u32::from(c))?;
            }
        }
        Ok(())
    }
}

/// A list in brackets, as `[a b]`.
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let texts: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", texts.join(" "))
}

/// What a signal is called.
pub fn signal_text(number: i32) -> String {
    let name = match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {number}"),
    };
    name.to_owned()
}

/// Bytes in double quotes. What is not printable is escaped, and so are bytes that are no UTF-8.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_quoted(&mut text, c));
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push_quoted(text: &mut String, c: char) {
    match c {
        '"' | '\\' => text.extend(['\\', c]),
        '\x07' => text.push_str("\\a"),
        '\x08' => text.push_str("\\b"),
        '\x0c' => text.push_str("\\f"),
        '\n' => text.push_str("\\n"),
        '\r' => text.push_str("\\r"),
        '\t' => text.push_str("\\t"),
        '\x0b' => text.push_str("\\v"),
        c if is_seen(c) => text.push(c),
        c if c < ' ' || c == '\x7f' => push(text, format_args!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) < 0x1_0000 => push(text, format_args!("\\u{:04x}", u32::from(c))),
        c => push(text, format_args!("\\U{:08x}", u32::from(c))),
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).ok();
}

/// A time as RFC 3339 with as many digits of a second as it needs.
pub fn time(time: layerstore::Timestamp) -> String {
    crate::output::json::time(time).to_string()
}

/// The time of a log line: whole seconds.
pub fn log_time(now: Timestamp) -> String {
    Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// Reads a time span such as `1h30m`.
///
/// Returns the text of the error.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("time: invalid duration {}", quoted(text.as_bytes()));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at_checked(digits).ok_or_else(invalid)?;
        let number: f64 = number.parse().map_err(|_| invalid())?;
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters).ok_or_else(invalid)?;
        let shown = quoted(text.as_bytes());
        let seconds = match unit {
            "" => return Err(format!("time: missing unit in duration {shown}")),
            "ns" => 1e-9,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            unit => {
                return Err(format!("time: unknown unit {} in duration {shown}", quoted(unit.as_bytes())));
            }
        };
        total += number * seconds;
        rest = behind;
    }
    if text.trim_start_matches(['-', '+']).is_empty() {
        return Err(invalid());
    }
    // A negative age is that of something that is still to come.
    if negative { Ok(Duration::ZERO) } else { Duration::try_from_secs_f64(total).map_err(|_| invalid()) }
}

/// What a failed system call says, as `open /x: no such file or directory`.
pub fn call_failed(call: &str, path: impl AsRef<std::path::Path>, error: &io::Error) -> String {
    format!("{call} {}: {}", path.as_ref().display(), system_text(error))
}

/// The system's text for an error, without its number and in lower case.
pub fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_safe_in_html() {
        let line = |text: &str| String::from_utf8(json(&text).unwrap()).unwrap();
        assert_eq!(line("a<b>&\"\n\u{2028}x"), "\"a\\u003cb\\u003e\\u0026\\\"\\n\\u2028x\"\n");
        assert_eq!(line(""), "\"\"\n");
        assert_eq!(json(&serde_json::json!({"b": [], "a": null})).unwrap(), b"{\"b\":[],\"a\":null}\n");
    }

    #[test]
    fn lists_have_brackets_and_blanks() {
        assert_eq!(list(["a", "b"]), "[a b]");
        assert_eq!(list::<u32>([]), "[]");
        assert_eq!(list([0, 5]), "[0 5]");
    }

    #[test]
    fn strings_are_quoted() {
        assert_eq!(quoted(b"/a b"), "\"/a b\"");
        assert_eq!(quoted("/\u{fc}'\u{301}\u{4e2d}".as_bytes()), "\"/\u{fc}'\u{301}\u{4e2d}\"");
        assert_eq!(quoted(b"\"\\\n\t\x01\x7f\xff"), r#""\"\\\n\t\x01\x7f\xff""#);
        assert_eq!(
            quoted("\u{a0}\u{200b}\u{e000}\u{10fffe}".as_bytes()),
            r#""\u00a0\u200b\ue000\U0010fffe""#
        );
    }

    #[test]
    fn time_spans_have_units() {
        let seconds = |text| duration(text).map(|span| span.as_secs_f64());
        assert_eq!(seconds("0"), Ok(0.0));
        assert_eq!(seconds("24h"), Ok(86400.0));
        assert_eq!(seconds("1h30m1.5s"), Ok(5401.5));
        assert_eq!(seconds("-5s"), Ok(0.0));
        assert_eq!(seconds("10"), Err("time: missing unit in duration \"10\"".into()));
        assert_eq!(seconds("10x"), Err("time: unknown unit \"x\" in duration \"10x\"".into()));
        for bad in ["", "h", "-", "1.2.3s", "x"] {
            assert_eq!(seconds(bad), Err(format!("time: invalid duration \"{bad}\"")));
        }
    }

    #[test]
    fn system_errors_have_no_number() {
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(call_failed("open", "/x", &missing), "open /x: no such file or directory");
    }

    #[test]
    fn log_lines_have_whole_seconds() {
        assert_eq!(log_time("2026-01-31T12:00:00.75Z".parse().unwrap()), "2026-01-31T12:00:00Z");
    }
}
