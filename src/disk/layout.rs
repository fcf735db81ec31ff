//! The root directory of a store: making it, opening it, and finding what has a number in it.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::kind::{self, Own};
use super::marker::{self, MarkerProblem};
use super::names::{self, CONTENT, DiffName, Subdirectory};
use super::neighbour;
use super::overlay_form::XattrNamespace;
use super::privacy::{self, Root};
use crate::error::LayoutError;
use crate::sys::file::File;
use crate::sys::sync::FreeSpace;
use crate::sys::{beneath, directory, node, path, stat, sync};

/// The root directory of a store, open.
#[derive(Debug)]
pub(crate) struct Layout {
    root: OwnedFd,
    path: PathBuf,
    uuid: String,
    xattrs: XattrNamespace,
    mask: Option<u16>,
}

impl Layout {
    /// Makes a store at `path`, which is created if missing. The directory gets mode 0700 whatever the umask:
    /// set-id files of images must be out of other users' reach.
    ///
    /// Returns [`LayoutError::AlreadyAStore`] or [`LayoutError::NotEmpty`] if something is there already.
    pub(crate) fn create(path: &Path, xattrs: XattrNamespace) -> Result<Self, LayoutError> {
        let failed = |action| move |source| LayoutError::Io { path: path.to_path_buf(), action, source };
        path::make_private_directories(path).map_err(failed("create"))?;
        let root = beneath::open_directory(path)
            .map_err(|source| kind::opening_root_failed(path, Root::Store, source))?;
        let entries = directory::list(root.as_fd()).map_err(failed("read"))?;
        // Before all else: another process may have gone on to put more in.
        if entries.iter().any(|entry| entry.name == marker::NAME.as_bytes()) {
            return Err(LayoutError::AlreadyAStore { path: path.to_path_buf() });
        }
        for entry in entries {
            // A draft is what a crash inside this function leaves.
            if !entry.name.starts_with(marker::DRAFT.as_bytes()) {
                return Err(LayoutError::NotEmpty { path: path.to_path_buf() });
            }
        }
        node::set_mode(root.as_fd(), 0o700).map_err(failed("set the mode of"))?;
        let uuid = marker::random_uuid().map_err(failed("name"))?;
        match marker::write(root.as_fd(), &marker::text(&uuid, xattrs)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(LayoutError::AlreadyAStore { path: path.to_path_buf() });
            }
            written => written.map_err(failed("write the marker of"))?,
        }
        Ok(Layout { root, path: path.to_path_buf(), uuid, xattrs, mask: None })
    }

    /// Opens the store at `path`.
    ///
    /// Returns [`LayoutError::Missing`] if there is nothing, [`LayoutError::NotAStore`] if there are other things and
    /// no marker, [`LayoutError::OfContainersStorage`] if these are a store of that program, [`LayoutError::NewerFormat`] if a later
    /// release made it, [`LayoutError::OtherKind`] if it is no directory, or the marker no file, and [`LayoutError::Damaged`] if the
    /// marker is not one.
    pub(crate) fn open(path: &Path) -> Result<Self, LayoutError> {
        let missing = || LayoutError::Missing { path: path.to_path_buf() };
        let failed = |action| move |source| LayoutError::Io { path: path.to_path_buf(), action, source };
        let root = match beneath::open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
            root => root.map_err(|source| kind::opening_root_failed(path, Root::Store, source))?,
        };
        let file = match beneath::open_sealed_file_beneath(root.as_fd(), marker::NAME.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let entries = directory::list(root.as_fd()).map_err(failed("read"))?;
                // Somebody is making it just now, or was.
                let is_marker = |name: &[u8]| {
                    name == marker::NAME.as_bytes() || name.starts_with(marker::DRAFT.as_bytes())
                };
                if entries.iter().all(|entry| is_marker(&entry.name)) {
                    return Err(missing());
                }
                let path = path.to_path_buf();
                return Err(
                    match entries.iter().any(|entry| neighbour::is_of_containers_storage_alone(&entry.name)) {
                        true => LayoutError::OfContainersStorage { path },
                        false => LayoutError::NotAStore { path },
                    },
                );
            }
            file => file.map_err(|source| {
                kind::opening_failed((root.as_fd(), path), marker::NAME.as_bytes(), Own::File, source)
            })?,
        };
        // Of a regular file as much comes in one piece as there is.
        let mut bytes = [0; marker::LIMIT];
        let length = File::from(file).read(&mut bytes).map_err(failed("read the marker of"))?;
        let bytes = bytes.get(..length).unwrap_or_default();
        let (uuid, xattrs) = marker::parse(bytes).map_err(|problem| match problem {
            MarkerProblem::Newer(found) => {
                LayoutError::NewerFormat { path: path.to_path_buf(), found, supported: marker::FORMAT }
            }
            MarkerProblem::Damaged(reason) => LayoutError::Damaged { path: path.join(marker::NAME), reason },
        })?;
        Ok(Layout { root, path: path.to_path_buf(), uuid, xattrs, mask: None })
    }

    /// The same, with a mode that new diff directories and all in them have on the disk: what they have in their layers is
    /// kept in an attribute.
    #[must_use]
    pub(crate) fn with_mask(self, mask: Option<u16>) -> Self {
        Layout { mask, ..self }
    }

    /// The mode that new diff directories and all in them have on the disk; `None` if they have their own.
    pub(crate) fn mask(&self) -> Option<u16> {
        self.mask
    }

    /// Comes before the store is written to.
    ///
    /// Returns [`LayoutError::Exposed`] if other users could put something of theirs in the place of what it has.
    pub(crate) fn refuse_exposed(&self) -> Result<(), LayoutError> {
        privacy::check(self.root(), &self.path, Root::Store)
    }

    /// The mode of the root, if other users may enter it and it is this user's to say.
    pub(crate) fn reach(&self) -> Result<Option<u16>, LayoutError> {
        privacy::reach(self.root(), &self.path)
    }

    /// Makes the root the owner's alone.
    pub(crate) fn make_private(&self) -> Result<(), LayoutError> {
        let failed = |source| LayoutError::Io { path: self.path.clone(), action: "set the mode of", source };
        node::set_mode(self.root(), 0o700).map_err(failed)
    }

    /// The handle of the root.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The path of the root as it was given.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The store's own UUID.
    pub(crate) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// Which xattrs overlay mounts of this store use.
    pub(crate) fn xattrs(&self) -> XattrNamespace {
        self.xattrs
    }

    /// Opens one of the directories of numbered entries, and makes it if it is missing.
    pub(crate) fn subdirectory(&self, which: Subdirectory) -> Result<OwnedFd, LayoutError> {
        let name = which.name().as_bytes();
        let open = || beneath::open_directory_beneath(self.root.as_fd(), name);
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match node::make_private_directory(self.root.as_fd(), name) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    _ => open().inspect(|made| {
                        if which == Subdirectory::Diffs {
                            spread(made.as_fd())
                        }
                    }),
                }
            }
            opened => opened,
        };
        opened.map_err(|source| self.subdirectory_failed(which, source))
    }

    /// Opens one of the directories of numbered entries; reading makes none.
    pub(super) fn existing_subdirectory(&self, which: Subdirectory) -> Result<OwnedFd, LayoutError> {
        beneath::open_directory_beneath(self.root.as_fd(), which.name().as_bytes())
            .map_err(|source| self.subdirectory_failed(which, source))
    }

    fn subdirectory_failed(&self, which: Subdirectory, source: io::Error) -> LayoutError {
        kind::opening_failed((self.root(), &self.path), which.name().as_bytes(), Own::Directory, source)
    }

    /// Comes before what is not there is taken for lost.
    ///
    /// Returns [`LayoutError::Mounted`] if a filesystem is mounted over a directory of the root.
    pub(crate) fn refuse_mounted(&self) -> Result<(), LayoutError> {
        for name in Subdirectory::ALL.iter().map(|which| which.name()).chain([CONTENT]) {
            let path = || self.path.join(name);
            match stat::stat_at(self.root.as_fd(), name.as_bytes()) {
                Ok(found) if found.is_mount => return Err(LayoutError::Mounted { path: path() }),
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LayoutError::Io { path: path(), action: "examine", source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes an empty directory for an entry that needs no staging, such as a workdir. The number is fresh.
    pub(crate) fn create_entry(
        &self,
        which: Subdirectory,
        number: u64,
        mode: u16,
    ) -> Result<OwnedFd, LayoutError> {
        let (dir, name) = (self.subdirectory(which)?, DiffName::Entry(number));
        let bytes = name.to_string().into_bytes();
        // Not every umask lets the owner open it.
        let made = node::make_private_directory(dir.as_fd(), &bytes)
            .and_then(|()| beneath::open_directory_beneath(dir.as_fd(), &bytes))
            .and_then(|made| node::set_mode(made.as_fd(), mode).map(|()| made));
        made.map_err(|source| LayoutError::Io {
            path: self.entry_path(which, name),
            action: "create",
            source,
        })
    }

    /// Makes sure that a layer that is written to has its workdir, and returns its path.
    pub(crate) fn ensure_workdir(&self, number: u64) -> Result<PathBuf, LayoutError> {
        let path = self.entry_path(Subdirectory::Work, DiffName::Entry(number));
        let is = |error: &LayoutError, kind| matches!(error, LayoutError::Io { source, .. } if source.kind() == kind);
        let open = || self.open_entry(Subdirectory::Work, number);
        let make = || match self.create_entry(Subdirectory::Work, number, 0o700) {
            Err(error) if is(&error, io::ErrorKind::AlreadyExists) => open(),
            made => made,
        };
        // Who seals the layer meanwhile may remove it between its making and its opening.
        let work = match open() {
            Err(error) if is(&error, io::ErrorKind::NotFound) => match make() {
                Err(error) if is(&error, io::ErrorKind::NotFound) => make(),
                made => made,
            },
            opened => opened,
        }?;
        match self.join_project(number, work.as_fd()) {
            Ok(()) => Ok(path),
            Err(source) => Err(LayoutError::Io { path, action: "set the project of", source }),
        }
    }

    /// Opens the directory of an entry for reading.
    pub(crate) fn open_entry(&self, which: Subdirectory, number: u64) -> Result<OwnedFd, LayoutError> {
        let path = format!("{}/{number}", which.name());
        beneath::open_directory_beneath(self.root.as_fd(), path.as_bytes())
            .map_err(|source| self.entry_failed(which, number, source))
    }

    /// Opens the directory of an entry, for opening what is in it.
    pub(crate) fn pin_entry(&self, which: Subdirectory, number: u64) -> Result<OwnedFd, LayoutError> {
        let path = format!("{}/{number}", which.name());
        beneath::pin_directory_beneath(self.root.as_fd(), path.as_bytes())
            .map_err(|source| self.entry_failed(which, number, source))
    }

    fn entry_failed(&self, which: Subdirectory, number: u64, source: io::Error) -> LayoutError {
        match self.existing_subdirectory(which) {
            Err(error @ LayoutError::OtherKind { .. }) => error,
            _ => LayoutError::of_opening(self.entry_path(which, DiffName::Entry(number)), source),
        }
    }

    /// Opens a kept blob for reading.
    pub(crate) fn open_blob(&self, number: u64) -> Result<OwnedFd, LayoutError> {
        let path = format!("{}/{number}", Subdirectory::Blobs.name());
        beneath::open_sealed_file_beneath(self.root.as_fd(), path.as_bytes())
            .map_err(|source| self.entry_failed(Subdirectory::Blobs, number, source))
    }

    /// The path of a numbered entry, for messages and for mounts.
    pub(crate) fn entry_path(&self, which: Subdirectory, name: DiffName) -> PathBuf {
        self.path.join(which.name()).join(name.to_string())
    }

    /// Writes everything in the store out to the disk.
    pub(crate) fn sync(&self) -> Result<(), LayoutError> {
        sync_filesystem(self.root.as_fd(), &self.path)
    }

    /// Comes before the first write of what [`SyncPoint::sync`] is to bring to the disk.
    pub(crate) fn sync_point(&self) -> Result<SyncPoint, LayoutError> {
        let path = self.path.clone();
        match beneath::open_directory_beneath(self.root.as_fd(), b".") {
            Ok(root) => Ok(SyncPoint { root, path }),
            Err(source) => Err(LayoutError::Io { path, action: "open", source }),
        }
    }

    /// Whether the store's filesystem is read-only, at least by way of this path.
    pub(crate) fn is_read_only(&self) -> Result<bool, LayoutError> {
        sync::is_read_only(self.root.as_fd()).map_err(|source| LayoutError::Io {
            path: self.path.clone(),
            action: "query the filesystem of",
            source,
        })
    }

    /// How much room there is on the store's filesystem.
    pub(crate) fn free_space(&self) -> Result<FreeSpace, LayoutError> {
        sync::free_space(self.root.as_fd()).map_err(|source| LayoutError::Io {
            path: self.path.clone(),
            action: "query the free space of",
            source,
        })
    }

    /// The path of a file of the root.
    pub(crate) fn file_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Every entry of one of the directories that has one of our names, in no order.
    pub(crate) fn entries(&self, which: Subdirectory) -> Result<Vec<DiffName>, LayoutError> {
        Ok(self.names(which)?.iter().filter_map(|name| DiffName::parse(name)).collect())
    }

    /// What stands in the root and is none of a store's names, in no order.
    pub(crate) fn strays(&self) -> Result<Vec<PathBuf>, LayoutError> {
        let listed = directory::list(self.root.as_fd()).map_err(|source| LayoutError::Io {
            path: self.path.clone(),
            action: "read",
            source,
        })?;
        let strays = listed.into_iter().filter(|entry| !names::is_of_root(&entry.name, entry.kind));
        Ok(strays.map(|entry| self.path.join(OsStr::from_bytes(&entry.name))).collect())
    }

    /// Every name in one of the directories, ours or not; none if the directory is not there.
    pub(crate) fn names(&self, which: Subdirectory) -> Result<Vec<Vec<u8>>, LayoutError> {
        let dir = match self.existing_subdirectory(which) {
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            dir => dir?,
        };
        let listed = directory::list(dir.as_fd()).map_err(|source| LayoutError::Io {
            path: self.path.join(which.name()),
            action: "read",
            source,
        })?;
        Ok(listed.into_iter().map(|entry| entry.name).collect())
    }
}

/// A descriptor that one operation syncs by.
///
/// The kernel tells of a write that failed once for each descriptor that was open then. With one for all, an operation
/// could take the error that another must have, and the other would commit what is not on the disk.
#[derive(Debug)]
pub(crate) struct SyncPoint {
    root: OwnedFd,
    path: PathBuf,
}

impl SyncPoint {
    /// Writes everything in the store out to the disk. Comes before the commit of rows that name directories.
    pub(crate) fn sync(&self) -> Result<(), LayoutError> {
        sync_filesystem(self.root.as_fd(), &self.path)
    }
}

/// Lets each diff directory be placed apart from the others. Beside them, a new layer's files would be for the inodes of layers that
/// were just removed, which ext4 without a journal gives to nobody for a minute or more: it looks at each for each new file, and
/// an import takes many times as long. What cannot be told where to place them stores them all the same.
fn spread(diffs: BorrowedFd<'_>) {
    if let Err(error) = node::spread_subdirectories(diffs) {
        tracing::debug!(%error, "the filesystem places diff directories as it does others");
    }
}

fn sync_filesystem(root: BorrowedFd<'_>, path: &Path) -> Result<(), LayoutError> {
    let failed = |source| LayoutError::Io { path: path.to_owned(), action: "sync the filesystem of", source };
    sync::filesystem(root).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_store_is_made_once_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/store");
        assert!(matches!(Layout::open(&path), Err(LayoutError::Missing { .. })));
        let made = Layout::create(&path, XattrNamespace::User).unwrap();
        let opened = Layout::open(&path).unwrap();
        assert_eq!((opened.uuid(), opened.xattrs()), (made.uuid(), XattrNamespace::User));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
        opened.sync().unwrap();
        assert!(opened.free_space().unwrap().bytes > 0);
        assert!(matches!(
            Layout::create(&path, XattrNamespace::User),
            Err(LayoutError::AlreadyAStore { .. })
        ));
    }

    #[test]
    fn other_directories_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
        let made = Layout::create(dir.path(), XattrNamespace::User);
        assert!(matches!(made, Err(LayoutError::NotEmpty { .. })));
        assert!(matches!(Layout::open(dir.path()), Err(LayoutError::NotAStore { .. })));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_interrupted_creation_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("LAYERSTORE.new-00"), b"layer").unwrap();
        Layout::create(dir.path(), XattrNamespace::Trusted).unwrap();
    }
}
