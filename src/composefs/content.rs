//! Files by their hashes. Each file of `composefs/<n>/data` has one more name in `content`, by which the next layer
//! with the same content finds it.
//!
//! How many names a file has says whether anybody needs it, so nobody counts, and no lock is needed: who finds a file
//! gives it a name of its own first, and from then on may lose the one in `content`. That only costs sharing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::disk::{self, CONTENT, DiffName, Layout, Own, Subdirectory};
use crate::error::LayoutError;
use crate::sys::file::File;
use crate::sys::{beneath, directory, node, stat};
use crate::types::ContentHash;

/// What a file with this content is called.
pub(super) fn name(content: &ContentHash) -> String {
    blake3::Hash::from_bytes(content.0).to_hex().to_string()
}

/// The directory of the shared files, made if it is missing. Who reads the rows under the write lock after that knows
/// which layers were made writable by somebody who did not see it.
pub(crate) fn open(layout: &Layout) -> Result<OwnedFd, LayoutError> {
    match node::make_private_directory(layout.root(), CONTENT.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => beneath::open_directory_beneath(layout.root(), CONTENT.as_bytes()),
    }
    .map_err(|source| opening_failed(layout, source))
}

fn opening_failed(layout: &Layout, source: io::Error) -> LayoutError {
    disk::opening_failed((layout.root(), layout.path()), CONTENT.as_bytes(), Own::Directory, source)
}

fn failed(layout: &Layout, action: &'static str, source: io::Error) -> LayoutError {
    LayoutError::Io { path: layout.path().join(CONTENT), action, source }
}

/// Whether files of `diffs/<number>` may have other names, so that who writes to one changes what others have. Under the
/// write lock, `false` stays so until the transaction is over.
pub(crate) fn may_be_shared(layout: &Layout, number: u64) -> Result<bool, LayoutError> {
    let exists = |name: String| match stat::stat_at(layout.root(), name.as_bytes()) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(LayoutError::Io { path: layout.path().join(name), action: "look for", source }),
    };
    let named = format!("{}/{}", Subdirectory::Composefs.name(), DiffName::Entry(number));
    Ok(exists(CONTENT.to_owned())? || exists(named)?)
}

/// Gives the file with this content a name in `data`: the one that others share, or else `path` below `root`.
///
/// What another layer brought is read before it is taken: nobody has to trust what it became since.
pub(super) fn link(
    shared: BorrowedFd<'_>,
    data: BorrowedFd<'_>,
    (content, size): (&ContentHash, u64),
    (root, path): (BorrowedFd<'_>, &[u8]),
) -> io::Result<()> {
    let name = name(content).into_bytes();
    let (parent, last) = beneath::open_parent_beneath(root, path)?;
    let own = stat::stat_at(parent.as_fd(), last)?;
    match node::make_hard_link(shared, &name, data, &name) {
        // Twice in one layer.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(_) => {}
        Ok(()) => {
            let taken = stat::stat_at(data, &name)?;
            if taken.id == own.id || has(data, &name, content, size) {
                return Ok(());
            }
            tracing::warn!(content = %String::from_utf8_lossy(&name), "a damaged file is not shared any more");
            ignoring(io::ErrorKind::NotFound, node::remove_file(shared, &name))?;
            node::remove_file(data, &name)?;
        }
    }
    node::make_hard_link(parent.as_fd(), last, data, &name)?;
    // Who was faster with another file is welcome. Where a file has no more room for names, or the directory of the shared
    // files was removed because it was empty, nobody shares it.
    match node::make_hard_link(data, &name, shared, &name) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EMLINK) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        linked => ignoring(io::ErrorKind::AlreadyExists, linked),
    }
}

/// Whether a file has the content that it is named for.
pub(super) fn has(dir: BorrowedFd<'_>, name: &[u8], content: &ContentHash, size: u64) -> bool {
    let hashed = beneath::open_sealed_file_beneath(dir, name)
        .and_then(|file| disk::hash_content(File::from(file), size));
    hashed.is_ok_and(|hash| hash == *content)
}

fn ignoring(kind: io::ErrorKind, done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == kind => Ok(()),
        done => done,
    }
}

/// Removes the shared files that no layer has any more, and their directory when none is left; `dry_run` only looks. `tell`
/// gets the name and size of each.
pub(crate) fn sweep(
    layout: &Layout,
    dry_run: bool,
    mut tell: impl FnMut(std::path::PathBuf, u64),
) -> Result<(), LayoutError> {
    let dir = match beneath::open_directory_beneath(layout.root(), CONTENT.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        dir => dir.map_err(|source| opening_failed(layout, source))?,
    };
    let listed = directory::list(dir.as_fd()).map_err(|source| failed(layout, "read", source))?;
    for entry in listed {
        let Ok(found) = stat::stat_at(dir.as_fd(), &entry.name) else { continue };
        if found.links > 1 {
            continue;
        }
        let removed = if dry_run { Ok(()) } else { node::remove_file(dir.as_fd(), &entry.name) };
        ignoring(io::ErrorKind::NotFound, removed).map_err(|source| failed(layout, "clear", source))?;
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        tell(layout.path().join(CONTENT).join(name), found.allocated);
    }
    if dry_run {
        return Ok(());
    }
    match node::remove_directory(layout.root(), CONTENT.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => {
            ignoring(io::ErrorKind::NotFound, removed).map_err(|source| failed(layout, "remove", source))
        }
    }
}
