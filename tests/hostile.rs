//! Layers and images that attack, through the whole of a load.
//!
//! Each attack is loaded by a process of its own: this test binary once more, running
//! [`loads_what_it_is_told`](loader). So a leak, a crash or a gigabyte of memory is the attack's own, and a working
//! directory inside of the victim harms no other test. That process tries it on a store of each kind that it may have:
//! as root on one of `trusted.overlay.*` and on one of `user.overlay.*` (`userxattr`), in a user namespace on one of the
//! second kind. Whatever the attack, afterwards
//!
//! - the victim, a tree beside the store, is what it was, and no inode of it was changed in between;
//! - the image is wholly there, each layer comes out as the bytes that came in, a deep check finds nothing, and a mount
//!   shows what it should; or nothing of it is there, and a typed error names what is wrong;
//! - no file descriptor is left open, memory stayed bounded, nothing hangs, and the load took less of the processor's time
//!   than the case grants.
//!
//! What is no layer of an image, such as an id or what stands in a store's directories, is tried by a [`scene`].
//!
//! docs/hostile-input.md has a row for each attack, with the test that shows it.

mod accounts;
mod archives;
mod case;
mod documented;
mod documents;
mod growth;
mod identifiers;
mod links;
mod loader;
mod metadata;
mod mode;
mod process;
mod records;
mod scene;
mod sparse;
mod streams;
mod victim;
mod whiteouts;
mod wipes;
mod without_openat2;

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use layerstore::oci::{LoadOptions, Source, Transport};
use layerstore::{Error, Store, StoreOptions};
use serde_json::Value;

use crate::support::oci::{Image, Layer, digest};
use crate::support::tar::Member;
use crate::support::tree::Tree;
use crate::support::{Dir, machine};

use case::Expected::{Either, Harmless, Refused};
use case::{Case, Expected, Seen, Wanted, case, layered, of_layers};
use mode::Mode;
use process::{CPU, MEMORY_KIB};
use victim::Victim;

const TAG: &str = "hostile";

/// Tells the loading process where its layout is.
const DIRECTORY: &str = "LAYERSTORE_HOSTILE";

/// Where an attack is tried: a directory with a layout, stores and a victim.
/// Dropping it fails the test if an attack ended otherwise than expected: so all are tried.
struct Place {
    dir: Dir,
    victim: Victim,
    problems: RefCell<Vec<String>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let problems = self.problems.take();
        assert!(problems.is_empty() || std::thread::panicking(), "{}", problems.join("\n"));
    }
}

/// What the loading process saw.
#[derive(Debug)]
struct Report {
    /// One for each mode.
    outcomes: Vec<Outcome>,
    peak_kib: u64,
}

