//! Aligned columns.

use std::io::{self, Write};

use anstyle::Style;

use super::text::printable;

const HEADING: Style = Style::new().bold();

/// Where the text of a column stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// At the beginning.
    Left,
    /// At the end, as numbers.
    Right,
}

/// What a table has below its heading.
#[derive(Debug)]
enum Row {
    Cells(Vec<String>),
    /// Words about the row above, on lines of their own.
    Note(String),
}

/// How wide lines of notes are, and how far they stand in.
const WIDTH: usize = 80;
const INDENT: &str = "    ";

/// What is between two columns.
const GAP: &str = "  ";

/// A longer cell makes its column no wider than this: one with all names of a strange image would move everything out of
/// sight, and blanks for each row would be most of what is written.
const WIDEST: usize = 200;

/// A table with a heading.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Row>,
    heading: bool,
    empty: &'static str,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new<H: Into<String>>(columns: impl IntoIterator<Item = (H, Align)>) -> Self {
        let columns = columns.into_iter().map(|(heading, align)| (heading.into(), align)).collect();
        Table { columns, rows: Vec::new(), heading: true, empty: "-" }
    }

    /// Whether the heading is printed.
    pub fn heading(mut self, heading: bool) -> Self {
        self.heading = heading;
        self
    }

    /// Leaves empty cells empty.
    pub fn blank(mut self) -> Self {
        self.empty = "";
        self
    }

    /// Adds a row. An empty cell is shown as `-`, so that programs still count the columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { self.empty.to_owned() } else { printable(&cell) };
        self.rows.push(Row::Cells(cells.into_iter().map(shown).collect()));
    }

    /// Says more of the row that was added last, if there is something to say.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let words = printable(text.as_ref());
        let mut line = String::new();
        for word in words.split_whitespace() {
            let longer = line.chars().count().saturating_add(word.chars().count()).saturating_add(1);
            if !line.is_empty() && longer.saturating_add(INDENT.len()) > WIDTH {
                self.rows.push(Row::Note(std::mem::take(&mut line)));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if !line.is_empty() {
            self.rows.push(Row::Note(line));
        }
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let shown = self.heading.then_some(&heading);
        let mut widths = vec![0; self.columns.len()];
        let cells = self.rows.iter().filter_map(|row| match row {
            Row::Cells(cells) => Some(cells),
            Row::Note(_) => None,
        });
        for row in shown.into_iter().chain(cells) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count().min(WIDEST));
            }
        }
        if self.heading {
            write!(out, "{HEADING}")?;
            self.line(out, &heading, &widths)?;
            writeln!(out, "{HEADING:#}")?;
        }
        for row in &self.rows {
            match row {
                Row::Cells(cells) => self.line(out, cells, &widths)?,
                Row::Note(line) => write!(out, "{INDENT}{line}")?,
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn line(&self, out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(&self.columns) {
            // By hand: a width in a format string is 65,535 at the most, and a cell may be longer.
            let blanks = " ".repeat(width.saturating_sub(cell.chars().count()));
            match align {
                Align::Left => line.extend([cell, &blanks, GAP]),
                Align::Right => line.extend([&blanks, cell, GAP]),
            }
        }
        // No blanks at the end of lines.
        write!(out, "{}", line.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table) -> String {
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        anstream::adapter::strip_bytes(&out).into_vec().try_into().unwrap()
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new([("ID", Align::Left), ("SIZE", Align::Right), ("NAMES", Align::Left)]);
        table.row(["abc".into(), "1.0 MB".into(), "x".into()]);
        table.row(["\u{e9}".into(), "5 B".into(), String::new()]);
        assert_eq!(written(&table), "ID     SIZE  NAMES\nabc  1.0 MB  x\n\u{e9}       5 B  -\n");
        assert_eq!(written(&table.heading(false)), "abc  1.0 MB  x\n\u{e9}       5 B  -\n");
    }

    #[test]
    fn notes_stand_below_their_row_and_fit_a_terminal() {
        let mut table = Table::new([("A", Align::Left), ("B", Align::Left)]);
        table.row(["one".into(), "1".into()]);
        table.note("word ".repeat(20));
        table.row(["two".into(), "2".into()]);
        table.note("");
        let text = written(&table);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[1], lines[4], lines.len()), ("one  1", "two  2", 5));
        assert!(lines[2].len() <= 80 && lines[2].starts_with("    word") && lines[3].starts_with("    word"));
    }

    #[test]
    fn a_cell_may_be_of_any_length() {
        let mut table = Table::new([("NAMES", Align::Left), ("SIZE", Align::Right)]);
        let long = "x".repeat(70_000);
        table.row([long.clone(), "1".into()]);
        table.row(["a".into(), long.clone()]);
        let (text, gap) = (written(&table), " ".repeat(WIDEST + 1));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], format!("{long}  {}1", " ".repeat(WIDEST - 1)));
        assert_eq!(lines[2], format!("a{gap}{long}"));
    }
}
