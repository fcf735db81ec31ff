//! The index that a mount with `index=on` keeps in its workdir: names of the files that were copied up, by what the filesystem
//! calls the files below that they were copied from.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use layerstore_schema::manifest::Kind;

use super::overlay_form::{XattrNamespace, origin_handle};
use super::scan::{ScannedEntry, ScannedKind, list_as_left};
use super::walk::Life;
use crate::error::ScanError;
use crate::sys::handle::Handle;

/// The name of an index in a workdir.
pub(crate) const INDEX: &[u8] = b"index";

/// A file that only the index has any more: the name through which it was written to was removed, and the mount shows it under
/// the others that the layers below have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct KeptFile {
    /// The file. Its path is its name in the index.
    pub(crate) file: ScannedEntry,
    /// The file below that it was copied from.
    pub(crate) origin: Handle,
}

/// Lists what an index has and the directory that it belongs to, with these entries, has not.
///
/// Returns [`ScanError`] if it cannot be read.
pub(crate) fn list_kept(
    index: BorrowedFd<'_>,
    namespace: XattrNamespace,
    life: Life,
    upper: &[ScannedEntry],
) -> Result<Vec<KeptFile>, ScanError> {
    let named: HashSet<_> = upper.iter().map(|entry| entry.id).collect();
    // Of directories it has where they are, and whiteouts for what is gone.
    let is_file = |entry: &ScannedEntry| {
        !matches!(entry.kind, ScannedKind::Other(Kind::Directory { .. } | Kind::Whiteout))
    };
    let entries = list_as_left(index, namespace, life)?;
    let kept = entries.into_iter().filter(|entry| is_file(entry) && !named.contains(&entry.id));
    Ok(kept.filter_map(|file| Some(KeptFile { origin: origin_of(&file.path)?, file })).collect())
}

/// The handle that a name of an index is: the bytes of an `origin`, two digits each.
fn origin_of(name: &[u8]) -> Option<Handle> {
    let (pairs, []) = name.as_chunks::<2>() else { return None };
    let bytes = pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    origin_handle(&bytes.collect::<Option<Vec<u8>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_handles() {
        let uuid = "00112233445566778899aabbccddeeff";
        let handle = Handle { kind: 1, bytes: vec![0x0a, 0xb0] };
        assert_eq!(origin_of(format!("00fb170001{uuid}0ab0").as_bytes()), Some(handle));
        for other in ["", "#1", "00fb170001", "0", "00fb1700010", "zz", "\u{e4}\u{e4}"] {
            assert_eq!(origin_of(other.as_bytes()), None, "{other}");
        }
    }
}
