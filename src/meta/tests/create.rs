//! Making the file: whole or not at all, whoever dies or is faster.

use std::sync::Barrier;

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn initialize(txn: &WriteTxn) -> Result<(), MetaError> {
    txn.initialize(Header { format: 0, ..Header::new([1; 16], 0) }).map(drop)
}

#[test]
fn what_fails_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::new(dir.path().join("store.redb"), DatabaseOptions::default());
    let failed = database.create(|txn| {
        initialize(txn)?;
        Err(MetaError::Blob { key: "made up".into() })
    });
    assert!(matches!(failed, Err(MetaError::Blob { .. })));
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
    assert!(database.create(initialize).unwrap());
    assert!(!database.create(initialize).unwrap());
}

/// Runs this test again in a process that ends while it makes the file.
#[test]
fn who_dies_leaves_no_file() {
    const MARKER: &str = "LAYERSTORE_TEST_DIE_IN";
    if let Ok(dir) = std::env::var(MARKER) {
        let database = Database::new(Path::new(&dir).join("store.redb"), DatabaseOptions::default());
        let made = database.create::<MetaError>(|txn| {
            initialize(txn)?;
            std::process::abort();
        });
        unreachable!("{made:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "meta::tests::create::who_dies_leaves_no_file"])
        .env(MARKER, dir.path())
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    assert!(names(dir.path()).is_empty(), "{:?}", names(dir.path()));
}

#[test]
fn one_of_many_makes_it_and_all_have_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let barrier = Barrier::new(8);
    let made: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let database = Database::new(path.clone(), DatabaseOptions::default());
                    barrier.wait();
                    let made = database.create(initialize).unwrap();
                    read_header(&database.begin_read().unwrap(), &path).unwrap();
                    database.write::<_, MetaError>(|_| Ok(())).unwrap();
                    usize::from(made)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(made, 1);
    let mut found = names(dir.path());
    found.sort();
    assert_eq!(found, ["store.holder", "store.redb"]);
}

#[test]
fn a_new_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    assert_eq!(database.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_is_no_database_is_an_error_and_stays_as_it_is() {
    for bytes in [&b""[..], b"x", &[0; 5000], b"redb\x1A\x0A\xA9\x0D\x0A", &[0xff; 1 << 20]] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        std::fs::write(&path, bytes).unwrap();
        let database = Database::new(path.clone(), DatabaseOptions::default());
        assert!(matches!(database.begin_read(), Err(MetaError::NotADatabase { .. })));
        assert!(matches!(database.write::<_, MetaError>(|_| Ok(())), Err(MetaError::NotADatabase { .. })));
        assert!(!database.create(initialize).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_database_of_somebody_else_is_not_a_stores() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::new(dir.path().join("store.redb"), DatabaseOptions::default());
    database.create(|_| Ok::<_, MetaError>(())).unwrap();
    let refused = database.write::<_, MetaError>(|_| Ok(()));
    assert!(matches!(refused, Err(MetaError::NoHeader { .. })), "{refused:?}");
}
