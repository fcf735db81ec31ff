//! Layers of their own: create-layer, put-layer, apply, seal, and mounts of them.

use layerstore::{LayerOptions, Store, StoreOptions};
use serde_json::json;

use super::{can_mount, mount, read};
use crate::support::Dir;
use crate::support::tar::{Member, archive, archive_without_end};

fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    archive(&members.iter().map(|(path, content)| Member::file(path, content)).collect::<Vec<_>>())
}

#[test]
fn a_layer_is_made_and_filled() {
    let dir = Dir::new("cli-layers");
    let arguments = [
        "create-layer",
        "--id",
        "base",
        "--name",
        "base:1",
        "--label",
        "a=b",
        "--volatile",
        "--metadata",
        "m",
    ];
    assert_eq!(dir.layerstore(arguments).stdout(), "base\n");
    dir.write("top.tar", tar(&[("a", "a")]));
    let top = dir.layerstore(["put-layer", "base:1", "--file", "top.tar", "--id", "top", "--json"]).json();
    let shown = (&top["parent"], &top["writable"], &top["compression"]);
    assert_eq!(shown, (&json!("base"), &json!(false), &json!("none")));
    assert_eq!(dir.layerstore(["diff", "top"]).stdout_bytes(), tar(&[("a", "a")]));
    let other = format!("sha256:{}", "0".repeat(64));
    dir.layerstore(["put-layer", "--file", "top.tar", "--diff-id", &other]).assert_failure();

    let mut applied = dir.layerstore(["apply", "base", "--change-under-others"]).stdin(tar(&[("b", "b")]));
    assert_eq!(applied.stdout(), "base\n");
    dir.layerstore(["apply", "base", "--file", "top.tar"]).assert_failure();
    assert_eq!(dir.layerstore(["changes", "base"]).stdout(), "A /b\n");
    let base = dir.layerstore(["inspect", "base"]).json();
    assert_eq!((&base[0]["volatile"], &base[0]["labels"]["a"]), (&json!(true), &json!("b")));
    assert_eq!(dir.layerstore(["changes", "top", "--since", "base"]).stdout(), "A /a\n");
    assert_eq!(dir.layerstore(["changes", "base", "--since", "top"]).stdout(), "D /a\n");
    let zstd = dir.layerstore(["diff", "base", "--since", "top", "--compression", "zstd"]).stdout_bytes();
    assert_eq!(&zstd[..4], &[0x28, 0xb5, 0x2f, 0xfd]);

    dir.layerstore(["create-layer", "--template", "top", "--name", "copy"]).assert_success();
    assert_eq!(dir.layerstore(["diff", "copy"]).stdout_bytes(), tar(&[("a", "a")]));
    dir.layerstore(["seal", "--unseal", "copy"]).assert_success();
    let sealed = dir.layerstore(["seal", "copy", "top", "--json"]).json();
    assert_eq!(sealed[0]["tree"], sealed[1]["tree"]);

    let store = Store::open(&StoreOptions::at(dir.root()).run_root(dir.run_root())).unwrap();
    let mut mapped = LayerOptions::named("mapped");
    mapped.uid_map = vec!["0:1000:5".parse().unwrap(), "5:2000:1".parse().unwrap()];
    store.create_layer(None, &mapped).unwrap();
    let shown = &dir.layerstore(["inspect", "mapped"]).json()[0];
    assert_eq!((&shown["uid_map"], &shown["gid_map"]), (&json!(["0:1000:5", "5:2000:1"]), &json!([])));
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn a_sealed_layer_is_changed_only_where_that_is_said() {
    let dir = Dir::new("cli-sealed-apply");
    let put = ["put-layer", "--id", "put"];
    dir.layerstore(put).stdin(tar(&[("a", "a")])).assert_success();
    dir.layerstore(["create-layer", "--id", "made"]).assert_success();
    dir.layerstore(["seal", "made"]).assert_success();
    dir.write("more.tar", tar(&[("b", "b")]));
    for layer in ["put", "made"] {
        let before = dir.layerstore(["inspect", layer]).json();
        let error = dir.layerstore(["apply", layer, "--file", "more.tar"]).assert_exit(1);
        assert!(error.contains("is sealed") && error.contains("apply --unseal"), "{error}");
        assert_eq!(dir.layerstore(["inspect", layer]).json(), before);
        dir.layerstore(["apply", layer, "--file", "more.tar", "--unseal"]).assert_success();
    }
    assert_eq!(dir.layerstore(["changes", "put"]).stdout(), "A /a\nA /b\n");
    assert_eq!(dir.layerstore(["changes", "made"]).stdout(), "A /b\n");
}

/// Where the layer of an image was never a tar, the hints lead to an image that can be saved.
#[test]
fn hints_lead_from_an_own_layer_to_a_saved_image() {
    let dir = Dir::new("cli-own-images");
    dir.layerstore(["create-layer", "--name", "own"]).assert_success();
    dir.layerstore(["seal", "own"]).assert_success();
    dir.layerstore(["create-image", "own", "--name", "first"]).assert_success();
    let error = dir.layerstore(["save", "first", "oci:out:1"]).assert_exit(1);
    assert!(error.contains("layerstore commit"), "{error}");
    dir.layerstore(["create-container", "first", "--name", "web"]).assert_success();
    let error = dir.layerstore(["commit", "web"]).assert_exit(1);
    assert!(error.contains("layerstore diff LAYER | layerstore put-layer"), "{error}");
    let bytes = dir.layerstore(["diff", "own"]).stdout_bytes();
    dir.layerstore(["put-layer", "--name", "put"]).stdin(bytes).assert_success();
    dir.layerstore(["create-image", "put", "--name", "second"]).assert_success();
    dir.layerstore(["create-container", "second", "--name", "again"]).assert_success();
    dir.layerstore(["commit", "again", "--name", "third"]).assert_success();
    dir.layerstore(["save", "third", "oci:out:1"]).assert_success();
    dir.layerstore(["save", "third", "oci:out:2", "--compression", "zstd:chunked"]).assert_success();
}

#[test]
fn who_needs_a_layer_is_named() {
    let dir = Dir::new("cli-needed-layers");
    dir.layerstore(["put-layer", "--name", "base"]).stdin(tar(&[("a", "a")])).assert_success();
    dir.layerstore(["create-image", "base", "--name", "image"]).assert_success();
    let id = dir.layerstore(["create-container", "image", "--name", "web"]).stdout();
    let named = format!("the container web ({})", id.trim());
    let error = dir.layerstore(["rm", "--layer", "base"]).assert_exit(1);
    assert!(error.contains(&named) && error.contains("is below"), "{error}");
    let layer = dir.layerstore(["inspect", "web"]).json()[0]["layer"].as_str().unwrap().to_owned();
    let error = dir.layerstore(["rm", "--layer", &layer]).assert_exit(1);
    assert!(error.contains(&named) && error.contains("belongs to"), "{error}");
}

/// As in `layerstore diff typo | layerstore put-layer`.
#[test]
fn a_pipe_whose_left_side_failed_makes_no_layer() {
    let dir = Dir::new("cli-empty-pipes");
    dir.layerstore(["create-layer", "--name", "base"]).assert_success();
    for arguments in [&["put-layer", "--name", "x"][..], &["apply", "base"]] {
        let error = dir.layerstore(arguments).assert_exit(1);
        assert!(error.contains("the archive is empty: it has no bytes"), "{error}");
    }
    assert_eq!(dir.layerstore(["layers", "-q"]).stdout().lines().count(), 1);
}

#[test]
fn a_layer_is_made_read_only() {
    let dir = Dir::new("cli-read-only-layers");
    assert_eq!(dir.layerstore(["create-layer", "--read-only", "--id", "made"]).stdout(), "made\n");
    let put = ["put-layer", "made", "--read-only", "--id", "put"];
    assert_eq!(dir.layerstore(put).stdin(tar(&[("a", "a")])).stdout(), "put\n");
    for layer in ["made", "put"] {
        assert_eq!(dir.layerstore(["inspect", layer]).json()[0]["read_only"], json!(true), "{layer}");
        let refused = dir.layerstore(["seal", "--unseal", layer]).assert_exit(1);
        assert!(refused.contains("is read-only"), "{refused}");
    }
}

#[test]
fn a_mount_is_made_read_only() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("cli-read-only-mounts");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    for flag in ["--read-only", "-r"] {
        let path = dir.layerstore(["mount", "web", flag]).stdout_path();
        let refused = std::fs::write(path.join("a"), "a").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(dir.layerstore(["mount", "--json"]).json()[0]["mount"]["read_only"], json!(true));
        dir.layerstore(["unmount", "web"]).assert_success();
    }
}

