//! Where a blob has its table of contents: what its descriptor's annotations say, or its own footer.

use std::collections::BTreeMap;

use super::WRITTEN_TABLE_MAX;
use crate::error::{ChunkedError, Limit, LimitError, shown};
use crate::types::{Digest, Limits};

/// What the names of the annotations begin with: today's, and those of early versions.
const PREFIXES: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];
/// The digest of the table, as it is in the blob.
const CHECKSUM: &str = "manifest-checksum";
/// `offset:length:unpacked length:type`.
const POSITION: &str = "manifest-position";
/// `offset:length:unpacked length`.
const SPLIT_POSITION: &str = "tarsplit-position";
/// Annotations of eStargz, the same idea with gzip.
const ESTARGZ: [&str; 2] = ["containerd.io/snapshot/stargz/", "io.containers.estargz."];
/// The only type of table that there is, of CRFS's form.
const TABLE_TYPE: u64 = 1;
/// What begins a frame that decoders skip; its length follows, in four bytes.
const SKIPPED: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
/// The bytes before the content of such a frame.
pub(super) const FRAME_HEAD: u64 = 8;
/// What ends the footer: today, and in the first form.
const MAGIC: &[u8; 8] = b"GNUlInUx";
const FIRST_MAGIC: &[u8; 8] = b"GnUlInUx";

/// Bytes of a blob that hold compressed data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct BlobSpan {
    /// Where they begin in the blob.
    pub offset: u64,
    /// How many they are.
    pub length: u64,
    /// How many they are uncompressed.
    pub unpacked: u64,
}

impl BlobSpan {
    pub(crate) fn new(offset: u64, length: u64, unpacked: u64) -> Self {
        BlobSpan { offset, length, unpacked }
    }

    /// The byte after the last.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    fn check(self, what: &'static str) -> Result<Self, ChunkedError> {
        // A skipped frame has its head and a length of four bytes, and no blob is longer than a file can be.
        let is_place = self.offset >= FRAME_HEAD
            && self.length > 0
            && u32::try_from(self.length).is_ok()
            && i64::try_from(self.offset).is_ok_and(|at| at < i64::MAX / 2);
        if is_place { Ok(self) } else { Err(place(what, &format!("{}:{}", self.offset, self.length))) }
    }
}

/// What is said of a blob in the form zstd:chunked: where its table of contents is, and with which digest.
///
/// # Examples
///
/// ```
/// use std::collections::BTreeMap;
/// use layerstore::ChunkedBlob;
///
/// let digest = layerstore::Digest::sha256(b"the table, compressed").to_string();
/// let annotations = BTreeMap::from([
///     ("io.github.containers.zstd-chunked.manifest-checksum".to_owned(), digest),
///     ("io.github.containers.zstd-chunked.manifest-position".to_owned(), "5000:800:3000:1".to_owned()),
/// ]);
/// let blob = ChunkedBlob::from_annotations(&annotations)?.unwrap();
/// assert_eq!((blob.toc.offset, blob.toc.length), (5000, 800));
/// assert_eq!(blob.annotations(), annotations);
/// assert!(ChunkedBlob::from_annotations(&BTreeMap::new())?.is_none());
/// # Ok::<(), layerstore::ChunkedError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct ChunkedBlob {
    /// The digest of the table of contents as it is in the blob, compressed.
    pub toc_digest: Digest,
    /// Where the table is.
    pub toc: BlobSpan,
    /// Where the tar-split is, if there is one.
    pub tar_split: Option<BlobSpan>,
}

impl ChunkedBlob {
    pub(crate) fn new(
        toc_digest: Digest,
        toc: BlobSpan,
        tar_split: Option<BlobSpan>,
    ) -> Result<Self, ChunkedError> {
        let toc = toc.check("the table of contents")?;
        let tar_split = tar_split.map(|span| span.check("the tar-split")).transpose()?;
        Ok(ChunkedBlob { toc_digest, toc, tar_split })
    }

