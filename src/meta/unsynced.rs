//! Which directories and blobs may not be on the disk yet: their bytes were left to the kernel, in the boot that the row
//! names. Directories that were made empty for layers that are written to stand apart: of those there are as many as
//! containers, so whoever uses one asks for its number alone.

use std::collections::BTreeMap;

use layerstore_schema::table::{self, MADE_EMPTY};
use redb::KeyRange;

use super::{Tables, WriteTxn};
use crate::error::MetaError;

/// The boot in which each number was filled, or made.
pub(crate) type Unsynced = BTreeMap<u64, String>;

/// All that was filled. One lookup where there is nothing, as a rule.
pub(crate) fn unsynced(txn: &impl Tables) -> Result<Unsynced, MetaError> {
    rows(txn, ..MADE_EMPTY)
}

/// All directories that were made empty.
pub(crate) fn made_empty(txn: &impl Tables) -> Result<Unsynced, MetaError> {
    rows(txn, MADE_EMPTY..)
}

/// The boot in which a directory or blob was filled that may not be on the disk.
pub(crate) fn filled_in(txn: &impl Tables, number: u64) -> Result<Option<String>, MetaError> {
    row(txn, number)
}

/// The boot in which a directory was made empty that may not be on the disk.
pub(crate) fn made_empty_in(txn: &impl Tables, number: u64) -> Result<Option<String>, MetaError> {
    row(txn, number | MADE_EMPTY)
}

fn row(txn: &impl Tables, key: u64) -> Result<Option<String>, MetaError> {
    Ok(txn.open(table::UNSYNCED)?.get(key)?.map(|boot| boot.value().to_owned()))
}

fn rows(txn: &impl Tables, keys: impl KeyRange<u64>) -> Result<Unsynced, MetaError> {
    let mut found = Unsynced::new();
    for row in txn.open(table::UNSYNCED)?.range(keys)? {
        let (key, boot) = row?;
        found.insert(key.value() & !MADE_EMPTY, boot.value().to_owned());
    }
    Ok(found)
}

impl WriteTxn {
    /// Notes that what was filled in this boot is not synced.
    pub(crate) fn mark_unsynced(&self, number: u64, boot: &str) -> Result<(), MetaError> {
        self.open(table::UNSYNCED)?.insert(number, boot)?;
        Ok(())
    }

    /// Notes that a directory was made empty in this boot, and is not synced.
    pub(crate) fn mark_made_empty(&self, number: u64, boot: &str) -> Result<(), MetaError> {
        self.mark_unsynced(number | MADE_EMPTY, boot)
    }

    /// Notes that what was filled is on the disk, or gone.
    pub(super) fn forget_filled(&self, number: u64) -> Result<(), MetaError> {
        self.open(table::UNSYNCED)?.remove(number)?;
        Ok(())
    }

    /// Notes that a directory that was made empty is on the disk, or gone.
    pub(super) fn forget_made_empty(&self, number: u64) -> Result<(), MetaError> {
        self.open(table::UNSYNCED)?.remove(number | MADE_EMPTY)?;
        Ok(())
    }

    /// Notes that these are on the disk, or gone.
    pub(crate) fn forget_unsynced(&self, numbers: impl IntoIterator<Item = u64>) -> Result<(), MetaError> {
        let mut rows = self.open(table::UNSYNCED)?;
        for number in numbers {
            rows.remove(number)?;
            rows.remove(number | MADE_EMPTY)?;
        }
        Ok(())
    }
}
