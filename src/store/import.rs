//! Bringing an image in: its layers side by side, then everything in one transaction.
//!
//! While data moves no transaction is open. Layers are taken bottom first by a few workers; each is unpacked as
//! soon as a worker has it, and sealed when the layer below it is known, because directories that an archive does
//! not name inherit from there. When all are done one `syncfs` brings to the disk what
//! the [`Writeback`](crate::disk::Writeback) has not written out meanwhile, and one
//! transaction inserts the rows; without the `syncfs`, the rows say so. If anything fails before, dropping what was
//! staged removes it.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`space`] | whether the disk has room for what is to come |
//! | [`work`] | the workers, layer by layer |
//! | [`reuse`] | layers that need not be unpacked |
//! | [`known`] | the blobs of these |
//! | [`verify`] | whether a blob is the one that the image names |
//! | [`sharing`] | new files that take their space together with equal ones |
//! | [`rows`] | the transaction |
//! | [`manifests`] | which manifest of an image is meant |

mod known;
mod manifests;
mod reuse;
mod rows;
mod sharing;
mod space;
#[cfg(test)]
mod tests;
mod verify;
mod work;

use std::collections::HashSet;
use std::io::Read;
use std::time::Duration;

use layerstore_schema::record::LayerRecord;
use layerstore_schema::table::Owner;

use crate::chunked::ChunkedBlob;
use crate::disk::{SyncPoint, parallel};
use crate::error::{Error, ImportError};
use crate::image::Image;
use crate::layer::{LayerBlob, Progress, ProgressFn, SealedLayer};
use crate::meta::{NamedNumbers, PreparedBlob, Query, named_numbers};
use crate::sys::file::File;
use crate::sys::moment;
use crate::timing::{self, Stage};
use crate::types::{ChainId, DiffId, Digest, ImageId, LeaseId, Name, Timestamp};

pub(super) use self::rows::Rows;
use self::work::{CopiedBlobs, Work};
use super::remove::{Doomed, EVERYTHING, Mounts};
use super::{AdditionalLayer, Store, SyncMode, lease};

/// How many layers are unpacked at a time at the most. Each has queues of its own, so this bounds memory and threads
/// on machines with many processors.
const LAYERS_AT_A_TIME: usize = 8;

/// How many layers are unpacked at a time for each processor: a layer of small files makes its files on one thread, and one that is
/// unpacked waits for the layer below it before it is sealed.
const LAYERS_OF_A_PROCESSOR: usize = 2;

/// An image to bring in.
pub(crate) struct ImageImport<'a> {
    /// The id.
    pub(crate) id: ImageId,
    /// Names, moved from whichever images have them.
    pub(crate) names: Vec<Name>,
    /// What additional layer stores may call the image.
    pub(crate) references: Vec<String>,
    /// When the image was made.
    pub(crate) created: Timestamp,
    /// The layers, bottom first.
    pub(crate) layers: Vec<LayerImport<'a>>,
    /// The digests of its manifests.
    pub(crate) digests: Vec<Digest>,
    /// Data items. One without bytes is removed, should the image have it from an earlier import.
    pub(crate) items: Vec<(String, Vec<u8>)>,
    /// The same, of items that the image has once: should it have them of an earlier import with another manifest, they stay, and
    /// these are under their keys with the digest of this one behind, as `manifest-<digest>`.
    pub(crate) first_items: Vec<(String, Vec<u8>)>,
    /// For how long the lowest layers are kept that were finished when another failed, if at all.
    pub(crate) keep_finished: Option<Duration>,
    /// Where progress is reported to.
    pub(crate) progress: Option<&'a ProgressFn<'a>>,
}

/// A layer to bring in, if the store does not have it.
pub(crate) struct LayerImport<'a> {
    /// The digest that the uncompressed stream must have.
    pub(crate) diff_id: DiffId,
    /// The blob that carries the layer; `None` for a stream that is nobody's blob.
    pub(crate) blob: Option<LayerBlob>,
    /// Where the blob has its table of contents, where somebody has said so.
    pub(crate) chunked: Option<ChunkedBlob>,
    /// The digest of its table of contents, of whichever kind, where somebody has said so.
    pub(crate) toc_digest: Option<Digest>,
    /// How many bytes of tar are in it, where somebody has said so: nobody has checked it.
    pub(crate) unpacked_size: Option<u64>,
    /// Whether the blob is worth keeping beside the files.
    pub(crate) keep_blob: bool,
    /// Opens the blob.
    pub(crate) open: Box<dyn Fn() -> Result<BlobInput, Error> + Send + Sync + 'a>,
}

