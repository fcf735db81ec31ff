//! Lists and sums: images, layers, containers, du, status, inspect.

use layerstore::snapshotter::{CommitOptions, Snapshotter, SnapshotterOptions};
use layerstore::{Name, Store, StoreOptions, SyncMode};
use serde_json::json;

use super::{lists, load_base};
use crate::support::Dir;
use crate::support::tar::{Member, archive};

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

/// As many and as long as a docker archive may give an image.
#[test]
fn an_image_with_a_thousand_long_names_is_listed() {
    let dir = Dir::new("names");
    load_base(&dir);
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let store = Store::open(&options).unwrap();
    let names: Vec<Name> = (0..1024).map(|number| format!("{number:0>200}").parse().unwrap()).collect();
    store.add_names(store.images().unwrap()[0].id.clone(), &names).unwrap();
    for command in ["images", "layers", "du", "status"] {
        dir.layerstore([command]).assert_success();
    }
    let images = dir.layerstore(["images"]).stdout();
    assert!(images.contains(names[1023].as_str()) && images.len() < 300_000, "{}", images.len());
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
fn json_has_one_form_whatever_is_in_it() {
    let dir = Dir::new("form");
    load_base(&dir);
    let odd = [
        "--name",
        "a \"b\" \\",
        "--name",
        "\u{fc}",
        "--metadata",
        "1\t\u{1}",
        "--label",
        "k=\"v\"",
        "--label",
        "l=",
    ];
    let flags = ["--flag", "f={\"x\":[1,2.5,{\"y\":null}],\"z\":[]}", "--uidmap", "0:10000:2000"];
    let create = ["create-container", "base", "--id", "odd"].into_iter().chain(odd).chain(flags);
    dir.layerstore(create).assert_success();
    dir.layerstore(["create-container", "base"]).assert_success();
    for command in
        [&["containers", "--json"][..], &["images", "--json"], &["layers", "--json"], &["inspect", "odd"]]
    {
        let text = dir.layerstore(command).stdout();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text, serde_json::to_string_pretty(&value).unwrap() + "\n", "{command:?}");
    }
    let listed = dir.layerstore(["containers", "--json"]).json();
    let listed = listed.as_array().unwrap().iter().find(|one| one["id"] == "odd").unwrap();
    assert_eq!(listed["names"], json!(["a \"b\" \\", "\u{fc}"]));
    assert_eq!(listed["metadata"], "1\t\u{1}");
    assert_eq!(listed["labels"], json!({ "k": "\"v\"", "l": "" }));
    assert_eq!(listed["flags"], json!({ "f": { "x": [1, 2.5, { "y": null }], "z": [] } }));
    assert_eq!((&listed["uid_map"], &listed["mount"]), (&json!(["0:10000:2000"]), &json!(null)));
}

