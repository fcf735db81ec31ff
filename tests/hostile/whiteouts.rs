//! Markers for deleted names.

use super::*;

/// A marker of any kind of member.
fn markers() -> [(&'static str, Member); 5] {
    [
        ("a file", Member::whiteout("etc/passwd")),
        ("a directory", Member::directory("etc/.wh.passwd")),
        ("a link", Member::symlink("etc/.wh.passwd", "/etc/passwd")),
        ("a fifo", Member::fifo("etc/.wh.passwd")),
        ("a device", Member::char_device("etc/.wh.passwd", 0, 0)),
    ]
}

#[test]
fn markers_that_name_nothing_are_refused() {
    let place = Place::new();
    for path in [".wh...", ".wh..", ".wh.", "etc/.wh..", "etc/.wh...", "etc/.wh."] {
        place.all([
            case(path, [Member::directory("etc"), Member::file(path, b"")], Refused(".wh.")),
            case(format!("{path} as a directory"), [Member::directory(path)], Refused(".wh.")),
            case(format!("{path} as a link"), [Member::symlink(path, "../victim")], Refused(".wh.")),
        ]);
    }
}

#[test]
fn markers_do_not_follow_links() {
    let place = Place::new();
    let link = || Member::symlink("localetc", place.victim());
    place.all([
        case("through a link", [link(), Member::whiteout("localetc/hello")], Refused("\"localetc\"")),
        case("an opaque link", [link(), Member::opaque("localetc")], Refused("\"localetc\"")),
        // The directory that the marker is in takes the link's place.
        layered("through a link below", [[link()], [Member::whiteout("localetc/hello")]], Harmless)
            .shows("localetc", Seen::Directory)
            .shows("localetc/hello", Seen::Absent),
        layered("a link below, opaque", [[link()], [Member::opaque("localetc")]], Harmless)
            .shows("localetc", Seen::Directory),
        layered("of a link below", [[link()], [Member::whiteout("localetc")]], Harmless)
            .shows("localetc", Seen::Absent),
    ]);
}

/// Whatever a member with a marker's name claims to be, it is the marker, and nothing of that name is made.
#[test]
fn a_marker_of_any_type_is_a_marker() {
    let place = Place::new();
    let below = || vec![Member::directory("etc"), Member::file("etc/passwd", b"x")];
    for (what, marker) in markers() {
        place.all([
            layered(format!("{what} as a marker"), [below(), vec![marker.clone()]], Harmless)
                .shows("etc", Seen::Directory)
                .shows("etc/passwd", Seen::Absent)
                .shows("etc/.wh.passwd", Seen::Absent),
            case(format!("{what} as the only marker"), [marker], Harmless).shows("etc/passwd", Seen::Absent),
        ]);
    }
    let hard = [Member::file("f", b"f"), Member::hard_link(".wh.f", "f")];
    place.all([
        case("a hard link as a marker", hard, Harmless)
            .shows("f", Seen::File(b"f"))
            .shows(".wh.f", Seen::Absent),
        case("a marker with content", [Member::file(".wh.name", b"with content")], Refused(".wh.name")),
        case(
            "an opaque marker with content",
            [Member::file("d/.wh..wh..opq", b"x")],
            Refused(".wh..wh..opq"),
        ),
    ]);
}

/// Only the last part of a path decides, and what AUFS kept for itself is no part of a tree.
#[test]
fn names_that_look_like_markers() {
    let place = Place::new();
    place.all([
        case("below a marker's name", [Member::file(".wh.etc/file", b"x")], Harmless)
            .shows(".wh.etc/file", Seen::File(b"x")),
        case("in the middle of a name", [Member::file("x.wh.y", b"x")], Harmless)
            .shows("x.wh.y", Seen::File(b"x")),
        case("in capitals", [Member::file(".WH.etc", b"x")], Harmless).shows(".WH.etc", Seen::File(b"x")),
    ]);
    for name in [".wh..wh.plnk", ".wh..wh.aufs", "d/.wh..wh.orph"] {
        place.all([
            case(name, [Member::directory("d"), Member::file(name, b"")], Harmless).shows(name, Seen::Absent),
            case(format!("{name} as a directory"), [Member::directory(name)], Harmless)
                .shows(name, Seen::Absent),
        ]);
    }
}

/// A marker speaks of the layers below, wherever in the archive it stands.
#[test]
fn markers_and_names_in_every_order() {
    let place = Place::new();
    let below = || [Member::file("d/name", b"old"), Member::file("d/other", b"old")];
    let (gone, file) = (|| Member::whiteout("d/name"), || Member::file("d/name", b"new"));
    let (directory, opaque) = (|| Member::directory("d"), || Member::opaque("d"));
    let inside = || Member::whiteout("d/other");
    let marked = [
        ("whiteout, then the name", [directory(), gone(), file()]),
        ("the name, then its whiteout", [directory(), file(), gone()]),
        ("whiteout, name, directory", [gone(), file(), directory()]),
    ];
    for (name, members) in marked {
        place.all([layered(name, [below().to_vec(), members.to_vec()], Harmless)
            .shows("d/name", Seen::File(b"new"))
            .shows("d/other", Seen::File(b"old"))]);
    }
    let hidden = [
        ("opaque before its siblings", [directory(), opaque(), file()]),
        ("opaque after its siblings", [directory(), file(), opaque()]),
        ("opaque before its directory", [opaque(), directory(), file()]),
        ("a whiteout in an opaque directory", [opaque(), inside(), file()]),
        ("a whiteout in a directory that becomes opaque", [inside(), file(), opaque()]),
        ("opaque twice", [opaque(), opaque(), file()]),
    ];
    for (name, members) in hidden {
        place.all([layered(name, [below().to_vec(), members.to_vec()], Harmless)
            .shows("d/name", Seen::File(b"new"))
            .shows("d/other", Seen::Absent)]);
    }
    let removed = [
        ("a directory", vec![Member::whiteout("d")]),
        ("a directory, then a file in it", vec![Member::whiteout("d"), file()]),
    ];
    for (name, members) in removed {
        let shown = if members.len() == 1 { Seen::Absent } else { Seen::File(b"new") };
        place.all([layered(format!("whiteout of {name}"), [below().to_vec(), members], Harmless)
            .shows("d/name", shown)
            .shows("d/other", Seen::Absent)]);
    }
    // Opacity at the root hides the whole base.
    place.all([case("opaque root", [Member::file(".wh..wh..opq", b""), file()], Harmless)
        .shows("d/name", Seen::File(b"new"))
        .shows("etc", Seen::Absent)
        .shows("all", Seen::Absent)]);
}

/// To overlayfs the device is a whiteout.
#[test]
fn a_device_is_no_whiteout() {
    let place = Place::new();
    let device = |name: &str, major, minor| [Member::char_device(name, major, minor)];
    place.all([
        case("character device 0:0", device("etc/passwd", 0, 0), Refused("etc/passwd")),
        // Numbers of which the kernel would leave 0:0.
        case("character device 4096:0", device("etc/passwd", 4096, 0), Refused("etc/passwd")),
        case("character device 0:1048576", device("etc/passwd", 0, 1 << 20), Refused("etc/passwd")),
        case(
            "hard link to it",
            [device("null", 0, 0), [Member::hard_link("etc/passwd", "null")]].concat(),
            Refused("\"null\""),
        ),
        case("block device 0:0", [Member::block_device("etc/group", 0, 0)], Harmless)
            .shows("etc/group", metadata::made(Seen::BlockDevice(0, 0))),
    ]);
    // Nor is a hard link to a marker's name a way to one.
    let linked = [Member::whiteout("name"), Member::hard_link("etc/passwd", "name")];
    let named = [Member::whiteout("name"), Member::hard_link("etc/passwd", ".wh.name")];
    place.all([
        case("hard link to a deleted name", linked, Refused("etc/passwd")),
        case("hard link to a marker", named, Refused("etc/passwd")),
    ]);
}
