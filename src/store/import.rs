//! Bringing an image in: its layers side by side, then everything in one transaction.
//!
//! While data moves no transaction is open. Layers are taken bottom first by a few workers; each is unpacked as
//! soon as a worker has it, and sealed when the layer below it is known, because directories that an archive does
//! not name inherit from there. When all are done one `syncfs` brings the data to the disk, and one
//! transaction inserts the rows. If anything fails before, dropping what was staged removes it.

mod rows;
#[cfg(test)]
mod tests;
mod work;

use std::io::Read;
use std::thread;
use std::time::Duration;

use layerstore_schema::record::LayerRecord;
use layerstore_schema::table::{LayerKey, Owner};

use crate::error::{Error, ImportError};
use crate::image::Image;
use crate::layer::{LayerBlob, Progress, ProgressFn, SealedLayer};
use crate::meta::{NamedNumbers, PreparedBlob, Query, named_numbers};
use crate::sys::file::File;
use crate::sys::moment;
use crate::types::{ChainId, DiffId, Digest, ImageId, LeaseId, Name, Timestamp};

use self::work::{CopiedBlobs, Outcome, Work};
use super::{Store, lease};

/// How many layers are unpacked at a time at the most. Each has queues of its own, so this bounds memory and threads
/// on machines with many processors.
const LAYERS_AT_A_TIME: usize = 8;

/// An image to bring in.
pub(crate) struct ImageImport<'a> {
    /// The id.
    pub(crate) id: ImageId,
    /// Names, moved from whichever images have them.
    pub(crate) names: Vec<Name>,
    /// When the image was made.
    pub(crate) created: Timestamp,
    /// The layers, bottom first.
    pub(crate) layers: Vec<LayerImport<'a>>,
    /// The digests of its manifests.
    pub(crate) digests: Vec<Digest>,
    /// Data items. One without bytes is removed, should the image have it from an earlier import.
    pub(crate) items: Vec<(String, Vec<u8>)>,
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
    /// Whether the blob is worth keeping beside the files.
    pub(crate) keep_blob: bool,
    /// Opens the blob.
    pub(crate) open: Box<dyn Fn() -> Result<BlobInput, Error> + Send + Sync + 'a>,
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
    /// The store has its content, under another parent.
    Shared(Box<LayerRecord>),
    /// It was unpacked.
    Sealed(Box<SealedLayer>),
}

impl Store {
    /// Brings an image in: layers, record, names and items, all or nothing.
    pub(crate) fn import_image(&self, import: &ImageImport<'_>) -> Result<Image, Error> {
        self.tidy_once();
        let chains = chain_ids(&import.layers);
        self.refuse_without_space(import, &chains)?;
        let work = Work::new(self, import, &chains)?;
        let workers = thread::available_parallelism().map_or(1, usize::from).min(LAYERS_AT_A_TIME);
        thread::scope(|scope| {
            for _ in 1..workers.min(import.layers.len()) {
                // Fewer do as well, where a limit of processes refuses more.
                if thread::Builder::new().spawn_scoped(scope, || work.run()).is_err() {
                    break;
                }
            }
            work.run();
        });
        let Outcome { error, ready, blobs } = work.finish();
        if let Some(error) = error {
            if let Some(duration) = import.keep_finished
                && !ready.is_empty()
                && !error.is_out_of_space()
                && let Err(why) = self.keep_finished(import, &chains, ready, blobs, duration)
            {
                tracing::warn!(error = %why, "finished layers not kept");
            }
            return Err(error);
        }
        if let Some(progress) = import.progress {
            progress(&Progress::Syncing);
        }
        self.sync_data()?;
        let items: Vec<_> = import
            .items
            .iter()
            .map(|(key, bytes)| (key, Digest::sha256(bytes), PreparedBlob::from_bytes(bytes)))
            .collect();
        let written = self.database().write::<_, Error>(|txn| {
            let inserted = rows::insert(txn, import, &chains, &ready, &blobs, &items)?;
            moment::pass("before the commit");
            Ok(inserted)
        });
        moment::pass("after the commit");
        match written {
            Ok((record, needed)) => {
                settle(ready, blobs, &needed);
                Ok(Image::from_record(record)?)
            }
            Err(error) => {
                self.settle_failed(&error, ready, blobs);
                Err(error)
            }
        }
    }

