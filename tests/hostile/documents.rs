//! Indexes, manifests and configs that lie.

use serde_json::{Value, json};

use super::*;
use crate::support::oci::blob_path;

/// Writes a good image, then changes its index.
fn with_index(place: &Place, change: impl Fn(&mut Value)) {
    let layout = place.layout();
    std::fs::remove_dir_all(&layout).ok();
    Image::new([place.base()]).write(&layout, TAG);
    let path = layout.join("index.json");
    let mut index = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut index);
    std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn digests_that_are_paths_are_refused() {
    let place = Place::new();
    let bad = [
        "sha256:../../../victim/hello",
        "../../victim/hello",
        "sha256:/etc/passwd",
        "sha256:ABCDEF",
        "sha256:",
        "",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "SHA256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ];
    for digest in bad {
        with_index(&place, |index| index["manifests"][0]["digest"] = digest.into());
        place.check(&format!("{digest:?} in the index"), Refused(""));
    }
    fn layer_digest(manifest: &mut Value) {
        manifest["layers"][0]["digest"] = "sha256:../../../victim/hello".into();
    }
    fn config_digest(manifest: &mut Value) {
        manifest["config"]["digest"] = "sha256:../../../victim/hello".into();
    }
    for change in [layer_digest, config_digest] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check("in the manifest", Refused("victim/hello"));
    }
    std::fs::remove_dir_all(place.layout()).ok();
    let image = Image::new([place.base()]);
    image.config(|config| config["rootfs"]["diff_ids"] = json!(["sha256:../.."])).write(place.layout(), TAG);
    place.check("in the config", Refused("sha256:../.."));
}

#[test]
fn sizes_that_lie_are_refused() {
    let place = Place::new();
    for size in
        [json!(-1), json!(0), json!(1.5), json!("12"), Value::Null, json!(u64::MAX), json!(1u64 << 62)]
    {
        with_index(&place, |index| index["manifests"][0]["size"] = size.clone());
        place.check(&format!("size {size} in the index"), Refused(""));
    }
    fn negative(manifest: &mut Value) {
        manifest["layers"][0]["size"] = json!(-1);
    }
    fn missing(manifest: &mut Value) {
        manifest["layers"][0].as_object_mut().unwrap().remove("size");
    }
    for change in [negative, missing] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check("size of a layer", Refused(""));
    }
}

#[test]
fn layers_and_diff_ids_have_to_match() {
    let place = Place::new();
    fn none(config: &mut Value) {
        config["rootfs"]["diff_ids"] = json!([]);
    }
    fn many(config: &mut Value) {
        let one = config["rootfs"]["diff_ids"][0].clone();
        config["rootfs"]["diff_ids"] = json!([one, one, one]);
    }
    for change in [none, many] {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).config(change).write(place.layout(), TAG);
        place.check("the number of diffIDs", Refused(""));
    }
}

#[test]
fn indexes_without_end_are_refused() {
    let place = Place::new();
    // An index cannot hold its own digest; but many can be nested, and one can be named many times.
    with_index(&place, |index| {
        let layout = place.layout();
        let mut inner = index["manifests"][0].clone();
        for _ in 0..100 {
            let document = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [inner, inner],
            });
            let bytes = serde_json::to_vec(&document).unwrap();
            std::fs::write(blob_path(&layout, &digest(&bytes)), &bytes).unwrap();
            inner = json!({
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": digest(&bytes),
                "size": bytes.len(),
                "annotations": { "org.opencontainers.image.ref.name": TAG },
            });
        }
        index["manifests"] = json!([inner]);
    });
    place.check("a hundred deep", Refused(""));
    with_index(&place, |index| {
        let one = index["manifests"][0].clone();
        index["manifests"] = Value::Array(vec![one; 20_000]);
    });
    place.check("twenty thousand wide", Refused(""));
    with_index(&place, |index| index["manifests"] = json!([]));
    place.check("nothing", Refused(TAG));
    let deep = "[".repeat(200_000);
    std::fs::write(place.layout().join("index.json"), deep).unwrap();
    place.check("deep JSON", Refused("index.json"));
    std::fs::write(place.layout().join("index.json"), vec![b' '; 64 << 20]).unwrap();
    place.check("a large index", Refused("index.json"));
}

#[test]
fn links_in_a_layout_are_not_followed() {
    let place = Place::new();
    with_index(&place, |_| {});
    let layout = place.layout();
    std::fs::rename(layout.join("index.json"), layout.join("real.json")).unwrap();
    std::os::unix::fs::symlink("real.json", layout.join("index.json")).unwrap();
    place.check("index.json", Refused("index.json"));
    with_index(&place, |_| {});
    std::fs::rename(layout.join("blobs"), place.dir.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", layout.join("blobs")).unwrap();
    place.check("blobs", Refused("blobs"));
}

#[test]
fn media_types_that_lie_are_refused() {
    let place = Place::new();
    fn manifest_as_index(manifest: &mut Value) {
        manifest["mediaType"] = "application/vnd.oci.image.index.v1+json".into();
    }
    fn both(manifest: &mut Value) {
        manifest["manifests"] = json!([]);
    }
    fn artifact(manifest: &mut Value) {
        manifest["layers"][0]["mediaType"] = "application/x-cake".into();
    }
    for (name, change) in
        [("an index", manifest_as_index as fn(&mut Value)), ("both", both), ("a cake", artifact)]
    {
        std::fs::remove_dir_all(place.layout()).ok();
        Image::new([place.base()]).manifest(change).write(place.layout(), TAG);
        place.check(name, Refused(""));
    }
    // What the blob is counts, not what it is called.
    fn plain(manifest: &mut Value) {
        manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    }
    std::fs::remove_dir_all(place.layout()).ok();
    Image::new([place.base()]).manifest(plain).write(place.layout(), TAG);
    place.check("gzip called plain", Either);
}
