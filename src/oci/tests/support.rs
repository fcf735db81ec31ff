//! Images for the tests, and other people's programs to hand them to.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::compress::Compression;
use crate::oci::media_type::{OCI_CONFIG, OCI_INDEX, OCI_LAYER};
use crate::oci::*;
use crate::types::{DiffId, Digest};

/// A directory for the test, and the paths in it.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> Self {
        Place(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn reference(&self, transport: &str, name: &str) -> Reference {
        format!("{transport}:{}/{name}", self.0.path().display()).parse().unwrap()
    }

    pub fn open(&self, transport: &str, name: &str) -> Result<Source, crate::OciError> {
        Source::open(&self.reference(transport, name), self.0.path())
    }
}

/// An image of two layers, the upper compressed.
pub struct TestImage {
    pub config: Document,
    pub blobs: Vec<(Descriptor, Vec<u8>)>,
    pub manifest: Document,
}

/// A tar with one file.
pub fn layer_tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl TestImage {
    pub fn new(text: &str, compressed: bool) -> Self {
        let mut config = ImageConfig::new(&"linux/amd64".parse().unwrap());
        config.set_created("2020-01-01T00:00:00Z");
        config.set_run_field("Labels", json!({ "text": text }));
        let mut blobs = Vec::new();
        for (name, zipped) in [("base", false), (text, compressed)] {
            let tar = layer_tar(name, name.as_bytes());
            config.push_layer(DiffId(Digest::sha256(&tar)), History::default());
            let (bytes, suffix) = if zipped { (gzip(&tar), "+gzip") } else { (tar, "") };
            let digest = Digest::sha256(&bytes);
            blobs.push((Descriptor::new(format!("{OCI_LAYER}{suffix}"), digest, bytes.len() as u64), bytes));
        }
        let config = config.to_document();
        assert_eq!(config.media_type, OCI_CONFIG);
        let layers = blobs.iter().map(|(descriptor, _)| descriptor.clone()).collect();
        let manifest = Manifest::new(Descriptor::of(&config), layers).to_document();
        TestImage { config, blobs, manifest }
    }

    pub fn put(&self, sink: &mut Sink, tags: &[&str]) {
        for (descriptor, bytes) in &self.blobs {
            sink.put_blob(descriptor, bytes.as_slice()).unwrap();
        }
        sink.put_document(&self.config).unwrap();
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let platform = Some("linux/amd64".parse().unwrap());
        let image =
            SinkImage { manifest: &self.manifest, platform, tags: &tags, annotations: &Annotations::new() };
        sink.add_image(&image).unwrap();
    }

    pub fn save(&self, place: &Place, transport: &str, name: &str, tags: &[&str]) {
        let mut sink = Sink::create_or_replace(&place.reference(transport, name), place.0.path()).unwrap();
        self.put(&mut sink, tags);
        sink.finish().unwrap();
    }

    /// Compares what a source yields with this image; config and digests of layers only where they were kept.
    pub fn assert_same(&self, source: &Source, tag: Option<&str>, exact: bool) {
        let selection = Selection { tag: tag.map(str::to_owned), platform: None };
        let image = source.resolve(&selection).unwrap();
        if exact {
            assert_eq!(image.config, self.config);
        }
        let ours = ImageConfig::parse(&self.config, "ours").unwrap();
        assert_eq!(image.layers.len(), ours.diff_ids.len());
        for ((layer, diff_id), (descriptor, _)) in image.layers.iter().zip(&ours.diff_ids).zip(&self.blobs) {
            assert_eq!(&layer.diff_id, diff_id);
            if exact {
                assert_eq!(layer.descriptor.digest, descriptor.digest);
            }
            let bytes = read_blob(source, &layer.descriptor).unwrap();
            let plain = match layer.compression {
                Compression::None => bytes,
                Compression::Gzip => {
                    let mut plain = Vec::new();
                    let mut decoder = flate2::read::MultiGzDecoder::new(bytes.as_slice());
                    std::io::Read::read_to_end(&mut decoder, &mut plain).unwrap();
                    plain
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(&DiffId(Digest::sha256(&plain)), diff_id);
        }
    }
}

pub fn read_blob(source: &Source, descriptor: &Descriptor) -> Result<Vec<u8>, crate::OciError> {
    let mut bytes = Vec::new();
    match std::io::Read::read_to_end(&mut source.blob(descriptor)?, &mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(crate::OciError::from_io(&error).unwrap()),
    }
}

/// Writes a layout by hand: `blobs` by their digests, and an index of `entries`.
pub fn write_layout(dir: &Path, blobs: &[&[u8]], entries: &[serde_json::Value]) {
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    std::fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    for blob in blobs {
        std::fs::write(dir.join("blobs/sha256").join(Digest::sha256(blob).hex()), blob).unwrap();
    }
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

/// A member of a tar written by hand.
pub enum Entry<'a> {
    File(&'a str, &'a [u8]),
    Symlink(&'a str, &'a str),
    Hardlink(&'a str, &'a str),
}

pub fn write_tar(path: &Path, entries: &[Entry<'_>]) {
    let mut tar = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match entry {
            Entry::File(name, content) => {
                header.set_size(content.len() as u64);
                // By hand, since the crate refuses names that lead out of the archive.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                tar.append(&header, *content).unwrap();
            }
            Entry::Symlink(name, target) | Entry::Hardlink(name, target) => {
                let symlink = matches!(entry, Entry::Symlink(..));
                header.set_entry_type(if symlink { tar::EntryType::Symlink } else { tar::EntryType::Link });
                header.set_size(0);
                tar.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    std::fs::write(path, tar.into_inner().unwrap()).unwrap();
}

/// Makes a named pipe.
pub fn mkfifo(path: &Path) {
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
}

/// Runs a program; `None`, with a message, if it is not installed.
pub fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = match Command::new(program).args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: {program} is not installed");
            return None;
        }
        Err(error) => panic!("{program}: {error}"),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {}", text(&output.stderr));
    Some(text(&output.stdout))
}

pub fn skopeo(arguments: &[&str]) -> Option<String> {
    run("skopeo", &[&["--insecure-policy"], arguments].concat())
}
