//! The stores that a handle reads: its own, and others.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{self, AdditionalDirectory, DiffName, Layout, Life, Staging, Subdirectory};
use crate::error::{AdditionalLayerError, Error, LayoutError, MetaError};
use crate::layer;
use crate::meta::{Database, ReadTxn, RunDatabase, StoreBeside};
use crate::sys::beneath;

use super::{Store, StoreOptions};

/// The stores besides its own.
#[derive(Debug)]
pub(super) struct Others {
    /// Where its images are, if that is not here.
    images: Option<Store>,
    /// Those that are only read, in the order in which they are asked.
    read: Vec<Store>,
}

impl Others {
    /// Opens those that are only read: nothing is made for the sake of a store that cannot be read with them.
    pub(super) fn open_read(options: &StoreOptions) -> Result<Vec<Store>, Error> {
        let open = |root: &PathBuf| {
            Store::open(&options.for_other(root)).map_err(|error| match error {
                Error::Layout(source) => Error::ImageStore { root: root.clone(), source },
                error => error,
            })
        };
        options.image_stores.iter().map(open).collect()
    }

    /// Opens the rest for the store with this layout. Overlay mounts join layers of all of them, so they must be of one class.
    pub(super) fn open(options: &StoreOptions, layout: &Layout, read: Vec<Store>) -> Result<Self, Error> {
        let check = |store: Store| {
            if store.uuid() == layout.uuid() {
                return Err(Error::SameStore { root: layout.path().to_owned() });
            }
            if store.layout().xattrs() != layout.xattrs() {
                let (root, other) = (layout.path().to_owned(), store.root().to_owned());
                return Err(Error::OtherClass { root, other });
            }
            Ok(store)
        };
        let images = options.image_store_root.as_ref();
        let images = images.map(|root| Store::open(&options.for_images(root)).and_then(check)).transpose()?;
        Ok(Others { images, read: read.into_iter().map(check).collect::<Result<_, _>>()? })
    }

    /// How the store notes them.
    pub(super) fn noted(&self) -> Result<Arc<[StoreBeside]>, Error> {
        let images = self.images.iter().map(|store| (true, store));
        let all = images.chain(self.read.iter().map(|store| (false, store)));
        all.map(|(is_of_images, store)| {
            let root = std::path::absolute(store.root()).map_err(|source| Error::Io {
                action: "find",
                path: store.root().to_owned(),
                source,
            })?;
            Ok(StoreBeside { is_of_images, uuid: store.uuid().to_owned(), root })
        })
        .collect()
    }
}

impl Store {
    /// The other stores that are read as if they were in this one, in the order in which they are asked. Each can be
    /// asked for itself, such as by [`check`](Self::check).
    pub fn image_stores(&self) -> &[Store] {
        &self.others().read
    }

    /// The separate store in which the images are: see [`StoreOptions::image_store_root`].
    pub fn separate_images(&self) -> Option<&Store> {
        self.others().images.as_ref()
    }
}

/// One of the stores that a handle reads, as far as this operation has looked.
#[derive(Debug)]
pub(crate) struct Part<'s> {
    store: &'s Store,
    database: &'s Database,
    role: Role,
    begin: Begin,
    txn: OnceCell<ReadTxn>,
}

/// How a snapshot is begun.
pub(super) type Begin = fn(&Database) -> Result<ReadTxn, MetaError>;

/// What a store is to the handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// Its own.
    Own,
    /// The rows of its containers that the next boot drops.
    Run,
    /// The one in which its images are.
    Images,
    /// Read, and never written.
    Other,
}

impl<'s> Part<'s> {
    pub(super) fn new(store: &'s Store, role: Role, begin: Begin) -> Self {
        Part { store, database: store.database(), role, begin, txn: OnceCell::new() }
    }

    /// The rows in the run database of a store.
    pub(super) fn of_run(store: &'s Store, run: &'s RunDatabase, begin: Begin) -> Self {
        Part { database: run.rows(), ..Part::new(store, Role::Run, begin) }
    }

    /// The snapshot, begun when it is needed.
    pub(crate) fn txn(&self) -> Result<&ReadTxn, MetaError> {
        if let Some(txn) = self.txn.get() {
            return Ok(txn);
        }
        let txn = (self.begin)(self.database)?;
        Ok(self.txn.get_or_init(|| txn))
    }

    /// A handle of the store.
    pub(crate) fn store(&self) -> &'s Store {
        self.store
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Whether containers of the handle are here.
    pub(super) fn has_containers(&self) -> bool {
        matches!(self.role, Role::Own | Role::Run)
    }

