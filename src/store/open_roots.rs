//! Roots that other users can enter.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Store;
use crate::disk::RunLayout;
use crate::error::{Error, LayoutError};

/// A root or run root that other users can enter: the programs of images that take their owner's rights (set-id) are in their reach,
/// as is every file that an image lets everybody read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenRoot {
    /// The directory.
    pub path: PathBuf,
    /// Its mode: permission bits. A new root has 0700.
    pub mode: u16,
}

impl fmt::Display for OpenRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(
            f,
            "{path} has mode {:04o}, so other users can reach the files of images, set-id programs too: chmod 0700 {path}",
            self.mode
        )
    }
}

impl Store {
    /// The root and the run root, and those of a separate store for images, as far as other users can enter them. Nothing is said of
    /// directories that belong to another user, and nothing of a store whose owner says with a
    /// [`force_mask`](crate::StoreOptions::force_mask) that others are to read it: no file has a set-id bit there.
    ///
    /// Returns [`Error::Layout`] if one cannot be looked at.
    pub fn open_roots(&self) -> Result<Vec<OpenRoot>, Error> {
        let mut open = self.own_open_roots()?;
        if let Some(images) = self.separate_images() {
            open.extend(images.own_open_roots()?);
        }
        Ok(open)
    }

    /// The same of this store alone.
    pub(crate) fn own_open_roots(&self) -> Result<Vec<OpenRoot>, Error> {
        const OTHERS: u16 = 0o077;
        if self.options().force_mask.is_some_and(|mask| mask & OTHERS != 0) {
            return Ok(Vec::new());
        }
        let (root, run_root) = (self.root(), self.run_root());
        let own = self.layout().reach()?.map(|mode| OpenRoot { path: root.to_owned(), mode });
        // One that is inside is shut with it.
        let run = match run_root.starts_with(root) {
            true => None,
            false => match RunLayout::look(&run_root) {
                // Nobody enters what is no directory; who uses it is told.
                Err(LayoutError::OtherKind { .. }) => None,
                looked => looked?.map(|run| run.reach()).transpose()?.flatten(),
            },
        };
        let run = run.map(|mode| OpenRoot { path: run_root, mode });
        Ok(own.into_iter().chain(run).collect())
    }

    /// Shuts one of these.
    pub(crate) fn make_private(&self, path: &Path) -> Result<(), Error> {
        if path == self.root() {
            self.layout().make_private()?;
        } else if path == self.run_root()
            && let Some(run) = RunLayout::look(path)?
        {
            run.make_private()?;
        }
        Ok(())
    }
}
