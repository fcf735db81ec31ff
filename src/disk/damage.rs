//! Whether a sealed diff directory still is what its manifest says: a yes, or the first path that is not so.
//!
//! A check lists every difference; who is about to use a directory wants to know whether there is one.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::{Entry, Kind, Manifest, path_order};
use rustix::io::Errno;

use super::overlay_form::XattrNamespace;
use super::scan::{ScannedEntry, ScannedKind, list, scan};
use crate::error::{ScanError, TreeError};
use crate::types::{ContentHash, Metadata};

/// A path that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DamagedPath {
    /// The path, as a user of the layer sees it.
    pub(crate) path: PathBuf,
    /// What is wrong with it, as the end of a sentence.
    pub(crate) what: String,
}

/// Reads every file of a directory, on all processors, and compares it with its manifest.
///
/// Returns [`ScanError`] if it cannot be read for a reason that says nothing of the directory: no permission, or no
/// memory or descriptor left.
pub(crate) fn damaged_path(
    root: BorrowedFd<'_>,
    manifest: &Manifest,
    namespace: XattrNamespace,
) -> Result<Option<DamagedPath>, ScanError> {
    let found = scan(root, &HashMap::new(), namespace).map(Manifest::into_entries);
    judge(manifest, found, namespace)
}

/// Compares a directory with its manifest without reading a file: a file has its content if it has the size and the time.
///
/// Returns what [`damaged_path`] does.
pub(crate) fn changed_path(
    root: BorrowedFd<'_>,
    manifest: &Manifest,
    namespace: XattrNamespace,
) -> Result<Option<DamagedPath>, ScanError> {
    let contents: HashMap<&[u8], ContentHash> = manifest.entries().iter().filter_map(content).collect();
    let believed = |entry: ScannedEntry| {
        let kind = match entry.kind {
            ScannedKind::Other(kind) => kind,
            ScannedKind::File { size } => {
                let content = contents.get(entry.path.as_slice()).copied();
                Kind::File { size, content: content.unwrap_or(ContentHash([0; 32])) }
            }
        };
        Entry { path: entry.path, kind, metadata: entry.metadata }
    };
    let listed = list(root, namespace).map(|found| found.into_iter().map(believed).collect());
    judge(manifest, listed, namespace)
}

fn content(entry: &Entry) -> Option<(&[u8], ContentHash)> {
    match entry.kind {
        Kind::File { content, .. } => Some((&entry.path, content)),
        _ => None,
    }
}

fn judge(
    manifest: &Manifest,
    found: Result<Vec<Entry>, ScanError>,
    namespace: XattrNamespace,
) -> Result<Option<DamagedPath>, ScanError> {
    match found {
        Ok(found) => Ok(first_difference(manifest.entries(), &found, namespace)),
        Err(error) if !is_damage(&error) => Err(error),
        Err(error) => {
            let mut what = format!("cannot be read: {error}");
            if let Some(cause) = std::error::Error::source(&error) {
                what = format!("{what}: {cause}");
            }
            Ok(Some(DamagedPath { path: "/".into(), what }))
        }
    }
}

fn is_damage(error: &ScanError) -> bool {
    let (ScanError::Read { source, .. } | ScanError::Tree(TreeError::Io { source, .. })) = error else {
        return true;
    };
    let of_the_disk = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NOENT, Errno::NOTDIR];
    Errno::from_io_error(source).is_some_and(|number| of_the_disk.contains(&number))
}

/// The first path at which two lists in manifest order differ.
fn first_difference(expected: &[Entry], found: &[Entry], namespace: XattrNamespace) -> Option<DamagedPath> {
    let (mut expected, mut found) = (expected.iter(), found.iter());
    loop {
        let (path, what) = match (expected.next(), found.next()) {
            (None, None) => return None,
            (Some(entry), None) => (&entry.path, "is missing"),
            (None, Some(other)) => (&other.path, "does not belong to it"),
            (Some(entry), Some(other)) => match path_order(&entry.path, &other.path) {
                Ordering::Less => (&entry.path, "is missing"),
                Ordering::Greater => (&other.path, "does not belong to it"),
                Ordering::Equal if entry.kind != other.kind => (&entry.path, "has other content"),
                Ordering::Equal if !same_metadata(&entry.metadata, &other.metadata, namespace) => {
                    (&entry.path, "has other metadata")
                }
                Ordering::Equal => continue,
            },
        };
        let path = PathBuf::from(OsStr::from_bytes(&[b"/", path.as_slice()].concat()));
        return Some(DamagedPath { path, what: what.to_owned() });
    }
}

