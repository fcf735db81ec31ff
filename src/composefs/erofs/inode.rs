//! Inodes in their extended form: 64 bytes, the attributes, and what stands behind them.

use crate::types::Timestamp;

use super::directory::{Blocks, Name};
use super::{BLOCK, BLOCK_BITS, SLOT};

/// Bytes of an inode without its attributes.
const HEAD: usize = 64;
/// Larger tails get blocks of their own: an inode is moved until its tail lies in one block, and what it skips is lost.
const MOST_INLINE: usize = BLOCK / 2;
/// No block.
const NOWHERE: u32 = u32::MAX;

/// Where the content is, as bits of an inode's format.
const PLAIN: u16 = 0;
const INLINE: u16 = 2;
const CHUNKS: u16 = 4;

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    /// Kind and permissions, as `stat` has them.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    /// How many names it has.
    pub(crate) links: u32,
    /// Full names and values.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) body: Body,
}

/// What a file has besides its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    /// The names in a directory, in the order of their bytes, with `.` and `..`.
    Directory(Vec<Name>),
    /// The target of a symbolic link.
    Link(Vec<u8>),
    /// The number of a device.
    Device { major: u32, minor: u32 },
    /// A regular file that is one hole of this length.
    Hole(u64),
    /// Nothing.
    Empty,
}

impl Inode {
    /// The kind as directories have it.
    pub(super) fn file_type(&self) -> u8 {
        match self.mode >> 12 {
            0o10 => 1,
            0o04 => 2,
            0o02 => 3,
            0o06 => 4,
            0o01 => 5,
            0o14 => 6,
            0o12 => 7,
            _ => 0,
        }
    }
}

/// An inode with its place.
#[derive(Debug)]
pub(super) struct Placed<'i> {
    inode: &'i Inode,
    start: usize,
    xattrs: Vec<u8>,
    content: Content,
    /// The first of its blocks.
    block: usize,
}

#[derive(Debug)]
enum Content {
    Nothing,
    /// Bytes of which the last `tail` stand behind the inode, and the others in blocks.
    Bytes {
        size: usize,
        tail: usize,
        directory: Option<Blocks>,
    },
    /// Chunks of 2 to the power of `bits` blocks each.
    Chunks {
        bits: u16,
        count: usize,
    },
}

