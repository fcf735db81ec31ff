//! Lock files of digests in the run root: `digests/<algorithm>-<hex>`. Like those of entries they count while the
//! kernel holds a lock on them, and go with the lock; one that nobody holds is a dead process's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::kind::{self, Own};
use super::run_layout::RunLayout;
use crate::error::LayoutError;
use crate::sys::lock::{self, Locked};
use crate::sys::{beneath, node, stat};
use crate::types::Digest;

/// A locked file with its name. Dropping it takes the name away, and then the lock.
#[derive(Debug)]
pub(crate) struct DigestLockFile {
    _file: Locked,
    directory: OwnedFd,
    path: PathBuf,
    name: Vec<u8>,
}

impl DigestLockFile {
    /// The path of the file.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }
}

impl Drop for DigestLockFile {
    fn drop(&mut self) {
        if let Err(error) = node::remove_file(self.directory.as_fd(), &self.name) {
            tracing::debug!(path = %self.path.display(), %error, "lock file not removed");
        }
    }
}

/// Whether somebody who holds the lock is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

impl RunLayout {
    /// Locks a digest, and waits for whoever holds it.
    pub(crate) fn lock_digest(&self, digest: &Digest) -> Result<DigestLockFile, LayoutError> {
        loop {
            if let Some(file) = self.lock_named(&name(digest), Wait::Yes)? {
                return Ok(file);
            }
        }
    }

    /// Locks a digest; `None` if somebody holds it.
    pub(crate) fn try_lock_digest(&self, digest: &Digest) -> Result<Option<DigestLockFile>, LayoutError> {
        self.lock_named(&name(digest), Wait::No)
    }

    /// The lock files that nobody holds, taken over: dropping one removes it.
    pub(crate) fn dead_digest_locks(&self) -> Result<Vec<DigestLockFile>, LayoutError> {
        let mut dead = Vec::new();
        for name in self.digest_locks()? {
            dead.extend(self.lock_named(&name, Wait::No)?);
        }
        Ok(dead)
    }

    /// The paths of the lock files that nobody holds.
    pub(crate) fn look_for_dead_digest_locks(&self) -> Result<Vec<PathBuf>, LayoutError> {
        let mut dead = Vec::new();
        for name in self.digest_locks()? {
            let directory = self.open_digest_locks()?;
            let path = self.digest_lock_path(&name);
            match beneath::open_sealed_file_beneath(directory.as_fd(), &name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => {
                    let file = opened.map_err(|source| self.digest_lock_failed(&directory, &name, source))?;
                    let held = lock::is_flock_held(file.as_fd());
                    if !held.map_err(failed(&path, "query the lock"))? {
                        dead.push(path);
                    }
                }
            }
        }
        Ok(dead)
    }

    fn digest_lock_failed(&self, directory: &OwnedFd, name: &[u8], source: io::Error) -> LayoutError {
        kind::opening_failed((directory.as_fd(), &self.digest_locks_path()), name, Own::Lock, source)
    }

    /// `None` if somebody holds it, or has removed it just now.
    fn lock_named(&self, name: &[u8], wait: Wait) -> Result<Option<DigestLockFile>, LayoutError> {
        let (directory, path) = (self.open_digest_locks()?, self.digest_lock_path(name));
        let file = beneath::ensure_new_file(directory.as_fd(), name)
            .map_err(|source| self.digest_lock_failed(&directory, name, source))?;
        let locked = match wait {
            Wait::Yes => lock::flock_exclusive(file).map(Some),
            Wait::No => lock::try_flock_exclusive(file),
        };
        let Some(file) = locked.map_err(failed(&path, "lock"))? else { return Ok(None) };
        // Who held it before has taken its name away: it excludes nobody any more.
        let own = stat::stat(file.as_fd()).map_err(failed(&path, "examine"))?.id;
        match stat::stat_at(directory.as_fd(), name) {
            Ok(found) if found.id == own => {
                Ok(Some(DigestLockFile { _file: file, directory, path, name: name.to_vec() }))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&path, "examine")(error)),
            _ => Ok(None),
        }
    }
}

fn name(digest: &Digest) -> Vec<u8> {
    digest.to_string().replace(':', "-").into_bytes()
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Io { path, action, source }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_at_a_time_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let digest = Digest::sha256(b"blob");
        let (inside, done) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let run = RunLayout::ensure(dir.path()).unwrap();
                    for _ in 0..200 {
                        let held = run.lock_digest(&digest).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "alone");
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(held);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 800);
        assert!(RunLayout::ensure(dir.path()).unwrap().digest_locks().unwrap().is_empty());
    }

    #[test]
    fn what_a_dead_process_left_is_told_from_what_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunLayout::ensure(dir.path()).unwrap();
        let held = run.lock_digest(&Digest::sha256(b"held")).unwrap();
        assert!(run.try_lock_digest(&Digest::sha256(b"held")).unwrap().is_none());
        let dead = dir.path().join("digests/sha256-dead");
        std::fs::write(&dead, "").unwrap();
        assert_eq!(run.look_for_dead_digest_locks().unwrap(), std::slice::from_ref(&dead));
        assert!(dead.exists());
        drop(run.dead_digest_locks().unwrap());
        assert!(!dead.exists() && held.path().exists());
    }
}
