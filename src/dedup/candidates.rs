//! Which files are equal. The manifests of sealed layers say the hash and the length of each file; files of layers that
//! are written to are read, if their length is that of another one.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use layerstore_schema::manifest::{ContentHash, Kind, Manifest};
use layerstore_schema::record::LayerContent;

use super::DedupOptions;
use super::report::{DedupReport, SkipReason};
use crate::disk::{self, Life, ScannedKind};
use crate::error::{Error, LayoutError};
use crate::meta::Query;
use crate::store::Store;
use crate::sys::beneath;
use crate::sys::file::File;
use crate::types::TreeDigest;

/// The files that others are equal to, and the directories that have them.
pub(super) struct Candidates {
    /// Every directory, in the order in which they are gone through.
    pub(super) trees: Vec<Tree>,
    /// The contents that several files have.
    pub(super) repeated: HashSet<ContentHash>,
    /// The bytes of all files that have one of these, but for the first of each.
    pub(super) bytes: u64,
}

/// A directory of a layer.
pub(super) struct Tree {
    pub(super) number: u64,
    content: TreeContent,
}

enum TreeContent {
    Sealed(TreeDigest),
    /// What is in one that is written to, as far as it was read.
    Writable(Vec<Located>),
}

/// A file in a directory.
#[derive(Clone)]
pub(super) struct Located {
    pub(super) path: Vec<u8>,
    pub(super) size: u64,
    pub(super) content: ContentHash,
}

impl Candidates {
    pub(super) fn find(
        store: &Store,
        options: &DedupOptions<'_>,
        report: &mut DedupReport,
    ) -> Result<Self, Error> {
        let mut trees = Vec::new();
        let mut contents = Contents::default();
        // One snapshot for all is short: it reads the database alone.
        let txn = store.database().begin_read()?;
        for (tree, record) in txn.diffs()? {
            let manifest = store.manifest(&txn, &tree)?;
            for file in files(&manifest, options) {
                contents.add(file.size, file.content);
                report.files = report.files.saturating_add(1);
            }
            trees.push(Tree { number: record.number, content: TreeContent::Sealed(tree) });
        }
        let mut layers = Vec::new();
        if options.writable {
            layers = txn.layers()?;
            for rows in store.rows_beside(None)? {
                layers.extend(rows.layers()?);
            }
        }
        drop(txn);
        let writable: Vec<u64> =
            layers.iter().filter_map(|layer| number_of_writable(&layer.content)).collect();
        trees.extend(read_writable(store, &writable, options, &mut contents, report)?);
        let (repeated, bytes) = contents.repeated();
        Ok(Candidates { trees, repeated, bytes })
    }
}

impl Tree {
    /// Its files, if it still is what it was.
    pub(super) fn files(
        &self,
        store: &Store,
        options: &DedupOptions<'_>,
    ) -> Result<Option<Vec<Located>>, Error> {
        match &self.content {
            TreeContent::Writable(files) => Ok(Some(files.clone())),
            TreeContent::Sealed(tree) => {
                Ok(self.manifest(store, tree)?.map(|manifest| files(&manifest, options).collect()))
            }
        }
    }

    /// Whether what is in it is on record.
    pub(super) fn is_sealed(&self, store: &Store) -> Result<bool, Error> {
        match &self.content {
            TreeContent::Writable(_) => Ok(false),
            TreeContent::Sealed(tree) => Ok(self.manifest(store, tree)?.is_some()),
        }
    }

    fn manifest(&self, store: &Store, tree: &TreeDigest) -> Result<Option<Arc<Manifest>>, Error> {
        let txn = store.database().begin_read()?;
        match txn.diff(tree)? {
            Some(record) if record.number == self.number => Ok(Some(store.manifest(&txn, tree)?)),
            _ => Ok(None),
        }
    }
}

fn number_of_writable(content: &LayerContent) -> Option<u64> {
    match content {
        LayerContent::Writable(number) => Some(*number),
        LayerContent::Sealed(_) | LayerContent::Additional(_) => None,
    }
}

