//! Where targets have their files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A new directory, on a tmpfs if there is one. Those of dead processes go.
pub(super) fn place() -> io::Result<PathBuf> {
    const PREFIX: &str = "layerstore-fuzz-";
    static MADE: AtomicU32 = AtomicU32::new(0);
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Another fuzzer may be at it, too.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let place = parent.join(format!("{PREFIX}{}", std::process::id())).join(number.to_string());
    fs::create_dir_all(&place)?;
    Ok(place)
}
