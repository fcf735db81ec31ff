//! A place to unpack in: a store on a tmpfs, and a tree beside it that is none of its business.

use std::fs;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::place::{Place, open_descriptors, place};
use crate::disk::{self, Stage, Staging};
use crate::error::{Error, ExportError};
use crate::layer::{self, ImportOptions, SealedLayer, Stack};
use crate::store::{Store, StoreOptions, SyncMode};
use crate::sys::beneath;
use crate::sys::file::File;
use crate::types::{Algorithm, Budget, DiffId, Digest};

/// A store, and a victim beside it. What is left of it goes when it is dropped, or when the next one is made after the
/// process has died.
pub(super) struct Yard {
    pub(super) store: Store,
    stage: Stage,
    options: ImportOptions,
    numbers: AtomicU64,
    top: Place,
    /// What the victim looked like at first.
    before: Vec<String>,
}

/// A layer that was unpacked and sealed, and is on no record. Its directory goes with it.
pub(super) struct Unpacked {
    pub(super) sealed: SealedLayer,
    pub(super) split: Vec<u8>,
}

impl Yard {
    pub(super) fn new() -> io::Result<Self> {
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
        let stage = Stage::create(store.layout()).map_err(io::Error::other)?;
        // One thread fills files: what is small is mostly the price of threads.
        let options = ImportOptions { workers: 1, ..store.import_options() };
        let mut yard = Yard { store, stage, options, numbers: AtomicU64::new(1), top, before: Vec::new() };
        yard.before = yard.describe_victim()?;
        Ok(yard)
    }

    pub(super) fn victim(&self) -> PathBuf {
        self.top.join("victim")
    }

    /// Unpacks an archive above the layers below, as an import does, without records.
    pub(super) fn unpack(&self, archive: &[u8], below: &Stack) -> Result<Unpacked, Error> {
        // What is granted is granted to each input.
        let options = ImportOptions { budget: Budget::new(&self.options.limits), ..self.options.clone() };
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let staging = Staging::create(&self.stage, number)?;
        let records = self.store.spool().map_err(crate::error::ImportError::Io)?;
        let unpacked = layer::unpack(archive, Algorithm::Sha256, staging, records, &options)?;
        let diff_id = DiffId(Digest::sha256(archive));
        assert_eq!(unpacked.streams().diff_id, diff_id, "another diffID");
        let mut kept: Option<File> = None;
        let spool = || {
            let file = self.store.spool()?;
            kept = Some(file.try_clone()?);
            Ok(file)
        };
        let sealed = layer::seal(unpacked, below, spool, &options)?;
        let mut split = Vec::new();
        if let Some(mut file) = kept {
            let read = file.rewind().and_then(|()| file.read_to_end(&mut split));
            assert!(read.is_ok(), "cannot read the tar-split: {read:?}");
        }
        Ok(Unpacked { sealed, split })
    }

    /// The archive that a layer came as.
    pub(super) fn export(&self, layer: &Unpacked) -> Vec<u8> {
        let mut out = Vec::new();
        let exported = beneath::open_directory(&self.store.diff_path(layer.sealed.directory.number()))
            .map_err(ExportError::Io)
            .and_then(|root| {
                let manifest = &layer.sealed.content.manifest;
                let split = layer.split.as_slice();
                layer::export_original("fuzzed", split, manifest, root.as_fd(), &mut out, |_, _| ())
            });
        assert!(exported.is_ok(), "cannot write out what was unpacked: {exported:?}");
        out
    }

    /// An archive of a layer's directory, as of one that never was an archive.
    pub(super) fn export_directory(&self, layer: &Unpacked, below: &Stack) -> Result<Vec<u8>, ExportError> {
        let root = beneath::open_directory(&self.store.diff_path(layer.sealed.directory.number()))?;
        let entries = disk::list(root.as_fd(), self.store.layout().xattrs())?;
        let open = |path: &[u8]| Ok(Some(beneath::open_file_beneath(root.as_fd(), path)?.into()));
        let mut out = Vec::new();
        layer::export_directory(entries, open, below, None, &mut out)?;
        Ok(out)
    }

    /// Runs what must neither touch the victim nor leave anything behind.
    pub(super) fn guard(&self, work: impl FnOnce()) {
        let descriptors = open_descriptors();
        work();
        let left = fs::read_dir(self.store.root().join("diffs")).map(Iterator::count);
        assert!(matches!(left, Ok(0)), "a directory is left: {left:?}");
        let now = self.describe_victim().unwrap_or_default();
        assert!(now == self.before, "the victim changed: {now:?}");
        assert_eq!(open_descriptors(), descriptors, "a descriptor is left open");
    }

    fn describe_victim(&self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        describe(&self.victim(), &mut lines)?;
        Ok(lines)
    }
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
