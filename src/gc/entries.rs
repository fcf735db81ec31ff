//! Directories, blobs and lock files that no record needs.

use super::{GarbageKind, GcReport};
use crate::disk::{DiffName, ForeignMounts, Part, Subdirectory, Trash};
use crate::error::{Error, TreeError};
use crate::store::{Leftovers, Store, Sweep, Swept, find_leftovers};

impl Store {
    pub(super) fn list_entries(&self, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        let Leftovers { found, doubtful } = find_leftovers(layout, || self.named_numbers())?;
        let trash = Trash::look(layout)?;
        let mounts = ForeignMounts::look(layout).ok();
        for leftover in found {
            for (part, path, mount) in leftover.around_mounts(layout, mounts.as_ref()) {
                match mount {
                    Some(target) => report.leave(path, TreeError::Mount { path: target.to_owned() }),
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
