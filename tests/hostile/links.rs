//! Paths that leave the layer, and links that lead out of it.

use super::*;

#[test]
fn paths_that_leave_the_layer_are_refused() {
    let place = Place::new();
    for path in
        ["../victim/x", "../../../victim/x", "/../../../victim/x", "a/../../../../victim/x", "a/../..", ".."]
    {
        place.attack_twice(path, &[Member::file(path, b"x")], Refused(".."));
        place.attack_twice(path, &[Member::directory(path).mode(0o777)], Refused(".."));
        place.attack_twice(path, &[Member::symlink(path, "x")], Refused(".."));
    }
    let target = [Member::file("f", b"f"), Member::hard_link("h", "../../../victim/hello")];
    place.attack_twice("hard link to the victim", &target, Refused(".."));
}

#[test]
fn absolute_paths_land_inside() {
    let place = Place::new();
    let inside = format!("{}/hello", place.victim());
    place.attack_twice("absolute", &[Member::file(&inside, b"other")], Harmless);
    place.attack_twice(
        "slashes",
        &[Member::file("//etc///x", b"x"), Member::file("./etc/./y", b"y")],
        Harmless,
    );
    place.attack_twice(
        "absolute hard link",
        &[Member::file("a", b"a"), Member::hard_link("h", "/a")],
        Harmless,
    );
    // The victim's file is no file of the layer.
    place.attack_twice("hard link out", &[Member::hard_link("h", &inside)], Refused("\"h\""));
}

#[test]
fn links_of_an_archive_are_never_followed() {
    let place = Place::new();
    let victim = place.victim();
    for target in ["../../../victim", &victim, "/", "..", "../../../victim/dir/.."] {
        let link = |name: &str| Member::symlink(name, target);
        let name = format!("through a link to {target}");
        place.attack_twice(&name, &[link("d"), Member::file("d/x", b"x")], Refused("d/x"));
        place.attack_twice(&name, &[link("d"), Member::directory("d/dir").mode(0o777)], Refused("d/dir"));
        place.attack_twice(&name, &[link("d"), Member::symlink("d/x", "x")], Refused("d/x"));
        place.attack_twice(&name, &[link("d"), Member::fifo("d/x")], Refused("d/x"));
        let hard = [Member::file("f", b"f"), link("d"), Member::hard_link("d/x", "f")];
        place.attack_twice(&name, &hard, Refused("d/x"));
        let hard = [link("d"), Member::hard_link("h", "d/hello")];
        place.attack_twice(&name, &hard, Refused("h"));
        // A directory in place of the link has the mode; what the link leads to has not.
        place.attack_twice(&name, &[link("foo"), Member::directory("foo").mode(0o777)], Harmless);
        place.attack_twice(&name, &[link("foo"), Member::file("foo", b"x").mode(0o777)], Harmless);
        place.attack_twice(&name, &[link("l"), Member::hard_link("h", "l").mode(0o777)], Harmless);
    }
    let detour = [Member::symlink("a", "b/.."), Member::symlink("b", ".."), Member::file("a/b/x", b"x")];
    place.attack_twice("links in a ring", &detour, Refused("a/b/x"));
    let passwd = [Member::symlink("localetc", "/etc"), Member::file("localetc/passwd", b"x")];
    place.attack_twice("a link to /etc", &passwd, Refused("localetc/passwd"));
}

#[test]
fn a_directory_that_becomes_a_link_is_no_way_out() {
    let place = Place::new();
    let victim = place.victim();
    let swap = |target: &str| {
        vec![
            Member::directory("foo"),
            Member::directory("foo/dir"),
            Member::file("foo/dir/secret", b"x"),
            Member::symlink("foo", target),
        ]
    };
    for target in ["/", "../../../victim", &victim] {
        let file = [swap(target), vec![Member::file("foo/dir/secret", b"x")]].concat();
        place.attack_twice("swapped, then a file", &file, Refused("foo/dir/secret"));
        let again = [
            swap(target),
            vec![
                Member::directory("foo"),
                Member::directory("foo/dir"),
                Member::file("foo/dir/secret", b"y"),
            ],
        ];
        place.attack_twice("swapped back", &again.concat(), Harmless);
    }
}

