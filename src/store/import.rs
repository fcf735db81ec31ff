//! Bringing an image in: its layers side by side, then everything in one transaction.
//!
//! While data moves no transaction is open. Layers are taken bottom first by a few workers; each is unpacked as
//! soon as a worker has it, and sealed when the layer below it is known, because directories that an archive does
//! not name inherit from there. When all are done one `syncfs` brings the data to the disk, and one
//! transaction inserts the rows. If anything fails before, dropping what was staged removes it.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use layerstore_schema::record::{
    DiffRecord, ImageRecord, KeptBlobRecord, LayerBlob as BlobRow, LayerContent, LayerRecord,
};
use layerstore_schema::table::{LayerKey, Owner};

use crate::disk::{StagedBlob, Staging};
use crate::error::{Error, ImportError};
use crate::image::Image;
use crate::layer::{self, LayerBlob, Progress, ProgressFn, SealedLayer, Stack};
use crate::meta::{PreparedBlob, Query, WriteTxn};
use crate::types::{ChainId, DiffId, Digest, Hasher, ImageId, Name, Timestamp, TreeDigest};

use super::Store;

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
    /// Data items.
    pub(crate) items: Vec<(String, Vec<u8>)>,
    /// Where progress is reported to.
    pub(crate) progress: Option<&'a ProgressFn<'a>>,
}

/// A layer to bring in, if the store does not have it.
pub(crate) struct LayerImport<'a> {
    /// The digest that the uncompressed stream must have; `None` takes what comes.
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
        let chains = chain_ids(&import.layers);
        self.refuse_without_space(import, &chains)?;
        let work = Work::new(self, import, &chains);
        let workers = thread::available_parallelism().map_or(1, usize::from).min(import.layers.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| work.run());
            }
        });
        let (ready, blobs) = work.into_results()?;
        if let Some(progress) = import.progress {
            progress(&Progress::Syncing);
        }
        self.sync_data()?;
        let items: Vec<_> = import
            .items
            .iter()
            .map(|(key, bytes)| (key, Digest::sha256(bytes), PreparedBlob::from_bytes(bytes)))
            .collect();
        let written =
            self.database().write::<_, Error>(|txn| insert(txn, import, &chains, &ready, &blobs, &items));
        match written {
            Ok((record, needed)) => {
                settle(ready, blobs, &needed);
                Ok(Image::from_record(record)?)
            }
            Err(error) => {
                if error.is_outcome_unknown() {
                    // The rows may be there: what they would name must stay. If they are not, gc finds it.
                    settle(ready, blobs, &Needed::everything());
                }
                Err(error)
            }
        }
    }
}

impl Store {
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
}

/// Lets go of what was staged: what rows name stays, the rest goes with its guard.
fn settle(ready: Vec<Ready>, blobs: CopiedBlobs, needed: &Needed) {
    let needs = |flags: &[bool], position: usize| needed.all || flags.get(position) == Some(&true);
    for (position, ready) in ready.into_iter().enumerate() {
        if let Ready::Sealed(layer) = ready
            && needs(&needed.layers, position)
        {
            layer.staging.keep();
        }
    }
    for (position, (_, blob)) in blobs.into_iter().enumerate() {
        if needs(&needed.blobs, position) {
            blob.staged.keep();
        }
    }
}

/// Inserts everything of an import, in one transaction.
fn insert(
    txn: &WriteTxn,
    import: &ImageImport<'_>,
    chains: &[ChainId],
    ready: &[Ready],
    blobs: &[(Digest, CopiedBlob)],
    items: &[(&String, Digest, PreparedBlob)],
) -> Result<(ImageRecord, Needed), Error> {
    let mut needed = Needed::default();
    let mut parent = None;
    for ((layer, chain), ready) in import.layers.iter().zip(chains).zip(ready) {
        needed.layers.push(insert_layer(txn, layer, chain, parent, ready)?);
        parent = Some(chain.0.hex());
    }
    for (digest, blob) in blobs {
        let digest = digest.to_string();
        let new = txn.kept_blob(&digest)?.is_none();
        if new {
            let (number, size) = (blob.staged.number(), blob.size);
            txn.put_kept_blob(&digest, &KeptBlobRecord { number, size })?;
        }
        needed.blobs.push(new);
    }
    let record = insert_image(txn, import, parent)?;
    for (key, digest, blob) in items {
        txn.put_item(Owner::Image, &record.id, key, digest.to_string(), blob)?;
    }
    Ok((record, needed))
}

fn chain_ids(layers: &[LayerImport<'_>]) -> Vec<ChainId> {
    let mut chains: Vec<ChainId> = Vec::with_capacity(layers.len());
    for layer in layers {
        chains.push(ChainId::of(chains.last(), &layer.diff_id));
    }
    chains
}

/// A blob copied into the store.
struct CopiedBlob {
    staged: StagedBlob,
    size: u64,
}

/// Blobs copied into the store, by digest.
type CopiedBlobs = Vec<(Digest, CopiedBlob)>;

/// What the workers of one import share.
struct Work<'a> {
    store: &'a Store,
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
    error: Option<Error>,
}

