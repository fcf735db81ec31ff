//! Removing trees.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::walk::{Access, Step, Walker, failed, path_buf};
use crate::error::TreeError;
use crate::sys::pinned::Pinned;
use crate::sys::{beneath, moment, node, stat};

/// How often a tree is begun anew that vanishes while it is being removed. Each time somebody has removed something.
const TRIES: u32 = 1000;

/// Removes what stands at `name` in `parent`, a tree or a file; nothing happens if nothing does.
///
/// Modes that keep the owner out are lifted. Nothing is followed, and no mount is crossed:
/// [`TreeError::Mount`] names the first, and everything in its directory from there on stays. Several processes may
/// remove one tree at a time, and each returns when it is gone.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    let mut limit = u64::MAX;
    remove_tree_within(parent, name, &mut limit).map(drop)
}

/// As [`remove_tree`], and stops when `limit` names have been removed, which is counted down. Returns whether all is
/// gone.
pub(super) fn remove_tree_within(
    parent: BorrowedFd<'_>,
    name: &[u8],
    limit: &mut u64,
) -> Result<bool, TreeError> {
    remove_tree_by(parent, name, Access::Unlink, |_| Ok(false), limit)
}

/// As [`remove_tree_within`]. `rescue` is offered each file in the tree first, and returns whether it took it away.
pub(super) fn remove_tree_but(
    parent: BorrowedFd<'_>,
    name: &[u8],
    rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    remove_tree_by(parent, name, Access::Force, rescue, limit)
}

fn remove_tree_by(
    parent: BorrowedFd<'_>,
    name: &[u8],
    access: Access,
    mut rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    for _ in 1..TRIES {
        match remove_once(parent, name, access, &mut rescue, limit) {
            // Another was faster, somewhere in the tree.
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            removed => return removed,
        }
    }
    remove_once(parent, name, access, &mut rescue, limit)
}

fn remove_once(
    parent: BorrowedFd<'_>,
    name: &[u8],
    access: Access,
    rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    let found = match stat::stat_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        found => found.map_err(failed(name, "examine"))?,
    };
    if found.is_mount {
        return Err(TreeError::Mount { path: path_buf(name) });
    }
    if *limit == 0 {
        return Ok(false);
    }
    if found.kind != FileType::Directory {
        *limit = limit.saturating_sub(1);
        return ignore_missing(node::remove_file(parent, name))
            .map_err(failed(name, "remove"))
            .map(|()| true);
    }
    if found.mode & 0o700 != 0o700 {
        Pinned::directory_at(parent, name)
            .and_then(|directory| directory.set_mode(found.mode | 0o700))
            .map_err(failed(name, "set the mode of"))?;
    }
    let root = beneath::open_directory_beneath(parent, name).map_err(failed(name, "open"))?;
    if !empty_within(root.as_fd(), access, rescue, limit)? {
        return Ok(false);
    }
    drop(root);
    ignore_missing(node::remove_directory(parent, name)).map_err(failed(name, "remove")).map(|()| true)
}

/// Removes everything in a directory. `rescue` is offered each file first, and returns whether it moved it
/// away.
pub(super) fn empty_directory(
    root: BorrowedFd<'_>,
    rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
) -> Result<(), TreeError> {
    let mut limit = u64::MAX;
    empty_within(root, Access::Force, rescue, &mut limit).map(drop)
}

fn empty_within(
    root: BorrowedFd<'_>,
    access: Access,
    mut rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
    limit: &mut u64,
) -> Result<bool, TreeError> {
    let mut walker = Walker::new(root, access)?;
    while let Some(step) = walker.next_step()? {
        if *limit == 0 {
            return Ok(false);
        }
        let removed = match &step {
            Step::Enter(_) => Ok(()),
            Step::Leave(item) => node::remove_directory(item.dir.as_fd(), &item.name),
            Step::Leaf(item) => match rescue(item) {
                Ok(true) => Ok(()),
                Ok(false) => node::remove_file(item.dir.as_fd(), &item.name),
                Err(error) => Err(error),
            },
        };
        match (ignore_missing(removed), &step) {
            // The kernel removes nothing that something is mounted on, and some filesystems nothing that is busy otherwise.
            (Err(error), Step::Leaf(item))
                if error.kind() == io::ErrorKind::ResourceBusy
                    && stat::stat_at(item.dir.as_fd(), &item.name).is_ok_and(|found| found.is_mount) =>
            {
                return Err(TreeError::Mount { path: path_buf(walker.path()) });
            }
            (removed, _) => removed.map_err(failed(walker.path(), "remove"))?,
        }
        if !matches!(step, Step::Enter(_)) {
            *limit = limit.saturating_sub(1);
            moment::pass("deleting");
        }
    }
    Ok(true)
}

