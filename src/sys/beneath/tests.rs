//! Both ways of resolving. What a kernel without `openat2` does is what a seccomp filter does that does not know it.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;

use super::*;
use crate::sys::without::without;

/// Set in the processes that [`the_tests_of_trees_pass_without_the_call`] starts.
const INNER: &str = "LAYERSTORE_TEST_WITHOUT_OPENAT2";

/// Does `work` with `openat2` as it is here, and then, on threads of their own, with filters that answer it as an old kernel
/// and as an old container runtime do. Threads and processes that `work` makes have the filter too.
pub(crate) fn both_ways(work: impl Fn() + Sync) {
    work();
    for answer in [Errno::ENOSYS, Errno::EPERM] {
        without_openat2(answer, &work);
    }
}

/// Does `work` on a thread of its own, for which `openat2` fails.
pub(crate) fn without_openat2<T: Send>(answer: Errno, work: impl FnOnce() -> T + Send) -> T {
    without(&[libc::SYS_openat2], answer, work)
}

/// Someone who can write beside a tree and in it, and exchanges directories with a link to a victim, over and over.
#[derive(Debug, Default)]
pub(crate) struct Swapper {
    stop: AtomicBool,
    swaps: AtomicU64,
}

impl Swapper {
    /// Exchanges each of `directories`, which may come and go, with a link to `victim` that is kept at `link`, and back, until
    /// it is stopped. Then everything is in its place that could be brought back.
    pub(crate) fn run(&self, directories: impl Fn() -> Vec<PathBuf>, link: &Path, victim: &Path) {
        use rustix::fs::{CWD, RenameFlags, renameat_with};

        let exchange = |one: &Path| renameat_with(CWD, one, CWD, link, RenameFlags::EXCHANGE).is_ok();
        while !self.stop.load(Ordering::Acquire) {
            for directory in directories() {
                drop(symlink(victim, link));
                if !exchange(&directory) {
                    continue;
                }
                self.swaps.fetch_add(1, Ordering::Release);
                std::thread::yield_now();
                if !exchange(&directory) {
                    // The link in the directory's place is gone.
                    drop(std::fs::rename(link, &directory));
                }
            }
            std::thread::yield_now();
        }
    }

    /// Does `work` while another thread does so; it begins when that has.
    pub(crate) fn during<T>(
        directories: impl Fn() -> Vec<PathBuf> + Send,
        link: &Path,
        victim: &Path,
        work: impl FnOnce() -> T,
    ) -> T {
        struct StopOnDrop<'s>(&'s Swapper);
        impl Drop for StopOnDrop<'_> {
            fn drop(&mut self) {
                self.0.stop();
            }
        }
        let swapper = Swapper::default();
        std::thread::scope(|scope| {
            scope.spawn(|| swapper.run(directories, link, victim));
            // Also if the work panics.
            let _stop = StopOnDrop(&swapper);
            swapper.wait();
            work()
        })
    }

    /// Waits until something was exchanged.
    pub(crate) fn wait(&self) {
        while self.swaps.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
    }

    /// Lets it end after what it is at.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn number<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn the_filter_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let root = open_directory(dir.path()).unwrap();
    for answer in [Errno::ENOSYS, Errno::EPERM] {
        let answered = without_openat2(answer, || number(by_kernel(root.as_fd(), b".", OFlag::O_PATH)));
        assert_eq!(answered, Some(answer as i32));
        assert!(without_openat2(answer, || is_missing(root.as_fd())));
    }
}

#[test]
fn links_and_parents_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("inside")).unwrap();
    std::fs::write(dir.path().join("inside/file"), b"x").unwrap();
    symlink("inside", dir.path().join("link")).unwrap();
    symlink("/proc/self/root", dir.path().join("magic")).unwrap();
    let root = open_directory(dir.path()).unwrap();
    both_ways(|| {
        assert!(open_file_beneath(root.as_fd(), b"inside/file").is_ok());
        assert!(open_file_beneath(root.as_fd(), b"./inside//file").is_ok());
        assert!(open_directory_beneath(root.as_fd(), b"").is_ok());
        assert!(open_directory_beneath(root.as_fd(), b"inside/.").is_ok());
        let bad = [
            &b"link"[..],
            b"link/.",
            b"magic",
            b"magic/etc",
            b"..",
            b"inside/../..",
            b"/",
            b"/etc",
            b"inside/file/x",
        ];
        for bad in bad {
            let opened = number(open_directory_beneath(root.as_fd(), bad));
            assert!(
                matches!(opened, Some(libc::ELOOP | libc::ENOTDIR | libc::EXDEV)),
                "{} {opened:?}",
                String::from_utf8_lossy(bad)
            );
        }
        assert!(open_file_beneath(root.as_fd(), b"link/file").is_err());
        assert_eq!(number(open_file_beneath(root.as_fd(), b"link")), Some(libc::ELOOP));
        assert_eq!(number(open_file_beneath(root.as_fd(), b"no/file")), Some(libc::ENOENT));
        assert_eq!(number(open_file_beneath(root.as_fd(), b"inside/no")), Some(libc::ENOENT));
    });
}

