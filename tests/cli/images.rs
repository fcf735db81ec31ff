//! Images: load, commit, save, names, rmi.

use std::time::Duration;

use serde_json::json;

use super::{TAG, can_mount, entries, image, lists, load_base, mount};
use crate::support::Dir;
use crate::support::oci::{ReadImage, blob_path};
use crate::support::store::open;

#[test]
fn loaded_image_is_saved_as_it_came() {
    let dir = Dir::new("save");
    let written = image().write(dir.join("base.oci"), TAG);
    let id = dir.layerstore(["load", &written.reference()]).stdout();
    assert_eq!(format!("sha256:{}", id.trim()), written.config_digest);
    let manifest = dir.layerstore(["save", id.trim(), "oci:out:x"]).stdout();
    assert_eq!(manifest.trim(), written.manifest_digest);
    let saved = ReadImage::open(dir.join("out"), "x");
    assert_eq!(saved.manifest_digest, written.manifest_digest);
    assert_eq!(saved.measured_diff_ids(), written.diff_ids);
}

#[test]
fn saved_image_can_be_compressed_otherwise() {
    let dir = Dir::new("compression");
    let written = load_base(&dir);
    for (compression, suffix) in [("none", ".tar"), ("zstd", "+zstd"), ("gzip", "+gzip")] {
        let target = format!("oci:{compression}:x");
        let saved = dir.layerstore(["save", "base", &target, "--compression", compression, "--json"]).json();
        let image = ReadImage::open(dir.join(compression), "x");
        assert_eq!(saved["manifest"], image.manifest_digest.as_str());
        assert_eq!(saved["unchanged"], json!(compression == "gzip"));
        assert!(image.manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with(suffix));
        assert_eq!(image.measured_diff_ids(), written.diff_ids);
    }
}

#[test]
fn archives_bring_the_same_image() {
    let dir = Dir::new("archives");
    let written = load_base(&dir);
    let other = Dir::new("archives-other");
    for (reference, name) in [("oci-archive:a.tar:x", "one"), ("docker-archive:b.tar:example.org/x:1", "two")]
    {
        let (transport, rest) = reference.split_once(':').unwrap();
        let file = rest.split(':').next().unwrap();
        dir.layerstore(["save", "base", reference]).assert_success();
        let source = format!("{transport}:{}", dir.join(file).display());
        let id = other.layerstore(["load", &source, "--name", name]).stdout();
        assert_eq!(format!("sha256:{}", id.trim()), written.config_digest);
    }
    assert_eq!(lists(&other)[1].as_array().unwrap().len(), 1);
}

#[test]
fn an_archive_that_is_there_is_replaced_on_request() {
    let dir = Dir::new("archive-there");
    load_base(&dir);
    let (archive, short) = (dir.join("a.tar"), "docker-archive:a.tar");
    dir.layerstore(["save", "base", short]).assert_success();
    let before = std::fs::read(&archive).unwrap();
    let refused = dir.layerstore(["save", "base", "oci-archive:a.tar:1"]).assert_exit(1);
    assert!(refused.contains("a.tar exists") && refused.contains("`layerstore save --force`"), "{refused}");
    assert!(std::fs::read(&archive).unwrap() == before);
    // Names in docker archives are in full.
    dir.layerstore(["load", short]).assert_success();
    assert!(dir.layerstore(["images"]).stdout().contains("docker.io/library/base:latest"));
    dir.layerstore(["save", "base", "oci-archive:a.tar:1", "--force"]).assert_success();
    assert!(std::fs::read(&archive).unwrap() != before);
    dir.layerstore(["load", "oci-archive:a.tar:1", "--name", "again"]).assert_success();
    // A layout has room for both.
    for _ in 0..2 {
        dir.layerstore(["save", "base", "oci:out:1"]).assert_success();
    }
}

