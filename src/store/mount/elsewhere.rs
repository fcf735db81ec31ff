//! Mounts that this process does not see: those of other mount namespaces, and those that were taken away by hand while processes use them.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use layerstore_schema::record::LayerContent;
use layerstore_schema::table::Owner;

use crate::disk::RunLayout;
use crate::error::{Error, InUseError, MetaError};
use crate::overlay;
use crate::store::Store;
use crate::store::users::shown;
use crate::store::view::View;
use crate::sys::mount::Target;
use crate::sys::path;
use crate::types::LayerId;

use super::remove_quietly;

/// How often it is looked whether a mount elsewhere has ended, and how long after the first time: each pause is twice the one before, so
/// all together are a quarter of a second. One with much to write out may take longer.
const LOOKS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(4);

/// Tries again for a moment what a mount elsewhere is in the way of: it may be just going, with the last process of its namespace.
///
/// `attempt` takes the locks that it needs, and gives them up: nobody waits for who waits here.
pub(in crate::store) fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..LOOKS {
        match attempt() {
            Err(Error::InUse(InUseError::MountedElsewhere { .. })) => thread::sleep(pause),
            done => return done,
        }
        pause = pause.saturating_mul(2);
    }
    attempt()
}

/// Refuses what must not be while some overlay writes to `directory`, wherever that is mounted. `what` is told to have it.
///
/// Called with the lock of the run database, as [`overlay::is_upper`] says.
pub(in crate::store) fn refuse_upper(directory: &Path, what: impl FnOnce() -> String) -> Result<(), Error> {
    match is_upper(directory)? {
        true => Err(InUseError::MountedElsewhere { what: what() }.into()),
        false => Ok(()),
    }
}

fn is_upper(directory: &Path) -> Result<bool, Error> {
    let failed = |source| Error::Io { action: "ask who writes to", path: directory.to_owned(), source };
    overlay::is_upper(directory).map_err(failed)
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
            if !self.is_written_elsewhere(layer).unwrap_or(true) {
                ended.iter().try_for_each(|record| self.vouch_for_ended(layer, record))?;
            }
            Ok(true)
        })
    }

    /// Whether some overlay writes to a layer that is not mounted here. `false` where its row is damaged: a repair has to go on.
    ///
    /// Called with the lock of the run database.
    pub(crate) fn is_written_elsewhere(&self, layer: &str) -> Result<bool, Error> {
        let directory = match self.directory_of_writable(layer) {
            Err(error) if error.is_damage() || matches!(error, MetaError::Record { .. }) => None,
            directory => directory?,
        };
        directory.map_or(Ok(false), |directory| is_upper(&directory))
    }

    fn directory_of_writable(&self, layer: &str) -> Result<Option<PathBuf>, MetaError> {
        let txn = self.begin_read()?;
        let (Some(record), Some(home)) = (txn.layer(layer)?, txn.home(Owner::Layer, layer)?) else {
            return Ok(None);
        };
        let LayerContent::Writable(number) = record.content else { return Ok(None) };
        Ok(Some(home.store().diff_path(number)))
    }

    /// Removes the mount point that stayed when a layer was detached while processes used it, if nobody has it mounted.
    pub(in crate::store) fn drop_mount_point(&self, layer: &str) -> Result<(), Error> {
        let path = self.mount_point(layer)?;
        if overlay::look_at(&path)? != Target::Unmounted {
            return Ok(());
        }
        self.run()?.update_mount(layer, self.mount_namespace()?, |slot| {
            if slot.record.is_none() && !slot.elsewhere && !overlay::is_mounted(&path)? {
                remove_quietly(&path);
            }
            Ok(())
        })
    }

    /// Refuses what takes all layers away, if one of them is written to elsewhere.
    pub(in crate::store) fn refuse_written_elsewhere(&self) -> Result<(), Error> {
        let layers = RunLayout::layers_with_mount_points(&self.run_root())?;
        if layers.is_empty() {
            return Ok(());
        }
        let Some(run) = self.run_if_usable()? else { return Ok(()) };
        let look = |layer: &LayerId| {
            let path = self.mount_point(layer.as_str())?;
            if overlay::look_at(&path)? == Target::Unmounted && self.is_written_elsewhere(layer.as_str())? {
                let what = said(&self.begin_read()?, layer.as_str())?;
                return Err(InUseError::MountedElsewhere { what }.into());
            }
            Ok(())
        };
        patiently(|| run.hold(|| layers.iter().try_for_each(look)))
    }
}

/// What a message calls a layer: it is the container's if it has one.
pub(in crate::store) fn said(view: &View<'_>, layer: &str) -> Result<String, Error> {
    Ok(match view.container_on(layer)? {
        Some(container) => format!("the container {}", shown(&container.names, &container.id)),
        None => format!("the layer {layer}"),
    })
}
