//! A disk that is full: a small tmpfs of the test's own.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::{entries, image, lists, load_base};
use crate::support::machine;
use crate::support::oci::{Compression, Image, Layer};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, TestCommand};

#[test]
fn load_on_a_full_disk_leaves_the_store_as_it_was() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("full");
    if let Err(error) = mount_small_disk(&dir) {
        skip!("cannot mount a tmpfs: {error}");
    }
    load_base(&dir);
    let before = lists(&dir);
    let noise: Vec<u8> = (0..60_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let big = Image::new([Layer::new([Member::file("big", noise)])]).write(dir.join("big.oci"), "big");
    let error = dir.layerstore(["load", &big.reference(), "--name", "big"]).assert_exit(1);
    assert!(error.contains("No space left"), "{error}");
    assert!(error.contains("hint: remove images or containers"), "{error}");
    assert_eq!(lists(&dir), before);
    dir.layerstore(["check"]).assert_success();
    // What was staged is gone: there is room for something smaller.
    let small =
        Image::new([Layer::new([Member::file("small", vec![7; 4 << 20])])]).write(dir.join("small.oci"), "s");
    dir.layerstore(["load", &small.reference()]).assert_success();
    dir.layerstore(["rmi", "s", "base"]).assert_success();
}

/// To remove images would make no room there.
#[test]
fn what_is_written_to_is_told_from_the_store() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let (dir, other) = (Dir::new("full-target-store"), Dir::new("full-target"));
    let target = match mount_small_disk(&other) {
        Ok(target) => target,
        Err(error) => skip!("cannot mount a tmpfs: {error}"),
    };
    let noise: Vec<u8> = (0..60_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    let big = Image::new([Layer::new([Member::file("big", noise)])]).write(dir.join("big.oci"), "big");
    dir.layerstore(["load", &big.reference(), "--name", "big"]).assert_success();
    for transport in ["oci", "docker-archive"] {
        let to = format!("{transport}:{}/saved:1", target.display());
        let error = dir.layerstore(["save", "big", &to, "--compression", "none"]).assert_exit(1);
        assert!(error.contains("No space left"), "{error}");
        assert!(error.contains("hint: the disk of what is written to is full"), "{error}");
    }
    fill(&target.join("fill"));
    let error = dir.layerstore(["backup", target.join("copy").to_str().unwrap()]).assert_exit(1);
    assert!(error.contains("hint: the disk of what is written to is full"), "{error}");
}

/// Takes what is left of a disk.
fn fill(at: &Path) {
    let mut file = File::create(at).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

#[test]
fn removal_on_a_full_disk_gets_the_reserve() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("reserve");
    let root = match mount_small_disk(&dir) {
        Ok(root) => root,
        Err(error) => skip!("cannot mount a tmpfs: {error}"),
    };
    load_base(&dir);
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let layer = dir.layerstore(["inspect", "web"]).json()[0]["layer"].clone();
    let written = archive(&[Member::file("file", vec![7; 1 << 20])]);
    dir.layerstore(["apply", layer.as_str().unwrap()]).stdin(written).assert_success();
    fill(&beside(&root).join("fill"));
    for command in [&["create-container", "base"][..], &["commit", "web"]] {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains("hint: remove images or containers"), "{error}");
    }
    // The commit failed, and the database says that nothing came of it: the container's directory is gone.
    dir.layerstore(["check"]).assert_success();
    // The mount counts are where they belong: on another filesystem.
    let run_root = dir.join("elsewhere");
    dir.layerstore(["rmi", "base", "--runroot", run_root.to_str().unwrap()]).assert_success();
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn removing_works_on_a_full_disk_that_holds_the_run_root_too() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("full-rm");
    let disk = match mount_small_disk(&dir) {
        Ok(disk) => disk,
        Err(error) => skip!("cannot mount a tmpfs: {error}"),
    };
    let layerstore = |arguments: &[&str]| {
        let (root, run) = (disk.join("store"), disk.join("run"));
        let places = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
        TestCommand::layerstore().args(places).args(arguments)
    };
    let image = Image::new([Layer::new([Member::file("file", b"file")])]).write(dir.join("a.oci"), "a");
    layerstore(&["load", &image.reference()]).assert_success();
    let mut filler = File::create(disk.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    layerstore(&["rmi", "a"]).assert_success();
    layerstore(&["check"]).assert_success();
}

#[test]
fn an_image_whose_size_is_known_is_refused_before_it_is_unpacked() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("no-space");
    if let Err(error) = mount_small_disk(&dir) {
        skip!("cannot mount a tmpfs: {error}");
    }
    load_base(&dir);
    let before = (lists(&dir), used(&dir));
    // No zeros, which take no space.
    let sevens = || Layer::new([Member::file("sevens", vec![7; 60_000_000])]);
    let plain = Image::new([sevens().compression(Compression::None)]).write(dir.join("plain"), "plain");
    // Its blob is small, and its descriptor tells how large it gets.
    let told = Image::new([sevens()])
        .manifest(|manifest| {
            manifest["layers"][0]["annotations"] =
                serde_json::json!({ "io.containers.estargz.uncompressed-size": "60001536" });
        })
        .write(dir.join("told"), "told");
    let untold = Image::new([sevens()]).write(dir.join("untold"), "untold");
    for image in [&plain, &told] {
        let error = dir.layerstore(["load", &image.reference()]).assert_exit(1);
        assert!(error.contains("the image needs at least 61 MB"), "{error}");
        assert!(error.contains("file `reserve` holds 16 MB back"), "{error}");
        assert!(error.contains("hint: remove images or containers"), "{error}");
    }
    let error = dir.layerstore(["load", &untold.reference()]).assert_exit(1);
    assert!(error.contains("No space left"), "{error}");
    assert_eq!((lists(&dir), used(&dir)), before);
    // A size that nobody can read is no size.
    let odd = Image::new([Layer::new([Member::file("small", b"small")])])
        .manifest(|manifest| {
            manifest["layers"][0]["annotations"] =
                serde_json::json!({ "io.containers.estargz.uncompressed-size": "-1" });
        })
        .write(dir.join("odd"), "odd");
    dir.layerstore(["load", &odd.reference()]).assert_success();
}

