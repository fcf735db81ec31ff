//! Removing what crashes left behind. Nothing else in the store needs a repair after one.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use crate::disk::{self, DiffName, Layout, Subdirectory};
use crate::error::{Error, LayoutError, TreeError};
use crate::meta::named_numbers;
use crate::overlay;
use crate::store::{Leftover, Store, find_leftovers};
use crate::sys::{beneath, path, stat};
use crate::types::LayerId;

#[cfg(test)]
mod tests;

/// What a collection removed, or would remove.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct GcReport {
    /// Everything that was removed.
    pub removed: Vec<Garbage>,
    /// The bytes that it took on the disk.
    pub bytes: u64,
    /// Garbage that could not be removed; the next collection tries again.
    pub left: Vec<Uncollected>,
}

/// Something that nothing in the store names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Garbage {
    /// Where it was.
    pub path: PathBuf,
    /// The bytes it took on the disk, as far as they could be measured.
    pub bytes: u64,
}

/// Garbage that could not be removed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Uncollected {
    /// Where it is.
    pub path: PathBuf,
    /// Why it is still there.
    pub error: Error,
}

impl GcReport {
    fn add(&mut self, path: PathBuf, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.removed.push(Garbage { path, bytes });
    }
}

impl Store {
    /// Removes directories and files that no record names and no process holds, what is left in the trash, and
    /// mount points where nothing is mounted. With `dry_run` nothing is touched, and the report says what would be.
    ///
    /// Operations end with nothing to collect; only the death of a process leaves garbage. Collecting is safe at any
    /// time, beside whatever else uses the store.
    ///
    /// # Locking
    ///
    /// Holds the write transaction while it lists directories and moves garbage to the trash, which takes
    /// no longer for large garbage; deletes with no lock.
    ///
    /// Returns [`Error::Meta`] with [`Record`](crate::MetaError::Record) if a record is damaged: what it named cannot
    /// be told from garbage then.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, Error> {
        let mut report = GcReport::default();
        if dry_run {
            self.list_garbage(&mut report)?;
        } else {
            self.collect_garbage(&mut report)?;
        }
        self.collect_mount_points(dry_run, &mut report)?;
        Ok(report)
    }

    fn list_garbage(&self, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        let found = find_leftovers(layout, || named_numbers(&self.database().begin_read()?))?;
        for leftover in found {
            for name in &leftover.names {
                let bytes = measure(layout, leftover.which, name.to_string().as_bytes());
                report.add(layout.entry_path(leftover.which, *name), bytes);
            }
        }
        for name in layout.names(Subdirectory::Trash)? {
            report.add(trash_path(layout, &name), measure(layout, Subdirectory::Trash, &name));
        }
        Ok(())
    }

    fn collect_garbage(&self, report: &mut GcReport) -> Result<(), Error> {
        let mut moved = Vec::new();
        self.database().write::<_, Error>(|txn| {
            for leftover in find_leftovers(self.layout(), || named_numbers(txn))? {
                // A lock file takes an inode, and there may be none.
                match self.with_reserve(|| self.move_leftover(&leftover)) {
                    Ok(pairs) => moved.extend(pairs),
                    Err(error) => {
                        let paths = leftover.paths(self.layout());
                        let path = paths.into_iter().next().unwrap_or_default();
                        report.left.push(Uncollected { path, error });
                    }
                }
            }
            Ok(())
        })?;
        self.delete_trash(moved, report)
    }

    /// Moves a leftover to the trash; returns where each part was and its name there, which a lock file has not.
    /// Nothing, if someone was faster.
    fn move_leftover(&self, leftover: &Leftover) -> Result<Vec<(PathBuf, Option<u64>)>, Error> {
        let (layout, which, number) = (self.layout(), leftover.which, leftover.number);
        let fresh = [self.fresh_number()?, self.fresh_number()?];
        let [entry, aside] = fresh;
        let gone = match which {
            Subdirectory::Work => disk::move_to_trash(layout, which, DiffName::Entry(number), entry)?,
            _ if leftover.entry_is_named => disk::discard_beside(layout, which, number, aside)?,
            _ => disk::discard(layout, which, number, fresh)?,
        };
        let places = leftover.names.iter().map(|name| match name {
            DiffName::Entry(_) => Some(entry),
            DiffName::Aside(_) => Some(aside),
            DiffName::Lock(_) => None,
        });
        Ok(if gone { leftover.paths(layout).zip(places).collect() } else { Vec::new() })
    }

    /// Deletes everything in the trash. Other processes may be doing the same.
    fn delete_trash(&self, moved: Vec<(PathBuf, Option<u64>)>, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        let mut names = layout.names(Subdirectory::Trash)?;
        for (path, number) in moved {
            let Some(name) = number.map(|number| number.to_string().into_bytes()) else {
                report.add(path, 0);
                continue;
            };
            // What is not in the list has been deleted by another process since, and is gone just as well.
            names.retain(|listed| *listed != name);
            delete(layout, &name, path, report)?;
        }
        for name in names {
            delete(layout, &name, trash_path(layout, &name), report)?;
        }
        Ok(())
    }

    /// Removes mount points of layers that are not mounted and that nobody has asked to be.
    fn collect_mount_points(&self, dry_run: bool, report: &mut GcReport) -> Result<(), Error> {
        // A run root that is not there has no mount points, and is not made for this.
        if !path::is_directory(&self.run_root()) {
            return Ok(());
        }
        for name in self.run_layout()?.mount_points()? {
            let Some(layer) = String::from_utf8(name).ok().and_then(|name| name.parse::<LayerId>().ok())
            else {
                continue;
            };
            let path = self.run_layout()?.mount_point(&layer);
            let collected = if dry_run {
                self.run()?.mount(layer.as_str())?.is_none() && !is_mounted(&path)?
            } else {
                // The write transaction keeps others from mounting there meanwhile.
                self.run()?.update_mount::<_, Error>(layer.as_str(), |record| {
                    Ok(record.is_none() && !is_mounted(&path)? && remove_mount_point(&path)?)
                })?
            };
            if collected {
                report.add(path, 0);
            }
        }
        Ok(())
    }
}

