//! Opening a store, and what an open one keeps.

mod run;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use layerstore_schema::header::{Access, Header, incompatible};
use layerstore_schema::manifest::Manifest;

use crate::disk::{self, DiffName, Layout, Subdirectory, UnpackOptions, Writeback, XattrNamespace, marker};
#[cfg(doc)]
use crate::error::MountError;
use crate::error::{Error, LayoutError, MetaError};
use crate::layer::ImportOptions;
use crate::meta::{BlobKind, ChangeCounter, Database, Query, ReadTxn, RunDatabase, read_blob, read_header};
use crate::sys::file::File;
use crate::sys::privileges::Privileges;
use crate::sys::{beneath, path, random};
use crate::timing::{self, Stage};
use crate::types::{Budget, TreeDigest};

use self::run::Run;
use super::part::Others;
use super::{Quota, StoreOptions, SyncMode};

/// How many decoded manifests are kept, so that a list of changes need not decode a base layer each time.
const MANIFESTS_KEPT: usize = 16;

/// How many threads fill the files of one layer at the most: more only wait for the one that parses it.
const FILLERS_OF_A_LAYER: usize = 8;

/// An open store.
///
/// A store is a directory with one database and the directories of its layers. Any number of processes may have
/// it open, and each handle sees what the others commit. A handle is cheap to clone and can be shared between
/// threads.
///
/// # Close semantics
///
/// Dropping the last clone closes the store. Nothing needs to be flushed: what an operation returned from is on
/// the disk, and mounts outlive the process.
///
/// # Examples
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use layerstore::{Store, StoreOptions};
///
/// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
/// assert!(store.images()?.is_empty());
/// # Ok::<(), layerstore::Error>(())
/// ```
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    layout: Layout,
    options: StoreOptions,
    others: Others,
    database: Database,
    counter: OnceLock<ChangeCounter>,
    run: OnceLock<Run>,
    transient: OnceLock<RunDatabase>,
    privileges: Privileges,
    writable: bool,
    read_only: bool,
    tidied: AtomicBool,
    manifests: Mutex<HashMap<TreeDigest, Arc<Manifest>>>,
    boot_id: OnceLock<String>,
    verified: Mutex<HashSet<u64>>,
    verifying: Mutex<()>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("root", &self.0.layout.path()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store that `options` name, and makes it if it is missing and may be made.
    ///
    /// The root of a new store gets mode 0700: the set-id programs of images must be out of other users' reach.
    ///
    /// Returns [`Error::ImageStore`] if a store that is to be read with it is none, before anything is made;
    /// [`Error::Layout`] if the directory is not empty and no store, or of a newer format, or if there is no store
    /// and none may be made ([`Missing`](LayoutError::Missing)), or if it is to be written to and other users could change it or its
    /// run root ([`Exposed`](LayoutError::Exposed)), or if something else has the place of one of its own files or directories
    /// ([`OtherKind`](LayoutError::OtherKind));
    /// [`Error::Mount`] if options exclude each other ([`Composefs`](MountError::Composefs), [`Masked`](MountError::Masked));
    /// [`Error::InsideStore`] if the mount program or a file of its configuration is in a store;
    /// [`Error::Quota`] if a store would be made whose default [quota](StoreOptions::quota) could not be kept;
    /// [`Error::DatabaseMissing`] if its database is gone, or would have to be made where nothing may be;
    /// [`Error::Meta`] if the database cannot be opened; and
    /// [`Error::NeedsRoot`] if the machine's root made it and this process is someone else.
    pub fn open(options: &StoreOptions) -> Result<Self, Error> {
        let privileges = Privileges::of_this_process().map_err(|source| Error::Io {
            action: "find out what this process may do from",
            path: "/proc/self/uid_map".into(),
            source,
        })?;
        options.refuse_own_files()?;
        let read = Others::open_read(options)?;
        options.refuse_contradictions()?;
        let layout = open_layout(options, &privileges)?.with_mask(options.force_mask);
        let others = Others::open(options, &layout, read)?;
        let read_only = options.read_only || layout.is_read_only()?;
        if !read_only {
            layout.refuse_exposed()?;
            options.refuse_exposed_run_root()?;
        }
        let mut database_options = options.database.clone();
        database_options.read_only = read_only;
        database_options.beside = others.noted()?;
        let database = Database::new(layout.file_path(disk::DATABASE), database_options);
        let found = match database.begin_read() {
            Err(error) if error.is_missing_file() => None,
            begun => Some(begun?),
        };
        let new = found.is_none();
        let snapshot = match found {
            Some(snapshot) => snapshot,
            None if read_only => return Err(Error::DatabaseMissing { root: layout.path().to_owned() }),
            None => {
                create_database(&layout, &database)?;
                database.begin_read()?
            }
        };
        let writable = check_format(&database, snapshot)? && !read_only;
        if writable && options.reserve > 0 {
            match disk::ensure_reserve(&layout, options.reserve) {
                // A store works without, and `check` finds what is there.
                Err(error @ LayoutError::OtherKind { .. }) => tracing::warn!(%error, "no space is reserved"),
                reserved => drop(reserved?),
            }
        }
        let store = Store(Arc::new(Inner {
            layout,
            options: options.clone(),
            others,
            database,
            counter: OnceLock::new(),
            run: OnceLock::new(),
            transient: OnceLock::new(),
            privileges,
            writable,
            read_only,
            tidied: AtomicBool::new(false),
            manifests: Mutex::default(),
            boot_id: OnceLock::new(),
            verified: Mutex::default(),
            verifying: Mutex::default(),
        }));
        // Removing needs it: where it lies on the store's own disk, it must not have to be made when that is full.
        if new && let Err(error) = store.open_run() {
            tracing::debug!(%error, "the run root is not made yet");
        }
        Ok(store)
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        self.0.layout.path()
    }

    /// Whether nothing may be written: because it was asked for, or the filesystem is read-only.
    pub fn is_read_only(&self) -> bool {
        self.0.read_only
    }

    /// Returns [`Error::ReadOnly`] if nothing may be written.
    pub(crate) fn refuse_read_only(&self) -> Result<(), Error> {
        match self.is_read_only() {
            true => Err(Error::ReadOnly {
                root: self.root().to_owned(),
                by_filesystem: !self.0.options.read_only,
            }),
            false => Ok(()),
        }
    }

    pub(super) fn others(&self) -> &Others {
        &self.0.others
    }

    /// The store's UUID, which it has for ever.
    pub fn uuid(&self) -> &str {
        self.0.layout.uuid()
    }

    /// A number that is another one after every change of the store, or of another that it reads, by whatever process. Asking costs a memory read,
    /// but for the first time, so a caller can keep what it has read and ask before each use whether it is still new. Where the number cannot be
    /// had, each answer is another one.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{ContainerOptions, Store, StoreOptions};
    ///
    /// let options = StoreOptions::at(dir.path().join("store"));
    /// let (store, other) = (Store::open(&options)?, Store::open(&options)?);
    /// let before = store.change_counter();
    /// assert_eq!(store.change_counter(), before);
    /// other.create_container(None, &ContainerOptions::named("web"))?;
    /// assert_ne!(store.change_counter(), before);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn change_counter(&self) -> u64 {
        let others = self.separate_images().into_iter().chain(self.image_stores());
        // Each number only grows, and so does their sum.
        others.fold(self.last_commit(), |sum, store| sum.wrapping_add(store.last_commit()))
    }

    /// The number of this store's last commit. The file is mapped by whoever asks first, as most never do.
    fn last_commit(&self) -> u64 {
        let counter = match self.0.counter.get() {
            Some(counter) => counter,
            None => match self.0.database.change_counter() {
                Ok(counter) => self.0.counter.get_or_init(|| counter),
                Err(error) => {
                    tracing::warn!(%error, "it is not known whether the store changes, and so taken for granted");
                    return another_number();
                }
            },
        };
        counter.current()
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    /// What it was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.0.options
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.database
    }

    /// Whether this build may write the store.
    pub(super) fn is_writable(&self) -> bool {
        self.0.writable
    }

    /// Whether this handle has looked for garbage.
    pub(super) fn tidied(&self) -> &AtomicBool {
        &self.0.tidied
    }

    /// A directory for what is only needed for a moment.
    pub(crate) fn scratch(&self) -> PathBuf {
        if self.is_read_only() { std::env::temp_dir() } else { self.root().to_owned() }
    }

    /// Numbers of directories and blobs that this handle has found whole after a reboot.
    pub(super) fn verified(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Threads that want the same directory verified wait for the one that does it.
    pub(super) fn verifying(&self) -> MutexGuard<'_, ()> {
        self.0.verifying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no directory of the store ever had: chance decides, and making the directory proves it.
    pub(crate) fn fresh_number(&self) -> Result<u64, Error> {
        // 53 bits: the number also fits where programs keep numbers as floats.
        Ok(u64::from_le_bytes(random::bytes().map_err(Error::Random)?) >> 11)
    }

    /// An empty file without a name, in the store's filesystem.
    pub(crate) fn spool(&self) -> io::Result<File> {
        Ok(File::from(beneath::unnamed_file(self.0.layout.root())?))
    }

    /// The path of a diff directory.
    pub(crate) fn diff_path(&self, number: u64) -> PathBuf {
        self.0.layout.entry_path(Subdirectory::Diffs, DiffName::Entry(number))
    }

    /// How much is on the disk when an operation returns.
    pub(super) fn sync_mode(&self) -> SyncMode {
        self.0.options.sync
    }

    /// Brings everything written to the store's filesystem to the disk.
    pub(crate) fn sync_filesystem(&self) -> Result<(), Error> {
        Ok(timing::spanned(Stage::Sync, || self.0.layout.sync())?)
    }

    /// Writes out what an import writes while it goes on, if it is to be on the disk in the end.
    pub(super) fn writeback(&self) -> Result<Writeback, Error> {
        match self.sync_mode() {
            SyncMode::Full => Ok(Writeback::of(self.layout())?),
            SyncMode::Records | SyncMode::Off => Ok(Writeback::default()),
        }
    }

    pub(crate) fn import_options(&self) -> ImportOptions {
        let machine_root = self.0.privileges.is_machine_root();
        ImportOptions {
            name: "the blob".to_owned(),
            unpack: UnpackOptions {
                squash_owners: self.0.options.ignore_chown_errors
                    || !machine_root && self.0.privileges.has_one_id(),
                unprivileged: !machine_root,
                mask: self.0.layout.mask(),
                limits: self.0.options.limits,
                ..UnpackOptions::strict(self.0.layout.xattrs())
            },
            limits: self.0.options.limits,
            budget: Budget::new(&self.0.options.limits),
            writeback: Writeback::default(),
            empty_streams: false,
            table: None,
            id_maps: None,
            workers: disk::parallel::processors().min(FILLERS_OF_A_LAYER),
        }
    }

    /// The manifest of a sealed layer.
    pub(crate) fn manifest(&self, txn: &ReadTxn, tree: &TreeDigest) -> Result<Arc<Manifest>, MetaError> {
        let cache = || self.0.manifests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(manifest) = cache().get(tree) {
            return Ok(Arc::clone(manifest));
        }
        let missing = || MetaError::Missing { kind: "diff", key: tree.to_string() };
        let record = txn.diff(tree)?.ok_or_else(missing)?;
        let bytes = read_blob(txn, &record.manifest, BlobKind::Manifest)?;
        let manifest = Manifest::decode(&bytes)
            .map_err(|source| MetaError::Manifest { tree: tree.to_string(), source })?;
        let manifest = Arc::new(manifest);
        let mut cache = cache();
        if cache.len() >= MANIFESTS_KEPT {
            cache.clear();
        }
        cache.insert(*tree, Arc::clone(&manifest));
        Ok(manifest)
    }

    /// A layer blob kept as delivered, for reading.
    pub(crate) fn open_kept_blob(&self, number: u64) -> Result<File, Error> {
        Ok(File::from(self.0.layout.open_blob(number)?))
    }
}

