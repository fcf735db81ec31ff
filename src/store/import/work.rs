//! The workers of an import: each takes layers, bottom first, and makes them ready for their rows.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::LayerKey;

use super::reuse::refuse_other;
use super::verify::{check_digests, diagnose};
use super::{BlobInput, ImageImport, LayerImport, Prepared, Ready};
use crate::disk::{Filled, Stage, StagedBlob, Staging, Writeback};
use crate::error::{Error, ImportError};
use crate::layer::{self, ImportOptions, LayerBlob, Progress, Shape, Stack, Table, TocFound};
use crate::meta::Query;
use crate::store::Store;
use crate::timing;
use crate::types::{Algorithm, Budget, ChainId, DiffId, Digest};

/// A blob copied into the store.
pub(super) struct CopiedBlob {
    pub(super) file: Filled,
    pub(super) size: u64,
}

/// Blobs copied into the store, by digest.
pub(super) type CopiedBlobs = Vec<(Digest, CopiedBlob)>;

/// What the workers of one import share.
pub(super) struct Work<'a> {
    pub(super) store: &'a Store,
    stage: Stage,
    pub(super) import: &'a ImageImport<'a>,
    chains: &'a [ChainId],
    /// What all layers together have left.
    pub(super) budget: Budget,
    writeback: Writeback,
    /// The diffIDs that several layers have, with the position of the lowest.
    repeated: HashMap<&'a DiffId, usize>,
    next: AtomicUsize,
    failed: AtomicBool,
    state: Mutex<State>,
    /// Rings when a layer is ready or the work has failed.
    changed: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    /// What is known of the stack that ends with each layer that is ready.
    stacks: Vec<Option<Known>>,
    ready: Vec<Option<Ready>>,
    blobs: CopiedBlobs,
    /// The blobs that a worker has begun to copy: several layers may be of one.
    copying: HashSet<Digest>,
    /// The trees that were made of repeated diffIDs, with the positions of their layers.
    pub(super) shapes: HashMap<DiffId, Vec<(usize, Shape)>>,
    pub(super) damaged: HashSet<u64>,
    pub(super) vanished: HashSet<String>,
    error: Option<Error>,
}

/// What is known of the stack that ends with a layer.
#[derive(Clone)]
pub(super) enum Known {
    Stack(Stack),
    /// The layer is on record, here or in another store. Its manifest may have megabytes, and is read if a layer above asks.
    Record(Box<LayerRecord>),
}

impl<'a> Work<'a> {
    pub(super) fn new(
        store: &'a Store,
        import: &'a ImageImport<'a>,
        chains: &'a [ChainId],
    ) -> Result<Self, Error> {
        let count = import.layers.len();
        let state = State {
            stacks: vec![None; count],
            ready: (0..count).map(|_| None).collect(),
            ..State::default()
        };
        Ok(Work {
            store,
            stage: Stage::create(store.layout())?,
            import,
            chains,
            budget: Budget::new(store.options().granted()),
            writeback: store.writeback()?,
            repeated: repeated(import),
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        })
    }

