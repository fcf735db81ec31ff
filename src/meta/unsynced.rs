//! Which directories and blobs may not be on the disk yet: their bytes were left to the kernel, in the boot that the row
//! names.

use std::collections::BTreeMap;

use layerstore_schema::table;

use super::{Tables, WriteTxn};
use crate::error::MetaError;

/// The boot in which each number was filled.
pub(crate) type Unsynced = BTreeMap<u64, String>;

/// All of them. One lookup where there are none, as a rule.
pub(crate) fn unsynced(txn: &impl Tables) -> Result<Unsynced, MetaError> {
    let mut found = Unsynced::new();
    for row in txn.open(table::UNSYNCED)?.iter()? {
        let (number, boot) = row?;
        found.insert(number.value(), boot.value().to_owned());
    }
    Ok(found)
}

impl WriteTxn {
    /// Notes that what was filled in this boot is not synced.
    pub(crate) fn mark_unsynced(&self, number: u64, boot: &str) -> Result<(), MetaError> {
        self.open(table::UNSYNCED)?.insert(number, boot)?;
        Ok(())
    }

    /// Notes that these are on the disk, or gone.
    pub(crate) fn forget_unsynced(&self, numbers: impl IntoIterator<Item = u64>) -> Result<(), MetaError> {
        let mut rows = self.open(table::UNSYNCED)?;
        for number in numbers {
            rows.remove(number)?;
        }
        Ok(())
    }
}
