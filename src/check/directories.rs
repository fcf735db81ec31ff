//! The directories of layers against their records, and the order in which everything is looked at.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use layerstore_schema::manifest::{Manifest, digest_of_encoded};
use layerstore_schema::record::{DiffRecord, KeptBlobRecord, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use super::bytes::{self, ItemBytes};
use super::compare;
use super::{CheckLevel, CheckOptions, Damage, Losses, Part, Scope, SealedTree, chain, note, withheld};
use crate::composefs;
use crate::disk::{self, AdditionalDirectory, DiffName, Subdirectory, parallel};
use crate::error::{Error, ExportError, LayoutError, MetaError, is_by_mode, is_denied};
use crate::layer::{self, Progress};
use crate::meta::{BlobKind, Query, Records, open_blob, read_blob};
use crate::store::Store;
use crate::types::{ContentHash, Digest, Hasher, TreeDigest};

/// One thing to check.
enum Job<'r> {
    /// A sealed directory, with the layers that have it; at the deepest level with those of them that came as archives.
    Tree(SealedTree, &'r DiffRecord, Vec<&'r LayerRecord>),
    /// The directory of a layer that is written to.
    Writable(&'r LayerRecord, u64),
    /// The directory of a layer in an additional layer store.
    Additional(&'r LayerRecord, AdditionalDirectory),
    /// The directory of an image or a container for its caller.
    Data(&'static str, &'r str, u64),
    /// A layer blob as delivered.
    KeptBlob(&'r str, &'r KeptBlobRecord),
    /// Bytes in the database, with the data items that they are.
    Bytes([u8; 32], Vec<ItemBytes<'r>>),
}

/// Checks everything that records name.
pub(super) fn check(
    store: &Store,
    options: &CheckOptions<'_>,
    records: &Records,
    scope: &Scope,
    report: &mut Part,
) -> Result<(), Error> {
    let level = options.level;
    let mut jobs = trees(records, scope, level);
    // A note says of those what becomes of them.
    for job in other_jobs(records, scope, level) {
        match &job {
            Job::Writable(_, number) if note::is_made_again(store, records, *number)? => {}
            _ => jobs.push(job),
        }
    }
    let done = AtomicU64::new(0);
    let total = jobs.iter().map(Job::steps).fold(0, u64::saturating_add);
    let run = |(): &mut (), job: &Job<'_>| -> Result<Outcome, Error> {
        let outcome = run(store, job, level)?;
        if let Some(progress) = options.progress {
            for _ in 0..job.steps() {
                progress(&Progress::Checked {
                    done: done.fetch_add(1, Ordering::Relaxed).saturating_add(1),
                    total,
                });
            }
        }
        Ok(outcome)
    };
    // A deep look at one directory keeps all processors busy by itself, but for its listing.
    let most = if level == CheckLevel::Deep { 2 } else { usize::MAX };
    let at_a_time = parallel::workers(jobs.len(), 1).min(most);
    let mut of_archives = Vec::new();
    for (part, archives) in parallel::each(&jobs, at_a_time, || (), run)? {
        report.add(part);
        of_archives.extend(archives);
    }
    report.damages.extend(of_archives);
    Ok(())
}

/// What a job found, and what is wrong with the archives of a directory that is as it should be.
type Outcome = (Part, Vec<Damage>);

impl Job<'_> {
    /// How many things it checks.
    fn steps(&self) -> u64 {
        match self {
            Job::Tree(.., archives) => u64::try_from(archives.len()).unwrap_or(u64::MAX).saturating_add(1),
            _ => 1,
        }
    }
}

fn trees<'r>(records: &'r Records, scope: &Scope, level: CheckLevel) -> Vec<Job<'r>> {
    let mut layers_of: BTreeMap<&[u8; 32], Vec<String>> = BTreeMap::new();
    for layer in records.layers.values() {
        if let LayerContent::Sealed(tree) = &layer.content {
            layers_of.entry(tree).or_default().push(layer.id.clone());
        }
    }
    let jobs = records.diffs.iter().filter_map(|(tree, record)| {
        let layers = layers_of.remove(tree).unwrap_or_default();
        let wanted = scope.is_everything() || layers.iter().any(|layer| scope.has_layer(layer));
        let archives = layers.iter().filter(|layer| level == CheckLevel::Deep && scope.has_layer(layer));
        let archives = archives.filter_map(|id| records.layers.get(id)).filter(|layer| layer.split.is_some());
        let archives = archives.collect();
        wanted.then_some(Job::Tree(SealedTree { digest: TreeDigest(*tree), layers }, record, archives))
    });
    jobs.collect()
}

