//! The journal: what each commit changed, in the order of the commits.
//!
//! A transaction notes what it touches and writes the rows at its end, one for each thing that is not as it was
//! before. So a thing that is written three times in one transaction has changed once, and what was written without
//! being another value has not changed.

use std::collections::HashMap;

use layerstore_schema::record::{
    Action, ContainerRecord, ImageRecord, JournalRecord, LayerRecord, Record, aspect,
};
use layerstore_schema::table::{self, Owner};

use super::txn::decode;
use super::valid::Stored;
use super::{Query, Tables, WriteTxn};
use crate::error::MetaError;
use crate::types::{Name, Timestamp};

/// What is done to a thing or a kept blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// It was not there.
    Created,
    /// It is there, and these aspects of it are others now; none if the sum is zero.
    Changed(u32),
    /// It is gone.
    Removed,
}

/// What a transaction has touched so far, in the order of the first touches.
#[derive(Debug, Default)]
pub(super) struct Touched {
    order: Vec<Touch>,
    positions: HashMap<(u8, String), usize>,
}

#[derive(Debug)]
struct Touch {
    kind: u8,
    id: String,
    was_there: bool,
    is_there: bool,
    aspects: u32,
    /// `None` if only data items were touched, which know no names.
    names: Option<Vec<String>>,
}

impl Touched {
    fn note(&mut self, kind: u8, id: &str, effect: Effect, names: Option<Vec<String>>) {
        let key = (kind, id.to_owned());
        let known = self.positions.get(&key).and_then(|position| self.order.get_mut(*position));
        let Some(touch) = known else {
            let (was_there, is_there) = (effect != Effect::Created, effect != Effect::Removed);
            let aspects = if let Effect::Changed(aspects) = effect { aspects } else { 0 };
            self.positions.insert(key, self.order.len());
            self.order.push(Touch { kind, id: id.to_owned(), was_there, is_there, aspects, names });
            return;
        };
        touch.is_there = effect != Effect::Removed;
        touch.aspects |= match effect {
            Effect::Changed(aspects) => aspects,
            Effect::Created | Effect::Removed => aspect::RECORD,
        };
        if names.is_some() {
            touch.names = names;
        }
    }
}

impl Touch {
    /// What came of it all.
    fn outcome(&self) -> Option<(Action, u32)> {
        match (self.was_there, self.is_there) {
            (false, true) => Some((Action::Created, 0)),
            (true, false) => Some((Action::Removed, 0)),
            (true, true) if self.aspects != 0 => Some((Action::Changed, self.aspects)),
            _ => None,
        }
    }
}

impl WriteTxn {
    /// Notes what is done to a thing, whose names are known.
    pub(super) fn note_thing(&self, owner: Owner, id: &str, effect: Effect, names: &[String]) {
        self.1.borrow_mut().note(owner.code(), id, effect, Some(names.to_vec()));
    }

    /// Notes that a thing's data items are others now.
    pub(super) fn note_items(&self, owner: Owner, id: &str) {
        self.1.borrow_mut().note(owner.code(), id, Effect::Changed(aspect::ITEMS), None);
    }

    /// Notes what is done to a kept blob.
    pub(super) fn note_blob(&self, digest: &str, effect: Effect) {
        self.1.borrow_mut().note(table::JOURNAL_BLOB, digest, effect, Some(Vec::new()));
    }

    /// Writes the rows of what was noted, and now and then removes those beyond what is kept: to remove one with each commit would
    /// write a page more, at the other end of the table. Comes last before the commit.
    pub(super) fn write_journal(&self) -> Result<(), MetaError> {
        let touched = self.1.take().order;
        if touched.is_empty() {
            // The database of the run root has no journal.
            return Ok(());
        }
        let time = Timestamp::now().into();
        let mut journal = self.open(table::JOURNAL)?;
        let before = journal.last()?.map_or(0, |(key, _)| key.value());
        let mut last = before;
        for touch in touched {
            let Some((action, aspects)) = touch.outcome() else { continue };
            let mut names = match touch.names {
                Some(names) => names,
                None => self.names_of(touch.kind, &touch.id)?,
            };
            names.retain(|name| name.parse::<Name>().is_ok());
            let record = JournalRecord { time, action, owner: touch.kind, id: touch.id, names, aspects };
            // Of what a damaged database calls a thing, and a repair removed, no reader can be told.
            if record.check(&last).is_err() {
                continue;
            }
            last = last.saturating_add(1);
            journal.insert(last, record.encode().map_err(MetaError::Encode)?.as_slice())?;
        }
        if before / table::JOURNAL_SPARE < last / table::JOURNAL_SPARE {
            journal.retain_in(..oldest_kept(last), |_, _| false)?;
        }
        Ok(())
    }

    /// The names of a thing that is there.
    pub(super) fn names_of(&self, kind: u8, id: &str) -> Result<Vec<String>, MetaError> {
        let names = match Owner::from_code(kind) {
            Some(Owner::Layer) => self.layer(id)?.map(|record| record.names),
            Some(Owner::Image) => self.image(id)?.map(|record| record.names),
            Some(Owner::Container) => self.container(id)?.map(|record| record.names),
            None => None,
        };
        Ok(names.unwrap_or_default())
    }
}

/// The number of the oldest row that is kept, if this is the newest.
fn oldest_kept(newest: u64) -> u64 {
    newest.saturating_sub(table::JOURNAL_ROWS).saturating_add(1)
}

/// The numbers of the oldest and of the newest row that are kept; `None` in a store that was never changed.
pub(crate) fn journal_bounds(txn: &impl Query) -> Result<Option<(u64, u64)>, MetaError> {
    let journal = txn.open(table::JOURNAL)?;
    let first = journal.first()?.map(|(key, _)| key.value());
    let last = journal.last()?.map(|(key, _)| key.value());
    Ok(first.zip(last).map(|(first, last)| (first.max(oldest_kept(last)), last)))
}

/// The rows after `position`, the oldest first, at most `limit` of them.
pub(crate) fn journal_after(
    txn: &impl Query,
    position: u64,
    limit: usize,
) -> Result<Vec<(u64, JournalRecord)>, MetaError> {
    let mut rows = Vec::new();
    for row in txn.open(table::JOURNAL)?.range(position.saturating_add(1)..)?.take(limit) {
        let (key, value) = row?;
        rows.push((key.value(), decode(value.value(), "journal", &key.value())?));
    }
    Ok(rows)
}

/// A record of which can be told what changed.
pub(super) trait Compared {
    /// What is another in `self` than it was in `old`, as a sum of [`aspect`]s.
    fn aspects_since(&self, old: &Self) -> u32;
}

macro_rules! compared {
    ($($record:ident: $($field:ident => $aspect:ident),+;)+) => {
        $(impl Compared for $record {
            fn aspects_since(&self, old: &Self) -> u32 {
                let mut aspects = 0;
                // What is left different when the listed fields are equal is something else in the record.
                let mut rest = old.clone();
                $(if self.$field != old.$field {
                    aspects |= aspect::$aspect;
                    rest.$field.clone_from(&self.$field);
                })+
                if rest != *self { aspects | aspect::RECORD } else { aspects }
            }
        })+
    };
}

compared! {
    LayerRecord: names => NAMES, metadata => METADATA, flags => FLAGS, labels => LABELS, blobs => DIGESTS;
    ImageRecord: names => NAMES, names_history => NAMES, metadata => METADATA, flags => FLAGS, labels => LABELS,
        digests => DIGESTS, given_digests => DIGESTS, manifests => DIGESTS;
    ContainerRecord: names => NAMES, metadata => METADATA, flags => FLAGS, labels => LABELS;
}
