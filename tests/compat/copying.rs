//! `copy`.

use std::os::unix::fs::MetadataExt;

use super::can_mount;
use crate::support::Dir;
use crate::support::machine;
use crate::support::transcript::Session;

#[test]
fn files_and_trees_are_copied_in_and_out() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy");
    dir.write("tree/d/sub", "two\n");
    dir.write("tree/f1", "one\n");
    std::fs::hard_link(dir.join("tree/f1"), dir.join("tree/d/same")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.join("tree/l")).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i one
one
$ create-layer -i two
two
$ copy tree/f1 one:/deep/er/f
$ copy tree one:/tree
$ changes one
Add "/deep"
Add "/deep/er"
Add "/deep/er/f"
Add "/tree"
Add "/tree/d"
Add "/tree/d/same"
Add "/tree/d/sub"
Add "/tree/f1"
Add "/tree/l"
$ copy one:/tree two:/
$ diffsize two
12
$ copy one:/tree/f1 two:/tree/l/../f2
$ mounted one two
$ copy one:/tree nope:/x
! error finding layer "nope": layer not known
= 1
$ copy one:/none two:/x
! error copying "one:/none" to "two:/x": open /none: no such file or directory
= 1
$ copy tree/f1 one:/tree
! error copying "tree/f1" to "one:/tree": copy /tree: is a directory
= 1
$ copy tree/f1 relative
! path: relative should be absolute
= 1
$ copy --chown=junk tree/f1 one:/x
! bad UID: "junk"
= 1
"#,
    );
    let out = dir.join("out");
    session.command(["copy".into(), "two:/".into(), out.to_str().unwrap().into()]).assert_success();
    assert_eq!(std::fs::read(out.join("d/sub")).unwrap(), b"two\n");
    assert_eq!(std::fs::read_link(out.join("l")).unwrap(), std::path::Path::new("/etc"));
    let inode = |path: &str| std::fs::metadata(out.join(path)).unwrap().ino();
    assert_eq!(inode("f1"), inode("d/same"), "hard links stay hard links");
    let time = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().mtime_nsec();
    assert_eq!(time(out.join("d")), time(dir.join("tree/d")), "times are kept");
    assert!(dir.mounts().is_empty());
}

#[test]
fn links_in_a_layer_lead_nowhere_out_of_it() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-copy-links");
    dir.write("file", "text");
    let outside = dir.create_dir("outside");
    let mut session = Session::layerstore(&dir);
    std::os::unix::fs::symlink(&outside, dir.join("link")).unwrap();
    session.expect(
        r#"
$ create-layer -i one
one
$ mount one
MOUNT
% cp -P link "$MOUNT/out" && ln -s ../../../../.. "$MOUNT/up" && ln -s /nowhere "$MOUNT/file"
$ unmount one
one mountpoint unmounted
$ copy file one:/up/here
$ copy file one:/file
"#,
    );
    assert_eq!(
        session.command(["copy".into(), "file".into(), "one:/out/x".into()]).output().status.code(),
        Some(1)
    );
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn owners_are_those_inside() {
    if !machine::is_real_root() {
        skip!("giving files away needs root");
    }
    let dir = Dir::new("compat-copy-owners");
    let file = dir.write("file", "text");
    std::os::unix::fs::chown(&file, Some(5), Some(6)).unwrap();
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ create-layer -i one
one
$ copy file one:/kept
$ copy --chown 7:8 file one:/given
$ copy -o 9 file one:/both
$ mount one
MOUNT
% stat -c '%u:%g' "$MOUNT/kept" "$MOUNT/given" "$MOUNT/both" | tr '\n' ' ' | grep -x '5:6 7:8 9:9 '
$ unmount one
one mountpoint unmounted
"#,
    );
}
