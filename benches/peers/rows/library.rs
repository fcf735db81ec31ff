//! Operations of the library in a process that does nothing else, in a store of many containers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use layerstore::{ContainerId, ContainerOptions, ImageId, MountOptions, Store, SyncMode, UnmountMode};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::{Deserialize, Serialize};

use super::measured;
use crate::Bench;
use crate::common;
use crate::figures::{Unit, median};
use crate::measure::{Calls, Job, words};
use crate::results::{Claim, Measured, Target};
use crate::turns::alone;

/// The variable that makes this program do an operation and nothing else, so that its calls can be counted.
const VARIABLE: &str = "LAYERSTORE_BENCH_OPERATION";
/// How often each operation is done in a round.
const TIMES: usize = 50;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Operation {
    Open,
    Create,
    CreateAndDelete,
    MountAndUnmount,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    /// None for a round of all, whose [`Times`] are printed.
    operation: Option<Operation>,
    top: PathBuf,
    image: String,
    times: usize,
}

/// Does the operations that the variable asks for, if it asks for any. To be called first.
pub fn serve() -> bool {
    let Some(task) = std::env::var_os(VARIABLE) else { return false };
    let task: Task = serde_json::from_str(task.to_str().unwrap()).unwrap();
    let Some(operation) = task.operation else {
        println!("{}", serde_json::to_string(&round_of(&task)).unwrap());
        return true;
    };
    let open = || Store::open(&common::options(&task.top)).unwrap();
    let store = open();
    let image: ImageId = task.image.parse().unwrap();
    let create = || store.create_container(&image, &ContainerOptions::default()).unwrap();
    let container = create();
    for _ in 0..task.times {
        match operation {
            Operation::Open => drop(open()),
            Operation::Create => drop(create()),
            Operation::CreateAndDelete => store.remove_container(&create().id).unwrap(),
            Operation::MountAndUnmount => mount_and_unmount(&store, &container.id),
        }
    }
    true
}

fn mount_and_unmount(store: &Store, container: &ContainerId) {
    store.mount(container, &MountOptions::default()).unwrap();
    store.unmount(container, UnmountMode::Plain).unwrap();
}

/// Seconds of one round, each the median of many operations.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Times {
    open: f64,
    create: f64,
    create_unsynced: f64,
    delete: f64,
    mount: f64,
    bare_mount: f64,
}

pub fn operations(bench: &mut Bench) -> Measured {
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let top = disk.path().join("ours");
    std::fs::create_dir(&top).unwrap();
    let size = bench.scaled(10_000);
    // The store is not kept open: opening it is measured.
    let image = common::filled(&top, size).1.id;
    let rounds = bench.rounds + usize::from(bench.warms_up());
    let mut times: Vec<Times> = Vec::with_capacity(rounds);
    for round in 1..=rounds {
        nix::unistd::sync();
        times.push(in_own_process(&top, &image));
        bench.say(&format!("library, round {round} of {rounds}"));
    }
    let times = times.split_off(usize::from(bench.warms_up()));
    let of = |one: fn(&Times) -> f64| times.iter().map(one).collect();
    let calls = |operation| calls_of(bench, &top, &image, operation);
    let [create, mounting] = [Operation::Create, Operation::MountAndUnmount].map(calls);
    let [open, both] = [Operation::Open, Operation::CreateAndDelete].map(calls);
    let beside = format!("beside {} containers", Unit::Count.show(size as f64));
    let time = |what: &str, values: Vec<f64>, target| {
        alone(&format!("library: {what} {beside}"), Unit::Seconds, values, target)
    };
    let count =
        |what: &str, value: f64, target| alone(&format!("library: {what}"), Unit::Count, vec![value], target);
    let mut mounted = time("mount and unmount", of(|one| one.mount), Target::Within(1.5));
    (mounted.against, mounted.other) = ("the bare system calls".to_owned(), of(|one| one.bare_mount));
    let claims: Vec<Claim> = vec![
        time("open a store", of(|one| one.open), Target::AtMost(100e-6)),
        count("system calls to open a store", open.0, Target::None),
        time("create a container", of(|one| one.create), Target::None),
        time("create a container, without its syncs", of(|one| one.create_unsynced), Target::AtMost(1e-3)),
        count("syncs to create a container", create.1, Target::AtMost(2.0)),
        mounted,
        count("system calls to mount and unmount", mounting.0, Target::None),
        time("delete a container", of(|one| one.delete), Target::None),
        count("syncs to delete a container", both.1 - create.1, Target::None),
    ];
    measured(claims, Vec::new())
}

