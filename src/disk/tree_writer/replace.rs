//! What stands at the path of a new entry gives way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FileType;

use super::parents::is_at_or_below;
use super::{TreeWriter, failed};
use crate::disk::overlay_form::is_whiteout;
use crate::disk::remove::{empty_directory, remove};
use crate::error::{TreeError, UnpackError};
use crate::sys::xattr::Target;
use crate::sys::{beneath, node, stat};
use crate::types::RelPath;

impl TreeWriter {
    /// Removes what stands at `path`, and sets the regular files in it aside. Returns whether the layer also
    /// hid what lower layers have there.
    pub(super) fn make_room(
        &mut self,
        path: &RelPath,
        parent: &Arc<OwnedFd>,
        name: &[u8],
    ) -> Result<bool, UnpackError> {
        let found = match stat::stat_at(parent.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found.map_err(failed(path, "examine what stands there"))?,
        };
        if found.kind == FileType::Directory {
            return self.clear_directory(path, parent, name);
        }
        let target = Target::Name(parent.as_fd(), name);
        let whiteout = is_whiteout(&found, target, self.shared.options.xattr_namespace)
            .map_err(failed(path, "examine what stands there"))?;
        let moved = if found.kind == FileType::RegularFile && !whiteout {
            move_aside(&self.aside, &mut self.set_aside, parent.as_fd(), name, found.id.inode)
        } else {
            node::remove_file(parent.as_fd(), name)
        };
        moved.map_err(failed(path, "replace what stands there"))?;
        Ok(whiteout)
    }

    fn clear_directory(
        &mut self,
        path: &RelPath,
        parent: &Arc<OwnedFd>,
        name: &[u8],
    ) -> Result<bool, UnpackError> {
        self.handles.forget(path);
        let mut opaque = false;
        // In manifest order a directory and all below it are neighbours.
        let is_gone = |other: &&RelPath| is_at_or_below(other.as_bytes(), path.as_bytes());
        let below = self.directories.range(path.clone()..).map(|(below, _)| below);
        let below: Vec<RelPath> = below.take_while(is_gone).cloned().collect();
        for gone in below {
            let state = self.directories.remove(&gone);
            opaque |= gone == *path && state.is_some_and(|state| state.opaque);
        }
        let below: Vec<RelPath> = self.hidden.range(path.clone()..).take_while(is_gone).cloned().collect();
        for gone in below {
            self.hidden.remove(&gone);
        }
        let directory = beneath::open_directory_beneath(parent.as_fd(), name)
            .map_err(failed(path, "open the replaced directory"))?;
        let (aside, set_aside) = (&self.aside, Mutex::new(&mut self.set_aside));
        let emptied = empty_directory(directory.as_fd(), |item| {
            if item.stat.kind != FileType::RegularFile {
                return remove(item);
            }
            // All go to one directory, where only one can come at a time.
            let mut set_aside = set_aside.lock().unwrap_or_else(PoisonError::into_inner);
            move_aside(aside, &mut set_aside, item.dir.as_fd(), &item.name, item.stat.id.inode)
        });
        emptied.map_err(|error| match error {
            TreeError::Io { action, source, .. } => failed(path, action)(source),
            other => failed(path, "remove the replaced directory")(io::Error::other(other)),
        })?;
        node::remove_directory(parent.as_fd(), name)
            .map_err(failed(path, "remove the replaced directory"))?;
        Ok(opaque)
    }
}

/// Moves a regular file out of the tree.
fn move_aside(
    aside: &OwnedFd,
    set_aside: &mut Vec<(u64, String)>,
    dir: BorrowedFd<'_>,
    name: &[u8],
    inode: u64,
) -> io::Result<()> {
    let number = set_aside.len().to_string();
    node::rename(dir, name, aside.as_fd(), number.as_bytes())?;
    set_aside.push((inode, number));
    Ok(())
}
