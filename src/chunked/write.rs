//! Writing: a tar stream to a blob with a table of contents.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read, Write};

use serde_json::json;
use zstd::stream::raw::{CParameter, Encoder, Operation, OutBuffer};

use super::place::{self, BlobSpan, ChunkedBlob, FRAME_HEAD};
use super::rollsum::{Chunker, Piece};
use super::tar_split::{Crc64, SplitWriter};
use super::toc::{CHUNK, RawEntry, VERSION, ZEROS};
use super::xattrs::RawXattrs;
use super::{WRITTEN_ENTRIES_MAX, WRITTEN_TABLE_MAX};
use crate::archive::reader::Reader;
use crate::archive::{Entry, EntryKind, Tap, base64};
use crate::error::{ArchiveError, ChunkedError, ExportError, shown};
use crate::types::{Algorithm, Digest, Hasher, Limits, RelPath, Timestamp};

/// The size of the pieces in which contents are read.
const PIECE: usize = 64 * 1024;

/// Writes the archive `tar` to `out` so that its files can be fetched one by one, and says where the table is.
///
/// The headers between two contents are a frame, and so is each chunk of a content. The same archive at the same level
/// is the same blob. A stream without a byte is an archive without members: layers without a change are made of it. Memory is bounded by the table, which is there until the end.
///
/// Returns [`ExportError::Chunked`] if the archive has something that other readers of the form do not know: sparse files,
/// global headers, a name twice, or one that is not UTF-8.
pub(crate) fn encode<W: Write>(
    mut tar: impl Read,
    out: W,
    level: i32,
) -> Result<(W, ChunkedBlob), ExportError> {
    let output = Output { frames: Frames::new(out, level)?, split: SplitWriter::new(level)? };
    let mut table = Table::new(level)?;
    let mut first = [0; 1];
    let read = read_once(&mut tar, &mut first)?;
    if read == 0 {
        let Output { mut frames, split } = output;
        // Without a frame it would be nothing that decoders know.
        frames.open = true;
        frames.end()?;
        return finish(frames, split, table);
    }
    let tar = first.get(..read).unwrap_or_default().chain(tar);
    let mut reader = Reader::with_limits(tar, output, Limits::NONE);
    let mut piece = vec![0; PIECE];
    while let Some(entry) = reader.next_entry().map_err(export_error)? {
        let mut raw = described(&entry, &reader)?;
        table.refuse_twice(&entry)?;
        if entry.stored == 0 {
            reader.tap_mut().split.member(&raw.name, 0, None)?;
            table.add(&raw)?;
            continue;
        }
        let mut content = ContentWriter::start(reader.tap_mut())?;
        let mut chunker = Chunker::new();
        loop {
            let count = reader.read(&mut piece)?;
            if count == 0 {
                break;
            }
            let Output { frames, .. } = reader.tap_mut();
            let bytes = piece.get(..count).unwrap_or_default();
            content.checksum.update(bytes);
            chunker.push(bytes, &mut |piece| content.piece(frames, piece))?;
        }
        let Output { frames, split } = reader.tap_mut();
        chunker.finish(&mut |piece| content.piece(frames, piece))?;
        split.member(&raw.name, entry.stored, Some(content.checksum))?;
        (raw.offset, raw.end_offset) = (content.start, frames.position);
        raw.digest = content.digest.finish().to_string();
        table.add_file(raw, &content.chunks)?;
    }
    let Output { mut frames, split } = reader.into_tap();
    frames.end()?;
    finish(frames, split, table)
}

