//! Mending what a check finds, as far as there is something to mend it with.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`layers`] | records and tar-splits of layers, unpacked again from a blob |
//! | [`trees`] | sealed directories and their manifests |
//! | [`assemble`] | a new directory from a manifest and files from anywhere |
//! | [`records`] | records of images and containers, data items, kept blobs, single rows |
//! | [`remove`](mod@remove) | what cannot be had again, with all that stands on it |
//! | [`plan`] | the same, told and not done |
//!
//! A repair goes in rounds: a check says what is hurt, each of these is mended by itself, and the next check says what
//! that has brought to light. Each step is one transaction, prepared without a lock, in which what was seen is looked at
//! again; so it can die at any moment, and other processes go on meanwhile.

mod assemble;
mod layers;
mod plan;
mod records;
mod remove;
mod trees;

use std::collections::BTreeSet;
use std::fmt;

use crate::check::{
    self, Casualty, CheckLevel, CheckOptions, CheckReport, Cure, Damage, Finding, Remedy, Supplies,
};
use crate::disk::Stage;
use crate::error::{Error, is_denied};
use crate::layer::ProgressFn;
use crate::meta::{Records, Unused};
use crate::oci::Source;
use crate::store::{Mounts, Store};
use crate::types::{ImageId, LayerId};

/// Each round mends what the one before has brought to light. More than a few mean that something is not what it seems.
const ROUNDS: usize = 8;

/// What is repaired, and with what.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct RepairOptions<'a> {
    /// Images outside the store that layers, blobs and documents may be taken from.
    pub sources: Vec<&'a Source>,
    /// Only this layer.
    pub layer: Option<LayerId>,
    /// Only this image and its layers.
    pub image: Option<ImageId>,
    /// Remove what cannot be had again, with everything that stands on it: containers too, and what was written into
    /// them.
    pub force: bool,
    /// Touch nothing, and report what would be done.
    pub dry_run: bool,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl fmt::Debug for RepairOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepairOptions")
            .field("sources", &self.sources)
            .field("layer", &self.layer)
            .field("image", &self.image)
            .field("force", &self.force)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// Something that was mended, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// A word for what was done, for programs: that of a [`Remedy`], or [`REMOVED`](Self::REMOVED). It stays the same in all releases.
    pub code: &'static str,
    /// What it was done to, such as `layer 5f70bf18a086`.
    pub thing: String,
    /// What was done.
    pub what: String,
}

impl Repaired {
    /// The [word](Self::code) for what could only be removed.
    pub const REMOVED: &str = "removed";
}

impl fmt::Display for Repaired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.thing, self.what)
    }
}

/// Something that could not be mended, though there seemed to be something to mend it with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unrepaired {
    /// What it is.
    pub thing: String,
    /// Why it is as it was.
    pub error: Error,
}

/// What a repair did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// What was mended, in the order in which it was; or would be.
    pub repaired: Vec<Repaired>,
    /// What was tried in vain; in a dry run, what would be refused because it is mounted.
    pub failed: Vec<Unrepaired>,
    /// The damage that is left, as a check finds it. Nothing is known of it if the repair has [`ended`](Self::ended).
    pub left: Vec<Finding>,
    /// Why the repair ended before its last check, after something was mended.
    pub ended: Option<Error>,
    /// What could not be mended since this process may not read something: another may, so nothing of it is removed. Other processes
    /// can change by what name a thing is told.
    refused: BTreeSet<Casualty>,
}

impl RepairReport {
    /// Whether it is known that no damage is left.
    pub fn is_complete(&self) -> bool {
        self.left.is_empty() && self.ended.is_none()
    }

    /// Notes what was tried in vain.
    fn fail(&mut self, casualty: &Casualty, thing: String, error: Error) {
        if is_denied(&error) {
            self.refused.insert(casualty.clone());
        }
        self.failed.push(Unrepaired { thing, error });
    }
}

