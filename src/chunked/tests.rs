use serde_json::{Value, json};

use super::*;
use crate::archive::{Entry, EntryKind};
use crate::types::{Limits, Timestamp};

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A table in which everything occurs; its blob has the archive in its first thousand bytes.
fn table() -> Value {
    json!({ "version": 1, "tarSplitDigest": SHA, "entries": [
        { "type": "dir", "name": "d/", "mode": 0o755, "modtime": "2026-01-02T03:04:05.5+01:00" },
        { "type": "reg", "name": "d/whole", "mode": 0o100644, "size": 5, "uid": 7, "gid": 8, "digest": SHA,
          "offset": 100, "endOffset": 150, "modtime": "0001-01-01T00:00:00Z", "xattrs": { "user.a": "AGI=" } },
        { "type": "reg", "name": "parts", "size": 30, "digest": SHA, "offset": 200, "endOffset": 300,
          "chunkSize": 10, "chunkDigest": SHA },
        { "type": "chunk", "name": "parts", "offset": 230, "chunkOffset": 10, "chunkSize": 15, "chunkDigest": SHA,
          "chunkType": "zeros" },
        { "type": "chunk", "name": "parts", "offset": 240, "chunkOffset": 25, "chunkSize": 5, "chunkDigest": SHA },
        { "type": "reg", "name": "empty" },
        { "type": "symlink", "name": "s", "linkName": "../x" },
        { "type": "hardlink", "name": "h", "linkName": "parts" },
        { "type": "char", "name": "c", "devMajor": 1, "devMinor": 3 },
        { "type": "fifo", "name": "p", "NumLink": 1 },
    ]})
}

/// Which limit something goes beyond, and what was met; `None` if it is accepted.
fn limit_of<T>(result: Result<T, ChunkedError>) -> Option<(Limit, Option<u64>)> {
    match result {
        Ok(_) => None,
        Err(ChunkedError::Limit(limit)) => Some((limit.limit, limit.found)),
        Err(error) => panic!("{error:?}"),
    }
}

fn parse(table: &Value) -> Result<Toc, ChunkedError> {
    Toc::parse(&serde_json::to_vec(table).unwrap(), 1000, &Limits::DEFAULT)
}

#[test]
fn a_table_is_read() {
    let toc = parse(&table()).unwrap();
    assert_eq!(toc.tar_split, Some(SHA.parse().unwrap()));
    assert_eq!(toc.entries.len(), 8);
    let is = |at: usize, entry: Entry| assert_eq!(toc.entries[at].entry, entry.into());
    let time = Timestamp { seconds: 1_767_319_445, nanoseconds: 500_000_000 };
    is(0, Entry { mtime: time, ..Entry::new("d", EntryKind::Directory) });
    let xattrs = vec![(b"user.a".to_vec(), b"\0b".to_vec())];
    let file =
        Entry { mode: 0o644, uid: 7, gid: 8, size: 5, xattrs, ..Entry::new("d/whole", EntryKind::File) };
    is(1, file);
    let places = |at: usize| -> Vec<_> {
        let chunks = &toc.entries[at].content.as_ref().unwrap().chunks;
        chunks.iter().map(|chunk| (chunk.offset, chunk.size, chunk.range.clone(), chunk.zeros)).collect()
    };
    assert_eq!(places(1), [(0, 5, 100..150, false)]);
    assert_eq!(places(2), [(0, 10, 200..230, false), (10, 15, 230..240, true), (25, 5, 240..300, false)]);
    assert!(toc.entries[3].content.is_none());
    is(6, Entry { mode: 0, ..Entry::new("c", EntryKind::CharDevice { major: 1, minor: 3 }) });
    assert!(parse(&json!({ "version": 1, "entries": null })).unwrap().entries.is_empty(), "as Go writes it");
}