/// A file with two names is two paths, and one inode.
#[test]
fn what_is_counted_is_called_what_it_is() {
    let dir = Dir::new("counts");
    let members = [Member::file("one", "1"), Member::hard_link("two", "one"), Member::directory("etc")];
    dir.write("a.tar", archive(&members));
    dir.layerstore(["put-layer", "--file", "a.tar", "--name", "base"]).assert_success();
    dir.layerstore(["create-image", "base", "--name", "image"]).assert_success();
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let status = dir.layerstore(["status"]).stdout();
    assert!(status.lines().any(|line| row(line) == ["layer", "inodes", "3"]), "{status}");
    let du = dir.layerstore(["du"]).stdout();
    let heading = du.lines().position(|line| line.starts_with("IMAGE")).unwrap();
    let shown: Vec<_> = du.lines().skip(heading).map(row).collect();
    let column = shown[0].iter().position(|heading| heading == "INODES").unwrap();
    // Sizes have a unit of their own.
    assert_eq!(shown[1][column + 2], "3", "{du}");
    assert!(
        dir.layerstore(["check"])
            .stdout()
            .contains("checked 5 records, 1 layer directory, 4 paths: nothing found")
    );
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
fn status_says_what_is_set_and_what_does_not_work() {
    let dir = Dir::new("status-settings");
    load_base(&dir);
    let config = dir.join("storage.conf");
    let text = "[storage]\ndriver = 'overlay'\n[storage.options.overlay]\nmountopt = 'nodev'\nsize = '10G'\nuse_composefs = 'true'\n";
    std::fs::write(&config, text).unwrap();
    let status = |words: &[&str]| dir.layerstore(words).env("LAYERSTORE_CONFIG", &config);
    let shown = status(&["status"]).stdout();
    let row = |name: &str| -> Vec<&str> {
        shown.lines().skip_while(|line| !line.starts_with(name)).take(2).collect()
    };
    let words = |name: &str| row(name)[0].split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let from = format!("{}:", config.display());
    assert!(words("mount_options")[1] == "nodev" && words("mount_options")[2].starts_with(&from), "{shown}");
    assert!(words("size")[1..3] == ["10.7", "GB"] && words("size")[3].starts_with(&from), "{shown}");
    assert_eq!(words("use_composefs")[1], "yes");
    assert_eq!(words("inodes")[1..], ["no", "limit", "default"]);
    assert_eq!(words("mount_program"), ["mount_program", "-", "default"]);
    assert!(
        shown
            .lines()
            .skip_while(|line| !line.starts_with("CAPABILITY"))
            .all(|line| line.len() <= 80 || line.contains('/')),
        "{shown}"
    );
    let json = status(&["status", "--json"]).json();
    assert_eq!(
        (&json["settings"]["size"]["value"], &json["settings"]["force_mask"]["value"]),
        (&json!(10_u64 << 30), &json!(null))
    );
    // A program is tried, and not only named.
    let other = dir.layerstore(["status", "--mount-program", "/bin/false"]).stdout();
    assert!(other.lines().any(|line| line.split_whitespace().eq([
        "mount_program",
        "/bin/false",
        "--mount-program"
    ])));
    let tried =
        |line: &str| line.split_whitespace().eq("mount program no: /bin/false: exit status: 1".split(' '));
    assert!(other.lines().any(tried), "{other}");
}

#[test]
fn snapshots_are_counted_and_measured() {
    let dir = Dir::new("of-containerd");
    let options = StoreOptions::at(dir.root()).run_root(dir.run_root()).sync(SyncMode::Off).reserve(0);
    let snapshots = Snapshotter::new(Store::open(&options).unwrap(), SnapshotterOptions::default()).unwrap();
    let none = dir.layerstore(["status"]).stdout() + &dir.layerstore(["du"]).stdout();
    assert!(!none.contains("snapshot"), "{none}");
    let active = snapshots.prepare("k8s.io/1/extract", None, &Default::default()).unwrap();
    std::fs::write(std::path::Path::new(&active[0].source).join("file"), [1; 20_000]).unwrap();
    snapshots.commit("k8s.io/2/base", "k8s.io/1/extract", &CommitOptions::default()).unwrap();
    let active = snapshots.prepare("web", Some("k8s.io/2/base"), &Default::default()).unwrap();
    assert_eq!(active[0].kind, "overlay");
    snapshots.view("look", Some("k8s.io/2/base"), &Default::default()).unwrap();

    let status = dir.layerstore(["status"]).stdout();
    let row = status.lines().find(|line| line.starts_with("snapshots")).unwrap();
    assert!(row.ends_with(" 3: 1 committed, 1 active, 1 view"), "{row}");
    let counts = &dir.layerstore(["status", "--json"]).json()["snapshots"];
    assert_eq!(*counts, json!({ "active": 1, "view": 1, "committed": 1 }));
    let du = dir.layerstore(["du"]).stdout();
    for (kind, key) in [("committed", "k8s.io/2/base"), ("active", "web"), ("view", "look")] {
        assert!(du.lines().any(|line| line.starts_with(kind) && line.ends_with(key)), "{du}");
    }
    let rows = du
        .lines()
        .filter(|line| line.trim_start().starts_with("sealed layers") || line.contains("snapshots  "));
    let counts: Vec<_> = rows.map(|line| line.split_whitespace().rev().nth(2).unwrap()).collect();
    assert_eq!(counts, ["2", "1", "1"], "{du}");
    let du = dir.layerstore(["du", "--json"]).json();
    assert_eq!(
        (&du["summary"]["snapshots"], &du["snapshots"][0]["key"]),
        (&json!(3), &json!("k8s.io/2/base"))
    );
    assert!(du["snapshots"][0]["size"].as_u64().unwrap() >= 20_000, "{du}");
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