#[test]
fn a_layer_is_mounted_for_writing() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("cli-layer-mounts");
    dir.write("base.tar", tar(&[("a", "a")]));
    dir.layerstore(["put-layer", "--file", "base.tar", "--name", "base"]).assert_success();
    dir.layerstore(["create-layer", "base", "--name", "next"]).assert_success();
    let next = mount(&dir, "next");
    std::fs::write(next.join("b"), "b").unwrap();
    assert_eq!(read(next.join("a")), "a");
    dir.layerstore(["unmount", "next"]).assert_success();
    assert_eq!(dir.layerstore(["changes", "next"]).stdout(), "A /b\n");
    let refused = dir.layerstore(["mount", "base", "--unseal"]).assert_failure();
    assert!(refused.contains("has a layer above it"), "{refused}");
    let base = dir.layerstore(["mount", "base", "--unseal", "--change-under-others"]).stdout();
    std::fs::write(std::path::Path::new(base.trim_end()).join("c"), "c").unwrap();
    dir.layerstore(["unmount", "base"]).assert_success();
    dir.layerstore(["seal", "base", "next"]).assert_success();
    assert_eq!(dir.layerstore(["changes", "base"]).stdout(), "A /a\nA /c\n");
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn layers_are_removed_from_the_top() {
    let dir = Dir::new("cli-layer-rm");
    for arguments in
        [&["--id", "base"][..], &["base", "--id", "next"], &["next", "--id", "top", "--name", "t:1"]]
    {
        dir.layerstore([&["create-layer"], arguments].concat()).assert_success();
    }
    dir.layerstore(["create-image", "top", "--name", "image"]).assert_success();
    let error = dir.layerstore(["rm", "--layer", "next"]).assert_exit(1);
    assert!(error.contains("the layer next has a layer above it: top; remove that first"), "{error}");
    let error = dir.layerstore(["rm", "--layer", "base", "top", "next"]).assert_exit(1);
    assert!(error.contains("the layer top belongs to the image"), "{error}");
    assert!(error.contains("error: 3 of 3 failed"), "{error}");
    for (command, key, text, hint) in [
        ("rm", "t:1", "\"t:1\" is a layer, and no container", "`layerstore rm --layer` removes layers"),
        ("rmi", "base", "\"base\" is a layer, and no image", "`layerstore rm --layer` removes layers"),
        ("rm", "image", "\"image\" is an image, and no container", "`layerstore rmi` removes images"),
    ] {
        let error = dir.layerstore([command, key]).assert_exit(1);
        assert!(error.contains(text) && error.contains(hint), "{error}");
        dir.layerstore([command, key, "--ignore"]).assert_success();
    }
    let error = dir.layerstore(["rmi", "ba"]).assert_exit(1);
    assert!(error.contains("\"ba\" is no image, but how the id of a layer begins"), "{error}");
    // A layer with a name stays with those below it.
    dir.layerstore(["rmi", "image"]).assert_success();
    let removed = dir.layerstore(["rm", "--layer", "base", "t:1", "next", "--json"]).json();
    let layer = |id: &str| json!({ "kind": "layer", "id": id, "left": [] });
    assert_eq!(removed, json!([layer("top"), layer("next"), layer("base")]));
    assert_eq!(dir.layerstore(["layers", "-q"]).stdout(), "");
    dir.layerstore(["check", "--deep"]).assert_success();
}

