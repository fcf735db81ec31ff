//! The marks of mount programs: what a directory needs before a program mounts it, and before the kernel does after a program.

use std::os::fd::AsFd;
use std::path::Path;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{self, LockState, Misread, Subdirectory};
use crate::error::{Error, MountError};
use crate::overlay;
use crate::store::Store;
use crate::store::part::{Directory, Part};
use crate::store::view::View;
use crate::types::TreeDigest;

use super::plan::Planned;

/// A layer of a mount whose directory may have been written to.
pub(super) struct Unsealed<'s> {
    layer: String,
    directory: Directory<'s>,
    number: u64,
}

/// Those of a chain. What is in stores that are only read stays as it is.
pub(super) fn unsealed<'s>(txn: &View<'s>, chain: &[LayerRecord]) -> Result<Vec<Unsealed<'s>>, Error> {
    let mut found = Vec::new();
    for layer in chain {
        if let LayerContent::Writable(number) = layer.content
            && !txn.home(Owner::Layer, &layer.id)?.is_some_and(Part::is_other)
        {
            found.push(Unsealed { layer: layer.id.clone(), directory: txn.directory(layer)?, number });
        }
    }
    Ok(found)
}

impl Unsealed<'_> {
    fn is_by_program(&self) -> Result<bool, Error> {
        let root = self.directory.open(&self.layer)?;
        let found = disk::is_by_program(root.as_fd(), self.directory.layout().xattrs());
        found.map_err(|source| self.failed("examine", source))
    }

    fn settle(&self) -> Result<(), Error> {
        let root = self.directory.open(&self.layer)?;
        Ok(disk::settle_program_marks(root.as_fd(), self.directory.layout().xattrs())?)
    }

    /// Lets a program mount it, for writing or not.
    fn admit(&self, for_writing: bool) -> Result<(), Error> {
        let root = self.directory.open(&self.layer)?;
        let namespace = self.directory.layout().xattrs();
        if let Some(misread) = disk::admit_program(root.as_fd(), namespace)? {
            return Err(refused(&self.layer, misread));
        }
        match for_writing {
            true => disk::mark_for_program(root.as_fd(), namespace)
                .map_err(|source| self.failed("mark for a mount program", source)),
            false => Ok(()),
        }
    }

    fn failed(&self, action: &'static str, source: std::io::Error) -> Error {
        Error::Io { action, path: self.directory.path(), source }
    }
}

fn refused(layer: &str, misread: Misread) -> Error {
    let layer = layer.to_owned();
    match misread {
        Misread::Name(path) => MountError::MarkerName { layer, path },
        Misread::Attribute(path, attribute) => MountError::MarkerAttribute { layer, path, attribute },
    }
    .into()
}

/// Looks through the manifests of a chain's sealed layers, topmost first, before a program mounts them.
///
/// Returns [`MountError::MarkerName`] or [`MountError::MarkerAttribute`] if it would take something in one for a mark of its own.
pub(super) fn refuse_misread(txn: &View<'_>, chain: &[LayerRecord]) -> Result<(), Error> {
    for layer in chain {
        let LayerContent::Sealed(tree) = layer.content else { continue };
        let manifest = txn.manifest(&TreeDigest(tree))?;
        let namespace = txn.directory(layer)?.layout().xattrs();
        if let Some(misread) = disk::misread_in(&manifest, namespace) {
            return Err(refused(&layer.id, misread));
        }
    }
    Ok(())
}

impl Store {
    /// Makes the directories of a mount that may have been written to what whoever mounts takes them for: the kernel does not know
    /// the marks of a program that died, and a program would take a container's own files for its marks. Nobody mounts or unmounts
    /// meanwhile. `elsewhere` if the layer itself is mounted in another mount namespace.
    pub(super) fn prepare_unsealed(&self, planned: &Planned<'_>, elsewhere: bool) -> Result<(), Error> {
        let by_program = planned.plan.is_by_program();
        for unsealed in &planned.unsealed {
            let is_own = unsealed.layer == planned.layer.id;
            let mut marked = unsealed.is_by_program()?;
            if marked && !self.is_written_to(unsealed, is_own.then_some(elsewhere))? {
                match unsealed.settle() {
                    // A program reads them as they are.
                    Err(error) if by_program => {
                        tracing::debug!(layer = unsealed.layer, %error, "marks of the mount program are left");
                    }
                    settled => {
                        settled?;
                        marked = false;
                    }
                }
            }
            if by_program && !marked {
                unsealed.admit(is_own && !planned.plan.is_read_only())?;
            }
        }
        Ok(())
    }

    /// The same for a mount that the caller makes, whose time nobody knows: marks of a program may be those of a mount that is there
    /// still if a program is to make this one, too.
    pub(super) fn prepare_lent(&self, planned: &Planned<'_>) -> Result<(), Error> {
        let by_program = planned.plan.is_by_program();
        let mut concerned = by_program && !planned.unsealed.is_empty();
        for unsealed in &planned.unsealed {
            concerned |= unsealed.is_by_program()?;
        }
        match self.run_if_usable()? {
            Some(run) if concerned => run.hold(|| self.prepare_unsealed(planned, by_program)),
            _ => Ok(()),
        }
    }

    /// Whether somebody may be writing to a layer's directory. That of the layer to be mounted is not mounted here.
    fn is_written_to(&self, unsealed: &Unsealed<'_>, own_elsewhere: Option<bool>) -> Result<bool, Error> {
        let is_mounted = match own_elsewhere {
            Some(elsewhere) => elsewhere,
            None => overlay::is_mounted(&self.mount_point(&unsealed.layer)?)?,
        };
        let state = disk::lock_state(unsealed.directory.layout(), unsealed.number)?;
        Ok(is_mounted || state == LockState::Held)
    }

    /// Makes of what a program wrote into a layer what the kernel would have written. Nobody may change it meanwhile.
    pub(in crate::store) fn settle_marks(&self, number: u64) -> Result<(), Error> {
        let root = self.layout().open_entry(Subdirectory::Diffs, number)?;
        Ok(disk::settle_program_marks(root.as_fd(), self.layout().xattrs())?)
    }

    /// Whether a program serves the mount of a layer at `target` and leaves its marks there. Before such a mount the directory was
    /// [marked](disk::mark_for_program), so the kernel's table, which is as long as there are mounts, is asked only where that cannot
    /// be told.
    pub(super) fn may_have_marks(home: &Store, layer: &LayerRecord, target: &Path) -> bool {
        let LayerContent::Writable(number) = layer.content else { return false };
        let root = home.layout().open_entry(Subdirectory::Diffs, number);
        let marked = root.map(|root| disk::is_by_program(root.as_fd(), home.layout().xattrs()));
        !matches!(marked, Ok(Ok(false))) && overlay::is_by_program(target)
    }

    /// The same after a mount has ended, if a program made it. What cannot be done now is done before the directory is mounted.
    pub(super) fn settle_ended(layer: Option<(&LayerRecord, &Store)>) {
        let Some((LayerRecord { content: LayerContent::Writable(number), .. }, home)) = layer else { return };
        let settle = || -> Result<(), Error> {
            let root = home.layout().open_entry(Subdirectory::Diffs, *number)?;
            match disk::is_by_program(root.as_fd(), home.layout().xattrs()) {
                Ok(false) => Ok(()),
                _ => home.settle_marks(*number),
            }
        };
        if let Err(error) = settle() {
            tracing::warn!(number, %error, "marks of the mount program are left in a layer");
        }
    }
}
