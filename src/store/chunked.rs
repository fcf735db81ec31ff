//! Layers of which only those files are fetched that the store does not have.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use layerstore_schema::manifest::Kind;

use crate::chunked::{self, ChunkedBlob, Plan, RangeSource, Toc};
use crate::disk;
use crate::error::{Error, ImportError};
use crate::layer::Table;
use crate::sys::beneath;
use crate::sys::file::File;
use crate::types::{Algorithm, ContentHash, Digest, Hasher, RelPath};

use super::part::Directory;
use super::{ApplyOptions, StagedDiff, Store};

/// The size of the pieces in which files are hashed.
const PIECE: usize = 128 * 1024;

/// How much may be read to find what is here: this, and for each byte of the blob some more, so that nobody's table has
/// all of the store read.
const READ_SPARE: u64 = 64 << 20;
/// How much a content may be worth of reading for each of its bytes in the blob. Contents that compress better are fetched as fast.
const READ_FACTOR: u64 = 16;

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
        let file = beneath::open_sealed_file_beneath(root.as_fd(), &self.path);
        Ok(file.map_err(ImportError::Io)?.into())
    }
}

/// The contents of a table that are looked for, and what may still be read to find them.
#[derive(Default)]
struct Search {
    /// By their lengths.
    wanted: HashMap<u64, HashSet<Digest>>,
    /// By the numbers of the candidates that have them.
    found: HashMap<usize, Digest>,
    /// How many bytes may be read.
    left: u64,
}

impl Search {
    fn new(toc: &Toc) -> Self {
        let mut search = Search { left: READ_SPARE, ..Search::default() };
        for entry in &toc.entries {
            let Some(content) = &entry.content else { continue };
            let size = entry.entry.size;
            if search.wanted.entry(size).or_default().insert(content.digest.clone()) {
                let in_blob = content.bytes_in_blob().saturating_mul(READ_FACTOR);
                // Twice, for those that are as long and another.
                search.left = search.left.saturating_add(size.min(in_blob).saturating_mul(2));
            }
        }
        search
    }

