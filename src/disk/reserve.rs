//! A file that holds space back, to be given up when the disk is full: so there is always room for the
//! transaction that frees more.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::FileType;

use super::kind::{self, Own};
use super::layout::Layout;
use super::names::RESERVE;
use crate::error::LayoutError;
use crate::sys::stat::{self, Stat};
use crate::sys::{beneath, extent, node};

/// Makes sure that `bytes` are reserved. Returns false if the disk has no room for that now; the store works
/// without.
///
/// Returns [`LayoutError::OtherKind`] if something else stands in its place.
pub(crate) fn ensure_reserve(layout: &Layout, bytes: u64) -> Result<bool, LayoutError> {
    let failed = |source| LayoutError::Io { path: layout.file_path(RESERVE), action: "allocate", source };
    // As a rule it is there, and need not be opened.
    let is_whole =
        |found: Stat| found.kind == FileType::RegularFile && found.size == bytes && found.allocated >= bytes;
    if stat::stat_at(layout.root(), RESERVE.as_bytes()).is_ok_and(is_whole) {
        return Ok(true);
    }
    let file = match beneath::ensure_file(layout.root(), RESERVE.as_bytes()) {
        Err(error) if is_full(&error) => return Ok(false),
        opened => opened.map_err(|source| {
            kind::opening_failed((layout.root(), layout.path()), RESERVE.as_bytes(), Own::File, source)
        })?,
    };
    let grown = (|| {
        let found = stat::stat(file.as_fd())?;
        if found.size > bytes {
            extent::set_length(file.as_fd(), bytes)?;
        }
        // Also when the length is right: only allocated blocks are a reserve.
        if found.size < bytes || found.allocated < bytes {
            extent::allocate(file.as_fd(), bytes)?;
        }
        Ok(())
    })();
    match grown {
        Ok(()) => Ok(true),
        Err(error) if is_full(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            release_reserve(layout)?;
            Ok(false)
        }
        Err(source) => Err(failed(source)),
    }
}

/// How many bytes are held back now.
pub(crate) fn reserved(layout: &Layout) -> u64 {
    stat::stat_at(layout.root(), RESERVE.as_bytes()).map_or(0, |found| found.allocated)
}

/// Gives the reserved space up. Returns how many bytes that set free.
pub(crate) fn release_reserve(layout: &Layout) -> Result<u64, LayoutError> {
    let released = stat::stat_at(layout.root(), RESERVE.as_bytes()).and_then(|found| match found.kind {
        FileType::RegularFile => {
            node::remove_file(layout.root(), RESERVE.as_bytes()).map(|()| found.allocated)
        }
        // It is none of the store's.
        _ => Ok(0),
    });
    match released {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        released => released.map_err(|source| LayoutError::Io {
            path: layout.file_path(RESERVE),
            action: "remove",
            source,
        }),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::XattrNamespace;

    #[test]
    fn the_reserve_is_real_space() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        assert_eq!(release_reserve(&layout).unwrap(), 0);
        if !ensure_reserve(&layout, 1 << 20).unwrap() {
            eprintln!("skipped: this filesystem cannot allocate");
            return;
        }
        assert!(ensure_reserve(&layout, 1 << 20).unwrap());
        assert!(release_reserve(&layout).unwrap() >= 1 << 20);
        assert!(!layout.file_path(RESERVE).exists());
    }
}
