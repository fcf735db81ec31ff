//! What handles do whose file is cut short, damaged, replaced or gone: an error, and nothing worse.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use layerstore_schema::record::BlobRecord;
use layerstore_schema::table;

use super::*;

/// A store with some records, and what stands around it to see them.
struct Opened {
    _dir: tempfile::TempDir,
    path: PathBuf,
    database: Database,
}

fn opened() -> Opened {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    with_shared_tree(&database);
    database.begin_read().unwrap().layers().unwrap();
    let path = database.path().to_owned();
    Opened { _dir: dir, path, database }
}

fn read_all(database: &Database) -> Result<usize, MetaError> {
    let txn = database.begin_read()?;
    let records = Records::read(&txn)?;
    Ok(records.layers.len())
}

#[test]
fn a_file_cut_short_is_an_error_and_never_a_crash() {
    let length = opened().path.metadata().unwrap().len();
    let pages = length / 4096;
    for cut in [0, 1, 9, 100, 4095, 4096, 4097, 8192, 16384, length / 2, 4096 * (pages - 1), length - 1] {
        let Opened { _dir, path, database } = opened();
        let open_txn = database.begin_read().unwrap();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(cut).unwrap();
        Records::read(&open_txn).ok();
        drop(open_txn);
        read_all(&database).ok();
        let written = database.write::<_, MetaError>(|txn| txn.put_layer(&layer("new", None)));
        assert!(written.is_err(), "cut at {cut} of {length}");
        let fresh = Database::new(path, DatabaseOptions::default());
        read_all(&fresh).ok();
    }
}

#[test]
fn a_replaced_file_is_noticed() {
    let Opened { _dir: dir, path, database } = opened();
    let other = opened();
    std::fs::copy(&other.path, dir.path().join("copy")).unwrap();
    std::fs::rename(dir.path().join("copy"), &path).unwrap();
    assert!(matches!(database.begin_read(), Err(MetaError::Replaced { .. })));
    assert!(matches!(database.write::<_, MetaError>(|_| Ok(())), Err(MetaError::Replaced { .. })));
    assert_eq!(read_all(&Database::new(path.clone(), DatabaseOptions::default())).unwrap(), 2);

    std::fs::remove_file(&path).unwrap();
    assert!(matches!(database.begin_read(), Err(MetaError::Open { .. })));
    assert!(matches!(database.write::<_, MetaError>(|_| Ok(())), Err(MetaError::Open { .. })));
}

#[test]
fn a_handle_that_saw_an_error_is_replaced_without_notice() {
    let Opened { _dir, path, database } = opened();
    let bytes = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let txn = database.begin_read().unwrap();
    // A cache that is too small to hide it.
    file.set_len(4096).unwrap();
    let small = Database::new(path, DatabaseOptions { cache_size: 0, ..Default::default() });
    assert!(small.begin_read().is_err() || read_all(&small).is_err());
    drop(txn);
    file.write_all_at(&bytes, 0).unwrap();
    assert_eq!(read_all(&small).unwrap(), 2);
    assert_eq!(read_all(&database).unwrap(), 2);
}

#[test]
fn reads_after_an_error_in_the_same_snapshot_say_what_to_do() {
    let Opened { _dir, path, .. } = opened();
    let bytes = std::fs::read(&path).unwrap();
    let database = Database::new(path.clone(), DatabaseOptions { cache_size: 0, ..Default::default() });
    let txn = database.begin_read().unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(4096).unwrap();
    let cut = format!("the file is cut short: it has 4096 of {} bytes", bytes.len());
    assert!(matches!(txn.layers(), Err(MetaError::NotADatabase { reason, .. }) if reason == cut));
    file.write_all_at(&bytes, 0).unwrap();
    assert!(matches!(txn.layers(), Err(MetaError::PreviousIo)));
    // The handle is shared, and the next snapshot has another one.
    assert_eq!(database.begin_read().unwrap().layers().unwrap().len(), 2);
}

#[test]
fn what_a_power_cut_left_of_a_run_database_is_not_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.redb");
    let open = |boot: &str| RunDatabase::open(&path, boot, "a store", &DatabaseOptions::default()).unwrap();
    open("0").set_fact("probe", "x").unwrap();
    let old = dir.path().join("run.0.redb");
    std::fs::write(&old, vec![0xa5; 1 << 20]).unwrap();
    let run = open("1");
    assert_eq!(run.fact("probe").unwrap(), None);
    run.set_fact("probe", "y").unwrap();
    assert!(!old.exists());
}

#[test]
fn verifying_finds_each_flipped_page_and_changes_nothing() {
    let Opened { _dir, path, database } = opened();
    database.verify().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut found = 0;
    for page in 1..bytes.len() / 4096 {
        // Beyond what a page says that it uses nothing is looked at by anybody.
        if bytes[page * 4096..][..2] == [0, 0] {
            continue;
        }
        file.write_all_at(&[bytes[page * 4096 + 2] ^ 1], page as u64 * 4096 + 2).unwrap();
        found += usize::from(Database::new(path.clone(), DatabaseOptions::default()).verify().is_err());
        file.write_all_at(&bytes, 0).unwrap();
    }
    assert!(found > 5, "{found} of {} pages", bytes.len() / 4096);
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    database.verify().unwrap();
    assert_eq!(read_all(&database).unwrap(), 2);
}

