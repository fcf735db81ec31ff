//! Writing a layer as a tar stream: the very bytes it came as, if it came as a tar, else a deterministic archive of
//! its directory.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use layerstore_schema::manifest::{Kind, Manifest, path_order};

use super::changes::ChangeKind;
use super::compare::{Difference, Shown};
use super::idattr;
use super::stack::{Stack, ancestors};
use crate::archive::split::{Source, SplitReader};
use crate::archive::whiteout::{self, Meaning};
use crate::archive::{Entry, EntryKind, Writer};
use crate::disk::{self, ScannedEntry, ScannedKind};
use crate::error::{ArchiveError, ExportError, ScanError, SplitError, is_denied};
use crate::sys::beneath;
use crate::sys::file::File;
use crate::sys::userns::IdMaps;
use crate::types::{ContentHash, Metadata, RelPath};

/// Writes the tar that the layer came as. `split` is its tar-split, `manifest` says where its contents lie below
/// `root`. Each content is verified on its way, and `verified` is told at which path it was right.
///
/// Returns [`ExportError::Damaged`] if a content is missing or has changed, and [`ExportError::Scan`] if this process may not read it.
pub(crate) fn export_original<'m>(
    layer: &str,
    split: impl io::Read,
    manifest: &'m Manifest,
    root: BorrowedFd<'_>,
    out: &mut impl Write,
    mut verified: impl FnMut(&'m [u8], ContentHash),
) -> Result<(), ExportError> {
    let mut places: HashMap<ContentHash, &'m [u8]> = HashMap::new();
    for entry in manifest.entries() {
        if let Kind::File { content, .. } = entry.kind {
            places.entry(content).or_insert(&entry.path);
        }
    }
    let open = |content: &ContentHash, _size: u64| -> io::Result<Source<'_>> {
        let path = places.get(content).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(File::from(beneath::open_sealed_file_beneath(root, path)?)))
    };
    let path_of = |content: &str| -> Option<PathBuf> {
        let place = places.iter().find(|(hash, _)| hash.to_string() == content);
        place.map(|(_, path)| OsStr::from_bytes(path).into())
    };
    let failed = |source| match source {
        SplitError::Write { source, .. } => ExportError::Io(source),
        // That says nothing of the file.
        SplitError::Content { content, source } if is_denied(&source) => {
            ExportError::Scan(ScanError::Read { path: path_of(&content).unwrap_or_default(), source })
        }
        source => {
            let content = match &source {
                SplitError::Mismatch { content } | SplitError::Content { content, .. } => Some(content),
                _ => None,
            };
            let path = content.and_then(|content| path_of(content));
            ExportError::Damaged { layer: layer.to_owned(), path, source }
        }
    };
    let mut verified = |content: &ContentHash| {
        if let Some(path) = places.get(content) {
            verified(path, *content);
        }
    };
    SplitReader::new(split).map_err(failed)?.join(out, &open, &mut verified).map_err(failed)?;
    Ok(())
}

/// Writes a deterministic tar of what a diff directory has above the stack `below`: markers for what it deletes, sockets
/// left out. The root directory stands in it if its metadata is not inherited. With `id_maps` the directory has the host's ids, and the
/// tar gets the container's. `open` gives the file at a path; one that is gone by then, `None`, is not in the tar.
///
/// Returns [`ExportError::Scan`] if a file cannot be opened, [`ExportError::Io`] if it cannot be read, or changes while it is, and
/// [`ExportError::Unmapped`] if one belongs to nobody in the container.
pub(crate) fn export_directory(
    mut entries: Vec<ScannedEntry>,
    open: impl Fn(&[u8]) -> io::Result<Option<File>>,
    below: &Stack,
    id_maps: Option<&IdMaps>,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut writer = Writer::new(out);
    leave_out_sockets(&mut entries, below);
    let inherited = below.find(b"").map(|entry| &entry.metadata);
    let is_inherited = |root: &Metadata| inherited.is_none_or(|inherited| same_root(inherited, root));
    let mut root_is_inherited = entries.first().is_some_and(|root| is_inherited(&root.metadata));
    if let Some(maps) = id_maps {
        entries.iter_mut().try_for_each(|entry| map_owner(entry, maps))?;
    }
    // What is below has the container's ids, or the host's too.
    root_is_inherited |= entries.first().is_some_and(|root| is_inherited(&root.metadata));
    let mut next = 0;
    while let Some(entry) = entries.get(next) {
        let is_unchanged_root = entry.path.is_empty() && root_is_inherited;
        // Whatever its metadata is, it may hide all that lies below.
        if is_unchanged_root && entry.kind == ScannedKind::Other(Kind::Directory { opaque: true }) {
            append_marker(&mut writer, &whiteout::opaque_marker(&RelPath::root())?)?;
        }
        if is_unchanged_root || append(&mut writer, &open, entry, file_metadata(entry, &entries))? {
            next = next.saturating_add(1);
        } else {
            // Another name of the file, if there is one, comes with its bytes then.
            let gone = HashSet::from([entry.path.clone()]);
            entries = disk::without(entries, &gone);
        }
    }
    writer.finish()?;
    Ok(())
}

