//! User namespaces: entering one, so that an ordinary user may mount, and making one that only carries an id map.

#![expect(
    unsafe_code,
    reason = "fork and clone3 have no safe form: what a child may do is for the caller to prove"
)]

mod idmap;
mod other_side;
mod ranges;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::thread::CapabilitySet;

use super::children::Heard;
use super::file::File;
use super::path;
use crate::error::NamespaceError;

pub use idmap::{IdExtent, IdMaps};
pub(crate) use idmap::{to_container, to_host};
pub(crate) use other_side::OtherSide;
use ranges::Ranges;
pub(crate) use ranges::given_to;

/// The user namespace that the process has entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNamespace {
    /// The ids that exist in it.
    pub ids: MappedIds,
    /// Why there is only a single id; `None` if there are ranges.
    pub without_ranges: Option<WithoutRanges>,
}

/// Why a user namespace has only a single id. As text the reason, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithoutRanges {
    /// The machine gives the user no ranges, or has not the programs that map them.
    NotGiven(String),
    /// The user has ranges, and they could not be mapped: another time they may be.
    NotMapped(String),
}

impl fmt::Display for WithoutRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (WithoutRanges::NotGiven(reason) | WithoutRanges::NotMapped(reason)) = self;
        f.write_str(reason)
    }
}

/// The ids that exist in a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappedIds {
    /// Only the caller, who is root inside. Files of other owners cannot be made.
    Single,
    /// The caller as root, and the ranges that `/etc/subuid` and `/etc/subgid` give the caller.
    Ranges {
        /// The user ids.
        uids: Vec<IdExtent>,
        /// The group ids.
        gids: Vec<IdExtent>,
    },
}

/// Whether this process is root with the right to mount, in whatever user namespace it is.
pub fn is_privileged() -> bool {
    let capable = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    capable && rustix::process::geteuid().is_root()
}

/// Whether this process is in the first user namespace, by the number that the kernel gives it on every machine
/// (`USER_NS_INIT_INO`). To read the map of its ids takes four calls in place of one.
pub(super) fn is_first() -> bool {
    const NUMBER: u64 = 0xefff_fffd;
    path::stat(Path::new("/proc/self/ns/user")).is_ok_and(|found| found.id.inode == NUMBER)
}

/// Whether this process is in a user namespace other than the first, as far as its id map tells.
pub(crate) fn in_user_namespace() -> bool {
    if is_first() {
        return false;
    }
    let whole = [IdExtent { inside: 0, outside: 0, count: u32::MAX }];
    idmap::read(Path::new("/proc/self/uid_map")).is_ok_and(|map| map != whole)
}

/// The user and the group that the kernel shows, in a user namespace, for all who have no id there. Each may be somebody's id there, too.
pub(crate) fn shown_for_unmapped() -> (u32, u32) {
    /// What both are where the administrator has not chosen others.
    const USUAL: u32 = 65_534;
    let read = |file| path::read_to_string(Path::new(file)).ok()?.trim().parse().ok();
    let (uid, gid) = (read("/proc/sys/kernel/overflowuid"), read("/proc/sys/kernel/overflowgid"));
    (uid.unwrap_or(USUAL), gid.unwrap_or(USUAL))
}

