//! Copies of images with other owners, for kernels that map no ids in mounts.
//!
//! The first mount of a container with ids of its own makes the copy, one for each map, and the image has it as one of its
//! mapped top layers. The container's records are as with id-mapped mounts: it stands on the image's own layer, so what it
//! changes, exports and commits does not depend on how it is mounted, and another kernel mounts it by maps again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use layerstore_schema::record::{ContainerRecord, ImageRecord, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::disk::{Stage, Staging};
use crate::error::{Error, InUseError, LookupError, MountError};
use crate::image::{self, id_ranges};
use crate::layer::{self, SealedContent};
use crate::meta::{Query, ReadTxn, WriteTxn};
use crate::sys::userns::IdMaps;
use crate::types::{Digest, LayerId, Timestamp};

use super::Store;
use super::container::random_id;
use super::layer::changed_meanwhile;
use super::part::Part;
use super::remove::{EVERYTHING, Mounts};
use super::users::{Gone, unneeded};
use super::view::View;

/// The label of a copy: which contents it is a copy of.
const COPY_OF: &str = "layerstore.mapped-copy-of";

/// How often a copy is looked for, or made, that others can come in the way of.
const TRIES: usize = 4;

/// What is to be copied.
struct Source {
    image: String,
    /// The topmost layer, and all below it.
    chain: Vec<LayerRecord>,
    /// What the layers contain.
    contents: String,
}

impl Store {
    /// Removes the copies of images with other owners that no container needs, and returns their ids: those for id maps that no
    /// container on the image has. [`mount`](Self::mount) makes a copy where ids cannot be mapped, and leaves it for the next container
    /// with the same map. One that has a name or is kept by a lease stays. Of several stores that share a store for images each knows
    /// its own containers only.
    ///
    /// # Locking
    ///
    /// Nobody mounts meanwhile.
    ///
    /// Returns [`Error::Meta`] with [`TransientUnseen`](crate::MetaError::TransientUnseen) if there are transient containers that
    /// cannot be seen.
    pub fn drop_mapped_copies(&self) -> Result<Vec<LayerId>, Error> {
        let mut dropped = match self.separate_images() {
            Some(images) => {
                self.begin_writing()?;
                self.hold_users(|| images.drop_copies_used_by(Some(self)))?
            }
            None => Vec::new(),
        };
        dropped.extend(self.drop_copies_used_by(None)?);
        Ok(dropped.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?)
    }

    /// The same for the images of this store; `user` is the store whose containers stand on images here.
    fn drop_copies_used_by(&self, user: Option<&Store>) -> Result<Vec<String>, Error> {
        self.write_removing(
            Mounts::Wait,
            EVERYTHING,
            |_| Ok(false),
            |txn| {
                let beside = self.rows_beside(user)?;
                let (mut freed, mut dropped) = Default::default();
                for mut image in txn.images()? {
                    let unused = unused_copies(txn, &beside, &image)?;
                    if unused.is_empty() {
                        continue;
                    }
                    image.mapped_top_layers.retain(|copy| !unused.contains(copy));
                    txn.put_image(&image)?;
                    for copy in unused {
                        self.remove_unneeded(txn, &copy, (&beside, user), &mut freed, &mut dropped)?;
                    }
                }
                // Of an image that a repair has removed without knowing what it had.
                for copy in txn.layers()?.iter().filter(|layer| is_copy(layer)) {
                    self.remove_unneeded(txn, &copy.id, (&beside, user), &mut freed, &mut dropped)?;
                }
                Ok((freed, dropped))
            },
        )
    }

