//! Directories, files and blobs against the records that name them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use layerstore_schema::manifest::{Manifest, digest_of_encoded};
use layerstore_schema::record::{DiffRecord, KeptBlobRecord, LayerContent, LayerRecord};
use layerstore_schema::table::Owner;

use super::compare::{self, Found};
use super::{CheckLevel, CheckOptions, CheckReport, Finding, Scope, SealedTree, parallel};
use crate::disk::{self, DiffName, Subdirectory};
use crate::error::{Error, ExportError, LayoutError, MetaError};
use crate::layer::{self, Progress};
use crate::meta::{Query, Records, named_numbers, open_blob, read_blob};
use crate::store::{Store, find_leftovers};
use crate::types::{Algorithm, Digest, Hasher, TreeDigest};

/// How long a check waits for others to remove what no record names.
const REMOVAL_PAUSES: u32 = 20;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// One thing to check.
enum Job<'r> {
    /// A sealed directory, with the layers that have it.
    Tree(SealedTree, &'r DiffRecord),
    /// The directory of a layer that is written to.
    Writable(&'r LayerRecord, u64),
    /// A layer blob as delivered.
    KeptBlob(&'r str, &'r KeptBlobRecord),
    /// Bytes in the database, with the data items that they are.
    Bytes([u8; 32], Vec<(String, &'r str, &'r str)>),
}

/// Checks everything that records name, then what they do not name.
pub(super) fn check(
    store: &Store,
    options: &CheckOptions<'_>,
    records: &Records,
    scope: &Scope,
    report: &mut CheckReport,
) -> Result<(), Error> {
    let jobs = jobs(records, scope, options.level);
    let total = u64::try_from(jobs.len()).unwrap_or(u64::MAX);
    let done = AtomicU64::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let parts = parallel::each(&jobs, workers, |job| {
        let part = run(store, job, options.level, records)?;
        if let Some(progress) = options.progress {
            progress(&Progress::Checked { done: done.fetch_add(1, Ordering::Relaxed) + 1, total });
        }
        Ok(part)
    })?;
    parts.into_iter().for_each(|part| report.add(part));
    if scope.is_everything() {
        report.findings.extend(unnamed(store)?);
    }
    Ok(())
}

fn jobs<'r>(records: &'r Records, scope: &Scope, level: CheckLevel) -> Vec<Job<'r>> {
    let mut jobs = Vec::new();
    let mut layers_of: BTreeMap<&[u8; 32], Vec<String>> = BTreeMap::new();
    for layer in records.layers.values() {
        match &layer.content {
            LayerContent::Sealed(tree) => layers_of.entry(tree).or_default().push(layer.id.clone()),
            LayerContent::Writable(number) if scope.has_layer(&layer.id) => {
                jobs.push(Job::Writable(layer, *number));
            }
            LayerContent::Writable(_) => {}
        }
    }
    for (tree, record) in &records.diffs {
        let layers = layers_of.remove(tree).unwrap_or_default();
        if scope.is_everything() || layers.iter().any(|layer| scope.has_layer(layer)) {
            jobs.push(Job::Tree(SealedTree { digest: TreeDigest(*tree), layers }, record));
        }
    }
    let blobs_in_scope = |digest: &str| {
        let mut layers = records.layers.values().filter(|layer| scope.has_layer(&layer.id));
        layers.any(|layer| layer.blobs.iter().any(|blob| blob.digest == digest))
    };
    for (digest, record) in &records.kept_blobs {
        if scope.is_everything() || blobs_in_scope(digest) {
            jobs.push(Job::KeptBlob(digest, record));
        }
    }
    if level == CheckLevel::Deep {
        let mut items: BTreeMap<[u8; 32], Vec<(String, &str, &str)>> = BTreeMap::new();
        for ((code, id, key), item) in &records.items {
            let word = Owner::from_code(*code).map_or("thing", Owner::word);
            if scope.has(word, id) {
                items.entry(item.blob).or_default().push((format!("{word} {id}"), key, &item.digest));
            }
        }
        // Manifests and tar-splits are read with their directories; a check of everything reads them here too,
        // to tell damaged bytes from a damaged directory.
        if scope.is_everything() {
            records.blobs.keys().for_each(|hash| {
                items.entry(*hash).or_default();
            });
        }
        jobs.extend(items.into_iter().map(|(hash, items)| Job::Bytes(hash, items)));
    }
    jobs
}

