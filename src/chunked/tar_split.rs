//! Tar-splits in the form of others (vbatts/tar-split): lines of JSON, each some bytes of the archive or the content of a
//! file, in the order of the archive.
//!
//! Before each member stands one line with everything since the content before it: padding, extension headers, header. Then
//! one for the member, whether it has content or not, with a checksum (CRC-64 of Go) of that.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::LazyLock;

use serde::de::DeserializeSeed as _;
use serde::{Deserialize, Serialize};

use super::WRITTEN_TABLE_MAX;
use crate::archive::base64;
use crate::error::ChunkedError;
use crate::types::keys::Exact;

/// The type of a line with the content of a file.
const FILE: u8 = 1;
/// The type of a line with bytes of the archive.
const SEGMENT: u8 = 2;
/// The longest line that is read. Extension headers of a mebibyte each, in base64, are below.
const LINE_MAX: u64 = 32 << 20;
/// Where a segment without a member in it is cut.
const SEGMENT_MAX: usize = 8 << 20;

#[derive(Serialize, Deserialize, Default)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name_raw: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    position: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Writes a tar-split, compressed, into memory.
pub(super) struct SplitWriter {
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    unpacked: u64,
    segment: Vec<u8>,
    position: u64,
}

impl SplitWriter {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        let out = zstd::stream::write::Encoder::new(Vec::new(), level)?;
        Ok(SplitWriter { out, unpacked: 0, segment: Vec::new(), position: 0 })
    }

    /// Adds bytes of the archive.
    pub(super) fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) =
                bytes.split_at(bytes.len().min(SEGMENT_MAX.saturating_sub(self.segment.len())));
            self.segment.extend_from_slice(now);
            bytes = later;
            if self.segment.len() == SEGMENT_MAX {
                self.end_segment()?;
            }
        }
        Ok(())
    }

    /// Adds a member, whose headers were the bytes before, and its content, if it has any.
    pub(super) fn member(&mut self, name: &str, size: u64, checksum: Option<Crc64>) -> io::Result<()> {
        self.end_segment()?;
        let payload = checksum.map(|checksum| base64::encoded(&checksum.bytes()));
        self.line(Line { kind: FILE, name: name.to_owned(), size, payload, ..Line::default() })
    }

    /// The tar-split, compressed, and its length before.
    pub(super) fn finish(mut self) -> io::Result<(Vec<u8>, u64)> {
        self.end_segment()?;
        Ok((self.out.finish()?, self.unpacked))
    }

    /// The headers of a member end here.
    pub(super) fn end_segment(&mut self) -> io::Result<()> {
        if self.segment.is_empty() {
            return Ok(());
        }
        let payload = Some(base64::encoded(&self.segment));
        self.segment.clear();
        self.line(Line { kind: SEGMENT, payload, ..Line::default() })
    }

    fn line(&mut self, line: Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(&Line { position: self.position, ..line })?;
        text.push(b'\n');
        self.position = self.position.saturating_add(1);
        self.unpacked = self.unpacked.saturating_add(text.len() as u64);
        if self.unpacked > WRITTEN_TABLE_MAX {
            return Err(io::Error::other(ChunkedError::TooLarge {
                what: "the tar-split",
                found: self.unpacked,
                limit: WRITTEN_TABLE_MAX,
            }));
        }
        self.out.write_all(&text)
    }
}

/// A part of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Part {
    /// These bytes.
    Raw(Vec<u8>),
    /// A member, with so many bytes of content.
    Member {
        /// The name, as it stands in the archive.
        name: Vec<u8>,
        /// The length of its content.
        size: u64,
    },
}

/// Reads the parts of a tar-split that is not compressed any more. Only one line is in memory at a time.
pub(crate) struct SplitLines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

impl<R: Read> SplitLines<R> {
    pub(crate) fn new(input: R) -> Self {
        SplitLines { input: BufReader::new(input), line: Vec::new() }
    }

    /// The next part; `None` at the end.
    ///
    /// Returns [`ChunkedError::Split`] if a line is malformed.
    pub(crate) fn next_part(&mut self) -> Result<Option<Part>, ChunkedError> {
        self.line.clear();
        let failed = |source| ChunkedError::Decompress { what: "the tar-split", source };
        self.input.by_ref().take(LINE_MAX).read_until(b'\n', &mut self.line).map_err(failed)?;
        match self.line.last() {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(ChunkedError::Split("a line is too long, or cut off")),
        }
        let mut json = serde_json::Deserializer::from_slice(&self.line);
        let read = Exact::<Line>::new().deserialize(&mut json).and_then(|line| json.end().map(|()| line));
        let line = read.map_err(|_| ChunkedError::Split("a line is no entry"))?;
        let decoded = |text: &str| {
            base64::decoded(text.as_bytes()).map_err(|_| ChunkedError::Split("its bytes are no base64"))
        };
        match line.kind {
            SEGMENT => Ok(Some(Part::Raw(decoded(&line.payload.unwrap_or_default())?))),
            FILE => {
                let name = match line.name_raw.filter(|raw| !raw.is_empty()) {
                    Some(raw) => decoded(&raw)?,
                    None => line.name.into_bytes(),
                };
                Ok(Some(Part::Member { name, size: line.size }))
            }
            _ => Err(ChunkedError::Split("an entry is of an unknown type")),
        }
    }
}

/// The polynomial of ISO 3309, its bits reversed.
const POLYNOMIAL: u64 = 0xd800_0000_0000_0000;

static TABLE: LazyLock<[u64; 256]> = LazyLock::new(|| {
    let mut number = 0u64;
    [(); 256].map(|()| {
        let entry = (0..8).fold(number, |crc, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 });
        number += 1;
        entry
    })
});

/// The checksum of a content, with which the form says it was read right; no proof against anyone.
#[derive(Clone, Copy)]
pub(super) struct Crc64(u64);

impl Crc64 {
    pub(super) fn new() -> Self {
        Crc64(u64::MAX)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default();
            self.0 = entry ^ self.0 >> 8;
        }
    }

    pub(super) fn finish(self) -> u64 {
        !self.0
    }

    /// The highest byte first, as Go writes it.
    fn bytes(self) -> [u8; 8] {
        self.finish().swap_bytes().to_le_bytes()
    }
}