fn other_jobs<'r>(records: &'r Records, scope: &Scope, level: CheckLevel) -> Vec<Job<'r>> {
    let mut jobs = Vec::new();
    let mut blobs: BTreeSet<&str> = BTreeSet::new();
    for layer in records.layers.values().filter(|layer| scope.has_layer(&layer.id)) {
        blobs.extend(layer.blobs.iter().map(|blob| blob.digest.as_str()));
        match &layer.content {
            LayerContent::Writable(number) => jobs.push(Job::Writable(layer, *number)),
            LayerContent::Additional(path) => {
                jobs.push(Job::Additional(layer, AdditionalDirectory::from_bytes(path)));
            }
            LayerContent::Sealed(_) => {}
        }
    }
    let images = records.images.values().map(|image| ("image", &image.id, image.directory));
    let containers =
        records.containers.values().map(|container| ("container", &container.id, container.directory));
    for (kind, id, directory) in images.chain(containers) {
        if let Some(number) = directory.filter(|_| scope.has(kind, id)) {
            jobs.push(Job::Data(kind, id, number));
        }
    }
    for (digest, record) in &records.kept_blobs {
        if scope.is_everything() || blobs.contains(digest.as_str()) {
            jobs.push(Job::KeptBlob(digest, record));
        }
    }
    if level == CheckLevel::Deep {
        let mut items: BTreeMap<[u8; 32], Vec<ItemBytes<'_>>> = BTreeMap::new();
        for ((code, id, key), item) in &records.items {
            let word = Owner::from_code(*code).map_or("thing", Owner::word);
            if scope.has(word, id) {
                let owner = format!("{word} {id}");
                items.entry(item.blob).or_default().push(ItemBytes { owner, key, digest: &item.digest });
            }
        }
        // Manifests and tar-splits are read with their directories; a check of everything reads them here too,
        // to tell damaged bytes from a damaged directory.
        if scope.is_everything() {
            for hash in records.blobs.keys() {
                items.entry(*hash).or_default();
            }
        }
        jobs.extend(items.into_iter().map(|(hash, items)| Job::Bytes(hash, items)));
    }
    jobs
}

fn run(store: &Store, job: &Job<'_>, level: CheckLevel) -> Result<Outcome, Error> {
    let (mut part, mut of_archives) = (Part::default(), Vec::new());
    match job {
        Job::Tree(tree, record, archives) => {
            of_archives = check_tree(store, (tree, archives), record, level, &mut part)?;
            // With the files as they should be, what else can be wrong is the tar-split.
            if !part.damages.is_empty() {
                of_archives.clear();
            }
        }
        Job::Writable(layer, number) => {
            open_directory(store, (format!("layer {}", layer.id), None), *number, &mut part);
        }
        Job::Additional(layer, directory) => {
            part.checked.count_directory();
            if let Err(error) = directory.open_diff() {
                let (layer, path) = (layer.id.clone(), directory.diff_path());
                part.damages.push(Damage::AdditionalMissing { layer, path, reason: error.to_string() });
            }
        }
        Job::Data(kind, id, number) => {
            let opened = store.layout().open_entry(Subdirectory::Data, *number);
            let path = store.layout().entry_path(Subdirectory::Data, DiffName::Entry(*number));
            part.checked.count_directory();
            if let Err(error) = opened {
                let (kind, id) = (*kind, (*id).to_owned());
                let thing = format!("{kind} {id}");
                let told = withheld::unless_refused(thing, path, &error, |_, path| Damage::DataMissing {
                    kind,
                    id,
                    path,
                    reason: chain(&error),
                });
                part.damages.push(withheld::of_lost_mode(store, told, 0o700));
            }
        }
        Job::KeptBlob(digest, record) => bytes::check_kept_blob(store, digest, record, level, &mut part),
        Job::Bytes(hash, items) => bytes::check_stored(store, hash, items, &mut part)?,
    }
    let is_right = part.damages.is_empty() && of_archives.is_empty();
    if !is_right && !is_current(store, job)? {
        part.damages.clear();
        part.losses = Losses::default();
        of_archives.clear();
    }
    Ok((part, of_archives))
}

