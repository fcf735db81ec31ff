//! Image layouts: `oci-layout`, `index.json`, and blobs by their digest, in a directory or a tar.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::blob::{BlobReader, Extent};
use super::dir::{Dir, blob_error, io_error};
use super::document::{Document, check_size, digest_of, parse_typed, parse_value};
use super::manifest::{CONTAINERD_NAME, Descriptor, Index, REF_NAME};
use super::media_type::{OCI_INDEX, is_index, is_manifest};
use super::platform::{Platform, is_attestation};
use super::shape;
use super::tar_index::TarIndex;
use crate::error::{BlobError, Choices, Limit, OciError, shown};
use crate::types::{Algorithm, Digest, Limits};

/// The file that marks a directory as an image layout.
pub(super) const LAYOUT_FILE: &str = "oci-layout";
/// The index of a layout's images.
pub(super) const INDEX_FILE: &str = "index.json";
/// What [`LAYOUT_FILE`] holds.
pub(super) const LAYOUT_MARK: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The files of a layout, wherever they are.
#[derive(Debug)]
pub(super) enum Files {
    Dir(Arc<Dir>),
    Tar(TarIndex),
}

impl Files {
    /// The file of this name; `None` if there is none.
    pub(super) fn file(&self, name: &str) -> Result<Option<Extent>, OciError> {
        match self {
            Files::Dir(dir) => dir.file(name),
            Files::Tar(tar) => tar.file(name.as_bytes()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Files::Dir(dir) => dir.path(),
            Files::Tar(tar) => tar.path(),
        }
    }

    /// Reads a whole document that has no digest to check; `None` if it is not there.
    pub(super) fn document(&self, name: &str, limits: &Limits) -> Result<Option<Vec<u8>>, OciError> {
        let Some(extent) = self.file(name)? else { return Ok(None) };
        check_size(extent.length(), name, limits)?;
        let mut bytes = Vec::new();
        let path = self.path().join(name);
        extent.reader().read_to_end(&mut bytes).map_err(io_error("read", &path))?;
        Ok(Some(bytes))
    }
}

/// The name of a blob in a layout.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// An image layout that was checked to be one.
#[derive(Debug)]
pub(super) struct Layout {
    files: Files,
    index: Index,
    limits: Limits,
}

impl Layout {
    pub(super) fn open(files: Files, limits: &Limits) -> Result<Self, OciError> {
        let missing = |missing| {
            let path = files.path().to_owned();
            OciError::Format { path, format: "image layout", missing }
        };
        let mark = files.document(LAYOUT_FILE, limits)?.ok_or_else(|| missing(LAYOUT_FILE))?;
        check_version(&mark, files.path())?;
        let index = files.document(INDEX_FILE, limits)?.ok_or_else(|| missing(INDEX_FILE))?;
        let name = files.path().join(INDEX_FILE).display().to_string();
        let index = Index::parse(&Document::new(index, OCI_INDEX), &name)?;
        Ok(Layout { files, index, limits: *limits })
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn path(&self) -> &Path {
        self.files.path()
    }

    /// The images and indexes that the layout's own index lists.
    pub(super) fn entries(&self) -> &[Descriptor] {
        &self.index.manifests
    }

    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<BlobReader, OciError> {
        let missing = || {
            let path = self.files.path().to_owned();
            OciError::BlobMissing { path, digest: digest.to_string() }
        };
        let extent = self.files.file(&blob_name(digest))?.ok_or_else(missing)?;
        BlobReader::new(extent, digest, size)
    }

    /// Reads and verifies a document.
    pub(super) fn document(&self, descriptor: &Descriptor) -> Result<Document, OciError> {
        check_size(descriptor.size, &descriptor.digest.to_string(), &self.limits)?;
        let mut bytes = Vec::new();
        let mut reader = self.blob(&descriptor.digest, descriptor.size)?;
        let path = self.files.path().join(blob_name(&descriptor.digest));
        reader.read_to_end(&mut bytes).map_err(blob_error("read", &path))?;
        let digest = descriptor.digest.clone();
        Ok(Document { bytes, digest, media_type: descriptor.media_type.clone() })
    }

    /// The entries with this tag, or of the only image if none is given.
    pub(super) fn tagged(&self, tag: Option<&str>) -> Result<Vec<&Descriptor>, OciError> {
        let path = || self.files.path().to_owned();
        let entries = self.entries().iter().filter(|entry| !is_attestation(entry));
        let tags: BTreeSet<Option<&str>> = entries.clone().map(tag_of).collect();
        let available =
            || Choices(tags.iter().map(|tag| tag.unwrap_or("an image without tag").to_owned()).collect());
        if tags.is_empty() {
            return Err(OciError::NoImage(path()));
        }
        match tag {
            Some(tag) => {
                let found: Vec<_> = entries.filter(|entry| has_tag(entry, tag)).collect();
                if found.is_empty() {
                    return Err(OciError::TagMissing {
                        path: path(),
                        tag: tag.to_owned(),
                        available: available(),
                    });
                }
                Ok(found)
            }
            // Several entries with the same tag, or all without, are one image for several platforms.
            None if tags.len() == 1 => Ok(entries.collect()),
            None => Err(OciError::TagNeeded { path: path(), available: available() }),
        }
    }

    /// The images that `roots` lead to, through indexes and their indexes.
    pub(super) fn images(&self, roots: &[&Descriptor]) -> Result<Vec<Descriptor>, OciError> {
        let mut walk = IndexWalk::new(self);
        for root in roots {
            walk.visit(root)?;
        }
        Ok(walk.images)
    }
}

/// The tag of an entry: its own name, or the full one that docker and containerd write beside it.
pub(super) fn tag_of(entry: &Descriptor) -> Option<&str> {
    let tag = entry.annotations.get(CONTAINERD_NAME).or_else(|| entry.annotations.get(REF_NAME));
    tag.map(String::as_str)
}

pub(super) fn has_tag(entry: &Descriptor, tag: &str) -> bool {
    [REF_NAME, CONTAINERD_NAME].iter().any(|key| entry.annotations.get(*key).is_some_and(|name| name == tag))
}

fn check_version(mark: &[u8], path: &Path) -> Result<(), OciError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Mark {
        image_layout_version: String,
    }
    let mark: Mark = parse_typed(&parse_value(mark, LAYOUT_FILE, &shape::LAYOUT)?, LAYOUT_FILE)?;
    let version = mark.image_layout_version;
    if version.split('.').next() != Some("1") {
        let version = shown(version);
        return Err(OciError::LayoutVersion { path: path.to_owned(), version });
    }
    Ok(())
}

/// Collects the images below an index. Depth, the number of indexes and that of descriptors are bounded, and
/// each index is read once however many others name it.
struct IndexWalk<'a> {
    layout: &'a Layout,
    images: Vec<Descriptor>,
    /// An image may be listed twice, and also for two platforms.
    listed: HashSet<(Digest, Option<Platform>)>,
    seen: BTreeSet<Digest>,
    descriptors: usize,
}