fn read_once(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match reader.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Writes what comes after the archive.
fn finish<W: Write>(
    frames: Frames<W>,
    split: SplitWriter,
    table: Table,
) -> Result<(W, ChunkedBlob), ExportError> {
    let (split, split_unpacked) = split.finish()?;
    let (table, unpacked) = table.finish(&Digest::sha256(&split))?;
    let toc = BlobSpan::new(frames.position.saturating_add(FRAME_HEAD), table.len() as u64, unpacked);
    let split_span = BlobSpan::new(toc.end().saturating_add(FRAME_HEAD), split.len() as u64, split_unpacked);
    let blob = ChunkedBlob::new(Digest::sha256(&table), toc, Some(split_span))?;
    let mut out = frames.out;
    for content in [&table, &split, &place::footer(toc, split_span)] {
        out.write_all(&place::skipped_frame(content)?)?;
    }
    Ok((out, blob))
}

/// What is written failed in the one or other way.
fn export_error(error: ArchiveError) -> ExportError {
    match error {
        ArchiveError::Keep(source) => source.into(),
        other => other.into(),
    }
}

/// Everything of the archive goes here, in its order.
struct Output<W> {
    frames: Frames<W>,
    split: SplitWriter,
}

impl<W: Write> Tap for Output<W> {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.write(bytes)?;
        self.split.raw(bytes)
    }

    fn content(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Frames one after the other.
struct Frames<W> {
    out: W,
    encoder: Encoder<'static>,
    buffer: Vec<u8>,
    /// How many bytes were written.
    position: u64,
    /// Whether a frame has begun.
    open: bool,
}

impl<W: Write> Frames<W> {
    fn new(out: W, level: i32) -> io::Result<Self> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Frames { out, encoder, buffer: vec![0; PIECE], position: 0, open: false })
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.open = true;
            let status = self.encoder.run_on_buffers(bytes, &mut self.buffer)?;
            self.put(status.bytes_written)?;
            bytes = bytes.get(status.bytes_read..).unwrap_or_default();
        }
        Ok(())
    }

    /// Ends the frame, if one has begun.
    fn end(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        loop {
            let mut out = OutBuffer::around(self.buffer.as_mut_slice());
            let left = self.encoder.finish(&mut out, true)?;
            let written = out.pos();
            self.put(written)?;
            if left == 0 {
                return self.encoder.reinit();
            }
        }
    }

    fn put(&mut self, count: usize) -> io::Result<()> {
        self.out.write_all(self.buffer.get(..count).unwrap_or_default())?;
        self.position = self.position.saturating_add(count as u64);
        Ok(())
    }
}

/// A chunk that was written.
struct Written {
    offset: u64,
    size: u64,
    digest: Digest,
    zeros: bool,
    /// Where it begins in the blob.
    start: u64,
}

/// The content of a file being written.
struct ContentWriter {
    /// Where it begins in the blob.
    start: u64,
    digest: Hasher,
    checksum: Crc64,
    chunks: Vec<Written>,
    /// How much of it is in the chunks.
    offset: u64,
    chunk: Option<(Hasher, u64, bool)>,
    chunk_start: u64,
}

impl ContentWriter {
    fn start<W: Write>(output: &mut Output<W>) -> io::Result<Self> {
        output.frames.end()?;
        output.split.end_segment()?;
        let start = output.frames.position;
        Ok(ContentWriter {
            start,
            digest: Hasher::new(Algorithm::Sha256),
            checksum: Crc64::new(),
            chunks: Vec::new(),
            offset: 0,
            chunk: None,
            chunk_start: start,
        })
    }

    fn piece<W: Write>(&mut self, frames: &mut Frames<W>, piece: Piece<'_>) -> io::Result<()> {
        let (bytes, zeros) = match piece {
            Piece::Data(bytes) => (bytes, false),
            Piece::Zeros(bytes) => (bytes, true),
            Piece::Cut => return self.cut(frames),
        };
        let (hasher, size, _) = self.chunk.get_or_insert_with(|| (Hasher::new(Algorithm::Sha256), 0, zeros));
        hasher.update(bytes);
        *size = size.saturating_add(bytes.len() as u64);
        self.digest.update(bytes);
        frames.write(bytes)
    }

    fn cut<W: Write>(&mut self, frames: &mut Frames<W>) -> io::Result<()> {
        let Some((hasher, size, zeros)) = self.chunk.take() else { return Ok(()) };
        frames.end()?;
        let digest = hasher.finish();
        self.chunks.push(Written { offset: self.offset, size, digest, zeros, start: self.chunk_start });
        self.offset = self.offset.saturating_add(size);
        self.chunk_start = frames.position;
        Ok(())
    }
}

/// The table of contents, compressed as it grows.
struct Table {
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    unpacked: u64,
    count: u64,
    names: HashSet<RelPath>,
}

impl Table {
    fn new(level: i32) -> Result<Self, ExportError> {
        let out = zstd::stream::write::Encoder::new(Vec::new(), level)?;
        let mut table = Table { out, unpacked: 0, count: 0, names: HashSet::new() };
        table.put(format!("{{\"version\":{VERSION},\"entries\":[").as_bytes())?;
        Ok(table)
    }

    /// Other readers take the last of two members with one name, or none.
    fn refuse_twice(&mut self, entry: &Entry) -> Result<(), ExportError> {
        if self.names.insert(RelPath::from_archive(&entry.path)?) {
            return Ok(());
        }
        Err(unrepresentable(entry, "another member has the same name"))
    }

