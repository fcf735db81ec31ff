//! Images of layers that are there, ids of containers, wiping and shutting down.

use std::os::unix::fs::MetadataExt;

use serde_json::json;

use super::{can_mount, entries, lists, load_base, mount};
use crate::support::tar::{Member, archive};
use crate::support::{Dir, machine};

#[test]
fn an_image_is_made_of_a_layer() {
    let dir = Dir::new("create-image");
    load_base(&dir);
    let top = dir.layerstore(["images", "--json"]).json()[0]["top_layer"].as_str().unwrap().to_owned();
    dir.write("manifest.json", "{}");
    let digest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let id = dir
        .layerstore(["create-image", &top[..12], "--id", "c0de", "--name", "made:1", "--name", "base"])
        .args(["--item", "manifest=manifest.json", "--metadata", "m", "--label", "a=b", "--flag", "f=[1]"])
        .args(["--created", "2026-01-31T12:00:00Z"])
        .stdout();
    assert_eq!(id, "c0de\n");
    let image = &dir.layerstore(["inspect", digest]).json()[0];
    for (field, value) in [
        ("id", json!("c0de")),
        ("names", json!(["made:1", "base"])),
        ("top_layer", json!(top)),
        ("digests", json!([digest])),
        ("metadata", json!("m")),
        ("labels", json!({ "a": "b" })),
        ("flags", json!({ "f": [1] })),
        ("created", json!("2026-01-31T12:00:00Z")),
    ] {
        assert_eq!(image[field], value, "{field}");
    }
    let old = dir.layerstore(["images", "--json"]).json();
    let old = old.as_array().unwrap().iter().find(|image| image["id"] != "c0de").unwrap();
    assert_eq!((&old["names"], &old["names_history"]), (&json!([]), &json!(["base"])));
    let empty = dir.layerstore(["create-image", "--json"]).json();
    assert_eq!(empty["top_layer"], json!(null));

    let before = lists(&dir);
    for bad in [
        &["create-image", "nope"][..],
        &["create-image", "--id", "c0de"],
        &["create-image", "--item", "manifest=missing"],
    ] {
        dir.layerstore(bad).assert_exit(1);
    }
    for bad in [
        ["--digest", "sha256:x"],
        ["--item", "manifest"],
        ["--flag", "f=no JSON"],
        ["--created", "yesterday"],
        ["--id", ".."],
    ] {
        dir.layerstore(["create-image", bad[0], bad[1]]).assert_exit(2);
    }
    assert_eq!(lists(&dir), before);
}

#[test]
fn a_container_gets_ids_of_its_own() {
    let dir = Dir::new("idmaps");
    for bad in [["--uidmap", "0:1"], ["--gidmap", "a:b:c"], ["--userns-size", "5"]] {
        dir.layerstore(["create-container", bad[0], bad[1]]).assert_exit(2);
    }
    let error = dir.layerstore(["create-container", "--uidmap", "1:1:1"]).assert_exit(2);
    assert!(error.contains("the id 0, is not mapped"), "{error}");
    dir.layerstore(["create-container", "--name", "one", "--uidmap", "0:0:1"]).assert_success();
    let one = &dir.layerstore(["inspect", "one"]).json()[0];
    assert_eq!((&one["uid_map"], &one["gid_map"]), (&json!(["0:0:1"]), &json!(["0:0:1"])));
    let error = dir
        .layerstore(["create-container", "--userns-auto", "--userns-user", "nobody-has-this-name"])
        .assert_exit(1);
    assert!(error.contains("the user nobody-has-this-name has no range of them"), "{error}");
    if !machine::is_real_root() {
        skip!("giving a directory to ids of another needs root of the machine");
    }
    dir.layerstore(["create-container", "--name", "web", "--volatile", "--layer", "its-layer"])
        .args(["--uidmap", "0:100000:10,10:200000:5", "--gidmap", "0:300000:15", "--process-label", "p"])
        .assert_success();
    let web = &dir.layerstore(["inspect", "web"]).json()[0];
    assert_eq!(web["uid_map"], json!(["0:100000:10", "10:200000:5"]));
    assert_eq!(web["gid_map"], json!(["0:300000:15"]));
    assert_eq!((&web["volatile"], &web["layer"]), (&json!(true), &json!("its-layer")));
    assert_eq!(web["process_label"], "p");
}

