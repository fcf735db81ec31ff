//! Mounting layers.
//!
//! A layer has one mount point, `<run root>/mnt/<layer id>`, and a count of those who asked for it. Whether it *is*
//! mounted only the kernel knows: a count that the kernel does not confirm is corrected.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use layerstore_schema::record::{ContainerRecord, LayerContent, LayerRecord, MountRecord};

use crate::disk::{self, DiffName, RunLayout, Stage, Staging, Subdirectory, XattrNamespace};
use crate::error::{Error, InUseError, LookupError, MountError};
use crate::layer;
use crate::meta::{Query, ReadTxn};
use crate::overlay::{self, EntryPaths, MountPlan, MountRequest, Probe, Upper, XattrClass};
use crate::sys::{self, moment, path};
use crate::types::LayerId;

use super::{Store, SyncMode, ThingId};

pub use crate::overlay::{MountEntry, UnmountMode};

/// The fact of the run database that holds what was probed.
const PROBE_FACT: &str = "probe";

/// How a thing is mounted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MountOptions {
    /// Mount read-only. A layer that is sealed is always mounted so.
    pub read_only: bool,
    /// Overlay and mount options besides the container's own, such as `nodev` or `volatile`.
    pub options: Vec<String>,
    /// The SELinux label, in place of the container's own.
    pub label: Option<String>,
}

/// A mounted layer.
///
/// # Close semantics
///
/// Dropping the value does not unmount: a mount outlives the process, and ends with [`Store::unmount`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mount {
    path: PathBuf,
    /// How many have asked for it, this one included.
    pub count: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
}

