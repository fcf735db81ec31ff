//! Layers that are written to: a directory of their own, with a workdir beside it.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, Manifest};
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, ScannedEntry, ScannedKind, Staging, XattrNamespace};
use crate::error::{LayoutError, MetaError, ScanError};
use crate::meta::Query;
use crate::types::{ContentHash, TreeDigest};

/// The number of the directory that holds a layer's files; `None` if they are not in the store.
///
/// Returns [`MetaError::Missing`] if the layer is sealed and its tree has no row.
pub(crate) fn directory(txn: &impl Query, layer: &LayerRecord) -> Result<Option<u64>, MetaError> {
    match &layer.content {
        LayerContent::Writable(number) => Ok(Some(*number)),
        LayerContent::Additional(_) => Ok(None),
        LayerContent::Sealed(tree) => {
            let tree = TreeDigest(*tree);
            let row = txn.diff(&tree)?;
            row.map(|diff| Some(diff.number))
                .ok_or_else(|| MetaError::Missing { kind: "diff", key: tree.to_string() })
        }
    }
}

/// The hash of bytes that nobody has read.
pub(crate) const UNREAD: ContentHash = ContentHash([0; 32]);

/// What stands in a directory that may be written to as a manifest. `content` gives the hash of a file's bytes, [`UNREAD`]
/// for what only asks for names and metadata.
///
/// Returns [`ScanError::Manifest`] if the entries make none, and the first error of `content`.
pub(crate) fn listing<E: From<ScanError>>(
    entries: impl IntoIterator<Item = ScannedEntry>,
    content: impl Fn(&ScannedEntry) -> Result<ContentHash, E>,
) -> Result<Manifest, E> {
    let entry = |found: ScannedEntry| {
        let kind = match &found.kind {
            ScannedKind::File { size } => Kind::File { size: *size, content: content(&found)? },
            ScannedKind::Other(kind) => kind.clone(),
        };
        Ok::<_, E>(Entry { path: found.path, kind, metadata: found.metadata })
    };
    let entries = entries.into_iter().map(entry).collect::<Result<_, E>>()?;
    Ok(Manifest::new(entries).map_err(ScanError::from)?)
}

/// Makes a staged directory ready for writing above the directory `parent`, which is at `path`: its root gets the metadata
/// of the root below, for an overlay mount shows the topmost. The workdir is made by the first mount.
pub(crate) fn prepare_writable(
    parent: BorrowedFd<'_>,
    path: impl FnOnce() -> PathBuf,
    namespace: XattrNamespace,
    staging: &Staging,
) -> Result<(), LayoutError> {
    disk::inherit_root(parent, staging.directory(), namespace).map_err(|source| LayoutError::Io {
        path: path(),
        action: "take the root's metadata from",
        source,
    })
}
