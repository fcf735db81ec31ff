//! The run root: what a reboot drops.
//!
//! ```text
//! run.<boot id>.redb   mount counts, probe results
//! mnt/<layer id>       mount points
//! empty                nothing, for good
//! containers/<id>      run directories handed to callers
//! images/<id>          the same of images
//! digests/<digest>     held while someone fetches the blob
//! trash/<n>            run directories of what is gone
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::kind::{self, Own};
use super::privacy::{self, Root};
use super::remove::remove_tree;
use super::usage::usage;
use crate::error::{LayoutError, TreeError};
use crate::sys::{beneath, directory, node, path, stat};
use crate::types::{ContainerId, ImageId, LayerId};

/// The run root's database file, before the boot is added.
pub(crate) const RUN_DATABASE: &str = "run.redb";
const MOUNTS: &str = "mnt";
const CONTAINERS: &str = "containers";
const IMAGES: &str = "images";
const DIGESTS: &str = "digests";
const EMPTY: &str = "empty";
const TRASH: &str = "trash";

/// Whose run directory it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum RunDirectory<'i> {
    /// A container's.
    Container(&'i ContainerId),
    /// An image's.
    Image(&'i ImageId),
}

impl RunDirectory<'_> {
    fn place(&self) -> (&'static str, &str) {
        match self {
            RunDirectory::Container(id) => (CONTAINERS, id.as_str()),
            RunDirectory::Image(id) => (IMAGES, id.as_str()),
        }
    }
}

/// The run root, open.
#[derive(Debug)]
pub(crate) struct RunLayout {
    root: OwnedFd,
    path: PathBuf,
}