/// As root the archive took the place of the link, which may be that in `/dev`.
#[test]
fn an_archive_goes_to_standard_output() {
    let dir = Dir::new("archive-stdout");
    load_base(&dir);
    dir.layerstore(["save", "base", "docker-archive:a.tar"]).assert_success();
    let archive = std::fs::read(dir.join("a.tar")).unwrap();
    let link = dir.join("stdout");
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).unwrap();
    for json in [&[][..], &["--json"]] {
        let to_pipe = [&["save", "base", "docker-archive:stdout"][..], json].concat();
        assert!(dir.layerstore(to_pipe).stdout_bytes() == archive);
    }
    let run = |script: &str, to: &str| {
        dir.within_shell(script, ["save", "base", to]).assert_success();
        std::fs::read(dir.join("out")).unwrap()
    };
    let with_rest = [archive.as_slice(), b"rest\n"].concat();
    let between = [b"first\n", with_rest.as_slice()].concat();
    for to in ["docker-archive:stdout", "docker-archive:/proc/self/fd/1"] {
        assert!(run(r#"{ "$@"; echo rest; } > out"#, to) == with_rest);
        assert!(run(r#"{ echo first; "$@"; echo rest; } > out"#, to) == between);
        assert!(run(r#"echo first > out; "$@" >> out; echo rest >> out"#, to) == between);
    }
    assert!(run(r#""$@" 3> out"#, "docker-archive:/proc/self/fd/3") == archive);
    assert!(link.is_symlink());
}

#[test]
fn committed_container_is_an_image() {
    let dir = Dir::new("commit");
    let written = load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    if can_mount() {
        let merged = mount(&dir, "web");
        std::fs::write(merged.join("etc/new"), "new").unwrap();
    }
    let command = ["commit", "web", "--name", "NEW", "-a", "Ada", "-m", "why", "--created", "@1000000000"];
    let id = dir.layerstore(command).stdout();
    dir.layerstore(["save", "NEW", "oci:out:x"]).assert_success();
    let saved = ReadImage::open(dir.join("out"), "x");
    assert_eq!(saved.manifest["config"]["digest"], format!("sha256:{}", id.trim()));
    assert_eq!(saved.diff_ids()[..2], written.diff_ids);
    assert_eq!(saved.diff_ids(), saved.measured_diff_ids());
    assert_eq!(saved.config["created"], "2001-09-09T01:46:40Z");
    let history = saved.config["history"].as_array().unwrap().last().unwrap();
    assert_eq!((&history["author"], &history["comment"]), (&json!("Ada"), &json!("why")));
    if can_mount() {
        assert_eq!(dir.layerstore(["changes", "NEW"]).stdout(), "C /etc\nA /etc/new\n");
        dir.layerstore(["unmount", "web"]).assert_success();
    }
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn image_with_two_names_loses_one_then_goes() {
    let dir = Dir::new("rmi");
    let written = load_base(&dir);
    dir.layerstore(["names", "base", "--add", "other"]).assert_success();
    assert_eq!(dir.layerstore(["names", "base"]).stdout(), "base\nother\n");
    assert_eq!(dir.layerstore(["rmi", "base"]).stdout(), "untagged: base\n");
    assert_eq!(lists(&dir)[1][0]["names"], json!(["other"]));
    let id = written.config_digest.trim_start_matches("sha256:").to_owned();
    assert_eq!(dir.layerstore(["rmi", "other"]).stdout(), format!("removed: {id}\n"));
    assert_eq!(lists(&dir), [json!([]), json!([]), json!([])]);
    assert_eq!((entries(&dir, "diffs"), entries(&dir, "blobs")), (0, 0));
}

#[test]
fn image_goes_with_its_containers_if_forced() {
    let dir = Dir::new("rmi-force");
    load_base(&dir);
    let web = dir.layerstore(["create-container", "base", "--name", "web"]).stdout();
    dir.layerstore(["create-container", "--name", "other"]).assert_success();
    if can_mount() {
        mount(&dir, "web");
    }
    dir.layerstore(["rmi", "base"]).assert_exit(1);
    if can_mount() {
        mount(&dir, "base");
        let error = dir.layerstore(["rmi", "--force", "base"]).assert_exit(1);
        assert!(error.contains("the image") && error.contains("is mounted"), "{error}");
        dir.layerstore(["unmount", "base"]).assert_success();
    }
    {
        let store = open(&dir);
        let (lease, image) = ("kept".parse().unwrap(), store.image("base").unwrap());
        store.lease(&lease, &image, Duration::from_secs(3600)).unwrap();
        let error = dir.layerstore(["rmi", "--force", "base"]).assert_exit(1);
        assert!(error.contains("is kept by the lease kept"), "{error}");
        store.end_lease(&lease).unwrap();
    }
    assert_eq!(lists(&dir)[2].as_array().unwrap().len(), 2, "none goes in vain");
    let removed = dir.layerstore(["rmi", "--force", "base", "--json"]).json();
    assert_eq!([&removed[0]["kind"], &removed[0]["id"]], ["container", web.trim()]);
    assert_eq!(removed[1]["layers"].as_array().unwrap().len(), 2);
    let [_, images, containers] = lists(&dir);
    assert_eq!(images, json!([]));
    assert_eq!(containers[0]["names"], json!(["other"]));
    assert_eq!(dir.mounts(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn names_are_set_moved_and_taken_away() {
    let dir = Dir::new("names");
    load_base(&dir);
    let second = image().config(|config| config["author"] = json!("x")).write(dir.join("second.oci"), "2");
    dir.layerstore(["load", &second.reference(), "--name", "second"]).assert_success();
    dir.layerstore(["names", "second", "--add", "base"]).assert_exit(1);
    let error = dir.layerstore(["names", "second", "--add", "third", "--remove", "nope"]).assert_exit(1);
    assert!(error.contains("\"second\" does not have the name \"nope\""), "{error}");
    dir.layerstore(["names", "second", "--add", "base", "--move", "--remove", "second"]).assert_success();
    assert_eq!(dir.layerstore(["names", "base", "--json"]).json(), json!(["base"]));
    let found = &dir.layerstore(["inspect", "base"]).json()[0];
    assert_eq!(found["config"]["author"], "x");
    assert_eq!(found["manifest"]["schemaVersion"], 2);
    dir.layerstore(["names", "base", "--set", "a", "--set", "b"]).assert_success();
    assert_eq!(dir.layerstore(["names", "a"]).stdout(), "a\nb\n");
}

#[test]
fn blobs_can_be_dropped_and_made_anew() {
    let dir = Dir::new("prune");
    let written = load_base(&dir);
    assert!(dir.layerstore(["status", "--json"]).json()["kept_blob_bytes"].as_u64().unwrap() > 0);
    assert!(dir.layerstore(["prune", "--blobs", "--json"]).json()["bytes"].as_u64().unwrap() > 0);
    assert_eq!(dir.layerstore(["status", "--json"]).json()["kept_blob_bytes"], 0);
    assert_eq!(entries(&dir, "blobs"), 0);
    let saved = dir.layerstore(["save", "base", "oci:out:x"]).output();
    let told =
        "note: the manifest is not the one that was loaded: the store has no blobs as they came of 2 layers";
    let stderr = String::from_utf8(saved.stderr).unwrap();
    assert!(saved.status.success() && stderr.contains(told), "{stderr}");
    let asked = dir.layerstore(["save", "base", "oci:asked:x", "--compression", "zstd"]).output();
    assert!(asked.stderr.is_empty(), "what was asked for is no news: {asked:?}");
    assert_eq!(ReadImage::open(dir.join("out"), "x").measured_diff_ids(), written.diff_ids);
    let second = Dir::new("prune-never");
    second.layerstore(["load", &written.reference(), "--no-keep-blobs"]).assert_success();
    assert_eq!(second.layerstore(["status", "--json"]).json()["kept_blob_bytes"], 0);
}

/// What a stranger calls an image does not change what the image was loaded as.
#[test]
fn every_manifest_of_an_image_stays_what_it_was() {
    let dir = Dir::new("manifests");
    let good = image().write(dir.join("good.oci"), TAG);
    let annotate = |manifest: &mut serde_json::Value| manifest["annotations"] = json!({ "by": "a stranger" });
    let other = image().manifest(annotate).write(dir.join("other.oci"), TAG);
    assert_eq!(good.config_digest, other.config_digest);
    let id = dir.layerstore(["load", &good.reference(), "--name", "good:1"]).stdout();
    dir.layerstore(["load", &other.reference(), "--name", "other:1"]).assert_success();
    let saves = |key: &str, expected: &str| {
        let saved = dir.layerstore(["--json", "save", key, "oci:out:x"]).json();
        assert_eq!(saved, json!({ "manifest": expected, "unchanged": true, "compressed_anew": 0 }), "{key}");
        assert_eq!(ReadImage::open(dir.join("out"), "x").manifest_digest, expected);
    };
    for key in ["good:1", id.trim(), &good.manifest_digest, &good.config_digest] {
        saves(key, &good.manifest_digest);
    }
    for key in ["other:1", &other.manifest_digest] {
        saves(key, &other.manifest_digest);
        let shown = dir.layerstore(["inspect", key]).json();
        assert_eq!(shown[0]["manifest"]["annotations"]["by"], "a stranger");
    }
    // A name means the manifest that it was loaded with last.
    dir.layerstore(["load", &good.reference(), "--name", "other:1"]).assert_success();
    saves("other:1", &good.manifest_digest);
    dir.layerstore(["load", &other.reference(), "--name", "good:1"]).assert_success();
    saves("good:1", &other.manifest_digest);
    saves(id.trim(), &good.manifest_digest);
    dir.layerstore(["check", "--deep"]).assert_success();
}

/// A descriptor that lies about a layer is refused whether the layer is there or not, and what is there stays good.
#[test]
fn descriptors_of_known_layers_are_compared() {
    let dir = Dir::new("descriptors");
    let good = image().write(dir.join("good.oci"), TAG);
    dir.layerstore(["load", &good.reference(), "--name", "good:1"]).assert_success();
    fn size(manifest: &mut serde_json::Value) {
        manifest["layers"][0]["size"] = json!(10);
    }
    fn blob_of_another(manifest: &mut serde_json::Value) {
        manifest["layers"][0] = manifest["layers"][1].clone();
    }
    fn no_blob(manifest: &mut serde_json::Value) {
        manifest["layers"][0]["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    }
    for (change, name, expected) in [
        (size as fn(&mut serde_json::Value), "size", "but its descriptor says 10"),
        (blob_of_another, "another", "diffID"),
        (no_blob, "none", "does not hold the blob"),
    ] {
        let bad = image().manifest(change).write(dir.join(name), TAG);
        let (fresh, reference) = (Dir::new("fresh"), bad.reference());
        let load = ["load", &reference, "--name", "bad:1"];
        let unkept = ["--no-keep-blobs", "load", &reference, "--name", "bad:1"];
        for refusal in [fresh.layerstore(load), dir.layerstore(load), dir.layerstore(unkept)] {
            let error = { refusal }.assert_failure();
            assert!(error.contains(expected), "{name}: {error}");
        }
        assert_eq!(lists(&dir)[1][0]["names"], json!(["good:1"]));
        let saved = dir.layerstore(["save", "good:1", &format!("oci:out-{name}:x")]).stdout();
        assert_eq!(saved.trim(), good.manifest_digest);
    }
    // What is known is not read again.
    let layer = ReadImage::open(dir.join("good.oci"), TAG).manifest["layers"][0]["digest"].clone();
    std::fs::remove_file(blob_path(&dir.join("good.oci"), layer.as_str().unwrap())).unwrap();
    dir.layerstore(["load", &good.reference(), "--name", "again:1"]).assert_success();
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn lazy_removal_leaves_the_files_to_who_comes_next() {
    let dir = Dir::new("lazy");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    dir.layerstore(["create-layer", "--name", "own"]).assert_success();
    let left = || entries(&dir, "trash");
    dir.layerstore(["rm", "--lazy", "web"]).assert_success();
    dir.layerstore(["rm", "--lazy", "--layer", "own"]).assert_success();
    assert_eq!((&lists(&dir)[2], left()), (&json!([]), 1), "each removes what the last one left");
    dir.layerstore(["rmi", "--lazy", "base"]).assert_success();
    assert_eq!(lists(&dir)[1], json!([]));
    assert!(left() > 0, "nothing is deleted yet");
    let removed = dir.layerstore(["gc", "--json"]).json();
    assert!(!removed["removed"].as_array().unwrap().is_empty(), "{removed}");
    assert_eq!((left(), entries(&dir, "locks")), (0, 0));
}
