//! `check` and `gc`.

use crate::support::Dir;
use crate::support::oci::{Image, Layer};
use crate::support::tar::Member;
use crate::support::transcript::Session;

#[test]
fn damage_is_told_for_layer_image_and_container() {
    let dir = Dir::new("compat-check");
    let written =
        Image::new([Layer::new([Member::file("motd", b"hello\n")])]).write(dir.join("base.oci"), "1");
    dir.layerstore(["load", &written.reference(), "--name", "base"]).assert_success();
    let mut session = Session::layerstore(&dir);
    session.expect("$ create-container -i ctr base\nctr\n$ check\n$ check -q\n$ check -j\n{\"Layers\":{},\"ROLayers\":{},\"Images\":{},\"ROImages\":{},\"Containers\":{}}\n");
    let entries = std::fs::read_dir(dir.root().join("diffs")).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path().join("motd"));
    let file = files.find(|path| path.exists()).unwrap();
    std::fs::write(&file, "other!\n").unwrap();

    let image = session.command(["images".into(), "-q".into()]).stdout();
    let layer = session.command(["image".into(), "-j".into(), "base".into()]).json()[0]["layer"].clone();
    let (image, layer) = (image.trim(), layer.as_str().unwrap());
    let output = session.command(["check".into()]).output();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    for sign in ["-", "+"] {
        let line = format!(" layer {layer}: {sign}/motd, layer content modified\n");
        assert_eq!(told.matches(&line).count(), 3, "for the layer, the image and the container: {told}");
    }
    for heading in [format!("layer {layer}:\n"), format!("image {image}:\n"), "container ctr:\n".to_owned()] {
        assert!(told.contains(&heading), "{told}");
    }
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("0 read-only layer errors") && errors.ends_with("container errors\n"),
        "{errors}"
    );

    let quick = session.command(["check".into(), "-q".into()]).output();
    let told = String::from_utf8(quick.stdout).unwrap();
    assert!(told.contains("layer content incorrect digest") && !told.contains("motd"), "{told}");
}

#[test]
fn layers_that_nothing_uses_are_told_when_they_are_old() {
    let dir = Dir::new("compat-unused");
    Session::layerstore(&dir).expect(
        r#"
$ create-layer -i base
base
$ create-layer -i top base
top
$ create-layer -i used
used
$ create-container -i ctr ''
ctr
$ check -m 10
! time: missing unit in duration "10"
= 1
$ check
$ check --max 24h
$ check -m 0
layer base:
 layer base: layer not referenced by any images or containers
layer top:
 layer top: layer not referenced by any images or containers
layer used:
 layer used: layer not referenced by any images or containers
! 3 layer errors, 0 read-only layer errors, 0 image errors, 0 read-only image errors, 0 container errors
= 1
$ check -j -m 0s
{"Layers":{"base":[{}],"top":[{}],"used":[{}]},"ROLayers":{},"Images":{},"ROImages":{},"Containers":{}}
! 3 layer errors, 0 read-only layer errors, 0 image errors, 0 read-only image errors, 0 container errors
= 1
$ check -q -r -m 0
layer base:
 layer base: layer not referenced by any images or containers
layer top:
 layer top: layer not referenced by any images or containers
layer used:
 layer used: layer not referenced by any images or containers
$ layers -q
ID1
$ check -r -m 0
"#,
    );
}

/// A store with an image, which has lost the content of a file, and its blob.
fn damaged(dir: &Dir) {
    let written =
        Image::new([Layer::new([Member::file("motd", b"hello\n")])]).write(dir.join("base.oci"), "1");
    dir.layerstore(["--no-keep-blobs", "load", &written.reference(), "--name", "base"]).assert_success();
    let entries = std::fs::read_dir(dir.root().join("diffs")).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path().join("motd"));
    std::fs::write(files.find(|path| path.exists()).unwrap(), "other!\n").unwrap();
}

#[test]
fn repair_removes_images_and_with_force_containers() {
    let dir = Dir::new("compat-repair-image");
    damaged(&dir);
    let mut session = Session::layerstore(&dir);
    assert_eq!(session.command(["check".into(), "-r".into()]).output().status.code(), Some(0));
    session.expect("$ images -q\n$ layers -q\n$ check\n");

    let dir = Dir::new("compat-repair-container");
    damaged(&dir);
    let mut session = Session::layerstore(&dir);
    session.expect("$ create-container -i ctr base\nctr\n");
    let error = session.command(["check".into(), "--repair".into()]).assert_exit(1);
    assert!(error.starts_with("0 read-only layer errors, 0 read-only image errors, "), "{error}");
    assert!(error.ends_with(" container errors\n"), "{error}");
    session.expect("$ containers\nctr\n");
    assert_eq!(session.command(["check".into(), "-f".into()]).output().status.code(), Some(0));
    session.expect("$ containers\n$ images -q\n$ layers -q\n$ check\n");
}
