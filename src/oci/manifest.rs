//! Descriptors, manifests and indexes (OCI image specification 1.1, and docker's of the same shape).
//!
//! Each type keeps the JSON it was read from. What a caller changes is changed there, so fields that this
//! program does not know survive, in their order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::document::{Document, parse_typed, parse_value};
use super::media_type::{self, LayerType};
use super::platform::Platform;
use super::shape;
use crate::error::{OciError, shown};
use crate::types::Digest;

/// Annotations, by key.
pub type Annotations = BTreeMap<String, String>;

/// The annotation with an image's tag in an index.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with an image's full name, as containerd and docker write it.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// A reference to a blob: what it is, its digest, its size.
#[derive(Clone, PartialEq, Debug)]
pub struct Descriptor {
    /// The media type.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob.
    pub size: u64,
    /// The annotations.
    pub annotations: Annotations,
    /// In an index: what the image runs on.
    pub platform: Option<Platform>,
    /// The type of the artifact behind it, where it is no image.
    pub artifact_type: Option<String>,
    /// The descriptor as it was read, with the fields above and all others.
    pub raw: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescriptorFields {
    media_type: String,
    digest: String,
    size: Option<serde_json::Number>,
    annotations: Option<Annotations>,
    platform: Option<Platform>,
    artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor of its three required fields.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        let media_type = media_type.into();
        let raw = json!({ "mediaType": media_type, "digest": digest.to_string(), "size": size });
        Descriptor {
            media_type,
            digest,
            size,
            annotations: Annotations::new(),
            platform: None,
            artifact_type: None,
            raw,
        }
    }

    /// The descriptor of a document.
    pub fn of(document: &Document) -> Self {
        Descriptor::new(document.media_type.clone(), document.digest.clone(), document.bytes.len() as u64)
    }

    /// The descriptor with these annotations added.
    #[must_use]
    pub fn with_annotations(mut self, annotations: &Annotations) -> Self {
        self.annotations.extend(annotations.clone());
        if !self.annotations.is_empty() {
            set(&mut self.raw, "annotations", json!(self.annotations));
        }
        self
    }

    /// The descriptor with this platform.
    #[must_use]
    pub fn with_platform(mut self, platform: Platform) -> Self {
        set(&mut self.raw, "platform", json!(platform));
        self.platform = Some(platform);
        self
    }

    /// Reads a descriptor that stands in the document `what`, whose keys were looked at.
    pub(super) fn parse(raw: Value, what: &str) -> Result<Self, OciError> {
        let fields: DescriptorFields = parse_typed(&raw, what)?;
        let digest: Digest =
            fields.digest.parse().map_err(|source| OciError::Value { what: what.to_owned(), source })?;
        let size =
            fields.size.as_ref().and_then(serde_json::Number::as_u64).filter(|size| *size <= i64::MAX as u64);
        let Some(size) = size else {
            let size = fields.size.map_or_else(|| "missing".to_owned(), |size| size.to_string());
            return Err(OciError::DescriptorSize { what: what.to_owned(), digest: digest.to_string(), size });
        };
        Ok(Descriptor {
            media_type: fields.media_type,
            digest,
            size,
            annotations: fields.annotations.unwrap_or_default(),
            platform: fields.platform,
            artifact_type: fields.artifact_type,
            raw,
        })
    }
}

/// What manifests and indexes have in common, to be checked before anything else is believed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    schema_version: Option<Value>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    annotations: Option<Annotations>,
}

