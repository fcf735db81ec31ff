use std::io::Read;
use std::ops::Bound;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layerstore_schema::header::Header;
use layerstore_schema::record::{DiffRecord, LayerBlob, LayerContent, LayerRecord, MountRecord, Time};
use layerstore_schema::table::{LayerKey, Owner, usage};

use super::exercise::{Rows, every_row};
use super::*;
use crate::error::MetaError;
use crate::types::TreeDigest;

mod backup;
mod create;
mod damage;
mod file;
mod locks;
mod mark;
mod own;
mod power;
mod syncs;
mod valid;

fn store(dir: &Path) -> Database {
    let database = Database::new(dir.join("store.redb"), DatabaseOptions::default());
    database.create(|txn| txn.initialize(Header { format: 0, ..Header::new([1; 16], 0) }).map(drop)).unwrap();
    database
}

fn layer(id: &str, parent: Option<&str>) -> LayerRecord {
    LayerRecord {
        parent: parent.map(Into::into),
        names: vec![format!("name-of-{id}")],
        diff_id: Some("sha256:d".into()),
        diff_size: Some(1),
        blobs: vec![LayerBlob { digest: "sha256:b".into(), size: 1, media_type: "m".into() }],
        self_contained: true,
        ..LayerRecord::new(id, Time::default(), LayerContent::Sealed([7; 32]))
    }
}

fn with_shared_tree(database: &Database) {
    let manifest = PreparedBlob::from_bytes(b"manifest");
    let diff = DiffRecord { number: 5, content_bytes: 3, disk_bytes: 4096, inodes: 2, manifest: [0; 32] };
    database
        .write::<_, MetaError>(|txn| {
            txn.put_diff(&TreeDigest([7; 32]), diff, &manifest)?;
            txn.put_layer(&layer("aa", None))?;
            txn.put_layer(&layer("ab", Some("aa")))
        })
        .unwrap();
}

#[test]
fn indexes_follow_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    with_shared_tree(&database);

    let txn = database.begin_read().unwrap();
    assert_eq!(stored_rows(&txn).unwrap(), Records::read(&txn).unwrap().index_rows());
    assert_eq!(txn.children("aa").unwrap(), ["ab"]);
    assert_eq!(txn.layers_by(LayerKey::DiffId, "sha256:d").unwrap(), ["aa", "ab"]);
    assert_eq!(txn.named(Owner::Layer, "name-of-ab").unwrap().as_deref(), Some("ab"));
    assert_eq!(txn.by_prefix(Owner::Layer, "a").unwrap(), PrefixMatch::Several("aa".into(), "ab".into()));
    assert_eq!(txn.by_prefix(Owner::Layer, "ab").unwrap(), PrefixMatch::One("ab".into()));
    assert_eq!(txn.by_prefix(Owner::Layer, "b").unwrap(), PrefixMatch::None);
    assert_eq!(chain("ab", |id| txn.layer_ref(id)).unwrap().len(), 2);
    drop(txn);

    database
        .write::<_, MetaError>(|txn| txn.put_layer(&LayerRecord { names: vec![], ..layer("ab", None) }))
        .unwrap();
    let txn = database.begin_read().unwrap();
    assert_eq!(stored_rows(&txn).unwrap(), Records::read(&txn).unwrap().index_rows());
    assert!(txn.children("aa").unwrap().is_empty());
    assert_eq!(txn.named(Owner::Layer, "name-of-ab").unwrap(), None);
}

#[test]
fn a_shared_tree_goes_with_its_last_layer() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    with_shared_tree(&database);
    assert_eq!(database.begin_read().unwrap().usage(usage::DIFF_BYTES).unwrap(), 4096);

    let first = database.write(|txn| txn.remove_layer("ab")).unwrap();
    assert_eq!(first, Freed::default());
    let last = database.write(|txn| txn.remove_layer("aa")).unwrap();
    assert_eq!(last.diffs, [5]);
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.usage(usage::DIFF_BYTES).unwrap(), 0);
    assert_eq!(txn.usage(usage::BLOB_BYTES).unwrap(), 0);
    assert!(stored_rows(&txn).unwrap().is_empty());
}

#[test]
fn a_name_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    with_shared_tree(&database);
    let stolen = LayerRecord { names: vec!["name-of-aa".into()], ..layer("ac", None) };
    let error = database.write(|txn| txn.put_layer(&stolen)).unwrap_err();
    assert!(matches!(error, MetaError::NameInUse { holder, .. } if holder == "aa"));
    assert_eq!(database.begin_read().unwrap().layer("ac").unwrap(), None);
}

#[test]
fn items_share_equal_bytes_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let large: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
    let blobs = [PreparedBlob::from_bytes(&large), PreparedBlob::from_bytes(b"")];
    database
        .write::<_, MetaError>(|txn| {
            for (key, blob) in [("a", &blobs[0]), ("b", &blobs[0]), ("empty", &blobs[1])] {
                txn.put_item(Owner::Image, "i", key, "sha256:x".into(), blob)?;
            }
            Ok(())
        })
        .unwrap();
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.items(Owner::Image, "i").unwrap().len(), 3);
    assert_eq!(read_blob(&txn, &blobs[0].hash(), BlobKind::Item).unwrap(), large);
    assert_eq!(read_blob(&txn, &blobs[1].hash(), BlobKind::Item).unwrap(), b"");
    assert_eq!(txn.blob(&blobs[0].hash()).unwrap().unwrap().users, 2);
    drop(txn);

    for key in ["a", "b", "empty"] {
        assert!(database.write(|txn| txn.remove_item(Owner::Image, "i", key)).unwrap());
    }
    let txn = database.begin_read().unwrap();
    assert_eq!(txn.blob(&blobs[0].hash()).unwrap(), None);
    assert_eq!(txn.usage(usage::BLOB_BYTES).unwrap(), 0);
}

