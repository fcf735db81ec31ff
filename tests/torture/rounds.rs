//! Rounds on one store: workers at work, signals at random moments, and then a close look.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layerstore::{ContainerOptions, MountOptions, Store, StoreOptions, SyncMode, UnmountMode};
use rustix::process::{Pid, Signal, kill_process};

use super::images::{self, SharedImage};
use super::log::{History, Line, Log, Worker};
use super::verify::{self, Known, RunState};
use super::worker::{Handle, Settings, VARIABLE};
use crate::support::Dir;
use crate::support::machine;
use crate::support::random::Random;

/// The test that is a worker when [`VARIABLE`] says so.
const WORKER_TEST: &str = "torture::worker_process";
/// No round takes so long, however busy the machine is.
const ROUND_LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_micros(300);

/// A store that is tortured.
pub struct Torture {
    dir: Dir,
    seed: u64,
    random: Random,
    images: Vec<SharedImage>,
    known: Known,
    mounts: bool,
    sync: bool,
    kind: StoreKind,
    round: usize,
}

/// What kind of store is tortured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreKind {
    /// The images have a store of their own, which one of the workers uses alone.
    separate: bool,
    /// Some of the containers are gone with the next boot.
    transient: bool,
}

/// What happens in a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Nobody is disturbed, so nothing may be left.
    Peace,
    /// Some are killed, and others take their places.
    Kills,
    /// All are killed at once.
    Massacre,
    /// Some are stopped for a while, others killed.
    Stops,
}

/// A signal to come.
#[derive(Clone, Copy, Debug)]
struct Blow {
    /// How many lines the log has by then.
    after: usize,
    /// How long after that: anywhere in an operation.
    delay: Duration,
    /// Which of those that are alive, or all.
    victim: Option<usize>,
    /// For how long it is stopped; if `None`, it is killed.
    stop: Option<Duration>,
}

impl Torture {
    /// A new store. The same seed gives the same operations and signals; how the processes take turns is chance.
    pub fn new(seed: u64) -> Self {
        let dir = Dir::new("torture");
        let images = images::write(&dir.create_dir("images"));
        let mut random = Random::for_purpose(seed, "rounds");
        let slots = 2 + random.below(7);
        let sync = random.once_in(4);
        let kind = StoreKind { separate: !seed.is_multiple_of(2), transient: seed.is_multiple_of(5) };
        let store = open(&dir, kind);
        let known = verify::prepare(&store, slots);
        let mounts = can_mount(&store);
        Self { dir, seed, random, images, known, mounts, sync, kind, round: 0 }
    }

    /// Whether containers are mounted.
    pub fn mounts(&self) -> bool {
        self.mounts
    }

    /// Runs a round and looks at what it left. Returns a line for who watches.
    ///
    /// An error says what must not be, and where its log is.
    pub fn round(&mut self) -> Result<String, String> {
        self.round += 1;
        let kinds = [Kind::Peace, Kind::Kills, Kind::Kills, Kind::Massacre, Kind::Stops];
        let kind = self.random.pick(kinds).unwrap();
        let log = self.dir.join(format!("log-{}", self.round));
        let begun = Instant::now();
        self.work(kind, &log);
        let worked = begun.elapsed();
        let history = History::read(&log);
        let operations = history.attempts().count();
        self.verify(&history).map_err(|why| {
            let kept = std::env::temp_dir().join(format!("layerstore-torture-{}.log", std::process::id()));
            let copied = std::fs::copy(&log, &kept);
            format!("round {} ({kind:?}): {why}\n(log: {} {copied:?})", self.round, kept.display())
        })?;
        let text = format!(
            "round {}: {} processes, {kind:?}, {operations} operations in {worked:.1?}, {} died; verified in {:.1?}; {} containers, \
             {} images",
            self.round,
            self.known.owned.len(),
            history.deaths,
            begun.elapsed().saturating_sub(worked),
            self.known.owned.values().map(|owned| owned.containers.len()).sum::<usize>(),
            self.known.shared.images.len(),
        );
        if self.round > 1 {
            std::fs::remove_file(log).unwrap();
        }
        Ok(text)
    }

