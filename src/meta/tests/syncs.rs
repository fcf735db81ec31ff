//! How many syncs an operation costs, counted by strace.

use super::*;

const MARKER: &str = "LAYERSTORE_SYNC_COUNT_DIR";

/// How many syncs `act` does to a store that a writer has left. It runs in a process of its own: this test once more,
/// where there is no number, nor if strace cannot be used.
fn syncs_of(test: &str, act: impl FnOnce(&Database)) -> Option<usize> {
    let open = |dir: &Path| Database::new(dir.join("store.redb"), DatabaseOptions::default());
    if let Ok(dir) = std::env::var(MARKER) {
        act(&open(Path::new(&dir)));
        return None;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: strace is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    with_shared_tree(&store(dir.path()));
    let trace = dir.path().join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync,sync,syncfs", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("meta::tests::syncs::{test}")])
        .env(MARKER, dir.path())
        .output()
        .unwrap();
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("ptrace") {
        eprintln!("skipped: tracing is not allowed here");
        return None;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = std::fs::read_to_string(&trace).unwrap();
    Some(trace.lines().filter(|line| line.contains("sync")).count())
}

#[test]
fn writing_one_record_costs_two_syncs() {
    let syncs = syncs_of("writing_one_record_costs_two_syncs", |database| {
        database.write(|txn| txn.put_layer(&layer("ac", None))).unwrap();
    });
    assert!(syncs.is_none_or(|syncs| syncs == 2), "{syncs:?}");
}

#[test]
fn reading_costs_none() {
    let syncs = syncs_of("reading_costs_none", |database| {
        assert!(database.begin_read().unwrap().layer("aa").unwrap().is_some());
    });
    assert!(syncs.is_none_or(|syncs| syncs == 0), "{syncs:?}");
}

#[test]
fn a_copy_costs_one_for_the_file_and_one_for_its_name() {
    let syncs = syncs_of("a_copy_costs_one_for_the_file_and_one_for_its_name", |database| {
        database.backup(&database.path().with_extension("copy"), false).unwrap();
    });
    assert!(syncs.is_none_or(|syncs| syncs == 2), "{syncs:?}");
}
