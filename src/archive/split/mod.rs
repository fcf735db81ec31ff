//! The tar-split of an archive: everything of its bytes that is not a file's content, and references to the
//! contents in between. Joined with the files it gives the archive back bit for bit.
//!
//! A split is made in two steps, since the hashes of contents are known last: while the archive is read, a
//! [`SplitBuilder`] as its [`Tap`](super::Tap) writes the records into a spool; [`assemble`] then puts the table of
//! contents before them. A [`SplitReader`] joins.
//!
//! # Format
//!
//! Numbers are little endian.
//!
//! ```text
//! offset  length  what
//!      0       8  magic: "LSTSPLIT"
//!      8       4  version: 1
//!     12       4  n, how many contents the records refer to
//!     16    40*n  the contents, each: content hash (32 bytes), length of the file (8)
//!  16+40n    ...  the records, in zstd frames, to the end
//! ```
//!
//! A content is a whole file with holes as zeros; its hash is the BLAKE3 of that. The records give the archive from
//! its first byte to its last. Numbers in them are LEB128: seven bits a byte, lowest first, in as few bytes as can be.
//!
//! ```text
//! 1 len bytes           these bytes (1 to 65536)
//! 2 content offset len  these bytes of a content, by its place in the table
//! 0 total               the end; the archive is this long
//! ```
//!
//! The parts of one content stand one after the other in the order of their offsets, so that a reader needs each file
//! once for each place in the table, and from front to back. A content whose file did not survive the import (a later
//! member of the same archive replaced it) has no place in the table: its bytes stand among the records as they are.

mod assemble;
mod build;
mod contents;
mod join;
mod record;

pub(crate) use assemble::assemble;
pub(crate) use build::SplitBuilder;
pub(crate) use join::SplitReader;

use crate::types::ContentHash;

/// A file that is opened to be read from front to back.
pub(crate) type Source<'a> = Box<dyn std::io::Read + 'a>;

/// Opens the file that has a content, of this length: on any thread.
pub(crate) type Open<'a> = &'a (dyn Fn(&ContentHash, u64) -> std::io::Result<Source<'a>> + Sync);

const MAGIC: [u8; 8] = *b"LSTSPLIT";
const VERSION: u32 = 1;

const BEYOND: &str = "a record goes beyond its content";

/// A whole file that a split refers to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Content {
    /// The BLAKE3 hash of the file, holes as zeros.
    pub hash: ContentHash,
    /// The length of the file.
    pub size: u64,
}

#[cfg(test)]
mod tests;
