//! The manifest of a diff: every path with all that a layer says about it, in one canonical
//! encoding, and the tree digest over those bytes.
//!
//! A manifest describes a *changeset*, not the form it takes on a disk: a whiteout is a
//! [`Kind::Whiteout`] and an opaque directory a flag, whether the filesystem shows them as a device
//! or as an xattr, and a layer's own `trusted.overlay.*` xattrs stand under their own names. So the
//! same changes have the same digest on every machine, privileged or not.
//!
//! # Order
//!
//! Depth first, names in byte order: a directory comes before what is in it, and all of it before
//! the directory's next sibling. That is the byte order of the paths with `/` counted as lower than
//! every other byte. The root directory is the first entry and has the empty path.
//!
//! # Encoding
//!
//! Numbers are LEB128 (`varint`). An entry is
//!
//! ```text
//! shared   length of the prefix that its path shares with the path before
//! rest     length, bytes
//! kind     one byte, see `Kind`
//! ...      by kind: size and content hash; target; device numbers; opaque flag
//! mode uid gid mtime(zigzag seconds, nanoseconds) xattrs(count, each: name, value)
//! ```
//!
//! The metadata line is absent for whiteouts and hard links. The digest is BLAKE3 in its key
//! derivation mode, with [`DIGEST_CONTEXT`] as context.

mod memory;

use std::cmp::Ordering;
use std::fmt;

use self::memory::length;
pub use self::memory::{ENTRY_COUNTS, MEMORY_MAX, Room, XATTR_COUNTS};
use crate::varint;

/// The context string of the tree digest. A change of the encoding changes this string.
pub const DIGEST_CONTEXT: &str = "layerstore 2026-11 tree manifest v1";

/// How many bytes a manifest may have: none has more than it counts for in memory. It is there too when it is decoded, and takes
/// next to nothing where it is compressed.
pub const BYTES_MAX: u64 = MEMORY_MAX;

/// The BLAKE3 hash of one file's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

/// The BLAKE3 hash of a canonical manifest. It names the content of a diff directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreeDigest(pub [u8; 32]);

/// A point in time: seconds since 1970 in UTC, before it if negative, and nanoseconds within the second.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The time by this machine's clock.
    pub fn now() -> Self {
        use std::time::{SystemTime, UNIX_EPOCH};
        let now = SystemTime::now();
        let (past, before) = match now.duration_since(UNIX_EPOCH) {
            Ok(past) => (past, false),
            Err(error) => (error.duration(), true),
        };
        let seconds = i64::try_from(past.as_secs()).unwrap_or(i64::MAX);
        if before {
            Timestamp { seconds: seconds.saturating_neg(), nanoseconds: 0 }
        } else {
            Timestamp { seconds, nanoseconds: past.subsec_nanos() }
        }
    }
}

/// What a layer says about a file besides its kind and content.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Metadata {
    /// The permission bits with set-id and sticky bits: 0 to 0o7777.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The modification time.
    pub mtime: Timestamp,
    /// Extended attributes in byte order of their names, each name once.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A directory; `opaque` if it hides what lower layers have below it.
    Directory {
        /// Whether lower layers are hidden below.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// The hash of its bytes, holes read as zeros.
        content: ContentHash,
    },
    /// A symbolic link with its target, never resolved.
    Symlink {
        /// The bytes of the target.
        target: Vec<u8>,
    },
    /// A second name of the file at `target`, which is the first of its names in manifest order.
    HardLink {
        /// The path of the first name.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket: found in directories that were written to, never in an archive.
    Socket,
    /// The name is deleted.
    Whiteout,
}

/// One path of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The path below the root: no leading slash, no `.` or `..`; empty for the root itself.
    pub path: Vec<u8>,
    /// What stands there.
    pub kind: Kind,
    /// Its metadata; the default for whiteouts and hard links, which have none of their own.
    pub metadata: Metadata,
}

/// Every path of a diff, in manifest order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Manifest {
    entries: Vec<Entry>,
}

/// Why bytes are no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside an entry.
    #[error("the manifest ends inside an entry")]
    Truncated,
    /// The bytes say something that no encoder writes.
    #[error("the manifest is not in its canonical form: {0}")]
    NotCanonical(&'static str),
}

