//! Data items.

use serde_json::json;

use super::load_base;
use crate::support::Dir;
use crate::support::oci::digest;

#[test]
fn items_come_out_as_they_went_in() {
    let dir = Dir::new("items");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let bytes: Vec<u8> = (0..=255).cycle().take(600_000).collect();
    dir.layerstore(["item", "put", "web", "blob"]).stdin(bytes.clone()).assert_success();
    assert_eq!(dir.layerstore(["item", "get", "web", "blob"]).stdout_bytes(), bytes);
    dir.layerstore(["item", "get", "web", "blob", "-o", "copy"]).assert_success();
    assert_eq!(std::fs::read(dir.join("copy")).unwrap(), bytes);
    dir.write("spec.json", "{}");
    dir.layerstore(["item", "put", "web", "spec", "spec.json"]).assert_success();
    let list = dir.layerstore(["item", "list", "web", "--json"]).json();
    assert_eq!(
        list,
        json!([
            { "key": "blob", "size": 600_000, "digest": digest(&bytes) },
            { "key": "spec", "size": 2, "digest": digest(b"{}") },
        ])
    );
    dir.layerstore(["item", "rm", "web", "blob"]).assert_success();
    assert_eq!(dir.layerstore(["item", "ls", "web", "-q"]).stdout(), "spec\n");
}

#[test]
fn image_keeps_its_documents_as_items() {
    let dir = Dir::new("documents");
    let written = load_base(&dir);
    let manifest = dir.layerstore(["item", "get", "base", "manifest"]).stdout_bytes();
    assert_eq!(digest(&manifest), written.manifest_digest);
    let config = dir.layerstore(["item", "get", "base", &written.config_digest]).stdout_bytes();
    assert_eq!(digest(&config), written.config_digest);
}

#[test]
fn missing_file_is_named() {
    let dir = Dir::new("missing-file");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let error = dir.layerstore(["item", "put", "web", "spec", "nope.json"]).assert_exit(1);
    assert!(error.contains("cannot read nope.json") && error.contains("caused by: No such file"), "{error}");
}
