//! What no row names any more: where the parts of a number stand, and how they go. They are moved to the trash at
//! once, so that nothing half deleted stands where layers are, and deleted there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::FileType;

use super::foreign;
use super::layout::Layout;
use super::names::{CONTENT, DiffName, Subdirectory};
use super::quota;
use super::remove::{remove, remove_tree_by};
use super::usage::{Tally, usage};
use super::walk::Item;
use crate::error::{Error, LayoutError, TreeError};
use crate::sys::stat::{self, Stat};
use crate::sys::{beneath, moment, node};

/// A part of what has a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Where it stands.
    pub(crate) which: Subdirectory,
    /// Its name there.
    pub(crate) name: DiffName,
}

impl Part {
    /// The part with this name in this directory; `None` for a name that means nothing there.
    pub(crate) fn new(which: Subdirectory, name: DiffName) -> Option<Self> {
        let good = match which {
            Subdirectory::Diffs => matches!(name, DiffName::Entry(_) | DiffName::Aside(_)),
            Subdirectory::Blobs
            | Subdirectory::Work
            | Subdirectory::Data
            | Subdirectory::Composefs
            | Subdirectory::Locks => matches!(name, DiffName::Entry(_)),
            Subdirectory::Trash => true,
        };
        good.then_some(Part { which, name })
    }

    /// Its path.
    pub(crate) fn path(self, layout: &Layout) -> PathBuf {
        layout.entry_path(self.which, self.name)
    }

    /// Its name in the trash.
    fn discarded(self) -> Part {
        let number = self.name.number();
        let name = match self.which {
            Subdirectory::Blobs => DiffName::Blob(number),
            Subdirectory::Work => DiffName::Work(number),
            Subdirectory::Data => DiffName::Data(number),
            Subdirectory::Composefs => DiffName::Composefs(number),
            Subdirectory::Diffs | Subdirectory::Locks | Subdirectory::Trash => self.name,
        };
        Part { which: Subdirectory::Trash, name }
    }

    /// Every part that a number can have, lock files left out.
    fn all(number: u64) -> [Part; 12] {
        let part = |which, name: fn(u64) -> DiffName| Part { which, name: name(number) };
        let standing = [
            part(Subdirectory::Diffs, DiffName::Entry),
            part(Subdirectory::Diffs, DiffName::Aside),
            part(Subdirectory::Work, DiffName::Entry),
            part(Subdirectory::Blobs, DiffName::Entry),
            part(Subdirectory::Data, DiffName::Entry),
            part(Subdirectory::Composefs, DiffName::Entry),
        ];
        let [entry, aside, work, blob, data, image] = standing;
        let [a, b, c, d, e, f] = standing.map(Part::discarded);
        [entry, aside, work, blob, data, image, a, b, c, d, e, f]
    }
}

/// The directories that parts stand in, open.
#[derive(Debug)]
pub(crate) struct Trash<'l> {
    layout: &'l Layout,
    diffs: Option<OwnedFd>,
    work: Option<OwnedFd>,
    blobs: Option<OwnedFd>,
    data: Option<OwnedFd>,
    composefs: Option<OwnedFd>,
    trash: Option<OwnedFd>,
}

impl<'l> Trash<'l> {
    /// Opens what is there, for looking.
    pub(crate) fn look(layout: &'l Layout) -> Result<Self, LayoutError> {
        let existing = |which| match layout.existing_subdirectory(which) {
            Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        };
        Ok(Trash {
            layout,
            diffs: existing(Subdirectory::Diffs)?,
            work: existing(Subdirectory::Work)?,
            blobs: existing(Subdirectory::Blobs)?,
            data: existing(Subdirectory::Data)?,
            composefs: existing(Subdirectory::Composefs)?,
            trash: existing(Subdirectory::Trash)?,
        })
    }

    /// Opens what is there, and makes the trash if it is missing.
    pub(crate) fn open(layout: &'l Layout) -> Result<Self, LayoutError> {
        let trash = layout.subdirectory(Subdirectory::Trash)?;
        Ok(Trash { trash: Some(trash), ..Self::look(layout)? })
    }

    fn directory(&self, which: Subdirectory) -> Option<&OwnedFd> {
        match which {
            Subdirectory::Diffs => self.diffs.as_ref(),
            Subdirectory::Work => self.work.as_ref(),
            Subdirectory::Blobs => self.blobs.as_ref(),
            Subdirectory::Data => self.data.as_ref(),
            Subdirectory::Composefs => self.composefs.as_ref(),
            Subdirectory::Trash => self.trash.as_ref(),
            Subdirectory::Locks => None,
        }
    }