    /// Whether the store is not the handle's to write.
    pub(crate) fn is_other(&self) -> bool {
        self.role == Role::Other
    }

    /// The root of a store that is not the handle's to write.
    pub(super) fn other(&self) -> Option<PathBuf> {
        self.is_other().then(|| self.store.root().to_owned())
    }
}

/// The directory of a layer, in whichever store.
#[derive(Clone, Debug)]
pub(crate) struct Directory<'s> {
    layout: &'s Layout,
    place: Place,
}

#[derive(Clone, PartialEq, Debug)]
enum Place {
    /// In `diffs/`.
    Entry(u64),
    /// In an additional layer store.
    Additional(AdditionalDirectory),
}

impl<'s> Directory<'s> {
    pub(super) fn new(layout: &'s Layout, number: u64) -> Self {
        Directory { layout, place: Place::Entry(number) }
    }

    /// That of a layer on record in the store with this layout, whose files are in an additional layer store.
    pub(super) fn additional(layout: &'s Layout, directory: AdditionalDirectory) -> Self {
        Directory { layout, place: Place::Additional(directory) }
    }

    /// A handle on it, of the layer with this id.
    ///
    /// Returns [`Error::LayerMissing`] if it is not there, and [`Error::AdditionalLayer`] if it is in an additional layer store
    /// and not there.
    pub(crate) fn open(&self, layer: &str) -> Result<OwnedFd, Error> {
        match &self.place {
            Place::Entry(number) => {
                self.layout.open_entry(Subdirectory::Diffs, *number).map_err(|error| missing(layer, error))
            }
            Place::Additional(directory) => {
                directory.open_diff().map_err(|source| not_there(layer, directory, source))
            }
        }
    }

    /// The same for opening what is in it, also on a [confined](disk::Confinement) thread.
    ///
    /// Returns what [`open`](Self::open) does.
    pub(super) fn pin(&self, layer: &str) -> Result<OwnedFd, Error> {
        match &self.place {
            Place::Entry(number) => {
                self.layout.pin_entry(Subdirectory::Diffs, *number).map_err(|error| missing(layer, error))
            }
            Place::Additional(directory) => {
                directory.pin_diff().map_err(|source| not_there(layer, directory, source))
            }
        }
    }

    /// The index in the workdir beside it, which mounts with `index=on` make. Who only looks at another's store may not see it.
    ///
    /// Returns [`Error::Layout`] if it cannot be opened.
    pub(crate) fn index(&self, life: Life) -> Result<Option<OwnedFd>, Error> {
        let Place::Entry(number) = self.place else { return Ok(None) };
        let index = self.layout.open_entry(Subdirectory::Work, number).and_then(|work| {
            beneath::open_directory_beneath(work.as_fd(), disk::INDEX).map_err(|source| LayoutError::Io {
                path: self.layout.entry_path(Subdirectory::Work, DiffName::Entry(number)),
                action: "open the index in",
                source,
            })
        });
        match index {
            Err(LayoutError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    || (life == Life::Changing && source.kind() == io::ErrorKind::PermissionDenied) =>
            {
                Ok(None)
            }
            index => Ok(Some(index?)),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Entry(number) => self.layout.entry_path(Subdirectory::Diffs, DiffName::Entry(*number)),
            Place::Additional(directory) => directory.diff_path(),
        }
    }

    /// Makes a staged directory ready for writing above this one, of the layer with this id.
    ///
    /// Returns what [`open`](Self::open) does.
    pub(super) fn prepare_above(&self, layer: &str, staging: &Staging) -> Result<(), Error> {
        let root = self.open(layer)?;
        Ok(layer::prepare_writable(root.as_fd(), || self.path(), self.layout.xattrs(), staging)?)
    }

    /// The directories that it lies in.
    pub(crate) fn layout(&self) -> &'s Layout {
        self.layout
    }

    /// Its number; `None` for one that is not the store's.
    pub(crate) fn number(&self) -> Option<u64> {
        match self.place {
            Place::Entry(number) => Some(number),
            Place::Additional(_) => None,
        }
    }
}

/// What is wrong with the directory of a layer that cannot be opened.
fn missing(layer: &str, error: LayoutError) -> Error {
    match error {
        LayoutError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::LayerMissing { layer: layer.to_owned(), path }
        }
        error => error.into(),
    }
}

/// The same of one in an additional layer store.
fn not_there(layer: &str, directory: &AdditionalDirectory, source: io::Error) -> Error {
    let (layer, path) = (layer.to_owned(), directory.diff_path());
    AdditionalLayerError::Missing { layer, path, source }.into()
}

impl PartialEq for Directory<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place && self.layout.path() == other.layout.path()
    }
}
