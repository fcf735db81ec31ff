//! Limits of the process that the program runs in (`ulimit`): an error that says which to raise, and nothing left behind.

use std::path::Path;

use super::{entries, lists, load_base};
use crate::support::command::binary;
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand};

/// The program with the store of `dir`, under a limit: an option of `ulimit` and its value.
fn limited(dir: &Dir, root: &Path, limit: &str, arguments: &[&str]) -> TestCommand {
    TestCommand::bare("sh")
        .args(["-euc", r#"ulimit $1; shift; exec "$@""#, "sh", limit])
        .arg(binary())
        .args(["--root".as_ref(), root.as_os_str(), "--runroot".as_ref(), dir.run_root().as_os_str()])
        .args(arguments)
}

/// The first limits are too low to open a store, and the last for the files of some threads.
#[test]
fn a_limit_of_open_files_is_told_and_nothing_stays() {
    let dir = Dir::new("limit-of-files");
    load_base(&dir);
    let before = ["diffs", "locks", "blobs"].map(|name| entries(&dir, name));
    let tar = archive(
        &(0..60).map(|n| Member::file(format!("d{}/e/f{n}", n % 4), vec![7; 2000])).collect::<Vec<_>>(),
    );
    for limit in 10..32 {
        let limit = format!("-n {limit}");
        let error = limited(&dir, &dir.root(), &limit, &["put-layer"]).stdin(tar.clone()).assert_exit(1);
        assert!(error.contains("Too many open files") && error.contains("ulimit -n"), "{limit}: {error}");
        assert_eq!(["diffs", "locks", "blobs"].map(|name| entries(&dir, name)), before, "{limit}");
    }
}

/// A removal holds many directories open, as long as that is allowed.
#[test]
fn a_tree_goes_with_few_open_files_too() {
    let dir = Dir::new("few-files");
    let members: Vec<_> = (0..1000).map(|n| Member::file(format!("d{:03}/f{n}", n % 500), "x")).collect();
    let put = || dir.layerstore(["put-layer"]).stdin(archive(&members)).stdout();
    load_base(&dir);
    let before = ["diffs", "trash", "locks"].map(|name| entries(&dir, name));
    let layer = put();
    limited(&dir, &dir.root(), "-n 72", &["rm", "--layer", layer.trim()]).assert_success();
    limited(&dir, &dir.root(), "-n 72", &["gc"]).assert_success();
    assert_eq!(["diffs", "trash", "locks"].map(|name| entries(&dir, name)), before);
}

/// The kernel ends a process that writes past it, unless that does something with the signal.
#[test]
fn a_limit_for_the_size_of_files_is_told_and_nothing_stays() {
    let dir = Dir::new("limit-of-size");
    let refused = |root: &Path, limit: &str| {
        let tar = archive(&[Member::file("file", vec![7; 1 << 20])]);
        let error = limited(&dir, root, limit, &["put-layer", "--name", "large"]).stdin(tar).assert_exit(1);
        assert!(error.contains("File too large") && error.contains("ulimit -f"), "{error}");
    };
    // Not even the database of a new store.
    refused(&dir.join("new"), "-f 1");
    load_base(&dir);
    let before = (lists(&dir), entries(&dir, "diffs"));
    // In units of 512 or of 1024 bytes.
    for limit in ["-f 1", "-f 900"] {
        refused(&dir.root(), limit);
        assert_eq!((lists(&dir), entries(&dir, "diffs")), before);
    }
    dir.layerstore(["check"]).assert_success();
}
