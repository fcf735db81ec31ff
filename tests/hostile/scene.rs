//! Attacks that are no layers of an image: what is asked of a store, or found in its directories. They are held to what
//! loads are held to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use layerstore::Store;

use super::process::{self, MEMORY_KIB};
use super::{Mode, Victim};
use crate::support::Dir;

/// Set in the process that an attack has for itself.
const ALONE: &str = "LAYERSTORE_HOSTILE_ALONE";

/// More of the processor's time than any of these takes, by far; the programs that it starts have their own.
const CPU: Duration = Duration::from_secs(120);

/// Does something in a process of its own, once in each mode that this one may have: `test` is the path of the test that asks for
/// it. Panics if that takes too much, or leaves a descriptor open.
pub fn in_each_mode(test: &str, attack: impl Fn(Mode)) {
    if std::env::var_os(ALONE).is_none_or(|alone| alone != *test) {
        let dir = Dir::new("hostile-alone");
        return process::run(test, dir.path(), (ALONE, Path::new(test)), &dir.join("said"));
    }
    process::limit();
    for mode in Mode::all() {
        let (begun, descriptors) = (process::cpu(), process::open_descriptors());
        attack(*mode);
        assert_eq!(process::open_descriptors(), descriptors, "{mode:?}: open file descriptors");
        let taken = process::cpu() - begun;
        assert!(taken < CPU, "{mode:?}: {taken:?} of the processor's time");
    }
    let peak = process::peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB of memory");
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

#[test]
fn a_descriptor_that_stays_open_is_noticed() {
    const TEST: &str = "hostile::scene::a_descriptor_that_stays_open_is_noticed";
    let leak = || in_each_mode(TEST, |_| std::mem::forget(std::fs::File::open("/dev/null").unwrap()));
    if std::env::var_os(ALONE).is_some() {
        return leak();
    }
    let failed = std::panic::catch_unwind(leak).unwrap_err();
    let told = failed.downcast_ref::<String>().unwrap();
    assert!(told.contains("open file descriptors"), "{told}");
    // That process had a failed test, and this one has none.
    let own = |line: &&str| line.starts_with("test ") || line.starts_with("failures:");
    assert_eq!(told.lines().find(own), None, "{told}");
}
