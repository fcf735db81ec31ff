//! Who holds a mount, for the message of a failed unmount.

use std::path::{Path, PathBuf};

use crate::sys::mount::info;
use crate::sys::path;

/// How many are named: enough to act on.
const NAMED: usize = 5;

/// Mounts below `target`, then processes with a directory or open file in it, as far as this process may see.
/// For a message only: what comes and goes meanwhile, or cannot be read, is not in it.
pub(super) fn of(target: &Path) -> Vec<String> {
    let Ok(target) = info::resolved(target) else { return Vec::new() };
    let mounts = info::read().unwrap_or_default().into_iter();
    let below = mounts
        .filter(|mount| mount.target.starts_with(&target) && mount.target != target)
        .map(|mount| format!("the mount at {}", mount.target.display()));
    let processes = path::list(Path::new("/proc")).unwrap_or_default().into_iter().filter_map(|process| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        uses(&process, &target).then(|| {
            let command = path::read_to_string(&process.join("comm")).unwrap_or_default();
            format!("process {pid} ({})", command.trim())
        })
    });
    below.chain(processes).take(NAMED).collect()
}

/// Whether a process works in the tree, has it as its root, or has a file of it open.
fn uses(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| path::read_link(&link).is_ok_and(|path| path.starts_with(target));
    let mut files = path::list(&process.join("fd")).unwrap_or_default().into_iter();
    inside(process.join("cwd")) || inside(process.join("root")) || files.any(inside)
}
