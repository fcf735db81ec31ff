use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, iter, thread};

use proptest::prelude::*;

use super::contents::{BATCH, QUEUE};
use super::record::{Record, RecordWriter, Records};
use super::*;
use crate::archive::Tap;
use crate::archive::testing::{Blocks, read_tapped, whole};
use crate::error::SplitError;
use crate::types::Limits;

type Files = HashMap<ContentHash, Vec<u8>>;

/// Takes an archive apart as an import does. Contents whose ordinal is in `replaced` go into the split itself.
fn split(archive: &[u8], replaced: &[u32]) -> (Vec<u8>, Files) {
    let mut builder = SplitBuilder::new(Vec::new()).unwrap();
    let entries = read_tapped(archive, &mut builder, Limits::default()).unwrap();
    let (spool, count) = builder.finish().unwrap();
    let (mut table, mut lost, mut files) = (Vec::new(), HashMap::new(), Files::new());
    for (entry, stored) in entries.iter().filter(|(entry, _)| entry.ordinal.is_some()) {
        let (ordinal, file) = (entry.ordinal.unwrap(), whole(entry, stored));
        let hash = ContentHash(*blake3::hash(&file).as_bytes());
        if replaced.contains(&ordinal) {
            lost.insert(ordinal, file);
            table.push(None);
        } else {
            table.push(Some(Content { hash, size: entry.size }));
            files.insert(hash, file);
        }
    }
    assert_eq!(table.len(), count as usize);
    let mut open =
        |ordinal| -> io::Result<Source<'_>> { Ok(Box::new(io::Cursor::new(lost[&ordinal].clone()))) };
    (assemble(Vec::new(), &table, spool.as_slice(), &mut open).unwrap(), files)
}

fn join(split: &[u8], files: &Files) -> Result<Vec<u8>, SplitError> {
    let mut archive = Vec::new();
    let open = |hash: &ContentHash, _| -> io::Result<Source<'_>> {
        Ok(Box::new(files.get(hash).ok_or(io::ErrorKind::NotFound)?.as_slice()))
    };
    let total = SplitReader::new(split)?.join(&mut archive, &open, &mut |_| ())?;
    assert_eq!(total, archive.len() as u64);
    Ok(archive)
}

/// An archive with a file, the same file again, a sparse file and junk after the end.
fn sample() -> Vec<u8> {
    let sparse =
        [("GNU.sparse.size", "5000"), ("GNU.sparse.name", "s"), ("GNU.sparse.map", "512,512,2000,7")];
    let archive = Blocks::new()
        .file("a", b"content")
        .file("b", &[1; 70_000])
        .pax(&sparse)
        .file("x/s", &[2; 519])
        .file("c", b"content")
        .file("empty", b"")
        .end();
    [archive.as_slice(), b"junk after the end"].concat()
}

#[test]
fn an_archive_comes_back_bit_for_bit() {
    for replaced in [&[][..], &[0], &[2], &[1, 2], &[0, 1, 2, 3]] {
        let (split, files) = split(&sample(), replaced);
        assert!(join(&split, &files).unwrap() == sample(), "{replaced:?}");
        assert_eq!(SplitReader::new(split.as_slice()).unwrap().contents().len(), 4 - replaced.len());
    }
}

#[test]
fn an_archive_without_its_last_padding_comes_back() {
    let archive = Blocks::new().file("first", b"0123456789").file("last", &[7; 600]).0;
    for end in archive.len() - (1024 - 600)..=archive.len() {
        let (split, files) = split(&archive[..end], &[]);
        assert!(join(&split, &files).unwrap() == archive[..end], "cut at {end}");
    }
}

#[test]
fn a_split_is_small() {
    let (split, _) = split(&sample(), &[]);
    assert!(split.len() < 16 + 4 * 40 + 600, "{}", split.len());
}

#[test]
fn a_changed_file_is_named() {
    let (split, files) = split(&sample(), &[]);
    for (&hash, file) in &files {
        let mut changed = file.clone();
        // For the sparse file this is in a hole: bytes that the archive does not have.
        changed[0] ^= 1;
        for bad in [changed, file[1..].to_vec(), [file.as_slice(), b"x"].concat(), Vec::new()] {
            let mut files = files.clone();
            files.insert(hash, bad);
            let error = join(&split, &files).unwrap_err();
            assert!(
                matches!(&error, SplitError::Mismatch { content } if *content == hash.to_string()),
                "{error:?}"
            );
        }
        let mut files = files.clone();
        files.remove(&hash);
        assert!(matches!(join(&split, &files).unwrap_err(), SplitError::Content { .. }));
    }
}

