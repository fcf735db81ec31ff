//! Several processes that create and delete containers in one store: how many a second, how evenly, and how long each
//! waits. In the library, as whole runs of the program, and of `containers-storage` if it is installed.
//!
//! ```text
//! cargo bench --bench processes -- [--dir DIR] [--seconds N]
//! ```
//!
//! The stores are made below DIR, else `LAYERSTORE_BENCH_DIR`, else `target`: what syncing costs shows only on a disk.
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

mod common;
#[path = "common/containers_storage.rs"]
mod containers_storage;
#[path = "common/crew.rs"]
mod crew;

use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::is_privileged;

use crew::{Task, Way};

const PROCESSES: [usize; 4] = [1, 2, 4, 8];

fn main() {
    if crew::serve() {
        return;
    }
    let Some(settings) = Settings::from_arguments() else { return };
    settings.print();
    println!("{:<28}{:>5}{:>9}{:>11}{:>11}{:>10}{:>10}", "", "", "ops/s", "slowest", "fastest", "p50", "p99");
    println!("{:<28}{:>5}{:>9}{:>11}{:>11}{:>10}{:>10}", "", "procs", "all", "proc/s", "proc/s", "ms", "ms");
    for way in [Way::Kept, Way::Opened, Way::Program, Way::ContainersStorage] {
        if way == Way::ContainersStorage && !(is_privileged() && containers_storage::is_installed()) {
            println!("{:<28} not installed, or this is not root", way.title());
            continue;
        }
        for processes in PROCESSES {
            settings.measure(way, processes);
        }
    }
}

struct Settings {
    dir: PathBuf,
    seconds: f64,
}

impl Settings {
    /// `None` if words on the command line choose other benchmarks.
    fn from_arguments() -> Option<Self> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        let dir = std::env::var_os("LAYERSTORE_BENCH_DIR").map_or(target, PathBuf::from);
        let mut settings = Self { dir, seconds: 3.0 };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--dir" => settings.dir = arguments.next().expect("--dir DIR").into(),
                "--seconds" => {
                    settings.seconds = arguments.next().and_then(|n| n.parse().ok()).expect("--seconds N")
                }
                "--bench" => {}
                word if "processes".contains(word) => {}
                _ => return None,
            }
        }
        Some(settings)
    }

    fn print(&self) {
        let output = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output();
            output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let filesystem = output("stat", &["-f", "-c", "%T", self.dir.to_str().unwrap()]);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!(
            "{} in {}, {} processors, Linux {}, load {}, {} s each",
            filesystem,
            self.dir.display(),
            std::thread::available_parallelism().map_or(1, usize::from),
            output("uname", &["-r"]),
            load.split(' ').next().unwrap_or_default(),
            self.seconds,
        );
        println!("An operation is one creation or one deletion of a container, synced to the disk.\n");
    }

    fn measure(&self, way: Way, processes: usize) {
        let place = tempfile::Builder::new().prefix("layerstore-bench-").tempdir_in(&self.dir).unwrap();
        let image = crew::prepare(way, place.path(), 0);
        let program = env!("CARGO_BIN_EXE_layerstore").into();
        let task = Task { way, top: place.path().to_owned(), program, image, seconds: self.seconds };
        let outcome = crew::measure(&task, processes);
        println!(
            "{:<28}{processes:>5}{:>9.0}{:>11.1}{:>11.1}{:>10.2}{:>10.2}",
            way.title(),
            outcome.total(),
            outcome.slowest(),
            outcome.fastest(),
            outcome.percentile(0.5) * 1e3,
            outcome.percentile(0.99) * 1e3,
        );
    }
}
