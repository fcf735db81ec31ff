//! Snapshots of a worker: what is done to them, and what they must be after each operation.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use layerstore::Store;
use layerstore::snapshotter::{CommitOptions, Kind, SnapshotError, Snapshotter, SnapshotterOptions};
use serde::{Deserialize, Serialize};

use super::content::Content;
use super::model::{Owned, must};
use super::observe::{self, Trouble};
use super::op::{Op, Refusal};

/// What begins the name of a snapshot's layer.
pub const PREFIX: &str = "snapshot:";

/// A snapshot, which is known by its key, or by its name once it is committed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub parent: Option<String>,
    /// What it has itself, if it is committed. What is in others is not looked at: whoever wrote it may have died meanwhile.
    pub files: Option<BTreeMap<String, Content>>,
}

impl From<SnapshotError> for Trouble {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Store(error) => Trouble::Error(error),
            error => Trouble::Wrong(error.to_string()),
        }
    }
}

pub fn of(store: &Store) -> Snapshotter {
    Snapshotter::new(store.clone(), SnapshotterOptions::default()).unwrap()
}

/// The snapshots whose keys begin so.
pub fn observe(store: &Store, prefix: &str) -> Result<BTreeMap<String, Snapshot>, Trouble> {
    let mut found = Vec::new();
    of(store).walk(&[], |info| {
        found.push(info);
        Ok(())
    })?;
    let mut seen = BTreeMap::new();
    for info in found.into_iter().filter(|info| info.name.starts_with(prefix)) {
        let files = match info.kind {
            Kind::Committed => Some(observe::files(store, &layer(store, &info.name)?)?),
            _ => None,
        };
        seen.insert(info.name, Snapshot { parent: info.parent, files });
    }
    Ok(seen)
}

fn layer(store: &Store, key: &str) -> Result<layerstore::Layer, Trouble> {
    Ok(store.layer(&format!("{PREFIX}{key}"))?)
}

/// Lets a directory have these files alone: who died in a commit, or was refused, has left his.
fn write(upper: &Path, files: &BTreeMap<String, Content>) -> io::Result<()> {
    for left in fs::read_dir(upper)? {
        let left = left?;
        if left.file_type()?.is_dir() {
            fs::remove_dir_all(left.path())
        } else {
            fs::remove_file(left.path())
        }?;
    }
    files.iter().try_for_each(|(path, content)| {
        let path = upper.join(path);
        fs::create_dir_all(path.parent().unwrap())?;
        fs::write(path, content.bytes())
    })
}

/// Does an operation on snapshots.
pub fn perform(store: &Store, op: &Op) -> Result<(), Trouble> {
    let snapshots = of(store);
    match op {
        Op::Prepare { key, parent } => {
            snapshots.prepare(key, parent.as_deref(), &BTreeMap::new())?;
        }
        Op::CommitSnapshot { key, name, onto, files } => {
            let upper = store.layer_places(&layer(store, key)?.id)?.upper;
            write(&upper, files).map_err(|error| format!("{}: {error}", upper.display()))?;
            let mut options = CommitOptions::default();
            options.parent.clone_from(onto);
            snapshots.commit(name, key, &options)?;
        }
        Op::RemoveSnapshot { key } => snapshots.remove(key)?,
        _ => {}
    }
    Ok(())
}

impl Owned {
    /// Does what an operation on snapshots did; `None` if it is not about them.
    pub(super) fn done_to_snapshots(&mut self, op: &Op) -> Option<Result<(), String>> {
        Some(match op {
            Op::Prepare { key, parent } => {
                let begun = Snapshot { parent: parent.clone(), files: None };
                must(self.snapshots.insert(key.clone(), begun).is_none(), "the key was taken")
            }
            Op::CommitSnapshot { key, name, onto, files } => {
                let mut snapshot = self.snapshots.remove(key)?;
                let was_active = snapshot.files.replace(files.clone()).is_none();
                snapshot.parent = onto.clone().or(snapshot.parent);
                let taken = self.snapshots.insert(name.clone(), snapshot).is_some();
                must(was_active && !taken, "it is committed, or the name is taken")
            }
            Op::RemoveSnapshot { key } => {
                let is_below = self.is_below(key);
                let gone = self.snapshots.remove(key).is_some();
                must(gone && !is_below, "there is none, or another stands on it")
            }
            _ => return None,
        })
    }

    /// Whether such an operation can be refused so.
    pub(super) fn refused_to_snapshots(op: &Op, refusal: Refusal) -> bool {
        matches!((op, refusal), (Op::CommitSnapshot { .. }, Refusal::Busy))
    }

    pub fn is_below(&self, key: &str) -> bool {
        self.snapshots.values().any(|snapshot| snapshot.parent.as_deref() == Some(key))
    }
}
