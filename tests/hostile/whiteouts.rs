//! Markers for deleted names.

use super::*;

#[test]
fn markers_that_name_nothing_are_refused() {
    let place = Place::new();
    for path in [".wh...", ".wh..", ".wh.", "etc/.wh..", "etc/.wh...", "etc/.wh."] {
        place.attack_twice(path, &[Member::directory("etc"), Member::file(path, b"")], Refused(".wh."));
    }
}

#[test]
fn markers_do_not_follow_links() {
    let place = Place::new();
    let link = Member::symlink("localetc", place.victim());
    place.attack_twice(
        "through a link",
        &[link.clone(), Member::whiteout("localetc/hello")],
        Refused("localetc"),
    );
    place.attack_twice("opaque", &[link.clone(), Member::opaque("localetc")], Either);
    place.attack(
        "a link below",
        [Layer::new([link]), Layer::new([Member::whiteout("localetc/hello")])],
        Harmless,
    );
}

#[test]
fn odd_markers() {
    let place = Place::new();
    place.attack_twice("below a marker's name", &[Member::file(".wh.etc/file", b"x")], Either);
    let body = [Member::file(".wh.name", b"with content")];
    place.attack_twice("with a body", &body, Refused(".wh.name"));
    place.attack_twice("a directory", &[Member::directory(".wh.name")], Either);
    place.attack_twice("a link", &[Member::symlink(".wh.name", "/etc")], Either);
    place.attack_twice("a hard link", &[Member::file("f", b"f"), Member::hard_link(".wh.name", "f")], Either);
    for name in [".wh..wh.plnk", ".wh..wh.aufs", "d/.wh..wh.orph"] {
        place.attack_twice(name, &[Member::directory("d"), Member::file(name, b"")], Harmless);
    }
}

#[test]
fn markers_and_names_in_every_order() {
    let place = Place::new();
    let (gone, file) = (Member::whiteout("d/name"), Member::file("d/name", b"x"));
    let (directory, opaque) = (Member::directory("d"), Member::opaque("d"));
    let inside = Member::whiteout("d/other");
    for members in [
        [&directory, &gone, &file],
        [&directory, &file, &gone],
        [&gone, &file, &directory],
        [&directory, &opaque, &file],
        [&directory, &file, &opaque],
        [&opaque, &directory, &file],
        [&opaque, &inside, &file],
        [&inside, &file, &opaque],
        [&opaque, &opaque, &gone],
    ] {
        let members: Vec<_> = members.into_iter().cloned().collect();
        let name = format!("{members:?}");
        place.attack_twice(&name, &members, Harmless);
    }
    // Opacity at the root hides the whole base.
    place.attack_twice("opaque root", &[Member::file(".wh..wh..opq", b"")], Harmless);
}

#[test]
fn two_hundred_thousand_markers_take_no_time() {
    let place = Place::new();
    let marker = Member::opaque("d").to_bytes();
    let mut tar = Member::directory("d").to_bytes();
    for _ in 0..200_000 {
        tar.extend_from_slice(&marker);
    }
    tar.resize(tar.len() + 1024, 0);
    let begun = std::time::Instant::now();
    place.attack("opaque markers", [Layer::from_tar(tar)], Harmless);
    assert!(begun.elapsed().as_secs() < 120, "{:?}", begun.elapsed());
}

#[test]
fn a_device_is_no_whiteout() {
    let place = Place::new();
    let device = [Member::char_device("null", 0, 0)];
    place.attack_twice("character device 0:0", &device, Refused("null"));
}