impl RunLayout {
    /// Opens the run root at `path`, and makes it with mode 0700 if it is missing.
    ///
    /// Returns [`LayoutError::Exposed`] if other users could put something of theirs in the place of what it has, and
    /// [`LayoutError::OtherKind`] if it or what is in it is no directory.
    pub(crate) fn ensure(path: &Path) -> Result<Self, LayoutError> {
        let failed = |action| move |source| LayoutError::Io { path: path.to_path_buf(), action, source };
        let open = || beneath::open_directory(path);
        // It is there, as a rule.
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path::make_private_directories(path).map_err(failed("create"))?;
                open()
            }
            opened => opened,
        };
        let root = opened.map_err(|source| kind::opening_root_failed(path, Root::Run, source))?;
        privacy::check(root.as_fd(), path, Root::Run)?;
        for name in [MOUNTS, CONTAINERS, IMAGES, DIGESTS, EMPTY, TRASH] {
            ensure((root.as_fd(), path), name.as_bytes())?;
        }
        Ok(RunLayout { root, path: path.to_path_buf() })
    }

    /// Comes before the store is written to, whether that needs the run root or not: the next one to mount will. One that is missing is
    /// made for its owner alone, and one that this user may not enter is refused to who needs it.
    ///
    /// Returns [`LayoutError::Exposed`] if other users could put something of theirs in the place of what it has.
    pub(crate) fn refuse_exposed(path: &Path) -> Result<(), LayoutError> {
        match Self::look(path) {
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            looked => looked?.map_or(Ok(()), |run| privacy::refuse(run.root.as_fd(), path, Root::Run)),
        }
    }

    /// Opens the run root at `path` for looking, and makes nothing; `None` if it is missing.
    pub(crate) fn look(path: &Path) -> Result<Option<Self>, LayoutError> {
        match beneath::open_directory(path) {
            Ok(root) => Ok(Some(RunLayout { root, path: path.to_path_buf() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(kind::opening_root_failed(path, Root::Run, source)),
        }
    }

    /// The mode of the run root, if other users may enter it and it is this user's to say.
    pub(crate) fn reach(&self) -> Result<Option<u16>, LayoutError> {
        privacy::reach(self.root.as_fd(), &self.path)
    }

    /// Makes the run root the owner's alone.
    pub(crate) fn make_private(&self) -> Result<(), LayoutError> {
        let failed = |source| LayoutError::Io { path: self.path.clone(), action: "set the mode of", source };
        node::set_mode(self.root.as_fd(), 0o700).map_err(failed)
    }

    /// The path of the database, to which the boot is added.
    pub(crate) fn database(&self) -> PathBuf {
        Self::database_below(&self.path)
    }

    /// The path of the database below a run root, to which the boot is added.
    pub(crate) fn database_below(root: &Path) -> PathBuf {
        root.join(RUN_DATABASE)
    }

    /// Makes sure that there is a mount point for a layer, and returns its path.
    pub(crate) fn ensure_mount_point(&self, layer: &LayerId) -> Result<PathBuf, LayoutError> {
        self.ensure_below(MOUNTS, layer.as_str())
    }

    /// The path of a layer's mount point below a run root.
    pub(crate) fn mount_point(root: &Path, layer: &LayerId) -> PathBuf {
        root.join(MOUNTS).join(layer.as_str())
    }

    /// The layers that have a mount point below a run root. Neither need be there.
    ///
    /// Returns [`LayoutError::Io`] if the directory cannot be read.
    pub(crate) fn layers_with_mount_points(root: &Path) -> Result<Vec<LayerId>, LayoutError> {
        let path = root.join(MOUNTS);
        let paths = match path::list(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listed => listed.map_err(|source| LayoutError::Io { path, action: "list", source })?,
        };
        let layer = |path: PathBuf| path.file_name()?.to_str()?.parse().ok();
        Ok(paths.into_iter().filter_map(layer).collect())
    }

    /// The directory of the mount points.
    pub(crate) fn mounts(&self) -> PathBuf {
        self.path.join(MOUNTS)
    }

    /// The names of all mount points.
    pub(crate) fn mount_points(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(MOUNTS)
    }

    fn names(&self, which: &str) -> Result<Vec<Vec<u8>>, LayoutError> {
        let listed = match self.open(which) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened.and_then(|dir| directory::list(dir.as_fd())),
        };
        let names = listed.map(|entries| entries.into_iter().map(|entry| entry.name).collect());
        names.map_err(|source| self.opening_failed(which, source))
    }

    fn opening_failed(&self, which: &str, source: io::Error) -> LayoutError {
        kind::opening_failed((self.root.as_fd(), &self.path), which.as_bytes(), Own::RunDirectory, source)
    }

    fn open(&self, which: &str) -> io::Result<OwnedFd> {
        beneath::open_directory_beneath(self.root.as_fd(), which.as_bytes())
    }

    /// What a directory takes on the disk; 0 if it cannot be told.
    fn measure(&self, which: &str, name: &[u8]) -> u64 {
        let tree = self.open(which).and_then(|dir| beneath::open_directory_beneath(dir.as_fd(), name));
        let measured = tree.ok().and_then(|tree| usage(tree.as_fd()).ok());
        measured.map_or(0, |usage| usage.allocated)
    }

    /// A directory with nothing in it, for stacks of a single layer.
    pub(crate) fn empty_directory(&self) -> PathBuf {
        self.path.join(EMPTY)
    }

    /// Makes an empty directory for a moment, in the trash: so if this process dies, a collection removes it.
    pub(crate) fn ensure_scratch(&self, number: u64) -> Result<PathBuf, LayoutError> {
        self.ensure_below(TRASH, &number.to_string())
    }

    /// Makes sure that there is a run directory, and returns its path.
    pub(crate) fn ensure_directory(&self, of: &RunDirectory<'_>) -> Result<PathBuf, LayoutError> {
        let (which, id) = of.place();
        self.ensure_below(which, id)
    }

    /// The path of a run directory.
    pub(crate) fn directory(&self, of: &RunDirectory<'_>) -> PathBuf {
        let (which, id) = of.place();
        self.path.join(which).join(id)
    }

    /// The names of all run directories of containers.
    pub(crate) fn container_directories(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(CONTAINERS)
    }

    /// The names of all run directories of images.
    pub(crate) fn image_directories(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(IMAGES)
    }

    /// What a run directory takes on the disk; 0 if it cannot be told.
    pub(crate) fn measure_directory(&self, of: &RunDirectory<'_>) -> u64 {
        let (which, id) = of.place();
        self.measure(which, id.as_bytes())
    }

    /// Moves a run directory to the trash, under a fresh number; returns false if there is none.
    pub(crate) fn discard(&self, of: &RunDirectory<'_>, number: u64) -> Result<bool, LayoutError> {
        let (which, id) = of.place();
        let moved = self.open(which).and_then(|from| {
            let (to, new) = (self.open(TRASH)?, number.to_string());
            node::rename_noreplace(from.as_fd(), id.as_bytes(), to.as_fd(), new.as_bytes())
        });
        match moved {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                Err(LayoutError::Io { path: self.directory(of), action: "move to the trash", source })
            }
        }
    }

    /// The names of the lock files of digests.
    pub(super) fn digest_locks(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(DIGESTS)
    }

    /// The directory of the lock files of digests.
    pub(super) fn open_digest_locks(&self) -> Result<OwnedFd, LayoutError> {
        self.open(DIGESTS).map_err(|source| self.opening_failed(DIGESTS, source))
    }

    /// The path of the directory of the lock files of digests.
    pub(super) fn digest_locks_path(&self) -> PathBuf {
        self.path.join(DIGESTS)
    }

    /// The path of the lock file of a digest.
    pub(super) fn digest_lock_path(&self, name: &[u8]) -> PathBuf {
        self.digest_locks_path().join(OsStr::from_bytes(name))
    }

    /// The names in the trash.
    pub(crate) fn trash(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(TRASH)
    }

    /// The path of an entry of the trash.
    pub(crate) fn trash_path(&self, name: &[u8]) -> PathBuf {
        self.path.join(TRASH).join(OsStr::from_bytes(name))
    }

    /// What an entry of the trash takes on the disk; 0 if it cannot be told.
    pub(crate) fn measure_trash(&self, name: &[u8]) -> u64 {
        self.measure(TRASH, name)
    }

    /// Deletes an entry of the trash. Several processes may do so at once.
    pub(crate) fn delete_trash(&self, name: &[u8]) -> Result<(), TreeError> {
        let dir = self.open(TRASH).map_err(super::walk::failed(TRASH.as_bytes(), "open"))?;
        remove_tree(dir.as_fd(), name)
    }

    fn ensure_below(&self, which: &str, name: &str) -> Result<PathBuf, LayoutError> {
        let above = self.path.join(which);
        let dir = self.open(which).map_err(|source| self.opening_failed(which, source))?;
        ensure((dir.as_fd(), &above), name.as_bytes())?;
        Ok(above.join(name))
    }
}

/// Makes the directory `name` in `dir`, which lies at `above`, if it is missing. It is used by its path, as a mount point for
/// example, so what else stands there would be followed.
fn ensure((dir, above): (BorrowedFd<'_>, &Path), name: &[u8]) -> Result<(), LayoutError> {
    let path = || above.join(OsStr::from_bytes(name));
    loop {
        match stat::stat_at(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(LayoutError::Io { path: path(), action: "examine", source }),
            Ok(found) => return kind::check(path(), Own::RunDirectory, found.kind),
        }
        match node::make_private_directory(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                return made.map_err(|source| LayoutError::Io { path: path(), action: "create", source });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_run_root_is_made_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/demo");
        for _ in 0..2 {
            let run = RunLayout::ensure(&path).unwrap();
            let layer = "c0ffee".parse().unwrap();
            let mount = run.ensure_mount_point(&layer).unwrap();
            assert!(mount.is_dir() && mount == RunLayout::mount_point(&path, &layer));
            let (container, image) = ("web-1".parse().unwrap(), "web-1".parse().unwrap());
            for of in [RunDirectory::Container(&container), RunDirectory::Image(&image)] {
                assert!(run.ensure_directory(&of).unwrap().is_dir());
            }
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
