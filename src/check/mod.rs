//! Comparing a store with itself: records with indexes, records with directories, directories with the manifests
//! that they were sealed with. Nothing is written, and no lock is held, but while the database's own pages are verified.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`damage`] | what can be found |
//! | [`finding`], [`remedy`] | what was found, and what a repair would do about it |
//! | [`scope`] | which things are checked |
//! | [`records`] | records against records and indexes |
//! | [`directories`] | directories against records and manifests |
//! | [`compare`] | one directory against its manifest, path by path |
//! | [`bytes`] | kept blobs, and bytes in the database |
//! | [`unnamed`] | what no record names |
//! | [`withheld`] | what this process may not look at, which is no damage |
//! | [`transient`] | the rows of containers that the next boot drops |
//! | [`note`](mod@note) | what is not synced, which is no damage |
//! | [`casualty`], [`doomed`](mod@doomed) | what a damage hurts, and what goes if that goes |
//! | [`supplies`], [`outlook`] | what there is to repair with, and which remedy that gives |
//!
//! Other processes go on meanwhile. All records come from one snapshot, so what is found in them is found. What is
//! found in a directory counts only if a newer snapshot still has the record that names it: a layer that is removed
//! while it is looked at is no damage.

mod bytes;
mod casualty;
mod compare;
mod damage;
mod directories;
mod doomed;
mod finding;
mod note;
mod outlook;
mod records;
mod remedy;
mod scope;
mod supplies;
mod transient;
mod unnamed;
mod withheld;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use layerstore_schema::header::Header;

use crate::disk;
use crate::error::{Error, LookupError, MetaError};
use crate::layer::ProgressFn;
use crate::meta::{Query, ReadTxn, Records, stored_rows};
use crate::oci::Source;
use crate::store::Store;
use crate::sys::{moment, path};
use crate::types::{ImageId, LayerId};

pub(crate) use bytes::{digest_of, is_lost};
pub(crate) use casualty::Casualty;
use compare::LostFile;
pub(crate) use compare::is_of_other_side;
pub use damage::Damage;
pub(crate) use doomed::{are_copies, dependents, doomed};
pub(crate) use finding::{Cure, tree_of};
pub use finding::{Finding, SealedTree};
pub use note::Note;
use outlook::Outlook;
pub(crate) use outlook::document_digests;
pub use remedy::Remedy;
use scope::Scope;
pub(crate) use supplies::{LayerPlan, Offer, Place, Supplies, equal_files};

/// How closely a store is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckLevel {
    /// Records, indexes, and whether every directory and file is there.
    Quick,
    /// Also every path of every sealed layer: kind, size and metadata. Reads no file.
    #[default]
    Default,
    /// Also every byte: the content of files, blobs and data items, the diffID of every layer, and, unless it is of one thing
    /// alone, the pages of the database.
    Deep,
}

/// What is checked.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct CheckOptions<'a> {
    /// How closely.
    pub level: CheckLevel,
    /// Only this layer.
    pub layer: Option<LayerId>,
    /// Only this image and its layers.
    pub image: Option<ImageId>,
    /// Where progress is reported to.
    pub progress: Option<&'a ProgressFn<'a>>,
}

impl std::fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckOptions")
            .field("level", &self.level)
            .field("layer", &self.layer)
            .field("image", &self.image)
            .finish_non_exhaustive()
    }
}

/// How much was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Checked {
    /// Records.
    pub records: u64,
    /// Directories of layers.
    pub directories: u64,
    /// Paths in them, where a file with several names counts for each of them, and files of kept blobs.
    pub files: u64,
    /// Bytes that were read and hashed.
    pub bytes: u64,
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CheckReport {
    /// Every damage, in the order of the things that have it, with its remedy; and what this process may not look at
    /// ([`Damage::NotExamined`]), of which it is not known whether it is damaged.
    pub findings: Vec<Finding>,
    /// What is no damage: layers and blobs that are not known to be on the disk.
    pub notes: Vec<Note>,
    /// What no record names and no process holds: what is left of processes that were killed. It is no damage, and
    /// [`Store::gc`] removes it.
    pub garbage: Vec<PathBuf>,
    /// How much was looked at.
    pub checked: Checked,
}

