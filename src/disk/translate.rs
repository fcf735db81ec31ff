//! Giving a tree to others: the same files with other owners.
//!
//! The tree stands for itself afterwards. What marks it as changes to something below it goes, for there is nothing below.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::overlay_form::{XattrNamespace, is_whiteout};
use super::walk::{Access, Item, Step, Walker, failed};
use crate::error::TreeError;
use crate::sys::pinned::Pinned;
use crate::sys::stat::Stat;
use crate::sys::xattr::{self, Target};
use crate::sys::{node, stat};

/// What ids become.
pub(crate) trait Translate {
    /// The new owner and group of a file.
    fn owner(&self, uid: u32, gid: u32) -> (u32, u32);
    /// An attribute with the ids that are in it; `None` if it stays as it is.
    fn attribute(&self, name: &[u8], value: &[u8]) -> Option<Vec<u8>>;
}

/// Gives everything in a directory, and itself, the owners that `ids` says. Modes, times, set-id bits and capabilities stay;
/// whiteouts and the marks of opaque directories go. Nobody else may change the tree meanwhile.
pub(crate) fn translate_owners(
    root: BorrowedFd<'_>,
    namespace: XattrNamespace,
    ids: &dyn Translate,
) -> Result<(), TreeError> {
    let mut work = Work { namespace, ids, done: HashSet::new() };
    let here = || failed(b".", "change the owner of");
    let found = stat::stat(root).map_err(here())?;
    let mut walker = Walker::new(root, Access::AsIs)?;
    while let Some(step) = walker.next_step()? {
        match step {
            Step::Enter(_) => {}
            Step::Leave(item) | Step::Leaf(item) => {
                work.entry(&item).map_err(failed(walker.path(), "change the owner of"))?;
            }
        }
    }
    // The walk has read the root, and what it removed there has changed its time.
    Pinned::at(root, b".").and_then(|root| work.give(&root, &found)).map_err(here())?;
    node::set_mtime(root, found.mtime).map_err(here())
}

struct Work<'a> {
    namespace: XattrNamespace,
    ids: &'a dyn Translate,
    /// Inodes with several names that have their new owner.
    done: HashSet<stat::FileId>,
}

impl Work<'_> {
    fn entry(&mut self, item: &Item) -> io::Result<()> {
        let (dir, name, found) = (item.dir.as_fd(), item.name.as_slice(), &item.stat);
        let target = Target::Name(dir, name);
        if is_whiteout(found, target, self.namespace)? {
            return node::remove_file(dir, name);
        }
        if found.kind != FileType::Directory && found.links > 1 && !self.done.insert(found.id) {
            return Ok(());
        }
        let pinned = Pinned::known(dir, name, found.id)?;
        self.give(&pinned, found)?;
        pinned.set_mtime(found.mtime)
    }

    fn give(&self, pinned: &Pinned, found: &Stat) -> io::Result<()> {
        let target = Target::Pinned(pinned.as_fd());
        // A change of the owner takes set-id bits and capabilities away, and a change of the mode is one of the list too.
        let attributes = xattr::list(target)?;
        let mut changed = Vec::new();
        for name in &attributes {
            if *name == self.namespace.opaque() {
                xattr::remove(target, name)?;
            } else if is_about_ids(name)
                && let Some(value) = xattr::get(target, name)?
            {
                changed.push((name, self.ids.attribute(name, &value).unwrap_or(value)));
            }
        }
        let (uid, gid) = self.ids.owner(found.uid, found.gid);
        pinned.set_owner(uid, gid)?;
        if found.kind != FileType::Symlink {
            pinned.set_mode(found.mode)?;
        }
        changed.iter().try_for_each(|(name, value)| xattr::set(target, name, value))
    }
}

/// Whether an attribute may have ids in it, or goes with the owner.
fn is_about_ids(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::fixture::{Member, Place, access_list, namespace, shape};
    use super::*;

    struct Shifted(u32);

    impl Translate for Shifted {
        fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
            (uid + self.0, gid + self.0)
        }

        fn attribute(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    #[test]
    fn marks_go_and_the_rest_stays() {
        let place = Place::with_each_kind();
        let file = place.path("diff/a/file");
        let root = place.path("diff");
        std::fs::set_permissions(&root, PermissionsExt::from_mode(0o2751)).unwrap();
        let of_root = std::fs::metadata(&root).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).unwrap();
        let before = std::fs::metadata(place.path("diff/d")).unwrap();
        // Ids that a namespace with a single one has, too.
        let shift = u32::from(rustix::process::geteuid().is_root() && is_everybody_mapped()) * 1000;
        translate_owners(place.open("diff").as_fd(), namespace(), &Shifted(shift)).unwrap();
        let names = ["d a", "f a/file", "h a/link", "l a/soft", "d b", "f b/x", "d d"];
        assert_eq!(shape(&place.manifest("diff")), names);
        let found = std::fs::metadata(&file).unwrap();
        assert_eq!((found.mode() & 0o7777, found.nlink()), (0o6755, 2));
        let after = std::fs::metadata(place.path("diff/d")).unwrap();
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        let root = std::fs::metadata(&root).unwrap();
        assert_eq!(root.mode() & 0o7777, 0o2751);
        assert_eq!(root.modified().unwrap(), of_root.modified().unwrap(), "though a whiteout was removed");
        if shift > 0 {
            assert_eq!((found.uid(), found.gid()), (1000, 1000), "once, though it has two names");
            let link = std::fs::symlink_metadata(place.path("diff/a/soft")).unwrap();
            assert_eq!((link.uid(), after.uid()), (1000, 1000));
        }
    }

    /// Gives every attribute with ids this value.
    struct Says(Vec<u8>);

    impl Translate for Says {
        fn owner(&self, uid: u32, gid: u32) -> (u32, u32) {
            (uid, gid)
        }

        fn attribute(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
            Some(self.0.clone())
        }
    }

    #[test]
    fn ids_in_attributes_are_translated_too() {
        let (place, unpacked) = Place::unpack(&[Member::F("file"), Member::F("other")]);
        unpacked.unwrap();
        let (name, root) = (b"system.posix_acl_access", place.open("diff"));
        let file = Target::Name(root.as_fd(), b"file");
        let user = rustix::process::geteuid().as_raw();
        if let Err(why) = xattr::set(file, name, &access_list(user)) {
            return eprintln!("skipped: no access lists here: {why}");
        }
        let others = access_list(user + u32::from(is_everybody_mapped()));
        translate_owners(root.as_fd(), namespace(), &Says(others.clone())).unwrap();
        assert_eq!(xattr::get(file, name).unwrap(), Some(others));
        let other = Target::Name(root.as_fd(), b"other");
        assert_eq!(xattr::get(other, name).unwrap(), None, "one that has none gets none");
    }

    fn is_everybody_mapped() -> bool {
        !crate::sys::userns::in_user_namespace()
    }
}
