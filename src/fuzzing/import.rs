//! A hostile layer through everything that a load does with it.

use std::fs;
use std::io::{self, Cursor};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LIMITS, with_checksums};
use crate::archive::{Entry, EntryKind, Reader, Writer};
use crate::error::{ArchiveError, Error};
use crate::store::{BlobInput, ImageImport, LayerImport, Store, StoreOptions, SyncMode};
use crate::types::{DiffId, Digest, Timestamp};

/// Loads bytes as a layer into a store on a tmpfs, with a tree beside the store that is none of its business.
/// The first byte says whether headers get a right checksum before, and whether the layer stands on another one
/// that is full of links to that tree.
///
/// - Nothing panics, and the tree beside the store is unchanged: names, modes, owners, times, links, contents.
/// - A layer that is accepted comes out as the bytes it came in as. When its image is removed, nothing is left.
/// - Of a layer that is refused nothing is left: no row, no directory.
/// - No file descriptor is left open.
///
/// # Panics
///
/// If one of these does not hold.
pub fn fuzz_import_tar(bytes: &[u8]) {
    thread_local!(static YARD: io::Result<Yard> = Yard::new());
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
    YARD.with(|yard| {
        assert!(yard.is_ok(), "no place to work in: {:?}", yard.as_ref().err());
        if let Ok(yard) = yard {
            yard.load(&Arc::from(archive), mode & 2 != 0);
        }
    });
}

/// A store, and a victim beside it.
struct Yard {
    victim: PathBuf,
    store: Store,
    /// What the victim looked like at first.
    before: Vec<String>,
    base: Arc<[u8]>,
}

impl Yard {
    fn new() -> io::Result<Self> {
        let top = place()?;
        let victim = top.join("victim");
        fs::create_dir_all(victim.join("dir"))?;
        fs::write(victim.join("hello"), "hello")?;
        fs::write(victim.join("dir/secret"), "secret")?;
        fs::set_permissions(victim.join("dir/secret"), fs::Permissions::from_mode(0o600))?;
        symlink("dir/secret", victim.join("link"))?;
        let options =
            StoreOptions::at(top.join("root")).run_root(top.join("run")).sync(SyncMode::Off).reserve(0);
        let store = Store::open(&options).map_err(io::Error::other)?;
        // The run root is opened by its first use, and stays open.
        store.status().map_err(io::Error::other)?;
        let base = base_layer(&victim).map_err(io::Error::other)?;
        let mut before = Vec::new();
        describe(&victim, &mut before)?;
        Ok(Yard { victim, store, before, base })
    }

    fn load(&self, archive: &Arc<[u8]>, on_base: bool) {
        let descriptors = open_descriptors();
        let mut layers = Vec::new();
        if on_base {
            layers.push(layer(&self.base));
        }
        layers.push(layer(archive));
        let id = Digest::sha256(archive).hex().parse();
        assert!(id.is_ok());
        let Ok(id) = id else { return };
        let loaded = self.store.import_image(&ImageImport {
            id,
            references: Vec::new(),
            names: Vec::new(),
            created: Timestamp::default(),
            layers,
            digests: Vec::new(),
            items: Vec::new(),
            keep_finished: None,
            progress: None,
        });
        match loaded {
            Ok(image) => {
                let mut out = Vec::new();
                let exported = self.store.diff(&image, &mut out);
                assert!(exported.is_ok(), "cannot write out what was loaded: {exported:?}");
                assert!(*out == **archive, "other bytes came out");
                let removed = self.store.remove_image(&image.id);
                assert!(removed.is_ok(), "cannot remove what was loaded: {removed:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        assert!(self.store.layers().is_ok_and(|left| left.is_empty()), "a layer is left");
        assert!(self.store.images().is_ok_and(|left| left.is_empty()), "an image is left");
        let left = fs::read_dir(self.store.root().join("diffs")).map(Iterator::count);
        assert!(matches!(left, Ok(0)), "a directory is left: {left:?}");
        let mut now = Vec::new();
        assert!(
            describe(&self.victim, &mut now).is_ok() && now == self.before,
            "the victim changed: {now:?}"
        );
        assert_eq!(open_descriptors(), descriptors, "a descriptor is left open");
    }
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

/// A directory of this process's own, on a tmpfs if there is one. Those of dead processes go.
pub(super) fn place() -> io::Result<PathBuf> {
    const PREFIX: &str = "layerstore-fuzz-";
    let shared = Path::new("/dev/shm");
    let parent = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    for entry in fs::read_dir(&parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let top = parent.join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir_all(&top)?;
    Ok(top)
}

/// A line for each file of a tree, with everything that could change.
fn describe(path: &Path, lines: &mut Vec<String>) -> io::Result<()> {
    let seen = path.symlink_metadata()?;
    let content = if seen.is_file() { fs::read(path)? } else { Vec::new() };
    let target = if seen.is_symlink() { fs::read_link(path)? } else { PathBuf::new() };
    lines.push(format!(
        "{} {:o} {}:{} {} {}.{} {}.{} {} {}",
        path.display(),
        seen.mode(),
        seen.uid(),
        seen.gid(),
        seen.nlink(),
        seen.mtime(),
        seen.mtime_nsec(),
        seen.ctime(),
        seen.ctime_nsec(),
        target.display(),
        content.escape_ascii(),
    ));
    if seen.is_dir() {
        let mut names = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            describe(&name, lines)?;
        }
    }
    Ok(())
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
