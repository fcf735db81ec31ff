//! Who holds a mount, for the message of a failed unmount.

use std::path::{Path, PathBuf};

use crate::sys::mount::info::{self, MountPoint};
use crate::sys::path;

/// How many are named: enough to act on.
const NAMED: usize = 5;

/// Mounts below `target`, then processes with a directory or open file in it, as far as this process may see.
/// For a message only: what comes and goes meanwhile, or cannot be read, is not in it.
pub(super) fn of(target: &Path) -> Vec<String> {
    let Ok(target) = info::resolved(target) else { return Vec::new() };
    let below = below(&target).map(|mount| format!("the mount at {}", mount.target.display()));
    let processes = users(&target).map(|(pid, process)| {
        let command = path::read_to_string(&process.join("comm")).unwrap_or_default();
        format!("process {pid} ({})", command.trim())
    });
    below.chain(processes).take(NAMED).collect()
}

/// Whether all that is seen to hold the mount are other processes with the program of this one, or nothing is seen any more.
pub(super) fn may_be_forks(target: &Path) -> bool {
    let Ok(target) = info::resolved(target) else { return false };
    let program = |process: &Path| path::read_link(&process.join("exe")).ok();
    let own = program(Path::new("/proc/self"));
    below(&target).next().is_none()
        && users(&target).all(|(pid, process)| pid != std::process::id() && program(&process) == own)
}

/// The mounts below `target`.
fn below(target: &Path) -> impl Iterator<Item = MountPoint> {
    let mounts = info::read().unwrap_or_default().into_iter();
    mounts.filter(move |mount| mount.target.starts_with(target) && mount.target != target)
}

/// The processes that use the tree at `target`, each with its directory in `/proc`.
fn users(target: &Path) -> impl Iterator<Item = (u32, PathBuf)> {
    path::list(Path::new("/proc")).unwrap_or_default().into_iter().filter_map(move |process| {
        let pid = process.file_name()?.to_str()?.parse().ok()?;
        uses(&process, target).then_some((pid, process))
    })
}

/// Whether a process works in the tree, has it as its root, or has a file of it open.
fn uses(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| path::read_link(&link).is_ok_and(|path| path.starts_with(target));
    let mut files = path::list(&process.join("fd")).unwrap_or_default().into_iter();
    inside(process.join("cwd")) || inside(process.join("root")) || files.any(inside)
}
