//! The images that a case can load: few and small, with layers in common.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use layerstore::{ChainId, DiffId};
use serde_json::Value;

use crate::support::Dir;
use crate::support::oci::{Compression, Image, Layer, blob_path};
use crate::support::tar::{Member, archive};

/// How many there are.
pub const IMAGES: u8 = 6;

/// One of the images, as the model knows it.
#[derive(Clone, Debug)]
pub struct Known {
    pub id: String,
    pub tag: String,
    pub manifest_digest: String,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// From the bottom up.
    pub layers: Vec<KnownLayer>,
}

/// A layer of one.
#[derive(Clone, Debug)]
pub struct KnownLayer {
    /// The hex digits of its chain ID.
    pub id: String,
    pub diff_id: String,
    pub blob: String,
    pub size: u64,
    /// Whether the blob is worth keeping.
    pub keep: bool,
    pub files: Files,
}

/// Files in the root directory by name; `None` is a whiteout.
pub type Files = BTreeMap<String, Option<Vec<u8>>>;

/// All of them, and the directory with their layouts.
pub static ALL: LazyLock<(Dir, Vec<Known>)> = LazyLock::new(|| {
    let dir = Dir::new("model-images");
    let all = (0..IMAGES).map(|number| make(dir.path(), number)).collect();
    (dir, all)
});

/// How a command names one.
pub fn reference(layouts: &Path, number: u8) -> String {
    format!("oci:{}:{}", layouts.join(number.to_string()).display(), tag(number))
}

fn tag(number: u8) -> String {
    format!("tag{number}")
}

fn layers(number: u8) -> Vec<(Files, Compression)> {
    let file = |name: &str, content: &str| (name.to_owned(), Some(content.as_bytes().to_vec()));
    let base: Files = [file("a", "base a"), file("b", "base b")].into();
    let middle: Files = [file("a", "middle a"), ("b".to_owned(), None), file("c", "middle c")].into();
    let top: Files = [file("d", "top d")].into();
    match number {
        0 => vec![(base, Compression::Gzip)],
        1 => vec![(base, Compression::Gzip), (middle, Compression::Gzip)],
        // The same image as the one before, packed otherwise.
        2 => vec![(base, Compression::Zstd), (middle, Compression::None)],
        3 => vec![(base, Compression::Gzip), (middle, Compression::Gzip), (top, Compression::Zstd)],
        // Layers of others, on another base.
        4 => vec![(top, Compression::Zstd), (middle, Compression::Gzip)],
        _ => Vec::new(),
    }
}

/// A tar of these files.
pub fn tar(files: &Files) -> Vec<u8> {
    archive(&members(files))
}

fn members(files: &Files) -> Vec<Member> {
    let member = |(name, content): (&String, &Option<Vec<u8>>)| match content {
        Some(content) => Member::file(name, content),
        None => Member::whiteout(name),
    };
    files.iter().map(member).collect()
}

fn make(dir: &Path, number: u8) -> Known {
    let layout = dir.join(number.to_string());
    let parts = layers(number);
    let made = parts.iter().map(|(files, compression)| Layer::new(members(files)).compression(*compression));
    let image = Image::new(made);
    let written = image.write(&layout, &tag(number));
    let read = |digest: &str| std::fs::read(blob_path(&layout, digest)).unwrap();
    let manifest = read(&written.manifest_digest);
    let document: Value = serde_json::from_slice(&manifest).unwrap();
    let mut layers = Vec::new();
    let mut below: Option<ChainId> = None;
    for (position, (files, compression)) in parts.into_iter().enumerate() {
        let descriptor = &document["layers"][position];
        let chain = ChainId::of(below.as_ref(), &DiffId(written.diff_ids[position].parse().unwrap()));
        layers.push(KnownLayer {
            id: chain.0.hex().to_owned(),
            diff_id: written.diff_ids[position].clone(),
            blob: descriptor["digest"].as_str().unwrap().to_owned(),
            size: descriptor["size"].as_u64().unwrap(),
            keep: compression != Compression::None,
            files,
        });
        below = Some(chain);
    }
    Known {
        id: written.config_digest.strip_prefix("sha256:").unwrap().to_owned(),
        tag: tag(number),
        config: read(&written.config_digest),
        manifest_digest: written.manifest_digest,
        manifest,
        layers,
    }
}
