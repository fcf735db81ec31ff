//! Layouts as directories, and the choice of an image in them.

use serde_json::{Value, json};

use super::support::*;
use crate::OciError;
use crate::oci::media_type::{OCI_INDEX, OCI_MANIFEST};
use crate::oci::*;

#[test]
fn a_layout_reads_back_as_written() {
    let place = Place::new();
    let image = TestImage::new("a", true);
    image.save(&place, "oci", "dir:v1", &[]);
    image.assert_same(&place.open("oci", "dir").unwrap(), None, true);
    let source = place.open("oci", "dir:v1").unwrap();
    let resolved = source.resolve(&Selection::default()).unwrap();
    assert_eq!(resolved.manifest, image.manifest);
    assert_eq!(resolved.tag.as_deref(), Some("v1"));
    assert_eq!(resolved.platform.to_string(), "linux/amd64");
    let names: Vec<_> =
        std::fs::read_dir(place.path("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "no temporary file stays: {names:?}");
}

#[test]
fn other_tags_and_fields_of_a_layout_stay() {
    let place = Place::new();
    let (old, new) = (TestImage::new("old", true), TestImage::new("new", true));
    old.save(&place, "oci", "dir", &["a", "b"]);
    let index = place.path("dir/index.json");
    let mut value: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    value["mystery"] = json!(7);
    value["manifests"][1]["mystery"] = json!([1]);
    std::fs::write(&index, value.to_string()).unwrap();

    new.save(&place, "oci", "dir", &["a"]);
    let source = place.open("oci", "dir").unwrap();
    new.assert_same(&source, Some("a"), true);
    old.assert_same(&source, Some("b"), true);
    assert_eq!(source.tags(), ["b", "a"]);
    let after: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    assert_eq!(after["mystery"], 7);
    assert_eq!(after["manifests"][0]["mystery"], json!([1]));
}

#[test]
fn a_tag_must_be_right_and_given_where_there_is_a_choice() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci", "dir", &["a", "b"]);
    let source = place.open("oci", "dir").unwrap();
    let error = source.resolve(&Selection::default()).unwrap_err();
    assert!(matches!(error, OciError::TagNeeded { .. }));
    assert!(error.to_string().ends_with("name one of them: a, b"), "{error}");
    let wanted = Selection { tag: Some("c".into()), platform: None };
    let error = source.resolve(&wanted).unwrap_err();
    assert!(matches!(error, OciError::TagMissing { .. }));
    assert!(error.to_string().ends_with("no image \"c\"; it has a, b"), "{error}");
}

#[test]
fn a_foreign_directory_is_not_written_into() {
    let place = Place::new();
    std::fs::create_dir(place.path("dir")).unwrap();
    std::fs::write(place.path("dir/notes"), "mine").unwrap();
    let error = Sink::create(&place.reference("oci", "dir"), place.0.path()).unwrap_err();
    assert!(matches!(error, OciError::NotEmpty(_)), "{error}");
    assert!(matches!(place.open("oci", "dir"), Err(OciError::Format { missing: "oci-layout", .. })));
}

#[test]
fn the_version_of_a_layout_is_checked() {
    let place = Place::new();
    write_layout(&place.path("dir"), &[], &[]);
    let source = place.open("oci", "dir").unwrap();
    assert!(matches!(source.resolve(&Selection::default()), Err(OciError::NoImage(_))));
    std::fs::write(place.path("dir/oci-layout"), br#"{"imageLayoutVersion": "2.0.0"}"#).unwrap();
    assert!(matches!(place.open("oci", "dir"), Err(OciError::LayoutVersion { .. })));
}

/// An index of these images with their platforms, in a layout with a tag.
fn multi_platform(place: &Place, images: &[(&TestImage, &str)], more: &[Value]) {
    for (image, _) in images {
        image.save(place, "oci", "dir", &[]);
    }
    let entries: Vec<Value> = images
        .iter()
        .map(|(image, platform)| Descriptor::of(&image.manifest).with_platform(platform.parse().unwrap()).raw)
        .chain(more.iter().cloned())
        .collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let index = Document::from_value(&index, OCI_INDEX);
    let tags = Annotations::from([(REF_NAME.to_owned(), "multi".to_owned())]);
    let root = Descriptor::of(&index).with_annotations(&tags);
    write_layout(&place.path("dir"), &[&index.bytes], &[root.raw]);
}

#[test]
fn an_index_is_searched_for_the_platform() {
    let place = Place::new();
    let (first, second) = (TestImage::new("first", true), TestImage::new("second", true));
    let attestation = json!({
        "mediaType": OCI_MANIFEST, "digest": first.manifest.digest.to_string(), "size": 1,
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
        "platform": { "os": "unknown", "architecture": "unknown" }
    });
    let helm = json!({
        "mediaType": "application/x-other", "digest": first.manifest.digest.to_string(), "size": 1
    });
    multi_platform(&place, &[(&first, "linux/s390x"), (&second, "linux/amd64")], &[attestation, helm]);
    let source = place.open("oci", "dir:multi").unwrap();
    let select = |platform: &str| Selection { tag: None, platform: Some(platform.parse().unwrap()) };
    let image = source.resolve(&select("linux/amd64")).unwrap();
    assert_eq!(image.manifest, second.manifest);
    assert_eq!(image.tag.as_deref(), Some("multi"));
    assert_eq!(image.annotations.get(REF_NAME).map(String::as_str), Some("multi"));
    let error = source.resolve(&select("linux/arm64")).unwrap_err();
    assert!(error.to_string().ends_with("there are linux/s390x, linux/amd64"), "{error}");
    // The index promises s390x, but the config says amd64.
    let error = source.resolve(&select("linux/s390x")).unwrap_err();
    assert!(matches!(error, OciError::PlatformMissing { .. }), "{error}");
}

#[test]
fn the_only_image_is_taken_unless_a_platform_is_asked_for() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    multi_platform(&place, &[(&image, "linux/s390x")], &[]);
    let source = place.open("oci", "dir").unwrap();
    assert_eq!(source.resolve(&Selection::default()).unwrap().manifest, image.manifest);
    let wanted = Selection { tag: None, platform: Some("linux/riscv64".parse().unwrap()) };
    assert!(matches!(source.resolve(&wanted), Err(OciError::PlatformMissing { .. })));
}

#[test]
fn blobs_of_unknown_size_are_put_on_the_way() {
    use std::io::Write;
    let place = Place::new();
    for (transport, name) in [("oci", "dir"), ("oci-archive", "a.tar"), ("docker-archive", "d.tar")] {
        let image = TestImage::new("x", transport != "docker-archive");
        let mut sink = Sink::create(&place.reference(transport, name), place.0.path()).unwrap();
        for (descriptor, bytes) in &image.blobs {
            let mut writer = sink.blob_writer().unwrap();
            writer.write_all(bytes).unwrap();
            let put = sink.put_written(writer, &descriptor.media_type).unwrap();
            assert_eq!(&put, descriptor);
        }
        image.put(&mut sink, &["localhost/x:1"]);
        sink.finish().unwrap();
        image.assert_same(&place.open(transport, name).unwrap(), Some("localhost/x:1"), true);
    }
}

#[test]
fn an_image_without_its_blobs_is_not_added() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    let mut sink = Sink::create(&place.reference("oci", "dir"), place.0.path()).unwrap();
    let entry =
        SinkImage { manifest: &image.manifest, platform: None, tags: &[], annotations: &Annotations::new() };
    assert!(matches!(sink.add_image(&entry), Err(OciError::BlobMissing { .. })));
    let (descriptor, _) = &image.blobs[0];
    assert!(matches!(sink.put_blob(descriptor, &b"other"[..]), Err(OciError::Blob(_))));
    assert!(!sink.has_blob(descriptor).unwrap());
}

#[test]
fn an_image_that_is_listed_twice_is_one() {
    let place = Place::new();
    let image = TestImage::new("x", true);
    image.save(&place, "oci", "dir", &[]);
    let entry = Descriptor::of(&image.manifest).raw;
    write_layout(&place.path("dir"), &[], &[entry.clone(), entry]);
    image.assert_same(&place.open("oci", "dir").unwrap(), None, true);
}

#[test]
fn writers_of_one_layout_keep_each_others_images() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let place = &place;
            scope.spawn(move || {
                let tag = format!("t{number}");
                TestImage::new(&tag, true).save(place, "oci", "dir", &[&tag]);
            });
        }
    });
    let mut tags = place.open("oci", "dir").unwrap().tags();
    tags.sort();
    assert_eq!(tags, ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"]);
}