/// What came of a load in one mode.
#[derive(Debug)]
struct Outcome {
    mode: String,
    /// The whole chain of the error; `None` if the image was loaded.
    error: Option<String>,
    /// What a mount shows; null if there was none.
    shown: Value,
    /// The processor's time that the load took, without the questions that followed.
    cpu: Duration,
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new("hostile");
        let victim = Victim::make(&dir.join("victim"));
        Self { dir, victim, problems: RefCell::default() }
    }

    fn layout(&self) -> PathBuf {
        self.dir.join("layout")
    }

    fn victim(&self) -> String {
        self.victim.path().to_owned()
    }

    /// Loads the layout in a process of its own, and checks what holds of every attack. The process works in the victim, for an
    /// attack that says a path relative to wherever the process is.
    fn load(&self, name: &str, longest: Duration) -> Report {
        let [report, said] = ["report", "said"].map(|file| self.dir.join(file));
        let test = "hostile::loader::loads_what_it_is_told";
        process::run(test, &self.dir.join("victim"), (DIRECTORY, self.dir.path()), &said, longest);
        let change = self.victim.change();
        assert!(change.is_none(), "{name}: {}", change.unwrap_or_default());
        let told: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
        std::fs::remove_file(report).unwrap();
        let outcomes = told["modes"].as_array().unwrap().iter().map(|outcome| Outcome {
            mode: outcome["mode"].as_str().unwrap().to_owned(),
            error: outcome["error"].as_str().map(str::to_owned),
            shown: outcome["shown"].clone(),
            cpu: Duration::from_nanos(outcome["cpu"].as_u64().unwrap()),
        });
        let report = Report { outcomes: outcomes.collect(), peak_kib: told["peak_kib"].as_u64().unwrap() };
        assert!(report.peak_kib < MEMORY_KIB, "{name}: {} KiB of memory", report.peak_kib);
        report
    }

    /// Tries each row of a table.
    fn all(&self, cases: impl IntoIterator<Item = Case>) {
        for Case { name, layers, above_base, wanted } in cases {
            if above_base {
                let layers = std::iter::once(self.base()).chain(layers.iter().cloned());
                self.write(layers);
                self.check_wanted(&format!("{name}, second layer"), &wanted);
                if without_openat2::is_here() {
                    continue;
                }
            }
            self.write(layers);
            self.check_wanted(&name, &wanted);
        }
    }

    /// Loads an image with these layers.
    fn attack(&self, name: &str, layers: impl IntoIterator<Item = Layer>, expected: Expected) {
        self.write(layers);
        self.check(name, expected);
    }

    fn write(&self, layers: impl IntoIterator<Item = Layer>) {
        let layout = self.layout();
        std::fs::remove_dir_all(&layout).ok();
        Image::new(layers).write(&layout, TAG);
    }

    /// Loads the layout as it is.
    fn check(&self, name: &str, expected: Expected) {
        self.check_wanted(name, &Wanted::new(expected));
    }

    fn check_wanted(&self, name: &str, Wanted { expected, seen, cpu: most }: &Wanted) {
        for Outcome { mode, error, shown, cpu } in self.load(name, process::longest(*most)).outcomes {
            let note = |problem| self.problems.borrow_mut().push(format!("{name} ({mode}): {problem}"));
            match (expected, error) {
                (Refused(text) | Either(text), Some(error)) if !error.contains(text) => {
                    note(format!("the error does not say {text:?}: {error}"));
                }
                (Refused(_), None) => note("was not refused".to_owned()),
                (Harmless, Some(error)) => note(format!("was refused: {error}")),
                (Harmless | Either(_), None) if !shown.is_null() => {
                    seen.iter().filter_map(|(path, seen)| seen.problem(&shown, path)).for_each(note);
                }
                (Harmless | Either(_), None) | (Refused(_) | Either(_), Some(_)) => {}
            }
            if cpu > *most {
                note(format!("took {cpu:?} of the processor's time, and {most:?} are granted"));
            }
        }
    }

    /// Loads these members as the only layer, and as a layer above one with links to everywhere.
    fn attack_twice(&self, name: &str, members: &[Member], expected: Expected) {
        self.all([case(name, members, expected)]);
    }

    /// A layer without harm of its own, for others to stand on.
    fn base(&self) -> Layer {
        Layer::new([
            Member::directory("etc"),
            Member::file("etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
            Member::directory("foo"),
            Member::file("foo/file", b"file"),
            Member::symlink("up", "../../../victim"),
            Member::symlink("victim", self.victim()),
            Member::symlink("all", "/"),
        ])
    }
}

#[test]
fn ordinary_layers_pass() {
    let place = Place::new();
    let members = [Member::directory("d"), Member::file("d/f", b"f").mode(0o640)];
    place.all([case("nothing hostile", members, Harmless)
        .shows("d", Seen::Directory)
        .shows("d/f", Seen::File(b"f"))
        .shows("d/f", Seen::Mode(0o640))
        .shows("d/g", Seen::Absent)]);
    // The kit itself can find something: a digest that did not come back, a mount that shows something else, a load that took too
    // long.
    assert_ne!(digest(b"a"), digest(b"b"));
    place.all([
        case("shown otherwise", [Member::file("f", b"f")], Harmless).shows("f", Seen::File(b"g")),
        case("an instant", [Member::file("f", b"f")], Harmless).within(Duration::from_nanos(1)),
    ]);
    let problems = place.problems.take();
    let expected = if machine::is_root() { 4 } else { 2 };
    assert_eq!(problems.len(), expected * Mode::all().len(), "{problems:?}");
}

#[test]
fn every_attack_is_tried_in_each_mode() {
    let place = Place::new();
    place.write([place.base()]);
    let modes: Vec<_> =
        place.load("modes", process::longest(CPU)).outcomes.into_iter().map(|outcome| outcome.mode).collect();
    let expected: &[&str] = if machine::is_real_root() { &["Trusted", "UserXattr"] } else { &["UserXattr"] };
    assert_eq!(modes, expected);
    for mode in Mode::all() {
        assert!(mode.root(place.dir.path()).join("LAYERSTORE").is_file());
    }
}
