use proptest::prelude::*;

use super::*;
use crate::archive::testing::{Blocks, Note, Notes, paths, read, read_tapped, whole};
use crate::types::Timestamp;

macro_rules! assert_refused {
    ($archive:expr, $pattern:pat) => {{
        let error = read(&$archive).unwrap_err();
        assert!(matches!(error, $pattern), "{error:?}");
    }};
}

/// The same list of paths and contents from the `tar` crate's own iterator, or an error there too.
fn peer(archive: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut list = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        let mut path = entry.path_bytes().into_owned();
        while entry.header().entry_type().is_dir() && path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        list.push((path, content));
    }
    Ok(list)
}

fn assert_agrees(archive: &[u8]) {
    let ours: Vec<_> = read(archive)
        .unwrap()
        .into_iter()
        .map(|(entry, data)| (entry.path.clone(), whole(&entry, &data)))
        .collect();
    assert_eq!(ours, peer(archive).unwrap());
}

// Sizes and names.

#[test]
fn a_pax_size_wins_for_reading_and_for_skipping() {
    // The classic smuggling: by the header's size of 0, the content would be read as a member.
    let inner = Blocks::new().file("smuggled", b"").0;
    let size = inner.len().to_string();
    for stated in [0, 1, 512, 5000] {
        let archive = Blocks::new()
            .pax(&[("size", &size)])
            .put(Blocks::header(b'0', "outer", stated))
            .body(&inner)
            .file("after", b"x")
            .end();
        assert_eq!(paths(&archive).unwrap(), ["outer", "after"], "{stated}");
        assert_eq!(read(&archive).unwrap()[0].1, inner);
        assert_agrees(&archive);
    }
    let smaller = Blocks::new()
        .pax(&[("size", "1")])
        .put(Blocks::header(b'0', "a", 600))
        .body(b"x")
        .file("b", b"")
        .end();
    assert_eq!(paths(&smaller).unwrap(), ["a", "b"]);
    assert_agrees(&smaller);
}

#[test]
fn a_pax_size_belongs_to_the_file_and_not_to_a_long_name_between() {
    let archive = Blocks::new()
        .pax(&[("size", "3")])
        .long(b'L', &"n".repeat(600))
        .put(Blocks::header(b'0', "short", 0))
        .body(b"abc")
        .file("after", b"")
        .end();
    assert_eq!(paths(&archive).unwrap(), [&format!("{}\u{2026}", "n".repeat(300)), "after"]);
    assert_eq!(read(&archive).unwrap()[0].1, b"abc");
    assert_agrees(&archive);
    let other_order = Blocks::new()
        .long(b'L', "name")
        .pax(&[("size", "3")])
        .put(Blocks::header(b'0', "short", 0))
        .body(b"abc")
        .end();
    assert_eq!(paths(&other_order).unwrap(), ["name"]);
    assert_agrees(&other_order);
}

/// An extension header in the form of the seventh edition, which had none.
fn without_magic(typeflag: u8, body: &[u8]) -> Blocks {
    let mut header = Blocks::header(typeflag, "extension", body.len() as u64);
    header.as_mut_bytes()[257..265].fill(0);
    Blocks::new().put(header).body(body)
}

#[test]
fn a_size_that_some_readers_do_not_find_is_refused() {
    let archive = |header: u64| {
        let records = [("comment", "x\ny"), ("size", "3")];
        Blocks::new().pax(&records).put(Blocks::header(b'0', "a", header)).body(b"abc").end()
    };
    assert_eq!(paths(&archive(3)).unwrap(), ["a"]);
    assert_refused!(archive(0), ArchiveError::Number { field: "size", .. });
    assert_refused!(archive(512), ArchiveError::Number { field: "size", .. });
}

