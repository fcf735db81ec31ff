//! Containers: create, mount, changes, diff, unmount, rm.

use std::collections::BTreeSet;

use serde_json::json;

use super::{can_mount, entries, lists, load_base, mount, read};
use crate::support::{Dir, machine};

fn members(tar: &[u8]) -> BTreeSet<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

#[test]
fn what_is_written_is_listed_and_exported() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("changes");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let merged = mount(&dir, "web");
    assert_eq!(read(merged.join("etc/motd")), "hello\n");
    assert_eq!(dir.layerstore(["changes", "web"]).stdout(), "");

    std::fs::write(merged.join("etc/hostname"), "two\n").unwrap();
    std::fs::write(merged.join("etc/a\nb\\"), "").unwrap();
    std::fs::remove_file(merged.join("etc/old")).unwrap();
    let text = dir.layerstore(["changes", "web"]).stdout();
    assert_eq!(text, "C /etc\nA /etc/a\\x0ab\\x5c\nC /etc/hostname\nD /etc/old\n");
    let raw = dir.layerstore(["changes", "web", "-0"]).stdout();
    assert_eq!(raw, "C /etc\0A /etc/a\nb\\\0C /etc/hostname\0D /etc/old\0");
    let changes = dir.layerstore(["changes", "web", "--json"]).json();
    assert_eq!(changes[1], json!({ "kind": "added", "path": "/etc/a\nb\\" }));
    assert_eq!(changes[3], json!({ "kind": "deleted", "path": "/etc/old" }));

    let tar = dir.layerstore(["diff", "web"]).stdout_bytes();
    let names = members(&tar);
    for name in ["etc/hostname", "etc/.wh.old"] {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
    dir.layerstore(["diff", "web", "-o", "web.tar"]).assert_success();
    assert_eq!(std::fs::read(dir.join("web.tar")).unwrap(), tar);
}

#[test]
fn paths_that_are_no_text_stay_whole() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    use std::os::unix::ffi::OsStrExt;
    let dir = Dir::new("bytes");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let merged = mount(&dir, "web");
    std::fs::write(merged.join(std::ffi::OsStr::from_bytes(b"x\xff")), "").unwrap();
    assert_eq!(dir.layerstore(["changes", "web"]).stdout(), "A /x\\xff\n");
    let changes = dir.layerstore(["changes", "web", "--json"]).json();
    assert_eq!(changes, json!([{ "kind": "added", "path": { "bytes": "2f78ff" } }]));
    assert_eq!(dir.layerstore(["changes", "web", "--null"]).stdout_bytes(), b"A /x\xff\0");
}

#[test]
fn what_is_unmounted_by_hand_is_mounted_nowhere() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("by-hand");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let path = mount(&dir, "web");
    let mounts = || dir.layerstore(["status", "--json"]).json()["mounts"].as_array().unwrap().len();
    assert_eq!(mounts(), 1);
    machine::unmount(&path);
    assert_eq!(dir.layerstore(["mount", "-q"]).stdout(), "");
    assert_eq!(mounts(), 0);
    assert!(dir.layerstore(["status"]).stdout().contains("mounted     0 layers\n"));
}

#[test]
fn mounts_are_counted() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("counts");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let first = mount(&dir, "web");
    assert_eq!(dir.layerstore(["mount", "web", "--json"]).json()["count"], 2);
    let listed = dir.layerstore(["containers", "--json"]).json();
    assert_eq!(listed[0]["mount"]["path"], first.to_str().unwrap());
    assert_eq!(dir.layerstore(["mount", "-q"]).stdout_path(), first);
    let table = dir.layerstore(["mount"]).stdout();
    assert!(table.contains("container web") && table.contains(first.to_str().unwrap()), "{table}");
    let output = dir.layerstore(["unmount", "web"]).output();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 more user"));
    assert!(first.join("etc").exists());
    dir.layerstore(["umount", "web"]).assert_success();
    assert!(!first.exists());
    let error = dir.layerstore(["unmount", "web"]).assert_exit(1);
    assert!(error.contains("web is not mounted"), "{error}");
    assert_eq!(dir.layerstore(["containers", "--json"]).json()[0]["mount"], json!(null));
}

