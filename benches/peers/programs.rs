//! The commands that are measured: ours, and those of the peers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::measure::{Job, Words, words};
use crate::containers_storage;

/// What is called so in the page.
pub const OURS: &str = "layerstore";
pub const SKOPEO: &str = "`skopeo copy`";
pub const STORAGE: &str = "`containers-storage`";

/// Where [`install`] has put the program.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Puts the program into the directory as it is put where users have it: without symbols, and copied. What a linker has just
/// written starts slower, as it left the file to the page cache in single pages.
pub fn install(dir: &Path) {
    let path = dir.join("layerstore");
    strip(Path::new(env!("CARGO_BIN_EXE_layerstore")), &path);
    PROGRAM.set(path).expect("it is installed once");
}

/// `layerstore` as it is measured.
pub fn program() -> &'static Path {
    PROGRAM.get().expect("it is installed before anything is measured")
}

/// Copies a program without its symbols.
pub fn strip(program: &Path, to: &Path) {
    let stripped = Command::new("strip").arg("-o").arg(to).arg(program).status();
    assert!(stripped.unwrap().success(), "strip failed");
}

/// `layerstore` with these words, for the store at this place.
pub fn layerstore<I: Into<std::ffi::OsString>>(
    place: &Path,
    arguments: impl IntoIterator<Item = I>,
) -> Words {
    let mut words = words![program(), "--root", place.join("root"), "--runroot", place.join("run")];
    words.extend(arguments.into_iter().map(Into::into));
    words
}

/// `containers-storage` with these words, for the store at this place.
pub fn storage<'w>(place: &Path, command: &str, arguments: impl IntoIterator<Item = &'w str>) -> Words {
    let words = containers_storage::words(place, command).into_iter();
    words.chain(arguments.into_iter().map(str::to_owned)).map(Into::into).collect()
}

/// `skopeo copy` of an image in a layout into the store of `containers-storage` at this place, where its own files are, too.
pub fn skopeo(place: &Path, source: &str) -> Job {
    let temporary = place.join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let (graph, run) = (place.join("graph"), place.join("run"));
    let store =
        format!("containers-storage:[overlay@{}+{}]localhost/image:peers", graph.display(), run.display());
    let words = words!["skopeo", "--insecure-policy", "copy", "--quiet", source, store];
    Job::of(words).with_variable("TMPDIR", temporary)
}

/// Each blob decompressed and unpacked into a directory of its own.
pub fn unpack(place: &Path, decompress: &[&str], blobs: &[PathBuf]) -> Job {
    let mut job = Job::default();
    for (number, blob) in blobs.iter().enumerate() {
        let directory = place.join(format!("layer-{number}"));
        std::fs::create_dir_all(&directory).unwrap();
        let mut program: Words = decompress.iter().map(Into::into).collect();
        program.push(blob.into());
        job = job.then_pipe([program, words!["tar", "-C", directory, "-xf", "-"]]);
    }
    job
}

/// A tar unpacked into a directory.
pub fn untar(place: &Path, tar: &Path) -> Job {
    let directory = place.join("tree");
    std::fs::create_dir_all(&directory).unwrap();
    Job::of(words!["tar", "-C", directory, "-xf", tar])
}
