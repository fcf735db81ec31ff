//! Giving all files of a tree other owners.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::FileType;

use super::walk::{Access, Item, Step, Walker, failed};
use crate::error::TreeError;
use crate::sys::pinned::Pinned;
use crate::sys::stat::{self, FileId, Stat};
use crate::sys::xattr::{self, Target};
use crate::sys::{beneath, node};

/// An owner and a group.
type Owner = (u32, u32);

/// The attribute that a change of the owner takes away, as it does set-id bits.
const CAPABILITY: &[u8] = b"security.capability";

/// A name of a file with several, with the owner that the file had.
#[derive(Debug)]
pub(crate) struct LinkedName {
    path: Vec<u8>,
    before: Owner,
}

/// Gives everything in a tree, its root included, the owner that `change` says; it keeps modes and capabilities. What has its
/// new owner already is not touched, so that an overlay mount copies nothing up for it. Returns the names of files with
/// several, each of which was changed by its first name.
///
/// Where `change` says nothing, its error for the path and the owner that was found comes back. What was changed until then
/// stays so.
pub(crate) fn change_owners<E: From<TreeError>>(
    root: BorrowedFd<'_>,
    change: impl Fn(&[u8], Owner) -> Result<Owner, E>,
) -> Result<Vec<LinkedName>, E> {
    let mut linked = Vec::new();
    // A mount may show a file with two names as one inode until the first of them is copied up, and as two after it: what has
    // the owner still that the first name had is to be changed, too.
    let mut seen: HashMap<FileId, Owner> = HashMap::new();
    let mut walker = Walker::new(root, Access::AsIs)?;
    while let Some(step) = walker.next_step()? {
        // A directory after what is in it.
        let (Step::Leaf(item) | Step::Leave(item)) = step else { continue };
        let found = (item.stat.uid, item.stat.gid);
        let path = walker.path().to_vec();
        if item.stat.kind != FileType::Directory && item.stat.links > 1 {
            let before = *seen.entry(item.stat.id).or_insert(found);
            linked.push(LinkedName { path: path.clone(), before });
            if before != found {
                continue;
            }
        }
        let owner = change(&path, found)?;
        if owner != found {
            give(&item, owner).map_err(failed(&path, "change the owner of"))?;
        }
    }
    let found = stat::stat(root).map_err(failed(b".", "examine"))?;
    let owner = change(b"", (found.uid, found.gid))?;
    if owner != (found.uid, found.gid) {
        let given = node::set_owner(root, owner.0, owner.1).and_then(|()| node::set_mode(root, found.mode));
        given.map_err(failed(b".", "change the owner of"))?;
    }
    Ok(linked)
}

/// Does the same for names that have the owner of before still in another mount of the tree. A mount program shows what it writes to
/// one name of a file by all of them, and only until it ends. Returns the names that are to be looked at in the next mount.
pub(crate) fn change_linked_names<E: From<TreeError>>(
    root: BorrowedFd<'_>,
    names: Vec<LinkedName>,
    change: impl Fn(&[u8], Owner) -> Result<Owner, E>,
) -> Result<Vec<LinkedName>, E> {
    let mut left = Vec::new();
    for LinkedName { path, before } in names {
        let found = || {
            let (dir, name) = beneath::open_parent_beneath(root, &path)?;
            let stat = stat::stat_at(dir.as_fd(), name)?;
            Ok(Item { dir: Arc::new(dir), name: name.to_vec(), stat })
        };
        let item = found().map_err(failed(&path, "examine"))?;
        if (item.stat.uid, item.stat.gid) == before {
            let owner = change(&path, before)?;
            if owner != before {
                left.push((LinkedName { path, before }, item, owner));
            }
        }
    }
    // All are looked at before the first is changed, which may show others as changed again.
    let mut given = HashSet::new();
    for (LinkedName { path, .. }, item, owner) in &left {
        if given.insert(item.stat.id) {
            give(item, *owner).map_err(failed(path, "change the owner of"))?;
        }
    }
    Ok(left.into_iter().map(|(name, ..)| name).collect())
}

fn give(item: &Item, (uid, gid): Owner) -> io::Result<()> {
    let pinned = Pinned::known(item.dir.as_fd(), &item.name, item.stat.id)?;
    let (target, Stat { kind, mode, .. }) = (Target::Pinned(pinned.as_fd()), item.stat);
    let capability = match kind {
        FileType::RegularFile => xattr::get(target, CAPABILITY)?,
        _ => None,
    };
    pinned.set_owner(uid, gid)?;
    if kind != FileType::Symlink {
        pinned.set_mode(mode)?;
    }
    match capability {
        Some(value) => xattr::set(target, CAPABILITY, &value),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::sys::beneath;

    #[test]
    fn every_inode_changes_once_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/a"), "a").unwrap();
        std::fs::set_permissions(path("d/a"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::hard_link(path("d/a"), path("b")).unwrap();
        std::os::unix::fs::symlink("/nowhere", path("l")).unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let own = std::fs::metadata(dir.path()).unwrap().uid();
        if own != 0 || crate::sys::userns::in_user_namespace() {
            return eprintln!("skipped: only root of the machine gives files to any id");
        }
        let shift = |_: &[u8], (uid, gid): Owner| Ok::<_, TreeError>((uid + 1, gid + 2));
        change_owners(root.as_fd(), shift).unwrap();
        for name in ["", "d", "d/a", "b", "l"] {
            let found = std::fs::symlink_metadata(path(name)).unwrap();
            assert_eq!((found.uid(), found.gid()), (1, 2), "{name:?}");
        }
        assert_eq!(std::fs::metadata(path("b")).unwrap().mode() & 0o7777, 0o4755);
    }
}
