//! Mounting layers.
//!
//! A layer has one mount point, `<run root>/mnt/<layer id>`, and a count of those who asked for it. Whether it *is*
//! mounted only the kernel knows: a count that the kernel does not confirm is corrected.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use layerstore_schema::record::MountRecord;
use layerstore_schema::table::Owner;

use crate::disk::{self, DiffName, Layout, LockState, RunLayout, Subdirectory};
use crate::error::{Error, InUseError, LookupError};
use crate::overlay::{self, EntryPaths};
use crate::sys::mount::Target;
use crate::sys::userns::IdMaps;
use crate::sys::{self, moment, path};
use crate::types::LayerId;

use super::layer::changed_meanwhile;
use super::part::Part;
use super::snapshot::refuse_snapshot;
use super::users::{Gone, standing_on};
use super::{Store, ThingId};

mod composefs;
mod elsewhere;
mod ended;
mod lent;
mod marks;
mod plan;
mod probe;
mod root;
#[cfg(test)]
mod tests;

pub(super) use elsewhere::{patiently, refuse_upper, said};
pub(super) use plan::MASKED;
use plan::{Planned, contents};

pub use crate::overlay::{Backing, MountEntry, MountParts, OverlayDefaults, UnmountMode};

/// How a thing is mounted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MountOptions {
    /// Mount read-only. An image, and a layer that is sealed, is always mounted so.
    pub read_only: bool,
    /// Make a sealed layer writable first, which loses its digests: see [`Store::unseal`]. Not one that is
    /// [`read_only`](crate::LayerOptions::read_only).
    pub unseal: bool,
    /// Mount a layer for writing even if images or other layers stand on it. They show what is written; those of them that are
    /// mounted then may show anything.
    pub change_under_others: bool,
    /// Overlay and mount options besides the container's own, such as `nodev` or `volatile`.
    pub options: Vec<String>,
    /// The SELinux label, in place of the container's or layer's own.
    pub label: Option<String>,
    /// Show the layers below with these ids, in place of the container's own. What is written has the host's, and
    /// [`DiffOptions::id_maps`](crate::DiffOptions::id_maps) turns them back; a mount program such as fuse-overlayfs writes the
    /// container's itself. A root directory that belongs to nobody in the container is given to the host's ids of its owner, or
    /// of the container's root, if the mount is for writing.
    pub id_maps: Option<IdMaps>,
    /// Refuse what would be mounted for writing and is mounted for reading already, and do not count that mount.
    pub for_writing: bool,
    /// Say that all is there that an earlier `volatile` mount wrote, of which the store knows only that it never ended: as after
    /// a shutdown in order that ended it, and not a crash. What is mounted for writing is mounted then, and no longer in doubt;
    /// else that is [`VolatileLeft`](crate::MountError::VolatileLeft).
    pub trust_volatile: bool,
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

/// What came of a plan.
enum Attempt {
    Mounted(Mount),
    /// A layer has got another directory since.
    Changed,
    /// Someone is at the directory that is to be written to.
    Busy,
}

/// How often a mount is planned anew because a directory was not where it had been.
const TRIES: usize = 4;