/// To open a device or a pipe does something, so only a regular file is opened as a file.
#[test]
fn only_regular_files_are_opened_as_files() {
    let dir = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    let root = open_directory(dir.path()).unwrap();
    both_ways(|| {
        assert_eq!(number(open_file_beneath(root.as_fd(), b"pipe")), Some(libc::ENXIO));
        assert_eq!(number(open_file_beneath(root.as_fd(), b"socket")), Some(libc::ENXIO));
        assert_eq!(number(open_file_beneath(root.as_fd(), b"dir")), Some(libc::EISDIR));
    });
}

/// It costs a call less, and refuses the same.
#[test]
fn files_of_sealed_trees_are_opened_at_once() {
    use crate::sys::call::fault::counted;

    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("dir/file"), b"x").unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
    symlink("dir/file", dir.path().join("link")).unwrap();
    symlink("dir", dir.path().join("linked")).unwrap();
    let root = open_directory(dir.path()).unwrap();
    let calls = |open: fn(BorrowedFd<'_>, &[u8]) -> io::Result<OwnedFd>| {
        counted(|| open(root.as_fd(), b"dir/file").unwrap()).1
    };
    assert_eq!(calls(open_file_beneath), [Call::Open, Call::Stat, Call::Open]);
    assert_eq!(calls(open_sealed_file_beneath), [Call::Open, Call::Stat]);
    both_ways(|| {
        assert!(open_sealed_file_beneath(root.as_fd(), b"dir/file").is_ok());
        for bad in ["dir", "pipe", "link", "linked/file", "none", "/dir/file", ""] {
            let [sealed, any] = [open_sealed_file_beneath, open_file_beneath]
                .map(|open| number(open(root.as_fd(), bad.as_bytes())));
            assert!(sealed.is_some() && sealed == any, "{bad}: {sealed:?}, {any:?}");
        }
    });
}

#[test]
fn files_are_made_that_are_missing_and_no_others() {
    use crate::sys::call::fault::counted;

    let dir = tempfile::tempdir().unwrap();
    let root = open_directory(dir.path()).unwrap();
    let calls = |ensure: fn(BorrowedFd<'_>, &[u8]) -> io::Result<OwnedFd>, name: &[u8]| {
        counted(|| ensure(root.as_fd(), name).unwrap()).1
    };
    assert_eq!(calls(ensure_file, b"one"), [Call::Open, Call::Create, Call::SetMode]);
    assert_eq!(calls(ensure_file, b"one"), [Call::Open, Call::Stat, Call::Open]);
    assert_eq!(calls(ensure_new_file, b"two"), [Call::Create, Call::SetMode]);
    assert_eq!(calls(ensure_new_file, b"two"), [Call::Create, Call::Open, Call::Stat, Call::Open]);
    for name in ["one", "two"] {
        assert_eq!(dir.path().join(name).metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    }
    symlink("one", dir.path().join("link")).unwrap();
    nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRWXU).unwrap();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    for ensure in [ensure_file, ensure_new_file, open_file_for_writing] {
        for (name, refused) in [("link", libc::ELOOP), ("pipe", libc::ENXIO), ("dir", libc::EISDIR)] {
            // Without an effect: a fifo would have a reader and a writer for a moment.
            let (opened, calls) = counted(|| ensure(root.as_fd(), name.as_bytes()));
            assert_eq!(number(opened), Some(refused), "{name}");
            assert!(calls.ends_with(&[Call::Open, Call::Stat]), "{name}: {calls:?}");
        }
    }
}

