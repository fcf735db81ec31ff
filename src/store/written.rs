//! A directory that is written to, as one changeset, whatever mounts have left of it in the layers below.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use layerstore_schema::manifest::Manifest;

use crate::disk::{self, Confinement, Life, ScannedEntry, ScannedKind, Staging, TreeWriter, UnpackOptions};
use crate::error::{Error, ImportError, ScanError, TreeError};
use crate::layer::{self, UNREAD};
use crate::sys::file::{File, duplicate};
use crate::sys::stat::FileId;
use crate::sys::userns::IdMaps;
use crate::sys::{beneath, moment};
use crate::types::{ContentHash, RelPath};

use super::part::Directory;

/// What a layer that is written to has, as it was when it was read.
#[derive(Debug)]
pub(crate) struct Written<'s> {
    root: OwnedFd,
    entries: Vec<ScannedEntry>,
    /// The files whose bytes are not in the directory.
    elsewhere: Arc<Places<'s>>,
    /// The paths of which mounts have left something below.
    left_below: Vec<Vec<u8>>,
    life: Life,
    /// Whether the directory has marks that only a mount program understands.
    by_program: bool,
}

/// What becomes of a directory that is settled in another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Old {
    /// It stays, and what is written to one is not written to the other.
    Stays,
    /// It is removed, and its files are not copied: they get second names, where the filesystem lets that.
    Goes,
}

/// Files whose bytes are not in the directory of their layer, by path.
pub(super) type Places<'s> = HashMap<Vec<u8>, Elsewhere<'s>>;

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere<'s> {
    pub(super) holder: Root<'s>,
    pub(super) path: Vec<u8>,
    pub(super) content: ContentHash,
}

/// The directory that a path leads from.
#[derive(Clone, Debug)]
pub(super) enum Root<'s> {
    /// That of the layer with this id.
    Layer(String, Directory<'s>),
    /// The index of a layer.
    Index(Arc<OwnedFd>),
}

impl<'s> Written<'s> {
    /// What a directory has, before anything is brought back.
    pub(super) fn new(root: OwnedFd, entries: Vec<ScannedEntry>, life: Life, by_program: bool) -> Self {
        let left = entries.iter().filter(|entry| entry.is_left_below());
        let left_below = left.map(|entry| entry.path.clone()).collect();
        Written { root, entries, elsewhere: Arc::default(), left_below, life, by_program }
    }

    /// Makes it what it has with what was left below, or `kept` in the index alone.
    pub(super) fn bring_back(
        &mut self,
        entries: Vec<ScannedEntry>,
        elsewhere: Places<'s>,
        kept: Vec<Vec<u8>>,
    ) {
        self.entries = entries;
        self.elsewhere = Arc::new(elsewhere);
        self.left_below.extend(kept);
    }

    /// The files whose bytes are not in the directory.
    pub(super) fn elsewhere(&self) -> Arc<Places<'s>> {
        self.elsewhere.clone()
    }
}