impl Store {
    /// Checks the store as [`check`](Self::check) does at its deepest, and mends what was found: rows that follow from
    /// others; paths, directories, manifests and tar-splits of layers, from equal files, kept blobs and
    /// [`sources`](RepairOptions::sources); documents of images. Every byte is verified before it counts, and what was
    /// mended is checked again.
    ///
    /// What this process may not read ([`Damage::NotExamined`]) is left, with force too.
    ///
    /// Nothing that cannot be had again is removed unless [`force`](RepairOptions::force) says so; the report lists it. With
    /// it, nothing is removed but what the first look has found to be lost, as a [`dry_run`](RepairOptions::dry_run) tells
    /// it: a repair that fails, or what comes to light on the way, is no reason to remove more. A directory is never changed in place: a new one takes its place. (A mode that keeps
    /// this user out of what is this user's is set right where it is: [`Damage::ModeLost`].) So a layer that is mounted is not mended;
    /// the report says that it has to be unmounted first.
    ///
    /// # Locking
    ///
    /// Reads and writes data with no lock but those of the new directories, as an import does; each mended thing is one
    /// short write transaction. Safe beside other processes.
    ///
    /// Returns [`Error::Lookup`] if the layer or image is not there, [`Error::Oci`] if a source cannot be read, and
    /// [`Error::Meta`] if the database itself cannot be read or written. What fails for one thing alone is in the report, and
    /// so is such an error once something was mended: see [`RepairReport::ended`].
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use layerstore::{RepairOptions, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let report = store.repair(&RepairOptions::default())?;
    /// assert!(report.is_complete());
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn repair(&self, options: &RepairOptions<'_>) -> Result<RepairReport, Error> {
        let check = CheckOptions {
            level: CheckLevel::Deep,
            layer: options.layer.clone(),
            image: options.image.clone(),
            progress: options.progress,
        };
        self.verify_database(&check)?;
        let found = self.check_with(&check, &options.sources)?;
        self.verify_suspected(&check, &found)?;
        if options.dry_run {
            return self.planned(found.findings, options);
        }
        // What no row names may be what a row is missing for.
        self.begin_collecting()?;
        let (mut report, mut rows) = (RepairReport::default(), Vec::new());
        match self.repair_found(found, &check, options, &mut rows, &mut report) {
            Ok(left) => {
                rows.retain(|row| !is_among(row, &left));
                report.left = left;
            }
            Err(error) => {
                // These are in order as soon as a round was made.
                rows.retain(|row| row.remedy == Remedy::RebuildIndex);
                if report.repaired.is_empty() && rows.is_empty() {
                    return Err(error);
                }
                report.ended = Some(error);
            }
        }
        report.repaired.extend(rows.iter().map(|row| of_row(row, "put right")));
        Ok(report)
    }

    /// Mends what was found, and returns what is left. `rows` are findings about rows that may have been put right.
    fn repair_found(
        &self,
        mut found: CheckReport,
        check: &CheckOptions<'_>,
        options: &RepairOptions<'_>,
        rows: &mut Vec<Finding>,
        report: &mut RepairReport,
    ) -> Result<Vec<Finding>, Error> {
        let announced = announced(&found.findings);
        // Something that was not looked at may be made again from what nothing refers to.
        let is_of_everything = options.layer.is_none() && options.image.is_none();
        let unused = if is_of_everything { Unused::Remove } else { Unused::Keep };
        let mut mended = BTreeSet::new();
        for _ in 0..ROUNDS {
            if found.is_clean() {
                break;
            }
            let new =
                |finding: &&Finding| is_of_rows(finding) && (mended.is_empty() || !is_among(finding, rows));
            let new: Vec<Finding> = found.findings.iter().filter(new).cloned().collect();
            let goes_on = self.repair_round(&found, options, &mut mended, report)?;
            rows.extend(new);
            if !goes_on {
                break;
            }
            found = self.check_with(check, &options.sources)?;
        }
        if !found.is_clean() {
            if options.force {
                // What is removed is gone: an error of a moment must not be why.
                let before = found.findings;
                found = self.check_with(check, &options.sources)?;
                let lost = found.findings.iter().filter(|finding| is_among(finding, &before));
                let lost: Vec<Finding> = lost.cloned().collect();
                self.remove_lost(&lost, &announced, unused, report)?;
            }
            // What nothing refers to is needed by nothing, unless something is left that may be made again from it.
            if options.force || found.findings.iter().all(is_settled) {
                self.normalize(unused)?;
                found = match self.check_with(check, &options.sources) {
                    // The layer or image itself was removed.
                    Err(Error::Lookup(_)) if options.force => CheckReport::default(),
                    found => found?,
                };
            }
        }
        Ok(found.findings)
    }

    /// Mends what was found and was not mended before; `false` if there was nothing to mend. What failed is tried again
    /// in the next round: the one thing may have waited for the other.
    fn repair_round(
        &self,
        found: &CheckReport,
        options: &RepairOptions<'_>,
        mended: &mut BTreeSet<Casualty>,
        report: &mut RepairReport,
    ) -> Result<bool, Error> {
        let mut repair = Repair::begin(self, options, &found.findings)?;
        // Before anything else is written: other changes count on indexes and counts.
        self.normalize(Unused::Keep)?;
        let mut casualties = repair.casualties(&found.findings);
        let before = mended.len();
        casualties.retain(|casualty| !mended.contains(casualty));
        report.failed.clear();
        for casualty in casualties {
            let thing = repair.thing(&casualty);
            match repair.mend(&casualty) {
                Ok(Some(repaired)) => {
                    report.repaired.push(repaired);
                    mended.insert(casualty);
                }
                // The rows were set right above.
                Ok(None) if casualty == Casualty::Rows => drop(mended.insert(casualty)),
                Ok(None) => {}
                Err(error) => report.fail(&casualty, thing, error),
            }
        }
        Ok(mended.len() > before)
    }

    fn normalize(&self, unused: Unused) -> Result<(), Error> {
        self.write_mending(Mounts::GoOn, |txn| Ok((txn.normalize(unused)?, ())))
    }
}

/// Whether the same was found before, whatever the reason is now.
fn is_among(finding: &Finding, others: &[Finding]) -> bool {
    others.iter().any(|other| (other.code(), other.thing()) == (finding.code(), finding.thing()))
}

/// Whether a finding is about rows that follow from others.
fn is_of_rows(finding: &Finding) -> bool {
    matches!(finding.cures.as_slice(), [Cure { casualty: Casualty::Rows, .. }])
}

/// What is done about a row, or would be: the thing is not named twice.
fn of_row(finding: &Finding, done: &str) -> Repaired {
    let (thing, damage) = (finding.thing(), finding.damage.to_string());
    let wrong =
        damage.strip_prefix(&thing).map_or(damage.as_str(), |rest| rest.trim_start_matches([':', ' ']));
    Repaired {
        code: finding.remedy.code(),
        what: format!("{done} what follows from records ({wrong})"),
        thing,
    }
}

/// Whether nothing that is left could be made again from what nothing refers to.
fn is_settled(finding: &Finding) -> bool {
    is_of_rows(finding)
        || matches!(
            finding.remedy,
            Remedy::Leave
                | Remedy::Serve
                | Remedy::Separate
                | Remedy::Forget
                | Remedy::ForgetBlob
                | Remedy::MakePrivate
                | Remedy::OpenOther { .. }
        )
}

/// Everything that may go with force: what was told before.
fn announced(findings: &[Finding]) -> BTreeSet<Casualty> {
    findings.iter().flat_map(|finding| &finding.cures).flat_map(|cure| cure.removes.iter().cloned()).collect()
}

/// A thing as a check names it.
fn thing(records: &Records, casualty: &Casualty) -> String {
    match casualty {
        Casualty::Tree(tree) => check::tree_of(records, tree).to_string(),
        other => other.to_string(),
    }
}

/// One round: what is there at its beginning, to mend and to mend with.
struct Repair<'a> {
    store: &'a Store,
    records: Records,
    supplies: Supplies<'a>,
}

