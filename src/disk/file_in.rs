//! Files in the directories that images and containers have for their callers: a name never stands for half a file.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys::file::{File, duplicate};
use crate::sys::{beneath, node, random, sync};
use crate::types::RelPath;

/// Writes the file `path` below `root` whole, in place of the one that is there. Directories above it that are missing
/// are made with mode 0700, and the file with 0600. With `durable` all of it is on the disk after that.
///
/// Nothing on the way may be a symbolic link or a mount.
pub(crate) fn write_file(
    root: BorrowedFd<'_>,
    path: &RelPath,
    bytes: &[u8],
    durable: bool,
) -> io::Result<()> {
    let Some(name) = path.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
    let dir = ensure_parents(root, path, durable)?;
    let random: String = random::bytes::<8>()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = format!(".part-{random}").into_bytes();
    let file = beneath::create_private_file(dir.as_fd(), &part)?;
    let written = File::from(duplicate(file.as_fd())?)
        .write_all(bytes)
        .and_then(|()| if durable { sync::file(file.as_fd()) } else { Ok(()) })
        .and_then(|()| node::rename(dir.as_fd(), &part, dir.as_fd(), name));
    if written.is_err() {
        // The error that is told is the one before this.
        node::remove_file(dir.as_fd(), &part).ok();
    }
    written.and_then(|()| if durable { sync::file(dir.as_fd()) } else { Ok(()) })
}

/// The bytes of the file `path` below `root`.
pub(crate) fn read_file(root: BorrowedFd<'_>, path: &RelPath) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(beneath::open_file_beneath(root, path.as_bytes())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the directory that `path` stands in, one part at a time.
fn ensure_parents(root: BorrowedFd<'_>, path: &RelPath, durable: bool) -> io::Result<OwnedFd> {
    let mut dir = duplicate(root)?;
    let parent = path.parent().unwrap_or_default();
    for part in parent.parts() {
        match node::make_private_directory(dir.as_fd(), part) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                if durable {
                    sync::file(dir.as_fd())?;
                }
            }
        }
        dir = beneath::open_directory_beneath(dir.as_fd(), part)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_archive(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_is_replaced_whole_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        write_file(root.as_fd(), &path("a/b/c"), b"first, and longer", true).unwrap();
        write_file(root.as_fd(), &path("a/b/c"), b"second", false).unwrap();
        assert_eq!(read_file(root.as_fd(), &path("a/b/c")).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(dir.path().join("a/b")).unwrap().count(), 1, "no part is left");
        assert_eq!(dir.path().join("a/b/c").metadata().unwrap().permissions().mode() & 0o777, 0o600);

        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), dir.path().join("link")).unwrap();
        std::fs::write(outside.path().join("file"), "secret").unwrap();
        assert!(write_file(root.as_fd(), &path("link/file"), b"x", false).is_err());
        assert!(read_file(root.as_fd(), &path("link/file")).is_err());
        assert!(write_file(root.as_fd(), &RelPath::root(), b"x", false).is_err());
        assert!(write_file(root.as_fd(), &path("a"), b"x", false).is_err(), "a directory stands there");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no part is left");
        assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"secret");
    }
}
