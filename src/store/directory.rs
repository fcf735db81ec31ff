//! Directories that images and containers have for their callers: one below the root, which is the caller's as long
//! as the thing is there, and one below the run root, which a reboot drops.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::disk::{self, DiffName, RunDirectory, StagedData, Subdirectory};
use crate::error::{Error, LookupError};
use crate::meta::{Query, WriteTxn};
use crate::sys::{beneath, moment};
use crate::types::{ContainerId, ImageId, RelPath};

use super::part::{Part, Role};
use super::view::View;
use super::{Store, SyncMode, ThingId};

impl Store {
    /// The image's directory for files of the caller's own, below the root. It is made if it is missing, and goes with
    /// the image.
    ///
    /// Returns [`Error::Lookup`] if the image is not there, and [`Error::InOtherStore`] if it is in a store that is only read
    /// and has none.
    pub fn image_directory(&self, id: &ImageId) -> Result<PathBuf, Error> {
        self.data_directory(&id.into())
    }

    /// The container's directory for files of the caller's own, below the root. It is made if it is missing, and goes with
    /// the container.
    ///
    /// Returns [`Error::Lookup`] if the container is not there.
    pub fn container_directory(&self, id: &ContainerId) -> Result<PathBuf, Error> {
        self.data_directory(&id.into())
    }

    /// The image's directory for what a reboot drops: `<run root>/images/<id>`. It is made if it is missing, and goes with
    /// the image.
    ///
    /// Returns [`Error::Lookup`] if the image is not there.
    pub fn image_run_directory(&self, id: &ImageId) -> Result<PathBuf, Error> {
        self.make_run_directory(&id.into())
    }

    /// The container's directory for what a reboot drops, such as sockets and pid files: `<run root>/containers/<id>`.
    /// It is made if it is missing, and goes with the container.
    ///
    /// Returns [`Error::Lookup`] if the container is not there.
    pub fn run_directory(&self, id: &ContainerId) -> Result<PathBuf, Error> {
        self.make_run_directory(&id.into())
    }

