//! redb kept from panicking on a damaged file: every call to it goes through here.
//!
//! redb verifies a file when it repairs it, and not the pages that it reads: it takes its own bytes for right, and panics
//! where they cannot be. Here such a panic ends as [`MetaError::Damaged`], and so does every later call on the same handle,
//! whose memory may be as wrong as the file. A new handle begins with what the file says.
//!
//! What is not a panic is kept away before it: redb refuses a header that cannot be right and trees that are too deep,
//! [`super::rows`] a tree that leads in circles. And what is a panic in a panic, which ends the process: [`super::system`] looks at
//! what a commit trusts, and no rows are removed by redb's own calls for several.
//!
//! The message of such a panic goes where the program's panic hook sends it: hooks are the program's and not a library's.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::checksums::Rotten;
use super::file;
use crate::error::MetaError;

/// Whether a handle met damage that redb did not expect; shared by all that came out of the handle.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    path: Box<Path>,
    damaged: AtomicBool,
}

impl Health {
    /// Of a new handle on the file at `path`.
    pub(super) fn new(path: &Path) -> Self {
        Health(Arc::new(State { path: path.into(), damaged: AtomicBool::new(false) }))
    }

    /// Whether every further call is refused.
    pub(super) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Acquire)
    }

    /// Says that the file is damaged, from now on.
    pub(super) fn damaged(&self) -> MetaError {
        self.0.damaged.store(true, Ordering::Release);
        MetaError::Damaged { path: self.0.path.to_path_buf() }
    }

    /// Calls redb.
    ///
    /// Returns [`MetaError::Damaged`] if it panics, or has done so on this handle before.
    pub(super) fn run<T, E: Into<MetaError>>(
        &self,
        call: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, MetaError> {
        if self.is_damaged() {
            return Err(self.damaged());
        }
        // What the call leaves half done is not looked at any more: that is what being damaged means.
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result.map_err(|error| {
                let error = error.into();
                if is_rotten(&error) { self.damaged() } else { self.named(error) }
            }),
            Err(_) => Err(self.damaged()),
        }
    }
}

impl Health {
    /// An error that says something of the file as a whole, with its name. Who has a handle has read something of it.
    fn named(&self, error: MetaError) -> MetaError {
        match error {
            MetaError::Database { source, .. }
                if matches!(*source, redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_))
                    && !error.is_outcome_unknown() =>
            {
                file::reading_failed(&self.0.path, *source)
            }
            error => error,
        }
    }
}

/// Whether redb was not given a page, because it is not as it was written.
fn is_rotten(error: &MetaError) -> bool {
    let (MetaError::Open { source, .. } | MetaError::Database { source, .. }) = error else { return false };
    let redb::Error::Io(error) = source.as_ref() else { return false };
    error.get_ref().is_some_and(|inner| inner.is::<Rotten>())
}

/// Something of redb's, with the health of its handle.
pub(crate) struct Guarded<T> {
    /// There until it is dropped or taken out.
    value: Option<T>,
    health: Health,
}

impl<T> std::fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("health", &self.health).finish_non_exhaustive()
    }
}

impl<T> Guarded<T> {
    pub(super) fn new(value: T, health: Health) -> Self {
        Guarded { value: Some(value), health }
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// As [`Health::run`], with what is guarded.
    pub(super) fn run<'s, U, E: Into<MetaError>>(
        &'s self,
        call: impl FnOnce(&'s T) -> Result<U, E>,
    ) -> Result<U, MetaError> {
        let value = self.value.as_ref().ok_or_else(|| self.health.damaged())?;
        self.health.run(|| call(value))
    }

    /// As [`run`](Self::run), for calls that change it.
    pub(super) fn run_mut<'s, U, E: Into<MetaError>>(
        &'s mut self,
        call: impl FnOnce(&'s mut T) -> Result<U, E>,
    ) -> Result<U, MetaError> {
        let value = self.value.as_mut().ok_or_else(|| self.health.damaged())?;
        self.health.run(|| call(value))
    }

    /// As [`run`](Self::run), for the last call.
    pub(super) fn finish<U, E: Into<MetaError>>(
        mut self,
        call: impl FnOnce(T) -> Result<U, E>,
    ) -> Result<U, MetaError> {
        if self.health.is_damaged() {
            return Err(self.health.damaged());
        }
        let value = self.value.take().ok_or_else(|| self.health.damaged())?;
        self.health.run(|| call(value))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        let Some(value) = self.value.take() else { return };
        let damaged = self.health.is_damaged();
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            let value = value;
            // redb tidies up when it drops a thing, but not in a thread that panics: what it knows may be wrong then, as
            // here. Locks are given up all the same.
            if damaged && !std::thread::panicking() {
                resume_unwind(Box::new(Unwinding));
            }
            drop(value);
        }));
        if !damaged && dropped.is_err() {
            let error = self.health.damaged();
            tracing::warn!(%error, "a database handle could not be given up as it should");
        }
    }
}

/// What is thrown for redb to see that it is not to go on.
struct Unwinding;

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Path::new("/a/store.redb"))
    }

    #[test]
    fn after_a_panic_every_call_is_refused() {
        let guarded = Guarded::new(1, health());
        assert_eq!(guarded.run(|value| Ok::<_, MetaError>(*value)).unwrap(), 1);
        let panicked = guarded.run(|_| -> Result<(), MetaError> { resume_unwind(Box::new(())) });
        assert!(matches!(panicked, Err(MetaError::Damaged { .. })));
        assert!(matches!(guarded.run(|_| Ok::<_, MetaError>(())), Err(MetaError::Damaged { .. })));
        assert!(matches!(guarded.finish(|_| Ok::<_, MetaError>(())), Err(MetaError::Damaged { .. })));
    }

    #[test]
    fn a_panic_in_a_drop_goes_no_further() {
        struct Panics;
        impl Drop for Panics {
            fn drop(&mut self) {
                if !std::thread::panicking() {
                    resume_unwind(Box::new(()));
                }
            }
        }
        let health = health();
        drop(Guarded::new(Panics, health.clone()));
        assert!(health.is_damaged());
        // Dropped as in a thread that panics.
        drop(Guarded::new(Panics, health));
    }
}