/// The maps of the user namespace that this process is in.
pub(crate) fn own_maps() -> io::Result<IdMaps> {
    let read = |file| idmap::read(Path::new(file));
    Ok(IdMaps { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
}

/// Moves this process into a user namespace and a mount namespace of its own, in which it is root.
///
/// The ids of the caller's ranges in `/etc/subuid` and `/etc/subgid` are mapped if the programs `newuidmap` and
/// `newgidmap` are there and agree; else the caller's own ids alone. Mounts made from now on propagate nowhere,
/// and end with the last process of the namespace. What is mounted and unmounted outside is seen inside if it was in a shared mount,
/// which is the way of most machines.
///
/// Returns [`NamespaceError::Threads`] unless the process has a single thread, [`NamespaceError::NotAllowed`] if the kernel refuses, or a
/// security module stops a process in such a namespace or leaves it without rights, and [`NamespaceError::Io`] if what comes before
/// fails, such as a process that tries it. With each of them the process is where it was, and only with them
/// ([`NamespaceError::is_outside`]). Returns [`NamespaceError::IdMap`] if the ids of the namespace cannot be set, and
/// [`NamespaceError::Mounts`] if its mounts cannot be, although a process that tried could.
pub fn enter_user_namespace() -> Result<UserNamespace, NamespaceError> {
    let threads = path::list(Path::new("/proc/self/task"));
    let count = threads.map_err(|source| NamespaceError::Io { action: "counting threads", source })?.len();
    if count != 1 {
        return Err(NamespaceError::Threads { count });
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let _heard = Heard::new();
    try_out(uid, gid)?;
    let (ranges, refused) = match Ranges::of_caller(uid, gid) {
        Ok(ranges) => {
            let refused = unshare_with(&ranges)?.map(WithoutRanges::NotMapped);
            (Some(ranges), refused)
        }
        Err(reason) => {
            unshare()?;
            (None, Some(WithoutRanges::NotGiven(reason)))
        }
    };
    map_caller_if_unmapped(uid, gid)?;
    crate::sys::mount::keep_mounts_in().map_err(NamespaceError::Mounts)?;
    let ids = match ranges.filter(|_| refused.is_none()).map(Ranges::into_maps) {
        Some((uids, gids)) => MappedIds::Ranges { uids, gids },
        None => MappedIds::Single,
    };
    Ok(UserNamespace { ids, without_ranges: refused })
}

/// Has a child try what cannot be undone: AppArmor can let a process into a namespace and give it no rights there, and
/// there is no way back out.
fn try_out(uid: u32, gid: u32) -> Result<(), NamespaceError> {
    let io = |action| move |errno: nix::Error| NamespaceError::Io { action, source: errno.into() };
    // SAFETY: the process has a single thread (checked by the caller), so the child finds no lock held by
    // another and may run any code; it never returns, but ends in `_exit`.
    match unsafe { nix::unistd::fork() }.map_err(io("fork"))? {
        ForkResult::Child => {
            let code = enter_with_one_id(uid, gid)
                .map_or_else(|error| error.raw_os_error().unwrap_or(libc::EPERM), |()| 0);
            // SAFETY: ends the child at once, without the exit handlers that belong to the parent.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => loop {
            let refusal = match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                Ok(WaitStatus::Exited(_, code)) => io::Error::from_raw_os_error(code),
                // As a filter of system calls does it.
                Ok(WaitStatus::Signaled(_, signal, _)) => {
                    io::Error::other(format!("the process that tried it was killed by {signal}"))
                }
                Ok(_) | Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(io("waiting for a process")(errno)),
            };
            return Err(refused(refusal));
        },
    }
}

/// What every entry can fall back to: with ranges more is mapped, by others.
fn enter_with_one_id(uid: u32, gid: u32) -> io::Result<()> {
    let failed = |error: NamespaceError| match error {
        NamespaceError::NotAllowed(source)
        | NamespaceError::Io { source, .. }
        | NamespaceError::IdMap { source, .. } => source,
        other => io::Error::other(other),
    };
    unshare().map_err(failed)?;
    map_caller_if_unmapped(uid, gid).map_err(failed)?;
    crate::sys::mount::keep_mounts_in()
}

fn unshare() -> Result<(), NamespaceError> {
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| refused(errno.into()))
}

/// Tells a machine that allows no namespaces from one that has just no room for another.
fn refused(source: io::Error) -> NamespaceError {
    let allowed = || {
        path::read_to_string(Path::new("/proc/sys/user/max_user_namespaces")).ok()?.trim().parse::<u64>().ok()
    };
    match source.raw_os_error() {
        Some(libc::ENOMEM | libc::EAGAIN) => {}
        Some(libc::ENOSPC | libc::EUSERS) if allowed().is_some_and(|most| most > 0) => {}
        _ => return NamespaceError::NotAllowed(source),
    }
    NamespaceError::Io { action: "making a user namespace", source }
}

/// Enters the namespace while a child that stays outside waits to write the maps: only a process of the outer
/// namespace may map more than its own id, and only the set-id programs may let it.
///
/// Returns why the ranges were not mapped; `None` if they were. An error leaves the process outside.
fn unshare_with(ranges: &Ranges) -> Result<Option<String>, NamespaceError> {
    let io = |action| move |errno: nix::Error| NamespaceError::Io { action, source: errno.into() };
    let (entered, enter) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io("making a pipe"))?;
    let (answer, answers) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io("making a pipe"))?;
    let process = Pid::this();
    // SAFETY: the process has a single thread (checked by the caller), so the child finds no lock held by
    // another and may run any code; it never returns, but ends in `_exit`.
    match unsafe { nix::unistd::fork() }.map_err(io("fork"))? {
        ForkResult::Child => {
            drop((enter, answer));
            write_maps_from_outside(ranges, process, entered, answers);
            // SAFETY: ends the child at once, without the exit handlers that belong to the parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((entered, answers));
            let unshared = unshare();
            let mut text = Vec::new();
            let exchange = || {
                let mut enter = File::from(enter);
                if unshared.is_ok() {
                    // A child that died early shows in the answer, so a broken pipe is no error of its own.
                    enter.write_all(b"!").or_else(broken_pipe_is_fine)?;
                }
                drop(enter);
                File::from(answer).read_to_end(&mut text)
            };
            let exchanged = exchange();
            reap(child);
            unshared?;
            // From here on there is no way back.
            Ok(match (exchanged, text.as_slice()) {
                (Ok(_), b"mapped") => None,
                (Ok(_), b"") => Some("the process that writes the id map died".to_owned()),
                (Ok(_), reason) => Some(String::from_utf8_lossy(reason).into_owned()),
                (Err(error), _) => Some(format!("the process that writes the id map is not heard: {error}")),
            })
        }
    }
}

