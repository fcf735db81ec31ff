//! The hashes of file contents.

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use super::parallel;
use super::scan::{ScannedEntry, ScannedKind, Withheld, WithheldPart};
use super::walk::{Life, is_gone, path_buf};
use crate::error::{ScanError, is_denied};
use crate::sys::file::File;
use crate::sys::stat::FileId;
use crate::sys::{beneath, extent, stat};
use crate::types::ContentHash;

/// A thread for fewer files would cost more than it gains.
const FILES_OF_A_THREAD: usize = 16;

/// Hashes the files among the entries on all processors; the answer is by inode. In a tree that others change it has none of
/// files that are gone.
pub(crate) fn hash_files<'e>(
    root: BorrowedFd<'_>,
    entries: impl Iterator<Item = &'e ScannedEntry>,
    life: Life,
) -> Result<HashMap<FileId, ContentHash>, ScanError> {
    let files: Vec<_> = entries.filter(|entry| matches!(entry.kind, ScannedKind::File { .. })).collect();
    let open = beneath::open_file_beneath;
    let hash = |buffer: &mut Vec<u8>, entry: &&ScannedEntry| match hash_entry(root, entry, open, buffer) {
        Err(ScanError::Read { source, .. }) if life == Life::Changing && is_gone(&source) => Ok(None),
        hash => hash.map(|hash| Some((entry.id, hash))),
    };
    let workers = parallel::workers(files.len(), FILES_OF_A_THREAD);
    let hashes = parallel::each(&files, workers, || vec![0; 256 * 1024], hash)?;
    Ok(hashes.into_iter().flatten().collect())
}

/// The same as far as this process may read, in a sealed tree; with the files that it may not.
pub(super) fn hash_allowed<'e>(
    root: BorrowedFd<'_>,
    entries: impl Iterator<Item = &'e ScannedEntry>,
) -> Result<(HashMap<FileId, ContentHash>, Vec<Withheld>), ScanError> {
    let files: Vec<_> = entries.filter(|entry| matches!(entry.kind, ScannedKind::File { .. })).collect();
    let open = beneath::open_sealed_file_beneath;
    let hash = |buffer: &mut Vec<u8>, entry: &&ScannedEntry| match hash_entry(root, entry, open, buffer) {
        Err(ScanError::Read { source, .. }) if is_denied(&source) => {
            Ok(Err(Withheld { path: entry.path.clone(), part: WithheldPart::Content, reason: source }))
        }
        hash => hash.map(|hash| Ok((entry.id, hash))),
    };
    let workers = parallel::workers(files.len(), FILES_OF_A_THREAD);
    let (mut hashes, mut withheld) = (HashMap::new(), Vec::new());
    for hash in parallel::each(&files, workers, || vec![0; 256 * 1024], hash)? {
        match hash {
            Ok((id, hash)) => drop(hashes.insert(id, hash)),
            Err(file) => withheld.push(file),
        }
    }
    Ok((hashes, withheld))
}

fn hash_entry(
    root: BorrowedFd<'_>,
    entry: &ScannedEntry,
    open: impl Fn(BorrowedFd<'_>, &[u8]) -> io::Result<OwnedFd>,
    buffer: &mut [u8],
) -> Result<ContentHash, ScanError> {
    let path = || path_buf(&entry.path);
    let ScannedKind::File { size } = entry.kind else { return Err(ScanError::Changed { path: path() }) };
    let file = open(root, &entry.path).map_err(|source| ScanError::Read { path: path(), source })?;
    let found = stat::stat(file.as_fd()).map_err(|source| ScanError::Read { path: path(), source })?;
    if found.id.inode != entry.id.inode || found.size != size {
        return Err(ScanError::Changed { path: path() });
    }
    let sparse = found.allocated < size;
    let hash = hash_file(File::from(file), size, sparse, buffer);
    match hash {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ScanError::Changed { path: path() })
        }
        hash => hash.map_err(|source| ScanError::Read { path: path(), source }),
    }
}

/// The hash of a file of `size` bytes; UnexpectedEof if it has fewer or more.
pub(crate) fn hash_content(file: File, size: u64) -> io::Result<ContentHash> {
    hash_file(file, size, false, &mut vec![0; 128 * 1024])
}

/// Hashes exactly `size` bytes; UnexpectedEof if the file has fewer or more.
fn hash_file(mut file: File, size: u64, sparse: bool, buffer: &mut [u8]) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    if sparse {
        hash_sparse(&file, size, &mut hasher, buffer)?;
    } else {
        let mut read = 0_u64;
        loop {
            let count = file.read(buffer)?;
            if count == 0 {
                break;
            }
            read = read.saturating_add(count as u64);
            hasher.update(buffer.get(..count).unwrap_or_default());
            // It was asked for more than that, and there is no more.
            if read == size && count < buffer.len() {
                break;
            }
        }
        if read != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

/// Hashes holes as zeros without reading them.
fn hash_sparse(file: &File, size: u64, hasher: &mut blake3::Hasher, buffer: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let (start, end) = extent::next_data(file.as_fd(), at)?.unwrap_or((size, size));
        let (start, end) = (start.min(size), end.min(size));
        buffer.fill(0);
        while at < start {
            let zeros = piece(buffer, at..start);
            hasher.update(zeros);
            at = at.saturating_add(zeros.len() as u64);
        }
        while at < end {
            let bytes = piece(buffer, at..end);
            file.read_exact_at(bytes, at)?;
            hasher.update(bytes);
            at = at.saturating_add(bytes.len() as u64);
        }
    }
    Ok(())
}

/// The beginning of the buffer, for the beginning of a part of the file.
fn piece(buffer: &mut [u8], part: Range<u64>) -> &mut [u8] {
    let length = usize::try_from(part.end.saturating_sub(part.start)).unwrap_or(usize::MAX).min(buffer.len());
    buffer.get_mut(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use layerstore_schema::manifest::Kind;

    use super::*;
    use crate::disk::fixture::{Place, hash, namespace};
    use crate::disk::list;

    #[test]
    fn many_files_are_hashed_by_many_threads() {
        let place = Place::new();
        for number in 0..500 {
            std::fs::write(place.path(&format!("diff/{number}")), format!("{number}")).unwrap();
        }
        for entry in place.manifest("diff").entries().iter().skip(1) {
            assert!(matches!(entry.kind, Kind::File { content, .. } if content == hash(&entry.path)));
        }
    }

    #[test]
    fn files_that_change_are_named() {
        let place = Place::new();
        std::fs::write(place.path("diff/file"), b"before").unwrap();
        let diff = place.open("diff");
        let listed = list(diff.as_fd(), namespace()).unwrap();
        std::fs::write(place.path("diff/file"), b"after").unwrap();
        let hashed = hash_files(diff.as_fd(), listed.iter(), Life::Still);
        assert!(matches!(hashed, Err(ScanError::Changed { .. })));
        std::fs::write(place.path("diff/other"), b"beside").unwrap();
        std::fs::rename(place.path("diff/other"), place.path("diff/file")).unwrap();
        let hashed = hash_files(diff.as_fd(), listed.iter(), Life::Still);
        assert!(matches!(hashed, Err(ScanError::Changed { .. })));
        std::fs::remove_file(place.path("diff/file")).unwrap();
        let hashed = hash_files(diff.as_fd(), listed.iter(), Life::Still);
        assert!(matches!(hashed, Err(ScanError::Read { .. })));
        assert_eq!(hash_files(diff.as_fd(), listed.iter(), Life::Changing).unwrap().len(), 0);
    }
}