/// Reads a manifest's or index's JSON, and refuses one that could be taken for the other (CVE-2021-41190).
fn parse_header(document: &Document, what: &str, foreign: &[&str]) -> Result<(Value, Header), OciError> {
    let value = parse_value(&document.bytes, what, &shape::MANIFEST)?;
    let header: Header = parse_typed(&value, what)?;
    if header.schema_version.as_ref().and_then(Value::as_u64) != Some(2) {
        let found = header.schema_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(OciError::SchemaVersion { what: what.to_owned(), found: shown(found) });
    }
    if let Some(found) = header.media_type.as_ref().filter(|found| **found != document.media_type) {
        let (what, expected) = (what.to_owned(), document.media_type.clone());
        return Err(OciError::MediaType { what, expected, found: shown(found) });
    }
    if foreign.iter().any(|key| value.get(key).is_some()) {
        let reason = "it has fields of both a manifest and an index".to_owned();
        return Err(OciError::Ambiguous { what: what.to_owned(), reason });
    }
    Ok((value, header))
}

fn parse_descriptors(value: &Value, key: &str, what: &str) -> Result<Vec<Descriptor>, OciError> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct List(Option<Vec<Value>>);
    let List(list) = parse_typed(value.get(key).unwrap_or(&Value::Null), what)?;
    list.unwrap_or_default().into_iter().map(|raw| Descriptor::parse(raw, what)).collect()
}

/// An index: manifests for several platforms, or the images of a layout.
#[derive(Clone, PartialEq, Debug)]
pub struct Index {
    /// What it refers to.
    pub manifests: Vec<Descriptor>,
    /// Its own annotations.
    pub annotations: Annotations,
}

impl Index {
    /// Reads an index; `what` names it in errors.
    pub(super) fn parse(document: &Document, what: &str) -> Result<Self, OciError> {
        let (value, header) = parse_header(document, what, &["layers", "config", "fsLayers"])?;
        let manifests = parse_descriptors(&value, "manifests", what)?;
        Ok(Index { manifests, annotations: header.annotations.unwrap_or_default() })
    }
}

/// A manifest: the config and the layers of an image.
#[derive(Clone, PartialEq, Debug)]
pub struct Manifest {
    /// The config.
    pub config: Descriptor,
    /// The layers, bottom first.
    pub layers: Vec<Descriptor>,
    /// Its own annotations.
    pub annotations: Annotations,
    media_type: String,
    raw: Value,
}

impl Manifest {
    /// Reads an image manifest; `what` names it in errors.
    ///
    /// Returns [`OciError::NotAnImage`] for the manifest of another artifact.
    pub fn parse(document: &Document, what: &str) -> Result<Self, OciError> {
        let (raw, header) = parse_header(document, what, &["manifests", "fsLayers"])?;
        let config = Descriptor::parse(raw.get("config").cloned().unwrap_or(Value::Null), what)?;
        // An artifact type beside an image config is still an image (specification, "Guidelines for Artifact Usage").
        if !media_type::is_config(&config.media_type) {
            let artifact_type = header.artifact_type.unwrap_or_else(|| config.media_type.clone());
            return Err(OciError::NotAnImage { digest: document.digest.to_string(), artifact_type });
        }
        let layers = parse_descriptors(&raw, "layers", what)?;
        let annotations = header.annotations.unwrap_or_default();
        Ok(Manifest { config, layers, annotations, media_type: document.media_type.clone(), raw })
    }

