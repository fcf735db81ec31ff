//! Mount calls: the descriptor-based interface (`fsopen` and its kin), `mount(2)` below it, and what is mounted.
//!
//! The descriptor-based calls say why they fail: a filesystem context keeps a log, and [`FsContext`] puts it
//! into the [`Refusal`] it returns. A context or detached mount that is dropped leaves nothing behind.

#![expect(unsafe_code, reason = "mount_setattr has no wrapper in nix or rustix")]

pub(crate) mod info;
mod shown;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags};
use nix::sched::CloneFlags;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::call::{Call, call, point};
use super::file::File;

pub(crate) use shown::is_shown;

/// The longest option string of `mount(2)`: a page, less the NUL that ends it.
pub(crate) const MOUNT_DATA_MAX: usize = 4095;

/// The longest string that one `fsconfig` call takes on every kernel, less its NUL.
pub(crate) const FSCONFIG_VALUE_MAX: usize = 255;

/// What stands for the mount namespace of the calling thread.
pub(crate) const NAMESPACE: &str = "/proc/thread-self/ns/mnt";

/// The number of the mount namespace that the calling thread is in. Another one may get the number when it is gone.
pub(crate) fn namespace() -> io::Result<u64> {
    Ok(rustix::fs::stat(NAMESPACE)?.st_ino)
}

/// A mount call that failed, with the kernel's own words.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The call, and for `fsconfig` the option.
    pub(crate) call: String,
    /// What the kernel wrote to the context's log; empty if it wrote nothing.
    pub(crate) log: String,
    /// The error number.
    pub(crate) source: io::Error,
}

impl Refusal {
    pub(crate) fn new(call: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Refusal { call: call.into(), log: String::new(), source: source.into() }
    }

    /// The call and the kernel's words in one line.
    pub(crate) fn text(&self) -> String {
        if self.log.is_empty() { self.call.clone() } else { format!("{}: {}", self.call, self.log) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.text(), self.source)
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Refusal::new("mount", source)
    }
}

/// A filesystem being configured, before it exists.
#[derive(Debug)]
pub(crate) struct FsContext(OwnedFd);

impl FsContext {
    /// Begins a filesystem of type `kind`.
    pub(crate) fn open(kind: &str) -> Result<Self, Refusal> {
        call(Call::Mount, || rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC))
            .map(FsContext)
            .map_err(|errno| Refusal::new(format!("fsopen {kind}"), errno))
    }

    /// Sets an option that has no value.
    pub(crate) fn flag(&self, key: &str) -> Result<(), Refusal> {
        call(Call::Mount, || rustix::mount::fsconfig_set_flag(&self.0, key))
            .map_err(|error| self.refusal(key, error))
    }

    /// Sets an option to text of at most [`FSCONFIG_VALUE_MAX`] bytes.
    pub(crate) fn string(&self, key: &str, value: impl AsRef<OsStr>) -> Result<(), Refusal> {
        call(Call::Mount, || rustix::mount::fsconfig_set_string(&self.0, key, value.as_ref()))
            .map_err(|error| self.refusal(key, error))
    }

    /// Sets an option to an open file. The kernel keeps its own reference.
    pub(crate) fn descriptor(&self, key: &str, value: BorrowedFd<'_>) -> Result<(), Refusal> {
        call(Call::Mount, || rustix::mount::fsconfig_set_fd(&self.0, key, value))
            .map_err(|error| self.refusal(key, error))
    }

    /// Makes the filesystem, and a mount of it that is attached nowhere.
    pub(crate) fn create(self, attributes: MountAttrFlags) -> Result<OwnedFd, Refusal> {
        call(Call::Mount, || rustix::mount::fsconfig_create(&self.0))
            .map_err(|error| self.refusal("create", error))?;
        call(Call::Mount, || rustix::mount::fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes))
            .map_err(|error| Refusal { log: self.log(), ..Refusal::new("fsmount", error) })
    }

    fn refusal(&self, key: &str, error: io::Error) -> Refusal {
        Refusal { log: self.log(), ..Refusal::new(format!("fsconfig {key}"), error) }
    }

    /// The errors and warnings that the kernel logged. Each read gives one message, such as `e overlay: ...`,
    /// and `ENODATA` comes after the last; the log holds a few, the bound is against a kernel that never ends.
    fn log(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 4096];
        for _ in 0..32 {
            let Ok(length @ 1..) = rustix::io::read(&self.0, &mut buffer) else { break };
            let line = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).trim().to_owned();
            if let Some(message) = line.strip_prefix("e ").or_else(|| line.strip_prefix("w ")) {
                lines.push(message.to_owned());
            }
        }
        lines.join("; ")
    }
}

