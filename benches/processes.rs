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

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layerstore::{ContainerOptions, ImageId, Store, is_privileged};
use serde::{Deserialize, Serialize};

/// The variable that makes this program one of the processes. Its value is a [`Task`].
const VARIABLE: &str = "LAYERSTORE_BENCH_TASK";
const PROCESSES: [usize; 4] = [1, 2, 4, 8];

/// Who creates and deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Way {
    /// The library, in processes that keep the store open.
    Kept,
    /// The library, in processes that open the store for each operation.
    Opened,
    /// The program, once for each operation.
    Program,
    /// The program of Debian's package `containers-storage`, once for each operation.
    ContainersStorage,
}

impl Way {
    fn title(self) -> &'static str {
        match self {
            Way::Kept => "library, store kept open",
            Way::Opened => "library, opened each time",
            Way::Program => "layerstore, the program",
            Way::ContainersStorage => "containers-storage",
        }
    }
}

/// What one process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    way: Way,
    top: PathBuf,
    image: String,
    seconds: f64,
}

fn main() {
    if let Some(task) = std::env::var_os(VARIABLE) {
        return work(&serde_json::from_str(task.to_str().unwrap()).unwrap());
    }
    let Some(settings) = Settings::from_arguments() else { return };
    settings.print();
    println!("{:<28}{:>5}{:>9}{:>11}{:>11}{:>10}{:>10}", "", "", "ops/s", "slowest", "fastest", "p50", "p99");
    println!("{:<28}{:>5}{:>9}{:>11}{:>11}{:>10}{:>10}", "", "procs", "all", "proc/s", "proc/s", "ms", "ms");
    for way in [Way::Kept, Way::Opened, Way::Program, Way::ContainersStorage] {
        if way == Way::ContainersStorage && !(is_privileged() && has_containers_storage()) {
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
        let image = prepare(way, place.path());
        let task = Task { way, top: place.path().to_owned(), image, seconds: self.seconds };
        let mut crew: Vec<Worker> = (0..processes).map(|_| Worker::start(&task)).collect();
        for worker in &mut crew {
            worker.wait_until_ready();
        }
        for worker in &mut crew {
            worker.go();
        }
        let times: Vec<Vec<f64>> = crew.into_iter().map(Worker::finish).collect();
        let rate = |times: &Vec<f64>| times.len() as f64 / self.seconds;
        let slowest = times.iter().map(rate).fold(f64::INFINITY, f64::min);
        let fastest = times.iter().map(rate).fold(0.0, f64::max);
        let total: f64 = times.iter().map(rate).sum();
        let mut all: Vec<f64> = times.into_iter().flatten().collect();
        all.sort_by(f64::total_cmp);
        let part = |part: f64| {
            all.get((all.len() as f64 * part) as usize).or(all.last()).map_or(0.0, |time| time * 1e3)
        };
        println!(
            "{:<28}{processes:>5}{total:>9.0}{slowest:>11.1}{fastest:>11.1}{:>10.2}{:>10.2}",
            way.title(),
            part(0.5),
            part(0.99),
        );
    }
}

/// Makes the store with an image, and returns the image's id.
fn prepare(way: Way, top: &Path) -> String {
    if way != Way::ContainersStorage {
        let (_, image) = common::filled(top, 0);
        return image.id.to_string();
    }
    let layer = first_line(containers_storage(top, "create-layer").arg("-i=layer"));
    first_line(containers_storage(top, "create-image").args(["-i=image", &layer]))
}

fn has_containers_storage() -> bool {
    Command::new("containers-storage").arg("version").output().is_ok()
}

fn containers_storage(top: &Path, command: &str) -> Command {
    let mut program = Command::new("containers-storage");
    let option = |name: &str, directory: &str| format!("{name}={}", top.join(directory).display());
    program.arg(command).args([option("--graph", "graph"), option("--run", "run")]);
    program.arg("--storage-driver=overlay").env_remove("STORAGE_OPTS");
    program
}

fn program(top: &Path) -> Command {
    let path = env!("CARGO_BIN_EXE_layerstore");
    let mut program = Command::new(path);
    program.arg("--root").arg(top.join("root")).arg("--runroot").arg(top.join("run"));
    program
}

/// Runs it, and returns the first line that it prints.
fn first_line(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned()
}

/// One of the processes.
struct Worker(Child, BufReader<std::process::ChildStdout>);

impl Worker {
    fn start(task: &Task) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(VARIABLE, serde_json::to_string(task).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn wait_until_ready(&mut self) {
        self.1.read_line(&mut String::new()).unwrap();
    }

    fn go(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// How many seconds each operation took.
    fn finish(mut self) -> Vec<f64> {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        assert!(self.0.wait().unwrap().success());
        serde_json::from_str(&line).unwrap()
    }
}

fn work(task: &Task) {
    let image: Option<ImageId> = task.image.parse().ok();
    let open = || Store::open(&common::options(&task.top)).unwrap();
    let kept = (task.way == Way::Kept).then(open);
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).unwrap();

    let mut times = Vec::new();
    let begun = Instant::now();
    let limit = Duration::from_secs_f64(task.seconds);
    let mut container = None;
    while begun.elapsed() < limit {
        let start = Instant::now();
        container = match (task.way, container.take()) {
            (Way::Kept | Way::Opened, None) => {
                let store = kept.clone().unwrap_or_else(open);
                let made = store.create_container(image.as_ref(), &ContainerOptions::default()).unwrap();
                Some(made.id.to_string())
            }
            (Way::Kept | Way::Opened, Some(id)) => {
                let store = kept.clone().unwrap_or_else(open);
                store.remove_container(&id.parse().unwrap()).unwrap();
                None
            }
            (Way::Program, None) => {
                Some(first_line(program(&task.top).args(["create-container", &task.image])))
            }
            (Way::Program, Some(id)) => {
                first_line(program(&task.top).args(["rm", &id]));
                None
            }
            (Way::ContainersStorage, None) => {
                Some(first_line(containers_storage(&task.top, "create-container").arg(&task.image)))
            }
            (Way::ContainersStorage, Some(id)) => {
                first_line(containers_storage(&task.top, "delete-container").arg(&id));
                None
            }
        };
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::to_string(&times).unwrap());
}
