//! Operations of the library in one process, in a store of many containers.

use std::path::{Path, PathBuf};
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
    operation: Operation,
    top: PathBuf,
    image: String,
    times: usize,
}

/// Does the operations that the variable asks for, if it asks for any. To be called first.
pub fn serve() -> bool {
    let Some(task) = std::env::var_os(VARIABLE) else { return false };
    let task: Task = serde_json::from_str(task.to_str().unwrap()).unwrap();
    let open = || Store::open(&common::options(&task.top)).unwrap();
    let store = open();
    let image: ImageId = task.image.parse().unwrap();
    let create = || store.create_container(&image, &ContainerOptions::default()).unwrap();
    let container = create();
    for _ in 0..task.times {
        match task.operation {
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

/// Seconds of each round.
#[derive(Default)]
struct Times {
    open: Vec<f64>,
    create: Vec<f64>,
    create_unsynced: Vec<f64>,
    delete: Vec<f64>,
    mount: Vec<f64>,
    bare_mount: Vec<f64>,
}

pub fn operations(bench: &mut Bench) -> Measured {
    let mut disk = bench.standing.clone();
    let disk = disk.mount();
    let top = disk.path().join("ours");
    std::fs::create_dir(&top).unwrap();
    let size = bench.scaled(10_000);
    // The store is not kept open: opening it is measured.
    let image = common::filled(&top, size).1.id;
    let bare = Bare::new(&disk.path().join("bare"));
    let mut times = Times::default();
    for round in 0..bench.rounds + usize::from(bench.warms_up()) {
        nix::unistd::sync();
        if round == 1 && bench.warms_up() {
            times = Times::default();
        }
        round_of(&mut times, &top, &image, &bare);
        bench.say(&format!(
            "library, round {} of {}",
            round + 1,
            bench.rounds + usize::from(bench.warms_up())
        ));
    }
    let calls = |operation| calls_of(bench, &top, &image, operation);
    let [create, mounting] = [Operation::Create, Operation::MountAndUnmount].map(calls);
    let [open, both] = [Operation::Open, Operation::CreateAndDelete].map(calls);
    let beside = format!("beside {} containers", Unit::Count.show(size as f64));
    let time = |what: &str, values: Vec<f64>, target| {
        alone(&format!("library: {what} {beside}"), Unit::Seconds, values, target)
    };
    let count =
        |what: &str, value: f64, target| alone(&format!("library: {what}"), Unit::Count, vec![value], target);
    let mut mounted = time("mount and unmount", times.mount, Target::Within(1.5));
    (mounted.against, mounted.other) = ("the bare system calls".to_owned(), times.bare_mount);
    let claims: Vec<Claim> = vec![
        time("open a store", times.open, Target::AtMost(100e-6)),
        count("system calls to open a store", open.0, Target::None),
        time("create a container", times.create, Target::None),
        time("create a container, without its syncs", times.create_unsynced, Target::AtMost(1e-3)),
        count("syncs to create a container", create.1, Target::AtMost(2.0)),
        mounted,
        count("system calls to mount and unmount", mounting.0, Target::None),
        time("delete a container", times.delete, Target::None),
        count("syncs to delete a container", both.1 - create.1, Target::None),
    ];
    measured(claims, Vec::new())
}

fn round_of(times: &mut Times, top: &Path, image: &ImageId, bare: &Bare) {
    let options = |sync| common::options(top).sync(sync);
    times.open.push(each(|| drop(Store::open(&options(SyncMode::Full)).unwrap())));
    let store = Store::open(&options(SyncMode::Full)).unwrap();
    let create = |store: &Store| store.create_container(image, &ContainerOptions::default()).unwrap().id;
    let mut made = Vec::new();
    times.create.push(each(|| made.push(create(&store))));
    let mounted = made[0].clone();
    times.mount.push(each(|| mount_and_unmount(&store, &mounted)));
    times.bare_mount.push(each(|| bare.mount_and_unmount()));
    times.delete.push(each(|| store.remove_container(&made.pop().unwrap()).unwrap()));
    drop(store);
    let store = Store::open(&options(SyncMode::Off)).unwrap();
    times.create_unsynced.push(each(|| made.push(create(&store))));
    for container in made {
        store.remove_container(&container).unwrap();
    }
}

/// Does it so often, and returns the median of the seconds.
fn each(mut operation: impl FnMut()) -> f64 {
    let mut once = || {
        let begun = Instant::now();
        operation();
        begun.elapsed().as_secs_f64()
    };
    let times: Vec<f64> = (0..TIMES).map(|_| once()).collect();
    median(&times)
}

/// System calls, and syncs among them, of one operation: those of many, without those of a process that does none.
fn calls_of(bench: &Bench, top: &Path, image: &ImageId, operation: Operation) -> (f64, f64) {
    const OFTEN: usize = 20;
    let program = std::env::current_exe().unwrap();
    let calls = |times| -> Calls {
        let task = Task { operation, top: top.to_owned(), image: image.to_string(), times };
        let job = Job::of(words![&program]).with_variable(VARIABLE, serde_json::to_string(&task).unwrap());
        job.calls(&bench.work, true)
    };
    let (many, none) = (calls(OFTEN), calls(0));
    let each = |many: u64, none: u64| many.saturating_sub(none) as f64 / OFTEN as f64;
    (each(many.all, none.all), each(many.syncs, none.syncs))
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
