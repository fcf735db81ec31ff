//! The layouts must be what they claim: real tools read the right ones, and each fault is there.

use super::*;
use crate::support::{Dir, TestCommand, machine};

fn layers() -> [Layer; 3] {
    [
        Layer::new([Member::directory("etc"), Member::file("etc/motd", "hello"), Member::file("gone", "")]),
        Layer::new([Member::whiteout("gone"), Member::hard_link("etc/again", "etc/motd")])
            .compression(Compression::None),
        Layer::new([Member::opaque("etc"), Member::file("etc/new", "new")]).compression(Compression::Zstd),
    ]
}

#[test]
fn layouts_read_back() {
    let dir = Dir::new("oci");
    let one = Image::new(layers()).write(dir.join("layout"), "one");
    let two = Image::new([layers()[0].clone()]).write(dir.join("layout"), "two");
    let image = ReadImage::open(&one.layout, "one");
    assert_eq!(image.diff_ids(), one.diff_ids);
    assert_eq!(image.measured_diff_ids(), one.diff_ids);
    assert_eq!(ReadImage::open(&two.layout, "two").measured_diff_ids(), one.diff_ids[..1]);
}

#[test]
fn another_tool_accepts_the_layout() {
    if !machine::has_program("skopeo") {
        skip!("skopeo is not installed");
    }
    let dir = Dir::new("oci-skopeo");
    let image = Image::new(layers()).write(dir.join("layout"), "one");
    let mut copy =
        TestCommand::new("skopeo").args(["--insecure-policy", "copy", "--quiet", &image.reference()]);
    copy = copy.arg(format!("oci:{}:copy", dir.join("copy").display()));
    copy.assert_success();
    assert_eq!(ReadImage::open(dir.join("copy"), "copy").measured_diff_ids(), image.diff_ids);
}

/// Whether a layout with this fault is caught by reading all of it.
fn is_caught(fault: Fault) -> bool {
    let dir = Dir::new("oci-fault");
    let layer = layers()[0].clone().fault(fault);
    let image = Image::new([layer]).write(dir.join("layout"), "one");
    let read = std::panic::catch_unwind(|| {
        let image = ReadImage::open(&image.layout, "one");
        assert_eq!(image.measured_diff_ids(), image.diff_ids());
    });
    read.is_err()
}

#[test]
fn faults_are_there() {
    for fault in
        [Fault::DiffId, Fault::BlobDigest, Fault::Size, Fault::Truncated, Fault::Missing, Fault::Flipped]
    {
        assert!(is_caught(fault), "{fault:?}");
    }
}
