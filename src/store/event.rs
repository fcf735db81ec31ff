//! What the journal tells of a change.

use std::fmt;

use layerstore_schema::record::{Action, JournalRecord, RecordError, aspect};
use layerstore_schema::table::{self, Owner};

use crate::error::MetaError;
use crate::types::{Digest, Name, Timestamp, stored, stored_list};

use super::ThingId;

/// What one transaction did to one thing, or to one blob that is kept as it was delivered.
///
/// A transaction has one event for each thing that it created, changed or removed, however often it wrote it, and
/// none for a thing that is after it as before. Loading an image so gives an event for each layer and blob that is new,
/// and one for the image; and one for the image that its name was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The position of the event: the number of the one before and one more. What comes after it is what
    /// [`WatchOptions::since`](super::WatchOptions::since) it gives.
    pub sequence: u64,
    /// When the transaction was about to be committed, by the clock of that moment: the sequence orders events, not
    /// the time.
    pub time: Timestamp,
    /// What happened.
    pub kind: EventKind,
    /// To what.
    pub subject: Subject,
    /// The names that the thing has after the transaction; of a removed thing, those that it had. Blobs have none.
    pub names: Vec<Name>,
    /// What changed of it. Empty unless the kind is [`EventKind::Changed`].
    pub aspects: Vec<Aspect>,
}

/// What happened to a thing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EventKind {
    /// It was created, loaded, committed or imported.
    Created,
    /// Parts of it are others now.
    Changed,
    /// It was removed.
    Removed,
}

impl EventKind {
    /// The word for messages: `created`, `changed` or `removed`.
    pub fn word(self) -> &'static str {
        match self {
            EventKind::Created => "created",
            EventKind::Changed => "changed",
            EventKind::Removed => "removed",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What an event is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Subject {
    /// A layer, an image or a container.
    Thing(ThingId),
    /// A layer blob kept as it was delivered.
    Blob(Digest),
}

impl Subject {
    /// The word for messages: `layer`, `image`, `container` or `blob`.
    pub fn word(&self) -> &'static str {
        match self {
            Subject::Thing(id) => id.kind().word(),
            Subject::Blob(_) => "blob",
        }
    }

    /// The thing; `None` for a blob.
    pub fn thing(&self) -> Option<&ThingId> {
        match self {
            Subject::Thing(id) => Some(id),
            Subject::Blob(_) => None,
        }
    }
}

/// The id of a thing, or the digest of a blob.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Thing(id) => f.pad(id.as_str()),
            Subject::Blob(digest) => digest.fmt(f),
        }
    }
}

/// A part of a thing that can change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Aspect {
    /// Its names.
    Names,
    /// Its metadata.
    Metadata,
    /// Its data items.
    Items,
    /// Its flags.
    Flags,
    /// Its labels.
    Labels,
    /// The digests that it is known by: manifests of an image, blobs of a layer.
    Digests,
    /// Anything else that the store knows of it.
    Record,
}

impl Aspect {
    const ALL: [(Aspect, u32); 7] = [
        (Aspect::Names, aspect::NAMES),
        (Aspect::Metadata, aspect::METADATA),
        (Aspect::Items, aspect::ITEMS),
        (Aspect::Flags, aspect::FLAGS),
        (Aspect::Labels, aspect::LABELS),
        (Aspect::Digests, aspect::DIGESTS),
        (Aspect::Record, aspect::RECORD),
    ];

    /// The word for messages: `names`, `metadata`, `items`, `flags`, `labels`, `digests` or `record`.
    pub fn word(self) -> &'static str {
        match self {
            Aspect::Names => "names",
            Aspect::Metadata => "metadata",
            Aspect::Items => "items",
            Aspect::Flags => "flags",
            Aspect::Labels => "labels",
            Aspect::Digests => "digests",
            Aspect::Record => "record",
        }
    }
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Event {
    pub(super) fn from_record(sequence: u64, record: JournalRecord) -> Result<Self, MetaError> {
        let key = sequence.to_string();
        let damaged = |reason: &str| MetaError::Record {
            kind: "journal",
            key: key.clone(),
            source: RecordError { kind: "journal", reason: reason.to_owned() },
        };
        let kind = match record.action {
            Action::Created => EventKind::Created,
            Action::Changed => EventKind::Changed,
            Action::Removed => EventKind::Removed,
            _ => return Err(damaged("its action is none that this build knows")),
        };
        let id = &record.id;
        let subject = match (Owner::from_code(record.owner), record.owner) {
            (Some(Owner::Layer), _) => Subject::Thing(ThingId::Layer(stored("journal", &key, id)?)),
            (Some(Owner::Image), _) => Subject::Thing(ThingId::Image(stored("journal", &key, id)?)),
            (Some(Owner::Container), _) => Subject::Thing(ThingId::Container(stored("journal", &key, id)?)),
            (None, table::JOURNAL_BLOB) => Subject::Blob(stored("journal", &key, id)?),
            (None, _) => return Err(damaged("it is about a kind of thing that this build does not know")),
        };
        let aspects = Aspect::ALL.iter().filter(|(_, bit)| record.aspects & bit != 0);
        Ok(Event {
            sequence,
            time: record.time.into(),
            kind,
            subject,
            names: stored_list("journal", &key, record.names)?,
            aspects: aspects.map(|(aspect, _)| *aspect).collect(),
        })
    }
}