    /// An OCI manifest of its parts.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let raw = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": config.raw,
            "layers": layers.iter().map(|layer| &layer.raw).collect::<Vec<_>>(),
        });
        let media_type = media_type::OCI_MANIFEST.to_owned();
        Manifest { config, layers, annotations: Annotations::new(), media_type, raw }
    }

    /// Makes `config` the config; other fields of its descriptor stay.
    pub fn set_config(&mut self, config: &Descriptor) {
        update(&mut self.config, config);
        set(&mut self.raw, "config", self.config.raw.clone());
    }

    /// Replaces media type, digest, size and annotations of the layer at `position`, such as after compressing it anew;
    /// other fields of its descriptor stay. Does nothing if there is no such layer.
    pub fn replace_layer(&mut self, position: usize, layer: &Descriptor) {
        if let Some(old) = self.layers.get_mut(position) {
            update(old, layer);
            if old.annotations != layer.annotations {
                old.annotations.clone_from(&layer.annotations);
                match &mut old.raw {
                    Value::Object(object) if layer.annotations.is_empty() => {
                        object.shift_remove("annotations");
                    }
                    raw => set(raw, "annotations", json!(layer.annotations)),
                }
            }
        }
        self.write_layers();
    }

    /// Adds a layer on top.
    pub fn push_layer(&mut self, layer: Descriptor) {
        self.layers.push(layer);
        self.write_layers();
    }

    /// Turns docker's media types into OCI's, of the manifest, its config and its layers.
    ///
    /// Returns [`OciError::UnknownLayerType`] or [`OciError::Encrypted`] if a layer has no OCI type.
    pub fn convert_to_oci(&mut self) -> Result<(), OciError> {
        for layer in &mut self.layers {
            layer.media_type = LayerType::parse(&layer.media_type, &layer.digest.to_string())?.oci();
            set(&mut layer.raw, "mediaType", json!(layer.media_type));
        }
        self.write_layers();
        self.config.media_type = media_type::OCI_CONFIG.to_owned();
        set(&mut self.config.raw, "mediaType", json!(self.config.media_type));
        set(&mut self.raw, "config", self.config.raw.clone());
        self.media_type = media_type::OCI_MANIFEST.to_owned();
        set(&mut self.raw, "mediaType", json!(self.media_type));
        Ok(())
    }

    /// Sets an annotation of the manifest.
    pub fn annotate(&mut self, key: &str, value: &str) {
        self.annotations.insert(key.to_owned(), value.to_owned());
        let mut raw = self.raw.get("annotations").cloned().unwrap_or(Value::Null);
        set(&mut raw, key, json!(value));
        set(&mut self.raw, "annotations", raw);
    }

    /// The manifest as a new document. An unchanged manifest is better kept as it came.
    pub fn to_document(&self) -> Document {
        Document::from_value(&self.raw, self.media_type.clone())
    }

    fn write_layers(&mut self) {
        let layers = self.layers.iter().map(|layer| layer.raw.clone()).collect();
        set(&mut self.raw, "layers", Value::Array(layers));
    }
}

/// Makes `old` point at the blob of `new`. `data` and `urls` spoke of the old blob.
fn update(old: &mut Descriptor, new: &Descriptor) {
    if old.digest != new.digest
        && let Value::Object(object) = &mut old.raw
    {
        object.shift_remove("data");
        object.shift_remove("urls");
    }
    old.media_type.clone_from(&new.media_type);
    old.digest.clone_from(&new.digest);
    old.size = new.size;
    set(&mut old.raw, "mediaType", json!(new.media_type));
    set(&mut old.raw, "digest", json!(new.digest.to_string()));
    set(&mut old.raw, "size", json!(new.size));
}

