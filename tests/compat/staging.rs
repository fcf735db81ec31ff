//! Layers that the other program's driver has without a record, and layers that are made of a directory.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use layerstore::Digest;
use serde_json::{Value, json};

use crate::support::transcript::Session;
use crate::support::tree::Tree;
use crate::support::{Dir, TestCommand, machine};

#[test]
fn storage_layers_are_in_no_list() {
    let dir = Dir::new("compat-storage-layer");
    Session::layerstore(&dir).expect(
        r#"
$ create-storage-layer -i bottom
bottom
$ create-storage-layer -j -i top --label system_u:object_r:x_t -r bottom
"top"
$ create-storage-layer nope
! layer not known
= 1
$ create-storage-layer -i top
! that ID is already in use
= 1
$ create-storage-layer --uidmap junk
! initializing ID mappings: uid setting is malformed expected ["uint32:uint32:uint32"]: ["junk"]
= 1
$ create-layer -i real
real
$ create-storage-layer -i above real
above
$ storage-layers -j
["above","bottom","real","top"]
$ layers
real
$ layer top
= 1
$ exists -q -l top
= 1
$ create-layer top
! layer not known
= 1
$ delete-layer top
! top: identifier is not a layer
= 1
$ check
layer above:
 layer above: layer in lower level storage driver not accounted for
layer bottom:
 layer bottom: layer in lower level storage driver not accounted for
layer top:
 layer top: layer in lower level storage driver not accounted for
! 3 layer errors, 0 read-only layer errors, 0 image errors, 0 read-only image errors, 0 container errors
= 1
$ gc
$ storage-layers
real
$ create-storage-layer -i again
again
$ check -r
layer again:
 layer again: layer in lower level storage driver not accounted for
$ storage-layers
real
$ create-storage-layer
ID1
"#,
    );
}

/// A directory with all that an archive can have. Returns whether its filesystem takes attributes.
fn fill(dir: &Dir) -> bool {
    let long = format!("tree/d/{}", "n".repeat(180));
    dir.write("tree/d/file", "one\n");
    dir.write(&long, "two\n");
    dir.write("tree/a", vec![7; 100_000]);
    std::fs::set_permissions(dir.join("tree/a"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::hard_link(dir.join("tree/d/file"), dir.join("tree/d/same")).unwrap();
    symlink("../elsewhere/".repeat(12), dir.join("tree/link")).unwrap();
    for (path, time) in [("tree/a", "2001-02-03 04:05:06.789"), (long.as_str(), "1960-01-02 03:04:05.5")] {
        TestCommand::new("touch").arg("-d").arg(time).arg(dir.join(path)).assert_success();
    }
    TestCommand::new("mkfifo").arg(dir.join("tree/pipe")).assert_success();
    let value = "value\0";
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(dir.join(long), "user.note", value.as_bytes(), flags).is_ok()
}

#[test]
fn a_directory_becomes_a_layer() {
    let dir = Dir::new("compat-staging");
    let has_attributes = fill(&dir);
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ applydiff-using-staging-dir made tree
! partial images are disabled
= 1
$ layers
"#,
    );
    let conf = "[storage]\ndriver = \"overlay\"\n[storage.options]\npull_options = {enable_partial_images = \"true\"}\n";
    dir.write("storage.conf", conf);
    session.expect(
        r#"
$ create-layer -i there
there
$ applydiff-using-staging-dir there tree
$ applydiff-using-staging-dir made tree
$ applydiff-using-staging-dir empty nowhere
$ changes empty
$ applydiff-using-staging-dir a/b tree
! "a/b" is no id: ids are 1 to 128 letters, digits, '_', '.' and '-', the first a letter or digit
= 1
$ diff -u -f out made
% mkdir out.d && tar --xattrs -xpf out -C out.d
"#,
    );
    if machine::is_root() {
        std::fs::set_permissions(dir.join("out.d"), dir.join("tree").metadata().unwrap().permissions())
            .unwrap();
        let top = std::fs::File::open(dir.join("out.d")).unwrap();
        top.set_modified(dir.join("tree").metadata().unwrap().modified().unwrap()).unwrap();
        Tree::scan(dir.join("out.d")).assert_same(&Tree::scan(dir.join("tree")));
    }
    // A socket is of nobody's use without its process.
    let _socket = UnixListener::bind(dir.join("tree/socket")).unwrap();
    session.expect("$ applydiff-using-staging-dir later tree");

    let layer = |id: &str| -> Value {
        let told = session.command(["layer", "-j", id].map(str::to_owned)).stdout();
        serde_json::from_str::<Value>(&told).unwrap()[0].clone()
    };
    let (made, there, later, empty) = (layer("made"), layer("there"), layer("later"), layer("empty"));
    let keys: Vec<&String> = made.as_object().unwrap().keys().collect();
    let expected =
        ["id", "created", "diff-digest", "toc-digest", "diff-size", "uidset", "gidset", "big-data-names"];
    assert_eq!(keys, expected);
    assert_eq!(made["big-data-names"], json!(["zstd-chunked-layer-data", "zstd-chunked-manifest"]));
    let archive = std::fs::read(dir.join("out")).unwrap();
    assert_eq!(made["diff-digest"], json!(Digest::sha256(&archive).to_string()));
    assert_eq!(made["diff-size"], json!(archive.len()));
    for other in [&there, &later] {
        assert_eq!(
            (&other["diff-digest"], &other["toc-digest"]),
            (&made["diff-digest"], &made["toc-digest"])
        );
    }
    assert_eq!(empty["diff-size"], json!(1024));

    let item = |key: &str| session.command(["get-layer-data", "made", key].map(str::to_owned)).stdout();
    assert_eq!(item("zstd-chunked-layer-data"), r#"{"format":0}"#);
    let table = item("zstd-chunked-manifest");
    assert_eq!(made["toc-digest"], json!(Digest::sha256(table.as_bytes()).to_string()));
    let table: Value = serde_json::from_str(&table).unwrap();
    let entries = table["entries"].as_array().unwrap();
    let kinds: Vec<(&str, &str)> = entries
        .iter()
        .map(|entry| (entry["type"].as_str().unwrap(), entry["name"].as_str().unwrap()))
        .collect();
    let long = format!("d/{}", "n".repeat(180));
    let expected = [
        ("reg", "a"),
        ("dir", "d"),
        ("reg", "d/file"),
        ("reg", &long),
        ("hardlink", "d/same"),
        ("symlink", "link"),
        ("fifo", "pipe"),
    ];
    assert_eq!(kinds, expected);
    assert_eq!(entries[2]["digest"], json!(Digest::sha256(b"one\n").to_string()));
    let attributes = if has_attributes { json!({ "user.note": "dmFsdWUA" }) } else { Value::Null };
    assert_eq!((&entries[3]["xattrs"], &entries[4]["linkName"]), (&attributes, &json!("d/file")));
}
