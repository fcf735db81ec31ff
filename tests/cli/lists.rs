//! Lists and sums: images, layers, containers, du, status, inspect.

use serde_json::json;

use super::{lists, load_base};
use crate::support::Dir;

#[test]
fn empty_store_has_empty_lists() {
    let dir = Dir::new("empty");
    dir.layerstore(["create-container", "--name", "gone"]).assert_success();
    dir.layerstore(["rm", "gone"]).assert_success();
    assert_eq!(lists(&dir), [json!([]), json!([]), json!([])]);
    assert_eq!(dir.layerstore(["images"]).stdout(), "IMAGE  CREATED  SIZE  NAMES\n");
    assert_eq!(dir.layerstore(["images", "-n"]).stdout(), "");
    assert_eq!(dir.layerstore(["layers", "--tree"]).stdout(), "");
    dir.layerstore(["du"]).assert_success();
}

#[test]
fn tables_show_short_ids_and_names() {
    let dir = Dir::new("tables");
    let written = load_base(&dir);
    let id = written.config_digest.trim_start_matches("sha256:");
    let images = dir.layerstore(["images"]).stdout();
    let row: Vec<_> = images.lines().nth(1).unwrap().split("  ").filter(|cell| !cell.is_empty()).collect();
    assert_eq!(row[0], &id[..12]);
    assert_eq!(row.last(), Some(&"base"));
    assert!(dir.layerstore(["images", "--no-trunc"]).stdout().contains(id));
    assert_eq!(dir.layerstore(["images", "-q"]).stdout(), format!("{}\n", &id[..12]));
    assert_eq!(dir.layerstore(["images", "-q", "--no-trunc"]).stdout(), format!("{id}\n"));
}

#[test]
fn layers_are_drawn_below_their_parents() {
    let dir = Dir::new("tree");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let ascii = dir.layerstore(["layers", "--tree"]).stdout();
    let lines: Vec<_> = ascii.lines().collect();
    assert_eq!(lines.len(), 3, "{ascii}");
    assert!(!lines[0].starts_with([' ', '`']), "{ascii}");
    assert!(lines[1].starts_with("`- ") && lines[1].ends_with("image base"), "{ascii}");
    assert!(lines[2].starts_with("   `- ") && lines[2].ends_with("container web"), "{ascii}");
    assert!(lines.iter().all(|line| line.trim_end() == *line), "blanks at the end of lines:\n{ascii}");
    let unicode = dir.layerstore(["layers", "--tree"]).env("LC_ALL", "C.UTF-8").stdout();
    assert!(unicode.contains("\u{2514}\u{2500} "), "{unicode}");
}

#[test]
fn json_has_whole_ids_bytes_and_times() {
    let dir = Dir::new("json");
    let written = load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let [layers, images, containers] = lists(&dir);
    assert_eq!(images[0]["created"], "2026-01-02T03:04:05Z");
    assert_eq!(images[0]["digests"], json!([written.manifest_digest]));
    let sum: u64 = layers.as_array().unwrap().iter().filter_map(|layer| layer["size"].as_u64()).sum();
    assert_eq!(images[0]["size"], sum);
    let diff_ids: Vec<_> =
        layers.as_array().unwrap().iter().filter_map(|one| one["diff_id"].as_str()).collect();
    assert!(written.diff_ids.iter().all(|diff_id| diff_ids.contains(&diff_id.as_str())));
    assert_eq!(containers[0]["image"], images[0]["id"]);
    let own = layers.as_array().unwrap().iter().find(|layer| layer["id"] == containers[0]["layer"]).unwrap();
    assert_eq!((&own["writable"], &own["size"]), (&json!(true), &json!(null)));
    assert_eq!(own["parent"], images[0]["top_layer"]);
}

#[test]
fn sizes_are_told_for_things_and_in_sum() {
    let dir = Dir::new("du");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    let du = dir.layerstore(["du", "--json"]).json();
    assert_eq!(du["summary"]["images"], 1);
    assert_eq!(du["images"][0]["total"], du["summary"]["layer_bytes"]);
    assert_eq!(du["containers"][0]["names"], json!(["web"]));
    let one = dir.layerstore(["du", "base", "--json"]).json();
    assert_eq!(one[0], du["images"][0]);
    let text = dir.layerstore(["du"]).stdout();
    for word in ["sealed layers", "kept blobs", "database", "IMAGE", "CONTAINER", "UNIQUE"] {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
}

#[test]
fn status_says_where_the_store_is() {
    let dir = Dir::new("status");
    load_base(&dir);
    let status = dir.layerstore(["status", "--json"]).json();
    assert_eq!(status["root"], dir.root().to_str().unwrap());
    assert_eq!(status["run_root"], dir.run_root().to_str().unwrap());
    assert_eq!((&status["layers"], &status["images"]), (&json!(2), &json!(1)));
    let text = dir.layerstore(["status"]).stdout();
    assert!(text.contains(status["uuid"].as_str().unwrap()), "{text}");
}

#[test]
fn things_are_shown_whole() {
    let dir = Dir::new("inspect");
    let written = load_base(&dir);
    let image = &dir.layerstore(["inspect", "base"]).json()[0];
    assert_eq!(image["kind"], "image");
    assert_eq!(image["config"]["config"]["Cmd"], json!(["/bin/sh"]));
    assert_eq!(image["manifest"]["config"]["digest"], written.config_digest.as_str());
    let found: Vec<_> = image["layers"].as_array().unwrap().iter().map(|one| &one["diff_id"]).collect();
    assert_eq!(found, [&written.diff_ids[1], &written.diff_ids[0]], "the topmost comes first");
    let layer = &dir.layerstore(["inspect", &written.diff_ids[0]]).json()[0];
    assert_eq!(layer["kind"], "layer");
    assert_eq!(layer["parent"], json!(null));
    let output = dir.layerstore(["inspect", "base", "nope"]).output();
    assert_eq!(output.status.code(), Some(1));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown.as_array().unwrap().len(), 1, "what was found is shown");
}
