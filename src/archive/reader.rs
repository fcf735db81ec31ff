//! A tar stream, taken apart.

use std::io::{self, BufRead, BufReader, Read, Seek};

use super::entry::{Entry, EntryKind, Region, Said};
use super::header::{BLOCK, BLOCK_LEN, Header, NoHeader, padding};
use super::member::{self, Extensions, Form, Member};
use super::pax::Records;
use super::sparse::{Map, MapError, TextMap};
use crate::error::{ArchiveError, Limit, LimitError, quoted, shown};
use crate::types::{Budget, Limits};

/// Sees every byte of an archive exactly once and in order, either itself or as a reference to a content.
pub(crate) trait Tap {
    /// Bytes that are no file's content: headers, extension headers, sparse maps, padding, end blocks, and
    /// whatever follows them.
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Next in the stream are `len` bytes that stand at `offset` in the file with this [`Entry::ordinal`].
    /// Contents come in the order of their ordinals, and their parts in the order of their offsets.
    fn content(&mut self, ordinal: u32, offset: u64, len: u64) -> io::Result<()>;
}

impl Tap for () {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn content(&mut self, _: u32, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl<T: Tap + ?Sized> Tap for &mut T {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        (**self).raw(bytes)
    }

    fn content(&mut self, ordinal: u32, offset: u64, len: u64) -> io::Result<()> {
        (**self).content(ordinal, offset, len)
    }
}

/// Reads the entries of a tar stream one after the other. After an entry with content, reading from the reader gives
/// the [`Entry::stored`] bytes; what is left of them is skipped when the next entry is asked for.
///
/// V7, POSIX (ustar, PAX) and GNU archives are read, with GNU's sparse files. The stream is read to its end, also
/// beyond the archive's end blocks. Memory stays bounded by [`Limits`], whatever the archive says.
///
/// # Errors
///
/// Every method may return each [`ArchiveError`] of reading. After an error there are no more entries. From
/// [`Read::read`] the error comes inside an [`io::Error`]; `ArchiveError::from_read` takes it out.
pub(crate) struct Reader<R: Read, T: Tap = ()> {
    source: BufReader<R>,
    tap: T,
    limits: Limits,
    /// What is left of those that hold for several archives together.
    budget: Budget,
    /// How many bytes were read.
    offset: u64,
    /// How many bytes of the current content are not yet read, and of the padding after it.
    remaining: u64,
    padding: u64,
    /// What global headers say.
    globals: Records,
    has_globals: bool,
    /// What the archive says of the last entry, beyond it.
    said: Said,
    /// The path of the last entry, for messages.
    previous: Vec<u8>,
    has_entries: bool,
    contents: u32,
    /// Bytes of holes in all members so far.
    holes: u64,
    done: bool,
}

const BUFFER: usize = 64 * 1024;

impl<R: Read, T: Tap> Reader<R, T> {
    /// Starts at the first byte of an archive that is not compressed.
    #[cfg(test)]
    pub(crate) fn new(source: R, tap: T) -> Self {
        Self::with_limits(source, tap, Limits::default())
    }

    /// The same with other limits.
    pub(crate) fn with_limits(source: R, tap: T, limits: Limits) -> Self {
        Reader {
            source: BufReader::with_capacity(BUFFER, source),
            tap,
            budget: Budget::new(&limits),
            limits,
            offset: 0,
            remaining: 0,
            padding: 0,
            globals: Records::default(),
            has_globals: false,
            said: Said::default(),
            previous: Vec::new(),
            has_entries: false,
            contents: 0,
            holes: 0,
            done: false,
        }
    }

    /// The same, as one of several archives whose members have no more together than is left of a budget.
    pub(crate) fn within(self, budget: &Budget) -> Self {
        Reader { budget: budget.clone(), ..self }
    }

    /// Goes to the next entry. `None` if there is none; then the stream was read to its end.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, ArchiveError> {
        if self.done {
            return Ok(None);
        }
        let result = self.advance();
        if !matches!(result, Ok(Some(_))) {
            self.done = true;
            self.remaining = 0;
        }
        result
    }

    /// Where in the archive the next byte is that will be read.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// What the archive says of the current entry, beyond it.
    pub(crate) fn said(&self) -> Said {
        self.said
    }

    /// Whether there was a global header before the current entry.
    pub(crate) fn has_globals(&self) -> bool {
        self.has_globals
    }

    /// The tap, which has seen every byte up to the content of the current entry.
    pub(crate) fn tap_mut(&mut self) -> &mut T {
        &mut self.tap
    }