fn broken_pipe_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Waits for a child to end.
fn reap(child: Pid) {
    while waitpid(child, None) == Err(nix::Error::EINTR) {}
}

/// The child's part: waits until `process` is inside, maps its ids, and answers `mapped` or the reason why not.
fn write_maps_from_outside(ranges: &Ranges, process: Pid, entered: OwnedFd, answers: OwnedFd) {
    let mut byte = [0];
    // End of file without a byte: the parent did not get in, or died.
    if File::from(entered).read(&mut byte).is_ok_and(|length| length == 1) {
        let answer = ranges.write(process.as_raw()).err().unwrap_or_else(|| "mapped".to_owned());
        // Without an answer the parent sees an empty one, and says that this process died.
        File::from(answers).write_all(answer.as_bytes()).ok();
    }
}

/// Maps the caller's own ids to root where no map has been written yet. A map is written once and never again.
fn map_caller_if_unmapped(uid: u32, gid: u32) -> Result<(), NamespaceError> {
    let unmapped = |file: &'static str| {
        let map = idmap::read(Path::new(file)).map_err(|source| NamespaceError::IdMap { file, source })?;
        Ok(map.is_empty())
    };
    let write = |file: &'static str, text: String| {
        path::write(Path::new(file), text.as_bytes()).map_err(|source| NamespaceError::IdMap { file, source })
    };
    if unmapped("/proc/self/gid_map")? {
        // The kernel lets a caller map its group by itself only after giving up setgroups, with which it could
        // leave a group that a file's mode shuts out.
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/gid_map", format!("0 {gid} 1\n"))?;
    }
    if unmapped("/proc/self/uid_map")? {
        write("/proc/self/uid_map", format!("0 {uid} 1\n"))?;
    }
    Ok(())
}

/// A user namespace that nobody lives in: it only carries `maps`, for `mount_setattr`.
///
/// A namespace needs a process to be born with. The child here shares nothing, runs no code of ours but a wait
/// for its end, and is killed as soon as the namespace is open. Its end raises no `SIGCHLD`, so a host program
/// that waits for children of its own notices nothing.
pub(crate) fn namespace_with(maps: &IdMaps) -> io::Result<OwnedFd> {
    let child = IdleChild::start()?;
    let directory = Path::new("/proc").join(child.pid.to_string());
    path::write(&directory.join("uid_map"), idmap::text(&maps.uids).as_bytes())?;
    path::write(&directory.join("gid_map"), idmap::text(&maps.gids).as_bytes())?;
    Ok(File::open(&directory.join("ns/user"))?.into())
}

/// The child of [`namespace_with`]; killed and reaped when dropped.
struct IdleChild {
    pid: i32,
    handle: OwnedFd,
}

/// `struct clone_args` of the kernel in its first version, which every `clone3` takes.
#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

impl IdleChild {
    fn start() -> io::Result<IdleChild> {
        /// Signal handlers of the host program must not run in the child (`CLONE_CLEAR_SIGHAND`).
        const CLEAR_SIGNAL_HANDLERS: u64 = 0x1_0000_0000;
        let own_pid = std::process::id().cast_signed();
        let mut handle: RawFd = -1;
        let arguments = CloneArguments {
            flags: CLEAR_SIGNAL_HANDLERS | libc::CLONE_NEWUSER as u64 | libc::CLONE_PIDFD as u64,
            pidfd: (&raw mut handle).expose_provenance() as u64,
            ..CloneArguments::default()
        };
        // SAFETY: without CLONE_VM the child has a copy of all memory, on the same stack address, as after fork;
        // the structure and the place for the pidfd outlive the call. Other threads may hold locks in that copy,
        // so the child only makes system calls, and never returns (`idle` diverges).
        let pid =
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
        match pid {
            0 => idle(own_pid),
            1.. => {
                // SAFETY: clone3 succeeded, so it has put a new descriptor there that nobody else owns.
                let handle = unsafe { OwnedFd::from_raw_fd(handle) };
                let pid = i32::try_from(pid).map_err(io::Error::other)?;
                Ok(IdleChild { pid, handle })
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for IdleChild {
    fn drop(&mut self) {
        // Both fail only if the child is gone already, and then there is nothing left to do.
        rustix::process::pidfd_send_signal(&self.handle, Signal::KILL).ok();
        let wait = || {
            rustix::process::waitid(
                WaitId::PidFd(self.handle.as_fd()),
                WaitIdOptions::EXITED | all_children(),
            )
        };
        while matches!(wait(), Err(rustix::io::Errno::INTR)) {}
    }
}

/// `__WALL`: wait for a child that raises no `SIGCHLD` too.
fn all_children() -> WaitIdOptions {
    WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned())
}

/// Does nothing until killed. Gives up the parent's files first, so that no lock outlives the parent in them.
fn idle(parent: i32) -> ! {
    // SAFETY: plain system calls with plain numbers; nothing here allocates or takes a lock.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        // The parent may have died before the first line took effect.
        while libc::getppid() == parent {
            libc::pause();
        }
        libc::_exit(0)
    }
}