#[test]
fn everything_can_be_removed_when_the_inodes_are_used_up() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("inodes");
    let root = match mount_disk(&dir, c"size=40m,nr_inodes=100,mode=0700") {
        Ok(root) => root,
        Err(error) => skip!("cannot mount a tmpfs: {error}"),
    };
    // The run root is on the same disk.
    let layerstore = |arguments: &[&str]| on_one_disk(&dir, arguments);
    let base = image().write(dir.join("base.oci"), "1");
    layerstore(&["load", &base.reference(), "--name", "base"]).assert_success();
    layerstore(&["create-container", "base", "--name", "web"]).assert_success();
    dir.write("root/diffs/12345/file", "left behind");
    let many: Vec<_> = (0..100).map(|n| Member::file(format!("file-{n}"), b"")).collect();
    let many = Image::new([Layer::new(many)]).write(dir.join("many"), "many");
    let before = used(&dir);
    let free = || rustix::fs::statvfs(&root).unwrap().f_ffree;
    let free_before = free();
    let error = layerstore(&["load", &many.reference()]).assert_exit(1);
    assert!(error.contains("No space left"), "{error}");
    assert!(error.contains("hint: remove images or containers"), "{error}");
    assert_eq!(used(&dir), before, "nothing of it stays");
    // The directories that the unpacking thread was confined to go with its rights, which the kernel drops a moment later.
    let is_free = (0..1000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        free() >= free_before
    });
    assert!(is_free, "{} inodes are free, and there were {free_before}", free());
    let place = beside(&root);
    let mut fillers = 0..;
    let mut fill =
        || fillers.by_ref().take_while(|n| File::create(place.join(format!("filler-{n}"))).is_ok()).count();
    assert!(fill() > 0);
    // Others of these directories may go later still: no more come back for a while.
    let mut quiet = 0;
    while quiet < 20 {
        std::thread::sleep(std::time::Duration::from_millis(10));
        quiet = if fill() == 0 { quiet + 1 } else { 0 };
    }
    let error = layerstore(&["load", &many.reference()]).assert_exit(1);
    assert!(error.contains("the image needs at least 2 inodes and 0 are free"), "{error}");
    let error = layerstore(&["create-container", "base"]).assert_exit(1);
    assert!(error.contains("No space left"), "{error}");
    // What needs no inode is done.
    layerstore(&["names", "web", "--add", "www"]).assert_success();
    empty(&dir);
}

#[test]
fn everything_can_be_removed_when_the_last_byte_is_used_up() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("bytes");
    let root = match mount_small_disk(&dir) {
        Ok(root) => root,
        Err(error) => skip!("cannot mount a tmpfs: {error}"),
    };
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    dir.layerstore(["names", "web", "--add", "www"]).assert_success();
    dir.write("root/diffs/12345/file", "left behind");
    let mut fill = File::create(beside(&root).join("fill")).unwrap();
    while fill.write_all(&[1; 4096]).is_ok() {}
    while fill.write_all(&[1]).is_ok() {}
    empty(&dir);
}

/// The program with its run root on the disk of the store.
fn on_one_disk(dir: &Dir, arguments: &[&str]) -> TestCommand {
    let (root, run) = (dir.root(), dir.root().join("run"));
    let places = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
    TestCommand::layerstore().args(places).args(arguments)
}

/// Removes everything from a store on a full disk.
fn empty(dir: &Dir) {
    for arguments in [&["rm", "web"][..], &["rmi", "base"], &["gc"], &["check"]] {
        on_one_disk(dir, arguments).assert_success();
    }
    assert_eq!(used(dir), [0; 3]);
}

/// A place on the disk of a store that is none of the store's.
fn beside(root: &Path) -> PathBuf {
    let run = root.join("run");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&run).unwrap();
    run
}

/// Mounts a small disk where the store will be.
fn mount_small_disk(dir: &Dir) -> std::io::Result<PathBuf> {
    mount_disk(dir, c"size=40m,mode=0700")
}

fn mount_disk(dir: &Dir, options: &CStr) -> std::io::Result<PathBuf> {
    let root = dir.create_dir("root");
    rustix::mount::mount("none", &root, "tmpfs", MountFlags::empty(), Some(options))?;
    Ok(root)
}

/// Names of everything that the store has in its directories.
fn used(dir: &Dir) -> [usize; 3] {
    ["diffs", "blobs", "trash"].map(|which| entries(dir, which))
}
