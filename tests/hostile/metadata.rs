//! Extended attributes, owners, times and devices.

use super::*;
use crate::support::tar::{Checksum, Field, Format};

/// An attribute, in its quotes, that the kernel takes from nobody. The machine's root is told so; in a namespace, where the kernel takes
/// less, it is left out.
fn not_taken(name: &str, member: Member, attribute: &'static str, value: &[u8]) -> Case {
    let expected = if machine::is_real_root() { Refused(attribute) } else { Harmless };
    case(name, [member.xattr(attribute.trim_matches('"'), value)], expected)
}

/// A device, which is left out in a namespace.
pub(super) fn made(device: Seen) -> Seen {
    if machine::is_real_root() { device } else { Seen::Absent }
}

/// An owner that may have no id here, and then cannot be set.
fn owned(name: &str, members: impl AsRef<[Member]>, ids: [u32; 2]) -> Case {
    let are_mapped = ids.into_iter().all(machine::is_mapped);
    case(
        name,
        members,
        if are_mapped { Harmless } else { Refused("which is no owner in this user namespace") },
    )
}

fn file() -> Member {
    Member::file("file", b"f")
}

/// `CAP_NET_BIND_SERVICE`, as the kernel and all archivers write it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Both classes, and whether this process may write attributes of it.
fn classes() -> [(&'static str, bool); 2] {
    [("trusted", machine::is_real_root()), ("user", true)]
}

/// An attribute comes back as it was, if it can be kept at all.
fn back(name: &str, kept: bool, value: &'static [u8]) -> Seen {
    if kept { Seen::Xattr(name.to_owned(), value) } else { none(name) }
}

fn none(name: &str) -> Seen {
    Seen::NoXattr(name.to_owned())
}

#[test]
fn attributes_of_overlay_come_back() {
    let place = Place::new();
    for (class, kept) in classes() {
        for name in [
            "opaque",
            "redirect",
            "metacopy",
            "origin",
            "whiteout",
            "whiteouts",
            "verity",
            "upper",
            "nlink",
            "impure",
            "protattr",
            "uuid",
            "overlay.opaque",
            "overlay.overlay.opaque",
            "layerstore.masked",
        ] {
            let name = format!("{class}.overlay.{name}");
            let members = [
                Member::directory("d").xattr(&name, b"y"),
                Member::file("d/f", b"f").xattr(&name, b"/../../../victim"),
            ];
            place.all([case(&name, members, Harmless)
                .shows("d", back(&name, kept, b"y"))
                .shows("d/f", back(&name, kept, b"/../../../victim"))
                .shows("d/f", Seen::File(b"f"))]);
        }
    }
}

/// Each row would show something else if the kernel believed the attribute.
#[test]
fn attributes_of_overlay_mean_nothing() {
    let place = Place::new();
    for (class, _) in classes() {
        let named = |name: &str| format!("{class}.overlay.{name}");
        let below = || {
            vec![
                Member::directory("d"),
                Member::file("d/old", b"old"),
                Member::directory("other"),
                Member::file("other/secret", b"secret"),
            ]
        };
        let above = |name: &str, members: Vec<Member>| {
            layered(format!("{class}: {name}"), [below(), members], Harmless)
        };
        let directory = |name: &str, value: &[u8]| Member::directory("d").xattr(&named(name), value);
        place.all([
            above("opaque", vec![directory("opaque", b"y")]).shows("d/old", Seen::File(b"old")),
            above("opaque root", vec![Member::directory(".").xattr(&named("opaque"), b"y")])
                .shows("d/old", Seen::File(b"old")),
            above("redirect", vec![directory("redirect", b"/other")])
                .shows("d/old", Seen::File(b"old"))
                .shows("d/secret", Seen::Absent),
            above("redirect by name", vec![directory("redirect", b"other")]).shows("d/secret", Seen::Absent),
            above("metacopy", vec![Member::file("d/old", b"").xattr(&named("metacopy"), b"")])
                .shows("d/old", Seen::File(b"")),
            above(
                "metacopy of another file",
                vec![
                    Member::file("d/old", b"")
                        .xattr(&named("metacopy"), b"")
                        .xattr(&named("redirect"), b"/other/secret"),
                ],
            )
            .shows("d/old", Seen::File(b"")),
            above(
                "whiteout",
                vec![
                    Member::directory(".").xattr(&named("opaque"), b"x"),
                    directory("opaque", b"x"),
                    Member::file("d/old", b"").xattr(&named("whiteout"), b"y"),
                ],
            )
            .shows("d/old", Seen::File(b"")),
        ]);
    }
}

/// The stated policy (docs/hostile-input.md): file capabilities are kept, what the host's security modules write is not taken
/// from a layer. Either way the archive comes out as it went in.
#[test]
fn attributes_of_security() {
    let place = Place::new();
    let root_1000 = [&b"\x01\0\0\x03"[..], &CAPABILITY[4..], &1000_u32.to_le_bytes()].concat();
    let shown: &'static [u8] = b"\x01\0\0\x03\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xe8\x03\0\0";
    assert_eq!(root_1000, shown);
    place.all([
        case("a capability", [file().xattr("security.capability", CAPABILITY)], Harmless)
            .shows("file", Seen::Xattr("security.capability".to_owned(), CAPABILITY)),
        case("a capability of another root", [file().xattr("security.capability", &root_1000)], Harmless)
            .shows("file", back("security.capability", machine::is_mapped(1000), shown)),
        not_taken("no capability", file(), "\"security.capability\"", b"\xff")
            .shows("file", none("security.capability")),
    ]);
    for (name, value) in [
        ("security.selinux", &b"system_u:object_r:etc_t:s0\0"[..]),
        ("security.ima", b"\x04\x04"),
        ("security.evm", b"\x05"),
        ("security.SMACK64", b"_"),
    ] {
        place.all([case(name, [file().xattr(name, value)], Harmless).shows("file", none(name))]);
    }
}

/// A mount program takes the mode and owner of a file from them, or takes it for a whiteout.
#[test]
fn attributes_of_mount_programs_are_not_set() {
    let place = Place::new();
    let below = || vec![Member::file("d/old", b"old")];
    for name in [
        "user.containers.override_stat",
        "security.fuseoverlayfs.override_stat",
        "user.fuseoverlayfs.override_stat",
        "user.fuseoverlayfs.opaque",
        "user.fuseoverlayfs.whiteout",
        "user.layerstore.acl_access",
    ] {
        let above = Member::directory("d").xattr(name, b"0:0:4777");
        place.all([layered(name, [below(), vec![above]], Harmless)
            .shows("d", Seen::Mode(0o755))
            .shows("d", none(name))
            .shows("d/old", Seen::File(b"old"))]);
    }
}

#[test]
fn attributes_on_what_can_have_none() {
    let place = Place::new();
    let link = || Member::symlink("link", "x");
    let root = machine::is_real_root();
    place.all([
        // The kernel lets nobody do that.
        not_taken("on a link", link(), "\"user.a\"", b"1").shows("link", none("user.a")),
        not_taken("on a fifo", Member::fifo("fifo"), "\"user.a\"", b"1").shows("fifo", none("user.a")),
        // In a namespace, where the attribute is left out, so is the device.
        not_taken("on a device", Member::char_device("null", 1, 3), "\"user.a\"", b"1")
            .shows("null", Seen::Absent),
        case("trusted, on a link", [link().xattr("trusted.a", b"1")], Harmless)
            .shows("link", back("trusted.a", root, b"1")),
        case("trusted, on a fifo", [Member::fifo("fifo").xattr("trusted.a", b"1")], Harmless)
            .shows("fifo", Seen::Fifo)
            .shows("fifo", back("trusted.a", root, b"1")),
        // A hard link says nothing of its own of the file.
        case("on a hard link", [file(), Member::hard_link("h", "file").xattr("user.a", b"1")], Harmless)
            .shows("file", none("user.a")),
    ]);
}

#[test]
fn odd_attributes_are_kept_or_refused() {
    let place = Place::new();
    place.all([
        case("empty value", [file().xattr("user.empty", b"")], Harmless)
            .shows("file", Seen::Xattr("user.empty".to_owned(), b"")),
        case("any bytes", [file().xattr("user.a", b"\0=\n\xff")], Harmless)
            .shows("file", Seen::Xattr("user.a".to_owned(), b"\0=\n\xff")),
        case("libarchive", [file().pax("LIBARCHIVE.xattr.user.%61", b"YQ==")], Harmless)
            .shows("file", Seen::Xattr("user.a".to_owned(), b"a")),
        case(
            "libarchive and the other form",
            [file().pax("LIBARCHIVE.xattr.user.a", b"YQ==").xattr("user.a", b"b")],
            Refused("PaxHeaders"),
        ),
        case(
            "libarchive, not in base 64",
            [file().pax("LIBARCHIVE.xattr.user.a", b"Y!==")],
            Refused("PaxHeaders"),
        ),
        case(
            "libarchive, NUL in the name",
            [file().pax("LIBARCHIVE.xattr.user.%00", b"YQ==")],
            Refused("name of an xattr"),
        ),
        case("twice", [file().xattr("user.a", b"1").xattr("user.a", b"2")], Refused("PaxHeaders")),
        case(
            "64 KiB and one",
            [file().xattr("user.big", vec![b'x'; (64 << 10) + 1])],
            Refused("value of an xattr"),
        ),
        case("no name", [file().xattr("", b"x")], Refused("name of an xattr")),
        case("NUL in the name", [file().xattr("user.a\0b", b"x")], Refused("name of an xattr")),
        case(
            "a long name",
            [file().xattr(&format!("user.{}", "n".repeat(300)), b"x")],
            Refused("name of an xattr"),
        ),
        not_taken("no class", file(), "\"nothing\"", b"x").shows("file", none("nothing")),
        not_taken("no access list", file(), "\"system.posix_acl_access\"", b"\x02\0\0\0garbage")
            .shows("file", none("system.posix_acl_access")),
        // For every file of a layer at once.
        case(
            "in a global header",
            [Member::extension(b'g', &[("SCHILY.xattr.user.a", "1")]), file()],
            Refused("PaxHeaders"),
        ),
    ]);
    // A file can have it, but not with what keeps overlayfs from believing it.
    let long = format!("user.overlay.{}", "n".repeat(242));
    place.all([case(
        "no room for an escape",
        [file().xattr(&long, b"x")],
        Either("cannot set the extended attribute \"user.overlay.n"),
    )
    .shows("file", Seen::Xattr(long.clone(), b"x"))]);
    let mut many = file();
    for number in 0..10_000 {
        many = many.xattr(&format!("user.attribute-{number}"), b"value");
    }
    // Some filesystems hold them, and then nobody can list them.
    place.attack_twice("ten thousand", &[many], Refused("the names of its extended attributes"));
}

#[test]
fn owners_out_of_range_are_refused() {
    let place = Place::new();
    for (field, key) in [(Field::Uid, "uid"), (Field::Gid, "gid")] {
        let number = |value: i128| [file().base256(field, value)];
        place.all([
            case(format!("{key} 2^32 - 1"), number(u32::MAX.into()), Refused("\"file\"")),
            case(format!("{key} 2^32"), number(1 << 32), Refused("\"file\"")),
            case(format!("{key} 2^32 + 1"), number((1 << 32) + 1), Refused("\"file\"")),
            case(format!("{key} -1"), number(-1), Refused("\"file\"")),
            case(format!("{key} -2^32"), number(-(1 << 32)), Refused("\"file\"")),
            case(format!("{key} -2^62"), number(-(1 << 62)), Refused("\"file\"")),
            case(format!("{key} no digits"), [file().field(field, b"-1")], Refused("\"file\"")),
        ]);
        for text in ["-1", "4294967295", "4294967296", "18446744073709551616", "0x10", "1 ", "+1", "1e3"] {
            place.attack_twice(&format!("PAX {key} {text:?}"), &[file().pax(key, text)], Refused("\"file\""));
        }
        // Takes back what a global header said.
        place.attack_twice(&format!("PAX {key} of nothing"), &[file().pax(key, "")], Harmless);
    }
    let large = [file().owner(1 << 31, u64::from(u32::MAX) - 1)];
    place.all([owned("the largest that there are", large, [1 << 31, u32::MAX - 1])
        .shows("file", Seen::Owner(1 << 31, u32::MAX - 1))]);
}

#[test]
fn times_before_1970_and_after_everything() {
    let place = Place::new();
    let header = |value: i128| [file().base256(Field::Mtime, value)];
    place.all([
        case("half a second before 1970", [file().mtime(-1, 500_000_000)], Harmless)
            .shows("file", Seen::Mtime(-1, 500_000_000)),
        case("before 1970, in base 256", header(-1_000_000), Harmless)
            .shows("file", Seen::Mtime(-1_000_000, 0)),
        case("nanoseconds", [file().mtime(1, 999_999_999)], Harmless)
            .shows("file", Seen::Mtime(1, 999_999_999)),
        case("finer than nanoseconds", [file().pax("mtime", "0.0000000001")], Harmless)
            .shows("file", Seen::Mtime(0, 0)),
        case(
            "of a directory",
            [Member::directory("d").mtime(-1, 500_000_000), Member::file("d/f", b"f")],
            Harmless,
        )
        .shows("d", Seen::Mtime(-1, 500_000_000)),
        case("of a link", [Member::symlink("l", "x").mtime(-7, 1)], Harmless).shows("l", Seen::Mtime(-7, 1)),
        case("2^63, in base 256", header(1 << 63), Refused("\"file\"")),
        case("-2^63 - 1, in base 256", header(-(1 << 63) - 1), Refused("\"file\"")),
    ]);
    for text in [
        "9223372036854775808",
        "99999999999999999999999",
        "-9223372036854775809",
        "nan",
        "1.2.3",
        ".",
        "+1",
        "1e9",
    ] {
        place.attack_twice(text, &[file().pax("mtime", text)], Refused("\"file\""));
    }
    // What a filesystem makes of them is its own affair.
    for text in
        ["9223372036854775807", "-9223372036854775808", "-9223372036854775807.999999999", "1000000000000"]
    {
        place.attack_twice(text, &[file().pax("mtime", text)], Harmless);
    }
}

#[test]
fn modes_of_every_bit() {
    let place = Place::new();
    let all =
        [file().mode(0o7777), Member::directory("dir").mode(0), Member::directory("sticky").mode(0o7777)];
    let more = [file().field(Field::Mode, b"7777777\0")];
    place.all([
        case("every mode bit", all, Harmless)
            .shows("file", Seen::Mode(0o7777))
            .shows("dir", Seen::Mode(0))
            .shows("sticky", Seen::Mode(0o7777)),
        case("more bits than a mode has", more, Harmless).shows("file", Seen::Mode(0o7777)),
        case("a negative mode", [file().base256(Field::Mode, -1)], Harmless)
            .shows("file", Seen::Mode(0o7777)),
        // A change of owner clears set-id bits, so it comes before them.
        owned("set-id of another owner", [file().mode(0o6755).owner(1, 1)], [1, 1])
            .shows("file", Seen::Mode(0o6755))
            .shows("file", Seen::Owner(1, 1)),
    ]);
}

/// A layer's set-id file is as dangerous as the way to it is open: nobody but the store's owner has one.
#[test]
fn setuid_files_keep_their_bits_in_a_closed_store() {
    let place = Place::new();
    for bits in [0o4755, 0o2755, 0o6777] {
        place.all([case(format!("{bits:o}"), [file().mode(bits)], Harmless).shows("file", Seen::Mode(bits))]);
    }
    for mode in Mode::all() {
        let root = std::fs::metadata(mode.root(place.dir.path())).unwrap();
        assert_eq!(root.permissions().mode() & 0o7777, 0o700, "{mode:?}");
    }
}

#[test]
fn setuid_files_are_reached_by_no_other_user() {
    use std::os::unix::process::CommandExt;
    const OTHER: u32 = 65534;
    if !machine::is_root() || !machine::is_mapped(OTHER) {
        skip!("only root can be another user, in a namespace one that it maps");
    }
    let place = Place::new();
    std::fs::set_permissions(place.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    Image::new([Layer::new([Member::file("su", b"#!").mode(0o4755)])]).write(place.layout(), TAG);
    for mode in Mode::all() {
        let store = mode.open_in(place.dir.path());
        let image = loader::load_image(&store, place.dir.path()).unwrap();
        let layer = image.top_layer.as_ref().unwrap();
        let mut options = layerstore::MountOptions::default();
        options.read_only = true;
        let mount = store.mount(layer, &options).unwrap();
        let su = mount.path().join("su");
        assert_eq!(std::fs::metadata(&su).unwrap().permissions().mode() & 0o7777, 0o4755);
        let other = |uid| Command::new("cat").arg(&su).uid(uid).gid(uid).output().unwrap();
        assert!(other(0).status.success());
        let output = other(OTHER);
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
        store.unmount(layer, layerstore::UnmountMode::Plain).unwrap();
    }
}

#[test]
fn devices_stay_inside() {
    let place = Place::new();
    let device = |change: fn(Member) -> Member| [change(Member::char_device("odd", 1, 3))];
    place.all([
        case("null", [Member::char_device("null", 1, 3)], Harmless)
            .shows("null", made(Seen::CharDevice(1, 3))),
        case("disk", [Member::block_device("disk", 8, 0)], Harmless)
            .shows("disk", made(Seen::BlockDevice(8, 0))),
        case("the largest", [Member::block_device("large", 4095, (1 << 20) - 1)], Harmless)
            .shows("large", made(Seen::BlockDevice(4095, (1 << 20) - 1))),
        case("far", [Member::char_device("far", 0o7_777_777, 0o7_777_777)], Refused("\"far\"")),
        case("major 2^32", device(|member| member.base256(Field::Major, 1 << 32)), Refused("\"odd\"")),
        case("minor 2^32", device(|member| member.base256(Field::Minor, 1 << 32)), Refused("\"odd\"")),
        case(
            "major 2^32 - 1",
            device(|member| member.base256(Field::Major, u32::MAX.into())),
            Refused("\"odd\""),
        ),
        case("major -1", device(|member| member.base256(Field::Major, -1)), Refused("\"odd\"")),
        case("minor -1", device(|member| member.base256(Field::Minor, -1)), Refused("\"odd\"")),
        case("with content", [Member::fifo("pipe").declared_size(512)], Refused("\"pipe\"")),
        // A header of the seventh edition has no place for the numbers: they are 0:0 then.
        case("without numbers", device(|member| member.format(Format::Old)), Refused("\"odd\"")),
        case(
            "a right number, a wrong checksum",
            device(|member| member.checksum(Checksum::Wrong)),
            Refused("not a tar archive"),
        ),
    ]);
}
