//! `--timings`: which stages are told, and that a lock that another process holds is one of the things that took long.

use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use layerstore::{LayerOptions, WriteTxn};
use serde_json::Value;

use super::{TAG, image};
use crate::support::Dir;
use crate::support::store::open;
use crate::support::tar::{Member, archive};

const STAGES: [&str; 12] = [
    "read",
    "decompress",
    "hash",
    "unpack",
    "write",
    "seal",
    "share",
    "sync",
    "commit",
    "other",
    "lock_wait",
    "queue_wait",
];

/// All stages are there; returns their sum.
fn sum(stages: &Value) -> f64 {
    let stages = stages.as_object().unwrap();
    assert_eq!(stages.keys().collect::<Vec<_>>(), STAGES);
    stages.values().map(|seconds| seconds.as_f64().unwrap()).sum()
}

/// Sums are not exact.
const TINY: f64 = 1e-6;

#[test]
fn every_stage_is_told_for_each_layer_and_in_sum() {
    let dir = Dir::new("timings");
    let written = image().write(dir.join("base.oci"), TAG);
    let loaded = dir.layerstore(["load", &written.reference(), "--timings", "--json"]).json();
    assert_eq!(format!("sha256:{}", loaded["id"].as_str().unwrap()), written.config_digest);
    let (timings, wall) = (&loaded["timings"], loaded["timings"]["wall"].as_f64().unwrap());
    let layers = timings["layers"].as_array().unwrap();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["diff_id"].as_str().unwrap()).collect();
    assert_eq!(diff_ids, written.diff_ids);
    // The reader, the decompressor, the digest, the parser, and those who fill files.
    let threads = 4 + std::thread::available_parallelism().unwrap().get();
    for layer in layers {
        let own = layer["wall"].as_f64().unwrap();
        assert!(layer["blob"].as_str().unwrap().starts_with("sha256:"));
        assert!(own <= wall && sum(&layer["stages"]) <= own * threads as f64 + TINY, "{timings:#}");
        for stage in ["read", "decompress", "hash", "unpack", "write", "seal", "queue_wait"] {
            assert!(layer["stages"][stage].as_f64().unwrap() > 0.0, "{stage}: {timings:#}");
        }
    }
    let total = &timings["stages"];
    for stage in STAGES {
        let of = |stages: &Value| stages[stage].as_f64().unwrap();
        let below: f64 = layers.iter().map(|layer| of(&layer["stages"])).sum();
        assert!(of(total) >= below - TINY, "{stage}: {timings:#}");
    }
    assert!(total["sync"].as_f64().unwrap() > 0.0 && total["commit"].as_f64().unwrap() > 0.0, "{timings:#}");
    let waits = total["lock_wait"].as_f64().unwrap() + total["queue_wait"].as_f64().unwrap();
    assert!((timings["busy"].as_f64().unwrap() + waits - sum(total)).abs() < TINY, "{timings:#}");
}

#[test]
fn people_read_tables_beside_the_answer() {
    let dir = Dir::new("timings-tables");
    let written = image().write(dir.join("base.oci"), TAG);
    let load = ["load", &written.reference()];
    let told = dir.layerstore(load).arg("--timings").output();
    assert_eq!(
        format!("sha256:{}", String::from_utf8(told.stdout).unwrap()),
        format!("{}\n", written.config_digest)
    );
    let tables = String::from_utf8(told.stderr).unwrap();
    for stage in
        STAGES.map(|stage| stage.replace('_', " ")).iter().map(String::as_str).chain(["busy", "wall"])
    {
        assert!(tables.lines().any(|line| line.starts_with(stage)), "{stage}:\n{tables}");
    }
    let layers = tables.lines().skip_while(|line| !line.starts_with("LAYER")).count();
    assert_eq!(layers, 1 + written.diff_ids.len(), "{tables}");
    assert!(tables.lines().all(|line| line.len() <= 80), "{tables}");
}

#[test]
fn nothing_is_told_that_was_not_asked_for() {
    let dir = Dir::new("timings-none");
    let written = image().write(dir.join("base.oci"), TAG);
    let output = dir.layerstore(["load", &written.reference(), "--json"]).output();
    assert!(output.status.success() && output.stderr.is_empty());
    let loaded: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(loaded.get("timings"), None);
    assert!(dir.layerstore(["load", &written.reference()]).output().stderr.is_empty());
}

#[test]
fn a_layer_of_its_own_has_a_sum_and_no_rows() {
    let dir = Dir::new("timings-layer");
    dir.write("a.tar", archive(&[Member::file("a", "b")]));
    let put = ["put-layer", "--file", "a.tar", "--timings"];
    let timings = dir.layerstore(put).args(["--json"]).json()["timings"].clone();
    assert_eq!(timings["layers"].as_array().unwrap().len(), 0);
    assert!(sum(&timings["stages"]) > 0.0 && timings["stages"]["write"].as_f64().unwrap() > 0.0);
    let told = dir.layerstore(put).output();
    assert!(String::from_utf8(told.stderr).unwrap().starts_with("STAGE"));
}

#[test]
fn a_lock_of_another_process_is_waited_for() {
    let dir = Dir::new("timings-lock");
    let written = image().write(dir.join("base.oci"), TAG);
    let store = open(&dir);
    store.create_layer(None, &LayerOptions::default()).unwrap();
    let inode = format!(":{} ", std::fs::metadata(dir.root().join("store.redb")).unwrap().ino());
    let waits = |line: &str| line.contains("-> ") && line.contains(&inode);
    let mut load = dir.layerstore(["load", &written.reference(), "--timings", "--json"]);
    let (loaded, held) = std::thread::scope(|scope| {
        let hold = |_: &WriteTxn<'_>| {
            let load = scope.spawn(move || load.json());
            while !std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits) {
                assert!(!load.is_finished(), "it waits for nobody");
                sleep(Duration::from_millis(5));
            }
            let seen = Instant::now();
            sleep(Duration::from_millis(50));
            Ok((load, seen.elapsed()))
        };
        let (load, held) = store.write(hold).unwrap();
        (load.join().unwrap(), held)
    });
    let waited = loaded["timings"]["stages"]["lock_wait"].as_f64().unwrap();
    assert!(waited >= held.as_secs_f64(), "{waited} of {held:?}");
}
