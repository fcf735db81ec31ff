//! Both directions together, and with the tools that others use.

mod peers;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::testing::{Notes, read, read_tapped, whole};
use super::*;
use crate::error::ArchiveError;
use crate::types::{Limits, Timestamp};

fn write(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str, content: &[u8]) -> (Entry, Vec<u8>) {
    let size = content.len() as u64;
    (Entry { size, stored: size, ..Entry::new(path, EntryKind::File) }, content.to_vec())
}

/// A path of parts that a tar can hold, long ones among them, and some that look like records of PAX.
fn any_path() -> impl Strategy<Value = Vec<u8>> {
    let byte =
        prop_oneof![8 => b'a'..=b'z', 1 => 1u8..=255].prop_map(|byte| if byte == b'/' { b'_' } else { byte });
    let record =
        prop::sample::select(vec![&b"\n13 path=else"[..], b"\n9 size=7\n", b"\n+11 size=7\n", b"\n\n"]);
    let part = prop_oneof![
        9 => prop::collection::vec(byte, 1..120),
        1 => record.prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join(&b'/'))
}

fn any_kind() -> impl Strategy<Value = EntryKind> {
    let device = (0u32..=0o7777777, 0u32..=0o7777777);
    prop_oneof![
        Just(EntryKind::File),
        Just(EntryKind::File),
        Just(EntryKind::Directory),
        Just(EntryKind::Symlink),
        Just(EntryKind::HardLink),
        Just(EntryKind::Fifo),
        device.clone().prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
        device.prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
    ]
}

prop_compose! {
    fn any_entry()(
        path in any_path(),
        kind in any_kind(),
        mode in 0u16..=0o7777,
        ids in (0u32..u32::MAX, 0u32..3_000_000),
        seconds in prop_oneof![0i64..2_000_000_000, any::<i64>()],
        nanoseconds in prop_oneof![Just(0u32), 0u32..1_000_000_000],
        xattrs in prop::collection::btree_map(
            prop::collection::vec(1u8..=255, 1..60), prop::collection::vec(any::<u8>(), 0..600), 0..4),
        link in any_path(),
        content in prop::collection::vec(any::<u8>(), 0..2000),
    ) -> (Entry, Vec<u8>) {
        let is_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
        let content = if kind == EntryKind::File { content } else { Vec::new() };
        let size = content.len() as u64;
        let entry = Entry {
            path, kind, mode, uid: ids.0, gid: ids.1, mtime: Timestamp { seconds, nanoseconds },
            xattrs: xattrs.into_iter().collect(), link: if is_link { link } else { Vec::new() },
            size, stored: size, sparse: None, ordinal: None,
        };
        (entry, content)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn what_is_written_is_read_back(mut entries in prop::collection::vec(any_entry(), 0..6)) {
        let archive = write(&entries);
        prop_assert_eq!(&archive, &write(&entries), "the same entries are the same bytes");
        let mut ordinal = 0;
        for (entry, content) in &mut entries {
            if !content.is_empty() {
                entry.ordinal = Some(ordinal);
                ordinal += 1;
            }
        }
        prop_assert_eq!(read(&archive).unwrap(), entries);
    }
}

#[test]
fn plain_entries_need_no_extension() {
    let long = format!("{}/{}", "d".repeat(155), "n".repeat(100));
    let archive = write(&[file(&long, b"x"), file("a", b"")]);
    assert_eq!(archive.len(), 512 * 3 + 1024);
    assert_eq!(write(&[file("a\n11 path=b\n", b"")]).len(), 512 + 1024, "a newline");
    let (entry, _) = file(&format!("{}/{}", "d".repeat(156), "n".repeat(100)), b"");
    assert_eq!(write(&[(entry, Vec::new())]).len(), 512 * 3 + 1024, "a PAX header");
}

#[test]
fn long_names_with_newlines_come_back_from_other_readers() {
    let name = |last| format!("{}/\n13 path=else\n{last}", "d".repeat(160));
    let linked =
        |path: &str, kind| (Entry { link: name("file\n").into(), ..Entry::new(path, kind) }, Vec::new());
    let mut entries = vec![
        (Entry::new(name("dir"), EntryKind::Directory), Vec::new()),
        file(&name("file\n"), b"content"),
        linked(&name("link"), EntryKind::Symlink),
        linked("short", EntryKind::Symlink),
        linked("hard", EntryKind::HardLink),
        file("after", b"x"),
    ];
    // That there are records beside them.
    for (entry, _) in &mut entries {
        entry.mtime.nanoseconds = 5;
    }
    let archive = write(&entries);
    for (at, ordinal) in [(1, 0), (5, 1)] {
        entries[at].0.ordinal = Some(ordinal);
    }
    assert_eq!(read(&archive).unwrap(), entries);
    let headers = archive.chunks(512).filter(|block| block[257..].starts_with(b"ustar"));
    let types: String = headers.map(|header| char::from(header[156])).collect();
    assert_eq!(types, "Lx5Lx0KLx2Kx2Kx1x0");

    let names = |entry: &Entry| {
        let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
        ([&entry.path, slash.as_bytes()].concat(), entry.link.clone())
    };
    let expected: Vec<_> = entries.iter().map(|(entry, _)| names(entry)).collect();
    let peer: Vec<_> = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path_bytes().into_owned(), entry.link_name_bytes().unwrap_or_default().into_owned())
        })
        .collect();
    assert_eq!(peer, expected);
    let ends = entries.iter().map(|(entry, _)| {
        let (path, link) = names(entry);
        let arrow = match entry.kind {
            EntryKind::Symlink => " -> ",
            EntryKind::HardLink => " link to ",
            _ => "",
        };
        let end = [b" ".as_slice(), &path, arrow.as_bytes(), &link].concat();
        String::from_utf8(end).unwrap().replace('\n', "\\n")
    });
    let ends: Vec<_> = ends.collect();
    for program in ["tar", "bsdtar"] {
        let Some(list) = listed(program, "-tvf", &archive) else { continue };
        assert_eq!(list.lines().count(), ends.len(), "{program}: {list}");
        for (line, end) in list.lines().zip(&ends) {
            assert!(line.ends_with(end), "{program}: {line:?} and {end:?}");
        }
    }
}