/// Opens a directory as a layer of a mount. Read access, not `O_PATH`: kernels before 6.15 take no other.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    call(Call::Open, || {
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })
}

/// A copy of the mount at `path`, seen from that directory down, attached nowhere.
pub(crate) fn clone_tree(path: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    call(Call::Mount, || rustix::mount::open_tree(CWD, path, flags))
}

/// Opens the root directory of a detached mount, for kernels that refuse the `O_PATH` descriptor itself.
pub(crate) fn open_root(tree: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    call(Call::Open, || {
        rustix::fs::openat(tree, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })
}

/// Opens a file inside a detached mount for reading.
pub(crate) fn open_file_at(tree: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    call(Call::Open, || {
        rustix::fs::openat(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    })
}

/// Attaches a detached mount at the directory `target`.
pub(crate) fn attach(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    call(Call::Mount, || rustix::mount::move_mount(tree, c"", target, c"", flags))
}

/// Opens `target` as a place to mount on.
pub(crate) fn open_target(target: &Path) -> io::Result<OwnedFd> {
    call(Call::Open, || {
        rustix::fs::open(target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    })
}

/// Maps the ids of a detached mount as the user namespace `namespace` maps them.
pub(crate) fn set_id_map(tree: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = u64::try_from(namespace.as_raw_fd()).map_err(|_| io::Error::from(Errno::BADF))?;
    set_attributes(
        tree,
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd },
    )
}

/// Makes a mount read-only, whatever its filesystem allows.
pub(crate) fn set_read_only(tree: BorrowedFd<'_>) -> io::Result<()> {
    let attr_set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    set_attributes(tree, libc::mount_attr { attr_set, attr_clr: 0, propagation: 0, userns_fd: 0 })
}

/// Ends propagation: mounts made inside this mount later reach no other place, and none come in.
pub(crate) fn set_private(tree: BorrowedFd<'_>) -> io::Result<()> {
    set_attributes(
        tree,
        libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 },
    )
}

fn set_attributes(tree: BorrowedFd<'_>, attributes: libc::mount_attr) -> io::Result<()> {
    point(Call::Mount)?;
    // SAFETY: the path is a static string that ends in NUL, the structure outlives the call, and its true size is
    // given; the kernel reads both and keeps neither.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `mount(2)`: makes a filesystem of type `kind` and mounts it at `target`.
pub(crate) fn mount_call(
    source: &str,
    target: &Path,
    kind: &str,
    flags: MsFlags,
    data: &OsStr,
) -> io::Result<()> {
    call(Call::Mount, || nix::mount::mount(Some(source), target, Some(kind), flags, Some(data)))
}

/// `mount(2)`: shows the directory `source` at `target`, read-only and private.
pub(crate) fn bind_call(source: &Path, target: &Path) -> io::Result<()> {
    let none = None::<&str>;
    call(Call::Mount, || nix::mount::mount(Some(source), target, none, MsFlags::MS_BIND, none))?;
    // The first call takes no other flags. A mount that stayed writable must not stay at all.
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let settled = call(Call::Mount, || nix::mount::mount(none, target, none, read_only, none));
    settled.and_then(|()| make_private(target, false)).inspect_err(|_| {
        unmount(target, true).ok();
    })
}

/// `mount(2)` that only ends propagation at `target`, for kernels without `mount_setattr`.
pub(crate) fn make_private(target: &Path, recursive: bool) -> io::Result<()> {
    let scope = if recursive { MsFlags::MS_REC } else { MsFlags::empty() };
    set_propagation(target, MsFlags::MS_PRIVATE | scope)
}

/// Keeps in what is mounted in this mount namespace from now on. What is mounted and unmounted where its mounts were copied from goes on
/// coming in, if it is shared there: so nothing is kept that is unmounted there, and nothing overlooked that is mounted.
pub(crate) fn keep_mounts_in() -> io::Result<()> {
    set_propagation(Path::new("/"), MsFlags::MS_SLAVE | MsFlags::MS_REC)
}

fn set_propagation(target: &Path, flags: MsFlags) -> io::Result<()> {
    call(Call::Mount, || nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>))
}

/// Takes away the mount at `target` itself, never at what a link there leads to. Detached, it disappears from
/// the tree at once and ends with its last user.
pub(crate) fn unmount(target: &Path, detach: bool) -> io::Result<()> {
    let detach = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    call(Call::Mount, || nix::mount::umount2(target, MntFlags::UMOUNT_NOFOLLOW | detach))
}

/// What there is at a path for a mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// Nothing at all.
    Missing,
    /// Something on which nothing is mounted, in this mount namespace.
    Unmounted,
    /// A mount.
    Mounted,
}