    /// The directory that has all that is below a container's layer, with the host's ids: that of a copy which is there, or is
    /// made now. `None` if there is nothing below.
    ///
    /// Returns [`Error::Mount`] with [`MountError::IdMap`] if the image is not this handle's to change, or has a layer that is
    /// still written to.
    pub(crate) fn mapped_copy(&self, layer: &LayerRecord, maps: &IdMaps) -> Result<Option<PathBuf>, Error> {
        let Some(top) = &layer.parent else { return Ok(None) };
        let mut tries = TRIES;
        loop {
            tries = tries.saturating_sub(1);
            let view = self.begin_read()?;
            let (home, image) = image_of(&view, layer)?;
            let source = Source::new(&view, image, top)?;
            let made = match copy_in(&view, &source.image, &source.contents, maps)? {
                Some(copy) => match whole(&view, &copy) {
                    Ok(path) => return Ok(Some(path)),
                    // Nobody else has its files, so it is made anew.
                    Err(error @ (Error::Unsynced(_) | Error::LayerMissing { .. })) => {
                        tracing::warn!(layer = copy.id, %error, "a mapped copy is given up");
                        drop(view);
                        self.forget_copy(home, &source.image, &copy.id)
                    }
                    Err(error) => return Err(error),
                },
                None => {
                    drop(view);
                    self.make_copy(home, &source, maps)
                }
            };
            match made {
                Err(error) if tries == 0 || !is_passing(&error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Copies the layers of an image, and says in one transaction that the image has the copy.
    fn make_copy(&self, store: &Store, source: &Source, maps: &IdMaps) -> Result<(), Error> {
        store.begin_writing()?;
        let _span = tracing::info_span!("copy for an id map", image = source.image).entered();
        let point = store.layout().sync_point()?;
        let staging = self.fill_copy(store, source, maps)?;
        let namespace = store.layout().xattrs();
        let content = SealedContent::read(staging.directory(), &Default::default(), namespace)?;
        let directory = staging.filled();
        let number = directory.number();
        let id: LayerId = random_id()?;
        let content_of_record = LayerContent::Sealed(content.tree.0);
        let record = LayerRecord {
            labels: vec![(COPY_OF.to_owned(), source.contents.clone())],
            read_only: true,
            uid_map: id_ranges(&maps.uids),
            gid_map: id_ranges(&maps.gids),
            ..LayerRecord::new(id.as_str(), Timestamp::now().into(), content_of_record)
        };
        let sync = || store.sync_staged(&point, true);
        let written = store.write_rows(&store.spoiled([&content])?, sync, Mounts::GoOn, |rows| {
            let image = rows.txn.image(&source.image)?;
            let mut image = image.ok_or_else(|| changed_meanwhile(&record.id))?;
            if copy_in(rows.txn, &source.image, &source.contents, maps)?.is_some() {
                // Another process was faster.
                return Ok(((), false));
            }
            let needed = rows.insert_tree(number, &content)?;
            rows.txn.put_layer(&record)?;
            image.mapped_top_layers.push(record.id.clone());
            rows.txn.put_image(&image)?;
            rows.inserted_chain(&record.id)?;
            Ok(((), needed))
        });
        store.settle_directory(directory, written)
    }

    fn fill_copy(&self, store: &Store, source: &Source, maps: &IdMaps) -> Result<Staging, Error> {
        let view = self.begin_read()?;
        // Its owners are changed on the disk, where a mask would keep them in an attribute.
        let stage = Stage::create_unmasked(store.layout())?;
        let staging = Staging::create(&stage, store.fresh_number()?)?;
        let mut layers: Vec<OwnedFd> = Vec::with_capacity(source.chain.len());
        for layer in &source.chain {
            let directory = view.directory(layer)?;
            if layers.is_empty() {
                directory.prepare_above(&layer.id, &staging)?;
            }
            layers.push(directory.open(&layer.id)?);
        }
        layer::fill_mapped(&layers, staging.directory(), store.layout().xattrs(), maps)?;
        Ok(staging)
    }

    /// Takes a copy from an image, which cannot be used any more.
    fn forget_copy(&self, store: &Store, image: &str, copy: &str) -> Result<(), Error> {
        store.write_removing(
            Mounts::Wait,
            EVERYTHING,
            |txn| Ok(txn.layer(copy)?.is_none()),
            |txn| {
                let (mut freed, mut removed) = Default::default();
                if let Some(mut record) = txn.image(image)? {
                    record.mapped_top_layers.retain(|layer| layer != copy);
                    txn.put_image(&record)?;
                    store.remove_unneeded(txn, copy, (&[], None), &mut freed, &mut removed)?;
                }
                Ok((freed, ()))
            },
        )
    }

    /// The layers of the containers that are mounted, or would be, above a copy.
    pub(super) fn layers_above_copy(view: &View<'_>, copy: &str) -> Result<Vec<String>, Error> {
        let mut above = Vec::new();
        for image in view.images_of_layer(copy)? {
            let is_copy = |image: ImageRecord| image.mapped_top_layers.iter().any(|layer| layer == copy);
            if view.image(&image)?.is_some_and(is_copy) {
                for container in view.containers_of_image(&image)? {
                    above.extend(view.container(&container)?.map(|container| container.layer));
                }
            }
        }
        Ok(above)
    }
}

impl Source {
    /// Finds what is below a container's layer.
    fn new(view: &View<'_>, image: ImageRecord, top: &str) -> Result<Self, Error> {
        let chain = view.chain(top)?;
        let mut trees = Vec::new();
        for layer in &chain {
            let LayerContent::Sealed(tree) = &layer.content else {
                let reason = match layer.content {
                    LayerContent::Additional(_) => {
                        "ids cannot be mapped in mounts here, and a layer of the image is in an additional layer store: load \
                         the image without that store, so that it can be copied"
                    }
                    _ => {
                        "ids cannot be mapped in mounts here, and a layer of the image is written to: seal it, so that it can \
                         be copied"
                    }
                };
                return Err(MountError::IdMap { reason }.into());
            };
            trees.extend_from_slice(tree);
        }
        Ok(Source { image: image.id, chain, contents: Digest::sha256(&trees).to_string() })
    }
}

/// The image that a container's layer stands on, and the store that has it.
fn image_of<'s>(view: &View<'s>, layer: &LayerRecord) -> Result<(&'s Store, ImageRecord), Error> {
    let id = view.container_on(&layer.id)?.and_then(|container| container.image);
    let record = id.as_ref().map(|id| view.image(id)).transpose()?.flatten();
    let record =
        record.ok_or_else(|| LookupError::NotFound { kind: "image", key: id.unwrap_or_default() })?;
    match view.home(Owner::Image, &record.id)? {
        Some(home) if !home.is_other() => Ok((Part::store(home), record)),
        _ => {
            let reason = "ids cannot be mapped in mounts here, and the image is in a store that is only read: load it into \
                          this one, where it can be copied";
            Err(MountError::IdMap { reason }.into())
        }
    }
}

/// The copy that an image has of these contents for a map.
fn copy_in(
    txn: &impl image::Lookup,
    image: &str,
    contents: &str,
    maps: &IdMaps,
) -> Result<Option<LayerRecord>, Error> {
    let (uid_map, gid_map) = (id_ranges(&maps.uids), id_ranges(&maps.gids));
    let Some(image) = txn.image(image)? else { return Ok(None) };
    for id in &image.mapped_top_layers {
        let Some(layer) = txn.layer(id)? else { continue };
        let is_copy = layer.labels.iter().any(|(name, value)| name == COPY_OF && value == contents);
        let is_sealed = matches!(layer.content, LayerContent::Sealed(_));
        if is_copy && is_sealed && layer.uid_map == uid_map && layer.gid_map == gid_map {
            return Ok(Some(layer));
        }
    }
    Ok(None)
}

/// The copies of an image that nothing needs: neither a container with this map, which never gets another one, nor a name, a lease or
/// another image.
fn unused_copies(txn: &WriteTxn, beside: &[ReadTxn], image: &ImageRecord) -> Result<Vec<String>, Error> {
    let mut containers = containers_on(txn, &image.id)?;
    for rows in beside {
        containers.extend(containers_on(rows, &image.id)?);
    }
    let mut unused = Vec::new();
    for id in &image.mapped_top_layers {
        let Some(copy) = txn.layer(id)? else { continue };
        let is_wanted = containers
            .iter()
            .any(|container| container.uid_map == copy.uid_map && container.gid_map == copy.gid_map);
        let needed_by_others =
            || unneeded(txn, id, &mut Gone::with_image(&image.id)).map(|found| found.is_empty());
        if is_copy(&copy) && !is_wanted && !needed_by_others()? {
            unused.push(id.clone());
        }
    }
    Ok(unused)
}

/// Whether a layer was made as a copy with other owners.
fn is_copy(layer: &LayerRecord) -> bool {
    layer.labels.iter().any(|(name, _)| name == COPY_OF)
}

fn containers_on(rows: &impl Query, image: &str) -> Result<Vec<ContainerRecord>, Error> {
    let ids = rows.containers_of_image(image)?;
    let records = ids.iter().map(|id| rows.container(id)).collect::<Result<Vec<_>, _>>()?;
    Ok(records.into_iter().flatten().collect())
}

/// The directory of a copy, if all of it is there.
fn whole(view: &View<'_>, copy: &LayerRecord) -> Result<PathBuf, Error> {
    view.verify_layer(copy)?;
    let directory = view.directory(copy)?;
    directory.open(&copy.id)?;
    Ok(directory.path())
}

/// Whether an error may be over when everything is looked at again: a layer has got another directory meanwhile.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::LayerMissing { .. } | Error::InUse(InUseError::Changed { .. }) => true,
        Error::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
