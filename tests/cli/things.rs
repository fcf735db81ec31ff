//! Images of layers that are there, ids of containers, wiping and shutting down.

use serde_json::json;

use super::{can_mount, entries, lists, load_base, mount};
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
        &["create-image", "--flag", "f=no JSON"],
    ] {
        dir.layerstore(bad).assert_exit(1);
    }
    for bad in [["--digest", "sha256:x"], ["--item", "manifest"], ["--created", "yesterday"], ["--id", ".."]]
    {
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
    let error = dir.layerstore(["create-container", "--uidmap", "1:1:1"]).assert_exit(1);
    assert!(error.contains("the id 0, is not mapped"), "{error}");
    dir.layerstore(["create-container", "--name", "one", "--uidmap", "0:0:1"]).assert_success();
    let one = &dir.layerstore(["inspect", "one"]).json()[0];
    assert_eq!((&one["uid_map"], &one["gid_map"]), (&json!(["0:0:1"]), &json!(["0:0:1"])));
    let error = dir
        .layerstore(["create-container", "--userns-auto", "--userns-user", "nobody-has-this-name"])
        .assert_exit(1);
    assert!(error.contains("the user nobody-has-this-name has 0"), "{error}");
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
    assert_eq!(told, "removed 1 containers, 1 images and 3 layers\n");
    assert_eq!(lists(&dir), [json!([]), json!([]), json!([])]);
    assert_eq!((entries(&dir, "diffs"), entries(&dir, "blobs")), (0, 0));
    let told = dir.layerstore(["wipe", "--force", "--json"]).json();
    assert_eq!(told, json!({ "containers": 0, "images": 0, "layers": 0 }));
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
