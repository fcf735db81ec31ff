//! What hostile layers try, and what ordinary ones expect.

mod growth;

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use layerstore_schema::manifest::{Kind, Manifest};

use super::*;
use crate::disk::fixture::Member::{D, F, H, L, Opaque, Whiteout};
use crate::disk::fixture::{
    Place, entry, hash, is_machine_root, metadata, namespace, path, raw_xattrs, shape, with_xattrs,
    write_file,
};
use crate::error::{Limit, LimitError};
use crate::sys::call::Call;
use crate::sys::call::fault::{Fault, Strike, counted, during_here};
use crate::sys::privileges::Privileges;
use crate::types::{Limits, Metadata};

#[test]
fn every_kind_comes_back_from_the_directory() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let noted = with_xattrs(0o1777, &[("user.a", b"1"), ("user.b", b"")]);
    tree.directory(&RelPath::root(), &metadata(0o750)).unwrap();
    tree.directory(&path("dir"), &noted).unwrap();
    write_file(&mut tree, "dir/setuid", b"#!", &metadata(0o6755)).unwrap();
    write_file(&mut tree, "dir/noted", b"x", &with_xattrs(0o444, &[("user.c", b"\0\xff")])).unwrap();
    tree.hard_link(&path("dir/z"), &path("dir/setuid")).unwrap();
    tree.symlink(&path("link"), b"../../x", &metadata(0o777)).unwrap();
    tree.fifo(&path("pipe"), &metadata(0o622)).unwrap();
    tree.whiteout(&path("gone")).unwrap();
    tree.directory(&path("solid"), &metadata(0o755)).unwrap();
    tree.opaque(&path("solid")).unwrap();
    let mut sparse = tree.file(&path("sparse"), &metadata(0o600), 3 << 20).unwrap();
    sparse.skip(1 << 20).unwrap();
    sparse.write_all(b"middle").unwrap();
    sparse.skip((2 << 20) - 6).unwrap();
    let sparse = sparse.finish().unwrap();
    let unpacked = tree.finish().unwrap();
    assert_eq!((unpacked.implicit, unpacked.aside, unpacked.left_out), (vec![], vec![], vec![]));

    let mut bytes = vec![0; 3 << 20];
    bytes[1 << 20..(1 << 20) + 6].copy_from_slice(b"middle");
    assert_eq!(sparse.content, hash(&bytes));
    assert!(place.path("diff/sparse").metadata().unwrap().blocks() * 512 < 1 << 20);
    let file = |content: &[u8]| Kind::File { size: content.len() as u64, content: hash(content) };
    let expected = Manifest::new(vec![
        entry("", Kind::Directory { opaque: false }, metadata(0o750)),
        entry("dir", Kind::Directory { opaque: false }, noted),
        entry("dir/noted", file(b"x"), with_xattrs(0o444, &[("user.c", b"\0\xff")])),
        entry("dir/setuid", file(b"#!"), metadata(0o6755)),
        entry("dir/z", Kind::HardLink { target: b"dir/setuid".to_vec() }, Metadata::default()),
        entry("gone", Kind::Whiteout, Metadata::default()),
        entry("link", Kind::Symlink { target: b"../../x".to_vec() }, metadata(0o777)),
        entry("pipe", Kind::Fifo, metadata(0o622)),
        entry("solid", Kind::Directory { opaque: true }, metadata(0o755)),
        entry("sparse", file(&bytes), metadata(0o600)),
    ])
    .unwrap();
    assert_eq!(place.manifest("diff"), expected);
}

#[test]
fn devices_and_owners_come_back() {
    if !is_machine_root() {
        eprintln!("skipped: needs root of the machine for devices and for owners");
        return;
    }
    let place = Place::new();
    let mut tree = place.strict_writer();
    let owned = Metadata { uid: 1 << 31, gid: 12, ..metadata(0o4640) };
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let capable = Metadata { uid: 5, ..with_xattrs(0o755, &[("security.capability", capability)]) };
    tree.device(&path("null"), DeviceKind::Char, (1, 3), &owned).unwrap();
    tree.device(&path("disk"), DeviceKind::Block, (0xfff, 0xf_ffff), &owned).unwrap();
    let link = Metadata { mode: 0o777, xattrs: vec![(b"trusted.note".to_vec(), vec![1])], ..owned.clone() };
    tree.symlink(&path("link"), b"x", &link).unwrap();
    write_file(&mut tree, "ping", b"x", &capable).unwrap();
    tree.directory(&path("dir"), &owned).unwrap();
    write_file(&mut tree, "dir/file", b"", &owned).unwrap();
    tree.finish().unwrap();
    let manifest = place.manifest("diff");
    let at = |name: &str| manifest.get(name.as_bytes()).unwrap().clone();
    assert_eq!(at("null"), entry("null", Kind::CharDevice { major: 1, minor: 3 }, owned.clone()));
    assert_eq!(at("disk"), entry("disk", Kind::BlockDevice { major: 0xfff, minor: 0xf_ffff }, owned.clone()));
    assert_eq!(at("link").metadata, link);
    assert_eq!(at("ping").metadata, capable);
    assert_eq!((at("dir").metadata, at("dir/file").metadata), (owned.clone(), owned));
}

