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
$ create-container -i x -n web ''
x
	web
$ mounted x
$ mount x
MOUNT
$ mount -j web nope
[{"id":"web","mountpoint":"MOUNT","error":""},{"id":"nope","mountpoint":"","error":"layer not known"}]
= 1
$ mount nope x
(empty)
MOUNT
! layer not known while mounting nope
= 1
$ mounted x nope
x mounted
! layer not known checking if nope is mounted
= 1
$ mounted -j x
x mounted
[{"id":"x","error":""}]
$ unmount x
$ unmount x
$ umount x
x mountpoint unmounted
$ unmount -j x nope
x mountpoint unmounted
[{"id":"x","error":""},{"id":"nope","error":"layer not known"}]
= 1
$ mount x
MOUNT
$ mount x
MOUNT
$ unmount -f x
x mountpoint unmounted
$ unmount nope
! layer not known while unmounting nope
= 1
"#,
    );
    assert!(dir.mounts().is_empty());
}

/// The library leaves layers that have names; here they go with the image.
#[test]
fn an_image_goes_with_layers_that_have_names_and_are_mounted() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("compat-mounted-image");
    Session::layerstore(&dir).expect(
        r#"
$ create-layer -i below -n one
below
	one
$ create-layer -i top -n two below
top
	two
$ create-image -i img top
img
$ mount top
MOUNT
$ delete-image img
! img: top
! img: below
$ layers
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
$ create-container -i x ''
x
$ mount x
MOUNT
% mkdir "$MOUNT/d" && printf 12345 > "$MOUNT/d/f"
$ unmount x
x mountpoint unmounted
$ container x
ID: x
Image: 
Size: 5
Layer: ID1
$ delete-container x
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
$ create-container -i x ''
x
$ mount x
MOUNT
$ shutdown
! shutdown: a layer is mounted: layer is in use by a container
= 1
$ mounted x
x mounted
$ shutdown -f
! shutdown: a layer is mounted: layer is in use by a container
= 1
$ mounted x
$ mount x
MOUNT
$ gc
! shutdown: a layer is mounted: layer is in use by a container
$ mounted x
$ gc -j
""
$ mount x
MOUNT
$ delete-container x
"#,
    );
    assert!(dir.mounts().is_empty());
}
