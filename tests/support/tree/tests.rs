//! The comparison must see every kind of difference: each test makes one, and names it.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::XattrFlags;

use super::*;
use crate::support::Dir;

/// Two directories with the same small tree, of which the test changes the second.
fn pair(name: &str) -> (Dir, Dir) {
    let dirs = (Dir::new(name), Dir::new(name));
    for dir in [&dirs.0, &dirs.1] {
        dir.write("etc/file", "content");
        dir.write("etc/other", "content");
        std::os::unix::fs::symlink("file", dir.join("etc/link")).unwrap();
        for path in ["etc/file", "etc/other"] {
            set_mtime(dir, path, 0);
        }
        settle(dir);
    }
    dirs
}

fn set_mtime(dir: &Dir, path: &str, nanoseconds: u32) {
    let file = std::fs::File::open(dir.join(path)).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, nanoseconds)).unwrap();
}

/// Sets the times that change by themselves.
fn settle(dir: &Dir) {
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, dir.join("etc/link"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    set_mtime(dir, "etc", 0);
    set_mtime(dir, ".", 0);
}

/// The one difference between the two, as path and field.
fn difference(dirs: &(Dir, Dir)) -> (String, String) {
    settle(&dirs.1);
    let differences = Tree::scan(dirs.0.path()).differences(&Tree::scan(dirs.1.path()));
    assert_eq!(differences.len(), 1, "{}", report(&differences));
    (differences[0].path.escape_ascii().to_string(), differences[0].field.clone())
}

fn expect(dirs: &(Dir, Dir), path: &str, field: &str) {
    assert_eq!(difference(dirs), (path.to_owned(), field.to_owned()));
}

#[test]
fn equal_trees_are_equal() {
    let dirs = pair("tree-equal");
    Tree::scan(dirs.0.path()).assert_same(&Tree::scan(dirs.1.path()));
}

#[test]
fn content_of_the_same_length_differs() {
    let dirs = pair("tree-content");
    dirs.1.write("etc/file", "CONTENT");
    set_mtime(&dirs.1, "etc/file", 0);
    expect(&dirs, "etc/file", "kind");
}

#[test]
fn mode_differs() {
    let dirs = pair("tree-mode");
    std::fs::set_permissions(dirs.1.join("etc/file"), PermissionsExt::from_mode(0o4644)).unwrap();
    expect(&dirs, "etc/file", "mode");
}

#[test]
fn one_nanosecond_differs() {
    let dirs = pair("tree-mtime");
    set_mtime(&dirs.1, "etc/file", 1);
    expect(&dirs, "etc/file", "mtime");
}

#[test]
fn link_target_differs() {
    let dirs = pair("tree-target");
    std::fs::remove_file(dirs.1.join("etc/link")).unwrap();
    std::os::unix::fs::symlink("other", dirs.1.join("etc/link")).unwrap();
    expect(&dirs, "etc/link", "kind");
}

#[test]
fn presence_differs() {
    let dirs = pair("tree-presence");
    dirs.1.write("etc/more", "");
    expect(&dirs, "etc/more", "presence");
    std::fs::remove_file(dirs.1.join("etc/more")).unwrap();
    std::fs::remove_file(dirs.1.join("etc/other")).unwrap();
    expect(&dirs, "etc/other", "presence");
}

#[test]
fn hard_link_groups_differ() {
    let dirs = pair("tree-links");
    std::fs::remove_file(dirs.1.join("etc/other")).unwrap();
    std::fs::hard_link(dirs.1.join("etc/file"), dirs.1.join("etc/other")).unwrap();
    settle(&dirs.1);
    let differences = Tree::scan(dirs.0.path()).differences(&Tree::scan(dirs.1.path()));
    assert_eq!(differences.len(), 2, "{}", report(&differences));
    assert!(differences.iter().all(|found| found.field == "links" && found.right == "etc/file"));
}

#[test]
fn xattrs_differ_but_not_those_of_the_overlay() {
    let dirs = pair("tree-xattrs");
    let path = dirs.1.join("etc/file");
    if let Err(error) = rustix::fs::setxattr(&path, "user.overlay.origin", b"x", XattrFlags::empty()) {
        skip!("the temporary directory has no user xattrs: {error}");
    }
    settle(&dirs.1);
    Tree::scan(dirs.0.path()).assert_same(&Tree::scan(dirs.1.path()));
    rustix::fs::setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    expect(&dirs, "etc/file", "xattr user.empty");
}

#[test]
fn owner_and_device_differ() {
    if !crate::support::machine::is_real_root() {
        skip!("owners and device nodes need real root");
    }
    let dirs = pair("tree-owner");
    std::os::unix::fs::chown(dirs.1.join("etc/file"), None, Some(7)).unwrap();
    expect(&dirs, "etc/file", "owner");
    std::os::unix::fs::chown(dirs.1.join("etc/file"), None, Some(0)).unwrap();
    for (dir, minor) in [(&dirs.0, 3), (&dirs.1, 5)] {
        let device = rustix::fs::makedev(1, minor);
        let path = dir.join("etc/device");
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::RUSR, device).unwrap();
        set_device_mtime(dir);
        settle(dir);
    }
    expect(&dirs, "etc/device", "kind");
}

fn set_device_mtime(dir: &Dir) {
    let time = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, dir.join("etc/device"), &times, AtFlags::empty()).unwrap();
}

#[test]
fn long_reports_are_cut() {
    let difference = Difference::new(b"a\nb", "mode", "0644".to_owned(), "0600".to_owned());
    let text = report(&vec![difference; REPORT_LINES + 3]);
    assert_eq!(text.lines().count(), REPORT_LINES + 2);
    assert!(text.contains("/a\\nb: mode: 0644 | 0600"));
    assert!(text.ends_with("... and 3 more\n"));
}
