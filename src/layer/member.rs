//! One member of an archive, done to a directory: a file with its bytes, a directory, a link, a node, or a whiteout.

use std::io::{self, Read};

use super::files::{FilePool, SMALL_FILE};
use super::idattr;
use crate::archive::whiteout::Meaning;
use crate::archive::{Entry, EntryKind};
use crate::disk::{self, FileWriter, TreeWriter};
use crate::error::ImportError;
use crate::sys::userns::IdMaps;
use crate::timing::{self, Stage};
use crate::types::{Metadata, RelPath};

/// The size of the pieces in which large files are written.
const PIECE: usize = 128 * 1024;

/// Does what one member of the archive says, with the host's ids for its owner if there are maps.
pub(super) fn apply(
    entry: &Entry,
    content: &mut impl Read,
    tree: &mut TreeWriter,
    files: &mut FilePool<'_>,
    id_maps: Option<&IdMaps>,
) -> Result<(), ImportError> {
    let path = RelPath::from_archive(&entry.path)?;
    match Meaning::of(&path)? {
        Meaning::Content => {
            let metadata = metadata_of(entry, id_maps)?;
            return apply_ordinary(entry, &path, &metadata, content, tree, files);
        }
        _ if entry.stored > 0 => return Err(ImportError::MarkerWithContent { member: entry.shown() }),
        Meaning::Removed(deleted) => tree.whiteout(&deleted)?,
        Meaning::Opaque(directory) => tree.opaque(&directory)?,
        Meaning::Ignored => {}
    }
    Ok(())
}

/// Owner, mode, time and attributes of a member.
///
/// Returns [`ImportError::Unmapped`] if its owner is nobody on the host.
fn metadata_of(entry: &Entry, id_maps: Option<&IdMaps>) -> Result<Metadata, ImportError> {
    let mut metadata = Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
    };
    // A further name of a file changes nothing of it.
    let Some(maps) = id_maps.filter(|_| entry.kind != EntryKind::HardLink) else { return Ok(metadata) };
    let (uid, gid) = (entry.uid, entry.gid);
    let unmapped = || ImportError::Unmapped { member: entry.shown(), uid, gid };
    (metadata.uid, metadata.gid) = maps.to_host(uid, gid).ok_or_else(unmapped)?;
    for (name, value) in &mut metadata.xattrs {
        if let Some(mapped) = idattr::to_host(name, value, maps) {
            *value = mapped;
        }
    }
    Ok(metadata)
}

fn apply_ordinary(
    entry: &Entry,
    path: &RelPath,
    metadata: &Metadata,
    content: &mut impl Read,
    tree: &mut TreeWriter,
    files: &mut FilePool<'_>,
) -> Result<(), ImportError> {
    match entry.kind {
        EntryKind::File => {
            let writer = tree.file(path, metadata, entry.size)?;
            fill(entry, writer, content, files)?;
        }
        EntryKind::Directory => tree.directory(path, metadata)?,
        EntryKind::Symlink => tree.symlink(path, &entry.link, metadata)?,
        EntryKind::HardLink => tree.hard_link_to(path, &entry.link)?,
        EntryKind::CharDevice { major, minor } => {
            tree.device(path, disk::DeviceKind::Char, (major, minor), metadata)?;
        }
        EntryKind::BlockDevice { major, minor } => {
            tree.device(path, disk::DeviceKind::Block, (major, minor), metadata)?;
        }
        EntryKind::Fifo => tree.fifo(path, metadata)?,
    }
    Ok(())
}

fn fill(
    entry: &Entry,
    mut writer: FileWriter,
    content: &mut impl Read,
    files: &mut FilePool<'_>,
) -> Result<(), ImportError> {
    match &entry.sparse {
        None if entry.size <= SMALL_FILE => {
            let mut bytes = Vec::with_capacity(usize::try_from(entry.size).unwrap_or_default());
            content.read_to_end(&mut bytes)?;
            return Ok(files.write(entry.ordinal, writer, bytes)?);
        }
        None => copy(content, entry.size, &mut writer)?,
        Some(regions) => {
            let mut at = 0;
            for region in regions {
                writer.skip(region.offset.saturating_sub(at))?;
                copy(content, region.len, &mut writer)?;
                at = region.offset.saturating_add(region.len);
            }
            writer.skip(entry.size.saturating_sub(at))?;
        }
    }
    let written = timing::during(Stage::Write, || writer.finish())?;
    files.add(entry.ordinal, &written);
    Ok(())
}

fn copy(content: &mut impl Read, length: u64, writer: &mut FileWriter) -> Result<(), ImportError> {
    let mut piece = vec![0; PIECE];
    let mut rest = length;
    while rest > 0 {
        let wanted = piece.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        let read = content.read(piece.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let piece = piece.get(..read).unwrap_or_default();
        timing::during(Stage::Write, || writer.write_all(piece))?;
        rest = rest.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(())
}
