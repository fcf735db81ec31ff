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
    let mut session = Session::layerstore(&dir);
    session.expect(
        r#"
$ check -m 10
! time: missing unit in duration "10"
= 1
$ check --max 24h
"#,
    );
}
