//! layerstore beside the programs that do the same work, on fresh filesystems, in turn: `benches/peers.sh` runs it, as
//! root, on a machine that does nothing else, and `docs/performance.md` is what comes of it.
//!
//! What each row has brought is kept in `peers` of the target directory, so that one can be measured again; the page is made of all.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark stops at the first thing that is not as it should be"
)]
#![cfg_attr(
    test,
    allow(
        dead_code,
        unused_imports,
        reason = "without a harness the unit tests are gone: tests/peers.rs runs them"
    )
)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/containers_storage.rs"]
mod containers_storage;
#[path = "../common/crew.rs"]
mod crew;
mod figures;
mod filesystem;
mod inputs;
mod machine;
mod measure;
mod plot;
mod programs;
mod report;
mod results;
mod rows;
mod settings;
mod turns;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use filesystem::Disk;
use results::{Measured, Results};
use rows::{ROWS, Row};
use settings::Settings;

/// How measuring is done, for the page.
const METHOD: &str = include_str!("method.md");

/// Where and how rows are measured.
#[derive(Debug)]
pub struct Bench {
    /// For what runs say and what observes them.
    pub work: PathBuf,
    /// What was made to go in.
    pub inputs: PathBuf,
    /// A filesystem of this one is made for each run.
    pub disk: Disk,
    /// A filesystem of this one is made for what is there during a whole row.
    pub standing: Disk,
    pub rounds: usize,
    pub quick: bool,
    begun: Instant,
}

impl Bench {
    fn new(dir: &Path, settings: &Settings) -> Self {
        let [work, inputs] = filesystem::directories(dir, ["work", "inputs"]);
        programs::install(dir);
        let bytes = if settings.quick { 3 << 30 } else { 6 << 30 };
        let disk = |name| Disk::new(dir, name, bytes, !settings.quick);
        Self {
            work,
            inputs,
            disk: disk("fresh"),
            standing: disk("standing"),
            rounds: settings.rounds,
            quick: settings.quick,
            begun: Instant::now(),
        }
    }

    /// So many of something; few in a quick run.
    pub fn scaled(&self, count: usize) -> usize {
        if self.quick { (count / 50).max(count.min(10)) } else { count }
    }

    /// Whether there is a round before those that count: memory that is touched first, programs not yet in the page cache.
    pub fn warms_up(&self) -> bool {
        !self.quick
    }

    pub fn say(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.begun.elapsed().as_secs());
    }

    fn measure(&mut self, row: &Row, dir: &Path) -> Option<Measured> {
        self.say(&format!("# {}: {}", row.name, row.about));
        let session = machine::session(dir, self.rounds, self.quick);
        if session.busy > 0.05 {
            self.say(&format!(
                "this machine does other things, too: {:.0} % of its time",
                session.busy * 100.0
            ));
        }
        // A row that fails is not there, and the others are.
        let measured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (row.measure)(self)));
        measured.ok().map(|measured| Measured { session, ..measured })
    }
}

/// Where results and the page are: those of a quick run do not belong to the documentation.
#[derive(Debug)]
struct Output {
    results: PathBuf,
    docs: PathBuf,
}

impl Output {
    fn new(quick: bool) -> Self {
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
        if quick {
            return Self { results: kept.join("quick/results.json"), docs: kept.join("quick") };
        }
        Self { results: kept.join("results.json"), docs: Path::new(env!("CARGO_MANIFEST_DIR")).join("docs") }
    }

    fn write_page(&self, results: &Results) {
        let (page, pictures) = (self.docs.join("performance.md"), self.docs.join("performance"));
        std::fs::create_dir_all(&self.docs).unwrap();
        let old = std::fs::read_to_string(&page).unwrap_or_default();
        let order: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        for plot in results.rows.values().flat_map(|row| &row.plots) {
            if let Some(picture) = plot::svg(plot) {
                std::fs::create_dir_all(&pictures).unwrap();
                std::fs::write(pictures.join(format!("{}.svg", plot.name)), picture).unwrap();
            }
        }
        std::fs::write(&page, report::page(results, &order, METHOD, &old)).unwrap();
        println!("{}", page.display());
    }
}

fn main() -> ExitCode {
    if crew::serve() || rows::library::serve() {
        return ExitCode::SUCCESS;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("");
    let dir = std::env::var_os("LAYERSTORE_BENCH_DIR").map_or(target, PathBuf::from);
    let settings = match Settings::parse(std::env::args().skip(1), dir) {
        Ok(Some(settings)) => settings,
        Ok(None) => {
            println!("peers: nothing is asked for; benches/peers.sh --help");
            return ExitCode::SUCCESS;
        }
        Err(error) => return fail(&error),
    };
    if settings.list {
        ROWS.iter().for_each(|row| println!("{:<18} {}", row.name, row.about));
        return ExitCode::SUCCESS;
    }
    let output = Output::new(settings.quick);
    let mut results = Results::read(&output.results);
    let failed = match settings.rows.is_empty() {
        true => Vec::new(),
        false if !nix::unistd::geteuid().is_root() => {
            return fail("measuring needs root: it makes filesystems");
        }
        false => measure(&settings, &output, &mut results),
    };
    output.write_page(&results);
    match failed.is_empty() {
        true => ExitCode::SUCCESS,
        false => fail(&format!("these rows failed: {}", failed.join(", "))),
    }
}

/// Measures the rows that are asked for, and returns the names of those that failed.
fn measure(settings: &Settings, output: &Output, results: &mut Results) -> Vec<&'static str> {
    filesystem::keep_mounts_private().expect("mounts of its own");
    let dir = tempfile::Builder::new().prefix("layerstore-peers-").tempdir_in(&settings.dir).unwrap();
    let mut bench = Bench::new(dir.path(), settings);
    let mut failed = Vec::new();
    for row in settings.rows.iter().filter_map(|name| settings::known(name).ok()) {
        match bench.measure(row, &settings.dir) {
            Some(measured) => {
                results.rows.insert(row.name.to_owned(), measured);
                results.write(&output.results);
            }
            None => failed.push(row.name),
        }
    }
    failed
}

fn fail(message: &str) -> ExitCode {
    eprintln!("peers: {message}");
    ExitCode::FAILURE
}