fn is_mounted(path: &std::path::Path) -> Result<bool, Error> {
    Ok(path::exists(path).unwrap_or(false) && overlay::is_mounted(path)?)
}

/// Returns false if something lies in it: somebody's files, which are not ours to remove.
fn remove_mount_point(path: &std::path::Path) -> Result<bool, Error> {
    match path::remove_directory(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source: error })
        }
        Err(_) => Ok(false),
    }
}

fn trash_path(layout: &Layout, name: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    layout.path().join(Subdirectory::Trash.name()).join(std::ffi::OsStr::from_bytes(name))
}

/// Deletes one entry of the trash, which stood at `path` before.
fn delete(layout: &Layout, name: &[u8], path: PathBuf, report: &mut GcReport) -> Result<(), Error> {
    let bytes = measure(layout, Subdirectory::Trash, name);
    let trash = layout.subdirectory(Subdirectory::Trash)?;
    let gone = |name: &[u8]| {
        let found = stat::stat_at(trash.as_fd(), name);
        found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let mut result = Ok(());
    // Another process that deletes the same tree makes names vanish under this one's hands.
    for _ in 0..3 {
        result = disk::remove_tree(trash.as_fd(), name);
        match &result {
            Err(TreeError::Mount { .. }) => break,
            Err(_) if !gone(name) => {}
            _ => {
                report.add(path, bytes);
                return Ok(());
            }
        }
    }
    if let Err(error) = result {
        report.left.push(Uncollected { path: trash_path(layout, name), error: error.into() });
    }
    Ok(())
}

/// What an entry takes on the disk; 0 if it cannot be told.
fn measure(layout: &Layout, which: Subdirectory, name: &[u8]) -> u64 {
    let measured = || -> Result<u64, Error> {
        let io_error =
            |source| LayoutError::Io { path: layout.path().join(which.name()), action: "measure", source };
        let dir = layout.subdirectory(which)?;
        let found = stat::stat_at(dir.as_fd(), name).map_err(io_error)?;
        if found.kind != rustix::fs::FileType::Directory {
            return Ok(found.allocated);
        }
        let tree = beneath::open_directory_beneath(dir.as_fd(), name).map_err(io_error)?;
        Ok(disk::usage(tree.as_fd())?.allocated)
    };
    measured().unwrap_or_default()
}
