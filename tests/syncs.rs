//! How many syncs each operation costs in each mode, counted in the system calls of the program: `docs/durability.md` has
//! the same numbers.

use crate::support::oci::{Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

const CALLS: [&str; 5] = ["syncfs", "fsync", "fdatasync", "sync", "sync_file_range"];

/// Runs a command of the program, and counts its calls: `syncfs`, `fsync`, `fdatasync`, and no others.
fn syncs(dir: &Dir, mode: &str, arguments: &[&str]) -> [usize; 3] {
    let form = ["-e", "signal=none", "-e", &format!("trace={}", CALLS.join(","))];
    let text = dir.traced(&form, &[&["--sync", mode], arguments].concat());
    let count = |call: &str| text.matches(&format!(" {call}(")).count();
    let [.., sync, range] = CALLS.map(count);
    assert_eq!((sync, range), (0, 0), "{text}");
    [count("syncfs"), count("fsync"), count("fdatasync")]
}

/// `syncfs`, `fsync` and `fdatasync` of each operation.
type Costs = Vec<(&'static str, [usize; 3])>;

/// Runs each operation in the mode.
fn costs(mode: &str) -> Costs {
    let dir = Dir::new("syncs");
    let write = |name: &str, files: [&str; 2]| {
        let layers = files.map(|file| Layer::new([Member::directory("."), Member::file(file, file)]));
        Image::new(layers).write(dir.join(name), "1").reference()
    };
    let (first, second) = (write("first", ["a", "b"]), write("second", ["a", "c"]));
    let run = |arguments: &[&str]| syncs(&dir, mode, arguments);
    let mut costs = vec![
        ("make a store and a container", run(&["create-container", "--name", "empty"])),
        ("load", run(&["load", &first, "--name", "first"])),
        ("load again", run(&["load", &first, "--name", "first"])),
        ("load one layer of two", run(&["load", &second, "--name", "second"])),
        ("create a container", run(&["create-container", "first", "--name", "web"])),
        ("add a name", run(&["names", "web", "--add", "www"])),
        ("put an item", run(&["item", "put", "web", "key"])),
        ("changes", run(&["changes", "web"])),
        ("diff", run(&["diff", "first", "--output", "tar"])),
        ("commit", run(&["commit", "web", "--name", "third"])),
    ];
    if machine::is_root() {
        costs.push(("mount", run(&["mount", "web"])));
        costs.push(("unmount", run(&["unmount", "web"])));
        costs.push(("mount volatile", run(&["mount", "web", "--option", "volatile"])));
        costs.push(("unmount volatile", run(&["unmount", "web"])));
    }
    costs.extend([
        ("sync", run(&["sync"])),
        ("sync again", run(&["sync"])),
        ("check", run(&["check", "--deep"])),
        ("remove a container", run(&["rm", "web"])),
        ("remove an image", run(&["rmi", "second"])),
    ]);
    costs
}

#[track_caller]
fn assert_costs(mode: &str, expected: &[(&'static str, [usize; 3])]) {
    if !machine::can_trace() {
        skip!("strace is not here, or may not trace");
    }
    let found = costs(mode);
    let mut expected = expected.to_vec();
    // What could not be tried.
    expected.retain(|(name, _)| found.iter().any(|(other, _)| name == other));
    assert_eq!(found, expected);
}

#[test]
fn full_syncs_the_layers_and_the_records() {
    let records = [0, 0, 2];
    assert_costs(
        "full",
        &[
            ("make a store and a container", [0, 4, 3]),
            ("load", [1, 0, 2]),
            ("load again", records),
            ("load one layer of two", [1, 0, 2]),
            ("create a container", records),
            ("add a name", records),
            ("put an item", records),
            ("changes", [0; 3]),
            ("diff", [0; 3]),
            ("commit", [1, 0, 2]),
            ("mount", [0; 3]),
            ("unmount", [0; 3]),
            ("mount volatile", [0; 3]),
            ("unmount volatile", [1, 0, 0]),
            ("sync", [1, 0, 0]),
            ("sync again", [1, 0, 0]),
            ("check", [0; 3]),
            ("remove a container", records),
            ("remove an image", records),
        ],
    );
}

#[test]
fn records_syncs_no_layers() {
    let records = [0, 0, 2];
    assert_costs(
        "records",
        &[
            ("make a store and a container", [0, 4, 3]),
            ("load", records),
            ("load again", records),
            ("load one layer of two", records),
            ("create a container", records),
            ("add a name", records),
            ("put an item", records),
            ("changes", [0; 3]),
            ("diff", [0; 3]),
            ("commit", records),
            ("mount", [0; 3]),
            ("unmount", [0; 3]),
            ("mount volatile", [0; 3]),
            ("unmount volatile", [1, 0, 0]),
            ("sync", [1, 0, 2]),
            ("sync again", [1, 0, 0]),
            ("check", [0; 3]),
            ("remove a container", records),
            ("remove an image", records),
        ],
    );
}

/// But for the file that makes a directory a store.
#[test]
fn off_syncs_nothing() {
    if !machine::can_trace() {
        skip!("strace is not here, or may not trace");
    }
    for (operation, found) in costs("off") {
        let expected = match operation {
            "make a store and a container" => [0, 2, 0],
            "sync" | "sync again" => [1, 0, 0],
            _ => [0; 3],
        };
        assert_eq!(found, expected, "{operation}");
    }
}

/// What is written to later can be compared with nothing, so its files are synced as long as anything is; an empty directory can
/// be made again.
#[test]
fn layers_are_synced_as_images_are_and_writable_ones_always() {
    if !machine::can_trace() {
        skip!("strace is not here, or may not trace");
    }
    for (mode, create, fill, unseal) in [
        ("full", [0, 0, 2], [1, 0, 2], [0, 0, 2]),
        ("records", [0, 0, 2], [0, 0, 2], [1, 0, 2]),
        ("off", [0; 3], [0; 3], [0; 3]),
    ] {
        let dir = Dir::new("layer-syncs");
        dir.write("tar", archive(&[Member::file("a", "a")]));
        dir.layerstore(["--sync", mode, "create-layer"]).assert_success();
        let run = |arguments: &[&str]| syncs(&dir, mode, arguments);
        assert_eq!(run(&["create-layer", "--name", "own"]), create, "{mode}");
        assert_eq!(run(&["put-layer", "--name", "put", "--file", "tar"]), fill, "{mode}");
        assert_eq!(run(&["apply", "put", "--unseal", "--file", "tar"]), fill, "{mode}");
        assert_eq!(run(&["seal", "own"]), fill, "{mode}");
        assert_eq!(run(&["seal", "--unseal", "own"]), unseal, "{mode}");
    }
}
