//! What a repair would do, told and not done.

use std::collections::{BTreeMap, BTreeSet};

use super::remove::to_remove;
use super::{
    Repair, RepairOptions, RepairReport, Repaired, Unrepaired, is_of_rows, is_settled, of_row, thing,
};
use crate::check::{self, Casualty, Cure, Finding, Remedy, dependents, doomed};
use crate::error::{Error, is_denied};
use crate::meta::Records;
use crate::store::{Loss, Store};
use crate::types::TreeDigest;

impl Store {
    /// Tells what a repair would do. As in the repair, each thing is mended once, whatever was found in it.
    pub(super) fn planned(
        &self,
        findings: Vec<Finding>,
        options: &RepairOptions<'_>,
    ) -> Result<RepairReport, Error> {
        let repair = Repair::begin(self, options, &findings)?;
        let mut plan = Plan { repair, report: RepairReport::default(), handled: BTreeSet::new() };
        plan.mend(&findings)?;
        if options.force {
            plan.remove(&findings);
        }
        let Plan { mut report, handled, repair } = plan;
        let stays = |finding: &Finding| {
            !is_of_rows(finding) && !finding.cures.iter().all(|cure| handled.contains(&cure.casualty))
        };
        // Something may be made again from what nothing refers to.
        let unused_goes = options.force || findings.iter().filter(|finding| stays(finding)).all(is_settled);
        for finding in findings {
            if stays(&finding) || is_unused(&finding, &repair.records) && !unused_goes {
                report.left.push(finding);
            } else if is_of_rows(&finding) {
                report.repaired.push(of_row(&finding, "would put right"));
            }
        }
        Ok(report)
    }
}

struct Plan<'a> {
    repair: Repair<'a>,
    report: RepairReport,
    /// What would be mended or removed.
    handled: BTreeSet<Casualty>,
}

impl Plan<'_> {
    fn mend(&mut self, findings: &[Finding]) -> Result<(), Error> {
        let cures = findings.iter().flat_map(|finding| &finding.cures);
        let remedies: BTreeMap<_, _> = cures.map(|cure| (&cure.casualty, &cure.remedy)).collect();
        for casualty in self.repair.casualties(findings) {
            let remedy = match self.remedy(&casualty, remedies.get(&casualty).copied()) {
                Err(error) if is_denied(&error) => {
                    let thing = self.repair.thing(&casualty);
                    self.report.fail(&casualty, thing, error);
                    continue;
                }
                remedy => remedy?,
            };
            let Some(remedy) = remedy else { continue };
            if let (Casualty::Tree(tree), Remedy::Forget) = (&casualty, &remedy)
                && check::tree_of(&self.repair.records, tree).layers.is_empty()
            {
                // With its row.
                self.handled.insert(casualty);
                continue;
            }
            let Some(what) = would(&remedy).filter(|_| casualty != Casualty::Rows) else { continue };
            let thing = self.repair.thing(&casualty);
            let records = &self.repair.records;
            let replaced = matches!(remedy, Remedy::RestoreFile { .. } | Remedy::UnpackLayer { .. });
            let going = if replaced { doomed(records, [casualty.clone()]) } else { BTreeSet::new() };
            match self.repair.store.would_refuse(records, &going, Loss::Directory) {
                Ok(()) => {
                    self.report.repaired.push(Repaired { code: remedy.code(), thing, what });
                    self.handled.insert(casualty);
                }
                Err(error) => self.report.failed.push(Unrepaired { thing, error }),
            }
        }
        Ok(())
    }

    /// What would be done about one thing.
    fn remedy(&self, casualty: &Casualty, told: Option<&Remedy>) -> Result<Option<Remedy>, Error> {
        let records = &self.repair.records;
        match casualty {
            // Its directory may be there, and only its row is gone.
            Casualty::Tree(tree) if told.is_some() && !records.diffs.contains_key(tree) => {
                let search = self.repair.find_unclaimed(&TreeDigest(*tree), |_| Ok(Some(())))?;
                match (search.found, search.refused) {
                    (Some(_), _) => Ok(Some(Remedy::RebuildManifest)),
                    (None, Some(refused)) if told.and_then(would).is_none() => Err(refused),
                    (None, _) => Ok(told.cloned()),
                }
            }
            // Its size alone may be wrong.
            Casualty::KeptBlob(digest)
                if let Some(record) = records.kept_blobs.get(digest)
                    && !check::is_lost(self.repair.store, digest, record)? =>
            {
                Ok(Some(Remedy::RestoreRecord { from: "its file".to_owned() }))
            }
            // Nothing names it but documents.
            Casualty::Layer(id) if told.is_none() && !records.layers.contains_key(id) => {
                let blob = self.repair.supplies.blobs_of_layer(id, None).into_iter().next();
                Ok(blob.map(|blob| Remedy::RestoreRecord { from: blob.name() }))
            }
            _ => Ok(told.cloned()),
        }
    }

    fn remove(&mut self, findings: &[Finding]) {
        let records = &self.repair.records;
        let mut gone = BTreeSet::new();
        for casualty in to_remove(findings) {
            if self.handled.contains(&casualty) {
                continue;
            }
            if self.report.refused.contains(&casualty) {
                continue;
            }
            let thing = thing(records, &casualty);
            let going = doomed(records, [casualty.clone()]);
            if let Err(error) = self.repair.store.would_refuse(records, &going, Loss::Everything) {
                self.report.failed.push(Unrepaired { thing, error });
                continue;
            }
            let going = going.difference(&gone).cloned().collect();
            let removed = dependents(records, &going).into_iter();
            self.report.repaired.extend(removed.map(|what| Repaired {
                code: Repaired::REMOVED,
                thing: thing.clone(),
                what: format!("would remove {what}"),
            }));
            self.handled.extend(going.iter().cloned());
            gone.extend(going);
            self.handled.insert(casualty);
        }
    }
}

