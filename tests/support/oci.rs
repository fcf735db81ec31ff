//! OCI image layouts made from lists of tar members, right in every respect or wrong in a chosen one,
//! and a reader that trusts nothing that a program under test wrote.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::tar::{self, Member};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const TAG: &str = "org.opencontainers.image.ref.name";

/// How a layer's blob is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Compression {
    None,
    #[default]
    Gzip,
    Zstd,
}

/// What is wrong with a layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The config lists another diffID.
    DiffId,
    /// The manifest lists another digest, and the blob lies under that name.
    BlobDigest,
    /// The manifest lists a size one too large.
    Size,
    /// The blob ends after half of its bytes; digest and size are those of the whole.
    Truncated,
    /// There is no blob.
    Missing,
    /// One byte in the middle of the blob differs; digest and size are those of the right one.
    Flipped,
}

/// One layer of a made-up image.
#[derive(Clone, Debug)]
pub struct Layer {
    tar: Vec<u8>,
    compression: Compression,
    fault: Option<Fault>,
    packed: Option<Vec<u8>>,
}

impl Layer {
    /// A gzip layer with these members.
    pub fn new(members: impl AsRef<[Member]>) -> Self {
        Self::from_tar(tar::archive(members.as_ref()))
    }

    /// A gzip layer with these bytes as its tar, be they one or not.
    pub fn from_tar(tar: Vec<u8>) -> Self {
        Self { tar, compression: Compression::default(), fault: None, packed: None }
    }

    /// Compressed otherwise.
    pub fn compression(self, compression: Compression) -> Self {
        Self { compression, ..self }
    }

    /// With this blob, whatever it decompresses to.
    pub fn packed(self, blob: Vec<u8>) -> Self {
        Self { packed: Some(blob), ..self }
    }

    /// Wrong in this way.
    pub fn fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// The digest of the uncompressed tar, `sha256:<hex>`.
    pub fn diff_id(&self) -> String {
        digest(&self.tar)
    }

    fn blob(&self) -> Vec<u8> {
        if let Some(packed) = &self.packed {
            return packed.clone();
        }
        match self.compression {
            Compression::None => self.tar.clone(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&self.tar).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(&self.tar[..], 1).unwrap(),
        }
    }

    fn media_type(&self) -> String {
        match self.compression {
            Compression::None => LAYER.to_owned(),
            Compression::Gzip => format!("{LAYER}+gzip"),
            Compression::Zstd => format!("{LAYER}+zstd"),
        }
    }
}

/// A made-up image: layers from the bottom up, and changes to its documents.
#[derive(Clone, Debug)]
pub struct Image {
    layers: Vec<Layer>,
    config: fn(&mut Value),
    manifest: fn(&mut Value),
}

/// What [`Image::write`] wrote.
#[derive(Clone, Debug)]
pub struct WrittenImage {
    pub layout: PathBuf,
    pub tag: String,
    pub manifest_digest: String,
    /// The image ID.
    pub config_digest: String,
    pub diff_ids: Vec<String>,
}

impl WrittenImage {
    /// `oci:DIR:TAG`, as commands take it.
    pub fn reference(&self) -> String {
        format!("oci:{}:{}", self.layout.display(), self.tag)
    }
}

impl Image {
    /// An image with these layers, the lowest first.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Self {
        Self { layers: layers.into_iter().collect(), config: |_| {}, manifest: |_| {} }
    }

    /// Changes the config document before it is written.
    pub fn config(self, change: fn(&mut Value)) -> Self {
        Self { config: change, ..self }
    }

    /// Changes the manifest before it is written.
    pub fn manifest(self, change: fn(&mut Value)) -> Self {
        Self { manifest: change, ..self }
    }

    /// Writes the image into a layout, which may hold others already, under a tag of its own.
    pub fn write(&self, layout: impl AsRef<Path>, tag: &str) -> WrittenImage {
        let layout = layout.as_ref();
        std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();

        let descriptors: Vec<Value> = self.layers.iter().map(|layer| write_layer(layout, layer)).collect();
        let diff_ids: Vec<String> = self.layers.iter().map(Layer::diff_id).collect();
        let listed: Vec<String> = self.layers.iter().map(listed_diff_id).collect();
        let mut config = json!({
            "created": "2026-01-02T03:04:05Z",
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": listed },
        });
        (self.config)(&mut config);
        let config = write_document(layout, CONFIG, &config);
        let mut manifest =
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors });
        (self.manifest)(&mut manifest);
        let mut manifest = write_document(layout, MANIFEST, &manifest);
        let written = WrittenImage {
            layout: layout.to_owned(),
            tag: tag.to_owned(),
            manifest_digest: text(&manifest["digest"]),
            config_digest: text(&config["digest"]),
            diff_ids,
        };
        manifest["annotations"] = json!({ TAG: tag });
        append_to_index(layout, manifest);
        written
    }
}

