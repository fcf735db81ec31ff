//! Taking everything away, or one thing whoever needs it; and ending all mounts.

use std::collections::HashMap;

use layerstore_schema::record::{ContainerRecord, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::RunLayout;
use crate::error::{Error, LookupError, MetaError};
use crate::meta::{Freed, Query, ReadTxn};
use crate::overlay::UnmountMode;
use crate::sys::moment;
use crate::types::LayerId;

use super::garbage::Uncollected;
use super::part::Role;
use super::remove::{EVERYTHING, Mounts};
use super::snapshot::refuse_snapshot;
use super::users::shown;
use super::{Store, ThingId};

/// What [`Store::wipe_with`] removes besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WipeOptions {
    /// The [snapshots](crate::Layer::snapshot_name) of containerd's, from below whatever mounts it has made of them. Its own records go on
    /// naming them.
    pub snapshots: bool,
    /// What is mounted, even while processes use it, in whatever mount namespace.
    pub mounts: bool,
}

impl Store {
    /// Removes a thing without looking who needs it: layers above a layer, images and containers on it, leases. They stay,
    /// and name what is not there; [`check`](Self::check) finds that, and [`repair`](Self::repair) mends it or, with force,
    /// removes them. A container goes with its layer, an image alone. What is mounted is unmounted, even while
    /// processes use it, and in other mount namespaces too. A [snapshot](crate::Layer::snapshot_name) of containerd's stays: that
    /// is mounted where nobody can see it.
    ///
    /// [`remove_container`](Self::remove_container), [`remove_image`](Self::remove_image) and
    /// [`remove_layer`](Self::remove_layer) remove what nobody needs.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there, and [`Error::InUse`] if it is a snapshot.
    pub fn remove_regardless(&self, of: impl Into<ThingId>) -> Result<(), Error> {
        let of = of.into();
        let missing = || LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() };
        let view = self.begin_read()?;
        let part = view.home(of.owner(), of.as_str())?.ok_or_else(missing)?;
        let (store, role) = (part.store(), part.role());
        if let ThingId::Layer(layer) = &of
            && let Some(layer) = view.layer(layer.as_str())?
        {
            refuse_snapshot(&layer, None)?;
        }
        drop(view);
        match role {
            Role::Own => self.remove_own_regardless(&of)?,
            Role::Images => {
                if let ThingId::Layer(layer) = &of {
                    self.end_mounts_of_layer(layer)?;
                }
                self.run()?.hold(|| {
                    if let ThingId::Layer(layer) = &of {
                        self.refuse_mounted(layer.as_str(), || format!("the layer {layer}"))?;
                    }
                    store.remove_own_regardless(&of)
                })?;
            }
            Role::Run => {
                let layer = self.layer_of(&self.begin_read()?, &of)?;
                self.end_mounts_of_layer(&layer.id.parse()?)?;
                let id = match &of {
                    ThingId::Container(id) => id.clone(),
                    _ => self.container_by_layer(&layer.id.parse()?)?.id,
                };
                if let Some(doomed) = self.doom_transient(&id, true)? {
                    doomed.delete(self, EVERYTHING);
                }
                self.drop_run_directory(&id.into());
            }
            Role::Other => {
                return Err(Error::ReadOnly { root: store.root().to_owned(), by_filesystem: false });
            }
        }
        self.drop_run_directory(&of);
        Ok(())
    }

    fn remove_own_regardless(&self, of: &ThingId) -> Result<(), Error> {
        let missing = || LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() };
        let layer = {
            let txn = self.database().begin_read()?;
            match of {
                ThingId::Layer(id) => Some(txn.layer(id.as_str())?.ok_or_else(missing)?.id),
                ThingId::Image(id) => txn.image(id.as_str())?.ok_or_else(missing).map(|_| None)?,
                ThingId::Container(id) => Some(txn.container(id.as_str())?.ok_or_else(missing)?.layer),
            }
        };
        if let Some(layer) = &layer {
            self.end_mounts_of_layer(&layer.parse()?)?;
        }
        let is_done = |txn: &ReadTxn| is_gone(txn, of);
        self.write_removing(Mounts::Wait, EVERYTHING, is_done, |txn| {
            if is_gone(txn, of)? {
                return Err(missing().into());
            }
            let mut freed = match of {
                ThingId::Layer(_) => Freed::default(),
                ThingId::Image(id) => txn.remove_image(id.as_str())?,
                ThingId::Container(id) => txn.remove_container(id.as_str())?,
            };
            if let Some(layer) = &layer
                && txn.layer(layer)?.is_some()
            {
                self.refuse_mounted(layer, || format!("the layer {layer}"))?;
                freed.add(txn.remove_layer(layer)?);
            }
            Ok((freed, ()))
        })?;
        self.drop_run_directory(of);
        Ok(())
    }

    /// Removes every container, image and layer, with all that was written into them, in one transaction; leases keep
    /// nothing. What is mounted is unmounted before, unless processes use it, or it is in another mount namespace. The store stays, empty.
    ///
    /// A [separate store for images](crate::StoreOptions::image_store_root) is emptied after that, and
    /// [transient](crate::StoreOptions::transient) containers go before, in transactions of their own. Stores that are only
    /// read stay as they are.
    ///
    /// Returns [`Error::Mount`] with [`Busy`](crate::MountError::Busy) if a mount is in use, and [`Error::InUse`] if something is
    /// mounted meanwhile, or there is a [snapshot](crate::Layer::snapshot_name) of containerd's. Nothing is removed then, but
    /// for transient containers.
    pub fn wipe(&self) -> Result<(), Error> {
        self.wipe_with(&WipeOptions::default()).map(drop)
    }

    /// As [`wipe`](Self::wipe), with what `options` say. Returns the files that could not be deleted, such as a directory that something
    /// else is mounted in: they are garbage by now.
    ///
    /// Returns what `wipe` does.
    pub fn wipe_with(&self, options: &WipeOptions) -> Result<Vec<Uncollected>, Error> {
        self.unmount_for_wipe(options)?;
        let mut left = Vec::new();
        while !self.wipe_own(options, &mut left)? || !self.wipe_images(options, &mut left)? {}
        Ok(left)
    }

    /// Unmounts what a wipe unmounts, and removes nothing: for who goes into a user namespace to wipe, where there are only copies of the
    /// mounts. What is mounted again meanwhile, a wipe finds.
    ///
    /// Returns [`Error::Mount`] with [`Busy`](crate::MountError::Busy) if a mount is in use, and what [`check_wipe`](Self::check_wipe) does; that
    /// before anything is unmounted, as far as this process may ask the kernel, which an ordinary user outside of a user namespace may not.
    pub fn unmount_for_wipe(&self, options: &WipeOptions) -> Result<(), Error> {
        self.check_wipe(options)?;
        if options.mounts {
            let mounted = RunLayout::layers_with_mount_points(&self.run_root())?;
            return mounted.iter().try_for_each(|layer| self.end_mounts_of_layer(layer));
        }
        let mut mounted = self.mounted_layers()?.into_iter();
        mounted.try_for_each(|layer| self.unmount_layer(&layer, UnmountMode::Plain))
    }

    /// Tells whether a snapshot, or what another mount namespace writes to, keeps the store from being wiped. Nothing is changed, and what
    /// this says may be outdated when it returns: a wipe looks for itself.
    ///
    /// Returns [`Error::InUse`] if there is one that is not to go.
    pub fn check_wipe(&self, options: &WipeOptions) -> Result<(), Error> {
        for store in [Some(self), self.separate_images()].into_iter().flatten() {
            let layers = store.database().begin_read()?.layers()?;
            layers.iter().try_for_each(|layer| options.refuse(layer))?;
        }
        if options.mounts { Ok(()) } else { self.refuse_written_elsewhere() }
    }

    /// Empties the separate store for images, if there is one; `false` if somebody has made a container since the own store
    /// was emptied.
    fn wipe_images(&self, options: &WipeOptions, left: &mut Vec<Uncollected>) -> Result<bool, Error> {
        let Some(images) = self.separate_images() else { return Ok(true) };
        moment::pass("own wiped");
        // Before anybody has to wait for it.
        images.check_wipe(options)?;
        self.hold_users(|| {
            if !self.begin_read()?.containers()?.is_empty() {
                return Ok(false);
            }
            for layer in images.database().begin_read()?.layers()? {
                self.refuse_mounted(&layer.id, || format!("the layer {}", layer.id))?;
            }
            left.extend(images.wipe_with(options)?);
            Ok(true)
        })
    }

    /// The containers that the next boot drops.
    fn transient_containers(&self) -> Result<Vec<ContainerRecord>, Error> {
        match self.known_transient(&self.database().begin_read()?)? {
            Some(run) => Ok(run.rows().begin_read()?.containers()?),
            None => Ok(Vec::new()),
        }
    }

    /// Empties the store itself; `false` if somebody has made a transient container meanwhile.
    fn wipe_own(&self, options: &WipeOptions, left: &mut Vec<Uncollected>) -> Result<bool, Error> {
        for container in self.transient_containers()? {
            match self.begin_removing_container(&container.id.parse()?) {
                Err(Error::Lookup(LookupError::NotFound { .. })) => {}
                removal => left.extend(removal?.finish()),
            }
        }
        moment::pass("transient wiped");
        let is_done = |txn: &ReadTxn| Ok(txn.counts()? == (0, 0, 0));
        let (doomed, things) = self.write_dooming(Mounts::Wait, is_done, |txn| {
            let (mut freed, mut things) = (Freed::default(), Vec::new());
            if !self.transient_containers()?.is_empty() {
                return Ok((freed, None));
            }
            let mut containers = HashMap::new();
            for container in txn.containers()? {
                freed.add(txn.remove_container(&container.id)?);
                let shown = shown(&container.names, &container.id);
                containers.insert(container.layer, format!("the container {shown}"));
                things.push((Owner::Container, container.id));
            }
            for image in txn.images()? {
                freed.add(txn.remove_image(&image.id)?);
                things.push((Owner::Image, image.id));
            }
            for layer in txn.layers()? {
                options.refuse(&layer)?;
                let container = containers.get(&layer.id);
                self.refuse_mounted(&layer.id, || {
                    container.cloned().unwrap_or_else(|| format!("the layer {}", layer.id))
                })?;
                freed.add(txn.remove_layer(&layer.id)?);
            }
            Ok((freed, Some(things)))
        })?;
        left.extend(doomed.delete(self, EVERYTHING));
        let Some(things) = things else { return Ok(false) };
        for (owner, id) in things {
            let thing = match owner {
                Owner::Container => id.parse().map(ThingId::Container),
                _ => id.parse().map(ThingId::Image),
            };
            // What is no id has no directory.
            if let Ok(thing) = thing {
                self.drop_run_directory(&thing);
            }
        }
        Ok(true)
    }

    /// Ends all mounts of the store in this mount namespace, if `force` says so, even while processes use them. Returns the
    /// layers that are mounted after that: all that were, without `force`. Sorted by id.
    ///
    /// The store itself has nothing to be shut down: nothing runs when no call does.
    ///
    /// Returns [`Error::Mount`] if a mount cannot be taken away, as without the right to.
    pub fn shutdown(&self, force: bool) -> Result<Vec<LayerId>, Error> {
        if force {
            for layer in self.mounted_layers()? {
                self.unmount_if_mounted(&layer)?;
            }
        }
        self.mounted_layers()
    }

    /// The layers that the kernel shows mounted here, those that have no record any more included. Not in the run root of another
    /// store.
    fn mounted_layers(&self) -> Result<Vec<LayerId>, Error> {
        self.run_layout()?;
        Ok(self.mounts()?.into_keys().collect())
    }
}

impl WipeOptions {
    fn refuse(self, layer: &LayerRecord) -> Result<(), Error> {
        if self.snapshots { Ok(()) } else { Ok(refuse_snapshot(layer, None)?) }
    }
}

fn is_gone(txn: &impl Query, of: &ThingId) -> Result<bool, MetaError> {
    Ok(match of {
        ThingId::Layer(id) => txn.layer(id.as_str())?.is_none(),
        ThingId::Image(id) => txn.image(id.as_str())?.is_none(),
        ThingId::Container(id) => txn.container(id.as_str())?.is_none(),
    })
}
