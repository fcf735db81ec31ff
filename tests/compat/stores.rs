//! Several stores: one for images, others that are only read, and containers that a reboot drops.

use crate::additional::{self, Served};
use crate::support::Dir;
use crate::support::command::TestCommand;
use crate::support::transcript::Session;

/// Runs a command on the store `name`, with more global flags, and returns what it says and whether it succeeds.
fn run(dir: &Dir, name: &str, words: &[&str]) -> (String, bool) {
    let places = [dir.join(name), dir.join(format!("{name}.run"))];
    let [graph, run] = places.map(|place| place.display().to_string());
    let output = TestCommand::layerstore().args(["compat", "-g", &graph, "-R", &run]).args(words).output();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8(text).unwrap(), output.status.success())
}

fn done(dir: &Dir, name: &str, words: &[&str]) -> String {
    let (text, is_done) = run(dir, name, words);
    assert!(is_done, "{words:?}: {text}");
    text
}

#[test]
fn what_is_in_another_store_is_read_only() {
    let dir = Dir::new("compat-other-store");
    done(&dir, "other", &["create-layer", "-i", "base"]);
    done(&dir, "other", &["create-image", "-i", "img", "base"]);
    let option = format!("--storage-opt=overlay.imagestore={}", dir.join("other").display());
    let on = |words: &[&str]| run(&dir, "own", &[&[option.as_str()], words].concat());
    assert_eq!(on(&["layers", "-q"]).0, "base\n");
    assert!(on(&["layer", "base"]).0.ends_with("Read Only: true\n"));
    assert!(on(&["image", "img"]).0.ends_with("Read Only: true\n"));
    assert!(on(&["create-container", "-i", "ctr", "img"]).1);
    let (text, is_done) = on(&["delete-image", "img"]);
    assert!(!is_done && text.contains("identifier is not an image"), "{text}");
    let (text, is_done) = on(&["delete-layer", "base"]);
    assert!(!is_done && text.contains("identifier is not a layer"), "{text}");
    let (text, is_done) = on(&["set-metadata", "-m", "new", "img"]);
    assert!(!is_done && text.contains("identifier is not a layer, image, or container"), "{text}");
    dir.write("data", "1");
    let file = dir.join("data").display().to_string();
    let (text, is_done) = on(&["set-image-data", "-f", &file, "img", "key"]);
    assert!(!is_done && text.contains("image not known"), "{text}");
    assert!(on(&["check", "-m", "0"]).1);
    assert_eq!(done(&dir, "other", &["layers", "-q"]), "base\n");
}