impl<'a> IndexWalk<'a> {
    fn new(layout: &'a Layout) -> Self {
        let (listed, seen) = (HashSet::new(), BTreeSet::new());
        IndexWalk { layout, images: Vec::new(), listed, seen, descriptors: 0 }
    }

    /// Looks at what is listed, and at all that is below. How deep that is others decide, so no call is made for each level.
    fn visit(&mut self, top: &Descriptor) -> Result<(), OciError> {
        // The indexes that lead to where the walk is, and what is left to be looked at in each.
        let (mut above, mut rest) = (Vec::new(), vec![vec![top.clone()].into_iter()]);
        while let Some(listed) = rest.last_mut() {
            match listed.next() {
                None => {
                    rest.pop();
                    above.pop();
                }
                Some(descriptor) => {
                    if let Some(index) = self.look_at(&descriptor, &above)? {
                        above.push(descriptor.digest);
                        rest.push(index.manifests.into_iter());
                    }
                }
            }
        }
        Ok(())
    }

    /// The index that a descriptor is of, if it is to be looked into. `above` are the indexes that lead here.
    fn look_at(&mut self, descriptor: &Descriptor, above: &[Digest]) -> Result<Option<Index>, OciError> {
        self.descriptors = self.descriptors.saturating_add(1);
        self.bound(Limit::IndexEntries, self.descriptors)?;
        if is_attestation(descriptor) {
            return Ok(None);
        }
        if is_manifest(&descriptor.media_type) {
            if self.listed.insert((descriptor.digest.clone(), descriptor.platform.clone())) {
                self.images.push(descriptor.clone());
            }
            return Ok(None);
        }
        let digest = || descriptor.digest.to_string();
        if !is_index(&descriptor.media_type) {
            // Indexes list other things beside images; a reader has to skip what it does not know, unless it was
            // all that was asked for.
            if above.is_empty() {
                let media_type = shown(&descriptor.media_type);
                return Err(OciError::UnknownManifestType { digest: digest(), media_type });
            }
            return Ok(None);
        }
        if above.contains(&descriptor.digest) {
            return Err(OciError::IndexLoop(digest()));
        }
        let depth = u64::try_from(above.len()).unwrap_or(u64::MAX).saturating_add(1);
        self.layout.limits.check(Limit::IndexDepth, depth, digest)?;
        if !self.seen.insert(descriptor.digest.clone()) {
            return Ok(None);
        }
        self.bound(Limit::Indexes, self.seen.len())?;
        let document = self.layout.document(descriptor)?;
        Index::parse(&document, &digest()).map(Some)
    }

