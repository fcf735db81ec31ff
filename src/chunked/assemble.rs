//! The archive of a blob of which only parts are fetched: what the tar-split has, files that are there already, and the
//! chunks of the others, put together in the order of the archive.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::cannot_decompress;
use super::fetched::{ChunkReader, Fetched, failed};
use super::place::ChunkedBlob;
use super::tar_split::{Part, SplitLines};
use super::toc::{Toc, TocEntry};
use crate::compress::zstd_window_log;
use crate::error::{ChunkedError, ImportError, Limit, quoted, shown};
use crate::types::{Digest, Limits};

/// Ranges with no more than this between them are fetched as one: to ask for one more costs as much.
const GAP: u64 = 2048;

/// Where the bytes of a blob come from: a registry that answers range requests, a file.
///
/// # Examples
///
/// ```
/// use std::io::{self, Read};
/// use std::ops::Range;
/// use layerstore::RangeSource;
///
/// /// A blob in memory.
/// struct Memory(Vec<u8>);
///
/// impl RangeSource for Memory {
///     fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>> {
///         let mut bytes = Vec::new();
///         for range in ranges {
///             let range = range.start as usize..range.end as usize;
///             bytes.extend(self.0.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
///         }
///         Ok(Box::new(io::Cursor::new(bytes)))
///     }
/// }
/// ```
pub trait RangeSource: Send {
    /// Gives the bytes of these ranges, one after the other in this order and nothing in between. They are not empty; as a
    /// rule they ascend, and there can be many.
    ///
    /// What is given is verified, so it need not be trusted. An error may also come from the reader.
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> io::Result<Box<dyn Read + Send + '_>>;
}

/// Fetches the table of contents and the tar-split of a blob. The second stays compressed.
///
/// Returns [`ChunkedError::NoSplit`] if there is no tar-split that the table vouches for, [`ChunkedError::Source`] if they
/// cannot be fetched, and what [`Toc::read`] does.
pub(crate) fn fetch_table(
    blob: &ChunkedBlob,
    source: &mut dyn RangeSource,
    limits: &Limits,
) -> Result<(Toc, Vec<u8>), ChunkedError> {
    blob.check(limits)?;
    let split_span = blob.tar_split.ok_or(ChunkedError::NoSplit)?;
    let spans = [blob.toc, split_span];
    let ranges = spans.map(|span| span.offset..span.end());
    let [table_range, split_range] = ranges.clone();
    let mut reader = read_ranges(source, &ranges)?;
    let table = read_range(&mut reader, &table_range)?;
    let split = read_range(&mut reader, &split_range)?;
    let toc = Toc::read(blob, &table, limits)?;
    let expected = toc.tar_split.as_ref().ok_or(ChunkedError::NoSplit)?;
    let found = Digest::sha256(&split);
    if found != *expected {
        let (expected, found) = (expected.to_string(), found.to_string());
        return Err(ChunkedError::Digest { what: "the tar-split", expected, found });
    }
    Ok((toc, split))
}

/// Begins to fetch ranges.
pub(crate) fn read_ranges<'s>(
    source: &'s mut dyn RangeSource,
    ranges: &[Range<u64>],
) -> Result<Box<dyn Read + Send + 's>, ChunkedError> {
    let (first, last) =
        (ranges.first().cloned().unwrap_or_default(), ranges.last().cloned().unwrap_or_default());
    source.read_ranges(ranges).map_err(failed(&(first.start..last.end)))
}