/// Whether something is mounted at `path` itself.
///
/// Asks `statx`, which triggers no automount; kernels before 5.8 do not tell, and a FUSE mount whose server died
/// cannot, so then the mount table decides.
pub(crate) fn target(path: &Path) -> io::Result<Target> {
    let said = |is_mount| if is_mount { Target::Mounted } else { Target::Unmounted };
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let found = call(Call::Stat, || rustix::fs::statx(CWD, path, flags, StatxFlags::empty()));
    match found.map_err(|error| (Errno::from_io_error(&error), error)) {
        Ok(status) if status.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(said(status.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)))
        }
        Err((Some(Errno::NOENT | Errno::NOTDIR), _)) => Ok(Target::Missing),
        Ok(_) | Err((Some(Errno::NOTCONN | Errno::NOSYS | Errno::IO), _)) => {
            let path = info::resolved(path)?;
            Ok(said(info::read()?.iter().any(|mount| mount.target == path)))
        }
        Err((_, error)) => Err(error),
    }
}

/// Whether a FUSE filesystem at `path` has lost its server. Asks for what the kernel cannot answer by itself.
pub(crate) fn is_disconnected(path: &Path) -> bool {
    let found = call(Call::Stat, || rustix::fs::statfs(path));
    found.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NOTCONN))
}

/// Runs `work` with a working directory of its own, `directory`; that of the process stays where it is.
///
/// It runs in a thread that no longer shares its working directory with the others and that ends with this
/// call. For `mount(2)`, whose option string is the shorter the nearer it starts to the layers.
pub(crate) fn with_own_directory<T: Send>(
    directory: &Path,
    work: impl FnOnce() -> Result<T, Refusal> + Send,
) -> Result<T, Refusal> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_FS)?;
        enter(directory)?;
        work()
    })
}

/// Runs `work` in a mount namespace of its own, from which nothing propagates: what it mounts is seen by nobody
/// else, and is gone with this call unless `work` returns it as a detached mount.
pub(crate) fn with_own_mounts<T: Send>(
    directory: &Path,
    work: impl FnOnce() -> Result<T, Refusal> + Send,
) -> Result<T, Refusal> {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        make_private(Path::new("/"), true).map_err(|error| Refusal::new("make mounts private", error))?;
        // The directory that was current before belongs to the namespace that was left.
        enter(directory)?;
        work()
    })
}

fn unshare(what: CloneFlags) -> Result<(), Refusal> {
    call(Call::Namespace, || nix::sched::unshare(what)).map_err(|error| Refusal::new("unshare", error))
}

/// Changes the working directory of a thread that has one of its own.
pub(crate) fn enter(directory: &Path) -> Result<(), Refusal> {
    let step = || format!("change to {}", directory.display());
    let directory = File::open(directory).map_err(|error| Refusal::new(step(), error))?;
    call(Call::Namespace, || rustix::process::fchdir(directory.as_fd()))
        .map_err(|error| Refusal::new(step(), error))
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, Refusal> + Send) -> Result<T, Refusal> {
    std::thread::scope(|scope| {
        let thread = super::thread::start(scope, "mount", work)
            .map_err(|error| Refusal::new("start a thread", error))?;
        thread.join().unwrap_or_else(|_| Err(Refusal::new("mount thread", io::ErrorKind::Other)))
    })
}
