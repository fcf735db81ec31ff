//! Maps of sparse files: which bytes of the file stand in the archive.
//!
//! Four forms are in use, all by GNU tar: the old one keeps the map in the header and in blocks after it; PAX forms
//! 0.0 and 0.1 keep it in records; PAX form 1.0 keeps it as text at the front of the content.

use super::entry::Region;
use super::header::{BLOCK, BLOCK_LEN};
use super::number::{self, Reason};
use super::pax::SparseRecords;

/// A map that grows by regions, each checked against those before it.
#[derive(Debug)]
pub(super) struct Map {
    regions: Vec<Region>,
    /// How many entries it has, with those that are not kept.
    entries: u64,
    /// The length of the file.
    size: u64,
    /// The sum of the regions' lengths.
    stored: u64,
    /// How many entries are granted.
    limit: u64,
}

/// Why a map is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MapError {
    /// It is malformed.
    Bad(Reason),
    /// It has more entries than are granted.
    TooMany,
}

impl From<Reason> for MapError {
    fn from(reason: Reason) -> Self {
        MapError::Bad(reason)
    }
}

impl Map {
    /// No regions yet, of a file that is `size` bytes long.
    pub(super) fn new(size: u64, limit: u64) -> Self {
        Map { regions: Vec::new(), entries: 0, size, stored: 0, limit }
    }

    /// Adds a region. One without length only marks the end of the file and is not kept, but counts: some forms have room for
    /// any number of them.
    fn push(&mut self, offset: u64, len: u64) -> Result<(), MapError> {
        if self.entries >= self.limit {
            return Err(MapError::TooMany);
        }
        self.entries = self.entries.saturating_add(1);
        let floor = self.regions.last().map_or(0, |last| last.offset.saturating_add(last.len));
        let end = offset.checked_add(len).ok_or("a region goes beyond 64 bits")?;
        if offset < floor {
            return Err("regions overlap or are out of order".into());
        }
        if end > self.size {
            return Err("a region goes beyond the file".into());
        }
        if len == 0 {
            return Ok(());
        }
        // GNU tar begins each region at a block of its own, others do not: the same only if there is no difference.
        if !self.stored.is_multiple_of(BLOCK_LEN) {
            return Err("a region but the last is no multiple of 512 bytes long".into());
        }
        self.stored = self.stored.saturating_add(len);
        self.regions.push(Region { offset, len });
        Ok(())
    }

    /// The regions, once it is known how many bytes of content the archive has for them.
    pub(super) fn finish(self, stored: u64) -> Result<Vec<Region>, MapError> {
        if self.stored != stored {
            return Err("its regions are not as long as the content".into());
        }
        Ok(self.regions)
    }

    /// Adds the regions of old GNU entries, which stop at the first empty one; `true` if there was an empty one.
    fn push_gnu(&mut self, entries: &[tar::GnuSparseHeader]) -> Result<bool, MapError> {
        let mut ended = false;
        for entry in entries {
            // Readers differ in which of the two fields makes an entry an empty one.
            let empty = [entry.offset.first(), entry.numbytes.first()].map(|first| first == Some(&0));
            match empty {
                [_, true] => ended = true,
                [true, false] => return Err("an entry without offset".into()),
                _ if ended => return Err("an entry after the last one".into()),
                _ => {
                    let offset = number::size(number::field(&entry.offset)?)?;
                    self.push(offset, number::size(number::field(&entry.numbytes)?)?)?;
                }
            }
        }
        Ok(ended)
    }

    /// Adds what an old GNU header has of the map; whether a block with more follows.
    pub(super) fn push_gnu_header(&mut self, header: &tar::GnuHeader) -> Result<bool, MapError> {
        let ended = self.push_gnu(&header.sparse)?;
        Self::more(ended, header.is_extended())
    }

    /// Adds what a block after an old GNU header has of the map; whether another one follows.
    pub(super) fn push_gnu_block(&mut self, block: &[u8; BLOCK]) -> Result<bool, MapError> {
        let mut extension = tar::GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(block);
        let ended = self.push_gnu(extension.sparse())?;
        Self::more(ended, extension.is_extended())
    }

    fn more(ended: bool, extended: bool) -> Result<bool, MapError> {
        if ended && extended { Err("it goes on after its last entry".into()) } else { Ok(extended) }
    }

    /// Adds the regions that PAX records of form 0.0 or 0.1 list.
    pub(super) fn push_records(&mut self, records: &SparseRecords) -> Result<(), MapError> {
        let listed = match &records.map {
            Some(map) if map.is_empty() => Vec::new(),
            Some(map) => map.split(|&byte| byte == b',').map(number::decimal).collect::<Result<_, _>>()?,
            None => records.pairs.clone(),
        };
        let (pairs, []) = listed.as_chunks::<2>() else {
            return Err("an offset without a length".into());
        };
        if let Some(count) = &records.numblocks
            && number::decimal(count)? != pairs.len() as u64
        {
            return Err("it has not as many entries as it says".into());
        }
        pairs.iter().try_for_each(|&[offset, len]| self.push(offset, len))
    }
}

/// Reads the map of PAX form 1.0: decimal numbers, each with a newline after it. The first is the number of
/// regions; an offset and a length for each follow. It fills whole blocks.
#[derive(Debug)]
pub(super) struct TextMap {
    map: Map,
    number: Option<u64>,
    count: Option<u64>,
    offset: Option<u64>,
}

impl TextMap {
    /// Nothing read yet.
    pub(super) fn new(map: Map) -> Self {
        TextMap { map, number: None, count: None, offset: None }
    }

    /// Reads the next block; whether the map needs another one.
    pub(super) fn push_block(&mut self, block: &[u8; BLOCK]) -> Result<bool, MapError> {
        for &byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte.saturating_sub(b'0'));
                    let value =
                        self.number.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit));
                    self.number = Some(value.ok_or("a number goes beyond 64 bits")?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or("an empty line")?;
                    if !self.push_number(number)? {
                        return Ok(false);
                    }
                }
                _ => return Err("a byte that is no digit".into()),
            }
        }
        Ok(true)
    }

    /// Takes the next number; whether another one must follow.
    fn push_number(&mut self, number: u64) -> Result<bool, MapError> {
        match (self.count, self.offset.take()) {
            (None, _) => {
                // Told before the first of them is read.
                if number > self.map.limit {
                    return Err(MapError::TooMany);
                }
                self.count = Some(number);
            }
            (Some(_), None) => self.offset = Some(number),
            (Some(count), Some(offset)) => {
                self.map.push(offset, number)?;
                self.count = Some(count.saturating_sub(1));
            }
        }
        Ok(self.count != Some(0))
    }

    /// The map that was read.
    pub(super) fn into_map(self) -> Map {
        self.map
    }
}