    /// The tap, which has seen every byte if there are no more entries.
    pub(crate) fn into_tap(self) -> T {
        self.tap
    }

    fn advance(&mut self) -> Result<Option<Entry>, ArchiveError> {
        self.skip_content()?;
        let mut found = Extensions::default();
        loop {
            let Some(header) = self.read_header(&found)? else {
                return Ok(None);
            };
            let extension = |reason| ArchiveError::Extension { member: shown(header.path()), reason };
            match header.typeflag() {
                b'g' | b'x' | b'L' | b'K' if !header.may_extend() => {
                    return Err(extension(
                        "its own header is neither in the form of POSIX nor in that of GNU",
                    ));
                }
                b'g' if !found.is_empty() => {
                    return Err(extension("a global header stands between another extension and its member"));
                }
                b'g' => {
                    let records = Records::parse(&self.read_extension(&header)?).map_err(extension)?;
                    self.globals.merge_global(records).map_err(extension)?;
                    self.has_globals = true;
                }
                b'x' => {
                    let records = Records::parse(&self.read_extension(&header)?).map_err(extension)?;
                    put_once(&mut found.pax, records).map_err(extension)?;
                }
                b'L' => {
                    let name = member::long_name(self.read_extension(&header)?).map_err(extension)?;
                    put_once(&mut found.long_path, name).map_err(extension)?;
                }
                b'K' => {
                    let name = member::long_name(self.read_extension(&header)?).map_err(extension)?;
                    put_once(&mut found.long_link, name).map_err(extension)?;
                }
                _ => return self.read_member(&header, found).map(Some),
            }
        }
    }

    /// Reads a header; `None` at the end of the archive, with the rest of the stream read too.
    fn read_header(&mut self, found: &Extensions) -> Result<Option<Header>, ArchiveError> {
        let start = self.offset;
        let mut block = [0; BLOCK];
        let length = self.read_block(&mut block)?;
        let dangling = "no member follows it";
        match length {
            // Many programs leave out the end blocks, and GNU tar does not mind. But nothing at all is no archive.
            0 if !found.is_empty() => Err(self.truncated("after an extension header")),
            0 if !self.has_entries => Err(self.truncated("before its first member")),
            0 => {
                let previous = shown(&self.previous);
                tracing::warn!(
                    previous,
                    "the archive has no end blocks: nothing tells whether its end was cut off"
                );
                Ok(None)
            }
            BLOCK => match Header::parse(&block) {
                Ok(header) => Ok(Some(header)),
                Err(NoHeader::Checksum) if start == 0 => Err(ArchiveError::NotTar),
                Err(NoHeader::Checksum) => {
                    Err(ArchiveError::Checksum { offset: start, previous: shown(&self.previous) })
                }
                Err(NoHeader::Zeros) if !found.is_empty() => {
                    Err(ArchiveError::Extension { member: shown(&self.previous), reason: dangling })
                }
                Err(NoHeader::Zeros) => self.read_end(start).map(|()| None),
            },
            _ if start == 0 => Err(ArchiveError::Short { length }),
            _ => Err(self.truncated("inside a header")),
        }
    }

    /// Reads the second end block, which may be missing or cut, and everything after it.
    fn read_end(&mut self, start: u64) -> Result<(), ArchiveError> {
        let mut block = [0; BLOCK];
        let length = self.read_block(&mut block)?;
        if block.iter().take(length).any(|&byte| byte != 0) {
            return Err(ArchiveError::LoneEndBlock { offset: start, previous: shown(&self.previous) });
        }
        self.skip_raw(u64::MAX).map(drop)
    }

    /// Reads the body of an extension header.
    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>, ArchiveError> {
        let member = || shown(header.path());
        let size = header.size().map_err(|reason| ArchiveError::Number {
            member: member(),
            field: "size",
            reason,
        })?;
        self.limits.check(Limit::PaxBytes, size, || quoted(header.path()))?;
        let mut body = Vec::new();
        self.source.by_ref().take(size).read_to_end(&mut body).map_err(ArchiveError::from_read)?;
        self.saw(&body)?;
        if (body.len() as u64) < size {
            return Err(self.truncated("inside an extension header"));
        }
        let is_name = matches!(header.typeflag(), b'L' | b'K') && !body.contains(&0);
        if is_name && size % BLOCK_LEN != 0 && fill(&mut self.source)?.first().is_some_and(|&byte| byte != 0)
        {
            // GNU tar reads it as a string, to the NUL.
            let reason = "a long name goes on behind its end";
            return Err(ArchiveError::Extension { member: member(), reason });
        }
        self.skip_padding(padding(size))?;
        Ok(body)
    }

