//! Paths that leave the layer, and links that lead out of it.

use super::*;

#[test]
fn paths_that_leave_the_layer_are_refused() {
    let place = Place::new();
    // As the error has them.
    for quoted in [
        r#""../victim/x""#,
        r#""/../victim/x""#,
        r#""a/../../victim/x""#,
        r#""../../../victim/x""#,
        r#""/../../../victim/x""#,
        r#""a/../../../../victim/x""#,
        r#""../../../root-userxattr/x""#,
        r#""a/../..""#,
        r#""..""#,
    ] {
        let path = quoted.trim_matches('"');
        place.attack_twice(path, &[Member::file(path, b"x")], Refused(quoted));
        place.attack_twice(path, &[Member::directory(path).mode(0o777)], Refused(quoted));
        place.attack_twice(path, &[Member::symlink(path, "x")], Refused(quoted));
    }
    let target = [Member::file("f", b"f"), Member::hard_link("h", "../../../victim/hello")];
    let told = r#"hard link "h": its target "../../../victim/hello" cannot be a path inside a layer"#;
    place.attack_twice("hard link to the victim", &target, Refused(told));
}

#[test]
fn absolute_paths_land_inside() {
    let place = Place::new();
    let inside = format!("{}/hello", place.victim());
    let shown = inside.trim_start_matches('/').to_owned();
    let slashes =
        [Member::file("/etc/x", b"x"), Member::file("//etc///y", b"y"), Member::file("./etc/./z", b"z")];
    let hard_link = [Member::file("a", b"a"), Member::hard_link("h", "/a")];
    place.all([
        case("absolute", [Member::file(&inside, b"other")], Harmless).shows(shown, Seen::File(b"other")),
        case("slashes", slashes, Harmless)
            .shows("etc/x", Seen::File(b"x"))
            .shows("etc/y", Seen::File(b"y"))
            .shows("etc/z", Seen::File(b"z")),
        case("absolute hard link", hard_link, Harmless).shows("h", Seen::SameFileAs("a")),
    ]);
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
        place.attack_twice(&name, &hard, Refused("\"h\""));
        // A directory in place of the link has the mode; what the link leads to has not.
        let directory = [link("foo"), Member::directory("foo").mode(0o777)];
        let file = [link("foo"), Member::file("foo", b"x").mode(0o777)];
        let hard_link = [link("l"), Member::hard_link("h", "l").mode(0o777)];
        place.all([
            case(format!("a directory over a link to {target}"), directory, Harmless)
                .shows("foo", Seen::Directory)
                .shows("foo", Seen::Mode(0o777)),
            case(format!("a file over a link to {target}"), file, Harmless)
                .shows("foo", Seen::File(b"x"))
                .shows("foo", Seen::Mode(0o777)),
            // The new name is the link's, never that of what it leads to.
            case(format!("a hard link to a link to {target}"), hard_link, Harmless)
                .shows("h", Seen::Symlink(target.to_owned()))
                .shows("h", Seen::SameFileAs("l")),
        ]);
    }
    let detour = [Member::symlink("a", "b/.."), Member::symlink("b", ".."), Member::file("a/b/x", b"x")];
    place.attack_twice("links in a ring", &detour, Refused("a/b/x"));
    let passwd = [Member::symlink("localetc", "/etc"), Member::file("localetc/passwd", b"x")];
    place.attack_twice("a link to /etc", &passwd, Refused("localetc/passwd"));
}

