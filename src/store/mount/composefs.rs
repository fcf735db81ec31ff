//! An image in place of directories.

use std::path::PathBuf;

use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::composefs::{self, Built, Data, Stack};
use crate::disk::{DiffName, Layout, Part, Subdirectory, Trash};
use crate::error::{Error, LayoutError, MountError};
use crate::meta::Query;
use crate::overlay::MountRequest;
use crate::store::view::View;
use crate::store::{Store, SyncMode};
use crate::types::TreeDigest;

use super::{absolute, remove_image_quietly};

impl Store {
    /// Puts an image in the place of the lowest directories of a mount: of all layers up to the first that is written to,
    /// or that has no files named by their hashes and is in a store that is only read. What is missing is made.
    ///
    /// Returns [`Error::Mount`] with [`MountError::Composefs`] if this kernel mounts none: before one is made.
    pub(super) fn use_image(
        &self,
        txn: &View<'_>,
        chain: &[LayerRecord],
        request: &mut MountRequest,
    ) -> Result<(), Error> {
        if let Some(reason) = self.probe()?.against_images() {
            return Err(MountError::Composefs { reason }.into());
        }
        let mut stack = Stack { layers: Vec::new(), namespace: self.layout().xattrs() };
        let (mut data, mut plain, mut top) = (Vec::new(), request.lowers.len(), None);
        // The directories are those of the chain, but for one that is written to.
        let layers = chain.iter().skip(usize::from(request.upper.is_some()));
        let lowers: Vec<_> = layers.zip(&request.lowers).enumerate().collect();
        for (place, (layer, path)) in lowers.into_iter().rev() {
            let LayerContent::Sealed(tree) = layer.content else { break };
            let tree = TreeDigest(tree);
            let Some((home, files)) = self.files_of_layer(txn, layer, &tree)? else { break };
            // Of two layers of one tree, the upper one settles what the lower one has.
            if !request.lowers.get(..place).unwrap_or_default().contains(path) {
                stack.layers.insert(0, (tree, txn.manifest(&tree)?));
                data.insert(0, files);
                top = Some(home);
            }
            plain = place;
        }
        // The image is written beside the files of the topmost.
        let Some(home) = top.flatten() else { return Ok(()) };
        let built = composefs::build_image(home.layout(), &stack, &data, || home.sync_image())?;
        let Some(Built { image, data, verified }) = built else { return Ok(()) };
        let image = absolute(&image)?;
        let data = data.iter().map(|path| absolute(path)).collect::<Result<Vec<PathBuf>, _>>()?;
        request.lowers.truncate(plain);
        request.lowers.push(image.clone());
        request.images.insert(image.clone(), Built { image, data, verified });
        Ok(())
    }

    /// The files of a layer, named by their hashes, and the store that has them, if it may be written; `None` if there are
    /// none and none can be made.
    fn files_of_layer<'s>(
        &'s self,
        txn: &View<'s>,
        layer: &LayerRecord,
        tree: &TreeDigest,
    ) -> Result<Option<(Option<&'s Store>, Data)>, Error> {
        let Some(number) = txn.directory(layer)?.number() else { return Ok(None) };
        let Some((part, _)) = txn.diff_of(layer, tree)? else { return Ok(None) };
        let home = part.store();
        let layout = home.layout();
        let writable = (!part.is_other() && !home.is_read_only()).then_some(home);
        if let Some(files) = composefs::find_data(layout, number) {
            return Ok(Some((writable, files)));
        }
        if writable.is_none() {
            return Ok(None);
        }
        home.begin_writing()?;
        let manifest = home.manifest(part.txn()?, tree)?;
        composefs::build_data(layout, &manifest, (number, home.fresh_number()?), || home.sync_image())?;
        // Who gives the directory up removes its files too, if they were there by then. Those that came later are nobody's.
        let now = home.database().begin_read()?.diff(tree)?;
        if now.is_none_or(|now| now.number != number) {
            remove_image_quietly(&place(layout, number));
            return Err(Error::LayerMissing { layer: layer.id.clone(), path: home.diff_path(number) });
        }
        Ok(composefs::find_data(layout, number).map(|files| (writable, files)))
    }

    /// Brings what an image is made of to the disk, before it has its name.
    fn sync_image(&self) -> Result<(), LayoutError> {
        if self.sync_mode() == SyncMode::Off { Ok(()) } else { self.layout().sync_point()?.sync() }
    }

    /// What is wrong with the images of these layers, in words.
    pub(crate) fn flaw_of_images(&self, layers: &[String]) -> Result<Option<String>, Error> {
        let txn = self.begin_read()?;
        for layer in layers {
            let mut stack = Stack { layers: Vec::new(), namespace: self.layout().xattrs() };
            let mut numbers = Vec::new();
            for layer in txn.chain(layer)? {
                let LayerContent::Sealed(tree) = layer.content else { break };
                let Some((part, diff)) = txn.diff_of(&layer, &TreeDigest(tree))? else { break };
                // Those of other stores are not checked here.
                if part.store().uuid() != self.uuid() {
                    break;
                }
                if numbers.contains(&diff.number) {
                    continue;
                }
                numbers.push(diff.number);
                stack.layers.push((TreeDigest(tree), txn.manifest(&TreeDigest(tree))?));
            }
            let flaw = composefs::flaw_of_image(self.layout(), &stack, &numbers);
            if flaw.is_some() {
                return Ok(flaw);
            }
        }
        Ok(None)
    }

    /// Removes the images beside `diffs/<number>`, which these layers have, and its files by their hashes.
    ///
    /// Returns [`Error::InUse`] if one of them, or a layer above, is mounted: files of a mount are found when they are opened.
    pub(crate) fn remove_layer_image(&self, layers: &[String], number: u64) -> Result<(), Error> {
        let trash = Trash::open(self.layout())?;
        let image = Part { which: Subdirectory::Composefs, name: DiffName::Entry(number) };
        let discarded = self.hold_run(|_| {
            self.refuse_mounted_above(layers)?;
            Ok(trash.discard(image)?)
        })?;
        if let Some(discarded) = discarded {
            let mut limit = u64::MAX;
            trash.delete(discarded, &mut limit)?;
        }
        Ok(())
    }
}

fn place(layout: &Layout, number: u64) -> PathBuf {
    layout.entry_path(Subdirectory::Composefs, DiffName::Entry(number))
}
