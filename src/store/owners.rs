//! Who owns the directories above a mount.

use std::collections::BTreeSet;
use std::io;

use layerstore_schema::record::IdRange;

use crate::error::{Error, MountError};
use crate::sys::path;

use super::{Store, ThingId};

/// Owners of directories that have no number inside id maps, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParentOwners {
    /// The users.
    pub uids: Vec<u32>,
    /// The groups.
    pub gids: Vec<u32>,
}

impl Store {
    /// The owners of the directories above the mount point of a container, a layer or an image that have no number in its id
    /// maps. A process that has only the mapped ids needs others to look through these directories. Without maps, every
    /// owner has a number. Of a container these are the directories where it is mounted, or would be.
    ///
    /// Returns [`Error::Mount`] with [`NotMounted`](MountError::NotMounted) if a layer has maps and no mount, and
    /// [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn parent_owners(&self, of: impl Into<ThingId>) -> Result<ParentOwners, Error> {
        let of = of.into();
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &of)?;
        let (uid_map, gid_map) = match txn.container_on(&layer.id)? {
            Some(container) => (container.uid_map, container.gid_map),
            None => (layer.uid_map, layer.gid_map),
        };
        if uid_map.is_empty() && gid_map.is_empty() {
            return Ok(ParentOwners::default());
        }
        let target = self.mount_point(&layer.id)?;
        if !matches!(of, ThingId::Container(_)) && self.mounted(&of)?.is_none() {
            return Err(MountError::NotMounted { target }.into());
        }
        let (mut uids, mut gids) = (BTreeSet::new(), BTreeSet::new());
        // The root directory is everyone's.
        for directory in target.ancestors().skip(1).filter(|directory| directory.parent().is_some()) {
            let found = match path::stat(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => {
                    return Err(Error::Io { action: "examine", path: directory.to_owned(), source });
                }
                Ok(found) => found,
            };
            uids.extend(Some(found.uid).filter(|uid| !is_mapped(&uid_map, *uid)));
            gids.extend(Some(found.gid).filter(|gid| !is_mapped(&gid_map, *gid)));
        }
        Ok(ParentOwners { uids: uids.into_iter().collect(), gids: gids.into_iter().collect() })
    }
}

/// Whether an id outside has a number inside. No map is a map of everything.
fn is_mapped(map: &[IdRange], outside: u32) -> bool {
    let has = |range: &IdRange| outside.checked_sub(range.host).is_some_and(|offset| offset < range.length);
    map.is_empty() || map.iter().any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_beyond_the_ends_of_a_range_are_not_mapped() {
        let map =
            [IdRange { container: 0, host: 100, length: 2 }, IdRange { container: 2, host: 7, length: 1 }];
        assert_eq!(
            [6, 7, 8, 99, 100, 101, 102].map(|id| is_mapped(&map, id)),
            [false, true, false, false, true, true, false]
        );
        assert!(is_mapped(&[], 5));
    }
}
