//! Who holds a mount, for the message of a failed unmount.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sys::mount::info;

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
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let process = entry.ok()?.path();
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        uses(&process, &target).then(|| {
            let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
            format!("process {pid} ({})", command.trim())
        })
    });
    below.chain(processes).take(NAMED).collect()
}

/// Whether a process works in the tree, has it as its root, or has a file of it open.
fn uses(process: &Path, target: &Path) -> bool {
    let inside = |link: PathBuf| fs::read_link(link).is_ok_and(|path| path.starts_with(target));
    let mut files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    inside(process.join("cwd")) || inside(process.join("root")) || files.any(|file| inside(file.path()))
}