/// A link to a file: what then has its name, or is a hard link to it, changes neither content, mode, owner nor attributes of that.
#[test]
fn links_to_files_are_never_followed() {
    let place = Place::new();
    let victim = place.victim();
    for target in ["../../../victim/hello", &format!("{victim}/dir/secret"), "../../../victim/link"] {
        let link = |name: &str| Member::symlink(name, target);
        let stays = || Seen::Symlink(target.to_owned());
        let all_of_it = |member: Member| member.mode(0o4777).owner(7, 7).mtime(1, 0);
        let named = |what: &str| format!("{what} to {target}");
        let file = |name: &str| all_of_it(Member::file(name, b"x").xattr("user.victim", b"lost"));
        let hard_link = |name: &str, to: &str| all_of_it(Member::hard_link(name, to));
        place.all([
            case(named("a hard link to a link"), [link("l"), hard_link("h", "l")], Harmless)
                .shows("h", stays())
                .shows("h", Seen::SameFileAs("l")),
            case(
                named("a hard link to a hard link to a link"),
                [link("l"), hard_link("h", "l"), hard_link("i", "h")],
                Harmless,
            )
            .shows("i", stays())
            .shows("i", Seen::SameFileAs("l")),
            case(named("a file over a link"), [link("f"), file("f")], Harmless)
                .shows("f", Seen::File(b"x"))
                .shows("f", Seen::Mode(0o4777)),
            case(
                named("a file over one of two names of a link"),
                [link("l"), hard_link("h", "l"), file("h")],
                Harmless,
            )
            .shows("h", Seen::File(b"x"))
            .shows("l", stays()),
            case(named("a hard link over a link"), [file("f"), link("l"), hard_link("l", "f")], Harmless)
                .shows("l", Seen::SameFileAs("f"))
                .shows("l", Seen::File(b"x")),
            case(named("a fifo over a link"), [link("f"), all_of_it(Member::fifo("f"))], Harmless)
                .shows("f", Seen::Fifo),
            case(named("a directory over a link"), [link("f"), all_of_it(Member::directory("f"))], Harmless)
                .shows("f", Seen::Directory),
            case(named("a link over a link"), [link("f"), all_of_it(Member::symlink("f", "x"))], Harmless)
                .shows("f", Seen::Symlink("x".to_owned())),
            case(named("below a link"), [link("f"), file("f/x")], Refused("f/x")),
            layered(named("in the next layer, a file over a link"), [[link("f")], [file("f")]], Harmless)
                .shows("f", Seen::File(b"x"))
                .shows("f", Seen::Owner(7, 7)),
            layered(
                named("in the next layer, a hard link to a link"),
                [[link("l")], [hard_link("h", "l")]],
                Refused("\"h\""),
            ),
            layered(
                named("in the next layer, a whiteout of a link"),
                [[link("l")], [Member::whiteout("l")]],
                Harmless,
            )
            .shows("l", Seen::Absent),
        ]);
    }
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
        place.all([case("swapped back", again.concat(), Harmless)
            .shows("foo", Seen::Directory)
            .shows("foo/dir/secret", Seen::File(b"y"))]);
    }
}

#[test]
fn links_of_a_lower_layer_are_never_followed() {
    let place = Place::new();
    for link in ["up", "victim", "all"] {
        let name = format!("{link} of the layer below");
        let upper = |members: &[Member]| [place.base(), Layer::new(members)];
        // A directory takes the link's place, as in an overlay.
        let becomes = |what: &str, member: Member| {
            of_layers(format!("{what}, {name}"), upper(&[member]), Harmless).shows(link, Seen::Directory)
        };
        let file = format!("{link}/authorized_keys");
        place.all([
            becomes("a file through", Member::file(&file, b"x")).shows(file, Seen::File(b"x")),
            becomes("a whiteout through", Member::whiteout(format!("{link}/hello")))
                .shows(format!("{link}/hello"), Seen::Absent),
            becomes("an opaque marker through", Member::opaque(link)),
            becomes("a directory over", Member::directory(link).mode(0o777)).shows(link, Seen::Mode(0o777)),
        ]);
        place.attack(&name, upper(&[Member::hard_link("h", format!("{link}/hello"))]), Refused("\"h\""));
        place.attack(&name, upper(&[Member::hard_link("h", link)]), Refused("\"h\""));
    }
}