    /// Whether a file of this length is to be read, which takes it off what may be.
    fn grants(&mut self, size: u64) -> bool {
        if self.wanted.get(&size).is_none_or(HashSet::is_empty) {
            return false;
        }
        let left = self.left.checked_sub(size);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// Notes what a candidate has.
    fn note(&mut self, position: usize, size: u64, digest: Digest) {
        if self.wanted.get_mut(&size).is_some_and(|wanted| wanted.remove(&digest)) {
            self.found.insert(position, digest);
        }
    }
}

impl Store {
    /// Unpacks a layer of which only the parts are fetched that the store does not have, for a layer to be made of it
    /// later.
    ///
    /// First the table of contents and the tar-split are fetched, in one call of the source; then, in a second one, whatever
    /// files no sealed layer has that this handle reads. Which those are is found out by reading: each file whose
    /// length is one of the table's is hashed, once for each call, up to an amount that follows from the blob's length. From the parts the layer's whole archive is put together,
    /// and goes the way that every archive goes: so every content is compared with the table, and its diffID is known
    /// and compared with that in `options`. What is not read is the blob as a whole: [`StagedDiff::blob_digest`] is the digest of the
    /// archive, and the one in `options` is not looked at.
    ///
    /// Nothing of the source need be trusted but the digest of the table in `blob`, which is as good as where it came from.
    ///
    /// Returns [`Error::Import`]: with [`ImportError::Chunked`](crate::ImportError::Chunked) if the source fails, gives less or
    /// other bytes, if the blob has no tar-split, or its parts disagree; with
    /// [`ImportError::DiffId`](crate::ImportError::DiffId) if the archive is another; with
    /// [`ImportError::NoSpace`](crate::ImportError::NoSpace) if its files are larger than what is free. Nothing is left then. Returns
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
        let (toc, split) =
            chunked::fetch_table(blob, source, self.options().granted()).map_err(ImportError::from)?;
        let toc = Arc::new(toc);
        let here = self.contents_here(&toc)?;
        let plan =
            Plan::new(blob, &toc, &split, self.options().granted(), |digest| here.contains_key(digest))
                .map_err(ImportError::from)?;
        refuse_without_space(home, plan.unpacked)?;
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
        let table = Table::known(blob.toc_digest.clone(), Arc::clone(&toc));
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
    /// table first, and none any more when all of its length are found, or when as much was read as the blob is worth.
    fn contents_here(&self, toc: &Toc) -> Result<HashMap<Digest, Candidate<'_>>, Error> {
        let search = Search::new(toc);
        let files = toc.entries.iter().filter(|entry| entry.content.is_some());
        let paths: HashSet<RelPath> =
            files.filter_map(|entry| RelPath::from_archive(&entry.entry.path).ok()).collect();
        let candidates = self.candidates(
            |size| search.wanted.contains_key(&size),
            |path| RelPath::from_archive(path).is_ok_and(|path| paths.contains(&path)),
        )?;
        let search = Mutex::new(search);
        let lock = || search.lock().unwrap_or_else(PoisonError::into_inner);
        let next = AtomicUsize::new(0);
        let work = || loop {
            let position = next.fetch_add(1, Ordering::Relaxed);
            let Some(candidate) = candidates.get(position) else { break };
            if !lock().grants(candidate.size) {
                continue;
            }
            // What cannot be read is fetched.
            if let Ok(digest) = candidate.open().and_then(|file| Ok(sha256(file).map_err(ImportError::Io)?)) {
                lock().note(position, candidate.size, digest);
            }
        };
        disk::parallel::together(disk::parallel::workers(candidates.len(), 1), work);
        let Search { mut found, .. } = search.into_inner().unwrap_or_else(PoisonError::into_inner);
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
                    directory: directory.clone(),
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

/// Fails if files of so many bytes have no room in `home`, before they are copied there.
fn refuse_without_space(home: &Store, needed: u64) -> Result<(), Error> {
    let free = home.layout().free_space()?;
    if free.may_compress || needed <= free.bytes {
        return Ok(());
    }
    let reserved = disk::reserved(home.layout());
    Err(ImportError::NoSpace { needed, free: free.bytes, reserved }.into())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::Limits;

    fn toc(entries: &[(u64, u64)]) -> Toc {
        let mut offset = 8;
        let entries: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(at, (size, in_blob))| {
                offset += in_blob;
                let digest = Digest::sha256(&at.to_le_bytes()).to_string();
                json!({ "type": "reg", "name": at.to_string(), "size": size, "digest": digest,
                    "offset": offset - in_blob, "endOffset": offset })
            })
            .collect();
        let json = json!({ "version": 1, "entries": entries });
        Toc::parse(&serde_json::to_vec(&json).unwrap(), u64::MAX, &Limits::DEFAULT).unwrap()
    }

    #[test]
    fn a_search_reads_what_the_blob_is_worth() {
        // Many lengths of many bytes that take nothing in the blob.
        let mut search = Search::new(&toc(&vec![(1 << 30, 1); 5000]));
        assert!(!search.grants(1 << 30));
        let lengths: Vec<(u64, u64)> = (1..=5000).map(|at| (at << 10, 1)).collect();
        let mut search = Search::new(&toc(&lengths));
        let read: u64 = lengths.iter().map(|(size, _)| size).filter(|size| search.grants(**size)).sum();
        assert!((READ_SPARE / 2..=READ_SPARE + 5000 * 32).contains(&read), "{read}");
        // What the blob has as it is may be read twice, and what is found is looked for no more.
        let mut search = Search::new(&toc(&[(READ_SPARE, READ_SPARE)]));
        assert!((0..3).all(|_| search.grants(READ_SPARE)) && !search.grants(READ_SPARE));
        search.left = READ_SPARE;
        assert!(!search.grants(7), "no content has this length");
        search.note(3, READ_SPARE, Digest::sha256(&0usize.to_le_bytes()));
        assert!(search.found.contains_key(&3) && !search.grants(READ_SPARE));
    }
}
