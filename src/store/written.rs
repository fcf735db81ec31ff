//! A directory that is written to, as one changeset, whatever mounts have left of it in the layers below.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use layerstore_schema::manifest::Manifest;
use layerstore_schema::record::{LayerContent, LayerRecord};

use crate::disk::{self, Confinement, Life, ScannedEntry, ScannedKind, Staging, TreeWriter, UnpackOptions};
use crate::error::{Error, ImportError, ScanError, TreeError};
use crate::image;
use crate::layer::{self, Holder, Place, UNREAD};
use crate::sys::file::{File, duplicate};
use crate::sys::stat::FileId;
use crate::sys::userns::{IdExtent, IdMaps};
use crate::sys::{beneath, moment};
use crate::types::{ContentHash, Metadata, RelPath};

use super::part::Directory;
use super::view::View;

/// What a layer that is written to has, as it was when it was read.
#[derive(Debug)]
pub(crate) struct Written<'s> {
    root: OwnedFd,
    entries: Vec<ScannedEntry>,
    /// The files whose bytes are not in the directory.
    elsewhere: HashMap<Vec<u8>, Elsewhere<'s>>,
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

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
struct Elsewhere<'s> {
    holder: Root<'s>,
    path: Vec<u8>,
    content: ContentHash,
}

/// The directory that a path leads from.
#[derive(Clone, Debug)]
enum Root<'s> {
    /// That of the layer with this id.
    Layer(String, Directory<'s>),
    /// The index of a layer.
    Index(Arc<OwnedFd>),
}

impl<'s> View<'s> {
    /// What a layer that is written to has, for who makes something of it that lasts. The layers below are read as far as mounts
    /// have left something there.
    ///
    /// Returns [`Error::Scan`] if a directory cannot be read, or what was left below is not there.
    pub(crate) fn written(&self, layer: &LayerRecord) -> Result<Written<'s>, Error> {
        self.written_in(layer, Life::Still)
    }

    /// The same for who only looks, while others may write to it.
    ///
    /// Returns what [`written`](Self::written) does.
    pub(crate) fn being_written(&self, layer: &LayerRecord) -> Result<Written<'s>, Error> {
        self.written_in(layer, Life::Changing)
    }

    fn written_in(&self, layer: &LayerRecord, life: Life) -> Result<Written<'s>, Error> {
        let directory = self.directory(layer)?;
        let (root, namespace) = (directory.open(&layer.id)?, directory.layout().xattrs());
        let entries = match layer.content {
            LayerContent::Additional(_) => disk::list_of_another(root.as_fd(), namespace)?,
            _ => disk::list_as_left(root.as_fd(), namespace, life)?,
        };
        let left = entries.iter().filter(|entry| entry.is_left_below());
        let left_below: Vec<_> = left.map(|entry| entry.path.clone()).collect();
        let index = match layer.content {
            LayerContent::Writable(_) => directory.index(life)?.map(Arc::new),
            _ => None,
        };
        let kept = match &index {
            Some(index) => disk::list_kept(index.as_fd(), namespace, life, &entries)?,
            None => Vec::new(),
        };
        let by_program = disk::is_by_program(root.as_fd(), namespace).map_err(failed("examine"))?;
        let mut written = Written { root, entries, elsewhere: HashMap::new(), left_below, life, by_program };
        if !written.left_below.is_empty() || !kept.is_empty() {
            let below = self.stack(layer.parent.as_deref())?;
            let maps = self.shown_ids(layer)?;
            let entries = std::mem::take(&mut written.entries);
            let owned = |metadata: &mut Metadata| {
                let Some((to_host, reversed)) = &maps else { return };
                // Whom the mount shows as nobody stays that in the layer.
                if let Some(owner) = to_host.to_host(metadata.uid, metadata.gid) {
                    (metadata.uid, metadata.gid) = owner;
                }
                layer::map_xattrs(&mut metadata.xattrs, reversed);
            };
            let chain = self.chain_below(layer)?;
            let handle = |position: usize, path: &[u8]| {
                let layer = chain.get(position)?;
                let root = self.directory(layer).ok()?.open(&layer.id).ok()?;
                disk::handle(root.as_fd(), path)
            };
            let found = layer::resolve(entries, kept, &below, owned, handle)?;
            written.left_below.extend(found.kept);
            written.elsewhere = self.places(layer, &chain, index.as_ref(), found.elsewhere)?;
            written.entries = found.entries;
        }
        Ok(written)
    }

    /// How a mount of the layer shows the ids of the layers below, if not as they are: forwards and backwards.
    fn shown_ids(&self, layer: &LayerRecord) -> Result<Option<(IdMaps, IdMaps)>, Error> {
        let maps = self.container_on(&layer.id)?.as_ref().and_then(image::id_maps);
        let swap = |map: &[IdExtent]| -> Vec<IdExtent> {
            map.iter()
                .map(|extent| IdExtent { inside: extent.outside, outside: extent.inside, ..*extent })
                .collect()
        };
        Ok(maps.map(|maps| {
            let reversed = IdMaps { uids: swap(&maps.uids), gids: swap(&maps.gids) };
            (maps, reversed)
        }))
    }

    /// The layers below one, topmost first.
    fn chain_below(&self, layer: &LayerRecord) -> Result<Vec<LayerRecord>, Error> {
        Ok(layer.parent.as_ref().map(|parent| self.chain(parent)).transpose()?.unwrap_or_default())
    }

    /// Places in the stack below a layer, or in its index, as places in directories. Where the layer below has not the bytes itself, they are
    /// where that one says.
    fn places(
        &self,
        layer: &LayerRecord,
        chain: &[LayerRecord],
        index: Option<&Arc<OwnedFd>>,
        places: HashMap<Vec<u8>, Place>,
    ) -> Result<HashMap<Vec<u8>, Elsewhere<'s>>, Error> {
        let mut others: HashMap<usize, Written<'s>> = HashMap::new();
        let mut found = HashMap::with_capacity(places.len());
        for (path, place) in places {
            let below = match (place.holder, index) {
                (Holder::Below(position), _) => chain.get(position).map(|layer| (position, layer)),
                (Holder::Index, Some(index)) => {
                    let holder = Root::Index(index.clone());
                    found.insert(path, Elsewhere { holder, path: place.path, content: place.content });
                    continue;
                }
                (Holder::Directory | Holder::Index, _) => None,
            };
            let layer = below.map_or(layer, |(_, layer)| layer);
            if let (LayerContent::Writable(_), Some((position, _))) = (&layer.content, below) {
                let written = match others.entry(position) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => unknown.insert(self.written(layer)?),
                };
                if let Some(further) = written.elsewhere.get(&place.path) {
                    found.insert(path, further.clone());
                    continue;
                }
            }
            let holder = Root::Layer(layer.id.clone(), self.directory(layer)?);
            found.insert(path, Elsewhere { holder, path: place.path, content: place.content });
        }
        Ok(found)
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

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> TreeError {
    move |source| TreeError::Io { path: ".".into(), action, source }
}