#[test]
fn a_cut_or_changed_split_is_noticed() {
    let (split, files) = split(&sample(), &[1]);
    for end in 0..split.len() {
        assert!(matches!(join(&split[..end], &files).unwrap_err(), SplitError::Damaged(_)), "cut at {end}");
    }
    for at in 0..split.len() {
        let mut damaged = split.clone();
        damaged[at] ^= 0x10;
        match join(&damaged, &files) {
            Ok(archive) => assert!(archive == sample(), "a changed byte {at} went unnoticed"),
            Err(error) => assert!(at != 8 || matches!(error, SplitError::Version { found: 0x11, known: 1 })),
        }
    }
    assert!(join(&[split.as_slice(), b"x"].concat(), &files).is_err());
}

/// A split with one content of ten bytes and whatever records.
fn crafted(records: &[(u32, u64, u64)]) -> (Vec<u8>, Files) {
    let mut writer = RecordWriter::new(Vec::new()).unwrap();
    for &(ordinal, offset, len) in records {
        writer.content(ordinal, offset, len).unwrap();
    }
    let file = b"ten bytes.".to_vec();
    let hash = ContentHash(*blake3::hash(&file).as_bytes());
    let spool = writer.finish().unwrap();
    let table = [Some(Content { hash, size: 10 })];
    let mut none = |_| -> io::Result<Source<'_>> { unreachable!() };
    let split = assemble(Vec::new(), &table, spool.as_slice(), &mut none).unwrap();
    (split, Files::from([(hash, file)]))
}

#[test]
fn records_that_make_no_sense_are_refused() {
    for records in [
        &[(1, 0, 1)][..],
        &[(0, 5, 6)],
        &[(0, u64::MAX, 2)],
        &[(0, 5, 5), (0, 0, 5)],
        &[(0, 0, u64::MAX), (0, 0, u64::MAX)],
    ] {
        let (split, files) = crafted(records);
        let error = join(&split, &files).unwrap_err();
        assert!(matches!(error, SplitError::Damaged(_)), "{error:?}");
    }
    let (split, files) = crafted(&[(0, 0, 2), (0, 2, 3), (0, 9, 1)]);
    assert_eq!(join(&split, &files).unwrap(), b"ten b.");
}

/// Each would be opened, and read to its end, for each of its parts. It is for each place in the table.
#[test]
fn contents_come_in_order_and_each_once() {
    let files =
        [&b"one"[..], b"two"].map(|file| (ContentHash(*blake3::hash(file).as_bytes()), file.to_vec()));
    let table = files.clone().map(|(hash, file)| Some(Content { hash, size: file.len() as u64 }));
    let files = Files::from(files);
    let joined = |records: &[(u32, u64, u64)]| {
        let mut writer = RecordWriter::new(Vec::new()).unwrap();
        for &(ordinal, offset, len) in records {
            writer.content(ordinal, offset, len).unwrap();
            writer.raw(b"-").unwrap();
        }
        let spool = writer.finish().unwrap();
        let mut none = |_| -> io::Result<Source<'_>> { unreachable!() };
        join(&assemble(Vec::new(), &table, spool.as_slice(), &mut none).unwrap(), &files)
    };
    assert_eq!(joined(&[(0, 0, 1), (0, 1, 2), (1, 0, 3)]).unwrap(), b"o-ne-two-");
    assert_eq!(joined(&[(1, 0, 3)]).unwrap(), b"two-");
    for records in [&[(1, 0, 3), (0, 0, 3)][..], &[(0, 0, 1), (1, 0, 3), (0, 1, 2)]] {
        let error = joined(records).unwrap_err();
        assert!(matches!(error, SplitError::Damaged(_)), "{error:?}");
    }
    let (split, files) = split(&sample(), &[]);
    let opened = Mutex::new(Vec::new());
    let open = |hash: &ContentHash, _| -> io::Result<Source<'_>> {
        opened.lock().unwrap().push(*hash);
        Ok(Box::new(files[hash].as_slice()))
    };
    let mut verified = Vec::new();
    let reader = SplitReader::new(split.as_slice()).unwrap();
    reader.join(&mut io::sink(), &open, &mut |hash| verified.push(*hash)).unwrap();
    assert_eq!(verified, opened.into_inner().unwrap());
    assert_eq!((verified.len(), verified.iter().collect::<HashSet<_>>().len()), (4, 3));
}