    /// Writes a file in the [container's directory](Self::container_directory), whole and in place of what is there:
    /// nobody ever reads a part of it, and a power cut leaves the old file or the new one. Directories above it are made.
    ///
    /// Returns [`Error::Value`] if `path` leads out of the directory, [`Error::Lookup`] if the container is not there, and
    /// [`Error::Io`] if the file cannot be written, as below a symbolic link.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let web = store.create_container(None, &ContainerOptions::named("web"))?;
    /// store.write_container_file(&web.id, "secrets/key", b"0451")?;
    /// assert_eq!(store.read_container_file(&web.id, "secrets/key")?, b"0451");
    /// assert!(store.write_container_file(&web.id, "../key", b"").is_err());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn write_container_file(
        &self,
        id: &ContainerId,
        path: impl AsRef<Path>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let durable = self.sync_mode() != SyncMode::Off;
        write_in(&self.container_directory(id)?, path.as_ref(), bytes, durable)
    }

    /// The bytes of a file in the [container's directory](Self::container_directory), which is not made for this.
    ///
    /// Returns what [`write_container_file`](Self::write_container_file) does; [`Error::Io`] also if there is no such file.
    pub fn read_container_file(&self, id: &ContainerId, path: impl AsRef<Path>) -> Result<Vec<u8>, Error> {
        let view = self.begin_read()?;
        let (part, number) = directory_number(&view, &id.into())?;
        let layout = part.store().layout();
        let directory = match number {
            Some(number) => layout.entry_path(Subdirectory::Data, DiffName::Entry(number)),
            // What has none has nothing in it.
            None => layout.path().join(Subdirectory::Data.name()).join("none"),
        };
        read_in(&directory, path.as_ref())
    }

    /// Writes a file in the [container's run directory](Self::run_directory), whole and in place of what is there.
    ///
    /// Returns what [`write_container_file`](Self::write_container_file) does.
    pub fn write_container_run_file(
        &self,
        id: &ContainerId,
        path: impl AsRef<Path>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        write_in(&self.run_directory(id)?, path.as_ref(), bytes, false)
    }

    /// The bytes of a file in the [container's run directory](Self::run_directory), which is not made for this.
    ///
    /// Returns what [`read_container_file`](Self::read_container_file) does.
    pub fn read_container_run_file(
        &self,
        id: &ContainerId,
        path: impl AsRef<Path>,
    ) -> Result<Vec<u8>, Error> {
        let of = id.into();
        directory_number(&self.begin_read()?, &of)?;
        read_in(&self.run_layout()?.directory(&run_directory_of(&of)?), path.as_ref())
    }

    fn data_directory(&self, of: &ThingId) -> Result<PathBuf, Error> {
        let view = self.begin_read()?;
        let (part, known) = directory_number(&view, of)?;
        let (store, role) = (part.store(), part.role());
        drop(view);
        let number = match (known, role) {
            (Some(number), _) => number,
            (None, Role::Other) => {
                let (kind, id) = (of.kind().word(), of.as_str().to_owned());
                return Err(Error::InOtherStore { kind, id, root: store.root().to_owned() });
            }
            (None, role) => store.make_data_directory(of, role)?,
        };
        let path = store.layout().entry_path(Subdirectory::Data, DiffName::Entry(number));
        std::path::absolute(&path).map_err(|source| Error::Io { action: "find", path, source })
    }

    /// Makes the directory, then says in the record where it is. Who was faster has made the one that stays.
    fn make_data_directory(&self, of: &ThingId, role: Role) -> Result<u64, Error> {
        self.begin_writing()?;
        let staged = StagedData::create(self.layout(), self.fresh_number()?)?;
        if self.sync_mode() != SyncMode::Off {
            staged.sync()?;
        }
        let number = staged.number();
        let write = |txn: &WriteTxn| {
            if let Some(known) = number_of(txn, of)? {
                return Ok(known);
            }
            if let Some(mut image) = image_of(txn, of)? {
                image.directory = Some(number);
                txn.put_image(&image)?;
            } else if let Some(mut container) = container_of(txn, of)? {
                container.directory = Some(number);
                txn.put_container(&container)?;
            }
            moment::pass("before the commit");
            Ok(number)
        };
        let run = match role {
            Role::Run => self.transient(&self.database().begin_read()?)?,
            _ => None,
        };
        let written = match run {
            Some(run) => run.rows().write_without_header::<_, Error>(write),
            None => self.database().write::<_, Error>(write),
        };
        moment::pass("after the commit");
        let keep = match &written {
            // If the commit does not know whether the row is there, the database does; if that cannot be read, the
            // directory stays, and gc finds it if it is not needed.
            Err(error) if error.is_outcome_unknown() => {
                let named = self.begin_verified_read().map_err(Error::from);
                named
                    .and_then(|view| Ok(directory_number(&view, of)?.1))
                    .map_or(true, |known| known == Some(number))
            }
            Err(_) => false,
            Ok(known) => *known == number,
        };
        if keep {
            staged.keep();
        }
        written
    }

    fn make_run_directory(&self, of: &ThingId) -> Result<PathBuf, Error> {
        directory_number(&self.begin_read()?, of)?;
        Ok(self.run_layout()?.ensure_directory(&run_directory_of(of)?)?)
    }

    /// Removes the run directory of a thing that is gone; `false` if there is none, or if the thing is there.
    pub(crate) fn remove_run_directory(&self, of: &ThingId) -> Result<bool, Error> {
        let Ok(directory) = run_directory_of(of) else { return Ok(false) };
        let run = self.run_layout()?;
        if !crate::sys::path::exists(&run.directory(&directory)).unwrap_or(false) {
            return Ok(false);
        }
        let number = self.fresh_number()?;
        let discard = || {
            let there = self.begin_verified_read()?.home(of.owner(), of.as_str())?.is_some();
            Ok::<_, Error>(!there && run.discard(&directory, number)?)
        };
        // Nobody makes a thing while the write lock is held, so this is not the directory of a new one.
        let moved = self.hold_containers(|| match self.separate_images() {
            Some(images) if matches!(of, ThingId::Image(_)) => images.database().hold(discard),
            _ => discard(),
        })?;
        moment::pass("run directory discarded");
        if moved {
            run.delete_trash(number.to_string().as_bytes())?;
        }
        Ok(moved)
    }

    /// The same; what stays is garbage for the next gc, and no failure of a removal.
    pub(super) fn drop_run_directory(&self, of: &ThingId) {
        if let Err(error) = self.remove_run_directory(of) {
            tracing::warn!(thing = of.as_str(), %error, "run directory not removed");
        }
    }

    /// The bytes of the files in a thing's two directories, as far as they are there.
    pub(super) fn directory_bytes(&self, view: &View<'_>, of: &ThingId) -> Result<u64, Error> {
        let mut bytes: u64 = 0;
        let (part, number) = directory_number(view, of)?;
        if let Some(number) = number {
            let directory = part.store().layout().open_entry(Subdirectory::Data, number)?;
            bytes = bytes.saturating_add(disk::usage(directory.as_fd())?.apparent);
        }
        if self.run_if_usable()?.is_none() {
            return Ok(bytes);
        }
        let run = self.run_layout()?.directory(&run_directory_of(of)?);
        if let Ok(directory) = beneath::open_directory(&run) {
            bytes = bytes.saturating_add(disk::usage(directory.as_fd())?.apparent);
        }
        Ok(bytes)
    }
}