#[test]
fn a_spooled_file_is_stored_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let bytes = vec![9u8; 700_000];
    let path = dir.path().join("spool");
    std::fs::write(&path, &bytes).unwrap();
    let blob = PreparedBlob::from_file(crate::sys::file::File::open(&path).unwrap()).unwrap();
    database.write(|txn| txn.put_blob(&blob)).unwrap();
    let txn = database.begin_read().unwrap();
    let mut read = Vec::new();
    open_blob(&txn, &blob.hash()).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[test]
fn every_commit_is_counted_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let counter = database.change_counter().unwrap();
    let mut seen = vec![counter.current()];
    for round in 0..20 {
        let record = LayerRecord { content: LayerContent::Writable(1), ..layer(&format!("l{round}"), None) };
        database.write(|txn| txn.put_layer(&record)).unwrap();
        seen.push(counter.current());
        database.begin_read().unwrap().layers().unwrap();
        let failed: Result<(), MetaError> =
            database.write(|_| Err(MetaError::Blob { key: "made up".into() }));
        assert!(failed.is_err());
        assert_eq!(counter.current(), seen[round + 1]);
    }
    assert!(seen.is_sorted_by(|before, after| before < after), "{seen:?}");
}

#[test]
fn a_failed_operation_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let result: Result<(), MetaError> = database.write(|txn| {
        txn.put_layer(&layer("aa", None))?;
        Err(MetaError::Blob { key: "made up".into() })
    });
    assert!(result.is_err());
    assert_eq!(database.begin_read().unwrap().layer("aa").unwrap(), None);
}

#[test]
fn a_waiting_writer_gives_up_and_names_the_holder() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let path = database.path().to_owned();
    let result = database.write::<_, MetaError>(|_| {
        let impatient = DatabaseOptions { lock_timeout: Duration::from_millis(50), ..Default::default() };
        Ok(Database::new(path.clone(), impatient).write::<_, MetaError>(|_| Ok(())))
    });
    let Err(MetaError::Locked { holder, waited }) = result.unwrap() else { panic!("not locked") };
    assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    assert!(waited >= Duration::from_millis(50));

    // The one that gave up does not hold the lock later.
    database.write::<_, MetaError>(|_| Ok(())).unwrap();
}

/// Readers hold the lock of the header for a moment. A commit must not fail because it comes upon one.
#[test]
fn an_impatient_writer_waits_for_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = store(dir.path()).path().to_owned();
    let reader = crate::sys::file::File::open(&path).unwrap();
    crate::sys::range_lock::lock_range(&reader, Bound::Included(0), Bound::Included(0), false).unwrap();
    let impatient = DatabaseOptions { lock_timeout: Duration::ZERO, ..Default::default() };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(reader);
        });
        Database::new(path, impatient).write(|txn| txn.put_layer(&layer("aa", None))).unwrap();
    });
}

#[test]
fn a_waiting_writer_gets_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    std::thread::scope(|scope| {
        for number in 0..4 {
            let database = &database;
            scope.spawn(move || {
                for round in 0..5 {
                    let record = LayerRecord {
                        content: LayerContent::Writable(1),
                        ..layer(&format!("l{number}-{round}"), None)
                    };
                    database.write(|txn| txn.put_layer(&record)).unwrap();
                }
            });
        }
    });
    assert_eq!(database.begin_read().unwrap().layers().unwrap().len(), 20);
}

#[test]
fn the_run_database_forgets_at_boot() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.redb");
    let open = |boot| RunDatabase::open(&path, boot, "a store", &DatabaseOptions::default()).unwrap();
    let run = open("boot-1");
    run.set_fact("probe", "x").unwrap();
    run.update_mount::<_, MetaError>("l", 1, |slot| {
        assert!(slot.record.is_none());
        slot.record = Some(MountRecord { count: 1, target: "/m".into(), read_only: false });
        Ok(())
    })
    .unwrap();
    assert_eq!(open("boot-1").mount("l", 1).unwrap().unwrap().count, 1);
    assert_eq!(open("boot-1").fact("probe").unwrap().as_deref(), Some("x"));
    let run = open("boot-2");
    assert_eq!(run.mount("l", 1).unwrap(), None);
    assert_eq!(run.fact("probe").unwrap(), None);
    assert!(run.mounts().unwrap().is_empty());
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["run.boot-2.redb"]);
}

#[test]
fn a_layer_that_stands_on_itself_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    with_shared_tree(&database);
    database.write::<_, MetaError>(|txn| txn.put_layer(&layer("aa", Some("ab")))).unwrap();
    let chain = chain("ab", |id| database.begin_read().unwrap().layer_ref(id));
    assert!(matches!(chain, Err(MetaError::Record { key, .. }) if key == "ab"));
}

#[test]
fn a_run_database_is_of_one_store() {
    let dir = tempfile::tempdir().unwrap();
    let open =
        |store| RunDatabase::open(&dir.path().join("run.redb"), "boot", store, &DatabaseOptions::default());
    open("first").unwrap();
    open("first").unwrap();
    let error = open("second").unwrap_err();
    assert!(matches!(&error, MetaError::RunRootInUse { store, .. } if store == "first"), "{error}");
}