#[test]
fn mounts_show_the_ids_of_the_host_and_archives_those_inside() {
    if !machine::is_real_root() {
        skip!("mounts with id maps need root of the machine");
    }
    let dir = Dir::new("idmap-mounts");
    let tar = archive(&[Member::file("file", "text").owner(3, 4), Member::file("of-root", "")]);
    dir.layerstore(["put-layer", "--id", "base", "--file", "-"]).stdin(tar).assert_success();
    dir.layerstore(["create-image", "base", "--id", "1234"]).assert_success();
    dir.layerstore(["create-container", "1234", "--name", "web", "--layer", "its-layer"])
        .args(["--uidmap", "0:100000:2,2:200000:8", "--gidmap", "0:300000:10"])
        .assert_success();
    let owner = |path: std::path::PathBuf| {
        let found = std::fs::metadata(path).unwrap();
        (found.uid(), found.gid())
    };
    let path = mount(&dir, "web");
    assert_eq!(owner(path.join("file")), (200_001, 300_004));
    assert_eq!(owner(path.join("of-root")), (100_000, 300_000));
    std::fs::write(path.join("new"), "new").unwrap();
    std::os::unix::fs::chown(path.join("new"), Some(200_007), Some(300_009)).unwrap();
    std::fs::hard_link(path.join("new"), path.join("same")).unwrap();
    std::fs::remove_file(path.join("of-root")).unwrap();
    dir.layerstore(["unmount", "web"]).assert_success();
    assert_eq!(dir.layerstore(["changes", "web"]).stdout(), "A /new\nD /of-root\nA /same\n");
    let owners = |bytes: &[u8]| {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            (entry.path().unwrap().display().to_string(), header.uid().unwrap(), header.gid().unwrap())
        });
        entries.filter(|(path, ..)| !path.contains(".wh.")).collect::<Vec<_>>()
    };
    let inside = [("new".to_owned(), 9, 9), ("same".to_owned(), 9, 9)];
    assert_eq!(owners(&dir.layerstore(["diff", "web"]).stdout_bytes()), inside);
    // A file of nobody inside is named, and nothing comes out.
    let path = mount(&dir, "web");
    std::os::unix::fs::chown(path.join("new"), Some(0), Some(0)).unwrap();
    dir.layerstore(["unmount", "web"]).assert_success();
    let error = dir.layerstore(["diff", "web"]).assert_exit(1);
    assert!(error.contains("/new belongs to 0:0 on the host, which is nobody in the container"), "{error}");
}

#[test]
fn maps_that_mean_nothing_are_named() {
    let dir = Dir::new("idmap-errors");
    let form = "it is not of the form CONTAINER-ID:HOST-ID:COUNT";
    for bad in ["junk", "0", "0:1", "0:1:2:3", "0:x:2", "0:-1:2", "0:1:4294967296", "", "0:1:2,"] {
        for flag in ["--uidmap", "--gidmap"] {
            let error = dir.layerstore(["create-container", flag, bad]).assert_exit(2);
            assert!(error.contains(flag) && error.contains(form), "{error}");
        }
    }
    for (bad, reason) in [
        ("1:1:1", "root of the container, the id 0, is not mapped"),
        ("0:1:0", "a run has no ids"),
        ("0:100:10,5:200:10", "two runs have an id in common"),
        ("0:100:10,10:105:10", "two runs have an id in common"),
        ("0:4294967290:10", "a run passes the last id"),
    ] {
        let error = dir.layerstore(["create-container", "--uidmap", bad]).assert_exit(2);
        assert!(error.contains("is refused") && error.contains(reason), "{bad}: {error}");
    }
    assert!(!dir.root().exists(), "no store is made for a mistake");
}

