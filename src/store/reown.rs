//! Other owners for all that a layer shows, where no mount can show others.

use std::os::fd::{AsFd, BorrowedFd};

use crate::disk;
use crate::error::{Error, ExportError};
use crate::overlay;
use crate::sys::userns::IdMaps;
use crate::sys::{beneath, moment};
use crate::types::{LayerId, RelPath};

use super::{MountOptions, Store, UnmountMode};

impl Store {
    /// Gives everything that a layer shows, with all below it, other owners: ids of the host that are those of a container by
    /// `from` become the host's by `to`. No maps say that both are the same. Files of the layers below are copied up for it,
    /// so this takes their space again; where mounts can show layers with other ids,
    /// [`MountOptions::id_maps`](crate::MountOptions::id_maps) does it without.
    ///
    /// The layer is mounted meanwhile, where others can see it. If this fails in the middle, some files have their new owners and
    /// some have not: the layer is of no use then, and is to be removed and made anew. A process that dies meanwhile leaves it
    /// mounted too, and further calls find it so: [`unmount_all`](Self::unmount_all) ends that.
    ///
    /// Returns [`Error::InUse`] if the layer is mounted, or others stand on it; [`Error::Export`] with
    /// [`Unmapped`](ExportError::Unmapped) if a file belongs to an id that `from` has not, or that becomes one that `to` has
    /// not; and what [`mount`](Self::mount) does.
    pub fn change_owners(
        &self,
        layer: &LayerId,
        from: Option<&IdMaps>,
        to: Option<&IdMaps>,
    ) -> Result<(), Error> {
        self.refuse_mounted_here(layer.as_str(), || format!("the layer {layer}"))?;
        let options = MountOptions { unseal: true, ..MountOptions::default() };
        let change = |path: &[u8], owner| mapped(path, owner, from, to);
        let (mut left, by_program) =
            self.in_mount(layer, &options, |root| disk::change_owners(root, change))?;
        // The kernel shows what is so. Each round changes one name of each file at the least.
        while by_program && !left.is_empty() {
            (left, _) =
                self.in_mount(layer, &options, |root| disk::change_linked_names(root, left, change))?;
        }
        Ok(())
    }

    /// Runs `body` in a mount of a layer. With its answer comes whether a program made the mount.
    fn in_mount<T>(
        &self,
        layer: &LayerId,
        options: &MountOptions,
        body: impl FnOnce(BorrowedFd<'_>) -> Result<T, Error>,
    ) -> Result<(T, bool), Error> {
        let mount = self.mount(layer, options)?;
        let path = mount.path();
        let by_program = overlay::is_by_program(path);
        let root = beneath::open_directory(path);
        let done = root
            .map_err(|source| Error::Io { action: "open", path: path.to_owned(), source })
            .and_then(|root| body(root.as_fd()));
        moment::pass("owners changed");
        let unmounted = self.unmount(layer, UnmountMode::Detach);
        let done = done?;
        unmounted.map(|_| (done, by_program))
    }
}

fn mapped(
    path: &[u8],
    (uid, gid): (u32, u32),
    from: Option<&IdMaps>,
    to: Option<&IdMaps>,
) -> Result<(u32, u32), Error> {
    let inside = from.map_or(Some((uid, gid)), |maps| maps.to_container(uid, gid));
    let outside = inside.and_then(|(uid, gid)| to.map_or(Some((uid, gid)), |maps| maps.to_host(uid, gid)));
    // Paths of a walk are relative already.
    let named = || RelPath::from_archive(path).map(|path| path.as_path().to_owned()).unwrap_or_default();
    outside.ok_or_else(|| ExportError::Unmapped { path: named(), uid, gid }.into())
}
