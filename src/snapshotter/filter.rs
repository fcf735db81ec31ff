//! Filters in containerd's syntax.
//!
//! ```text
//! filter   = selector *("," selector)              all of them hold
//! selector = path [("==" | "!=" | "~=") value]     equal, not equal, matched by a regular expression; alone: present
//! path     = field *("." field)                    kind, name, parent, labels.<label>
//! field    = quoted | 1*(letter | digit | "_")
//! value    = quoted | 1*(anything but space and comma)
//! quoted   = a string in double quotes, with Go's escapes; behind "~=" also between two "/" or two "|"
//! ```
//!
//! Of several filters one has to let a snapshot through. Space between words means nothing.

use std::iter::Peekable;
use std::str::CharIndices;

use regex_lite::Regex;

use super::Info;
use crate::error::SnapshotError;

#[cfg(test)]
mod tests;

/// Filters, of which one has to let a snapshot through.
#[derive(Debug)]
pub(super) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filters {
    /// Reads filters.
    ///
    /// Returns [`SnapshotError::InvalidArgument`] if one is none.
    pub(super) fn parse(filters: &[&str]) -> Result<Self, SnapshotError> {
        let parse = |text: &&str| {
            Parser::new(text).filter().map_err(|reason| SnapshotError::InvalidArgument {
                what: "the filter",
                value: (*text).to_owned(),
                reason,
            })
        };
        Ok(Filters(filters.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether a snapshot is let through. Without any filter, all are.
    pub(super) fn let_through(&self, info: &Info) -> bool {
        self.0.is_empty()
            || self.0.iter().any(|filter| filter.iter().all(|selector| selector.is_true_of(info)))
    }
}

impl Selector {
    fn is_true_of(&self, info: &Info) -> bool {
        let value = field(info, &self.path);
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value == Some(wanted),
            Test::NotEqual(unwanted) => value.unwrap_or_default() != unwanted,
            Test::Matches(pattern) => pattern.is_match(value.unwrap_or_default()),
        }
    }
}

/// A field of a snapshot. Each has a parent in this sense, if perhaps an empty one.
fn field<'i>(info: &'i Info, path: &[String]) -> Option<&'i str> {
    let (first, rest) = path.split_first()?;
    match first.as_str() {
        "kind" => Some(info.kind.word()),
        "name" => Some(&info.name),
        "parent" => Some(info.parent.as_deref().unwrap_or_default()),
        "labels" => info.labels.get(&rest.join(".")).map(String::as_str),
        _ => None,
    }
}

/// What is wrong with a filter.
type Reason = String;

