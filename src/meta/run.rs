//! The run database: what a reboot drops. Mount counts, and what was found out about this boot.
//!
//! The kernel's mount table is the truth about mounts; a count here says how many users asked for one. Nothing
//! is synced, and each boot has a file of its own.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstore_schema::record::{MountRecord, Record};
use layerstore_schema::table::{self, TableVisitor, visit_all};
use redb::{Key, TableDefinition, Value};

use super::txn::decode;
use super::valid;
use super::{Database, DatabaseOptions, Tables, WriteTxn};
use crate::error::MetaError;
use crate::sys::{path, random};

/// The key of the fact that says in which boot this was written.
const BOOT_ID: &str = "boot-id";

/// The key of the fact that says which store the mounts are of.
const STORE: &str = "store";

/// The key of the fact that says where that store is.
const ROOT: &str = "root";

/// The key of the fact that there are tables for containers.
const THINGS: &str = "things";

/// `run.<boot id>.redb`.
#[derive(Debug)]
pub(crate) struct RunDatabase(Database);

impl RunDatabase {
    /// Opens the file of this boot beside `path` for the store with this UUID, and removes those of other boots.
    ///
    /// The boot is part of the file's name: nothing here is ever synced, so a power cut may have left anything of
    /// an older file, and nobody looks into one.
    ///
    /// Returns [`MetaError::RunRootInUse`] if it is another store's.
    pub(crate) fn open(
        path: &Path,
        boot_id: &str,
        uuid: &str,
        options: &DatabaseOptions,
    ) -> Result<Self, MetaError> {
        Self::open_noted(path, boot_id, uuid, options).map(|(run, _)| run)
    }

    /// The same, with where the store is noted to be.
    fn open_noted(
        path: &Path,
        boot_id: &str,
        uuid: &str,
        options: &DatabaseOptions,
    ) -> Result<(Self, Option<String>), MetaError> {
        let options = DatabaseOptions { sync: false, passing: true, read_only: false, ..options.clone() };
        let run = RunDatabase(Database::new(of_boot(path, boot_id), options));
        let txn = match run.0.begin_read() {
            Err(error) if error.is_missing_file() => {
                remove_others(run.0.path()).map_err(|source| run.0.io_error(source))?;
                run.0.create(|txn| txn.start_boot(boot_id, uuid))?;
                run.0.begin_read()
            }
            begun => begun,
        }?;
        let (store, root) = (fact(&txn, STORE)?, fact(&txn, ROOT)?);
        match store {
            Some(store) if store != uuid => {
                let path = run.0.path().parent().unwrap_or(run.0.path()).to_owned();
                Err(MetaError::RunRootInUse { path, store, root })
            }
            _ => Ok((run, root)),
        }
    }

    /// [`open`](Self::open) for the store at `root`, which is noted. Where another store was at the same place, that one is
    /// gone, and all that is here of it is forgotten once `refuse_mounted` has found nothing of it mounted.
    ///
    /// # Locking
    ///
    /// Takes the write lock of the run database if there is something to note.
    ///
    /// Returns [`MetaError::RunRootInUse`] if it belongs to a store of another place.
    pub(crate) fn claim<E: From<MetaError>>(
        path: &Path,
        boot_id: &str,
        uuid: &str,
        root: &Path,
        options: &DatabaseOptions,
        refuse_mounted: impl FnOnce() -> Result<(), E>,
    ) -> Result<Self, E> {
        let root = root_text(root);
        let open = || Self::open_noted(path, boot_id, uuid, options);
        let (run, noted) = match open() {
            Err(MetaError::RunRootInUse { root: Some(noted), .. }) if noted == root => {
                let options =
                    DatabaseOptions { sync: false, passing: true, read_only: false, ..options.clone() };
                let database = Database::new(of_boot(path, boot_id), options);
                database.write_without_header(|txn| {
                    // Another process may have been faster.
                    if fact(txn, STORE)?.as_deref() != Some(uuid) {
                        refuse_mounted()?;
                        txn.forget_store()?;
                        txn.start_boot(boot_id, uuid)?;
                    }
                    Ok::<(), E>(())
                })?;
                open()?
            }
            opened => opened?,
        };
        // A store may have moved.
        if noted.as_ref() != Some(&root) {
            run.set_fact(ROOT, &root)?;
        }
        Ok(run)
    }

    /// Whether there is a file of this boot beside `path`; makes none.
    pub(crate) fn exists(path: &Path, boot_id: &str) -> bool {
        path::exists(&of_boot(path, boot_id)).unwrap_or(false)
    }

