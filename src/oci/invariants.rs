//! What must hold of every document that is accepted: for the fuzzer, and for tests with hostile documents.

use serde_json::{Value, json};

use super::config::{History, ImageConfig};
use super::docker_archive;
use super::document::{Document, parse_value};
use super::manifest::{Descriptor, Index, Manifest};
use super::media_type::{self, LayerType};
use super::platform::Platform;
use super::reference::{Reference, docker_name, is_domain};
use super::shape::Shape;
use crate::types::{DiffId, Digest};

/// Reads `bytes` as every document of an image.
///
/// - What is accepted is written, and read back as the same; so is what was changed, and only what was changed is other.
/// - Every descriptor has a digest that is one and a size that a file can have, and says what its JSON says.
/// - A manifest that becomes one of OCI has the same blobs in the same order, and no type of docker's.
/// - A reader that folds the letters of keys, as those in Go do, sees the same of it.
/// - References, platforms and names of docker's are read back as they are written.
///
/// # Panics
///
/// If one of these does not hold.
pub(crate) fn check_documents(bytes: &[u8]) {
    let types = [media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::OCI_MANIFEST];
    for document in types.map(|media_type| Document::new(bytes.to_vec(), media_type)) {
        if let Ok(index) = Index::parse(&document, "index") {
            check_index(&index, &document);
        }
        if let Ok(manifest) = Manifest::parse(&document, "manifest") {
            check_manifest(&manifest);
        }
    }
    let document = Document::new(bytes.to_vec(), media_type::OCI_CONFIG);
    if let Ok(config) = ImageConfig::parse(&document, "config") {
        check_config(&config, &document.digest);
    }
    if let Some(images) = docker_archive::layers_in_list(bytes) {
        let list: Vec<_> = images.iter().map(|layers| json!({ "Config": "", "Layers": layers })).collect();
        let again = docker_archive::layers_in_list(json!(list).to_string().as_bytes());
        assert!(again.as_ref() == Some(&images), "{images:?} is read back as {again:?}");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_text(text);
    }
}

/// What a reader in Go sees under a key: the last whose letters are the same once they are folded. This does it in a way of its own.
fn folding<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let fold = |key: &str| key.replace('\u{17f}', "s").replace('\u{212a}', "k").to_lowercase();
    let object = value.as_object()?;
    object.iter().rev().find(|(found, _)| fold(found) == fold(key)).map(|(_, value)| value)
}

/// Panics if such a reader sees another value under one of these keys.
fn check_keys(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(folding(value, key) == value.get(key), "{key} is another one to others: {value}");
    }
}

fn check_index(index: &Index, document: &Document) {
    index.manifests.iter().for_each(check_descriptor);
    let raw: Vec<_> = index.manifests.iter().map(|descriptor| &descriptor.raw).collect();
    let written = json!({ "schemaVersion": 2, "manifests": raw, "annotations": index.annotations });
    let read = Index::parse(&Document::from_value(&written, document.media_type.clone()), "written");
    assert!(read.as_ref().ok() == Some(index), "{index:?} is read back as {read:?}");
    let Ok(whole) = parse_value(&document.bytes, "index", &Shape::Any) else { return };
    check_keys(&whole, &["schemaVersion", "mediaType", "manifests", "layers", "config", "fsLayers"]);
    let listed = whole.get("manifests").and_then(Value::as_array).map_or(0, Vec::len);
    assert!(listed == index.manifests.len(), "{} of {listed} manifests", index.manifests.len());
}

fn check_manifest(manifest: &Manifest) {
    check_descriptor(&manifest.config);
    if let Ok(whole) = manifest.to_document().value() {
        check_keys(&whole, &["schemaVersion", "mediaType", "manifests", "layers", "config", "fsLayers"]);
    }
    manifest.layers.iter().for_each(check_descriptor);
    read_back(manifest);

    let mut converted = manifest.clone();
    if converted.convert_to_oci().is_ok() {
        check_converted(manifest, &converted);
    }
    let other = Descriptor::of(&Document::new(b"other".to_vec(), media_type::OCI_LAYER));
    let mut edited = manifest.clone();
    edited.replace_layer(0, &other);
    edited.push_layer(other.clone());
    edited.annotate("a", "b");
    read_back(&edited);
    assert!(edited.annotations.get("a").is_some_and(|value| value == "b"));
    assert!(edited.config == manifest.config);
    let mut expected = blobs(manifest);
    if let Some(first) = expected.first_mut() {
        *first = (other.digest.clone(), other.size);
    }
    expected.push((other.digest.clone(), other.size));
    assert!(blobs(&edited) == expected, "{:?} instead of {expected:?}", blobs(&edited));
}

