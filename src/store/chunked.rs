//! Layers of which only those files are fetched that the store does not have.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use layerstore_schema::manifest::Kind;

use crate::chunked::{self, ChunkedBlob, Plan, RangeSource, Toc};
use crate::error::{Error, ImportError};
use crate::layer::Table;
use crate::sys::beneath;
use crate::sys::file::File;
use crate::types::{Algorithm, ContentHash, Digest, Hasher, RelPath};

use super::part::Directory;
use super::{ApplyOptions, StagedDiff, Store};

/// The size of the pieces in which files are hashed.
const PIECE: usize = 128 * 1024;

/// A file of a sealed layer that may be one that is wanted.
struct Candidate<'s> {
    layer: String,
    directory: Directory<'s>,
    path: Vec<u8>,
    size: u64,
    /// Whether the wanted layer has something at this path.
    same_path: bool,
}

impl Candidate<'_> {
    fn open(&self) -> Result<File, Error> {
        let root = self.directory.open(&self.layer)?;
        let file = beneath::open_file_beneath(root.as_fd(), &self.path);
        Ok(file.map_err(ImportError::Io)?.into())
    }
}

impl Store {
    /// Unpacks a layer of which only the parts are fetched that the store does not have, for a layer to be made of it
    /// later.
    ///
    /// First the table of contents and the tar-split are fetched, in one call of the source; then, in a second one, whatever
    /// files no sealed layer has that this handle reads. Which those are is found out by reading: each file whose
    /// length is one of the table's is hashed, once for each call. From the parts the layer's whole archive is put together,
    /// and goes the way that every archive goes: so every content is compared with the table, and its diffID is known
    /// and compared with that in `options`. What is not read is the blob as a whole: [`StagedDiff::blob_digest`] is the digest of the
    /// archive, and the one in `options` is not looked at.
    ///
    /// Nothing of the source need be trusted but the digest of the table in `blob`, which is as good as where it came from.
    ///
    /// Returns [`Error::Import`]: with [`ImportError::Chunked`](crate::ImportError::Chunked) if the source fails, gives less or
    /// other bytes, if the blob has no tar-split, or its parts disagree; with
    /// [`ImportError::DiffId`](crate::ImportError::DiffId) if the archive is another. Nothing is left then. Returns
    /// [`Error::LayerMissing`] if a layer with a file that is needed was removed meanwhile: another try fetches it.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn annotations() -> std::collections::BTreeMap<String, String> { Default::default() }
    /// use layerstore::{ApplyOptions, ChunkedBlob, LayerOptions, RangeSource, Store, StoreOptions};
    ///
    /// fn pull(store: &Store, registry: &mut dyn RangeSource) -> Result<(), layerstore::Error> {
    ///     let Some(blob) = ChunkedBlob::from_annotations(&annotations()).ok().flatten() else { return Ok(()) };
    ///     if store.layers_by_toc_digest(&blob.toc_digest)?.is_empty() {
    ///         let staged = store.stage_chunked(&blob, registry, &ApplyOptions::default())?;
    ///         staged.insert(None, &LayerOptions::named("base"))?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn stage_chunked(
        &self,
        blob: &ChunkedBlob,
        source: &mut dyn RangeSource,
        options: &ApplyOptions,
    ) -> Result<StagedDiff, Error> {
        let home = self.home_of_new().store;
        home.begin_writing()?;
        let (toc, split) = chunked::fetch_table(blob, source).map_err(ImportError::from)?;
        let toc = Arc::new(toc);
        let here = self.contents_here(&toc)?;
        let plan =
            Plan::new(blob, &toc, &split, |digest| here.contains_key(digest)).map_err(ImportError::from)?;
        let fetched = plan.fetched().saturating_add(blob.fetched_first());
        tracing::debug!(
            fetched,
            ranges = plan.ranges.len(),
            here = here.len(),
            "a layer is fetched in parts"
        );
        let reader: Box<dyn Read + Send> = if plan.ranges.is_empty() {
            Box::new(io::empty())
        } else {
            chunked::read_ranges(source, &plan.ranges).map_err(ImportError::from)?
        };
        let problem = Mutex::default();
        let missing = Mutex::new(None);
        let open = |digest: &Digest| -> Result<Box<dyn Read + Send>, ImportError> {
            let candidate = here.get(digest).ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            match candidate.open() {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => {
                    *missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Err(ImportError::GivenUp)
                }
            }
        };
        let archive = plan.start(open, reader, &problem).map_err(ImportError::from)?;
        let options = ApplyOptions { blob_digest: None, chunked: None, toc_digest: None, ..options.clone() };
        let table = Table::Known(blob.toc_digest.clone(), Arc::clone(&toc));
        let staged = self.stage_table_in(home, archive, &options, Some(table));
        if let Some(error) = missing.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        if let Some(problem) = problem.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(problem.into());
        }
        Ok(StagedDiff { fetched: Some(fetched), ..staged? })
    }

    /// The contents of a table that files of sealed layers have.
    ///
    /// The records know of each file its length and its BLAKE3 hash, the table its SHA-256: equal length makes a candidate, and
    /// only reading it tells. Each content is read once, whatever the number of files that have it, those at a path of the
    /// table first, and none any more when all of its length are found.
    fn contents_here(&self, toc: &Toc) -> Result<HashMap<Digest, Candidate<'_>>, Error> {
        let mut wanted: HashMap<u64, HashSet<Digest>> = HashMap::new();
        let mut paths = HashSet::new();
        for entry in &toc.entries {
            if let Some(content) = &entry.content {
                wanted.entry(entry.entry.size).or_default().insert(content.digest.clone());
                paths.extend(RelPath::from_archive(&entry.entry.path));
            }
        }
        let candidates = self.candidates(
            |size| wanted.contains_key(&size),
            |path| RelPath::from_archive(path).is_ok_and(|path| paths.contains(&path)),
        )?;
        let found = Mutex::new((wanted, HashMap::new()));
        let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
        let next = AtomicUsize::new(0);
        let work = || loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = candidates.get(position) else { break };
            if lock().0.get(&candidate.size).is_none_or(HashSet::is_empty) {
                continue;
            }
            // What cannot be read is fetched.
            let Ok(digest) = candidate.open().and_then(|file| Ok(sha256(file).map_err(ImportError::Io)?))
            else {
                continue;
            };
            let (wanted, found) = &mut *lock();
            if wanted.get_mut(&candidate.size).is_some_and(|wanted| wanted.remove(&digest)) {
                found.insert(position, digest);
            }
        };
        thread::scope(|scope| {
            let workers = thread::available_parallelism().map_or(1, usize::from).min(candidates.len());
            for _ in 1..workers {
                if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                    break;
                }
            }
            work();
        });
        let (_, mut found) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        let all = candidates.into_iter().enumerate();
        Ok(all.filter_map(|(position, candidate)| Some((found.remove(&position)?, candidate))).collect())
    }

    /// A file for each content of sealed layers whose length is wanted, those whose path is wanted first.
    fn candidates(
        &self,
        is_length: impl Fn(u64) -> bool,
        is_path: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<Candidate<'_>>, Error> {
        let view = self.begin_read()?;
        let mut candidates: Vec<Candidate<'_>> = Vec::new();
        let (mut trees, mut seen) = (HashSet::new(), HashMap::<ContentHash, usize>::new());
        for layer in view.layers()? {
            let Some(tree) = layer.tree.filter(|tree| trees.insert(*tree)) else { continue };
            let Some((part, diff)) = view.diff(&tree)? else { continue };
            let directory = Directory::new(part.store().layout(), diff.number);
            for entry in view.manifest(&tree)?.entries() {
                let Kind::File { content, size, .. } = entry.kind else { continue };
                if size == 0 || !is_length(size) {
                    continue;
                }
                let same_path = is_path(&entry.path);
                let candidate = || Candidate {
                    layer: layer.id.to_string(),
                    directory,
                    path: entry.path.clone(),
                    size,
                    same_path,
                };
                match seen.get(&content) {
                    None => {
                        seen.insert(content, candidates.len());
                        candidates.push(candidate());
                    }
                    Some(known) if same_path => {
                        if let Some(known) = candidates.get_mut(*known).filter(|known| !known.same_path) {
                            *known = candidate();
                        }
                    }
                    Some(_) => {}
                }
            }
        }
        candidates.sort_by_key(|candidate| !candidate.same_path);
        Ok(candidates)
    }
}

fn sha256(mut file: File) -> io::Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(piece.get(..count).unwrap_or_default()),
        }
    }
}
