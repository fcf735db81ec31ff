//! Layers and images that attack, through the whole of a load.
//!
//! Each attack is loaded by a process of its own: this test binary once more, running [`loads_what_it_is_told`].
//! So a leak, a crash or a gigabyte of memory is the attack's own, and a working directory inside of the victim
//! harms no other test. Whatever the attack, afterwards
//!
//! - the victim, a tree beside the store, is what it was;
//! - the image is wholly there, and each layer comes out as the bytes that came in; or nothing of it is there,
//!   and a typed error names what is wrong;
//! - no file descriptor is left open, and memory stayed bounded.

mod accounts;
mod archives;
mod documents;
mod identifiers;
mod links;
mod metadata;
mod whiteouts;
mod wipes;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{Error, Store, StoreOptions, SyncMode};

use crate::support::Dir;
use crate::support::oci::{Image, Layer, digest};
use crate::support::tar::Member;
use crate::support::tree::Tree;

/// More than any load needs, and far below what the bombs unpack to.
const MEMORY_KIB: u64 = 200 << 10;

const TAG: &str = "hostile";

/// What has to become of an attack.
#[derive(Clone, Copy, Debug)]
enum Expected {
    /// Refused with an error that has this text in it: the member's name.
    Refused(&'static str),
    /// Loaded, since it does no harm.
    Harmless,
    /// One or the other: it depends on what the process may do.
    Either,
}
use Expected::{Either, Harmless, Refused};

/// Where an attack is tried: a directory with a layout, a store and a victim.
/// Dropping it fails the test if an attack ended otherwise than expected: so all are tried.
struct Place {
    dir: Dir,
    before: Tree,
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
    /// The whole chain of the error; `None` if the image was loaded.
    error: Option<String>,
    peak_kib: u64,
}

impl Place {
    fn new() -> Self {
        let dir = Dir::new("hostile");
        dir.write("victim/hello", "hello");
        let secret = dir.write("victim/dir/secret", "secret");
        std::fs::set_permissions(secret, PermissionsExt::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink("dir/secret", dir.join("victim/link")).unwrap();
        std::fs::hard_link(dir.join("victim/hello"), dir.join("victim/second-name")).unwrap();
        let before = Tree::scan(dir.join("victim"));
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
        let report = self.dir.join("report");
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["hostile::loads_what_it_is_told", "--exact", "--include-ignored", "--nocapture"])
            .env("LAYERSTORE_HOSTILE", self.dir.path())
            // For an attack that says a path relative to wherever the process is.
            .current_dir(self.dir.join("victim"))
            .output()
            .unwrap();
        let text = std::fs::read_to_string(&report).unwrap_or_default();
        assert!(
            output.status.success() && !text.is_empty(),
            "{name}: the loading process failed\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        self.before.assert_same(&Tree::scan(self.dir.join("victim")));
        std::fs::remove_file(report).unwrap();
        let (peak, error) = text.split_once('\n').unwrap();
        let report =
            Report { error: (!error.is_empty()).then(|| error.to_owned()), peak_kib: peak.parse().unwrap() };
        assert!(report.peak_kib < MEMORY_KIB, "{name}: {} KiB of memory", report.peak_kib);
        report
    }

    /// Loads an image with these layers.
    fn attack(&self, name: &str, layers: impl IntoIterator<Item = Layer>, expected: Expected) {
        let layout = self.layout();
        std::fs::remove_dir_all(&layout).ok();
        Image::new(layers).write(&layout, TAG);
        self.check(name, expected);
    }

    /// Loads the layout as it is.
    fn check(&self, name: &str, expected: Expected) {
        let report = self.load(name);
        let problem = match (expected, report.error) {
            (Refused(text), Some(error)) if !error.contains(text) => {
                format!("{name}: the error does not say {text:?}: {error}")
            }
            (Refused(_), None) => format!("{name}: was not refused"),
            (Harmless, Some(error)) => format!("{name}: was refused: {error}"),
            (Harmless, None) | (Refused(_), Some(_)) | (Either, _) => return,
        };
        self.problems.borrow_mut().push(problem);
    }

    /// Loads these members as the only layer, and as a layer above one with links to everywhere.
    fn attack_twice(&self, name: &str, members: &[Member], expected: Expected) {
        self.attack(name, [Layer::new(members)], expected);
        self.attack(&format!("{name}, second layer"), [self.base(), Layer::new(members)], expected);
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

/// Runs in the process that loads. By itself it does nothing.
#[test]
#[ignore = "other tests start it"]
fn loads_what_it_is_told() {
    let Some(top) = std::env::var_os("LAYERSTORE_HOSTILE").map(PathBuf::from) else { return };
    let options = StoreOptions::at(top.join("root")).run_root(top.join("run")).sync(SyncMode::Off).reserve(0);
    let store = Store::open(&options).unwrap();
    assert_empty(&store);
    // The run root is opened by its first use, and stays open.
    store.status().unwrap();
    let descriptors = open_descriptors();
    let error = load(&store, &top).err().map(|error| story(&error)).unwrap_or_default();
    assert_empty(&store);
    assert_eq!(open_descriptors(), descriptors, "open file descriptors");
    std::fs::write(top.join("report"), format!("{}\n{error}", peak_kib())).unwrap();
}

/// Loads the image; if that succeeds, everything that can be asked of an image succeeds too.
fn load(store: &Store, top: &Path) -> Result<(), Error> {
    let reference = Reference::new(Transport::Layout, top.join("layout"), Some(TAG))?;
    let source = Source::open(&reference, store.root())?;
    let image = store.load(&source, &LoadOptions::named("hostile"))?;
    let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
    for layer in &chain {
        let mut hasher = layerstore::Hasher::new(layerstore::Algorithm::Sha256);
        store.diff(layer, &mut hasher).unwrap();
        assert_eq!(Some(hasher.finish()), layer.diff_id.as_ref().map(|diff_id| diff_id.0.clone()));
        store.changes(layer).unwrap();
    }
    assert_eq!(store.remove_image(&image.id).unwrap().len(), chain.len());
    Ok(())
}

fn assert_empty(store: &Store) {
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.layers().unwrap(), []);
    for directory in ["diffs", "blobs", "trash"] {
        let path = store.root().join(directory);
        let left = std::fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{}", path.display());
    }
}

/// An error with its causes, a line each.
fn story(error: &Error) -> String {
    let mut story = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        writeln!(story, "{error}").unwrap();
        next = error.source();
    }
    story
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn ordinary_layers_pass() {
    let place = Place::new();
    place.attack_twice("nothing hostile", &[Member::directory("d"), Member::file("d/f", b"f")], Harmless);
    // The kit itself can find something: a tree that changed, a digest that did not come back.
    assert_ne!(digest(b"a"), digest(b"b"));
    place.dir.write("victim/new", "new");
    assert!(!place.before.differences(&Tree::scan(place.dir.join("victim"))).is_empty());
}
