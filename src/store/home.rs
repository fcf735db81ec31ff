//! The store that a layer is in which is to be changed, and the one that mounts it.

use layerstore_schema::table::Owner;

use crate::error::{Error, LookupError};
use crate::meta::Query;

use super::Store;
use super::lease::keeper_of;
use super::part::{Part, Role};
use super::users::standing_on;

/// Where a layer can be changed.
#[derive(Clone, Copy)]
pub(super) struct Home<'s> {
    /// The store that has the layer.
    pub(super) store: &'s Store,
    /// The store that has that one for its images, if so: its containers stand on the layer, and its run root has the
    /// mounts.
    pub(super) user: Option<&'s Store>,
}

impl Store {
    /// The store that has new layers which are no container's.
    pub(super) fn home_of_new(&self) -> Home<'_> {
        match self.separate_images() {
            Some(images) => Home { store: images, user: Some(self) },
            None => Home { store: self, user: None },
        }
    }

    /// Where a layer is, to change it.
    ///
    /// Returns [`Error::Lookup`] if it is nowhere, and [`Error::InOtherStore`] if it is in a store that is only read.
    pub(super) fn layer_home(&self, layer: &str) -> Result<Home<'_>, Error> {
        let view = self.begin_read()?;
        let home = view.home(Owner::Layer, layer)?;
        let home = home.ok_or_else(|| LookupError::NotFound { kind: "layer", key: layer.to_owned() })?;
        Ok(match home.role() {
            Role::Images => self.home_of_new(),
            Role::Own | Role::Run => Home { store: self, user: None },
            Role::Other => {
                let (id, root) = (layer.to_owned(), home.store().root().to_owned());
                return Err(Error::InOtherStore { kind: "layer", id, root });
            }
        })
    }
}

impl Store {
    /// Refuses what would stand on a layer that only the own store has, and be in the separate store for images.
    ///
    /// Returns [`Error::OutsideImages`] if it is so.
    pub(crate) fn refuse_outside_images(&self, layer: &str) -> Result<(), Error> {
        let Some(images) = self.separate_images() else { return Ok(()) };
        let view = self.begin_read()?;
        match view.home(Owner::Layer, layer)?.map(Part::role) {
            Some(Role::Own | Role::Run) => Err(Error::OutsideImages {
                layer: layer.to_owned(),
                root: self.root().to_owned(),
                images: images.root().to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

impl<'s> Home<'s> {
    /// The handle that sees all that the layer can stand on, and what stands on it.
    pub(super) fn seen_from(&self) -> &'s Store {
        self.user.unwrap_or(self.store)
    }

    /// Runs `body` while nobody mounts.
    pub(super) fn hold_mounts<T>(&self, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match self.user {
            Some(user) => user.run()?.hold(|| self.store.run()?.hold(body)),
            None => self.store.run()?.hold(body),
        }
    }

    /// Runs `body`, in which the run lock of the layer's store is taken, while nobody mounts by way of another.
    pub(super) fn hold_user<T>(&self, body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        match self.user {
            Some(user) => user.run()?.hold(body),
            None => body(),
        }
    }

    /// Refuses an operation on the layer that a mount forbids.
    pub(super) fn refuse_mounted(&self, layer: &str) -> Result<(), Error> {
        for store in [Some(self.store), self.user].into_iter().flatten() {
            store.refuse_mounted(layer, || format!("the layer {layer}"))?;
        }
        Ok(())
    }

    /// Refuses an operation that gives the layer another directory, if it or one above is mounted.
    pub(super) fn refuse_mounted_above(&self, layer: &str) -> Result<(), Error> {
        for store in [Some(self.store), self.user].into_iter().flatten() {
            store.refuse_mounted_above(&[layer.to_owned()])?;
        }
        Ok(())
    }

    /// Refuses to change a layer that others need as it is.
    pub(super) fn refuse_used(
        &self,
        txn: &impl Query,
        layer: &str,
        change_under_others: bool,
    ) -> Result<(), Error> {
        if !change_under_others
            && let Some(above) = standing_on(&self.seen_from().begin_read()?, layer, &Default::default())?
        {
            return Err(above.into());
        }
        match keeper_of(txn, &[(Owner::Layer, layer)])? {
            Some(kept) => Err(kept.into()),
            None => Ok(()),
        }
    }

    /// Whether the next boot drops the layer, with its container.
    pub(super) fn is_transient(&self, layer: &str) -> Result<bool, Error> {
        let view = self.store.begin_read()?;
        Ok(view.home(Owner::Layer, layer)?.map(Part::role) == Some(Role::Run))
    }
}
