use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layerstore_schema::record::{ImageRecord, KeptBlobRecord};
use layerstore_schema::table::JOURNAL_ROWS;

use super::{Wakeup, Watch, WatchOptions};
use crate::error::{Error, WatchError};
use crate::store::{
    Aspect, BackupMode, ContainerOptions, Event, EventKind, Store, StoreOptions, SyncMode, ThingId,
};
use crate::types::ImageId;

fn open(dir: &Path) -> Store {
    Store::open(&StoreOptions::at(dir.join("store")).sync(SyncMode::Off).reserve(0)).unwrap()
}

fn image(id: &str) -> ImageRecord {
    ImageRecord { id: id.to_owned(), ..ImageRecord::default() }
}

/// Everything that there is now, as `kind what id aspects`.
fn told(watch: &mut Watch) -> Vec<String> {
    let events = std::iter::from_fn(|| watch.try_next().unwrap());
    events.map(|event| told_event(&event)).collect()
}

fn told_event(event: &Event) -> String {
    let aspects: Vec<_> = event.aspects.iter().map(|aspect| aspect.word()).collect();
    let names: Vec<_> = event.names.iter().map(|name| name.as_str()).collect();
    format!("{} {} {} {}", event.subject.word(), event.kind, names.join(","), aspects.join("+"))
}

#[test]
fn each_transaction_tells_each_thing_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    assert_eq!(told(&mut watch), ["layer created  ", "container created web "]);

    let second = "web-2".parse().unwrap();
    store
        .write(|txn| {
            txn.put_item(&web, "a", b"1")?;
            txn.add_name(&web, &second)?;
            txn.put_item(&web, "b", b"2")?;
            txn.set_metadata(&web, "text")
        })
        .unwrap();
    assert_eq!(told(&mut watch), ["container changed web,web-2 names+metadata+items"]);

    // What is put and is there already is no change; nor is what a failed transaction did.
    store
        .write(|txn| {
            txn.put_item(&web, "a", b"1")?;
            txn.add_name(&web, &second)?;
            txn.set_metadata(&web, "text")
        })
        .unwrap();
    let failed = store.write(|txn| {
        txn.set_metadata(&web, "other")?;
        txn.remove_item(&web, "missing")
    });
    assert!(failed.is_err());
    assert_eq!(told(&mut watch), Vec::<String>::new());

    store.write(|txn| txn.remove_item(&web, "b")).unwrap();
    store.write(|txn| txn.put_item(&web, "a", b"another")).unwrap();
    assert_eq!(told(&mut watch), ["container changed web,web-2 items"; 2]);

    store.remove_container(&web.id).unwrap();
    assert_eq!(told(&mut watch), ["container removed web,web-2 ", "layer removed  "]);
}

#[test]
fn names_that_move_and_blobs_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let ids: [ImageId; 2] = ["aa", "bb"].map(|id| id.repeat(32).parse().unwrap());
    let digest = format!("sha256:{}", "cc".repeat(32));
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let name = "busybox".parse().unwrap();
    store
        .database()
        .write::<_, Error>(|txn| {
            for id in &ids {
                txn.put_image(&image(id.as_str()))?;
            }
            Ok(txn.put_kept_blob(&digest, &KeptBlobRecord { number: 1, size: 1 })?)
        })
        .unwrap();
    assert_eq!(told(&mut watch), ["image created  ", "image created  ", "blob created  "]);
    store.write(|txn| txn.move_name(&ids[0], &name)).unwrap();
    store.write(|txn| txn.move_name(&ids[1], &name)).unwrap();
    let expected = ["image changed busybox names", "image changed  names", "image changed busybox names"];
    assert_eq!(told(&mut watch), expected);
    let flagged = ImageRecord { flags: vec![("a".into(), "1".into())], ..image(ids[0].as_str()) };
    let digested = ImageRecord { digests: vec![digest.clone()], ..image(ids[0].as_str()) };
    let topped = ImageRecord { top_layer: Some("dd".into()), ..image(ids[0].as_str()) };
    for record in [&flagged, &digested, &topped] {
        store.database().write(|txn| txn.put_image(record)).unwrap();
    }
    let expected =
        ["image changed  names+flags", "image changed  flags+digests", "image changed  digests+record"];
    assert_eq!(told(&mut watch), expected);

    store.database().write(|txn| txn.drop_kept_blob(&digest)).unwrap();
    let event = watch.try_next().unwrap().unwrap();
    assert_eq!((event.kind, event.subject.to_string()), (EventKind::Removed, digest));
    assert_eq!(event.subject.thing(), None);
}

