//! What the kernel can do with a store.

use crate::disk::{Stage, Staging};
use crate::error::Error;
use crate::overlay::{self, Probe};
use crate::store::Store;
use crate::sys::path;

use super::{absolute, remove_quietly};

/// The fact of the run database that holds what was probed.
pub(super) const PROBE_FACT: &str = "probe";

impl Store {
    /// What this kernel can do with this store, probed once per boot.
    pub(in crate::store) fn probe(&self) -> Result<Probe, Error> {
        let path = absolute(self.root())?;
        let known = self.run()?.fact(PROBE_FACT)?.and_then(|text| text.parse::<Probe>().ok());
        let mut probe = match known {
            Some(known) if known.is_current(&path) => known,
            _ => {
                let (probe, certain) = self.probe_in_scratch()?;
                if certain {
                    self.run()?.set_fact(PROBE_FACT, &probe.to_string())?;
                }
                probe
            }
        };
        if let Some(program) = &self.options().mount_program {
            probe.program = Some(program.clone());
        }
        Ok(probe)
    }

    /// Probes in a directory of the store's own filesystem, held so that no gc takes it away meanwhile.
    fn probe_in_scratch(&self) -> Result<(Probe, bool), Error> {
        if self.is_read_only() {
            return self.probe_in_run_root();
        }
        let scratch = Staging::create(&Stage::create(self.layout())?, self.fresh_number()?)?;
        Ok(overlay::probe(&absolute(&self.diff_path(scratch.number()))?)?)
    }

    /// Probes beside the mount points, for a store in which nothing may be made. What can be mounted for reading is
    /// found out there as well; what is written to is not in such a store.
    fn probe_in_run_root(&self) -> Result<(Probe, bool), Error> {
        let scratch = self.run_layout()?.ensure_scratch(self.fresh_number()?)?;
        let probed = absolute(&scratch).and_then(|scratch| Ok(overlay::probe(&scratch)?));
        remove_quietly(&scratch);
        let (mut probe, certain) = probed?;
        // It is kept as that of the store's filesystem.
        probe.device = path::stat(self.root())
            .map_err(|source| Error::Io { action: "examine", path: self.root().to_owned(), source })?
            .id
            .device();
        Ok((probe, certain))
    }
}
