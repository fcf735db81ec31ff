//! Directories: blocks of fixed entries, followed by the names.

use super::BLOCK;

/// Bytes of an entry without its name.
const ENTRY: usize = 12;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    /// One part of a path.
    pub(crate) name: Vec<u8>,
    /// What it names, by its place among all inodes.
    pub(crate) inode: usize,
}

/// How the names fall into blocks: how many, and how many bytes they take, for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks(Vec<(usize, usize)>);

impl Blocks {
    /// Fills one block after the other. The names are in the order of their bytes, those of the directory itself and of
    /// its parent among them: the kernel searches by halves.
    pub(super) fn of(names: &[Name]) -> Self {
        let mut blocks: Vec<(usize, usize)> = Vec::new();
        for name in names {
            let bytes = ENTRY.saturating_add(name.name.len());
            match blocks.last_mut() {
                Some((count, used)) if used.saturating_add(bytes) <= BLOCK => {
                    *count = count.saturating_add(1);
                    *used = used.saturating_add(bytes);
                }
                _ => blocks.push((1, bytes)),
            }
        }
        Blocks(blocks)
    }

    /// Bytes of the directory: all blocks but the last are full ones.
    pub(super) fn size(&self) -> usize {
        self.0
            .last()
            .map_or(0, |(_, used)| self.0.len().saturating_sub(1).saturating_mul(BLOCK).saturating_add(*used))
    }

    /// The directory's bytes.
    pub(super) fn bytes(&self, names: &[Name], numbers: &[u64], types: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        let mut rest = names;
        for (count, _) in &self.0 {
            let (block, after) = rest.split_at_checked(*count).unwrap_or((rest, &[]));
            rest = after;
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            let mut offset = count.saturating_mul(ENTRY);
            for name in block {
                bytes.extend(numbers.get(name.inode).copied().unwrap_or_default().to_le_bytes());
                bytes.extend(u16::try_from(offset).unwrap_or_default().to_le_bytes());
                bytes.extend([types.get(name.inode).copied().unwrap_or_default(), 0]);
                offset = offset.saturating_add(name.name.len());
            }
            block.iter().for_each(|name| bytes.extend(&name.name));
        }
        bytes
    }
}