    /// The database, which also holds the rows of containers that the next boot drops: see
    /// [`ensure_things`](Self::ensure_things).
    pub(crate) fn rows(&self) -> &Database {
        &self.0
    }

    /// Makes the tables of layers, containers and all that belongs to them. Returns what these are called, which is drawn
    /// with them: so they are not taken for those of a database that took the place of this one in the same boot.
    pub(crate) fn ensure_things(&self) -> Result<String, MetaError> {
        if let Some(known) = self.things()? {
            return Ok(known);
        }
        let drawn = u64::from_le_bytes(random::bytes().map_err(|source| self.0.io_error(source))?);
        self.0.write_without_header(|txn| {
            visit_all(&mut Create(txn))?;
            let mut facts = txn.open(table::FACTS)?;
            if let Some(known) = facts.get(THINGS)? {
                return Ok(known.value().to_owned());
            }
            let drawn = format!("{drawn:016x}");
            facts.insert(THINGS, drawn.as_str())?;
            Ok(drawn)
        })
    }

    /// What these tables are called, if there are any.
    pub(crate) fn things(&self) -> Result<Option<String>, MetaError> {
        self.fact(THINGS)
    }

    /// A remembered fact.
    pub(crate) fn fact(&self, key: &str) -> Result<Option<String>, MetaError> {
        fact(&self.0.begin_read()?, key)
    }

    /// Remembers a fact for this boot.
    pub(crate) fn set_fact(&self, key: &str, value: &str) -> Result<(), MetaError> {
        self.0.write_without_header(|txn| {
            txn.open(table::FACTS)?.insert(key, value)?;
            Ok(())
        })
    }

    /// Forgets a fact.
    pub(crate) fn remove_fact(&self, key: &str) -> Result<(), MetaError> {
        self.0.write_without_header(|txn| {
            txn.open(table::FACTS)?.remove(key)?;
            Ok(())
        })
    }

    /// The mount of a layer in a mount namespace.
    pub(crate) fn mount(&self, layer: &str, namespace: u64) -> Result<Option<MountRecord>, MetaError> {
        let txn = self.0.begin_read()?;
        let mounts = txn.open(table::MOUNTS)?;
        mounts.get((layer, namespace))?.map(|row| decode(row.value(), "mount", layer)).transpose()
    }

    /// All mounts, by layer id.
    pub(crate) fn mounts(&self) -> Result<Vec<CountedMount>, MetaError> {
        let txn = self.0.begin_read()?;
        let mut found = Vec::new();
        for row in txn.open(table::MOUNTS)?.iter()? {
            let (key, value) = row?;
            let (layer, namespace) = key.value();
            let record = decode(value.value(), "mount", layer)?;
            found.push(CountedMount { layer: layer.to_owned(), namespace, record });
        }
        Ok(found)
    }

    /// The rows of mounts that cannot be read: layer id and reason.
    pub(crate) fn damaged_mounts(&self) -> Result<Vec<(String, String)>, MetaError> {
        let txn = self.0.begin_read()?;
        let mut found = Vec::new();
        for row in txn.open(table::MOUNTS)?.iter()? {
            let (key, value) = row?;
            let (layer, _) = key.value();
            let error = valid::decode::<MountRecord>(value.value(), "mount", layer).err();
            found.extend(error.map(|error| (layer.to_owned(), error.reason)));
        }
        Ok(found)
    }

    /// Forgets the rows of a layer's mounts that cannot be read. The kernel's table is the truth about mounts.
    pub(crate) fn forget_damaged_mounts(&self, layer: &str) -> Result<(), MetaError> {
        self.0.write_without_header(|txn| {
            let mut mounts = txn.open(table::MOUNTS)?;
            let rows = (layer, 0)..=(layer, u64::MAX);
            mounts.retain_in(rows, |_, value| valid::decode::<MountRecord>(value, "mount", layer).is_ok())
        })
    }