/// How long a mount waits before it looks again whether a layer is still being sealed or filled.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Store {
    /// Mounts a container or a writable layer for writing, and an image or a sealed layer for reading. What is mounted
    /// already is counted once more, and keeps the options it was mounted with.
    ///
    /// A container with ids of its own shows the files of its image with the host's ids. Where mounts cannot do that, or
    /// [`id_mapped_mounts`](crate::StoreOptions::id_mapped_mounts) is off, or a program mounts, its image is copied with these
    /// owners, by reflink where the filesystem can: once for each map, by the first mount that needs it. The copy is one of the
    /// image's [`mapped_top_layers`](crate::Image::mapped_top_layers), and goes with the image, or by
    /// [`drop_mapped_copies`](Self::drop_mapped_copies).
    ///
    /// With [`unseal`](MountOptions::unseal), a sealed layer is made writable first, as [`unseal`](Self::unseal) does.
    ///
    /// # Locking
    ///
    /// Holds the write lock of the run database while the kernel mounts. Waits for who is just sealing or filling a layer
    /// that is to be written to. A mount whose program was killed is taken away and made anew, and counts once.
    ///
    /// Returns [`Error::ReadOnly`] if a layer is to be written to and its store is only read, or if the run root is in such
    /// a store; [`Error::Mount`] if the kernel refuses, [`Error::InUse`] if a layer would be written to that others stand on
    /// (see [`change_under_others`](MountOptions::change_under_others)), that is mounted for reading (see
    /// [`for_writing`](MountOptions::for_writing)), that another mount namespace writes to, or that is a
    /// [snapshot](crate::Layer::snapshot_name) of containerd's, [`Error::LayerMissing`] if the directory of a layer is gone,
    /// [`Error::Unsynced`] if a layer was not on the disk when the machine went down, and [`Error::Lookup`] if the thing is not
    /// there or has no layer.
    pub fn mount(&self, what: impl Into<ThingId>, options: &MountOptions) -> Result<Mount, Error> {
        let what = what.into();
        // None if it is later than clocks go.
        let deadline = Instant::now().checked_add(self.options().database.lock_timeout);
        let mut tries = TRIES;
        loop {
            let planned = match self.plan_mount(&what, options) {
                // It may have been given up for another between reading its record and looking for it.
                Err(Error::LayerMissing { .. }) if tries > 0 => {
                    tries = tries.saturating_sub(1);
                    continue;
                }
                planned => planned?,
            };
            if planned.written.is_some() {
                refuse_snapshot(&planned.layer, None)?;
            }
            let announced = self.announce_volatile(&planned)?;
            let attempt = patiently(|| self.mount_planned(&planned, options));
            if announced && !matches!(attempt, Ok(Attempt::Mounted(_))) {
                self.forget_announced(&planned.layer.id)?;
            }
            match attempt? {
                Attempt::Mounted(mount) => return Ok(mount),
                // Whoever changed it is done: there is nothing to wait for, and no need to go on for ever.
                Attempt::Changed if tries > 0 => tries = tries.saturating_sub(1),
                Attempt::Changed if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
                Attempt::Changed => return Err(changed_meanwhile(&planned.layer.id)),
                Attempt::Busy if deadline.is_none_or(|deadline| Instant::now() < deadline) => {
                    thread::sleep(LOOK_AGAIN)
                }
                Attempt::Busy => return Err(InUseError::Busy { layer: planned.layer.id }.into()),
            }
        }
    }

    /// Notes that the kernel is going to mark a workdir as one whose files are in doubt, before it does: so whoever finds the
    /// mark, and that the process has died, knows that it is of this boot. Returns whether it is noted by this call.
    fn announce_volatile(&self, planned: &Planned<'_>) -> Result<bool, Error> {
        let Some(work) = &planned.volatile else { return Ok(false) };
        let target = self.mount_point(&planned.layer.id)?.to_string_lossy().into_owned();
        let namespace = self.mount_namespace()?;
        self.run()?.update_mount::<_, Error>(&planned.layer.id, namespace, |slot| {
            // One that is there already may be of another boot.
            let announce = slot.record.is_none() && !overlay::has_volatile_mark(work);
            if announce {
                slot.record = Some(MountRecord { count: 0, target, read_only: false });
            }
            Ok(announce)
        })
    }

    /// Nothing has come of it.
    fn forget_announced(&self, layer: &str) -> Result<(), Error> {
        let target = self.mount_point(layer)?;
        self.run()?.update_mount::<_, Error>(layer, self.mount_namespace()?, |slot| {
            if let Some(announced) = slot.record.take_if(|record| record.count == 0) {
                match overlay::is_mounted(&target)? {
                    true => slot.record = Some(announced),
                    false => self.vouch_for_ended(layer, &announced)?,
                }
            }
            Ok(())
        })
    }

    fn mount_planned(&self, planned: &Planned<'_>, options: &MountOptions) -> Result<Attempt, Error> {
        let Planned { layer, plan, .. } = planned;
        let layer_id: LayerId = layer.id.parse()?;
        let target = self.mount_point(&layer.id)?;
        let read_only = plan.is_read_only();
        let mut mounted = false;
        let namespace = self.mount_namespace()?;
        let counted = self.run()?.update_mount::<_, Error>(&layer.id, namespace, |slot| {
            // Before the records are read: who has sealed the layer, and let go of it, is seen in them.
            let written =
                planned.written.as_ref().and_then(|written| Some((written.layout(), written.number()?)));
            let held = written.map(|(layout, number)| disk::lock_state(layout, number)).transpose()?;
            // A removal holds the same lock, and so does who gives a layer another directory: what is here now stays
            // until it is mounted.
            let txn = self.begin_read()?;
            if txn.layer(&layer.id)?.is_none() {
                return Err(LookupError::NotFound { kind: "layer", key: layer.id.clone() }.into());
            }
            let there = overlay::look_at(&target)?;
            let is_mounted = there == Target::Mounted;
            if is_mounted && overlay::is_dead(&target) {
                // Its program was killed: nobody can use it any more, whoever has asked for it.
                overlay::unmount(&target, UnmountMode::Detach)?;
                return Ok(Err(Attempt::Changed));
            }
            match &mut slot.record {
                Some(record) if is_mounted => {
                    if options.for_writing && planned.is_for_writing && record.read_only {
                        let above = match options.change_under_others {
                            true => None,
                            false => standing_on(&txn, &layer.id, &Gone::default())?,
                        };
                        let (layer, target) = (layer.id.clone(), record.target.clone());
                        return Err(above.unwrap_or(InUseError::MountedForReading { layer, target }).into());
                    }
                    record.count = record.count.saturating_add(1);
                    return Ok(Ok(record.clone()));
                }
                _ if is_mounted => {}
                _ => {
                    if contents(&txn.chain(&layer.id)?) != planned.contents {
                        return Ok(Err(Attempt::Changed));
                    }
                    if let Some(state) = held {
                        if state == LockState::Held {
                            return Ok(Err(Attempt::Busy));
                        }
                        if !options.change_under_others
                            && let Some(above) = standing_on(&txn, &layer.id, &Gone::default())?
                        {
                            return Err(above.into());
                        }
                    }
                    if let Some((layout, number)) = written {
                        // The kernel lets both, and says that nobody knows what comes of it; and the second has no mark.
                        if slot.elsewhere || there == Target::Unmounted {
                            let directory = layout.entry_path(Subdirectory::Diffs, DiffName::Entry(number));
                            let what = said(&txn, &layer.id)?;
                            refuse_upper(&directory, || what)?;
                        }
                        // It went if the layer was sealed meanwhile, even if it is as before now.
                        layout.ensure_workdir(number)?;
                    }
                    if let (Some(directory), Some(maps)) = (&planned.written, &options.id_maps)
                        && plan.writes_host_ids()
                    {
                        root::give_root(directory, &layer.id, maps)?;
                    }
                    if let Some(ended) = slot.record.as_ref().filter(|_| !slot.elsewhere) {
                        self.vouch_for_ended(&layer.id, ended)?;
                    }
                    if options.trust_volatile && written.is_some() && !slot.elsewhere {
                        let home = txn.home(Owner::Layer, &layer.id)?.map_or(self, Part::store);
                        Self::end_doubt(home, layer)?;
                    }
                    self.prepare_unsealed(planned, slot.elsewhere)?;
                    self.run_layout()?.ensure_mount_point(&layer_id)?;
                    if let Err(error) = overlay::mount(plan, &target) {
                        // Unless somebody has it mounted in another mount namespace.
                        if slot.record.is_none() && !slot.elsewhere {
                            remove_quietly(&target);
                        }
                        return Err(error.into());
                    }
                    mounted = true;
                    moment::pass("mounted");
                }
            }
            let target = target.to_string_lossy().into_owned();
            Ok(Ok(slot.record.insert(MountRecord { count: 1, target, read_only }).clone()))
        });
        if counted.is_err() && mounted {
            // Nobody would know of the mount.
            overlay::unmount(&target, UnmountMode::Detach)?;
        }
        Ok(match counted? {
            Ok(record) => {
                Attempt::Mounted(Mount { path: target, count: record.count, read_only: record.read_only })
            }
            Err(again) => again,
        })
    }

    /// What [`mount`](Self::mount) would give the kernel, for a caller that mounts by itself. Nothing is counted. The layers
    /// are their directories, also in a store that [uses composefs](crate::StoreOptions::use_composefs): images are mounted
    /// by what has no name.
    ///
    /// Of a container with ids of its own, where mounts map none, the first call copies the image, as [`mount`](Self::mount) does: that
    /// takes as long as it takes to read the image, and writes to the store. The copy stays with the image, until the image goes or
    /// [`drop_mapped_copies`](Self::drop_mapped_copies) finds no container with this map.
    ///
    /// If a program is to make the mount, the directory that it writes to says so from now on, and the files by which it marks what is
    /// gone are read as that.
    ///
    /// This is for who passes the options to `mount(2)` as they are; [`mount_parts`](Self::mount_parts) for who writes them down in another
    /// way, and [`layer_places`](Self::layer_places) for who wants the directories and no mount.
    ///
    /// Returns [`Error::Mount`] if the mount cannot be said in options of `mount(2)`, and [`Error::Lookup`] if the
    /// thing is not there or has no layer.
    pub fn mount_entry(&self, what: impl Into<ThingId>, options: &MountOptions) -> Result<MountEntry, Error> {
        let planned = self.plan_mount_of_directories(&what.into(), options)?;
        self.lend(&planned)?;
        Ok(planned.plan.entry(EntryPaths::Absolute)?)
    }

    /// The directories and options of which [`mount`](Self::mount) would make an overlay, for a caller with a way of its own to write
    /// mounts down. Nothing is counted, and no length is too long. An id map is the caller's: it is not in the parts. As with
    /// [`mount_entry`](Self::mount_entry), which has the options ready for `mount(2)`, the layers are their directories;
    /// [`layer_places`](Self::layer_places) has those alone, each layer's, also where the mount would leave some out. The image may be
    /// copied first, as `mount_entry` tells.
    ///
    /// Returns [`Error::Mount`] if no mount can be made, and [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn mount_parts(&self, what: impl Into<ThingId>, options: &MountOptions) -> Result<MountParts, Error> {
        let planned = self.plan_mount_of_directories(&what.into(), options)?;
        self.lend(&planned)?;
        Ok(planned.plan.parts(&absolute(&self.run_layout()?.empty_directory())?))
    }

    /// Where a thing is mounted; `None` if it is not.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there or has no layer.
    pub fn mounted(&self, what: impl Into<ThingId>) -> Result<Option<Mount>, Error> {
        let layer = self.layer_of(&self.begin_read()?, &what.into())?;
        self.mount_of_layer(&layer.id)
    }

    /// Where layers are mounted in this mount namespace, also those that have no record any more. What it costs depends on
    /// how many that are, and not on how many layers and containers there are.
    ///
    /// Returns [`Error::Layout`] if the mount points cannot be listed, and [`Error::Mount`] if the kernel does not say whether something
    /// is mounted there.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = layerstore::Store::open(&layerstore::StoreOptions::at(dir.path().join("store")))?;
    /// let mounts = store.mounts()?;
    /// for container in store.containers()? {
    ///     if let Some(mount) = mounts.get(&container.layer) {
    ///         println!("{}: {}", container.id, mount.path().display());
    ///     }
    /// }
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn mounts(&self) -> Result<BTreeMap<LayerId, Mount>, Error> {
        let mut mounts = BTreeMap::new();
        for layer in RunLayout::layers_with_mount_points(&self.run_root())? {
            if let Some(mount) = self.mount_of_layer(layer.as_str())? {
                mounts.insert(layer, mount);
            }
        }
        Ok(mounts)
    }

    pub(super) fn mount_of_layer(&self, layer: &str) -> Result<Option<Mount>, Error> {
        let path = self.mount_point(layer)?;
        if !overlay::is_mounted(&path)? {
            return Ok(None);
        }
        let namespace = self.mount_namespace()?;
        let record = self.run_if_usable()?.map(|run| run.mount(layer, namespace)).transpose()?.flatten();
        let (count, read_only) = record.map_or((0, false), |record| (record.count, record.read_only));
        Ok(Some(Mount { path, count, read_only }))
    }

    /// Refuses an operation that a mount forbids, in whatever mount namespace. Called with the lock of the run database.
    pub(crate) fn refuse_mounted(&self, layer: &str, what: impl Fn() -> String) -> Result<(), Error> {
        match self.refuse_mounted_here(layer, &what)? {
            Target::Unmounted if self.is_written_elsewhere(layer)? => {
                Err(InUseError::MountedElsewhere { what: what() }.into())
            }
            // The last one to unmount has removed the mount point.
            Target::Missing | Target::Unmounted | Target::Mounted => Ok(()),
        }
    }

    /// The same in this mount namespace alone, without a lock: for who says what would be refused. Returns what there is for a mount.
    pub(crate) fn refuse_mounted_here(
        &self,
        layer: &str,
        what: impl Fn() -> String,
    ) -> Result<Target, Error> {
        // What a damaged database calls a layer, and is none by its id, has no mount point.
        let Ok(id) = layer.parse() else { return Ok(Target::Missing) };
        let path = absolute(&RunLayout::mount_point(&self.run_root(), &id))?;
        match overlay::look_at(&path)? {
            Target::Mounted => {
                Err(InUseError::Mounted { what: what(), target: path.display().to_string() }.into())
            }
            target => Ok(target),
        }
    }

    /// Refuses an operation that takes the files of some layers away, if one of them or one above is mounted. Called with the lock of the
    /// run database.
    pub(crate) fn refuse_mounted_above(&self, layers: &[String]) -> Result<(), Error> {
        if layers.is_empty() {
            return Ok(());
        }
        let txn = self.begin_read()?;
        let (mut left, mut seen) = (layers.to_vec(), BTreeSet::new());
        while let Some(layer) = left.pop() {
            self.refuse_mounted(&layer, || format!("the layer {layer}"))?;
            if seen.insert(layer.clone()) {
                left.extend(txn.children(&layer)?);
                left.extend(Self::layers_above_copy(&txn, &layer)?);
            }
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
}

pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Io { action: "find", path: path.to_owned(), source })
}

/// A directory that cannot be removed is busy in another mount namespace, or garbage for the next gc.
fn remove_quietly(path: &Path) {
    if let Err(error) = path::remove_directory(path) {
        tracing::debug!(path = %path.display(), %error, "a directory is left");
    }
}

/// As [`remove_quietly`], for the files of a directory that are named by their hashes.
fn remove_image_quietly(layout: &Layout, number: u64) {
    let removed = layout
        .subdirectory(Subdirectory::Composefs)
        .map_err(Error::from)
        .and_then(|images| Ok(disk::remove_tree(images.as_fd(), number.to_string().as_bytes())?));
    if let Err(error) = removed {
        tracing::debug!(number, %error, "an image is left");
    }
}
