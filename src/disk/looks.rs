//! How files were when everything was done to them that an import does: so that a seal need not ask again.
//!
//! There are as many as the layer has files, so only what differs between them is kept. Which file it was is said by what `statx` says of the
//! open file. The number that a listing gives with a name is the same on some filesystems, and made up on others: [`Walker`] asks which.
//!
//! [`Walker`]: super::walk::Walker

use std::collections::{HashMap, HashSet};

use rustix::fs::FileType;

use crate::sys::stat::{FileId, Stat};

/// Looks at regular files of one filesystem, with one name each.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    filesystem: Option<(u32, u32)>,
    by_inode: HashMap<u64, Look>,
}

/// What a look at such a file tells besides.
#[derive(Debug)]
struct Look {
    size: u64,
    allocated: u64,
    mtime: (i64, u32),
    uid: u32,
    gid: u32,
    mode: u16,
}

impl Looks {
    /// Keeps a look. What is of another kind, or of another filesystem than the first, is not kept: it will be looked at again.
    pub(crate) fn add(&mut self, found: &Stat) {
        let Stat { kind, mode, uid, gid, links, size, allocated, mtime, device: _, id, is_mount } = *found;
        let filesystem = *self.filesystem.get_or_insert(id.filesystem);
        if kind == FileType::RegularFile && links == 1 && !is_mount && id.filesystem == filesystem {
            self.by_inode.insert(id.inode, Look { size, allocated, mtime, uid, gid, mode });
        }
    }

    fn has(&self, id: FileId) -> bool {
        self.filesystem == Some(id.filesystem) && self.by_inode.contains_key(&id.inode)
    }

    fn get(&self, id: FileId) -> Option<Stat> {
        let Look { size, allocated, mtime, uid, gid, mode } =
            *self.by_inode.get(&id.inode).filter(|_| self.has(id))?;
        let of_all = Stat::of_kind(FileType::RegularFile);
        Some(Stat { mode, uid, gid, size, allocated, mtime, id, ..of_all })
    }
}

/// What is known of files that were just written, so that nobody need ask for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'w> {
    /// Those without attributes, as they were when everything was done to them.
    pub(crate) looks: &'w Looks,
    /// Those that were given further names, of which some may be gone.
    pub(crate) linked: &'w HashSet<u64>,
}

impl Written<'_> {
    /// The state of a file that has one name still.
    pub(super) fn look(&self, id: FileId) -> Option<Stat> {
        self.looks.get(id).filter(|_| !self.linked.contains(&id.inode))
    }

    /// Whether it is known that a file has no attributes.
    pub(super) fn is_bare(&self, found: &Stat) -> bool {
        found.kind == FileType::RegularFile && self.looks.has(found.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_looked_at_is_told_of_that_file_alone() {
        let id = FileId { filesystem: (8, 1), inode: 7 };
        let of_kind = Stat::of_kind(FileType::RegularFile);
        let found =
            Stat { mode: 0o644, uid: 1, gid: 2, size: 3, allocated: 4096, mtime: (5, 6), id, ..of_kind };
        let mut looks = Looks::default();
        looks.add(&found);
        let of_another = FileId { filesystem: (8, 2), inode: 7 };
        looks.add(&Stat { size: 9, id: of_another, ..found });
        for (inode, other) in [(8, Stat { links: 2, ..found }), (9, Stat::of_kind(FileType::Fifo))] {
            looks.add(&Stat { id: FileId { inode, ..id }, ..other });
        }
        let (none, linked) = (HashSet::new(), HashSet::from([7]));
        let look = |id, linked| format!("{:?}", Written { looks: &looks, linked }.look(id));
        assert_eq!(look(id, &none), format!("{:?}", Some(found)));
        for (id, linked) in [(id, &linked), (of_another, &none), (FileId { inode: 8, ..id }, &none)] {
            assert_eq!(look(id, linked), "None", "{id:?}");
        }
        assert_eq!(looks.by_inode.len(), 1);
        assert!(size_of::<(u64, Look)>() <= 56, "a layer has many");
    }
}
