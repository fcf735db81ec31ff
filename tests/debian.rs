//! A real six-layer image through everything that the program does, judged by other tools: `umoci` says
//! what the tree is, `skopeo` whether a saved image is one.
//!
//! `tests/images/debian.sh` builds the image. Without it these tests skip themselves.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::command::has_command;
use crate::support::oci::ReadImage;
use crate::support::tree::{Tree, report};
use crate::support::{Dir, TestCommand, machine};

const TAG: &str = "debian";

/// The layouts' directory, or why there can be no test.
fn real_image() -> Result<PathBuf, String> {
    if !has_command("load") {
        return Err("the program has no `load` command yet".to_owned());
    }
    let image = machine::debian_image().ok_or("the Debian image was not built (tests/images/debian.sh)")?;
    // The image has device nodes and many owners.
    if !machine::is_real_root() {
        return Err("device nodes and all owners of the image need real root".to_owned());
    }
    Ok(image)
}

fn reference(layout: &Path, tag: &str) -> String {
    format!("oci:{}:{tag}", layout.display())
}

/// Loads the image in one compression as `debian`.
fn load(dir: &Dir, images: &Path, compression: &str) {
    dir.layerstore(["load", &reference(&images.join(compression), TAG), "--name", TAG]).assert_success();
}

/// Creates a container and mounts it.
fn mount(dir: &Dir, image: &str, container: &str) -> PathBuf {
    dir.layerstore(["create-container", image, "--name", container]).assert_success();
    dir.layerstore(["mount", container]).stdout_path()
}

/// The tree as umoci unpacks it. It writes one thing less than the archive says: Go's reader takes a PAX
/// record without a value for none, so an empty extended attribute is lost.
fn unpacked_by_umoci(dir: &Dir, layout: &Path, tag: &str, name: &str) -> Tree {
    let bundle = dir.join(name);
    let image = format!("{}:{tag}", layout.display());
    TestCommand::new("umoci").args(["unpack", "--image", &image]).arg(&bundle).assert_success();
    without_empty_xattrs(Tree::scan(bundle.join("rootfs")))
}

fn without_empty_xattrs(mut tree: Tree) -> Tree {
    for node in tree.nodes.values_mut() {
        node.xattrs.retain(|_, value| !value.is_empty());
    }
    tree
}

/// The directories that some layer has only by implication, as parents of its members, with no member of their
/// own in that layer or one above. What time such a directory shows is nobody's rule: tools differ.
fn implied_directories(image: &ReadImage) -> BTreeSet<Vec<u8>> {
    let mut implied = BTreeSet::new();
    for tar in image.tars() {
        let (mut members, mut parents) = (BTreeSet::new(), BTreeSet::from([Vec::new()]));
        for entry in tar::Archive::new(tar).entries().unwrap() {
            let path = entry.unwrap().path_bytes().into_owned();
            let path = path.strip_prefix(b"./").unwrap_or(&path);
            let path = path.strip_suffix(b"/").unwrap_or(path);
            let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            parents.extend(slashes.map(|(at, _)| path[..at].to_vec()));
            members.insert(path.to_vec());
        }
        implied.retain(|path| !members.contains(path));
        implied.extend(parents.difference(&members).cloned());
    }
    implied
}

