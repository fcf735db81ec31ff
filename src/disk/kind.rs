//! What is told where something stands at one of the store's own names that is no file or directory of the store: a fifo, a
//! device, a link to somewhere else. It is neither opened nor followed, and what the kernel says of the attempt ("not a directory",
//! "too many levels of symbolic links") is no help to anybody.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::marker;
use super::privacy::Root;
use crate::error::LayoutError;
use crate::sys::{beneath, path, stat};

/// What a root has at a name of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    /// A file of the store's.
    File,
    /// A directory of the store's.
    Directory,
    /// A directory of the run root.
    RunDirectory,
    /// A lock file, in a directory of such.
    Lock,
}

impl Own {
    fn kind(self) -> FileType {
        match self {
            Own::File | Own::Lock => FileType::RegularFile,
            Own::Directory | Own::RunDirectory => FileType::Directory,
        }
    }

    fn advice(self, path: &Path) -> &'static str {
        match self {
            Own::File if path.ends_with(marker::NAME) => {
                "move it away, and bring the file back from a copy of the store's directory"
            }
            Own::Directory => {
                "move it away, and bring the directory itself back, with what it had; to have a store on another disk, move its \
                 whole root"
            }
            Own::RunDirectory => {
                "remove it, and the directory is made anew; or name another run root (--runroot)"
            }
            Own::File => "remove it, and the file is made anew",
            Own::Lock => "remove it",
        }
    }
}

/// What is told of `name` in `dir`, which lies at `above`, after it could not be opened.
pub(crate) fn opening_failed(
    (dir, above): (BorrowedFd<'_>, &Path),
    name: &[u8],
    own: Own,
    source: io::Error,
) -> LayoutError {
    let path = above.join(OsStr::from_bytes(name));
    if !is_of_kind(&source) {
        return LayoutError::of_opening(path, source);
    }
    match stat::stat_at(dir, name) {
        Ok(found) if found.kind != own.kind() => other_kind(path, found.kind, own),
        _ => LayoutError::of_opening(path, source),
    }
}

/// What is told of a root after it could not be opened.
pub(super) fn opening_root_failed(path: &Path, which: Root, source: io::Error) -> LayoutError {
    let advice = match which {
        Root::Store => "name another root (--root)",
        Root::Run => "name another run root (--runroot)",
    };
    match path::stat(path) {
        Ok(found) if is_of_kind(&source) && found.kind != FileType::Directory => {
            let found = stat::describe(found.kind);
            LayoutError::OtherKind { path: path.into(), found, is_directory: true, advice }
        }
        _ => LayoutError::Io { path: path.to_owned(), action: "open", source },
    }
}

/// Whether an error may come of what stands there.
fn is_of_kind(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || beneath::is_no_file(error)
}

fn other_kind(path: PathBuf, found: FileType, own: Own) -> LayoutError {
    let (found, advice) = (stat::describe(found), own.advice(&path));
    LayoutError::OtherKind {
        path: path.into(),
        found,
        is_directory: own.kind() == FileType::Directory,
        advice,
    }
}

/// Looks at the kind of what stands at `path`, for what is not opened.
///
/// Returns [`LayoutError::OtherKind`] if it is not what the root has there.
pub(super) fn check(path: PathBuf, own: Own, found: FileType) -> Result<(), LayoutError> {
    match found == own.kind() {
        true => Ok(()),
        false => Err(other_kind(path, found, own)),
    }
}
