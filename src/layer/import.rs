//! Importing a layer: a stream becomes a directory, and the directory a sealed one.
//!
//! Two steps, because layers of one image are unpacked at the same time: [`unpack`] needs nothing but the
//! stream, [`seal`] wants to know what lies below.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use layerstore_schema::manifest::{Kind, Manifest};
use layerstore_schema::record::OWNERS_KEPT;

use super::files::{Contents, FilePool, SMALL_FILE};
use super::pipeline::{Streams, read_layer};
use super::stack::Stack;
use crate::archive::split::{self, Content, SplitBuilder};
use crate::archive::whiteout::Meaning;
use crate::archive::{Entry, EntryKind, Limits, Reader};
use crate::chunked::{BlobSpan, ChunkedBlob, Listing, Toc};
use crate::compress::Compression;
use crate::disk::{
    self, FileWriter, Filled, Staging, TreeWriter, UnpackOptions, UnpackedTree, XattrNamespace,
};
use crate::error::{ArchiveError, ChunkedError, ImportError};
use crate::meta::PreparedBlob;
use crate::sys::beneath;
use crate::sys::file::{File, duplicate};
use crate::types::{Algorithm, ContentHash, Digest, Hasher, Metadata, RelPath, TreeDigest};

/// The size of the pieces in which large files are written.
const PIECE: usize = 128 * 1024;

/// How layers are unpacked.
#[derive(Clone, Debug)]
pub(crate) struct ImportOptions {
    /// What becomes of owners, devices and xattrs.
    pub(crate) unpack: UnpackOptions,
    /// What an archive may ask for.
    pub(crate) limits: Limits,
    /// Threads that fill files.
    pub(crate) workers: usize,
    /// Whether a stream without a byte is an archive without members, and not one that was cut off.
    pub(crate) empty_streams: bool,
    /// The table of contents that the archive is compared with.
    pub(crate) table: Option<Table>,
}

/// A table of contents.
#[derive(Clone, Debug)]
pub(crate) enum Table {
    /// It should be in the blob.
    InBlob(ChunkedBlob),
    /// It was read before, and has this digest.
    Known(Digest, Arc<Toc>),
}

impl Table {
    /// A listing that takes what an archive can have that agrees with it.
    fn listing(&self) -> Listing {
        match self {
            Table::InBlob(blob) => Listing::for_length(blob.toc.unpacked),
            Table::Known(_, toc) => Listing::for_table(toc),
        }
    }

    fn span(&self) -> Option<BlobSpan> {
        match self {
            Table::InBlob(blob) => Some(blob.toc),
            Table::Known(..) => None,
        }
    }

    /// Compares an archive with it, in a blob that has these bytes where the table should be. Returns its digest.
    fn compare(
        &self,
        bytes: &[u8],
        listing: &Listing,
        compression: Compression,
    ) -> Result<&Digest, ChunkedError> {
        match self {
            Table::InBlob(_) if compression != Compression::Zstd => {
                Err(ChunkedError::Absent("it is not compressed with zstd"))
            }
            Table::InBlob(blob) => {
                listing.agrees_with(&Toc::read(blob, bytes)?)?;
                Ok(&blob.toc_digest)
            }
            Table::Known(digest, toc) => {
                listing.agrees_with(toc)?;
                Ok(digest)
            }
        }
    }
}

/// What was found of the table of contents that a blob should have.
#[derive(Debug)]
pub(crate) enum TocFound {
    /// None was looked for.
    None,
    /// There is none with the digest that was given, which says nothing of the archive.
    Absent(ChunkedError),
    /// It has this digest, and agrees with the archive in everything.
    Agrees(Digest),
}

/// A layer whose files are all there, and whose directory is not sealed.
#[derive(Debug)]
pub(crate) struct UnpackedLayer {
    staging: Staging,
    streams: Streams,
    contents: Contents,
    tree: UnpackedTree,
    owners: Owners,
    toc: TocFound,
    /// The records of the tar-split.
    records: File,
}

/// Who owns something in an archive, ascending: the lowest [`OWNERS_KEPT`] of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owners {
    pub(crate) uids: BTreeSet<u32>,
    pub(crate) gids: BTreeSet<u32>,
}