    /// Reads the annotations of a blob's descriptor; `None` if they say nothing of a table.
    ///
    /// Returns [`ChunkedError::Place`] if they are malformed. How long the table may be is asked when it is read.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, ChunkedError> {
        for prefix in PREFIXES {
            let get = |key| annotations.get(&format!("{prefix}{key}")).map(String::as_str);
            if let (Some(checksum), Some(position)) = (get(CHECKSUM), get(POSITION)) {
                let digest = checksum.parse().map_err(|_| place(CHECKSUM, checksum))?;
                let [offset, length, unpacked, kind] = numbers(POSITION, position)?;
                if kind != TABLE_TYPE {
                    return Err(place(POSITION, position));
                }
                let split: Option<Result<_, ChunkedError>> = get(SPLIT_POSITION).map(|text| {
                    let [offset, length, unpacked] = numbers(SPLIT_POSITION, text)?;
                    Ok(BlobSpan::new(offset, length, unpacked))
                });
                let toc = BlobSpan::new(offset, length, unpacked);
                return ChunkedBlob::new(digest, toc, split.transpose()?).map(Some);
            }
        }
        Ok(None)
    }

    /// Reads the footer of a blob; `tail` is its last 72 bytes, or more. The digest of the table is not there: it comes from
    /// who vouches for the blob.
    ///
    /// Returns [`ChunkedError::Absent`] if the blob has no footer, and else what
    /// [`from_annotations`](Self::from_annotations) does.
    pub fn from_footer(tail: &[u8], toc_digest: Digest) -> Result<Self, ChunkedError> {
        let absent = || ChunkedError::Absent("it has no footer");
        // The first form had no tar-split.
        let footer = content_of_last_frame::<64>(tail).map(<[u8; 64]>::as_slice);
        let footer = footer
            .or_else(|| content_of_last_frame::<40>(tail).map(<[u8; 40]>::as_slice))
            .ok_or_else(absent)?;
        let (numbers, magic) = footer.split_last_chunk::<8>().ok_or_else(absent)?;
        if magic != MAGIC && magic != FIRST_MAGIC {
            return Err(absent());
        }
        let numbers: Vec<u64> =
            numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let (toc, kind, split) = match *numbers {
            [offset, length, unpacked, kind] => (BlobSpan::new(offset, length, unpacked), kind, None),
            [offset, length, unpacked, kind, at, split_length, split_unpacked] => {
                let split = BlobSpan::new(at, split_length, split_unpacked);
                (BlobSpan::new(offset, length, unpacked), kind, Some(split))
            }
            _ => return Err(absent()),
        };
        if kind != TABLE_TYPE {
            return Err(place("the footer's type", &kind.to_string()));
        }
        ChunkedBlob::new(toc_digest, toc, split)
    }

    /// The annotations that say the same.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let [prefix, _] = PREFIXES;
        let BlobSpan { offset, length, unpacked } = self.toc;
        let mut annotations = BTreeMap::from([
            (format!("{prefix}{CHECKSUM}"), self.toc_digest.to_string()),
            (format!("{prefix}{POSITION}"), format!("{offset}:{length}:{unpacked}:{TABLE_TYPE}")),
        ]);
        if let Some(BlobSpan { offset, length, unpacked }) = self.tar_split {
            annotations.insert(format!("{prefix}{SPLIT_POSITION}"), format!("{offset}:{length}:{unpacked}"));
        }
        annotations
    }

    /// Refuses a table, or a tar-split, that is longer than is granted, before it is read.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(), LimitError> {
        for (span, what) in [(Some(self.toc), "the table of contents"), (self.tar_split, "the tar-split")] {
            let Some(BlobSpan { length, unpacked, .. }) = span else { continue };
            limits.check(Limit::TocBytes, length.max(unpacked), || what)?;
        }
        Ok(())
    }

    /// The bytes of table and tar-split.
    pub(crate) fn fetched_first(&self) -> u64 {
        self.toc.length.saturating_add(self.tar_split.map_or(0, |split| split.length))
    }

    /// Where the frames with the archive end.
    pub(crate) fn end_of_archive(&self) -> u64 {
        let first = self.tar_split.map_or(self.toc.offset, |split| split.offset.min(self.toc.offset));
        first.saturating_sub(FRAME_HEAD)
    }
}

/// The footer's content.
pub(super) fn footer(toc: BlobSpan, split: BlobSpan) -> Vec<u8> {
    let numbers =
        [toc.offset, toc.length, toc.unpacked, TABLE_TYPE, split.offset, split.length, split.unpacked];
    let mut footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    footer.extend_from_slice(MAGIC);
    footer
}

/// A frame that decoders skip. There is none of 4 GiB or more.
pub(super) fn skipped_frame(content: &[u8]) -> Result<Vec<u8>, ChunkedError> {
    let limit = WRITTEN_TABLE_MAX;
    let too_long = |_| ChunkedError::TooLarge { what: "a skipped frame", found: content.len() as u64, limit };
    let length = u32::try_from(content.len()).map_err(too_long)?;
    Ok([&SKIPPED, length.to_le_bytes().as_slice(), content].concat())
}

/// Whether an annotation tells of a form in which a blob can be read in parts: it is wrong of every other blob with the
/// same archive.
pub(crate) fn is_of_blob(annotation: &str) -> bool {
    PREFIXES.iter().chain(&ESTARGZ).any(|prefix| annotation.starts_with(prefix))
}

fn content_of_last_frame<const N: usize>(tail: &[u8]) -> Option<&[u8; N]> {
    let (before, content) = tail.split_last_chunk::<N>()?;
    let (before, length) = before.split_last_chunk::<4>()?;
    let is_frame = usize::try_from(u32::from_le_bytes(*length)) == Ok(N) && before.ends_with(&SKIPPED);
    is_frame.then_some(content)
}

fn numbers<const N: usize>(what: &'static str, text: &str) -> Result<[u64; N], ChunkedError> {
    let malformed = || place(what, text);
    let number = |part: &str| {
        let is_plain = !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
        if is_plain { part.parse().ok() } else { None }
    };
    let numbers: Option<Vec<u64>> = text.split(':').map(number).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(malformed)
}

fn place(what: &'static str, found: &str) -> ChunkedError {
    ChunkedError::Place { what, found: shown(found) }
}