impl LayerImport<'_> {
    /// What errors call it: the digest of its blob, or its diffID.
    fn name(&self) -> String {
        self.blob.as_ref().map_or_else(|| self.diff_id.to_string(), |blob| blob.digest.to_string())
    }
}

/// A blob being read.
pub(crate) struct BlobInput {
    /// Its bytes.
    pub(crate) reader: Box<dyn Read + Send>,
    /// Where they stand in a file, if they do: offset and length.
    pub(crate) extent: Option<(File, u64, u64)>,
}

/// What becomes of one layer of an import.
enum Ready {
    /// The store has this very layer.
    Known,
    /// Another store has it, which this one reads.
    Elsewhere,
    /// The store has its content, under another parent.
    Shared(Box<LayerRecord>),
    /// An additional layer store has it.
    Additional(Box<AdditionalLayer>),
    /// It was unpacked.
    Sealed(Box<SealedLayer>),
    /// It has the tree of the layer at this position, which was unpacked.
    Repeated(usize),
}

impl Ready {
    fn sealed(&self) -> Option<&SealedLayer> {
        match self {
            Ready::Sealed(layer) => Some(layer),
            _ => None,
        }
    }
}

/// Whether what was staged is on the disk.
pub(super) enum Durability {
    /// It is, and so are these numbers, which were noted as unsynced before.
    Synced { also: Vec<u64> },
    /// It was written in this boot, and is the kernel's.
    Unsynced { boot: String },
}

impl Durability {
    /// Of what was synced by itself, or has no files.
    #[expect(clippy::unnecessary_wraps, reason = "it stands where a sync can fail")]
    pub(super) fn is_done() -> Result<Self, Error> {
        Ok(Durability::Synced { also: Vec::new() })
    }
}

/// What the workers made.
struct Prepared {
    ready: Vec<Ready>,
    blobs: CopiedBlobs,
    /// Numbers of directories that are missing, and of directories and blobs that were found damaged after a reboot: what
    /// was made takes their places.
    damaged: HashSet<u64>,
    /// Layers on record whose additional layer store is gone.
    vanished: HashSet<String>,
}

impl Prepared {
    /// Whether files were written.
    fn is_staged(&self) -> bool {
        !self.blobs.is_empty() || self.ready.iter().any(|ready| matches!(ready, Ready::Sealed(_)))
    }
}

impl Store {
    /// Brings an image in: layers, record, names and items, all or nothing.
    pub(crate) fn import_image(&self, import: &ImageImport<'_>) -> Result<Image, Error> {
        if let Some(images) = self.separate_images() {
            return images.import_image(import);
        }
        self.begin_writing()?;
        let point = self.layout().sync_point()?;
        let chains = chain_ids(&import.layers);
        self.refuse_without_space(import, &chains)?;
        self.refuse_other_content(import, &chains)?;
        let work = Work::new(self, import, &chains)?;
        let workers = parallel::processors().saturating_mul(LAYERS_OF_A_PROCESSOR).min(LAYERS_AT_A_TIME);
        parallel::together(workers.min(import.layers.len()), || work.run());
        let (prepared, failed, writeback) = work.finish();
        if let Some(error) = failed {
            if let Some(duration) = import.keep_finished
                && !prepared.ready.is_empty()
                && !error.is_out_of_space()
            {
                let layers = u64::try_from(prepared.ready.len()).unwrap_or(u64::MAX);
                match self.keep_finished(&point, import, &chains, prepared, duration) {
                    Ok(expires) => {
                        if let Some(progress) = import.progress {
                            progress(&Progress::FinishedKept { layers, expires });
                        }
                    }
                    Err(why) => tracing::warn!(error = %why, "finished layers not kept"),
                }
            }
            return Err(error);
        }
        self.share_new(prepared.ready.iter().filter_map(Ready::sealed));
        if let Some(progress) = import.progress {
            progress(&Progress::Syncing);
        }
        // The sync would wait for it as well.
        timing::spanned(Stage::Sync, || drop(writeback));
        let items = [&import.items, &import.first_items].map(|items| prepare(items));
        let image = self.insert(&point, prepared, |rows, prepared| {
            // As of the last commit: nobody else writes now.
            let noted = self.loaded_names(&import.id)?;
            rows.image(import, &chains, prepared, &items, noted)
        })?;
        Ok(Image::from_record(image)?)
    }