impl Manifest {
    /// Makes a manifest of `entries`, in any order.
    ///
    /// Returns [`DecodeError::NotCanonical`] if a path stands twice or is no relative path, the root is
    /// missing or no directory, xattrs are out of order, or all of it counts for more than [`MEMORY_MAX`].
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, DecodeError> {
        entries.sort_unstable_by(|a, b| path_order(&a.path, &b.path));
        let mut room = Room::default();
        let mut previous = None;
        for entry in &entries {
            room.take(entry.memory())?;
            validate_entry(previous, entry)?;
            previous = Some(entry);
        }
        previous.ok_or(NO_ROOT)?;
        Ok(Manifest { entries })
    }

    /// The entries in manifest order, the root first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry at `path`.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|entry| path_order(&entry.path, path)).ok()?;
        self.entries.get(at)
    }

    /// Takes the entries out.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The sum of the sizes of all regular files, each counted once however many links it has; [`u64::MAX`] if it
    /// is more.
    pub fn content_bytes(&self) -> u64 {
        let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    /// How many bytes of memory it counts for: [`ENTRY_COUNTS`] for each entry and [`XATTR_COUNTS`] for each xattr, and the
    /// lengths of all paths, targets, and names and values of xattrs.
    pub fn memory(&self) -> u64 {
        self.entries.iter().map(Entry::memory).fold(0, u64::saturating_add)
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len().saturating_mul(64));
        let mut previous: &[u8] = &[];
        for entry in &self.entries {
            encode_entry(&mut out, previous, entry);
            previous = &entry.path;
        }
        out
    }

    /// Reads canonical bytes back.
    ///
    /// Returns [`DecodeError::Truncated`] if they end early, and [`DecodeError::NotCanonical`] if they are
    /// anything that [`encode`](Self::encode) would not have written.
    pub fn decode(input: &[u8]) -> Result<Self, DecodeError> {
        Self::decode_within(input, MEMORY_MAX)
    }

    /// The same, of a manifest that [counts for](Self::memory) so many bytes of memory at the most. Nothing is kept that was not
    /// counted before, and what is refused is refused at its first entry that is not as it should be.
    ///
    /// Returns what [`decode`](Self::decode) does.
    pub fn decode_within(mut input: &[u8], memory: u64) -> Result<Self, DecodeError> {
        let mut room = Room::new(memory);
        let mut entries: Vec<Entry> = Vec::new();
        while !input.is_empty() {
            let previous = entries.last();
            let entry = decode_entry(&mut input, previous, &mut room)?;
            validate_entry(previous, &entry)?;
            entries.push(entry);
        }
        if entries.is_empty() { Err(NO_ROOT) } else { Ok(Manifest { entries }) }
    }

    /// The tree digest: what names this content.
    pub fn digest(&self) -> TreeDigest {
        digest_of_encoded(&self.encode())
    }
}

/// The tree digest of a manifest that is already encoded.
pub fn digest_of_encoded(bytes: &[u8]) -> TreeDigest {
    TreeDigest(*blake3::Hasher::new_derive_key(DIGEST_CONTEXT).update(bytes).finalize().as_bytes())
}

/// Compares paths in manifest order: `/` counts as lower than every other byte.
pub fn path_order(a: &[u8], b: &[u8]) -> Ordering {
    // Long paths are alike for most of their length, and equal blocks are found faster than bytes.
    const BLOCK: usize = 64;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK));
    let alike: usize = blocks.take_while(|(a, b)| a == b).map(|(a, _)| a.len()).sum();
    let rank = |&byte: &u8| if byte == b'/' { 0 } else { u16::from(byte) + 1 };
    let [a, b] = [a, b].map(|path| path.get(alike..).unwrap_or_default().iter().map(rank));
    a.cmp(b)
}

const NO_ROOT: DecodeError = DecodeError::NotCanonical("no root directory");
const XATTR_ORDER: DecodeError = DecodeError::NotCanonical("xattrs out of order");

