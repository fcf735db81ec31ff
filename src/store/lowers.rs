//! Reading layers that are written to, with what mounts have left of them in the layers below.
//!
//! What such a layer has is told by what those below it show, and some of these may be written to as well. So a chain is
//! read from its lowest layer up, each layer once, and nothing calls itself for the layer below.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, KeptFile, Life};
use crate::error::Error;
use crate::image;
use crate::layer::{self, Holder, Place, Stack};
use crate::sys::userns::{IdExtent, IdMaps};
use crate::types::{Metadata, TreeDigest};

use super::foreign::{owned, refuse_foreign};
use super::view::View;
use super::written::{Elsewhere, Places, Root, Written, failed};

/// Layers as others stand on them, each as it was when it was read.
#[derive(Debug, Default)]
pub(crate) struct Lowers<'s> {
    /// Lowest first.
    layers: Vec<Lower<'s>>,
    stack: Stack,
}

#[derive(Debug)]
struct Lower<'s> {
    record: LayerRecord,
    elsewhere: Arc<Places<'s>>,
}

/// What a layer's directory has, and what its index.
struct Found<'s> {
    written: Written<'s>,
    index: Option<Arc<OwnedFd>>,
    kept: Vec<KeptFile>,
}

impl<'s> Lowers<'s> {
    /// What they show together.
    pub(crate) fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Puts a layer that has been read on top.
    pub(super) fn push(&mut self, layer: LayerRecord, listing: Arc<Manifest>, elsewhere: Arc<Places<'s>>) {
        self.stack = self.stack.push(listing);
        self.layers.push(Lower { record: layer, elsewhere });
    }

    /// The layer at a position of the stack.
    fn at(&self, position: usize) -> Option<&Lower<'s>> {
        self.layers.iter().rev().nth(position)
    }
}

