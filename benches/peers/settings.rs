//! What is asked for on the command line.

use std::path::PathBuf;

use super::rows::{ROWS, Row};

pub const USAGE: &str = "\
usage: benches/peers.sh [OPTION..]

  --row NAME    only this row; may be repeated
  --quick       small sizes, once: to see whether everything works
  --rounds N    how often each program is measured (5)
  --dir DIR     make the filesystems here, on a disk ($LAYERSTORE_BENCH_DIR, else target)
  --report      measure nothing: write the page anew from what was measured
  --list        list the rows
";

#[derive(Debug)]
pub struct Settings {
    pub rows: Vec<&'static str>,
    pub quick: bool,
    pub rounds: usize,
    pub dir: PathBuf,
    pub list: bool,
}

impl Settings {
    /// `None` if nothing is asked of this benchmark, as by `cargo bench` for all.
    ///
    /// An error says what is wrong.
    pub fn parse(mut arguments: impl Iterator<Item = String>, dir: PathBuf) -> Result<Option<Self>, String> {
        let mut settings = Self { rows: Vec::new(), quick: false, rounds: 0, dir, list: false };
        let (mut is_asked, mut is_all) = (false, false);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => continue,
                "--all" => is_all = true,
                "--row" => settings.rows.push(known(&value()?)?.name),
                "--quick" => settings.quick = true,
                "--rounds" => settings.rounds = value()?.parse().map_err(|_| "--rounds needs a number")?,
                "--dir" => {
                    settings.dir = value()?.into();
                    continue;
                }
                "--report" => {}
                "--list" => settings.list = true,
                // For other benchmarks, which `cargo bench` gives the same words.
                _ if !is_asked => return Ok(None),
                other => return Err(format!("{other} means nothing\n{USAGE}")),
            }
            is_asked = true;
        }
        if is_all {
            settings.rows = ROWS.iter().map(|row| row.name).collect();
        }
        if settings.rounds == 0 {
            settings.rounds = if settings.quick { 1 } else { 5 };
        }
        Ok(is_asked.then_some(settings))
    }
}

pub fn known(name: &str) -> Result<&'static Row, String> {
    let names = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    ROWS.iter()
        .find(|row| row.name == name)
        .ok_or_else(|| format!("there is no row {name}; there are {}", names()))
}
