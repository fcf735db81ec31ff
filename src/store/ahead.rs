//! What is known to fail before a store is opened: whoever makes stores by opening them asks first, so that a mistake makes none.

use std::path::{Path, PathBuf};

use crate::disk;
use crate::error::{Error, MountError, QuotaError};
use crate::overlay;

use super::container::checked_names;
use super::image::{check_flags, prepare};
use super::mount::MASKED;
use super::{ContainerOptions, IdMapping, LayerOptions, Quota, StoreOptions};

impl StoreOptions {
    /// Whether layers and containers that are created in the store can have a [`Quota`], and why they cannot. The store need not
    /// be there.
    ///
    /// Returns what [`Store::can_limit`](crate::Store::can_limit) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::StoreOptions;
    ///
    /// let options = StoreOptions::at(dir.path().join("store"));
    /// if let Err(reason) = options.can_limit() {
    ///     println!("{reason}");
    /// }
    /// assert!(!options.root().exists());
    /// ```
    pub fn can_limit(&self) -> Result<(), QuotaError> {
        can_limit_at(&self.root)
    }

    /// Whether a container without an image could be created in a store that is opened so, as far as that can be said while
    /// nobody has opened it: a caller makes no store for what cannot be done.
    ///
    /// Returns what [`Store::create_container`](crate::Store::create_container) does, but for what is said of other things in
    /// the store.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, IdMapping, IdMaps, StoreOptions};
    ///
    /// let store = StoreOptions::at(dir.path().join("store"));
    /// let mut options = ContainerOptions::named("web");
    /// store.check_container(&options)?;
    /// // Nobody is root in it.
    /// options.ids = IdMapping::Maps(IdMaps::both(vec!["1:1:1".parse()?]));
    /// assert!(store.check_container(&options).is_err());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn check_container(&self, options: &ContainerOptions) -> Result<(), Error> {
        checked_names(&options.names)?;
        check_flags(&options.flags)?;
        overlay::check(&options.mount_options)?;
        prepare(&options.items)?;
        self.refuse_masked(&options.ids)?;
        self.check_ids(&options.ids)?;
        self.check_quota(options.quota, &self.root)
    }

    /// The same of a layer: whether it could be created, or made with an archive.
    ///
    /// Returns what [`Store::create_layer`](crate::Store::create_layer) does, but for what is said of other things in the store.
    pub fn check_layer(&self, options: &LayerOptions) -> Result<(), Error> {
        checked_names(&options.names)?;
        check_flags(&options.flags)?;
        prepare(&options.items)?;
        let home = self.image_store_root.as_ref().unwrap_or(&self.root);
        self.check_quota(options.quota, home)
    }

    /// Ids of its own that no mount could show.
    pub(super) fn refuse_masked(&self, ids: &IdMapping) -> Result<(), Error> {
        match ids {
            IdMapping::Host => Ok(()),
            _ if self.force_mask.is_none() => Ok(()),
            _ => Err(MountError::IdMap { reason: MASKED }.into()),
        }
    }

    /// What contradicts itself, or asks for what is not to be had.
    pub(super) fn refuse_contradictions(&self) -> Result<(), Error> {
        if self.force_mask.is_some() && self.mount_program.is_none() {
            return Err(MountError::Masked { reason: "give the store a mount program" }.into());
        }
        if self.use_composefs && self.mount_program.is_some() && self.prefer_mount_program {
            return Err(MountError::Composefs { reason: overlay::BY_PROGRAM }.into());
        }
        Ok(())
    }

    /// Limits that could not be kept.
    pub(super) fn check_quota(&self, asked: Quota, root: &Path) -> Result<(), Error> {
        match asked.or(self.quota).is_none() {
            true => Ok(()),
            false => Ok(can_limit_at(root)?),
        }
    }
}

/// As it would be in a directory that may not be there yet.
fn can_limit_at(root: &Path) -> Result<(), QuotaError> {
    let failed = |source| QuotaError::Io { action: "find", path: root.to_owned(), source };
    let absolute: PathBuf = std::path::absolute(root).map_err(failed)?;
    disk::can_limit_at(&absolute)
}