fn read_range(reader: &mut impl Read, range: &Range<u64>) -> Result<Vec<u8>, ChunkedError> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    reader.take(length).read_to_end(&mut bytes).map_err(failed(range))?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(failed(range)(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// What is to be put together, and what of it has to be fetched.
pub(crate) struct Plan<'t> {
    split: &'t [u8],
    split_unpacked: u64,
    /// The files with content, in the order of the archive.
    files: VecDeque<(&'t TocEntry, Origin)>,
    /// What has to be fetched, in the order of the archive.
    pub(crate) ranges: Vec<Range<u64>>,
    /// How many bytes the files have together, but for zeros that are not here.
    pub(crate) unpacked: u64,
    limits: Limits,
}

/// Where the content of a file comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Here,
    Blob,
}

impl<'t> Plan<'t> {
    /// Reads the tar-split, and asks for each content whether it is here.
    ///
    /// Returns [`ChunkedError::Split`] if the tar-split is malformed, [`ChunkedError::Disagrees`] if it has other files than
    /// the table, and [`ChunkedError::Limit`] if more is made of it than is granted: of contents that are here, of zeros,
    /// of all together, or of what is fetched.
    pub(crate) fn new(
        blob: &ChunkedBlob,
        toc: &'t Toc,
        split: &'t [u8],
        limits: &Limits,
        is_here: impl Fn(&Digest) -> bool,
    ) -> Result<Self, ChunkedError> {
        let split_unpacked = blob.tar_split.map_or(0, |span| span.unpacked);
        let (files, ranges) = Default::default();
        let mut plan = Plan { split, split_unpacked, files, ranges, unpacked: 0, limits: *limits };
        let subject = || "the blob";
        let mut entries: HashMap<&[u8], VecDeque<&TocEntry>> = HashMap::new();
        for entry in toc.entries.iter().filter(|entry| entry.content.is_some()) {
            entries.entry(&entry.entry.path).or_default().push_back(entry);
        }
        let mut lines = plan.lines()?;
        let (mut holes, mut from_blob) = (0u64, 0u64);
        let (mut copied, mut copies) = (HashSet::new(), 0u64);
        while let Some(part) = lines.next_part()? {
            let Part::Member { name, size: 1.. } = part else { continue };
            let entry = entries.get_mut(name.as_slice()).and_then(VecDeque::pop_front);
            let missing = || ChunkedError::Disagrees { entry: shown(&name), what: "only the archive has it" };
            let entry = entry.ok_or_else(missing)?;
            let Some(content) = &entry.content else { continue };
            if is_here(&content.digest) {
                plan.files.push_back((entry, Origin::Here));
                plan.unpacked = plan.unpacked.saturating_add(entry.entry.size);
                if !copied.insert(&content.digest) {
                    copies = copies.saturating_add(entry.entry.size);
                }
                // Nor do these: of all that is here, once each is no more than the store has.
                limits.check(Limit::CopiedBytes, copies, || quoted(&name))?;
                limits.check(Limit::UnpackedBytes, plan.unpacked, subject)?;
                continue;
            }
            plan.files.push_back((entry, Origin::Blob));
            for chunk in &content.chunks {
                if chunk.zeros {
                    holes = holes.saturating_add(chunk.size);
                } else {
                    plan.unpacked = plan.unpacked.saturating_add(chunk.size);
                    from_blob = from_blob.saturating_add(chunk.size);
                    plan.add(&chunk.range);
                }
            }
            // They cost nobody anything but the disk they are written to.
            limits.check(Limit::HoleBytes, holes, || quoted(&name))?;
            limits.check(Limit::UnpackedBytes, plan.unpacked, subject)?;
        }
        if from_blob > limits.expansion_floor {
            limits.check(Limit::Expansion, from_blob.div_ceil(plan.fetched().max(1)), subject)?;
        }
        Ok(plan)
    }

    fn lines(&self) -> Result<SplitLines<impl Read + use<'t>>, ChunkedError> {
        let failed = |source| cannot_decompress("the tar-split", source, &self.limits);
        let mut decoder = zstd::stream::read::Decoder::with_buffer(self.split).map_err(failed)?;
        decoder.window_log_max(zstd_window_log(&self.limits)).map_err(failed)?;
        // What is longer is cut, and so malformed.
        Ok(SplitLines::new(decoder.take(self.split_unpacked)))
    }

    fn add(&mut self, range: &Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if range.start.checked_sub(last.end).is_some_and(|gap| gap <= GAP) => {
                last.end = range.end;
            }
            _ => self.ranges.push(range.clone()),
        }
    }

    /// How many bytes are going to be fetched.
    pub(crate) fn fetched(&self) -> u64 {
        let lengths = self.ranges.iter().map(|range| range.end.saturating_sub(range.start));
        lengths.fold(0, u64::saturating_add)
    }

    /// Begins the archive. `open` gives a content that is here, `reader` the ranges.
    pub(crate) fn start<'a>(
        self,
        open: impl FnMut(&Digest) -> Result<Box<dyn Read + Send>, ImportError> + Send + 'a,
        reader: Box<dyn Read + Send + 'a>,
        problem: &'a Mutex<Option<ImportError>>,
    ) -> Result<Assembled<'a>, ChunkedError>
    where
        't: 'a,
    {
        Ok(Assembled {
            lines: Box::new(self.lines()?),
            fetched: Fetched::new(reader, self.ranges),
            files: self.files,
            open: Box::new(open),
            state: State::Between,
            problem,
            limits: self.limits,
        })
    }
}

