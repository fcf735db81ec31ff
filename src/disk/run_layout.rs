//! The run root: what a reboot drops.
//!
//! ```text
//! run.<boot id>.redb   mount counts, transient containers, probe results
//! mnt/<layer id>       mount points
//! empty                nothing, for good
//! containers/<id>      run directories handed to callers
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::remove::remove_tree;
use crate::error::{LayoutError, TreeError};
use crate::sys::{beneath, directory, node, path};
use crate::types::{ContainerId, LayerId};

/// The run root's database file, before the boot is added.
pub(crate) const RUN_DATABASE: &str = "run.redb";
const MOUNTS: &str = "mnt";
const CONTAINERS: &str = "containers";
const EMPTY: &str = "empty";

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
        for name in [MOUNTS, CONTAINERS, EMPTY] {
            make(root.as_fd(), name.as_bytes()).map_err(failed("create a directory in"))?;
        }
        Ok(RunLayout { root, path: path.to_path_buf() })
    }

    /// The path of the database, to which the boot is added.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(RUN_DATABASE)
    }

    /// Makes sure that there is a mount point for a layer, and returns its path.
    pub(crate) fn ensure_mount_point(&self, layer: &LayerId) -> Result<PathBuf, LayoutError> {
        self.ensure_below(MOUNTS, layer.as_str())
    }

    /// The path of a layer's mount point.
    pub(crate) fn mount_point(&self, layer: &LayerId) -> PathBuf {
        self.path.join(MOUNTS).join(layer.as_str())
    }

    /// The names of all mount points.
    pub(crate) fn mount_points(&self) -> Result<Vec<Vec<u8>>, LayoutError> {
        let listed = beneath::open_directory_beneath(self.root.as_fd(), MOUNTS.as_bytes())
            .and_then(|dir| directory::list(dir.as_fd()));
        let names = listed.map(|entries| entries.into_iter().map(|entry| entry.name).collect());
        names.map_err(|source| LayoutError::Io { path: self.path.join(MOUNTS), action: "read", source })
    }

    /// A directory with nothing in it, for stacks of a single layer.
    pub(crate) fn empty_directory(&self) -> PathBuf {
        self.path.join(EMPTY)
    }

    /// Makes sure that the container has a run directory, and returns its path.
    pub(crate) fn ensure_container(&self, id: &ContainerId) -> Result<PathBuf, LayoutError> {
        self.ensure_below(CONTAINERS, id.as_str())
    }

    /// Removes the run directory of a container, if it has one.
    pub(crate) fn remove_container(&self, id: &ContainerId) -> Result<(), TreeError> {
        let containers = self.path.join(CONTAINERS);
        let dir = beneath::open_directory_beneath(self.root.as_fd(), CONTAINERS.as_bytes())
            .map_err(super::walk::failed(containers.as_os_str().as_encoded_bytes(), "open"))?;
        remove_tree(dir.as_fd(), id.as_str().as_bytes())
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
            assert!(mount.is_dir() && mount == run.mount_point(&layer));
            assert!(run.ensure_container(&"web-1".parse().unwrap()).unwrap().is_dir());
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    }
}
