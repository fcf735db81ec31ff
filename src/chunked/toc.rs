//! The table of contents: JSON to entries whose every number was checked.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::compare::Facts;
use super::place::ChunkedBlob;
use super::unpack;
use super::xattrs::{COST_MAX, RawXattrs};
use crate::archive::{Entry, EntryKind};
use crate::error::{ChunkedError, Limit, quoted, shown};
use crate::types::keys::{Exact, misleading, misleads};
use crate::types::{Digest, Limits, RelPath, Timestamp};

/// The version of the table that is read and written.
pub(super) const VERSION: u64 = 1;
/// The type of an entry that is a part of the file before it.
pub(super) const CHUNK: &str = "chunk";
/// The type of a chunk that is zeros.
pub(super) const ZEROS: &str = "zeros";
/// What an archive has, and where a blob has it.
#[derive(Debug)]
pub(crate) struct Toc {
    /// As a rule in the order of the archive.
    pub entries: Vec<TocEntry>,
    /// The digest of the tar-split as it is in the blob, compressed.
    pub tar_split: Option<Digest>,
}

/// A member of the archive.
#[derive(Debug)]
pub(crate) struct TocEntry {
    /// As the archive should have it.
    pub entry: Facts,
    /// What is in it, if it is a file with anything in it.
    pub content: Option<Content>,
}

/// What is in a file.
#[derive(Debug)]
pub(crate) struct Content {
    /// Its digest.
    pub digest: Digest,
    /// Its parts, at least one, in order and without gaps.
    pub chunks: Vec<Chunk>,
}

impl Content {
    /// How many bytes of the blob are its.
    pub(crate) fn bytes_in_blob(&self) -> u64 {
        let start = self.chunks.first().map_or(0, |first| first.range.start);
        self.chunks.last().map_or(0, |last| last.range.end.saturating_sub(start))
    }
}

/// A part of a file.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    /// Where it begins in the file.
    pub offset: u64,
    /// How long it is; not 0.
    pub size: u64,
    /// Its digest; if `None`, it is all of the file.
    pub digest: Option<Digest>,
    /// Whether it is zeros.
    pub zeros: bool,
    /// The frames of the blob that it is in.
    pub range: Range<u64>,
}

/// The keys of a table.
const KEYS: [&str; 3] = ["version", "entries", "tarSplitDigest"];

/// An entry in its form in the file. It is read as [`Exact`]: containers-storage takes keys in any letters, the last of them, and
/// stops at an empty one.
#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RawEntry {
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub gid: u64,
    #[serde(rename = "modtime", skip_serializing_if = "Option::is_none")]
    pub modtime: Option<String>,
    #[serde(rename = "accesstime", skip_serializing_if = "Option::is_none")]
    pub accesstime: Option<String>,
    #[serde(rename = "changetime", skip_serializing_if = "Option::is_none")]
    pub changetime: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub dev_minor: u64,
    #[serde(skip_serializing_if = "RawXattrs::is_empty")]
    pub xattrs: RawXattrs,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub end_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub chunk_offset: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chunk_digest: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chunk_type: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Toc {
    /// Reads the table of a blob; `bytes` are those of the blob at its place.
    ///
    /// Returns [`ChunkedError`] if they have another digest, or say something that cannot be true of a blob.
    pub(crate) fn read(blob: &ChunkedBlob, bytes: &[u8], limits: &Limits) -> Result<Self, ChunkedError> {
        let json = unpack("the table of contents", bytes, &blob.toc_digest, blob.toc.unpacked, limits)?;
        Toc::parse(&json, blob.end_of_archive(), limits)
    }

    /// Reads a table, whose blob has the archive in the bytes before `end`.
    pub(crate) fn parse(json: &[u8], end: u64, limits: &Limits) -> Result<Self, ChunkedError> {
        let mut builder = Builder { end, limits: *limits, ..Builder::default() };
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let parsed = deserializer.deserialize_map(Fields(&mut builder)).and_then(|()| deserializer.end());
        match (builder.refused.take(), parsed) {
            (Some(refused), _) => Err(refused),
            (None, Err(error)) => Err(ChunkedError::Json(error)),
            (None, Ok(())) => builder.finish(),
        }
    }
}

/// Reads the fields of the table into a builder.
struct Fields<'b>(&'b mut Builder);

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Fields(builder) = self;
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "version" => builder.version.replace(map.next_value()?).is_some(),
                "tarSplitDigest" => builder.split.replace(map.next_value()?).is_some(),
                "entries" if builder.has_entries => true,
                "entries" => {
                    builder.has_entries = true;
                    map.next_value_seed(Entries(builder))?;
                    false
                }
                other if misleads(other, &KEYS) => return Err(misleading(other)),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    false
                }
            };
            if twice {
                return Err(A::Error::custom("a field is there twice"));
            }
        }
        Ok(())
    }
}

