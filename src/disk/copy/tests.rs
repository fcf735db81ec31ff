//! Copies of diff directories.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::super::fixture::Member::{D, F, H, Opaque, Whiteout};
use super::super::fixture::{Member, Place, access_list, namespace, shape};
use super::*;

/// A directory with the members of `lower` below those of `upper`, as one.
fn merged(lower: &[Member<'_>], upper: &[Member<'_>]) -> Vec<String> {
    let (below, unpacked) = Place::unpack(lower);
    unpacked.unwrap();
    let (above, unpacked) = Place::unpack(upper);
    unpacked.unwrap();
    copy_below(below.open("diff").as_fd(), above.open("diff").as_fd(), namespace()).unwrap();
    shape(&above.manifest("diff"))
}

#[test]
fn what_is_copied_is_written_nowhere_else() {
    use crate::disk::tests_of_confinement::assert_confined;
    use crate::disk::{Layout, Stage};

    let prepare = |dir: &std::path::Path| {
        std::fs::create_dir_all(dir.join("from/d")).unwrap();
        for name in ["early", "late"] {
            std::fs::write(dir.join("from/d").join(name), name).unwrap();
        }
        let layout = Layout::create(&dir.join("store"), namespace()).unwrap();
        // Its directories are there before anything is staged.
        let stage = Stage::create(&layout).unwrap();
        (beneath::open_directory(&dir.join("from")).unwrap(), stage)
    };
    assert_confined("file copied", prepare, |(from, stage)| {
        let staging = Staging::create(stage, 1).unwrap();
        drop(copy_into(from.as_fd(), &staging, namespace()));
    });
}

#[test]
fn a_copy_is_the_same() {
    let place = Place::with_each_kind();
    let file = place.path("diff/a/file");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
    let sparse = std::fs::File::create(place.path("diff/sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    std::os::unix::net::UnixListener::bind(place.path("diff/socket")).unwrap();
    xattr::set(Target::File(place.open("diff/a").as_fd()), b"user.note", b"n").unwrap();
    xattr::set(Target::File(place.open("diff/a").as_fd()), &private(b"origin"), b"o").unwrap();
    let (from, to) = (place.open("diff"), place.open("copy"));
    crate::disk::inherit_root(from.as_fd(), to.as_fd(), namespace()).unwrap();
    copy_below(from.as_fd(), to.as_fd(), namespace()).unwrap();
    assert_eq!(place.manifest("copy").entries(), place.manifest("diff").entries());
    let copied = std::fs::metadata(place.path("copy/sparse")).unwrap();
    assert_eq!((copied.len(), copied.blocks()), (1 << 20, 0), "a hole stays one");
    let origin = xattr::get(Target::File(place.open("copy/a").as_fd()), &private(b"origin"));
    assert_eq!(origin.unwrap(), None, "what overlayfs keeps for itself stays behind");
}

/// A container can write anything into the attribute by which an empty file is a device.
#[test]
fn no_copy_is_a_whiteout_that_the_original_is_not() {
    let (root, below) = (Place::new(), Place::new());
    let (from, to) = (root.open("diff"), below.open("diff"));
    if let Err(why) = masked::begin(from.as_fd(), namespace(), 0o755) {
        return eprintln!("skipped: no attributes of users: {why}");
    }
    for (name, device) in [(b"a", "char-4096-0"), (b"b", "char-0-1048576"), (b"c", "char-0-0")] {
        let file = beneath::create_file(from.as_fd(), name, 0o644).unwrap();
        let told = format!("0:0:0644:{device}");
        xattr::set(Target::File(file.as_fd()), b"user.containers.override_stat", told.as_bytes()).unwrap();
    }
    copy_below(from.as_fd(), to.as_fd(), namespace()).unwrap();
    assert_eq!(shape(&root.manifest("diff")), ["f a", "f b", "f c"]);
    assert_eq!(shape(&below.manifest("diff")), ["f a", "f b", "f c"]);
}

fn private(name: &[u8]) -> Vec<u8> {
    [namespace().opaque().strip_suffix(b"opaque").unwrap(), name].concat()
}

#[test]
fn what_stands_above_hides_what_is_below() {
    let lower = [D("a"), F("a/1"), F("a/2"), D("b"), F("b/1"), F("c"), D("d"), F("d/1"), Whiteout("e")];
    let upper = [D("a"), Whiteout("a/1"), F("a/3"), Opaque("b"), F("b/2"), D("c"), F("c/1"), F("d")];
    let expected = ["d a", "w a/1", "f a/2", "f a/3", "o b", "f b/2", "o c", "f c/1", "f d", "w e"];
    assert_eq!(merged(&lower, &upper), expected);
}

#[test]
fn what_hid_lower_layers_hides_them_still() {
    let lower = [Opaque("a"), F("a/1"), F("a/2"), Whiteout("b"), Whiteout("c")];
    let upper = [D("a"), Whiteout("a/1"), D("b"), Whiteout("b/x"), F("c")];
    assert_eq!(merged(&lower, &upper), ["o a", "f a/2", "o b", "f c"]);
    assert_eq!(merged(&[Opaque(""), F("a")], &[F("b"), Whiteout("x")]), ["f a", "f b"]);
    assert_eq!(merged(&[F("a")], &[Opaque(""), F("b")]), ["f b"]);
}

/// What lies below has the access lists it had, whatever directory it comes to lie in.
#[test]
fn nothing_inherits_access_lists() {
    let (below, unpacked) =
        Place::unpack(&[F("low"), D("log"), F("log/low"), D("log/sub"), F("log/sub/low")]);
    unpacked.unwrap();
    let (above, unpacked) = Place::unpack(&[D("log"), F("log/high")]);
    unpacked.unwrap();
    let (name, root, list) = (b"system.posix_acl_default", above.open("diff"), access_list(5));
    if let Err(why) = xattr::set(Target::File(root.as_fd()), name, &list) {
        return eprintln!("skipped: no access lists here: {why}");
    }
    xattr::set(Target::Name(root.as_fd(), b"log"), name, &list).unwrap();
    let before = above.manifest("diff");
    copy_below(below.open("diff").as_fd(), root.as_fd(), namespace()).unwrap();
    let (lower, merged) = (below.manifest("diff"), above.manifest("diff"));
    for entry in merged.entries() {
        let expected = before.get(&entry.path).or_else(|| lower.get(&entry.path)).unwrap();
        assert_eq!(entry, expected, "{:?}", String::from_utf8_lossy(&entry.path));
    }
}

#[test]
fn links_stay_links_where_one_of_them_is_hidden() {
    let lower = [D("a"), F("a/1"), H("a/2", "a/1"), H("b", "a/1"), H("c", "a/1")];
    assert_eq!(merged(&lower, &[Whiteout("a")]), ["w a", "f b", "h c"]);
}