struct Parser<'t> {
    text: &'t str,
    left: Peekable<CharIndices<'t>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Parser { text, left: text.char_indices().peekable() }
    }

    fn filter(mut self) -> Result<Vec<Selector>, Reason> {
        if self.text.is_empty() {
            return Ok(Vec::new());
        }
        let mut selectors = vec![self.selector()?];
        loop {
            match self.next_word() {
                None => return Ok(selectors),
                Some((_, ',')) => selectors.push(self.selector()?),
                Some((at, other)) => return Err(format!("a comma is expected at {at}, not {other:?}")),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, Reason> {
        let mut path = vec![self.field()?];
        while self.peek_word().is_some_and(|(_, next)| next == '.') {
            self.left.next();
            path.push(self.field()?);
        }
        let test = match self.peek_word() {
            None | Some((_, ',')) => Test::Present,
            Some((at, first)) => {
                self.left.next();
                match (first, self.left.next()) {
                    ('=', Some((_, '='))) => Test::Equal(self.value(false)?),
                    ('!', Some((_, '='))) => Test::NotEqual(self.value(false)?),
                    ('~', Some((_, '='))) => {
                        let pattern = self.value(true)?;
                        Test::Matches(Regex::new(&pattern).map_err(|error| error.to_string())?)
                    }
                    _ => return Err(format!("==, != or ~= is expected at {at}")),
                }
            }
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, Reason> {
        match self.peek_word() {
            Some((_, '"')) => self.quoted(),
            Some((start, _)) => {
                let plain = |next: char| next == '_' || next.is_ascii_alphanumeric();
                let field = self.while_true(start, plain);
                if field.is_empty() { Err(format!("a field is expected at {start}")) } else { Ok(field) }
            }
            None => Err("a field is expected at the end".to_owned()),
        }
    }

    fn value(&mut self, is_pattern: bool) -> Result<String, Reason> {
        match self.peek_word() {
            Some((_, '"')) => self.quoted(),
            Some((_, '/' | '|')) if is_pattern => self.delimited(),
            Some((start, _)) => {
                let plain = |next: char| next != ',' && !next.is_whitespace() && !next.is_control();
                let value = self.while_true(start, plain);
                if value.is_empty() { Err(format!("a value is expected at {start}")) } else { Ok(value) }
            }
            None => Err("a value is expected at the end".to_owned()),
        }
    }

    /// A string in double quotes, which is next.
    fn quoted(&mut self) -> Result<String, Reason> {
        self.left.next();
        let (mut value, mut bytes) = (String::new(), Vec::new());
        loop {
            let (at, next) = self.next_of_quoted()?;
            let unescaped = match next {
                '"' => None,
                '\\' => Some(self.escape(at)?),
                '\n' => return Err(format!("a line ends within quotes at {at}")),
                plain => Some(Unescaped::Char(plain)),
            };
            if let Some(Unescaped::Byte(byte)) = unescaped {
                bytes.push(byte);
                continue;
            }
            // Escaped bytes are a part of a character each.
            let read = std::mem::take(&mut bytes);
            value.push_str(&String::from_utf8(read).map_err(|_| format!("no UTF-8 is before {at}"))?);
            match unescaped {
                Some(Unescaped::Char(plain)) => value.push(plain),
                Some(Unescaped::Byte(_)) => {}
                None => return Ok(value),
            }
        }
    }

    /// One of Go's escapes, of which the backslash has been read.
    fn escape(&mut self, at: usize) -> Result<Unescaped, Reason> {
        let (_, kind) = self.next_of_quoted()?;
        let simple = match kind {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '"' => kind,
            'x' => return Ok(Unescaped::Byte(self.number(at, 0, 2, 16)?.try_into().unwrap_or_default())),
            'u' | 'U' => {
                let number = self.number(at, 0, if kind == 'u' { 4 } else { 8 }, 16)?;
                let character = char::from_u32(number);
                return character.map(Unescaped::Char).ok_or_else(|| bad_escape(at));
            }
            '0'..='7' => {
                let first = kind.to_digit(8).unwrap_or_default();
                let byte = u8::try_from(self.number(at, first, 2, 8)?).map_err(|_| bad_escape(at))?;
                return Ok(Unescaped::Byte(byte));
            }
            _ => return Err(bad_escape(at)),
        };
        Ok(Unescaped::Char(simple))
    }

    /// The number that goes on with so many digits after `first`.
    fn number(&mut self, at: usize, first: u32, digits: usize, base: u32) -> Result<u32, Reason> {
        (0..digits).try_fold(first, |number, _| {
            let digit = self.next_of_quoted()?.1.to_digit(base).ok_or_else(|| bad_escape(at))?;
            number
                .checked_mul(base)
                .and_then(|number| number.checked_add(digit))
                .ok_or_else(|| bad_escape(at))
        })
    }

    /// A pattern between two slashes or bars, of which the first is next. Within, one is written with a backslash.
    fn delimited(&mut self) -> Result<String, Reason> {
        let (_, delimiter) = self.next_of_quoted()?;
        let mut value = String::new();
        loop {
            match self.next_of_quoted()?.1 {
                next if next == delimiter => return Ok(value),
                '\\' => match self.next_of_quoted()?.1 {
                    next if next == delimiter => value.push(next),
                    next => value.extend(['\\', next]),
                },
                next => value.push(next),
            }
        }
    }

    fn next_of_quoted(&mut self) -> Result<(usize, char), Reason> {
        self.left.next().ok_or_else(|| "a quote is not closed".to_owned())
    }

    fn while_true(&mut self, start: usize, plain: impl Fn(char) -> bool) -> String {
        while self.left.next_if(|(_, next)| plain(*next)).is_some() {}
        let end = self.left.peek().map_or(self.text.len(), |(at, _)| *at);
        self.text.get(start..end).unwrap_or_default().to_owned()
    }

    fn peek_word(&mut self) -> Option<(usize, char)> {
        while self.left.next_if(|(_, next)| next.is_whitespace()).is_some() {}
        self.left.peek().copied()
    }

    fn next_word(&mut self) -> Option<(usize, char)> {
        self.peek_word()?;
        self.left.next()
    }
}

enum Unescaped {
    Char(char),
    Byte(u8),
}

fn bad_escape(at: usize) -> Reason {
    format!("there is no such escape at {at}")
}
