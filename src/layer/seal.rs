//! Sealing a layer: a directory that nothing is written to any more gets its manifest, its tree digest and its tar-split.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Seek};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use layerstore_schema::manifest::{Kind, Manifest};
use layerstore_schema::record::{LayerContent, LayerRecord};

use super::export::refuse_marker_name;
use super::files::Contents;
use super::import::{ImportOptions, Owners, UnpackedLayer};
use super::pipeline::Streams;
use super::stack::Stack;
use super::table::TocFound;
use crate::archive::split::{self, Content};
use crate::disk::{self, Filled, Staging, UnpackedTree, Written, XattrNamespace};
use crate::error::{ExportError, ImportError, UnpackError, quoted};
use crate::meta::PreparedBlob;
use crate::sys::beneath;
use crate::sys::file::File;
use crate::types::{ContentHash, Digest, Metadata, RelPath, TreeDigest};

/// A layer ready for its rows.
#[derive(Debug)]
pub(crate) struct SealedLayer {
    pub(crate) directory: Filled,
    pub(crate) content: SealedContent,
    pub(crate) streams: Streams,
    pub(crate) split: PreparedBlob,
    /// Who owns something in the archive.
    pub(crate) owners: Owners,
    /// The digest of the blob's table of contents, if that agrees with the archive.
    pub(crate) toc_digest: Option<Digest>,
    /// Whether every directory but the root was named by the archive.
    pub(crate) self_contained: bool,
    /// The others, and the root if it was not.
    implied: Arc<[Implied]>,
    /// What the process may not make, and left out.
    pub(crate) left_out: Vec<disk::LeftOut>,
}

impl SealedLayer {
    /// What has to be known to share the tree.
    pub(crate) fn shape(&self) -> Shape {
        Shape { manifest: self.content.manifest.clone(), implied: self.implied.clone() }
    }

    /// A record with all that is known of the layer's content now; `split` is the row of its tar-split.
    pub(crate) fn describe(&self, split: [u8; 32], record: LayerRecord) -> LayerRecord {
        LayerRecord {
            content: LayerContent::Sealed(self.content.tree.0),
            diff_size: Some(self.streams.diff_size),
            split: Some(split),
            self_contained: self.self_contained,
            compression: Some(self.streams.compression.name().to_owned()),
            uids: self.owners.uids.iter().copied().collect(),
            gids: self.owners.gids.iter().copied().collect(),
            ..record
        }
    }
}

/// A directory that the archive did not name.
#[derive(Debug)]
struct Implied {
    path: RelPath,
    /// Whether a layer below has it.
    inherited: bool,
}

/// The tree of a layer, and what of it depends on the layers below.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) manifest: Arc<Manifest>,
    implied: Arc<[Implied]>,
}

impl Shape {
    /// Whether the same archive gives the same tree above `below`.
    pub(crate) fn fits(&self, below: &Stack) -> bool {
        self.implied.iter().all(|implied| match inherited(below, &implied.path) {
            Some(expected) => {
                self.manifest.get(implied.path.as_bytes()).is_some_and(|entry| entry.metadata == expected)
            }
            None => !implied.inherited,
        })
    }
}

/// What is in a directory that nothing is written to any more.
#[derive(Debug)]
pub(crate) struct SealedContent {
    pub(crate) tree: TreeDigest,
    pub(crate) manifest: Arc<Manifest>,
    pub(crate) manifest_blob: PreparedBlob,
    pub(crate) usage: disk::Usage,
}

impl SealedContent {
    /// Reads a directory, but for the files whose inodes are `known`.
    ///
    /// Returns [`ImportError::Scan`] if it cannot be read, or changes while it is.
    pub(crate) fn read(
        directory: BorrowedFd<'_>,
        known: &HashMap<u64, ContentHash>,
        namespace: XattrNamespace,
    ) -> Result<Self, ImportError> {
        Ok(Self::of(disk::measured_scan(directory, known, None, namespace)?))
    }

    /// The same of a directory whose files have just been written, as `contents` and `tree` say: each was looked at when it was finished.
    fn read_back(
        directory: BorrowedFd<'_>,
        contents: &Contents,
        tree: &UnpackedTree,
        namespace: XattrNamespace,
    ) -> Result<Self, ImportError> {
        let written = Written { looks: contents.looks(), linked: &tree.linked };
        Ok(Self::of(disk::measured_scan(directory, contents.by_inode(), Some(written), namespace)?))
    }

    fn of((manifest, usage): (Manifest, disk::Usage)) -> Self {
        let encoded = manifest.encode();
        SealedContent {
            tree: layerstore_schema::manifest::digest_of_encoded(&encoded),
            manifest: Arc::new(manifest),
            manifest_blob: PreparedBlob::from_bytes(&encoded),
            usage,
        }
    }

    /// Refuses a layer that no archive could hold, and that a mount program would misread.
    ///
    /// Returns [`ExportError::MarkerName`] if a file has a name that says in an archive that another is deleted.
    pub(crate) fn refuse_marker_names(&self) -> Result<(), ExportError> {
        let files = self.manifest.entries().iter().filter(|entry| entry.kind != Kind::Whiteout);
        files.map(|entry| entry.path.as_slice()).try_for_each(refuse_marker_name)
    }
}

