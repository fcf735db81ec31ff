//! The root directory of a layer that is mounted with other ids: it shows through every mount as it is in the layer.

use std::os::fd::AsFd;

use crate::disk;
use crate::error::Error;
use crate::store::part::Directory;
use crate::sys::userns::IdMaps;

/// Gives the root of a directory that is to be written to to the host's ids of its owner, or of the container's root, unless it
/// belongs to somebody of the container already. Nobody else would own it there, and so nobody could write to it.
pub(super) fn give_root(directory: &Directory<'_>, layer: &str, maps: &IdMaps) -> Result<(), Error> {
    let (root, namespace) = (directory.open(layer)?, directory.layout().xattrs());
    let failed = |action| move |source| Error::Io { action, path: directory.path(), source };
    let found = disk::stat_of_root(root.as_fd(), namespace).map_err(failed("examine"))?;
    if maps.to_container(found.uid, found.gid).is_some() {
        return Ok(());
    }
    match maps.root_to_host(found.uid, found.gid) {
        None => Ok(()),
        Some(owner) => {
            disk::set_root_owner(root.as_fd(), namespace, owner).map_err(failed("change the owner of"))
        }
    }
}