fn append_to_index(layout: &Path, descriptor: Value) {
    let path = layout.join("index.json");
    let mut index = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    };
    index["manifests"].as_array_mut().unwrap().push(descriptor);
    std::fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

fn listed_diff_id(layer: &Layer) -> String {
    match layer.fault {
        Some(Fault::DiffId) => digest(b"something else"),
        _ => layer.diff_id(),
    }
}

/// Writes a layer's blob and returns its descriptor, with the layer's fault in one of the two.
fn write_layer(layout: &Path, layer: &Layer) -> Value {
    let mut blob = layer.blob();
    let mut size = blob.len();
    let mut name = digest(&blob);
    match layer.fault {
        Some(Fault::BlobDigest) => name = digest(b"something else"),
        Some(Fault::Size) => size += 1,
        Some(Fault::Truncated) => blob.truncate(size / 2),
        Some(Fault::Flipped) => blob[size / 2] ^= 1,
        Some(Fault::DiffId | Fault::Missing) | None => {}
    }
    if layer.fault != Some(Fault::Missing) {
        std::fs::write(blob_path(layout, &name), blob).unwrap();
    }
    json!({ "mediaType": layer.media_type(), "digest": name, "size": size })
}

fn write_document(layout: &Path, media_type: &str, document: &Value) -> Value {
    let bytes = serde_json::to_vec(document).unwrap();
    std::fs::write(blob_path(layout, &digest(&bytes)), &bytes).unwrap();
    json!({ "mediaType": media_type, "digest": digest(&bytes), "size": bytes.len() })
}

/// The documents of one image in a layout that some program wrote.
#[derive(Clone, Debug)]
pub struct ReadImage {
    pub layout: PathBuf,
    pub manifest_digest: String,
    pub manifest: Value,
    pub config: Value,
}

impl ReadImage {
    /// Reads the image with this tag.
    pub fn open(layout: impl AsRef<Path>, tag: &str) -> Self {
        let layout = layout.as_ref().to_owned();
        let index: Value =
            serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
        let entries = index["manifests"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["annotations"][TAG] == tag);
        let entry = entry.unwrap_or_else(|| panic!("no tag {tag} in {index}"));
        let manifest_digest = text(&entry["digest"]);
        let manifest = read_document(&layout, entry);
        let config = read_document(&layout, &manifest["config"]);
        Self { layout, manifest_digest, manifest, config }
    }

    /// The diffIDs that the config lists, the lowest first.
    pub fn diff_ids(&self) -> Vec<String> {
        self.config["rootfs"]["diff_ids"].as_array().unwrap().iter().map(text).collect()
    }

    /// The diffIDs of the blobs as they are, which must have the digest and the size that the manifest says.
    pub fn measured_diff_ids(&self) -> Vec<String> {
        self.manifest["layers"].as_array().unwrap().iter().map(|layer| self.measure(layer)).collect()
    }

    /// The layers' uncompressed tars, the lowest first.
    pub fn tars(&self) -> Vec<Box<dyn Read>> {
        self.manifest["layers"].as_array().unwrap().iter().map(|layer| self.tar(layer)).collect()
    }

    fn measure(&self, layer: &Value) -> String {
        let path = blob_path(&self.layout, &text(&layer["digest"]));
        let blob = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(
            Some(blob.metadata().unwrap().len()),
            layer["size"].as_u64(),
            "size of {}",
            path.display()
        );
        assert_eq!(digest_of(blob), text(&layer["digest"]), "blob {}", path.display());
        digest_of(self.tar(layer))
    }

    fn tar(&self, layer: &Value) -> Box<dyn Read> {
        let blob = std::fs::File::open(blob_path(&self.layout, &text(&layer["digest"]))).unwrap();
        match text(&layer["mediaType"]).as_str() {
            LAYER => Box::new(blob),
            media_type if media_type.ends_with("tar+gzip") => {
                Box::new(flate2::read::MultiGzDecoder::new(blob))
            }
            media_type if media_type.ends_with("tar+zstd") => Box::new(zstd::Decoder::new(blob).unwrap()),
            other => panic!("unexpected media type {other}"),
        }
    }
}

fn read_document(layout: &Path, descriptor: &Value) -> Value {
    let name = text(&descriptor["digest"]);
    let bytes = std::fs::read(blob_path(layout, &name)).unwrap();
    assert_eq!(digest(&bytes), name);
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "size of {name}");
    serde_json::from_slice(&bytes).unwrap()
}

/// Where a layout keeps the blob with this digest.
pub fn blob_path(layout: &Path, digest: &str) -> PathBuf {
    layout.join("blobs").join(digest.replacen(':', "/", 1))
}

/// `sha256:<hex>` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    digest_of(bytes)
}

fn digest_of(mut reader: impl Read) -> String {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = reader.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

mod tests;
