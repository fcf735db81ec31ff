//! Records that are not those of their rows: nobody gets them, and a check names them.

use layerstore_schema::record::{Action, ContainerRecord, ImageRecord, JournalRecord, LeaseRecord, Record};
use layerstore_schema::table;

use super::*;

const OUT: &str = "../x";

/// Puts a record at the key that is its own, at another one, and at one that is a path with the id changed to it; and reads it
/// every way.
fn read_each<R: Record>(
    rows: redb::TableDefinition<'static, &'static str, &'static [u8]>,
    record: impl Fn(&str) -> R,
    get: impl Fn(&ReadTxn, &str) -> Result<(), MetaError>,
    all: impl Fn(&ReadTxn) -> Result<(), MetaError>,
) {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    for (key, id) in [("own", "own"), ("other", "own"), (OUT, "own"), (OUT, OUT)] {
        let bytes = record(id).encode().unwrap();
        let put = |txn: &WriteTxn| txn.open(rows)?.insert(key, bytes.as_slice()).map(drop);
        database.write::<_, MetaError>(put).unwrap();
        let txn = database.begin_read().unwrap();
        let damaged = Records::read(&txn).unwrap().damaged;
        let found: Vec<_> = damaged.iter().map(|record| record.key.as_str()).collect();
        let answers = [get(&txn, key), all(&txn)];
        if key == "own" {
            assert!(answers.iter().all(Result::is_ok) && found.is_empty(), "{answers:?} {found:?}");
        } else {
            let refused = |answer: &Result<(), MetaError>| matches!(answer, Err(MetaError::Record { key: named, .. }) if named == key);
            assert!(answers.iter().all(refused) && found == [key], "{key} {id}: {answers:?} {found:?}");
        }
        drop(txn);
        database.write::<_, MetaError>(|txn| txn.open(rows)?.remove(key).map(drop)).unwrap();
    }
}

#[test]
fn layers_are_those_of_their_keys() {
    let (get, all) = (|txn: &ReadTxn, id: &str| txn.layer(id).map(drop), ReadTxn::layers);
    read_each(table::LAYERS, |id| layer(id, None), get, |txn| all(txn).map(drop));
}

#[test]
fn images_are_those_of_their_keys() {
    let record = |id: &str| ImageRecord { id: id.into(), ..ImageRecord::default() };
    let (get, all) = (|txn: &ReadTxn, id: &str| txn.image(id).map(drop), ReadTxn::images);
    read_each(table::IMAGES, record, get, |txn| all(txn).map(drop));
}

#[test]
fn containers_are_those_of_their_keys() {
    let record =
        |id: &str| ContainerRecord { id: id.into(), layer: "aa".into(), ..ContainerRecord::default() };
    let (get, all) = (|txn: &ReadTxn, id: &str| txn.container(id).map(drop), ReadTxn::containers);
    read_each(table::CONTAINERS, record, get, |txn| all(txn).map(drop));
}

#[test]
fn leases_are_those_of_their_keys() {
    let (created, expires) = (Time::default(), Time::default());
    let record = |id: &str| LeaseRecord { id: id.into(), things: Vec::new(), created, expires };
    let (get, all) = (|txn: &ReadTxn, id: &str| txn.lease(id).map(drop), ReadTxn::leases);
    read_each(table::LEASES, record, get, |txn| all(txn).map(drop));
}

/// One page more in each commit would be the oldest row's.
#[test]
fn the_oldest_rows_of_the_journal_go_together() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let change = |count: u64| {
        let gone = |number: u64| RowKey::Image(format!("gone-{number}"));
        database.write::<_, MetaError>(|txn| (0..count).try_for_each(|one| txn.erase(&gone(one)))).unwrap();
    };
    let rows = || {
        let txn = database.begin_read().unwrap();
        let journal = txn.open(table::JOURNAL).unwrap();
        let first = journal.first().unwrap().unwrap().0.value();
        (first, journal.len().unwrap(), journal_bounds(&txn).unwrap().unwrap())
    };
    let (kept, spare) = (table::JOURNAL_ROWS, table::JOURNAL_SPARE);
    change(kept);
    assert_eq!(rows(), (1, kept, (1, kept)));
    change(spare - 2);
    change(1);
    assert_eq!(rows(), (1, kept + spare - 1, (spare, kept + spare - 1)));
    change(1);
    assert_eq!(rows(), (spare + 1, kept, (spare + 1, kept + spare)));
    // However many come at once.
    change(2 * kept);
    assert_eq!(rows().1, kept);
}