fn run(store: &Store, job: &Job<'_>, level: CheckLevel, records: &Records) -> Result<CheckReport, Error> {
    let mut part = CheckReport::default();
    match job {
        Job::Tree(tree, record) => {
            check_tree(store, tree, record, level, records, &mut part)?;
            // A layer removed meanwhile takes its directory along.
            let still = store.database().begin_read()?.diff(&tree.digest)?;
            if still.is_none_or(|still| still.number != record.number) {
                part.findings.clear();
            }
        }
        Job::Writable(layer, number) => {
            part.checked.directories = 1;
            let thing = format!("layer {}", layer.id);
            part.findings.extend(open_directory(store, &thing, *number).err().map(|finding| *finding));
            if !part.findings.is_empty() {
                let still = store.database().begin_read()?.layer(&layer.id)?;
                if still.is_none_or(|still| still.content != layer.content) {
                    part.findings.clear();
                }
            }
        }
        Job::KeptBlob(digest, record) => {
            check_kept_blob(store, digest, record, level, &mut part)?;
            if !part.findings.is_empty() {
                let still = store.database().begin_read()?.kept_blob(digest)?;
                if still.is_none_or(|still| still.number != record.number) {
                    part.findings.clear();
                }
            }
        }
        Job::Bytes(hash, items) => check_bytes(store, hash, items, &mut part)?,
    }
    Ok(part)
}

/// Opens a layer's directory; the error is what was found instead.
fn open_directory(store: &Store, thing: &str, number: u64) -> Result<OwnedFd, Box<Finding>> {
    let (thing, path) = (thing.to_owned(), store.diff_path(number));
    store.open_diff(number).map_err(|error| {
        Box::new(match error {
            LayoutError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Finding::DirectoryMissing { thing, path }
            }
            error => Finding::DirectoryUnreadable { thing, path, reason: chain(&error) },
        })
    })
}

fn check_tree(
    store: &Store,
    tree: &SealedTree,
    record: &DiffRecord,
    level: CheckLevel,
    records: &Records,
    part: &mut CheckReport,
) -> Result<(), Error> {
    part.checked.directories = 1;
    let root = match open_directory(store, &tree.to_string(), record.number) {
        Ok(root) => root,
        Err(finding) => {
            part.findings.push(*finding);
            return Ok(());
        }
    };
    if level == CheckLevel::Quick {
        return Ok(());
    }
    let manifest = match read_manifest(store, tree, record)? {
        Ok(Some(manifest)) => manifest,
        // The row is gone, or is a finding already because its bytes are missing.
        Ok(None) => return Ok(()),
        Err(reason) => {
            part.findings.push(Finding::ManifestDamaged { tree: tree.clone(), reason });
            return Ok(());
        }
    };
    compare_tree(store, tree, record.number, &root, &manifest, level, part);
    if level == CheckLevel::Deep && part.findings.is_empty() {
        // With the files as they should be, what else can be wrong is the tar-split.
        for layer in tree.layers.iter().filter_map(|id| records.layers.get(id)) {
            part.findings.extend(check_diff_id(store, layer, &manifest, &root)?);
        }
    }
    Ok(())
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
    let bytes = match read_blob(&txn, &record.manifest) {
        Ok(bytes) => bytes,
        Err(error @ (MetaError::Blob { .. } | MetaError::Record { .. } | MetaError::Input(_))) => {
            return Ok(Err(chain(&error)));
        }
        Err(error) => return Err(error.into()),
    };
    let found = digest_of_encoded(&bytes);
    if found != tree.digest {
        return Ok(Err(format!("its digest is {found}")));
    }
    Ok(Manifest::decode(&bytes).map(Some).map_err(|error| error.to_string()))
}