impl Owners {
    fn add(&mut self, entry: &Entry) {
        for (set, id) in [(&mut self.uids, entry.uid), (&mut self.gids, entry.gid)] {
            if set.insert(id) && set.len() > OWNERS_KEPT {
                set.pop_last();
            }
        }
    }
}

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
    /// What the process may not make, and left out.
    pub(crate) left_out: Vec<disk::LeftOut>,
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
        let manifest = disk::scan(directory, known, namespace)?;
        let encoded = manifest.encode();
        Ok(SealedContent {
            tree: layerstore_schema::manifest::digest_of_encoded(&encoded),
            manifest: Arc::new(manifest),
            manifest_blob: PreparedBlob::from_bytes(&encoded),
            usage: disk::usage(directory)?,
        })
    }
}

/// Unpacks the layer that `blob` carries into `staging`, in any known compression.
///
/// Returns [`ImportError`] naming the member that is refused; the directory goes with `staging`.
pub(crate) fn unpack(
    blob: impl Read + Send,
    algorithm: Algorithm,
    staging: Staging,
    records: File,
    options: &ImportOptions,
) -> Result<UnpackedLayer, ImportError> {
    let window = Mutex::default();
    let blob = Window::new(blob, options.table.as_ref().and_then(Table::span), &window);
    let (Unpacked { contents, tree, owners, listing, records }, streams) =
        read_layer(blob, algorithm, |input| unpack_archive(input, &staging, records, options))?;
    let toc = match &options.table {
        None => TocFound::None,
        Some(table) => {
            let bytes = window.into_inner().unwrap_or_else(PoisonError::into_inner);
            match table.compare(&bytes, &listing, streams.compression) {
                Ok(digest) => TocFound::Agrees(digest.clone()),
                Err(error) if error.is_absence() => TocFound::Absent(error),
                Err(error) => return Err(error.into()),
            }
        }
    };
    Ok(UnpackedLayer { staging, streams, contents, tree, owners, toc, records })
}

/// Keeps a part of what is read through it.
struct Window<'w, R> {
    inner: R,
    span: Range<u64>,
    position: u64,
    kept: &'w Mutex<Vec<u8>>,
}

impl<'w, R> Window<'w, R> {
    fn new(inner: R, span: Option<BlobSpan>, kept: &'w Mutex<Vec<u8>>) -> Self {
        Window { inner, span: span.map_or(0..0, |span| span.offset..span.end()), position: 0, kept }
    }
}

impl<R: Read> Read for Window<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        let end = self.position.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        let (from, to) = (self.span.start.max(self.position), self.span.end.min(end));
        if from < to {
            let at = |offset: u64| usize::try_from(offset - self.position).unwrap_or(usize::MAX);
            let part = out.get(at(from)..at(to)).unwrap_or_default();
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(part);
        }
        self.position = end;
        Ok(count)
    }
}

/// What came of an archive's members.
struct Unpacked {
    contents: Contents,
    tree: UnpackedTree,
    owners: Owners,
    /// Empty if there is nothing to compare it with.
    listing: Listing,
    records: File,
}

fn unpack_archive(
    input: &mut dyn Read,
    staging: &Staging,
    records: File,
    options: &ImportOptions,
) -> Result<Unpacked, ImportError> {
    let (directory, aside) = (duplicate(staging.directory())?, duplicate(staging.aside())?);
    let mut tree = TreeWriter::new(directory, aside, options.unpack.clone());
    let mut first = [0; 1];
    let read = input.read(&mut first)?;
    let records = SplitBuilder::new(records)?;
    if read == 0 && !options.empty_streams {
        return Err(ArchiveError::Empty.into());
    }
    if read == 0 {
        let (records, _) = records.finish()?;
        let (contents, owners, listing) = Default::default();
        return Ok(Unpacked { contents, tree: tree.finish()?, owners, listing, records });
    }
    let input = first.get(..read).unwrap_or_default().chain(input);
    let mut reader = Reader::with_limits(input, records, options.limits);
    let mut owners = Owners::default();
    let mut listing = options.table.as_ref().map(Table::listing).unwrap_or_default();
    let contents = thread::scope(|scope| {
        let mut files = FilePool::start(scope, options.workers)?;
        while let Some(entry) = reader.next_entry()? {
            owners.add(&entry);
            if options.table.is_none() {
                apply(&entry, &mut reader, &mut tree, &mut files)?;
                continue;
            }
            let mut hashed = Hashed { inner: &mut reader, hasher: Hasher::new(Algorithm::Sha256) };
            apply(&entry, &mut hashed, &mut tree, &mut files)?;
            let content = (entry.stored > 0).then(|| hashed.hasher.finish());
            listing.push(entry, content);
        }
        Ok::<_, ImportError>(files.finish()?)
    })?;
    let (records, _) = reader.into_tap().finish()?;
    Ok(Unpacked { contents, tree: tree.finish()?, owners, listing, records })
}

