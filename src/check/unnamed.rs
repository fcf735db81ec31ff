//! What stands in the store's directories and no record names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::Note;
use crate::disk::{DiffName, ForeignMounts, Part, Subdirectory};
use crate::error::{Error, MetaError};
use crate::store::{Store, StoreOptions, find_leftovers};
use crate::sys::path;

/// How long a check waits for others to remove what no record names.
const REMOVAL_PAUSES: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// What stands in the store's directories and should not.
pub(super) struct Unnamed {
    /// What no record names and no process holds.
    pub(super) garbage: Vec<PathBuf>,
    /// What would be garbage, and somebody has mounted something in.
    pub(super) mounted: Vec<Note>,
    /// What is none of the store's.
    pub(super) strays: Vec<PathBuf>,
    /// The database of which a page is not as it was written, if so: nothing is known to be garbage then.
    pub(super) damaged: Option<PathBuf>,
}

/// Finds garbage, and what is none of the store's.
pub(super) fn check(store: &Store) -> Result<Unnamed, Error> {
    let layout = store.layout();
    let mut found = Unnamed { garbage: Vec::new(), mounted: Vec::new(), strays: Vec::new(), damaged: None };
    match find_leftovers(layout, || store.named_numbers()) {
        // What stands where something is missing may be that, and `gc` leaves it.
        Ok(leftovers) => {
            let mounts = ForeignMounts::look(layout).ok();
            for leftover in &leftovers.found {
                for (_, path, mount) in leftover.around_mounts(layout, mounts.as_ref()) {
                    match mount {
                        Some(target) => found.mounted.push(Note::mounted(&path, target)),
                        None => found.garbage.push(path),
                    }
                }
            }
        }
        // It is found already, and what it names is not known.
        Err(Error::Meta(MetaError::Record { .. })) => {}
        Err(Error::Meta(MetaError::Damaged { path })) => found.damaged = Some(path),
        // What may be needed elsewhere is not told from garbage.
        Err(Error::Meta(MetaError::TransientUnseen { .. })) => {}
        Err(error) => return Err(error),
    }
    // A run root may lie in the store, and that of another process is no stray in mine.
    let run_roots = [store.run_root(), StoreOptions::at(layout.path()).run_root_path()];
    found.strays.extend(
        layout
            .strays()?
            .into_iter()
            .filter(|path| !run_roots.iter().any(|run_root| run_root.starts_with(path))),
    );
    for which in Subdirectory::ALL {
        for name in layout.names(which)? {
            if DiffName::parse(&name).and_then(|name| Part::new(which, name)).is_none() {
                let path = layout.path().join(which.name()).join(OsStr::from_bytes(&name));
                found.strays.push(path);
            }
        }
    }
    // What another process is just removing gets a moment to go.
    for _ in 0..REMOVAL_PAUSES {
        for paths in [&mut found.garbage, &mut found.strays] {
            paths.retain(|path| path::exists(path).unwrap_or(true));
        }
        if found.garbage.is_empty() && found.strays.is_empty() {
            break;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
    found.garbage.sort();
    found.strays.sort();
    Ok(found)
}