#[test]
fn nothing_goes_through_a_link_or_a_file() {
    for members in [
        &[L("d", "../victim"), F("d/file")][..],
        &[L("localetc", "VICTIM"), F("localetc/passwd")],
        &[L("a", "b/.."), L("b", ".."), F("a/b/x")],
        &[L("a", "b/.."), L("b", ".."), D("a/victim")],
        &[D("dir"), L("dir/up", "../../victim"), L("dir/up/x", "y")],
        &[F("hello"), L("x", "../victim"), H("x/h", "hello")],
        &[L("x", "../victim"), Whiteout("x/hello")],
        &[L("x", "../victim"), Opaque("x")],
        &[L("x", "../victim"), Opaque("x/sub")],
        &[F("a"), F("a/b")],
        &[F("a"), Opaque("a")],
    ] {
        let (_place, result) = Place::unpack(members);
        assert!(matches!(result, Err(UnpackError::ParentNotDirectory { .. })), "{members:?}: {result:?}");
    }
}

#[test]
fn a_directory_replaces_a_link_and_not_what_it_points_at() {
    let (place, result) = Place::unpack(&[L("foo", "VICTIM"), D("foo"), F("foo/hello")]);
    result.unwrap();
    assert_eq!(shape(&place.manifest("diff")), ["d foo", "f foo/hello"]);
    let foo = || [D("foo"), D("foo/tmp"), F("foo/tmp/x")];
    let members = [&foo()[..], &[L("foo", "/")]].concat();
    let (_, result) = Place::unpack(&[&members[..], &[F("foo/tmp/x")]].concat());
    assert!(matches!(result, Err(UnpackError::ParentNotDirectory { .. })));
    let (place, result) = Place::unpack(&[&members[..], &foo()].concat());
    assert_eq!(result.unwrap().aside.len(), 1);
    assert_eq!(shape(&place.manifest("diff")), ["d foo", "d foo/tmp", "f foo/tmp/x"]);
}

#[test]
fn the_root_is_a_directory() {
    for root in ["", ".", "./", "/."] {
        for member in [L(root, "VICTIM"), F(root), H(root, "x"), Whiteout(root)] {
            let (_place, result) = Place::unpack(&[F("x"), member]);
            assert!(matches!(result, Err(UnpackError::RootNotDirectory { .. })), "{member:?}");
        }
    }
}

#[test]
fn hard_links_need_a_file_of_this_layer() {
    let missing = [
        &[H("h", "hello"), F("hello")][..],
        &[H("h", "VICTIM/hello")],
        &[L("l", "../victim"), H("h", "l/hello")],
        &[Whiteout("w"), H("h", "w")],
    ];
    for members in missing {
        let (_place, result) = Place::unpack(members);
        assert!(matches!(result, Err(UnpackError::LinkTargetMissing { .. })), "{members:?}: {result:?}");
    }
    let (_place, result) = Place::unpack(&[D("d"), H("h", "d")]);
    assert!(matches!(result, Err(UnpackError::LinkToDirectory { .. })));
    let (_place, result) = Place::unpack(&[F("h"), H("h", "h")]);
    assert!(matches!(result, Err(UnpackError::LinkToItself { .. })));
    // A second name for the link itself: nothing of the victim is reached.
    let (place, result) = Place::unpack(&[L("l", "VICTIM/secret"), H("h", "l")]);
    result.unwrap();
    assert_eq!(shape(&place.manifest("diff")), ["l h", "h l"]);
}

