//! Writes image archives, with the same bytes for the same blobs in the same order: no times, no owners.
//!
//! Both forms are an image layout in a tar. A docker archive has `manifest.json` beside, as docker writes it
//! since version 25; older ones read nothing else, and take members of any name.
//!
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::archive_target::{NewFile, open};
use super::dir::{blob_error, io_error};
use super::docker_archive::MANIFEST_FILE;
use super::layout::{INDEX_FILE, LAYOUT_FILE, LAYOUT_MARK, blob_name};
use super::layout_writer::merge_index;
use super::manifest::Descriptor;
use crate::error::OciError;
use crate::sys::file::File;
use crate::types::Digest;

/// An archive that is being written.
pub(super) struct ArchiveWriter {
    tar: tar::Builder<BufWriter<File>>,
    path: PathBuf,
    /// `None` for what is written to as it comes.
    target: Option<NewFile>,
    blobs: BTreeMap<Digest, u64>,
    directories: BTreeSet<String>,
    /// A member was cut off, and nothing can make the archive whole again.
    broken: bool,
}

impl ArchiveWriter {
    /// Begins one. `replace` says what becomes of an archive that is there.
    pub(super) fn create(path: &Path, replace: bool) -> Result<Self, OciError> {
        let (file, target) = open(path, replace)?;
        Ok(ArchiveWriter {
            tar: tar::Builder::new(BufWriter::with_capacity(256 << 10, file)),
            path: path.to_owned(),
            target,
            blobs: BTreeMap::new(),
            directories: BTreeSet::new(),
            broken: false,
        })
    }

    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// Writes a blob; `reader` must fail if it is not `size` bytes of this digest.
    pub(super) fn put_blob(&mut self, digest: &Digest, size: u64, reader: impl Read) -> Result<(), OciError> {
        self.ensure_directory("blobs/")?;
        self.ensure_directory(&format!("blobs/{}/", digest.algorithm().name()))?;
        self.member(&blob_name(digest), EntryType::Regular, size, reader)?;
        self.blobs.insert(digest.clone(), size);
        Ok(())
    }

    /// Writes the lists of images, and gives the file its name.
    ///
    /// Returns [`OciError::ArchiveExists`] if another has come by that name meanwhile.
    pub(super) fn finish(mut self, entries: &[Descriptor], docker: Option<&[Value]>) -> Result<(), OciError> {
        if self.broken {
            return Err(OciError::Unfinished(self.path));
        }
        let index = merge_index(None, entries)?.to_string();
        self.small_file(INDEX_FILE, index.as_bytes())?;
        self.small_file(LAYOUT_FILE, LAYOUT_MARK)?;
        if let Some(images) = docker {
            self.small_file(MANIFEST_FILE, json!(images).to_string().as_bytes())?;
        }
        let path = self.path;
        let mut writer = self.tar.into_inner().map_err(io_error("write", &path))?;
        writer.flush().map_err(io_error("write", &path))?;
        match self.target {
            Some(target) => target.finish(path),
            None => Ok(()),
        }
    }

    fn small_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), OciError> {
        self.member(name, EntryType::Regular, bytes.len() as u64, bytes)
    }

    fn ensure_directory(&mut self, name: &str) -> Result<(), OciError> {
        if self.directories.insert(name.to_owned()) {
            self.member(name, EntryType::Directory, 0, io::empty())?;
        }
        Ok(())
    }

    fn member(&mut self, name: &str, kind: EntryType, size: u64, reader: impl Read) -> Result<(), OciError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let written = self.tar.append_data(&mut header, name, reader);
        self.broken |= written.is_err();
        written.map_err(blob_error("write", &self.path))
    }
}

impl std::fmt::Debug for ArchiveWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveWriter")
            .field("path", &self.path)
            .field("blobs", &self.blobs)
            .finish_non_exhaustive()
    }
}
