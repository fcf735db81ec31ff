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
//! - no file descriptor is left open, memory stayed bounded, and so did the processor's time.
//!
//! docs/hostile-input.md has a row for each attack, with the test that shows it.

mod accounts;
mod archives;
mod case;
mod documented;
mod documents;
mod identifiers;
mod links;
mod loader;
mod metadata;
mod whiteouts;
mod wipes;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use layerstore::oci::{LoadOptions, Source, Transport};
use layerstore::{Error, Store, StoreOptions};
use serde_json::Value;

use crate::support::oci::{Image, Layer, digest};
use crate::support::tar::Member;
use crate::support::tree::Tree;
use crate::support::{Dir, machine};

use case::Expected::{Either, Harmless, Refused};
use case::{Case, Expected, Seen, case, layered};
use loader::Mode;

/// More than any load needs, and far below what the bombs unpack to.
const MEMORY_KIB: u64 = 200 << 10;

/// Only what hangs takes so long. What works in vain runs into the limit of the processor's time before.
const HANGS: Duration = Duration::from_secs(900);

const TAG: &str = "hostile";

/// Tells the loading process where its layout is.
const DIRECTORY: &str = "LAYERSTORE_HOSTILE";

/// Where an attack is tried: a directory with a layout, stores and a victim.
/// Dropping it fails the test if an attack ended otherwise than expected: so all are tried.
struct Place {
    dir: Dir,
    before: Victim,
    problems: RefCell<Vec<String>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let problems = self.problems.take();
        assert!(problems.is_empty() || std::thread::panicking(), "{}", problems.join("\n"));
    }
}

/// The tree that no attack may reach.
#[derive(Debug)]
struct Victim {
    tree: Tree,
    /// Number of names, and when the inode was last changed in any way, even one that was taken back.
    inodes: BTreeMap<PathBuf, (u64, i64, i64)>,
}

impl Victim {
    fn scan(top: &Path) -> Self {
        let mut inodes = BTreeMap::new();
        for path in ["", "hello", "second-name", "link", "dir", "dir/secret"] {
            let found = std::fs::symlink_metadata(top.join(path)).unwrap();
            inodes.insert(PathBuf::from(path), (found.nlink(), found.ctime(), found.ctime_nsec()));
        }
        Self { tree: Tree::scan(top), inodes }
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
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new("hostile");
        dir.write("victim/hello", "hello");
        let secret = dir.write("victim/dir/secret", "secret");
        std::fs::set_permissions(secret, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("dir/secret", dir.join("victim/link")).unwrap();
        std::fs::hard_link(dir.join("victim/hello"), dir.join("victim/second-name")).unwrap();
        let before = Victim::scan(&dir.join("victim"));
        Self { dir, before, problems: RefCell::default() }
    }

    fn layout(&self) -> PathBuf {
        self.dir.join("layout")
    }

    fn victim(&self) -> String {
        self.dir.join("victim").to_str().unwrap().to_owned()
    }

    /// Loads the layout in a process of its own, and checks what holds of every attack.
    fn load(&self, name: &str) -> Report {
        let [report, said] = ["report", "said"].map(|file| self.dir.join(file));
        let out = File::create(&said).unwrap();
        let mut loader = Command::new(std::env::current_exe().unwrap())
            .args(["hostile::loader::loads_what_it_is_told", "--exact", "--include-ignored", "--nocapture"])
            .env(DIRECTORY, self.dir.path())
            // For an attack that says a path relative to wherever the process is.
            .current_dir(self.dir.join("victim"))
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let status = loop {
            match loader.try_wait().unwrap() {
                Some(status) => break status,
                None if begun.elapsed() > HANGS => {
                    loader.kill().unwrap();
                    break loader.wait().unwrap();
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        assert!(
            status.success() && !text.is_empty(),
            "{name}: the loading process failed: {status}\n{}",
            String::from_utf8_lossy(&std::fs::read(said).unwrap())
        );
        let now = Victim::scan(&self.dir.join("victim"));
        self.before.tree.assert_same(&now.tree);
        assert_eq!(self.before.inodes, now.inodes, "{name}");
        std::fs::remove_file(report).unwrap();
        let told: Value = serde_json::from_str(&text).unwrap();
        let outcomes = told["modes"].as_array().unwrap().iter().map(|outcome| Outcome {
            mode: outcome["mode"].as_str().unwrap().to_owned(),
            error: outcome["error"].as_str().map(str::to_owned),
            shown: outcome["shown"].clone(),
        });
        let report = Report { outcomes: outcomes.collect(), peak_kib: told["peak_kib"].as_u64().unwrap() };
        assert!(report.peak_kib < MEMORY_KIB, "{name}: {} KiB of memory", report.peak_kib);
        report
    }

    /// Tries each row of a table.
    fn all(&self, cases: impl IntoIterator<Item = Case>) {
        for Case { name, layers, above_base, expected, seen } in cases {
            if above_base {
                let layers = std::iter::once(self.base()).chain(layers.iter().cloned());
                self.write(layers);
                self.check_seen(&format!("{name}, second layer"), expected, &seen);
            }
            self.write(layers);
            self.check_seen(&name, expected, &seen);
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
        self.check_seen(name, expected, &[]);
    }

    fn check_seen(&self, name: &str, expected: Expected, seen: &[(String, Seen)]) {
        for Outcome { mode, error, shown } in self.load(name).outcomes {
            let note = |problem| self.problems.borrow_mut().push(format!("{name} ({mode}): {problem}"));
            match (expected, error) {
                (Refused(text), Some(error)) if !error.contains(text) => {
                    note(format!("the error does not say {text:?}: {error}"));
                }
                (Refused(_), None) => note("was not refused".to_owned()),
                (Harmless, Some(error)) => note(format!("was refused: {error}")),
                (Harmless | Either, None) if !shown.is_null() => {
                    seen.iter().filter_map(|(path, seen)| seen.problem(&shown, path)).for_each(note);
                }
                (Harmless | Either, None) | (Refused(_) | Either, Some(_)) => {}
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
    // The kit itself can find something: a tree that changed, a digest that did not come back.
    assert_ne!(digest(b"a"), digest(b"b"));
    place.dir.write("victim/new", "new");
    assert!(!place.before.tree.differences(&Tree::scan(place.dir.join("victim"))).is_empty());
}

#[test]
fn every_attack_is_tried_in_each_mode() {
    let place = Place::new();
    place.write([place.base()]);
    let modes: Vec<_> = place.load("modes").outcomes.into_iter().map(|outcome| outcome.mode).collect();
    let expected: &[&str] = if machine::is_real_root() { &["Trusted", "UserXattr"] } else { &["UserXattr"] };
    assert_eq!(modes, expected);
    for mode in Mode::all() {
        assert!(mode.root(place.dir.path()).join("LAYERSTORE").is_file());
    }
}

#[test]
fn a_name_that_comes_and_goes_is_noticed() {
    let place = Place::new();
    let victim = place.dir.join("victim");
    std::fs::hard_link(victim.join("hello"), place.dir.join("third-name")).unwrap();
    std::fs::remove_file(place.dir.join("third-name")).unwrap();
    let now = Victim::scan(&victim);
    place.before.tree.assert_same(&now.tree);
    assert_ne!(place.before.inodes, now.inodes);
}