/// The mounted tree equals umoci's, and the saved image has the diffIDs of the loaded one.
fn loads_mounts_and_saves(compression: &str) {
    let images = match real_image() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    if !machine::has_program("umoci") || !machine::has_program("skopeo") {
        skip!("umoci and skopeo are not installed");
    }
    let dir = Dir::new("debian");
    load(&dir, &images, compression);
    let mounted = Tree::scan(mount(&dir, TAG, "web"));
    // umoci reads no zstd; the layers' tars are the same.
    let expected = unpacked_by_umoci(&dir, &images.join("gzip"), TAG, "expected");
    let implied = implied_directories(&ReadImage::open(images.join("gzip"), TAG));
    let mut differences = expected.differences(&without_empty_xattrs(mounted.clone()));
    differences.retain(|found| found.field != "mtime" || !implied.contains(&found.path));
    assert!(differences.is_empty(), "umoci | mounted: {}", report(&differences));
    let empty = mounted.get("opt/special/xattr-file").and_then(|node| node.xattrs.get(&b"user.empty"[..]));
    assert_eq!(empty, Some(&Vec::new()), "the empty extended attribute");

    let saved = dir.join("saved");
    dir.layerstore(["save", TAG, &reference(&saved, "saved")]).assert_success();
    let before = ReadImage::open(images.join(compression), TAG);
    let after = ReadImage::open(&saved, "saved");
    assert_eq!(after.diff_ids(), before.diff_ids());
    assert_eq!(after.measured_diff_ids(), before.diff_ids());

    // Another tool takes it, and makes the gzip layers of it that umoci can read.
    let copy = dir.join("copy");
    TestCommand::new("skopeo")
        .args(["--insecure-policy", "copy", "--quiet", "--dest-compress-format", "gzip"])
        .args([reference(&saved, "saved"), reference(&copy, "copy")])
        .assert_success();
    assert_eq!(ReadImage::open(&copy, "copy").measured_diff_ids(), before.diff_ids());
    if compression == "gzip" {
        expected.assert_same(&unpacked_by_umoci(&dir, &saved, "saved", "again"));
    }

    dir.layerstore(["unmount", "web"]).assert_success();
    assert_eq!(dir.mounts(), Vec::<PathBuf>::new());
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn gzip_image_loads_mounts_and_saves() {
    loads_mounts_and_saves("gzip");
}

#[test]
fn zstd_image_loads_mounts_and_saves() {
    loads_mounts_and_saves("zstd");
}

/// What [`change`] does, as `changes` lists it: kind and path.
const CHANGES: &[(&str, &str)] = &[
    ("A", "/srv/added"),
    ("A", "/srv/added/fifo"),
    ("A", "/srv/added/file"),
    ("C", "/etc/hostname"),
    ("D", "/etc/motd"),
    ("D", "/srv/data/shard01"),
    ("C", "/opt/special/setuid"),
    ("C", "/srv/replaced/new"),
    ("A", "/srv/replaced/dir3/link"),
];

/// Changes a mounted container in every way that a container does.
fn change(merged: &Path) {
    std::fs::create_dir(merged.join("srv/added")).unwrap();
    std::fs::write(merged.join("srv/added/file"), "added").unwrap();
    let fifo = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, merged.join("srv/added/fifo"), fifo.0, fifo.1, 0).unwrap();
    std::fs::write(merged.join("etc/hostname"), "changed\n").unwrap();
    std::fs::remove_file(merged.join("etc/motd")).unwrap();
    std::fs::remove_dir_all(merged.join("srv/data/shard01")).unwrap();
    std::fs::set_permissions(merged.join("opt/special/setuid"), PermissionsExt::from_mode(0o755)).unwrap();
    // A file becomes a link to another; the link is new, the time of the file is not.
    std::fs::remove_file(merged.join("srv/replaced/new")).unwrap();
    std::os::unix::fs::symlink("dir3/file3", merged.join("srv/replaced/new")).unwrap();
    std::fs::hard_link(merged.join("srv/replaced/dir3/file3"), merged.join("srv/replaced/dir3/link"))
        .unwrap();
}

/// The names of a tar archive's members, without `./` and a closing slash.
fn member_names(bytes: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(bytes);
    let names = archive.entries().unwrap().map(|entry| {
        let path = String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned();
        path.trim_start_matches("./").trim_end_matches('/').to_owned()
    });
    names.collect()
}

#[test]
fn changed_container_is_listed_committed_and_loaded_elsewhere() {
    let images = match real_image() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let dir = Dir::new("debian-change");
    load(&dir, &images, "gzip");
    let merged = mount(&dir, TAG, "web");
    assert_eq!(dir.layerstore(["changes", "web"]).stdout(), "", "a fresh container has no changes");
    change(&merged);

    let changes = dir.layerstore(["changes", "web"]).stdout();
    for (kind, path) in CHANGES {
        let listed =
            changes.lines().any(|line| line.starts_with(kind) && line.ends_with(&format!(" {path}")));
        assert!(listed, "no `{kind} {path}` in\n{changes}");
    }
    let members = member_names(&dir.layerstore(["diff", "web"]).stdout_bytes());
    for name in ["srv/added/file", "srv/added/fifo", "etc/hostname", "etc/.wh.motd", "srv/data/.wh.shard01"] {
        assert!(members.contains(name), "no {name} in {members:?}");
    }
    assert!(!members.contains("usr/bin/perl"), "unchanged files are no part of a diff");

    let before = Tree::scan(&merged);
    dir.layerstore(["commit", "web", "--name", "changed"]).assert_success();
    let saved = dir.join("saved");
    dir.layerstore(["save", "changed", &reference(&saved, "changed")]).assert_success();
    let original = ReadImage::open(images.join("gzip"), TAG);
    let image = ReadImage::open(&saved, "changed");
    assert_eq!(image.diff_ids().len(), 7);
    assert_eq!(image.diff_ids()[..6], original.diff_ids());
    assert_eq!(image.measured_diff_ids(), image.diff_ids());

    let second = Dir::new("debian-second");
    second.layerstore(["load", &reference(&saved, "changed"), "--name", "changed"]).assert_success();
    let merged = mount(&second, "changed", "web");
    before.assert_same(&Tree::scan(&merged));
    assert!(merged.join("srv/added/fifo").symlink_metadata().unwrap().file_type().is_fifo());
}

#[test]
fn image_goes_away_with_everything_that_it_brought() {
    let images = match real_image() {
        Ok(images) => images,
        Err(why) => skip!("{why}"),
    };
    let dir = Dir::new("debian-remove");
    load(&dir, &images, "zstd");
    mount(&dir, TAG, "web");
    let error = dir.layerstore(["rmi", TAG]).assert_failure();
    assert!(error.contains("web"), "the message names what uses the image: {error}");
    dir.layerstore(["unmount", "web"]).assert_success();
    dir.layerstore(["rm", "web"]).assert_success();
    dir.layerstore(["rmi", TAG]).assert_success();
    assert_eq!(dir.layerstore(["layers", "--json"]).json(), serde_json::json!([]));
    let left = std::fs::read_dir(dir.root().join("diffs")).unwrap().count();
    assert_eq!(left, 0, "no diff directory and no lock file is left");
    dir.layerstore(["check"]).assert_success();
}