#[test]
fn a_mount_costs_a_sealed_layer_nothing() {
    if !can_mount() {
        skip!("mounting needs root or a user namespace");
    }
    let dir = Dir::new("cli-layer-ro");
    dir.write("base.tar", tar(&[("a", "a")]));
    dir.layerstore(["put-layer", "--file", "base.tar", "--name", "base"]).assert_success();
    let record = dir.layerstore(["inspect", "base"]).json();
    let at = mount(&dir, "base");
    assert_eq!(read(at.join("a")), "a");
    assert!(std::fs::write(at.join("a"), "b").is_err(), "it is mounted for reading");
    assert_eq!(dir.layerstore(["inspect", "base"]).json(), record);
    let error = dir.layerstore(["rm", "--layer", "base"]).assert_exit(1);
    assert!(error.contains("is mounted at") && error.contains("unmount it first"), "{error}");
    dir.layerstore(["rm", "--layer", "--force", "base"]).assert_success();
    assert!(dir.mounts().is_empty());
}

/// As GNU tar has it. Where the end was cut off between two members, it looks the same.
#[test]
fn an_archive_without_end_blocks_comes_in_with_a_warning() {
    let dir = Dir::new("no-end-blocks");
    let members = [Member::file("one", "1"), Member::file("two", "2")];
    for (file, bytes, is_told) in
        [("whole.tar", archive(&members), false), ("endless.tar", archive_without_end(&members), true)]
    {
        dir.write(file, bytes);
        let put = dir.layerstore(["put-layer", "--log", "warn", "--file", file]).output();
        let told = String::from_utf8(put.stderr).unwrap();
        assert!(put.status.success(), "{told}");
        assert_eq!(told.contains("the archive has no end blocks"), is_told, "{file}: {told}");
        assert_eq!(told.contains("two"), is_told, "{file}: {told}");
    }
}