#[test]
fn extensions_that_readers_rank_differently_are_refused() {
    let file = |blocks: Blocks| blocks.file("a", b"").end();
    for archive in [
        file(Blocks::new().pax(&[("mtime", "1")]).pax(&[("uid", "1")])),
        file(Blocks::new().long(b'L', "a").long(b'L', "b")),
        file(Blocks::new().long(b'K', "a").long(b'K', "b")),
        file(Blocks::new().pax(&[("size", "0"), ("size", "1")])),
        file(Blocks::new().put(Blocks::header(b'L', "L", 2)).body(b"d/long/")),
        file(Blocks::new().pax(&[("path", "")])),
        file(Blocks::new().pax(&[("size", "")])),
        file(Blocks::new().pax(&[("linkpath", "")])),
        file(Blocks::new().pax(&[("comment", "x\n10 path=b\n")])),
        file(Blocks::new().pax(&[("SCHILY.realsize", "9")])),
        file(without_magic(b'L', b"long\0")),
        file(without_magic(b'K', b"long\0")),
        file(without_magic(b'x', b"10 path=b\n")),
        file(without_magic(b'g', b"12 comment=\n")),
        file(Blocks::new().pax(&[("mtime", "1")]).global(&[("comment", "x")])),
        file(Blocks::new().global(&[("path", "x")])),
        file(Blocks::new().global(&[("size", "512")])),
        file(Blocks::new().member(b'L', "", b"\0\0")),
        file(Blocks::new().member(b'L', "", b"a\0b\0")),
        file(Blocks::new().member(b'x', "", b"9 size=1")),
        Blocks::new().long(b'L', "a").end(),
        Blocks::new().pax(&[("uid", "1")]).end(),
    ] {
        assert_refused!(archive, ArchiveError::Extension { .. });
    }
    for archive in [
        file(Blocks::new().pax(&[("path", "x")]).long(b'L', "y")),
        file(Blocks::new().pax(&[("path", "x\0y")])),
        Blocks::new().pax(&[("linkpath", "x")]).long(b'K', "y").link(b'2', "l", "z").end(),
        Blocks::new().pax(&[("linkpath", "x\0y")]).link(b'2', "l", "z").end(),
        Blocks::new().link(b'2', "l", "").end(),
        Blocks::new().link(b'1', "l", "").end(),
        Blocks::new().file("file/", b"x").end(),
    ] {
        assert_refused!(archive, ArchiveError::Name { .. });
    }
    let agreeing = file(Blocks::new().pax(&[("path", "x")]).long(b'L', "x"));
    assert_eq!(paths(&agreeing).unwrap(), ["x"]);
    assert_refused!(Blocks::new().long(b'L', "a").0, ArchiveError::Truncated { .. });
    assert_refused!(Blocks::new().long(b'L', "a").member(b'D', "d", b"").end(), ArchiveError::Type { .. });
}

#[test]
fn what_is_no_regular_file_has_no_body() {
    for typeflag in [b'1', b'2', b'3', b'4', b'5', b'6'] {
        let mut header = Blocks::header(typeflag, "d", 512);
        header.as_old_mut().linkname[0] = b'x';
        let archive = Blocks::new().put(header).body(&Blocks::new().file("smuggled", b"").0).end();
        assert_refused!(archive, ArchiveError::Body { size: 512, .. });
        let archive = Blocks::new().pax(&[("size", "512")]).link(typeflag, "d", "x").end();
        assert_refused!(archive, ArchiveError::Body { size: 512, .. });
    }
}

#[test]
fn prefixes_are_read_from_posix_headers_only() {
    let mut header = Blocks::header(b'0', "name", 0);
    header.as_ustar_mut().unwrap().prefix[..3].copy_from_slice(b"dir");
    assert_eq!(paths(&Blocks::new().put(header.clone()).end()).unwrap(), ["dir/name"]);
    header.as_ustar_mut().unwrap().version = [0, 0];
    assert_refused!(Blocks::new().put(header.clone()).end(), ArchiveError::Name { .. });
    // Python and BusyBox see a prefix in a header of the seventh edition, too.
    header.as_mut_bytes()[257..265].fill(0);
    assert_refused!(Blocks::new().put(header.clone()).end(), ArchiveError::Name { .. });
    // Go takes what is no time for the prefix that its own writer once put there.
    header.as_mut_bytes()[257..265].copy_from_slice(b"ustar  \0");
    assert_refused!(Blocks::new().put(header.clone()).end(), ArchiveError::Name { .. });
    header.as_mut_bytes()[345..357].copy_from_slice(b"14000000000\0");
    assert_eq!(paths(&Blocks::new().put(header.clone()).end()).unwrap(), ["name"]);
    header.as_mut_bytes()[357] = b'x';
    assert_refused!(Blocks::new().put(header).end(), ArchiveError::Name { .. });
    // Star's prefix ends where its times begin.
    let mut header = Blocks::header(b'0', "name", 0);
    header.as_mut_bytes()[345..476].fill(b'p');
    header.as_mut_bytes()[508..].copy_from_slice(b"tar\0");
    assert!(paths(&Blocks::new().put(header.clone()).end()).is_ok());
    header.as_mut_bytes()[476] = b'p';
    assert_refused!(Blocks::new().put(header).end(), ArchiveError::Name { .. });
}

