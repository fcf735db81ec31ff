//! How a store is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::meta::DatabaseOptions;

/// How much of what an operation did is on the disk when it returns. The death of a process loses nothing in any mode;
/// this is about the kernel and the power.
///
/// `docs/durability.md` says what is left after which event, and which test proves it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncMode {
    /// Everything: the files of layers first, then the records that name them.
    #[default]
    Full,
    /// The records. The files of layers are left to the kernel, which writes them within half a minute or so: for
    /// builders and CI hosts, where loading an image again is cheap and waiting for the disk is not.
    ///
    /// The records say which layers these are. After a power cut each is compared with its manifest before it is used
    /// for the first time: it is whole, or the use is refused with [`Error::Unsynced`](crate::Error::Unsynced), and
    /// loading the image again replaces it. [`Store::sync`](crate::Store::sync), and every import in [`Full`](Self::Full)
    /// mode, brings to the disk what was left.
    Records,
    /// Nothing. A power cut may cost everything since the filesystem's last sync, or the store. For throw-away stores.
    Off,
}

/// Where a store is, and how it is opened.
///
/// # Examples
///
/// ```
/// use layerstore::StoreOptions;
/// use std::time::Duration;
///
/// let options = StoreOptions::at("/var/lib/demo").run_root("/run/demo").lock_timeout(Duration::from_secs(5));
/// ```
#[derive(Clone, Debug)]
pub struct StoreOptions {
    pub(super) root: PathBuf,
    pub(super) run_root: Option<PathBuf>,
    pub(super) create: bool,
    pub(super) keep_blobs: bool,
    pub(super) reserve: u64,
    pub(super) mount_program: Option<PathBuf>,
    pub(super) sync: SyncMode,
    pub(super) database: DatabaseOptions,
}

impl StoreOptions {
    /// The store in the directory `root`, which is made if it is missing. It must lie on a local filesystem that
    /// overlay can use, with xattrs.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        StoreOptions {
            root: root.into(),
            run_root: None,
            create: true,
            keep_blobs: true,
            reserve: 16 << 20,
            mount_program: None,
            sync: SyncMode::default(),
            database: DatabaseOptions::default(),
        }
    }

    /// The directory for what a reboot drops: mount points, mount counts, run directories. It should lie on a
    /// tmpfs, and its path should be short. The default is `<root>/run`.
    #[must_use]
    pub fn run_root(mut self, run_root: impl Into<PathBuf>) -> Self {
        self.run_root = Some(run_root.into());
        self
    }

    /// Whether a missing store is made. The default is `true`.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// How long a writer waits for the writer of another process; zero tries once. The default is 60 seconds.
    #[must_use]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.database.lock_timeout = timeout;
        self
    }

    /// What is on the disk when an operation returns. The default is [`SyncMode::Full`]: all of it.
    #[must_use]
    pub fn sync(mut self, mode: SyncMode) -> Self {
        self.sync = mode;
        self.database.sync = mode != SyncMode::Off;
        self
    }

    /// Whether layers are also kept as the compressed blobs they came as. The default is `true`: a saved image
    /// then has the same manifest, byte for byte, as the one that was loaded, and a damaged layer can be
    /// repaired without the network, at the price of the blobs' space. A blob can be dropped at any time
    /// with [`Store::drop_blobs`](crate::Store::drop_blobs).
    #[must_use]
    pub fn keep_blobs(mut self, keep: bool) -> Self {
        self.keep_blobs = keep;
        self
    }

    /// Space set aside so that removing things works on a full disk, in bytes. The default is 16 MiB; zero sets
    /// none aside.
    #[must_use]
    pub fn reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// A program such as `fuse-overlayfs` that mounts where the kernel cannot.
    #[must_use]
    pub fn mount_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.mount_program = Some(program.into());
        self
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn run_root_path(&self) -> PathBuf {
        self.run_root.clone().unwrap_or_else(|| self.root.join("run"))
    }
}