#[test]
fn hard_links_need_a_target_in_their_own_archive() {
    let place = Place::new();
    let below = || Member::file("below", b"x");
    let through = |name: &str| {
        [Member::directory("d"), below(), Member::symlink("l", "d"), Member::hard_link("h", name)]
    };
    place.all([
        case("through a link of the same layer", through("l/../below"), Harmless)
            .shows("h", Seen::SameFileAs("below")),
        case("below a link of the same layer", through("l/below"), Refused("\"h\"")),
        layered(
            "to a deleted name",
            [vec![below()], vec![Member::whiteout("below"), Member::hard_link("h", "below")]],
            Refused("\"h\""),
        ),
    ]);
    let early = [Member::hard_link("h", "late"), Member::file("late", b"x")];
    place.attack_twice("before its target", &early, Refused("\"h\""));
    place.attack_twice(
        "to a directory",
        &[Member::directory("d"), Member::hard_link("h", "d")],
        Refused("\"h\""),
    );
    place.attack_twice("to itself", &[Member::hard_link("h", "h")], Refused("\"h\""));
    let own = [Member::file("h", b"x"), Member::hard_link("h", "h")];
    place.attack_twice("in place of itself", &own, Refused("\"h\""));
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
    for path in ["", ".", "./", "/.", "/", "//", "a/.."] {
        let slash = path.ends_with('/');
        for (kind, member, told) in [
            ("link", Member::symlink(path, "../../../victim"), "given as a symbolic link"),
            // Some readers make a directory of it.
            (
                "file",
                Member::file(path, b"x"),
                if slash { "cannot end with a slash" } else { "given as a file" },
            ),
            ("fifo", Member::fifo(path), "given as a fifo"),
            ("device", Member::char_device(path, 1, 3), "given as a device"),
            ("block device", Member::block_device(path, 8, 0), "given as a device"),
            ("hard link", Member::hard_link(path, "target"), "given as a hard link"),
        ] {
            let members = [Member::file("target", b"t"), member, Member::file("x", b"x")];
            place.attack_twice(&format!("{kind} {path:?}"), &members, Refused(told));
        }
        place.all([
            case(path, [Member::directory(path).mode(0o711)], Harmless).shows("", Seen::Mode(0o711)),
            // What the link does to its own layer is not what the next layer's file does through it.
            layered(
                format!("a link {path:?}, and a file in the next layer"),
                [Member::symlink(path, place.victim()), Member::file("x", b"x")].map(|member| [member]),
                Refused("given as a symbolic link"),
            ),
        ]);
    }
}

#[test]
fn names_at_the_limits() {
    let place = Place::new();
    let component = "n".repeat(255);
    let deep: Vec<String> = (1..=16).map(|depth| vec![component.as_str(); depth].join("/")).collect();
    let deepest = deep.last().unwrap();
    let target = "../".repeat(40) + "victim";
    let mut members: Vec<_> = deep.iter().map(Member::directory).collect();
    members.push(Member::symlink(format!("{deepest}/link"), &target));
    let through = [members.clone(), vec![Member::file(format!("{deepest}/link/x"), b"x")]].concat();
    place.all([
        case("beyond PATH_MAX", members, Harmless).shows(format!("{deepest}/link"), Seen::Symlink(target)),
        case("through a link beyond PATH_MAX", through, Refused("link/x")),
        case("a component of 255 bytes", [Member::file(&component, b"x")], Harmless)
            .shows(&component, Seen::File(b"x")),
        case("a component of 256 bytes", [Member::file("n".repeat(256), b"x")], Refused("\"nnnn")),
        case("a link target of 4095 bytes", [Member::symlink("l", "t".repeat(4095))], Harmless)
            .shows("l", Seen::Symlink("t".repeat(4095))),
        case("a link target of 4096 bytes", [Member::symlink("l", "t".repeat(4096))], Refused("\"l\"")),
    ]);
}

/// For thousands of directories, each below the one before: what the kernel looks at grows with the square of their number.
const DEEP_CPU: Duration = Duration::from_secs(20);

