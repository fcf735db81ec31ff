//! What stands in the store's directories and no record names.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use super::Finding;
use crate::disk::{DiffName, Part, Subdirectory};
use crate::error::{Error, MetaError};
use crate::meta::named_numbers;
use crate::store::{Store, find_leftovers};
use crate::sys::path;

/// How long a check waits for others to remove what no record names.
const REMOVAL_PAUSES: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// Finds garbage, and what is none of the store's.
pub(super) fn check(store: &Store) -> Result<Vec<Finding>, Error> {
    let layout = store.layout();
    let mut findings = Vec::new();
    match find_leftovers(layout, || named_numbers(&store.database().begin_read()?)) {
        Ok(found) => {
            let paths = found.iter().flat_map(|leftover| leftover.paths(layout));
            findings.extend(paths.map(|path| Finding::Garbage { path }));
        }
        // It is found already, and what it names is not known.
        Err(Error::Meta(MetaError::Record { .. })) => {}
        Err(error) => return Err(error),
    }
    for which in Subdirectory::LISTED.into_iter().chain([Subdirectory::Locks]) {
        for name in layout.names(which)? {
            if DiffName::parse(&name).and_then(|name| Part::new(which, name)).is_none() {
                let path = layout.path().join(which.name()).join(OsStr::from_bytes(&name));
                findings.push(Finding::Stray { path });
            }
        }
    }
    // What another process is just removing gets a moment to go.
    for _ in 0..REMOVAL_PAUSES {
        findings.retain(|finding| match finding {
            Finding::Garbage { path } | Finding::Stray { path } => path::exists(path).unwrap_or(true),
            _ => true,
        });
        if findings.is_empty() {
            break;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
    findings.sort_by_key(Finding::thing);
    Ok(findings)
}
