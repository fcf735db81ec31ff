//! A hostile layer through everything that a load does with it.

use std::fs;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::Arc;

use super::yard::{Unpacked, Yard};
use super::{LIMITS, with_checksums};
use crate::archive::{Entry, EntryKind, Reader, Writer};
use crate::error::{ArchiveError, Error};
use crate::layer::Stack;
use crate::store::{BlobInput, ImageImport, LayerImport};
use crate::types::{DiffId, Digest, Timestamp};

/// Unpacks bytes as a layer in a store on a tmpfs, with a tree beside the store that is none of its business.
/// The first byte has four switches: whether headers get a right checksum before; whether the layer stands on another one
/// that is full of links to that tree; whether it goes the whole way, through the records, which takes ten times as long; whether
/// its directory is written out too, as if it never had been an archive.
///
/// - Nothing panics, and the tree beside the store is unchanged: names, modes, owners, times, links, contents.
/// - A layer that is accepted has the diffID of its bytes, and comes out as the bytes it came in as.
/// - An archive of its directory makes the same directory again.
/// - Of a layer that is refused, and of an image that was removed, nothing is left: no row, no directory.
/// - No file descriptor is left open.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_import_tar(bytes: &[u8]) {
    thread_local!(static GROUND: io::Result<Ground> = Ground::new());
    let Some((&mode, bytes)) = bytes.split_first() else { return };
    let archive = if mode & 1 == 0 { bytes.to_vec() } else { with_checksums(bytes) };
    // Holes of many gigabytes are granted, and take their time.
    let mut reader = Reader::with_limits(archive.as_slice(), (), LIMITS);
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Err(ArchiveError::Limit { .. }) => return,
            _ => break,
        }
    }
    GROUND.with(|ground| {
        assert!(ground.is_ok(), "no place to work in: {:?}", ground.as_ref().err());
        let Ok(ground) = ground else { return };
        let on_base = mode & 2 != 0;
        if mode & 4 != 0 {
            ground.yard.guard(|| ground.load(&Arc::from(archive), on_base));
        } else {
            ground.yard.guard(|| ground.unpack(&archive, on_base, mode & 8 != 0));
        }
    });
}

/// A store, and a layer to stand on.
struct Ground {
    yard: Yard,
    base: Arc<[u8]>,
    below: Stack,
}

impl Ground {
    fn new() -> io::Result<Self> {
        let yard = Yard::new()?;
        let base = base_layer(&yard.victim()).map_err(io::Error::other)?;
        // What a stack shows is known without the directory.
        let unpacked = yard.unpack(&base, &Stack::default()).map_err(io::Error::other)?;
        let below = Stack::default().push(unpacked.sealed.content.manifest.clone());
        drop(unpacked);
        Ok(Ground { yard, base, below })
    }

    fn unpack(&self, archive: &[u8], on_base: bool, as_directory: bool) {
        let below = if on_base { self.below.clone() } else { Stack::default() };
        match self.yard.unpack(archive, &below) {
            Ok(layer) => {
                assert!(self.yard.export(&layer) == archive, "other bytes came out");
                if as_directory {
                    check_directory(&self.yard, &layer, &below);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }

    fn load(&self, archive: &Arc<[u8]>, on_base: bool) {
        let store = &self.yard.store;
        let mut layers = Vec::new();
        if on_base {
            layers.push(layer(&self.base));
        }
        layers.push(layer(archive));
        let id = Digest::sha256(archive).hex().parse();
        assert!(id.is_ok());
        let Ok(id) = id else { return };
        let loaded = store.import_image(&ImageImport {
            id,
            references: Vec::new(),
            names: Vec::new(),
            created: Timestamp::default(),
            layers,
            digests: Vec::new(),
            items: Vec::new(),
            first_items: Vec::new(),
            keep_finished: None,
            progress: None,
        });
        match loaded {
            Ok(image) => {
                let mut out = Vec::new();
                let exported = store.diff(&image, &mut out);
                assert!(exported.is_ok(), "cannot write out what was loaded: {exported:?}");
                assert!(*out == **archive, "other bytes came out");
                let removed = store.remove_image(&image.id);
                assert!(removed.is_ok(), "cannot remove what was loaded: {removed:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert!(store.layers().is_ok_and(|left| left.is_empty()), "a layer is left");
        assert!(store.images().is_ok_and(|left| left.is_empty()), "an image is left");
        assert!(fs::read_dir(store.root().join("locks")).is_ok_and(|left| left.count() == 0));
    }
}

/// An archive of a layer's directory makes the same directory. The root is left out of it where it says what the layers below say,
/// or there are none; its time alone is no change.
///
/// A name that would be a marker in an archive, on something that is none, is the one reason to write none.
pub(super) fn check_directory(yard: &Yard, layer: &Unpacked, below: &Stack) {
    let archive = match yard.export_directory(layer, below) {
        Ok(archive) => archive,
        Err(error) => {
            assert!(matches!(error, crate::error::ExportError::MarkerName { .. }), "{error}");
            return;
        }
    };
    let again = yard.unpack(&archive, below);
    assert!(again.is_ok(), "what was written out is refused: {:?}", again.as_ref().err());
    let Ok(again) = again else { return };
    let entries = |layer: &Unpacked| {
        let mut entries = layer.sealed.content.manifest.entries().to_vec();
        if let Some(root) = entries.first_mut() {
            root.metadata = Default::default();
        }
        entries
    };
    let (now, then) = (entries(&again), entries(layer));
    assert!(now == then, "another tree came out: {:?}", super::first_difference(&now, &then));
}

fn layer(archive: &Arc<[u8]>) -> LayerImport<'static> {
    let bytes = Arc::clone(archive);
    LayerImport {
        diff_id: DiffId(Digest::sha256(archive)),
        blob: None,
        chunked: None,
        toc_digest: None,
        unpacked_size: None,
        keep_blob: false,
        open: Box::new(move || {
            Ok(BlobInput { reader: Box::new(Cursor::new(Arc::clone(&bytes))), extent: None })
        }),
    }
}

/// Links out of the layer in every way, under short names that a fuzzer hits.
fn base_layer(victim: &Path) -> Result<Arc<[u8]>, Error> {
    let mut writer = Writer::new(Vec::new());
    let absolute = victim.as_os_str().as_encoded_bytes();
    let links: [(&[u8], &[u8]); 4] =
        [(b"a", b"../../victim"), (b"b", absolute), (b"c", b"/"), (b"d", b"../../../victim/dir")];
    for (name, target) in links {
        let mut entry = Entry::new(name, EntryKind::Symlink);
        entry.link = target.to_vec();
        writer.append(&entry, &mut io::empty()).map_err(crate::error::ImportError::from)?;
    }
    let bytes = writer.finish().map_err(crate::error::ImportError::from)?;
    Ok(Arc::from(bytes))
}
