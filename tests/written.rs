//! What is written through a mount: how it is told, what it weighs, and that it comes out and in again.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use layerstore::{DiffOptions, Layer, LayerOptions, MountOptions, Store, ThingId, UnmountMode};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use crate::support::store::{assert_whole, changes, exported, open};
use crate::support::tar::{Member, archive};
use crate::support::tree::Tree;
use crate::support::{Dir, machine};

/// What a layer shows while `look` does what it likes with its mount.
fn mounted<T>(store: &Store, layer: &Layer, look: impl FnOnce(&Path) -> T) -> T {
    let mount = store.mount(layer, &MountOptions::default()).unwrap();
    let seen = look(mount.path());
    store.unmount(layer, UnmountMode::Plain).unwrap();
    seen
}

/// The tree that a layer shows. The time of its root is no part of a layer: making anything in it changes that.
fn scan(path: &Path) -> Tree {
    let mut tree = Tree::scan(path);
    tree.nodes.get_mut(b"".as_slice()).unwrap().mtime = (0, 0);
    tree
}

fn shown(store: &Store, layer: &Layer) -> Tree {
    mounted(store, layer, scan)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from(0o620), device).unwrap();
}

/// One of everything that a file can be, and of everything that can happen to one that lies below.
fn write_everything(root: &Path) {
    let long = root.join("l".repeat(120)).join("m".repeat(200));
    std::fs::create_dir_all(&long).unwrap();
    std::fs::write(long.join("n".repeat(255)), "long").unwrap();
    symlink("t".repeat(300), root.join("link")).unwrap();
    std::fs::create_dir(root.join("sticky")).unwrap();
    std::fs::write(root.join("sticky/tool"), "#!").unwrap();
    std::fs::hard_link(root.join("sticky/tool"), root.join("a-second-name")).unwrap();
    rustix::fs::setxattr(root.join("sticky/tool"), "user.note", b"\0\n=", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(root.join("sticky"), "user.empty", b"", XattrFlags::empty()).unwrap();
    node(&root.join("pipe"), FileType::Fifo, 0);
    node(&root.join("sticky/socket"), FileType::Socket, 0);
    if machine::is_real_root() {
        node(&root.join("null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node(&root.join("disk"), FileType::BlockDevice, rustix::fs::makedev(8, 300));
        chown(root.join("sticky/tool"), Some(3), Some(4)).unwrap();
        chown(root.join("sticky"), Some(1), Some(2)).unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (3 << 20) - 3).unwrap();
    set_time(&root.join("sparse"), SystemTime::UNIX_EPOCH - Duration::from_millis(1500));
    set_mode(&root.join("sticky/tool"), 0o4222);
    set_mode(&root.join("sticky"), 0o1705);

    std::fs::remove_file(root.join("deep/er/gone")).unwrap();
    std::fs::remove_dir_all(root.join("whole")).unwrap();
    std::fs::remove_dir_all(root.join("again")).unwrap();
    std::fs::create_dir(root.join("again")).unwrap();
    std::fs::write(root.join("again/new"), "new").unwrap();
    std::fs::remove_dir_all(root.join("to-file")).unwrap();
    std::fs::write(root.join("to-file"), "file").unwrap();
    std::fs::remove_file(root.join("to-directory")).unwrap();
    std::fs::create_dir(root.join("to-directory")).unwrap();
}

#[test]
fn an_empty_layer_shows_an_empty_directory() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written-empty");
    let store = open(&dir);
    let empty = store.create_layer(None, &LayerOptions::named("empty")).unwrap();
    let tree = shown(&store, &empty);
    assert_eq!(tree.nodes.len(), 1);
    let root = tree.get("").unwrap();
    assert_eq!((root.mode, root.uid, root.gid), (0o755, 0, 0));
    let above = store.create_layer(&empty.id, &LayerOptions::named("above")).unwrap();
    shown(&store, &above).assert_same(&tree);
}

#[test]
fn what_is_written_comes_out_and_in_again() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written");
    let store = open(&dir);
    let file = |path: &str| Member::file(path, "below");
    let base = archive(&[
        file("deep/er/gone"),
        file("deep/er/stays"),
        file("whole/a/b"),
        file("again/old/b"),
        file("to-file/a"),
        file("to-directory"),
    ]);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*base).unwrap();
    let written = store.create_layer(&base.id, &LayerOptions::named("written")).unwrap();
    let mut expected = mounted(&store, &written, |root| {
        write_everything(root);
        scan(root)
    });
    assert!(expected.nodes.remove(b"sticky/socket".as_slice()).is_some());
    let mut told = changes(&store, &written);
    // It is there as long as the layer is written to, and no archive has it.
    told.retain(|line| line != "A /sticky/socket");
    let tar = exported(&store, &written);
    assert_eq!(tar, exported(&store, &written), "the same bytes each time");

    let again = store.put_layer(&base.id, &LayerOptions::named("again"), &*tar).unwrap();
    shown(&store, &again).assert_same(&expected);
    assert_eq!(changes(&store, &again), told);
    let above = store.create_layer(&again.id, &LayerOptions::named("above")).unwrap();
    shown(&store, &above).assert_same(&expected);
    assert_eq!(changes(&store, &above), [""; 0]);
    let sealed = store.seal(&written.id).unwrap();
    let more: Vec<_> =
        store.changes_since(&sealed, &again).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(more, ["C /sticky", "A /sticky/socket"], "the tar says all else that the directory has");
    let mut tree = shown(&store, &sealed);
    tree.nodes.remove(b"sticky/socket".as_slice());
    tree.assert_same(&expected);
    assert_whole(&store);
}

