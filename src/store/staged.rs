//! Layers from archives: unpacked first, then inserted as a layer, or put on top of what a layer has.
//!
//! While data moves no transaction is open. What was unpacked is held by a value, and goes with it unless one
//! transaction gives it a row.

use std::io::Read;

use layerstore_schema::record::{LayerBlob as BlobRow, LayerRecord};
use layerstore_schema::table::Owner;

use crate::chunked::ChunkedBlob;
use crate::compress::Compression;
use crate::disk::{Stage, Staging, SyncPoint};
use crate::error::{ChunkedError, Error, ImportError};
use crate::layer::{self, ImportOptions, Layer, SealedLayer, Stack, Streams, Table, UnpackedLayer};
use crate::meta::Query;
use crate::sys::moment;
use crate::sys::userns::IdMaps;
use crate::timing;
use crate::types::{Algorithm, DiffId, Digest, LayerId};

use super::image::{insert as insert_items, prepare};
use super::layer::found;
use super::remove::Mounts;
use super::{LayerOptions, Store};

/// What is known of an archive before it is read, and what may be done with it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// What an error calls it that has to name it, such as its file; else that is its `blob_digest`, if it is given.
    pub name: Option<String>,
    /// The digest that the archive must have, as it is, compressed or not.
    pub blob_digest: Option<Digest>,
    /// The digest that it must have uncompressed.
    pub diff_id: Option<DiffId>,
    /// The digest of its table of contents, if it can be read in parts. Kept with the layer; nothing checks it, unless
    /// `chunked` is given.
    pub toc_digest: Option<Digest>,
    /// Where it has a table of contents in the form zstd:chunked. That is compared with all of the archive, and its digest
    /// kept with the layer.
    pub chunked: Option<ChunkedBlob>,
    /// Change a layer even if images or other layers stand on it, which then show something else than they did. Only for
    /// [`Store::apply_diff`] and [`StagedDiff::apply_to`].
    pub change_under_others: bool,
    /// Take a stream without a byte as an archive of no changes, and do not refuse it with
    /// [`ArchiveError::Empty`](crate::ArchiveError::Empty). Such a stream is what a program leaves that failed before it wrote
    /// anything. An archive that agrees with a table of contents may be empty in any case.
    pub allow_empty: bool,
    /// Which ids of the host the archive's become in the files: for mounts that show no other ids. Without maps, files have the
    /// owners that the archive says, and are shared with equal ones. In either case the layer gives back the archive as it came;
    /// [`Store::repair`] does not mend files with other owners from it.
    pub id_maps: Option<IdMaps>,
    /// Leave out owners that this process may not give: as
    /// [`StoreOptions::ignore_chown_errors`](super::StoreOptions::ignore_chown_errors), for this archive.
    pub ignore_chown_errors: bool,
}

/// An archive that was unpacked into the store and belongs to no layer yet. Made by [`Store::stage_diff`] and
/// [`Store::stage_chunked`].
///
/// # Close semantics
///
/// Dropping the value removes what was unpacked. If the process dies, it is garbage for [`Store::gc`].
#[derive(Debug)]
pub struct StagedDiff {
    /// The handle that it was made with.
    pub(super) store: Store,
    /// The store that it is in.
    pub(super) staged_in: Store,
    pub(super) unpacked: UnpackedLayer,
    pub(super) options: ApplyOptions,
    /// How much of its blob was fetched, if not all.
    pub(super) fetched: Option<u64>,
    /// From before the first file was written.
    pub(super) point: SyncPoint,
}

