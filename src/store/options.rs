//! How a store is opened.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::AdditionalLayerStore;
use crate::config::Ignored;
use crate::disk::{self, RunLayout};
use crate::error::LayoutError;
use crate::meta::DatabaseOptions;
use crate::types::Limits;

use super::{AutoIdDefaults, Quota};

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
    /// A directory, perhaps above the run root, that everybody can make.
    pub(super) shared_run_directory: Option<PathBuf>,
    pub(super) create: bool,
    pub(super) keep_blobs: bool,
    pub(super) dedup_at_import: bool,
    pub(super) reserve: u64,
    pub(super) mount_program: Option<PathBuf>,
    pub(super) prefer_mount_program: bool,
    pub(super) mount_options: Vec<String>,
    pub(super) volatile: bool,
    pub(super) id_mapped_mounts: bool,
    pub(super) ignore_chown_errors: bool,
    pub(super) quota: Quota,
    pub(super) auto_ids: AutoIdDefaults,
    pub(super) use_composefs: bool,
    pub(super) force_mask: Option<u16>,
    pub(super) pull_options: BTreeMap<String, String>,
    pub(super) limits: Limits,
    pub(super) ignored: Vec<Ignored>,
    /// The files that some of this stands in.
    pub(super) files: Vec<PathBuf>,
    pub(super) image_store_root: Option<PathBuf>,
    pub(super) image_stores: Vec<PathBuf>,
    pub(super) additional_layer_stores: Vec<AdditionalLayerStore>,
    /// Whether another handle has the store for its images, and looks after what only it can know: what is mounted.
    pub(super) for_another: bool,
    pub(super) read_only: bool,
    pub(super) transient: bool,
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
            shared_run_directory: None,
            create: true,
            keep_blobs: true,
            dedup_at_import: false,
            reserve: 16 << 20,
            mount_program: None,
            prefer_mount_program: false,
            mount_options: Vec::new(),
            volatile: true,
            id_mapped_mounts: true,
            ignore_chown_errors: false,
            quota: Quota::default(),
            auto_ids: AutoIdDefaults::default(),
            use_composefs: false,
            force_mask: None,
            pull_options: BTreeMap::new(),
            limits: Limits::DEFAULT,
            for_another: false,
            ignored: Vec::new(),
            files: Vec::new(),
            image_store_root: None,
            image_stores: Vec::new(),
            additional_layer_stores: Vec::new(),
            read_only: false,
            transient: false,
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

    /// How many bytes of the database are kept in memory, for those that are read or written again. The default is 16 MiB. A program that
    /// only makes a list, and reads each record once, takes less memory and time with less.
    #[must_use]
    pub fn page_cache(mut self, bytes: usize) -> Self {
        self.database.cache_size = bytes;
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

    /// Whether files that a new layer brings share their space with equal ones that the store has, as
    /// [`Store::dedup`](crate::Store::dedup) makes them do later: on Btrfs, and on XFS with reflinks; elsewhere it is without
    /// effect. The default is `false`, since it costs time: what is new is written to the disk, and compared there.
    #[must_use]
    pub fn dedup_at_import(mut self, dedup: bool) -> Self {
        self.dedup_at_import = dedup;
        self
    }

    /// How much is granted to what comes in from outside. What asks for more is refused, with a [`LimitError`](crate::LimitError)
    /// that names the limit: [`Error::limit`](crate::Error::limit) finds it. The default is more than any real image needs.
    ///
    /// An [`oci::Source`](crate::oci::Source) is opened apart from the store: see
    /// [`open_within`](crate::oci::Source::open_within).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
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

    /// Whether the mount program mounts always, and not only where the kernel cannot. The default is `false`.
    #[must_use]
    pub fn prefer_mount_program(mut self, prefer: bool) -> Self {
        self.prefer_mount_program = prefer;
        self
    }

    /// Options for every mount, such as `nodev`; those of a container and of a single mount come after them.
    #[must_use]
    pub fn mount_options<O: Into<String>>(mut self, options: impl IntoIterator<Item = O>) -> Self {
        self.mount_options = options.into_iter().map(Into::into).collect();
        self
    }

    /// Whether mounts may be `volatile`, without syncs. If not, containers that ask for it are mounted as others are.
    /// The default is `true`.
    #[must_use]
    pub fn volatile_mounts(mut self, allow: bool) -> Self {
        self.volatile = allow;
        self
    }

    /// Whether layers are shown with the ids of a container by id-mapped mounts, where the kernel has them. If not, and where it
    /// has none, a container with ids of its own stands on a copy of its image with the owners that its map gives: see
    /// [`Store::mount`](crate::Store::mount). The default is `true`.
    #[must_use]
    pub fn id_mapped_mounts(mut self, allow: bool) -> Self {
        self.id_mapped_mounts = allow;
        self
    }

    /// Whether files of a layer get the owner of this process where theirs cannot be given, as to a user without
    /// subordinate ids. The default is `false`: the layer is refused then, unless the process has one id only. What comes
    /// out again has the owners that came in, in either case.
    #[must_use]
    pub fn ignore_chown_errors(mut self, ignore: bool) -> Self {
        self.ignore_chown_errors = ignore;
        self
    }

    /// How much each layer may take that is created to be written to, a container's or one of its own, unless its options say
    /// otherwise. The default is no limit.
    ///
    /// The filesystem must have project quotas, and only the machine's root can set them: otherwise no store is made with such
    /// a default, and in one that is there such a layer or container is not created (see [`can_limit`](Self::can_limit)).
    #[must_use]
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// What counts for [chosen ids](crate::AutoIdMaps) where a container's options do not say. The default: ids of the user
    /// `containers`, at least 1024 and at most 65536.
    #[must_use]
    pub fn auto_id_defaults(mut self, defaults: AutoIdDefaults) -> Self {
        self.auto_ids = defaults;
        self
    }

    /// Whether sealed layers are mounted as an image: a filesystem with what they show together, over files that layers of
    /// equal content share, also in the page cache. The default is `false`. Where the filesystem has fs-verity, the kernel then
    /// verifies each file that is read through such a mount. It needs root outside every user namespace and Linux 6.16;
    /// elsewhere a mount is refused with [`MountError::Composefs`](crate::MountError::Composefs).
    ///
    /// It is made when it is first needed, beside the directories, which stay. Layers that are written to, those above
    /// them, and those of stores that are only read are mounted as directories.
    #[must_use]
    pub fn use_composefs(mut self, use_it: bool) -> Self {
        self.use_composefs = use_it;
        self
    }

    /// The mode that all files and directories of new layers and containers have on the disk, such as 0755, which lets other users
    /// read them, or 0700. They belong to who makes them; their own modes and owners, and what devices and pipes are, stand
    /// in the attribute `user.containers.override_stat`. The default is their own modes and owners.
    ///
    /// Only a [mount program](Self::mount_program) such as fuse-overlayfs shows what the attribute says, so one must be given,
    /// and it makes all mounts of such layers, also when the option is gone. What comes out of the store is the same
    /// in both forms. Equal trees have one directory, in the form that it got first.
    #[must_use]
    pub fn force_mask(mut self, mode: u16) -> Self {
        self.force_mask = Some(mode & 0o777);
        self
    }

    /// Whether the store is only read: nothing is written in its directory then, no lock file either, and every
    /// operation that would returns [`Error::ReadOnly`](crate::Error::ReadOnly). The default is `false`. A store on a
    /// filesystem that is read-only is opened so in any case.
    ///
    /// Mounting writes into the run root, so that has to lie elsewhere. If other processes write the store meanwhile, it
    /// is read as it is at each call.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Another store whose images and layers are read as if they were in this one, and never written. Called several times,
    /// it names several, which are asked in this order after the own store.
    ///
    /// Containers can stand on images there, and images that are loaded on layers. Giving such an image other names
    /// makes a record of it in the own store, which stands on the layers there; removing that leaves the original. Every other
    /// change of what is there, and its removal, is refused with [`Error::InOtherStore`](crate::Error::InOtherStore). Nobody tells the other store who stands on it: who
    /// removes things there, or has its directory no more, breaks the images and containers here that need them.
    #[must_use]
    pub fn image_store(mut self, root: impl Into<PathBuf>) -> Self {
        self.image_stores.push(root.into());
        self
    }

    /// In place of the stores named with [`image_store`](Self::image_store) until now: these.
    #[must_use]
    pub fn image_stores<P: Into<PathBuf>>(mut self, roots: impl IntoIterator<Item = P>) -> Self {
        self.image_stores = roots.into_iter().map(Into::into).collect();
        self
    }

    /// A directory in which another program shows layers that it fills when they are read: see
    /// [`Store::lookup_additional_layer`](crate::Store::lookup_additional_layer). Called several times, it names several,
    /// which are asked in this order.
    ///
    /// An image that is [loaded](crate::Store::load) has the layers that are found there, if its manifest names their tables
    /// of contents, and their blobs are not read. Layers on record are found without this option too.
    #[must_use]
    pub fn additional_layer_store(mut self, store: AdditionalLayerStore) -> Self {
        self.additional_layer_stores.push(store);
        self
    }

    /// In place of the additional layer stores named until now: these.
    #[must_use]
    pub fn additional_layer_stores(mut self, stores: impl IntoIterator<Item = AdditionalLayerStore>) -> Self {
        self.additional_layer_stores = stores.into_iter().collect();
        self
    }

    /// A separate store for images and their layers, such as one on another disk, made if it is missing. Containers, with
    /// what is written into them, stay in this one; images that are here stay visible and can be removed. The
    /// directory is a store of its own, complete without this one. No name is given to an image or layer in one of the
    /// two that another has in either; but a new image takes names only from those in the separate store, and hides one
    /// here that has the same.
    #[must_use]
    pub fn image_store_root(mut self, root: impl Into<PathBuf>) -> Self {
        self.image_store_root = Some(root.into());
        self
    }

    /// Whether new containers are dropped by a reboot: their records are kept in the run root, whose database is never
    /// synced, so creating and removing them costs no sync. Their directories are garbage after it, which the first
    /// write or [`gc`](crate::Store::gc) removes. The default is `false`.
    #[must_use]
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = transient;
        self
    }

    /// Whether there is a program that mounts where the kernel cannot.
    pub fn has_mount_program(&self) -> bool {
        self.mount_program.is_some()
    }

    /// What is on the disk when an operation returns.
    pub fn sync_mode(&self) -> SyncMode {
        self.sync
    }

    /// What was asked for and has no effect: see [`from_settings`](Self::from_settings).
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// Whether new containers are dropped by a reboot.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// How much is granted to what comes in.
    pub fn granted(&self) -> &Limits {
        &self.limits
    }

    /// The options of every mount.
    pub fn options_of_mounts(&self) -> &[String] {
        &self.mount_options
    }

    /// Options for programs that pull images, kept for those.
    pub fn pull_options(&self) -> &BTreeMap<String, String> {
        &self.pull_options
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The root directory of the separate store for images, if there is one.
    pub fn images_root(&self) -> Option<&Path> {
        self.image_store_root.as_deref()
    }

    /// The root directories of the stores whose images are read.
    pub fn roots_of_image_stores(&self) -> impl Iterator<Item = &Path> {
        self.image_stores.iter().map(PathBuf::as_path)
    }

    /// Whether images are read from, or are kept in, other stores.
    pub fn has_other_stores(&self) -> bool {
        !self.image_stores.is_empty() || self.image_store_root.is_some()
    }

    /// How another store is opened that is read beside this one.
    pub(super) fn for_other(&self, root: &Path) -> Self {
        let mut options = StoreOptions::at(root).create(false).read_only(true);
        options.database.lock_timeout = self.database.lock_timeout;
        options
    }

    /// How the separate store for images is opened.
    pub(super) fn for_images(&self, root: &Path) -> Self {
        StoreOptions {
            root: root.to_owned(),
            run_root: Some(root.join("run")),
            image_store_root: None,
            transient: false,
            for_another: true,
            ..self.clone()
        }
    }

    pub(crate) fn run_root_path(&self) -> PathBuf {
        self.run_root.clone().unwrap_or_else(|| self.root.join("run"))
    }

    /// Comes before the store is written to: see [`RunLayout::refuse_exposed`].
    pub(super) fn refuse_exposed_run_root(&self) -> Result<(), LayoutError> {
        self.shared_above_run_root().map_or(Ok(()), disk::refuse_of_others)?;
        RunLayout::refuse_exposed(&self.run_root_path())
    }

    /// Opens the run root, and makes it if it is missing.
    pub(super) fn ensure_run_root(&self) -> Result<RunLayout, LayoutError> {
        self.shared_above_run_root().map_or(Ok(()), disk::ensure_shared_run_directory)?;
        RunLayout::ensure(&self.run_root_path())
    }

    fn shared_above_run_root(&self) -> Option<&Path> {
        let run_root = self.run_root_path();
        self.shared_run_directory.as_deref().filter(|shared| run_root.starts_with(shared))
    }
}
