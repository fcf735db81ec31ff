//! What a check tells and what is no damage: layers and blobs that are not known to be on the disk, and layers that another
//! program serves, what is garbage but for a mount in it, and a run root that is not looked into.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use layerstore_schema::record::LayerContent;

use super::{Damage, Scope, SealedTree};
use crate::disk::{AdditionalDirectory, DiffName, Subdirectory};
use crate::error::Error;
use crate::meta::Records;
use crate::store::Store;
use crate::sys::path;
use crate::types::TreeDigest;

/// Something that is as it should be, and that one may want to know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// It was written in this boot and not synced: whole, and a power cut may cost it.
    #[error("{thing} in {path:?} is not synced; `layerstore sync` brings it to the disk")]
    Unsynced {
        /// The layer or layers, or the kept blob.
        thing: String,
        /// The directory or file.
        path: PathBuf,
    },
    /// Its files are in an additional layer store: nothing says what should be in them.
    #[error(
        "{thing} is served by an additional layer store from {path:?}; what is in it cannot be verified here"
    )]
    Served {
        /// The layer.
        thing: String,
        /// The directory.
        path: PathBuf,
    },
    /// No record names it, and a filesystem is mounted in it, so `gc` leaves it.
    #[error(
        "a filesystem is mounted at {target:?}, in {thing}, which no record names: unmount it, and `layerstore gc` removes the rest"
    )]
    Mounted {
        /// The directory of the store's.
        thing: String,
        /// The mount point.
        target: PathBuf,
    },
    /// The run root is not its owner's alone, or something else stands in its place, so nothing in it is read. Who writes to the store is
    /// refused for it.
    #[error("the notes of mounts in {thing} are not checked: {reason}")]
    RunRootUnused {
        /// The run root.
        thing: String,
        /// Why, and what to do.
        reason: String,
    },
    /// It was new and empty when the machine went down, and did not reach the disk.
    #[error(
        "{thing} was new when the machine went down, and {path:?} was not on the disk: it is made again, empty, when it is used"
    )]
    MadeAgain {
        /// The layer.
        thing: String,
        /// The directory.
        path: PathBuf,
    },
    /// It was not synced when the machine went down, and nobody has used it since.
    #[error(
        "{thing} in {path:?} was not synced when the machine went down; it is verified before its first use, and by \
         `layerstore check --deep`"
    )]
    Unverified {
        /// The layer or layers, or the kept blob.
        thing: String,
        /// The directory or file.
        path: PathBuf,
    },
}

impl Note {
    /// A word for the kind of note, for programs: it stays the same in all releases.
    pub fn code(&self) -> &'static str {
        match self {
            Note::Unsynced { .. } => "unsynced",
            Note::Unverified { .. } => "unverified",
            Note::MadeAgain { .. } => "made-again",
            Note::Served { .. } => "served",
            Note::Mounted { .. } => "mounted",
            Note::RunRootUnused { .. } => "run-root-unused",
        }
    }

    /// What it is about, such as `layer 5f70bf18a086`.
    pub fn thing(&self) -> &str {
        match self {
            Note::Unsynced { thing, .. }
            | Note::Unverified { thing, .. }
            | Note::MadeAgain { thing, .. }
            | Note::Served { thing, .. }
            | Note::Mounted { thing, .. }
            | Note::RunRootUnused { thing, .. } => thing,
        }
    }

    pub(super) fn mounted(path: &Path, target: &Path) -> Self {
        Note::Mounted { thing: path.display().to_string(), target: target.to_owned() }
    }
}

/// Notes what is not synced, and what is not the store's; a number that nothing has is a damage.
pub(super) fn check(
    store: &Store,
    records: &Records,
    scope: &Scope,
    damages: &mut Vec<Damage>,
) -> Result<Vec<Note>, Error> {
    let mut notes = served(records, scope);
    if scope.is_everything() && !records.damaged.iter().any(|record| record.kind == "layer") {
        let known = records.written_numbers();
        // That one is new is nothing to tell.
        let unused = records.made_empty.keys().filter(|number| !known.contains(number));
        damages.extend(unused.map(|number| Damage::UnsyncedUnused { number: *number }));
    }
    for layer in records.layers.values().filter(|layer| scope.has_layer(&layer.id)) {
        if let LayerContent::Writable(number) = layer.content
            && is_made_again(store, records, number)?
        {
            notes.push(Note::MadeAgain {
                thing: format!("layer {}", layer.id),
                path: store.diff_path(number),
            });
        }
    }
    if records.unsynced.is_empty() {
        return Ok(notes);
    }
    let boot = store.boot_id()?;
    // A record that cannot be read is found already, and its number is not known.
    let all_are_known = scope.is_everything()
        && !records.damaged.iter().any(|record| ["diff", "kept blob"].contains(&record.kind));
    let known = known_numbers(records, scope);
    for (number, of) in &records.unsynced {
        match known.get(number) {
            Some((which, Some(thing))) => {
                let path = store.layout().entry_path(*which, DiffName::Entry(*number));
                let thing = thing.clone();
                notes.push(match of == boot {
                    true => Note::Unsynced { thing, path },
                    false => Note::Unverified { thing, path },
                });
            }
            // Not what is being checked.
            Some((_, None)) => {}
            None if all_are_known => damages.push(Damage::UnsyncedUnused { number: *number }),
            None => {}
        }
    }
    Ok(notes)
}

/// Whether a directory that is not there was new when the machine went down.
pub(super) fn is_made_again(store: &Store, records: &Records, number: u64) -> Result<bool, Error> {
    let Some(of) = records.made_empty.get(&number) else { return Ok(false) };
    Ok(of != store.boot_id()? && !path::exists(&store.diff_path(number)).unwrap_or(true))
}

/// The layers of which only their directory can be checked.
fn served(records: &Records, scope: &Scope) -> Vec<Note> {
    let layers = records.layers.values().filter(|layer| scope.has_layer(&layer.id));
    let served = layers.filter_map(|layer| match &layer.content {
        LayerContent::Additional(path) => {
            let path = AdditionalDirectory::from_bytes(path).diff_path();
            Some(Note::Served { thing: format!("layer {}", layer.id), path })
        }
        LayerContent::Sealed(_) | LayerContent::Writable(_) => None,
    });
    served.collect()
}

/// Where each number is, and the thing that has it, if that is in the scope.
fn known_numbers(records: &Records, scope: &Scope) -> BTreeMap<u64, (Subdirectory, Option<String>)> {
    let mut layers_of: BTreeMap<&[u8; 32], Vec<String>> = BTreeMap::new();
    for layer in records.layers.values() {
        if let LayerContent::Sealed(tree) = &layer.content {
            layers_of.entry(tree).or_default().push(layer.id.clone());
        }
    }
    let trees = records.diffs.iter().map(|(tree, record)| {
        let layers = layers_of.remove(tree).unwrap_or_default();
        let wanted = scope.is_everything() || layers.iter().any(|layer| scope.has_layer(layer));
        let tree = SealedTree { digest: TreeDigest(*tree), layers };
        (record.number, (Subdirectory::Diffs, wanted.then(|| tree.to_string())))
    });
    let blobs = records.kept_blobs.iter().map(|(digest, record)| {
        let thing = scope.is_everything().then(|| format!("kept blob {digest}"));
        (record.number, (Subdirectory::Blobs, thing))
    });
    trees.chain(blobs).collect()
}