/// Readers of the journal are told of things and blobs, whatever was removed from a damaged database.
#[test]
fn the_journal_is_of_things_and_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let told = || {
        let txn = database.begin_read().unwrap();
        let ids: Vec<_> = journal_after(&txn, 0, 100).unwrap().into_iter().map(|(_, row)| row.id).collect();
        ids
    };
    database
        .write::<_, MetaError>(|txn| {
            txn.erase(&RowKey::Layer(OUT.into()))?;
            txn.erase(&RowKey::KeptBlob(format!("sha256:{OUT}")))?;
            txn.erase(&RowKey::Image("gone".into()))
        })
        .unwrap();
    assert_eq!(told(), ["gone"]);

    let records = [(1, OUT, "name"), (1, "aa", "na\nme"), (table::JOURNAL_BLOB, "sha256:../x", "name")];
    for (owner, id, name) in records {
        let (time, action) = (Time::default(), Action::Removed);
        let record =
            JournalRecord { time, action, owner, id: id.into(), names: vec![name.into()], aspects: 0 };
        let bytes = record.encode().unwrap();
        let put = |txn: &WriteTxn| txn.open(table::JOURNAL)?.insert(2, bytes.as_slice()).map(drop);
        database.write::<_, MetaError>(put).unwrap();
        let txn = database.begin_read().unwrap();
        let refused = journal_after(&txn, 0, 100);
        assert!(matches!(refused, Err(MetaError::Record { kind: "journal", .. })), "{id} {name}");
        assert_eq!(Records::read(&txn).unwrap().journal.len(), 1, "{id} {name}");
        drop(txn);
        database.write(|txn| txn.normalize(Unused::Keep)).unwrap();
        assert_eq!(told(), ["gone"]);
    }
}

/// What a repair keeps the rest of.
#[test]
fn a_record_with_a_bad_name_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let record = LayerRecord {
        names: vec!["a\n".into()],
        diff_id: Some(OUT.into()),
        metadata: "kept".into(),
        ..layer("aa", Some(OUT))
    };
    let bytes = record.encode().unwrap();
    let put = |txn: &WriteTxn| txn.open(table::LAYERS)?.insert("aa", bytes.as_slice()).map(drop);
    database.write::<_, MetaError>(put).unwrap();
    let txn = database.begin_read().unwrap();
    let records = Records::read(&txn).unwrap();
    assert!(records.damaged.is_empty());
    assert_eq!(records.layers["aa"], record);
    // No row has such a key and such a record, so what it stands on is nothing.
    let stood_on = chain("aa", |id| txn.layer_ref(id));
    assert!(matches!(&stood_on, Err(MetaError::Missing { key, .. }) if key == OUT), "{stood_on:?}");
}

#[test]
fn a_mount_is_of_a_layer() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        RunDatabase::open(&dir.path().join("run.redb"), "boot", "uuid", &DatabaseOptions::default()).unwrap();
    let record = MountRecord { count: 1, target: "/x".into(), read_only: false };
    run.update_mount::<_, MetaError>(OUT, 1, |slot| {
        slot.record = Some(record);
        Ok(())
    })
    .unwrap();
    assert!(matches!(run.mount(OUT, 1), Err(MetaError::Record { kind: "mount", .. })));
    assert!(matches!(run.mounts(), Err(MetaError::Record { kind: "mount", .. })));
    assert_eq!(run.damaged_mounts().unwrap()[0].0, OUT);
    run.forget_damaged_mounts(OUT).unwrap();
    assert!(run.mounts().unwrap().is_empty());
}
