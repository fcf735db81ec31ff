//! Layers in additional layer stores: directories that another program serves, as a rule by FUSE, and fills when their
//! files are read.
//!
//! ```text
//! <store>[/<base64 of the image's reference>]/<digest of the table of contents>/
//!     diff/   the layer's tree, in the form that overlayfs takes as a lowerdir
//!     info    what is known of it, as JSON
//!     blob    the layer as it was delivered
//!     use     is never there: making it says that the layer is used once more
//! ```
//!
//! Removing the layer's directory (`rmdir`) says that it is used once less. A store that counts answers both with ENOENT; in
//! one that does not, such as a plain directory, a file comes and goes and the directory, which is not empty, stays.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{AdditionalLayerError, Limit};
use crate::sys::file::File;
use crate::sys::{beneath, path};
use crate::types::{Digest, Limits};

const DIFF: &str = "diff";
const INFO: &str = "info";
const BLOB: &str = "blob";
const USE: &str = "use";

/// The directory of a layer in an additional layer store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AdditionalDirectory(PathBuf);

impl AdditionalDirectory {
    /// Looks for a layer in `store`, by the base64 of its image's reference too if the store tells images apart.
    ///
    /// Returns `None` if the store has it not, or does not answer.
    pub(crate) fn find(store: &Path, reference: Option<&str>, toc: &Digest) -> Option<Self> {
        let mut directory = store.to_owned();
        if let Some(reference) = reference {
            // The alphabet has a slash, and what stands after one is a directory below.
            directory.extend(reference.split('/').filter(|part| !part.is_empty()));
        }
        directory.push(toc.to_string());
        let whole = path::is_directory(&directory.join(DIFF))
            && path::is_file(&directory.join(INFO))
            && path::is_file(&directory.join(BLOB));
        if !whole {
            tracing::debug!(path = %directory.display(), "no such layer in the additional layer store");
        }
        whole.then_some(AdditionalDirectory(directory))
    }

    /// The one that a record names.
    pub(crate) fn from_bytes(path: &[u8]) -> Self {
        AdditionalDirectory(PathBuf::from(OsStr::from_bytes(path)))
    }

    /// The one at a path.
    pub(crate) fn from_path(path: &Path) -> Self {
        AdditionalDirectory(path.to_owned())
    }

    /// As a record names it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.clone().into_os_string().into_vec()
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of the layer's tree.
    pub(crate) fn diff_path(&self) -> PathBuf {
        self.0.join(DIFF)
    }

    /// A handle on the layer's tree.
    pub(crate) fn open_diff(&self) -> io::Result<OwnedFd> {
        beneath::open_directory(&self.diff_path())
    }

    /// The same, for opening what is in it.
    pub(crate) fn pin_diff(&self) -> io::Result<OwnedFd> {
        beneath::pin_directory(&self.diff_path())
    }

    /// The layer as it was delivered.
    ///
    /// Returns [`AdditionalLayerError::Io`] if it cannot be opened.
    pub(crate) fn open_blob(&self) -> Result<File, AdditionalLayerError> {
        self.open_file(BLOB)
    }

    /// What the store knows of the layer.
    ///
    /// Returns [`AdditionalLayerError::Io`] if it cannot be read, and [`AdditionalLayerError::Limit`] if it is
    /// longer than is granted. A layer with files of 65536 users and as many groups has 1 MiB.
    pub(crate) fn read_info(&self, limits: &Limits) -> Result<Vec<u8>, AdditionalLayerError> {
        let mut bytes = Vec::new();
        let most = limits.layer_info_bytes.saturating_add(1);
        let read = self.open_file(INFO)?.take(most).read_to_end(&mut bytes);
        read.map_err(|source| self.failed("read", INFO, source))?;
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        limits.check(Limit::LayerInfoBytes, length, || self.0.join(INFO).display().to_string())?;
        Ok(bytes)
    }

    /// What is wrong with that.
    pub(crate) fn bad_info(&self, reason: impl Into<String>) -> AdditionalLayerError {
        AdditionalLayerError::Info { path: self.0.join(INFO), reason: reason.into() }
    }

    /// Tells the store that the layer is used once more. A store that does not want to know is no failure.
    pub(crate) fn tell_use(&self) {
        let file = self.0.join(USE);
        match File::create(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.untold(&error),
            Ok(_) => drop(path::remove_file(&file).inspect_err(|error| self.untold(error))),
        }
    }

