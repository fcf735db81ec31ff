//! Removing images and layers, and giving back what they held.

use crate::disk::{self, DiffName, Subdirectory};
use crate::error::{Error, InUseError, LookupError};
use crate::meta::{Freed, Query, WriteTxn};
use crate::types::{Digest, ImageId, LayerId};

use super::Store;

impl Store {
    /// Removes an image, with every layer of it that no other image, container, layer or name needs. Returns the
    /// ids of the removed layers, the topmost first.
    ///
    /// Returns [`Error::InUse`] if a container stands on the image or a layer of it is mounted, and
    /// [`Error::Lookup`] if it is not there.
    pub fn remove_image(&self, id: &ImageId) -> Result<Vec<LayerId>, Error> {
        let (freed, layers) = self.write_unmounted(|txn| {
            let record = txn
                .image(id.as_str())?
                .ok_or_else(|| LookupError::NotFound { kind: "image", key: id.to_string() })?;
            if let Some(container) = txn.containers_of_image(id.as_str())?.into_iter().next() {
                let names = txn.container(&container)?.map(|record| record.names).unwrap_or_default();
                let (image, container) = (shown(&record.names, &record.id), shown(&names, &container));
                return Err(InUseError::ImageOfContainer { image, container }.into());
            }
            txn.remove_image(id.as_str())?;
            let mut freed = Freed::default();
            let mut layers = Vec::new();
            for top in record.top_layer.iter().chain(&record.mapped_top_layers) {
                self.remove_unneeded(txn, top, &mut freed, &mut layers)?;
            }
            Ok((freed, layers))
        })?;
        self.discard(&freed);
        Ok(layers.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?)
    }

    /// Removes a layer that nothing stands on.
    ///
    /// Returns [`Error::InUse`] if a layer, image or container stands on it or it is mounted, and
    /// [`Error::Lookup`] if it is not there.
    pub fn remove_layer(&self, id: &LayerId) -> Result<(), Error> {
        let freed = self.write_unmounted(|txn| {
            let layer = id.to_string();
            if txn.layer(&layer)?.is_none() {
                return Err(LookupError::NotFound { kind: "layer", key: layer }.into());
            }
            self.refuse_mounted(&layer, || format!("the layer {layer}"))?;
            match user_of(txn, &layer)? {
                Some(error) => Err(error.into()),
                None => Ok(txn.remove_layer(&layer)?),
            }
        })?;
        self.discard(&freed);
        Ok(())
    }

