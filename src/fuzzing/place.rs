//! Where targets have their files.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::random;

const PREFIX: &str = "layerstore-fuzz.";

/// A directory that goes when this is dropped. It is locked meanwhile, by which those are known that a fuzzer left when it ended
/// with its process: process ids say nothing where others share the directory above from their own namespaces.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _lock: File,
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

/// A new directory, on a tmpfs if there is one. Those of dead processes go.
pub(super) fn place() -> io::Result<Place> {
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() && !cfg!(test) { shared.to_owned() } else { std::env::temp_dir() };
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            // Another user's stays, and another fuzzer may be at it, too.
            drop(remove_dead(&entry.path()));
        }
    }
    loop {
        let path = parent.join(format!("{PREFIX}{:016x}", u64::from_le_bytes(random::bytes()?)));
        fs::create_dir(&path)?;
        // Until it is locked it looks dead.
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        lock.lock()?;
        if fs::metadata(&path).is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino())) {
            return Ok(Place { path, _lock: lock });
        }
    }
}

fn remove_dead(path: &Path) -> io::Result<()> {
    let lock = File::open(path)?;
    match lock.try_lock() {
        Ok(()) => fs::remove_dir_all(path),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// How many file descriptors are open. None in tests, where other threads open files too.
pub(super) fn open_descriptors() -> usize {
    if cfg!(test) { 0 } else { fs::read_dir("/proc/self/fd").map_or(0, Iterator::count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_with_its_user_and_those_of_the_dead_with_the_next() {
        let place = place().unwrap();
        let parent = place.parent().unwrap().to_owned();
        fs::write(place.join("file"), "").unwrap();
        let dead = parent.join(format!("{PREFIX}of-the-dead-{}", std::process::id()));
        fs::create_dir(&dead).unwrap();
        let other = super::place().unwrap();
        assert!(place.join("file").exists() && !dead.exists());
        let path = place.to_path_buf();
        drop((place, other));
        assert!(!path.exists());
    }
}