/// Takes the sockets out, which have no place in an archive: whoever listens makes them anew. With a socket go all its names.
/// What it replaces is deleted, or it would come back; another socket below is as good as this one.
fn leave_out_sockets(entries: &mut Vec<ScannedEntry>, below: &Stack) {
    let is =
        |entry: &ScannedEntry, kind: &Kind| matches!(&entry.kind, ScannedKind::Other(other) if other == kind);
    let sockets: HashSet<Vec<u8>> =
        entries.iter().filter(|entry| is(entry, &Kind::Socket)).map(|entry| entry.path.clone()).collect();
    if sockets.is_empty() {
        return;
    }
    let opaque: HashSet<Vec<u8>> = entries
        .iter()
        .filter(|entry| is(entry, &Kind::Directory { opaque: true }))
        .map(|entry| entry.path.clone())
        .collect();
    entries.retain_mut(|entry| {
        let first = match &entry.kind {
            ScannedKind::Other(Kind::HardLink { target }) => target,
            _ => &entry.path,
        };
        if !sockets.contains(first) {
            return true;
        }
        let is_hidden = ancestors(&entry.path).any(|above| opaque.contains(above));
        let replaces = !is_hidden && below.find(&entry.path).is_some_and(|was| was.kind != Kind::Socket);
        (entry.kind, entry.metadata) = (ScannedKind::Other(Kind::Whiteout), Metadata::default());
        replaces
    });
}

/// Turns the host's ids into the container's.
pub(crate) fn map_owner(entry: &mut ScannedEntry, maps: &IdMaps) -> Result<(), ExportError> {
    if !entry.kind.has_owner() {
        return Ok(());
    }
    let Metadata { uid, gid, .. } = entry.metadata;
    let Some(owner) = maps.to_container(uid, gid) else {
        let path = RelPath::from_archive(&entry.path)?.as_path().to_owned();
        return Err(ExportError::Unmapped { path, uid, gid });
    };
    (entry.metadata.uid, entry.metadata.gid) = owner;
    idattr::to_container(&mut entry.metadata.xattrs, maps);
    Ok(())
}

/// The metadata of the file that an entry is a name of; a listing has it with the first name. Each header repeats it: there
/// are programs that give a file the owner, mode and time of the last name that they read.
fn file_metadata<'e>(entry: &'e ScannedEntry, listing: &'e [ScannedEntry]) -> &'e Metadata {
    let ScannedKind::Other(Kind::HardLink { target }) = &entry.kind else { return &entry.metadata };
    let first = listing.binary_search_by(|other| path_order(&other.path, target));
    first.ok().and_then(|at| listing.get(at)).map_or(&entry.metadata, |first| &first.metadata)
}

/// The time of a root directory is no change: making anything in it changes that.
fn same_root(inherited: &Metadata, found: &Metadata) -> bool {
    let found = Metadata { mtime: inherited.mtime, ..found.clone() };
    *inherited == found
}