impl<'s> View<'s> {
    /// What a layer that is written to has, for who makes something of it that lasts. The layers below are read if mounts
    /// have left something there.
    ///
    /// Returns [`Error::Scan`] if a directory cannot be read, or what was left below is not there.
    pub(crate) fn written(&self, layer: &LayerRecord) -> Result<Written<'s>, Error> {
        self.written_in(layer, Life::Still)
    }

    /// The same for who only looks, while others may write to it.
    ///
    /// Returns what [`written`](Self::written) does.
    pub(crate) fn being_written(&self, layer: &LayerRecord) -> Result<Written<'s>, Error> {
        self.written_in(layer, Life::Changing)
    }

    fn written_in(&self, layer: &LayerRecord, life: Life) -> Result<Written<'s>, Error> {
        let found = self.found(layer, life)?;
        if found.is_all() {
            return Ok(found.written);
        }
        self.brought_back(layer, found, &self.lowers(layer.parent.as_deref())?)
    }

    /// As [`being_written`](Self::being_written), for who has read all that is below the layer.
    pub(crate) fn being_written_on(
        &self,
        lowers: &Lowers<'s>,
        layer: &LayerRecord,
    ) -> Result<Written<'s>, Error> {
        let found = self.found(layer, Life::Changing)?;
        if found.is_all() { Ok(found.written) } else { self.brought_back(layer, found, lowers) }
    }

    /// What a layer has. Of one that is written to, only names and metadata are read, as they are now.
    pub(crate) fn listing(&self, layer: &LayerRecord) -> Result<Arc<Manifest>, Error> {
        match layer.content {
            LayerContent::Sealed(tree) => Ok(self.manifest(&TreeDigest(tree))?),
            LayerContent::Writable(_) | LayerContent::Additional(_) => {
                Ok(Arc::new(self.being_written(layer)?.listing()?))
            }
        }
    }

    /// As [`listing`](Self::listing), for who has read all that is below the layer.
    pub(crate) fn listing_on(
        &self,
        lowers: &Lowers<'s>,
        layer: &LayerRecord,
    ) -> Result<Arc<Manifest>, Error> {
        Ok(self.listed(lowers, layer)?.0)
    }

    fn listed(
        &self,
        lowers: &Lowers<'s>,
        layer: &LayerRecord,
    ) -> Result<(Arc<Manifest>, Arc<Places<'s>>), Error> {
        match layer.content {
            LayerContent::Sealed(tree) => Ok((self.manifest(&TreeDigest(tree))?, Arc::default())),
            LayerContent::Writable(_) | LayerContent::Additional(_) => {
                let written = self.being_written_on(lowers, layer)?;
                Ok((Arc::new(written.listing()?), written.elsewhere()))
            }
        }
    }

    /// A layer and all below it, as [`listing`](Self::listing) says.
    pub(crate) fn lowers(&self, top: Option<&str>) -> Result<Lowers<'s>, Error> {
        let mut lowers = Lowers::default();
        let chain = top.map(|top| self.chain(top)).transpose()?.unwrap_or_default();
        for layer in chain.into_iter().rev() {
            let (listing, elsewhere) = self.listed(&lowers, &layer)?;
            lowers.push(layer, listing, elsewhere);
        }
        Ok(lowers)
    }

    /// What a layer and all below it show.
    pub(crate) fn stack(&self, top: Option<&str>) -> Result<Stack, Error> {
        Ok(self.lowers(top)?.stack)
    }

    /// What the layer has itself.
    fn found(&self, layer: &LayerRecord, life: Life) -> Result<Found<'s>, Error> {
        let directory = self.directory(layer)?;
        let (root, namespace) = (directory.open(&layer.id)?, directory.layout().xattrs());
        let entries = match layer.content {
            LayerContent::Additional(_) => disk::list_of_another(root.as_fd(), namespace)?,
            _ => disk::list_as_left(root.as_fd(), namespace, life)?,
        };
        if matches!(layer.content, LayerContent::Writable(_)) {
            refuse_foreign(directory.layout(), owned(&entries))?;
        }
        let index = match layer.content {
            LayerContent::Writable(_) => directory.index(life)?.map(Arc::new),
            _ => None,
        };
        let kept = match &index {
            Some(index) => disk::list_kept(index.as_fd(), namespace, life, &entries)?,
            None => Vec::new(),
        };
        let by_program = disk::is_by_program(root.as_fd(), namespace).map_err(failed("examine"))?;
        Ok(Found { written: Written::new(root, entries, life, by_program), index, kept })
    }

    /// Brings back what mounts have left of a layer in those below it.
    fn brought_back(
        &self,
        layer: &LayerRecord,
        found: Found<'s>,
        lowers: &Lowers<'s>,
    ) -> Result<Written<'s>, Error> {
        let Found { mut written, index, kept } = found;
        let maps = self.shown_ids(layer)?;
        let owned = |metadata: &mut Metadata| {
            let Some((to_host, reversed)) = &maps else { return };
            // Whom the mount shows as nobody stays that in the layer.
            if let Some(owner) = to_host.to_host(metadata.uid, metadata.gid) {
                (metadata.uid, metadata.gid) = owner;
            }
            layer::map_xattrs(&mut metadata.xattrs, reversed);
        };
        let handle = |position: usize, path: &[u8]| {
            let layer = &lowers.at(position)?.record;
            let root = self.directory(layer).ok()?.open(&layer.id).ok()?;
            disk::handle(root.as_fd(), path)
        };
        let resolved = layer::resolve(written.take_entries(), kept, &lowers.stack, owned, handle)?;
        let elsewhere = self.places(layer, lowers, index.as_ref(), resolved.elsewhere)?;
        written.bring_back(resolved.entries, elsewhere, resolved.kept);
        Ok(written)
    }

    /// How a mount of the layer shows the ids of the layers below, if not as they are: forwards and backwards.
    fn shown_ids(&self, layer: &LayerRecord) -> Result<Option<(IdMaps, IdMaps)>, Error> {
        let maps = self.container_on(&layer.id)?.as_ref().and_then(image::id_maps);
        let swap = |map: &[IdExtent]| -> Vec<IdExtent> {
            map.iter()
                .map(|extent| IdExtent { inside: extent.outside, outside: extent.inside, ..*extent })
                .collect()
        };
        Ok(maps.map(|maps| {
            let reversed = IdMaps { uids: swap(&maps.uids), gids: swap(&maps.gids) };
            (maps, reversed)
        }))
    }

    /// Places in the layers below one, or in its index, as places in directories. Where the layer below has not the bytes
    /// itself, they are where that one says.
    fn places(
        &self,
        layer: &LayerRecord,
        lowers: &Lowers<'s>,
        index: Option<&Arc<OwnedFd>>,
        places: HashMap<Vec<u8>, Place>,
    ) -> Result<Places<'s>, Error> {
        let mut found = HashMap::with_capacity(places.len());
        for (path, place) in places {
            let lower = match place.holder {
                Holder::Below(position) => lowers.at(position),
                Holder::Directory | Holder::Index => None,
            };
            let elsewhere = match (lower.and_then(|lower| lower.elsewhere.get(&place.path)), index) {
                (Some(further), _) => further.clone(),
                (None, Some(index)) if place.holder == Holder::Index => {
                    Elsewhere { holder: Root::Index(index.clone()), path: place.path, content: place.content }
                }
                (None, _) => {
                    let layer = lower.map_or(layer, |lower| &lower.record);
                    let holder = Root::Layer(layer.id.clone(), self.directory(layer)?);
                    Elsewhere { holder, path: place.path, content: place.content }
                }
            };
            found.insert(path, elsewhere);
        }
        Ok(found)
    }
}

impl Found<'_> {
    /// Whether mounts have left nothing of the layer in those below.
    fn is_all(&self) -> bool {
        self.written.left_below().is_empty() && self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests;