/// The files that are large enough, each inode once.
fn files<'m>(manifest: &'m Manifest, options: &DedupOptions<'_>) -> impl Iterator<Item = Located> + use<'m> {
    let least = options.min_size.max(1);
    manifest.entries().iter().filter_map(move |entry| match entry.kind {
        Kind::File { size, content } if size >= least => {
            Some(Located { path: entry.path.clone(), size, content })
        }
        _ => None,
    })
}

/// Every content with its length, once for each file that has it.
#[derive(Default)]
struct Contents {
    seen: HashMap<ContentHash, Count>,
    sizes: HashSet<u64>,
}

#[derive(Clone, Copy)]
struct Count {
    size: u64,
    files: u64,
}

impl Contents {
    fn add(&mut self, size: u64, content: ContentHash) {
        self.sizes.insert(size);
        let count = self.seen.entry(content).or_insert(Count { size, files: 0 });
        count.files = count.files.saturating_add(1);
    }

    fn repeated(self) -> (HashSet<ContentHash>, u64) {
        let mut bytes = 0u64;
        let repeated = self.seen.into_iter().filter(|(_, count)| count.files > 1);
        let repeated = repeated
            .map(|(content, count)| {
                bytes = bytes.saturating_add(count.size.saturating_mul(count.files.saturating_sub(1)));
                content
            })
            .collect();
        (repeated, bytes)
    }
}

/// A file of a layer that is written to.
struct Listed {
    tree: usize,
    path: Vec<u8>,
    size: u64,
}

/// Reads those files of directories that others may be equal to, as their lengths say.
fn read_writable(
    store: &Store,
    numbers: &[u64],
    options: &DedupOptions<'_>,
    contents: &mut Contents,
    report: &mut DedupReport,
) -> Result<Vec<Tree>, Error> {
    let (mut roots, mut listed) = (Vec::new(), Vec::new());
    for &number in numbers {
        let listed_one = store.open_diff(number).map_err(Error::from).and_then(|root| {
            let entries = disk::list_as_left(root.as_fd(), store.layout().xattrs(), Life::Changing)?;
            Ok((root, entries))
        });
        match listed_one {
            Ok((root, entries)) => {
                // Of a file that was left in a layer below, there are no bytes here.
                let here = entries.into_iter().filter(|entry| !entry.is_left_below());
                let files = here.filter_map(|entry| match entry.kind {
                    ScannedKind::File { size } if size >= options.min_size.max(1) => {
                        Some(Listed { tree: roots.len(), path: entry.path, size })
                    }
                    _ => None,
                });
                listed.extend(files);
                roots.push((number, root, Vec::new()));
            }
            // Its layer was removed meanwhile, or it is not to be read.
            Err(error) => {
                let reason = match error {
                    Error::Layout(LayoutError::Io { source, .. }) => source.into(),
                    error => SkipReason::Refused(io::Error::other(error)),
                };
                report.skip(store.diff_path(number), reason);
            }
        }
    }
    report.files = report.files.saturating_add(listed.len() as u64);
    // Whether a single file has a length.
    let mut once: HashMap<u64, bool> = HashMap::new();
    for file in &listed {
        once.entry(file.size).and_modify(|once| *once = false).or_insert(true);
    }
    for file in listed {
        let alone = !contents.sizes.contains(&file.size) && once.get(&file.size) == Some(&true);
        let Some((number, root, files)) = roots.get_mut(file.tree).filter(|_| !alone) else { continue };
        let opened = beneath::open_file_beneath(root.as_fd(), &file.path);
        match opened.and_then(|opened| disk::hash_content(File::from(opened), file.size)) {
            Ok(content) => {
                contents.add(file.size, content);
                files.push(Located { path: file.path, size: file.size, content });
            }
            // Somebody is writing to it.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                report.skip(path_in(store, *number, &file.path), SkipReason::Changed);
            }
            Err(error) => report.skip(path_in(store, *number, &file.path), error.into()),
        }
    }
    let tree = |(number, _, files)| Tree { number, content: TreeContent::Writable(files) };
    Ok(roots.into_iter().map(tree).collect())
}

/// The path of a file in a directory, for messages.
pub(super) fn path_in(store: &Store, number: u64, path: &[u8]) -> PathBuf {
    store.diff_path(number).join(OsStr::from_bytes(path))
}
