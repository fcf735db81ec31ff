//! The workers of an import: each takes layers, bottom first, and makes them ready for their rows.

use std::collections::HashSet;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};
use layerstore_schema::table::LayerKey;

use super::{BlobInput, ImageImport, LayerImport, Prepared, Ready};
use crate::disk::{AdditionalDirectory, Filled, Stage, StagedBlob, Staging};
use crate::error::{BlobError, Error, ImportError, OciError};
use crate::layer::{self, ImportOptions, LayerBlob, Progress, Stack, Table, TocFound};
use crate::meta::{Query, ReadTxn};
use crate::store::{AdditionalLayer, Store};
use crate::sys::path;
use crate::types::{Algorithm, ChainId, Digest, Hasher, TreeDigest};

/// A blob copied into the store.
pub(super) struct CopiedBlob {
    pub(super) file: Filled,
    pub(super) size: u64,
}

/// Blobs copied into the store, by digest.
pub(super) type CopiedBlobs = Vec<(Digest, CopiedBlob)>;

/// What the workers of one import share.
pub(super) struct Work<'a> {
    store: &'a Store,
    stage: Stage,
    import: &'a ImageImport<'a>,
    chains: &'a [ChainId],
    next: AtomicUsize,
    failed: AtomicBool,
    state: Mutex<State>,
    /// Rings when a layer is ready or the work has failed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The stack that ends with each layer that is ready.
    stacks: Vec<Option<Stack>>,
    ready: Vec<Option<Ready>>,
    blobs: CopiedBlobs,
    damaged: HashSet<u64>,
    vanished: HashSet<String>,
    error: Option<Error>,
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
            let done = self.prepare(position, layer);
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made, and why not all layers are ready.
    pub(super) fn finish(self) -> (Prepared, Option<Error>) {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        let count = state.ready.len();
        let ready: Vec<_> = state.ready.into_iter().map_while(|ready| ready).collect();
        let given_up = (ready.len() < count).then(|| ImportError::GivenUp.into());
        let prepared =
            Prepared { ready, blobs: state.blobs, damaged: state.damaged, vanished: state.vanished };
        (prepared, state.error.or(given_up))
    }

    /// Waits for the stack below a layer.
    fn below(&self, position: usize) -> Result<Stack, Error> {
        let Some(below) = position.checked_sub(1) else { return Ok(Stack::default()) };
        let mut state = self.state();
        loop {
            if let Some(stack) = state.stacks.get(below).cloned().flatten() {
                return Ok(stack);
            }
            if self.failed.load(Ordering::Acquire) {
                return Err(ImportError::GivenUp.into());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn prepare(&self, position: usize, layer: &LayerImport<'_>) -> Result<(Ready, Stack), Error> {
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
                    LayerContent::Sealed(_) | LayerContent::Writable(_) => self.known(layer)?,
                }
                return Ok((Ready::Known, self.stack_of(&known, position)?));
            }
        } else if let Some(elsewhere) = self.elsewhere(chain, layer)? {
            self.report_known(layer);
            return Ok((Ready::Elsewhere, self.stack_of(&elsewhere, position)?));
        }
        // A stack whose lower layers are being unpacked cannot be waited for here: unpacking need not wait.
        let donors = txn.layers_by(LayerKey::DiffId, &layer.diff_id.to_string())?;
        let donor = donors.first().map(|id| txn.layer_ref(id)).transpose()?;
        let donor = match donor {
            Some(donor) if self.is_whole(&txn, &donor)? => Some(donor),
            _ => None,
        };
        drop(txn);
        if let Some(donor) = donor
            && let Some(ready) = self.share(&donor, position)?
        {
            self.known(layer)?;
            return Ok(ready);
        }
        if let Some((found, listing)) = self.additional(layer)? {
            self.report_known(layer);
            let stack = self.below(position)?.push(Arc::new(listing));
            return Ok((Ready::Additional(Box::new(found)), stack));
        }
        let unpacked = self.unpack(layer)?;
        let below = self.below(position)?;
        let spool = || Ok(self.store.spool()?);
        let sealed = layer::seal(unpacked, &below, spool, &self.store.import_options())?;
        for left_out in &sealed.left_out {
            self.report(&Progress::LeftOut { layer: &layer.diff_id, what: &left_out.to_string() });
        }
        // Its tree may be there already, from another archive.
        let txn = self.store.database().begin_read()?;
        self.is_whole_tree(&txn, chain.0.hex(), &sealed.content.tree)?;
        let stack = below.push(sealed.content.manifest.clone());
        Ok((Ready::Sealed(Box::new(sealed)), stack))
    }

    /// A layer that another store has, whole, which this one reads.
    fn elsewhere(&self, chain: &ChainId, layer: &LayerImport<'_>) -> Result<Option<LayerRecord>, Error> {
        if self.store.image_stores().is_empty() {
            return Ok(None);
        }
        let view = self.store.begin_read()?;
        let Some(found) = view.layer(chain.0.hex())? else { return Ok(None) };
        // A layer may have any id.
        if refuse_other(Some(&found), layer).is_err() {
            return Ok(None);
        }
        match view.verify_layer(&found) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "unpacked here");
                Ok(None)
            }
            verified => verified.map(|()| Some(found)),
        }
    }

    /// A layer that an additional layer store has. What such a store says and does not fit is no reason to fail: there is
    /// the blob.
    fn additional(&self, layer: &LayerImport<'_>) -> Result<Option<(AdditionalLayer, Manifest)>, Error> {
        let Some(found) = find_additional(self.store, self.import, layer)? else { return Ok(None) };
        match found.listing(self.store.layout().xattrs()) {
            Ok(listing) => Ok(Some((found, listing))),
            // What serves it may have failed meanwhile.
            Err(error) => {
                tracing::warn!(path = %found.path().display(), %error, "unpacked here");
                Ok(None)
            }
        }
    }

    /// A layer that need not be unpacked; its blob may be one that the store does not have yet.
    fn known(&self, layer: &LayerImport<'_>) -> Result<(), Error> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        self.report(&Progress::LayerKnown { blob: &blob.digest });
        if layer.keep_blob && self.store.options().keep_blobs && !self.has_kept(&blob.digest)? {
            let mut input = (layer.open)()?;
            if let Some(copied) = self.copy_blob(&mut input)? {
                // Nothing else reads it, so its digest is checked here.
                check_blob(&mut input.reader, blob)?;
                self.state().blobs.push((blob.digest.clone(), copied));
            }
        }
        Ok(())
    }

    /// Whether the files of a layer can be used again: not if their directory is gone, or they were not on the disk when
    /// the machine went down.
    fn is_whole(&self, txn: &ReadTxn, layer: &LayerRecord) -> Result<bool, Error> {
        match &layer.content {
            LayerContent::Sealed(tree) => self.is_whole_tree(txn, &layer.id, &TreeDigest(*tree)),
            LayerContent::Writable(_) => Ok(true),
            LayerContent::Additional(path) => {
                let there = AdditionalDirectory::from_bytes(path).open_diff().is_ok();
                if !there {
                    tracing::warn!(layer = layer.id, "its additional layer store is gone: unpacked here");
                    self.state().vanished.insert(layer.id.clone());
                }
                Ok(there)
            }
        }
    }

    fn is_whole_tree(&self, txn: &ReadTxn, layer: &str, tree: &TreeDigest) -> Result<bool, Error> {
        if let Some(diff) = txn.diff(tree)?
            && !path::exists(&self.store.diff_path(diff.number)).unwrap_or(true)
            // Whoever removes a layer takes the row first.
            && self.store.database().begin_read()?.diff(tree)?.is_some_and(|now| now.number == diff.number)
        {
            tracing::warn!(layer, number = diff.number, "its directory is missing: unpacked again");
            self.state().damaged.insert(diff.number);
            return Ok(false);
        }
        match self.store.verify_tree(txn, layer, tree) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "unpacked again");
                self.state().damaged.extend(txn.diff(tree)?.map(|diff| diff.number));
                Ok(false)
            }
            verified => verified.map(|()| true),
        }
    }

    /// Whether a blob is kept already, and as it came.
    fn has_kept(&self, digest: &Digest) -> Result<bool, Error> {
        let digest = digest.to_string();
        let txn = self.store.database().begin_read()?;
        let Some(kept) = txn.kept_blob(&digest)? else { return Ok(false) };
        match self.store.verify_kept_blob(&txn, &digest, &kept) {
            Err(Error::Unsynced(error)) => {
                tracing::warn!(%error, "copied again");
                self.state().damaged.insert(kept.number);
                Ok(false)
            }
            verified => verified.map(|()| true),
        }
    }

    fn stack_of(&self, known: &LayerRecord, position: usize) -> Result<Stack, Error> {
        let below = self.below(position)?;
        match known.content {
            LayerContent::Sealed(tree) => Ok(below.push(self.manifest(known, &TreeDigest(tree))?)),
            LayerContent::Writable(_) => Ok(below),
            LayerContent::Additional(_) => Ok(below.push(self.store.begin_read()?.listing(known)?)),
        }
    }

    /// The manifest of a layer that was there a moment ago.
    fn manifest(&self, layer: &LayerRecord, tree: &TreeDigest) -> Result<Arc<Manifest>, Error> {
        let view = self.store.begin_read()?;
        if view.layer(&layer.id)?.is_none() {
            return Err(ImportError::Vanished { layer: layer.id.clone() }.into());
        }
        Ok(view.manifest(tree)?)
    }

    /// Whether the content of `donor`, which came from the same tar, is right here too: it is if nothing in it was
    /// inherited from the layers that lie below the donor.
    fn share(&self, donor: &LayerRecord, position: usize) -> Result<Option<(Ready, Stack)>, Error> {
        let LayerContent::Sealed(tree) = donor.content else { return Ok(None) };
        if !donor.self_contained {
            return Ok(None);
        }
        let below = self.below(position)?;
        let manifest = self.manifest(donor, &TreeDigest(tree))?;
        let root = manifest.get(b"").map(|entry| &entry.metadata);
        let same_root = match below.find(b"") {
            Some(entry) => Some(&entry.metadata) == root,
            // The donor's root may be that of the layers below it; here is nothing to inherit.
            None => donor.parent.is_none(),
        };
        if !same_root {
            return Ok(None);
        }
        Ok(Some((Ready::Shared(Box::new(donor.clone())), below.push(manifest))))
    }

    fn unpack(&self, layer: &LayerImport<'_>) -> Result<layer::UnpackedLayer, Error> {
        let mut input = (layer.open)()?;
        let staging = Staging::create(&self.stage, self.store.fresh_number()?)?;
        let mut copied = None;
        if let Some(blob) = &layer.blob {
            self.report(&Progress::LayerStarted { blob: &blob.digest, size: blob.size });
            if layer.keep_blob && self.store.options().keep_blobs {
                copied = self.copy_blob(&mut input)?;
                self.has_kept(&blob.digest)?;
            }
        }
        let algorithm = layer.blob.as_ref().map_or(Algorithm::Sha256, |blob| blob.digest.algorithm());
        let records = self.store.spool().map_err(ImportError::Io)?;
        let reader =
            Counted { inner: input.reader, work: self, blob: layer.blob.as_ref().map(|blob| &blob.digest) };
        let import =
            ImportOptions { table: layer.chunked.clone().map(Table::InBlob), ..self.store.import_options() };
        let unpacked = layer::unpack(reader, algorithm, staging, records, &import)
            .and_then(|unpacked| check_digests(layer, unpacked.streams()).map(|()| unpacked))
            .map_err(|error| diagnose(layer, error))?;
        if let TocFound::Absent(error) = unpacked.toc() {
            tracing::warn!(layer = %layer.diff_id, %error, "its table of contents is not known");
        }
        if let Some(blob) = &layer.blob {
            if let Some(copied) = copied {
                self.state().blobs.push((blob.digest.clone(), copied));
            }
            self.report(&Progress::LayerDone { blob: &blob.digest });
        }
        Ok(unpacked)
    }

    /// Copies a blob that stands in a file into the store, by reflink where the filesystem can, and lets the import
    /// read the copy: so what is kept is what was checked.
    fn copy_blob(&self, input: &mut BlobInput) -> Result<Option<CopiedBlob>, Error> {
        let Some((file, offset, length)) = input.extent.take() else { return Ok(None) };
        let staged = StagedBlob::create(&self.stage, self.store.fresh_number()?)?;
        staged.fill_from(&file, offset, length)?;
        input.reader = Box::new(staged.reader()?);
        Ok(Some(CopiedBlob { file: staged.filled(), size: length }))
    }

    fn report_known(&self, layer: &LayerImport<'_>) {
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

/// Names the layer that an error is about. A damaged blob shows as any error of decompression or of the archive:
/// its digest tells whether that is the cause.
fn diagnose(layer: &LayerImport<'_>, error: ImportError) -> ImportError {
    let name = layer.blob.as_ref().map_or_else(|| layer.diff_id.to_string(), |blob| blob.digest.to_string());
    let cause = layer.blob.as_ref().and_then(|blob| {
        let mut input = (layer.open)().ok()?;
        check_blob(&mut input.reader, blob).err()
    });
    match cause {
        Some(cause @ ImportError::BlobDigest { .. }) => cause,
        _ => ImportError::InLayer { layer: name, source: Box::new(error) },
    }
}

/// The layer as an additional layer store has it, if what that says fits.
pub(super) fn find_additional(
    store: &Store,
    import: &ImageImport<'_>,
    layer: &LayerImport<'_>,
) -> Result<Option<AdditionalLayer>, Error> {
    let Some(toc) = &layer.toc_digest else { return Ok(None) };
    if store.options().additional_layer_stores.is_empty() {
        return Ok(None);
    }
    let none = [String::new()];
    let references = if import.references.is_empty() { &none[..] } else { &import.references };
    for reference in references {
        let found = store.lookup_additional_layer(toc, reference);
        let fits = |found: &AdditionalLayer| found.expect_layer(&layer.diff_id, layer.blob.as_ref());
        match found.and_then(|found| found.map(|found| fits(&found).map(|()| found)).transpose()) {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => {}
            Err(error @ Error::AdditionalLayer(_)) => tracing::warn!(%error, "unpacked here"),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Refuses a layer that has the id of one of the import and is another.
pub(super) fn refuse_other(known: Option<&LayerRecord>, layer: &LayerImport<'_>) -> Result<(), ImportError> {
    match known {
        Some(known) if known.diff_id.as_deref() != Some(&*layer.diff_id.to_string()) => {
            Err(ImportError::OtherContent { layer: known.id.clone() })
        }
        _ => Ok(()),
    }
}

fn check_blob(input: &mut dyn Read, blob: &LayerBlob) -> Result<(), ImportError> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let copied = std::io::copy(input, &mut hasher);
    let found = hasher.finish();
    if found == blob.digest {
        return Ok(());
    }
    match copied {
        // A source that checks its blobs itself found the same, and may have read no further.
        Err(error)
            if !matches!(OciError::from_io(&error), Some(OciError::Blob(BlobError::Digest { .. }))) =>
        {
            Err(error.into())
        }
        _ => Err(ImportError::BlobDigest { expected: blob.digest.to_string(), found: found.to_string() }),
    }
}

fn check_digests(layer: &LayerImport<'_>, streams: &layer::Streams) -> Result<(), ImportError> {
    let blob = layer.blob.as_ref().map_or_else(String::new, |blob| blob.digest.to_string());
    if let Some(expected) = &layer.blob
        && expected.digest != streams.blob_digest
    {
        return Err(ImportError::BlobDigest { expected: blob, found: streams.blob_digest.to_string() });
    }
    if layer.diff_id != streams.diff_id {
        let (expected, found) = (layer.diff_id.to_string(), streams.diff_id.to_string());
        return Err(ImportError::DiffId { blob, expected, found });
    }
    Ok(())
}
