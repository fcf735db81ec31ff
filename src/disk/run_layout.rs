//! The run root: what a reboot drops.
//!
//! ```text
//! run.<boot id>.redb   mount counts, probe results
//! mnt/<layer id>       mount points
//! empty                nothing, for good
//! containers/<id>      run directories handed to callers
//! trash/<n>            run directories of containers that are gone
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::remove::remove_tree;
use super::usage::usage;
use crate::error::{LayoutError, TreeError};
use crate::sys::{beneath, directory, node, path};
use crate::types::{ContainerId, LayerId};

/// The run root's database file, before the boot is added.
pub(crate) const RUN_DATABASE: &str = "run.redb";
const MOUNTS: &str = "mnt";
const CONTAINERS: &str = "containers";
const EMPTY: &str = "empty";
const TRASH: &str = "trash";

/// The run root, open.
#[derive(Debug)]
pub(crate) struct RunLayout {
    root: OwnedFd,
    path: PathBuf,
}

impl RunLayout {
    /// Opens the run root at `path`, and makes it with mode 0700 if it is missing.
    pub(crate) fn ensure(path: &Path) -> Result<Self, LayoutError> {
        let failed = |action| move |source| LayoutError::Io { path: path.to_path_buf(), action, source };
        path::make_directories(path, 0o700).map_err(failed("create"))?;
        let root = beneath::open_directory(path).map_err(failed("open"))?;
        for name in [MOUNTS, CONTAINERS, EMPTY, TRASH] {
            make(root.as_fd(), name.as_bytes()).map_err(failed("create a directory in"))?;
        }
        Ok(RunLayout { root, path: path.to_path_buf() })
    }

    /// Opens the run root at `path` for looking, and makes nothing; `None` if it is missing.
    pub(crate) fn look(path: &Path) -> Result<Option<Self>, LayoutError> {
        match beneath::open_directory(path) {
            Ok(root) => Ok(Some(RunLayout { root, path: path.to_path_buf() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(LayoutError::Io { path: path.to_path_buf(), action: "open", source }),
        }
    }

    /// The path of the database, to which the boot is added.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(RUN_DATABASE)
    }

    /// Makes sure that there is a mount point for a layer, and returns its path.
    pub(crate) fn ensure_mount_point(&self, layer: &LayerId) -> Result<PathBuf, LayoutError> {
        self.ensure_below(MOUNTS, layer.as_str())
    }

    /// The path of a layer's mount point below a run root.
    pub(crate) fn mount_point(root: &Path, layer: &LayerId) -> PathBuf {
        root.join(MOUNTS).join(layer.as_str())
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
        names.map_err(|source| LayoutError::Io { path: self.path.join(which), action: "read", source })
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

    /// Makes sure that the container has a run directory, and returns its path.
    pub(crate) fn ensure_container(&self, id: &ContainerId) -> Result<PathBuf, LayoutError> {
        self.ensure_below(CONTAINERS, id.as_str())
    }

    /// The path of a container's run directory.
    pub(crate) fn container(&self, id: &ContainerId) -> PathBuf {
        self.path.join(CONTAINERS).join(id.as_str())
    }

    /// The names of all run directories.
    pub(crate) fn container_directories(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        self.names(CONTAINERS)
    }

    /// What a run directory takes on the disk; 0 if it cannot be told.
    pub(crate) fn measure_container(&self, id: &ContainerId) -> u64 {
        self.measure(CONTAINERS, id.as_str().as_bytes())
    }

    /// Moves the run directory of a container to the trash, under a fresh number; returns false if it has none.
    pub(crate) fn discard_container(&self, id: &ContainerId, number: u64) -> Result<bool, LayoutError> {
        let moved = self.open(CONTAINERS).and_then(|from| {
            let (to, new) = (self.open(TRASH)?, number.to_string());
            node::rename_noreplace(from.as_fd(), id.as_str().as_bytes(), to.as_fd(), new.as_bytes())
        });
        match moved {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                Err(LayoutError::Io { path: self.container(id), action: "move to the trash", source })
            }
        }
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
        let path = self.path.join(which).join(name);
        let made = beneath::open_directory_beneath(self.root.as_fd(), which.as_bytes())
            .and_then(|dir| make(dir.as_fd(), name.as_bytes()));
        made.map_err(|source| LayoutError::Io { path: path.clone(), action: "create", source })?;
        Ok(path)
    }
}

fn make(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match node::make_directory(dir, name, 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
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
            assert!(run.ensure_container(&"web-1".parse().unwrap()).unwrap().is_dir());
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
