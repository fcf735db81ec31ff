//! Attacks that are no layers of an image: what is asked of a store, or found in its directories. They are held to what
//! loads are held to.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use layerstore::Store;

use super::process::{self, MEMORY_KIB};
use super::{Mode, Victim};
use crate::support::Dir;

/// Set in the process that an attack has for itself.
const ALONE: &str = "LAYERSTORE_HOSTILE_ALONE";

/// Many times what a few calls take on some stores, as they are made for each attack.
const CPU: Duration = Duration::from_secs(2);

/// Does something in a process of its own, once in each mode that this one may have: `test` is the path of the test that asks for
/// it. Panics if that takes too much, or leaves a descriptor open.
pub fn in_each_mode(test: &str, attack: impl Fn(Mode)) {
    in_each_mode_within(test, CPU, attack);
}

/// The same, for what takes up to so much of the processor's time in each mode, with the programs that it starts.
pub fn in_each_mode_within(test: &str, most: Duration, attack: impl Fn(Mode)) {
    bounded(test, most, process::longest(most), attack);
}

fn bounded(test: &str, most: Duration, longest: Duration, attack: impl Fn(Mode)) {
    if std::env::var_os(ALONE).is_none_or(|alone| alone != *test) {
        let dir = Dir::new("hostile-alone");
        return process::run(test, dir.path(), (ALONE, Path::new(test)), &dir.join("said"), longest);
    }
    process::limit();
    for mode in Mode::all() {
        let (begun, descriptors) = (spent(), process::open_descriptors());
        attack(*mode);
        assert_eq!(process::open_descriptors(), descriptors, "{mode:?}: open file descriptors");
        let taken = spent() - begun;
        assert!(taken < most, "{mode:?}: {taken:?} of the processor's time, and {most:?} are granted");
    }
    let peak = process::peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB of memory");
}

fn spent() -> Duration {
    process::cpu() + process::cpu_of_programs()
}

/// A directory with a store of one mode at its root, and a victim beside it. Dropping it fails the test if the victim was
/// touched.
pub struct Scene {
    pub dir: Dir,
    mode: Mode,
    victim: Victim,
}

impl Scene {
    pub fn new(mode: Mode) -> Self {
        let dir = Dir::new("hostile-scene");
        let victim = Victim::make(&dir.join("victim"));
        drop(mode.open(&dir.root(), &dir.run_root()));
        Self { dir, mode, victim }
    }

    pub fn open(&self) -> Store {
        self.mode.open(&self.dir.root(), &self.dir.run_root())
    }

    /// Where the victim is.
    pub fn victim(&self) -> PathBuf {
        self.victim.path().into()
    }

    /// Makes the victim another one, before the attack.
    pub fn change_victim(&mut self, change: impl FnOnce(&Path)) {
        change(Path::new(self.victim.path()));
        self.victim = Victim::scan(Path::new(self.victim.path()));
    }

    #[track_caller]
    pub fn assert_victim(&self) {
        assert_eq!(self.victim.change(), None, "{:?}", self.mode);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_victim();
        }
    }
}

/// What the process that tries an attack says as it fails.
fn failure(test: &str, longest: Duration, attack: impl Fn(Mode)) -> Option<String> {
    let attempt = || bounded(test, Duration::from_millis(500), longest, attack);
    if std::env::var_os(ALONE).is_some() {
        attempt();
        return None;
    }
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt)).unwrap_err();
    Some(failed.downcast_ref::<String>().unwrap().clone())
}

#[test]
fn a_descriptor_that_stays_open_is_noticed() {
    const TEST: &str = "hostile::scene::a_descriptor_that_stays_open_is_noticed";
    let leak = |_| std::mem::forget(std::fs::File::open("/dev/null").unwrap());
    let Some(told) = failure(TEST, process::longest(CPU), leak) else { return };
    assert!(told.contains("open file descriptors"), "{told}");
    // That process had a failed test, and this one has none.
    let own = |line: &&str| line.starts_with("test ") || line.starts_with("failures:");
    assert_eq!(told.lines().find(own), None, "{told}");
}

#[test]
fn a_program_that_works_in_vain_is_noticed() {
    const TEST: &str = "hostile::scene::a_program_that_works_in_vain_is_noticed";
    let work = |_| {
        Command::new("sh").args(["-c", "ulimit -t 1; while :; do :; done"]).status().unwrap();
    };
    let Some(told) = failure(TEST, process::longest(CPU), work) else { return };
    assert!(told.contains("of the processor's time, and 500ms are granted"), "{told}");
}

/// As one who opens a pipe that nobody writes to.
#[test]
fn a_call_that_waits_for_ever_is_noticed() {
    const TEST: &str = "hostile::scene::a_call_that_waits_for_ever_is_noticed";
    let wait = |_| {
        let (pipe, _writer) = std::io::pipe().unwrap();
        std::io::read_to_string(pipe).unwrap();
    };
    let Some(told) = failure(TEST, Duration::from_secs(2), wait) else { return };
    assert!(told.contains("hangs: it took 2s"), "{told}");
}
