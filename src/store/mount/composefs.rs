//! An image in place of directories.

use std::os::fd::AsFd;
use std::path::PathBuf;

use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::composefs::{self, Built, Data, Stack, StackName};
use crate::disk::{DiffName, Part, Subdirectory, Trash};
use crate::error::{Error, LayoutError, MountError};
use crate::meta::Query;
use crate::overlay::{MountRequest, Probe};
use crate::store::view::View;
use crate::store::{Store, SyncMode};
use crate::sys::moment;
use crate::types::TreeDigest;

use super::plan::visit_lowers;
use super::{absolute, remove_image_quietly};

impl Store {
    /// Puts an image in the place of the lowest directories of a mount: of all layers up to the first that is written to,
    /// or that has no files named by their hashes and is in a store that is only read. What is missing is made.
    ///
    /// Returns [`Error::Mount`] with [`MountError::Composefs`] if this kernel mounts none: before one is made.
    pub(super) fn use_image(
        &self,
        (txn, probe): (&View<'_>, &Probe),
        chain: &[LayerRecord],
        request: &mut MountRequest,
    ) -> Result<(), Error> {
        if let Some(reason) = probe.against_images() {
            return Err(MountError::Composefs { reason }.into());
        }
        // The directories are those of the chain, but for one that is written to.
        let lowers = chain.iter().skip(usize::from(request.upper.is_some())).take(request.lowers.len());
        let (levels, plain) = levels(txn, lowers, |layer, tree| {
            self.level(txn, layer, tree, &|home, number| self.name_files(home, layer, tree, number))
        })?;
        // The image is beside the files of the topmost.
        let Some(top) = levels.first() else { return Ok(()) };
        let data: Vec<Data> = levels.iter().map(|level| level.data.clone()).collect();
        let layout = top.home.layout();
        let built = if top.writable {
            composefs::build_image(layout, &self.stack(txn, &levels)?, &data, || top.home.sync_image())?
        } else {
            let found = composefs::find_image(layout, self.stack_name(&levels), &data);
            if found.is_none() {
                let store = layout.path().display();
                tracing::debug!(%store, "no composefs image in a store that is only read: its directories are mounted");
            }
            found
        };
        let Some(Built { image, data, verified }) = built else { return Ok(()) };
        let image = absolute(&image)?;
        let data = data.iter().map(|path| absolute(path)).collect::<Result<Vec<PathBuf>, _>>()?;
        request.lowers.truncate(plain);
        request.lowers.push(image.clone());
        request.images.insert(image.clone(), Built { image, data, verified });
        Ok(())
    }

    /// A layer of an image; `None` if its files have no names by their hashes, and `name` gives them none. `name` is asked only
    /// of a store that may be written.
    fn level<'s>(
        &'s self,
        txn: &View<'s>,
        layer: &LayerRecord,
        tree: &TreeDigest,
        name: &dyn Fn(&'s Store, u64) -> Result<Option<Data>, Error>,
    ) -> Result<Option<Level<'s>>, Error> {
        let Some(number) = txn.directory(layer)?.number() else { return Ok(None) };
        let Some((part, _)) = txn.diff_of(layer, tree)? else { return Ok(None) };
        let home = part.store();
        let writable = !part.is_other() && !home.is_read_only();
        let data = match composefs::find_data(home.layout(), number) {
            None if writable => name(home, number)?,
            data => data,
        };
        Ok(data.map(|data| Level { tree: *tree, home, writable, data }))
    }

    /// Names the files of a layer in `diffs/<number>` of a store by their hashes.
    pub(super) fn name_files(
        &self,
        home: &Store,
        layer: &LayerRecord,
        tree: &TreeDigest,
        number: u64,
    ) -> Result<Option<Data>, Error> {
        let layout = home.layout();
        let gone = || Error::LayerMissing { layer: layer.id.clone(), path: home.diff_path(number) };
        home.begin_writing()?;
        let shared = composefs::open_shared(layout)?;
        moment::pass("files to be named");
        // Who makes the layer writable where it stands has committed that by now, or sees the directory of shared files.
        if !home.still_has(tree, number)? {
            return Err(gone());
        }
        let manifest = home.manifest(&home.database().begin_read()?, tree)?;
        let fresh = home.fresh_number()?;
        composefs::build_data(layout, &manifest, (number, fresh), shared.as_fd(), || home.sync_image())?;
        // Who gives the directory up removes its files too, if they were there by then. Those that came later are nobody's.
        if !home.still_has(tree, number)? {
            remove_image_quietly(layout, number);
            return Err(gone());
        }
        Ok(composefs::find_data(layout, number))
    }