#[test]
fn a_file_that_is_there_is_not_missing_without_proc() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("there"), b"x").unwrap();
    let ensured = std::thread::scope(|scope| {
        let within = scope.spawn(|| {
            let root = open_directory(dir.path()).unwrap();
            // Nothing but this thread loses its `/proc`.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).ok()?;
            nix::unistd::chroot(dir.path()).ok()?;
            let opens = [ensure_file, ensure_new_file, open_file_for_writing];
            Some(opens.map(|open| open(root.as_fd(), b"there").unwrap_err().to_string()))
        });
        within.join().unwrap()
    });
    match ensured {
        Some(errors) => assert!(errors.iter().all(|error| error.contains("no /proc")), "{errors:?}"),
        None => eprintln!("skipped: this process may not change its root"),
    }
}

#[test]
fn mounts_are_not_crossed() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["mounted/below", "same", "there"] {
        std::fs::create_dir_all(dir.path().join(name)).unwrap();
    }
    let flags = nix::mount::MsFlags::empty();
    let none = None::<&Path>;
    let mounted = dir.path().join("mounted/below");
    if nix::mount::mount(Some("none"), &mounted, Some("tmpfs"), flags, none).is_err() {
        return eprintln!("skipped: this process may not mount");
    }
    // A mount of the same filesystem, which has the same device number.
    let (from, same) = (dir.path().join("there"), dir.path().join("same"));
    nix::mount::mount(Some(&from), &same, none, nix::mount::MsFlags::MS_BIND, none).unwrap();
    std::fs::create_dir(mounted.join("inner")).unwrap();
    std::fs::write(mounted.join("file"), b"x").unwrap();
    let root = open_directory(dir.path()).unwrap();
    let results = std::panic::catch_unwind(|| {
        both_ways(|| {
            for bad in [&b"mounted/below"[..], b"mounted/below/inner", b"same"] {
                let opened = number(open_directory_beneath(root.as_fd(), bad));
                assert_eq!(opened, Some(libc::EXDEV), "{}", String::from_utf8_lossy(bad));
            }
            assert_eq!(number(open_file_beneath(root.as_fd(), b"mounted/below/file")), Some(libc::EXDEV));
            assert!(open_directory_beneath(root.as_fd(), b"mounted").is_ok());
        });
    });
    nix::mount::umount(&mounted).unwrap();
    nix::mount::umount(&same).unwrap();
    results.unwrap();
}

#[test]
fn long_paths_are_resolved_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let root = open_directory(dir.path()).unwrap();
    let mut deepest = open_directory(dir.path()).unwrap();
    for _ in 0..30 {
        crate::sys::node::make_directory(deepest.as_fd(), &[b'd'; 200], 0o755).unwrap();
        deepest = open_directory_beneath(deepest.as_fd(), &[b'd'; 200]).unwrap();
    }
    create_file(deepest.as_fd(), b"file", 0o600).unwrap();
    let deep = vec![[b'd'; 200]; 30].join(&b'/');
    both_ways(|| {
        assert!(open_file_beneath(root.as_fd(), &[&deep[..], b"/file"].concat()).is_ok());
        assert_eq!(number(open_file_beneath(root.as_fd(), &[b'd'; 5000])), Some(libc::ENAMETOOLONG));
    });
}

/// What keeps somebody out is an error of its own, and no reason to walk.
#[test]
fn what_may_not_be_opened_is_not_taken_for_a_missing_call() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("shut")).unwrap();
    std::fs::set_permissions(dir.path().join("shut"), PermissionsExt::from_mode(0o000)).unwrap();
    let root = open_directory(dir.path()).unwrap();
    both_ways(|| {
        let opened = open_directory_beneath(root.as_fd(), b"shut");
        assert!(opened.is_ok() || number(opened) == Some(libc::EACCES));
    });
    std::fs::set_permissions(dir.path().join("shut"), PermissionsExt::from_mode(0o700)).unwrap();
}

/// Unpacking, walking, copying, removing, scanning and exporting: all that the tests of these know, once more on a machine
/// that does not have the call.
#[test]
fn the_tests_of_trees_pass_without_the_call() {
    if std::env::var_os(INNER).is_some() {
        return;
    }
    let parts = ["disk::", "layer::", "sys::pinned::"];
    for answer in [Errno::ENOSYS, Errno::EPERM] {
        let output = without_openat2(answer, || {
            Command::new(std::env::current_exe().unwrap())
                .args(parts)
                .args(["--test-threads", "2"])
                .env(INNER, "1")
                .output()
                .unwrap()
        });
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{answer}: {told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("tree_writer::tests::nothing_goes_through_a_link_or_a_file ... ok"), "{told}");
    }
}