#[test]
fn paths_may_be_longer_than_the_kernel_resolves() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let deep = vec!["d".repeat(255); 20].join("/");
    write_file(&mut tree, &format!("{deep}/file"), b"x", &metadata(0o644)).unwrap();
    tree.symlink(&path(&format!("{deep}/up")), b"../../victim", &metadata(0o777)).unwrap();
    let through = tree.file(&path(&format!("{deep}/up/x")), &metadata(0o644), 0);
    assert!(matches!(through, Err(UnpackError::ParentNotDirectory { .. })));
    tree.hard_link(&path("short"), &path(&format!("{deep}/file"))).unwrap();
    assert_eq!(tree.finish().unwrap().implicit.len(), 21);
    let manifest = place.manifest("diff");
    assert!(manifest.get(format!("{deep}/file").as_bytes()).is_some());
    place.assert_victim_unchanged();
}

/// Each member is a few blocks of the archive, and would be many directories with long paths.
#[test]
fn paths_imply_no_directories_without_end() {
    let place = Place::new();
    let limits = Limits { implied_path_bytes: 330_000, ..Limits::DEFAULT };
    let mut tree = place.writer(UnpackOptions { limits, ..UnpackOptions::strict(namespace()) });
    let mut write = |number| {
        let deep = format!("{number}/{}file", "d/".repeat(99));
        write_file(&mut tree, &deep, b"x", &metadata(0o644))
    };
    // The paths of a hundred directories: 1 part of 32 bytes, 2 parts, to 100.
    write(1).unwrap();
    write(2).unwrap();
    let error = write(3).unwrap_err();
    assert!(matches!(&error, UnpackError::Limit(met) if met.limit == Limit::ImpliedPathBytes), "{error}");
}

/// Nobody fills a disk with them, wherever the pieces end in which they come.
#[test]
fn zeros_take_no_space() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let mut bytes = vec![0; 8 << 20];
    bytes[(3 << 20) + 5..(3 << 20) + 9].copy_from_slice(b"data");
    bytes[(5 << 20) - 1] = 1;
    for (name, piece) in [("large", bytes.len()), ("even", 128 << 10), ("odd", 100_001), ("short", 3 << 10)] {
        let mut file = tree.file(&path(name), &metadata(0o644), bytes.len() as u64).unwrap();
        bytes.chunks(piece).for_each(|piece| file.write_all(piece).unwrap());
        assert_eq!(file.finish().unwrap().content, hash(&bytes));
    }
    let mut file = tree.file(&path("nothing"), &metadata(0o644), 200 << 10).unwrap();
    file.write_all(&bytes[..200 << 10]).unwrap();
    file.finish().unwrap();
    tree.finish().unwrap();
    for (name, most) in [("large", 16 << 10), ("even", 16 << 10), ("odd", 128 << 10), ("nothing", 0)] {
        let found = place.path(&format!("diff/{name}"));
        let taken = found.metadata().unwrap().blocks() * 512;
        assert!(taken <= most, "{name}: {taken}");
        assert!(name == "nothing" || std::fs::read(&found).unwrap() == bytes, "{name}");
    }
    assert_eq!(std::fs::read(place.path("diff/short")).unwrap(), bytes);
    assert_eq!(place.path("diff/nothing").metadata().unwrap().len(), 200 << 10);
}

/// What the store has is not measured again.
#[test]
fn holes_of_a_file_that_is_copied_do_not_count() {
    let place = Place::new();
    let limits = Limits { hole_bytes: 0, ..Limits::DEFAULT };
    let mut tree = place.writer(UnpackOptions { limits, ..UnpackOptions::strict(namespace()) });
    let from = place.path("from");
    let file = std::fs::File::create(&from).unwrap();
    file.set_len(1 << 20).unwrap();
    let writer = tree.file(&path("copy"), &metadata(0o644), 1 << 20).unwrap();
    let from = crate::sys::file::File::open(&from).unwrap();
    assert_eq!(writer.copy(&from).unwrap().unwrap().content, hash(&vec![0; 1 << 20]));
}

#[test]
fn names_are_bytes() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let names: [&[u8]; 6] =
        [b"new\nline", b"\xff", b"Case", b"case", "\u{e9}".as_bytes(), "e\u{301}".as_bytes()];
    for name in names {
        let mut file = tree.file(&RelPath::from_archive(name).unwrap(), &metadata(0o644), 1).unwrap();
        file.write_all(b"x").unwrap();
        file.finish().unwrap();
    }
    tree.finish().unwrap();
    assert_eq!(place.manifest("diff").entries().len(), 1 + names.len());
}

