//! Mounts that this process does not see: those of other mount namespaces, and those that were taken away by hand while processes use them.

use std::io;
use std::path::{Path, PathBuf};

use layerstore_schema::record::LayerContent;
use layerstore_schema::table::Owner;

use crate::disk::RunLayout;
use crate::error::{Error, InUseError, MetaError};
use crate::overlay;
use crate::store::Store;
use crate::sys::mount::Target;
use crate::sys::path;

/// Refuses a layer to whose directory some overlay writes, wherever that is mounted.
pub(in crate::store) fn refuse_upper(layer: &str, directory: &Path) -> Result<(), Error> {
    match overlay::stays_upper(directory) {
        true => Err(InUseError::MountedElsewhere { what: format!("the layer {layer}") }.into()),
        false => Ok(()),
    }
}

impl Store {
    /// Takes away what other mount namespaces have mounted of a layer, even while processes use it. What is mounted in this one stays.
    ///
    /// The kernel detaches it when the mount point is removed.
    ///
    /// Returns [`Error::Io`] if that cannot be removed, such as for a file that somebody has put there.
    pub(super) fn detach_elsewhere(&self, layer: &str) -> Result<(), Error> {
        let path = self.mount_point(layer)?;
        if overlay::look_at(&path)? != Target::Unmounted {
            return Ok(());
        }
        let Some(run) = self.run_if_usable()? else { return Ok(()) };
        // Nobody mounts there between the look and the removal.
        run.end_mounts(layer, |ended| {
            if overlay::is_mounted(&path)? {
                return Ok(false);
            }
            match path::remove_directory(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io {
                        action: "remove the mount point",
                        path: path.clone(),
                        source: error,
                    });
                }
                _ => {}
            }
            // Those whom processes use go on, and what they write is in doubt.
            if !self.is_written_elsewhere(layer) {
                ended.iter().try_for_each(|record| self.vouch_for_ended(layer, record))?;
            }
            Ok(true)
        })
    }

    /// Whether some overlay writes to a layer that is not mounted here. `false` if that cannot be found out, as where the layer's row is
    /// damaged: a repair has to go on.
    pub(super) fn is_written_elsewhere(&self, layer: &str) -> bool {
        self.directory_of_writable(layer)
            .ok()
            .flatten()
            .is_some_and(|directory| overlay::stays_upper(&directory))
    }

    fn directory_of_writable(&self, layer: &str) -> Result<Option<PathBuf>, MetaError> {
        let txn = self.begin_read()?;
        let (Some(record), Some(home)) = (txn.layer(layer)?, txn.home(Owner::Layer, layer)?) else {
            return Ok(None);
        };
        let LayerContent::Writable(number) = record.content else { return Ok(None) };
        Ok(Some(home.store().diff_path(number)))
    }

    /// Refuses what takes all layers away, if one of them is written to elsewhere.
    pub(in crate::store) fn refuse_written_elsewhere(&self) -> Result<(), Error> {
        let layers = RunLayout::layers_with_mount_points(&self.run_root())?;
        if layers.is_empty() {
            return Ok(());
        }
        let Some(run) = self.run_if_usable()? else { return Ok(()) };
        run.hold(|| {
            for layer in &layers {
                let path = self.mount_point(layer.as_str())?;
                if overlay::look_at(&path)? == Target::Unmounted && self.is_written_elsewhere(layer.as_str())
                {
                    return Err(InUseError::MountedElsewhere { what: format!("the layer {layer}") }.into());
                }
            }
            Ok(())
        })
    }
}
