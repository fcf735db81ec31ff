//! A disk that is full: a small tmpfs of the test's own.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use rustix::mount::MountFlags;

use super::{lists, load_base};
use crate::support::machine;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;
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
    let mut fill = File::create(root.join("fill")).unwrap();
    while fill.write_all(&[1; 4096]).is_ok() {}
    let error = dir.layerstore(["create-container", "base"]).assert_exit(1);
    assert!(error.contains("hint: remove images or containers"), "{error}");
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

/// Mounts a small disk where the store will be.
fn mount_small_disk(dir: &Dir) -> std::io::Result<PathBuf> {
    let root = dir.create_dir("root");
    rustix::mount::mount("none", &root, "tmpfs", MountFlags::empty(), Some(c"size=40m,mode=0700"))?;
    Ok(root)
}