#[test]
fn an_end_with_another_length_is_refused() {
    for (total, good) in [(3u8, true), (4, false)] {
        let frame = zstd::encode_all([1, 3, b'a', b'b', b'c', 0, total].as_slice(), 1).unwrap();
        let split = [&MAGIC[..], &VERSION.to_le_bytes(), &[0; 4], &frame].concat();
        assert_eq!(join(&split, &Files::new()).is_ok(), good);
    }
}

#[test]
fn a_false_count_does_not_allocate() {
    let mut split = [&MAGIC[..], &VERSION.to_le_bytes(), &u32::MAX.to_le_bytes()].concat();
    split.extend_from_slice(&[0; 100]);
    assert!(matches!(SplitReader::new(split.as_slice()), Err(SplitError::Damaged(_))));
}

#[test]
fn a_replaced_content_that_is_too_short_is_an_error() {
    let mut builder = SplitBuilder::new(Vec::new()).unwrap();
    builder.content(0, 0, 5).unwrap();
    let (spool, _) = builder.finish().unwrap();
    let mut open = |_| -> io::Result<Source<'_>> { Ok(Box::new(&b"four"[..])) };
    let error = assemble(Vec::new(), &[None], spool.as_slice(), &mut open).unwrap_err();
    assert!(matches!(error, SplitError::Replaced { ordinal: 0, .. }), "{error:?}");
}

proptest! {
    #[test]
    fn any_archive_comes_back(
        files in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..3000), 0usize..3), 1..8),
        tail in prop::collection::vec(any::<u8>(), 0..2000),
        replaced in prop::collection::vec(0u32..8, 0..3),
    ) {
        let mut blocks = Blocks::new();
        for (body, extra) in &files {
            blocks = match extra {
                0 => blocks,
                1 => blocks.pax(&[("mtime", "1.5"), ("comment", "kept")]),
                _ => blocks.long(b'L', "long"),
            };
            blocks = blocks.file("name", body);
        }
        let archive = [blocks.end(), tail].concat();
        let (split, files) = split(&archive, &replaced);
        prop_assert!(join(&split, &files).unwrap() == archive);
    }

    #[test]
    fn records_come_back(parts in prop::collection::vec((any::<u32>(), any::<u64>(), 0u64..1 << 40), 0..20)) {
        let mut writer = RecordWriter::new(Vec::new()).unwrap();
        for &(ordinal, offset, len) in &parts {
            writer.raw(b"ra").unwrap();
            writer.raw(b"w").unwrap();
            writer.content(ordinal, offset, len).unwrap();
        }
        let bytes = writer.finish().unwrap();
        let mut records = Records::new(bytes.as_slice()).unwrap();
        for &(ordinal, offset, len) in &parts {
            prop_assert_eq!(records.next().unwrap(), Record::Raw);
            prop_assert_eq!(records.raw(), b"raw");
            prop_assert_eq!(records.next().unwrap(), Record::Content { ordinal, offset, len });
        }
        let total = parts.iter().map(|part| part.2 + 3).sum();
        prop_assert_eq!(records.next().unwrap(), Record::End { total });
    }

    #[test]
    fn no_records_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let frame = zstd::encode_all(bytes.as_slice(), 1).unwrap();
        let mut split = [&MAGIC[..], &VERSION.to_le_bytes(), &0u32.to_le_bytes()].concat();
        split.extend_from_slice(&frame);
        prop_assert!(join(&split, &Files::new()).is_ok_and(|archive| archive.len() <= bytes.len())
            || join(&split, &Files::new()).is_err());
    }
}

