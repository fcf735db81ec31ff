//! Owners that files only seem to have, as they were written in another user namespace.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use layerstore_schema::manifest::Manifest;

use crate::disk::{self, Layout, ScannedEntry};
use crate::error::{Error, ScanError};
use crate::sys::owners::Owners;
use crate::sys::stat;
use crate::types::Metadata;

/// Refuses paths of a layer's directory whose owners mean others here than where they were given, or nobody.
pub(super) fn refuse_foreign<'e>(
    layout: &Layout,
    paths: impl IntoIterator<Item = (&'e [u8], &'e Metadata)>,
) -> Result<(), Error> {
    // There they are numbers in an attribute.
    if layout.mask().is_some() {
        return Ok(());
    }
    let failed = |source| Error::Io { action: "find the owner of", path: layout.path().to_owned(), source };
    let store = stat::stat(layout.root()).map_err(failed)?;
    let owners = Owners::in_store_of((store.uid, store.gid)).map_err(failed)?;
    let foreign = paths.into_iter().find(|(_, metadata)| !owners.has((metadata.uid, metadata.gid)));
    let Some((path, &Metadata { uid, gid, .. })) = foreign else { return Ok(()) };
    Err(ScanError::Owner { path: Path::new("/").join(OsStr::from_bytes(path)), uid, gid }.into())
}

/// What has an owner in a directory that was listed: a deleted name, or a further name of a file, has none.
pub(super) fn owned(entries: &[ScannedEntry]) -> impl Iterator<Item = (&[u8], &Metadata)> {
    let owned = entries.iter().filter(|entry| entry.kind.has_owner());
    owned.map(|entry| (entry.path.as_slice(), &entry.metadata))
}

/// The same of a manifest that was made of a directory.
pub(super) fn owned_in(manifest: &Manifest) -> impl Iterator<Item = (&[u8], &Metadata)> {
    let owned = manifest.entries().iter().filter(|entry| disk::has_owner(&entry.kind));
    owned.map(|entry| (entry.path.as_slice(), &entry.metadata))
}