    fn verify(&mut self, history: &History) -> Result<(), String> {
        let store = open(&self.dir, self.kind);
        let verified = verify::history(&store, &self.images, &self.known, history, RunState::Kept);
        self.known = verified.map_err(|trouble| trouble.to_string())?;
        verify::settle(&store, &mut self.known, history).map_err(|trouble| trouble.to_string())?;
        match self.dir.mounts().first() {
            Some(mount) => Err(format!("{} is mounted still", mount.display())),
            None => Ok(()),
        }
    }

    /// Removes everything through the store, of which nothing may be left.
    pub fn finish(self) -> Result<(), String> {
        let at_once = self.seed.is_multiple_of(3);
        verify::empty(&open(&self.dir, self.kind), at_once)
            .map_err(|trouble| format!("when all was removed: {trouble}"))
    }

    fn work(&mut self, kind: Kind, log: &std::path::Path) {
        let slots: Vec<usize> = self.known.owned.keys().copied().collect();
        let operations = 12 + self.random.below(40);
        let mut crew = Crew { members: Vec::new(), log: Log::append_to(log), lines: LineCounter::new(log) };
        let mut blows = self.blows(kind, slots.len() * operations * 2);
        for slot in slots {
            let settings = self.settings(slot, 0, operations, log);
            crew.start(settings);
        }
        let begun = Instant::now();
        while !crew.members.is_empty() {
            assert!(begun.elapsed() < ROUND_LIMIT, "the workers of a round do not end");
            for dead in crew.reap() {
                // In a massacre nobody comes after.
                let again = kind != Kind::Massacre && dead.incarnation < 3;
                if again {
                    let rest = operations / 2;
                    let settings = self.settings(dead.slot, dead.incarnation + 1, rest, log);
                    crew.start(settings);
                }
            }
            while let Some(blow) = blows.last().copied()
                && crew.lines.count() >= blow.after
            {
                blows.pop();
                std::thread::sleep(blow.delay);
                crew.strike(&blow);
            }
            std::thread::sleep(POLL);
        }
    }

    /// When who is hit; the last comes first.
    fn blows(&mut self, kind: Kind, lines: usize) -> Vec<Blow> {
        let count = match kind {
            Kind::Peace => 0,
            Kind::Massacre => 1,
            Kind::Kills | Kind::Stops => 2 + self.random.below(8),
        };
        let mut blows: Vec<Blow> = (0..count)
            .map(|_| Blow {
                after: 3 + self.random.below(lines * 3 / 4),
                // Short ones more often than long ones.
                delay: Duration::from_micros(1 << self.random.below(14)),
                victim: (kind != Kind::Massacre).then(|| self.random.below(1 << 16)),
                stop: (kind == Kind::Stops && !self.random.once_in(3))
                    .then(|| Duration::from_millis(1 << self.random.below(8))),
            })
            .collect();
        blows.sort_by_key(|blow| std::cmp::Reverse(blow.after));
        blows
    }

    fn settings(
        &mut self,
        slot: usize,
        incarnation: usize,
        operations: usize,
        log: &std::path::Path,
    ) -> Settings {
        let mut random = Random::for_purpose(self.seed, &format!("{}-{slot}-{incarnation}", self.round));
        let images_root = self.kind.separate.then(|| images_root(&self.dir));
        // The last of several.
        let direct = self.kind.separate && slot > 1 && slot + 1 == self.known.owned.len();
        let (root, run_root) = match &images_root {
            Some(images) if direct => (images.clone(), images.join("run")),
            _ => (self.dir.root(), self.dir.run_root()),
        };
        Settings {
            worker: Worker { slot, incarnation: format!("{}.{incarnation}", self.round) },
            root,
            run_root,
            images_root: images_root.filter(|_| !direct),
            direct,
            transient: self.kind.transient && !direct && random.once_in(2),
            images: self.dir.join("images"),
            log: log.to_owned(),
            seed: random.next(),
            operations: operations as u64,
            stop: self.dir.join("stop"),
            mounts: self.mounts && !direct,
            // Beside each other: what one leaves to the kernel, another brings to the disk.
            sync: self.sync || random.once_in(4),
            // Some give up at once.
            lock_timeout: random.pick([60_000, 60_000, 60_000, 100, 0]).unwrap(),
            handle: random.pick([Handle::Kept, Handle::Kept, Handle::Fresh, Handle::Mixed]).unwrap(),
        }
    }
}

