//! check, repair and gc.

use std::time::Duration;

use layerstore::{Store, StoreOptions};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

use super::{TAG, entries, image, lists, load_base};
use crate::support::Dir;
use crate::support::oci::{Fault, Image, Layer};
use crate::support::tar::Member;

#[test]
fn damage_is_status_3_and_named() {
    let dir = Dir::new("damage");
    load_base(&dir);
    dir.layerstore(["check", "--deep"]).assert_success();
    let directory = std::fs::read_dir(dir.root().join("diffs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&directory).unwrap();
    let before = lists(&dir);
    for level in [&["check"][..], &["check", "--quick"], &["check", "--deep"]] {
        let output = dir.layerstore(level).output();
        assert_eq!(output.status.code(), Some(3), "{level:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("directory-missing: layer ") && text.contains("1 finding"), "{text}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    let output = dir.layerstore(["check", "--json"]).output();
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["findings"][0]["code"], "directory-missing");
    assert_eq!(lists(&dir), before, "checking changes nothing");
}

#[test]
fn damage_is_mended_or_status_3() {
    let dir = Dir::new("repair");
    let written = load_base(&dir);
    assert_eq!(dir.layerstore(["repair"]).stdout(), "nothing to repair\n");
    dir.layerstore(["prune", "--blobs"]).assert_success();
    let directory = std::fs::read_dir(dir.root().join("diffs")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&directory).unwrap();
    let output = dir.layerstore(["repair"]).output();
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("left: layer ")
            && text.contains("\n  directory-missing: ")
            && text.contains("with --force it removes"),
        "{text}"
    );
    let report = dir.layerstore(["check", "--json"]).output();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["findings"][0]["remedy"]["action"], "needs-source");

    let from = ["repair", "--from", &written.reference()];
    let planned = dir.layerstore([&from[..], &["--dry-run", "--json"]].concat()).json();
    assert_eq!((&planned["repaired"][0]["action"], &planned["left"]), (&json!("unpack-layer"), &json!([])));
    assert!(!directory.exists() && entries(&dir, "diffs") == 1, "nothing was done");
    let text = dir.layerstore(from).stdout();
    assert!(
        text.contains("unpacked it again from") && text.contains("done: 1 repair; left: 0 findings"),
        "{text}"
    );
    dir.layerstore(["check", "--deep"]).assert_success();
    dir.layerstore(["repair", "--from", "oci:nowhere"]).assert_exit(1);
}

/// Each layer once, short, and by the name of its image; and before a repair the same as after it.
#[test]
fn damage_is_told_by_layer() {
    let dir = Dir::new("told");
    let written = load_base(&dir);
    dir.layerstore(["prune", "--blobs"]).assert_success();
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let diffs = std::fs::read_dir(dir.root().join("diffs")).unwrap().map(|entry| entry.unwrap().path());
    let base = diffs.map(|path| path.join("etc")).find(|path| path.join("hostname").exists()).unwrap();
    std::fs::write(base.join("hostname"), "ONE\n").unwrap();
    std::fs::write(base.join("old"), "OLD\n").unwrap();
    let told = |command: &[&str]| String::from_utf8(dir.layerstore(command).output().stdout).unwrap();

    let layer = format!("layer {} (image base)", &written.diff_ids[0]["sha256:".len()..][..12]);
    let all = [&["check", "--deep"][..], &["repair", "--dry-run"], &["repair"]];
    for (command, head) in all.into_iter().zip(["", "left: ", "left: "]) {
        let text = told(command);
        assert_eq!(text.lines().filter(|line| *line == format!("{head}{layer}")).count(), 1, "{text}");
        for path in ["hostname", "old"] {
            assert!(
                text.contains(&format!("  content-changed: the content of \"/etc/{path}\" has changed")),
                "{text}"
            );
        }
        assert_eq!(
            text.matches("a repair needs an image (--from oci:DIR) with the layer sha256:").count(),
            1,
            "{text}"
        );
        let removes: Vec<_> = text.lines().filter(|line| line.starts_with("      the ")).collect();
        assert_eq!(removes.len(), 5, "{text}");
        assert!(text.lines().all(|line| line.len() < 160), "{text}");
        assert!(text.contains("4 findings"), "{text}");
    }
    assert!(told(&["check"]).contains("`layerstore check --deep` verifies contents"));

    let (planned, done) = (told(&["repair", "--force", "--dry-run"]), told(&["repair", "--force"]));
    assert_eq!(planned.replace("would remove", "removed").replace("would do", "done"), done);
    assert!(done.contains(&format!("{layer}: removed the container web (")), "{done}");
    assert!(done.ends_with("done: 5 removals; left: 0 findings\n"), "{done}");
}

#[test]
fn what_is_not_synced_is_counted() {
    let dir = Dir::new("counted");
    let written = image().write(dir.join("base.oci"), TAG);
    dir.layerstore(["load", &written.reference(), "--sync", "records"]).assert_success();
    let text = dir.layerstore(["check"]).stdout();
    let notes: Vec<_> = text.lines().filter(|line| line.starts_with("note: ")).collect();
    assert_eq!(notes.len(), 2, "{text}");
    assert!(
        notes[0].starts_with("note: 2 layers and 2 kept blobs are not synced; `layerstore sync`"),
        "{text}"
    );
    // So that nobody takes "nothing found" for more than it is.
    assert!(notes[1].starts_with("note: no file was read: `layerstore check --deep`"), "{text}");
    assert!(!dir.layerstore(["check", "--deep"]).stdout().contains("no file was read"));
    assert!(!dir.layerstore(["check", "--quiet"]).stdout().contains("no file was read"));
    assert_eq!(dir.layerstore(["check", "--json"]).json()["notes"].as_array().unwrap().len(), 4);
}

#[test]
fn one_layer_or_image_can_be_checked() {
    let dir = Dir::new("check-one");
    let written = load_base(&dir);
    let report = dir.layerstore(["check", "--deep", "--layer", &written.diff_ids[0], "--json"]).json();
    assert_eq!(report["checked"]["directories"], 1);
    let report = dir.layerstore(["check", "--image", "base", "--json"]).json();
    assert_eq!(report["checked"]["directories"], 2);
    dir.layerstore(["check", "--image", "nope"]).assert_exit(1);
}

#[test]
fn garbage_is_shown_then_removed() {
    let dir = Dir::new("garbage");
    load_base(&dir);
    assert_eq!(dir.layerstore(["gc"]).stdout(), "nothing to remove\n");
    dir.write("root/diffs/12345/file", "left behind");
    let shown = dir.layerstore(["gc", "--dry-run"]).stdout();
    assert!(shown.contains("diffs/12345") && shown.contains("would remove 1 leftover"), "{shown}");
    let checked = dir.layerstore(["check"]).stdout();
    assert!(
        checked.contains("nothing found") && checked.contains("1 leftover that no record names"),
        "{checked}"
    );
    assert_eq!(entries(&dir, "diffs"), 3);
    let report = dir.layerstore(["gc", "--json"]).json();
    assert_eq!((&report["dry_run"], &report["left"]), (&json!(false), &json!([])));
    assert!(report["removed"][0]["path"].as_str().unwrap().ends_with("diffs/12345"));
    assert_eq!(
        (&report["removed"][0]["kind"], &report["removed"][0]["id"]),
        (&json!("directory"), &json!(null))
    );
    assert_eq!(entries(&dir, "diffs"), 2);
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn what_a_dead_process_left_shows_in_the_status() {
    let dir = Dir::new("leftovers");
    load_base(&dir);
    assert!(
        dir.layerstore(["status"]).stdout().contains("leftovers   none of dead processes; `layerstore gc")
    );
    dir.write("root/diffs/12345/file", "left behind");
    dir.write("root/locks/12345", "");
    let shown = dir.layerstore(["status"]).stdout();
    let told = "leftovers   1 of dead processes; `layerstore gc --dry-run` lists their parts, and all else that can go";
    assert!(shown.contains(told), "{shown}");
    // Its directory and its lock file.
    assert!(dir.layerstore(["gc", "--dry-run"]).stdout().contains("would remove 2 leftovers"));
    let status = dir.layerstore(["status", "--json"]).json();
    assert_eq!((&status["leftovers"], &status["in_progress"]), (&json!(1), &json!(0)));
    // The next command that writes tidies up.
    dir.layerstore(["create-container"]).assert_success();
    assert_eq!(dir.layerstore(["status", "--json"]).json()["leftovers"], 0);
    assert_eq!((entries(&dir, "diffs"), entries(&dir, "locks")), (3, 0));
}

#[test]
fn what_is_mounted_in_garbage_is_named() {
    let dir = Dir::new("mounted-garbage");
    load_base(&dir);
    for below in ["trash/12345", "trash/12345/inside", "diffs/12345/inside"] {
        let at = dir.root().join(below);
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(dir.root().join("locks/12345"), "").unwrap();
        if let Err(error) = rustix::mount::mount("none", &at, "tmpfs", MountFlags::empty(), None) {
            skip!("this process may not mount: {error}");
        }
        let dry = dir.layerstore(["gc", "--dry-run"]).output();
        let check = dir.layerstore(["check"]).output();
        let json = dir.layerstore(["check", "--json"]).output();
        let gc = dir.layerstore(["gc"]).output();
        // The directory may be in the trash by now, with what is mounted in it.
        let moved = dir.root().join("trash/12345/inside");
        let named = [at.clone(), moved.clone()].map(|at| format!("a filesystem is mounted at {at:?}"));
        rustix::mount::unmount(&at, UnmountFlags::DETACH)
            .or_else(|_| rustix::mount::unmount(&moved, UnmountFlags::DETACH))
            .unwrap();
        for (output, told) in [(&dry, &dry.stderr), (&gc, &gc.stderr), (&check, &check.stdout)] {
            let told = String::from_utf8_lossy(told);
            assert!(named.iter().any(|named| told.contains(named)), "{below}: {named:?} {output:?}");
        }
        assert_eq!((dry.status.code(), gc.status.code(), check.status.code()), (Some(1), Some(1), Some(0)));
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!((&json["notes"][0]["code"], &json["findings"]), (&json!("mounted"), &json!([])), "{json}");
        // The lock file announces what stays, so it does too.
        assert_eq!(json["garbage"], json!([]), "{json}");
        assert!(!String::from_utf8_lossy(&dry.stdout).contains("locks/12345"), "{dry:?}");
        dir.layerstore(["gc"]).assert_success();
        assert!(!at.exists());
    }
}

#[test]
fn leases_that_are_over_end_with_the_others() {
    let dir = Dir::new("lease-over");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let store = Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root())).unwrap();
    let web = store.container("web").unwrap();
    for (id, seconds) in [("a", 3600), ("b", 0), ("c", 0)] {
        store.lease(&id.parse().unwrap(), &web, Duration::from_secs(seconds)).unwrap();
    }
    drop(store);
    let shown = dir.layerstore(["status"]).stdout();
    assert!(
        shown.contains("3 leases\n") && shown.contains(" a until ") && shown.contains(" b over since "),
        "{shown}"
    );
    let leases = dir.layerstore(["status", "--json"]).json()["leases"].clone();
    let over: Vec<_> = leases.as_array().unwrap().iter().map(|lease| lease["over"].clone()).collect();
    assert_eq!(over, [false, true, true]);
    // The first write of the program collects those that are over, before their turn comes.
    let ended = dir.layerstore(["prune", "--leases", "--json"]).json();
    assert_eq!(ended["leases"], 3);
    assert_eq!(dir.layerstore(["status", "--json"]).json()["leases"], json!([]));
}