/// A number that was not there before.
fn another_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1 << 63);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn open_layout(options: &StoreOptions, privileges: &Privileges) -> Result<Layout, Error> {
    let namespace = if privileges.is_machine_root() { XattrNamespace::Trusted } else { XattrNamespace::User };
    let path = options.root.as_path();
    let layout = match Layout::open(path) {
        Err(LayoutError::Missing { .. } | LayoutError::NotAStore { .. })
            if options.create && !options.read_only =>
        {
            // Nothing could be written to in it.
            options.check_quota(Quota::default(), path)?;
            options.refuse_exposed_run_root()?;
            match Layout::create(path, namespace) {
                // Another process was faster.
                Err(LayoutError::AlreadyAStore { .. }) => Layout::open(path)?,
                // The more helpful of the two messages: nobody asked for a new store in a full directory.
                Err(LayoutError::NotEmpty { .. }) => {
                    return Err(explain_marker(options, LayoutError::NotAStore { path: path.to_owned() }));
                }
                made => made?,
            }
        }
        opened => opened.map_err(|error| explain_marker(options, error))?,
    };
    // Root may use the attributes of either kind.
    if layout.xattrs() == XattrNamespace::Trusted && namespace == XattrNamespace::User {
        return Err(Error::NeedsRoot { root: path.to_owned() });
    }
    Ok(layout)
}