fn check_converted(manifest: &Manifest, converted: &Manifest) {
    read_back(converted);
    assert!(blobs(converted) == blobs(manifest), "{:?} became {:?}", manifest.layers, converted.layers);
    let config = |manifest: &Manifest| (manifest.config.digest.clone(), manifest.config.size);
    assert!(config(converted) == config(manifest));
    assert!(converted.to_document().media_type == media_type::OCI_MANIFEST);
    assert!(converted.config.media_type == media_type::OCI_CONFIG);
    for (before, after) in manifest.layers.iter().zip(&converted.layers) {
        let kind = |layer: &Descriptor| LayerType::parse(&layer.media_type, "").ok();
        assert!(kind(before).is_some() && kind(before) == kind(after), "{before:?} became {after:?}");
        assert!(kind(after).map(LayerType::oci).as_ref() == Some(&after.media_type), "{after:?}");
    }
    let mut again = converted.clone();
    assert!(again.convert_to_oci().is_ok() && again == *converted, "converted again, it is another");
}

/// The digests and sizes of the layers.
fn blobs(manifest: &Manifest) -> Vec<(Digest, u64)> {
    manifest.layers.iter().map(|layer| (layer.digest.clone(), layer.size)).collect()
}

fn read_back(manifest: &Manifest) {
    let document = manifest.to_document();
    let read = Manifest::parse(&document, "written");
    assert!(read.as_ref().ok() == Some(manifest), "{manifest:?} is read back as {read:?}");
}

fn check_descriptor(descriptor: &Descriptor) {
    let digest = descriptor.digest.to_string();
    assert!(digest.parse().as_ref() == Ok(&descriptor.digest), "{digest} is no digest");
    assert!(i64::try_from(descriptor.size).is_ok(), "{} bytes", descriptor.size);
    check_keys(&descriptor.raw, &["mediaType", "digest", "size", "platform", "annotations"]);
    if let Some(platform) = descriptor.raw.get("platform") {
        check_keys(platform, &["architecture", "os", "os.version", "variant"]);
    }
    let raw = |key: &str| descriptor.raw.get(key).cloned().unwrap_or_default();
    assert!(raw("digest") == json!(digest) && raw("size") == json!(descriptor.size), "{descriptor:?}");
    assert!(raw("mediaType") == json!(descriptor.media_type), "{descriptor:?}");
    let again = Descriptor::parse(descriptor.raw.clone(), "descriptor");
    assert!(again.as_ref().ok() == Some(descriptor), "{descriptor:?} is read back as {again:?}");
}

fn check_config(config: &ImageConfig, digest: &Digest) {
    if let Ok(whole) = config.to_document().value() {
        check_keys(&whole, &["architecture", "os", "variant", "config", "rootfs", "history"]);
        check_keys(whole.get("rootfs").unwrap_or(&Value::Null), &["type", "diff_ids"]);
        check_keys(whole.get("config").unwrap_or(&Value::Null), &["User", "Env", "Cmd", "Entrypoint"]);
    }
    let read = ImageConfig::parse(&config.to_document(), "written");
    assert!(read.as_ref().ok() == Some(config), "{config:?} is read back as {read:?}");
    let mut edited = config.clone();
    edited.push_layer(DiffId(digest.clone()), History::default());
    edited.set_run_field("Cmd", Value::Null);
    edited.set_run_field("User", json!("u"));
    let read = ImageConfig::parse(&edited.to_document(), "edited");
    assert!(read.as_ref().ok() == Some(&edited), "{edited:?} is read back as {read:?}");
    let (top, below) = edited.diff_ids.split_last().unzip();
    assert!(top == Some(&DiffId(digest.clone())) && below == Some(config.diff_ids.as_slice()));
    assert!(
        edited.platform == config.platform
            && edited.history.len().checked_sub(1) == Some(config.history.len())
    );
    assert!(edited.run_field("Cmd").is_none() && edited.run_field("User") == Some(&json!("u")));
}

fn check_text(text: &str) {
    if let Ok(reference) = text.parse::<Reference>() {
        let again = reference.to_string().parse::<Reference>();
        assert!(again.as_ref().ok() == Some(&reference), "{reference:?} is read back as {again:?}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again = platform.to_string().parse::<Platform>();
        assert!(again.as_ref().ok() == Some(&platform), "{platform:?} is read back as {again:?}");
    }
    if let Ok(full) = docker_name(text) {
        assert!(docker_name(&full).as_ref() == Ok(&full), "{text:?} is {full:?}, and that is another name");
        // What docker.io is left out of is in docker.io, whether it is said or not; unless the rest begins like a registry.
        let begins_plainly = |short: &&str| {
            short.split('/').next().is_some_and(|first| first != "library" && !is_domain(first))
        };
        if let Some(short) = full.strip_prefix("docker.io/").filter(begins_plainly) {
            assert!(docker_name(short).as_ref() == Ok(&full), "{short:?} and {full:?}");
        }
    }
    if let Ok(kind) = LayerType::parse(text, "") {
        assert!(LayerType::parse(&kind.oci(), "").ok() == Some(kind), "{text:?} is {kind:?}");
    }
}