    fn bound(&self, limit: Limit, count: usize) -> Result<(), OciError> {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        Ok(self.layout.limits.check(limit, count, || self.layout.path().display().to_string())?)
    }
}

/// Checks bytes in memory against the digest that names them.
pub(super) fn check_digest(bytes: &[u8], expected: &Digest) -> Result<(), OciError> {
    let found = digest_of(bytes, expected.algorithm());
    if found != *expected {
        return Err(BlobError::Digest { expected: expected.to_string(), found: found.to_string() }.into());
    }
    Ok(())
}

/// The digest that a blob's name in an archive promises, if it is named as in a layout.
pub(super) fn digest_in_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    let digest: Digest = format!("{algorithm}:{hex}").parse().ok()?;
    (digest.algorithm() == Algorithm::Sha256).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::media_type::OCI_MANIFEST;

    #[test]
    fn a_loop_is_seen_before_anything_is_read() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(LAYOUT_FILE), LAYOUT_MARK).unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), br#"{"schemaVersion":2}"#).unwrap();
        let layout =
            Layout::open(Files::Dir(Arc::new(Dir::open(dir.path()).unwrap())), &Limits::DEFAULT).unwrap();
        let mut walk = IndexWalk::new(&layout);
        let own = Descriptor::new(OCI_INDEX, Digest::sha256(b"own"), 1);
        let error = walk.look_at(&own, std::slice::from_ref(&own.digest)).unwrap_err();
        assert!(matches!(error, OciError::IndexLoop(_)), "{error}");
    }

    /// Whoever grants a depth gets it, and no thread runs out of stack.
    #[test]
    fn indexes_may_be_as_deep_as_is_granted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        std::fs::write(dir.path().join(LAYOUT_FILE), LAYOUT_MARK).unwrap();
        std::fs::write(dir.path().join(INDEX_FILE), br#"{"schemaVersion":2}"#).unwrap();
        let mut one = Descriptor::new(OCI_MANIFEST, Digest::sha256(b"a manifest"), 10);
        for _ in 0..10_000 {
            let (kind, digest, size) = (&one.media_type, &one.digest, one.size);
            let listed = format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#);
            let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{listed}]}}"#);
            let digest = Digest::sha256(index.as_bytes());
            std::fs::write(dir.path().join(blob_name(&digest)), &index).unwrap();
            one = Descriptor::new(OCI_INDEX, digest, index.len() as u64);
        }
        let limits =
            Limits { index_depth: 10_000, indexes: 10_000, index_entries: 20_000, ..Limits::DEFAULT };
        let layout = Layout::open(Files::Dir(Arc::new(Dir::open(dir.path()).unwrap())), &limits).unwrap();
        let mut walk = IndexWalk::new(&layout);
        walk.visit(&one).unwrap();
        assert_eq!(walk.images.len(), 1);
    }

    #[test]
    fn only_names_of_a_layout_promise_a_digest() {
        let digest = Digest::sha256(b"");
        assert_eq!(digest_in_name(&blob_name(&digest)), Some(digest));
        for name in ["blobs/sha256/00", "blobs/sha256", "x/blobs/sha256/00", "config.json"] {
            assert_eq!(digest_in_name(name), None);
        }
    }
}
