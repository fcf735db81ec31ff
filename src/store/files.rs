//! Single files of a layer, without a mount.

use std::io::Read;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use layerstore_schema::manifest::Kind;
use layerstore_schema::record::LayerContent;

use crate::error::{Error, LookupError};
use crate::layer::Stack;

use super::compared::Files;
use super::lowers::Lowers;
use super::{Store, ThingId};

/// The files that a layer shows with all below it, as they were when this was made. Made by [`Store::files`].
///
/// Nothing keeps the layers from being removed meanwhile: a file that is gone by then is an error, and one that is open
/// can be read to its end.
pub struct LayerFiles<'s> {
    stack: Stack,
    /// The layers, topmost first.
    files: Vec<Files<'s>>,
}

impl std::fmt::Debug for LayerFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerFiles").field("layers", &self.files.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// The files that a layer, a container's layer or an image's top layer shows, to be read one by one. Reads the names in
    /// layers that are written to, and of others what is known.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer, [`Error::Scan`] if a directory cannot be read, and
    /// [`Error::Unsynced`] if a layer was not on the disk when the machine went down.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let layer = store.create_layer(None, &LayerOptions::default())?;
    /// assert!(store.files(&layer)?.open("etc/passwd").is_err());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn files(&self, of: impl Into<ThingId>) -> Result<LayerFiles<'_>, Error> {
        let txn = self.begin_read()?;
        let top = self.layer_of(&txn, &of.into())?;
        txn.verify_chain(&top.id)?;
        let (mut lowers, mut files) = (Lowers::default(), Vec::new());
        for layer in txn.chain(&top.id)?.into_iter().rev() {
            let (listing, place) = if let LayerContent::Writable(_) = layer.content {
                let written = txn.being_written_on(&lowers, &layer)?;
                (Arc::new(written.listing()?), Files::Written(Rc::new(written)))
            } else {
                (txn.listing(&layer)?, Files::In(layer.id.clone(), txn.directory(&layer)?))
            };
            lowers.push(layer, listing, place.elsewhere());
            files.push(place);
        }
        files.reverse();
        Ok(LayerFiles { stack: lowers.stack().clone(), files })
    }
}

impl LayerFiles<'_> {
    /// Opens the regular file at a path below the root. No link is followed.
    ///
    /// Returns [`Error::Lookup`] if the layer shows none there, and [`Error::Io`] if it cannot be opened.
    pub fn open(&self, path: &str) -> Result<impl Read + Send + use<>, Error> {
        let path = path.trim_matches('/');
        let missing = || LookupError::NotFound { kind: "file", key: path.to_owned() };
        let found = self.stack.locate(path.as_bytes());
        let found = found.filter(|(_, entry)| matches!(entry.kind, Kind::File { .. }));
        let (layer, entry) = found.ok_or_else(missing)?;
        let files = self.files.get(layer).ok_or_else(missing)?;
        let failed = |source| Error::Io { action: "open", path: PathBuf::from(path), source };
        files.open(&entry.path).map_err(failed)
    }
}