    /// Drops the blobs that were kept as delivered, all or those with the given digests, and returns how many bytes
    /// that frees. Layers stay as they are; a later save compresses them anew.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn drop_blobs(&self, digests: Option<&[Digest]>) -> Result<u64, Error> {
        let (freed, bytes) = self.write_freeing(|txn| {
            let mut freed = Freed::default();
            let mut bytes = 0u64;
            for (digest, record) in txn.kept_blobs()? {
                let asked = digests.is_none_or(|list| list.iter().any(|one| one.to_string() == digest));
                if asked {
                    freed.blobs.extend(txn.drop_kept_blob(&digest)?);
                    bytes = bytes.saturating_add(record.size);
                }
            }
            Ok((freed, bytes))
        })?;
        self.discard(&freed);
        Ok(bytes)
    }

    /// Removes `top` and the layers below it as far down as nothing needs them. A name is a need: somebody gave it.
    fn remove_unneeded(
        &self,
        txn: &WriteTxn,
        top: &str,
        freed: &mut Freed,
        removed: &mut Vec<String>,
    ) -> Result<(), Error> {
        let mut next = Some(top.to_owned());
        while let Some(id) = next {
            let Some(layer) = txn.layer(&id)? else { return Ok(()) };
            if user_of(txn, &id)?.is_some() || !layer.names.is_empty() {
                return Ok(());
            }
            self.refuse_mounted(&id, || format!("the image's layer {id}"))?;
            let more = txn.remove_layer(&id)?;
            freed.diffs.extend(more.diffs);
            freed.blobs.extend(more.blobs);
            removed.push(id);
            next = layer.parent;
        }
        Ok(())
    }

    /// As [`write_freeing`](Self::write_freeing), while nobody mounts: what is not mounted in `body` is not mounted
    /// when its removal is committed.
    pub(crate) fn write_unmounted<T>(
        &self,
        mut body: impl FnMut(&WriteTxn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        // The run root may be on the same full disk, where even opening its database needs the reserve.
        self.with_reserve(|| self.run()?.hold(|| self.database().write(&mut body)))
    }

    /// Runs a write transaction that makes space.
    pub(super) fn write_freeing<T>(
        &self,
        mut body: impl FnMut(&WriteTxn) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.with_reserve(|| self.database().write(&mut body))
    }

    /// Runs something that makes space. The database writes before it frees, so on a full disk it gets the reserve;
    /// the next [`Store::open`] sets it aside again.
    fn with_reserve<T>(&self, mut body: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        match body() {
            Err(error) if error.is_out_of_space() && disk::release_reserve(self.layout())? > 0 => {
                tracing::warn!("the disk is full: using the reserve");
                body()
            }
            done => done,
        }
    }

    /// Deletes directories and files that no row names any more: moved to the trash first, so that nothing half
    /// deleted stands where layers are. The rows are gone, so what cannot be deleted now is garbage for the next
    /// [`gc`](Store::gc), and no failure of this operation.
    pub(crate) fn discard(&self, freed: &Freed) {
        if let Err(error) = self.move_and_delete(freed) {
            tracing::warn!(%error, "left for the next gc");
        }
    }

    fn move_and_delete(&self, freed: &Freed) -> Result<(), Error> {
        let diffs = freed
            .diffs
            .iter()
            .flat_map(|number| [(Subdirectory::Diffs, number), (Subdirectory::Work, number)]);
        let blobs = freed.blobs.iter().map(|number| (Subdirectory::Blobs, number));
        let mut moved = false;
        for (which, number) in diffs.chain(blobs) {
            moved |=
                disk::move_to_trash(self.layout(), which, DiffName::Entry(*number), self.fresh_number()?)?;
        }
        if moved {
            for error in disk::empty_trash(self.layout())? {
                tracing::warn!(%error, "left in the trash");
            }
        }
        Ok(())
    }
}

/// A thing as messages name it: by its first name, and its id.
pub(super) fn shown(names: &[String], id: &str) -> String {
    names.first().map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"))
}

/// Why a layer cannot be removed.
fn user_of(txn: &WriteTxn, layer: &str) -> Result<Option<InUseError>, Error> {
    let name = || layer.to_owned();
    if let Some(child) = txn.children(layer)?.into_iter().next() {
        return Ok(Some(InUseError::LayerHasChild { layer: name(), child }));
    }
    if let Some(image) = txn.images_of_layer(layer)?.into_iter().next() {
        return Ok(Some(InUseError::LayerOfImage { layer: name(), image }));
    }
    let container = txn.container_of_layer(layer)?;
    Ok(container.map(|container| InUseError::LayerOfContainer { layer: name(), container }))
}

#[cfg(test)]
mod tests {
    use crate::store::{ContainerOptions, Store, StoreOptions};

    #[test]
    fn what_cannot_be_deleted_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreOptions::at(dir.path().join("store")).sync(false).reserve(0)).unwrap();
        let container = store.create_container(None, &ContainerOptions::named("web")).unwrap();
        let trash = store.root().join("trash");
        std::fs::write(&trash, b"in the way").unwrap();
        store.remove_container(&container.id).unwrap();
        assert!(store.containers().unwrap().is_empty());
        std::fs::remove_file(trash).unwrap();
        assert_eq!(store.gc(false).unwrap().removed.len(), 1);
    }
}
