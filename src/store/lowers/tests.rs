//! Chains of layers that are written to, as mounts of others leave them.

use std::path::Path;

use rustix::fs::XattrFlags;

use super::*;
use crate::store::{LayerOptions, Store, StoreOptions, SyncMode};
use crate::sys::call::{Call, fault};
use crate::types::LayerId;

/// So many layers that are written to, one above the other, the lowest with a file, and each of the others with what a mount leaves that
/// copies no content when the file's mode is changed. `None` where the filesystem has no such attributes.
fn chain(dir: &Path, length: usize) -> Option<(Store, LayerId)> {
    let options = StoreOptions::at(dir.join("root")).run_root(dir.join("run")).sync(SyncMode::Off).reserve(0);
    let store = Store::open(&options).unwrap();
    let metacopy = [store.layout().xattrs().prefix(), b"metacopy"].concat();
    let mut top: Option<LayerId> = None;
    for _ in 0..length {
        let layer = store.create_layer(top.as_ref(), &LayerOptions::default()).unwrap().id;
        let file = store.layer_places(&layer).unwrap().upper.join("file");
        std::fs::write(&file, "content").unwrap();
        if top.replace(layer).is_some() {
            std::fs::write(&file, "\0\0\0\0\0\0\0").unwrap();
            rustix::fs::setxattr(&file, metacopy.as_slice(), b"", XattrFlags::empty()).ok()?;
        }
    }
    Some((store, top.unwrap()))
}

/// How often `read` asks for names in directories.
fn listings<T>(read: impl FnOnce() -> Result<T, Error>) -> usize {
    let (read, calls) = fault::counted(read);
    assert!(read.is_ok(), "{:?}", read.err());
    calls.into_iter().filter(|call| *call == Call::List).count()
}

/// Whatever each of them says of those below, which say something of those below them.
#[test]
fn each_layer_of_a_chain_is_listed_once() {
    let mut of_one = None;
    // Ever longer, so that what doubles with each layer is found before it takes for ever.
    for length in [1, 2, 3, 8, 30, 100] {
        let dir = tempfile::tempdir().unwrap();
        let Some((store, top)) = chain(dir.path(), length) else {
            eprintln!("skipped: the filesystem keeps no attributes of overlayfs");
            return;
        };
        let seen = [
            listings(|| store.changes(&top)),
            listings(|| store.diff(&top, std::io::sink())),
            listings(|| store.whole_changes(&top)),
            listings(|| store.whole_size(&top)),
            listings(|| store.native_diff(&top)),
            listings(|| store.files(&top)),
        ];
        let expected = of_one.get_or_insert(seen).map(|listings| listings * length);
        assert_eq!(seen, expected, "of {length} layers");
        let mut content = String::new();
        let mut file = store.files(&top).unwrap().open("file").unwrap();
        std::io::Read::read_to_string(&mut file, &mut content).unwrap();
        assert_eq!(content, "content");
    }
}
