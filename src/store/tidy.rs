//! What the first write through a handle does beside: it removes what dead processes announced, so that a store
//! that is written to stays tidy without anybody calling [`Store::gc`].

use std::sync::atomic::Ordering;

use crate::disk;
use crate::error::Error;

use super::Store;
use super::garbage::Sweep;

/// How many names it deletes at the most: some ten milliseconds. The rest stays announced, for the next writer and for
/// [`Store::gc`].
const LIMIT: u64 = 1000;

impl Store {
    /// Comes before each write through this handle, with no lock held.
    ///
    /// Returns [`Error::ReadOnly`] if the store is open for reading only.
    pub(crate) fn begin_writing(&self) -> Result<(), Error> {
        self.refuse_read_only()?;
        self.tidy_once();
        Ok(())
    }

    /// Comes before the first write through this handle.
    ///
    /// Lists one directory, which is empty as a rule. In the first write after a boot, by whatever process, it compares
    /// all directories with the rows: a power cut may have lost what announces garbage. Failures are no failures of the
    /// write.
    fn tidy_once(&self) {
        if !self.begin_tidying() {
            return;
        }
        let _span = tracing::debug_span!("tidy").entered();
        if let Err(error) = self.tidy() {
            tracing::debug!(%error, "garbage left for gc");
        }
    }

    fn tidy(&self) -> Result<(), Error> {
        // Nothing is made in a store without locks that has no trash.
        let boot = self.boot_id()?;
        if !self.options().for_another {
            self.end_expired_leases(LIMIT, None)?;
        }
        if let Some(images) = self.separate_images() {
            images.end_expired_leases(LIMIT, Some(self))?;
        }
        // What stands in the place of the note makes no write wait or fail, and is no cause for a comparison before each; `gc`
        // says what it is.
        let noted = disk::collected_in(self.layout());
        let booted = noted.as_ref().map_or(true, |noted| noted.as_deref() == Some(boot));
        if booted && disk::locked_numbers(self.layout())?.is_empty() {
            return Ok(noted.map(drop)?);
        }
        let mut sweep = Sweep::limited(self, LIMIT)?;
        let mut swept = sweep.announced();
        if !booted {
            swept = swept.and(sweep.unannounced()).and(self.settle_made());
            // Whatever came of it: what failed once fails for each writer, and `gc` says why.
            self.note_collected()?;
        }
        swept.and(Ok(noted.map(drop)?))
    }

    /// Notes that garbage was looked for everywhere since the machine started.
    pub(crate) fn note_collected(&self) -> Result<(), Error> {
        Ok(disk::note_collected(self.layout(), self.boot_id()?)?)
    }

    /// Comes before a collection, after which nothing is to be tidied.
    ///
    /// Returns [`Error::ReadOnly`] if the store is open for reading only.
    pub(crate) fn begin_collecting(&self) -> Result<(), Error> {
        self.refuse_read_only()?;
        self.begin_tidying();
        Ok(())
    }

    /// Whether nobody has begun it for this handle; who asks has.
    fn begin_tidying(&self) -> bool {
        self.is_writable() && !self.tidied().swap(true, Ordering::Relaxed)
    }
}
