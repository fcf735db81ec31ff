//! What the kernel can do with a store.

use std::path::{Path, PathBuf};

use crate::disk::{Stage, Staging};
use crate::error::{Error, MountError};
use crate::overlay::{self, Probe};
use crate::store::Store;
use crate::sys::path;

use super::plan::xattr_class;
use super::{absolute, remove_quietly};

/// The fact of the run database that holds what was probed.
pub(super) const PROBE_FACT: &str = "probe";

impl Store {
    /// What this kernel can do with this store, probed once per boot, and which program is there now.
    pub(in crate::store) fn probe(&self) -> Result<Probe, Error> {
        Ok(Probe { program: self.program()?, ..self.probe_kernel()? })
    }

    /// The same without a look for a program, which most mounts do not need.
    pub(super) fn probe_kernel(&self) -> Result<Probe, Error> {
        let path = absolute(self.root())?;
        let known = self.run()?.fact(PROBE_FACT)?.and_then(|text| text.parse::<Probe>().ok());
        match known {
            Some(known) if known.is_current(self.boot_id()?, &path) => Ok(known),
            _ => {
                let (probe, certain) = self.probe_in_scratch()?;
                if certain {
                    self.run()?.set_fact(PROBE_FACT, &probe.to_string())?;
                }
                Ok(probe)
            }
        }
    }

    /// The program that would mount now: who is told to install one does so within the boot.
    pub(super) fn program(&self) -> Result<Option<PathBuf>, Error> {
        // What stands at its path may be another file than when the store was opened.
        self.options().check_program()?;
        Ok(self.options().mount_program.clone().or_else(overlay::find_program))
    }

    /// Has the mount program mount something, each time that somebody wants to know: it may be installed, or break, at any
    /// moment. `None` if there is none, else whether it works and why not.
    pub(in crate::store) fn try_program(
        &self,
        probe: &Probe,
    ) -> Result<Option<Result<(), MountError>>, Error> {
        let Some(program) = &probe.program else { return Ok(None) };
        let class = xattr_class(self.layout());
        self.in_scratch(|scratch| overlay::try_program(program, scratch, class)).map(Some)
    }

    fn probe_in_scratch(&self) -> Result<(Probe, bool), Error> {
        let (mut probe, certain) = self.in_scratch(overlay::probe)??;
        // It is kept as that of the store's filesystem.
        probe.device = path::stat(self.root())
            .map_err(|source| Error::Io { action: "examine", path: self.root().to_owned(), source })?
            .id
            .device();
        Ok((probe, certain))
    }

    /// Runs `body` in an empty directory of the store's own filesystem, held so that no gc takes it away meanwhile. For a store in
    /// which nothing may be made it is beside the mount points: what can be mounted for reading is found out there as well, and what
    /// is written to is not in such a store.
    fn in_scratch<T>(&self, body: impl FnOnce(&Path) -> T) -> Result<T, Error> {
        if self.is_read_only() {
            let scratch = self.run_layout()?.ensure_scratch(self.fresh_number()?)?;
            let done = absolute(&scratch).map(|scratch| body(&scratch));
            remove_quietly(&scratch);
            return done;
        }
        let scratch = Staging::create(&Stage::create(self.layout())?, self.fresh_number()?)?;
        Ok(body(&absolute(&self.diff_path(scratch.number()))?))
    }
}