    fn add_file(&mut self, first: RawEntry, chunks: &[Written]) -> Result<(), ExportError> {
        // A file in one part is described without parts.
        let [_, _, ..] = chunks else { return self.add(&first) };
        let name = first.name.clone();
        let mut first = Some(first);
        for chunk in chunks {
            let chunk_entry =
                || RawEntry { kind: CHUNK.to_owned(), name: name.clone(), ..RawEntry::default() };
            self.add(&RawEntry {
                offset: chunk.start,
                chunk_size: chunk.size,
                chunk_offset: chunk.offset,
                chunk_digest: chunk.digest.to_string(),
                chunk_type: if chunk.zeros { ZEROS.to_owned() } else { String::new() },
                ..first.take().unwrap_or_else(chunk_entry)
            })?;
        }
        Ok(())
    }

    fn add(&mut self, entry: &RawEntry) -> Result<(), ExportError> {
        self.count = self.count.saturating_add(1);
        if self.count > WRITTEN_ENTRIES_MAX {
            let (found, limit) = (self.count, WRITTEN_ENTRIES_MAX);
            return Err(
                ChunkedError::TooLarge { what: "entries of a table of contents", found, limit }.into()
            );
        }
        if self.count > 1 {
            self.put(b",")?;
        }
        self.put(&serde_json::to_vec(entry).map_err(ChunkedError::Json)?)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ExportError> {
        self.unpacked = self.unpacked.saturating_add(bytes.len() as u64);
        if self.unpacked > WRITTEN_TABLE_MAX {
            let (what, found) = ("the table of contents", self.unpacked);
            return Err(ChunkedError::TooLarge { what, found, limit: WRITTEN_TABLE_MAX }.into());
        }
        Ok(self.out.write_all(bytes)?)
    }

    fn finish(mut self, split: &Digest) -> Result<(Vec<u8>, u64), ExportError> {
        self.put(format!("],\"tarSplitDigest\":{}}}", json!(split.to_string())).as_bytes())?;
        Ok((self.out.finish()?, self.unpacked))
    }
}

fn unrepresentable(entry: &Entry, reason: &'static str) -> ExportError {
    ChunkedError::Unrepresentable { member: shown(&entry.path), reason }.into()
}

/// The entry of a member, as other readers see it in the archive; without its content.
fn described<R: Read, T: Tap>(entry: &Entry, reader: &Reader<R, T>) -> Result<RawEntry, ExportError> {
    let said = reader.said();
    let refused = |reason| unrepresentable(entry, reason);
    if entry.sparse.is_some() {
        return Err(refused("it is a sparse file"));
    }
    if reader.has_globals() || said.typeflag == b'7' {
        return Err(refused("other readers do not know a header of it"));
    }
    if entry.kind == EntryKind::HardLink && RelPath::from_archive(&entry.link).is_err() {
        return Err(refused("its link leads out of the layer"));
    }
    let text = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).map(str::to_owned);
        text.map_err(|_| refused("a name in it is not UTF-8"))
    };
    let time = |time| rfc3339(time).ok_or_else(|| refused("a time in it has no year of four digits"));
    let (kind, (dev_major, dev_minor)) = match entry.kind {
        EntryKind::File => ("reg", (0, 0)),
        EntryKind::Directory => ("dir", (0, 0)),
        EntryKind::Symlink => ("symlink", (0, 0)),
        EntryKind::HardLink => ("hardlink", (0, 0)),
        EntryKind::CharDevice { major, minor } => ("char", (major, minor)),
        EntryKind::BlockDevice { major, minor } => ("block", (major, minor)),
        EntryKind::Fifo => ("fifo", (0, 0)),
    };
    let xattrs: BTreeMap<String, String> = entry
        .xattrs
        .iter()
        .map(|(name, value)| Ok((text(name)?, base64::encoded(value))))
        .collect::<Result<_, ExportError>>()?;
    Ok(RawEntry {
        kind: kind.to_owned(),
        name: text(&entry.path)? + &"/".repeat(said.slashes),
        link_name: text(&entry.link)?,
        mode: said.mode,
        size: entry.size,
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        modtime: Some(time(entry.mtime)?),
        accesstime: said.atime.map(time).transpose()?,
        changetime: said.ctime.map(time).transpose()?,
        dev_major: dev_major.into(),
        dev_minor: dev_minor.into(),
        xattrs: RawXattrs::from_map(xattrs),
        ..RawEntry::default()
    })
}

fn rfc3339(time: Timestamp) -> Option<String> {
    const YEAR_0: i64 = -62_167_219_200;
    let nanoseconds = i32::try_from(time.nanoseconds).ok()?;
    let time = jiff::Timestamp::new(time.seconds, nanoseconds).ok()?;
    (time.as_second() >= YEAR_0).then(|| time.to_string())
}
