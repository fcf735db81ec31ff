//! The process that loads: once in each mode that it may have, and tells what it saw.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{
    CheckLevel, CheckOptions, Error, Image, MountOptions, Store, StoreOptions, SyncMode, UnmountMode,
};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

use super::{DIRECTORY, TAG};
use crate::support::machine;
use crate::support::tree::{ScanOptions, Tree};

/// More than any load needs, and far less than a quadratic one takes. Time of the processor, so that it means the
/// same on a machine that is busy with other things.
const CPU_SECONDS: u64 = 120;

/// What takes all memory that there is fails with this much, and the machine goes on.
const DATA_BYTES: u64 = 4 << 30;

/// Which extended attributes the overlay mounts of a store use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `trusted.overlay.*`, on which only root of the machine can mount.
    Trusted,
    /// `user.overlay.*`, the option `userxattr`: the only ones in a user namespace, and root may have them too.
    UserXattr,
}

impl Mode {
    /// Those that this process can have.
    pub fn all() -> &'static [Mode] {
        if machine::is_real_root() { &[Mode::Trusted, Mode::UserXattr] } else { &[Mode::UserXattr] }
    }

    /// The store's directory: one is a prefix of the other.
    pub fn root(self, top: &Path) -> PathBuf {
        top.join(match self {
            Mode::Trusted => "root",
            Mode::UserXattr => "root-userxattr",
        })
    }

    /// Loads the layout, whose image must be harmless, and leaves it in the store.
    pub fn load_and_keep(self, top: &Path) -> (Store, Image) {
        let store = self.open(top);
        let image = load_image(&store, top).unwrap();
        (store, image)
    }

    fn word(self) -> &'static str {
        match self {
            Mode::Trusted => "trusted",
            Mode::UserXattr => "user",
        }
    }

    fn open(self, top: &Path) -> Store {
        let root = self.root(top);
        let run = top.join(format!("run-{}", self.word()));
        let options = StoreOptions::at(&root).run_root(run).sync(SyncMode::Off).reserve(0);
        if !root.exists() && self == Mode::UserXattr && machine::is_real_root() {
            // A store is of the kind that its maker can use.
            let own = rustix::thread::capabilities(None).unwrap();
            let mut fewer = own;
            fewer.effective.remove(CapabilitySet::SYS_ADMIN);
            rustix::thread::set_capabilities(None, fewer).unwrap();
            drop(Store::open(&options).unwrap());
            rustix::thread::set_capabilities(None, own).unwrap();
        }
        let store = Store::open(&options).unwrap();
        let marker = std::fs::read_to_string(root.join("LAYERSTORE")).unwrap();
        assert!(marker.contains(&format!("xattrs {}\n", self.word())), "{self:?}: {marker}");
        store
    }
}

/// Runs in the process that loads. By itself it does nothing.
#[test]
#[ignore = "other tests start it"]
fn loads_what_it_is_told() {
    let Some(top) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    for (resource, most) in [(Resource::Cpu, CPU_SECONDS), (Resource::Data, DATA_BYTES)] {
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).unwrap();
    }
    let mut modes = Vec::new();
    for mode in Mode::all() {
        let store = mode.open(&top);
        assert_empty(&store);
        // The run root is opened by its first use, and stays open; so does what a first mount finds out.
        store.status().unwrap();
        let descriptors = open_descriptors();
        let mut shown = Value::Null;
        let error = load(&store, &top, &mut shown).err().map(|error| story(&error));
        assert_empty(&store);
        assert_eq!(open_descriptors(), descriptors, "open file descriptors");
        modes.push(json!({ "mode": format!("{mode:?}"), "error": error, "shown": shown }));
    }
    let report = json!({ "modes": modes, "peak_kib": peak_kib() });
    std::fs::write(top.join("report"), report.to_string()).unwrap();
}

/// Loads the image; if that succeeds, everything that can be asked of an image succeeds too.
fn load(store: &Store, top: &Path, shown: &mut Value) -> Result<(), Error> {
    let image = load_image(store, top)?;
    let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
    for layer in &chain {
        let mut hasher = layerstore::Hasher::new(layerstore::Algorithm::Sha256);
        store.diff(layer, &mut hasher).unwrap();
        assert_eq!(Some(hasher.finish()), layer.diff_id.as_ref().map(|diff_id| diff_id.0.clone()));
        store.changes(layer).unwrap();
    }
    if machine::is_root() {
        *shown = shown_by_mount(store, &image);
    }
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    let report = store.check(&options).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(store.remove_image(&image.id).unwrap().len(), chain.len());
    Ok(())
}

fn load_image(store: &Store, top: &Path) -> Result<Image, Error> {
    let reference = Reference::new(Transport::Layout, top.join("layout"), Some(TAG))?;
    let source = Source::open(&reference, store.root())?;
    store.load(&source, &LoadOptions::named("hostile"))
}

fn shown_by_mount(store: &Store, image: &Image) -> Value {
    let layer = image.top_layer.as_ref().unwrap();
    let mut options = MountOptions::default();
    options.read_only = true;
    let mount = store.mount(layer, &options).unwrap();
    let scan = ScanOptions { ignore_selinux: true, of_mount: true };
    let tree = Tree::scan_with(mount.path(), &scan);
    store.unmount(layer, UnmountMode::Plain).unwrap();
    described(&tree)
}

/// A tree as JSON: by path what it is, its mode, owner, time and xattrs, and which other names it has.
pub fn described(tree: &Tree) -> Value {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let nodes = tree.nodes.iter().map(|(path, node)| {
        let xattrs: serde_json::Map<_, _> =
            node.xattrs.iter().map(|(name, value)| (text(name), text(value).into())).collect();
        let described = json!({
            "kind": node.kind.to_string(),
            "mode": node.mode,
            "owner": [node.uid, node.gid],
            "mtime": format!("{}.{:09}", node.mtime.0, node.mtime.1),
            "xattrs": xattrs,
            "links": node.link_group.as_deref().map(text),
        });
        (text(path), described)
    });
    Value::Object(nodes.collect())
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
