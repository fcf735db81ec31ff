//! Stores and images for the tests of collections.

use std::path::Path;

use crate::layer::LayerBlob;
use crate::store::{BlobInput, ImageImport, LayerImport, Store, StoreOptions, SyncMode};
use crate::sys::file::File;
use crate::types::{DiffId, Digest, Timestamp};
use crate::{CheckLevel, CheckOptions};

pub fn open(dir: &Path) -> Store {
    Store::open(&StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0))
        .unwrap()
}

/// A blob with a file of this name, and a second one in place of the first; `whole` or cut short.
fn layer(dir: &Path, name: &str, whole: bool) -> LayerImport<'static> {
    let mut tar = tar::Builder::new(Vec::new());
    for content in ["first", "second"] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let blob = zstd::encode_all(&tar[..], 1).unwrap();
    let (digest, size) = (Digest::sha256(&blob), blob.len() as u64);
    let path = dir.join(format!("{name}.blob"));
    std::fs::write(&path, &blob[..if whole { blob.len() } else { blob.len() / 2 }]).unwrap();
    LayerImport {
        diff_id: DiffId(Digest::sha256(&tar)),
        blob: Some(LayerBlob { digest, size, media_type: String::new() }),
        chunked: None,
        toc_digest: None,
        unpacked_size: None,
        keep_blob: true,
        open: Box::new(move || {
            let file = File::open(&path).unwrap();
            let extent = whole.then(|| (file.try_clone().unwrap(), 0, size));
            Ok(BlobInput { reader: Box::new(file), extent })
        }),
    }
}

/// An image of two layers.
pub fn image(dir: &Path, name: &str, whole: bool) -> ImageImport<'static> {
    ImageImport {
        id: Digest::sha256(name.as_bytes()).hex().parse().unwrap(),
        references: Vec::new(),
        names: vec![name.parse().unwrap()],
        created: Timestamp::default(),
        layers: vec![layer(dir, &format!("{name}-base"), true), layer(dir, &format!("{name}-top"), whole)],
        digests: Vec::new(),
        items: Vec::new(),
        first_items: Vec::new(),
        keep_finished: None,
        progress: None,
    }
}

/// Loads an image of two layers.
pub fn load(dir: &Path, store: &Store, name: &str) {
    store.import_image(&image(dir, name, true)).unwrap();
}

/// Says that a deep check finds nothing.
pub fn is_clean(store: &Store) {
    let options = CheckOptions { level: CheckLevel::Deep, ..CheckOptions::default() };
    let report = store.check(&options).unwrap();
    assert_eq!(report.findings, []);
}
