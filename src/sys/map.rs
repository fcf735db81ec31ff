//! A file's first page in memory: what other processes write there is seen with a memory read.

#![expect(unsafe_code, reason = "memory that another process may write to is mapped and read")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use memmap2::{Mmap, MmapOptions};

use super::call::{Call, call};
use super::file::File;

/// How much is mapped.
const LENGTH: usize = 4096;

/// The first 4096 bytes of a file, shared with whoever writes it.
#[derive(Debug)]
pub(crate) struct FirstPage(Mmap);

impl FirstPage {
    /// Maps the beginning of `file`, which must never become shorter than a page.
    ///
    /// Returns [`io::ErrorKind::UnexpectedEof`] if it is shorter now.
    pub(crate) fn map(file: &File) -> io::Result<Self> {
        if file.length()? < LENGTH as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: The map is only read through `read_volatile` below and never given out as a slice, so that nobody
        // assumes bytes that stay the same. The file is a database that never shrinks below its header page.
        let map =
            call(Call::Map, || unsafe { MmapOptions::new().len(LENGTH).map(file.as_fd().as_raw_fd()) })?;
        Ok(FirstPage(map))
    }

    /// The bytes at `offset`, as they are at this moment; `None` beyond the page.
    pub(crate) fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let end = offset.checked_add(N).filter(|end| *end <= LENGTH)?;
        let mut bytes = [0; N];
        for (byte, at) in bytes.iter_mut().zip(offset..end) {
            // SAFETY: `at` is below `LENGTH`, the length of the map, and the map lives as long as `self`.
            *byte = unsafe { self.0.as_ptr().add(at).read_volatile() };
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_others_write_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 4096]).unwrap();
        let page = FirstPage::map(&File::open(&path).unwrap()).unwrap();
        assert_eq!(page.read(100), Some([7u8; 2]));
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all_at(&[9], 101).unwrap();
        assert_eq!(page.read(100), Some([7u8, 9]));
        assert_eq!(page.read::<2>(4095), None);
    }

    #[test]
    fn a_short_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 4095]).unwrap();
        assert!(FirstPage::map(&File::open(&path).unwrap()).is_err());
    }
}