fn compare_tree(
    store: &Store,
    tree: &SealedTree,
    number: u64,
    root: &OwnedFd,
    manifest: &Manifest,
    level: CheckLevel,
    part: &mut CheckReport,
) {
    let namespace = store.layout().xattrs();
    let unreadable = |error: &dyn std::error::Error| Finding::DirectoryUnreadable {
        thing: tree.to_string(),
        path: store.diff_path(number),
        reason: chain(error),
    };
    if level == CheckLevel::Deep {
        match disk::scan(root.as_fd(), &HashMap::new(), namespace) {
            Ok(found) => {
                part.checked.files = u64::try_from(found.entries().len()).unwrap_or(u64::MAX);
                part.checked.bytes = found.content_bytes();
                let entries = found.entries().iter().map(Found::from);
                part.findings.extend(compare::compare(tree, manifest.entries(), entries));
                return;
            }
            // The rest is compared as far as it can be.
            Err(error) => part.findings.push(unreadable(&error)),
        }
    }
    match disk::list(root.as_fd(), namespace) {
        Ok(found) => {
            part.checked.files = u64::try_from(found.len()).unwrap_or(u64::MAX);
            let entries = found.iter().map(Found::from);
            part.findings.extend(compare::compare(tree, manifest.entries(), entries));
        }
        Err(error) if part.findings.is_empty() => part.findings.push(unreadable(&error)),
        Err(_) => {}
    }
}

/// Joins the tar-split with the files, and compares what comes out with the diffID.
fn check_diff_id(
    store: &Store,
    record: &LayerRecord,
    manifest: &Manifest,
    root: &OwnedFd,
) -> Result<Option<Finding>, Error> {
    let (Some(split), Some(expected)) = (&record.split, &record.diff_id) else { return Ok(None) };
    let Ok(digest) = expected.parse::<Digest>() else { return Ok(None) };
    let layer = record.id.clone();
    let txn = store.database().begin_read()?;
    let split = match open_blob(&txn, split) {
        Ok(split) => split,
        // Found as missing bytes, or gone with the layer.
        Err(MetaError::Missing { .. }) => return Ok(None),
        Err(error) => return Ok(Some(Finding::SplitDamaged { layer, reason: chain(&error) })),
    };
    let mut hasher = Hasher::new(digest.algorithm());
    match layer::export_original(&layer, split, manifest, root.as_fd(), &mut hasher) {
        Ok(()) => {}
        Err(ExportError::Damaged { source, .. }) => {
            return Ok(Some(Finding::SplitDamaged { layer, reason: chain(&source) }));
        }
        Err(error) => return Ok(Some(Finding::SplitDamaged { layer, reason: chain(&error) })),
    }
    let found = hasher.finish();
    let wrong = found != digest;
    Ok(wrong.then(|| Finding::DiffIdWrong { layer, expected: expected.clone(), found: found.to_string() }))
}

fn check_kept_blob(
    store: &Store,
    digest: &str,
    record: &KeptBlobRecord,
    level: CheckLevel,
    part: &mut CheckReport,
) -> Result<(), Error> {
    part.checked.files = 1;
    let path = store.layout().entry_path(Subdirectory::Blobs, DiffName::Entry(record.number));
    let damaged = |reason| Finding::KeptBlobDamaged { digest: digest.to_owned(), path: path.clone(), reason };
    let opened = store.open_kept_blob(record.number);
    let file = match opened {
        Ok(file) => file,
        Err(Error::Layout(LayoutError::Io { source, .. })) if source.kind() == io::ErrorKind::NotFound => {
            part.findings.push(Finding::KeptBlobMissing { digest: digest.to_owned(), path: path.clone() });
            return Ok(());
        }
        Err(error) => {
            part.findings.push(damaged(chain(&error)));
            return Ok(());
        }
    };
    let size = file.metadata().map(|metadata| metadata.len());
    match size {
        Ok(size) if size != record.size => {
            part.findings.push(damaged(format!("it has {size} bytes instead of {}", record.size)));
        }
        Err(error) => part.findings.push(damaged(error.to_string())),
        Ok(size) if level == CheckLevel::Deep => {
            part.checked.bytes = size;
            part.findings.extend(blob_damage(file, digest).map(damaged));
        }
        Ok(_) => {}
    }
    Ok(())
}

