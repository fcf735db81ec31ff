//! Reading diff directories.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::FileType;

use super::*;
use crate::disk::Looks;
use crate::disk::fixture::{Place, hash, metadata, namespace, path, shape, with_xattrs, write_file};
use crate::disk::overlay_form::OPAQUE;
use crate::sys::{node, xattr};

/// What overlayfs itself leaves in an upper directory.
#[test]
fn attributes_of_overlayfs_are_no_content() {
    let place = Place::new();
    std::fs::write(place.path("diff/file"), b"x").unwrap();
    let diff = place.open("diff");
    let before = place.manifest("diff");
    let prefix = namespace().opaque().strip_suffix(b"opaque").unwrap();
    for name in ["origin", "impure", "nlink", "uuid", "upper", "protattr"] {
        let name = [prefix, name.as_bytes()].concat();
        xattr::set(Target::Name(diff.as_fd(), b"file"), &name, b"y").unwrap();
    }
    // On a file with content it is no whiteout.
    xattr::set(Target::Name(diff.as_fd(), b"file"), namespace().whiteout(), b"y").unwrap();
    assert_eq!(place.manifest("diff"), before);
    std::fs::create_dir(place.path("diff/directory")).unwrap();
    for (file, name) in [("directory", namespace().redirect()), ("file", namespace().metacopy())] {
        xattr::set(Target::Name(diff.as_fd(), file.as_bytes()), name, b"y").unwrap();
        let result = scan(diff.as_fd(), &HashMap::new(), namespace());
        assert!(matches!(result, Err(ScanError::Redirected { path, .. }) if path == Path::new(file)));
        assert!(list_as_left(diff.as_fd(), namespace(), Life::Still).is_ok());
        xattr::remove(Target::Name(diff.as_fd(), file.as_bytes()), name).unwrap();
    }
}

/// What fuse-overlayfs leaves, and a container's own files of the same names.
#[test]
fn marks_of_a_program_count_where_one_has_mounted() {
    let place = Place::new();
    for name in ["a", "a/b", "a-", "a/in", "d"] {
        std::fs::create_dir(place.path("diff").join(name)).unwrap();
    }
    for name in ["a/.wh..wh..opq", "a/.wh.hidden", "a-/.wh.gone", ".wh.z", ".wh.d", "a/in/file"] {
        std::fs::write(place.path("diff").join(name), b"").unwrap();
    }
    std::fs::write(place.path("diff/d/.wh..wh..opq"), b"not empty").unwrap();
    let opaque = b"user.fuseoverlayfs.opaque";
    xattr::set(Target::File(place.open("diff/a-").as_fd()), opaque, b"y").unwrap();
    let whiteout = place.open("diff/a/in");
    node::make_node(whiteout.as_fd(), b"w", node::NodeKind::CharDevice, 0, (0, 0)).unwrap();
    let plain = place.manifest("diff");
    assert_eq!(
        shape(&plain),
        [
            "f .wh.d",
            "f .wh.z",
            "d a",
            "f a/.wh..wh..opq",
            "f a/.wh.hidden",
            "d a/b",
            "d a/in",
            "f a/in/file",
            "w a/in/w",
            "d a-",
            "f a-/.wh.gone",
            "d d",
            "f d/.wh..wh..opq"
        ]
    );
    program_marks::mark_for_program(place.open("diff").as_fd(), namespace()).unwrap();
    let found = place.manifest("diff");
    let expected = ["o a", "d a/b", "d a/in", "f a/in/file", "o a-", "d d", "f d/.wh..wh..opq", "w z"];
    assert_eq!(shape(&found), expected);
    program_marks::settle_program_marks(place.open("diff").as_fd(), namespace()).unwrap();
    assert_eq!(place.manifest("diff"), found, "settled or not, it is the same layer");
}

#[test]
fn known_files_are_not_read() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let written = write_file(&mut tree, "file", b"x", &metadata(0o644)).unwrap();
    tree.finish().unwrap();
    assert_eq!(written.content, hash(b"x"));
    let told = HashMap::from([(written.inode, hash(b"told"))]);
    let manifest = scan(place.open("diff").as_fd(), &told, namespace()).unwrap();
    assert!(
        matches!(manifest.get(b"file").unwrap().kind, Kind::File { content, .. } if content == hash(b"told"))
    );
}