/// Sets a key of an object; a value of any other kind becomes one first.
pub(super) fn set(value: &mut Value, key: &str, field: Value) {
    if !value.is_object() {
        *value = json!({});
    }
    if let Value::Object(object) = value {
        object.insert(key.to_owned(), field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(extra: &str, size: &str) -> Document {
        let text = format!(
            r#"{{"new":[1],"schemaVersion":2,{extra}"config":{{"mediaType":"{}","digest":"{EMPTY}",{size}"x":1}},
            "layers":[{{"y":{{"k":0}},"mediaType":"{}","digest":"{EMPTY}","size":3,"data":"AA=="}}],"last":null}}"#,
            media_type::OCI_CONFIG,
            media_type::OCI_LAYER
        );
        Document::new(text.into_bytes(), media_type::OCI_MANIFEST)
    }

    #[test]
    fn edits_keep_unknown_fields_and_their_order() {
        let mut edited = Manifest::parse(&manifest("", "\"size\":7,"), "m").unwrap();
        assert_eq!(edited.config.size, 7);
        let blob = Descriptor::new("application/vnd.oci.image.layer.v1.tar+gzip", Digest::sha256(b"x"), 1);
        edited.replace_layer(0, &blob);
        edited.push_layer(blob.clone());
        let text = String::from_utf8(edited.to_document().bytes).unwrap();
        let digest = &blob.digest;
        assert!(text.starts_with(r#"{"new":[1],"schemaVersion":2,"config":{"#), "{text}");
        let layer =
            format!(r#"[{{"y":{{"k":0}},"mediaType":"{}","digest":"{digest}","size":1}},"#, blob.media_type);
        assert!(text.contains(&layer), "{text}");
        assert!(text.ends_with(r#","last":null}"#), "{text}");
        let again = Manifest::parse(&edited.to_document(), "m").unwrap();
        assert_eq!((again.layers.len(), &again.layers[1].digest), (2, digest));
    }

    #[test]
    fn sizes_must_be_whole_numbers() {
        for size in ["", "\"size\":-1,", "\"size\":1.5,", "\"size\":null,", "\"size\":9223372036854775808,"] {
            let error = Manifest::parse(&manifest("", size), "m").unwrap_err();
            assert!(matches!(error, OciError::DescriptorSize { .. }), "{size}: {error}");
        }
        let error = Manifest::parse(&manifest("", "\"size\":\"7\","), "m").unwrap_err();
        assert!(matches!(error, OciError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_manifest_that_lies_is_refused() {
        let error = |extra: &str| Manifest::parse(&manifest(extra, "\"size\":1,"), "m").unwrap_err();
        assert!(matches!(error("\"manifests\":[],"), OciError::Ambiguous { .. }));
        for key in ["Layers", "layer\\u017f", "manife\\u017fts", "fslayers"] {
            assert!(matches!(error(&format!("\"{key}\":[],")), OciError::Ambiguous { .. }), "{key}");
        }
        let digest = manifest("", "\"size\":1,\"Digest\":\"x\",");
        assert!(matches!(Manifest::parse(&digest, "m"), Err(OciError::Ambiguous { .. })));
        let lie = format!("\"mediaType\":\"{}\",", media_type::OCI_INDEX);
        assert!(matches!(error(&lie), OciError::MediaType { .. }));
        let index = Document::new(manifest("", "").bytes, media_type::OCI_INDEX);
        assert!(matches!(Index::parse(&index, "i"), Err(OciError::Ambiguous { .. })));
        let old = Document::new(br#"{"schemaVersion":1,"fsLayers":[]}"#.to_vec(), media_type::OCI_MANIFEST);
        assert!(matches!(Manifest::parse(&old, "m"), Err(OciError::SchemaVersion { .. })));
    }

    #[test]
    fn an_artifact_is_no_image() {
        let text = String::from_utf8(manifest("", "\"size\":1,").bytes).unwrap();
        let text = text.replace(media_type::OCI_CONFIG, "application/vnd.oci.empty.v1+json");
        let error =
            Manifest::parse(&Document::new(text.into_bytes(), media_type::OCI_MANIFEST), "m").unwrap_err();
        assert!(matches!(error, OciError::NotAnImage { .. }), "{error}");
    }

    #[test]
    fn docker_manifests_become_oci_ones() {
        let text = String::from_utf8(manifest("", "\"size\":1,").bytes).unwrap();
        let text = text.replace(media_type::OCI_CONFIG, media_type::DOCKER_CONFIG);
        let text = text.replace(media_type::OCI_LAYER, "application/vnd.docker.image.rootfs.diff.tar.gzip");
        let document = Document::new(text.into_bytes(), media_type::DOCKER_MANIFEST);
        let mut manifest = Manifest::parse(&document, "m").unwrap();
        manifest.convert_to_oci().unwrap();
        let document = manifest.to_document();
        assert_eq!(document.media_type, media_type::OCI_MANIFEST);
        assert!(!String::from_utf8(document.bytes.clone()).unwrap().contains("docker"));
        assert_eq!(
            Manifest::parse(&document, "m").unwrap().layers[0].media_type,
            "application/vnd.oci.image.layer.v1.tar+gzip"
        );
    }
}
