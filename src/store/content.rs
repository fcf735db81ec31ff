//! What layers contain: changes, and tar streams.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use layerstore_schema::manifest::{Kind, Manifest};
use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use crate::chunked::ChunkedBlob;
use crate::compress::Compression;
use crate::disk::{self, AdditionalDirectory, Subdirectory};
use crate::error::{Error, ExportError, LayoutError, LookupError, MetaError};
use crate::image;
use crate::layer::{self, Change, Difference, Mark};
use crate::meta::open_blob;
use crate::sys::beneath;
use crate::sys::userns::IdMaps;
use crate::types::TreeDigest;

use super::additional;
use super::compared::{Compared, Files};
use super::foreign::{owned, refuse_foreign};
use super::view::View;
use super::{Store, ThingId};

/// How a layer is written out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DiffOptions {
    /// What the tar turns into the layer; if `None`, what the layer stands on.
    pub base: Option<ThingId>,
    /// Write all that the layer shows, with what is below it, as a tar that stands on nothing. There is no `base` then.
    pub whole: bool,
    /// How the owners of the layer's own files, which are the host's where a mount with these maps has written, are those of
    /// the tar. A container has its own. What is below, and what came from a tar, has the tar's already.
    pub id_maps: Option<IdMaps>,
    /// How the tar is compressed: not with [`Bzip2`](Compression::Bzip2) or [`Xz`](Compression::Xz), which are only read.
    pub compression: Compression,
    /// How hard: 0 to 9 for gzip, 1 to 22 for zstd in both forms; if `None`, 6 and 3.
    pub level: Option<i32>,
}

impl DiffOptions {
    /// What turns `base` into a layer.
    pub fn since(base: impl Into<ThingId>) -> Self {
        DiffOptions { base: Some(base.into()), ..DiffOptions::default() }
    }

    /// All that a layer shows.
    pub fn whole() -> Self {
        DiffOptions { whole: true, ..DiffOptions::default() }
    }

    /// Compressed like this.
    #[must_use]
    pub fn compression(self, compression: Compression) -> Self {
        DiffOptions { compression, ..self }
    }
}

/// The bytes of a thing, as its length says.
fn length(kind: &Kind) -> u64 {
    match kind {
        Kind::File { size, .. } => *size,
        Kind::Symlink { target } => u64::try_from(target.len()).unwrap_or(u64::MAX),
        _ => 0,
    }
}

/// The bytes of the files that one shows and the other does not.
fn length_of_differences(of: &Compared<'_>, base: &Compared<'_>) -> u64 {
    let differences = layer::compare(&of.stack, &base.stack);
    let shown: BTreeMap<_, _> = (differences.iter().filter_map(|found| found.shown))
        .map(|shown| ((shown.layer, &shown.entry.path), &shown.entry.kind))
        .collect();
    shown.into_values().map(length).fold(0, u64::saturating_add)
}