/// Whether a finding is about something that nothing refers to.
fn is_unused(finding: &Finding, records: &Records) -> bool {
    let is_tree = |casualty: &Casualty| match casualty {
        Casualty::Tree(tree) => check::tree_of(records, tree).layers.is_empty(),
        _ => false,
    };
    let goes = |cure: &Cure| cure.remedy == Remedy::Forget && is_tree(&cure.casualty);
    finding.remedy == Remedy::Forget && (is_of_rows(finding) || finding.cures.iter().all(goes))
}

/// What a repair would do about one thing; `None` if nothing.
fn would(remedy: &Remedy) -> Option<String> {
    Some(match remedy {
        Remedy::RebuildIndex => "would set it right".to_owned(),
        Remedy::RestoreRecord { from } => format!("would make its record again from {from}"),
        Remedy::RestoreFile { from } => format!("would make its directory again from {from}"),
        Remedy::RestoreMetadata => "would make its directory again".to_owned(),
        Remedy::UnpackLayer { from } => format!("would unpack it again from {from}"),
        Remedy::RebuildManifest => "would make its manifest again from its directory".to_owned(),
        Remedy::RebuildSplit { from } => format!("would make its tar-split again from {from}"),
        Remedy::RestoreItem { from } | Remedy::RestoreBlob { from } => format!("would take it from {from}"),
        Remedy::MakePrivate => "would give it mode 0700".to_owned(),
        Remedy::RestoreMode { mode, .. } => format!("would give it back mode {mode:04o}"),
        Remedy::Forget => "would forget it; nothing is lost".to_owned(),
        Remedy::ForgetBlob => {
            "would forget it: the layer has its files, and its image is saved with another digest".to_owned()
        }
        Remedy::NeedsSource { .. } | Remedy::RemoveWithForce { .. } | Remedy::Leave => return None,
        Remedy::OpenOther { .. } | Remedy::Unmount { .. } => return None,
        Remedy::Allow { .. } | Remedy::Serve | Remedy::Separate => return None,
    })
}