impl CheckReport {
    /// Whether everything was examined and is as it should be, but for garbage.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Takes the report of another store in.
    fn and(&mut self, other: CheckReport) {
        self.findings.extend(other.findings);
        self.notes.extend(other.notes);
        self.garbage.extend(other.garbage);
        self.checked.add(other.checked);
    }
}

impl Checked {
    fn add(&mut self, other: Checked) {
        self.records = self.records.saturating_add(other.records);
        self.directories = self.directories.saturating_add(other.directories);
        self.files = self.files.saturating_add(other.files);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn count_directory(&mut self) {
        self.directories = self.directories.saturating_add(1);
    }
}

/// What one part of a check found.
#[derive(Debug, Default)]
struct Part {
    damages: Vec<Damage>,
    losses: Losses,
    checked: Checked,
}

/// What sealed directories do not have any more, as far as was looked. All of it, where findings name only some.
#[derive(Debug, Default)]
struct Losses {
    files: Vec<LostFile>,
    /// Trees whose directory is not what they are.
    directories: BTreeSet<[u8; 32]>,
}

impl Part {
    /// Whether nothing was refused to this process.
    fn is_examined(&self) -> bool {
        !self
            .damages
            .iter()
            .any(|damage| matches!(damage, Damage::NotExamined { .. } | Damage::ModeLost { .. }))
    }

    /// Notes that a sealed directory cannot be read.
    fn fail(&mut self, tree: &SealedTree, path: PathBuf, error: &(dyn std::error::Error + 'static)) {
        self.damages.push(withheld::unless_refused(tree.to_string(), path, error, |thing, path| {
            Damage::DirectoryUnreadable { thing, tree: Some(tree.digest), path, reason: chain(error) }
        }));
        if self.is_examined() {
            self.losses.directories.insert(tree.digest.0);
        }
    }

    fn differ(&mut self, differences: compare::Differences) {
        self.damages.extend(differences.damages);
        self.losses.files.extend(differences.lost);
    }

    fn add(&mut self, part: Part) {
        self.damages.extend(part.damages);
        self.losses.files.extend(part.losses.files);
        self.losses.directories.extend(part.losses.directories);
        self.checked.add(part.checked);
    }
}

impl Store {
    /// Compares the store with itself and reports every difference. A separate store for images is checked with it; other
    /// stores that are read are not, but can be by themselves ([`image_stores`](Self::image_stores)). Writes nothing.
    /// Other processes may use and change the store meanwhile.
    ///
    /// # Locking
    ///
    /// None, unless the pages of the database are verified, at some GB a second: for [`CheckLevel::Deep`], and where a row may be the
    /// cause of what is found. That waits for whoever writes, and then writers wait.
    ///
    /// Returns [`Error::Lookup`] if the layer or image to check is not there, and [`Error::Meta`] if the database itself
    /// cannot be read, has a page that is not as it was written, or is written to by somebody for longer than
    /// [`StoreOptions::lock_timeout`](crate::StoreOptions::lock_timeout).
    pub fn check(&self, options: &CheckOptions<'_>) -> Result<CheckReport, Error> {
        if let Some(images) =
            self.separate_images().filter(|_| options.layer.is_some() || options.image.is_some())
        {
            // One thing is in one of the two.
            match images.check(options) {
                Err(Error::Lookup(LookupError::NotFound { .. })) => {}
                checked => return checked,
            }
        }
        self.verify_database(options)?;
        let mut report = self.check_with(options, &[])?;
        self.verify_suspected(options, &report)?;
        if let Some(images) =
            self.separate_images().filter(|_| options.layer.is_none() && options.image.is_none())
        {
            report.and(images.check(options)?);
        }
        Ok(report)
    }