/// Every command on what another store has, in text and JSON.
#[test]
fn each_command_reads_other_stores_and_none_changes_them() {
    let dir = Dir::new("compat-other-store-commands");
    let mut session = Session::layerstore(&dir);
    session.run(
        "-g DIR/other -R DIR/other-run create-layer -i base -n b
         -g DIR/other -R DIR/other-run set-layer-data base key < value
         -g DIR/other -R DIR/other-run create-image -i img -n image:1 -m meta base
         -g DIR/other -R DIR/other-run set-image-data img manifest < m1
         create-layer -i own",
    );
    let digest = layerstore::Digest::sha256(b"m1");
    let transcript = r#"
$ layers
own
base
	name: b
	image: img
		name: image:1
$ layers -q
own
base
$ layers -t
(base)
|-own
'-base
  name: b
  image: img
  image name: image:1
$ layers -j
[{"id":"own","created":"TIME"},{"id":"base","names":["b"],"created":"TIME","big-data-names":["key"]}]
$ layer b own
ID: base
Name: b
Read Only: true
ID: own
$ layer -j base
[{"id":"base","names":["b"],"created":"TIME","big-data-names":["key"]}]
$ images
img
	name: image:1
	digest: DIGEST
	data: manifest
$ images -j
[{"id":"img","digest":"DIGEST","names":["image:1"],"layer":"base","metadata":"meta","big-data-names":["manifest"],"big-data-sizes":{"manifest":2},"big-data-digests":{"manifest":"DIGEST"},"created":"TIME"}]
$ images-by-digest DIGEST
img
	name: image:1
	digest: DIGEST
	data: manifest
$ image image:1
ID: img
Name: image:1
Top Layer: base
Digest: DIGEST
Data: manifest
Size: 2
Read Only: true
$ image -j img
[{"id":"img","digest":"DIGEST","names":["image:1"],"layer":"base","metadata":"meta","big-data-names":["manifest"],"big-data-sizes":{"manifest":2},"big-data-digests":{"manifest":"DIGEST"},"created":"TIME"}]
$ get-image-data img manifest
m1
$ list-layer-data -j base
["key"]
$ get-layer-data base key
value
$ metadata img
img: meta
$ get-names -j b
["b"]
$ exists -l -q base
$ exists -i img
img: true
$ changes base
$ diffsize base
0
$ set-image-data img key < value
! locating image with ID "img": image not known
= 1
$ set-layer-data base key < other
! locating layer with ID "base" to write bigdata: layer not known
= 1
$ set-metadata -m x img
! identifier is not a layer, image, or container
= 1
$ set-metadata -m x base
! identifier is not a layer, image, or container
= 1
$ add-names -n x base
! layer not known
= 1
$ set-names base
! layer not known
= 1
$ remove-names -n b base
! layer not known
= 1
$ applydiff base
! layer not known
= 1
$ mount base
(empty)
! mounting read/only store images is not allowed: called a write method on a read-only store while mounting base
= 1
$ mounted base
! layer not known checking if base is mounted
= 1
$ unmount base
! layer not known while unmounting base
= 1
$ layer-parent-owners base
! LayerParentOwner: layer not known
= 1
$ delete-layer -j base
{"base":"identifier is not a layer"}
= 1
$ delete-image img
! img: identifier is not an image
= 1
$ delete img base
! img: layer not known
! base: layer not known
= 1
$ check -m 100h
$ create-layer -j -i top b
{"id":"top","parent":"base","created":"TIME"}
$ create-container -i ctr image:1
ctr
$ container ctr
ID: ctr
Image: img
Image name: image:1
Size: 0
Layer: ID1
$ delete-container ctr
$ add-names -j -n image:2 img
["image:2","image:1"]
$ image img
ID: img
Name: image:2
Name: image:1
Top Layer: base
Digest: DIGEST
Data: manifest
Size: 2
$ remove-names -n image:1 -n image:2 img
$ get-names -j img
[]
$ delete-image img
$ get-names img
image:1
$ set-names -j -n other img
["other"]
$ delete-image -j other
{"other":{}}
$ image img
ID: img
Name: image:1
Top Layer: base
Digest: DIGEST
Data: manifest
Size: 2
Read Only: true
"#;
    let option = "--storage-opt overlay.imagestore=DIR/other ";
    let transcript =
        transcript.replace("\n$ ", &format!("\n$ {option}")).replace("DIGEST", &digest.to_string());
    let transcript = transcript.replace("\n|-", "\n\u{251c}\u{2500}").replace("\n'-", "\n\u{2514}\u{2500}");
    session.expect(&transcript);
    session.expect(
        "$ wipe\n$ -g DIR/other -R DIR/other-run layers -q\nbase\n$ -g DIR/other -R DIR/other-run images -q\nimg\n",
    );
}

