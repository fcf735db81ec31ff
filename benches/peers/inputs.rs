//! What goes in: the real image, and images and layers that are made. All of it is read before anything is timed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common;

/// An image in a layout.
#[derive(Clone, Debug)]
pub struct Image {
    /// As both programs name it.
    pub source: String,
    /// Of its layers, the lowest first.
    pub blobs: Vec<PathBuf>,
}

impl Image {
    /// The image with this tag of a layout, or its first.
    pub fn of(layout: &Path, tag: Option<&str>) -> Self {
        let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
        let blob = |descriptor: &Value| {
            let hex = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            layout.join("blobs/sha256").join(hex)
        };
        let index = read(&layout.join("index.json"));
        let manifest = read(&blob(&index["manifests"][0]));
        let blobs: Vec<PathBuf> = manifest["layers"].as_array().unwrap().iter().map(blob).collect();
        let tag = tag.map_or(String::new(), |tag| format!(":{tag}"));
        Self { source: format!("oci:{}{tag}", layout.display()), blobs }
    }

    /// The real one, compressed in this way.
    pub fn debian(compression: &str) -> Self {
        let gzip = common::debian().expect("the image is not there: tests/images/debian.sh makes it");
        let image = Self::of(&gzip.with_file_name(compression), Some("debian"));
        image.blobs.iter().for_each(|blob| cache(blob));
        image
    }

    /// One of so many layers of so many files.
    pub fn made(inputs: &Path, layers: usize, files: usize) -> Self {
        let layout = inputs.join(format!("image-{layers}-{files}"));
        if !layout.exists() {
            // Each layer has other files, or they would be one layer.
            let tars: Vec<_> = (0..layers).map(|number| common::many_files(files, 1_000 + number)).collect();
            common::write_layout(&layout, &tars);
        }
        let image = Self::of(&layout, None);
        image.blobs.iter().for_each(|blob| cache(blob));
        image
    }
}

/// The tar of a layer of so many small files, not compressed.
pub fn small_files(inputs: &Path, count: usize) -> PathBuf {
    let file = inputs.join(format!("small-files-{count}.tar"));
    if !file.exists() {
        std::fs::write(&file, common::many_files(count, 4_000)).unwrap();
    }
    cache(&file);
    file
}

/// The tar of a layer with one file of so many bytes.
pub fn large_file(inputs: &Path, bytes: u64) -> PathBuf {
    let tar = inputs.join("large-file.tar");
    if !tar.exists() {
        let content = std::fs::File::create(inputs.join("large")).unwrap();
        content.set_len(bytes).unwrap();
        let made = std::process::Command::new("tar")
            .arg("-C")
            .arg(inputs)
            .arg("-cf")
            .arg(&tar)
            .arg("large")
            .status();
        assert!(made.unwrap().success(), "tar made no archive");
    }
    tar
}

/// Reads a file, so that the page cache has it.
pub fn cache(file: &Path) {
    std::io::copy(&mut std::fs::File::open(file).unwrap(), &mut std::io::sink()).unwrap();
}