impl Written<'_> {
    /// Its entries, in manifest order.
    pub(crate) fn entries(&self) -> &[ScannedEntry] {
        &self.entries
    }

    /// Takes the entries out, for who opens the files of the rest.
    pub(crate) fn take_entries(&mut self) -> Vec<ScannedEntry> {
        std::mem::take(&mut self.entries)
    }

    /// Whether the directory alone is the changeset, for the kernel as well: mounts left nothing below, and no marks.
    pub(crate) fn is_plain(&self) -> bool {
        self.left_below.is_empty() && !self.by_program
    }

    /// The paths of which mounts left something below.
    pub(crate) fn left_below(&self) -> &[Vec<u8>] {
        &self.left_below
    }

    /// Opens the file at a path, wherever its bytes are.
    pub(crate) fn open(&self, path: &[u8]) -> io::Result<File> {
        match self.elsewhere.get(path) {
            None => Ok(beneath::open_file_beneath(self.root.as_fd(), path)?.into()),
            Some(Elsewhere { holder: Root::Index(index), path, .. }) => {
                Ok(beneath::open_file_beneath(index.as_fd(), path)?.into())
            }
            Some(Elsewhere { holder: Root::Layer(layer, directory), path, .. }) => {
                // A process has not as many descriptors as a layer may have below.
                let root = directory.pin(layer).map_err(io::Error::other)?;
                Ok(beneath::open_file_beneath(root.as_fd(), path)?.into())
            }
        }
    }

    /// Opens the file at a path, as [`open`](Self::open) does; `None` if it is gone from a directory that others write to.
    pub(crate) fn open_if_there(&self, path: &[u8]) -> io::Result<Option<File>> {
        match self.open(path) {
            Err(error)
                if disk::is_gone(&error)
                    && self.life == Life::Changing
                    && !self.elsewhere.contains_key(path) =>
            {
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    /// Names and metadata; no file is read.
    pub(crate) fn listing(&self) -> Result<Manifest, Error> {
        layer::listing(self.entries.iter().cloned(), |_| Ok(UNREAD))
    }

    /// Turns the host's ids into the container's.
    ///
    /// Returns [`Error::Export`] with [`Unmapped`](ExportError::Unmapped) if a file belongs to nobody in the container.
    pub(crate) fn map_owners(&mut self, maps: &IdMaps) -> Result<(), Error> {
        Ok(self.entries.iter_mut().try_for_each(|entry| layer::map_owner(entry, maps))?)
    }

    /// All of it. Files whose hash a layer below knows are not read, and those that are gone by now are taken out of the entries.
    ///
    /// Returns [`Error::Scan`] if a file cannot be read, or is written to meanwhile.
    pub(crate) fn scan(&mut self) -> Result<Manifest, Error> {
        let read = self.hash_own()?;
        layer::listing(self.entries.iter().cloned(), |entry| {
            let path = || RelPath::from_archive(&entry.path).unwrap_or_default().as_path().to_owned();
            let changed = || ScanError::Changed { path: path() };
            match (self.elsewhere.get(&entry.path), &entry.kind) {
                (None, _) => Ok(read.get(&entry.id).copied().ok_or_else(changed)?),
                (Some(place), ScannedKind::File { size }) if place.content == UNREAD => {
                    let file = self.open(&entry.path).and_then(|file| disk::hash_content(file, *size));
                    Ok(file.map_err(|source| match source.kind() {
                        io::ErrorKind::UnexpectedEof => changed(),
                        _ => ScanError::Read { path: path(), source },
                    })?)
                }
                (Some(place), _) => Ok(place.content),
            }
        })
    }

    /// The hashes of the files whose bytes are in the directory.
    fn hash_own(&mut self) -> Result<HashMap<FileId, ContentHash>, Error> {
        let mut read = HashMap::new();
        loop {
            let is_own = |entry: &&ScannedEntry| !self.elsewhere.contains_key(&entry.path);
            let unread = |entry: &&ScannedEntry| {
                matches!(entry.kind, ScannedKind::File { .. })
                    && is_own(entry)
                    && !read.contains_key(&entry.id)
            };
            let hashed = disk::hash_files(self.root.as_fd(), self.entries.iter().filter(unread), self.life)?;
            let gone = self.entries.iter().filter(unread).filter(|entry| !hashed.contains_key(&entry.id));
            let gone: HashSet<_> = gone.map(|entry| entry.path.clone()).collect();
            read.extend(hashed);
            if gone.is_empty() {
                return Ok(read);
            }
            // Another name of such a file may be there still.
            self.entries = disk::without(std::mem::take(&mut self.entries), &gone);
        }
    }

    /// Fills a staged directory with it, as a plain changeset. Returns the hashes of files that were copied, by inode.
    pub(crate) fn settle(
        &self,
        staging: &Staging,
        old: Old,
        options: &UnpackOptions,
    ) -> Result<HashMap<u64, ContentHash>, Error> {
        let mut reach = Confinement::to(staging);
        reach = match old {
            Old::Goes => reach.and_link(self.root.as_fd()),
            Old::Stays => reach.and_read(self.root.as_fd()),
        };
        let mut known = HashSet::new();
        for Elsewhere { holder, .. } in self.elsewhere.values() {
            reach = match holder {
                Root::Index(index) => reach.and_read(index.as_fd()),
                // A process has not as many descriptors as a layer may have below.
                Root::Layer(layer, directory) if known.insert(layer) => {
                    reach.and_read(directory.open(layer)?.as_fd())
                }
                Root::Layer(..) => reach,
            };
        }
        let confined = reach.run(|| self.settle_confined(staging, old, options));
        confined.map_err(failed("start a thread to settle"))?
    }

    fn settle_confined(
        &self,
        staging: &Staging,
        old: Old,
        options: &UnpackOptions,
    ) -> Result<HashMap<u64, ContentHash>, Error> {
        let own = |directory| duplicate(directory).map_err(failed("settle"));
        let (root, aside) = (own(staging.directory())?, own(staging.aside().map_err(failed("settle"))?)?);
        let mut tree = TreeWriter::new(root, aside, options.clone());
        let mut known = HashMap::new();
        for entry in &self.entries {
            let path = RelPath::from_archive(&entry.path)?;
            match &entry.kind {
                ScannedKind::Other(kind) => tree.entry(&path, kind, &entry.metadata)?,
                ScannedKind::File { size } => {
                    let is_moved = old == Old::Goes && !self.elsewhere.contains_key(&entry.path);
                    if is_moved
                        && tree.link_from(&path, self.root.as_fd(), &entry.path).map_err(ImportError::from)?
                    {
                        moment::pass("file settled");
                        continue;
                    }
                    let failed = |source| ScanError::Read { path: path.as_path().to_owned(), source };
                    let file = self.open(&entry.path).map_err(failed)?;
                    let writer = tree.file(&path, &entry.metadata, *size).map_err(ImportError::from)?;
                    let copied = writer.copy(&file).map_err(ImportError::from)?;
                    let changed = || ScanError::Changed { path: path.as_path().to_owned() };
                    let copied = copied.ok_or_else(changed)?;
                    known.insert(copied.inode, copied.content);
                    moment::pass("file settled");
                }
            }
        }
        tree.finish().map_err(ImportError::from)?;
        Ok(known)
    }
}

pub(super) fn failed(action: &'static str) -> impl FnOnce(io::Error) -> TreeError {
    move |source| TreeError::Io { path: ".".into(), action, source }
}