fn ignore_missing(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::sys::directory;

    #[test]
    fn links_are_removed_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, victim) = (dir.path().join("tree"), dir.path().join("victim"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::create_dir(&victim).unwrap();
        std::fs::write(victim.join("file"), b"x").unwrap();
        symlink(&victim, tree.join("a/b/link")).unwrap();
        std::fs::set_permissions(tree.join("a"), PermissionsExt::from_mode(0o100)).unwrap();
        let parent = beneath::open_directory(dir.path()).unwrap();
        remove_tree(parent.as_fd(), b"tree").unwrap();
        remove_tree(parent.as_fd(), b"tree").unwrap();
        assert!(!tree.exists() && victim.join("file").exists());
    }

    #[test]
    fn several_may_remove_one_tree() {
        let dir = tempfile::tempdir().unwrap();
        let parent = beneath::open_directory(dir.path()).unwrap();
        for _ in 0..20 {
            for sub in 0..20 {
                std::fs::create_dir_all(dir.path().join(format!("tree/{sub}/below"))).unwrap();
            }
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| remove_tree(parent.as_fd(), b"tree").unwrap());
                }
            });
            assert!(!dir.path().join("tree").exists());
        }
    }

    /// Deeper than the handles that a walk keeps, and with a path far longer than the kernel resolves at once.
    #[test]
    fn depth_has_no_limit() {
        let dir = tempfile::tempdir().unwrap();
        let parent = beneath::open_directory(dir.path()).unwrap();
        let mut deepest = beneath::open_directory(dir.path()).unwrap();
        let name = [b'd'; 100];
        for _ in 0..200 {
            node::make_directory(deepest.as_fd(), &name, 0o755).unwrap();
            // Still to be visited when the walk comes back up.
            node::make_symlink(deepest.as_fd(), b"later", b"x").unwrap();
            deepest = beneath::open_directory_beneath(deepest.as_fd(), &name).unwrap();
        }
        let before = std::fs::read_dir("/proc/self/fd").unwrap().count();
        let mut walker = Walker::new(parent.as_fd(), Access::AsIs).unwrap();
        let (mut steps, mut most) = (0, 0);
        while walker.next_step().unwrap().is_some() {
            steps += 1;
            most = most.max(std::fs::read_dir("/proc/self/fd").unwrap().count());
        }
        assert_eq!(steps, 3 * 200);
        // Other tests open files too, but not so many.
        assert!(most < before + 120, "{before} {most}");
        remove_tree(parent.as_fd(), &name).unwrap();
        assert_eq!(directory::list(parent.as_fd()).unwrap().len(), 1);
    }

    #[test]
    fn mounts_are_named_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mounted = dir.path().join("tree/sub/mounted");
        std::fs::create_dir_all(&mounted).unwrap();
        let flags = nix::mount::MsFlags::empty();
        if nix::mount::mount(Some("none"), &mounted, Some("tmpfs"), flags, None::<&Path>).is_err() {
            eprintln!("skipped: this process may not mount");
            return;
        }
        std::fs::write(mounted.join("kept"), b"x").unwrap();
        let parent = beneath::open_directory(dir.path()).unwrap();
        let removed = remove_tree(parent.as_fd(), b"tree");
        let kept = mounted.join("kept").exists();
        nix::mount::umount(&mounted).unwrap();
        assert!(matches!(removed, Err(TreeError::Mount { path }) if path == Path::new("sub/mounted")));
        assert!(kept);
        remove_tree(parent.as_fd(), b"tree").unwrap();
    }

    /// Nobody looks at a file before it is removed: the kernel says what is mounted on it.
    #[test]
    fn files_that_are_mounted_on_are_named_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let bound = dir.path().join("tree/sub/bound");
        std::fs::create_dir_all(dir.path().join("tree/sub")).unwrap();
        std::fs::write(&bound, b"below").unwrap();
        std::fs::write(dir.path().join("kept"), b"x").unwrap();
        let (from, flags) = (dir.path().join("kept"), nix::mount::MsFlags::MS_BIND);
        if nix::mount::mount(Some(&from), &bound, None::<&Path>, flags, None::<&Path>).is_err() {
            eprintln!("skipped: this process may not mount");
            return;
        }
        let parent = beneath::open_directory(dir.path()).unwrap();
        let removed = remove_tree(parent.as_fd(), b"tree");
        nix::mount::umount(&bound).unwrap();
        assert!(matches!(removed, Err(TreeError::Mount { path }) if path == Path::new("sub/bound")));
        assert_eq!(std::fs::read(&bound).unwrap(), b"below");
        remove_tree(parent.as_fd(), b"tree").unwrap();
        assert!(from.exists() && !bound.exists());
    }

    #[test]
    fn what_is_busy_without_a_mount_is_told_as_that() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("busy"), b"x").unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let busy = |_: &super::super::walk::Item| Err(nix::errno::Errno::EBUSY.into());
        match empty_directory(root.as_fd(), busy) {
            Err(TreeError::Io { path, source, .. }) => {
                assert_eq!((path.as_path(), source.kind()), (Path::new("busy"), io::ErrorKind::ResourceBusy));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_limit_is_kept_and_work_goes_on_from_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("tree/a/b")).unwrap();
        for name in ["a/1", "a/2", "a/b/3", "4"] {
            std::fs::write(dir.path().join("tree").join(name), b"x").unwrap();
        }
        let parent = beneath::open_directory(dir.path()).unwrap();
        let remove = |mut limit| remove_tree_within(parent.as_fd(), b"tree", &mut limit).unwrap();
        assert!(!remove(0) && dir.path().join("tree/4").exists());
        assert!(!remove(2) && !remove(2) && !remove(1));
        let left = directory::list(beneath::open_directory(&dir.path().join("tree")).unwrap().as_fd());
        assert_eq!(left.unwrap().len(), 1);
        assert!(remove(9) && !dir.path().join("tree").exists());
    }
}
