//! Blobs with tables of contents: whatever is read of them, and what is written.

use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::sync::Mutex;

use super::{LIMITS, with_checksums};
use crate::archive::Reader;
use crate::chunked::{self, BlobSpan, ChunkedBlob, Listing, Plan, RangeSource, Toc};
use crate::error::ImportError;
use crate::types::{Digest, Limits};

/// Where the archive ends in the blobs that tables are read for.
const END: u64 = 1 << 16;
/// How much of an archive is read: zeros cost a table nothing.
const MOST: u64 = 1 << 20;

/// Reads bytes as what a blob has at its end, or as an archive that becomes one; the first byte says as what.
///
/// - A table that is accepted has every content in parts without gaps, in bytes of the blob that no other has, and agrees with
///   an archive of its own entries.
/// - A footer that is accepted says what its annotations say.
/// - Whatever a table, a tar-split and a blob say, putting an archive together of them ends.
/// - An archive that can be written comes back from its blob: by any decoder, and from its parts.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_chunked(bytes: &[u8]) {
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    match mode {
        0 => table(bytes),
        1 => footer(bytes),
        2 => parts(bytes),
        _ => archive(&with_checksums(bytes)),
    }
}

fn digest() -> Digest {
    Digest::sha256(b"")
}

fn table(json: &[u8]) {
    let Ok(toc) = Toc::parse(json, END, &Limits::DEFAULT) else { return };
    let mut taken: Vec<Range<u64>> = Vec::new();
    let mut listing = Listing::for_table(&toc);
    for entry in toc.entries.iter() {
        let content = entry.content.as_ref();
        assert_eq!(content.is_some(), entry.entry.size > 0);
        let mut offset = 0;
        for chunk in content.iter().flat_map(|content| &content.chunks) {
            assert_eq!(chunk.offset, offset);
            assert!(chunk.size > 0 && chunk.range.start < chunk.range.end && chunk.range.end <= END);
            offset += chunk.size;
            taken.push(chunk.range.clone());
        }
        assert_eq!(offset, entry.entry.size);
        listing.push(entry.entry.clone(), content.map(|content| content.digest.clone()));
    }
    taken.sort_unstable_by_key(|range| range.start);
    assert!(taken.is_sorted_by(|a, b| a.end <= b.start), "two contents have the same bytes");
    assert!(listing.agrees_with(&toc).is_ok());
}

fn footer(tail: &[u8]) {
    if let Ok(blob) = ChunkedBlob::from_footer(tail, digest()) {
        let again = ChunkedBlob::from_annotations(&blob.annotations());
        assert!(again.is_ok_and(|again| again == Some(blob)));
    }
}

/// A table and a tar-split with their lengths before them, and a blob.
fn parts(bytes: &[u8]) {
    let Some((json, rest)) = take(bytes) else { return };
    let Some((lines, blob)) = take(rest) else { return };
    let (Ok(toc), Ok(split)) = (Toc::parse(json, END, &Limits::DEFAULT), zstd::bulk::compress(lines, 1))
    else {
        return;
    };
    let span = BlobSpan::new(END + 8, split.len() as u64, lines.len() as u64);
    let Ok(place) = ChunkedBlob::new(digest(), BlobSpan::new(END + 8, 1, 1), Some(span)) else { return };
    let here = |digest: &Digest| digest.hex().starts_with('0');
    let Ok(plan) = Plan::new(&place, &toc, &split, &Limits::DEFAULT, here) else { return };
    let problem = Mutex::new(None);
    let mut source = Memory(blob);
    let reader = source.read_ranges(&plan.ranges).unwrap_or_else(|_| Box::new(io::empty()));
    let open = |_: &Digest| -> Result<Box<dyn Read + Send>, ImportError> { Ok(Box::new(io::repeat(7))) };
    let Ok(archive) = plan.start(open, reader, &problem) else { return };
    let read = io::copy(&mut archive.take(MOST), &mut io::sink());
    assert_eq!(read.is_err(), problem.lock().is_ok_and(|problem| problem.is_some()));
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_le_bytes(*length).into())
}

fn archive(tar: &[u8]) {
    // What a reader of archives grants is enough to keep a fuzzer busy.
    let mut reader = Reader::with_limits(tar, (), LIMITS);
    while let Ok(Some(_)) = reader.next_entry() {}
    let Ok((blob, place)) = chunked::encode(tar, Vec::new(), 1) else { return };
    assert!(zstd::decode_all(blob.as_slice()).is_ok_and(|decoded| decoded == tar));
    let mut source = Memory(&blob);
    let fetched = chunked::fetch_table(&place, &mut source, &Limits::DEFAULT);
    assert!(fetched.is_ok(), "{:?}", fetched.err());
    let Ok((toc, split)) = fetched else { return };
    let plan = Plan::new(&place, &toc, &split, &Limits::DEFAULT, |_| false);
    assert!(plan.is_ok(), "{:?}", plan.err());
    let Ok(plan) = plan else { return };
    let problem = Mutex::new(None);
    let reader = source.read_ranges(&plan.ranges).unwrap_or_else(|_| Box::new(io::empty()));
    let open = |_: &Digest| Err(ImportError::GivenUp);
    let Ok(mut assembled) = plan.start(open, reader, &problem) else { return };
    let mut again = Vec::new();
    let read = assembled.read_to_end(&mut again);
    assert!(read.is_ok() && again == tar, "the archive does not come back: {problem:?}");
}

/// A blob in memory.
struct Memory<'b>(&'b [u8]);

impl RangeSource for Memory<'_> {
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>> {
        let part = |range: &Range<u64>| {
            let range = usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?;
            self.0.get(range)
        };
        let parts: Option<Vec<&[u8]>> = ranges.iter().map(part).collect();
        Ok(Box::new(Cursor::new(parts.ok_or(io::ErrorKind::UnexpectedEof)?.concat())))
    }
}