#[test]
fn names_move_only_where_that_is_asked_for() {
    let dir = Dir::new("names-move");
    for id in ["a1", "b2"] {
        dir.layerstore(["create-layer", "--id", id, "--name", id]).assert_success();
        dir.layerstore(["create-image", id, "--id", id, "--name", &format!("image:{id}")]).assert_success();
        dir.layerstore(["create-container", id, "--id", &format!("c{id}"), "--name", &format!("web-{id}")])
            .assert_success();
    }
    // Of one kind, a name has one holder; kinds know nothing of each other.
    let refused = |words: &[&str], holder: &str| {
        let error = dir.layerstore(words).assert_exit(1);
        assert!(error.contains(&format!("belongs to the {holder}; choose another")), "{error}");
    };
    refused(&["names", "web-a1", "--add", "web-b2"], "container cb2");
    refused(&["names", "web-a1", "--set", "x", "--set", "web-b2"], "container cb2");
    refused(&["names", "image:a1", "--add", "image:b2"], "image b2");
    dir.layerstore(["names", "web-a1", "--add", "image:b2"]).assert_success();
    assert_eq!(dir.layerstore(["names", "web-a1"]).stdout(), "web-a1\nimage:b2\n");
    assert_eq!(dir.layerstore(["names", "ca1", "--remove", "web-a1", "--json"]).json(), json!(["image:b2"]));
    dir.layerstore(["names", "ca1", "--remove", "web-a1"]).assert_failure();
    // An image takes a name from another, which remembers that it had it.
    dir.layerstore(["names", "image:a1", "--add", "image:b2", "--move"]).assert_success();
    let images = dir.layerstore(["images", "--json"]).json();
    let image = |id: &str| images.as_array().unwrap().iter().find(|image| image["id"] == id).unwrap();
    assert_eq!(image("a1")["names"], json!(["image:a1", "image:b2"]));
    assert_eq!((&image("b2")["names"], &image("b2")["names_history"]), (&json!([]), &json!(["image:b2"])));
    let error = dir.layerstore(["names", "cb2", "--add", "image:b2", "--move"]).assert_failure();
    assert!(error.contains("a container") && error.contains("an image"), "{error}");
    // A new thing takes none, and what is gone has none.
    let error = dir.layerstore(["create-container", "--name", "web-b2"]).assert_exit(1);
    assert!(error.contains("web-b2"), "{error}");
    dir.layerstore(["rm", "web-b2"]).assert_success();
    dir.layerstore(["create-container", "--id", "d3", "--name", "web-b2"]).assert_success();
    assert_eq!(dir.layerstore(["names", "web-b2"]).stdout(), "web-b2\n");
}

#[test]
fn a_store_is_wiped_only_on_purpose() {
    let dir = Dir::new("wipe");
    dir.layerstore(["wipe", "--force"]).assert_exit(1);
    assert!(!dir.root().exists(), "a missing store is not made to be wiped");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let before = lists(&dir);
    dir.layerstore(["wipe"]).assert_exit(2);
    assert_eq!(lists(&dir), before);
    let told = dir.layerstore(["wipe", "--force"]).stdout();
    assert_eq!(told, "removed 1 container, 1 image and 3 layers\n");
    assert_eq!(lists(&dir), [json!([]), json!([]), json!([])]);
    assert_eq!((entries(&dir, "diffs"), entries(&dir, "blobs")), (0, 0));
    let told = dir.layerstore(["wipe", "--force", "--json"]).json();
    assert_eq!(told, json!({ "containers": 0, "images": 0, "layers": 0, "left": [] }));
}

#[test]
fn a_shutdown_ends_mounts_only_with_force() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("shutdown");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web", "--layer", "its-layer"]).assert_success();
    assert_eq!(dir.layerstore(["shutdown"]).stdout(), "");
    let path = mount(&dir, "web");
    let output = dir.layerstore(["shutdown"]).output();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b"its-layer\n"[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("shutdown --force"));
    assert!(path.join("etc").exists());
    assert_eq!(dir.layerstore(["shutdown", "--force", "--json"]).json(), json!([]));
    assert!(!path.exists());
}