#[test]
fn whiteouts_hide_lower_layers_only() {
    for (members, expected) in [
        (&[Whiteout("a"), F("a")][..], &["f a"][..]),
        (&[F("a"), Whiteout("a")], &["f a"]),
        (&[Whiteout("a"), D("a"), F("a/b")], &["o a", "f a/b"]),
        (&[D("a"), F("a/b"), Whiteout("a")], &["o a", "f a/b"]),
        (&[Whiteout("a"), F("a/b")], &["o a", "f a/b"]),
        (&[Whiteout("a"), F("a"), D("a")], &["o a"]),
        (&[F("a"), Whiteout("a"), D("a")], &["o a"]),
        (&[D("a"), Opaque("a"), F("a"), D("a")], &["o a"]),
        (&[F("a"), D("a")], &["d a"]),
        (&[Opaque("a"), F("a/b"), Whiteout("a/c")], &["o a", "f a/b"]),
        (&[F("a/b"), Whiteout("a/c"), Opaque("a")], &["o a", "f a/b"]),
        (&[Whiteout("a"), Whiteout("a"), Whiteout("b/c")], &["w a", "d b", "w b/c"]),
        (&[Opaque("a/b"), D("a/b")], &["d a", "o a/b"]),
    ] {
        let (place, result) = Place::unpack(members);
        result.unwrap();
        assert_eq!(shape(&place.manifest("diff")), expected, "{members:?}");
        // Where devices are refused: the same changes, so the same digest.
        let other = Place::new();
        let mut tree = other.strict_writer();
        tree.refuse_devices();
        members.iter().for_each(|member| member.write(&mut tree, &other.path("victim")).unwrap());
        tree.finish().unwrap();
        assert_eq!(other.manifest("diff").digest(), place.manifest("diff").digest(), "{members:?}");
    }
}

#[test]
fn xattr_whiteouts_are_marked_for_the_kernel() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    tree.refuse_devices();
    tree.whiteout(&path("a/b/gone")).unwrap();
    tree.finish().unwrap();
    let attribute = String::from_utf8(namespace().opaque().to_vec()).unwrap();
    assert_eq!(raw_xattrs(&place.path("diff/a/b")).get(&attribute).unwrap(), b"x");
    assert_eq!(raw_xattrs(&place.path("diff")).get(&attribute).unwrap(), b"x");
    assert_eq!(place.path("diff/a/b/gone").metadata().unwrap().len(), 0);
}

#[test]
fn an_opaque_directory_holds_no_whiteouts() {
    let (place, result) = Place::unpack(&[Whiteout("a/gone"), F("a/kept"), Opaque("a"), Whiteout("a/more")]);
    result.unwrap();
    assert_eq!(std::fs::read_dir(place.path("diff/a")).unwrap().count(), 1);
}

/// As it takes its opaque marks along.
#[test]
fn a_replaced_directory_takes_its_whiteouts_along() {
    for marked in [&[Whiteout("d/x")][..], &[F("d/x"), Whiteout("d/x")], &[D("d/x"), Whiteout("d/x")]] {
        let members = [&[D("d")], marked, &[F("d"), D("d"), D("d/x")]].concat();
        let (place, result) = Place::unpack(&members);
        result.unwrap();
        assert_eq!(shape(&place.manifest("diff")), ["d d", "d d/x"], "{members:?}");
    }
}

#[test]
fn equal_opaque_markers_cost_nothing() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    tree.opaque(&path("d")).unwrap();
    let attribute = String::from_utf8(namespace().opaque().to_vec()).unwrap();
    assert!(raw_xattrs(&place.path("diff/d")).contains_key(&attribute));
    rustix::fs::removexattr(place.path("diff/d"), attribute.as_str()).unwrap();
    for _ in 0..1000 {
        tree.opaque(&path("d")).unwrap();
    }
    assert!(!raw_xattrs(&place.path("diff/d")).contains_key(&attribute), "it is set again");
}