fn image_of(txn: &impl Query, of: &ThingId) -> Result<Option<layerstore_schema::record::ImageRecord>, Error> {
    Ok(if let ThingId::Image(id) = of { txn.image(id.as_str())? } else { None })
}

fn container_of(
    txn: &impl Query,
    of: &ThingId,
) -> Result<Option<layerstore_schema::record::ContainerRecord>, Error> {
    Ok(if let ThingId::Container(id) = of { txn.container(id.as_str())? } else { None })
}

/// The store that a thing is in, and the number of its directory there; `None` if it has none yet.
///
/// Returns [`Error::Lookup`] if there is no such image or container.
fn directory_number<'v, 's>(view: &'v View<'s>, of: &ThingId) -> Result<(&'v Part<'s>, Option<u64>), Error> {
    let part = view.home(of.owner(), of.as_str())?.ok_or_else(|| not_found(of))?;
    Ok((part, number_of(part.txn()?, of)?))
}

/// The same, in one store.
fn number_of(txn: &impl Query, of: &ThingId) -> Result<Option<u64>, Error> {
    if let Some(image) = image_of(txn, of)? {
        return Ok(image.directory);
    }
    let container = container_of(txn, of)?.ok_or_else(|| not_found(of))?;
    Ok(container.directory)
}

fn not_found(of: &ThingId) -> LookupError {
    LookupError::NotFound { kind: of.kind().word(), key: of.as_str().to_owned() }
}

fn run_directory_of(of: &ThingId) -> Result<RunDirectory<'_>, Error> {
    match of {
        ThingId::Container(id) => Ok(RunDirectory::Container(id)),
        ThingId::Image(id) => Ok(RunDirectory::Image(id)),
        ThingId::Layer(_) => Err(not_found(of).into()),
    }
}

fn write_in(directory: &Path, path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let (root, inside, failed) = open(directory, path, "write")?;
    disk::write_file(root.as_fd(), &inside, bytes, durable).map_err(failed)
}

fn read_in(directory: &Path, path: &Path) -> Result<Vec<u8>, Error> {
    let (root, inside, failed) = open(directory, path, "read")?;
    disk::read_file(root.as_fd(), &inside).map_err(failed)
}

fn open(
    directory: &Path,
    path: &Path,
    action: &'static str,
) -> Result<(OwnedFd, RelPath, impl FnOnce(std::io::Error) -> Error), Error> {
    let inside = RelPath::from_archive(path.as_os_str().as_encoded_bytes())?;
    let full = directory.join(inside.as_path());
    let failed = move |source| Error::Io { action, path: full, source };
    match beneath::open_directory(directory) {
        Ok(root) => Ok((root, inside, failed)),
        Err(source) => Err(failed(source)),
    }
}
