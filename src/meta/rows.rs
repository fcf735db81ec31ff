//! Tables and their rows. What redb finds of them is looked at before it is handed out: the bytes of a damaged page can be
//! no text where a text has to be, and its keys out of order, which may be a tree that leads in circles.

use std::borrow::Borrow;
use std::marker::PhantomData;

use redb::{AccessGuard, Key, KeyRange, ReadableTable, ReadableTableMetadata, StorageError, Value};

use super::guard::{Guarded, Health};
use crate::error::MetaError;

/// An open table: `T` is redb's, of a transaction that reads or one that writes.
pub(crate) struct Table<K, V, T> {
    table: Guarded<T>,
    types: PhantomData<fn() -> (K, V)>,
}

/// A row: its key and its value.
pub(crate) type Row<'t, K, V> = (AccessGuard<'t, K>, AccessGuard<'t, V>);

impl<K: Key + 'static, V: Value + 'static, T> Table<K, V, T> {
    pub(super) fn new(table: T, health: Health) -> Self {
        Table { table: Guarded::new(table, health), types: PhantomData }
    }
}

impl<K: Key + 'static, V: Value + 'static, T: ReadableTable<K, V>> Table<K, V, T> {
    /// The value of a key.
    pub(crate) fn get<'k>(
        &self,
        key: impl Borrow<K::SelfType<'k>>,
    ) -> Result<Option<AccessGuard<'_, V>>, MetaError> {
        self.table.run(|table| {
            let found = table.get(key)?;
            found.iter().for_each(|value| drop(value.value()));
            Ok::<_, StorageError>(found)
        })
    }

    /// All rows, by key.
    pub(crate) fn iter(&self) -> Result<Rows<'_, K, V>, MetaError> {
        self.rows(self.table.run(|table| table.iter())?)
    }

    /// The rows of a range of keys.
    pub(crate) fn range(&self, range: impl KeyRange<K>) -> Result<Rows<'_, K, V>, MetaError> {
        self.rows(self.table.run(|table| table.range(range))?)
    }

    fn rows<'t>(&'t self, rows: redb::Range<'t, K, V>) -> Result<Rows<'t, K, V>, MetaError> {
        Ok(Rows { rows: Some(rows), last: None, health: self.table.health().clone() })
    }

    /// The row with the lowest key.
    pub(crate) fn first(&self) -> Result<Option<Row<'_, K, V>>, MetaError> {
        self.table.run(|table| table.first().inspect(|row| row.iter().for_each(look_at)))
    }

    /// The row with the highest key.
    pub(crate) fn last(&self) -> Result<Option<Row<'_, K, V>>, MetaError> {
        self.table.run(|table| table.last().inspect(|row| row.iter().for_each(look_at)))
    }

    /// How many rows there are, by what the table says of itself.
    pub(crate) fn len(&self) -> Result<u64, MetaError> {
        self.table.run(ReadableTableMetadata::len)
    }
}

impl<K: Key + 'static, V: Value + 'static> Table<K, V, redb::Table<'_, K, V>> {
    /// Inserts or replaces a row; whether there was one.
    pub(crate) fn insert<'k, 'v>(
        &mut self,
        key: impl Borrow<K::SelfType<'k>>,
        value: impl Borrow<V::SelfType<'v>>,
    ) -> Result<bool, MetaError> {
        // What comes back is dropped in there: redb may still have to do something with it then.
        self.table.run_mut(|table| table.insert(key, value).map(|old| old.is_some()))
    }

    /// Removes a row; whether there was one.
    pub(crate) fn remove<'k>(&mut self, key: impl Borrow<K::SelfType<'k>>) -> Result<bool, MetaError> {
        self.table.run_mut(|table| table.remove(key).map(|old| old.is_some()))
    }

    /// Removes the rows of a range that `keep` does not want to keep.
    pub(crate) fn retain_in(
        &mut self,
        range: impl KeyRange<K>,
        mut keep: impl for<'r> FnMut(K::SelfType<'r>, V::SelfType<'r>) -> bool,
    ) -> Result<(), MetaError> {
        // One by one: where redb's own call meets damage it panics twice, which ends the process.
        let mut unwanted = Vec::new();
        for row in self.range(range)? {
            let (key, value) = row?;
            if !keep(key.value(), value.value()) {
                unwanted.push(K::as_bytes(&key.value()).as_ref().to_vec());
            }
        }
        unwanted.iter().try_for_each(|key| self.remove(K::from_bytes(key)).map(drop))
    }
}

/// Rows in the order of their keys. After an error there are no more.
pub(crate) struct Rows<'t, K: Key + 'static, V: Value + 'static> {
    rows: Option<redb::Range<'t, K, V>>,
    /// The bytes of the key before.
    last: Option<Vec<u8>>,
    health: Health,
}

impl<'t, K: Key + 'static, V: Value + 'static> Rows<'t, K, V> {
    fn next_row(&mut self) -> Result<Option<Row<'t, K, V>>, MetaError> {
        let Some(rows) = &mut self.rows else { return Ok(None) };
        let last = &mut self.last;
        let found = self.health.run(|| {
            let Some(row) = rows.next().transpose()? else { return Ok(None) };
            look_at(&row);
            let in_order = follows::<K>(&row.0.value(), last);
            Ok::<_, StorageError>(Some((row, in_order)))
        })?;
        match found {
            Some((_, false)) => Err(self.health.damaged()),
            Some((row, true)) => Ok(Some(row)),
            None => Ok(None),
        }
    }
}

impl<'t, K: Key + 'static, V: Value + 'static> Iterator for Rows<'t, K, V> {
    type Item = Result<Row<'t, K, V>, MetaError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row().transpose();
        if !matches!(row, Some(Ok(_))) {
            self.rows = None;
        }
        row
    }
}

/// Whether a key comes after the one before, whose place it takes.
fn follows<K: Key>(key: &K::SelfType<'_>, last: &mut Option<Vec<u8>>) -> bool {
    let key = K::as_bytes(key);
    let key = key.as_ref();
    let follows = last.as_ref().is_none_or(|last| K::compare(last, key).is_lt());
    let last = last.get_or_insert_default();
    last.clear();
    last.extend_from_slice(key);
    follows
}

/// Decodes the key and the value as their reader will: redb panics on bytes that are none.
fn look_at<K: Key, V: Value>((key, value): &Row<'_, K, V>) {
    drop((key.value(), value.value()));
}
