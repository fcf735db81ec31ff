//! Writes an EROFS filesystem: names, metadata, attributes; no content of files.
//!
//! The format is that of Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the kernel, of which this needs
//! little: 4096-byte blocks, extended inodes, inline attributes, directories and links in plain blocks with inline tails,
//! and files as one hole (chunk-based, without a block). Kernels since 5.16 read it.
//!
//! ```text
//! 0      nothing
//! 1024   superblock, 128 bytes
//! 1152   inodes, each with its attributes and its tail, at multiples of 32
//! ...    blocks of directories and of long links
//! ```
//!
//! The same inodes give the same bytes: nothing of the machine or the time is in them.

mod directory;
mod inode;
mod superblock;

pub(super) use directory::Name;
pub(super) use inode::{Body, Inode};

use inode::Placed;

/// Bytes of a block, and its binary logarithm.
const BLOCK: usize = 4096;
const BLOCK_BITS: u8 = 12;
/// An inode's number counts these from the beginning.
const SLOT: usize = 32;
/// Where the first inode stands.
const FIRST_INODE: usize = 1152;

/// What the format has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The inode, by its place among all.
    pub(super) inode: usize,
    /// What is too large.
    pub(super) reason: &'static str,
}

/// The filesystem with these inodes; the first is the root. `uuid` names it.
pub(super) fn filesystem(inodes: &[Inode], uuid: [u8; 16]) -> Result<Vec<u8>, Unfit> {
    let mut placed = Vec::with_capacity(inodes.len());
    let mut end = FIRST_INODE;
    for (index, inode) in inodes.iter().enumerate() {
        let inode = Placed::at(inode, end).map_err(|reason| Unfit { inode: index, reason })?;
        end = inode.end();
        placed.push(inode);
    }
    let unfit = |reason| Unfit { inode: 0, reason };
    let mut block = end.div_ceil(BLOCK);
    for inode in &mut placed {
        inode.give_blocks(block);
        block = block.saturating_add(inode.blocks());
    }
    let blocks = u32::try_from(block).map_err(|_| unfit("the tree is too large"))?;
    let numbers: Vec<u64> = placed.iter().map(Placed::number).collect();
    let types: Vec<u8> = inodes.iter().map(Inode::file_type).collect();
    let mut image = vec![0; FIRST_INODE];
    for (index, inode) in placed.iter().enumerate() {
        image.resize(inode.start(), 0);
        inode.write(&mut image, index, &numbers, &types);
    }
    for inode in &placed {
        if inode.blocks() > 0 {
            image.resize(image.len().next_multiple_of(BLOCK), 0);
            inode.write_blocks(&mut image, &numbers, &types);
        }
    }
    image.resize(image.len().next_multiple_of(BLOCK), 0);
    superblock::write(&mut image, blocks, numbers.first().copied().unwrap_or_default(), inodes.len(), uuid);
    Ok(image)
}