/// Finishes a directory: those that the archive did not name itself get what the layers below say of them, and
/// manifest, tree digest and tar-split are made. `spool` gives empty files for the latter.
///
/// Returns [`ImportError`] if the directory cannot be read back.
pub(crate) fn seal(
    unpacked: UnpackedLayer,
    below: &Stack,
    spool: impl FnOnce() -> Result<File, ImportError>,
    options: &ImportOptions,
) -> Result<SealedLayer, ImportError> {
    let implied = describe_implied(&unpacked, below, options)?;
    let UnpackedLayer { staging, streams, contents, tree, owners, toc, records, budget, .. } = unpacked;
    let namespace = options.unpack.xattr_namespace;
    let content = SealedContent::read_back(staging.directory(), &contents, &tree, namespace)?;
    for entry in content.manifest.entries() {
        // In the manifest it leads to the first of the file's names, which may be longer than the one in the archive.
        if let Kind::HardLink { target } = &entry.kind {
            let bytes = u64::try_from(target.len()).unwrap_or(u64::MAX);
            budget.take_paths(bytes, || quoted(&entry.path)).map_err(UnpackError::from)?;
        }
    }
    let split = assemble_split(&staging, &contents, &tree, &content.manifest, records, spool)?;
    Ok(SealedLayer {
        content,
        self_contained: tree.implicit.iter().all(RelPath::is_root),
        implied: implied.into(),
        left_out: tree.left_out,
        owners,
        toc_digest: match toc {
            TocFound::Agrees(digest) => Some(digest),
            TocFound::None | TocFound::Absent(_) => None,
        },
        directory: staging.filled(),
        streams,
        split,
    })
}

/// Finishes a directory that is not going to be sealed as it is: as [`seal`] does, without manifest and tar-split. Returns
/// the hashes of its files by their inodes.
///
/// Returns [`ImportError`] if the directory cannot be changed.
pub(crate) fn complete(
    unpacked: UnpackedLayer,
    below: &Stack,
    options: &ImportOptions,
) -> Result<(Staging, HashMap<u64, ContentHash>), ImportError> {
    describe_implied(&unpacked, below, options)?;
    Ok((unpacked.staging, unpacked.contents.by_inode().clone()))
}

/// Gives the directories that the archive did not name the metadata that the layers below have for them.
fn describe_implied(
    unpacked: &UnpackedLayer,
    below: &Stack,
    options: &ImportOptions,
) -> Result<Vec<Implied>, ImportError> {
    let mut implied = Vec::with_capacity(unpacked.tree.implicit.len());
    for path in &unpacked.tree.implicit {
        // Without any, they are root's already.
        let new = (unpacked.root != (0, 0)).then(|| Metadata {
            mode: 0o755,
            uid: unpacked.root.0,
            gid: unpacked.root.1,
            ..Metadata::default()
        });
        let inherited = inherited(below, path);
        implied.push(Implied { path: path.clone(), inherited: inherited.is_some() });
        if let Some(metadata) = inherited.or(new) {
            // A few bytes of an archive have the xattrs of all these directories once more in memory.
            unpacked
                .budget
                .take_xattrs(&metadata.xattrs, || quoted(path.as_bytes()))
                .map_err(UnpackError::from)?;
            disk::apply_metadata(unpacked.staging.directory(), path, &metadata, &options.unpack)?;
        }
    }
    Ok(implied)
}

fn inherited(below: &Stack, path: &RelPath) -> Option<Metadata> {
    let entry = below.find(path.as_bytes())?;
    matches!(entry.kind, Kind::Directory { .. }).then(|| entry.metadata.clone())
}

/// Contents that no file of the layer has, because the archive replaced them itself, go into the tar-split as they
/// are; the others by their hashes.
fn assemble_split(
    staging: &Staging,
    contents: &Contents,
    tree: &UnpackedTree,
    manifest: &Manifest,
    mut records: File,
    spool: impl FnOnce() -> Result<File, ImportError>,
) -> Result<PreparedBlob, ImportError> {
    let hash_of = |kind: &Kind| match kind {
        Kind::File { content, .. } => Some(*content),
        _ => None,
    };
    let present: HashSet<ContentHash> =
        manifest.entries().iter().filter_map(|entry| hash_of(&entry.kind)).collect();
    let all = contents.in_order()?;
    let table: Vec<Option<Content>> =
        all.iter().map(|&(hash, size)| present.contains(&hash).then_some(Content { hash, size })).collect();
    let aside: HashMap<ContentHash, &str> = tree
        .aside
        .iter()
        .filter_map(|(inode, name)| Some((*contents.by_inode().get(inode)?, name.as_str())))
        .collect();
    let mut replaced = |ordinal: u32| -> io::Result<Box<dyn Read>> {
        let content = usize::try_from(ordinal).ok().and_then(|ordinal| all.get(ordinal));
        let name = content.and_then(|(hash, _)| aside.get(hash)).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File::from(beneath::open_sealed_file_beneath(staging.aside()?, name.as_bytes())?)))
    };
    records.rewind()?;
    let out = split::assemble(spool()?, &table, records, &mut replaced)?;
    Ok(PreparedBlob::from_file(out)?)
}