/// Whether the newest snapshot still has the record that names what was looked at: a layer that is removed meanwhile
/// takes its directory along.
fn is_current(store: &Store, job: &Job<'_>) -> Result<bool, Error> {
    let txn = store.database().begin_read()?;
    Ok(match job {
        Job::Tree(tree, record, _) => {
            txn.diff(&tree.digest)?.is_some_and(|found| found.number == record.number)
        }
        // It may be a transient container's.
        Job::Writable(layer, _) | Job::Additional(layer, _) => {
            store.begin_read()?.layer(&layer.id)?.is_some_and(|found| found.content == layer.content)
        }
        Job::Data(kind, id, number) => {
            let directory = match *kind {
                "image" => txn.image(id)?.and_then(|image| image.directory),
                _ => store.begin_read()?.container(id)?.and_then(|container| container.directory),
            };
            directory == Some(*number)
        }
        Job::KeptBlob(digest, record) => {
            txn.kept_blob(digest)?.is_some_and(|found| found.number == record.number)
        }
        // They are read from one snapshot.
        Job::Bytes(..) => true,
    })
}

/// Opens a layer's directory, or notes what was found instead.
fn open_directory(
    store: &Store,
    (thing, tree): (String, Option<TreeDigest>),
    number: u64,
    part: &mut Part,
) -> Option<OwnedFd> {
    part.checked.count_directory();
    let path = store.diff_path(number);
    let finding = match store.open_diff(number) {
        Ok(directory) => return Some(directory),
        Err(LayoutError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Damage::DirectoryMissing { thing, tree, path }
        }
        Err(error) => withheld::unless_refused(thing, path, &error, |thing, path| {
            Damage::DirectoryUnreadable { thing, tree, path, reason: chain(&error) }
        }),
    };
    part.damages.push(finding);
    None
}

/// Compares a sealed directory with its manifest. Returns what is wrong with the `archives` of its layers.
fn check_tree(
    store: &Store,
    (tree, archives): (&SealedTree, &[&LayerRecord]),
    record: &DiffRecord,
    level: CheckLevel,
    part: &mut Part,
) -> Result<Vec<Damage>, Error> {
    let mut of_archives = Vec::new();
    let Some(root) = open_directory(store, (tree.to_string(), Some(tree.digest)), record.number, part) else {
        if part.is_examined() {
            part.losses.directories.insert(tree.digest.0);
        } else if store.import_options().unpack.mask.is_none()
            && let Ok(Some(manifest)) = read_manifest(store, tree, record)?
            && let Some(root) = manifest.entries().first().filter(|first| first.path.is_empty())
        {
            let tell = |damage| withheld::of_lost_mode(store, damage, root.metadata.mode);
            part.damages = mem::take(&mut part.damages).into_iter().map(tell).collect();
        }
        return Ok(of_archives);
    };
    if level == CheckLevel::Quick {
        return Ok(of_archives);
    }
    match read_manifest(store, tree, record)? {
        Ok(Some(manifest)) => {
            // Each file is read once: whoever makes an archive of them verifies them.
            let mut known = HashMap::new();
            for layer in archives {
                let (root, number) = (root.as_fd(), record.number);
                of_archives.extend(check_archive(store, layer, (tree, number, root), &manifest, &mut known)?);
            }
            compare_tree(store, (tree, record.number, root.as_fd()), (&manifest, &known), level, part);
            let number = record.number;
            let changed = |reason| Damage::ComposefsChanged { tree: tree.clone(), number, reason };
            // A file that may not be read is not either by its other name.
            let deep = level == CheckLevel::Deep && part.is_examined();
            let flaw = match composefs::flaw_of_data(store.layout(), &manifest, number, deep)? {
                None => match store.flaw_of_images(number, &tree.layers) {
                    // What is wrong with layers below is found with them.
                    Err(
                        Error::LayerMissing { .. }
                        | Error::Layout(_)
                        | Error::AdditionalLayer(_)
                        | Error::Meta(
                            MetaError::Record { .. }
                            | MetaError::Missing { .. }
                            | MetaError::Blob { .. }
                            | MetaError::BlobSize { .. }
                            | MetaError::Input(_),
                        ),
                    ) => None,
                    flaw => flaw?,
                },
                flaw => flaw,
            };
            part.damages.extend(flaw.map(changed));
            return Ok(of_archives);
        }
        // The row is gone, or is a finding already because its bytes are missing.
        Ok(None) => {}
        Err(reason) => part.damages.push(Damage::ManifestDamaged { tree: tree.clone(), reason }),
    }
    // From a directory that is not as it was, the manifest cannot be made again.
    if level == CheckLevel::Deep {
        match disk::scan(root.as_fd(), &HashMap::new(), store.layout().xattrs()) {
            Ok(found) if found.digest() == tree.digest => {}
            Err(error) if is_denied(&error) => {
                let path = store.diff_path(record.number);
                part.damages.push(Damage::NotExamined {
                    thing: tree.to_string(),
                    path,
                    reason: chain(&error),
                    by_mode: is_by_mode(&error),
                });
            }
            Ok(_) | Err(_) => drop(part.losses.directories.insert(tree.digest.0)),
        }
    }
    Ok(of_archives)
}