    /// The parts of a number that are there; those in the trash come last.
    pub(crate) fn parts(&self, number: u64) -> impl Iterator<Item = Part> + '_ {
        let there = |part: &Part| {
            let name = part.name.to_string().into_bytes();
            self.directory(part.which).is_some_and(|dir| stat::stat_at(dir.as_fd(), &name).is_ok())
        };
        Part::all(number).into_iter().filter(there)
    }

    /// What a part takes on the disk; 0 if it cannot be told.
    pub(crate) fn measure(&self, part: Part) -> u64 {
        let name = part.name.to_string().into_bytes();
        let Some(dir) = self.directory(part.which) else { return 0 };
        let measured = || -> Result<u64, Error> {
            let io_error =
                |source| LayoutError::Io { path: part.path(self.layout), action: "measure", source };
            let found = stat::stat_at(dir.as_fd(), &name).map_err(io_error)?;
            if found.kind != FileType::Directory {
                return Ok(found.allocated);
            }
            let tree = beneath::open_directory_beneath(dir.as_fd(), &name).map_err(io_error)?;
            Ok(usage(tree.as_fd())?.allocated)
        };
        measured().unwrap_or_default()
    }

    /// Moves a part to the trash and returns what it is there; `None` if someone was faster.
    pub(crate) fn discard(&self, part: Part) -> Result<Option<Part>, LayoutError> {
        let discarded = part.discarded();
        let (Some(from), Some(to)) = (self.directory(part.which), &self.trash) else { return Ok(None) };
        let [old, new] = [part, discarded].map(|part| part.name.to_string());
        match node::rename_noreplace(from.as_fd(), old.as_bytes(), to.as_fd(), new.as_bytes()) {
            Ok(()) => {
                moment::pass("discarded");
                Ok(Some(discarded))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => {
                let path = part.path(self.layout);
                if stat::stat_at(from.as_fd(), old.as_bytes()).is_ok_and(|found| found.is_mount) {
                    return Err(LayoutError::Mounted { path });
                }
                Err(LayoutError::Io { path, action: "move to the trash", source })
            }
        }
    }

    /// Deletes a part in the trash, as far as `limit` goes: it counts names, and is counted down. Returns whether
    /// the part is gone. Several processes may do so at once. With the last file of a content goes its name in `content`.
    pub(crate) fn delete(&self, part: Part, limit: &mut u64) -> Result<bool, TreeError> {
        self.delete_telling(part, limit, None)
    }

    /// The same; also returns what the part took on the disk, as [`measure`](Self::measure) does. One walk does both.
    pub(crate) fn delete_measured(&self, part: Part, limit: &mut u64) -> Result<(bool, u64), TreeError> {
        let tally = Mutex::default();
        let gone = self.delete_telling(part, limit, Some(&tally))?;
        Ok((gone, tally.into_inner().unwrap_or_else(PoisonError::into_inner).usage.allocated))
    }

    fn delete_telling(
        &self,
        part: Part,
        limit: &mut u64,
        tally: Option<&Mutex<Tally>>,
    ) -> Result<bool, TreeError> {
        let Some(dir) = self.directory(part.which) else { return Ok(true) };
        let name = part.name.to_string().into_bytes();
        if let DiffName::Entry(_) = part.name {
            quota::release(dir.as_fd(), &name);
        }
        let count = |stat: &dyn Fn() -> io::Result<Stat>| {
            if let Some(tally) = tally
                && let Ok(stat) = stat()
            {
                tally.lock().unwrap_or_else(PoisonError::into_inner).add(&stat);
            }
        };
        let shared = match part.name {
            // Without it there is nothing to be found by hashes.
            DiffName::Composefs(_) => {
                beneath::open_directory_beneath(self.layout.root(), CONTENT.as_bytes()).ok()
            }
            _ => None,
        };
        let delete = |item: &Item| {
            count(&|| match item.stat.kind {
                // Some filesystems take less for one that is empty, as it is now.
                FileType::Directory => Ok(item.stat),
                _ => stat::stat_at(item.dir.as_fd(), &item.name),
            });
            match &shared {
                Some(shared) => remove_named(item, shared.as_fd()),
                None => remove(item),
            }
        };
        count(&|| stat::stat_at(dir.as_fd(), &name));
        remove_tree_by(dir.as_fd(), &name, delete, limit)
            .map_err(|error| foreign::named(error, self.layout, &part.path(self.layout)))
    }
}

/// Removes what is named by its hash, if it is a file, and its name in `shared` if that is the only one left. Who links it just then
/// keeps it, and shares it no more. What stays for any reason is found by `gc`.
fn remove_named(file: &Item, shared: BorrowedFd<'_>) -> io::Result<()> {
    remove(file)?;
    if file.stat.kind != FileType::Directory
        && stat::stat_at(shared, &file.name).is_ok_and(|found| found.links == 1)
        && let Err(error) = node::remove_file(shared, &file.name)
    {
        tracing::debug!(%error, "a shared file is left for gc");
    }
    Ok(())
}
