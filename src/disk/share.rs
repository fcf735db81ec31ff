//! Equal files that take their space once. What they have, and their times, stay as they are: the kernel compares the bytes
//! before it lets two files have the same extents, and whoever writes to one later gets extents of its own.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use crate::sys::file::File;
use crate::sys::sharing::{self, Compared};

/// How much is asked for at a time: older kernels take no more.
const AT_A_TIME: u64 = 16 << 20;

/// Files of fewer bytes gain nothing: they take no block of their own, or one that costs less than what is kept about sharing
/// it.
pub(crate) const LEAST_SHARED: u64 = 4096;

/// What came of asking that two files share their extents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sharing {
    /// How many bytes they have in common now.
    pub(crate) shared: u64,
    /// Whether the kernel found bytes that are not the same; it went no further.
    pub(crate) differ: bool,
}

/// Lets `to` share the extents of `from`, as far as they are equal. Both must be `length` bytes long.
pub(crate) fn share_extents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, length: u64) -> io::Result<Sharing> {
    let mut shared = 0;
    while shared < length {
        match sharing::share_range(from, to, shared, AT_A_TIME.min(length.saturating_sub(shared)))? {
            Compared::Differs => return Ok(Sharing { shared, differ: true }),
            // What is left ends within a block, and the filesystem shares whole ones.
            Compared::Shared(0) => break,
            Compared::Shared(more) => shared = shared.saturating_add(more),
        }
    }
    Ok(Sharing { shared, differ: false })
}

/// Whether two files are known to share all their extents. That is not known of what is not on the disk yet.
pub(crate) fn share_all(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    // Not every filesystem tells, and then they are compared.
    let places = |file| sharing::extents(file).ok().flatten();
    places(one).is_some_and(|one| places(other).is_some_and(|other| one == other))
}

/// Whether the filesystem of two empty files shares extents: they are filled, and asked for.
pub(crate) fn can_share(mut one: &File, mut other: &File) -> io::Result<bool> {
    let bytes = vec![b'-'; 64 * 1024];
    one.write_all(&bytes)?;
    other.write_all(&bytes)?;
    match share_extents(one.as_fd(), other.as_fd(), 64 * 1024) {
        Ok(sharing) => Ok(sharing.shared > 0),
        Err(error) if sharing::is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) use sharing::is_unsupported as shares_nothing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::beneath;

    /// The machine's temporary directory may be on any filesystem: on each, what cannot be shared is an error that is known,
    /// and nothing changes.
    #[test]
    fn what_cannot_be_shared_is_told_from_failures() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let unnamed = || File::from(beneath::unnamed_file(root.as_fd()).unwrap());
        let (one, other) = (unnamed(), unnamed());
        let can = can_share(&one, &other).unwrap();
        let asked = share_extents(one.as_fd(), other.as_fd(), 64 * 1024);
        match asked {
            Ok(sharing) => assert!(can && sharing == Sharing { shared: 64 * 1024, differ: false }),
            Err(error) => assert!(!can && shares_nothing(&error), "{error}"),
        }
        assert!(!share_all(one.as_fd(), other.as_fd()) || can);
        // A directory is none of the files that filesystems share.
        let error = share_extents(root.as_fd(), other.as_fd(), 4096).unwrap_err();
        assert!(!shares_nothing(&error), "{error}");
    }
}
