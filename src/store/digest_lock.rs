//! Locks on digests: so that two processes that want the same blob do not both fetch it.

use std::path::PathBuf;

use crate::disk::DigestLockFile;
use crate::error::Error;
use crate::types::Digest;

use super::Store;

/// A digest that nobody else of the machine has locked. The lock ends with the value, or with the process.
#[derive(Debug)]
#[must_use = "the lock ends with the value"]
pub struct DigestLock {
    digest: Digest,
    file: DigestLockFile,
}

impl DigestLock {
    /// The digest.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The lock file, which is there as long as the lock.
    pub fn path(&self) -> PathBuf {
        self.file.path()
    }
}

impl Store {
    /// Locks a digest, and waits as long as another process or thread has it locked. It means what its users agree on: the
    /// store itself takes none.
    ///
    /// Returns [`Error::Layout`] if the run root cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = layerstore::Store::open(&layerstore::StoreOptions::at(dir.path().join("store")))?;
    /// let digest = layerstore::Digest::sha256(b"a blob");
    /// let lock = store.lock_digest(&digest)?;
    /// // Fetch it, unless it is there by now.
    /// assert!(store.try_lock_digest(&digest)?.is_none());
    /// drop(lock);
    /// assert!(store.try_lock_digest(&digest)?.is_some());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn lock_digest(&self, digest: &Digest) -> Result<DigestLock, Error> {
        let file = self.run_layout()?.lock_digest(digest)?;
        Ok(DigestLock { digest: digest.clone(), file })
    }

    /// The same without waiting; `None` if someone has it locked.
    ///
    /// Returns [`Error::Layout`] if the run root cannot be used.
    pub fn try_lock_digest(&self, digest: &Digest) -> Result<Option<DigestLock>, Error> {
        let file = self.run_layout()?.try_lock_digest(digest)?;
        Ok(file.map(|file| DigestLock { digest: digest.clone(), file }))
    }
}