#[test]
fn overlay_xattrs_of_a_layer_mean_nothing_here() {
    let prefix = if namespace() == XattrNamespace::Trusted { "trusted" } else { "user" };
    let place = Place::new();
    let mut tree = place.strict_writer();
    let names = ["metacopy", "opaque", "origin", "overlay.opaque", "redirect", "whiteout"];
    let names = names.map(|name| format!("{prefix}.overlay.{name}"));
    let xattrs: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"y"[..])).collect();
    let given = with_xattrs(0o755, &xattrs);
    tree.directory(&path("dir"), &given).unwrap();
    write_file(&mut tree, "file", b"", &given).unwrap();
    tree.finish().unwrap();
    for name in raw_xattrs(&place.path("diff/dir")).keys() {
        assert!(name.starts_with(&format!("{prefix}.overlay.overlay.")), "{name}");
    }
    let manifest = place.manifest("diff");
    assert_eq!(
        manifest.get(b"dir").unwrap(),
        &entry("dir", Kind::Directory { opaque: false }, given.clone())
    );
    assert_eq!(manifest.get(b"file").unwrap().metadata, given);
}

#[test]
fn xattrs_that_cannot_be_are_named() {
    for (name, value) in [
        ("user.large", vec![0; 64 * 1024 + 1]),
        ("", vec![]),
        ("user.", vec![]),
        ("user.nul\0", vec![]),
        ("nonsense", vec![]),
        (&format!("user.{}", "n".repeat(300)), vec![]),
    ] {
        let place = Place::new();
        let mut tree = place.strict_writer();
        let result = write_file(&mut tree, "file", b"", &with_xattrs(0o644, &[(name, &value)]));
        assert!(matches!(result, Err(UnpackError::XattrRefused { .. })), "{name:?}");
    }
}

/// The kernel takes them one by one, and lists none if there are too many.
#[test]
fn no_more_xattrs_are_set_than_are_listed_again() {
    let named = |count: usize| -> Metadata {
        let xattrs = (0..count).map(|number| (format!("user.{number:0>250}").into_bytes(), Vec::new()));
        Metadata { xattrs: xattrs.collect(), ..metadata(0o755) }
    };
    // With the byte that ends it, each name has 256.
    let most = (64 - 1) * 4;
    for (count, passes) in [(most, true), (most + 1, false)] {
        let place = Place::new();
        let mut tree = place.strict_writer();
        let refused = [
            write_file(&mut tree, "file", b"", &named(count)).map(drop),
            tree.directory(&path("dir"), &named(count)),
        ];
        for result in refused {
            match result {
                // A filesystem may have room for less.
                Ok(()) | Err(UnpackError::XattrRefused { .. }) => assert!(passes, "{count}"),
                Err(UnpackError::XattrNames { found, most, .. }) => {
                    assert!(!passes && most < found && found == 256 * count as u64, "{count}");
                }
                Err(error) => panic!("{count}: {error}"),
            }
        }
        if passes && raw_xattrs(&place.path("diff/file")).len() >= count {
            assert_eq!(place.manifest("diff").get(b"file").unwrap().metadata, named(count));
        }
    }
}

#[test]
fn a_second_entry_for_a_directory_wins() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    tree.directory(&path("d"), &with_xattrs(0o700, &[("user.a", b"1"), ("user.b", b"1")])).unwrap();
    write_file(&mut tree, "d/file", b"x", &metadata(0o644)).unwrap();
    tree.opaque(&path("d")).unwrap();
    let second = with_xattrs(0o555, &[("user.b", b"2")]);
    tree.directory(&path("d"), &second).unwrap();
    write_file(&mut tree, "d/more", b"x", &metadata(0o644)).unwrap();
    tree.finish().unwrap();
    let manifest = place.manifest("diff");
    assert_eq!(manifest.get(b"d").unwrap(), &entry("d", Kind::Directory { opaque: true }, second));
    assert_eq!(shape(&manifest), ["o d", "f d/file", "f d/more"]);
}

#[test]
fn a_device_that_would_be_a_whiteout_is_refused() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let made = tree.device(&path("a"), DeviceKind::Char, (0, 0), &metadata(0o600));
    assert!(matches!(made, Err(UnpackError::ReservedDevice { .. })));
    for numbers in [(4096, 0), (0, 1 << 20), (u32::MAX, u32::MAX)] {
        let made = tree.device(&path("a"), DeviceKind::Char, numbers, &metadata(0o600));
        assert!(matches!(made, Err(UnpackError::DeviceOutOfRange { .. })));
    }
    tree.finish().unwrap();
    assert_eq!(shape(&place.manifest("diff")), [""; 0]);
}