impl<'a> Work<'a> {
    fn new(store: &'a Store, import: &'a ImageImport<'a>, chains: &'a [ChainId]) -> Self {
        let count = import.layers.len();
        let state = State {
            stacks: vec![None; count],
            ready: (0..count).map(|_| None).collect(),
            ..State::default()
        };
        Work {
            store,
            import,
            chains,
            next: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Takes layers, bottom first, until there are none or one has failed.
    fn run(&self) {
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

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into_results(self) -> Result<(Vec<Ready>, CopiedBlobs), Error> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = state.error {
            return Err(error);
        }
        let ready = state.ready.into_iter().collect::<Option<_>>();
        Ok((ready.ok_or(ImportError::GivenUp)?, state.blobs))
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
        if let Some(known) = txn.layer(chain.0.hex())? {
            drop(txn);
            self.known(layer)?;
            return Ok((Ready::Known, self.stack_of(&known, position)?));
        }
        // A stack whose lower layers are being unpacked cannot be waited for here: unpacking need not wait.
        let donors = txn.layers_by(LayerKey::DiffId, &layer.diff_id.to_string())?;
        let donor = donors.first().map(|id| txn.layer_ref(id)).transpose()?;
        drop(txn);
        if let Some(donor) = donor
            && let Some(ready) = self.share(&donor, position)?
        {
            self.known(layer)?;
            return Ok(ready);
        }
        let unpacked = self.unpack(layer)?;
        let below = self.below(position)?;
        let spool = || Ok(self.store.spool()?);
        let sealed = layer::seal(unpacked, &below, spool, &self.store.import_options())?;
        for left_out in &sealed.left_out {
            self.report(&Progress::LeftOut { layer: &layer.diff_id, what: &left_out.to_string() });
        }
        let stack = below.push(sealed.manifest.clone());
        Ok((Ready::Sealed(Box::new(sealed)), stack))
    }

    /// A layer that need not be unpacked; its blob may be one that the store does not have yet.
    fn known(&self, layer: &LayerImport<'_>) -> Result<(), Error> {
        let Some(blob) = &layer.blob else { return Ok(()) };
        self.report(&Progress::LayerKnown { blob: &blob.digest });
        let kept = self.store.database().begin_read()?.kept_blob(&blob.digest.to_string())?;
        if kept.is_none() && layer.keep_blob && self.store.options().keep_blobs {
            let mut input = (layer.open)()?;
            if let Some(copied) = self.copy_blob(&mut input)? {
                // Nothing else reads it, so its digest is checked here.
                check_blob(&mut input.reader, blob)?;
                self.state().blobs.push((blob.digest.clone(), copied));
            }
        }
        Ok(())
    }

    fn stack_of(&self, known: &LayerRecord, position: usize) -> Result<Stack, Error> {
        let below = self.below(position)?;
        let LayerContent::Sealed(tree) = known.content else { return Ok(below) };
        let txn = self.store.database().begin_read()?;
        Ok(below.push(self.store.manifest(&txn, &TreeDigest(tree))?))
    }

    /// Whether the content of `donor`, which came from the same tar, is right here too: it is if nothing in it was
    /// inherited from the layers that lie below the donor.
    fn share(&self, donor: &LayerRecord, position: usize) -> Result<Option<(Ready, Stack)>, Error> {
        let LayerContent::Sealed(tree) = donor.content else { return Ok(None) };
        if !donor.self_contained {
            return Ok(None);
        }
        let below = self.below(position)?;
        let txn = self.store.database().begin_read()?;
        let manifest = self.store.manifest(&txn, &TreeDigest(tree))?;
        let root = manifest.get(b"").map(|entry| &entry.metadata);
        if below.find(b"").is_some_and(|entry| Some(&entry.metadata) != root) {
            return Ok(None);
        }
        Ok(Some((Ready::Shared(Box::new(donor.clone())), below.push(manifest))))
    }

    fn unpack(&self, layer: &LayerImport<'_>) -> Result<layer::UnpackedLayer, Error> {
        let mut input = (layer.open)()?;
        let staging = Staging::create(self.store.layout(), self.store.fresh_number()?)?;
        let mut copied = None;
        if let Some(blob) = &layer.blob {
            self.report(&Progress::LayerStarted { blob: &blob.digest, size: blob.size });
            if layer.keep_blob && self.store.options().keep_blobs {
                copied = self.copy_blob(&mut input)?;
            }
        }
        let algorithm =
            layer.blob.as_ref().map_or(crate::types::Algorithm::Sha256, |blob| blob.digest.algorithm());
        let records = self.store.spool().map_err(ImportError::Io)?;
        let reader =
            Counted { inner: input.reader, work: self, blob: layer.blob.as_ref().map(|blob| &blob.digest) };
        let unpacked = layer::unpack(reader, algorithm, staging, records, &self.store.import_options())
            .and_then(|unpacked| check_digests(layer, unpacked.streams()).map(|()| unpacked))
            .map_err(|error| diagnose(layer, error))?;
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
        let staged = StagedBlob::create(self.store.layout(), self.store.fresh_number()?)?;
        staged.fill_from(&file, offset, length)?;
        input.reader = Box::new(staged.reader()?);
        Ok(Some(CopiedBlob { staged, size: length }))
    }

    fn report(&self, progress: &Progress<'_>) {
        if let Some(report) = self.import.progress {
            report(progress);
        }
    }
}

fn set<T>(slots: &mut [Option<T>], position: usize, value: T) {
    if let Some(slot) = slots.get_mut(position) {
        *slot = Some(value);
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

fn check_blob(input: &mut dyn Read, blob: &LayerBlob) -> Result<(), ImportError> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let copied = std::io::copy(input, &mut hasher);
    let found = hasher.finish();
    if found == blob.digest {
        return Ok(());
    }
    copied?;
    Err(ImportError::BlobDigest { expected: blob.digest.to_string(), found: found.to_string() })
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

/// Inserts the row of one layer; `false` if its staged directory is not needed.
fn insert_layer(
    txn: &WriteTxn,
    layer: &LayerImport<'_>,
    chain: &ChainId,
    parent: Option<&str>,
    ready: &Ready,
) -> Result<bool, Error> {
    let id = chain.0.hex();
    let blob_row = layer.blob.as_ref().map(|blob| BlobRow {
        digest: blob.digest.to_string(),
        size: blob.size,
        media_type: blob.media_type.clone(),
    });
    // Another process may have brought the same layer in meanwhile.
    if let Some(mut known) = txn.layer(id)? {
        if let Some(row) = blob_row
            && known.blobs.iter().all(|blob| blob.digest != row.digest)
        {
            known.blobs.push(row);
            txn.put_layer(&known)?;
        }
        return Ok(false);
    }
    let record = LayerRecord {
        id: id.to_owned(),
        parent: parent.map(str::to_owned),
        names: Vec::new(),
        metadata: String::new(),
        created: Timestamp::now().into(),
        content: LayerContent::Sealed([0; 32]),
        diff_id: Some(layer.diff_id.to_string()),
        diff_size: None,
        blobs: blob_row.into_iter().collect(),
        split: None,
        self_contained: true,
        flags: Vec::new(),
        labels: Vec::new(),
    };
    match ready {
        Ready::Sealed(sealed) => insert_sealed(txn, record, sealed),
        Ready::Shared(donor) => insert_shared(txn, record, donor).map(|()| true),
        // It was there when the import began, and has been removed since.
        Ready::Known => Err(ImportError::Vanished { layer: id.to_owned() }.into()),
    }
}

fn insert_sealed(txn: &WriteTxn, record: LayerRecord, sealed: &SealedLayer) -> Result<bool, Error> {
    let new_tree = txn.diff(&sealed.tree)?.is_none();
    if new_tree {
        let diff = DiffRecord {
            number: sealed.staging.number(),
            content_bytes: sealed.manifest.content_bytes(),
            disk_bytes: sealed.usage.allocated,
            inodes: sealed.usage.inodes,
            manifest: [0; 32],
        };
        txn.put_diff(&sealed.tree, diff, &sealed.manifest_blob)?;
    }
    let split = txn.put_blob(&sealed.split)?;
    txn.put_layer(&LayerRecord {
        content: LayerContent::Sealed(sealed.tree.0),
        diff_size: Some(sealed.streams.diff_size),
        split: Some(split),
        self_contained: sealed.self_contained,
        ..record
    })?;
    Ok(new_tree)
}

fn insert_shared(txn: &WriteTxn, record: LayerRecord, donor: &LayerRecord) -> Result<(), Error> {
    let gone = || ImportError::Vanished { layer: donor.id.clone() };
    let donor = txn.layer(&donor.id)?.ok_or_else(gone)?;
    if let Some(split) = &donor.split {
        txn.share_blob(split)?;
    }
    txn.put_layer(&LayerRecord {
        content: donor.content,
        diff_size: donor.diff_size,
        split: donor.split,
        self_contained: donor.self_contained,
        ..record
    })?;
    Ok(())
}

/// Inserts the image, or brings the one with this id up to date.
fn insert_image(txn: &WriteTxn, import: &ImageImport<'_>, top: Option<&str>) -> Result<ImageRecord, Error> {
    let mut record = txn.image(import.id.as_str())?.unwrap_or_else(|| ImageRecord {
        id: import.id.to_string(),
        names: Vec::new(),
        names_history: Vec::new(),
        metadata: String::new(),
        created: import.created.into(),
        top_layer: top.map(str::to_owned),
        mapped_top_layers: Vec::new(),
        digests: Vec::new(),
        flags: Vec::new(),
        labels: Vec::new(),
    });
    for digest in import.digests.iter().map(ToString::to_string) {
        if !record.digests.contains(&digest) {
            record.digests.push(digest);
        }
    }
    for name in &import.names {
        let held = record.names.iter().any(|held| held == name.as_str());
        if !held {
            txn.take_image_name(name.as_str())?;
            record.names.push(name.as_str().to_owned());
        }
        record.names_history.retain(|old| old != name.as_str());
        record.names_history.insert(0, name.as_str().to_owned());
    }
    txn.put_image(&record)?;
    Ok(record)
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