/// Hashes what is read through it.
struct Hashed<'r, R> {
    inner: &'r mut R,
    hasher: Hasher,
}

impl<R: Read> Read for Hashed<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(out)?;
        self.hasher.update(out.get(..count).unwrap_or_default());
        Ok(count)
    }
}

/// Does what one member of the archive says.
fn apply(
    entry: &Entry,
    content: &mut impl Read,
    tree: &mut TreeWriter,
    files: &mut FilePool,
) -> Result<(), ImportError> {
    let path = RelPath::from_archive(&entry.path)?;
    match Meaning::of(&path)? {
        Meaning::Content => return apply_ordinary(entry, &path, content, tree, files),
        _ if entry.stored > 0 => return Err(ImportError::MarkerWithContent { member: entry.shown() }),
        Meaning::Removed(deleted) => tree.whiteout(&deleted)?,
        Meaning::Opaque(directory) => tree.opaque(&directory)?,
        Meaning::Ignored => {}
    }
    Ok(())
}

fn apply_ordinary(
    entry: &Entry,
    path: &RelPath,
    content: &mut impl Read,
    tree: &mut TreeWriter,
    files: &mut FilePool,
) -> Result<(), ImportError> {
    let metadata = Metadata {
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        mtime: entry.mtime,
        xattrs: entry.xattrs.clone(),
    };
    match entry.kind {
        EntryKind::File => {
            let writer = tree.file(path, &metadata, entry.size)?;
            fill(entry, writer, content, files)?;
        }
        EntryKind::Directory => tree.directory(path, &metadata)?,
        EntryKind::Symlink => tree.symlink(path, &entry.link, &metadata)?,
        EntryKind::HardLink => tree.hard_link(path, &RelPath::from_archive(&entry.link)?)?,
        EntryKind::CharDevice { major, minor } => {
            tree.device(path, disk::DeviceKind::Char, (major, minor), &metadata)?;
        }
        EntryKind::BlockDevice { major, minor } => {
            tree.device(path, disk::DeviceKind::Block, (major, minor), &metadata)?;
        }
        EntryKind::Fifo => tree.fifo(path, &metadata)?,
    }
    Ok(())
}

fn fill(
    entry: &Entry,
    mut writer: FileWriter,
    content: &mut impl Read,
    files: &mut FilePool,
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
    let written = writer.finish()?;
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
        writer.write_all(piece.get(..read).unwrap_or_default())?;
        rest = rest.saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(())
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
    describe_implied(&unpacked, below, options)?;
    let UnpackedLayer { staging, streams, contents, tree, owners, toc, records } = unpacked;
    let namespace = options.unpack.xattr_namespace;
    let content = SealedContent::read(staging.directory(), contents.by_inode(), namespace)?;
    let split = assemble_split(&staging, &contents, &tree, &content.manifest, records, spool)?;
    Ok(SealedLayer {
        content,
        self_contained: tree.implicit.iter().all(RelPath::is_root),
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
) -> Result<(), ImportError> {
    for path in &unpacked.tree.implicit {
        if let Some(metadata) = inherited(below, path) {
            disk::apply_metadata(unpacked.staging.directory(), path, &metadata, &options.unpack)?;
        }
    }
    Ok(())
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
        Ok(Box::new(File::from(beneath::open_file_beneath(staging.aside(), name.as_bytes())?)))
    };
    records.rewind()?;
    let out = split::assemble(spool()?, &table, records, &mut replaced)?;
    Ok(PreparedBlob::from_file(out)?)
}

impl UnpackedLayer {
    /// What was learned about the streams.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Returns [`ImportError::Chunked`] if a table of contents was looked for and is not there.
    pub(crate) fn require_toc(mut self) -> Result<Self, ImportError> {
        match std::mem::replace(&mut self.toc, TocFound::None) {
            TocFound::Absent(error) => Err(error.into()),
            found => Ok(UnpackedLayer { toc: found, ..self }),
        }
    }

    /// What was found of the table of contents that the blob should have.
    pub(crate) fn toc(&self) -> &TocFound {
        &self.toc
    }

    /// Who owns something in the archive.
    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }
}