/// In a store of an ordinary user, owners and the attributes that speak of them look different in each user namespace,
/// and outside of them all.
fn same_metadata(expected: &Metadata, found: &Metadata, namespace: XattrNamespace) -> bool {
    let ids_are_fixed = namespace == XattrNamespace::Trusted;
    let xattrs = |metadata: &Metadata| -> Vec<(Vec<u8>, Vec<u8>)> {
        let compared = metadata.xattrs.iter().filter(|(name, _)| ids_are_fixed || name.starts_with(b"user."));
        compared.cloned().collect()
    };
    (!ids_are_fixed || (expected.uid, expected.gid) == (found.uid, found.gid))
        && (expected.mode, expected.mtime) == (found.mode, found.mtime)
        && xattrs(expected) == xattrs(found)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::disk::fixture::{Place, metadata, namespace, write_file};

    /// What the directory `diff` of a fresh place has after `change`, that it should not have.
    fn after(change: impl FnOnce(&Place)) -> Option<(PathBuf, String)> {
        let place = Place::new();
        let mut tree = place.strict_writer();
        for name in ["a", "b/c", "d"] {
            write_file(&mut tree, name, name.as_bytes(), &metadata(0o644)).unwrap();
        }
        tree.finish().unwrap();
        let manifest = place.manifest("diff");
        change(&place);
        let found = damaged_path(place.open("diff").as_fd(), &manifest, namespace()).unwrap();
        found.map(|damage| (damage.path, damage.what))
    }

    fn found(path: &str, what: &str) -> Option<(PathBuf, String)> {
        Some((path.into(), what.to_owned()))
    }

    #[test]
    fn a_look_without_reading_believes_size_and_time() {
        let place = Place::new();
        let mut tree = place.strict_writer();
        write_file(&mut tree, "a", b"good", &metadata(0o644)).unwrap();
        tree.finish().unwrap();
        let (manifest, path) = (place.manifest("diff"), place.path("diff").join("a"));
        let look = || {
            let diff = place.open("diff");
            let quick = changed_path(diff.as_fd(), &manifest, namespace()).unwrap();
            (quick, damaged_path(diff.as_fd(), &manifest, namespace()).unwrap())
        };
        let bad = |what: &str| Some(DamagedPath { path: "/a".into(), what: what.to_owned() });
        assert_eq!(look(), (None, None));
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::fs::write(&path, "evil").unwrap();
        assert_eq!(look(), (bad("has other metadata"), bad("has other content")));
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(look(), (None, bad("has other content")));
        std::fs::remove_file(&path).unwrap();
        assert!(look().0.is_some());
    }

    #[test]
    fn the_first_wrong_path_is_named() {
        assert_eq!(after(|_| ()), None);
        let set_length = |place: &Place, name: &str, length| {
            let file = std::fs::File::options().write(true).open(place.path("diff").join(name)).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_len(length).unwrap();
            file.set_modified(modified).unwrap();
        };
        let cut = after(|place| {
            set_length(place, "d", 0);
            set_length(place, "b/c", 0);
        });
        assert_eq!(cut, found("/b/c", "has other content"));
        // The length is right and the bytes are zeros: what a filesystem gives for blocks that were never written.
        let zeros = after(|place| {
            set_length(place, "a", 0);
            set_length(place, "a", 1);
        });
        assert_eq!(zeros, found("/a", "has other content"));
        let mode = after(|place| {
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(place.path("diff/a"), mode).unwrap();
        });
        assert_eq!(mode, found("/a", "has other metadata"));
    }
}