#[test]
fn what_cannot_be_true_is_refused() {
    for (pointer, value) in [
        ("/entries/0/name", json!("../d")),
        ("/entries/0/name", json!("a\0b")),
        ("/entries/0/type", json!("sock")),
        ("/entries/0/size", json!(1)),
        ("/entries/0/modtime", json!("yesterday")),
        ("/entries/0/linkName", json!("d")),
        ("/entries/1/uid", json!(u32::MAX)),
        ("/entries/1/gid", json!(1u64 << 32)),
        ("/entries/1/size", json!(u64::MAX)),
        ("/entries/1/size", json!(0)),
        ("/entries/1/digest", json!("")),
        ("/entries/1/digest", json!(SHA[..70])),
        ("/entries/1/offset", json!(0)),
        ("/entries/1/offset", json!(150)),
        ("/entries/1/endOffset", json!(1001)),
        ("/entries/1/endOffset", json!(u64::MAX)),
        ("/entries/1/endOffset", json!(201)),
        ("/entries/1/xattrs/user.a", json!("A")),
        ("/entries/1/xattrs", json!({ "": "" })),
        ("/entries/2/size", json!(31)),
        ("/entries/2/chunkSize", json!(11)),
        ("/entries/2/chunkDigest", json!("")),
        ("/entries/2/chunkOffset", json!(1)),
        ("/entries/3/name", json!("other")),
        ("/entries/3/offset", json!(200)),
        ("/entries/3/offset", json!(300)),
        ("/entries/3/offset", json!(u64::MAX)),
        ("/entries/3/chunkSize", json!(0)),
        ("/entries/3/chunkSize", json!(u64::MAX)),
        ("/entries/3/chunkOffset", json!(9)),
        ("/entries/3/chunkDigest", json!("")),
        ("/entries/3/chunkType", json!("ones")),
        ("/entries/4/offset", json!(230)),
        ("/entries/5/type", json!("chunk")),
        ("/entries/5/chunkSize", json!(1)),
        ("/entries/6/linkName", json!("")),
        ("/entries/7/linkName", json!("../x")),
        ("/entries/8/devMajor", json!(1u64 << 32)),
        ("/entries/3/xattrs", json!({ "": "" })),
        ("/tarSplitDigest", json!("sha256:1")),
    ] {
        let mut bad = table();
        match bad.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => {
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                bad.pointer_mut(parent).unwrap()[key] = value.clone();
            }
        }
        let error = parse(&bad).unwrap_err();
        assert!(matches!(error, ChunkedError::Entry { .. }), "{pointer} {value}: {error:?}");
    }
    for (pointer, value) in
        [("/entries/1/size", json!(-1)), ("/entries/1/size", json!(1.5)), ("/entries", json!({}))]
    {
        let mut bad = table();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(matches!(parse(&bad), Err(ChunkedError::Json(_))));
    }
    for version in [json!(2), json!(0)] {
        assert!(matches!(parse(&json!({ "version": version })), Err(ChunkedError::Version { .. })));
    }
    for text in [
        r#"{"version":1,"entries":[],"entries":[]}"#,
        r#"{"version":1,"Entries":[]}"#,
        r#"{"version":1} "#,
        r#"{"version":1}x"#,
        r#"{"version":1,"entries":[{"type":"dir","name":"a","name":"b"}]}"#,
        &format!(r#"{{"version":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000)),
        &format!(r#"{{"version":1,"entries":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000)),
    ] {
        let parsed = Toc::parse(text.as_bytes(), 1000, &Limits::DEFAULT);
        assert!(parsed.is_ok() == (text == r#"{"version":1} "#), "{}", &text[..text.len().min(100)]);
    }
}

/// Other readers would take them for keys that are read, and see another layer under the same digest.
#[test]
fn keys_that_others_take_for_another_are_refused() {
    for (pointer, keys) in [
        ("", &["Version", "ver\u{17f}ion", "entr\u{130}es", "tarsplitdigest", ""][..]),
        ("/entries/0", &["NAME", "linkname", "LinKName", "lin\u{212a}Name", "l\u{130}nkName", "Xattrs", ""]),
        ("/entries/1", &["Size", "\u{17f}ize", "endoffset", "ModTime", "dige\u{17f}t"]),
        ("/entries/3", &["chunkoffset", "chun\u{212a}Size", ""]),
    ] {
        for key in keys {
            let mut bad = table();
            let place = bad.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            place.insert((*key).to_owned(), json!("../evil"));
            let Err(ChunkedError::Json(error)) = parse(&bad) else { panic!("{pointer}: {key:?}") };
            assert!(error.to_string().contains("other programs take the key"), "{error}");
        }
    }
    // What nobody takes for another is passed over.
    let mut good = table();
    good["names"] = json!([]);
    good["entries"][0]["userName"] = json!("NAME");
    good["entries"][1]["xattrs"]["USER.A"] = json!("");
    assert_eq!(parse(&good).unwrap().entries.len(), 8);
    let line = |key: &str| format!(r#"{{"type":2,"payload":"AA==","{key}":"AAA="}}"#) + "\n";
    for (key, good) in
        [("other", true), ("Payload", false), ("na\u{2139}e", true), ("\u{17f}ize", false), ("", false)]
    {
        let line = line(key);
        assert_eq!(tar_split::SplitLines::new(line.as_bytes()).next_part().is_ok(), good, "{line}");
    }
}

#[test]
fn tables_are_bounded() {
    let one = r#"{"type":"dir","name":"a"}"#;
    let limits = Limits { toc_entries: 1000, ..Limits::DEFAULT };
    for (count, expected) in [(1000, None), (1001, Some((Limit::TocEntries, Some(1001))))] {
        let json = format!(r#"{{"version":1,"entries":[{}{one}]}}"#, format!("{one},").repeat(count - 1));
        assert_eq!(limit_of(Toc::parse(json.as_bytes(), 0, &limits)), expected);
    }
    let many: serde_json::Map<_, _> = (0..100_000).map(|at| (at.to_string(), json!(""))).collect();
    let xattrs = json!({ "version": 1, "entries": [{ "type": "dir", "name": "a", "xattrs": many }] });
    assert_eq!(limit_of(parse(&xattrs)).unwrap().0, Limit::PaxBytes);
    let bytes = zstd::bulk::compress(&vec![b' '; 1 << 20], 1).unwrap();
    for (unpacked, good) in [(1 << 20, true), ((1 << 20) - 1, false), ((1 << 20) + 1, false)] {
        assert_eq!(unpack("it", &bytes, &Digest::sha256(&bytes), unpacked, &Limits::DEFAULT).is_ok(), good);
    }
    let other = unpack("it", &bytes, &SHA.parse().unwrap(), 1, &Limits::DEFAULT);
    assert!(matches!(other, Err(ChunkedError::Digest { .. })));
}

#[test]
fn annotations_and_footers_say_the_same() {
    let (toc, split) = (BlobSpan::new(5000, 800, 3000), BlobSpan::new(5808, 90, 400));
    let blob = ChunkedBlob::new(SHA.parse().unwrap(), toc, Some(split)).unwrap();
    assert_eq!(ChunkedBlob::from_annotations(&blob.annotations()).unwrap(), Some(blob.clone()));
    assert_eq!(blob.end_of_archive(), 4992);
    let tail = [&[7; 100][..], &place::skipped_frame(&place::footer(toc, split)).unwrap()].concat();
    assert_eq!(ChunkedBlob::from_footer(&tail, SHA.parse().unwrap()).unwrap(), blob);
    for at in 100..tail.len() {
        let mut bad = tail.clone();
        bad[at] ^= 0x80;
        let found = ChunkedBlob::from_footer(&bad, SHA.parse().unwrap());
        assert!(found.is_err() || found.unwrap() != blob, "a changed byte {at} went unnoticed");
    }
    assert!(ChunkedBlob::from_footer(&tail[..71], SHA.parse().unwrap()).is_err());
    assert!(blob.annotations().keys().all(|key| is_of_blob(key)));
}

#[test]
fn annotations_of_nowhere_are_refused() {
    let parse = |position: &str, split: &str| {
        let prefix = "io.github.containers.zstd-chunked.";
        let pairs =
            [("manifest-checksum", SHA), ("manifest-position", position), ("tarsplit-position", split)];
        ChunkedBlob::from_annotations(
            &pairs.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value.to_owned())).collect(),
        )
    };
    assert!(parse("8:1:1:1", "8:1:1").is_ok());
    for bad in [
        "",
        "8:1:1",
        "8:1:1:2",
        "8:1:1:1:1",
        "-8:1:1:1",
        "+8:1:1:1",
        "8:0:1:1",
        "7:1:1:1",
        "8::1:1",
        " 8:1:1:1",
        "18446744073709551615:1:1:1",
        "18446744073709551616:1:1:1",
        "8:4294967296:1:1",
    ] {
        assert!(parse(bad, "8:1:1").is_err(), "{bad}");
        assert!(bad.len() == 5 || parse("8:1:1:1", bad).is_err(), "{bad}");
    }
}

/// What an archive would have that is in the table.
fn listing() -> Vec<(Entry, Option<Digest>)> {
    let sha: Digest = SHA.parse().unwrap();
    let time = Timestamp { seconds: 1_767_319_445, nanoseconds: 500_000_000 };
    let xattrs = vec![(b"user.a".to_vec(), b"\0b".to_vec())];
    let new = |name: &str, kind| Entry { mode: 0, ..Entry::new(name, kind) };
    let link = |name, kind, target: &str| Entry { link: target.into(), ..new(name, kind) };
    let whole = Entry { mode: 0o644, uid: 7, gid: 8, size: 5, xattrs, ..new("d/whole", EntryKind::File) };
    vec![
        (Entry { mode: 0o755, mtime: time, ..new("d", EntryKind::Directory) }, None),
        (whole, Some(sha.clone())),
        (Entry { size: 30, ..new("parts", EntryKind::File) }, Some(sha)),
        (new("empty", EntryKind::File), None),
        (link("s", EntryKind::Symlink, "../x"), None),
        (link("h", EntryKind::HardLink, "parts"), None),
        (new("c", EntryKind::CharDevice { major: 1, minor: 3 }), None),
        (new("p", EntryKind::Fifo), None),
    ]
}

fn compared(members: Vec<(Entry, Option<Digest>)>) -> Result<(), ChunkedError> {
    let toc = parse(&table()).unwrap();
    let check = |mut listing: Listing| {
        members.iter().cloned().for_each(|(entry, content)| listing.push(entry, content));
        listing.agrees_with(&toc)
    };
    let known = check(Listing::for_table(&toc)).map_err(|error| error.to_string());
    let read =
        check(Listing::for_length(serde_json::to_vec(&table()).unwrap().len() as u64, &Limits::DEFAULT));
    assert_eq!(known.is_ok(), read.is_ok(), "{known:?} {read:?}");
    read
}

#[test]
fn a_listing_takes_no_more_than_its_table_can_have() {
    let toc = parse(&table()).unwrap();
    let xattrs: Vec<_> = (0..16).map(|at| (format!("user.{at}").into_bytes(), vec![b'x'; 60_000])).collect();
    let link = Entry { link: vec![b'l'; 100_000], ..Entry::new("d", EntryKind::HardLink) };
    let member = Entry { xattrs, ..link };
    let mut listing = Listing::for_length(1 << 20, &Limits::DEFAULT);
    (0..100).for_each(|_| listing.push(member.clone(), None));
    assert!(listing.memory() < 100_000, "{} bytes for 100 members", listing.memory());
    // Neither members nor names beyond what the table can have are kept.
    let is_refused = |listing: &Listing, name: &str| match listing.agrees_with(&toc) {
        Err(ChunkedError::Disagrees { entry, what }) => {
            assert_eq!((&*entry, what), (name, "only the archive has it"));
        }
        other => panic!("{other:?}"),
    };
    let small = |name: &str| Entry::new(name, EntryKind::File);
    let mut listing = Listing::for_length(26 * 1000, &Limits::DEFAULT);
    (0..1001).for_each(|at| listing.push(small(&at.to_string()), None));
    assert_eq!(listing.memory(), 0);
    is_refused(&listing, "1000");
    let mut listing = Listing::for_table(&toc);
    listing.push(small(&"n".repeat(200)), None);
    is_refused(&listing, &"n".repeat(200));
    let limits = Limits { toc_entries: 1000, ..Limits::DEFAULT };
    let mut listing = Listing::for_length(u64::MAX, &limits);
    (0..=1000).for_each(|_| listing.push(small("n"), None));
    assert_eq!(listing.memory(), 0);
}

#[test]
fn a_table_that_says_something_else_is_found_out() {
    compared(listing()).unwrap();
    let mut reordered = listing();
    reordered.swap(0, 3);
    compared(reordered).unwrap();
    type Change = fn(&mut Entry, &mut Option<Digest>);
    let changes: [(&str, Change); 9] = [
        ("its mode", |entry, _| entry.mode ^= 0o4000),
        ("its owner", |entry, _| entry.uid += 1),
        ("its owner", |entry, _| entry.gid += 1),
        ("its time", |entry, _| entry.mtime.nanoseconds += 1),
        ("its xattrs", |entry, _| entry.xattrs.clear()),
        ("its length", |entry, _| entry.size += 1),
        ("its content", |_, content| *content = Some(Digest::sha256(b"x"))),
        ("its content", |_, content| *content = None),
        ("its type", |entry, _| entry.kind = EntryKind::Fifo),
    ];
    for (expected, change) in changes {
        let mut members = listing();
        let (entry, content) = &mut members[1];
        change(entry, content);
        match compared(members) {
            Err(ChunkedError::Disagrees { entry, what }) => {
                assert_eq!((&*entry, what), ("d/whole", expected))
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    let mut fewer = listing();
    let (gone, _) = fewer.remove(5);
    assert!(
        matches!(compared(fewer), Err(ChunkedError::Disagrees { entry, .. }) if entry.as_bytes() == gone.path)
    );
    let mut more = listing();
    more.push(more[1].clone());
    assert!(matches!(compared(more), Err(ChunkedError::Disagrees { entry, .. }) if entry == "d/whole"));
}

/// The chunks that a content is cut into, with whether they are zeros.
fn cut(content: &[u8], piece: usize) -> Vec<(usize, bool)> {
    use rollsum::{Chunker, Piece};
    let (mut chunks, mut bytes, mut current) = (Vec::new(), Vec::new(), None);
    let mut take = |piece: Piece<'_>| {
        match piece {
            Piece::Cut => chunks.extend(current.take()),
            Piece::Data(data) => {
                bytes.extend_from_slice(data);
                current = Some((current.map_or(0, |(size, _)| size) + data.len(), false));
            }
            Piece::Zeros(zeros) => {
                bytes.extend_from_slice(zeros);
                current = Some((current.map_or(0, |(size, _)| size) + zeros.len(), true));
            }
        }
        Ok(())
    };
    let mut chunker = Chunker::new();
    content.chunks(piece).for_each(|piece| chunker.push(piece, &mut take).unwrap());
    chunker.finish(&mut take).unwrap();
    assert!(bytes == content);
    chunks
}

/// Bytes that look like chance, without zeros.
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 24) as u8).max(1)
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn chunks_follow_from_the_content_alone() {
    let content =
        [noise(1, 500_000), vec![0; 1024], noise(2, 10), vec![0; 1023], noise(3, 300_000), vec![0; 9999]]
            .concat();
    let chunks = cut(&content, content.len());
    assert!(chunks.len() > 8, "{chunks:?}");
    for piece in [1, 7, 1000, 65536] {
        assert_eq!(cut(&content, piece), chunks);
    }
    let zeros: Vec<_> = chunks.iter().filter(|(_, zeros)| *zeros).collect();
    assert_eq!(zeros, [&(1024, true), &(9999, true)], "shorter runs are data");
    // After an insertion the chunks are the same again.
    let changed = [&content[..100_000], b"inserted", &content[100_000..]].concat();
    let after = cut(&changed, 4096);
    let same = after.iter().rev().zip(chunks.iter().rev()).take_while(|(a, b)| a == b).count();
    assert!(same + 4 > chunks.len(), "{same} of {}", chunks.len());
    assert_eq!(cut(b"", 1), []);
}

#[test]
fn checksums_are_those_of_go() {
    let mut checksum = tar_split::Crc64::new();
    checksum.update(b"12345");
    checksum.update(b"6789");
    assert_eq!(checksum.finish(), 0xb909_56c7_75a4_1001);
}

/// Writes an archive and reads the parts back.
fn written(archive: &[u8]) -> (Vec<u8>, ChunkedBlob, Toc) {
    let (blob, place) = encode(archive, Vec::new(), 3).unwrap();
    let at = |span: BlobSpan| usize::try_from(span.offset).unwrap()..usize::try_from(span.end()).unwrap();
    assert!(zstd::decode_all(&blob[..]).unwrap() == archive, "any decoder reads the archive");
    assert_eq!(ChunkedBlob::from_footer(&blob, place.toc_digest.clone()).unwrap(), place);
    let toc = Toc::read(&place, &blob[at(place.toc)], &Limits::DEFAULT).unwrap();
    let span = place.tar_split.unwrap();
    let digest = toc.tar_split.as_ref().unwrap();
    let split = unpack("split", &blob[at(span)], digest, span.unpacked, &Limits::DEFAULT).unwrap();
    let mut lines = tar_split::SplitLines::new(&split[..]);
    let (mut joined, mut contents) = (Vec::new(), toc.entries.iter());
    while let Some(part) = lines.next_part().unwrap() {
        match part {
            tar_split::Part::Raw(bytes) => joined.extend(bytes),
            tar_split::Part::Member { size, .. } => {
                let entry = contents.next().unwrap();
                assert_eq!(size, entry.entry.size);
                for chunk in entry.content.iter().flat_map(|content| &content.chunks) {
                    let range = usize::try_from(chunk.range.start).unwrap()
                        ..usize::try_from(chunk.range.end).unwrap();
                    let bytes = zstd::decode_all(&blob[range]).unwrap();
                    assert_eq!(bytes.len() as u64, chunk.size);
                    let digest = chunk.digest.as_ref().unwrap_or(&entry.content.as_ref().unwrap().digest);
                    assert_eq!(Digest::sha256(&bytes), *digest);
                    assert!(!chunk.zeros || bytes.iter().all(|&byte| byte == 0));
                    joined.extend(bytes);
                }
            }
        }
    }
    assert!(joined == archive, "the tar-split gives the archive back");
    (blob, place, toc)
}

#[test]
fn an_archive_is_written_with_its_table() {
    use crate::archive::testing::Blocks;
    let holes = [noise(4, 3000), vec![0; 70_000], noise(5, 200_000)].concat();
    let archive = Blocks::new()
        .pax(&[("mtime", "1.5"), ("atime", "2.5"), ("ctime", "-3"), ("SCHILY.xattr.user.a", "v")])
        .file("a", b"content")
        .file("empty", b"")
        .file("holes", &holes)
        .end();
    for tail in [&b""[..], &[0; 9000]] {
        let archive = [archive.as_slice(), tail].concat();
        let (blob, place, toc) = written(&archive);
        assert_eq!(encode(&*archive, Vec::new(), 3).unwrap().0, blob, "the same bytes every time");
        assert!(toc.entries[2].content.as_ref().unwrap().chunks.len() > 3);
        let table =
            &blob[usize::try_from(place.toc.offset).unwrap()..usize::try_from(place.toc.end()).unwrap()];
        let table: Value = serde_json::from_slice(&zstd::decode_all(table).unwrap()).unwrap();
        assert_eq!(table["entries"][0]["accesstime"], "1970-01-01T00:00:02.5Z");
        assert_eq!(table["entries"][0]["changetime"], "1969-12-31T23:59:57Z");
        assert_eq!(table["entries"][0]["xattrs"]["user.a"], "dg==");
    }
}

#[test]
fn an_archive_without_members_is_written() {
    for archive in [&b""[..], &[0; 512], &[0; 1024], &[0; 10240]] {
        let (blob, _, toc) = written(archive);
        assert!(toc.entries.is_empty());
        assert_eq!(blob[..4], 0xfd2f_b528_u32.to_le_bytes(), "a frame that every decoder knows");
    }
}

#[test]
fn what_other_readers_would_not_understand_is_refused() {
    use crate::archive::testing::Blocks;
    let sparse = [("GNU.sparse.size", "5000"), ("GNU.sparse.name", "s"), ("GNU.sparse.map", "512,3")];
    for archive in [
        Blocks::new().file("a", b"").file("./a", b"").end(),
        Blocks::new().file("\u{e9}", b"").file("a", b"x").pax(&sparse).file("x", b"abc").end(),
        Blocks::new().pax(&[("mtime", "253402300800")]).file("a", b"").end(),
    ] {
        let error = encode(&*archive, Vec::new(), 3).map(drop).unwrap_err();
        assert!(
            matches!(error, crate::error::ExportError::Chunked(ChunkedError::Unrepresentable { .. })),
            "{error:?}"
        );
    }
    assert!(encode(&b"no archive"[..], Vec::new(), 3).is_err());
}

#[test]
fn a_pipe_returns_the_error_of_who_stopped_first() {
    use std::io::Error;
    let read_all = |reader: &mut dyn Read| {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes.len())
    };
    let all = pipe(|out| (0..100).try_for_each(|_| out.write_all(&[1; 100_000])), read_all);
    assert_eq!(all.unwrap(), 10_000_000);
    let failed = pipe(|out| out.write_all(b"x").and(Err(Error::other("writer"))), read_all);
    assert_eq!(failed.unwrap_err().to_string(), "writer");
    let write = |out: &mut dyn io::Write| (0..100).try_for_each(|_| out.write_all(&[1; 100_000]));
    let failed: io::Result<()> = pipe(write, |_| Err(Error::other("reader")));
    assert_eq!(failed.unwrap_err().to_string(), "reader");
}

#[test]
fn copies_of_what_is_here_are_bounded() {
    let plan_of = |count: u64, is_here: bool, distinct: bool| {
        let digest = |at: u64| Digest::sha256(&if distinct { at } else { 0 }.to_le_bytes()).to_string();
        let entries: Vec<Value> = (0..count)
            .map(|at| {
                json!({ "type": "reg", "name": at.to_string(), "size": 1 << 30, "digest": digest(at),
                    "offset": at + 1, "endOffset": at + 2 })
            })
            .collect();
        let toc = parse(&json!({ "version": 1, "entries": entries })).unwrap();
        let mut split = tar_split::SplitWriter::new(1).unwrap();
        (0..count).for_each(|at| {
            split.raw(&[0; 512]).unwrap();
            split.end_segment().unwrap();
            split.member(&at.to_string(), 1 << 30, Some(tar_split::Crc64::new())).unwrap();
        });
        let (split, unpacked) = split.finish().unwrap();
        let span = BlobSpan::new(2000, split.len() as u64, unpacked);
        let blob = ChunkedBlob::new(SHA.parse().unwrap(), BlobSpan::new(1008, 1, 1), Some(span)).unwrap();
        Plan::new(&blob, &toc, &split, &Limits::DEFAULT, |_| is_here)
            .map(|plan| (plan.unpacked, plan.fetched()))
    };
    assert_eq!(plan_of(33, true, false).unwrap(), (33 << 30, 0));
    assert_eq!(limit_of(plan_of(34, true, false)), Some((Limit::CopiedBytes, Some(33 << 30))));
    assert_eq!(plan_of(34, true, true).unwrap(), (34 << 30, 0), "one of each is what the store has");
    assert_eq!(
        plan_of(1, false, false).unwrap(),
        (1 << 30, 1),
        "what is below the floor expands as it likes"
    );
    assert_eq!(limit_of(plan_of(34, false, false)), Some((Limit::Expansion, Some(1 << 30))));
}
