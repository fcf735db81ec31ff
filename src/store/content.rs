//! What layers contain: changes, and tar streams.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, Subdirectory};
use crate::error::{Error, LayoutError, LookupError};
use crate::layer::{self, Change, Mark};
use crate::meta::{Query, ReadTxn, open_blob};
use crate::types::TreeDigest;

use super::{Store, ThingId};

impl Store {
    /// What a layer, a container's layer or an image's top layer changes, in order of paths. Reads the layer's own
    /// directory or manifest, and of the layers below only their manifests.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer, and [`Error::Scan`] if the layer's
    /// directory cannot be read.
    pub fn changes(&self, of: impl Into<ThingId>) -> Result<Vec<Change>, Error> {
        let txn = self.database().begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        let below = self.stack(&txn, layer.parent.as_deref())?;
        Ok(match layer.content {
            LayerContent::Sealed(tree) => {
                let manifest = self.manifest(&txn, &TreeDigest(tree))?;
                let entries = manifest.entries().iter();
                layer::changes(entries.map(|entry| (entry.path.as_slice(), Mark::from(&entry.kind))), &below)
            }
            LayerContent::Writable(number) => {
                let root = self.open_layer(&layer.id, number)?;
                drop(txn);
                let entries = disk::list(root.as_fd(), self.layout().xattrs())?;
                let marks = entries.iter().map(|entry| (entry.path.as_slice(), Mark::from(&entry.kind)));
                layer::changes(marks, &below)
            }
        })
    }

    /// Writes the uncompressed tar of a layer, a container's layer or an image's top layer to `out`.
    ///
    /// For a layer that came from a tar these are the very bytes that came in, each file verified on its way; for
    /// one that is written to, a deterministic archive of its directory as it is now.
    ///
    /// Returns [`Error::Export`] if a file is damaged or `out` fails, [`Error::LayerMissing`] if the directory is gone, [`Error::Unsynced`] if the layer was not on the
    /// disk when the machine went down, and [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn diff(&self, of: impl Into<ThingId>, mut out: impl Write) -> Result<(), Error> {
        let txn = self.database().begin_read()?;
        let layer = self.layer_of(&txn, &of.into())?;
        self.export(&txn, &layer, &mut out)
    }

    pub(crate) fn export(
        &self,
        txn: &ReadTxn,
        layer: &LayerRecord,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        self.verify_layer(txn, layer)?;
        let root = self.open_layer(&layer.id, layer::directory(txn, layer)?)?;
        if let (LayerContent::Sealed(tree), Some(split)) = (&layer.content, &layer.split) {
            let manifest: &Manifest = &*self.manifest(txn, &TreeDigest(*tree))?;
            let split = open_blob(txn, split)?;
            return Ok(layer::export_original(&layer.id, split, manifest, root.as_fd(), out)?);
        }
        let below = self.stack(txn, layer.parent.as_deref())?;
        let inherited = below.find(b"").map(|entry| &entry.metadata);
        Ok(layer::export_directory(root.as_fd(), self.layout().xattrs(), inherited, out)?)
    }

    /// The record of the layer that a thing is about.
    pub(crate) fn layer_of(&self, txn: &ReadTxn, of: &ThingId) -> Result<LayerRecord, Error> {
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

    /// Opens the directory of a layer.
    ///
    /// Returns [`Error::LayerMissing`] if it is not there.
    pub(super) fn open_layer(&self, layer: &str, number: u64) -> Result<OwnedFd, Error> {
        self.open_diff(number).map_err(|error| match error {
            LayoutError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::LayerMissing { layer: layer.to_owned(), path }
            }
            error => error.into(),
        })
    }

    pub(crate) fn open_diff(&self, number: u64) -> Result<OwnedFd, LayoutError> {
        self.layout().open_entry(Subdirectory::Diffs, number)
    }
}