/// Checks an entry and that it comes after the one before, or is the root if there is none.
fn validate_entry(previous: Option<&Entry>, entry: &Entry) -> Result<(), DecodeError> {
    match previous {
        None if !entry.path.is_empty() || !matches!(entry.kind, Kind::Directory { .. }) => {
            return Err(NO_ROOT);
        }
        Some(previous) if path_order(&previous.path, &entry.path) != Ordering::Less => {
            return Err(DecodeError::NotCanonical("paths out of order"));
        }
        _ => {}
    }
    let relative = entry.path.is_empty() || is_relative_path(&entry.path);
    if !relative {
        return Err(DecodeError::NotCanonical("a path that is not relative and plain"));
    }
    match &entry.kind {
        Kind::Whiteout | Kind::HardLink { .. } if entry.metadata != Metadata::default() => {
            return Err(DecodeError::NotCanonical("metadata on a whiteout or hard link"));
        }
        Kind::HardLink { target } if !is_relative_path(target) => {
            return Err(DecodeError::NotCanonical("a hard link to no plain path"));
        }
        Kind::HardLink { target } if path_order(target, &entry.path) != Ordering::Less => {
            return Err(DecodeError::NotCanonical("a hard link before its first name"));
        }
        _ => {}
    }
    let metadata = &entry.metadata;
    if metadata.mode > 0o7777 || metadata.mtime.nanoseconds > 999_999_999 {
        return Err(DecodeError::NotCanonical("a mode or time out of range"));
    }
    let names = || metadata.xattrs.iter().map(|(name, _)| name);
    if !names().is_sorted_by(|a, b| a < b) || names().any(Vec::is_empty) { Err(XATTR_ORDER) } else { Ok(()) }
}

fn is_relative_path(path: &[u8]) -> bool {
    !path.contains(&0)
        && path.split(|&byte| byte == b'/').all(|name| !name.is_empty() && name != b"." && name != b"..")
}

mod tag {
    pub(super) const DIRECTORY: u8 = b'd';
    pub(super) const OPAQUE_DIRECTORY: u8 = b'o';
    pub(super) const FILE: u8 = b'f';
    pub(super) const SYMLINK: u8 = b'l';
    pub(super) const HARD_LINK: u8 = b'h';
    pub(super) const CHAR_DEVICE: u8 = b'c';
    pub(super) const BLOCK_DEVICE: u8 = b'b';
    pub(super) const FIFO: u8 = b'p';
    pub(super) const SOCKET: u8 = b's';
    pub(super) const WHITEOUT: u8 = b'w';
}

fn encode_entry(out: &mut Vec<u8>, previous: &[u8], entry: &Entry) {
    let shared = previous.iter().zip(&entry.path).take_while(|(a, b)| a == b).count();
    let rest = entry.path.get(shared..).unwrap_or_default();
    varint::put(out, len(shared));
    put_bytes(out, rest);
    match &entry.kind {
        Kind::Directory { opaque: false } => out.push(tag::DIRECTORY),
        Kind::Directory { opaque: true } => out.push(tag::OPAQUE_DIRECTORY),
        Kind::File { size, content } => {
            out.push(tag::FILE);
            varint::put(out, *size);
            out.extend_from_slice(&content.0);
        }
        Kind::Symlink { target } => {
            out.push(tag::SYMLINK);
            put_bytes(out, target);
        }
        Kind::HardLink { target } => {
            out.push(tag::HARD_LINK);
            put_bytes(out, target);
            return;
        }
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            let character = matches!(entry.kind, Kind::CharDevice { .. });
            out.push(if character { tag::CHAR_DEVICE } else { tag::BLOCK_DEVICE });
            varint::put(out, u64::from(*major));
            varint::put(out, u64::from(*minor));
        }
        Kind::Fifo => out.push(tag::FIFO),
        Kind::Socket => out.push(tag::SOCKET),
        Kind::Whiteout => {
            out.push(tag::WHITEOUT);
            return;
        }
    }
    encode_metadata(out, &entry.metadata);
}

fn encode_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    varint::put(out, u64::from(metadata.mode));
    varint::put(out, u64::from(metadata.uid));
    varint::put(out, u64::from(metadata.gid));
    varint::put(out, varint::zigzag(metadata.mtime.seconds));
    varint::put(out, u64::from(metadata.mtime.nanoseconds));
    varint::put(out, len(metadata.xattrs.len()));
    for (name, value) in &metadata.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
}

