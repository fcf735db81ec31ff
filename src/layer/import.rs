//! Unpacking a layer: a stream becomes a directory with all its files.
//!
//! Two steps make a layer of a stream, because those of one image are unpacked at the same time: [`unpack`] needs nothing but
//! the stream, [`seal`](super::seal) wants to know what lies below.

use std::collections::BTreeSet;
use std::io::Read;
use std::thread;

use layerstore_schema::record::OWNERS_KEPT;

use super::files::{Contents, FilePool};
use super::member::apply;
use super::pipeline::{Streams, read_layer};
use super::table::{Table, TocFound, Window};
use crate::archive::split::SplitBuilder;
use crate::archive::{Entry, Reader};
use crate::chunked::Listing;
use crate::disk::{Confinement, Staging, TreeWriter, UnpackOptions, UnpackedTree, Writeback};
use crate::error::{ArchiveError, ImportError};
use crate::sys::file::{File, duplicate};
use crate::sys::userns::IdMaps;
use crate::types::{Algorithm, Budget, Hashing, Limits};

/// How layers are unpacked.
#[derive(Clone, Debug)]
pub(crate) struct ImportOptions {
    /// What errors call the blob.
    pub(crate) name: String,
    /// What becomes of owners, devices and xattrs.
    pub(crate) unpack: UnpackOptions,
    /// What an archive may ask for.
    pub(crate) limits: Limits,
    /// The same, and what other layers of the image have left of them.
    pub(crate) budget: Budget,
    /// What writes out meanwhile what all layers of the import have written.
    pub(crate) writeback: Writeback,
    /// Threads that fill files.
    pub(crate) workers: usize,
    /// Whether a stream without a byte is an archive without members, and not one that was cut off.
    pub(crate) empty_streams: bool,
    /// The table of contents that the archive is compared with.
    pub(crate) table: Option<Table>,
    /// Which ids of the host the archive's become.
    pub(crate) id_maps: Option<IdMaps>,
}

/// A layer whose files are all there, and whose directory is not sealed.
#[derive(Debug)]
pub(crate) struct UnpackedLayer {
    pub(super) staging: Staging,
    pub(super) streams: Streams,
    pub(super) contents: Contents,
    pub(super) tree: UnpackedTree,
    pub(super) owners: Owners,
    /// Who owns the directories that neither the archive nor a layer below names.
    pub(super) root: (u32, u32),
    pub(super) toc: TocFound,
    /// The records of the tar-split.
    pub(super) records: File,
    /// What was granted to it, of which the seal takes more.
    pub(super) budget: Budget,
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

/// Unpacks the layer that `blob` carries into `staging`, in any known compression. `blob` is read on this thread, decompressed on
/// one that can open nothing, and the archive parsed and its files made on others that can write nowhere else.
///
/// Returns [`ImportError`] naming the member that is refused; the directory goes with `staging`.
pub(crate) fn unpack(
    blob: impl Read,
    algorithm: Algorithm,
    staging: Staging,
    records: File,
    options: &ImportOptions,
) -> Result<UnpackedLayer, ImportError> {
    let mut window = Vec::new();
    let blob = Window::new(blob, options.table.as_ref().and_then(Table::span), &mut window);
    let reach = Confinement::to(&staging);
    let (Unpacked { contents, tree, owners, listing, records }, streams) =
        read_layer((&options.name, blob), algorithm, &options.budget, reach, |input| {
            unpack_archive(input, &staging, records, options)
        })?;
    let toc = match &options.table {
        None => TocFound::None,
        Some(table) => match table.compare(&window, &listing, streams.compression, &options.limits) {
            Ok(digest) => TocFound::Agrees(digest.clone()),
            Err(error) if error.is_absence() => TocFound::Absent(error),
            Err(error) => return Err(error.into()),
        },
    };
    let root = options.id_maps.as_ref().and_then(|maps| maps.to_host(0, 0)).unwrap_or_default();
    let budget = options.budget.clone();
    Ok(UnpackedLayer { staging, streams, contents, tree, owners, root, toc, records, budget })
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
    let (directory, aside) = (duplicate(staging.directory())?, duplicate(staging.aside()?)?);
    let mut tree =
        TreeWriter::new(directory, aside, options.unpack.clone()).within(&options.budget, &options.writeback);
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
    let mut reader = Reader::with_limits(input, records, options.limits).within(&options.budget);
    let maps = options.id_maps.as_ref();
    let mut owners = Owners::default();
    let mut listing = options.table.as_ref().map(|table| table.listing(&options.limits)).unwrap_or_default();
    let contents = thread::scope(|scope| {
        let mut files = FilePool::start(scope, options.workers)?;
        while let Some(entry) = reader.next_entry()? {
            owners.add(&entry);
            if options.table.is_none() {
                apply(&entry, &mut reader, &mut tree, &mut files, maps)?;
                continue;
            }
            let mut hashed = Hashing::new(&mut reader, Algorithm::Sha256);
            apply(&entry, &mut hashed, &mut tree, &mut files, maps)?;
            let content = (entry.stored > 0).then(|| hashed.finish().1);
            listing.push(entry, content);
        }
        Ok::<_, ImportError>(files.finish()?)
    })?;
    let (records, _) = reader.into_tap().finish()?;
    Ok(Unpacked { contents, tree: tree.finish()?, owners, listing, records })
}