#[test]
fn damage_of_another_store_is_read_only() {
    let dir = Dir::new("compat-other-store-damage");
    let mut session = Session::layerstore(&dir);
    let option = "--storage-opt overlay.imagestore=DIR/other";
    session.expect(&format!(
        "
% mkdir tree && echo text > tree/file && tar -C tree -cf tar file
$ -g DIR/other -R DIR/other-run import-layer -i base -f tar
base
$ -g DIR/other -R DIR/other-run create-image -i img base
img
$ {option} create-container -i ctr img
ctr
$ {option} check
% d=$(echo other/diffs/*) && touch -r $d stamp && rm $d/file && touch -r stamp $d
$ {option} check
read-only layer base:
 read-only layer base: -/file, layer content modified
read-only image img:
 read-only layer base: -/file, layer content modified
container ctr:
 read-only layer base: -/file, layer content modified
! 0 layer errors, 1 read-only layer errors, 0 image errors, 1 read-only image errors, 1 container errors
= 1
$ {option} check -j
{{\"Layers\":{{}},\"ROLayers\":{{\"base\":[{{}}]}},\"Images\":{{}},\"ROImages\":{{\"img\":[{{}}]}},\"Containers\":{{\"ctr\":[{{}}]}}}}
! 0 layer errors, 1 read-only layer errors, 0 image errors, 1 read-only image errors, 1 container errors
= 1
$ {option} check -q -r
read-only layer base:
 read-only layer base: layer content incorrect digest
read-only image img:
 read-only layer base: layer content incorrect digest
container ctr:
 read-only layer base: layer content incorrect digest
! 1 read-only layer errors, 1 read-only image errors, 1 container errors
= 1
"
    ));
}

#[test]
fn images_have_a_store_of_their_own() {
    let dir = Dir::new("compat-image-store");
    let flag = format!("--image-store={}", dir.join("images").display());
    done(&dir, "own", &[&flag, "create-layer", "-i", "base"]);
    done(&dir, "own", &[&flag, "create-image", "-i", "img", "base"]);
    done(&dir, "own", &[&flag, "create-container", "-i", "ctr", "img"]);
    assert_eq!(done(&dir, "images", &["images", "-q"]), "img\n");
    assert_eq!(done(&dir, "own", &["containers"]), "ctr\n");
    assert!(!done(&dir, "own", &[&flag, "image", "img"]).contains("Read Only"));
    done(&dir, "own", &[&flag, "delete-container", "ctr"]);
    done(&dir, "own", &[&flag, "delete-image", "img"]);
    assert_eq!(done(&dir, "images", &["layers", "-q"]), "");
}

#[test]
fn a_check_without_the_image_store_removes_nothing() {
    let dir = Dir::new("compat-image-store-forgotten");
    let flag = format!("--image-store={}", dir.join("images").display());
    done(&dir, "own", &[&flag, "create-layer", "-i", "base"]);
    done(&dir, "own", &[&flag, "create-image", "-i", "img", "base"]);
    done(&dir, "own", &[&flag, "create-container", "-i", "ctr", "img"]);
    for repair in ["-r", "-f"] {
        let (text, is_done) = run(&dir, "own", &["check", repair]);
        assert!(
            !is_done && text.contains(&format!("--image-store-root {}", dir.join("images").display())),
            "{text}"
        );
    }
    assert!(done(&dir, "own", &[&flag, "container", "ctr"]).contains("img"));
    done(&dir, "own", &[&flag, "check"]);
}

#[test]
fn containers_are_kept_in_the_run_root() {
    let dir = Dir::new("compat-transient");
    done(&dir, "own", &["--transient-store", "create-container", "-i", "ctr", ""]);
    assert_eq!(done(&dir, "own", &["containers"]), "ctr\n");
    std::fs::remove_dir_all(dir.join("own.run")).unwrap();
    assert_eq!(done(&dir, "own", &["containers"]), "");
}

/// What a program puts there by way of the library, commands see, take apart and remove.
#[test]
fn layers_of_an_additional_layer_store_are_layers() {
    let dir = Dir::new("compat-additional");
    let served = Served::new(&dir, true);
    let path = served.store.path().display().to_string();
    let option = format!("--storage-opt=overlay.additionallayerstore={path}:ref");
    let on = |words: &[&str]| run(&dir, "own", &[&[option.as_str()], words].concat());
    assert!(on(&["create-layer", "-i", "own"]).1);
    let options = layerstore::StoreOptions::at(dir.join("own")).run_root(dir.join("own.run"));
    let store = layerstore::Store::open(&options.additional_layer_store(served.store.clone())).unwrap();
    let layer = additional::put(&store);
    let id = layer.id.as_str();
    assert!(on(&["layers"]).0.contains(id));
    let (text, is_done) = on(&["layer", "-j", "lazy"]);
    assert!(
        is_done && text.contains("toc-digest") && text.contains(&layer.toc_digest.unwrap().to_string()),
        "{text}"
    );
    assert!(on(&["create-image", "-i", "img", id]).1 && on(&["delete-layer", "own"]).1);
    let (text, is_done) = on(&["check", "-m", "0"]);
    assert!(is_done, "{text}");
    let (text, is_done) = on(&["diff", "-u", "-f", dir.join("tar").to_str().unwrap(), id]);
    assert!(is_done && dir.join("tar").metadata().unwrap().len() > 100_000, "{text}");
    // What is gone there is not known to be gone.
    let hidden = dir.join("hidden");
    std::fs::rename(&path, &hidden).unwrap();
    let options = ["check", "-r", "-f", "-m", "0"];
    let (text, is_done) = run(&dir, "own", &options);
    assert!(!is_done && text.contains(id), "{text}");
    assert!(run(&dir, "own", &["layers"]).0.contains(id), "it may come back");
    assert!(!on(&["layers"]).1, "an option names a directory that is not there");
    std::fs::rename(&hidden, &path).unwrap();
    assert!(on(&["delete-image", "img"]).1);
    assert!(!run(&dir, "own", &["layers"]).0.contains(id));
    for bad in [format!("{path}:ref:ref"), format!("{path}:other"), "relative".to_owned()] {
        let option = format!("--storage-opt=overlay.additionallayerstore={bad}");
        assert!(!run(&dir, "own", &[&option, "layers"]).1, "{bad}");
    }
}
