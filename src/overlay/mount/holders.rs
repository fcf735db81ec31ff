//! Who holds a mount, for the message of a failed unmount.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::sys::mount::info;
use crate::sys::path;

/// How many are named: enough to act on.
const NAMED: usize = 5;

/// What holds a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holder {
    /// The mount at this path, below.
    Mount(PathBuf),
    /// The process of this number, with a directory or open file in it.
    Process(u32),
}

impl fmt::Display for Holder {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount(path) => write!(out, "the mount at {}", path.display()),
            Self::Process(pid) => {
                let command = path::read_to_string(&directory(*pid).join("comm")).unwrap_or_default();
                write!(out, "process {pid} ({})", command.trim())
            }
        }
    }
}

/// Mounts below `target`, then processes, as far as this process may see.
/// For a message only: what comes and goes meanwhile, or cannot be read, is not in it.
pub(super) fn named(target: &Path) -> Vec<String> {
    of(target).take(NAMED).map(|holder| holder.to_string()).collect()
}

/// All that is seen to hold the mount, but for other processes with the program of this one: they may be its children, and about to
/// become something else.
///
/// A process that becomes something else while it is looked at is among these. So only one that is found twice is a holder.
pub(super) fn but_forks(target: &Path) -> Vec<Holder> {
    let program = |pid: u32| path::read_link(&directory(pid).join("exe")).ok();
    let own_pid = std::process::id();
    let own = program(own_pid);
    let is_fork = |holder: &Holder| match holder {
        Holder::Mount(_) => false,
        Holder::Process(pid) => *pid != own_pid && program(*pid) == own,
    };
    of(target).filter(|holder| !is_fork(holder)).collect()
}

/// All that is seen to hold the mount.
fn of(target: &Path) -> impl Iterator<Item = Holder> {
    let target = info::resolved(target).ok();
    target.into_iter().flat_map(|target| {
        let mounts: Vec<_> = below(&target).map(Holder::Mount).collect();
        mounts.into_iter().chain(users(target).map(Holder::Process))
    })
}

fn directory(pid: u32) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

/// Where something is mounted below `target`.
fn below(target: &Path) -> impl Iterator<Item = PathBuf> {
    let targets = info::read().unwrap_or_default().into_iter().map(|mount| mount.target);
    targets.filter(move |below| below.starts_with(target) && below != target)
}

/// The processes that use the tree at `target`.
fn users(target: PathBuf) -> impl Iterator<Item = u32> {
    path::list(Path::new("/proc")).unwrap_or_default().into_iter().filter_map(move |process| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        uses(&process, &target).then_some(pid)
    })
}

/// Whether a process works in the tree, has it as its root, or has a file of it open.
fn uses(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| path::read_link(&link).is_ok_and(|path| path.starts_with(target));
    let mut files = path::list(&process.join("fd")).unwrap_or_default().into_iter();
    inside(process.join("cwd")) || inside(process.join("root")) || files.any(inside)
}