#[test]
fn files_have_the_size_they_announce() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let mut short = tree.file(&path("short"), &metadata(0o644), 3).unwrap();
    short.write_all(b"xx").unwrap();
    assert!(matches!(short.finish(), Err(UnpackError::SizeMismatch { expected: 3, found: 2, .. })));
    let mut long = tree.file(&path("long"), &metadata(0o644), 1).unwrap();
    assert!(matches!(long.write_all(b"xx"), Err(UnpackError::SizeMismatch { .. })));
    assert!(matches!(long.skip(u64::MAX), Err(UnpackError::SizeMismatch { .. })));
    let mut huge = tree.file(&path("huge"), &metadata(0o644), i64::MAX.unsigned_abs()).unwrap();
    assert!(matches!(
        huge.skip(1 << 62),
        Err(UnpackError::Limit(LimitError { limit: Limit::HoleBytes, .. }))
    ));
    assert!(tree.file(&path("more"), &metadata(0o644), 1 << 63).is_err());
}

#[test]
fn replaced_files_keep_their_bytes_aside() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let first = write_file(&mut tree, "a", b"first", &metadata(0o644)).unwrap();
    let second = write_file(&mut tree, "a", b"second", &metadata(0o644)).unwrap();
    let inner = write_file(&mut tree, "dir/sub/inner", b"inner", &metadata(0o644)).unwrap();
    tree.symlink(&path("dir"), b"a", &metadata(0o777)).unwrap();
    let unpacked = tree.finish().unwrap();
    let inodes: Vec<u64> = unpacked.aside.iter().map(|&(inode, _)| inode).collect();
    assert_eq!(inodes, [first.inode, inner.inode]);
    for ((_, name), content) in unpacked.aside.iter().zip(["first", "inner"]) {
        assert_eq!(std::fs::read_to_string(place.path("aside").join(name)).unwrap(), content);
    }
    assert_eq!(unpacked.implicit, [RelPath::root()]);
    let manifest = place.manifest("diff");
    assert_eq!(shape(&manifest), ["f a", "l dir"]);
    assert!(
        matches!(manifest.get(b"a").unwrap().kind, Kind::File { content, .. } if content == second.content)
    );
}

#[test]
fn a_file_may_be_replaced_while_it_is_written() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let mut slow = tree.file(&path("d/a"), &metadata(0o644), 4).unwrap();
    tree.symlink(&path("d"), b"../victim", &metadata(0o777)).unwrap();
    slow.write_all(b"late").unwrap();
    let slow = slow.finish().unwrap();
    let unpacked = tree.finish().unwrap();
    assert_eq!(unpacked.aside, [(slow.inode, "0".to_owned())]);
    assert_eq!(std::fs::read(place.path("aside/0")).unwrap(), b"late");
    place.assert_victim_unchanged();
}

#[test]
fn implied_directories_get_their_metadata_later() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    write_file(&mut tree, "a/b/file", b"x", &metadata(0o644)).unwrap();
    write_file(&mut tree, "c/file", b"x", &metadata(0o644)).unwrap();
    tree.directory(&path("c"), &metadata(0o700)).unwrap();
    assert_eq!(tree.finish().unwrap().implicit, [path(""), path("a"), path("a/b")]);
    let plain = Metadata { mode: 0o755, ..Metadata::default() };
    assert_eq!(place.manifest("diff").get(b"a").unwrap().metadata, plain);
    let options = UnpackOptions::strict(namespace());
    let given = with_xattrs(0o1750, &[("user.a", b"1")]);
    apply_metadata(place.open("diff").as_fd(), &path("a/b"), &given, &options).unwrap();
    assert_eq!(place.manifest("diff").get(b"a/b").unwrap().metadata, given);
}

#[test]
fn directories_that_keep_everyone_out_can_be_filled() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    tree.directory(&path("d"), &metadata(0)).unwrap();
    for number in 0..200 {
        write_file(&mut tree, &format!("d/{number}/file"), b"x", &metadata(0)).unwrap();
    }
    tree.finish().unwrap();
    assert_eq!(place.path("diff/d").metadata().unwrap().mode() & 0o7777, 0);
    std::fs::set_permissions(place.path("diff/d"), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(place.path("diff/d").metadata().unwrap().mtime(), 1_700_000_000);
}