    /// Tells the store that the layer is used once less. A directory that is not called as a layer's is no store's, whatever a record
    /// says, and goes not even if it is empty.
    pub(crate) fn tell_release(&self) {
        let name = self.0.file_name().and_then(OsStr::to_str);
        if name.is_none_or(|name| name.parse::<Digest>().is_err()) {
            return;
        }
        match path::remove_directory(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.untold(&error),
            _ => {}
        }
    }

    fn untold(&self, error: &io::Error) {
        tracing::debug!(path = %self.0.display(), %error, "the additional layer store counts no users");
    }

    fn open_file(&self, name: &'static str) -> Result<File, AdditionalLayerError> {
        let path = self.0.join(name);
        // A pipe would make us wait for a writer.
        match path::is_file(&path) {
            false => Err(self.failed("open", name, io::ErrorKind::NotFound.into())),
            true => File::open(&path).map_err(|source| self.failed("open", name, source)),
        }
    }

    fn failed(&self, action: &'static str, name: &str, source: io::Error) -> AdditionalLayerError {
        AdditionalLayerError::Io { action, path: self.0.join(name), source }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_layer_is_where_its_reference_and_digest_say() {
        let dir = tempfile::tempdir().unwrap();
        let toc = Digest::sha256(b"toc");
        // Base64 has a slash for some references: "???" is "Pz8/".
        for reference in [None, Some("cg=="), Some("Pz8/"), Some("Pz8/YQ==")] {
            let parts = reference.unwrap_or_default();
            let layer = dir.path().join(parts).join(toc.to_string());
            fs::create_dir_all(layer.join(DIFF)).unwrap();
            for file in [INFO, BLOB] {
                assert_eq!(
                    AdditionalDirectory::find(dir.path(), reference, &toc),
                    None,
                    "{parts} without {file}"
                );
                fs::write(layer.join(file), "").unwrap();
            }
            let found = AdditionalDirectory::find(dir.path(), reference, &toc).unwrap();
            assert_eq!(found.path(), layer);
            assert_eq!(AdditionalDirectory::from_bytes(&found.to_bytes()), found);
        }
        assert_eq!(AdditionalDirectory::find(dir.path(), Some("other"), &toc), None);
        assert_eq!(AdditionalDirectory::find(dir.path(), None, &Digest::sha256(b"other")), None);
    }

    #[test]
    fn a_store_that_counts_nothing_keeps_its_layers() {
        let dir = tempfile::tempdir().unwrap();
        let layer = AdditionalDirectory(dir.path().join(Digest::sha256(b"layer").to_string()));
        fs::create_dir_all(layer.diff_path()).unwrap();
        layer.tell_use();
        assert!(!layer.path().join(USE).exists());
        layer.tell_release();
        assert!(layer.diff_path().exists());
        // Neither is one that is gone a failure.
        let gone = AdditionalDirectory(dir.path().join(Digest::sha256(b"gone").to_string()));
        gone.tell_use();
        gone.tell_release();
    }

    #[test]
    fn only_what_is_called_as_a_layer_is_goes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = AdditionalDirectory(dir.path().join(Digest::sha256(b"layer").to_string()));
        let other = AdditionalDirectory(dir.path().join("empty"));
        for directory in [&layer, &other] {
            fs::create_dir(directory.path()).unwrap();
            directory.tell_release();
        }
        assert!(!layer.path().exists() && other.path().exists());
    }

    #[test]
    fn more_is_not_read_than_is_granted() {
        let dir = tempfile::tempdir().unwrap();
        let layer = AdditionalDirectory(dir.path().to_owned());
        let limits = Limits { layer_info_bytes: 1000, ..Limits::DEFAULT };
        let read = || layer.read_info(&limits);
        assert!(matches!(read(), Err(AdditionalLayerError::Io { .. })));
        File::create(&dir.path().join(INFO)).unwrap().set_length(1000).unwrap();
        assert_eq!(read().unwrap().len(), 1000);
        File::create(&dir.path().join(INFO)).unwrap().set_length(1001).unwrap();
        let error = read().unwrap_err();
        assert!(
            matches!(&error, AdditionalLayerError::Limit(limit) if limit.limit == Limit::LayerInfoBytes),
            "{error:?}"
        );
    }
}
