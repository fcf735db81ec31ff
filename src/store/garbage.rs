//! What crashes leave behind: entries that no row names and nobody holds.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use crate::disk::{self, DiffName, Layout, Subdirectory};
use crate::error::{Error, MetaError};
use crate::meta::NamedNumbers;

/// Names of one number that stand for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Leftover {
    /// Where they are.
    pub(crate) which: Subdirectory,
    /// Their number.
    pub(crate) number: u64,
    /// The names.
    pub(crate) names: Vec<DiffName>,
    /// Whether a row names the entry itself, which stays then.
    pub(crate) entry_is_named: bool,
}

impl Leftover {
    /// The paths of the names.
    pub(crate) fn paths<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = PathBuf> + 'a {
        self.names.iter().map(|name| layout.entry_path(self.which, *name))
    }
}

/// Finds them in `diffs/`, `blobs/` and `work/`. `named` reads the rows, and is asked again after the locks were
/// looked at: who gives up a lock has committed a row before, or removes the entry.
///
/// Returns what `named` does, such as [`MetaError::Record`] when a record is damaged.
pub(crate) fn find_leftovers(
    layout: &Layout,
    named: impl Fn() -> Result<NamedNumbers, MetaError>,
) -> Result<Vec<Leftover>, Error> {
    let mut listed = Vec::new();
    for which in [Subdirectory::Diffs, Subdirectory::Blobs, Subdirectory::Work] {
        listed.push((which, layout.entries(which)?));
    }
    let first = named()?;
    let mut suspects = Vec::new();
    for (which, names) in listed {
        for leftover in unnamed(which, names, &first) {
            // The lock of a layer's directory stands for its workdir too.
            let lock = if which == Subdirectory::Work { Subdirectory::Diffs } else { which };
            if !disk::is_held(layout, lock, leftover.number)? {
                suspects.push(leftover);
            }
        }
    }
    if !suspects.is_empty() {
        let second = named()?;
        suspects
            .retain(|found| found.entry_is_named || !numbers(&second, found.which).contains(&found.number));
    }
    Ok(suspects)
}

fn numbers(named: &NamedNumbers, which: Subdirectory) -> &HashSet<u64> {
    match which {
        Subdirectory::Work => &named.work,
        Subdirectory::Blobs => &named.blobs,
        Subdirectory::Diffs | Subdirectory::Trash => &named.diffs,
    }
}

/// Groups by number what no row names. An entry that a row names has nothing beside it.
fn unnamed(which: Subdirectory, names: Vec<DiffName>, named: &NamedNumbers) -> Vec<Leftover> {
    let mut found: BTreeMap<u64, Leftover> = BTreeMap::new();
    for name in names {
        let (number, is_entry) = match name {
            DiffName::Entry(number) => (number, true),
            DiffName::Lock(number) | DiffName::Aside(number) => (number, false),
        };
        let entry_is_named = numbers(named, which).contains(&number);
        // Workdirs have nothing beside them; a name like that is none of ours.
        if (is_entry && entry_is_named) || (!is_entry && which == Subdirectory::Work) {
            continue;
        }
        let leftover = Leftover { which, number, names: Vec::new(), entry_is_named };
        found.entry(number).or_insert(leftover).names.push(name);
    }
    let order = |name: &DiffName| match name {
        DiffName::Entry(_) => 0,
        DiffName::Aside(_) => 1,
        DiffName::Lock(_) => 2,
    };
    let mut found: Vec<_> = found.into_values().collect();
    found.iter_mut().for_each(|leftover| leftover.names.sort_by_key(order));
    found
}
