//! What others have mounted among the store's files: it hides what is below it, and is nobody's to remove.

use std::io;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use crate::error::TreeError;
use crate::sys::mount::info;
use crate::sys::path;

/// Where filesystems are mounted below a store's root, as seen from here.
#[derive(Debug)]
pub(crate) struct ForeignMounts {
    /// The root as the store calls it, and as the kernel does.
    root: PathBuf,
    resolved: PathBuf,
    targets: Vec<PathBuf>,
}

impl ForeignMounts {
    /// Reads the kernel's table.
    pub(crate) fn look(layout: &Layout) -> io::Result<Self> {
        let resolved = path::resolve(layout.path())?;
        let targets = info::read()?.into_iter().map(|mount| mount.target);
        let targets = targets.filter(|target| target.starts_with(&resolved)).collect();
        Ok(ForeignMounts { root: layout.path().to_owned(), resolved, targets })
    }

    /// The first one at or below `path`, which is below the root.
    pub(crate) fn inside(&self, path: &Path) -> Option<&Path> {
        let below = self.resolved.join(path.strip_prefix(&self.root).ok()?);
        self.targets.iter().find(|target| target.starts_with(&below)).map(PathBuf::as_path)
    }

    /// The error of whoever was to remove `path`, if there is one.
    pub(crate) fn error(&self, path: &Path) -> Option<TreeError> {
        self.inside(path).map(|target| TreeError::Mount { path: target.to_owned() })
    }
}

/// A mount that stopped the removal of `path`, by its whole path: what removes a tree knows it by its place in that.
pub(super) fn named(error: TreeError, layout: &Layout, path: &Path) -> TreeError {
    match error {
        TreeError::Mount { .. } => {
            let mounts = ForeignMounts::look(layout).ok();
            mounts.and_then(|mounts| mounts.error(path)).unwrap_or(error)
        }
        error => error,
    }
}