#[test]
fn mounted_container_stays_unless_forced() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("force");
    load_base(&dir);
    let id = dir.layerstore(["create-container", "base", "--name", "web"]).stdout();
    let merged = mount(&dir, "web");
    let error = dir.layerstore(["rm", "web"]).assert_exit(1);
    assert!(error.contains("is mounted at") && error.contains("unmount it first"), "{error}");
    assert!(merged.join("etc").exists());
    assert_eq!(dir.layerstore(["rm", "-f", "web"]).stdout(), format!("removed: {id}"));
    assert_eq!(dir.mounts(), Vec::<std::path::PathBuf>::new());
    assert_eq!(lists(&dir)[2], json!([]));
}

#[test]
fn several_are_removed_and_failures_are_told() {
    let dir = Dir::new("several");
    for id in ["one", "two"] {
        dir.layerstore(["create", "--id", id]).assert_success();
    }
    let output = dir.layerstore(["rm", "one", "nope", "two"]).output();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "removed: one\nremoved: two\n");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("\"nope\"") && error.contains("1 of 3 failed"), "{error}");
    assert_eq!(lists(&dir)[2], json!([]));
    assert_eq!(entries(&dir, "diffs"), 0);
    dir.layerstore(["rm", "--ignore", "nope"]).assert_success();
}

#[test]
fn container_has_what_it_was_given() {
    let dir = Dir::new("given");
    dir.layerstore(["create-container", "--id", "one", "--name", "a", "--name", "b"])
        .args(["--metadata", "m", "--label", "k=v=w", "--mount-option", "nodev"])
        .assert_success();
    let container = &dir.layerstore(["inspect", "b"]).json()[0];
    assert_eq!(container["kind"], "container");
    assert_eq!(container["id"], "one");
    assert_eq!(container["names"], json!(["a", "b"]));
    assert_eq!(container["metadata"], "m");
    assert_eq!(container["labels"], json!({ "k": "v=w" }));
    assert_eq!(container["mount_options"], json!(["nodev"]));
    assert_eq!(container["image"], json!(null));
}

#[test]
fn options_that_no_mount_takes_are_refused_at_once() {
    let dir = Dir::new("refused-options");
    for option in ["bogus", "lowerdir=/etc", "metacopy=on"] {
        let error = dir.layerstore(["create-container", "--mount-option", option]).assert_failure();
        assert!(error.contains(&format!("mount option {option:?} is refused")), "{error}");
    }
    assert!(!dir.root().exists(), "no store is made for a mistake");
    dir.layerstore(["create-container", "--mount-option", "volatile", "--mount-option", "ro"])
        .assert_success();
}

#[test]
fn what_a_message_names_can_be_given_to_the_next_command() {
    if !can_mount() {
        skip!("this process makes no mounts");
    }
    let dir = Dir::new("followed-advice");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let mount_point = dir.layerstore(["mount", "web"]).stdout_path();
    let used = std::fs::File::open(mount_point.join(".")).unwrap();
    let path = mount_point.to_str().unwrap();
    let error = dir.layerstore(["wipe", "--force"]).assert_exit(1);
    assert!(error.contains(path) && error.contains("`layerstore unmount --lazy`"), "{error}");
    dir.layerstore(["unmount", "--lazy", path]).assert_success();
    assert_eq!(dir.mounts(), Vec::<std::path::PathBuf>::new());
    drop(used);
    let error = dir.layerstore(["unmount", path]).assert_exit(1);
    assert!(error.contains(path) && error.contains("is not mounted"), "{error}");

    dir.layerstore(["create-layer", "--name", "below"]).assert_success();
    dir.layerstore(["create-layer", "below"]).assert_success();
    let error = dir.layerstore(["mount", "below"]).assert_exit(1);
    assert!(error.contains("has a layer above it") && error.contains("--change-under-others"), "{error}");
    for option in ["--read-only", "--change-under-others"] {
        dir.layerstore(["mount", option, "below"]).assert_success();
        dir.layerstore(["unmount", "below"]).assert_success();
    }
}