/// Gives the parts of a tar-split.
trait Lines: Send {
    fn next_part(&mut self) -> Result<Option<Part>, ChunkedError>;
}

impl<R: Read + Send> Lines for SplitLines<R> {
    fn next_part(&mut self) -> Result<Option<Part>, ChunkedError> {
        SplitLines::next_part(self)
    }
}

/// Gives a content that is here.
type Open<'a> = Box<dyn FnMut(&Digest) -> Result<Box<dyn Read + Send>, ImportError> + Send + 'a>;

/// Reads the archive. Each chunk that is fetched is verified before the next thing is read; what went wrong is left at
/// `problem`, as whoever reads an archive knows only errors of reading.
pub(crate) struct Assembled<'a> {
    lines: Box<dyn Lines + 'a>,
    files: VecDeque<(&'a TocEntry, Origin)>,
    open: Open<'a>,
    fetched: Fetched<'a>,
    state: State<'a>,
    problem: &'a Mutex<Option<ImportError>>,
    limits: Limits,
}

enum State<'a> {
    Between,
    Raw(io::Cursor<Vec<u8>>),
    /// A file that is here, and how much of it is left.
    Here(&'a TocEntry, Box<dyn Read + Send>, u64),
    /// A file of the blob, the chunk that is read, and the number of the next.
    Blob(&'a TocEntry, Option<ChunkReader>, usize),
    End,
}

impl Read for Assembled<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        self.read_some(out).map_err(|error| {
            self.state = State::End;
            let text = error.to_string();
            *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            io::Error::other(text)
        })
    }
}

impl fmt::Debug for Assembled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assembled").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Assembled<'_> {
    fn read_some(&mut self, out: &mut [u8]) -> Result<usize, ImportError> {
        loop {
            match &mut self.state {
                State::End => return Ok(0),
                State::Between => self.next_part()?,
                State::Raw(bytes) => match bytes.read(out)? {
                    0 => self.state = State::Between,
                    count => return Ok(count),
                },
                State::Here(_, _, 0) => self.state = State::Between,
                State::Here(entry, file, left) => {
                    let most = out.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let count = file.read(out.get_mut(..most).unwrap_or_default())?;
                    if count == 0 {
                        let (entry, reason) =
                            (shown(&entry.entry.path), "the file that was there has changed");
                        return Err(ChunkedError::Chunk { entry, reason }.into());
                    }
                    *left = left.saturating_sub(count as u64);
                    return Ok(count);
                }
                State::Blob(entry, Some(chunk), next) => {
                    let refused = |reason| ChunkedError::Chunk { entry: shown(&entry.entry.path), reason };
                    match chunk.read(&mut self.fetched, out, &refused, &self.limits)? {
                        0 => self.state = State::Blob(entry, None, *next),
                        count => return Ok(count),
                    }
                }
                State::Blob(entry, None, next) => {
                    let content = entry.content.as_ref();
                    let chunk =
                        content.and_then(|content| Some((content.chunks.get(*next)?, &content.digest)));
                    self.state = match chunk {
                        None => State::Between,
                        Some((chunk, whole)) => {
                            let digest = chunk.digest.as_ref().unwrap_or(whole);
                            State::Blob(
                                entry,
                                Some(ChunkReader::new(chunk, digest, &mut self.fetched, &self.limits)?),
                                next.saturating_add(1),
                            )
                        }
                    };
                }
            }
        }
    }

    fn next_part(&mut self) -> Result<(), ImportError> {
        self.state = match self.lines.next_part()? {
            None => State::End,
            Some(Part::Raw(bytes)) => State::Raw(io::Cursor::new(bytes)),
            Some(Part::Member { size: 0, .. }) => State::Between,
            Some(Part::Member { name, size }) => {
                let missing =
                    || ChunkedError::Disagrees { entry: shown(&name), what: "only the archive has it" };
                let (entry, origin) = self.files.pop_front().ok_or_else(missing)?;
                if entry.entry.size != size {
                    let what = "its length";
                    return Err(ChunkedError::Disagrees { entry: shown(&name), what }.into());
                }
                match (&entry.content, origin) {
                    (Some(content), Origin::Here) => State::Here(entry, (self.open)(&content.digest)?, size),
                    _ => State::Blob(entry, None, 0),
                }
            }
        };
        Ok(())
    }
}