/// Writes a deterministic tar of what turns one tree into another, as [`compare`](super::compare) found it. `open` gives the
/// file at a path in the layer with a position; one that is gone by then, `None`, is not in the tar.
///
/// Returns [`ExportError::Scan`] if a file cannot be opened, or is not what was compared.
pub(crate) fn export_differences(
    differences: &[Difference<'_>],
    open: impl Fn(usize, &[u8]) -> io::Result<Option<File>>,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let mut writer = Writer::new(out);
    let mut written: HashMap<(usize, &[u8]), &[u8]> = HashMap::new();
    for difference in differences {
        let Some(Shown { layer, entry: found }) = difference.shown else {
            append_marker(&mut writer, &whiteout::marker(&RelPath::from_archive(difference.path)?)?)?;
            continue;
        };
        if difference.path.is_empty() && difference.kind == ChangeKind::Modified && !difference.of_itself {
            continue;
        }
        let kind = match found.kind {
            Kind::File { size, .. } => ScannedKind::File { size },
            ref kind => ScannedKind::Other(kind.clone()),
        };
        let Some(kind) = entry_kind(&kind) else {
            // A socket is left out, and what it replaces is not to come back.
            if difference.was.is_some_and(|was| was.kind != Kind::Socket) {
                append_marker(&mut writer, &whiteout::marker(&RelPath::from_archive(difference.path)?)?)?;
            }
            continue;
        };
        refuse_marker_name(difference.path)?;
        let path = if difference.path.is_empty() { b"./" } else { difference.path };
        // A second name of a file that stands in the archive already.
        if kind != EntryKind::Directory
            && let Some(first) = written.insert((layer, &found.path), difference.path)
        {
            let mut link = described(path, EntryKind::HardLink, &found.metadata);
            link.link = first.to_vec();
            writer.append(&link, &mut io::empty())?;
            written.insert((layer, &found.path), first);
            continue;
        }
        let mut entry = described(path, kind, &found.metadata);
        match &found.kind {
            Kind::File { size, content } => {
                (entry.size, entry.stored) = (*size, *size);
                let open = |path| open(layer, path).map_err(unread(path));
                let opened = match open(&found.path)? {
                    // It may have the name still that is to be written.
                    None if difference.path != found.path => open(difference.path)?,
                    opened => opened,
                };
                let Some(inner) = opened else {
                    written.remove(&(layer, found.path.as_slice()));
                    continue;
                };
                let mut file = Hashing { inner, hasher: blake3::Hasher::new() };
                writer.append(&entry, &mut file)?;
                if file.hasher.finalize().as_bytes() != &content.0 {
                    let path = RelPath::from_archive(difference.path)?.as_path().to_owned();
                    return Err(ScanError::Changed { path }.into());
                }
            }
            Kind::Symlink { target } => {
                entry.link.clone_from(target);
                writer.append(&entry, &mut io::empty())?;
            }
            _ => writer.append(&entry, &mut io::empty())?,
        }
    }
    writer.finish()?;
    Ok(())
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: blake3::Hasher,
}

impl<R: io::Read> io::Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(out)?;
        self.hasher.update(out.get(..read).unwrap_or_default());
        Ok(read)
    }
}

fn described(path: &[u8], kind: EntryKind, metadata: &Metadata) -> Entry {
    let mut entry = Entry::new(path, kind);
    (entry.mode, entry.uid, entry.gid, entry.mtime) =
        (metadata.mode, metadata.uid, metadata.gid, metadata.mtime);
    entry.xattrs.clone_from(&metadata.xattrs);
    entry
}

/// Makes the error of opening a file name it.
fn unread(path: &[u8]) -> impl FnOnce(io::Error) -> ScanError {
    move |source| ScanError::Read { path: OsStr::from_bytes(path).into(), source }
}

/// The error for a file that was not written whole. The lengths of a directory's files were listed before they are read.
fn of_file(error: ArchiveError, path: &[u8]) -> ExportError {
    match error {
        ArchiveError::ContentSize { size, .. } => {
            ExportError::Changed { path: OsStr::from_bytes(path).into(), size }
        }
        error => error.into(),
    }
}

/// Writes what an archive has of an entry; false if it is a file that is gone.
fn append<W: Write>(
    writer: &mut Writer<W>,
    open: impl Fn(&[u8]) -> io::Result<Option<File>>,
    scanned: &ScannedEntry,
    metadata: &Metadata,
) -> Result<bool, ExportError> {
    let path = if scanned.path.is_empty() { b"./".to_vec() } else { scanned.path.clone() };
    let Some(kind) = entry_kind(&scanned.kind) else {
        if scanned.kind == ScannedKind::Other(Kind::Whiteout) {
            append_marker(writer, &whiteout::marker(&RelPath::from_archive(&scanned.path)?)?)?;
        }
        return Ok(true);
    };
    refuse_marker_name(&scanned.path)?;
    let mut entry = described(&path, kind, metadata);
    match &scanned.kind {
        ScannedKind::File { size } => {
            (entry.size, entry.stored) = (*size, *size);
            let opened = open(&scanned.path).map_err(unread(&scanned.path))?;
            let Some(mut file) = opened else { return Ok(false) };
            writer.append(&entry, &mut file).map_err(|error| of_file(error, &scanned.path))?;
            return Ok(true);
        }
        ScannedKind::Other(Kind::Symlink { target } | Kind::HardLink { target }) => {
            entry.link.clone_from(target);
        }
        ScannedKind::Other(_) => {}
    }
    writer.append(&entry, &mut io::empty())?;
    if matches!(scanned.kind, ScannedKind::Other(Kind::Directory { opaque: true })) {
        append_marker(writer, &whiteout::opaque_marker(&RelPath::from_archive(&scanned.path)?)?)?;
    }
    Ok(true)
}

/// In an archive, a file with a marker's name would delete another.
pub(super) fn refuse_marker_name(path: &[u8]) -> Result<(), ExportError> {
    let path = RelPath::from_archive(path)?;
    match Meaning::of(&path) {
        Ok(Meaning::Content) => Ok(()),
        _ => Err(ExportError::MarkerName { path: path.as_path().to_owned() }),
    }
}

