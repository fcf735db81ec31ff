//! The run database: what a reboot drops. Mount counts, and what was found out about this boot.
//!
//! The kernel's mount table is the truth about mounts; a count here says how many users asked for one. Nothing
//! is synced: after a power cut the file is empty or gone.

use std::path::PathBuf;

use layerstore_schema::record::{MountRecord, Record};
use layerstore_schema::table;
use redb::ReadableTable;

use super::txn::decode;
use super::{Database, DatabaseOptions, Tables, WriteTxn};
use crate::error::MetaError;
use crate::sys::path;

/// The key of the fact that says in which boot the rest was written.
const BOOT_ID: &str = "boot-id";

/// The key of the fact that says which store the mounts are of.
const STORE: &str = "store";

/// `run.redb`.
#[derive(Debug)]
pub(crate) struct RunDatabase(Database);

impl RunDatabase {
    /// Opens the file at `path` for the store with this UUID, and empties it if it is from another boot.
    ///
    /// Returns [`MetaError::RunRootInUse`] if it is another store's.
    pub(crate) fn open(
        path: PathBuf,
        boot_id: &str,
        uuid: &str,
        options: &DatabaseOptions,
    ) -> Result<Self, MetaError> {
        let options = DatabaseOptions { sync: false, ..options.clone() };
        let run = RunDatabase(Database::new(path, options));
        // A file that a crash left before its first commit has no table yet.
        let known =
            if path::exists(run.0.path()).unwrap_or(false) { run.fact(BOOT_ID).ok().flatten() } else { None };
        if known.as_deref() != Some(boot_id) {
            run.start_boot(boot_id, uuid)?;
            return Ok(run);
        }
        match run.fact(STORE)? {
            Some(store) if store != uuid => {
                Err(MetaError::RunRootInUse { path: run.0.path().to_owned(), store })
            }
            _ => Ok(run),
        }
    }

    /// Empties the file. One that a full disk or a crash left without its beginning is no database, and holds nothing.
    fn start_boot(&self, boot_id: &str, uuid: &str) -> Result<(), MetaError> {
        let start = || self.0.write_or_create(|txn| txn.start_boot(boot_id, uuid));
        match start() {
            Err(MetaError::Open { source, .. }) if is_no_database(&source) => {
                path::remove_file(self.0.path()).map_err(|source| MetaError::Open {
                    path: self.0.path().to_owned(),
                    source: Box::new(redb::Error::Io(source)),
                })?;
                start()
            }
            started => started,
        }
    }

    /// A remembered fact.
    pub(crate) fn fact(&self, key: &str) -> Result<Option<String>, MetaError> {
        fact(&self.0.begin_read()?, key)
    }

    /// Remembers a fact for this boot.
    pub(crate) fn set_fact(&self, key: &str, value: &str) -> Result<(), MetaError> {
        self.0.write_or_create(|txn| {
            txn.0.open_table(table::FACTS)?.insert(key, value)?;
            Ok(())
        })
    }

    /// The mount of a layer.
    pub(crate) fn mount(&self, layer: &str) -> Result<Option<MountRecord>, MetaError> {
        let txn = self.0.begin_read()?;
        let mounts = txn.open(table::MOUNTS)?;
        mounts.get(layer)?.map(|row| decode(row.value(), "mount", layer)).transpose()
    }

    /// All mounts, by layer id.
    pub(crate) fn mounts(&self) -> Result<Vec<(String, MountRecord)>, MetaError> {
        let txn = self.0.begin_read()?;
        let mut found = Vec::new();
        for row in txn.open(table::MOUNTS)?.iter()? {
            let (key, value) = row?;
            found.push((key.value().to_owned(), decode(value.value(), "mount", key.value())?));
        }
        Ok(found)
    }

    /// The rows of mounts that cannot be read: layer id and reason.
    pub(crate) fn damaged_mounts(&self) -> Result<Vec<(String, String)>, MetaError> {
        let txn = self.0.begin_read()?;
        let mut found = Vec::new();
        for row in txn.open(table::MOUNTS)?.iter()? {
            let (key, value) = row?;
            let error = MountRecord::decode(value.value()).err();
            found.extend(error.map(|error| (key.value().to_owned(), error.reason)));
        }
        Ok(found)
    }

    /// Forgets a mount's row, whatever stands in it. The kernel's table is the truth about mounts.
    pub(crate) fn forget_mount(&self, layer: &str) -> Result<(), MetaError> {
        self.0.write_or_create(|txn| {
            txn.0.open_table(table::MOUNTS)?.remove(layer)?;
            Ok(())
        })
    }

    /// Runs `body` while no other process mounts or unmounts.
    ///
    /// # Locking
    ///
    /// Holds the write lock of the run database, in which a write transaction of the store may be begun, and never the
    /// other way round.
    pub(crate) fn hold<T, E: From<MetaError>>(&self, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.0.hold(body)
    }

    /// Runs `change` with the layer's record and stores what it leaves, in one transaction: no other process
    /// mounts or unmounts meanwhile. `None` removes the record.
    pub(crate) fn update_mount<T, E: From<MetaError>>(
        &self,
        layer: &str,
        change: impl FnOnce(&mut Option<MountRecord>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.0.write_or_create(|txn| {
            let mut record = txn.mount_record(layer)?;
            let value = change(&mut record)?;
            txn.put_mount_record(layer, record.as_ref())?;
            Ok(value)
        })
    }
}

/// What redb says of a file that does not begin like a database.
fn is_no_database(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData)
}

fn fact(txn: &impl Tables, key: &str) -> Result<Option<String>, MetaError> {
    let facts = txn.open(table::FACTS)?;
    Ok(facts.get(key)?.map(|row| row.value().to_owned()))
}

impl WriteTxn {
    fn start_boot(&self, boot_id: &str, uuid: &str) -> Result<(), MetaError> {
        self.0.open_table(table::MOUNTS)?.retain(|_, _| false)?;
        let mut facts = self.0.open_table(table::FACTS)?;
        facts.retain(|_, _| false)?;
        facts.insert(BOOT_ID, boot_id)?;
        facts.insert(STORE, uuid)?;
        Ok(())
    }

    fn mount_record(&self, layer: &str) -> Result<Option<MountRecord>, MetaError> {
        let mounts = self.0.open_table(table::MOUNTS)?;
        mounts.get(layer)?.map(|row| decode(row.value(), "mount", layer)).transpose()
    }

    fn put_mount_record(&self, layer: &str, record: Option<&MountRecord>) -> Result<(), MetaError> {
        let mut mounts = self.0.open_table(table::MOUNTS)?;
        match record {
            Some(record) => {
                let bytes = record.encode().map_err(MetaError::Encode)?;
                mounts.insert(layer, bytes.as_slice())?;
            }
            None => {
                mounts.remove(layer)?;
            }
        }
        Ok(())
    }
}