/// Bytes that are others for each file.
fn content(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// More files than one thread is to read, of all lengths about that of a batch, with small ones between.
fn much() -> Vec<u8> {
    let lengths =
        [4000, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 3 * BATCH + 5, 1, 0, BATCH / 2, BATCH / 2, 99];
    let lengths = lengths.into_iter().chain(iter::repeat_n(1500, 200)).chain(lengths);
    let blocks = lengths.enumerate().fold(Blocks::new(), |blocks, (number, length)| {
        blocks.file(&format!("file{number}"), &content(number, length))
    });
    blocks.end()
}

#[test]
fn files_are_read_ahead_and_no_further_than_memory_is_granted() {
    /// Compares at each write what was read with what came out.
    struct Slow<'a>(Vec<u8>, &'a AtomicUsize);

    impl io::Write for Slow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::yield_now();
            let ahead = self.1.load(Ordering::SeqCst).saturating_sub(self.0.len());
            assert!(ahead <= (QUEUE + 3) * BATCH, "{ahead} bytes ahead");
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Counts what is read through it.
    struct Counting<'a>(&'a [u8], &'a AtomicUsize);

    impl io::Read for Counting<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            // As a pipe does, or a signal.
            let most = out.len().min(50_000);
            let count = self.0.read(&mut out[..most])?;
            self.1.fetch_add(count, Ordering::SeqCst);
            Ok(count)
        }
    }

    let (split, files) = split(&much(), &[]);
    let read = AtomicUsize::new(0);
    let readers = Mutex::new(HashSet::new());
    let open = |hash: &ContentHash, _| -> io::Result<Source<'_>> {
        readers.lock().unwrap().insert(thread::current().id());
        Ok(Box::new(Counting(&files[hash], &read)))
    };
    let mut out = Slow(Vec::new(), &read);
    let reader = SplitReader::new(split.as_slice()).unwrap();
    let contents: Vec<_> = reader.contents().iter().map(|content| content.hash).collect();
    let mut verified = Vec::new();
    reader.join(&mut out, &open, &mut |hash| verified.push(*hash)).unwrap();
    assert!(out.0 == much(), "another archive");
    assert_eq!(verified, contents);
    let readers = readers.into_inner().unwrap();
    assert!(readers.len() == 1 && !readers.contains(&thread::current().id()));
}

/// What came before is told, and of a file that fits into a batch no byte is written.
#[test]
fn a_changed_file_among_many_is_named() {
    let (split, files) = split(&much(), &[]);
    let contents = SplitReader::new(split.as_slice()).unwrap().contents().to_vec();
    for at in [0, 1, 5, 20, contents.len() - 1] {
        let wrong = contents[at];
        let open = |hash: &ContentHash, _| -> io::Result<Source<'_>> {
            let mut file = files[hash].clone();
            if *hash == wrong.hash {
                *file.last_mut().unwrap() ^= 1;
            }
            Ok(Box::new(io::Cursor::new(file)))
        };
        let (mut out, mut verified) = (Vec::new(), Vec::new());
        let reader = SplitReader::new(split.as_slice()).unwrap();
        let error = reader.join(&mut out, &open, &mut |hash| verified.push(*hash)).unwrap_err();
        assert!(
            matches!(&error, SplitError::Mismatch { content } if *content == wrong.hash.to_string()),
            "{error:?}"
        );
        let first = contents.iter().position(|content| content.hash == wrong.hash).unwrap();
        assert_eq!(verified, contents[..first].iter().map(|content| content.hash).collect::<Vec<_>>());
        let (file, whole) = (&files[&wrong.hash], much());
        let start = whole.windows(file.len()).position(|window| window == file).unwrap();
        let is_small = wrong.size <= BATCH as u64;
        assert!(whole.starts_with(&out) && (!is_small || out.len() <= start), "{at}");
    }
}

#[test]
fn who_cannot_write_any_more_stops_the_reader() {
    struct Full(usize);

    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let (split, files) = split(&much(), &[]);
    let opened = AtomicUsize::new(0);
    let open = |hash: &ContentHash, _| -> io::Result<Source<'_>> {
        opened.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(files[hash].as_slice()))
    };
    let reader = SplitReader::new(split.as_slice()).unwrap();
    let error = reader.join(&mut Full(2 * BATCH), &open, &mut |_| ()).unwrap_err();
    assert!(matches!(error, SplitError::Write { .. }), "{error:?}");
    assert!(opened.into_inner() < 100);
}

#[test]
#[should_panic(expected = "in the reader")]
fn a_panic_of_the_reader_is_the_callers() {
    let (split, _) = split(&much(), &[]);
    let open = |_: &ContentHash, _| -> io::Result<Source<'_>> { panic!("in the reader") };
    drop(SplitReader::new(split.as_slice()).unwrap().join(&mut io::sink(), &open, &mut |_| ()));
}