    /// Verifies every page of the database, if everything is looked at deeply: what is found after this is found in what was
    /// written.
    pub(crate) fn verify_database(&self, options: &CheckOptions<'_>) -> Result<(), Error> {
        if verifies_database(options) { Ok(self.database().verify()?) } else { Ok(()) }
    }

    /// Verifies every page of the database, if that was not done and rows are not what they should be: such rows may be of a page
    /// that rotted, and what a repair makes of the rest of it would be made of what nobody wrote.
    pub(crate) fn verify_suspected(
        &self,
        options: &CheckOptions<'_>,
        found: &CheckReport,
    ) -> Result<(), Error> {
        self.database().verify_own()?;
        if verifies_database(options) || suspects(found).next().is_none() {
            return Ok(());
        }
        match self.database().verify() {
            Err(MetaError::Damaged { path }) => Err(damaged_pages(path, found).into()),
            // Somebody writes all the time, and so found nothing wrong with what he trusts.
            Err(MetaError::Locked { .. }) => Ok(()),
            verified => Ok(verified?),
        }
    }

    /// As [`check`](Self::check), with remedies that count on these images outside the store.
    pub(crate) fn check_with(
        &self,
        options: &CheckOptions<'_>,
        sources: &[&Source],
    ) -> Result<CheckReport, Error> {
        // What a mount hides is neither missing nor damaged, and nothing is to go for its sake.
        self.layout().refuse_mounted()?;
        let mut part = Part::default();
        let txn = self.database().begin_read()?;
        let records = Records::read(&txn)?;
        let scope = Scope::new(options, &records)?;
        part.damages.extend(records::check(&records, &scope));
        if scope.is_everything() {
            part.checked.records = records.count();
            part.damages.extend(records::check_indexes(&records, &stored_rows(&txn)?));
            part.damages.extend(records::check_sums(&records));
            let header = txn.header()?.and_then(|bytes| Header::decode(&bytes).ok());
            part.damages.extend(records::check_rest(&records, header.as_ref(), self.layout()));
        } else {
            part.checked.records = scope.record_count();
        }
        let notes = note::check(self, &records, &scope, &mut part.damages)?;
        // A snapshot that is kept would make the database grow.
        drop(txn);
        directories::check(self, options, &records, &scope, &mut part)?;
        let mut report = CheckReport { notes, checked: part.checked, ..CheckReport::default() };
        let mut damaged = None;
        if scope.is_everything() {
            let open = self.own_open_roots()?.into_iter();
            part.damages.extend(open.map(|root| Damage::RootOpen { path: root.path, mode: root.mode }));
            let unnamed = unnamed::check(self)?;
            part.damages.extend(self.check_mount_records(&mut report.notes)?);
            let neighbours =
                |path: &PathBuf| path.parent() == Some(self.layout().path()) && is_neighbour(path);
            part.damages.extend(unnamed.strays.into_iter().map(|path| match neighbours(&path) {
                true => Damage::Neighbour { path },
                false => Damage::Stray { path },
            }));
            (report.garbage, damaged) = (unnamed.garbage, unnamed.damaged);
            report.notes.extend(unnamed.mounted);
        }
        forget_what_is_elsewhere(self, &mut part.damages)?;
        if !part.damages.is_empty() {
            let txn = self.database().begin_read()?;
            report.findings = self.findings(&txn, &records, sources, part)?;
        }
        if scope.is_everything() {
            let part = transient::check(self, options, &scope)?;
            report.checked.add(part.checked);
            report.findings.extend(transient::findings(part));
        }
        if let Some(path) = damaged {
            return Err(damaged_pages(path, &report).into());
        }
        Ok(report)
    }

    fn findings(
        &self,
        txn: &ReadTxn,
        records: &Records,
        sources: &[&Source],
        part: Part,
    ) -> Result<Vec<Finding>, Error> {
        let mut supplies = Supplies::find(self, txn, records, sources)?;
        for damage in &part.damages {
            if let Damage::KeptBlobDamaged { digest, .. } = damage {
                supplies.drop_kept(digest);
            }
        }
        let outlook = Outlook::new(self, txn, records, &supplies, (&part.damages, &part.losses))?;
        Ok(part.damages.into_iter().map(|damage| outlook.finding(damage)).collect())
    }