/// What an archive says of a path, but for its content: its type, mode, owner, time and extended records.
type Header = (tar::EntryType, u32, u64, u64, u64, Vec<(String, Vec<u8>)>);

fn headers(tar: &[u8]) -> BTreeMap<String, Header> {
    let mut headers = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let records = entry.pax_extensions().unwrap().into_iter().flatten().map(|record| {
            let record = record.unwrap();
            (record.key().unwrap().to_owned(), record.value_bytes().to_vec())
        });
        let records = records.collect();
        let header = entry.header();
        let (uid, gid) = (header.uid().unwrap(), header.gid().unwrap());
        let said = (header.entry_type(), header.mode().unwrap(), uid, gid, header.mtime().unwrap(), records);
        headers.insert(String::from_utf8(entry.path_bytes().into_owned()).unwrap(), said);
    }
    headers
}

/// Programs that unpack a name of a file again give the file what the header of that name says.
#[test]
fn each_name_of_a_file_says_what_the_first_one_says() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written-names");
    let store = open(&dir);
    let bytes = archive(&[Member::file("below", "below")]);
    let [base, twin] =
        ["base", "twin"].map(|name| store.put_layer(None, &LayerOptions::named(name), &*bytes).unwrap());
    let layer = store.create_layer(&base.id, &LayerOptions::named("layer")).unwrap();
    mounted(&store, &layer, |root| {
        std::fs::create_dir(root.join("d")).unwrap();
        std::fs::write(root.join("a"), "text").unwrap();
        std::fs::hard_link(root.join("a"), root.join("d/b")).unwrap();
        std::fs::hard_link(root.join("a"), root.join("c")).unwrap();
        rustix::fs::setxattr(root.join("a"), "user.note", b"x", XattrFlags::empty()).unwrap();
        if machine::is_real_root() {
            chown(root.join("a"), Some(5), Some(6)).unwrap();
        }
        set_mode(&root.join("a"), 0o4750);
        set_time(&root.join("a"), SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500));
    });
    let mut since = Vec::new();
    store.diff_with(&layer, &DiffOptions::since(&twin), &mut since).unwrap();
    for tar in [exported(&store, &layer), since] {
        let headers = headers(&tar);
        let first = headers["a"].clone();
        assert_eq!((first.0, first.1, first.4), (tar::EntryType::Regular, 0o4750, 1_000_000_000));
        assert_eq!(first.5.len(), 2, "a time with a fraction, and an attribute: {first:?}");
        for name in ["c", "d/b"] {
            let mut expected = first.clone();
            expected.0 = tar::EntryType::Link;
            assert_eq!(headers[name], expected, "{name}");
        }
    }
}

