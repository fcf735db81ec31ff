//! The graph driver: what the suites of containers/storage and moby ask of theirs, and what callers rely on besides.
//!
//! [`each`] runs a test in both dialects, with the kernel's overlay and with fuse-overlayfs where there is one.

mod conformance;
mod diffs;
mod mounts;
mod options;
mod subvolumes;

use std::path::Path;

use layerstore::graphdriver::{CreateOptions, Dialect, Driver, DriverOptions, GetOptions};
use layerstore::{CapabilityValue, LayerId, StoreOptions, SyncMode};

use crate::support::store::assert_whole;
use crate::support::{Dir, machine};

const DIALECTS: [Dialect; 2] = [Dialect::ContainersStorage, Dialect::Moby];
const PROGRAM: &str = "/usr/bin/fuse-overlayfs";

/// A driver with a store of its own.
struct Bench {
    dir: Dir,
    driver: Driver,
    /// Whether a program mounts, and not the kernel.
    by_program: bool,
}

fn place(dir: &Dir) -> StoreOptions {
    StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0)
}

fn open(dir: &Dir, dialect: Dialect, options: &[&str]) -> Driver {
    let options = DriverOptions::parse(options.iter().copied()).unwrap().dialect(dialect);
    Driver::open(place(dir), &options).unwrap()
}

fn id(text: &str) -> LayerId {
    text.parse().unwrap()
}

/// An id as callers give them: 64 digits.
fn hex(number: usize) -> LayerId {
    id(&format!("{number:064x}"))
}

fn has_fuse() -> bool {
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    device.is_ok() && Path::new(PROGRAM).exists()
}

/// Runs a test with each kind of driver. What it leaves is removed, and nothing may be mounted, damaged or left over then.
fn each(name: &str, test: impl Fn(&Bench)) {
    each_kernel(name, &test);
    if !machine::is_root() {
        return;
    }
    if !has_fuse() {
        skip!("without the mount program: there is no fuse-overlayfs that can be used");
    }
    let dir = Dir::new(&format!("graph-fuse-{name}"));
    let driver = open(&dir, Dialect::ContainersStorage, &[&format!("overlay.mount_program={PROGRAM}")]);
    run(Bench { dir, driver, by_program: true }, &test);
}

/// The same, with the kernel's overlay alone.
fn each_kernel(name: &str, test: impl Fn(&Bench)) {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    for dialect in DIALECTS {
        let dir = Dir::new(&format!("graph-{}-{name}", dialect.name()));
        let driver = open(&dir, dialect, &[]);
        run(Bench { dir, driver, by_program: false }, &test);
    }
}

fn run(bench: Bench, test: impl Fn(&Bench)) {
    test(&bench);
    bench.remove_all();
    assert_eq!(bench.dir.mounts(), [""; 0].map(std::path::PathBuf::from), "what is removed is not mounted");
    assert_whole(bench.driver.store());
}

impl Bench {
    /// The options that its driver was opened with.
    fn options(&self) -> Vec<String> {
        self.by_program.then(|| format!("overlay.mount_program={PROGRAM}")).into_iter().collect()
    }

    fn create(&self, id: &LayerId, parent: Option<&LayerId>) {
        self.driver.create(id, parent, &CreateOptions::default()).unwrap();
    }

    fn create_read_write(&self, id: &LayerId, parent: Option<&LayerId>) {
        self.driver.create_read_write(id, parent, &CreateOptions::default()).unwrap();
    }

    /// Does something in a layer while it is mounted.
    #[track_caller]
    fn inside<T>(&self, id: &LayerId, act: impl FnOnce(&Path) -> T) -> T {
        let path = self.driver.get(id, &GetOptions::default()).unwrap();
        let done = act(&path);
        self.driver.put(id).unwrap();
        done
    }

    fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Vec<String> {
        self.driver.changes(id, parent).unwrap().iter().map(ToString::to_string).collect()
    }

    fn tar(&self, id: &LayerId, parent: Option<&LayerId>) -> Vec<u8> {
        let mut tar = Vec::new();
        self.driver.diff(id, parent, None, &mut tar).unwrap();
        tar
    }

    /// Removes every layer, those that others stand on last.
    fn remove_all(&self) {
        loop {
            let layers = self.driver.store().layers().unwrap();
            if layers.is_empty() {
                return;
            }
            let needed: Vec<_> = layers.iter().filter_map(|layer| layer.parent.clone()).collect();
            for layer in layers.iter().filter(|layer| !needed.contains(&layer.id)) {
                self.driver.remove(&layer.id).unwrap();
                assert!(!self.driver.exists(&layer.id).unwrap());
            }
        }
    }
}

/// Whether the store of a driver can do something here.
fn works(driver: &Driver, name: &str) -> bool {
    let capabilities = driver.store().capabilities().unwrap();
    let found = capabilities.iter().find(|capability| capability.name == name).unwrap();
    found.value != CapabilityValue::No
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
