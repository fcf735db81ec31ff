//! File content without reading it: reflinks, copies inside the kernel, holes, preallocation.

use std::io;
use std::os::fd::BorrowedFd;

use nix::fcntl::FallocateFlags;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::call::{Call, call, transfer};

/// Copies up to `length` bytes from one offset of a file to another of a second file; returns how many.
pub(crate) fn copy_range(
    from: BorrowedFd<'_>,
    read_at: u64,
    to: BorrowedFd<'_>,
    write_at: u64,
    length: u64,
) -> io::Result<u64> {
    let length = usize::try_from(length.min(1 << 30)).unwrap_or(1 << 30);
    let copied = transfer(Call::CopyRange, length, |length| {
        let (mut read_at, mut write_at) = (read_at, write_at);
        rustix::fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length)
    })?;
    Ok(u64::try_from(copied).unwrap_or(u64::MAX))
}

/// The next run of data at or after `offset`, as (start, end); `None` if only a hole is left. Moves the
/// file's own offset.
pub(crate) fn next_data(file: BorrowedFd<'_>, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match call(Call::Seek, || rustix::fs::seek(file, SeekFrom::Data(offset))) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => return Ok(None),
        start => start?,
    };
    let end = call(Call::Seek, || rustix::fs::seek(file, SeekFrom::Hole(start)))?;
    Ok(Some((start, end)))
}

/// Sets the length of a file.
pub(crate) fn set_length(file: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    call(Call::SetLength, || rustix::fs::ftruncate(file, length))
}

/// Makes sure that `length` bytes from the file's beginning have space on the disk.
pub(crate) fn allocate(file: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    let length = i64::try_from(length).map_err(|_| Errno::FBIG)?;
    call(Call::Allocate, || nix::fcntl::fallocate(file, FallocateFlags::empty(), 0, length))
}
