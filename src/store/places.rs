//! Where the files of a layer are, for callers that say so to others.

use std::path::PathBuf;

use layerstore_schema::record::LayerContent;
use layerstore_schema::table::Owner;

use crate::disk::{DiffName, Subdirectory};
use crate::error::{Error, MetaError};
use crate::types::LayerId;

use crate::layer::Layer;

use super::Store;
use super::mount::absolute;

/// The directories of a layer, and those of its mount.
///
/// They are the store's: reading them shows the form that overlayfs has for deleted files, and writing into them damages
/// layers that stand on them. [`Store::mount`] shows what a layer contains, and [`Store::files`] reads single files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerPlaces {
    /// What the layer itself has. Layers of equal content share one.
    pub upper: PathBuf,
    /// What each layer below it has, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The workdir of a mount that writes; `None` for a layer that is sealed.
    pub work: Option<PathBuf>,
    /// Where the layer is, or would be, mounted.
    pub mount_point: PathBuf,
}

impl Store {
    /// Where a layer's directories are now. Sealing, unsealing or repairing a layer may give it another. For a mount of them take
    /// [`mount_entry`](Self::mount_entry) or [`mount_parts`](Self::mount_parts), which also say its options.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub fn layer_places(&self, layer: &LayerId) -> Result<LayerPlaces, Error> {
        let txn = self.begin_read()?;
        let record = self.layer_of(&txn, &layer.into())?;
        let chain = txn.chain(&record.id)?;
        let directories = chain.iter().map(|layer| absolute(&txn.directory(layer)?.path()));
        let mut directories = directories.collect::<Result<Vec<_>, Error>>()?.into_iter();
        let missing = || MetaError::Missing { kind: "layer", key: record.id.clone() };
        let upper = directories.next().ok_or_else(missing)?;
        let work = match record.content {
            LayerContent::Writable(number) => {
                let home = txn.home(Owner::Layer, &record.id)?.ok_or_else(missing)?;
                let layout = home.store().layout();
                Some(absolute(&layout.entry_path(Subdirectory::Work, DiffName::Entry(number)))?)
            }
            _ => None,
        };
        let mount_point = self.mount_point(&record.id)?;
        Ok(LayerPlaces { upper, lowers: directories.collect(), work, mount_point })
    }

    /// What the layer itself has, as in [`layer_places`](Self::layer_places), without a look at those below.
    ///
    /// Returns [`Error::Lookup`] if the layer is not there.
    pub(crate) fn layer_directory(&self, layer: &LayerId) -> Result<PathBuf, Error> {
        let txn = self.begin_read()?;
        let record = self.layer_of(&txn, &layer.into())?;
        absolute(&txn.directory(&record)?.path())
    }

    /// The layers with a name that begins with `prefix`, but for those in stores that are only read.
    pub(crate) fn layers_named(&self, prefix: &str) -> Result<Vec<Layer>, Error> {
        Ok(self.begin_read()?.layers_named(prefix)?)
    }

    /// What `keep` makes of [these layers](Self::layers_named), each with its directory, all in one snapshot of the store.
    pub(crate) fn layers_with_directories<T>(
        &self,
        prefix: &str,
        keep: impl Fn(Layer) -> Option<T>,
    ) -> Result<Vec<(T, PathBuf)>, Error> {
        let txn = self.begin_read()?;
        let mut kept = Vec::new();
        for layer in txn.layers_named(prefix)? {
            let id = layer.id.clone();
            if let Some(value) = keep(layer) {
                let directory = txn.directory(&txn.layer_ref(id.as_str())?)?;
                kept.push((value, absolute(&directory.path())?));
            }
        }
        Ok(kept)
    }
}
