//! Several processes that create and delete containers in one store.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layerstore::{ContainerOptions, ImageId, Store};
use serde::{Deserialize, Serialize};

use crate::common;
use crate::containers_storage::{self, first_line};

/// The variable that makes this program one of the processes. Its value is a [`Task`].
const VARIABLE: &str = "LAYERSTORE_BENCH_TASK";

/// Who creates and deletes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Way {
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
    pub fn title(self) -> &'static str {
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
pub struct Task {
    pub way: Way,
    pub top: PathBuf,
    /// The program, if it is [`Way::Program`].
    pub program: PathBuf,
    pub image: String,
    pub seconds: f64,
}

/// How the processes fared.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Operations a second, of each process.
    rates: Vec<f64>,
    /// Seconds, of each operation of any process, the shortest first.
    times: Vec<f64>,
}

impl Outcome {
    pub fn total(&self) -> f64 {
        self.rates.iter().sum()
    }

    pub fn slowest(&self) -> f64 {
        self.rates.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn fastest(&self) -> f64 {
        self.rates.iter().copied().fold(0.0, f64::max)
    }

    /// Seconds that this part of the operations did not take longer than.
    pub fn percentile(&self, part: f64) -> f64 {
        let at = (self.times.len() as f64 * part) as usize;
        self.times.get(at).or(self.times.last()).copied().unwrap_or_default()
    }
}

/// Makes the store with an image and so many containers, and returns the image's id.
pub fn prepare(way: Way, top: &Path, containers: usize) -> String {
    if way != Way::ContainersStorage {
        let (_, image) = common::filled(top, containers);
        return image.id.to_string();
    }
    containers_storage::filled(top, containers);
    "image".to_owned()
}

/// Lets so many processes work at the same time.
pub fn measure(task: &Task, processes: usize) -> Outcome {
    let mut crew: Vec<Worker> = (0..processes).map(|_| Worker::start(task)).collect();
    for worker in &mut crew {
        worker.wait_until_ready();
    }
    for worker in &mut crew {
        worker.go();
    }
    let times: Vec<Vec<f64>> = crew.into_iter().map(Worker::finish).collect();
    let rates = times.iter().map(|times| times.len() as f64 / task.seconds).collect();
    let mut times: Vec<f64> = times.into_iter().flatten().collect();
    times.sort_by(f64::total_cmp);
    Outcome { rates, times }
}

/// Does the work of one of the processes, if this is one. To be called first.
pub fn serve() -> bool {
    let Some(task) = std::env::var_os(VARIABLE) else { return false };
    work(&serde_json::from_str(task.to_str().unwrap()).unwrap());
    true
}

fn program(task: &Task) -> Command {
    let mut program = Command::new(&task.program);
    program.arg("--root").arg(task.top.join("root")).arg("--runroot").arg(task.top.join("run"));
    program
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
            (Way::Program, None) => Some(first_line(program(task).args(["create-container", &task.image]))),
            (Way::Program, Some(id)) => {
                first_line(program(task).args(["rm", &id]));
                None
            }
            (Way::ContainersStorage, None) => {
                Some(first_line(containers_storage::command(&task.top, "create-container").arg(&task.image)))
            }
            (Way::ContainersStorage, Some(id)) => {
                first_line(containers_storage::command(&task.top, "delete-container").arg(&id));
                None
            }
        };
        times.push(start.elapsed().as_secs_f64());
    }
    println!("{}", serde_json::to_string(&times).unwrap());
}
