//! Extents that several files share: whether they do, and letting them. The kernel compares the bytes itself, so
//! nothing that is done here changes what a file has.

#![expect(unsafe_code, reason = "FIDEDUPERANGE and FS_IOC_FIEMAP have no wrapper in nix or rustix")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

use super::call::{Call, call};

/// What the kernel made of two ranges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Compared {
    /// They are equal as far as this many bytes, and share them now.
    Shared(u64),
    /// They are not equal, and nothing was done.
    Differs,
}

/// Lets `to` have the extents of `from` in a range that both have at `offset`, if the bytes there are equal. Both may be
/// open for reading only, if the process may write `to` or owns it. Times and modes stay.
///
/// The kernel may take fewer bytes than `length` at a time. The offset must be a multiple of the filesystem's block, and
/// so must the length, unless both files end there.
pub(crate) fn share_range(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    length: u64,
) -> io::Result<Compared> {
    /// `FILE_DEDUPE_RANGE_DIFFERS` of linux/fs.h.
    const DIFFERS: i32 = 1;

    let mut request = ShareRequest {
        range: RangeHeader { offset, length, targets: 1, _reserved: [0; 3] },
        target: RangeTarget { file: to.as_raw_fd().into(), offset, shared: 0, status: 0, _reserved: 0 },
    };
    call(Call::Share, || {
        // SAFETY: The kernel reads the header and as many targets as it says, which is one and follows it: `ShareRequest`
        // is `repr(C)` without padding in between, and lives until the call returns.
        unsafe { ioctl::share_range(from.as_raw_fd(), (&raw mut request).cast()) }
    })?;
    match request.target.status {
        DIFFERS => Ok(Compared::Differs),
        error if error < 0 => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Ok(Compared::Shared(request.target.shared.min(length))),
    }
}

/// A piece of a file, and where it lies on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Extent {
    /// Where it begins in the file.
    at: u64,
    /// Where it begins on the disk.
    on_disk: u64,
    /// Its length in the file.
    length: u64,
}

/// How many pieces of a file are looked at: beyond that it is cheaper to compare.
const MOST_EXTENTS: usize = 4096;

/// Where a file lies on the disk, in the order of the file; `None` if that is not known of all of it: what is not written
/// out yet has no place, nor has what stands with the metadata.
pub(crate) fn extents(file: BorrowedFd<'_>) -> io::Result<Option<Vec<Extent>>> {
    // linux/fiemap.h
    const LAST: u32 = 0x1;
    const ENCODED: u32 = 0x8;
    const NO_PLACE: u32 = 0x2 | 0x4 | 0x100 | 0x200 | 0x400;

    let mut found: Vec<Extent> = Vec::new();
    let mut start = 0;
    loop {
        let mut request = MapRequest::from(start);
        call(Call::MapExtents, || {
            // SAFETY: The kernel writes at most as many extents as the header says there is room for, which is the
            // length of the array that follows it: `MapRequest` is `repr(C)` without padding in between, and lives
            // until the call returns.
            unsafe { ioctl::map_extents(file.as_raw_fd(), (&raw mut request).cast()) }
        })?;
        let filled = usize::try_from(request.header.mapped).unwrap_or(EXTENTS_AT_A_TIME);
        let pieces = request.extents.get(..filled).unwrap_or(&request.extents);
        for piece in pieces {
            if piece.flags & NO_PLACE != 0 || found.len() >= MOST_EXTENTS {
                return Ok(None);
            }
            let next = Extent { at: piece.at, on_disk: piece.on_disk, length: piece.length };
            match found.last_mut() {
                // The same run of blocks may be told in other pieces for another file.
                Some(last) if piece.flags & ENCODED == 0 && last.is_followed_by(&next) => {
                    last.length = last.length.saturating_add(next.length);
                }
                _ => found.push(next),
            }
        }
        match pieces.last() {
            Some(last) if last.flags & LAST == 0 => start = last.at.saturating_add(last.length),
            _ => return Ok(Some(found)),
        }
    }
}

impl Extent {
    fn is_followed_by(&self, next: &Extent) -> bool {
        self.at.checked_add(self.length) == Some(next.at)
            && self.on_disk.checked_add(self.length) == Some(next.on_disk)
    }
}

/// Whether an error says that the filesystem has no shared extents at all.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw),
        Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::ENOSYS)
    )
}

/// `struct file_dedupe_range` of linux/fs.h, without its targets.
#[repr(C)]
struct RangeHeader {
    offset: u64,
    length: u64,
    targets: u16,
    _reserved: [u16; 3],
}

/// `struct file_dedupe_range_info`.
#[repr(C)]
struct RangeTarget {
    file: i64,
    offset: u64,
    shared: u64,
    status: i32,
    _reserved: u32,
}

#[repr(C)]
struct ShareRequest {
    range: RangeHeader,
    target: RangeTarget,
}

/// `struct fiemap` of linux/fiemap.h, without its extents.
#[repr(C)]
struct MapHeader {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    room: u32,
    _reserved: u32,
}

/// `struct fiemap_extent`.
#[derive(Clone, Copy)]
#[repr(C)]
struct MappedExtent {
    at: u64,
    on_disk: u64,
    length: u64,
    _reserved: [u64; 2],
    flags: u32,
    _reserved_too: [u32; 3],
}

const EXTENTS_AT_A_TIME: usize = 32;

#[repr(C)]
struct MapRequest {
    header: MapHeader,
    extents: [MappedExtent; EXTENTS_AT_A_TIME],
}

impl MapRequest {
    fn from(start: u64) -> Self {
        let none =
            MappedExtent { at: 0, on_disk: 0, length: 0, _reserved: [0; 2], flags: 0, _reserved_too: [0; 3] };
        let room = u32::try_from(EXTENTS_AT_A_TIME).unwrap_or_default();
        MapRequest {
            header: MapHeader {
                start,
                length: u64::MAX.saturating_sub(start),
                flags: 0,
                mapped: 0,
                room,
                _reserved: 0,
            },
            extents: [none; EXTENTS_AT_A_TIME],
        }
    }
}

// The numbers say how long the headers are, and nothing of what follows them.
const _: () = assert!(size_of::<RangeHeader>() == 24 && size_of::<RangeTarget>() == 32);
const _: () = assert!(size_of::<ShareRequest>() == 56);
const _: () = assert!(size_of::<MapHeader>() == 32 && size_of::<MappedExtent>() == 56);
const _: () = assert!(size_of::<MapRequest>() == 32 + 56 * EXTENTS_AT_A_TIME);

mod ioctl {
    nix::ioctl_readwrite!(share_range, 0x94, 54, super::RangeHeader);
    nix::ioctl_readwrite!(map_extents, b'f', 11, super::MapHeader);
}