#[test]
fn contents_of_another_length_are_refused() {
    let (entry, _) = file("a", b"four");
    for content in [&b""[..], b"fou", b"fours", &[0; 1 << 20]] {
        let error = Writer::new(Vec::new()).append(&entry, &mut &*content).unwrap_err();
        assert!(matches!(error, ArchiveError::ContentSize { size: 4, .. }), "{error:?}");
    }
}

#[test]
fn what_no_header_can_say_is_refused() {
    let device = EntryKind::CharDevice { major: 1 << 21, minor: 0 };
    for entry in [
        Entry::new("", EntryKind::File),
        Entry::new("a/", EntryKind::File),
        Entry::new("a\0b", EntryKind::Directory),
        Entry::new("a", EntryKind::Symlink),
        Entry { size: 1 << 63, ..Entry::new("a", EntryKind::File) },
        Entry::new("a", device),
    ] {
        let error = Writer::new(Vec::new()).append(&entry, &mut std::io::empty()).unwrap_err();
        assert!(matches!(error, ArchiveError::Unrepresentable { .. }), "{error:?}");
    }
}

#[test]
fn files_beyond_eight_gigabytes_are_read_by_their_record() {
    let size = (8 << 30) + 5;
    let entry = Entry { size, ..Entry::new("big", EntryKind::File) };
    let mut writer = Writer::new(Vec::new());
    // Only the headers are of interest.
    writer.append(&entry, &mut std::io::empty()).unwrap_err();
    let mut reader = Reader::new(writer_bytes(writer), ());
    assert_eq!(reader.next_entry().unwrap().unwrap().size, size);
}

fn writer_bytes(writer: Writer<Vec<u8>>) -> std::io::Cursor<Vec<u8>> {
    std::io::Cursor::new(writer.finish().unwrap())
}

// Other programs.

/// Runs a program in `directory`; its output, or `None` if it is not installed or refuses.
fn run(directory: &Path, program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new(program).args(arguments).current_dir(directory).output();
    let Ok(output) = output else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    if !output.status.success() {
        eprintln!("skipped: {program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(output.stdout)
}

/// What a program shows of an archive that was written here; `None` if it is not installed.
fn listed(program: &str, option: &str, archive: &[u8]) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.tar");
    fs::write(&file, archive).unwrap();
    let Ok(output) = Command::new(program).arg(option).arg(&file).output() else {
        eprintln!("skipped: {program} is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{program}: {said}");
    Some(String::from_utf8(output.stdout).unwrap())
}

/// A tree with something of everything that needs no privilege.
fn sample_tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    let deep = root.join("d".repeat(120)).join("e".repeat(150));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), b"deep").unwrap();
    fs::write(root.join("plain"), b"some bytes").unwrap();
    fs::set_permissions(root.join("plain"), fs::Permissions::from_mode(0o4711)).unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::hard_link(root.join("plain"), root.join("zlink")).unwrap();
    symlink("t".repeat(130), root.join("symlink")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    for at in 0..40u64 {
        sparse.write_all_at(&[7; 4096], at * 65536).unwrap();
    }
    sparse.set_len(5_000_000).unwrap();
    tree
}