#[test]
fn a_created_thing_is_told_as_the_transaction_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let id: ImageId = "aa".repeat(32).parse().unwrap();
    store
        .database()
        .write::<_, Error>(|txn| {
            txn.put_image(&image(id.as_str()))?;
            txn.put_image(&ImageRecord { names: vec!["late".into()], ..image(id.as_str()) })?;
            txn.put_image(&image("gone"))?;
            Ok(txn.remove_image("gone").map(drop)?)
        })
        .unwrap();
    assert_eq!(told(&mut watch), ["image created late "]);
    let again = ImageRecord { names: vec!["late".into()], ..image(id.as_str()) };
    store
        .database()
        .write::<_, Error>(|txn| {
            txn.remove_image(id.as_str())?;
            Ok(txn.put_image(&again)?)
        })
        .unwrap();
    assert_eq!(told(&mut watch), ["image changed late record"]);
}

#[test]
fn events_come_without_inotify() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let other = open(dir.path());
    let wakeup = Wakeup::every(Duration::from_millis(1)).unwrap();
    let mut watch = Watch::new(&store, &WatchOptions::default(), wakeup).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| other.create_container(None, &ContainerOptions::named("web")).unwrap());
        let event = watch.next(None).unwrap().unwrap();
        assert_eq!(told_event(&event), "layer created  ");
    });
    assert_eq!(watch.next(Some(Duration::ZERO)).unwrap().unwrap().names.len(), 1);
    assert_eq!(watch.next(Some(Duration::from_millis(5))).unwrap(), None);
}

