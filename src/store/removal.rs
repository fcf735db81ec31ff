//! Removing a thing in two steps: its records at once, its files when there is time.

use crate::error::Error;
use crate::types::{ContainerId, ImageId, LayerId, Name};

use super::Store;
use super::garbage::Uncollected;
use super::remove::{Doomed, EVERYTHING};

impl Store {
    /// Removes an image as [`remove_image`](Self::remove_image) does, and leaves the deleting of files, which may take long, to what
    /// is returned beside the ids of the removed layers. Image and layers are gone when this returns.
    ///
    /// Returns what [`remove_image`](Self::remove_image) does.
    pub fn begin_removing_image(&self, id: &ImageId) -> Result<(Vec<LayerId>, Removal), Error> {
        let (home, doomed, layers) = self.doom_image(id)?;
        Ok((layers, Removal { left: Some((home, doomed)) }))
    }

    /// Removes a container as [`remove_container`](Self::remove_container) does, and leaves the deleting of files, which may take
    /// long, to what is returned. The container is gone when this returns.
    ///
    /// Returns what [`remove_container`](Self::remove_container) does.
    pub fn begin_removing_container(&self, id: &ContainerId) -> Result<Removal, Error> {
        Ok(Removal { left: Some((self.clone(), self.doom_container(id)?)) })
    }

    /// Removes a layer that nothing stands on, and leaves the deleting of its files, which may take long, to what is returned.
    /// The layer is gone when this returns, and its id can be given again.
    ///
    /// Returns what [`remove_layer`](Self::remove_layer) does.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let layer = store.create_layer(None, &LayerOptions::default())?;
    /// let removal = store.begin_removing_layer(&layer.id)?;
    /// assert!(store.layers()?.is_empty());
    /// removal.finish();
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn begin_removing_layer(&self, id: &LayerId) -> Result<Removal, Error> {
        Ok(Removal { left: Some(self.doom_layer(id, None)?) })
    }

    /// As [`begin_removing_layer`](Self::begin_removing_layer), for a layer that was found by a name: one that was renamed meanwhile
    /// is not removed. Who says the name that makes it a [snapshot](crate::Layer::snapshot_name) removes that, too.
    ///
    /// Returns what [`remove_layer`](Self::remove_layer) does, and [`Error::Lookup`] if the layer has not this name.
    pub fn begin_removing_layer_named(&self, id: &LayerId, name: &Name) -> Result<Removal, Error> {
        Ok(Removal { left: Some(self.doom_layer(id, Some(name))?) })
    }
}

/// The files of something that is gone, waiting to be deleted. Made by [`Store::begin_removing_image`],
/// [`begin_removing_container`](Store::begin_removing_container), [`begin_removing_layer`](Store::begin_removing_layer) and
/// [`begin_removing_layer_named`](Store::begin_removing_layer_named).
///
/// # Close semantics
///
/// Dropping the value deletes them. What cannot be deleted, and what a process leaves that dies before, is garbage, which the next
/// writer or [`Store::gc`] removes.
#[derive(Debug, Default)]
#[must_use = "the files are deleted when it is dropped"]
pub struct Removal {
    /// The store that they are in, and which they are, with the locks that announce them; `None` if there are none.
    left: Option<(Store, Doomed)>,
}

impl Removal {
    /// Deletes the files now. Waits for nobody, and nobody for it. Returns what could not be deleted, such as a directory that
    /// something is mounted in: it is garbage by now.
    pub fn finish(mut self) -> Vec<Uncollected> {
        let left = self.left.take();
        left.map(|(store, doomed)| doomed.delete(&store, EVERYTHING)).unwrap_or_default()
    }

    /// Leaves the files where they are, announced as garbage, which the first write through another handle and [`Store::gc`]
    /// remove.
    pub fn leave(mut self) {
        if let Some((store, doomed)) = self.left.take() {
            doomed.delete(&store, 0);
        }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some((store, doomed)) = self.left.take() {
            doomed.delete(&store, EVERYTHING);
        }
    }
}