    /// Refuses an import whose layers' ids are taken by others.
    fn refuse_other_content(&self, import: &ImageImport<'_>, chains: &[ChainId]) -> Result<(), Error> {
        let txn = self.database().begin_read()?;
        for (layer, chain) in import.layers.iter().zip(chains) {
            reuse::refuse_other(txn.layer(chain.0.hex())?.as_ref(), layer)?;
        }
        Ok(())
    }

    /// Commits the lowest layers of an import that failed, under a lease, so that the next try goes on from there. Returns
    /// when the lease ends: one that an earlier try was given for longer keeps its end, and what it keeps.
    fn keep_finished(
        &self,
        point: &SyncPoint,
        import: &ImageImport<'_>,
        chains: &[ChainId],
        prepared: Prepared,
        duration: Duration,
    ) -> Result<Timestamp, Error> {
        let id: LeaseId = rows::lease_id(import).parse()?;
        self.insert(point, prepared, |rows, prepared| {
            let top = rows.layers(import, chains, prepared)?;
            // An earlier try may have come further: what it kept must not be left without a lease.
            let earlier = rows.txn.lease(id.as_str())?;
            let mut things = earlier.as_ref().map(|lease| lease.things.clone()).unwrap_or_default();
            if let Some(top) = top.map(|top| (Owner::Layer.code(), top))
                && !things.contains(&top)
            {
                things.push(top);
            }
            let mut record = lease::new_record(id.as_str(), things, duration);
            if let Some(earlier) = earlier
                && Timestamp::from(earlier.expires) > Timestamp::from(record.expires)
            {
                record.expires = earlier.expires;
            }
            rows.txn.put_lease(&record)?;
            Ok(record.expires.into())
        })
    }