/// What is done in a mount, and the lines that tell it.
type Case = (&'static str, fn(&Path), &'static [&'static str]);

const CASES: &[Case] = &[
    ("nothing", |_| {}, &[]),
    ("only reading", |root| drop(std::fs::read(root.join("d/f")).unwrap()), &[]),
    (
        "the time of a directory",
        |root| set_time(&root.join("d"), SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
        &["C /d"],
    ),
    ("a mode", |root| set_mode(&root.join("d/f"), 0o600), &["C /d", "C /d/f"]),
    (
        "the time of a file",
        |root| set_time(&root.join("d/f"), SystemTime::UNIX_EPOCH + Duration::from_secs(5)),
        &["C /d", "C /d/f"],
    ),
    (
        "an attribute",
        |root| rustix::fs::setxattr(root.join("d/f"), "user.a", b"b", XattrFlags::empty()).unwrap(),
        &["C /d", "C /d/f"],
    ),
    (
        "content of the same size at the same time",
        |root| {
            let path = root.join("d/f");
            let before = std::fs::metadata(&path).unwrap().modified().unwrap();
            std::fs::write(&path, "other").unwrap();
            set_time(&path, before);
        },
        &["C /d", "C /d/f"],
    ),
    ("a new file", |root| std::fs::write(root.join("d/new"), "").unwrap(), &["C /d", "A /d/new"]),
    (
        "a file that comes and goes",
        |root| {
            std::fs::write(root.join("d/new"), "").unwrap();
            std::fs::remove_file(root.join("d/new")).unwrap();
        },
        &["C /d"],
    ),
    ("a deleted file", |root| std::fs::remove_file(root.join("d/f")).unwrap(), &["C /d", "D /d/f"]),
    ("a deleted directory", |root| std::fs::remove_dir_all(root.join("d")).unwrap(), &["D /d"]),
    (
        "another name",
        |root| std::fs::rename(root.join("d/f"), root.join("g")).unwrap(),
        &["C /d", "D /d/f", "A /g"],
    ),
    (
        "a second name",
        |root| std::fs::hard_link(root.join("d/f"), root.join("g")).unwrap(),
        &["C /d", "C /d/f", "A /g"],
    ),
    (
        "a file that becomes a directory",
        |root| {
            std::fs::remove_file(root.join("d/f")).unwrap();
            std::fs::create_dir(root.join("d/f")).unwrap();
        },
        &["C /d", "C /d/f"],
    ),
    (
        "a directory that becomes a link",
        |root| {
            std::fs::remove_dir_all(root.join("d")).unwrap();
            symlink("e", root.join("d")).unwrap();
        },
        &["C /d"],
    ),
    (
        "a directory that is emptied and made again",
        |root| {
            std::fs::remove_dir_all(root.join("d")).unwrap();
            std::fs::create_dir(root.join("d")).unwrap();
        },
        &["C /d", "D /d/f"],
    ),
    (
        "twenty files",
        |root| {
            for number in 0..7 {
                std::fs::write(root.join(format!("e/new-{number}")), "").unwrap();
                std::fs::write(root.join(format!("e/{number}")), "changed").unwrap();
            }
            for number in 14..20 {
                std::fs::remove_file(root.join(format!("e/{number}"))).unwrap();
            }
        },
        &[
            "C /e",
            "C /e/0",
            "C /e/1",
            "D /e/14",
            "D /e/15",
            "D /e/16",
            "D /e/17",
            "D /e/18",
            "D /e/19",
            "C /e/2",
            "C /e/3",
            "C /e/4",
            "C /e/5",
            "C /e/6",
            "A /e/new-0",
            "A /e/new-1",
            "A /e/new-2",
            "A /e/new-3",
            "A /e/new-4",
            "A /e/new-5",
            "A /e/new-6",
        ],
    ),
];

#[test]
fn each_kind_of_change_is_told_as_what_it_is() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written-changes");
    let store = open(&dir);
    let mut members = vec![Member::file("d/f", "below")];
    members.extend((0..20).map(|number| Member::file(format!("e/{number}"), "below")));
    let base = store.put_layer(None, &LayerOptions::named("base"), &*archive(&members)).unwrap();
    for (what, action, expected) in CASES {
        let layer = store.create_layer(&base.id, &LayerOptions::named(*what)).unwrap();
        mounted(&store, &layer, action);
        assert_eq!(changes(&store, &layer), *expected, "{what}");
        let tar = exported(&store, &layer);
        let again = store.put_layer(&base.id, &LayerOptions::default(), &*tar).unwrap();
        shown(&store, &again).assert_same(&shown(&store, &layer));
        assert_eq!(changes(&store, &again), *expected, "{what}, from its tar");
    }
    assert_whole(&store);
}

/// What is done in a mount, and how much the changes are.
type Weighed = (&'static str, fn(&Path), u64);

#[test]
fn sizes_count_content_once_and_nothing_for_what_is_gone() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written-sizes");
    let store = open(&dir);
    let bytes = archive(&[Member::file("d/f", vec![1; 5000]), Member::file("g", vec![2; 700])]);
    // To the parent, the changes are those on record; to another layer, the trees are compared.
    let [base, twin] =
        ["base", "twin"].map(|name| store.put_layer(None, &LayerOptions::named(name), &*bytes).unwrap());
    let cases: &[Weighed] = &[
        ("nothing", |_| {}, 0),
        (
            "deletions",
            |root| {
                std::fs::remove_dir_all(root.join("d")).unwrap();
                std::fs::remove_file(root.join("g")).unwrap();
            },
            0,
        ),
        ("a mode", |root| set_mode(&root.join("d/f"), 0o600), 5000),
        (
            "two names of one file",
            |root| {
                std::fs::write(root.join("d/new"), vec![3; 900]).unwrap();
                std::fs::hard_link(root.join("d/new"), root.join("second")).unwrap();
            },
            900,
        ),
        (
            "two files with equal content",
            |root| {
                std::fs::write(root.join("d/new"), vec![3; 900]).unwrap();
                std::fs::write(root.join("second"), vec![3; 900]).unwrap();
            },
            1800,
        ),
        ("a replaced file", |root| std::fs::write(root.join("g"), "x").unwrap(), 1),
        ("a hole", |root| File::create(root.join("hole")).unwrap().set_len(1 << 20).unwrap(), 1 << 20),
    ];
    for (what, action, expected) in cases {
        let layer = store.create_layer(&base.id, &LayerOptions::named(*what)).unwrap();
        mounted(&store, &layer, action);
        for sealed in [false, true] {
            let sizes = [None, Some(&base), Some(&twin)]
                .map(|from| store.diff_size(&layer, from.map(ThingId::from).as_ref()).unwrap());
            assert_eq!(sizes, [*expected; 3], "{what}, sealed: {sealed}");
            store.seal(&layer.id).unwrap();
        }
    }
}

/// An archive has no sockets: neither another name of one, nor what one stands in the place of.
#[test]
fn no_name_of_a_socket_is_written_out_and_nothing_comes_back_for_one() {
    if !machine::is_root() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("written-sockets");
    let store = open(&dir);
    let base = archive(&[
        Member::file("replaced", "below"),
        Member::file("directory/inside", "below"),
        Member::file("opaque/replaced", "below"),
        Member::file("linked", "below"),
    ]);
    let base = store.put_layer(None, &LayerOptions::named("base"), &*base).unwrap();
    let written = store.create_layer(&base.id, &LayerOptions::named("written")).unwrap();
    let mut expected = mounted(&store, &written, |root| {
        for path in ["replaced", "linked"] {
            std::fs::remove_file(root.join(path)).unwrap();
        }
        for path in ["directory", "opaque"] {
            std::fs::remove_dir_all(root.join(path)).unwrap();
        }
        std::fs::create_dir(root.join("opaque")).unwrap();
        for path in ["a", "replaced", "directory", "opaque/replaced"] {
            node(&root.join(path), FileType::Socket, 0);
        }
        for path in ["b", "linked", "opaque/c"] {
            std::fs::hard_link(root.join("a"), root.join(path)).unwrap();
        }
        scan(root)
    });
    let sockets = ["a", "b", "directory", "linked", "opaque/c", "opaque/replaced", "replaced"];
    for path in sockets {
        assert!(expected.nodes.remove(path.as_bytes()).is_some(), "{path}");
    }
    // As a layer above its parent, and as what turns one tree into another, which has the same files.
    let twin = store.put_layer(None, &LayerOptions::named("twin"), &*exported(&store, &base)).unwrap();
    let mut since = Vec::new();
    store.diff_with(&written, &DiffOptions::since(&twin), &mut since).unwrap();
    for (name, tar) in [("again", exported(&store, &written)), ("since", since)] {
        let members: Vec<String> = headers(&tar).into_keys().collect();
        let again = store.put_layer(&base.id, &LayerOptions::named(name), &*tar).unwrap();
        shown(&store, &again).assert_same(&expected);
        for path in [".wh.replaced", ".wh.linked", ".wh.directory"] {
            assert!(members.iter().any(|member| member == path), "{path}: {members:?}");
        }
        assert!(!members.iter().any(|member| sockets.contains(&member.as_str())), "{members:?}");
    }
    store.seal(&written.id).unwrap();
    // A socket in the place of a socket: the one below is as good.
    let above = store.create_layer(&written.id, &LayerOptions::named("above")).unwrap();
    mounted(&store, &above, |root| set_mode(&root.join("replaced"), 0o600));
    assert_eq!(headers(&exported(&store, &above)).len(), 0);
    assert_whole(&store);
}
