//! Bad input: the message names the thing and the way out, the exit status is 1, and the store is as before.

use std::io::Write;

use serde_json::json;

use super::{entries, image, lists, load_base};
use crate::support::Dir;
use crate::support::oci::{Fault, Image, Layer, blob_path};
use crate::support::tar::{Member, archive};

/// Runs a command that must fail, and finds the store as it was.
#[track_caller]
fn refused(dir: &Dir, arguments: &[&str], message: &[&str]) -> String {
    let before = (lists(dir), entries(dir, "diffs"), entries(dir, "blobs"));
    let error = dir.layerstore(arguments).assert_exit(1);
    assert!(error.starts_with("error: "), "{error}");
    for part in message {
        assert!(error.contains(part), "no {part:?} in\n{error}");
    }
    assert!(!error.contains("Error {") && !error.contains("Some("), "debug output in\n{error}");
    let after = (lists(dir), entries(dir, "diffs"), entries(dir, "blobs"));
    assert_eq!(after, before, "{arguments:?} changed the store");
    dir.layerstore(["check"]).assert_success();
    error
}

/// An image whose second layer, of some size, has this fault.
fn faulty(fault: Fault) -> Image {
    let noise: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let good = Layer::new([Member::file("good", b"good")]);
    Image::new([good, Layer::new([Member::file("noise", noise)]).fault(fault)])
}

/// Loads an image with a faulty layer, and returns the message and the digest that its manifest has for that layer.
fn load_faulty(fault: Fault, message: &[&str]) {
    let dir = Dir::new("fault");
    load_base(&dir);
    let bad = faulty(fault).write(dir.join("bad.oci"), "bad");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(blob_path(&bad.layout, &bad.manifest_digest)).unwrap())
            .unwrap();
    let digest = manifest["layers"][1]["digest"].as_str().unwrap();
    let error = refused(&dir, &["load", &bad.reference()], message);
    assert!(error.contains(digest), "the message names the layer {digest}:\n{error}");
}

#[test]
fn truncated_layer_is_refused() {
    load_faulty(Fault::Truncated, &[]);
}

#[test]
fn layer_with_another_digest_is_refused() {
    load_faulty(Fault::BlobDigest, &[]);
}

#[test]
fn layer_with_another_diff_id_is_refused() {
    load_faulty(Fault::DiffId, &["diffID"]);
}

#[test]
fn layer_of_another_size_is_refused() {
    load_faulty(Fault::Size, &[]);
}

#[test]
fn missing_layer_is_refused() {
    load_faulty(Fault::Missing, &[]);
}

#[test]
fn damaged_layer_is_refused() {
    load_faulty(Fault::Flipped, &[]);
}

#[test]
fn unknown_media_type_is_refused() {
    let dir = Dir::new("media-type");
    load_base(&dir);
    let bad = image()
        .manifest(|manifest| manifest["layers"][0]["mediaType"] = json!("application/x-unknown"))
        .write(dir.join("bad.oci"), "bad");
    refused(&dir, &["load", &bad.reference()], &["application/x-unknown"]);
}

#[test]
fn unknown_tag_is_refused_with_those_there_are() {
    let dir = Dir::new("tag");
    let base = load_base(&dir);
    let reference = format!("oci:{}:2", base.layout.display());
    refused(&dir, &["load", &reference], &["\"2\"", "it has 1", "base.oci"]);
}

#[test]
fn missing_layout_is_refused() {
    let dir = Dir::new("layout");
    load_base(&dir);
    refused(&dir, &["load", "oci:nowhere"], &["nowhere", "No such file"]);
}

#[test]
fn layout_without_an_index_is_refused() {
    let dir = Dir::new("index");
    let base = load_base(&dir);
    std::fs::write(base.layout.join("index.json"), "{").unwrap();
    refused(&dir, &["load", &base.reference()], &["index"]);
}

