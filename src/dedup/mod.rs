//! Equal files take their space once: those of different layers are made to share their extents, where the filesystem can.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`candidates`] | which files are equal: known from manifests, without reading one |
//! | [`share`] | asking the kernel, file by file |
//! | [`report`] | what is told of it |
//!
//! The kernel compares the bytes before it shares anything, so a file never changes by this, whatever the records say and
//! whoever writes to it meanwhile. No lock is needed for the same reason: what is removed meanwhile is left out.

mod candidates;
mod report;
mod share;

use crate::disk;
use crate::error::Error;
use crate::layer::ProgressFn;
use crate::store::Store;
use crate::sys::mount::info;

use candidates::Candidates;
pub use report::{DedupReport, SkipReason, Skipped};
use share::Sharer;

/// Which files are made to share their extents.
#[derive(Clone)]
#[non_exhaustive]
pub struct DedupOptions<'a> {
    /// Only files of at least this many bytes; 4096 unless told otherwise. Smaller ones gain nothing, as they take no block of
    /// their own, or one that costs less than what is kept about sharing it.
    pub min_size: u64,
    /// Also files of containers, and of other layers that are written to. Nothing is known of what is in them, so
    /// those are read that are as long as another file.
    pub writable: bool,
    /// Only tell what would be asked for.
    pub dry_run: bool,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl Default for DedupOptions<'_> {
    fn default() -> Self {
        DedupOptions { min_size: disk::LEAST_SHARED, writable: false, dry_run: false, progress: None }
    }
}

impl std::fmt::Debug for DedupOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DedupOptions")
            .field("min_size", &self.min_size)
            .field("writable", &self.writable)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Lets equal files of layers share their extents, so that they take their space once. Works on Btrfs, and on XFS with
    /// reflinks. Which files of sealed layers are equal is known, and those that share already are not read.
    ///
    /// Contents, times and modes stay as they are: the kernel compares the files, and who writes to one later gets blocks of
    /// its own. It is safe at any time, beside whatever else uses the store, and to be cut short. What vanishes meanwhile,
    /// and what the kernel refuses, is left out, and the report says so. A [separate store](crate::StoreOptions::image_store_root)
    /// for images is done by itself; stores that are only read are not touched.
    ///
    /// # Locking
    ///
    /// Holds no lock. The kernel holds up who writes to one of the two files that it compares.
    ///
    /// Returns [`Error::CannotShare`] if the filesystem has no shared extents, [`Error::ReadOnly`] if the store is open for
    /// reading only, unless with [`dry_run`](DedupOptions::dry_run), and [`Error::Meta`] if the database fails.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{DedupOptions, Error, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// match store.dedup(&DedupOptions::default()) {
    ///     Ok(report) => println!("{} bytes are shared now", report.bytes_shared),
    ///     Err(Error::CannotShare { filesystem, .. }) => println!("{filesystem} cannot"),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn dedup(&self, options: &DedupOptions<'_>) -> Result<DedupReport, Error> {
        let mut report = self.dedup_own(options)?;
        if let Some(images) = self.separate_images() {
            report.and(images.dedup_own(options)?);
        }
        Ok(report)
    }

    fn dedup_own(&self, options: &DedupOptions<'_>) -> Result<DedupReport, Error> {
        let _span = tracing::info_span!("dedup").entered();
        if !options.dry_run {
            self.begin_writing()?;
        }
        if !self.is_read_only() {
            self.require_sharing()?;
        }
        let mut report = DedupReport::default();
        let candidates = Candidates::find(self, options, &mut report)?;
        Sharer::new(self, options, &candidates, &mut report).run()?;
        Ok(report)
    }

    /// Whether files of the store can share their extents, as far as that can be tried out.
    ///
    /// Returns [`Error::CannotShare`] if its filesystem has no shared extents, and [`Error::ReadOnly`] if nothing can be tried, as
    /// the store is open for reading only.
    pub fn can_share(&self) -> Result<(), Error> {
        self.refuse_read_only()?;
        self.require_sharing()
    }

    /// Tries it out with two files that have no name.
    fn require_sharing(&self) -> Result<(), Error> {
        let tried = self.spool().and_then(|one| disk::can_share(&one, &self.spool()?));
        match tried {
            Ok(false) => Err(self.cannot_share()),
            Ok(true) => Ok(()),
            Err(error) => {
                // On a full disk there may be no room for the trial. The first files say the same.
                tracing::debug!(%error, "not known whether files can share extents");
                Ok(())
            }
        }
    }

    fn cannot_share(&self) -> Error {
        let filesystem = info::filesystem_of(self.root()).ok().flatten();
        let filesystem = filesystem.unwrap_or_else(|| "an unknown filesystem".to_owned());
        Error::CannotShare { root: self.root().to_owned(), filesystem }
    }
}
