//! A stack of layers as one directory, with the owners that id maps give: what an id-mapped mount would show.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::idattr;
use crate::disk::{self, Translate, XattrNamespace};
use crate::error::TreeError;
use crate::sys::userns::{self, IdMaps};

/// Who has what belongs to nobody of the container: the id that the kernel shows for those it has no other for.
const NOBODY: u32 = 65_534;

/// Fills an empty directory with what `layers` show, the topmost first, as belonging to the host's ids.
pub(crate) fn fill_mapped(
    layers: &[OwnedFd],
    into: BorrowedFd<'_>,
    namespace: XattrNamespace,
    maps: &IdMaps,
) -> Result<(), TreeError> {
    for layer in layers {
        disk::copy_below(layer.as_fd(), into, namespace)?;
    }
    disk::translate_owners(into, namespace, &ToHost(maps))
}

struct ToHost<'m>(&'m IdMaps);

impl Translate for ToHost<'_> {
    fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
        (
            userns::to_host(&self.0.uids, uid).unwrap_or(NOBODY),
            userns::to_host(&self.0.gids, gid).unwrap_or(NOBODY),
        )
    }

    fn attribute(&self, name: &[u8], value: &[u8]) -> Option<Vec<u8>> {
        idattr::to_host(name, value, self.0)
    }
}
