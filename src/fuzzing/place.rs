//! Where targets have their files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A new directory, on a tmpfs if there is one. Those of dead processes go.
pub(super) fn place() -> io::Result<PathBuf> {
    const PREFIX: &str = "layerstore-fuzzing-";
    static MADE: AtomicU64 = AtomicU64::new(0);
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() && !cfg!(test) { shared.to_owned() } else { std::env::temp_dir() };
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let process = rest.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            // Another user's stays, and another fuzzer may be at it, too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let top = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
    fs::create_dir(&top)?;
    Ok(top)
}

/// How many file descriptors are open. None in tests, where other threads open files too.
pub(super) fn open_descriptors() -> usize {
    if cfg!(test) { 0 } else { fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) }
}
