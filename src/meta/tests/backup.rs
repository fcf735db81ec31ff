//! A copy of the database has every row, and takes the place of the database.

use std::os::unix::fs::PermissionsExt;

use redb::{TableDefinition, TableHandle};

use super::*;

fn rows(database: &Database) -> Rows {
    every_row(&database.begin_read().unwrap()).unwrap()
}

fn filled(dir: &Path) -> Database {
    let database = store(dir);
    with_shared_tree(&database);
    for number in 0..40u32 {
        let bytes: Vec<u8> = (0..50_000).map(|at: u32| (at.wrapping_mul(number + 7) >> 3) as u8).collect();
        let key = format!("key-{number}");
        let blob = PreparedBlob::from_bytes(&bytes);
        database.write(|txn| txn.put_item(Owner::Layer, "aa", &key, "sha256:x".into(), &blob)).unwrap();
    }
    database
}

fn open(path: &Path) -> Database {
    Database::new(path.to_owned(), DatabaseOptions::default())
}

#[test]
fn the_tables_that_are_copied_are_all_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let txn = database.begin_read().unwrap();
    let listed: Vec<String> =
        txn.0.run(|txn| txn.list_tables()).unwrap().map(|table| table.name().to_owned()).collect();
    assert_eq!(rows(&database).into_keys().collect::<Vec<_>>(), listed);
}

#[test]
fn a_copy_has_every_row_and_takes_the_place_of_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let before = rows(&database);
    let copy = dir.path().join("copy");
    let length = database.backup(&copy, false).unwrap();
    let metadata = copy.metadata().unwrap();
    assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (length, 0o600));
    assert!(length <= database.path().metadata().unwrap().len());

    database.write(|txn| txn.remove_layer("ab")).unwrap();
    assert_ne!(rows(&database), before);
    std::fs::rename(&copy, database.path()).unwrap();
    let restored = open(database.path());
    assert_eq!(rows(&restored), before);
    let txn = restored.begin_read().unwrap();
    assert_eq!(stored_rows(&txn).unwrap(), Records::read(&txn).unwrap().index_rows());
    drop(txn);
    restored.write(|txn| txn.remove_layer("ab")).unwrap();
    assert_eq!(restored.compact().unwrap().after, restored.path().metadata().unwrap().len());
}

#[test]
fn a_copy_is_of_one_moment_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for round in 0..60 {
                database
                    .write::<_, MetaError>(|txn| {
                        txn.put_layer(&LayerRecord {
                            content: LayerContent::Writable(1),
                            ..layer(&format!("a{round}"), None)
                        })?;
                        txn.put_layer(&LayerRecord {
                            content: LayerContent::Writable(2),
                            ..layer(&format!("b{round}"), None)
                        })
                    })
                    .unwrap();
            }
        });
        let copy = dir.path().join("copy");
        let mut copies = 0;
        while copies < 3 || !writer.is_finished() {
            database.backup(&copy, true).unwrap();
            let txn = open(&copy).begin_read().unwrap();
            let count = |first: &str| {
                txn.layers()
                    .unwrap()
                    .iter()
                    .filter(|layer| {
                        layer.names[0].starts_with(&format!("name-of-{first}"))
                            && layer.id != "aa"
                            && layer.id != "ab"
                    })
                    .count()
            };
            assert_eq!(count("a"), count("b"));
            assert_eq!(stored_rows(&txn).unwrap(), Records::read(&txn).unwrap().index_rows());
            copies += 1;
        }
    });
}

#[test]
fn a_file_that_is_there_stays() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let taken = dir.path().join("taken");
    std::fs::write(&taken, "mine").unwrap();
    assert!(matches!(database.backup(&taken, false), Err(MetaError::BackupExists { .. })));
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
    assert!(matches!(database.backup(&dir.path().join("no/dir"), false), Err(MetaError::Backup { .. })));
    database.backup(&taken, true).unwrap();
    assert_eq!(rows(&open(&taken)), rows(&database));
}

#[test]
fn an_unknown_table_is_not_lost_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let newer: TableDefinition<'static, u64, u64> = TableDefinition::new("newer");
    database.write::<_, MetaError>(|txn| txn.open(newer)?.insert(1, 1).map(drop)).unwrap();
    let refused = database.backup(&dir.path().join("copy"), false);
    assert!(matches!(&refused, Err(MetaError::UnknownTable { name }) if name == "newer"), "{refused:?}");
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["store.holder", "store.redb"]);
}

#[test]
fn compaction_gives_space_back_and_other_handles_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let other = open(database.path());
    let counter = database.change_counter().unwrap();
    for number in 0..40 {
        let key = format!("key-{number}");
        database.write(|txn| txn.remove_item(Owner::Layer, "aa", &key)).unwrap();
    }
    let before = rows(&other);
    let seen = counter.current();

    let reading = other.begin_read().unwrap();
    assert!(matches!(database.compact(), Err(MetaError::InUse { .. })));
    assert_eq!(reading.layers().unwrap().len(), 2);
    drop(reading);

    let done = database.compact().unwrap();
    assert!(done.after < done.before / 2, "{done:?}");
    assert_eq!(done.after, database.path().metadata().unwrap().len());
    assert_ne!(counter.current(), seen);
    assert_eq!(rows(&other), before);
    other.write(|txn| txn.remove_layer("ab")).unwrap();
    assert_eq!(database.begin_read().unwrap().layers().unwrap().len(), 1);
}

#[test]
fn compaction_waits_for_a_writer_no_longer_than_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let database = filled(dir.path());
    let impatient = DatabaseOptions { lock_timeout: Duration::ZERO, ..Default::default() };
    let impatient = Database::new(database.path().to_owned(), impatient);
    let refused = database.write::<_, MetaError>(|_| Ok(impatient.compact())).unwrap();
    assert!(matches!(refused, Err(MetaError::Locked { .. })), "{refused:?}");
}