    /// Makes the entry of a header that is no extension, and gets its content ready.
    fn read_member(&mut self, header: &Header, found: Extensions) -> Result<Entry, ArchiveError> {
        let records = found.pax.as_ref().map(|pax| pax.sparse.clone()).unwrap_or_default();
        let Member { mut entry, said, body, form } = member::assemble(header, found, &self.globals)?;
        self.previous.clone_from(&entry.path);
        self.said = said;
        self.count(&entry)?;
        let (limits, regions) = (self.limits, self.limits.sparse_extents);
        let bad_map = |error| match error {
            MapError::Bad(reason) => ArchiveError::Sparse { member: shown(&entry.path), reason },
            MapError::TooMany => {
                LimitError::new(quoted(&entry.path), Limit::SparseExtents, regions, None).into()
            }
        };
        let sparse = match form {
            Form::Whole => None,
            Form::OldSparse { size } => {
                let map = self.read_old_map(header, Map::new(size, regions), &bad_map)?;
                Some((size, map, body))
            }
            Form::SparseRecords { size } => {
                let mut map = Map::new(size, regions);
                map.push_records(&records).map_err(&bad_map)?;
                Some((size, map, body))
            }
            Form::SparseText { size } => {
                let (map, stored) = self.read_text_map(Map::new(size, regions), body, &bad_map)?;
                Some((size, map, stored))
            }
        };
        if let Some((size, map, stored)) = sparse {
            let regions = map.finish(stored).map_err(&bad_map)?;
            self.holes = self.holes.saturating_add(size.saturating_sub(stored));
            limits.check(Limit::HoleBytes, self.holes, || quoted(&entry.path))?;
            (entry.size, entry.stored, entry.sparse) = (size, stored, Some(regions));
        }
        self.start_content(&mut entry)?;
        Ok(entry)
    }

    /// Counts a member and what it says, before anything is done for it.
    fn count(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let bytes = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        let (path, link) = (bytes(entry.path.len()), bytes(entry.link.len()));
        let xattrs =
            entry.xattrs.iter().map(|(name, value)| bytes(name.len()).saturating_add(bytes(value.len())));
        let subject = || quoted(&entry.path);
        self.has_entries = true;
        self.budget.take_entry(subject)?;
        self.limits.check(Limit::PathBytes, path.max(link), subject)?;
        self.budget.take_paths(path.saturating_add(link), subject)?;
        self.limits.check(Limit::XattrBytes, xattrs.fold(0, u64::saturating_add), subject)?;
        Ok(self.budget.take_xattrs(&entry.xattrs, subject)?)
    }

    /// Numbers the content and tells the tap where it belongs.
    fn start_content(&mut self, entry: &mut Entry) -> Result<(), ArchiveError> {
        self.remaining = entry.stored;
        self.padding = padding(entry.stored);
        if entry.stored == 0 {
            return Ok(());
        }
        debug_assert_eq!(entry.kind, EntryKind::File);
        // There are no more contents than entries, whose limit is far below.
        let ordinal = self.contents;
        self.contents = ordinal.saturating_add(1);
        entry.ordinal = Some(ordinal);
        let whole = [Region { offset: 0, len: entry.stored }];
        for region in entry.sparse.as_deref().unwrap_or(&whole) {
            self.tap.content(ordinal, region.offset, region.len).map_err(ArchiveError::Keep)?;
        }
        Ok(())
    }

    fn read_old_map(
        &mut self,
        header: &Header,
        mut map: Map,
        bad_map: &dyn Fn(MapError) -> ArchiveError,
    ) -> Result<Map, ArchiveError> {
        let mut more = match header.as_gnu() {
            Some(gnu) => map.push_gnu_header(gnu).map_err(bad_map)?,
            None => false,
        };
        while more {
            let block = self.read_map_block()?;
            more = map.push_gnu_block(&block).map_err(bad_map)?;
        }
        Ok(map)
    }