#[test]
fn old_directories_end_with_a_slash() {
    let archive =
        Blocks::new().member(0, "etc/", b"").member(0, "etc/file", b"x").member(b'5', "var//", b"").end();
    let entries = read(&archive).unwrap();
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| (entry.shown(), entry.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("etc".into(), EntryKind::Directory),
            ("etc/file".into(), EntryKind::File),
            ("var".into(), EntryKind::Directory)
        ]
    );
}

#[test]
fn every_type_is_told() {
    let mut device = Blocks::header(b'3', "null", 0);
    device.set_device_major(1).unwrap();
    device.set_device_minor(3).unwrap();
    let mut block = device.clone();
    block.as_old_mut().linkflag = *b"4";
    let archive = Blocks::new()
        .member(b'7', "contiguous", b"x")
        .link(b'1', "h", "contiguous")
        .link(b'2', "s", "../victim")
        .put(device)
        .put(block)
        .member(b'6', "fifo", b"")
        .end();
    let kinds: Vec<_> = read(&archive).unwrap().into_iter().map(|(entry, _)| entry.kind).collect();
    let device = (1, 3);
    assert_eq!(
        kinds,
        [
            EntryKind::File,
            EntryKind::HardLink,
            EntryKind::Symlink,
            EntryKind::CharDevice { major: device.0, minor: device.1 },
            EntryKind::BlockDevice { major: device.0, minor: device.1 },
            EntryKind::Fifo
        ]
    );
    for typeflag in [b'D', b'M', b'V', b'N', b'X', b'8', 0xff] {
        assert_refused!(Blocks::new().member(typeflag, "odd", b"").end(), ArchiveError::Type { .. });
    }
}

// Numbers.

