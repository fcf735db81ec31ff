//! Extended attributes, owners, times and devices.

use super::*;
use crate::support::machine;

/// A store of the machine's root takes what only root may write; another one leaves it out or refuses.
fn if_root(expected: Expected) -> Expected {
    if machine::is_real_root() { expected } else { Either }
}

#[test]
fn attributes_of_overlay_mean_nothing() {
    let place = Place::new();
    for class in ["trusted", "user"] {
        for name in ["opaque", "redirect", "metacopy", "origin", "whiteout", "verity", "upper", "overlay.x"] {
            let name = format!("{class}.overlay.{name}");
            let members = [
                Member::directory("d").xattr(&name, b"y"),
                Member::file("d/f", b"f").xattr(&name, b"/../../../victim"),
            ];
            place.attack_twice(&name, &members, if_root(Harmless));
        }
    }
}

#[test]
fn odd_attributes_are_kept_or_refused() {
    let place = Place::new();
    let file = || Member::file("file", b"f");
    let kept = [
        ("empty value", file().xattr("user.empty", b"")),
        (
            "capability",
            file().xattr("security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        ),
        ("libarchive", file().pax("LIBARCHIVE.xattr.user.a", b"YQ==")),
        ("selinux", file().xattr("security.selinux", b"system_u:object_r:etc_t:s0\0")),
        ("ima", file().xattr("security.ima", b"\x04\x04")),
        ("evm", file().xattr("security.evm", b"\x05")),
        ("acl", file().xattr("system.posix_acl_access", b"\x02\0\0\0garbage")),
        ("link", Member::symlink("file", "x").xattr("user.a", b"1")),
        ("fifo", Member::fifo("file").xattr("user.a", b"1")),
    ];
    for (name, member) in kept {
        // The filesystem and the privileges decide about most of them.
        place.attack_twice(name, &[member], Either);
    }
    place.attack_twice(
        "64 KiB and one",
        &[file().xattr("user.big", vec![b'x'; (64 << 10) + 1])],
        Refused("xattr"),
    );
    place.attack_twice("no name", &[file().xattr("", b"x")], Refused("xattr"));
    place.attack_twice("NUL in the name", &[file().xattr("user.a\0b", b"x")], Refused("xattr"));
    place.attack_twice(
        "a long name",
        &[file().xattr(&format!("user.{}", "n".repeat(300)), b"x")],
        Refused("xattr"),
    );
    place.attack_twice("no class", &[file().xattr("nothing", b"x")], Either);
    let mut many = file();
    for number in 0..10_000 {
        many = many.xattr(&format!("user.attribute-{number}"), b"value");
    }
    place.attack_twice("ten thousand", &[many], Either);
}

#[test]
fn owners_out_of_range_are_refused() {
    let place = Place::new();
    let file = || Member::file("file", b"f");
    for id in [1u64 << 32, u64::MAX >> 8] {
        place.attack_twice(&format!("uid {id}"), &[file().owner(id, 0)], Refused("file"));
        place.attack_twice(&format!("gid {id}"), &[file().owner(0, id)], Refused("file"));
    }
    place.attack_twice("uid -1", &[file().owner(u64::from(u32::MAX), 0)], Refused("file"));
    place.attack_twice("uid 2^31", &[file().owner(1 << 31, 1 << 31)], if_root(Harmless));
    place.attack_twice(
        "negative",
        &[file().header(|header| header.as_old_mut().uid = [0xff; 8])],
        Refused("file"),
    );
    for text in ["-1", "4294967296", "18446744073709551616", "0x10", "", "1 ", "1e3"] {
        let member = file().pax("uid", text);
        place.attack_twice(
            &format!("PAX uid {text:?}"),
            &[member],
            if text.is_empty() { Either } else { Refused("file") },
        );
    }
}

#[test]
fn odd_times_and_modes() {
    let place = Place::new();
    place.attack_twice("before 1970", &[Member::file("file", b"f").mtime(-1, 500_000_000)], Harmless);
    for text in
        ["9223372036854775808", "99999999999999999999999", "-9223372036854775809", "nan", "1.2.3", "."]
    {
        place.attack_twice(text, &[Member::file("file", b"f").pax("mtime", text)], Refused("file"));
    }
    for text in ["9223372036854775807", "-9223372036854775808.999999999", "0.0000000001"] {
        place.attack_twice(text, &[Member::file("file", b"f").pax("mtime", text)], Either);
    }
    let all = [Member::file("file", b"f").mode(0o7777), Member::directory("dir").mode(0)];
    place.attack_twice("every mode bit", &all, Harmless);
    let more = [Member::file("file", b"f").header(|header| header.as_old_mut().mode = *b"7777777\0")];
    place.attack_twice("more mode bits", &more, Either);
}

#[test]
fn devices_stay_inside() {
    let place = Place::new();
    place.attack_twice("null", &[Member::char_device("null", 1, 3)], if_root(Harmless));
    place.attack_twice("disk", &[Member::block_device("disk", 8, 0)], if_root(Harmless));
    place.attack_twice("far", &[Member::char_device("far", 0o7_777_777, 0o7_777_777)], Refused("far"));
    let negative = Member::char_device("odd", 1, 1)
        .header(|header| header.as_ustar_mut().unwrap().dev_major = [0xff; 8]);
    place.attack_twice("negative", &[negative], Refused("odd"));
    place.attack_twice("with content", &[Member::fifo("pipe").declared_size(512)], Refused("pipe"));
}
