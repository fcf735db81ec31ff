//! The run root of an open store: its directories and its database, made and opened by their first use.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::Store;
use crate::disk::RunLayout;
use crate::error::{Error, LayoutError, MetaError};
use crate::meta::RunDatabase;
use crate::overlay;
use crate::sys::{machine, path};

/// The run root, open.
pub(super) struct Run {
    layout: RunLayout,
    database: RunDatabase,
}

impl Store {
    /// The directory for what a reboot drops.
    pub fn run_root(&self) -> PathBuf {
        self.0.options.run_root_path()
    }

    /// The database of the run root, opened by its first use.
    pub(crate) fn run(&self) -> Result<&RunDatabase, Error> {
        Ok(&self.open_run()?.database)
    }

    /// The directories of the run root, made by their first use.
    pub(crate) fn run_layout(&self) -> Result<&RunLayout, Error> {
        Ok(&self.open_run()?.layout)
    }

    pub(super) fn open_run(&self) -> Result<&Run, Error> {
        if let Some(run) = self.0.run.get() {
            return Ok(run);
        }
        if self.run_root().starts_with(self.root()) {
            self.refuse_read_only()?;
        }
        let layout = self.0.options.ensure_run_root()?;
        let root = path::resolve(self.root()).map_err(|source| Error::Io {
            action: "find",
            path: self.root().to_owned(),
            source,
        })?;
        let database = RunDatabase::claim(
            &layout.database(),
            self.boot_id()?,
            self.uuid(),
            &root,
            &self.0.options.database,
            || self.refuse_mounted_before(&layout),
        )?;
        Ok(self.0.run.get_or_init(|| Run { layout, database }))
    }

    /// Refuses to take over a run root in which something is still mounted, of a store that was at this place before.
    fn refuse_mounted_before(&self, layout: &RunLayout) -> Result<(), Error> {
        for name in layout.mount_points()? {
            let target = layout.mounts().join(OsStr::from_bytes(&name));
            if overlay::is_mounted(&target)? {
                let root = self.root().display().to_string();
                return Err(MetaError::RunRootMounted { target, root }.into());
            }
        }
        Ok(())
    }

    /// The run database with containers that the next boot drops, once it was found.
    pub(in crate::store) fn transient_slot(&self) -> &OnceLock<RunDatabase> {
        &self.0.transient
    }

    /// The database of the run root, if it is there for this boot or may be made.
    pub(crate) fn run_if_usable(&self) -> Result<Option<&RunDatabase>, Error> {
        match self.open_run() {
            Err(Error::ReadOnly { .. }) => Ok(None),
            run => Ok(Some(&run?.database)),
        }
    }

    /// The same for who only looks at a store and makes do without: in its place why the run root is used for nothing, where others could have
    /// written in it or something else stands at its path. Who writes to the store is refused for that when it is opened.
    pub(crate) fn run_to_look_at(&self) -> Result<Result<Option<&RunDatabase>, LayoutError>, Error> {
        match self.run_if_usable() {
            Err(Error::Layout(error @ (LayoutError::Exposed { .. } | LayoutError::OtherKind { .. })))
                if self.is_read_only() =>
            {
                Ok(Err(error))
            }
            run => run.map(Ok),
        }
    }

    /// Which boot of the machine this is: a UUID that the kernel draws when it starts.
    pub(crate) fn boot_id(&self) -> Result<&str, Error> {
        if let Some(boot_id) = self.0.boot_id.get() {
            return Ok(boot_id);
        }
        let boot_id = machine::boot_id().map_err(|source| Error::Io {
            action: "read",
            path: machine::BOOT_ID.into(),
            source,
        })?;
        Ok(self.0.boot_id.get_or_init(|| boot_id))
    }
}