#[test]
fn numbers_out_of_range_name_the_member() {
    let with = |change: &dyn Fn(&mut tar::OldHeader)| {
        let mut header = Blocks::header(b'0', "odd", 0);
        change(header.as_old_mut());
        Blocks::new().put(header).end()
    };
    let minus_one = [0xff; 12];
    for archive in [
        with(&|header| header.size = minus_one),
        with(&|header| header.size = [0xbf; 12]),
        with(&|header| header.size = *b"12345678\0\0\0\0"),
        with(&|header| header.uid = [0xff; 8]),
        with(&|header| header.uid = [0x80, 0, 0, 1, 0, 0, 0, 0]),
        with(&|header| header.gid = [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        with(&|header| header.mtime = [0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        with(&|header| header.mode = *b"worldrw\0"),
    ] {
        let error = read(&archive).unwrap_err();
        assert!(matches!(&error, ArchiveError::Number { member, .. } if member == "odd"), "{error:?}");
    }
    for record in [
        ("size", "-1"),
        ("size", "9223372036854775808"),
        ("size", "18446744073709551616"),
        ("uid", "4294967296"),
        ("uid", "4294967295"),
        ("gid", "-1"),
        ("mtime", "9223372036854775808"),
        ("mtime", "soon"),
    ] {
        assert_refused!(Blocks::new().pax(&[record]).file("odd", b"").end(), ArchiveError::Number { .. });
    }
    let mut device = Blocks::header(b'3', "odd", 0);
    device.as_ustar_mut().unwrap().dev_minor = [0xff; 8];
    assert_refused!(Blocks::new().put(device).end(), ArchiveError::Number { .. });
}

#[test]
fn large_and_negative_numbers_are_read() {
    let mut header = Blocks::header(b'0', "odd", 0);
    header.set_uid(1 << 31);
    header.as_old_mut().mtime = [0xff; 12];
    header.as_old_mut().mode = *b"104755 \0";
    let (entry, _) = read(&Blocks::new().put(header).end()).unwrap().remove(0);
    assert_eq!((entry.uid, entry.mode), (1 << 31, 0o4755));
    assert_eq!(entry.mtime, Timestamp { seconds: -1, nanoseconds: 0 });
    // A field that a record overrides may be nonsense.
    let mut header = Blocks::header(b'0', "odd", 0);
    header.as_old_mut().uid = *b"nonsense";
    let archive = Blocks::new().pax(&[("uid", "4000000000"), ("mtime", "-1.5")]).put(header).end();
    let (entry, _) = read(&archive).unwrap().remove(0);
    assert_eq!(entry.uid, 4_000_000_000);
    assert_eq!(entry.mtime, Timestamp { seconds: -2, nanoseconds: 500_000_000 });
}

#[test]
fn global_records_are_defaults_until_taken_back() {
    let archive = Blocks::new()
        .global(&[("comment", "0123abc"), ("uid", "7"), ("mtime", "5")])
        .file("a", b"")
        .pax(&[("uid", "8")])
        .file("b", b"")
        .pax(&[("uid", "")])
        .file("c", b"")
        .global(&[("uid", "9")])
        .file("d", b"")
        .end();
    let owners: Vec<_> =
        read(&archive).unwrap().iter().map(|(entry, _)| (entry.uid, entry.mtime.seconds)).collect();
    assert_eq!(owners, [(7, 5), (8, 5), (0, 5), (9, 5)]);
}

#[test]
fn signed_checksums_are_accepted_and_wrong_ones_are_not() {
    let header = Blocks::header(b'0', "n", 0);
    let mut block = *header.as_bytes();
    block[1] = 0xe9;
    let sum = |signed: bool| -> i32 {
        let bytes =
            block.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { b' ' } else { byte });
        bytes.map(|byte| if signed { i32::from(byte as i8) } else { i32::from(byte) }).sum()
    };
    for (sum, good) in [(sum(false), true), (sum(true), true), (sum(true) + 1, false)] {
        let mut block = block;
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let archive = Blocks::new().file("first", b"").bytes(&block).end();
        assert_eq!(read(&archive).is_ok(), good);
    }
}

// Ends.

#[test]
fn the_end_may_be_short_and_what_follows_is_not_read() {
    let file = Blocks::new().file("a", b"abc");
    let smuggled = Blocks::new().file("b", b"").end();
    for tail in [
        &[][..],
        &[0; 512],
        &[0; 700],
        &[0; 1024],
        &[0; 10240],
        &[&[0; 1024][..], &smuggled].concat(),
        &[&[0; 1024][..], b"junk"].concat(),
    ] {
        let archive = file.clone().bytes(tail).0;
        assert_eq!(paths(&archive).unwrap(), ["a"], "{}", tail.len());
        let mut notes = Notes::default();
        read_tapped(&archive, &mut notes, Limits::default()).unwrap();
        let [Note::Raw(header), Note::Content(0, 0, 3), Note::Raw(rest)] = notes.0.as_slice() else {
            panic!("{:?}", notes.0)
        };
        assert_eq!((header.as_slice(), rest.as_slice()), (&archive[..512], &archive[515..]));
    }
    assert_refused!(
        file.bytes(&[0; 512]).bytes(&smuggled).0,
        ArchiveError::LoneEndBlock { offset: 1024, .. }
    );
    assert!(paths(&[0; 1024]).unwrap().is_empty(), "an empty layer");
    assert!(paths(&[0; 512]).unwrap().is_empty());
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    assert_refused!([], ArchiveError::Truncated { .. });
    assert_refused!(*b"PK\x03\x04 a zip", ArchiveError::Short { length: 10 });
    let noise: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert_refused!(noise, ArchiveError::NotTar);
    assert_refused!([b"PK\x03\x04".as_slice(), &[0; 2000]].concat(), ArchiveError::NotTar);
    let broken = Blocks::new().file("a", b"").bytes(&noise).0;
    let error = read(&broken).unwrap_err();
    assert!(
        matches!(&error, ArchiveError::Checksum { offset: 512, previous } if previous == "a"),
        "{error:?}"
    );
}

#[test]
fn a_cut_is_noticed_at_every_byte() {
    let archive = Blocks::new()
        .file("first", b"0123456789")
        .pax(&[("path", "second"), ("mtime", "1.5")])
        .file("x", &[7; 600])
        .long(b'L', "third")
        .member(b'5', "y", b"")
        .end();
    let end_blocks = archive.len() - 1024;
    for end in 0..archive.len() {
        // Between members nothing tells a cut from an archive without end blocks, nor does it in the padding of a
        // content.
        let first = 522..=1024;
        let second = 1024 + 512 * 3 + 600..=1024 + 512 * 5;
        let complete =
            first.contains(&end) || second.contains(&end) || end == end_blocks || end >= end_blocks + 512;
        match paths(&archive[..end]) {
            Ok(_) => assert!(complete, "a cut at {end} went unnoticed"),
            Err(ArchiveError::Short { length }) => assert!(length == end && (1..512).contains(&end)),
            Err(error) => {
                assert!(!complete && matches!(error, ArchiveError::Truncated { .. }), "{end}: {error:?}");
            }
        }
    }
}

#[test]
fn nothing_comes_after_an_error() {
    let archive = Blocks::new().member(b'D', "odd", b"").file("a", b"").end();
    let mut reader = Reader::new(archive.as_slice(), ());
    assert!(reader.next_entry().is_err());
    assert!(reader.next_entry().unwrap().is_none());
}

#[test]
fn errors_of_the_source_and_the_tap_keep_their_cause() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    impl Tap for Broken {
        fn raw(&mut self, _: &[u8]) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn content(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }
    let archive = Blocks::new().file("a", b"abc").0;
    let mut reader = Reader::new(archive[..514].chain(Broken), ());
    reader.next_entry().unwrap();
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let error = reader.next_entry().unwrap_err();
    assert!(matches!(error, ArchiveError::Read(cause) if cause.kind() == io::ErrorKind::ConnectionReset));
    let error = Reader::new(archive.as_slice(), Broken).next_entry().unwrap_err();
    assert!(matches!(error, ArchiveError::Keep(cause) if cause.kind() == io::ErrorKind::StorageFull));
}

// Limits.

#[test]
fn limits_hold() {
    let limits =
        Limits { pax_bytes: 100, sparse_extents: 2, hole_bytes: 10_000, entries: 2, ..Limits::DEFAULT };
    let refused = |archive: Vec<u8>| {
        let error = read_tapped(&archive, &mut (), limits).unwrap_err();
        assert!(matches!(error, ArchiveError::Limit { .. }), "{error:?}");
    };
    refused(Blocks::new().file("a", b"").file("b", b"").file("c", b"").end());
    refused(Blocks::new().long(b'L', &"x".repeat(100)).file("a", b"").end());
    // The claim alone is refused, not only the bytes.
    refused(Blocks::new().put(Blocks::header(b'x', "x", 1 << 40)).0);
    refused(sparse_records("20000", "0,1", b"x"));
    refused(sparse_records("9000", "0,512,1024,512,2048,512", &[1; 1536]));
    refused(sparse_text("9000", "3\n0\n512\n1024\n512\n2048\n512\n", &[1; 1536]));
    assert!(read_tapped(&sparse_records("9000", "0,512,1024,512", &[1; 1024]), &mut (), limits).is_ok());
    // Whatever the form: entries without length are not kept, but count.
    let empty = [(0, 0); 3];
    refused(sparse_old(0, &empty, b""));
    refused(sparse_old(0, &[(0, 0); 420], b""));
    refused(sparse_records("9000", "0,0,0,0,0,0", b""));
    refused(sparse_text("9000", "3\n0\n0\n0\n0\n0\n0\n", b""));
    assert!(read_tapped(&sparse_old(0, &empty[..2], b""), &mut (), limits).is_ok());
    let eight_exbibytes = sparse_records("9223372036854775807", "0,1", b"x");
    assert_refused!(eight_exbibytes, ArchiveError::Limit { .. });
    let million = format!("1000000\n{}", "0\n0\n".repeat(1_000_000));
    assert_refused!(sparse_text("1", &million, b""), ArchiveError::Limit { .. });
}

// Sparse files.

fn sparse_records(size: &str, map: &str, stored: &[u8]) -> Vec<u8> {
    let records = [("GNU.sparse.size", size), ("GNU.sparse.name", "s"), ("GNU.sparse.map", map)];
    Blocks::new().pax(&records).file("GNUSparseFile.0/s", stored).file("after", b"").end()
}

fn sparse_text(size: &str, map: &str, stored: &[u8]) -> Vec<u8> {
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.realsize", size),
    ];
    let body = [&Blocks::new().body(map.as_bytes()).0, stored].concat();
    Blocks::new().pax(&records).file("GNUSparseFile.0/s", &body).file("after", b"").end()
}

/// An old GNU sparse file. Four entries go into the header, the rest into extension blocks.
fn sparse_old(size: u64, regions: &[(u64, u64)], stored: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[0] = b's';
    header.as_old_mut().linkflag = *b"S";
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(stored.len() as u64);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    gnu.set_is_extended(regions.len() > 4);
    let mut regions = regions.iter();
    for (slot, &(offset, len)) in gnu.sparse.iter_mut().zip(regions.by_ref().take(4)) {
        slot.set_offset(offset);
        slot.set_length(len);
    }
    let mut blocks = Blocks::new().put(header);
    while regions.len() > 0 {
        let mut extension = tar::GnuExtSparseHeader::new();
        for (slot, &(offset, len)) in extension.sparse_mut().iter_mut().zip(regions.by_ref().take(21)) {
            slot.set_offset(offset);
            slot.set_length(len);
        }
        extension.set_is_extended(regions.len() > 0);
        blocks = blocks.bytes(extension.as_bytes());
    }
    blocks.body(stored).file("after", b"").end()
}

#[test]
fn every_sparse_form_is_read() {
    let pairs = [
        ("GNU.sparse.size", "2000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "1500"),
        ("GNU.sparse.numbytes", "3"),
    ];
    let mut body = Vec::new();
    for (key, value) in pairs {
        crate::archive::pax::put_record(&mut body, key.as_bytes(), value.as_bytes());
    }
    let stored = [[1; 512].as_slice(), &[2; 3]].concat();
    let mut expected = vec![0; 2000];
    expected[..512].fill(1);
    expected[1500..1503].fill(2);
    let oldest = Blocks::new().member(b'x', "x", &body).file("s", &stored).file("after", b"").end();
    let old = sparse_old(2000, &[(0, 512), (1500, 3), (2000, 0)], &stored);
    assert_agrees(&old);
    for archive in [
        oldest,
        sparse_records("2000", "0,512,1500,3", &stored),
        sparse_text("2000", "3\n0\n512\n1500\n3\n2000\n0\n", &stored),
        old,
    ] {
        let mut notes = Notes::default();
        let entries = read_tapped(&archive, &mut notes, Limits::default()).unwrap();
        let (entry, content) = &entries[0];
        assert_eq!((entry.shown().as_str(), entry.size, entry.stored), ("s", 2000, 515));
        assert_eq!(whole(entry, content), expected);
        assert_eq!(entries[1].0.path, b"after");
        assert!(matches!(&notes.0[1..3], [Note::Content(0, 0, 512), Note::Content(0, 1500, 3)]));
    }
    let many: Vec<_> = (0..60).map(|i| (i * 1024, 512)).collect();
    let archive = sparse_old(59 * 1024 + 512, &many, &[9; 60 * 512]);
    assert_agrees(&archive);
    let holes_only = sparse_text("5000", "0\n", b"");
    let (entry, _) = read(&holes_only).unwrap().remove(0);
    assert_eq!((entry.size, entry.stored, entry.sparse, entry.ordinal), (5000, 0, Some(Vec::new()), None));
}

#[test]
fn bad_sparse_maps_are_refused() {
    for archive in [
        sparse_records("2000", "0,512,100,512", &[0; 1024]),
        sparse_records("2000", "1024,512,0,512", &[0; 1024]),
        sparse_records("2000", "0,2001", &[0; 2001]),
        sparse_records("2000", "0,1024", &[0; 512]),
        sparse_records("2000", "0,512", &[0; 1024]),
        sparse_records("2000", "0,3,1024,512", &[0; 515]),
        sparse_records("2000", "0", b""),
        sparse_records("2000", "0,x", b""),
        sparse_records("", "0,1", b"x"),
        sparse_records("-1", "0,1", b"x"),
        sparse_records("2000", "18446744073709551615,2", b"xx"),
        sparse_text("2000", "1\n0\n", b""),
        sparse_text("2000", "1\n\n0\n", b""),
        sparse_text("2000", "x\n", b""),
        sparse_text("2000", "99999999999999999999\n", b""),
        sparse_old(2000, &[(0, 512), (100, 512)], &[0; 1024]),
        sparse_old(2000, &[(0, 512)], &[0; 1024]),
        Blocks::new().member(b'S', "no GNU header", b"").end(),
        Blocks::new().pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")]).file("a", b"").end(),
        Blocks::new().pax(&[("GNU.sparse.name", "b")]).file("a", b"").end(),
        Blocks::new().pax(&[("GNU.sparse.name", "b"), ("GNU.sparse.size", "9")]).file("a", b"").end(),
        Blocks::new()
            .pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.realsize", "8"), ("GNU.sparse.map", "0,3")])
            .file("a", b"abc")
            .end(),
        Blocks::new().pax(&[("GNU.sparse.size", "0")]).member(b'5', "a", b"").end(),
    ] {
        assert_refused!(archive, ArchiveError::Sparse { .. });
    }
}

// Anything.

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(read(&bytes).is_ok() || read(&bytes).is_err());
    }

    /// Valid headers with some bytes changed come much further than noise does.
    #[test]
    fn no_changed_archive_panics_or_loses_bytes(
        changes in prop::collection::vec((0usize..8 * 512, any::<u8>()), 0..6),
        form in 0usize..4,
    ) {
        let mut archive = match form {
            0 => sparse_old(9000, &[(0, 512), (1024, 512), (2048, 512), (4096, 512), (8192, 5)], &[3; 2053]),
            1 => sparse_text("9000", "2\n0\n512\n1500\n3\n", &[1; 515]),
            2 => sparse_records("9000", "0,512,1500,3", &[1; 515]),
            _ => Blocks::new().pax(&[("size", "3"), ("uid", "5")]).long(b'L', "x").file("a", b"abc").end(),
        };
        for (at, byte) in changes {
            let at = at % archive.len();
            archive[at] = byte;
            let start = at - at % 512;
            if let Some(block) = archive.get_mut(start..start + 512) {
                let mut header = tar::Header::from_byte_slice(block).clone();
                header.set_cksum();
                if at % 3 == 0 {
                    block.copy_from_slice(header.as_bytes());
                }
            }
        }
        let mut notes = Notes::default();
        if let Ok(entries) = read_tapped(&archive, &mut notes, Limits::default()) {
            let mut contents = entries.iter().filter(|(entry, _)| entry.ordinal.is_some());
            let (mut again, mut current) = (Vec::new(), (None, 0));
            for note in &notes.0 {
                match note {
                    Note::Raw(bytes) => again.extend_from_slice(bytes),
                    Note::Content(ordinal, _, len) => {
                        if current.0 != Some(*ordinal) {
                            current = (Some(*ordinal), 0);
                            let (entry, content) = contents.next().unwrap();
                            prop_assert_eq!(entry.ordinal, Some(*ordinal));
                            again.extend_from_slice(content);
                        }
                        current.1 += len;
                    }
                }
            }
            prop_assert!(again == archive, "the tap did not see every byte in order");
        }
    }
}