fn open(dir: &Dir, kind: StoreKind) -> Store {
    let mut options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    if kind.separate {
        options = options.image_store_root(images_root(dir));
    }
    Store::open(&options).unwrap()
}

fn images_root(dir: &Dir) -> PathBuf {
    dir.join("separate")
}

/// Whether a container can be mounted here, found out by doing it.
fn can_mount(store: &Store) -> bool {
    if !machine::is_root() {
        return false;
    }
    let container = store.create_container(None, &ContainerOptions::named("trial")).unwrap();
    let mounted = store.mount(&container, &MountOptions::default()).is_ok();
    if mounted {
        store.unmount(&container, UnmountMode::Plain).unwrap();
    }
    store.remove_container(&container.id).unwrap();
    mounted
}

/// The workers of a round. None outlives it.
struct Crew {
    members: Vec<Member>,
    log: Log,
    lines: LineCounter,
}

struct Member {
    child: Child,
    worker: Worker,
    incarnation: usize,
}

/// Who was killed.
struct Dead {
    slot: usize,
    incarnation: usize,
}

impl Crew {
    fn start(&mut self, settings: Settings) {
        let worker = settings.worker.clone();
        let incarnation = worker.incarnation.split('.').next_back().unwrap().parse().unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WORKER_TEST, "--nocapture", "--test-threads=1"])
            .env(VARIABLE, serde_json::to_string(&settings).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.members.push(Member { child, worker, incarnation });
    }

    /// Takes those away that have ended, and returns those that were killed.
    fn reap(&mut self) -> Vec<Dead> {
        let mut dead = Vec::new();
        let log = &mut self.log;
        self.members.retain_mut(|member| {
            let Some(status) = member.child.try_wait().unwrap() else { return true };
            use std::os::unix::process::ExitStatusExt;
            let worker = member.worker.clone();
            if status.signal().is_some() {
                dead.push(Dead { slot: worker.slot, incarnation: member.incarnation });
                log.write(&Line::Died { worker });
            } else if !status.success() {
                log.write(&Line::Failed { worker, message: format!("it ended with {status}") });
            }
            false
        });
        dead
    }

    fn strike(&mut self, blow: &Blow) {
        let count = self.members.len();
        if count == 0 {
            return;
        }
        match (blow.victim, blow.stop) {
            (None, _) => {
                for member in &self.members {
                    send(&member.child, Signal::KILL);
                }
            }
            (Some(victim), None) => send(&self.members[victim % count].child, Signal::KILL),
            (Some(victim), Some(time)) => {
                let member = &self.members[victim % count];
                send(&member.child, Signal::STOP);
                std::thread::sleep(time);
                send(&member.child, Signal::CONT);
            }
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.child.kill());
            drop(member.child.wait());
        }
    }
}

/// Only our own children, which nobody has waited for yet: the number is theirs.
fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// How many lines a log has.
struct LineCounter {
    path: PathBuf,
    read: u64,
    feeds: usize,
}

impl LineCounter {
    fn new(path: &std::path::Path) -> Self {
        Self { path: path.to_owned(), read: 0, feeds: 0 }
    }

    fn count(&mut self) -> usize {
        use std::os::unix::fs::FileExt;
        let Ok(file) = std::fs::File::open(&self.path) else { return 0 };
        let mut buffer = [0; 1 << 16];
        while let Ok(length @ 1..) = file.read_at(&mut buffer, self.read) {
            self.read += length as u64;
            self.feeds += buffer[..length].iter().filter(|byte| **byte == b'\n').count();
        }
        // One before each line and one after.
        self.feeds / 2
    }
}