#[test]
fn name_in_use_is_refused() {
    let dir = Dir::new("name");
    load_base(&dir);
    let holder = dir.layerstore(["create-container", "base", "--name", "web"]).stdout();
    let message = ["\"web\"", holder.trim(), "choose another"];
    refused(&dir, &["create-container", "base", "--name", "web"], &message);
    dir.layerstore(["create-container", "base", "--name", "other"]).assert_success();
    refused(&dir, &["names", "other", "--add", "new", "--add", "web"], &message);
}

#[test]
fn id_in_use_is_refused() {
    let dir = Dir::new("id");
    dir.layerstore(["create-container", "--id", "one"]).assert_success();
    refused(&dir, &["create-container", "--id", "one"], &["the container one exists", "choose another id"]);
}

#[test]
fn unknown_things_are_refused() {
    let dir = Dir::new("unknown");
    load_base(&dir);
    dir.layerstore(["create-container", "base", "--name", "web"]).assert_success();
    for command in [
        &["rm", "nope"][..],
        &["rm", "--layer", "nope"],
        &["rmi", "nope"],
        &["mount", "nope"],
        &["unmount", "nope"],
        &["changes", "nope"],
        &["diff", "nope"],
        &["commit", "nope"],
        &["save", "nope", "oci:out"],
        &["create-container", "nope"],
        &["inspect", "nope"],
        &["du", "nope"],
        &["names", "nope"],
        &["item", "list", "nope"],
    ] {
        refused(&dir, command, &["\"nope\"", "hint: ", "list what is there"]);
    }
    refused(&dir, &["item", "get", "web", "nope"], &["\"nope\"", "container"]);
    refused(&dir, &["item", "rm", "web", "nope"], &["\"nope\"", "container"]);
    assert!(!dir.join("out").exists(), "no layout is made for an image that is not there");
}

#[test]
fn ambiguous_beginning_is_refused() {
    let dir = Dir::new("ambiguous");
    for id in ["abc1", "abc2"] {
        dir.layerstore(["create-container", "--id", id]).assert_success();
    }
    refused(&dir, &["rm", "abc"], &["\"abc\"", "abc1", "abc2", "more digits"]);
    dir.layerstore(["rm", "abc1"]).assert_success();
    dir.layerstore(["rm", "abc"]).assert_success();
}

#[test]
fn thing_in_use_is_refused() {
    let dir = Dir::new("in-use");
    let base = load_base(&dir);
    let web = dir.layerstore(["create-container", "base", "--name", "web"]).stdout();
    refused(&dir, &["rmi", "base"], &[web.trim(), "remove that first"]);
    let layers = dir.layerstore(["layers", "-q", "--no-trunc"]).stdout();
    for layer in layers.lines() {
        refused(&dir, &["rm", "--layer", layer], &[layer, "remove that first"]);
    }
    assert!(base.layout.exists());
}

#[test]
fn store_of_a_newer_format_is_left_alone() {
    let dir = Dir::new("format");
    load_base(&dir);
    let marker = dir.root().join("LAYERSTORE");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.replace("layerstore 1\n", "layerstore 99\n")).unwrap();
    for command in [&["images"][..], &["load", "oci:base.oci"], &["check"], &["gc"]] {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains("99") && error.contains("newer"), "{command:?}: {error}");
    }
    std::fs::write(&marker, text).unwrap();
    dir.layerstore(["check"]).assert_success();
}

#[test]
fn directory_that_is_no_store_is_left_alone() {
    let dir = Dir::new("no-store");
    let file = dir.write("root/precious", "precious");
    for command in [&["images"][..], &["create-container"], &["gc"], &["rm", "web"]] {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains("is no store") && error.contains("hint: check --root"), "{error}");
    }
    assert_eq!(std::fs::read_dir(dir.root()).unwrap().count(), 1);
    assert_eq!(std::fs::read(file).unwrap(), b"precious");
}

