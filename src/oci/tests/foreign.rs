//! What skopeo and umoci write is read here, and what is written here is read by them.

use super::support::*;
use crate::oci::*;

#[test]
fn skopeo_reads_what_is_written() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    let plain = TestImage::new("a", false);
    image.save(&place, "oci", "dir:v1", &[]);
    image.save(&place, "oci-archive", "oci.tar:v1", &[]);
    plain.save(&place, "docker-archive", "docker.tar:localhost/a:1", &[]);
    for (transport, name) in
        [("oci", "dir:v1"), ("oci-archive", "oci.tar:v1"), ("docker-archive", "docker.tar:localhost/a:1")]
    {
        let reference = place.reference(transport, name).to_string();
        let Some(shown) = skopeo(&["inspect", &reference]) else { return };
        assert!(shown.contains("\"Architecture\": \"amd64\""), "{shown}");
        let copy = place.path(&format!("copy-{transport}"));
        skopeo(&["copy", &reference, &format!("oci:{}:x", copy.display())]);
        let source = place.open("oci", &format!("copy-{transport}:x")).unwrap();
        (if transport == "docker-archive" { &plain } else { &image }).assert_same(&source, None, false);
    }
}

#[test]
fn what_skopeo_writes_is_read() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    image.save(&place, "oci", "dir:v1", &[]);
    let from = place.reference("oci", "dir:v1").to_string();
    for (transport, name, tag) in [
        ("oci", "sko", "v2"),
        ("oci-archive", "oci.tar", "v2"),
        ("docker-archive", "docker.tar", "localhost/a:2"),
    ] {
        let to = place.reference(transport, &format!("{name}:{tag}")).to_string();
        if skopeo(&["copy", &from, &to]).is_none() {
            return;
        }
        let source = place.open(transport, name).unwrap();
        assert_eq!(source.tags(), [tag]);
        // Skopeo compresses plain layers, and rewrites the config of another family.
        image.assert_same(&source, Some(tag), false);
        image.assert_same(&place.open(transport, &format!("{name}:{tag}")).unwrap(), None, false);
    }
}

#[test]
fn skopeo_adds_to_a_layout_written_here_and_the_other_way_round() {
    let place = Place::new();
    let (first, second) = (TestImage::new("first", true), TestImage::new("second", true));
    first.save(&place, "oci", "dir:one", &[]);
    second.save(&place, "oci", "other:two", &[]);
    let from = place.reference("oci", "other:two").to_string();
    let to = place.reference("oci", "dir:two").to_string();
    if skopeo(&["copy", &from, &to]).is_none() {
        return;
    }
    second.save(&place, "oci", "dir:three", &[]);
    let source = place.open("oci", "dir").unwrap();
    first.assert_same(&source, Some("one"), true);
    second.assert_same(&source, Some("two"), true);
    second.assert_same(&source, Some("three"), true);
    skopeo(&["inspect", &place.reference("oci", "dir:three").to_string()]);
}

#[test]
fn umoci_and_this_read_each_other() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    image.save(&place, "oci", "dir:v1", &[]);
    let dir = place.path("dir").display().to_string();
    let Some(tags) = run("umoci", &["ls", "--layout", &dir]) else { return };
    assert_eq!(tags.trim(), "v1");
    run("umoci", &["config", "--image", &format!("{dir}:v1"), "--tag", "v2", "--config.cmd", "sh"]);
    run("umoci", &["new", "--image", &format!("{dir}:empty")]);
    let source = place.open("oci", "dir").unwrap();
    image.assert_same(&source, Some("v1"), true);
    let select = |tag: &str| Selection { tag: Some(tag.to_owned()), platform: None };
    let changed = source.resolve(&select("v2")).unwrap();
    let config = ImageConfig::parse(&changed.config, "v2").unwrap();
    assert_eq!(config.run_field("Cmd"), Some(&serde_json::json!(["sh"])));
    assert_eq!(source.resolve(&select("empty")).unwrap().layers.len(), 0);
    run("umoci", &["unpack", "--rootless", "--image", &format!("{dir}:v1"), &format!("{dir}-bundle")]);
}