/// Reads a manifest past the store's cache. `Ok(None)` if there are no bytes for it; the inner error is what is wrong.
fn read_manifest(
    store: &Store,
    tree: &SealedTree,
    record: &DiffRecord,
) -> Result<Result<Option<Manifest>, String>, Error> {
    let txn = store.database().begin_read()?;
    if txn.blob(&record.manifest).is_ok_and(|blob| blob.is_none()) {
        return Ok(Ok(None));
    }
    let bytes = match read_blob(&txn, &record.manifest, BlobKind::Manifest) {
        Ok(bytes) => bytes,
        Err(
            error @ (MetaError::Blob { .. }
            | MetaError::BlobSize { .. }
            | MetaError::Record { .. }
            | MetaError::Input(_)),
        ) => return Ok(Err(chain(&error))),
        Err(error) => return Err(error.into()),
    };
    let found = digest_of_encoded(&bytes);
    if found != tree.digest {
        return Ok(Err(format!("its digest is {found}")));
    }
    Ok(Manifest::decode(&bytes).map(Some).map_err(|error| error.to_string()))
}

/// What the files have that somebody has just read, by their paths.
type Known<'m> = HashMap<&'m [u8], ContentHash>;

fn compare_tree(
    store: &Store,
    (tree, number, root): (&SealedTree, u64, BorrowedFd<'_>),
    (manifest, known): (&Manifest, &Known<'_>),
    level: CheckLevel,
    part: &mut Part,
) {
    let namespace = store.layout().xattrs();
    let looks = [Some(known), None];
    for known in looks.into_iter().skip(usize::from(level != CheckLevel::Deep)) {
        let found = match disk::examine(root, namespace, known) {
            Ok(found) => found,
            // The rest is compared as far as it can be.
            Err(error) => {
                if part.damages.is_empty() {
                    part.fail(tree, store.diff_path(number), &error);
                }
                continue;
            }
        };
        part.checked.files = u64::try_from(found.entries.len()).unwrap_or(u64::MAX);
        part.checked.bytes = found.bytes_read();
        let expected = withheld::without(manifest.entries(), &found.withheld);
        part.differ(compare::differences_seen(tree, &expected, &found.entries));
        let mut others = found.withheld;
        // Where all have one mode on the disk, theirs are on record elsewhere.
        if !disk::mask_of(root, namespace).is_ok_and(|mask| mask.is_some()) {
            let (directory, damages) = (store.diff_path(number), &mut part.damages);
            others =
                withheld::split_lost_modes(store, (tree, &directory), manifest.entries(), others, damages);
        }
        part.damages.extend(withheld::findings(tree, &others));
        return;
    }
}

/// Joins the tar-split with the files, and compares what comes out with the diffID. Notes which files were right.
fn check_archive<'m>(
    store: &Store,
    record: &LayerRecord,
    (tree, number, root): (&SealedTree, u64, BorrowedFd<'_>),
    manifest: &'m Manifest,
    known: &mut Known<'m>,
) -> Result<Option<Damage>, Error> {
    let (Some(split), Some(expected)) = (&record.split, &record.diff_id) else { return Ok(None) };
    let Ok(digest) = expected.parse::<Digest>() else { return Ok(None) };
    let layer = record.id.clone();
    let txn = store.database().begin_read()?;
    let split = match open_blob(&txn, split) {
        Ok(split) => split,
        // Found as missing bytes, or gone with the layer.
        Err(MetaError::Missing { .. }) => return Ok(None),
        Err(error) => return Ok(Some(Damage::SplitDamaged { layer, reason: chain(&error) })),
    };
    let mut hasher = Hasher::new(digest.algorithm());
    let note = |path, content| {
        known.insert(path, content);
    };
    match layer::export_original(&layer, split, manifest, root, &mut hasher, note) {
        Ok(()) => {
            let found = hasher.finish().to_string();
            let wrong = found != *expected;
            Ok(wrong.then(|| Damage::DiffIdWrong { layer, expected: expected.clone(), found }))
        }
        Err(ExportError::Damaged { source, .. }) => {
            Ok(Some(Damage::SplitDamaged { layer, reason: chain(&source) }))
        }
        Err(error) => {
            let (thing, path) = (tree.to_string(), store.diff_path(number));
            Ok(Some(withheld::unless_refused(thing, path, &error, |_, _| Damage::SplitDamaged {
                layer,
                reason: chain(&error),
            })))
        }
    }
}