#[test]
fn finished_layers_of_a_failed_load_are_leased() {
    let dir = Dir::new("lease");
    let layers = [
        Layer::new([Member::file("base", "fine")]),
        Layer::new([Member::file("top", "cut short")]).fault(Fault::Truncated),
    ];
    let reference = Image::new(layers).write(dir.join("broken.oci"), "1").reference();
    dir.layerstore(["load", &reference]).assert_exit(1);
    assert_eq!(dir.layerstore(["layers", "--json"]).json(), json!([]));
    let told = dir.layerstore(["load", &reference, "--lease", "2h"]).assert_exit(1);
    let status = dir.layerstore(["status", "--json"]).json();
    let end = status["leases"][0]["expires"].as_str().unwrap().to_owned();
    // To the second, as people are told it.
    let until = &end[..19];
    assert!(told.contains("note: 1 layer is kept until ") && told.contains(until), "{told}");
    // The next is for less, and takes nothing away from the first.
    let output = dir.layerstore(["load", &reference, "--lease", "1h", "--json"]).output();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report, json!({ "kept": { "layers": 1, "until": end } }));
    let shown = dir.layerstore(["status"]).stdout();
    assert!(shown.contains("1 lease\n") && shown.contains(&format!(" until {until}Z\n")), "{shown}");
    assert_eq!(dir.layerstore(["layers", "--json"]).json().as_array().unwrap().len(), 1);
    let status = dir.layerstore(["status", "--json"]).json();
    assert!(status["leases"][0]["id"].as_str().unwrap().starts_with("load-"), "{status}");
    assert_eq!(dir.layerstore(["gc"]).stdout(), "nothing to remove\n");
    for bad in ["1 month", "0", "x"] {
        let error = dir.layerstore(["load", &reference, "--lease", bad]).assert_exit(2);
        assert!(error.contains("write 30m, 1h or 2d"), "{error}");
    }
    let ended = dir.layerstore(["prune", "--leases", "--json"]).json();
    assert_eq!((&ended["leases"], ended["layers"].as_array().unwrap().len()), (&json!(1), 1));
    assert_eq!((entries(&dir, "diffs"), entries(&dir, "blobs")), (0, 0));
    dir.layerstore(["check"]).assert_success();
}