    /// Reads the map at the front of a body, and says how many bytes of the body are left.
    fn read_text_map(
        &mut self,
        map: Map,
        body: u64,
        bad_map: &dyn Fn(MapError) -> ArchiveError,
    ) -> Result<(Map, u64), ArchiveError> {
        let mut text = TextMap::new(map);
        let mut left = body;
        let mut more = true;
        while more {
            left = left
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| bad_map(MapError::Bad("it is longer than the content")))?;
            let block = self.read_map_block()?;
            more = text.push_block(&block).map_err(bad_map)?;
        }
        Ok((text.into_map(), left))
    }

    fn read_map_block(&mut self) -> Result<[u8; BLOCK], ArchiveError> {
        let mut block = [0; BLOCK];
        match self.read_block(&mut block)? {
            BLOCK => Ok(block),
            _ => Err(self.truncated("inside a sparse map")),
        }
    }

    /// Skips what is left of the current content, and its padding. The tap knows of the content already.
    fn skip_content(&mut self) -> Result<(), ArchiveError> {
        while self.remaining > 0 {
            let available = fill(&mut self.source)?.len();
            if available == 0 {
                return Err(self.truncated("inside the content"));
            }
            let count = available.min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
            self.source.consume(count);
            self.offset = self.offset.saturating_add(count as u64);
            self.remaining = self.remaining.saturating_sub(count as u64);
        }
        let padding = std::mem::take(&mut self.padding);
        // Some programs (`umoci insert`) stop where the last content ends. Nothing of the layer is missing then,
        // and its diffID vouches for that.
        self.skip_raw(padding).map(drop)
    }

    /// Skips the padding of an extension header, after which a member has to come.
    fn skip_padding(&mut self, length: u64) -> Result<(), ArchiveError> {
        if self.skip_raw(length)? < length { Err(self.truncated("inside the padding")) } else { Ok(()) }
    }

    /// Passes up to `length` bytes to the tap, fewer only at the end of the stream.
    fn skip_raw(&mut self, length: u64) -> Result<u64, ArchiveError> {
        let mut left = length;
        while left > 0 {
            let available = fill(&mut self.source)?;
            let count = available.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(bytes) = available.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            self.tap.raw(bytes).map_err(ArchiveError::Keep)?;
            self.source.consume(count);
            self.offset = self.offset.saturating_add(count as u64);
            left = left.saturating_sub(count as u64);
        }
        Ok(length.saturating_sub(left))
    }

    /// Reads a block, or what there is of it at the end of the stream.
    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, ArchiveError> {
        let mut length = 0;
        while let Some(rest) = block.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest) {
                Ok(0) => break,
                Ok(count) => length = length.saturating_add(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ArchiveError::from_read(error)),
            }
        }
        self.saw(block.get(..length).unwrap_or_default())?;
        Ok(length)
    }

    /// Counts bytes that are no content, and passes them on.
    fn saw(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.offset = self.offset.saturating_add(bytes.len() as u64);
        if bytes.is_empty() { Ok(()) } else { self.tap.raw(bytes).map_err(ArchiveError::Keep) }
    }

    fn truncated(&self, place: &str) -> ArchiveError {
        let previous = match self.has_entries {
            false => String::new(),
            true => format!(", at or after {:?}", shown(&self.previous)),
        };
        ArchiveError::Truncated { place: format!("{place} at byte {}{previous}", self.offset) }
    }
}

impl<R: Read + Seek, T: Tap> Reader<R, T> {
    /// Skips what is left of the current content without reading it. That the archive is long enough is for the caller to
    /// know: beyond its end there just is no next entry.
    pub(crate) fn skip_by_seeking(&mut self) -> Result<(), ArchiveError> {
        let remaining = std::mem::take(&mut self.remaining);
        let distance = i64::try_from(remaining).map_err(io::Error::other).map_err(ArchiveError::Read)?;
        self.source.seek_relative(distance).map_err(ArchiveError::Read)?;
        self.offset = self.offset.saturating_add(remaining);
        Ok(())
    }
}

impl<R: Read, T: Tap> Read for Reader<R, T> {
    /// Reads from the content of the current entry; 0 at its end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let Some(wanted) = buffer.get_mut(..length).filter(|wanted| !wanted.is_empty()) else {
            return Ok(0);
        };
        let count = self.source.read(wanted)?;
        if count == 0 {
            return Err(self.truncated("inside the content").into());
        }
        self.offset = self.offset.saturating_add(count as u64);
        self.remaining = self.remaining.saturating_sub(count as u64);
        Ok(count)
    }
}

/// What the source has buffered, filled if it had nothing; empty at its end.
fn fill<R: Read>(source: &mut BufReader<R>) -> Result<&[u8], ArchiveError> {
    while let Err(error) = source.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(ArchiveError::from_read(error));
        }
    }
    // An error is not kept, and a buffer that has bytes is not filled again.
    source.fill_buf().map_err(ArchiveError::from_read)
}

/// Two extensions of one kind for one member: readers differ in which of them they believe.
fn put_once<V>(slot: &mut Option<V>, value: V) -> Result<(), &'static str> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err("it is the second of its kind for the same member"),
    }
}

#[cfg(test)]
mod tests;