/// What is wrong with the bytes of a kept blob.
fn blob_damage(mut file: File, digest: &str) -> Option<String> {
    let Ok(expected) = digest.parse::<Digest>() else { return Some("its digest is none".to_owned()) };
    let mut hasher = Hasher::new(expected.algorithm());
    if let Err(error) = io::copy(&mut file, &mut hasher) {
        return Some(error.to_string());
    }
    let found = hasher.finish();
    (found != expected).then(|| format!("its digest is {found}"))
}

/// Reads bytes in the database, and compares them with their hash and with the digests of the items that they are.
fn check_bytes(
    store: &Store,
    hash: &[u8; 32],
    items: &[(String, &str, &str)],
    part: &mut CheckReport,
) -> Result<(), Error> {
    let txn = store.database().begin_read()?;
    let mut reader = match open_blob(&txn, hash) {
        Ok(reader) => reader,
        // Found as missing, or as a damaged record, or gone since.
        Err(MetaError::Missing { .. } | MetaError::Record { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut digest = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                part.checked.bytes += u64::try_from(count).unwrap_or_default();
                digest.update(buffer.get(..count).unwrap_or_default());
            }
            Err(error) => {
                let hash = blake3::Hash::from_bytes(*hash).to_string();
                part.findings.push(Finding::BlobDamaged { hash, reason: error.to_string() });
                return Ok(());
            }
        }
    }
    let found = digest.finish().to_string();
    for (owner, key, _) in items.iter().filter(|(_, _, expected)| *expected != found) {
        let (owner, key) = (owner.clone(), (*key).to_owned());
        part.findings.push(Finding::ItemDamaged { owner, key, what: "digest" });
    }
    Ok(())
}

/// What no record names.
fn unnamed(store: &Store) -> Result<Vec<Finding>, Error> {
    let layout = store.layout();
    let mut findings = Vec::new();
    match find_leftovers(layout, || named_numbers(&store.database().begin_read()?)) {
        Ok(found) => {
            let paths = found.iter().flat_map(|leftover| leftover.paths(layout));
            findings.extend(paths.map(|path| Finding::Garbage { path }));
        }
        // It is found already, and what it names is not known.
        Err(Error::Meta(MetaError::Record { .. })) => {}
        Err(error) => return Err(error),
    }
    for which in [Subdirectory::Diffs, Subdirectory::Blobs, Subdirectory::Work, Subdirectory::Trash] {
        for name in layout.names(which)? {
            let path = layout.path().join(which.name()).join(std::ffi::OsStr::from_bytes(&name));
            let ours = match DiffName::parse(&name) {
                Some(DiffName::Entry(_)) => true,
                Some(_) => !matches!(which, Subdirectory::Work | Subdirectory::Trash),
                None => false,
            };
            if which == Subdirectory::Trash {
                findings.push(Finding::Garbage { path });
            } else if !ours {
                findings.push(Finding::Stray { path });
            }
        }
    }
    // What another process is just removing gets a moment to go.
    for _ in 0..REMOVAL_PAUSES {
        findings.retain(|finding| match finding {
            Finding::Garbage { path } | Finding::Stray { path } => path.symlink_metadata().is_ok(),
            _ => true,
        });
        if findings.is_empty() {
            break;
        }
        thread::sleep(REMOVAL_PAUSE);
    }
    findings.sort_by_key(Finding::thing);
    Ok(findings)
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Some errors repeat what their cause says.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