fn append_marker<W: Write>(writer: &mut Writer<W>, marker: &RelPath) -> Result<(), ExportError> {
    Ok(writer.append(&Entry::new(marker.as_bytes(), EntryKind::File), &mut io::empty())?)
}

/// What the entry is in an archive; `None` for what stands there as a marker or not at all.
fn entry_kind(kind: &ScannedKind) -> Option<EntryKind> {
    Some(match kind {
        ScannedKind::File { .. } => EntryKind::File,
        ScannedKind::Other(kind) => match *kind {
            Kind::Directory { .. } => EntryKind::Directory,
            Kind::Symlink { .. } => EntryKind::Symlink,
            Kind::HardLink { .. } => EntryKind::HardLink,
            Kind::CharDevice { major, minor } => EntryKind::CharDevice { major, minor },
            Kind::BlockDevice { major, minor } => EntryKind::BlockDevice { major, minor },
            Kind::Fifo => EntryKind::Fifo,
            Kind::File { .. } => EntryKind::File,
            Kind::Socket | Kind::Whiteout => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::disk::XattrNamespace;
    use crate::sys::xattr::{self, Target};

    #[test]
    fn a_file_that_looks_like_a_marker_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::write(dir.path().join("bin/.wh.sh"), "a file of somebody").unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        let mut out = Vec::new();
        let entries = disk::list(root.as_fd(), XattrNamespace::User).unwrap();
        let open = |path: &[u8]| Ok(Some(beneath::open_file_beneath(root.as_fd(), path)?.into()));
        let error = export_directory(entries, open, &Stack::default(), None, &mut out).unwrap_err();
        assert!(error.to_string().starts_with("/bin/.wh.sh cannot be written out"), "{error}");
    }

    /// Its metadata need not be written out for that.
    #[test]
    fn a_root_that_hides_what_lies_below_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let root = beneath::open_directory(dir.path()).unwrap();
        xattr::set(Target::File(root.as_fd()), b"user.overlay.opaque", b"y").unwrap();
        let entries = disk::list(root.as_fd(), XattrNamespace::User).unwrap();
        let open = |path: &[u8]| Ok(Some(beneath::open_file_beneath(root.as_fd(), path)?.into()));
        let mut out = Vec::new();
        export_directory(entries, open, &Stack::default(), None, &mut out).unwrap();
        let mut archive = tar::Archive::new(&*out);
        let paths =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
        assert_eq!(paths.collect::<Vec<_>>(), [".wh..wh..opq", "a"]);
    }

    /// A container that goes on writing is named by the file that it writes to, and nobody takes half a file for a whole one.
    #[test]
    fn a_file_that_changes_its_length_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let file = dir.path().join("log/busy");
        for later in ["longer than before", "less"] {
            std::fs::write(&file, "before").unwrap();
            let root = beneath::open_directory(dir.path()).unwrap();
            let entries = disk::list(root.as_fd(), XattrNamespace::User).unwrap();
            std::fs::write(&file, later).unwrap();
            let open = |path: &[u8]| Ok(Some(beneath::open_file_beneath(root.as_fd(), path)?.into()));
            let error =
                export_directory(entries, open, &Stack::default(), None, &mut Vec::new()).unwrap_err();
            let told = "/log/busy was 6 bytes long and is not any more: somebody writes to it";
            assert_eq!(error.to_string(), told);
            assert!(crate::error::Error::from(error).hint().is_some_and(|hint| hint.contains("pause")));
        }
    }

    /// A container goes on while its layer is written out.
    #[test]
    fn what_is_gone_is_left_out_and_its_other_names_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "gone"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        for (first, other) in [("a", "b"), ("a", "c"), ("gone", "gone-too")] {
            std::fs::hard_link(dir.path().join(first), dir.path().join(other)).unwrap();
        }
        let root = beneath::open_directory(dir.path()).unwrap();
        let entries = disk::list(root.as_fd(), XattrNamespace::User).unwrap();
        for name in ["a", "gone", "gone-too"] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        let open = |path: &[u8]| match beneath::open_file_beneath(root.as_fd(), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => Ok(Some(opened?.into())),
        };
        let mut out = Vec::new();
        export_directory(entries, open, &Stack::default(), None, &mut out).unwrap();
        let mut archive = tar::Archive::new(&*out);
        let members = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            let mut text = String::new();
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
            (entry.path().unwrap().display().to_string(), link.unwrap_or(text))
        });
        let members: Vec<_> = members.collect();
        assert_eq!(members, [("b".to_owned(), "a".to_owned()), ("c".to_owned(), "b".to_owned())]);
    }
}
