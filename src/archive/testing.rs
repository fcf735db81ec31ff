//! Archives built block by block, for tests: nothing is checked, so that anything can be said.

use std::io::Read;

use super::{Entry, Limits, Reader, Tap};
use crate::error::ArchiveError;

/// Appends blocks to an archive.
#[derive(Clone, Default)]
pub(crate) struct Blocks(pub Vec<u8>);

impl Blocks {
    pub(crate) fn new() -> Self {
        Blocks::default()
    }

    /// A POSIX header for `size` bytes that the caller may or may not let follow.
    pub(crate) fn header(typeflag: u8, name: &str, size: u64) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkflag = [typeflag];
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header
    }

    /// Adds a header; its checksum is made right.
    pub(crate) fn put(mut self, mut header: tar::Header) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self
    }

    /// Adds bytes, padded to a block.
    pub(crate) fn body(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Adds bytes as they are.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Adds a member.
    pub(crate) fn member(self, typeflag: u8, name: &str, body: &[u8]) -> Self {
        self.put(Self::header(typeflag, name, body.len() as u64)).body(body)
    }

    /// Adds a regular file.
    pub(crate) fn file(self, name: &str, body: &[u8]) -> Self {
        self.member(b'0', name, body)
    }

    /// Adds a link.
    pub(crate) fn link(self, typeflag: u8, name: &str, target: &str) -> Self {
        let mut header = Self::header(typeflag, name, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.put(header)
    }

    /// Adds an extended header.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        self.records(b'x', records)
    }

    /// Adds a global extended header.
    pub(crate) fn global(self, records: &[(&str, &str)]) -> Self {
        self.records(b'g', records)
    }

    fn records(self, typeflag: u8, records: &[(&str, &str)]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            super::pax::put_record(&mut body, key.as_bytes(), value.as_bytes());
        }
        self.member(typeflag, "PaxHeaders/x", &body)
    }

    /// Adds a GNU long name (`L`) or long link target (`K`).
    pub(crate) fn long(self, typeflag: u8, name: &str) -> Self {
        self.member(typeflag, "././@LongLink", &[name.as_bytes(), b"\0"].concat())
    }

    /// Adds the end blocks.
    pub(crate) fn end(self) -> Vec<u8> {
        self.bytes(&[0; 1024]).0
    }
}

/// A tap that notes what it sees.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Notes(pub Vec<Note>);

#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Note {
    Raw(Vec<u8>),
    Content(u32, u64, u64),
}

impl Tap for Notes {
    fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self.0.last_mut() {
            Some(Note::Raw(last)) => last.extend_from_slice(bytes),
            _ => self.0.push(Note::Raw(bytes.to_vec())),
        }
        Ok(())
    }

    fn content(&mut self, ordinal: u32, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.push(Note::Content(ordinal, offset, len));
        Ok(())
    }
}

/// All entries of an archive, each with its stored bytes.
pub(crate) fn read(archive: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    read_tapped(archive, &mut (), Limits::default())
}

/// The same, tapped.
pub(crate) fn read_tapped(
    archive: &[u8],
    tap: &mut dyn Tap,
    limits: Limits,
) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut reader = Reader::with_limits(archive, tap, limits);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content).map_err(ArchiveError::from_read)?;
        assert_eq!(content.len() as u64, entry.stored);
        entries.push((entry, content));
    }
    Ok(entries)
}

/// The paths of an archive.
pub(crate) fn paths(archive: &[u8]) -> Result<Vec<String>, ArchiveError> {
    Ok(read(archive)?.into_iter().map(|(entry, _)| entry.shown()).collect())
}

/// A file's bytes, holes filled in.
pub(crate) fn whole(entry: &Entry, stored: &[u8]) -> Vec<u8> {
    let Some(regions) = &entry.sparse else { return stored.to_vec() };
    let mut file = vec![0; usize::try_from(entry.size).unwrap()];
    let mut stored = stored;
    for region in regions {
        let (offset, len) = (region.offset as usize, region.len as usize);
        file[offset..offset + len].copy_from_slice(&stored[..len]);
        stored = &stored[len..];
    }
    file
}
