//! What is known of a snapshot.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// It is written to, until it is committed or removed.
    Active,
    /// It is looked at.
    View,
    /// It never changes, and others stand on it.
    Committed,
}

impl Kind {
    /// The word that filters use: `active`, `view` or `committed`.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Active => "active",
            Kind::View => "view",
            Kind::Committed => "committed",
        }
    }

    pub(super) fn from_word(word: &str) -> Option<Kind> {
        [Kind::Active, Kind::View, Kind::Committed].into_iter().find(|kind| kind.word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A snapshot, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// What it is for.
    pub kind: Kind,
    /// Its name; until it is committed, its key.
    pub name: String,
    /// The name of the committed snapshot below it.
    pub parent: Option<String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// When it was prepared or, if it is committed, when that was.
    pub created: SystemTime,
    /// When its labels were last changed.
    pub updated: SystemTime,
}

/// What a snapshot takes by itself, without those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Inodes.
    pub inodes: u64,
    /// Bytes on the disk.
    pub size: u64,
}