    /// Whether a tree is in `diffs/<number>`. Asked under the write lock: whoever commits after that sees what was on the disk
    /// before.
    fn still_has(&self, tree: &TreeDigest, number: u64) -> Result<bool, Error> {
        let write = self.database().open_write()?;
        Ok(write.txn().diff(tree)?.is_some_and(|now| now.number == number))
    }

    /// What an image of these layers shows.
    fn stack(&self, txn: &View<'_>, levels: &[Level<'_>]) -> Result<Stack, Error> {
        let layer = |level: &Level<'_>| Ok((level.tree, txn.manifest(&level.tree)?));
        let layers = levels.iter().map(layer).collect::<Result<_, Error>>()?;
        Ok(Stack { layers, namespace: self.layout().xattrs() })
    }

    fn stack_name(&self, levels: &[Level<'_>]) -> StackName {
        StackName::new(self.layout().xattrs(), levels.iter().map(|level| &level.tree))
    }

    /// Brings what an image is made of to the disk, before it has its name.
    fn sync_image(&self) -> Result<(), LayoutError> {
        if self.sync_mode() == SyncMode::Off { Ok(()) } else { self.layout().sync_point()?.sync() }
    }

    /// What is wrong with the images beside `diffs/<number>`, which these layers have, in words.
    pub(crate) fn flaw_of_images(&self, number: u64, layers: &[String]) -> Result<Option<String>, Error> {
        if !composefs::has_images(self.layout(), number)? {
            return Ok(None);
        }
        let txn = self.begin_read()?;
        for layer in layers {
            let mut chain = txn.chain(layer)?;
            let mut count = 0;
            visit_lowers(&txn, &chain, |_, _| {
                count = usize::saturating_add(count, 1);
                Ok(())
            })?;
            chain.truncate(count);
            let find =
                |layer: &LayerRecord, tree: &TreeDigest| self.level(&txn, layer, tree, &|_, _| Ok(None));
            let (levels, plain) = levels(&txn, &chain, find)?;
            let data: Vec<Data> = levels.iter().map(|level| level.data.clone()).collect();
            // One that begins below this layer is beside another.
            if plain > 0 || composefs::find_image(self.layout(), self.stack_name(&levels), &data).is_none() {
                continue;
            }
            let flaw = composefs::flaw_of_image(self.layout(), &self.stack(&txn, &levels)?, &data);
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

/// A layer of an image.
struct Level<'s> {
    tree: TreeDigest,
    home: &'s Store,
    /// Whether the handle may write to that store.
    writable: bool,
    data: Data,
}

/// The layers that an image is made of, topmost first, out of those that a mount shows; and how many stay directories above it.
/// It begins with the lowest, and ends before the first that is written to or that `level` knows nothing of.
fn levels<'s: 'l, 'l>(
    txn: &View<'s>,
    lowers: impl IntoIterator<Item = &'l LayerRecord>,
    level: impl Fn(&LayerRecord, &TreeDigest) -> Result<Option<Level<'s>>, Error>,
) -> Result<(Vec<Level<'s>>, usize), Error> {
    let lowers: Vec<_> =
        lowers.into_iter().map(|layer| Ok((layer, txn.directory(layer)?))).collect::<Result<_, Error>>()?;
    let (mut levels, mut plain) = (Vec::new(), lowers.len());
    for (place, (layer, directory)) in lowers.iter().enumerate().rev() {
        let LayerContent::Sealed(tree) = layer.content else { break };
        let Some(level) = level(layer, &TreeDigest(tree))? else { break };
        // Of two layers of one tree, the upper one settles what the lower one has.
        if !lowers.iter().take(place).any(|(_, above)| above == directory) {
            levels.push(level);
        }
        plain = place;
    }
    levels.reverse();
    Ok((levels, plain))
}
