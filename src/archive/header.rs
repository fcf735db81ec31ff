//! One header block.

use std::borrow::Cow;
use std::ops::Range;

use super::number::{self, Reason};
use crate::types::Timestamp;

/// The unit of a tar archive.
pub(super) const BLOCK: usize = 512;

/// The same, for offsets and lengths.
pub(super) const BLOCK_LEN: u64 = 512;

/// A block that was proven to be a header: its checksum is right.
#[derive(Clone)]
pub(super) struct Header(tar::Header);

/// Why a block is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoHeader {
    /// It is all zeros: the end of the archive.
    Zeros,
    /// Its checksum is wrong.
    Checksum,
}

// Places in a header. POSIX and GNU agree on all but the prefix.
const CHECKSUM: Range<usize> = 148..156;
const MAGIC: Range<usize> = 257..263;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;
/// What star writes at the end of its own headers, in which the prefix is shorter.
const STAR: Range<usize> = 508..512;
const STAR_PREFIX: usize = 131;

impl Header {
    /// Proves a block.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Self, NoHeader> {
        if block.iter().all(|&byte| byte == 0) {
            return Err(NoHeader::Zeros);
        }
        let header = tar::Header::from_byte_slice(block).clone();
        let stated = number::field(&header.as_old().cksum).map_err(|_| NoHeader::Checksum)?;
        let summed = |at, byte| if CHECKSUM.contains(&at) { b' ' } else { byte };
        let bytes = || block.iter().enumerate().map(|(at, &byte)| summed(at, byte));
        let unsigned: i128 = bytes().map(i128::from).sum();
        let signed: i128 = bytes().map(|byte| i128::from(byte.cast_signed())).sum();
        // Old programs summed the bytes as signed characters; POSIX wants both accepted.
        if stated == unsigned || stated == signed { Ok(Header(header)) } else { Err(NoHeader::Checksum) }
    }

    /// The path: `prefix/name` in a POSIX header, else the name.
    pub(super) fn path(&self) -> Cow<'_, [u8]> {
        self.0.path_bytes()
    }

    /// Whether some readers see a prefix before the name, or a longer one than others:
    ///
    /// - no POSIX header, but something in the place of a prefix: some look at the magic alone, and Python and BusyBox not even at that. Who
    ///   wrote headers without a magic left zeros there;
    /// - star's mark, and a prefix that goes on where star keeps times: Go cuts it off;
    /// - GNU magic, but no times where GNU keeps them: Go takes them for the prefix that its own writer once put there.
    pub(super) fn has_doubtful_prefix(&self) -> bool {
        let block = self.0.as_bytes();
        let [prefix, mark] = [PREFIX, STAR].map(|at| block.get(at).unwrap_or_default());
        let prefix = prefix.split(|&byte| byte == 0).next().unwrap_or_default();
        if let Some(gnu) = self.0.as_gnu() {
            let is_no_time = |field: &[u8]| number::field(field).and_then(number::seconds).is_err();
            return !prefix.is_empty()
                && prefix.is_ascii()
                && [&gnu.atime, &gnu.ctime].iter().any(|field| field[0] != 0 && is_no_time(*field));
        }
        let is_posix = self.0.as_ustar().is_some();
        (!is_posix && !prefix.is_empty()) || (is_posix && mark == b"tar\0" && prefix.len() > STAR_PREFIX)
    }

    /// Whether every reader knows the extension headers of its format. In headers of the seventh edition, and of other
    /// versions of the later ones, some take them for files.
    pub(super) fn may_extend(&self) -> bool {
        self.0.as_ustar().is_some() || self.0.as_gnu().is_some()
    }

    /// The link target.
    pub(super) fn link(&self) -> &[u8] {
        let name = &self.0.as_old().linkname;
        name.split(|&byte| byte == 0).next().unwrap_or_default()
    }

    /// The byte that tells the type.
    pub(super) fn typeflag(&self) -> u8 {
        let [flag] = self.0.as_old().linkflag;
        flag
    }

    /// How many bytes follow, by this header alone.
    pub(super) fn size(&self) -> Result<u64, Reason> {
        number::size(number::field(&self.0.as_old().size)?)
    }

    /// The permission bits. Old programs put the file type above them.
    pub(super) fn mode(&self) -> Result<u16, Reason> {
        let mode = number::field(&self.0.as_old().mode)?;
        u16::try_from(mode & 0o7777).map_err(|_| "it is out of range")
    }

    /// The whole field, with what old programs put above the permission bits.
    pub(super) fn whole_mode(&self) -> Result<u64, Reason> {
        number::size(number::field(&self.0.as_old().mode)?)
    }

    /// When the file was last read and its inode last changed, where GNU tar has put that into the header itself.
    pub(super) fn access_and_change(&self) -> [Option<Timestamp>; 2] {
        let Some(gnu) = self.0.as_gnu() else { return [None; 2] };
        [&gnu.atime, &gnu.ctime].map(|field| match field {
            [0, ..] => None,
            field => number::field(field).and_then(number::seconds).ok(),
        })
    }

    /// The owner's field.
    pub(super) fn uid(&self) -> Result<i128, Reason> {
        number::field(&self.0.as_old().uid)
    }

    /// The group's field.
    pub(super) fn gid(&self) -> Result<i128, Reason> {
        number::field(&self.0.as_old().gid)
    }

    /// The modification time's field.
    pub(super) fn mtime(&self) -> Result<i128, Reason> {
        number::field(&self.0.as_old().mtime)
    }

    /// The device numbers, major and minor; zeros in a header of the seventh edition, which has none.
    pub(super) fn device(&self) -> Result<(u32, u32), Reason> {
        let block = self.0.as_bytes();
        if !block.get(MAGIC).is_some_and(|magic| magic.starts_with(b"ustar")) {
            return Ok((0, 0));
        }
        let number = |at| number::device(number::field(block.get(at).unwrap_or_default())?);
        Ok((number(MAJOR)?, number(MINOR)?))
    }

    /// The header with its GNU fields, if it has them.
    pub(super) fn as_gnu(&self) -> Option<&tar::GnuHeader> {
        self.0.as_gnu()
    }
}

/// How many bytes fill the last block of a body of `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    match size % BLOCK_LEN {
        0 => 0,
        used => BLOCK_LEN.saturating_sub(used),
    }
}
