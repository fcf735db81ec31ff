use std::collections::HashSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::disk::walk::Walker;
use crate::disk::{open_below, parallel};
use crate::sys::directory;
use crate::sys::userns::tests::in_child;

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
    for round in 0..20 {
        for sub in 0..20 {
            std::fs::create_dir_all(dir.path().join(format!("tree/{sub}/below"))).unwrap();
        }
        // With enough files, each of them has several threads.
        fill(&dir.path().join("tree/large"), 2, if round % 4 == 0 { 200 } else { 1 });
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
    let before = open_below(dir.path());
    let mut walker = Walker::new(parent.as_fd(), Access::AsIs).unwrap();
    let (mut steps, mut most) = (0, 0);
    while walker.next_step().unwrap().is_some() {
        steps += 1;
        most = most.max(open_below(dir.path()));
    }
    assert_eq!(steps, 3 * 200);
    assert!((before + 1..before + 50).contains(&most), "{before} {most}");
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
    let busy = |_: &Item| Err(nix::errno::Errno::EBUSY.into());
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
    let within = |mut limit| remove_tree_by(parent.as_fd(), b"tree", remove, &mut limit).unwrap();
    assert!(!within(0) && dir.path().join("tree/4").exists());
    assert!(!within(2) && !within(2) && !within(1));
    let left = directory::list(beneath::open_directory(&dir.path().join("tree")).unwrap().as_fd());
    assert_eq!(left.unwrap().len(), 1);
    assert!(within(9) && !dir.path().join("tree").exists());
}

/// Makes so many directories with so many files each.
fn fill(top: &Path, directories: usize, files: usize) {
    for directory in 0..directories {
        let directory = top.join(directory.to_string());
        std::fs::create_dir_all(&directory).unwrap();
        for file in 0..files {
            std::fs::write(directory.join(file.to_string()), b"").unwrap();
        }
    }
}

/// How many names are in a tree.
fn count(top: &Path) -> usize {
    let entries = std::fs::read_dir(top).unwrap().map(Result::unwrap);
    entries.map(|entry| if entry.file_type().unwrap().is_dir() { 1 + count(&entry.path()) } else { 1 }).sum()
}

/// Which threads remove the files of a tree; the first of them waits for a second one, but not for ever.
fn threads(directories: usize, files: usize, wait: Duration) -> usize {
    let dir = tempfile::tempdir().unwrap();
    fill(&dir.path().join("tree"), directories, files);
    let parent = beneath::open_directory(dir.path()).unwrap();
    let (seen, changed) = (Mutex::new(HashSet::new()), Condvar::new());
    let removing = |item: &Item| {
        let mut threads = seen.lock().unwrap();
        if threads.insert(std::thread::current().id()) {
            changed.notify_all();
            drop(changed.wait_timeout_while(threads, wait, |threads| threads.len() < 2).unwrap());
        }
        remove(item)
    };
    assert!(remove_tree_by(parent.as_fd(), b"tree", removing, &mut u64::MAX.clone()).unwrap());
    assert!(!dir.path().join("tree").exists());
    seen.into_inner().unwrap().len()
}

#[test]
fn a_large_tree_is_removed_by_several_threads_and_a_small_one_by_one() {
    assert_eq!(threads(8, 8, Duration::from_millis(100)), 1);
    if std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1) {
        let long = Duration::from_secs(60);
        assert!(threads(20, 50, long) > 1, "many directories");
        assert!(threads(1, 1000, long) > 1, "one large directory");
    }
}

/// Also where threads would remove more than that together.
#[test]
fn a_limit_is_kept_to_the_name_by_several_threads() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fill(&tree, 60, 100);
    let parent = beneath::open_directory(dir.path()).unwrap();
    let mut left = count(&tree);
    for names in [1, 700, 4500] {
        let mut limit = names;
        assert!(!remove_tree_by(parent.as_fd(), b"tree", remove, &mut limit).unwrap());
        left -= usize::try_from(names).unwrap();
        assert_eq!((limit, count(&tree)), (0, left));
    }
    let mut limit = 10_000;
    assert!(remove_tree_by(parent.as_fd(), b"tree", remove, &mut limit).unwrap());
    // The tree itself counts for none.
    assert_eq!(limit, 10_000 - u64::try_from(left).unwrap());
}

