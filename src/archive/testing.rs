//! Reading archives in tests. They are made with [`made`](super::made).

use std::io::Read;

pub(crate) use super::made::Blocks;
use super::{Entry, Reader, Tap};
use crate::error::ArchiveError;
use crate::types::Limits;

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