impl<'a> Repair<'a> {
    fn begin(store: &'a Store, options: &'a RepairOptions<'_>, findings: &[Finding]) -> Result<Self, Error> {
        let txn = store.database().begin_read()?;
        let records = Records::read(&txn)?;
        let mut supplies = Supplies::find(store, &txn, &records, &options.sources)?;
        for finding in findings {
            if let Damage::KeptBlobDamaged { digest, .. } = &finding.damage
                && let Some(record) = records.kept_blobs.get(digest)
                && check::is_lost(store, digest, record).unwrap_or(true)
            {
                supplies.drop_kept(digest);
            }
        }
        Ok(Repair { store, records, supplies })
    }

    /// What is hurt, in the order in which it is mended: layers need those below them.
    fn casualties(&self, findings: &[Finding]) -> Vec<Casualty> {
        let mut hurt: BTreeSet<Casualty> =
            findings.iter().flat_map(|finding| self.hurt_by(finding)).collect();
        let missing: Vec<String> = hurt.iter().flat_map(|casualty| self.missing_below(casualty)).collect();
        hurt.extend(missing.into_iter().map(Casualty::Layer));
        let mut hurt: Vec<Casualty> = hurt.into_iter().collect();
        hurt.sort_by_key(|casualty| match casualty {
            Casualty::Layer(id) => (1, self.depth(id)),
            Casualty::Tree(tree) => {
                (1, self.layers_of(tree).iter().map(|id| self.depth(id)).min().unwrap_or(0))
            }
            Casualty::Container(_) | Casualty::Split(_) | Casualty::Written(_) => (2, 0),
            _ => (0, 0),
        });
        hurt
    }

