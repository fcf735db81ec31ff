//! What a layer changes, in and out.

use std::io::{Read, Write};

use super::driver::Driver;
use super::options::ApplyDiffOptions;
use crate::error::Error;
use crate::layer::Change;
use crate::store::{ApplyOptions, DiffOptions, LayerFiles, StagedDiff, Store, ThingId};
use crate::sys::userns::IdMaps;
use crate::types::LayerId;

/// What a layer is compared with.
enum Base {
    /// What it stands on, or nothing if it stands on nothing.
    Parent,
    /// Nothing, though it stands on something.
    Nothing,
    /// Another layer.
    Other(ThingId),
}

impl Driver {
    /// Writes a tar of what turns `parent`, or nothing, into a layer. If that is what it stands on, a layer that came from an
    /// archive gives that back, byte for byte. `id_maps` turn the host's ids of what a mount with these maps has written into the
    /// layer into the tar's; what is below has those already.
    ///
    /// Returns what [`Store::diff_with`] does.
    pub fn diff(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        id_maps: Option<&IdMaps>,
        out: impl Write,
    ) -> Result<(), Error> {
        let options = match self.base(id, parent)? {
            Base::Parent => DiffOptions::default(),
            Base::Nothing => DiffOptions::whole(),
            Base::Other(base) => DiffOptions::since(base),
        };
        let options = DiffOptions { id_maps: self.maps_or_own(id_maps).cloned(), ..options };
        self.store().diff_with(id, &options, out).map(drop)
    }

    /// What turns `parent`, or nothing, into a layer.
    ///
    /// Returns what [`Store::changes_since`] does.
    pub fn changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<Change>, Error> {
        match self.base(id, parent)? {
            Base::Parent => self.store().changes(id),
            Base::Nothing => self.store().whole_changes(id),
            Base::Other(base) => self.store().changes_since(id, base),
        }
    }

    /// The bytes of the files that a layer has, and `parent`, or nothing, has not.
    ///
    /// Returns what [`Store::diff_size`] does.
    pub fn diff_size(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<u64, Error> {
        match self.base(id, parent)? {
            Base::Parent => self.store().diff_size(id, None),
            Base::Nothing => self.store().whole_size(id),
            Base::Other(base) => self.store().diff_size(id, &base),
        }
    }

    fn base(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Base, Error> {
        Ok(match (self.layer(id)?.parent, parent) {
            (own, parent) if own.as_ref() == parent => Base::Parent,
            (_, None) => Base::Nothing,
            (_, Some(parent)) => Base::Other(parent.into()),
        })
    }

    /// Changes a layer by an archive, in any compression that is known: all of it or nothing. Returns the bytes of the files
    /// that the layer has then.
    ///
    /// Returns what [`Store::apply_diff`] does: [`Error::InUse`] if it is mounted, or others stand on it.
    pub fn apply_diff(&self, id: &LayerId, diff: impl Read + Send) -> Result<u64, Error> {
        self.apply_diff_with(id, diff, &ApplyDiffOptions::default())
    }

    /// The same, for files that are to have other owners than the archive says, or not all of them.
    ///
    /// Returns what [`Store::apply_diff`] does: [`Error::InUse`] if it is mounted, or others stand on it, and [`Error::Import`] with
    /// [`Unmapped`](crate::ImportError::Unmapped) if the maps have not all owners.
    pub fn apply_diff_with(
        &self,
        id: &LayerId,
        diff: impl Read + Send,
        options: &ApplyDiffOptions,
    ) -> Result<u64, Error> {
        self.layer(id)?;
        let options = ApplyOptions {
            allow_empty: true,
            id_maps: self.maps_or_own(options.id_maps.as_ref()).cloned(),
            ignore_chown_errors: options.ignore_chown_errors,
            ..ApplyOptions::default()
        };
        let layer = self.store().apply_diff(id, diff, &options)?;
        self.store().diff_size(&layer, None)
    }

    /// Fills a directory that belongs to no layer yet, by what `differ` does with the store: [`Store::stage_diff`] for an
    /// archive, or [`Store::stage_chunked`] for one of which only parts are fetched.
    ///
    /// Returns what `differ` does.
    pub fn apply_diff_with_differ(
        &self,
        differ: impl FnOnce(&Store) -> Result<StagedDiff, Error>,
    ) -> Result<StagedDiff, Error> {
        differ(self.store())
    }

    /// Changes a layer by what was staged, and returns the bytes of the files that it has then.
    ///
    /// Returns what [`StagedDiff::apply_to`] does.
    pub fn apply_diff_from_staging_directory(&self, id: &LayerId, staged: StagedDiff) -> Result<u64, Error> {
        let layer = staged.apply_to(id)?;
        self.store().diff_size(&layer, None)
    }

    /// Deletes what was staged. So does dropping it.
    pub fn cleanup_staging_directory(&self, staged: StagedDiff) {
        drop(staged);
    }

    /// Single files that a layer shows, without a mount.
    ///
    /// Returns what [`Store::files`] does.
    pub fn diff_getter(&self, id: &LayerId) -> Result<LayerFiles<'_>, Error> {
        self.store().files(id)
    }
}