impl Store {
    /// Unpacks an archive of changes, in any compression that is known, for a layer to be made of it later.
    ///
    /// Nobody waits for it, and it waits for nobody, however large it is.
    ///
    /// Returns [`Error::Import`] if the archive is damaged, has not a single byte, or is not what `options` say; with
    /// [`ImportError::Chunked`](crate::ImportError::Chunked) if its table of contents is, or says something else than it, and with
    /// [`ImportError::Unmapped`](crate::ImportError::Unmapped) if the maps have not all of its owners. With
    /// [`UnpackError::OwnerNotMapped`](crate::UnpackError::OwnerNotMapped) it is refused if the user namespace of this process has no id for
    /// an owner. Returns [`Error::Value`] if the maps are none.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ApplyOptions, LayerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let mut options = ApplyOptions::default();
    /// assert!(store.stage_diff(std::io::empty(), &options).is_err());
    /// options.allow_empty = true;
    /// let staged = store.stage_diff(std::io::empty(), &options)?;
    /// let layer = staged.insert(None, &LayerOptions::named("empty"))?;
    /// assert!(!layer.is_writable());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn stage_diff(&self, diff: impl Read + Send, options: &ApplyOptions) -> Result<StagedDiff, Error> {
        self.stage_diff_in(self.home_of_new().store, diff, options)
    }

    /// As [`stage_diff`](Self::stage_diff), in the store `home`, which this handle reads.
    pub(super) fn stage_diff_in(
        &self,
        home: &Store,
        diff: impl Read + Send,
        options: &ApplyOptions,
    ) -> Result<StagedDiff, Error> {
        let in_blob = |blob: ChunkedBlob| Table::in_blob(blob, self.options().granted());
        let table = options.chunked.clone().map(in_blob).transpose();
        let table = table.map_err(|error| ImportError::from(ChunkedError::from(error)))?;
        self.stage_table_in(home, diff, options, table)
    }

    /// The same, of an archive that is compared with a table of contents.
    pub(super) fn stage_table_in(
        &self,
        home: &Store,
        diff: impl Read + Send,
        options: &ApplyOptions,
        table: Option<Table>,
    ) -> Result<StagedDiff, Error> {
        home.begin_writing()?;
        let point = home.layout().sync_point()?;
        let staging = Staging::create(&Stage::create(home.layout())?, home.fresh_number()?)?;
        let algorithm = options.blob_digest.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let records = home.spool().map_err(ImportError::Io)?;
        if let Some(maps) = &options.id_maps {
            maps.check()?;
        }
        let digest = || options.blob_digest.as_ref().map(Digest::to_string);
        let mut import = ImportOptions {
            name: options.name.clone().or_else(digest).unwrap_or_else(|| "the archive".to_owned()),
            empty_streams: options.allow_empty || table.is_some(),
            table,
            id_maps: options.id_maps.clone(),
            writeback: home.writeback()?,
            ..self.import_options()
        };
        import.unpack.squash_owners |= options.ignore_chown_errors;
        let unpacked = layer::unpack(diff, algorithm, staging, records, &import);
        let unpacked = unpacked.and_then(|unpacked| {
            check_digests(unpacked.streams(), options)?;
            unpacked.require_toc()
        })?;
        Ok(StagedDiff {
            store: self.clone(),
            staged_in: home.clone(),
            unpacked,
            options: options.clone(),
            fetched: None,
            point,
        })
    }

    /// Creates a layer with the content of an archive, in any compression that is known: all of it or nothing. The layer is
    /// sealed, and gives the archive back byte for byte.
    ///
    /// Of a compressed archive digest and length are kept, and not the bytes, as [`load`](Self::load) keeps the blobs of an image.
    /// The layer is inserted in one transaction after everything is unpacked; nothing is seen of it before.
    ///
    /// Returns what [`stage_diff`](Self::stage_diff) and [`StagedDiff::insert`] do.
    pub fn put_layer<'l>(
        &self,
        parent: impl Into<Option<&'l LayerId>>,
        options: &LayerOptions,
        diff: impl Read + Send,
    ) -> Result<Layer, Error> {
        let parent = parent.into();
        // What cannot be inserted need not be unpacked.
        self.home_of_new().new_layer(parent, options)?;
        self.stage_diff(diff, &options.apply)?.insert(parent, options)
    }
}

impl StagedDiff {
    /// The digest of the archive as it came.
    pub fn blob_digest(&self) -> &Digest {
        &self.streams().blob_digest
    }

    /// Its length as it came.
    pub fn blob_size(&self) -> u64 {
        self.streams().blob_size
    }

    /// How it was compressed.
    pub fn compression(&self) -> Compression {
        self.streams().compression
    }

    /// The digest of the uncompressed archive.
    pub fn diff_id(&self) -> &DiffId {
        &self.streams().diff_id
    }

    /// The length of the uncompressed archive.
    pub fn diff_size(&self) -> u64 {
        self.streams().diff_size
    }

    /// How many bytes of its blob were fetched, if it was made by [`Store::stage_chunked`].
    pub fn fetched(&self) -> Option<u64> {
        self.fetched
    }

    /// The users that own something in it, ascending; at most the lowest 4096.
    pub fn uids(&self) -> Vec<u32> {
        self.unpacked.owners().uids.iter().copied().collect()
    }