#[test]
fn links_of_a_lower_layer_are_never_followed() {
    let place = Place::new();
    for link in ["up", "victim", "all"] {
        let name = format!("{link} of the layer below");
        let upper = |members: &[Member]| [place.base(), Layer::new(members)];
        // A directory takes the link's place, as in an overlay.
        place.attack(&name, upper(&[Member::file(format!("{link}/authorized_keys"), b"x")]), Harmless);
        place.attack(&name, upper(&[Member::whiteout(format!("{link}/hello"))]), Harmless);
        place.attack(&name, upper(&[Member::opaque(link)]), Harmless);
        place.attack(&name, upper(&[Member::directory(link).mode(0o777)]), Harmless);
        place.attack(&name, upper(&[Member::hard_link("h", format!("{link}/hello"))]), Refused("h"));
        place.attack(&name, upper(&[Member::hard_link("h", link)]), Refused("h"));
    }
}

#[test]
fn hard_links_need_a_target_in_their_own_archive() {
    let place = Place::new();
    let early = [Member::hard_link("h", "late"), Member::file("late", b"x")];
    place.attack_twice("before its target", &early, Refused("\"h\""));
    place.attack_twice(
        "to a directory",
        &[Member::directory("d"), Member::hard_link("h", "d")],
        Refused("\"h\""),
    );
    place.attack_twice("to itself", &[Member::hard_link("h", "h")], Refused("\"h\""));
    let own = [Member::file("h", b"x"), Member::hard_link("h", "h")];
    place.attack_twice("in place of itself", &own, Either);
    place.attack(
        "of a lower layer",
        [place.base(), Layer::new([Member::hard_link("h", "etc/passwd")])],
        Refused("\"h\""),
    );
    // The process's working directory is the victim.
    place.attack_twice("of the working directory", &[Member::hard_link("h", "hello")], Refused("\"h\""));
}

#[test]
fn the_root_is_a_directory() {
    let place = Place::new();
    for path in [".", "./", "/.", "/", "//", "a/.."] {
        for (kind, member) in [
            ("link", Member::symlink(path, "../../../victim")),
            ("file", Member::file(path, b"x")),
            ("fifo", Member::fifo(path)),
            ("hard link", Member::hard_link(path, "etc")),
        ] {
            place.attack_twice(
                &format!("{kind} {path}"),
                &[member.clone(), Member::file("x", b"x")],
                Refused(""),
            );
        }
        place.attack_twice(path, &[Member::directory(path).mode(0o711)], Harmless);
    }
    place.attack_twice(
        "no name",
        &[Member::symlink("", "../../../victim"), Member::file("x", b"x")],
        Refused(""),
    );
}

#[test]
fn names_at_the_limits() {
    let place = Place::new();
    let component = "n".repeat(255);
    let deep: Vec<String> = (1..=16).map(|depth| vec![component.as_str(); depth].join("/")).collect();
    let mut members: Vec<_> = deep.iter().map(Member::directory).collect();
    let deepest = deep.last().unwrap();
    members.push(Member::symlink(format!("{deepest}/link"), "../".repeat(40) + "victim"));
    place.attack_twice("beyond PATH_MAX", &members, Harmless);
    members.push(Member::file(format!("{deepest}/link/x"), b"x"));
    place.attack_twice("through it", &members, Refused("link/x"));
    place.attack_twice("a long component", &[Member::file("n".repeat(256), b"x")], Refused("nnnn"));
    place.attack_twice("NUL", &[Member::file("x", b"x").pax("path", b"etc/pass\0wd")], Refused("NUL"));
    place.attack_twice("odd bytes", &[Member::file(b"new\nline\xff\x1b[2J", b"x")], Harmless);
    place.attack_twice("below a file", &[Member::file("a", b"a"), Member::file("a/b", b"b")], Refused("a/b"));
    let alike = [
        Member::file("Name", b"1"),
        Member::file("name", b"2"),
        Member::file("nam\u{e9}", b"3"),
        Member::file("name\u{301}", b"4"),
    ];
    place.attack_twice("alike", &alike, Harmless);
}
