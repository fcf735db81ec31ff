//! Writes image layouts as directories, new ones or into those that exist.
//!
//! A blob is written under a temporary name and renamed when its digest is known to be right, so a layout
//! never shows part of a blob. `index.json` is replaced last and at once. Before that, one `syncfs` makes all
//! blobs durable: after a crash the index names nothing that is not there. Between reading and replacing the
//! index the directory is locked (`flock`), so two writers keep each other's images.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::dir::{Dir, TemporaryFile};
use super::document::{Document, parse_value};
use super::layout::{Files, INDEX_FILE, LAYOUT_FILE, LAYOUT_MARK, Layout, blob_name, has_tag};
use super::manifest::{Descriptor, Index, set};
use super::media_type::OCI_INDEX;
use super::shape::MANIFEST;
use crate::error::OciError;
use crate::sys::lock::Locked;
use crate::sys::path;
use crate::types::{Algorithm, Digest, Limits};

/// The directory of the blobs.
const BLOBS: &str = "blobs";

/// A layout that blobs are being written to.
///
/// One that it has made, and that does not become complete, is removed with it.
#[derive(Debug)]
pub(super) struct LayoutWriter {
    dir: Arc<Dir>,
    blobs: BTreeMap<&'static str, Dir>,
    /// Whether the directory was made, and whether the layout in it: nothing else is removed again.
    made_directory: bool,
    made_layout: bool,
    /// Others that write to the layout hold it too, and need what is there.
    shared: Option<Locked>,
}

impl LayoutWriter {
    /// Opens the layout at `path`; a missing or empty directory becomes one.
    pub(super) fn create(path: &Path) -> Result<Self, OciError> {
        let (dir, made_directory) = Dir::ensure(path)?;
        let mut writer = LayoutWriter {
            dir: Arc::new(dir),
            blobs: BTreeMap::new(),
            made_directory,
            made_layout: false,
            shared: None,
        };
        writer.begin(path)?;
        Ok(writer)
    }

    fn begin(&mut self, path: &Path) -> Result<(), OciError> {
        let dir = Arc::clone(&self.dir);
        let lock = dir.lock()?;
        if dir.file(LAYOUT_FILE)?.is_some() {
            if dir.file(INDEX_FILE)?.is_some() {
                Layout::open(Files::Dir(Arc::clone(&dir)), &Limits::DEFAULT)?;
            }
        } else if dir.is_empty()? {
            self.made_layout = true;
            dir.replace_file(LAYOUT_FILE, LAYOUT_MARK)?;
        } else {
            return Err(OciError::NotEmpty(path.to_owned()));
        }
        let sha256 = Algorithm::Sha256.name();
        let blobs = dir.ensure_child(BLOBS)?;
        self.blobs.insert(sha256, blobs.ensure_child(sha256)?);
        self.shared = Some(blobs.lock_shared()?);
        drop(lock);
        Ok(())
    }

    /// Whether the layout has a blob of this digest and size. Its content was checked by who wrote it, and is checked
    /// again by who reads it.
    pub(super) fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, OciError> {
        Ok(self.dir.file(&blob_name(digest))?.is_some_and(|blob| blob.length() == size))
    }

    pub(super) fn create_temporary(&self) -> Result<TemporaryFile, OciError> {
        self.dir.create_temporary()
    }

    /// Gives a complete blob its name.
    pub(super) fn keep_blob(&mut self, blob: TemporaryFile, digest: &Digest) -> Result<(), OciError> {
        match self.blobs.entry(digest.algorithm().name()) {
            Entry::Occupied(child) => blob.rename(child.get(), digest.hex()),
            Entry::Vacant(child) => {
                let dir = self.dir.ensure_child(BLOBS)?.ensure_child(child.key())?;
                blob.rename(child.insert(dir), digest.hex())
            }
        }
    }

    /// Makes the blobs durable, and then the images known.
    pub(super) fn finish(mut self, entries: &[Descriptor]) -> Result<(), OciError> {
        self.dir.sync_filesystem()?;
        let _lock = self.dir.lock()?;
        let old = Files::Dir(Arc::clone(&self.dir)).document(INDEX_FILE, &Limits::DEFAULT)?;
        let index = merge_index(old.as_deref(), entries)?;
        self.dir.replace_file(INDEX_FILE, index.to_string().as_bytes())?;
        (self.made_layout, self.made_directory) = (false, false);
        self.dir.sync()
    }

    /// Removes a layout without an image, unless somebody else is writing to it.
    fn remove_made(&self) -> Result<(), OciError> {
        let _lock = self.dir.lock()?;
        if self.dir.file(INDEX_FILE)?.is_some() {
            return Ok(());
        }
        if let Some(shared) = &self.shared
            && !self.dir.child_lock_is_ours(shared)?
        {
            return Ok(());
        }
        if self.made_layout {
            self.dir.remove_child_tree(BLOBS)?;
            self.dir.remove_file(LAYOUT_FILE)?;
        }
        if self.made_directory {
            // Something else may be in it by now.
            path::remove_directory(self.dir.path()).ok();
        }
        Ok(())
    }
}

impl Drop for LayoutWriter {
    fn drop(&mut self) {
        if (self.made_layout || self.made_directory)
            && let Err(error) = self.remove_made()
        {
            tracing::warn!(path = %self.dir.path().display(), %error, "cannot remove an unfinished layout");
        }
    }
}

/// Adds `entries` to an index. Old entries with the tag of a new one go; all others, and all other fields, stay.
pub(super) fn merge_index(old: Option<&[u8]>, entries: &[Descriptor]) -> Result<Value, OciError> {
    let mut index = match old {
        None => json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }),
        Some(bytes) => parse_value(bytes, INDEX_FILE, &MANIFEST)?,
    };
    let document = Document::from_value(&index, OCI_INDEX);
    let is_replaced = |descriptor: &Descriptor| {
        entries.iter().any(|entry| {
            let tag = entry.annotations.get(super::manifest::REF_NAME);
            match tag {
                Some(tag) => has_tag(descriptor, tag),
                None => descriptor.annotations.is_empty() && descriptor.digest == entry.digest,
            }
        })
    };
    let kept = Index::parse(&document, INDEX_FILE)?.manifests.into_iter().filter(|old| !is_replaced(old));
    let manifests: Vec<Value> =
        kept.map(|old| old.raw).chain(entries.iter().map(|new| new.raw.clone())).collect();
    set(&mut index, "manifests", Value::Array(manifests));
    Ok(index)
}