/// Checks the entries of an archive of [`sample_tree`].
fn check_sample(archive: &[u8], long_names: bool, what: &str) {
    let mut notes = Notes::default();
    let entries = read_tapped(archive, &mut notes, Limits::default()).unwrap();
    let get = |name: &str| {
        let found = entries.iter().find(|(entry, _)| entry.path.ends_with(name.as_bytes()));
        found.unwrap_or_else(|| panic!("{what}: no {name}"))
    };
    let (plain, linked) = (&get("plain").0, &get("zlink").0);
    let (first, second) = if plain.kind == EntryKind::File { (plain, linked) } else { (linked, plain) };
    assert_eq!((first.size, first.mode & 0o7777), (10, 0o4711), "{what}");
    assert_eq!(second.kind, EntryKind::HardLink, "{what}");
    let (sparse, stored) = get("sparse");
    let content = whole(sparse, stored);
    assert_eq!(content.len(), 5_000_000, "{what}");
    assert!(
        content
            .iter()
            .enumerate()
            .all(|(at, &byte)| byte == if at % 65536 < 4096 && at < 40 * 65536 { 7 } else { 0 })
    );
    assert_eq!(get("empty").0.size, 0);
    if long_names {
        assert_eq!(get("/file").1, b"deep", "{what}");
        assert_eq!(get("symlink").0.link, "t".repeat(130).as_bytes(), "{what}");
    }
}

#[test]
fn what_gnu_tar_writes_is_read() {
    let tree = sample_tree();
    let small: &[&str] = &["plain", "empty", "zlink", "sparse"];
    let all: &[&str] = &["."];
    for (options, names) in [
        (&["--format=gnu"][..], all),
        (&["--format=pax"], all),
        (&["--format=ustar"], small),
        (&["--format=v7"], small),
        (&["--format=gnu", "--sparse"], all),
        (&["--format=pax", "--sparse", "--sparse-version=0.0"], all),
        (&["--format=pax", "--sparse", "--sparse-version=0.1"], all),
        (&["--format=pax", "--sparse", "--sparse-version=1.0"], all),
    ] {
        let arguments = [options, &["--create", "--sort=name", "--file=-"], names].concat();
        let Some(archive) = run(tree.path(), "tar", &arguments) else { return };
        // The symlink is too long for the old formats, and so is the deep file.
        if names == small {
            let padded = archive;
            let mut entries = read(&padded).unwrap();
            entries.retain(|(entry, _)| entry.kind != EntryKind::Directory);
            assert_eq!(entries.len(), 4, "{options:?}");
        } else {
            check_sample(&archive, true, &format!("{options:?}"));
            let sparse = read(&archive).unwrap().into_iter().any(|(entry, _)| entry.sparse.is_some());
            assert_eq!(sparse, options.contains(&"--sparse"), "{options:?}");
        }
    }
}

#[test]
fn what_bsdtar_writes_is_read() {
    let tree = sample_tree();
    for format in ["pax", "ustar", "gnutar"] {
        let option = format!("--format={format}");
        let names: &[&str] = if format == "ustar" { &["plain", "empty", "zlink", "sparse"] } else { &["."] };
        let arguments = [&["-c", &option, "-f", "-"], names].concat();
        let Some(archive) = run(tree.path(), "bsdtar", &arguments) else { return };
        check_sample(&archive, format != "ustar", &option);
    }
}

#[test]
fn xattrs_of_other_programs_are_read() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("file"), b"x").unwrap();
    if run(tree.path(), "setfattr", &["-n", "user.note", "-v", "0x000a3d25", "file"]).is_none() {
        return;
    }
    for (program, arguments) in [
        ("tar", &["--format=pax", "--xattrs", "-cf", "-", "file"][..]),
        ("bsdtar", &["--format=pax", "--xattrs", "-cf", "-", "file"]),
    ] {
        let Some(archive) = run(tree.path(), program, arguments) else { continue };
        let (entry, _) = read(&archive).unwrap().remove(0);
        assert_eq!(entry.xattrs, [(b"user.note".to_vec(), b"\0\n=%".to_vec())], "{program}");
    }
}

#[test]
fn other_programs_read_what_is_written() {
    let long = "n".repeat(200);
    let link = Entry { link: b"t".repeat(150), ..Entry::new("link", EntryKind::Symlink) };
    let mut odd = file("odd", b"content");
    odd.0.mtime = Timestamp { seconds: -5, nanoseconds: 250_000_000 };
    odd.0.xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
    odd.0.uid = 3_000_000_000;
    let entries =
        [(Entry::new("dir", EntryKind::Directory), Vec::new()), file(&long, b"x"), odd, (link, Vec::new())];
    let archive = write(&entries);
    let expected = format!("dir/\n{long}\nodd\nlink\n");
    for program in ["tar", "bsdtar"] {
        if let Some(list) = listed(program, "-tf", &archive) {
            assert_eq!(list, expected, "{program}");
        }
    }
    let peer: Vec<_> = tar::Archive::new(archive.as_slice())
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path_bytes().into_owned(), entry.header().uid().unwrap(), entry.size())
        })
        .collect();
    assert_eq!(
        peer,
        [
            (b"dir/".to_vec(), 0, 0),
            (long.into_bytes(), 0, 1),
            (b"odd".to_vec(), 3_000_000_000, 7),
            (b"link".to_vec(), 0, 0)
        ]
    );
}