/// Makes `count` changes in one transaction.
fn many_changes(store: &Store, from: u64, count: u64) {
    store
        .database()
        .write::<_, Error>(|txn| {
            for number in from..from + count {
                let record = KeptBlobRecord { number, size: 1 };
                txn.put_kept_blob(&format!("sha256:{number:064x}"), &record)?;
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_watch_that_is_too_far_behind_is_told_so_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let mut behind = store.watch(&WatchOptions::since(1)).unwrap();
    many_changes(&store, 0, JOURNAL_ROWS + 1);
    let newest = JOURNAL_ROWS + 1;
    let mut just_in_time = store.watch(&WatchOptions::since(1)).unwrap();
    assert_eq!(just_in_time.try_next().unwrap().unwrap().sequence, 2);
    let Err(Error::Watch(WatchError::Lost { since: 0, lost, newest: named })) = watch.try_next() else {
        panic!("not lost");
    };
    assert_eq!((lost, named), (newest, newest));
    assert_eq!(watch.position(), newest);
    assert_eq!(watch.try_next().unwrap(), None);
    many_changes(&store, newest, 1);
    assert_eq!(watch.try_next().unwrap().unwrap().sequence, newest + 1);

    // What it needs next has just gone.
    assert!(matches!(behind.try_next(), Err(Error::Watch(WatchError::Lost { .. }))));
    let mut all = store.watch(&WatchOptions::oldest()).unwrap();
    let sequences: Vec<_> =
        std::iter::from_fn(|| all.try_next().unwrap()).map(|event| event.sequence).collect();
    assert_eq!(sequences, (3..=newest + 1).collect::<Vec<_>>());
    let mut since = store.watch(&WatchOptions::since(2)).unwrap();
    assert_eq!(since.try_next().unwrap().unwrap().sequence, 3);
    assert_eq!(since.position(), 3);
}

#[test]
fn a_position_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    many_changes(&store, 0, 3);
    let mut watch = store.watch(&WatchOptions::since(9)).unwrap();
    let found = watch.next(Some(Duration::ZERO));
    assert!(matches!(found, Err(Error::Watch(WatchError::Ahead { since: 9, newest: 3 }))), "{found:?}");
    assert_eq!(watch.try_next().unwrap(), None);
}

/// A transaction that stays open would keep every page that is replaced meanwhile.
#[test]
fn an_idle_watch_keeps_no_space() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let web = store.create_container(None, &ContainerOptions::named("web")).unwrap();
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let length = || std::fs::metadata(store.database().path()).unwrap().len();
    // Bytes that do not compress.
    let bytes = |round: u8| -> Vec<u8> {
        let mut out = vec![0; 100_000];
        blake3::Hasher::new().update(&[round]).finalize_xof().fill(&mut out);
        out
    };
    let put = |round: u8| store.write(|txn| txn.put_item(&web, "item", &bytes(round))).unwrap();
    (0..20).for_each(put);
    let before = length();
    assert!(watch.try_next().unwrap().is_some());
    (20..120).for_each(put);
    assert!(length() <= before, "grew from {before} to {}", length());
    assert_eq!(told(&mut watch).len(), 119);
}

/// Runs this test binary again under strace, and counts what a look costs when nothing changed.
#[test]
fn looking_costs_no_system_call() {
    const MARKER: &str = "LAYERSTORE_LOOK_COUNT_DIR";
    if let Ok(dir) = std::env::var(MARKER) {
        let store = open(Path::new(&dir));
        let mut watch = store.watch(&WatchOptions::default()).unwrap();
        assert_eq!(watch.try_next().unwrap(), None);
        let mark = |name| drop(std::fs::metadata(Path::new("/layerstore-mark").join(name)));
        mark("begin");
        let counter = store.change_counter();
        for _ in 0..10_000 {
            assert_eq!(store.change_counter(), counter);
            assert!(matches!(watch.try_next(), Ok(None)));
        }
        mark("end");
        return;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let trace = dir.path().join("trace");
    let output = Command::new("strace")
        .args(["-ff", "-qq", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "store::watch::tests::looking_costs_no_system_call"])
        .env(MARKER, dir.path())
        .output()
        .unwrap();
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("ptrace") {
        eprintln!("skipped: tracing is not allowed here");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // One file for each thread.
    let traces = std::fs::read_dir(dir.path()).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        path.is_file().then(|| std::fs::read_to_string(path).unwrap())
    });
    let marked: Vec<_> = traces.filter(|trace| trace.contains("/layerstore-mark/begin")).collect();
    let [trace] = marked.as_slice() else { panic!("{} threads have the mark", marked.len()) };
    let between = trace.lines().skip_while(|line| !line.contains("/layerstore-mark/begin")).skip(1);
    let calls: Vec<_> = between.take_while(|line| !line.contains("/layerstore-mark/end")).collect();
    assert!(calls.is_empty(), "{} system calls: {:?}", calls.len(), calls.first());
}

#[test]
fn a_descriptor_that_was_asked_for_is_cleared_by_looking() {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut watch = store.watch(&WatchOptions::default()).unwrap();
    let readable = |watch: &Watch| {
        poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    };
    assert!(!readable(&watch));
    for round in 0..2 {
        let web = store.create_container(None, &ContainerOptions::named(format!("web{round}"))).unwrap();
        assert!(readable(&watch));
        let thing = ThingId::from(&web);
        assert!(watch.try_next().unwrap().is_some());
        let event = watch.try_next().unwrap().unwrap();
        assert_eq!(event.subject.thing(), Some(&thing));
        assert_eq!(event.aspects, Vec::<Aspect>::new());
        assert_eq!(watch.try_next().unwrap(), None);
        assert!(!readable(&watch));
    }
}

#[test]
fn a_database_that_is_replaced_is_noticed_without_inotify() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let timer = Wakeup::every(Duration::from_millis(1)).unwrap();
    let mut watch = Watch::new(&store, &WatchOptions::default(), timer).unwrap();
    assert_eq!(watch.try_next().unwrap(), None);
    let copy = dir.path().join("copy");
    store.backup(&copy, BackupMode::New).unwrap();
    std::fs::rename(copy, store.root().join("store.redb")).unwrap();
    for _ in 0..2 {
        let replaced = watch.next(Some(Duration::from_secs(60)));
        assert!(matches!(replaced, Err(Error::Watch(WatchError::Replaced { .. }))), "{replaced:?}");
    }
}