    fn check_mount_records(&self, notes: &mut Vec<Note>) -> Result<Vec<Damage>, Error> {
        // A run root that is not there has no mounts, and is not made for this.
        if path::stat(&self.run_root()).is_err() {
            return Ok(Vec::new());
        }
        let run = match self.run_to_look_at()? {
            Ok(Some(run)) => run,
            Ok(None) => return Ok(Vec::new()),
            Err(error) => {
                let thing = self.run_root().display().to_string();
                notes.push(Note::RunRootUnused { thing, reason: error.to_string() });
                return Ok(Vec::new());
            }
        };
        let damaged = run.damaged_mounts()?.into_iter();
        Ok(damaged.map(|(layer, reason)| Damage::MountRecordDamaged { layer, reason }).collect())
    }
}

/// The error for pages that are not as they were written, with what was found by them.
fn damaged_pages(path: PathBuf, found: &CheckReport) -> MetaError {
    let Some(first) = suspects(found).next() else { return MetaError::Damaged { path } };
    let more = match suspects(found).count() {
        1 => String::new(),
        several => format!(", and {} more", several.saturating_sub(1)),
    };
    MetaError::DamagedPages { path, met: format!("{}{more}", first.damage) }
}

/// What may be found by rows that nobody wrote.
fn suspects(found: &CheckReport) -> impl Iterator<Item = &Finding> {
    found.findings.iter().filter(|finding| finding.damage.may_be_of_rows())
}

/// Whether every page of the database is verified before anything is looked at.
fn verifies_database(options: &CheckOptions<'_>) -> bool {
    options.level == CheckLevel::Deep && options.layer.is_none() && options.image.is_none()
}

/// Drops what is missing here and in another store that this one reads.
fn forget_what_is_elsewhere(store: &Store, damages: &mut Vec<Damage>) -> Result<(), Error> {
    if store.separate_images().is_none() && store.image_stores().is_empty() {
        return Ok(());
    }
    moment::pass("own rows read");
    forget_what_is_there(store, damages)
}

/// Drops what is missing in some rows, and is in others that the store reads.
fn forget_what_is_there(store: &Store, damages: &mut Vec<Damage>) -> Result<(), Error> {
    let view = store.begin_read()?;
    let mut missing = Vec::with_capacity(damages.len());
    for damage in damages.drain(..) {
        let elsewhere = match &damage {
            Damage::ParentMissing { parent: layer, .. } | Damage::ImageLayerMissing { layer, .. } => {
                view.layer(layer)?.is_some()
            }
            Damage::ContainerImageMissing { image, .. } => view.image(image)?.is_some(),
            _ => false,
        };
        if !elsewhere {
            missing.push(damage);
        }
    }
    // What was missed went perhaps together with what it was missed by, after the own rows were read.
    let view = store.begin_read()?;
    for damage in missing {
        let is_missed = match &damage {
            Damage::ParentMissing { layer, .. } => view.layer(layer)?.is_some(),
            Damage::ImageLayerMissing { image, .. } => view.image(image)?.is_some(),
            Damage::ContainerImageMissing { container, .. } => view.container(container)?.is_some(),
            _ => true,
        };
        if is_missed {
            damages.push(damage);
        }
    }
    Ok(())
}

/// An error with its causes, in one line. Some send their reader to a check, which this is.
fn chain(error: &dyn std::error::Error) -> String {
    let without_advice =
        |text: String| text.split("; run `layerstore check").next().map(str::to_owned).unwrap_or(text);
    let mut text = without_advice(error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = without_advice(cause.to_string());
        // Some errors repeat what their cause says.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Whether containers-storage makes what has this name.
fn is_neighbour(path: &Path) -> bool {
    path.file_name().is_some_and(|name| disk::is_of_containers_storage(name.as_bytes()))
}