    fn hurt_by(&self, finding: &Finding) -> Vec<Casualty> {
        match finding.remedy {
            // What is only out of sight is not hurt.
            Remedy::OpenOther { .. } | Remedy::Unmount { .. } | Remedy::Allow { .. } => Vec::new(),
            _ => Casualty::of(&finding.damage, &self.records),
        }
    }

    /// The lock of one new directory or blob: when its last entry has gone, no other can be locked with it.
    fn stage(&self) -> Result<Stage, Error> {
        Ok(Stage::create(self.store.layout())?)
    }

    /// The layers below one that is to be made again which are not there either: nothing names them but documents.
    fn missing_below(&self, casualty: &Casualty) -> Vec<String> {
        let (mut missing, mut next) = (Vec::new(), None);
        if let Casualty::Layer(id) = casualty {
            next = self.supplies.plan(id, self.records.layers.get(id)).and_then(|plan| plan.parent);
        }
        while let Some(id) = next.take_if(|id| !self.records.layers.contains_key(id) && !missing.contains(id))
        {
            next = self.supplies.plan(&id, None).and_then(|plan| plan.parent);
            missing.push(id);
        }
        missing
    }

    /// How many layers lie below one.
    fn depth(&self, id: &str) -> usize {
        let (mut seen, mut next) = (BTreeSet::new(), Some(id.to_owned()));
        while let Some(id) = next.take_if(|id| seen.insert(id.clone())) {
            next = self.supplies.plan(&id, self.records.layers.get(&id)).and_then(|plan| plan.parent);
        }
        seen.len()
    }

    fn thing(&self, casualty: &Casualty) -> String {
        thing(&self.records, casualty)
    }

    /// The layers whose content a tree is.
    fn layers_of(&self, tree: &[u8; 32]) -> Vec<String> {
        check::tree_of(&self.records, tree).layers
    }

    /// Mends one thing; `None` if there is nothing to mend it with.
    fn mend(&mut self, casualty: &Casualty) -> Result<Option<Repaired>, Error> {
        let _span = tracing::info_span!("mend", %casualty).entered();
        let what = match casualty {
            Casualty::Rows
            | Casualty::Stray
            | Casualty::Neighbour
            | Casualty::Additional(_)
            | Casualty::Written(_) => None,
            Casualty::Header => self.header()?,
            Casualty::Root(path) => {
                self.store.make_private(path)?;
                Some((Remedy::MakePrivate.code(), "gave it mode 0700".to_owned()))
            }
            // In place, as the one thing that is: nobody can read what is to be made anew.
            Casualty::Shut(path, mode) => self
                .store
                .layout()
                .give_back_mode(path, *mode)?
                .then(|| ("restore-mode", format!("gave it back mode {mode:04o}"))),
            Casualty::KeptBlob(digest) => self.kept_blob(digest)?,
            Casualty::Composefs(tree, number) => self.composefs_image(tree, *number)?,
            Casualty::MountRecord(layer) => self.mount_record(layer)?,
            Casualty::Name(kind, holder, name) => self.name(kind, holder, name)?,
            Casualty::ImageOfContainer(container) => self.image_of_container(container)?,
            Casualty::Image(image) => self.image(image)?,
            Casualty::Layer(layer) | Casualty::Split(layer) => self.layer(layer, casualty)?,
            Casualty::Container(container) => self.container(container)?,
            Casualty::Tree(tree) => self.tree(tree)?,
            Casualty::Item(owner, id, key) => self.item(*owner, id, key)?,
            Casualty::Data(kind, id) => self.data_directory(kind, id)?,
        };
        Ok(what.map(|(code, what)| Repaired { code, thing: self.thing(casualty), what }))
    }
}

/// A word for what was done, and what it was.
type Mended = Option<(&'static str, String)>;