    /// Commits the lowest layers of an import that failed, under a lease, so that the next try goes on from there.
    fn keep_finished(
        &self,
        import: &ImageImport<'_>,
        chains: &[ChainId],
        ready: Vec<Ready>,
        blobs: CopiedBlobs,
        duration: Duration,
    ) -> Result<(), Error> {
        let id: LeaseId = rows::lease_id(import).parse()?;
        self.sync_data()?;
        let needed = self.database().write::<_, Error>(|txn| {
            let (needed, top) = rows::insert_layers(txn, import, chains, &ready, &blobs)?;
            let things = top.into_iter().map(|top| (Owner::Layer.code(), top)).collect();
            txn.put_lease(&lease::new_record(id.as_str(), things, duration))?;
            Ok(needed)
        });
        match needed {
            Ok(needed) => settle(ready, blobs, &needed),
            Err(error) => {
                self.settle_failed(&error, ready, blobs);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets go of what was staged after a commit that failed.
    fn settle_failed(&self, error: &Error, ready: Vec<Ready>, blobs: CopiedBlobs) {
        if error.is_outcome_unknown() {
            // The rows may be there, and what they name must stay: the database knows, unless it cannot be read. Then
            // everything stays, and gc finds what is not needed.
            let named = self.database().begin_read().and_then(|txn| named_numbers(&txn));
            let needed =
                named.map_or_else(|_| Needed::everything(), |named| Needed::of(&named, &ready, &blobs));
            settle(ready, blobs, &needed);
        }
    }

    /// Fails before anything is unpacked if the blobs alone, still compressed, have no room.
    fn refuse_without_space(&self, import: &ImageImport<'_>, chains: &[ChainId]) -> Result<(), Error> {
        let txn = self.database().begin_read()?;
        let mut needed = 0u64;
        for (layer, chain) in import.layers.iter().zip(chains) {
            let known = txn.layer(chain.0.hex())?.is_some()
                || !txn.layers_by(LayerKey::DiffId, &layer.diff_id.to_string())?.is_empty();
            let size = layer.blob.as_ref().map_or(0, |blob| blob.size);
            needed = needed.saturating_add(if known { 0 } else { size });
        }
        let (free, _) = self.layout().free_space()?;
        if needed > free {
            return Err(ImportError::NoSpace { needed, free }.into());
        }
        Ok(())
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

    fn of(named: &NamedNumbers, ready: &[Ready], blobs: &CopiedBlobs) -> Self {
        let is_named = |ready: &Ready| match ready {
            Ready::Sealed(layer) => named.diffs.contains(&layer.directory.number()),
            _ => false,
        };
        Needed {
            layers: ready.iter().map(is_named).collect(),
            blobs: blobs.iter().map(|(_, blob)| named.blobs.contains(&blob.file.number())).collect(),
            all: false,
        }
    }
}

/// Lets go of what was staged: what rows name stays, the rest goes with its guard.
fn settle(ready: Vec<Ready>, blobs: CopiedBlobs, needed: &Needed) {
    let needs = |flags: &[bool], position: usize| needed.all || flags.get(position) == Some(&true);
    for (position, ready) in ready.into_iter().enumerate() {
        if let Ready::Sealed(layer) = ready
            && needs(&needed.layers, position)
        {
            layer.directory.keep();
        }
    }
    for (position, (_, blob)) in blobs.into_iter().enumerate() {
        if needs(&needed.blobs, position) {
            blob.file.keep();
        }
    }
}

fn chain_ids(layers: &[LayerImport<'_>]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(ChainId::of(chains.last(), &layer.diff_id));
    }
    chains
}
