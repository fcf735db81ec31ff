//! Extended attributes of open files, and of names in a directory.
//!
//! The second form serves reading of what cannot be opened without effect (devices, pipes, symbolic links). It goes
//! through `/proc/self/fd/<directory>/<name>` and the calls that do not follow a link there: kernels before
//! 6.13 have no call that takes a directory handle and a name. The third is for writing to such things.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::beneath::open_path;
use super::call::{Call, call};

/// The longest value, and the longest list of names, each with a byte that ends it, that Linux gives out. It sets one attribute after the
/// other whatever the list becomes.
pub(crate) const LIMIT: usize = 64 * 1024;

/// Whose attributes are meant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The open file; not one opened with `O_PATH`.
    File(BorrowedFd<'a>),
    /// What stands at a name in a directory; a symbolic link itself.
    Name(BorrowedFd<'a>, &'a [u8]),
    /// What a descriptor with `O_PATH` stands for; a symbolic link itself.
    Pinned(BorrowedFd<'a>),
}

/// The names of all attributes, in no order.
pub(crate) fn list(target: Target<'_>) -> io::Result<Vec<Vec<u8>>> {
    let read = |buffer: &mut Vec<u8>| match target {
        Target::File(file) => rustix::fs::flistxattr(file, spare_capacity(buffer)),
        Target::Name(dir, name) => rustix::fs::llistxattr(&*path(dir, name), spare_capacity(buffer)),
        Target::Pinned(file) => rustix::fs::listxattr(open_path(file), spare_capacity(buffer)),
    };
    let joined = match growing(256, read) {
        // A filesystem without attributes has none to list.
        Err(error) if is(&error, &[Errno::OPNOTSUPP]) => return Ok(Vec::new()),
        Err(error) if is(&error, &[Errno::TOOBIG]) => {
            let told = format!(
                "the names of its extended attributes are more than the {LIMIT} bytes that Linux lists"
            );
            return Err(io::Error::new(error.kind(), told));
        }
        joined => joined?,
    };
    Ok(joined.split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The value of one attribute; `None` if there is none, or the filesystem knows no such attributes.
pub(crate) fn get(target: Target<'_>, attribute: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let read = |buffer: &mut Vec<u8>| match target {
        Target::File(file) => rustix::fs::fgetxattr(file, attribute, spare_capacity(buffer)),
        Target::Name(dir, name) => {
            rustix::fs::lgetxattr(&*path(dir, name), attribute, spare_capacity(buffer))
        }
        Target::Pinned(file) => rustix::fs::getxattr(open_path(file), attribute, spare_capacity(buffer)),
    };
    found(growing(128, read))
}

/// The same of what stands at an ordinary path; of a symbolic link itself.
pub(crate) fn get_at(path: &Path, attribute: &[u8]) -> io::Result<Option<Vec<u8>>> {
    found(growing(128, |buffer| rustix::fs::lgetxattr(path, attribute, spare_capacity(buffer))))
}

fn found(value: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match value {
        Ok(value) => Ok(Some(value)),
        Err(error) if is(&error, &[Errno::NODATA, Errno::OPNOTSUPP]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Sets one attribute, replacing its value.
pub(crate) fn set(target: Target<'_>, attribute: &[u8], value: &[u8]) -> io::Result<()> {
    let flags = XattrFlags::empty();
    call(Call::SetXattr, || match target {
        Target::File(file) => rustix::fs::fsetxattr(file, attribute, value, flags),
        Target::Name(dir, name) => rustix::fs::lsetxattr(&*path(dir, name), attribute, value, flags),
        Target::Pinned(file) => rustix::fs::setxattr(open_path(file), attribute, value, flags),
    })
}

/// Removes one attribute; nothing happens if there is none.
pub(crate) fn remove(target: Target<'_>, attribute: &[u8]) -> io::Result<()> {
    let removed = call(Call::SetXattr, || match target {
        Target::File(file) => rustix::fs::fremovexattr(file, attribute),
        Target::Name(dir, name) => rustix::fs::lremovexattr(&*path(dir, name), attribute),
        Target::Pinned(file) => rustix::fs::removexattr(open_path(file), attribute),
    });
    match removed {
        Err(error) if !is(&error, &[Errno::NODATA]) => Err(error),
        _ => Ok(()),
    }
}

fn path(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = open_path(dir).into_bytes();
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Calls `read` with a larger buffer until the answer fits.
fn growing(
    first: usize,
    mut read: impl FnMut(&mut Vec<u8>) -> rustix::io::Result<usize>,
) -> io::Result<Vec<u8>> {
    let mut capacity = first;
    loop {
        let mut buffer = Vec::with_capacity(capacity);
        match call(Call::GetXattr, || read(&mut buffer)) {
            Err(error) if is(&error, &[Errno::RANGE]) && capacity < LIMIT => capacity = LIMIT,
            Err(error) => return Err(error),
            Ok(_) => return Ok(buffer),
        }
    }
}

fn is(error: &io::Error, numbers: &[Errno]) -> bool {
    Errno::from_io_error(error).is_some_and(|number| numbers.contains(&number))
}
