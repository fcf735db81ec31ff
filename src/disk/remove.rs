//! Removing trees, and the trash where they wait for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::layout::{DiffName, Layout, Subdirectory};
use super::walk::{Access, Step, Walker, failed, path_buf};
use crate::error::{LayoutError, TreeError};
use crate::sys::{beneath, directory, node, stat};

/// Removes what stands at `name` in `parent`, a tree or a file; nothing happens if nothing does.
///
/// Modes that keep the owner out are lifted. Nothing is followed, and no mount is crossed:
/// [`TreeError::Mount`] names the first, and everything in its directory from there on stays.
pub(crate) fn remove_tree(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), TreeError> {
    let found = match stat::stat_at(parent, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed(name, "examine"))?,
    };
    if found.is_mount {
        return Err(TreeError::Mount { path: path_buf(name) });
    }
    if found.kind != FileType::Directory {
        return ignore_missing(node::remove_file(parent, name)).map_err(failed(name, "remove"));
    }
    if found.mode & 0o700 != 0o700 {
        node::set_mode_at(parent, name, found.mode | 0o700).map_err(failed(name, "set the mode of"))?;
    }
    let root = beneath::open_directory_beneath(parent, name).map_err(failed(name, "open"))?;
    empty_directory(root.as_fd(), |_| Ok(false))?;
    drop(root);
    ignore_missing(node::remove_directory(parent, name)).map_err(failed(name, "remove"))
}

/// Removes everything in a directory. `rescue` is offered each file first, and returns whether it moved it
/// away.
pub(super) fn empty_directory(
    root: BorrowedFd<'_>,
    mut rescue: impl FnMut(&super::walk::Item) -> io::Result<bool>,
) -> Result<(), TreeError> {
    let mut walker = Walker::new(root, Access::Force)?;
    while let Some(step) = walker.next_step()? {
        let removed = match &step {
            Step::Enter(_) => Ok(()),
            Step::Leave(item) => node::remove_directory(item.dir.as_fd(), &item.name),
            Step::Leaf(item) => match rescue(item) {
                Ok(true) => Ok(()),
                Ok(false) => node::remove_file(item.dir.as_fd(), &item.name),
                Err(error) => Err(error),
            },
        };
        ignore_missing(removed).map_err(failed(walker.path(), "remove"))?;
    }
    Ok(())
}

/// Moves a numbered entry to `trash/<number>`; returns false if it is not there. The number of the trash
/// entry is the caller's, fresh like any other.
pub(crate) fn move_to_trash(
    layout: &Layout,
    which: Subdirectory,
    name: DiffName,
    number: u64,
) -> Result<bool, LayoutError> {
    let from = match layout.existing_subdirectory(which) {
        Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(false),
        from => from?,
    };
    let trash = layout.subdirectory(Subdirectory::Trash)?;
    let (old, new) = (name.to_string(), DiffName::Entry(number).to_string());
    match node::rename_noreplace(from.as_fd(), old.as_bytes(), trash.as_fd(), new.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => {
            Err(LayoutError::Io { path: layout.entry_path(which, name), action: "move to the trash", source })
        }
    }
}

/// Removes everything in the trash. Several processes may do so at once. Returns the errors of entries that
/// could not be removed; the others are gone.
pub(crate) fn empty_trash(layout: &Layout) -> Result<Vec<TreeError>, LayoutError> {
    let trash = layout.subdirectory(Subdirectory::Trash)?;
    let path = || layout.path().join(Subdirectory::Trash.name());
    let names = directory::list(trash.as_fd()).map_err(|source| LayoutError::Io {
        path: path(),
        action: "read",
        source,
    })?;
    Ok(names.iter().filter_map(|entry| remove_tree(trash.as_fd(), &entry.name).err()).collect())
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
    use crate::disk::{EntryLock, Staging, XattrNamespace};

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

    #[test]
    fn trash_takes_and_loses_entries() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::create(&dir.path().join("store"), XattrNamespace::User).unwrap();
        Staging::create(&EntryLock::create(&layout).unwrap(), 1).unwrap().keep();
        assert!(move_to_trash(&layout, Subdirectory::Diffs, DiffName::Entry(1), 2).unwrap());
        assert!(!move_to_trash(&layout, Subdirectory::Diffs, DiffName::Entry(1), 3).unwrap());
        assert_eq!(layout.entries(Subdirectory::Trash).unwrap(), [DiffName::Entry(2)]);
        assert!(empty_trash(&layout).unwrap().is_empty());
        assert!(layout.entries(Subdirectory::Trash).unwrap().is_empty());
    }
}