/// A path of many parts implies a directory for each, whose own paths are together as long as its square.
#[test]
fn directories_that_nobody_named() {
    let place = Place::new();
    let deep = |number: usize, parts| Member::file(format!("{number}/{}file", "d/".repeat(parts)), b"x");
    let ten = |parts| (0..10).map(|number| deep(number, parts)).collect::<Vec<_>>();
    place.all([
        case("one path of two hundred parts", [deep(0, 200)], Harmless)
            .shows(format!("0/{}file", "d/".repeat(200)), Seen::File(b"x")),
        layered("ten paths of almost two thousand parts", [ten(1900)], Refused("implied_path_bytes"))
            .within(DEEP_CPU),
        layered("ten paths of eight thousand parts", [ten(7900)], Refused("implied_path_bytes"))
            .within(DEEP_CPU),
    ]);
}

#[test]
fn names_of_odd_bytes() {
    let place = Place::new();
    let nul = |key: &str| [Member::symlink("x", "y").pax(key, b"etc/pass\0wd")];
    let odd = b"new\nline\xff\x1b[2J";
    place.all([
        case("NUL in a path", nul("path"), Refused("NUL")),
        case("NUL in a target", nul("linkpath"), Refused("NUL")),
        case("odd bytes", [Member::file(odd, b"x")], Harmless)
            .shows(odd.escape_ascii().to_string(), Seen::File(b"x")),
        case("odd bytes in a target", [Member::symlink("l", odd)], Harmless)
            .shows("l", Seen::Symlink(odd.escape_ascii().to_string())),
        case("spaces and separators", [Member::file(" a, b:c=d\\", b"x")], Harmless)
            .shows(b" a, b:c=d\\".escape_ascii().to_string(), Seen::File(b"x")),
    ]);
}

#[test]
fn files_are_no_directories() {
    let place = Place::new();
    place.all([
        case("below a file", [Member::file("a", b"a"), Member::file("a/b", b"b")], Refused("a/b")),
        case("below a fifo", [Member::fifo("a"), Member::file("a/b", b"b")], Refused("a/b")),
        case("a file that becomes a directory", [Member::file("a", b"a"), Member::directory("a")], Harmless)
            .shows("a", Seen::Directory),
        layered(
            "below a file of the layer below",
            [[Member::file("a", b"a")], [Member::file("a/b", b"b")]],
            Harmless,
        )
        .shows("a", Seen::Directory)
        .shows("a/b", Seen::File(b"b")),
    ]);
}

/// A filesystem that folds case would make one file of them; the store's never does.
#[test]
fn names_that_look_alike_are_different() {
    let place = Place::new();
    let names = ["Name", "name", "nam\u{e9}", "name\u{301}"];
    let contents: [&[u8]; 4] = [b"1", b"2", b"3", b"4"];
    let members: Vec<_> =
        names.iter().zip(contents).map(|(name, content)| Member::file(name, content)).collect();
    let shown = |case: Case, (name, content): (&str, &'static [u8])| {
        case.shows(name.as_bytes().escape_ascii().to_string(), Seen::File(content))
    };
    place.all([names.into_iter().zip(contents).fold(case("alike", members, Harmless), shown)]);
}

/// Both a directory and a link have the name, again and again, and files come in between.
#[test]
fn a_name_that_is_now_a_directory_and_now_a_link() {
    let place = Place::new();
    let link = |target: &str| {
        [Member::symlink("foo", target), Member::directory("foo"), Member::directory("foo/tmp")]
    };
    let file = || Member::file("foo/tmp/x", b"x");
    let directory = || vec![Member::directory("foo"), Member::directory("foo/tmp"), file()];
    for target in ["/", "../../../victim", &place.victim()] {
        let back = [directory(), link(target).to_vec(), vec![file()]].concat();
        let early = [directory(), vec![Member::symlink("foo", target), file()], directory()].concat();
        place.all([
            case(format!("a link to {target} in between"), back, Harmless)
                .shows("foo", Seen::Directory)
                .shows("foo/tmp/x", Seen::File(b"x")),
            case(format!("a file through a link to {target} in between"), early, Refused("foo/tmp/x")),
        ]);
    }
}
