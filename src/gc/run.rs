//! What is left in the run root: mount counts, mount points and run directories.
//!
//! A mount is seen by the processes of one mount namespace. A count says in which it was made, and only a process of
//! the same one can tell that there is no such mount any more; all others leave it alone. A mount point stays as long as
//! any namespace has a count: removing the directory would take the mounts of all the others away.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use super::{GarbageKind, GcReport};
use crate::disk::{DigestLockFile, RunDirectory, RunLayout};
use crate::error::Error;
use crate::meta::RunDatabase;
use crate::overlay;
use crate::store::{Store, ThingId};
use crate::sys::path;
use crate::types::LayerId;

impl Store {
    pub(super) fn collect_run_state(&self, dry_run: bool, report: &mut GcReport) -> Result<(), Error> {
        // A run root that is not there has nothing to collect, and is not made for this.
        let Some(run) = RunLayout::look(&self.run_root())? else { return Ok(()) };
        let namespace = self.mount_namespace()?;
        if dry_run {
            let counted = RunDatabase::exists(&run.database(), self.boot_id()?);
            let database = if counted { Some(self.run()?) } else { None };
            self.list_mounts(&run, database, namespace, report)?;
        } else {
            self.collect_mount_counts(namespace, report)?;
            self.collect_mount_points(namespace, report)?;
        }
        self.collect_run_directories(&run, dry_run, report)?;
        collect_digest_locks(&run, dry_run, report)?;
        collect_trash(&run, dry_run, report)
    }

    fn list_mounts(
        &self,
        run: &RunLayout,
        database: Option<&RunDatabase>,
        namespace: u64,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let mut elsewhere = HashSet::new();
        for mount in database.map(RunDatabase::mounts).transpose()?.unwrap_or_default() {
            let path = self.mount_point(&mount.layer)?;
            if mount.namespace != namespace {
                elsewhere.insert(mount.layer);
            } else if !overlay::is_mounted(&path)? {
                report.add(GarbageKind::MountCount, path, Some(mount.layer), 0);
            }
        }
        for layer in layers(run)?.filter(|layer| !elsewhere.contains(layer.as_str())) {
            let path = self.mount_point(layer.as_str())?;
            // One with a count that is not mounted loses the count first.
            let is_free =
                !overlay::is_mounted(&path)? && path::list(&path).is_ok_and(|entries| entries.is_empty());
            let written = || database.map(|run| run.hold(|| self.is_written_elsewhere(layer.as_str())));
            if is_free && !written().transpose()?.unwrap_or(false) {
                report.add(GarbageKind::MountPoint, path, Some(layer.to_string()), 0);
            }
        }
        Ok(())
    }

    /// Removes the counts of this mount namespace where nothing is mounted.
    fn collect_mount_counts(&self, namespace: u64, report: &mut GcReport) -> Result<(), Error> {
        for mount in self.run()?.mounts()?.into_iter().filter(|mount| mount.namespace == namespace) {
            let path = self.mount_point(&mount.layer)?;
            // The write transaction keeps others from mounting there meanwhile.
            let dead = self.run()?.update_mount::<_, Error>(&mount.layer, namespace, |slot| {
                if overlay::is_mounted(&path)? {
                    return Ok(false);
                }
                let ended = slot.record.take();
                if let Some(ended) = ended.as_ref().filter(|_| !slot.elsewhere) {
                    self.vouch_for_ended(&mount.layer, ended)?;
                }
                Ok(ended.is_some())
            })?;
            if dead {
                report.add(GarbageKind::MountCount, path, Some(mount.layer), 0);
            }
        }
        Ok(())
    }

    /// Removes mount points of layers that are not mounted and that nobody has asked to be, wherever, and that nobody writes to.
    fn collect_mount_points(&self, namespace: u64, report: &mut GcReport) -> Result<(), Error> {
        for layer in layers(self.run_layout()?)? {
            let path = self.mount_point(layer.as_str())?;
            let removed = self.run()?.update_mount::<_, Error>(layer.as_str(), namespace, |slot| {
                let free = slot.record.is_none() && !slot.elsewhere;
                let is_over =
                    free && !overlay::is_mounted(&path)? && !self.is_written_elsewhere(layer.as_str())?;
                Ok(is_over && remove_mount_point(&path)?)
            })?;
            if removed {
                report.add(GarbageKind::MountPoint, path, Some(layer.to_string()), 0);
            }
        }
        Ok(())
    }

    fn collect_run_directories(
        &self,
        run: &RunLayout,
        dry_run: bool,
        report: &mut GcReport,
    ) -> Result<(), Error> {
        let of = |names: Vec<Vec<u8>>, parse: fn(&str) -> Option<ThingId>| {
            names.into_iter().filter_map(move |name| parse(std::str::from_utf8(&name).ok()?))
        };
        let containers = of(run.container_directories()?, |id| Some(ThingId::Container(id.parse().ok()?)));
        let images = of(run.image_directories()?, |id| Some(ThingId::Image(id.parse().ok()?)));
        for thing in containers.chain(images) {
            let txn = self.begin_verified_read()?;
            let (directory, is_there) = match &thing {
                ThingId::Container(id) => {
                    (RunDirectory::Container(id), txn.container(id.as_str())?.is_some())
                }
                ThingId::Image(id) => (RunDirectory::Image(id), txn.image(id.as_str())?.is_some()),
                ThingId::Layer(_) => continue,
            };
            if is_there {
                continue;
            }
            let (path, bytes) = (run.directory(&directory), run.measure_directory(&directory));
            let removed = if dry_run { Ok(true) } else { self.remove_run_directory(&thing) };
            match removed {
                Ok(true) => {
                    report.add(GarbageKind::RunDirectory, path, Some(thing.as_str().to_owned()), bytes);
                }
                Ok(false) => {}
                Err(error) => report.leave(path, error),
            }
        }
        Ok(())
    }
}

/// Removes lock files of digests whose holders have died.
fn collect_digest_locks(run: &RunLayout, dry_run: bool, report: &mut GcReport) -> Result<(), Error> {
    let dead = match dry_run {
        true => run.look_for_dead_digest_locks()?,
        false => run.dead_digest_locks()?.iter().map(DigestLockFile::path).collect(),
    };
    for path in dead {
        report.add(GarbageKind::Lock, path, None, 0);
    }
    Ok(())
}

fn collect_trash(run: &RunLayout, dry_run: bool, report: &mut GcReport) -> Result<(), Error> {
    for name in run.trash()? {
        let (path, bytes) = (run.trash_path(&name), run.measure_trash(&name));
        match if dry_run { Ok(()) } else { run.delete_trash(&name) } {
            Ok(()) => report.add(GarbageKind::Trash, path, None, bytes),
            Err(error) => report.leave(path, error),
        }
    }
    Ok(())
}

/// The layers that have a mount point.
fn layers(run: &RunLayout) -> Result<impl Iterator<Item = LayerId>, Error> {
    let names = run.mount_points()?.into_iter();
    Ok(names.filter_map(|name| String::from_utf8(name).ok()?.parse().ok()))
}

/// Returns false if something lies in it: somebody's files, which are not ours to remove.
fn remove_mount_point(path: &Path) -> Result<bool, Error> {
    match path::remove_directory(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source: error })
        }
        Err(_) => Ok(false),
    }
}