impl<'i> Placed<'i> {
    /// Finds the first place at or after `start`. Returns what there is no room for.
    pub(super) fn at(inode: &'i Inode, start: usize) -> Result<Self, &'static str> {
        let xattrs = xattr_bytes(&inode.xattrs)?;
        let content = match &inode.body {
            Body::Directory(names) => {
                let blocks = Blocks::of(names);
                Content::bytes(blocks.size(), Some(blocks))
            }
            Body::Link(target) => Content::bytes(target.len(), None),
            Body::Hole(size) => Content::hole(*size)?,
            Body::Device { .. } | Body::Empty => Content::Nothing,
        };
        let mut placed = Placed { inode, start: start.next_multiple_of(SLOT), xattrs, content, block: 0 };
        if let Content::Bytes { tail, .. } = placed.content {
            while (placed.behind() % BLOCK).saturating_add(tail) > BLOCK {
                placed.start = placed.start.saturating_add(SLOT);
            }
        }
        Ok(placed)
    }

    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Where the next one may stand.
    pub(super) fn end(&self) -> usize {
        self.behind().saturating_add(match &self.content {
            Content::Nothing => 0,
            Content::Bytes { tail, .. } => *tail,
            Content::Chunks { count, .. } => count.saturating_mul(4),
        })
    }

    /// Where what follows the attributes stands.
    fn behind(&self) -> usize {
        self.start.saturating_add(HEAD).saturating_add(self.xattrs.len())
    }

    /// The inode's number.
    pub(super) fn number(&self) -> u64 {
        u64::try_from(self.start / SLOT).unwrap_or(u64::MAX)
    }

    /// How many blocks it has besides its tail.
    pub(super) fn blocks(&self) -> usize {
        match &self.content {
            Content::Bytes { size, tail, .. } => size.saturating_sub(*tail).div_ceil(BLOCK),
            _ => 0,
        }
    }

    pub(super) fn give_blocks(&mut self, first: usize) {
        self.block = first;
    }

    /// Appends the inode, its attributes and its tail to `image`, which ends where it begins.
    pub(super) fn write(&self, image: &mut Vec<u8>, index: usize, numbers: &[u64], types: &[u8]) {
        let Inode { mode, uid, gid, mtime, links, body, .. } = self.inode;
        let (layout, size, place) = match (&self.content, body) {
            (Content::Bytes { size, tail, .. }, _) => {
                let layout = if *tail > 0 { INLINE } else { PLAIN };
                let block =
                    if self.blocks() > 0 { u32::try_from(self.block).unwrap_or(NOWHERE) } else { NOWHERE };
                (layout, u64::try_from(*size).unwrap_or(u64::MAX), block)
            }
            (Content::Chunks { bits, .. }, Body::Hole(size)) => (CHUNKS, *size, u32::from(*bits)),
            (_, Body::Device { major, minor }) => {
                (PLAIN, 0, (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12))
            }
            _ => (PLAIN, 0, NOWHERE),
        };
        image.extend((1 | layout << 1).to_le_bytes());
        image.extend(u16::try_from(xattr_count(&self.xattrs)).unwrap_or_default().to_le_bytes());
        image.extend(mode.to_le_bytes());
        image.extend([0; 2]);
        image.extend(size.to_le_bytes());
        image.extend(place.to_le_bytes());
        // A number for programs of 32 bits; the kernel makes its own of the place.
        image.extend(u32::try_from(index.saturating_add(1)).unwrap_or(u32::MAX).to_le_bytes());
        image.extend(uid.to_le_bytes());
        image.extend(gid.to_le_bytes());
        image.extend(mtime.seconds.to_le_bytes());
        image.extend(mtime.nanoseconds.to_le_bytes());
        image.extend(links.to_le_bytes());
        image.extend([0; 16]);
        image.extend(&self.xattrs);
        match &self.content {
            Content::Nothing => {}
            Content::Bytes { size, tail, .. } => {
                let bytes = self.bytes(numbers, types);
                image.extend(bytes.get(size.saturating_sub(*tail)..).unwrap_or_default());
            }
            Content::Chunks { count, .. } => {
                (0..*count).for_each(|_| image.extend(NOWHERE.to_le_bytes()));
            }
        }
    }

    /// Appends what of the content stands in blocks.
    pub(super) fn write_blocks(&self, image: &mut Vec<u8>, numbers: &[u64], types: &[u8]) {
        if let Content::Bytes { size, tail, .. } = &self.content {
            image.extend(self.bytes(numbers, types).get(..size.saturating_sub(*tail)).unwrap_or_default());
        }
    }

    fn bytes(&self, numbers: &[u64], types: &[u8]) -> Vec<u8> {
        match (&self.inode.body, &self.content) {
            (Body::Directory(names), Content::Bytes { directory: Some(blocks), .. }) => {
                blocks.bytes(names, numbers, types)
            }
            (Body::Link(target), _) => target.clone(),
            _ => Vec::new(),
        }
    }
}

impl Content {
    fn bytes(size: usize, directory: Option<Blocks>) -> Self {
        let rest = size % BLOCK;
        Content::Bytes { size, tail: if rest > MOST_INLINE { 0 } else { rest }, directory }
    }

    /// A hole in as few chunks as there can be.
    fn hole(size: u64) -> Result<Self, &'static str> {
        /// The most that the five bits for it say.
        const MOST_BITS: u32 = 31;
        if size == 0 {
            return Ok(Content::Nothing);
        }
        let blocks = size.div_ceil(1 << BLOCK_BITS);
        let bits = blocks.next_power_of_two().trailing_zeros().min(MOST_BITS);
        let count = usize::try_from(blocks.div_ceil(1 << bits)).map_err(|_| "the file is too long")?;
        Ok(Content::Chunks { bits: u16::try_from(bits).unwrap_or_default(), count })
    }
}

/// What stands for the first part of an attribute's name.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Bytes before the attributes of an inode.
const XATTR_HEAD: usize = 12;

/// The attributes of an inode with what stands before them; nothing if there are none.
fn xattr_bytes(xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<Vec<u8>, &'static str> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; XATTR_HEAD];
    for (name, value) in xattrs {
        let known = PREFIXES.iter().find_map(|(prefix, number)| Some((name.strip_prefix(*prefix)?, *number)));
        let (rest, number) = known.ok_or("EROFS has no attributes of this kind")?;
        bytes.push(u8::try_from(rest.len()).map_err(|_| "the name of an attribute is too long")?);
        bytes.push(number);
        let length = u16::try_from(value.len()).map_err(|_| "an attribute is too long")?;
        bytes.extend(length.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    u16::try_from(xattr_count(&bytes)).map_err(|_| "the attributes are too many")?;
    Ok(bytes)
}

/// How an inode says how many bytes of attributes follow: in units of four, the head as one.
fn xattr_count(bytes: &[u8]) -> usize {
    bytes.len().checked_sub(XATTR_HEAD).map_or(0, |bytes| (bytes / 4).saturating_add(1))
}
