//! What containerd does with a store: an operation as bytes say it, doing it, and what the model makes of it.

use std::collections::BTreeMap;
use std::fs;

use super::super::fields::Fields;
use super::op::{FILES, choose, failed};
use super::state::{Layer, State};
use crate::error::{Error, SnapshotError};
use crate::snapshotter::{CommitOptions, Kind, Snapshotter, SnapshotterOptions};
use crate::store::Store;

/// Keys and names at once.
const KEYS: [&str; 3] = ["x", "y", "z"];

/// One call of containerd's, or what it writes into what it mounted.
#[derive(Clone, Debug)]
pub(super) enum Snapshot {
    Prepare { key: String, parent: Option<String> },
    View { key: String, parent: Option<String> },
    Write { key: String, file: String, content: u8 },
    Commit { name: String, key: String, parent: Option<String> },
    Remove(String),
}

impl Snapshot {
    pub(super) fn new(fields: &mut Fields<'_>) -> Self {
        let key = |fields: &mut Fields<'_>| choose(fields, KEYS);
        match fields.byte() % 6 {
            0 | 1 => Snapshot::Prepare { key: key(fields), parent: fields.option(key) },
            2 => Snapshot::View { key: key(fields), parent: fields.option(key) },
            3 => {
                let (key, file) = (key(fields), choose(fields, FILES));
                Snapshot::Write { key, file, content: fields.byte() % 2 }
            }
            4 => Snapshot::Commit { name: key(fields), key: key(fields), parent: fields.option(key) },
            _ => Snapshot::Remove(key(fields)),
        }
    }

    pub(super) fn perform(&self, store: &Store) -> Result<(), Error> {
        let snapshots = Snapshotter::new(store.clone(), SnapshotterOptions::default()).map_err(error)?;
        let labels = BTreeMap::new();
        let done = match self {
            Snapshot::Prepare { key, parent } => snapshots.prepare(key, parent.as_deref(), &labels).map(drop),
            Snapshot::View { key, parent } => snapshots.view(key, parent.as_deref(), &labels).map(drop),
            Snapshot::Write { key, file, content } => return write(store, key, file, *content),
            Snapshot::Commit { name, key, parent } => {
                snapshots.commit(name, key, &CommitOptions { parent: parent.clone(), ..Default::default() })
            }
            Snapshot::Remove(key) => snapshots.remove(key),
        };
        done.map_err(error)
    }
}

/// What a container does that has a snapshot as its root.
fn write(store: &Store, key: &str, file: &str, content: u8) -> Result<(), Error> {
    let layer = store.layer(&name_of(key))?;
    if !layer.is_writable() {
        return Err(failed("a snapshot that is not active is mounted read-only"));
    }
    let written = fs::write(store.layer_directory(&layer.id)?.join(file), [content; 10]);
    assert!(written.is_ok(), "a snapshot cannot be written to: {written:?}");
    Ok(())
}

fn error(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Store(error) => error,
        error => failed(error),
    }
}

/// What a snapshot's layer is called.
fn name_of(key: &str) -> String {
    format!("snapshot:{key}")
}

impl Layer {
    fn is_snapshot(&self, kind: Kind) -> bool {
        self.snapshot.as_deref() == Some(kind.word())
    }

    /// Whether it cannot be stood on, being a snapshot that may change or go.
    pub(super) fn is_uncommitted(&self) -> bool {
        self.snapshot.is_some() && !self.is_snapshot(Kind::Committed)
    }
}

impl State {
    /// `None` if it is refused.
    pub(super) fn snapshot(&mut self, snapshot: &Snapshot) -> Option<()> {
        match snapshot {
            Snapshot::Prepare { key, parent } => self.new_snapshot(Kind::Active, key, parent.as_deref()),
            Snapshot::View { key, parent } => self.new_snapshot(Kind::View, key, parent.as_deref()),
            Snapshot::Write { key, file, content } => {
                let name = name_of(key);
                let layer = self.layers.get(&name)?;
                if !layer.is_writable {
                    return None;
                }
                self.fill(&name, &[(file.clone(), *content)])?;
                // It never was an archive.
                self.layers.get_mut(&name)?.diff_id = None;
                Some(())
            }
            Snapshot::Commit { name, key, parent } => {
                self.commit_snapshot(&name_of(name), &name_of(key), parent.as_deref())
            }
            Snapshot::Remove(key) => {
                let name = name_of(key);
                let is_used = self.is_used(&name);
                self.layers.remove(&name).filter(|_| !is_used).map(drop)
            }
        }
    }

    fn new_snapshot(&mut self, kind: Kind, key: &str, parent: Option<&str>) -> Option<()> {
        let parent = parent.map(name_of);
        if let Some(parent) = &parent
            && !self.layers.get(parent)?.is_snapshot(Kind::Committed)
        {
            return None;
        }
        let name = name_of(key);
        let layer = self.new_layer(&name, parent.as_deref(), std::slice::from_ref(&name))?;
        layer.is_writable = kind == Kind::Active;
        layer.snapshot = Some(kind.word().to_owned());
        Some(())
    }

    /// Gives the layer its new name, and sometimes a parent: in the model a name is what it is known by.
    fn commit_snapshot(&mut self, name: &str, key: &str, parent: Option<&str>) -> Option<()> {
        let is_active = self.layers.get(key)?.is_snapshot(Kind::Active);
        if !is_active || self.layers.contains_key(name) {
            return None;
        }
        let mut layer = self.layers.remove(key)?;
        if let Some(parent) = parent.map(name_of) {
            if !self.layers.get(&parent)?.is_snapshot(Kind::Committed)
                || layer.parent.as_ref().is_some_and(|held| *held != parent)
            {
                return None;
            }
            layer.parent = Some(parent);
        }
        layer.is_writable = false;
        layer.snapshot = Some(Kind::Committed.word().to_owned());
        layer.common.names.remove(key);
        layer.common.names.insert(name.to_owned());
        self.layers.insert(name.to_owned(), layer);
        self.tell_changes(name)
    }
}