    /// Brings what was staged to the disk, runs the one transaction of an import, and lets go of what no row names.
    fn insert<T>(
        &self,
        point: &SyncPoint,
        mut prepared: Prepared,
        mut insert: impl FnMut(&mut Rows<'_>, &Prepared) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let sealed = prepared.ready.iter().filter_map(Ready::sealed);
        let spoiled = self.spoiled(sealed.map(|layer| &layer.content))?;
        prepared.damaged.extend(spoiled);
        let sync = || self.sync_staged(point, prepared.is_staged());
        let written = self.write_rows(&prepared.damaged, sync, Mounts::GoOn, |rows| {
            let value = insert(rows, &prepared)?;
            Ok((value, std::mem::take(&mut rows.needed)))
        });
        match written {
            Ok((value, needed)) => {
                settle(prepared, &needed);
                Ok(value)
            }
            Err(error) => {
                if error.is_outcome_unknown() {
                    // The rows may be there, and what they name must stay: the database knows, unless it cannot be
                    // read. Then everything stays, and gc finds what is not needed.
                    let named = self.database().begin_verified_read().and_then(|txn| named_numbers(&txn));
                    let needed =
                        named.map_or_else(|_| Needed::everything(), |named| Needed::of(&named, &prepared));
                    settle(prepared, &needed);
                }
                Err(error)
            }
        }
    }

    /// Runs a transaction that inserts layers, and deletes what has lost its place. `sync` brings to the disk what the
    /// layers have, and `insert` is run again if they stand on something that is not there.
    pub(super) fn write_rows<T>(
        &self,
        damaged: &HashSet<u64>,
        sync: impl Fn() -> Result<Durability, Error>,
        mounts: Mounts,
        mut insert: impl FnMut(&mut Rows<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mounts = if damaged.is_empty() { mounts } else { Mounts::Wait };
        let mut doomed = None;
        let written = loop {
            let durability = sync()?;
            let mut stands_on_unsynced = false;
            let mut write = || {
                self.database().write::<_, Error>(|txn| {
                    let mut rows = Rows::new(txn, damaged, &durability)?;
                    let value = insert(&mut rows)?;
                    stands_on_unsynced = rows.stand_on_unsynced()?;
                    if stands_on_unsynced {
                        return Err(ImportError::GivenUp.into());
                    }
                    self.refuse_mounted_above(&rows.replaced)?;
                    if !rows.replaced.is_empty() {
                        self.refuse_shown(&rows.freed.diffs)?;
                    }
                    doomed = Some(Doomed::announce(self, rows.freed));
                    moment::pass("before the commit");
                    Ok(value)
                })
            };
            // While a directory loses its place, nobody mounts it.
            let written = match mounts {
                Mounts::Wait => self.hold_run(|_| write()),
                Mounts::GoOn => write(),
            };
            // Another process has brought in a layer since the sync, and left it to the kernel.
            if !stands_on_unsynced {
                break written;
            }
        };
        moment::pass("after the commit");
        match written {
            Ok(value) => {
                if let Some(doomed) = doomed {
                    doomed.delete(self, EVERYTHING);
                }
                Ok(value)
            }
            Err(error) => {
                // If it is not known what became of the rows, who finds the locks dead will ask them.
                if let Some(doomed) = doomed
                    && !error.is_outcome_unknown()
                {
                    doomed.give_up();
                }
                Err(error)
            }
        }
    }

    /// Brings what was staged to the disk, and with it all that was left unsynced before; or says that it is not there.
    pub(super) fn sync_staged(&self, point: &SyncPoint, staged: bool) -> Result<Durability, Error> {
        if self.sync_mode() != SyncMode::Full {
            return Ok(Durability::Unsynced { boot: self.boot_id()?.to_owned() });
        }
        let mut also = self.unsynced_now()?;
        if staged || !also.is_empty() {
            also.extend(self.made_now()?);
            let synced = timing::spanned(Stage::Sync, || point.sync());
            self.or_distrust(synced.map_err(Error::from))?;
        }
        Ok(Durability::Synced { also })
    }
}

/// Which of the staged directories and blobs rows name, by position.
#[derive(Default)]
struct Needed {
    layers: Vec<bool>,
    blobs: Vec<bool>,
    all: bool,
}

impl Needed {
    fn everything() -> Self {
        Needed { all: true, ..Needed::default() }
    }

    fn of(named: &NamedNumbers, prepared: &Prepared) -> Self {
        let is_named = |ready: &Ready| match ready {
            Ready::Sealed(layer) => named.diffs.contains(&layer.directory.number()),
            // To a store that counts, it is used once more than may be so.
            Ready::Additional(_) => true,
            _ => false,
        };
        Needed {
            layers: prepared.ready.iter().map(is_named).collect(),
            blobs: prepared.blobs.iter().map(|(_, blob)| named.blobs.contains(&blob.file.number())).collect(),
            all: false,
        }
    }
}

/// Lets go of what was staged: what rows name stays, the rest goes with its guard.
fn settle(prepared: Prepared, needed: &Needed) {
    let needs = |flags: &[bool], position: usize| needed.all || flags.get(position) == Some(&true);
    for (position, ready) in prepared.ready.into_iter().enumerate() {
        match ready {
            Ready::Sealed(layer) if needs(&needed.layers, position) => layer.directory.keep(),
            Ready::Additional(layer) if needs(&needed.layers, position) => layer.keep_in_use(),
            _ => {}
        }
    }
    for (position, (_, blob)) in prepared.blobs.into_iter().enumerate() {
        if needs(&needed.blobs, position) {
            blob.file.keep();
        }
    }
}

/// Data items with their digests, compressed before any lock is taken.
type PreparedItems<'a> = Vec<(&'a str, Digest, PreparedBlob)>;

fn prepare(items: &[(String, Vec<u8>)]) -> PreparedItems<'_> {
    let prepared = items
        .iter()
        .map(|(key, bytes)| (key.as_str(), Digest::sha256(bytes), PreparedBlob::from_bytes(bytes)));
    prepared.collect()
}

fn chain_ids(layers: &[LayerImport<'_>]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(ChainId::of(chains.last(), &layer.diff_id));
    }
    chains
}
