//! Whether the directory that a tree has already may keep its place, when an equal one has just been filled.
//!
//! Equal trees share a directory, so what comes in gives way to what is there. But it was just read, and what is there may have
//! been damaged since: then the good files would be given up for the bad ones. So it is looked at before, and a damaged
//! directory is what gives way.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;

use crate::disk::{self, DamagedPath};
use crate::error::{Error, InUseError, LayoutError};
use crate::layer::SealedContent;
use crate::meta::Query;
use crate::sys::mount::info;

use super::Store;

impl Store {
    /// The numbers of the directories that have one of these trees, and are not as they should be. Names, kinds, sizes,
    /// modes and times are compared, and no file is read; but of what was not on the disk when the machine went down, all is.
    pub(super) fn spoiled<'c>(
        &self,
        filled: impl IntoIterator<Item = &'c SealedContent>,
    ) -> Result<HashSet<u64>, Error> {
        let txn = self.database().begin_read()?;
        let mut spoiled = HashSet::new();
        for content in filled {
            let Some(diff) = txn.diff(&content.tree)? else { continue };
            let tree = content.tree.to_string();
            let damage = match self.open_diff(diff.number) {
                Ok(root) => {
                    let namespace = self.layout().xattrs();
                    disk::changed_path(root.as_fd(), &content.manifest, namespace)?
                }
                Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Some(DamagedPath { path: "/".into(), what: "is missing".to_owned() })
                }
                Err(error) => return Err(error.into()),
            };
            let damage = match (damage, self.verify_tree(&txn, &tree, &content.tree)) {
                (Some(damage), _) => Some(format!("{} {}", damage.path.display(), damage.what)),
                (None, Err(Error::Unsynced(error))) => Some(error.to_string()),
                (None, verified) => verified.map(|()| None)?,
            };
            if let Some(damage) = damage {
                tracing::warn!(tree, number = diff.number, damage, "a damaged directory is replaced");
                spoiled.insert(diff.number);
            }
        }
        Ok(spoiled)
    }

    /// Refuses to remove directories that a mount shows which is not counted here, such as one of containerd's, as far as this
    /// process sees it.
    pub(super) fn refuse_shown(&self, directories: &[u64]) -> Result<(), Error> {
        if directories.is_empty() {
            return Ok(());
        }
        let table =
            info::read().map_err(|source| Error::Io { action: "read", path: info::TABLE.into(), source })?;
        for number in directories {
            let name = number.to_string();
            if let Some(mount) = table.iter().find(|mount| mount.names_directory(name.as_ref())) {
                let (what, target) =
                    (format!("the directory diffs/{name}"), mount.target.display().to_string());
                return Err(InUseError::Mounted { what, target }.into());
            }
        }
        Ok(())
    }
}
