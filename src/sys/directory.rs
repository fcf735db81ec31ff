//! Listing a directory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, RawDir, SeekFrom, seek};

use super::call::{Call, call, point};
use super::path;

/// One name of a directory. The order is the filesystem's.
#[derive(Debug)]
pub(crate) struct DirEntry {
    /// The name, never `.` or `..`.
    pub(crate) name: Vec<u8>,
    /// What stood there, if the filesystem tells.
    pub(crate) kind: FileType,
    /// Its inode number where the filesystem [`lists_inodes`]; where something is mounted, of what is below that.
    pub(crate) inode: u64,
}

/// Whether the filesystem tells with each name what kind it is of. The directory must have a name, and be open for reading.
pub(crate) fn tells_kinds(dir: BorrowedFd<'_>) -> io::Result<bool> {
    call(Call::Seek, || seek(dir, SeekFrom::Start(0)))?;
    let mut buffer = Vec::with_capacity(4096);
    let mut reader = RawDir::new(dir, buffer.spare_capacity_mut());
    point(Call::List)?;
    while let Some(entry) = reader.next() {
        // The kernel itself fills in the two names that it makes up.
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") && entry.file_type() == FileType::Unknown {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the numbers that come with the names of a directory are those of the files, as `statx` tells them: so it is on these filesystems.
/// Of another nobody knows. overlayfs and servers of FUSE may make up numbers for a listing, which are other files'.
pub(crate) fn lists_inodes(dir: BorrowedFd<'_>) -> bool {
    /// ext4 and those before it, XFS, Btrfs, F2FS, tmpfs.
    const THESE: [u32; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
    path::filesystem_of(dir).is_ok_and(|filesystem| THESE.contains(&filesystem))
}

/// Lists everything in the directory, which must be open for reading, from its beginning.
pub(crate) fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<DirEntry>> {
    call(Call::Seek, || seek(dir, SeekFrom::Start(0)))?;
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut reader = RawDir::new(dir, buffer.spare_capacity_mut());
    let mut entries = Vec::new();
    // One call gives many entries, so the first of them stands for all.
    point(Call::List)?;
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(DirEntry { name: name.to_vec(), kind: entry.file_type(), inode: entry.ino() });
        }
    }
    Ok(entries)
}