#[test]
fn sizes_that_no_store_has_are_refused_before_memory_is_taken() {
    for (at, value) in [(12, 0x2000u32), (16, 1), (20, 1), (20, 0x8_0000)] {
        let Opened { _dir, path, database } = opened();
        drop(database);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&value.to_le_bytes(), at).unwrap();
        let fresh = Database::new(path, DatabaseOptions::default());
        assert!(matches!(fresh.begin_read(), Err(MetaError::NotADatabase { .. })));
        assert!(matches!(fresh.write::<_, MetaError>(|_| Ok(())), Err(MetaError::NotADatabase { .. })));
    }
    let Opened { _dir, path, database } = opened();
    drop(database);
    // Holes take no space; regions of it would take memory.
    if OpenOptions::new().write(true).open(&path).unwrap().set_len((1 << 41) + 4096).is_ok() {
        assert!(matches!(
            Database::new(path, DatabaseOptions::default()).begin_read(),
            Err(MetaError::NotADatabase { .. })
        ));
    }
}

#[test]
fn bytes_that_unpack_to_more_than_they_should_are_not_unpacked_to_their_end() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let blob = PreparedBlob::from_bytes(&vec![7; 8 << 20]);
    let hash = database
        .write::<_, MetaError>(|txn| {
            let hash = txn.put_blob(&blob)?;
            let record = txn.blob(&hash)?.unwrap();
            txn.put_blob_record(&hash, &BlobRecord { size: 10, ..record })?;
            Ok(hash)
        })
        .unwrap();
    let txn = database.begin_read().unwrap();
    let mut seen = 0;
    let mut reader = open_blob(&txn, &hash).unwrap();
    let mut part = [0; 4096];
    while let Ok(read) = reader.read(&mut part) {
        seen += read;
    }
    assert!(seen <= 4096, "{seen} bytes");
}

/// A zstd frame of so many blocks, each of which is 128 KiB of zeros in four bytes.
fn bomb(blocks: usize) -> Vec<u8> {
    let mut frame = b"\x28\xb5\x2f\xfd\0\x58".to_vec();
    frame.extend([2, 0, 0x10, 0].repeat(blocks - 1));
    frame.extend([3, 0, 0x10, 0]);
    frame
}

/// Stores a bomb in the place of other bytes, whose row says that they are so many.
fn plant(txn: &WriteTxn, hash: &[u8; 32], size: u64) -> Result<(), MetaError> {
    let record = txn.blob(hash)?.unwrap();
    let frame = bomb(4 << 10);
    let stored = frame.len() as u64;
    txn.open(table::BLOB_CHUNKS)?.insert((record.number, 0), frame.as_slice())?;
    txn.put_blob_record(hash, &BlobRecord { size, stored, compressed: true, ..record })
}

#[test]
fn what_is_said_to_be_longer_than_the_format_has_it_is_not_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let blob = PreparedBlob::from_bytes(b"bytes");
    let hash = database.write::<_, MetaError>(|txn| txn.put_blob(&blob)).unwrap();
    for (kind, word) in [(BlobKind::Item, "data item"), (BlobKind::Manifest, "manifest")] {
        for said in [kind.most() + 1, u64::MAX] {
            database.write(|txn| plant(txn, &hash, said)).unwrap();
            let error = read_blob(&database.begin_read().unwrap(), &hash, kind).unwrap_err();
            assert!(matches!(error, MetaError::BlobSize { size, .. } if size == said), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(word) && text.contains(&blake3::Hash::from(hash).to_string()), "{text}");
        }
        // What unpacks to more than is said ends there.
        database.write(|txn| plant(txn, &hash, 1 << 20)).unwrap();
        let error = read_blob(&database.begin_read().unwrap(), &hash, kind).unwrap_err();
        assert!(matches!(error, MetaError::Blob { .. }), "{error:?}");
    }
}

#[test]
fn nothing_is_written_over_when_there_is_no_number_left() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let put = |bytes: &[u8]| {
        let blob = PreparedBlob::from_bytes(bytes);
        database.write(|txn| txn.put_blob(&blob)).map(|_| blob.hash())
    };
    let last = put(b"last").unwrap();
    database
        .write::<_, MetaError>(|txn| {
            let record = txn.blob(&last)?.unwrap();
            txn.remove_chunks(record.number)?;
            txn.open(table::BLOB_CHUNKS)?.insert((u64::MAX, 0), b"last".as_slice())?;
            txn.put_blob_record(&last, &BlobRecord { number: u64::MAX, ..record })
        })
        .unwrap();
    let error = put(b"another").unwrap_err();
    assert!(matches!(error, MetaError::Record { kind: "blob", .. }), "{error:?}");
    let txn = database.begin_read().unwrap();
    assert_eq!(read_blob(&txn, &last, BlobKind::Item).unwrap(), b"last");
}

/// Files are opened by their descriptors there, so the kernel says of each that it is missing. Who believes that makes a new one.
#[test]
fn without_proc_no_database_is_missing() {
    use nix::mount::{MsFlags, mount};
    if !crate::sys::userns::is_privileged() {
        return eprintln!("skipped: needs root");
    }
    let Opened { _dir, path, .. } = opened();
    let said = crate::sys::userns::tests::in_child(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        crate::sys::mount::make_private(Path::new("/"), true).unwrap();
        let nothing = None::<&str>;
        mount(nothing, "/proc", Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        let read = |path| {
            let error = Database::new(path, DatabaseOptions::default()).begin_read().unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            format!("{} {cause}", error.is_missing_file())
        };
        format!("{}\n{}", read(path.with_extension("none")), read(path.clone()))
    });
    let (missing, hidden) = said.split_once('\n').unwrap();
    assert!(missing.starts_with("true "), "{missing}");
    assert!(hidden.starts_with("false ") && hidden.contains("mount -t proc"), "{hidden}");
}