fn decode_entry(input: &mut &[u8], previous: Option<&Entry>, room: &mut Room) -> Result<Entry, DecodeError> {
    let previous = previous.map(|entry| entry.path.as_slice()).unwrap_or_default();
    let shared = usize::try_from(varint::take(input)?).map_err(|_| DecodeError::Truncated)?;
    let rest = take_bytes(input)?;
    let prefix =
        previous.get(..shared).ok_or(DecodeError::NotCanonical("a shared prefix beyond its path"))?;
    if rest.first().is_some_and(|first| previous.get(shared) == Some(first)) {
        return Err(DecodeError::NotCanonical("a shared prefix that is too short"));
    }
    room.take_entry(prefix, rest, &[])?;
    let path = [prefix, rest].concat();
    let (&tag, after) = input.split_first().ok_or(DecodeError::Truncated)?;
    *input = after;
    let kind = match tag {
        tag::DIRECTORY => Kind::Directory { opaque: false },
        tag::OPAQUE_DIRECTORY => Kind::Directory { opaque: true },
        tag::FILE => Kind::File { size: varint::take(input)?, content: ContentHash(take_array(input)?) },
        tag::SYMLINK => Kind::Symlink { target: take_vec(input, room)? },
        tag::HARD_LINK => Kind::HardLink { target: take_vec(input, room)? },
        tag::CHAR_DEVICE => Kind::CharDevice { major: take_u32(input)?, minor: take_u32(input)? },
        tag::BLOCK_DEVICE => Kind::BlockDevice { major: take_u32(input)?, minor: take_u32(input)? },
        tag::FIFO => Kind::Fifo,
        tag::SOCKET => Kind::Socket,
        tag::WHITEOUT => Kind::Whiteout,
        _ => return Err(DecodeError::NotCanonical("an unknown kind of entry")),
    };
    let metadata = match kind {
        Kind::HardLink { .. } | Kind::Whiteout => Metadata::default(),
        _ => decode_metadata(input, room)?,
    };
    Ok(Entry { path, kind, metadata })
}

fn decode_metadata(input: &mut &[u8], room: &mut Room) -> Result<Metadata, DecodeError> {
    let mode =
        u16::try_from(varint::take(input)?).map_err(|_| DecodeError::NotCanonical("a mode out of range"))?;
    let uid = take_u32(input)?;
    let gid = take_u32(input)?;
    let seconds = varint::unzigzag(varint::take(input)?);
    let nanoseconds = take_u32(input)?;
    let xattrs = decode_xattrs(input, room)?;
    Ok(Metadata { mode, uid, gid, mtime: Timestamp { seconds, nanoseconds }, xattrs })
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

fn decode_xattrs(input: &mut &[u8], room: &mut Room) -> Result<Xattrs, DecodeError> {
    let count = varint::take(input)?;
    // Two lengths, and a name of one byte.
    const SHORTEST: u64 = 3;
    if count.saturating_mul(SHORTEST) > length(input) {
        return Err(DecodeError::Truncated);
    }
    room.take(count.saturating_mul(XATTR_COUNTS))?;
    let count = usize::try_from(count).map_err(|_| DecodeError::Truncated)?;
    let mut xattrs = Xattrs::with_capacity(count);
    for _ in 0..count {
        let name = take_vec(input, room)?;
        if name.is_empty() || xattrs.last().is_some_and(|(previous, _)| *previous >= name) {
            return Err(XATTR_ORDER);
        }
        xattrs.push((name, take_vec(input, room)?));
    }
    Ok(xattrs)
}

fn len(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, len(bytes.len()));
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let length = usize::try_from(varint::take(input)?).map_err(|_| DecodeError::Truncated)?;
    let (bytes, rest) = input.split_at_checked(length).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(bytes)
}

/// The same, for which there has to be room.
fn take_vec(input: &mut &[u8], room: &mut Room) -> Result<Vec<u8>, DecodeError> {
    let bytes = take_bytes(input)?;
    room.take(length(bytes))?;
    Ok(bytes.to_vec())
}

fn take_array(input: &mut &[u8]) -> Result<[u8; 32], DecodeError> {
    let (bytes, rest) = input.split_first_chunk::<32>().ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(*bytes)
}

fn take_u32(input: &mut &[u8]) -> Result<u32, DecodeError> {
    u32::try_from(varint::take(input)?).map_err(|_| DecodeError::NotCanonical("a number out of range"))
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl fmt::Display for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for TreeDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeDigest({self})")
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

#[cfg(test)]
mod tests;
