//! Mounts without syncs that others make.

use super::*;

/// What a fact begins with that says of a layer that others were told to mount it without syncs.
const LENT: &str = "volatile/";

impl Store {
    /// Notes that somebody else is told to mount a layer without syncs, before the kernel can have marked the workdir: so
    /// whoever finds the mark knows that it is of this boot, and that what was written is the kernel's still. Nothing is
    /// noted if the mark is there already, as it may be of another boot.
    pub(crate) fn note_lent(&self, layer: &str, work: &Path) -> Result<(), Error> {
        let Some(run) = self.run_if_usable()? else { return Ok(()) };
        if self.is_lent(layer)? || overlay::has_volatile_mark(work) {
            return Ok(());
        }
        Ok(run.set_fact(&fact(layer), "")?)
    }

    /// Whether others were told in this boot to mount the layer without syncs.
    pub(super) fn is_lent(&self, layer: &str) -> Result<bool, Error> {
        let known = self.run_if_usable()?.map(|run| run.fact(&fact(layer))).transpose()?;
        Ok(known.flatten().is_some())
    }

    /// Nobody writes to the layer any more.
    pub(crate) fn forget_lent(&self, layer: &str) -> Result<(), Error> {
        match self.run_if_usable()? {
            Some(run) if self.is_lent(layer)? => Ok(run.remove_fact(&fact(layer))?),
            _ => Ok(()),
        }
    }

    /// Notes it of a mount that the caller makes, and prepares the directories.
    pub(super) fn lend(&self, planned: &Planned<'_>) -> Result<(), Error> {
        self.prepare_lent(planned)?;
        planned.volatile.as_ref().map_or(Ok(()), |work| self.note_lent(&planned.layer.id, work))
    }
}

fn fact(layer: &str) -> String {
    format!("{LENT}{layer}")
}