#[test]
fn owner_ids_that_no_file_has_are_refused() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let nobody = Metadata { uid: u32::MAX, ..metadata(0o644) };
    let made = tree.directory(&path("d"), &nobody);
    assert!(matches!(made, Err(UnpackError::OwnerOutOfRange { .. })), "{made:?}");
}

#[test]
fn what_a_user_namespace_refuses_is_left_out_and_listed() {
    let privileges = Privileges::of_this_process().unwrap();
    if !privileges.user_namespace {
        eprintln!("skipped: only a user namespace refuses these");
        return;
    }
    let place = Place::new();
    let options =
        UnpackOptions { unprivileged: true, squash_owners: true, ..UnpackOptions::strict(namespace()) };
    let mut tree = place.writer(options);
    tree.device(&path("null"), DeviceKind::Char, (1, 3), &metadata(0o666)).unwrap();
    let theirs = Metadata { uid: 4_000_000, ..with_xattrs(0o644, &[("trusted.x", b"1"), ("user.y", b"1")]) };
    write_file(&mut tree, "file", b"x", &theirs).unwrap();
    let left_out = tree.finish().unwrap().left_out;
    let what: Vec<_> = left_out.iter().map(|item| (item.path.to_string(), item.what.clone())).collect();
    let xattr = LeftOutWhat::Xattr(b"trusted.x".to_vec());
    assert_eq!(what, [("null".to_owned(), LeftOutWhat::Device), ("file".to_owned(), xattr)]);
    assert_eq!(shape(&place.manifest("diff")), ["f file"]);
    let strict = place.strict_writer().device(&path("null"), DeviceKind::Char, (1, 3), &metadata(0o666));
    assert!(matches!(strict, Err(UnpackError::DeviceRefused { .. })));
}

/// A capability that is not there since the disk was full would be missed by nobody until the program is run.
#[test]
fn an_attribute_that_the_disk_does_not_take_is_an_error_in_a_namespace_too() {
    let write = |tree: &mut TreeWriter| {
        let capable = with_xattrs(0o755, &[("security.capability", b"x")]);
        write_file(tree, "ping", b"", &capable)
    };
    let unprivileged = || UnpackOptions { unprivileged: true, ..UnpackOptions::strict(namespace()) };
    // The kernel does not take this value from anybody.
    let place = Place::new();
    let mut tree = place.writer(unprivileged());
    let (refused, calls) = counted(|| write(&mut tree));
    refused.unwrap();
    assert_eq!(tree.finish().unwrap().left_out.len(), 1);

    let at = calls.iter().position(|call| *call == Call::SetXattr).unwrap();
    for (fault, number) in [(Fault::Full, libc::ENOSPC), (Fault::Broken, libc::EIO)] {
        let place = Place::new();
        let mut tree = place.writer(unprivileged());
        let outcome = during_here(Strike { thread: 0, at, fault }, || write(&mut tree));
        assert_eq!(outcome.struck, Some(Call::SetXattr));
        let Err(UnpackError::XattrRefused { source, .. }) = outcome.value else {
            panic!("{:?}", outcome.value)
        };
        assert_eq!(source.raw_os_error(), Some(number));
    }
}

/// Someone who can write in the staging directory gains nothing by it: whatever a name turns into between
/// two calls, the victim is out of reach.
#[test]
fn a_directory_that_turns_into_a_link_leads_nowhere() {
    let place = Place::new();
    let diff = place.path("diff");
    let stop = AtomicBool::new(false);
    let mut tree = place.strict_writer();
    tree.directory(&path("d"), &metadata(0o755)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                drop(std::fs::rename(diff.join("d"), diff.join("away")));
                drop(symlink("../victim", diff.join("d")));
                drop(std::fs::remove_file(diff.join("d")));
                drop(std::fs::rename(diff.join("away"), diff.join("d")));
            }
        });
        for round in 0..600 {
            // Any of these may fail; none may touch the victim.
            drop(write_file(&mut tree, "d/hello", b"pwned", &metadata(0o666)));
            drop(tree.directory(&path("d/sub"), &metadata(0o777)));
            drop(tree.whiteout(&path("d/secret")));
            drop(tree.symlink(&path("d/link"), b"x", &metadata(0o777)));
            drop(tree.hard_link(&path("d/hard"), &path("d/hello")));
            drop(tree.directory(&path("d"), &metadata(0o700)));
            if round % 7 == 0 {
                tree.handles = HandleCache::default();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    drop(tree.finish());
    place.assert_victim_unchanged();
}
