//! Mounts, and what is written through them.

use super::can_mount;
use crate::support::Dir;
use crate::support::transcript::Session;

#[test]
fn mounts_are_counted_and_told() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-mounts");
    Session::layerstore(&dir).expect(
        r#"
$ create-container -i a -n web ''
a
	web
$ mounted a
$ mount a
MOUNT
$ mount -j web nope
[{"id":"web","mountpoint":"MOUNT","error":""},{"id":"nope","mountpoint":"","error":"layer not known"}]
= 1
$ mount nope a
(empty)
MOUNT
! layer not known while mounting nope
= 1
$ mounted a nope
a mounted
! layer not known checking if nope is mounted
= 1
$ mounted -j a
a mounted
[{"id":"a","error":""}]
$ unmount a
$ unmount a
$ umount a
a mountpoint unmounted
$ unmount -j a nope
a mountpoint unmounted
[{"id":"a","error":""},{"id":"nope","error":"layer not known"}]
= 1
$ mount a
MOUNT
$ mount a
MOUNT
$ unmount -f a
a mountpoint unmounted
$ unmount nope
! layer not known while unmounting nope
= 1
"#,
    );
    assert!(dir.mounts().is_empty());
}

#[test]
fn what_is_written_is_listed() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-written");
    Session::layerstore(&dir).expect(
        r#"
$ create-container -i a ''
a
$ mount a
MOUNT
% mkdir "$MOUNT/d" && printf 12345 > "$MOUNT/d/f"
$ unmount a
a mountpoint unmounted
$ container a
ID: a
Image: 
Size: 5
Layer: ID1
$ delete-container a
"#,
    );
}

#[test]
fn shutdown_ends_all_mounts_if_forced() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-shutdown");
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ shutdown
$ shutdown -j
""
$ create-container -i a ''
a
$ mount a
MOUNT
$ shutdown
! shutdown: a layer is mounted: layer is in use by a container
= 1
$ mounted a
a mounted
$ shutdown -f
! shutdown: a layer is mounted: layer is in use by a container
= 1
$ mounted a
$ mount a
MOUNT
$ gc
! shutdown: a layer is mounted: layer is in use by a container
$ mounted a
$ gc -j
""
$ mount a
MOUNT
$ delete-container a
"#,
    );
    assert!(dir.mounts().is_empty());
}