/// Reads entries into a builder, one after the other, so that no more are in memory than are granted.
struct Entries<'b>(&'b mut Builder);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Go writes a list without items as `null`.
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Entries(builder) = self;
        while let Some(raw) = seq.next_element_seed(Exact::<RawEntry>::new())? {
            if let Err(refused) = builder.add(raw) {
                builder.refused = Some(refused);
                return Err(A::Error::custom("an entry is refused"));
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Builder {
    version: Option<u64>,
    split: Option<String>,
    has_entries: bool,
    /// Where the archive ends in the blob.
    end: u64,
    entries: Vec<TocEntry>,
    count: u64,
    limits: Limits,
    /// Where the content of the last entry ends in the blob, if more of it may come.
    open: Option<u64>,
    refused: Option<ChunkedError>,
}

impl Builder {
    fn add(&mut self, raw: RawEntry) -> Result<(), ChunkedError> {
        self.count = self.count.saturating_add(1);
        self.limits.check(Limit::TocEntries, self.count, || quoted(raw.name.as_bytes()))?;
        let cost = raw.xattrs.cost();
        self.limits.check(Limit::PaxBytes, cost, || quoted(raw.name.as_bytes()))?;
        if cost > COST_MAX {
            let entry = shown(raw.name.as_bytes());
            return Err(ChunkedError::Entry { entry, reason: "its xattrs take more than a mebibyte" });
        }
        let name = raw.name.clone();
        let refused = |reason| ChunkedError::Entry { entry: shown(name.as_bytes()), reason };
        if raw.kind == CHUNK {
            // It has none as a rule; one without a name others would go on after as if the entry had ended.
            raw.xattrs.decoded().map_err(refused)?;
            return self.add_chunk(&raw).map_err(refused);
        }
        self.close()?;
        let entry = entry(&raw).map_err(refused)?;
        let content = if entry.size > 0 {
            self.open = Some(raw.end_offset);
            let within = raw.offset > 0 && raw.offset < raw.end_offset && raw.end_offset <= self.end;
            if !within {
                return Err(refused("its content is not inside the blob"));
            }
            let digest = sha256(&raw.digest).ok_or_else(|| refused("it has no digest"))?;
            // Without a size, the file is in one part.
            let whole = raw.chunk_size == 0;
            let chunk = Chunk {
                size: if whole { entry.size } else { raw.chunk_size },
                ..chunk(&raw, raw.end_offset, whole).map_err(refused)?
            };
            if chunk.offset != 0 {
                return Err(refused("its first part is not where it begins"));
            }
            Some(Content { digest, chunks: vec![chunk] })
        } else if raw.chunk_size > 0 || raw.chunk_offset > 0 || raw.end_offset > raw.offset && raw.offset > 0
        {
            return Err(refused("it is empty and has content"));
        } else {
            None
        };
        self.entries.push(TocEntry { entry, content });
        Ok(())
    }

    fn add_chunk(&mut self, raw: &RawEntry) -> Result<(), &'static str> {
        let stray = "it is a part of no file";
        let end = self.open.ok_or(stray)?;
        let TocEntry { entry, content } = self.entries.last_mut().ok_or(stray)?;
        let last = content.as_mut().and_then(|content| content.chunks.last_mut()).ok_or(stray)?;
        if *entry.path != *raw.name.as_bytes() || last.digest.is_none() {
            return Err(stray);
        }
        let chunk = chunk(raw, end, false)?;
        if last.offset.checked_add(last.size) != Some(chunk.offset) {
            return Err("a part does not begin where the one before it ends");
        }
        if chunk.range.start <= last.range.start || chunk.range.start >= end {
            return Err("a part is not after the one before it in the blob");
        }
        last.range.end = chunk.range.start;
        if let Some(content) = content {
            content.chunks.push(chunk);
        }
        Ok(())
    }

    /// The last entry gets no more parts.
    fn close(&mut self) -> Result<(), ChunkedError> {
        self.open = None;
        let Some(TocEntry { entry, content: Some(content) }) = self.entries.last() else { return Ok(()) };
        let end = content.chunks.last().and_then(|last| last.offset.checked_add(last.size));
        if end != Some(entry.size) {
            let reason = "its parts are not as long as it is";
            return Err(ChunkedError::Entry { entry: shown(&entry.path), reason });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Toc, ChunkedError> {
        self.close()?;
        match self.version {
            Some(VERSION) => {}
            found => return Err(ChunkedError::Version { found: found.unwrap_or_default() }),
        }
        let split = self.split.filter(|text| !text.is_empty());
        let malformed =
            || ChunkedError::Entry { entry: "tarSplitDigest".to_owned(), reason: "it is no sha256 digest" };
        let tar_split = split.map(|text| sha256(&text).ok_or_else(malformed)).transpose()?;
        refuse_overlaps(&self.entries)?;
        Ok(Toc { entries: self.entries, tar_split })
    }
}

/// Each byte of a blob is in one file.
fn refuse_overlaps(entries: &[TocEntry]) -> Result<(), ChunkedError> {
    let mut ranges: Vec<(Range<u64>, &Facts)> = entries
        .iter()
        .filter_map(|TocEntry { entry, content }| {
            let chunks = &content.as_ref()?.chunks;
            Some((chunks.first()?.range.start..chunks.last()?.range.end, entry))
        })
        .collect();
    ranges.sort_unstable_by_key(|(range, _)| range.start);
    let mut end = 0;
    for (range, entry) in ranges {
        if range.start < end {
            let reason = "it has the same bytes of the blob as another";
            return Err(ChunkedError::Entry { entry: shown(&entry.path), reason });
        }
        end = range.end;
    }
    Ok(())
}

/// The part that an entry speaks of, up to the end of the file's bytes in the blob.
fn chunk(raw: &RawEntry, end: u64, whole: bool) -> Result<Chunk, &'static str> {
    if !whole && raw.chunk_size == 0 {
        return Err("a part of it has no length");
    }
    let zeros = match raw.chunk_type.as_str() {
        "" => false,
        ZEROS => true,
        _ => return Err("a part of it is of an unknown type"),
    };
    let digest = match (whole, raw.chunk_digest.as_str()) {
        (true, "") => None,
        (_, text) => Some(sha256(text).ok_or("a part of it has no digest")?),
    };
    Ok(Chunk { offset: raw.chunk_offset, size: raw.chunk_size, digest, zeros, range: raw.offset..end })
}

fn sha256(text: &str) -> Option<Digest> {
    text.parse().ok().filter(|_| text.starts_with("sha256:"))
}

/// The metadata of an entry.
fn entry(raw: &RawEntry) -> Result<Facts, &'static str> {
    let number = |number: u64| u32::try_from(number).map_err(|_| "a number of it is out of range");
    let id =
        |id| number(id).and_then(|id| if id == u32::MAX { Err("the kernel has no such id") } else { Ok(id) });
    let device = || Ok::<_, &str>((number(raw.dev_major)?, number(raw.dev_minor)?));
    let kind = match raw.kind.as_str() {
        "reg" => EntryKind::File,
        "dir" => EntryKind::Directory,
        "symlink" => EntryKind::Symlink,
        "hardlink" => EntryKind::HardLink,
        "char" => device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
        "block" => device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
        "fifo" => EntryKind::Fifo,
        _ => return Err("it is of an unknown type"),
    };
    if RelPath::from_archive(raw.name.as_bytes()).is_err() {
        return Err("its name leads out of the layer, or is none");
    }
    let has_link = matches!(kind, EntryKind::Symlink | EntryKind::HardLink);
    if raw.link_name.is_empty() == has_link || raw.link_name.contains('\0') {
        return Err("its type and its link do not fit");
    }
    if kind == EntryKind::HardLink && RelPath::from_archive(raw.link_name.as_bytes()).is_err() {
        return Err("its link leads out of the layer");
    }
    if raw.size > 0 && kind != EntryKind::File || i64::try_from(raw.size).is_err() {
        return Err("it cannot have its size");
    }
    let mode = u16::try_from(raw.mode & 0o7777).map_err(|_| "its mode is out of range")?;
    let mut path = raw.name.clone().into_bytes();
    while kind == EntryKind::Directory && path.len() > 1 && path.ends_with(b"/") {
        path.pop();
    }
    let (uid, gid) = (id(raw.uid)?, id(raw.gid)?);
    let mtime = raw.modtime.as_deref().map(time).transpose()?.unwrap_or_default();
    let xattrs = raw.xattrs.decoded()?;
    let link = raw.link_name.clone().into_bytes();
    Ok(Entry { mode, uid, gid, mtime, xattrs, link, size: raw.size, ..Entry::new(path, kind) }.into())
}

/// Reads a time. Go's own zero, a day in the year 1, stands for none, as 1970 does in an archive.
fn time(text: &str) -> Result<Timestamp, &'static str> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "its time is malformed")?;
    const YEAR_ONE: i64 = -62_135_596_800;
    let nanoseconds = time.as_nanosecond().rem_euclid(1_000_000_000);
    let seconds = i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000));
    let (Ok(seconds), Ok(nanoseconds)) = (seconds, u32::try_from(nanoseconds)) else {
        return Err("its time is out of range");
    };
    if (seconds, nanoseconds) == (YEAR_ONE, 0) {
        return Ok(Timestamp::default());
    }
    Ok(Timestamp { seconds, nanoseconds })
}
