//! The steps from each format version to the next, in order. Each runs in the caller's write transaction, so a
//! store has the old format or the new one, never something between.
//!
//! A step is never changed once a release has it: stores in the world have gone through it. Each has a test.

use redb::{Error, WriteTransaction};

use crate::header::{FORMAT, HEADER_KEY, Header};
use crate::table;

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The version it starts from.
    pub from: u32,
    /// What it does, for the log.
    pub summary: &'static str,
    /// Does it. The header is written by [`migrate`].
    pub apply: fn(&WriteTransaction) -> Result<(), Error>,
}

/// All steps; the one at position `n` leads from format `n` to `n + 1`.
pub const MIGRATIONS: [Migration; FORMAT as usize] =
    [Migration { from: 0, summary: "create the tables of format 1", apply: create_tables_of_format_1 }];

/// Runs every step from `header.format` on, and writes the header of the current format.
///
/// Returns the error of the database if a step fails; the caller drops the transaction then.
pub fn migrate(txn: &WriteTransaction, header: Header) -> Result<Header, Error> {
    for step in MIGRATIONS.iter().filter(|step| step.from >= header.format) {
        (step.apply)(txn)?;
    }
    let current = Header { format: FORMAT, ..header };
    txn.open_table(table::META)?.insert(HEADER_KEY, current.encode().as_slice())?;
    Ok(current)
}

/// Opening a table for writing creates it, so that every later reader finds all of them.
fn create_tables_of_format_1(txn: &WriteTransaction) -> Result<(), Error> {
    txn.open_table(table::META)?;
    txn.open_table(table::LAYERS)?;
    txn.open_table(table::IMAGES)?;
    txn.open_table(table::CONTAINERS)?;
    txn.open_table(table::DIFFS)?;
    txn.open_table(table::ITEMS)?;
    txn.open_table(table::BLOBS)?;
    txn.open_table(table::BLOB_CHUNKS)?;
    txn.open_table(table::KEPT_BLOBS)?;
    txn.open_table(table::LEASES)?;
    txn.open_table(table::JOURNAL)?;
    txn.open_table(table::UNSYNCED)?;
    txn.open_table(table::NAMES)?;
    txn.open_table(table::CHILDREN)?;
    txn.open_table(table::LAYERS_BY_DIGEST)?;
    txn.open_table(table::IMAGES_BY_DIGEST)?;
    txn.open_table(table::IMAGES_BY_LAYER)?;
    txn.open_table(table::CONTAINERS_BY_IMAGE)?;
    txn.open_table(table::CONTAINERS_BY_LAYER)?;
    txn.open_table(table::USAGE)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use redb::{Database, Key, ReadableDatabase, ReadableTable, TableDefinition, TableHandle, Value};

    use super::*;

    fn empty_database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    /// The names of all tables, sorted.
    fn known_tables() -> Vec<String> {
        struct Names(Vec<String>);
        impl table::TableVisitor for Names {
            type Error = std::convert::Infallible;

            fn visit<K: Key + 'static, V: Value + 'static>(
                &mut self,
                table: TableDefinition<'static, K, V>,
            ) -> Result<(), Self::Error> {
                self.0.push(table.name().to_owned());
                Ok(())
            }
        }
        let mut names = Names(Vec::new());
        let Ok(()) = table::visit_all(&mut names);
        names.0.sort();
        names.0
    }

    #[test]
    fn steps_are_in_order_and_end_at_the_current_format() {
        for (position, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.from as usize, position);
            assert!(!step.summary.is_empty());
        }
    }

    #[test]
    fn format_0_becomes_format_1() {
        let db = empty_database();
        let txn = db.begin_write().unwrap();
        let header = migrate(&txn, Header { format: 0, ..Header::new([7; 16], 0) }).unwrap();
        txn.commit().unwrap();
        assert_eq!(header.format, FORMAT);

        let txn = db.begin_read().unwrap();
        let mut names: Vec<_> = txn.list_tables().unwrap().map(|table| table.name().to_owned()).collect();
        names.sort();
        assert_eq!(names, known_tables(), "a format has all the tables of its build");
        let meta = txn.open_table(table::META).unwrap();
        let stored = meta.get(HEADER_KEY).unwrap().unwrap();
        assert_eq!(Header::decode(stored.value()).unwrap(), header);
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_format() {
        let db = empty_database();
        let txn = db.begin_write().unwrap();
        migrate(&txn, Header { format: 0, ..Header::new([7; 16], 0) }).unwrap();
        drop(txn);
        assert_eq!(db.begin_read().unwrap().list_tables().unwrap().count(), 0);
    }
}