    /// Runs `end` with the layer's records in all mount namespaces, those that can be read, and forgets all if it says so: no other process
    /// mounts or unmounts meanwhile.
    pub(crate) fn end_mounts<E: From<MetaError>>(
        &self,
        layer: &str,
        end: impl FnOnce(&[MountRecord]) -> Result<bool, E>,
    ) -> Result<(), E> {
        self.0.write_without_header(|txn| {
            let mut mounts = txn.open(table::MOUNTS)?;
            let rows = (layer, 0)..=(layer, u64::MAX);
            let mut records = Vec::new();
            for row in mounts.range(rows.clone())? {
                let (_, value) = row?;
                records.extend(decode(value.value(), "mount", layer).ok());
            }
            if end(&records)? {
                mounts.retain_in(rows, |_, _| false)?;
            }
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

    /// Runs `change` with the layer's record in a mount namespace and stores what it leaves, in one transaction: no
    /// other process mounts or unmounts meanwhile. `None` removes the record.
    pub(crate) fn update_mount<T, E: From<MetaError>>(
        &self,
        layer: &str,
        namespace: u64,
        change: impl FnOnce(&mut MountSlot) -> Result<T, E>,
    ) -> Result<T, E> {
        self.0.write_without_header(|txn| {
            let mut slot = txn.mount_slot(layer, namespace)?;
            let value = change(&mut slot)?;
            txn.put_mount_record(layer, namespace, slot.record.as_ref())?;
            Ok(value)
        })
    }
}

/// Makes tables: opening one for writing does.
struct Create<'t>(&'t WriteTxn);

impl TableVisitor for Create<'_> {
    type Error = MetaError;

    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), MetaError> {
        self.0.open(table)?;
        Ok(())
    }
}

/// Drops tables.
struct Drop<'t>(&'t WriteTxn);

impl TableVisitor for Drop<'_> {
    type Error = MetaError;

    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), MetaError> {
        self.0.delete(table)
    }
}

/// A count with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CountedMount {
    /// The layer.
    pub(crate) layer: String,
    /// The mount namespace in which it was mounted, by its inode number.
    pub(crate) namespace: u64,
    /// The count.
    pub(crate) record: MountRecord,
}

/// What there is of a layer while its mount changes.
#[derive(Debug)]
pub(crate) struct MountSlot {
    /// The count in this mount namespace.
    pub(crate) record: Option<MountRecord>,
    /// Whether another mount namespace has one.
    pub(crate) elsewhere: bool,
}

/// A path as text, which no other path has: bytes that are no printable ASCII are written as `\xNN`.
fn root_text(root: &Path) -> String {
    root.as_os_str().as_bytes().escape_ascii().to_string()
}

/// The file of a boot.
fn of_boot(path: &Path, boot_id: &str) -> PathBuf {
    path.with_extension(format!("{boot_id}.redb"))
}

/// Removes what other boots left: everything beside `database` with a name like its own but for the boot.
fn remove_others(database: &Path) -> io::Result<()> {
    let names = database.parent().zip(database.file_stem().and_then(OsStr::to_str));
    let Some((dir, own)) = names else { return Ok(()) };
    let kind = own.split('.').next().unwrap_or(own);
    let is_of = |name: &str, stem: &str| name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'));
    for found in path::list(dir)? {
        let name = found.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if !is_of(name, kind) || is_of(name, own) {
            continue;
        }
        match path::remove_file(&found) {
            // Another process does the same; and a directory is nothing that a boot left.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn fact(txn: &impl Tables, key: &str) -> Result<Option<String>, MetaError> {
    let facts = txn.open(table::FACTS)?;
    Ok(facts.get(key)?.map(|row| row.value().to_owned()))
}

impl WriteTxn {
    fn start_boot(&self, boot_id: &str, uuid: &str) -> Result<(), MetaError> {
        self.open(table::MOUNTS)?;
        let mut facts = self.open(table::FACTS)?;
        facts.insert(BOOT_ID, boot_id)?;
        facts.insert(STORE, uuid)?;
        Ok(())
    }

    /// Forgets all that is here of a store.
    fn forget_store(&self) -> Result<(), MetaError> {
        self.delete(table::MOUNTS)?;
        self.delete(table::FACTS)?;
        visit_all(&mut Drop(self))
    }

    fn mount_slot(&self, layer: &str, namespace: u64) -> Result<MountSlot, MetaError> {
        let mounts = self.open(table::MOUNTS)?;
        let mut slot = MountSlot { record: None, elsewhere: false };
        for row in mounts.range((layer, 0)..=(layer, u64::MAX))? {
            let (key, value) = row?;
            if key.value().1 == namespace {
                slot.record = Some(decode(value.value(), "mount", layer)?);
            } else {
                slot.elsewhere = true;
            }
        }
        Ok(slot)
    }

    fn put_mount_record(
        &self,
        layer: &str,
        namespace: u64,
        record: Option<&MountRecord>,
    ) -> Result<(), MetaError> {
        let mut mounts = self.open(table::MOUNTS)?;
        match record {
            Some(record) => {
                let bytes = record.encode().map_err(MetaError::Encode)?;
                mounts.insert((layer, namespace), bytes.as_slice())?;
            }
            None => {
                mounts.remove((layer, namespace))?;
            }
        }
        Ok(())
    }
}
