//! All that things show, with the contents of their files, to be compared.

use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::error::Error;
use crate::layer::Stack;
use crate::sys::beneath;
use crate::sys::file::File;
use crate::sys::userns::IdMaps;
use crate::types::TreeDigest;

use super::lowers::Lowers;
use super::part::Directory;
use super::view::View;
use super::written::{Places, Written};
use super::{Store, ThingId};

/// All that a thing shows.
#[derive(Default)]
pub(super) struct Compared<'s> {
    pub(super) stack: Stack,
    /// The layers, topmost first.
    pub(super) files: Vec<Files<'s>>,
}

/// Where the files of a layer are.
#[derive(Clone)]
pub(super) enum Files<'s> {
    /// In the directory of the layer with this id.
    In(String, Directory<'s>),
    /// There or below, as the layer is written to.
    Written(Rc<Written<'s>>),
}

impl<'s> Files<'s> {
    /// Those whose bytes are not in the directory of the layer.
    pub(super) fn elsewhere(&self) -> Arc<Places<'s>> {
        match self {
            Files::In(..) => Arc::default(),
            Files::Written(written) => written.elsewhere(),
        }
    }

    pub(super) fn open(&self, path: &[u8]) -> io::Result<File> {
        match self {
            Files::In(layer, directory) => {
                // A process has not as many descriptors as an image may have layers.
                let root = directory.open(layer).map_err(io::Error::other)?;
                Ok(beneath::open_file_beneath(root.as_fd(), path)?.into())
            }
            Files::Written(written) => written.open(path),
        }
    }
}

/// A layer of what is compared.
#[derive(Clone)]
struct Level<'s> {
    shown: Arc<Manifest>,
    /// The same as those above have it.
    below: Arc<Manifest>,
    files: Files<'s>,
}

impl<'s> Level<'s> {
    /// Reads a layer above others, with the container's ids for what a mount with these maps has written.
    fn read(
        txn: &View<'s>,
        lowers: &Lowers<'s>,
        layer: &LayerRecord,
        maps: Option<&IdMaps>,
    ) -> Result<Self, Error> {
        if let LayerContent::Sealed(tree) = &layer.content {
            let shown = txn.manifest(&TreeDigest(*tree))?;
            let files = Files::In(layer.id.clone(), txn.directory(layer)?);
            return Ok(Level { below: shown.clone(), shown, files });
        }
        let mut written = txn.being_written_on(lowers, layer)?;
        let unmapped = maps.map(|_| written.listing().map(Arc::new)).transpose()?;
        maps.map(|maps| written.map_owners(maps)).transpose()?;
        let shown = Arc::new(written.scan()?);
        let below = unmapped.unwrap_or_else(|| shown.clone());
        Ok(Level { shown, below, files: Files::Written(Rc::new(written)) })
    }
}

impl Store {
    /// All that two things show, with the contents of files; no thing shows nothing.
    pub(super) fn compared(
        &self,
        of: &ThingId,
        base: Option<&ThingId>,
    ) -> Result<(Compared<'_>, Compared<'_>), Error> {
        self.compared_with(of, base, None)
    }

    /// The same with the container's ids for what a mount with these maps has written into the first one's own layer.
    pub(super) fn compared_with(
        &self,
        of: &ThingId,
        base: Option<&ThingId>,
        maps: Option<&IdMaps>,
    ) -> Result<(Compared<'_>, Compared<'_>), Error> {
        let txn = self.begin_read()?;
        let mapped = maps.map(|maps| Ok::<_, Error>((self.layer_of(&txn, of)?.id, maps))).transpose()?;
        let mut known: HashMap<PathBuf, Level<'_>> = HashMap::new();
        let mut read = |thing: &ThingId| -> Result<Compared<'_>, Error> {
            let top = self.layer_of(&txn, thing)?;
            txn.verify_chain(&top.id)?;
            let (mut lowers, mut stack, mut files) = (Lowers::default(), Stack::default(), Vec::new());
            for layer in txn.chain(&top.id)?.into_iter().rev() {
                let directory = txn.directory(&layer)?.path();
                let level = match known.get(&directory) {
                    Some(level) => level.clone(),
                    None => {
                        let maps = mapped.as_ref().filter(|(id, _)| *id == layer.id).map(|(_, maps)| *maps);
                        let level = Level::read(&txn, &lowers, &layer, maps)?;
                        known.insert(directory, level.clone());
                        level
                    }
                };
                lowers.push(layer, level.below, level.files.elsewhere());
                stack = stack.push(level.shown);
                files.push(level.files);
            }
            files.reverse();
            Ok(Compared { stack, files })
        };
        let of = read(of)?;
        Ok((of, base.map(read).transpose()?.unwrap_or_default()))
    }
}
