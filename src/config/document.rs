//! One file of configuration: its values, each with the line it stands on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::key::{self, Kind};
use crate::error::ConfigError;

/// The value of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Value {
    /// Text, such as a path.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(u32),
    /// Several texts, in their order.
    List(Vec<String>),
    /// Texts by name.
    Map(BTreeMap<String, String>),
}

/// Something in a file that does nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Warning {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.text)
    }
}

/// A value as a file gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) key: &'static str,
    pub(super) value: Value,
    /// Whether a list is added to what earlier files give, and does not replace it.
    pub(super) append: bool,
    pub(super) line: usize,
    /// Of a table of texts, the line of each.
    pub(super) lines: BTreeMap<String, usize>,
}

/// A file's values and what in it does nothing.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) entries: Vec<Entry>,
    pub(super) warnings: Vec<Warning>,
}

/// Reads the text of the file `path`.
///
/// Returns [`ConfigError::Syntax`] if it is not TOML, and [`ConfigError::Value`] if a known key has a value of
/// the wrong kind. An unknown key is a warning.
pub(super) fn parse(path: &Path, text: &str) -> Result<Document, ConfigError> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: lines.at(error.span().map_or(0, |span| span.start)),
        reason: error.message().to_owned(),
    })?;
    let mut reader = Reader { path, lines, document: Document::default() };
    reader.read_table("", table.get_ref())?;
    let mut document = reader.document;
    // Tables come by name; a reader of the file wants them as they stand in it.
    document.entries.sort_by_key(|entry| entry.line);
    document.warnings.sort_by_key(|warning| warning.line);
    Ok(document)
}

struct Reader<'a> {
    path: &'a Path,
    lines: Lines,
    document: Document,
}

impl Reader<'_> {
    fn read_table(&mut self, prefix: &str, table: &DeTable<'_>) -> Result<(), ConfigError> {
        for (name, value) in table {
            let full = match prefix {
                "" => name.get_ref().to_string(),
                prefix => format!("{prefix}.{}", name.get_ref()),
            };
            let line = self.lines.at(name.span().start);
            match (key::find(&full), value.get_ref()) {
                (Some((key, kind)), found) => self.read_value(key, kind, found, line)?,
                (None, DeValue::Table(inner)) if key::is_table(&full) => self.read_table(&full, inner)?,
                (None, _) => self.document.warnings.push(Warning {
                    path: self.path.to_owned(),
                    line,
                    text: format!("{full} is no key of storage.conf and does nothing"),
                }),
            }
        }
        Ok(())
    }

    fn read_value(
        &mut self,
        key: &'static str,
        kind: Kind,
        found: &DeValue<'_>,
        line: usize,
    ) -> Result<(), ConfigError> {
        let (value, append) = convert(kind, found).ok_or_else(|| ConfigError::Value {
            path: self.path.to_owned(),
            line: culprit(kind, found).map_or(line, |at| self.lines.at(at)),
            key: key.to_owned(),
            expected: kind.expectation(),
            found: match (kind, found) {
                (Kind::Mask, DeValue::Integer(number)) => format!("the number {number}, which is not octal"),
                _ => describe(found),
            },
        })?;
        let lines = match found {
            DeValue::Table(table) => {
                let line_of = |name: &Spanned<_>| self.lines.at(name.span().start);
                table.keys().map(|name| (name.get_ref().to_string(), line_of(name))).collect()
            }
            _ => BTreeMap::new(),
        };
        self.document.entries.push(Entry { key, value, append, line, lines });
        Ok(())
    }
}

/// Where in a list or a table something stands that is no text.
fn culprit(kind: Kind, found: &DeValue<'_>) -> Option<usize> {
    match (kind, found) {
        (Kind::List, DeValue::Array(items)) => {
            let is_text = |item: &&Spanned<DeValue<'_>>| matches!(item.get_ref(), DeValue::String(_));
            items.iter().find(|item| !is_text(item)).map(|item| item.span().start)
        }
        (Kind::Map, DeValue::Table(table)) => {
            let mut names = table.iter();
            names.find(|(_, value)| scalar(value.get_ref()).is_none()).map(|(name, _)| name.span().start)
        }
        _ => None,
    }
}

/// The value of a kind, and whether it is added to an earlier one; `None` if it is of another kind.
fn convert(kind: Kind, found: &DeValue<'_>) -> Option<(Value, bool)> {
    let value = match (kind, found) {
        (Kind::Text, DeValue::String(text)) => Value::Text(text.to_string()),
        (Kind::Flag | Kind::FlagText, DeValue::Boolean(flag)) => Value::Flag(*flag),
        (Kind::FlagText, DeValue::String(text)) => Value::Flag(parse_flag(text)?),
        (Kind::Number, DeValue::Integer(number)) => {
            Value::Number(u32::from_str_radix(number.as_str(), number.radix()).ok()?)
        }
        (Kind::Mask, DeValue::String(text)) => Value::Text(parse_mask(text)?),
        // TOML has octal numbers, which the mode of a file should be. The digits of a decimal one would be taken for another
        // mode than whoever wrote them meant.
        (Kind::Mask, DeValue::Integer(number)) if number.radix() == 8 => {
            let mode = u32::from_str_radix(number.as_str(), number.radix()).ok()?;
            Value::Text(parse_mask(&format!("{mode:o}"))?)
        }
        (Kind::List, DeValue::Array(items)) => {
            let (texts, append) = split_list(items)?;
            return Some((Value::List(texts), append));
        }
        (Kind::Map, DeValue::Table(table)) => Value::Map(
            table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), scalar(value.get_ref())?)))
                .collect::<Option<_>>()?,
        ),
        _ => return None,
    };
    Some((value, false))
}

/// The texts of a list; a last `{append = true}` says that they are added to those of earlier files.
fn split_list(items: &[Spanned<DeValue<'_>>]) -> Option<(Vec<String>, bool)> {
    let mut texts = Vec::new();
    let mut append = false;
    for item in items {
        match item.get_ref() {
            DeValue::String(text) => texts.push(text.to_string()),
            DeValue::Table(attributes) => {
                for (name, value) in attributes {
                    match (name.get_ref().as_ref(), value.get_ref()) {
                        ("append", DeValue::Boolean(flag)) => append = *flag,
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
    }
    Some((texts, append))
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The spellings of a boolean that the reference takes.
pub(super) fn parse_flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The octal digits of a mask.
fn parse_mask(text: &str) -> Option<String> {
    match text {
        "shared" => Some("755".to_owned()),
        "private" => Some("700".to_owned()),
        _ => {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777)?;
            Some(format!("{mode:o}"))
        }
    }
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{:?}", text.as_ref()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Where the lines of a text end: a file has as many keys as lines, and each is told with its own.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Lines(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line, from 1, that has the byte at `offset`.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_with_its_newline() {
        let lines = Lines::of("a\n\nb\n");
        assert_eq!([0, 1, 2, 3, 4, 5, 9].map(|at| lines.at(at)), [1, 1, 2, 3, 3, 4, 4]);
        assert_eq!(Lines::of("").at(0), 1);
    }

    /// As many keys as a file of the longest has room for. If each were looked for from the beginning, this would take minutes.
    #[test]
    fn each_of_many_keys_has_its_line() {
        let text: String = (0..100_000).map(|at| format!("k{at}=1\n")).collect();
        let document = parse(Path::new("storage.conf"), &text).unwrap();
        assert!(text.len() < 1 << 20 && document.warnings.len() == 100_000);
        assert!(document.warnings.iter().enumerate().all(|(at, warning)| warning.line == at + 1));
    }
}
