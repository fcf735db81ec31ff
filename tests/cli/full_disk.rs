//! A disk that is full: a small tmpfs of the test's own.

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
    let root = dir.create_dir("root");
    if let Err(error) =
        rustix::mount::mount("none", &root, "tmpfs", MountFlags::empty(), Some(c"size=40m,mode=0700"))
    {
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
fn removing_works_on_a_full_disk() {
    if !machine::is_root() {
        skip!("mounting a small disk needs root or a user namespace");
    }
    let dir = Dir::new("full-rm");
    let disk = dir.create_dir("disk");
    if let Err(error) =
        rustix::mount::mount("none", &disk, "tmpfs", MountFlags::empty(), Some(c"size=40m,mode=0700"))
    {
        skip!("cannot mount a tmpfs: {error}");
    }
    // The run root is on the same disk.
    let layerstore = |arguments: &[&str]| {
        let (root, run) = (disk.join("root"), disk.join("run"));
        let places = ["--root", root.to_str().unwrap(), "--runroot", run.to_str().unwrap()];
        TestCommand::layerstore().args(places).args(arguments)
    };
    let image = Image::new([Layer::new([Member::file("file", b"file")])]).write(dir.join("a.oci"), "a");
    layerstore(&["load", &image.reference()]).assert_success();
    let mut filler = std::fs::File::create(disk.join("filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    layerstore(&["rmi", "a"]).assert_success();
    layerstore(&["check"]).assert_success();
}