/// A round in a process of its own, whose memory is that of these operations, and not of all that was measured before.
fn in_own_process(top: &Path, image: &ImageId) -> Times {
    let task = Task { operation: None, top: top.to_owned(), image: image.to_string(), times: TIMES };
    let output = Command::new(std::env::current_exe().unwrap())
        .env(VARIABLE, serde_json::to_string(&task).unwrap())
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn round_of(task: &Task) -> Times {
    let image: ImageId = task.image.parse().unwrap();
    let bare = Bare::new(&task.top.with_file_name("bare"));
    let options = |sync| common::options(&task.top).sync(sync);
    let each = |operation: &mut dyn FnMut()| median_of(task.times, operation);
    let open = each(&mut || drop(Store::open(&options(SyncMode::Full)).unwrap()));
    let store = Store::open(&options(SyncMode::Full)).unwrap();
    let create = |store: &Store| store.create_container(&image, &ContainerOptions::default()).unwrap().id;
    let mut made = Vec::new();
    let created = each(&mut || made.push(create(&store)));
    let mounted = made[0].clone();
    let mount = each(&mut || mount_and_unmount(&store, &mounted));
    let bare_mount = each(&mut || bare.mount_and_unmount());
    let delete = each(&mut || store.remove_container(&made.pop().unwrap()).unwrap());
    let unsynced = Store::open(&options(SyncMode::Off)).unwrap();
    let create_unsynced = each(&mut || made.push(create(&unsynced)));
    drop(unsynced);
    // With syncs again: until then the file says that it may not be whole, and who opens it looks after that each time.
    for container in made {
        store.remove_container(&container).unwrap();
    }
    Times { open, create: created, create_unsynced, delete, mount, bare_mount }
}

/// Does it so often, and returns the median of the seconds.
fn median_of(times: usize, operation: &mut dyn FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        operation();
        begun.elapsed().as_secs_f64()
    };
    let seconds: Vec<f64> = (0..times).map(|_| once()).collect();
    median(&seconds)
}

/// System calls, and syncs among them, of one operation: those of many, without those of a process that does none. It is the
/// median of several counts, as all is here: the file of the database is made longer by a few of ten thousand.
fn calls_of(bench: &Bench, top: &Path, image: &ImageId, operation: Operation) -> (f64, f64) {
    const OFTEN: usize = 20;
    const COUNTS: usize = 3;
    let program = std::env::current_exe().unwrap();
    let calls = |times| -> Calls {
        let operation = Some(operation);
        let task = Task { operation, top: top.to_owned(), image: image.to_string(), times };
        let job = Job::of(words![&program]).with_variable(VARIABLE, serde_json::to_string(&task).unwrap());
        job.calls(&bench.work, true)
    };
    let [none, many] = [0, OFTEN].map(|times| (0..COUNTS).map(|_| calls(times)).collect::<Vec<Calls>>());
    let each = |of: fn(&Calls) -> u64| {
        let [none, many] = [&none, &many]
            .map(|counts| median(&counts.iter().map(|calls| of(calls) as f64).collect::<Vec<_>>()));
        (many - none) / OFTEN as f64
    };
    (each(|calls| calls.all), each(|calls| calls.syncs))
}

/// An overlay of its own, which is mounted and unmounted by two system calls.
struct Bare {
    target: PathBuf,
    options: String,
}

impl Bare {
    fn new(top: &Path) -> Self {
        let directory = |name: &str| {
            let path = top.join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let [lower, upper, work] = ["lower", "upper", "work"].map(directory);
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        Self { target: directory("target"), options }
    }

    fn mount_and_unmount(&self) {
        let kind = Some("overlay");
        mount(kind, &self.target, kind, MsFlags::empty(), Some(self.options.as_str())).unwrap();
        umount2(&self.target, MntFlags::empty()).unwrap();
    }
}