#[test]
fn missing_store_is_not_made_by_commands_that_need_one() {
    let dir = Dir::new("missing");
    for command in [&["check"][..], &["rm", "web"], &["prune", "--blobs"]] {
        let error = dir.layerstore(command).assert_exit(1);
        assert!(error.contains("root"), "{error}");
        assert!(!dir.root().exists());
    }
}

/// What is wrong with the words themselves is told as such, before anything is done.
#[test]
fn bad_words_are_told_by_the_status() {
    let dir = Dir::new("bad-words");
    dir.layerstore(["create-container", "--name", "web"]).assert_success();
    let two = "0:1000:5,3:2000:5";
    for (arguments, told) in [
        (&["create-container", "--name", " a"][..], "is no name"),
        (&["create-layer", "--name", ""], "is no name"),
        (&["create-image", "--name", "a\n"], "is no name"),
        (&["create-container", "--flag", "a=b"], r#"a text has quotes of its own, as in 'a="text"'"#),
        (&["create-container", "--flag", "a"], "NAME=JSON"),
        (&["create-image", "--item", "foo"], "not of the form KEY=FILE"),
        (&["create-container", "--uidmap", two, "--gidmap", two], "is refused"),
        (&["create-container", "--mount-option", "bogus"], "is refused"),
        (&["diff", "web", "--compression", "zstd", "--level", "30"], "is no zstd level"),
        (&["diff", "web", "--compression", "none", "--level", "3"], "has no level"),
    ] {
        let error = dir.layerstore(arguments).assert_exit(2);
        assert!(error.contains(told), "{arguments:?}: {error}");
    }
    assert_eq!(lists(&dir)[2].as_array().unwrap().len(), 1);
}

#[test]
fn a_directory_is_no_archive() {
    let dir = Dir::new("directory-archive");
    std::fs::create_dir(dir.join("rootfs")).unwrap();
    let error = dir.layerstore(["put-layer", "--file", "rootfs"]).assert_exit(1);
    assert!(error.contains("cannot read rootfs") && error.contains("is a directory"), "{error}");
}

#[test]
fn an_archive_that_makes_no_layer_is_named() {
    let dir = Dir::new("bad-archive");
    dir.layerstore(["create-layer", "--id", "own"]).assert_success();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&archive(&[Member::file("file", "text")])).unwrap();
    let whole = gzip.finish().unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("noise.tar", &[7; 4096], "not a tar archive"),
        ("cut.tar.gz", &whole[..whole.len() - 12], ""),
        (
            "tail.tar.gz",
            &[&whole[..], b"tail"].concat(),
            "the gzip stream has ended, and what stands behind it",
        ),
    ];
    for (name, bytes, expected) in cases {
        dir.write(name, bytes);
        for command in [&["put-layer"][..], &["apply", "own"]] {
            let error = dir.layerstore(command).args(["--file", name]).assert_exit(1);
            assert!(error.contains(&format!("cannot make a layer of {name}\n")), "{error}");
            assert!(error.contains(expected), "{error}");
        }
    }
    let error = dir.layerstore(["put-layer"]).stdin(vec![7; 4096]).assert_exit(1);
    assert!(error.contains("cannot make a layer of standard input"), "{error}");
}

/// `put-layer FILE` is what one types, and FILE is the layer below.
#[test]
fn a_file_in_the_place_of_a_layer_is_told_before_anything_is_read() {
    let dir = Dir::new("parent");
    dir.write("rootfs.tar", archive(&[Member::file("file", "text")]));
    let error = || dir.layerstore(["put-layer", "rootfs.tar"]).stdin("").assert_exit(1);
    let expected =
        "error: there is no layer \"rootfs.tar\" to stand on, but a file\n  hint: `--file rootfs.tar`";
    assert!(error().contains(expected), "{}", error());
    assert!(!dir.root().exists());
    dir.layerstore(["create-layer"]).assert_success();
    assert!(error().contains(expected), "{}", error());
    let error = dir.layerstore(["put-layer", "nothing"]).stdin("").assert_exit(1);
    assert!(error.contains("no layer with the id"), "{error}");
}