    /// Takes layers, bottom first, until there are none or one has failed.
    pub(super) fn run(&self) {
        let _guard = StopOnPanic(self);
        loop {
            let position = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(layer) = self.import.layers.get(position) else { return };
            if self.failed.load(Ordering::Acquire) {
                return;
            }
            let digests = (&layer.diff_id, layer.blob.as_ref().map(|blob| &blob.digest));
            let done = timing::layer(position, digests, || self.prepare(position, layer));
            let mut state = self.state();
            match done {
                Ok((ready, stack)) => {
                    set(&mut state.ready, position, ready);
                    set(&mut state.stacks, position, stack);
                }
                Err(error) => {
                    self.failed.store(true, Ordering::Release);
                    // A layer that gave up because of this error may have come first.
                    let given_up = matches!(state.error, Some(Error::Import(ImportError::GivenUp)) | None);
                    if given_up {
                        state.error = Some(error);
                    }
                }
            }
            self.changed.notify_all();
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made, why not all layers are ready, and what is being written out yet.
    pub(super) fn finish(self) -> (Prepared, Option<Error>, Writeback) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = state.ready.len();
        let ready: Vec<_> = state.ready.into_iter().map_while(|ready| ready).collect();
        let given_up = (ready.len() < count).then(|| ImportError::GivenUp.into());
        let prepared =
            Prepared { ready, blobs: state.blobs, damaged: state.damaged, vanished: state.vanished };
        (prepared, state.error.or(given_up), self.writeback)
    }

    /// Waits for the stack below a layer, and reads what of it is only on record.
    pub(super) fn below(&self, position: usize) -> Result<Stack, Error> {
        let mut records = Vec::new();
        let mut stack = loop {
            let Some(below) = position.checked_sub(records.len().saturating_add(1)) else {
                break Stack::default();
            };
            match self.wait_for(below)? {
                Known::Stack(stack) => break stack,
                Known::Record(record) => records.push((below, record)),
            }
        };
        while let Some((below, record)) = records.pop() {
            stack = self.with_known(&stack, &record)?;
            set(&mut self.state().stacks, below, Known::Stack(stack.clone()));
        }
        Ok(stack)
    }

    /// Waits until a layer is ready.
    fn wait_for(&self, position: usize) -> Result<Known, Error> {
        let mut state = self.state();
        loop {
            if let Some(known) = state.stacks.get(position).cloned().flatten() {
                return Ok(known);
            }
            if self.failed.load(Ordering::Acquire) {
                return Err(ImportError::GivenUp.into());
            }
            let changed = timing::spanned(timing::Stage::QueueWait, || self.changed.wait(state));
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self, position: usize, layer: &LayerImport<'_>) -> Result<(Ready, Known), Error> {
        let _span = tracing::info_span!("layer", diff_id = %layer.diff_id).entered();
        let chain = self.chains.get(position).ok_or(ImportError::GivenUp)?;
        let txn = self.store.database().begin_read()?;
        let known = txn.layer(chain.0.hex())?;
        refuse_other(known.as_ref(), layer)?;
        if let Some(known) = known {
            if self.is_whole(&txn, &known)? {
                drop(txn);
                match known.content {
                    // Its blob stays where the rest of it is.
                    LayerContent::Additional(_) => self.report_known(layer),
                    LayerContent::Sealed(_) | LayerContent::Writable(_) => self.known(layer, &known)?,
                }
                return Ok((Ready::Known, Known::Record(Box::new(known))));
            }
        } else if let Some(elsewhere) = self.elsewhere(chain, layer)? {
            self.known_elsewhere(layer, &elsewhere)?;
            return Ok((Ready::Elsewhere, Known::Record(Box::new(elsewhere))));
        }
        // A stack whose lower layers are being unpacked cannot be waited for here: unpacking need not wait.
        let donor = txn.layer_by(LayerKey::DiffId, &layer.diff_id.to_string())?;
        let donor = donor.map(|id| txn.layer_ref(&id)).transpose()?;
        let donor = match donor {
            Some(donor) if self.is_whole(&txn, &donor)? => Some(donor),
            _ => None,
        };
        drop(txn);
        if let Some(donor) = donor
            && let Some((ready, stack)) = self.share(&donor, position)?
        {
            self.known(layer, &donor)?;
            return Ok((ready, Known::Stack(stack)));
        }
        if let Some((lower, stack)) = self.staged(layer, position)? {
            self.known_below(layer, lower)?;
            return Ok((Ready::Repeated(lower), Known::Stack(stack)));
        }
        if let Some((found, listing)) = self.additional(layer)? {
            self.report_known(layer);
            let stack = self.below(position)?.push(Arc::new(listing));
            return Ok((Ready::Additional(Box::new(found)), Known::Stack(stack)));
        }
        let unpacked = self.unpack(layer)?;
        let below = self.below(position)?;
        let spool = || Ok(self.store.spool()?);
        let options = self.store.import_options();
        let sealed = timing::spanned(timing::Stage::Seal, || layer::seal(unpacked, &below, spool, &options))?;
        for left_out in &sealed.left_out {
            self.report(&Progress::LeftOut { layer: &layer.diff_id, what: &left_out.to_string() });
        }
        // Its tree may be there already, from another archive.
        let txn = self.store.database().begin_read()?;
        self.is_whole_tree(&txn, chain.0.hex(), &sealed.content.tree)?;
        let stack = below.push(sealed.content.manifest.clone());
        if self.repeated.contains_key(&layer.diff_id) {
            let shape = (position, sealed.shape());
            self.state().shapes.entry(layer.diff_id.clone()).or_default().push(shape);
        }
        Ok((Ready::Sealed(Box::new(sealed)), Known::Stack(stack)))
    }

    fn unpack(&self, layer: &LayerImport<'_>) -> Result<layer::UnpackedLayer, Error> {
        let mut input = (layer.open)()?;
        let staging = Staging::create(&self.stage, self.store.fresh_number()?)?;
        let mut copied = None;
        if let Some(blob) = &layer.blob {
            self.report(&Progress::LayerStarted { blob: &blob.digest, size: blob.size });
            if layer.keep_blob && self.store.options().keep_blobs {
                if self.may_copy(&blob.digest) {
                    copied = self.copy_blob(&mut input)?;
                }
                self.has_kept(&blob.digest)?;
            }
        }
        let algorithm = layer.blob.as_ref().map_or(Algorithm::Sha256, |blob| blob.digest.algorithm());
        let records = self.store.spool().map_err(ImportError::Io)?;
        let reader =
            Counted { inner: input.reader, work: self, blob: layer.blob.as_ref().map(|blob| &blob.digest) };
        // Its tree depends on what lies below, so it may be needed once more.
        let again = self.state().shapes.contains_key(&layer.diff_id);
        let budget = if again { self.budget.again() } else { self.budget.clone() };
        let (name, table, writeback) = (layer.name(), self.table_of(layer), self.writeback.clone());
        let import = ImportOptions { name, table, budget, writeback, ..self.store.import_options() };
        let unpacked = layer::unpack(reader, algorithm, staging, records, &import)
            .and_then(|unpacked| check_digests(layer, unpacked.streams()).map(|()| unpacked))
            .map_err(|error| diagnose(layer, error))?;
        if let TocFound::Absent(error) = unpacked.toc() {
            tracing::warn!(layer = %layer.diff_id, %error, "its table of contents is not known");
        }
        if let Some(blob) = &layer.blob {
            if let Some(copied) = copied {
                self.keep_copied(blob, copied);
            }
            self.report(&Progress::LayerDone { blob: &blob.digest });
        }
        Ok(unpacked)
    }

    /// The table of contents that a blob is said to have. The layer needs none: one that is longer than is granted is no reason
    /// to refuse it, and is not read.
    fn table_of(&self, layer: &LayerImport<'_>) -> Option<Table> {
        match Table::in_blob(layer.chunked.clone()?, self.store.options().granted()) {
            Ok(table) => Some(table),
            Err(error) => {
                tracing::warn!(layer = %layer.diff_id, %error, "its table of contents is not read");
                None
            }
        }
    }

    /// Whether no other layer's worker copies the blob.
    pub(super) fn may_copy(&self, digest: &Digest) -> bool {
        self.state().copying.insert(digest.clone())
    }

    /// Whether a layer below has the same diffID.
    pub(super) fn is_repeated(&self, layer: &LayerImport<'_>, position: usize) -> bool {
        self.repeated.get(&layer.diff_id).is_some_and(|lowest| *lowest < position)
    }

    /// Copies a blob that stands in a file into the store, by reflink where the filesystem can, and lets the import
    /// read the copy: so what is kept is what was checked.
    pub(super) fn copy_blob(&self, input: &mut BlobInput) -> Result<Option<CopiedBlob>, Error> {
        let Some((file, offset, length)) = input.extent.take() else { return Ok(None) };
        let staged = StagedBlob::create(&self.stage, self.store.fresh_number()?)?;
        timing::spanned(timing::Stage::Write, || staged.fill_from(&file, offset, length))?;
        self.writeback.wrote(length);
        input.reader = Box::new(staged.reader()?);
        Ok(Some(CopiedBlob { file: staged.filled(), size: length }))
    }

    pub(super) fn keep_copied(&self, blob: &LayerBlob, copied: CopiedBlob) {
        self.state().blobs.push((blob.digest.clone(), copied));
    }

    pub(super) fn report_known(&self, layer: &LayerImport<'_>) {
        if let Some(blob) = &layer.blob {
            self.report(&Progress::LayerKnown { blob: &blob.digest });
        }
    }

    fn report(&self, progress: &Progress<'_>) {
        if let Some(report) = self.import.progress {
            report(progress);
        }
    }
}

/// Stops the workers that wait for a layer whose worker panics, such as in the caller's progress function: the
/// panic goes on to the caller when all have ended.
struct StopOnPanic<'w>(&'w Work<'w>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _state = self.0.state();
            self.0.failed.store(true, Ordering::Release);
            self.0.changed.notify_all();
        }
    }
}

/// The diffIDs that more than one layer has, with the position of the lowest.
fn repeated<'i>(import: &'i ImageImport<'_>) -> HashMap<&'i DiffId, usize> {
    let mut lowest: HashMap<&DiffId, (usize, bool)> = HashMap::new();
    for (position, layer) in import.layers.iter().enumerate() {
        lowest.entry(&layer.diff_id).and_modify(|(_, again)| *again = true).or_insert((position, false));
    }
    lowest
        .into_iter()
        .filter_map(|(diff_id, (position, again))| again.then_some((diff_id, position)))
        .collect()
}

fn set<T>(slots: &mut [Option<T>], position: usize, value: T) {
    if let Some(slot) = slots.get_mut(position) {
        *slot = Some(value);
    }
}

/// Reports how much of a blob was read.
struct Counted<'w, R> {
    inner: R,
    work: &'w Work<'w>,
    blob: Option<&'w Digest>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(out)?;
        if let Some(blob) = self.blob {
            let bytes = u64::try_from(read).unwrap_or(u64::MAX);
            self.work.report(&Progress::LayerBytes { blob, bytes });
        }
        Ok(read)
    }
}