#[test]
fn whiteouts_in_an_opaque_directory_are_no_change() {
    let place = Place::new();
    let diff = place.open("diff");
    std::fs::create_dir_all(place.path("diff/solid/sub")).unwrap();
    for dir in ["diff/solid", "diff/solid/sub"] {
        let dir = place.open(dir);
        node::make_node(dir.as_fd(), b"gone", node::NodeKind::CharDevice, 0, (0, 0)).unwrap();
    }
    xattr::set(Target::Name(diff.as_fd(), b"solid"), namespace().opaque(), OPAQUE).unwrap();
    assert_eq!(shape(&place.manifest("diff")), ["o solid", "d solid/sub", "w solid/sub/gone"]);
}

#[test]
fn sockets_and_order() {
    let place = Place::new();
    for name in ["a", "a/b", "a-"] {
        std::fs::create_dir(place.path("diff").join(name)).unwrap();
    }
    node::make_node(place.open("diff").as_fd(), b"s", node::NodeKind::Socket, 0o600, (0, 0)).unwrap();
    let manifest = place.manifest("diff");
    assert_eq!(shape(&manifest), ["d a", "d a/b", "d a-", "? s"]);
    assert_eq!(manifest.get(b"s").unwrap().kind, Kind::Socket);
}

/// Of what the import has just written it knows the rest, but not of a file that has other names by now, or attributes.
#[test]
fn files_that_were_just_written_are_not_looked_at_again() {
    let place = Place::new();
    let mut tree = place.strict_writer();
    let (mut known, mut looks) = (HashMap::new(), Looks::default());
    let noted = with_xattrs(0o644, &[("user.a", b"1")]);
    for (at, metadata) in [
        ("first", &metadata(0o644)),
        ("noted", &noted),
        ("other", &metadata(0o6711)),
        ("plain", &metadata(0o644)),
    ] {
        let file = write_file(&mut tree, at, at.as_bytes(), metadata).unwrap();
        assert_eq!(file.look.is_none(), at == "noted");
        known.insert(file.inode, file.content);
        file.look.iter().for_each(|look| looks.add(look));
    }
    tree.hard_link(&path("second"), &path("first")).unwrap();
    let linked = tree.finish().unwrap().linked;
    let diff = place.open("diff");
    let scan = |written| measured_scan(diff.as_fd(), &known, written, namespace()).unwrap();
    let written = Written { looks: &looks, linked: &linked };
    assert_eq!(scan(Some(written)), scan(None));
    let names = ["first", "noted", "other", "plain"];
    for name in names {
        std::fs::set_permissions(place.path("diff").join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    let (manifest, _) = scan(Some(written));
    let modes = names.map(|name| manifest.get(name.as_bytes()).unwrap().metadata.mode);
    assert_eq!(modes, [0o600, 0o600, 0o6711, 0o644]);
}

/// Where a listing makes up numbers, one may be that of another file.
#[test]
fn a_listed_number_is_no_file_where_it_need_not_be() {
    let place = Place::new();
    std::fs::write(place.path("diff").join("file"), "text").unwrap();
    let other = Stat { size: 99, ..Stat::of_kind(FileType::RegularFile) };
    let size_of = |trusts: bool| {
        let mut walker = Walker::reading(place.open("diff").as_fd(), Life::Still).unwrap();
        if trusts {
            walker.trust_listed_inodes();
        }
        match walker.next_step_knowing(|_| Some(other)).unwrap() {
            Some(Step::Leaf(item)) => item.stat.size,
            step => panic!("{step:?}"),
        }
    };
    assert_eq!(size_of(false), 4);
    // As on overlayfs, which has none of its own to list.
    let lists = crate::sys::directory::lists_inodes(place.open("diff").as_fd());
    assert_eq!(size_of(true), if lists { 99 } else { 4 });
    assert!(!crate::sys::directory::lists_inodes(std::fs::File::open("/proc").unwrap().as_fd()));
}
