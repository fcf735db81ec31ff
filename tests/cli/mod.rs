//! The command line, driven as people and programs drive it: one file for each group of commands.

mod backup;
mod bad_input;
mod checking;
mod config;
mod containers;
mod damaged;
mod full_disk;
mod images;
mod invocation;
mod items;
mod layers;
mod lists;
mod manual;
mod misplaced;
mod ordinary;
mod output;
mod owners;
mod process_limits;
mod settings;
mod things;
mod timings;
mod unshare;

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::Dir;
use crate::support::machine;
use crate::support::oci::{Image, Layer, WrittenImage};
use crate::support::tar::Member;

/// The tag under which the tests write their image.
const TAG: &str = "1";

/// Two layers, of files that any user can own.
fn image() -> Image {
    let base =
        [Member::directory("etc"), Member::file("etc/hostname", b"one\n"), Member::file("etc/old", b"old\n")];
    Image::new([Layer::new(base), Layer::new([Member::file("etc/motd", b"hello\n")])])
}

/// Writes the image and loads it as `base`.
fn load_base(dir: &Dir) -> WrittenImage {
    let written = image().write(dir.join("base.oci"), TAG);
    dir.layerstore(["load", &written.reference(), "--name", "base"]).assert_success();
    written
}

/// Everything that the store lists.
fn lists(dir: &Dir) -> [Value; 3] {
    ["layers", "images", "containers"].map(|list| dir.layerstore([list, "--json"]).json())
}

/// The number of entries of a directory of the store.
fn entries(dir: &Dir, name: &str) -> usize {
    std::fs::read_dir(dir.root().join(name)).map_or(0, Iterator::count)
}

/// Whether this process may mount.
fn can_mount() -> bool {
    machine::is_root()
}

/// Mounts `what`.
fn mount(dir: &Dir, what: &str) -> PathBuf {
    let path = dir.layerstore(["mount", what]).stdout_path();
    assert!(path.is_dir(), "{}", path.display());
    path
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}