#[test]
fn handles_are_few_in_any_tree() {
    let dir = tempfile::tempdir().unwrap();
    // Many directories, and many that are each in the one before.
    fill(&dir.path().join("tree/wide"), 600, 2);
    let mut deepest = dir.path().join("tree");
    for _ in 0..400 {
        deepest.push("d");
        std::fs::create_dir(&deepest).unwrap();
        std::fs::write(deepest.join("a"), b"").unwrap();
        std::fs::write(deepest.join("later"), b"").unwrap();
    }
    let parent = beneath::open_directory(dir.path()).unwrap();
    let (before, most) = (open_below(dir.path()), AtomicUsize::new(0));
    let removing = |item: &Item| {
        most.fetch_max(open_below(dir.path()), Ordering::Relaxed);
        remove(item)
    };
    assert!(remove_tree_by(parent.as_fd(), b"tree", removing, &mut u64::MAX.clone()).unwrap());
    // Those of a walk, and of three rounds.
    let most = most.into_inner() - before;
    assert!((1..230).contains(&most), "{most}");
}

/// A copy for each name of a path that a container has made as long as this would be 600 MB.
#[test]
fn long_paths_are_kept_once_for_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let parent = beneath::open_directory(dir.path()).unwrap();
    let mut deepest = beneath::open_directory(dir.path()).unwrap();
    for _ in 0..1000 {
        node::make_directory(deepest.as_fd(), &[b'd'; 200], 0o755).unwrap();
        deepest = beneath::open_directory_beneath(deepest.as_fd(), &[b'd'; 200]).unwrap();
    }
    for number in 0..3000 {
        node::make_symlink(deepest.as_fd(), number.to_string().as_bytes(), b"x").unwrap();
    }
    drop(deepest);
    parallel::workers(usize::MAX, 1);
    let said = in_child(|| {
        let most = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = most();
        let removed = remove_tree(parent.as_fd(), &[b'd'; 200]);
        format!("{removed:?} {}", most() - before)
    });
    let kilobytes: u64 = said.strip_prefix("Ok(()) ").unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!(kilobytes < 32 * 1024, "{kilobytes}");
}

#[test]
fn the_first_error_is_told_and_stops_all_threads() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fill(&tree, 40, 100);
    let root = beneath::open_directory(&tree).unwrap();
    let (failed, removed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failing = |item: &Item| {
        if item.name == b"3" && !failed.swap(true, Ordering::Relaxed) {
            return Err(nix::errno::Errno::EIO.into());
        }
        removed.fetch_add(1, Ordering::Relaxed);
        remove(item)
    };
    match empty_directory(root.as_fd(), failing) {
        Err(TreeError::Io { path, source, .. }) => {
            assert!(path.ends_with("3") && tree.join(&path).exists(), "{path:?}");
            assert_eq!(source.raw_os_error(), Some(libc::EIO));
        }
        other => panic!("{other:?}"),
    }
    // No thread goes on for long, and no directory goes.
    assert!(removed.into_inner() < 2000);
    assert_eq!(std::fs::read_dir(&tree).unwrap().count(), 40);
}

/// Where several threads are at it: each of them may be the one that meets the mount.
#[test]
fn a_mount_among_many_files_is_named_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fill(&tree, 20, 100);
    let (file, directory, from) = (tree.join("17/50"), tree.join("18/below"), dir.path().join("kept"));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(&from, b"kept").unwrap();
    let bind = |from: &Path, to: &Path| {
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some(from), to, None::<&Path>, flags, None::<&Path>)
    };
    if bind(&from, &file).and_then(|()| bind(dir.path(), &directory)).is_err() {
        eprintln!("skipped: this process may not mount");
        return;
    }
    let parent = beneath::open_directory(dir.path()).unwrap();
    let removed = [(); 2].map(|()| {
        let removed = remove_tree(parent.as_fd(), b"tree");
        let is_file = matches!(&removed, Err(TreeError::Mount { path }) if path == Path::new("17/50"));
        let mounted = if is_file { &file } else { &directory };
        nix::mount::umount(mounted).unwrap();
        assert!(mounted.exists());
        removed
    });
    let named = removed.map(|removed| match removed {
        Err(TreeError::Mount { path }) => path,
        other => panic!("{other:?}"),
    });
    assert_eq!(named, [PathBuf::from("17/50"), PathBuf::from("18/below")]);
    // What was there before the mount is gone, and so are no files of others.
    assert!(!tree.join("0").exists() && from.exists());
    remove_tree(parent.as_fd(), b"tree").unwrap();
    assert_eq!(std::fs::read(&from).unwrap(), b"kept");
}
