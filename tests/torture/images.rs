//! The images that all workers load and remove: few layers, shared between them in every way that layers can be.

use std::path::{Path, PathBuf};

use layerstore::{ChainId, DiffId};
use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::support::oci::{Compression, Image, Layer};
use crate::support::tar::Member;

/// An image outside the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SharedImage {
    /// `oci:DIR:TAG`.
    pub reference: String,
    pub id: String,
    /// The diffIDs of its layers, the lowest first.
    pub diff_ids: Vec<String>,
    /// The ids that its layers have in a store, the lowest first.
    pub layers: Vec<String>,
    /// A file that a mount of it shows.
    pub file: (String, Content),
}

impl SharedImage {
    pub fn top(&self) -> &str {
        self.layers.last().unwrap()
    }
}

/// Writes the layouts below `dir`, and `images.json`, which lists them.
pub fn write(dir: &Path) -> Vec<SharedImage> {
    let layer = |word: &str, files: usize, size: usize| {
        let mut members = vec![Member::directory("etc"), Member::directory(word)];
        for number in 0..files {
            let path = format!("{word}/file-{number}");
            members.push(Member::file(&path, Content::new(path.as_str(), size).bytes()));
        }
        members
    };
    let base = || Layer::new(layer("base", 20, 3000));
    let middle = || Layer::new(layer("middle", 5, 60_000)).compression(Compression::Zstd);
    // Its directories are implied: they depend on the layer below.
    let above = |word: &str| {
        let file = Member::file(format!("etc/{word}"), Content::new(format!("etc/{word}"), 100).bytes());
        Layer::new([file, Member::whiteout("base/file-3"), Member::file(format!("base/{word}"), word)])
    };
    // The tree of `middle` as another tar.
    let mut reordered = layer("middle", 5, 60_000);
    reordered[2..].reverse();
    let images = [
        ("base", vec![base()], "base/file-1"),
        ("middle", vec![base(), middle()], "middle/file-4"),
        ("top", vec![base(), middle(), above("top")], "etc/top"),
        // The blob of the same tar compressed otherwise, the same tree from another tar, the same layer upside down.
        ("gzip", vec![base(), middle().compression(Compression::Gzip), above("gzip")], "etc/gzip"),
        ("tree", vec![base().compression(Compression::None), Layer::new(reordered)], "middle/file-2"),
        ("upside-down", vec![middle(), base(), above("down")], "middle/file-0"),
        ("large", vec![Layer::new(layer("large", 60, 20_000))], "large/file-59"),
    ];
    let images: Vec<SharedImage> = images
        .into_iter()
        .map(|(tag, layers, file)| {
            let written = Image::new(layers).write(dir.join("layout"), tag);
            SharedImage {
                reference: written.reference(),
                id: written.config_digest.trim_start_matches("sha256:").to_owned(),
                layers: chain(&written.diff_ids),
                diff_ids: written.diff_ids,
                file: (file.to_owned(), size_of(file)),
            }
        })
        .collect();
    std::fs::write(list(dir), serde_json::to_vec(&images).unwrap()).unwrap();
    images
}

/// What [`write`] wrote.
pub fn read(dir: &Path) -> Vec<SharedImage> {
    serde_json::from_slice(&std::fs::read(list(dir)).unwrap()).unwrap()
}

fn list(dir: &Path) -> PathBuf {
    dir.join("images.json")
}

fn size_of(path: &str) -> Content {
    let size = match path.split('/').next().unwrap() {
        "base" => 3000,
        "middle" => 60_000,
        "large" => 20_000,
        _ => 100,
    };
    Content::new(path, size)
}

fn chain(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<ChainId> = Vec::new();
    for diff_id in diff_ids {
        let next = ChainId::of(chain.last(), &DiffId(diff_id.parse().unwrap()));
        chain.push(next);
    }
    chain.iter().map(|id| id.0.hex().to_owned()).collect()
}