impl Mount {
    /// Where the layer's tree is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Mounts a container for writing, or a layer or image for reading. What is mounted already is counted once
    /// more, and keeps the options it was mounted with.
    ///
    /// # Locking
    ///
    /// Holds the write lock of the run database while the kernel mounts.
    ///
    /// Returns [`Error::Mount`] if the kernel refuses, [`Error::LayerMissing`] if the directory of a layer is gone,
    /// [`Error::Unsynced`] if a layer was not on the disk when the machine
    /// went down, and [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn mount(&self, what: impl Into<ThingId>, options: &MountOptions) -> Result<Mount, Error> {
        let (layer, plan) = self.plan_mount(&what.into(), options)?;
        let layer_id: LayerId = layer.id.parse()?;
        let target = self.mount_point(&layer.id)?;
        let read_only = plan.is_read_only();
        let mut mounted = false;
        let namespace = self.mount_namespace()?;
        let counted = self.run()?.update_mount::<_, Error>(&layer.id, namespace, |slot| {
            // A removal holds the same lock: what is here now stays until it is mounted.
            if self.database().begin_read()?.layer(&layer.id)?.is_none() {
                return Err(LookupError::NotFound { kind: "layer", key: layer.id.clone() }.into());
            }
            self.run_layout()?.ensure_mount_point(&layer_id)?;
            let is_mounted = overlay::is_mounted(&target)?;
            match &mut slot.record {
                Some(record) if is_mounted => {
                    record.count = record.count.saturating_add(1);
                    return Ok(record.clone());
                }
                _ if is_mounted => {}
                _ => {
                    overlay::mount(&plan, &target)?;
                    mounted = true;
                    moment::pass("mounted");
                }
            }
            let target = target.to_string_lossy().into_owned();
            Ok(slot.record.insert(MountRecord { count: 1, target, read_only }).clone())
        });
        if counted.is_err() && mounted {
            // Nobody would know of the mount.
            overlay::unmount(&target, UnmountMode::Detach)?;
        }
        let record = counted?;
        Ok(Mount { path: target, count: record.count, read_only: record.read_only })
    }

    /// What [`mount`](Self::mount) would give the kernel, for a caller that mounts by itself. Nothing is counted.
    ///
    /// Returns [`Error::Mount`] if the mount cannot be said in options of `mount(2)`, and [`Error::Lookup`] if the
    /// thing is not there or has no layer.
    pub fn mount_entry(&self, what: impl Into<ThingId>, options: &MountOptions) -> Result<MountEntry, Error> {
        let (_, plan) = self.plan_mount(&what.into(), options)?;
        Ok(plan.entry(EntryPaths::Absolute)?)
    }

    fn plan_mount(&self, what: &ThingId, options: &MountOptions) -> Result<(LayerRecord, MountPlan), Error> {
        let txn = self.database().begin_read()?;
        let layer = self.layer_of(&txn, what)?;
        let container =
            txn.container_of_layer(&layer.id)?.map(|id| txn.container(&id)).transpose()?.flatten();
        let request = self.mount_request(&txn, &layer, container.as_ref(), options)?;
        drop(txn);
        Ok((layer, overlay::plan(&self.probe()?, &request)?))
    }

    /// Gives one mount back, and unmounts with the last. Returns how many are left.
    ///
    /// With [`UnmountMode::Detach`] the mount leaves the tree even while processes use it.
    ///
    /// Returns [`Error::Mount`] with [`NotMounted`](crate::MountError::NotMounted) if it is not mounted, and with
    /// [`Busy`](crate::MountError::Busy) if processes use it; the count is unchanged then.
    pub fn unmount(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<u64, Error> {
        self.unmount_counting(&what.into(), mode, |count| count.saturating_sub(1))
    }

    /// Unmounts, however many have asked for the mount.
    ///
    /// Returns what [`unmount`](Self::unmount) does.
    pub fn unmount_all(&self, what: impl Into<ThingId>, mode: UnmountMode) -> Result<(), Error> {
        self.unmount_counting(&what.into(), mode, |_| 0).map(drop)
    }

    fn unmount_counting(
        &self,
        what: &ThingId,
        mode: UnmountMode,
        next: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Error> {
        let layer = self.layer_of(&self.database().begin_read()?, what)?;
        let target = self.mount_point(&layer.id)?;
        let namespace = self.mount_namespace()?;
        self.run()?.update_mount::<_, Error>(&layer.id, namespace, |slot| {
            let record = &mut slot.record;
            let left = next(record.as_ref().map_or(1, |record| record.count));
            if left > 0
                && let Some(record) = record
                && overlay::is_mounted(&target)?
            {
                record.count = left;
                return Ok(left);
            }
            match overlay::unmount(&target, mode) {
                // A count that the kernel does not confirm goes with the error that says so.
                Err(error @ MountError::NotMounted { .. }) => {
                    return if record.take().is_some() { Ok(0) } else { Err(error.into()) };
                }
                unmounted => unmounted?,
            }
            moment::pass("unmounted");
            *record = None;
            // With the directory would go what is mounted there in other mount namespaces.
            if !slot.elsewhere {
                remove_quietly(&target);
            }
            self.vouch_for_volatile(&layer)?;
            Ok(0)
        })
    }

    /// The kernel refuses to mount a directory again that was mounted without syncs, until somebody says that its
    /// files are on the disk.
    fn vouch_for_volatile(&self, layer: &LayerRecord) -> Result<(), Error> {
        let LayerContent::Writable(number) = layer.content else { return Ok(()) };
        let work = self.layout().entry_path(Subdirectory::Work, DiffName::Entry(number));
        if overlay::has_volatile_mark(&work) {
            if self.sync_mode() != SyncMode::Off {
                self.sync_filesystem()?;
            }
            overlay::clear_volatile_mark(&work)?;
        }
        Ok(())
    }

    /// Where a thing is mounted; `None` if it is not.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn mounted(&self, what: impl Into<ThingId>) -> Result<Option<Mount>, Error> {
        let layer = self.layer_of(&self.database().begin_read()?, &what.into())?;
        self.mount_of_layer(&layer.id)
    }

    pub(super) fn mount_of_layer(&self, layer: &str) -> Result<Option<Mount>, Error> {
        let path = self.mount_point(layer)?;
        if !overlay::is_mounted(&path)? {
            return Ok(None);
        }
        let record = self.run()?.mount(layer, self.mount_namespace()?)?;
        let (count, read_only) = record.map_or((0, false), |record| (record.count, record.read_only));
        Ok(Some(Mount { path, count, read_only }))
    }

    /// Refuses an operation that a mount forbids.
    pub(crate) fn refuse_mounted(&self, layer: &str, what: impl FnOnce() -> String) -> Result<(), Error> {
        let path = self.mount_point(layer)?;
        if !overlay::is_mounted(&path)? {
            return Ok(());
        }
        Err(InUseError::Mounted { what: what(), target: path.display().to_string() }.into())
    }

    /// Refuses an operation that takes the files of some layers away, if one of them or one above is mounted.
    pub(crate) fn refuse_mounted_above(&self, txn: &impl Query, layers: &[String]) -> Result<(), Error> {
        let mut left = layers.to_vec();
        while let Some(layer) = left.pop() {
            self.refuse_mounted(&layer, || format!("the layer {layer}"))?;
            left.extend(txn.children(&layer)?);
        }
        Ok(())
    }

    /// The mount namespace that this thread is in: mounts are seen, and counted, in one.
    pub(crate) fn mount_namespace(&self) -> Result<u64, Error> {
        sys::mount::namespace().map_err(|source| Error::Io {
            action: "examine",
            path: sys::mount::NAMESPACE.into(),
            source,
        })
    }

    pub(crate) fn mount_point(&self, layer: &str) -> Result<PathBuf, Error> {
        absolute(&RunLayout::mount_point(&self.run_root(), &layer.parse()?))
    }

    /// The workdir of a layer that is written to.
    fn workdir(&self, layer: &str, number: u64) -> Result<PathBuf, Error> {
        let work = self.layout().ensure_workdir(number)?;
        // Who removes the layer removes the workdir too, if it was there by then. One that came later is nobody's.
        if self.database().begin_read()?.layer(layer)?.is_none() {
            remove_quietly(&work);
            return Err(LookupError::NotFound { kind: "layer", key: layer.to_owned() }.into());
        }
        Ok(work)
    }

    fn mount_request(
        &self,
        txn: &ReadTxn,
        layer: &LayerRecord,
        container: Option<&ContainerRecord>,
        options: &MountOptions,
    ) -> Result<MountRequest, Error> {
        let root = absolute(self.root())?;
        let diff =
            |number: u64| root.join(Subdirectory::Diffs.name()).join(DiffName::Entry(number).to_string());
        let class = match self.layout().xattrs() {
            XattrNamespace::Trusted => XattrClass::Trusted,
            XattrNamespace::User => XattrClass::User,
        };
        let empty = absolute(&self.run_layout()?.empty_directory())?;
        let mut request = MountRequest::new(root.join(Subdirectory::Diffs.name()), empty, class);
        self.verify_chain(txn, &layer.id)?;
        let mut lowers = txn.chain(&layer.id)?;
        if let LayerContent::Writable(number) = layer.content {
            lowers.remove(0);
            // The kernel would say that a path is not there, and not whose it is.
            self.open_layer(&layer.id, number)?;
            let work = absolute(&self.workdir(&layer.id, number)?)?;
            request.upper = Some(Upper { upper: diff(number), work });
        }
        for lower in &lowers {
            let number = layer::directory(txn, lower)?;
            request.lowers.push(diff(number));
            // The kernel does not look whether a root is opaque.
            if disk::is_opaque(self.open_layer(&lower.id, number)?.as_fd(), self.layout().xattrs())? {
                break;
            }
        }
        request.read_only = options.read_only;
        request.context.clone_from(&options.label);
        if let Some(container) = container {
            request.options.clone_from(&container.mount_options);
            request.context = request.context.or_else(|| container.mount_label.clone());
        }
        request.options.extend(options.options.iter().cloned());
        request.options.retain(|option| {
            let volatile = option == "volatile";
            request.volatile |= volatile;
            !volatile
        });
        Ok(request)
    }

    /// What this kernel can do with this store, probed once per boot.
    fn probe(&self) -> Result<Probe, Error> {
        let path = absolute(self.root())?;
        let known = self.run()?.fact(PROBE_FACT)?.and_then(|text| text.parse::<Probe>().ok());
        let mut probe = match known {
            Some(known) if known.is_current(&path) => known,
            _ => {
                let (probe, certain) = self.probe_in_scratch()?;
                if certain {
                    self.run()?.set_fact(PROBE_FACT, &probe.to_string())?;
                }
                probe
            }
        };
        if let Some(program) = &self.options().mount_program {
            probe.program = Some(program.clone());
        }
        Ok(probe)
    }
}

impl Store {
    /// Probes in a directory of the store's own filesystem, held so that no gc takes it away meanwhile.
    fn probe_in_scratch(&self) -> Result<(Probe, bool), Error> {
        let scratch = Staging::create(&Stage::create(self.layout())?, self.fresh_number()?)?;
        Ok(overlay::probe(&absolute(&self.diff_path(scratch.number()))?)?)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Io { action: "find", path: path.to_owned(), source })
}

/// A directory that cannot be removed is busy in another mount namespace, or garbage for the next gc.
fn remove_quietly(path: &Path) {
    if let Err(error) = path::remove_directory(path) {
        tracing::debug!(path = %path.display(), %error, "a directory is left");
    }
}