    /// The groups that own something in it, ascending; at most the lowest 4096.
    pub fn gids(&self) -> Vec<u32> {
        self.unpacked.owners().gids.iter().copied().collect()
    }

    /// Makes a layer of it above `parent`, in one transaction.
    ///
    /// Returns [`Error::Value`] if a name, a flag or an item's key is none, [`Error::Create`] if the id is taken or the parent
    /// belongs to a container, [`Error::Meta`] with [`NameInUse`](crate::MetaError::NameInUse) if a name is taken, [`Error::Lookup`]
    /// if the parent is not there, and [`Error::Unsynced`] if it was not on the disk when the machine went down.
    pub fn insert<'l>(
        self,
        parent: impl Into<Option<&'l LayerId>>,
        options: &LayerOptions,
    ) -> Result<Layer, Error> {
        let StagedDiff { store: handle, unpacked, options: apply, point, .. } = self;
        let home = handle.home_of_new();
        let store = home.store;
        let items = prepare(&options.items)?;
        let record = home.new_layer(parent.into(), options)?;
        moment::pass("to be sealed");
        let view = handle.begin_read()?;
        // It may have been removed while the archive was unpacked.
        record.parent.as_deref().map(|parent| found(&view, parent)).transpose()?;
        let below = view.stack(record.parent.as_deref())?;
        drop(view);
        let sealed = store.seal_unpacked(unpacked, &below)?;
        store.share_new([&sealed]);
        let sync = || store.sync_staged(&point, true);
        let record = described(record, &sealed, &apply);
        let written = store.write_rows(&store.spoiled([&sealed.content])?, sync, Mounts::GoOn, |rows| {
            home.refuse_taken(rows.txn, &record)?;
            let needed = rows.insert_sealed(record.clone(), &sealed)?;
            insert_items(rows.txn, Owner::Layer, &record.id, &items)?;
            rows.inserted_chain(&record.id)?;
            Ok((rows.txn.layer_ref(&record.id)?, needed))
        });
        let record = store.settle_directory(sealed.directory, written)?;
        Ok(Layer::from_record(record)?)
    }

    fn streams(&self) -> &Streams {
        self.unpacked.streams()
    }
}

impl Store {
    /// Seals what was unpacked, as a layer above `below`.
    pub(super) fn seal_unpacked(&self, unpacked: UnpackedLayer, below: &Stack) -> Result<SealedLayer, Error> {
        let spool = || Ok(self.spool()?);
        let seal = || layer::seal(unpacked, below, spool, &self.import_options());
        let sealed = timing::spanned(timing::Stage::Seal, seal)?;
        for left_out in &sealed.left_out {
            tracing::warn!(%left_out, "left out of the layer");
        }
        Ok(sealed)
    }
}

/// The record with what is known of the archive that the layer came from.
pub(super) fn described(record: LayerRecord, sealed: &SealedLayer, options: &ApplyOptions) -> LayerRecord {
    let streams = &sealed.streams;
    LayerRecord {
        diff_id: Some(streams.diff_id.to_string()),
        blobs: vec![BlobRow {
            digest: streams.blob_digest.to_string(),
            size: streams.blob_size,
            media_type: media_type(streams.compression).to_owned(),
        }],
        toc_digest: sealed.toc_digest.as_ref().or(options.toc_digest.as_ref()).map(ToString::to_string),
        ..record
    }
}

fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd | Compression::ZstdChunked => "application/vnd.oci.image.layer.v1.tar+zstd",
        // OCI has no names for these; docker's archives do.
        Compression::Bzip2 => "application/vnd.docker.image.rootfs.diff.tar.bzip2",
        Compression::Xz => "application/vnd.docker.image.rootfs.diff.tar.xz",
    }
}

fn check_digests(streams: &Streams, options: &ApplyOptions) -> Result<(), ImportError> {
    if let Some(expected) = options.blob_digest.as_ref().filter(|digest| **digest != streams.blob_digest) {
        let (expected, found) = (expected.to_string(), streams.blob_digest.to_string());
        return Err(ImportError::BlobDigest { expected, found });
    }
    if let Some(expected) = options.diff_id.as_ref().filter(|diff_id| **diff_id != streams.diff_id) {
        return Err(ImportError::DiffId {
            blob: streams.blob_digest.to_string(),
            expected: expected.to_string(),
            found: streams.diff_id.to_string(),
        });
    }
    Ok(())
}
