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

/// A table with a heading.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
    heading: bool,
    empty: &'static str,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(columns: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Table { columns: columns.into_iter().collect(), rows: Vec::new(), heading: true, empty: "-" }
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
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let shown = self.heading.then_some(&heading);
        let mut widths = vec![0; self.columns.len()];
        for row in shown.into_iter().chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        if self.heading {
            write!(out, "{HEADING}")?;
            self.line(out, &heading, &widths)?;
            writeln!(out, "{HEADING:#}")?;
        }
        for row in &self.rows {
            self.line(out, row, &widths)?;
            writeln!(out)?;
        }
        Ok(())
    }

    fn line(&self, out: &mut impl Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let padded =
            cells.iter().zip(widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
                Align::Right => format!("{cell:>width$}"),
                Align::Left => format!("{cell:<width$}"),
            });
        // No blanks at the end of lines.
        write!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())
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
}
