//! The process that loads: once in each mode that it may have, and tells what it saw.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use layerstore::oci::{LoadOptions, Reference, Source, Transport};
use layerstore::{CheckLevel, CheckOptions, Error, Image, MountOptions, Store, UnmountMode};
use serde_json::{Value, json};

use super::{DIRECTORY, Mode, TAG, process};
use crate::support::machine;
use crate::support::tree::{ScanOptions, Tree};

/// Runs in the process that loads. By itself it does nothing.
#[test]
#[ignore = "other tests start it"]
fn loads_what_it_is_told() {
    let Some(top) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    process::limit();
    let mut modes = Vec::new();
    for mode in Mode::all() {
        let store = mode.open_in(&top);
        assert_empty(&store);
        // The run root is opened by its first use, and stays open; so does what a first mount finds out.
        store.status().unwrap();
        let (descriptors, begun) = (process::open_descriptors(), process::cpu());
        let image = load_image(&store, &top);
        let cpu = process::cpu() - begun;
        let (mut shown, mut error) = (Value::Null, None);
        match image {
            Ok(image) => shown = question(&store, &image),
            Err(refused) => {
                assert_nothing_left(&store);
                error = Some(story(&refused));
            }
        }
        assert_empty(&store);
        assert_eq!(process::open_descriptors(), descriptors, "open file descriptors");
        let cpu = u64::try_from(cpu.as_nanos()).unwrap();
        modes.push(json!({ "mode": format!("{mode:?}"), "error": error, "shown": shown, "cpu": cpu }));
    }
    let report = json!({ "modes": modes, "peak_kib": process::peak_kib() });
    std::fs::write(top.join("report"), report.to_string()).unwrap();
}

/// Everything that can be asked of an image that was loaded succeeds: it is asked, and the image removed. Returns what a mount
/// shows.
fn question(store: &Store, image: &Image) -> Value {
    let chain = store.layer_chain(image.top_layer.as_ref().unwrap()).unwrap();
    for layer in &chain {
        let mut hasher = layerstore::Hasher::new(layerstore::Algorithm::Sha256);
        store.diff(layer, &mut hasher).unwrap();
        assert_eq!(Some(hasher.finish()), layer.diff_id.as_ref().map(|diff_id| diff_id.0.clone()));
        store.changes(layer).unwrap();
    }
    let shown = if machine::is_root() { shown_by_mount(store, image) } else { Value::Null };
    let mut options = CheckOptions::default();
    options.level = CheckLevel::Deep;
    let report = store.check(&options).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(store.remove_image(&image.id).unwrap().len(), chain.len());
    shown
}

/// Loads the image of the layout.
pub fn load_image(store: &Store, top: &Path) -> Result<Image, Error> {
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
    for directory in ["diffs", "work", "data", "blobs", "composefs", "content", "locks", "trash"] {
        let path = store.root().join(directory);
        let left = std::fs::read_dir(&path).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{}", path.display());
    }
}

/// What a refused load leaves behind is nothing that anybody would find or remove later.
fn assert_nothing_left(store: &Store) {
    let report = store.check(&CheckOptions::default()).unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    let report = store.gc(false).unwrap();
    assert!(report.removed.is_empty() && report.left.is_empty(), "{report:?}");
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