/// Says of a marker that is missing or damaged what has to be in it, if there is a database that knows.
fn explain_marker(options: &StoreOptions, error: LayoutError) -> Error {
    let problem = match &error {
        LayoutError::NotAStore { .. } => "is missing".to_owned(),
        LayoutError::Damaged { reason, .. } => format!("is damaged ({reason})"),
        LayoutError::OtherKind { path, found, .. } if path.ends_with(marker::NAME) => {
            format!("is {found}, which has to be moved away")
        }
        _ => return error.into(),
    };
    let path = options.root.join(disk::DATABASE);
    // Nothing is made: what is no store is left as it is.
    if !path::is_file(&path) {
        return error.into();
    }
    let database = Database::new(path.clone(), options.database.clone());
    match database.begin_read().and_then(|txn| read_header(&txn, &path)) {
        Ok(header) => Error::Marker {
            path: options.root.join(marker::NAME),
            problem,
            content: marker::of_header(&header),
        },
        Err(_) => error.into(),
    }
}

/// Makes the database of a new store, with its header. Directories of layers without a database mean a loss, and no new store.
fn create_database(layout: &Layout, database: &Database) -> Result<(), Error> {
    if !layout.entries(Subdirectory::Diffs)?.is_empty() {
        return Err(Error::DatabaseMissing { root: layout.path().to_owned() });
    }
    let flags = match layout.xattrs() {
        XattrNamespace::Trusted => 0,
        XattrNamespace::User => incompatible::USER_XATTRS,
    };
    let digits: String = layout.uuid().chars().filter(char::is_ascii_hexdigit).collect();
    let uuid = u128::from_str_radix(&digits, 16).unwrap_or_default().swap_bytes().to_le_bytes();
    // Before the root is synced, so that their own names never need it again; and removing needs no inode later.
    // But not what most stores never have.
    for which in Subdirectory::LISTED.into_iter().filter(|which| *which != Subdirectory::Composefs) {
        layout.subdirectory(which)?;
    }
    let header = Header { format: 0, ..Header::new(uuid, flags) };
    // If another process was faster, it is that one's.
    database.create(|txn| txn.initialize(header).map(drop))?;
    Ok(())
}

/// Whether this build may write the store. Older formats are brought to the current one first.
fn check_format(database: &Database, snapshot: ReadTxn) -> Result<bool, Error> {
    let path = database.path();
    let header = read_header(&snapshot, path)?;
    drop(snapshot);
    let access = header.access().map_err(|source| MetaError::Format { path: path.to_owned(), source })?;
    if let Access::Migrate(_) = access {
        database.require_open_for_writing()?;
        database.write(|txn| txn.initialize(read_header(txn, path)?))?;
    }
    Ok(access != Access::ReadOnly)
}
