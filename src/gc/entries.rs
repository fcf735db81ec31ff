//! Directories, blobs and lock files that no record needs.

use std::path::Path;

use super::{GarbageKind, GcReport};
use crate::disk::{DiffName, ForeignMounts, Part, Subdirectory, Trash};
use crate::error::Error;
use crate::store::{Leftovers, Store, Sweep, Swept, find_leftovers};

impl Store {
    pub(super) fn list_entries(&self, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        let Leftovers { found, doubtful } = find_leftovers(layout, || self.named_numbers())?;
        let trash = Trash::look(layout)?;
        let mounts = ForeignMounts::look(layout).ok();
        for leftover in found {
            let error = |path: &Path| mounts.as_ref().and_then(|mounts| mounts.error(path));
            let is_left = leftover.paths(layout).any(|path| error(&path).is_some());
            for part in leftover.parts {
                let path = part.path(layout);
                match error(&path) {
                    Some(error) => report.leave(path, error),
                    // It announces what stays.
                    None if is_left && part.which == Subdirectory::Locks => {}
                    None => report.add(kind(part), path, None, trash.measure(part)),
                }
            }
        }
        for one in doubtful {
            report.leave(one.part.path(layout), one.error);
        }
        Ok(())
    }

    pub(super) fn collect_entries(&self, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        let mut tell = |swept| match swept {
            Swept::Removed(part, bytes) => report.add(kind(part), part.path(layout), None, bytes),
            Swept::Left(part, error) => report.leave(part.path(layout), error),
        };
        let mut sweep = Sweep::reporting(self, &mut tell)?;
        sweep.announced()?;
        sweep.unannounced()?;
        self.note_collected()
    }
}

fn kind(part: Part) -> GarbageKind {
    match (part.which, part.name) {
        (Subdirectory::Trash, _) => GarbageKind::Trash,
        (Subdirectory::Locks, _) => GarbageKind::Lock,
        (Subdirectory::Work, _) => GarbageKind::Workdir,
        (Subdirectory::Blobs, _) => GarbageKind::Blob,
        (Subdirectory::Data, _) => GarbageKind::Data,
        (Subdirectory::Composefs, _) => GarbageKind::Composefs,
        (Subdirectory::Diffs, DiffName::Aside(_)) => GarbageKind::Aside,
        (Subdirectory::Diffs, _) => GarbageKind::Directory,
    }
}
