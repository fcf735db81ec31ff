//! Removing what crashes left behind. Nothing else in the store needs a repair after one.
//!
//! | part | what it collects |
//! | --- | --- |
//! | [`entries`] | directories, blobs and lock files that no record needs |
//! | [`leases`] | leases that are over, with their layers |
//! | [`run`] | mount counts, mount points and run directories |
//! | [`report`] | what is told of it |

mod entries;
mod leases;
mod report;
mod run;
#[cfg(test)]
mod tests;

use crate::composefs;
use crate::error::Error;
use crate::store::Store;

pub use report::{Garbage, GarbageKind, GcReport};

impl Store {
    /// Removes whatever no record names and no process holds: directories and files, what is left in the trash, mount
    /// counts and mount points where nothing is mounted, run directories of containers that are gone, and layers that
    /// only a [lease](Self::lease) that is over has kept. With `dry_run` nothing is touched, and the report says what would be.
    ///
    /// Operations end with nothing to collect; only the death of a process leaves garbage. The first write through a
    /// [`Store`] removes most of it anyway. Collecting is safe at any time, beside whatever else uses the store.
    ///
    /// While a directory or file is missing that a record names, whatever may be it stays, in [`GcReport::left`] with
    /// [`LayoutError::InDoubt`](crate::LayoutError::InDoubt).
    ///
    /// # Locking
    ///
    /// Deletes with no lock of the database held. Holds the write lock while a run directory is renamed, and that of
    /// the run database while a mount point is looked at.
    ///
    /// Returns [`Error::ReadOnly`] if the store is open for reading only, unless with `dry_run`, and [`Error::Meta`] with
    /// [`Record`](crate::MetaError::Record) if a record is damaged: what it named cannot
    /// be told from garbage then. So it is with [`Damaged`](crate::MetaError::Damaged): a page by which that is told is not as it was
    /// written; and with [`TransientUnseen`](crate::MetaError::TransientUnseen): the rows of transient
    /// containers are in a run root that this process cannot see; see [`forget_transient`](Self::forget_transient).
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, Error> {
        self.gc_used_by(dry_run, None)
    }

    /// As [`gc`](Self::gc); `user` is the store that has this one for its images, if so.
    fn gc_used_by(&self, dry_run: bool, user: Option<&Store>) -> Result<GcReport, Error> {
        let mut report = GcReport::default();
        if !dry_run {
            // A build that may only read is refused here.
            self.database().require_writable()?;
            self.begin_collecting()?;
        }
        self.collect_leases(dry_run, user, &mut report)?;
        if dry_run {
            self.list_entries(&mut report)?;
        } else {
            self.collect_entries(&mut report)?;
        }
        composefs::sweep_content(self.layout(), dry_run, |path, bytes| {
            report.add(GarbageKind::Content, path, None, bytes);
        })?;
        self.collect_run_state(dry_run, &mut report)?;
        if let Some(images) = self.separate_images() {
            let of_images = images.gc_used_by(dry_run, Some(self))?;
            report.removed.extend(of_images.removed);
            report.left.extend(of_images.left);
            report.bytes = report.bytes.saturating_add(of_images.bytes);
        }
        Ok(report)
    }
}
