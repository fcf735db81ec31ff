//! Layers of their own: created, filled from tars, compared, written out.

use super::can_mount;
use crate::support::transcript::Session;
use crate::support::{Dir, TestCommand, disk};

/// A directory with `tree.tar`, of files that belong to 5 and 6 inside.
fn with_tar(name: &str) -> Dir {
    let dir = Dir::new(name);
    dir.write("tree/d/sub", "two\n");
    dir.write("tree/f1", "one\n");
    dir.write("junk", [7u8; 600]);
    dir.write("short", "short");
    let script =
        "tar -C tree -cf tree.tar --sort=name --mtime=@1700000000 --owner=5 --group=6 . && gzip -kn tree.tar";
    TestCommand::new("sh").args(["-c", script]).current_dir(dir.path()).assert_success();
    dir
}

#[test]
fn layers_are_made_above_others() {
    let dir = Dir::new("compat-create-layer");
    Session::layerstore(&dir).expect(
        r#"
$ create-layer -i base -n baselayer -n base2 -n baselayer
base
	baselayer
	base2
$ create-layer -j -i two --label system_u:object_r:x_t base2
{"id":"two","parent":"base","mountlabel":"system_u:object_r:x_t","created":"TIME"}
$ createlayer -r two
ID1
$ create-layer ''
ID2
$ create-layer -i two
! that ID is already in use
= 1
$ create-layer -n base2
! that name is already in use
= 1
$ create-layer nope
! layer not known
= 1
"#,
    );
}

#[test]
fn parents_are_no_containers() {
    let dir = Dir::new("compat-parent");
    let mut session = Session::layerstore(&dir);
    session.run("create-container -i x ''");
    let layer = session.command(["layers".into(), "-q".into()]).stdout();
    let error = session.command(["create-layer".into(), layer.trim().into()]).assert_exit(1);
    assert_eq!(error, "would-be parent layer is a container\n");
}

#[test]
fn tars_come_out_as_they_went_in() {
    let dir = with_tar("compat-tars");
    let tar = std::fs::read(dir.join("tree.tar")).unwrap();
    let digest = layerstore::Digest::sha256(&tar).to_string();
    let size = tar.len();
    let mut session = Session::layerstore(&dir);
    session.expect(&format!(
        r#"
$ create-layer -i base
base
$ applydiff -f tree.tar base
$ layer -j base
[{{"id":"base","created":"TIME","compressed-diff-digest":"{digest}","compressed-size":{size},"diff-digest":"{digest}","diff-size":{size},"uidset":[5],"gidset":[6]}}]
$ importlayer -f tree.tar.gz -i two -n second base
two
	second
$ storage-layers
base
two
$ storage-layers -j
["base","two"]
$ diff -f out base
% cmp out tree.tar
$ diff -u -f out two
% cmp out tree.tar
$ diff -f out two
% gzip -dc out | cmp - tree.tar
$ diff -c -f out base
% gzip -dc out | cmp - tree.tar
$ diff -b -f out base
! unsupported compression format tar.bz2
= 1
% test ! -s out
$ diff -x base
! unsupported compression format tar.xz
= 1
$ diff nope
! layer not known
= 1
$ diffsize base
8
$ diff-size nope
! layer not known
= 1
"#
    ));
    let layers = session.command(["layer".into(), "-j".into(), "two".into()]).json();
    assert_eq!((&layers[0]["compression"], &layers[0]["diff-digest"]), (&2.into(), &digest.into()));
    assert_eq!(session.command(["diff".into(), "base".into()]).stdout_bytes(), tar);
    let by_input = ["apply-diff".to_owned(), "base".to_owned()];
    session.command(by_input).stdin(tar).assert_success();
}

#[test]
fn what_is_no_tar_is_refused() {
    let dir = with_tar("compat-junk");
    Session::layerstore(&dir).expect(
        r#"
$ create-layer -i one
one
$ applydiff -f junk one
! unpacking failed (error: exit status 1; output: archive/tar: invalid tar header)
! exhausting input failed (error: archive/tar: invalid tar header)
= 1
$ applydiff -f short one
! unpacking failed (error: exit status 1; output: unexpected EOF)
! exhausting input failed (error: unexpected EOF)
= 1
$ applydiff -f none one
! open none: no such file or directory
= 1
$ import-layer -i two -f junk
! unpacking failed (error: exit status 1; output: archive/tar: invalid tar header)
! exhausting input failed (error: archive/tar: invalid tar header)
= 1
$ applydiff one
$ layer -j one
[{"id":"one","created":"TIME","compressed-diff-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","diff-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}]
$ applydiff -f tree.tar nope
! layer not known
= 1
$ layers -q
one
"#,
    );
}

#[test]
fn layers_are_compared() {
    let dir = with_tar("compat-compare");
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ import-layer -f tree.tar -i base
base
$ create-layer -i next base
next
$ create-layer -i other
other
$ changes next
$ changes -j next
null
$ changes base other
Add "/d"
Add "/d/sub"
Add "/f1"
$ changes -j next other
[{"Path":"/d","Kind":1},{"Path":"/d/sub","Kind":1},{"Path":"/f1","Kind":1}]
$ diffsize next
0
$ diffsize next other
8
$ changes next nope
"#,
    );
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    session.expect(
        r#"
$ mount next
MOUNT
% rm -r "$MOUNT/d" && printf 12 >> "$MOUNT/f1" && touch "$MOUNT/a new"
$ unmount next
next mountpoint unmounted
$ changes next
Add "/a new"
Delete "/d"
Modify "/f1"
$ diffsize next
6
"#,
    );
}

#[test]
fn mounted_layers_can_be_written_to() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = with_tar("compat-write");
    Session::layerstore(&dir).expect(
        r#"
$ import-layer -f tree.tar -i base
base
$ create-layer -i next base
next
$ mount base
MOUNT
% printf more >> "$MOUNT/f1"
$ unmount base
base mountpoint unmounted
$ changes base
Add "/d"
Add "/d/sub"
Add "/f1"
$ diffsize base
12
$ layer -j base
[{"id":"base","created":"TIME"}]
$ create-layer -r -i still
still
$ mount still
MOUNT
% ! touch "$MOUNT/file"
$ unmount still
still mountpoint unmounted
$ mount base
MOUNT
$ delete-layer next base
"#,
    );
    assert!(dir.mounts().is_empty());
}

#[test]
fn equal_files_share_their_space() {
    let dir = Dir::new("compat-dedup");
    if let Err(why) = disk::mount(&dir, "root", "xfs", &[]) {
        skip!("{why}");
    }
    dir.write("tree/file", vec![7; 300_000]);
    dir.write("tree/small", "small");
    TestCommand::new("tar")
        .args(["-cf", "a.tar", "-C", "tree", "."])
        .current_dir(dir.path())
        .assert_success();
    let other = ["-cf", "b.tar", "-C", "tree", "file"];
    TestCommand::new("tar").args(other).current_dir(dir.path()).assert_success();
    Session::layerstore(&dir).expect(
        r#"
$ import-layer -i one -f a.tar
one
$ import-layer -i two -f b.tar
two
$ create-layer -i three
three
$ copy tree/file three:/another
$ dedup --hash-method junk
! invalid hash method: junk
= 1
$ dedup
Deduplicated 600000 bytes
$ dedup --hash-method size
Deduplicated 600000 bytes
$ dedup --hash-method=crc -j
{"Deduped":600000}
$ dedup --hash-method sha256
Deduplicated 600000 bytes
"#,
    );
}