impl Store {
    /// What a layer, a container's layer or an image's top layer changes, in order of paths. Reads the layer's own
    /// directory or manifest, and of the layers below only their manifests.
    ///
    /// A layer may be written to meanwhile. What vanishes while it is looked at was not there, and what somebody has mounted in
    /// the layer's directory is none of it. So it is in all that compares or writes out layers.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer, and [`Error::Scan`] if the layer's
    /// directory cannot be read, and with [`Owner`](crate::ScanError::Owner) if something in it was written in another user namespace and
    /// has another owner here.
    pub fn changes(&self, of: impl Into<ThingId>) -> Result<Vec<Change>, Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        let lowers = txn.lowers(layer.parent.as_deref())?;
        let below = lowers.stack();
        Ok(match layer.content {
            LayerContent::Sealed(tree) => {
                let manifest = txn.manifest(&TreeDigest(tree))?;
                let entries = manifest.entries().iter();
                layer::changes(entries.map(|entry| (entry.path.as_slice(), Mark::from(&entry.kind))), below)
            }
            LayerContent::Writable(_) | LayerContent::Additional(_) => {
                let written = txn.being_written_on(&lowers, &layer)?;
                let entries = written.entries().iter();
                layer::changes(entries.map(|entry| (entry.path.as_slice(), Mark::from(&entry.kind))), below)
            }
        })
    }

    /// Writes the uncompressed tar of a layer, a container's layer or an image's top layer to `out`.
    ///
    /// For a layer that came from a tar these are the very bytes that came in, each file verified on its way; for
    /// one that is written to, a deterministic archive of its directory as it is now.
    ///
    /// Returns [`Error::Export`] if a file is damaged or `out` fails, [`Error::Scan`] if the directory of a layer that is written to cannot be
    /// read, and with [`Owner`](crate::ScanError::Owner) if something in it was written in another user namespace and has another owner
    /// here, [`Error::LayerMissing`] if the directory is gone, [`Error::Unsynced`] if the layer was not on the
    /// disk when the machine went down, and [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn diff(&self, of: impl Into<ThingId>, mut out: impl Write) -> Result<(), Error> {
        let txn = self.begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        self.export(&txn, &layer, None, &mut out)
    }

    /// What is to be changed in `base` to get what a layer, a container's layer or an image's top layer shows, with all below
    /// it. The two need not have a layer in common. For a layer's parent that is what [`changes`](Self::changes) says,
    /// without what changes nothing.
    ///
    /// Of what is deleted, only the top is listed, and the time of a directory is no change. Reads the files of layers that
    /// are written to.
    ///
    /// Returns what [`changes`](Self::changes) does, [`Error::Unsynced`] if a layer was not on the disk when the machine
    /// went down, and [`Error::Scan`] if a file of a layer is written to meanwhile.
    pub fn changes_since(
        &self,
        of: impl Into<ThingId>,
        base: impl Into<ThingId>,
    ) -> Result<Vec<Change>, Error> {
        let (of, base) = self.compared(&of.into(), Some(&base.into()))?;
        Ok(layer::compare(&of.stack, &base.stack).iter().filter_map(Difference::change).collect())
    }

    /// All that a layer, a container's layer or an image's top layer shows, with all below it: each path as added. This is what
    /// [`changes_since`](Self::changes_since) says of something that is empty.
    ///
    /// Returns what [`changes_since`](Self::changes_since) does.
    pub fn whole_changes(&self, of: impl Into<ThingId>) -> Result<Vec<Change>, Error> {
        let (of, nothing) = self.compared(&of.into(), None)?;
        Ok(layer::compare(&of.stack, &nothing.stack).iter().filter_map(Difference::change).collect())
    }

    /// Writes the tar of a layer, a container's layer or an image's top layer to `out`, as [`diff`](Self::diff) does, and
    /// compressed; or with a [`base`](DiffOptions::base), what turns that into it. Returns where the table of contents is, if
    /// the compression is [`ZstdChunked`](Compression::ZstdChunked).
    ///
    /// Returns what [`diff`](Self::diff) does, and [`Error::Export`] with [`Compress`](crate::ExportError::Compress) if the
    /// compression is one that is only read, or has no such level, and with [`Chunked`](crate::ExportError::Chunked) if the tar
    /// has something that a table of contents has no place for.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{Compression, ContainerOptions, DiffOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let web = store.create_container(None, &ContainerOptions::named("web"))?;
    /// let other = store.create_container(None, &ContainerOptions::named("other"))?;
    /// let mut tar = Vec::new();
    /// store.diff_with(&web, &DiffOptions::since(&other).compression(Compression::Zstd), &mut tar)?;
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn diff_with(
        &self,
        of: impl Into<ThingId>,
        options: &DiffOptions,
        out: impl Write,
    ) -> Result<Option<ChunkedBlob>, Error> {
        let of = of.into();
        let write = |mut out: &mut dyn Write| match &options.base {
            _ if options.whole => self.write_differences(&of, None, options, &mut out),
            Some(base) if !self.is_parent(&of, base)? => {
                self.write_differences(&of, Some(base), options, &mut out)
            }
            _ => {
                let txn = self.begin_read()?;
                self.export(&txn, &self.layer_of(&txn, &of)?, options.id_maps.as_ref(), &mut out)
            }
        };
        let (mut out, chunked) = layer::compressed(out, options.compression, options.level, write)?;
        out.flush().map_err(ExportError::Io)?;
        Ok(chunked)
    }

    /// The length of the files that a layer, a container's layer or an image's top layer brings, or with a `base`, of those
    /// that differ from it: an inode with several names counts once, a symbolic link as long as its target is. No tar is
    /// made.
    ///
    /// Returns what [`changes_since`](Self::changes_since) does.
    pub fn diff_size<'b>(
        &self,
        of: impl Into<ThingId>,
        base: impl Into<Option<&'b ThingId>>,
    ) -> Result<u64, Error> {
        let of = of.into();
        if let Some(base) = base.into()
            && !self.is_parent(&of, base)?
        {
            let (of, base) = self.compared(&of, Some(base))?;
            return Ok(length_of_differences(&of, &base));
        }
        let txn = self.begin_read()?;
        let own = txn.listing(&self.layer_of(&txn, &of)?)?;
        Ok(own.entries().iter().map(|entry| length(&entry.kind)).fold(0, u64::saturating_add))
    }

    /// The length of all files that a layer, a container's layer or an image's top layer shows, with all below it, counted as
    /// [`diff_size`](Self::diff_size) counts.
    ///
    /// Returns what [`changes_since`](Self::changes_since) does.
    pub fn whole_size(&self, of: impl Into<ThingId>) -> Result<u64, Error> {
        let (of, nothing) = self.compared(&of.into(), None)?;
        Ok(length_of_differences(&of, &nothing))
    }

    fn write_differences(
        &self,
        of: &ThingId,
        base: Option<&ThingId>,
        options: &DiffOptions,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        let (of, base) = self.compared_with(of, base, options.id_maps.as_ref())?;
        let differences = layer::compare(&of.stack, &base.stack);
        let open = |layer: usize, path: &[u8]| match of.files.get(layer).ok_or(io::ErrorKind::NotFound)? {
            Files::Written(written) => written.open_if_there(path),
            files => files.open(path).map(Some),
        };
        Ok(layer::export_differences(&differences, open, out)?)
    }

    /// Whether `base` is what a thing's own layer is given as changes to.
    fn is_parent(&self, of: &ThingId, base: &ThingId) -> Result<bool, Error> {
        let txn = self.begin_read()?;
        let base = self.layer_of(&txn, base)?.id;
        Ok(self.layer_of(&txn, of)?.parent == Some(base))
    }

    pub(crate) fn export(
        &self,
        txn: &View<'_>,
        layer: &LayerRecord,
        maps: Option<&IdMaps>,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        txn.verify_layer(layer)?;
        let directory = txn.directory(layer)?;
        let root = directory.open(&layer.id)?;
        if let (LayerContent::Sealed(tree), Some(split)) = (&layer.content, &layer.split) {
            let manifest: &Manifest = &*txn.manifest(&TreeDigest(*tree))?;
            let missing = || MetaError::Missing { kind: "layer", key: layer.id.clone() };
            let home = txn.home(Owner::Layer, &layer.id)?.ok_or_else(missing)?;
            let split = open_blob(home.txn()?, split)?;
            let to_nobody = |_: &[u8], _| ();
            return Ok(layer::export_original(&layer.id, split, manifest, root.as_fd(), out, to_nobody)?);
        }
        if let LayerContent::Additional(path) = &layer.content
            && additional::write_original(
                &AdditionalDirectory::from_bytes(path),
                layer,
                self.options().granted(),
                out,
            )?
        {
            return Ok(());
        }
        let lowers = txn.lowers(layer.parent.as_deref())?;
        let below = lowers.stack();
        let of_container = txn.container_on(&layer.id)?.as_ref().and_then(image::id_maps);
        let maps = maps.or(of_container.as_ref());
        let result = match layer.content {
            LayerContent::Writable(_) | LayerContent::Additional(_) => {
                let mut written = txn.being_written_on(&lowers, layer)?;
                let entries = written.take_entries();
                layer::export_directory(entries, |path| written.open_if_there(path), below, maps, out)
            }
            LayerContent::Sealed(_) => {
                let entries = disk::list(root.as_fd(), directory.layout().xattrs())?;
                refuse_foreign(directory.layout(), owned(&entries))?;
                let open =
                    |path: &[u8]| Ok(Some(beneath::open_sealed_file_beneath(root.as_fd(), path)?.into()));
                layer::export_directory(entries, open, below, maps, out)
            }
        };
        Ok(result?)
    }

    /// The record of the layer that a thing is about.
    pub(crate) fn layer_of(&self, txn: &View<'_>, of: &ThingId) -> Result<LayerRecord, Error> {
        let id = of.as_str();
        let not_found = || LookupError::NotFound { kind: of.kind().word(), key: id.to_owned() };
        let layer = match of {
            ThingId::Layer(_) => return Ok(txn.layer(id)?.ok_or_else(not_found)?),
            ThingId::Image(_) => {
                let image = txn.image(id)?.ok_or_else(not_found)?;
                image.top_layer.ok_or_else(|| LookupError::NoLayers { image: id.to_owned() })?
            }
            ThingId::Container(_) => txn.container(id)?.ok_or_else(not_found)?.layer,
        };
        Ok(txn.layer_ref(&layer)?)
    }

    pub(crate) fn open_diff(&self, number: u64) -> Result<OwnedFd, LayoutError> {
        self.layout().open_entry(Subdirectory::Diffs, number)
    }
}
