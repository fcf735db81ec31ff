//! What a tree takes on the disk.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::walk::{Life, Step, Walker, failed};
use crate::error::TreeError;
use crate::sys::stat::{self, FileId, Stat};

/// Space and inodes of a tree, its root included.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    /// Bytes allocated on the disk.
    pub(crate) allocated: u64,
    /// Bytes of the regular files as their length says.
    pub(crate) apparent: u64,
    /// Inodes.
    pub(crate) inodes: u64,
}

/// Measures a tree, which others may change meanwhile. An inode with several names counts once, and what is mounted in the
/// tree not at all.
pub(crate) fn usage(root: BorrowedFd<'_>) -> Result<Usage, TreeError> {
    let mut tally = Tally::default();
    tally.add(&stat::stat(root).map_err(failed(b".", "examine"))?);
    let mut walker = Walker::reading(root, Life::Changing)?;
    while let Some(step) = walker.next_step()? {
        match step {
            Step::Enter(item) | Step::Leaf(item) => tally.add(&item.stat),
            Step::Leave(_) => {}
        }
    }
    Ok(tally.usage)
}

/// Adds up what a walk comes by.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) usage: Usage,
    /// Only inodes that can be met again are remembered.
    seen: HashSet<FileId>,
}

impl Tally {
    pub(super) fn add(&mut self, stat: &Stat) {
        let is_met_again = match (stat.kind, stat.links) {
            (FileType::Directory, _) => false,
            (_, 2..) => !self.seen.insert(stat.id),
            // The last name of several is the only one left, where they are removed one by one.
            _ => self.seen.contains(&stat.id),
        };
        if is_met_again {
            return;
        }
        self.usage.inodes = self.usage.inodes.saturating_add(1);
        self.usage.allocated = self.usage.allocated.saturating_add(stat.allocated);
        if stat.kind == FileType::RegularFile {
            self.usage.apparent = self.usage.apparent.saturating_add(stat.size);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::beneath;

    #[test]
    fn links_count_once_and_holes_take_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [1; 5000]).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::fs::File::create(dir.path().join("hole")).unwrap().set_len(1 << 30).unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let usage = usage(root.as_fd()).unwrap();
        assert_eq!((usage.inodes, usage.apparent), (3, 5000 + (1 << 30)));
        assert!(usage.allocated < 1 << 20);
    }

    /// As a removal does, which looks at each name just before it goes.
    #[test]
    fn links_count_once_where_they_are_removed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c"].map(|name| dir.path().join(name));
        std::fs::write(&names[0], [1; 5000]).unwrap();
        names[1..].iter().for_each(|name| std::fs::hard_link(&names[0], name).unwrap());
        let root = beneath::open_directory(dir.path()).unwrap();
        let mut tally = Tally::default();
        for name in names {
            let base = name.file_name().unwrap().as_encoded_bytes();
            tally.add(&stat::stat_at(root.as_fd(), base).unwrap());
            std::fs::remove_file(&name).unwrap();
        }
        assert_eq!((tally.usage.inodes, tally.usage.apparent), (1, 5000));
    }

    #[test]
    fn what_is_mounted_in_a_tree_takes_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().join("sub/mounted");
        std::fs::create_dir_all(&mounted).unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let before = super::usage(root.as_fd()).unwrap();
        let flags = nix::mount::MsFlags::empty();
        if nix::mount::mount(Some("none"), &mounted, Some("tmpfs"), flags, None::<&std::path::Path>).is_err()
        {
            eprintln!("skipped: this process may not mount");
            return;
        }
        std::fs::write(mounted.join("large"), [1; 5000]).unwrap();
        let found = super::usage(root.as_fd());
        nix::mount::umount(&mounted).unwrap();
        let found = found.unwrap();
        assert_eq!((before.inodes, found.inodes, found.apparent), (3, 2, 0));
    }
}
