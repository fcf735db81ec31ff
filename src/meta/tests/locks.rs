//! Waiting for a writer of another process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::*;

const MARKER: &str = "LAYERSTORE_TEST_HOLD_IN";

/// Another process that holds the write lock until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(dir: &Path, test: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("meta::tests::locks::{test}"), "--nocapture"])
            .env(MARKER, dir)
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("holding")));
        Holder(child)
    }

    /// What this process does if it is the other one; `false` if it is not.
    fn is_this_process() -> bool {
        let Ok(dir) = std::env::var(MARKER) else { return false };
        let database = Database::new(Path::new(&dir).join("store.redb"), DatabaseOptions::default());
        database
            .write::<_, MetaError>(|_| {
                println!("holding");
                // Until the parent lets go, or is gone.
                std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
                Ok(())
            })
            .unwrap();
        true
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn impatient(dir: &Path, millis: u64) -> Database {
    let options = DatabaseOptions { lock_timeout: Duration::from_millis(millis), ..Default::default() };
    Database::new(dir.join("store.redb"), options)
}

#[test]
fn a_writer_has_the_lock_from_its_opening_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (database, other) = (store(dir.path()), impatient(dir.path(), 0));
    let put = |txn: &WriteTxn| txn.put_layer(&layer("aa", None));
    let writer = database.open_writer().unwrap();
    assert!(matches!(other.write(put), Err(MetaError::Locked { .. })), "between opening and beginning");
    database.write_through(&writer, put).unwrap();
    // Redb gives it up with the transaction.
    other.write(put).unwrap();
    drop(writer);
    // One that begins nothing gives it up, too.
    drop(database.open_writer().unwrap());
    other.write(put).unwrap();
}

#[test]
fn who_holds_the_lock_reads_and_keeps_writers_out() {
    let dir = tempfile::tempdir().unwrap();
    let (database, other) = (store(dir.path()), impatient(dir.path(), 0));
    let put = |txn: &WriteTxn| txn.put_layer(&layer("aa", None));
    for marked in [false, true] {
        if marked {
            mark::mark(database.path());
        }
        let held = impatient(dir.path(), 60_000);
        held.hold::<_, MetaError>(|| {
            assert!(matches!(other.write(put), Err(MetaError::Locked { .. })));
            assert!(matches!(other.hold::<_, MetaError>(|| Ok(())), Err(MetaError::Locked { .. })));
            // By a handle that opens the file now.
            impatient(dir.path(), 60_000).begin_read()?.layers().map(drop)
        })
        .unwrap();
        other.write(put).unwrap();
    }
}

#[test]
fn who_opens_to_read_does_not_wait_for_who_has_come_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let database = impatient(dir.path(), 60_000);
    database.create(|txn| txn.initialize(Header { format: 0, ..Header::new([1; 16], 0) }).map(drop)).unwrap();
    mark::mark(database.path());
    // A writer that waits for a lock of the reader's would wait for ever.
    let held = std::sync::Arc::new(std::sync::Mutex::new(None));
    let (slot, other) = (std::sync::Arc::clone(&held), impatient(dir.path(), 60_000));
    crate::sys::moment::meanwhile("to look after the last writer", move || {
        *slot.lock().unwrap() = Some(other.open_write().unwrap());
    });
    let reader = impatient(dir.path(), 100);
    assert!(reader.begin_read().unwrap().layers().unwrap().is_empty());
    assert!(held.lock().unwrap().is_some());
}

/// A process that was forked meanwhile has the descriptors too, until it comes to run another program.
#[test]
fn a_verification_gives_its_lock_up_though_others_have_its_file_open() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let forked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (copies, path) = (std::sync::Arc::clone(&forked), database.path().to_owned());
    crate::sys::moment::meanwhile("verifying", move || {
        let this = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
            let entry = entry.unwrap().path();
            if std::fs::read_link(&entry).is_ok_and(|target| target == path) {
                let number = entry.file_name().unwrap().to_str().unwrap().parse().unwrap();
                copies.lock().unwrap().push(pidfd_getfd(&this, number, PidfdGetfdFlags::empty()).unwrap());
            }
        }
    });
    database.verify().unwrap();
    assert!(!forked.lock().unwrap().is_empty());
    impatient(dir.path(), 0).write::<_, MetaError>(|_| Ok(())).unwrap();
}

#[test]
fn the_default_is_a_minute() {
    assert_eq!(DatabaseOptions::default().lock_timeout, Duration::from_secs(60));
}

#[test]
fn the_error_names_the_other_process_and_its_command() {
    if Holder::is_this_process() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let holder = Holder::of(dir.path(), "the_error_names_the_other_process_and_its_command");
    for millis in [0, 50] {
        let refused = impatient(dir.path(), millis).write::<_, MetaError>(|_| Ok(()));
        let Err(MetaError::Locked { holder: named, waited }) = refused else { panic!("not locked") };
        assert!(named.contains(&format!("process {} (", holder.0.id())), "{named}");
        assert!(named.contains("--exact meta::tests::locks::"), "{named}");
        assert!(waited >= Duration::from_millis(millis));
    }
    holder.end();
    impatient(dir.path(), 0).write::<_, MetaError>(|_| Ok(())).unwrap();
}

/// In a process of its own, whose threads can be counted.
#[test]
fn no_time_means_one_try_and_no_thread_in_a_queue() {
    const ALONE: &str = "LAYERSTORE_TEST_TRY_IN";
    const NAME: &str = "no_time_means_one_try_and_no_thread_in_a_queue";
    if Holder::is_this_process() {
        return;
    }
    if let Ok(dir) = std::env::var(ALONE) {
        let waiting = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
            names.filter(|name| name.trim() == "lock-wait").count()
        };
        for (millis, threads) in [(0, 0), (20, 1)] {
            let refused = impatient(Path::new(&dir), millis).write::<_, MetaError>(|_| Ok(()));
            assert!(matches!(refused, Err(MetaError::Locked { .. })));
            // A thread gives itself its name, when it comes to run.
            let deadline = std::time::Instant::now() + Duration::from_secs(30);
            while waiting() < threads && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            assert_eq!(waiting(), threads);
        }
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    store(dir.path());
    let holder = Holder::of(dir.path(), NAME);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("meta::tests::locks::{NAME}")])
        .env(ALONE, dir.path())
        .output()
        .unwrap();
    holder.end();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What the last commit lists as freed the next one frees, and with it goes the end of the file.
#[test]
fn a_snapshot_is_sound_whose_successor_cuts_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let database = store(dir.path());
    let (path, large) = (database.path().to_owned(), "x".repeat(16 << 20));
    let write = |database: &Database, id: &str, metadata: &str| {
        let content = LayerContent::Writable(7);
        let layer = LayerRecord { metadata: metadata.to_owned(), content, ..layer(id, None) };
        database.write::<_, MetaError>(|txn| txn.put_layer(&layer)).unwrap();
    };
    write(&database, "ab", &large);
    database.write::<_, MetaError>(|txn| txn.remove_layer("ab").map(drop)).unwrap();
    let length = || std::fs::metadata(&path).unwrap().len();
    let before = length();
    let other = path.clone();
    crate::sys::moment::meanwhile("to verify a snapshot", move || {
        let another = Database::new(other, DatabaseOptions::default());
        (0..4).for_each(|number| write(&another, &format!("a{number}"), ""));
    });
    database.begin_verified_read().unwrap();
    assert!(length() < before, "nothing was cut off: {before}");
}
