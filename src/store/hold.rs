//! Holding the directory of a layer that is written to: whoever replaces it, or what the layer is, does so while nobody mounts it.

use std::io;

use crate::disk::{self, DiffName, EntryLock, LockState, NamedLock, Subdirectory};
use crate::error::{Error, InUseError, LayoutError};
use crate::sys::path;

use super::garbage::{self, Sweep};
use super::home::Home;
use super::mount::{patiently, refuse_upper};

/// How many names are deleted at the most when a dead process is found at a layer.
const LIMIT: u64 = 1000;

/// A layer's directory that nobody mounts for writing.
pub(super) struct HeldDirectory {
    lock: NamedLock,
}

impl HeldDirectory {
    /// Lets go of it after the transaction that was to give it, or take from it, a place. If nobody knows whether that was
    /// committed, the name of the lock stays, and who finds it dead asks the rows.
    pub(super) fn release_after<T>(self, written: Result<T, Error>) -> Result<T, Error> {
        if !written.as_ref().is_err_and(Error::is_outcome_unknown) {
            garbage::give_up(&self.lock);
        }
        written
    }
}

impl Home<'_> {
    /// Refuses to go on while some overlay writes to the directory of a layer, wherever that is mounted, or after it was taken away while
    /// processes use it.
    ///
    /// Returns [`Error::InUse`] if one does.
    pub(super) fn refuse_written(&self, layer: &str, number: u64) -> Result<(), Error> {
        let work = self.store.layout().entry_path(Subdirectory::Work, DiffName::Entry(number));
        // Nothing has ever written to one without it.
        if !path::exists(&work).unwrap_or(true) {
            return Ok(());
        }
        patiently(|| {
            self.hold_mounts(|| {
                self.refuse_mounted(layer)?;
                refuse_upper(&self.store.diff_path(number), || format!("the layer {layer}"))
            })
        })
    }

    /// Keeps the directory of a layer from being mounted for writing, and from being given up.
    ///
    /// Returns [`Error::InUse`] if it is mounted, or someone else does the same.
    pub(super) fn hold_directory(&self, layer: &str, number: u64) -> Result<HeldDirectory, Error> {
        let hold = || {
            self.hold_mounts(|| {
                self.refuse_mounted(layer)?;
                Ok(EntryLock::create(self.store.layout())?.name(number)?)
            })
        };
        let is_taken = |error: &Error| {
            let Error::Layout(LayoutError::Io { source, .. }) = error else { return false };
            source.kind() == io::ErrorKind::AlreadyExists
        };
        let mut held = patiently(hold);
        if held.as_ref().is_err_and(is_taken)
            && disk::lock_state(self.store.layout(), number)? != LockState::Held
        {
            // By someone who died.
            Sweep::limited(self.store, LIMIT)?.announced()?;
            held = hold();
        }
        match held {
            Err(error) if is_taken(&error) => Err(InUseError::Busy { layer: layer.to_owned() }.into()),
            held => Ok(HeldDirectory { lock: held? }),
        }
    }
}
