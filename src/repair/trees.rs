//! Sealed directories and their manifests.
//!
//! A directory is never changed in place. Mounts have it as a lowerdir, exports read it, and a repair that dies halfway
//! would leave something that is neither. So a new directory is made, proven to have the digest that the tree is known
//! by, and brought to the disk; then one transaction puts it in the old one's place.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;

use layerstore_schema::manifest::{Kind, Manifest, digest_of_encoded};
use layerstore_schema::record::{DiffRecord, LayerContent};

use super::assemble::{Contents, assemble};
use super::{Mended, Repair};
use crate::check::{self, Casualty, Place, SealedTree, equal_files};
use crate::disk::{self, Claim, DiffName, Filled, LockState, Staging, Subdirectory};
use crate::error::{Error, RepairError, is_denied};
use crate::layer::SealedLayer;
use crate::meta::{BlobKind, PreparedBlob, Query, ReadTxn, Records, Unused, WriteTxn, read_blob};
use crate::store::{Loss, Mounts};
use crate::types::{ContentHash, TreeDigest};

/// A directory that takes another's place.
struct Replacement {
    /// The new directory; `None` if the old one is good.
    directory: Option<Filled>,
    record: DiffRecord,
    manifest: PreparedBlob,
}

/// What came of a look for a directory that has lost its row.
pub(super) struct Search<C> {
    /// A claim on it, its number, and its manifest.
    pub(super) found: Option<(C, u64, Manifest)>,
    /// Why one could not be read, if none was found: that may be it.
    pub(super) refused: Option<Error>,
}

impl Repair<'_> {
    /// Mends a sealed directory, its row, or its manifest.
    pub(super) fn tree(&mut self, tree: &[u8; 32]) -> Result<Mended, Error> {
        let digest = TreeDigest(*tree);
        let txn = self.store.database().begin_read()?;
        let old = txn.diff(&digest).ok().flatten();
        let manifest = old.as_ref().and_then(|old| good_manifest(&txn, &digest, old));
        drop(txn);
        let (found, refused) = match old.as_ref().map(|old| self.scan(old.number)) {
            Some(Ok(found)) => (Some(found), None),
            Some(Err(error)) => (None, Some(error).filter(|error| is_denied(error))),
            None => (None, None),
        };
        let is_shared = old.as_ref().is_some_and(|old| self.is_shared(old.number));
        if let (Some(old), Some(found), false) = (&old, &found, is_shared) {
            if found.digest() == digest && manifest.is_some() {
                return Ok(None);
            }
            if found.digest() == digest {
                let replacement = replacement(None, found, old.clone());
                self.replace(&digest, Some(old), replacement)?;
                return Ok(Some((
                    "rebuild-manifest",
                    "made its manifest again from its directory".to_owned(),
                )));
            }
        }
        if let (Some(manifest), Some(found)) = (&manifest, &found) {
            let sealed = SealedTree { digest, layers: self.layers_of(tree) };
            if check::is_of_other_side(&sealed, manifest, found) {
                return Err(RepairError::OtherSide { tree: digest.to_string() }.into());
            }
        }
        let mut missing = refused;
        if old.is_none() {
            let search = self.find_unnamed(&digest)?;
            missing = search.refused;
            if let Some((claim, number, found)) = search.found {
                let usage = disk::usage(self.store.open_diff(number)?.as_fd())?;
                let replacement = replacement(None, &found, record_of(number, &found, usage));
                self.replace(&digest, None, replacement)?;
                drop(claim);
                return Ok(Some(("rebuild-manifest", format!("found its directory again: diffs/{number}"))));
            }
        }
        if let Some(manifest) = &manifest {
            match self.assemble(manifest, old.as_ref(), None) {
                Ok(staging) => {
                    self.take_over(&digest, old.as_ref(), staging, manifest)?;
                    let what =
                        "made its directory again from the files that are good, and equal ones".to_owned();
                    return Ok(Some(("restore-file", what)));
                }
                Err(error @ Error::Repair(RepairError::NoContent { .. } | RepairError::Withheld { .. })) => {
                    missing = Some(error)
                }
                Err(error) => return Err(error),
            }
        }
        self.unpack_tree(&digest, old.as_ref(), manifest.as_ref(), missing)
    }

    /// Makes a directory again from a blob of one of its layers.
    fn unpack_tree(
        &mut self,
        digest: &TreeDigest,
        old: Option<&DiffRecord>,
        manifest: Option<&Manifest>,
        mut failed: Option<Error>,
    ) -> Result<Mended, Error> {
        // Another user may find there what was lost, whatever else fails here.
        let refused = failed.take_if(|error| is_denied(error));
        let mut tried = false;
        for layer in self.layers_of(&digest.0) {
            for offer in self.supplies.blobs_of_layer(&layer, self.records.layers.get(&layer)) {
                tried = true;
                let sealed = match self.unpack(&layer, &offer) {
                    Ok(sealed) => sealed,
                    Err(error) => {
                        failed = Some(error);
                        continue;
                    }
                };
                let what = format!("unpacked it again from {}", offer.name());
                if sealed.content.tree == *digest {
                    let SealedLayer { directory, content, .. } = sealed;
                    let record = record_of(directory.number(), &content.manifest, content.usage);
                    self.replace(digest, old, replacement(Some(directory), &content.manifest, record))?;
                    return Ok(Some(("unpack-layer", what)));
                }
                // Other metadata, and yet the same contents: enough for whoever has the manifest.
                let Some(manifest) = manifest else {
                    let (tree, found) = (digest.to_string(), sealed.content.tree.to_string());
                    failed = Some(RepairError::TreeDiffers { tree, found }.into());
                    continue;
                };
                match self.assemble(manifest, old, Some(&sealed)) {
                    Ok(staging) => {
                        self.take_over(digest, old, staging, manifest)?;
                        return Ok(Some(("unpack-layer", what)));
                    }
                    Err(error) => failed = Some(error),
                }
            }
        }
        match refused.or(failed) {
            // Nothing was there to try: the check says what is needed.
            Some(error) if tried || is_denied(&error) => Err(error),
            _ => self.forget_copies(&self.layers_of(&digest.0)),
        }
    }

    /// Looks for a directory that no row names, and that has the digest. Nobody collects it while it is claimed.
    fn find_unnamed(&self, digest: &TreeDigest) -> Result<Search<Claim>, Error> {
        let claimed = |number| {
            let claim = Claim::take(self.store.layout(), number)?;
            // Garbage goes at once or not at all, so what still stands there is what was scanned.
            Ok(claim.filter(|_| self.store.open_diff(number).is_ok()))
        };
        self.find_unclaimed(digest, claimed)
    }

    /// Looks for a directory that no row names, that has the digest, and that can be claimed.
    pub(super) fn find_unclaimed<C>(
        &self,
        digest: &TreeDigest,
        claim: impl Fn(u64) -> Result<Option<C>, Error>,
    ) -> Result<Search<C>, Error> {
        let mut search = Search { found: None, refused: None };
        // It could be the one that a container writes to.
        if !self.records.are_readable(&["layer"]) {
            return Ok(search);
        }
        for name in self.store.layout().entries(Subdirectory::Diffs)? {
            let DiffName::Entry(number) = name else { continue };
            if self.records.names_directory(number)
                || disk::lock_state(self.store.layout(), number)? == LockState::Held
            {
                continue;
            }
            // It is claimed when it is known to be the one: a claim that dies makes it garbage for the next writer.
            match self.scan(number) {
                Ok(found) if found.digest() == *digest => {
                    if let Some(claim) = claim(number)? {
                        return Ok(Search { found: Some((claim, number, found)), refused: None });
                    }
                }
                Err(error) if is_denied(&error) => search.refused = Some(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(search)
    }

    /// The manifest of what a directory holds now.
    fn scan(&self, number: u64) -> Result<Manifest, Error> {
        let root = self.store.open_diff(number)?;
        Ok(disk::scan(root.as_fd(), &HashMap::new(), self.store.layout().xattrs())?)
    }

    /// Whether another row names the directory too.
    fn is_shared(&self, number: u64) -> bool {
        let sealed = self.records.diffs.values().filter(|diff| diff.number == number);
        let content = LayerContent::Writable(number);
        let written = self.records.layers.values().filter(|layer| layer.content == content);
        sealed.map(drop).chain(written.map(drop)).nth(1).is_some()
    }

    /// Makes a new directory from a manifest, and whatever has its contents.
    fn assemble(
        &self,
        manifest: &Manifest,
        old: Option<&DiffRecord>,
        unpacked: Option<&SealedLayer>,
    ) -> Result<Staging, Error> {
        let wanted: BTreeSet<ContentHash> = contents_of(manifest).map(|(content, _)| content).collect();
        let txn = self.store.database().begin_read()?;
        let mut places = equal_files(self.store, &txn, &self.records, &wanted);
        drop(txn);
        if let Some(sealed) = unpacked {
            for (content, path) in contents_of(&sealed.content.manifest) {
                let place = Place { number: sealed.directory.number(), path: path.to_vec() };
                places.entry(content).or_default().push(place);
            }
        }
        let old = old.map(|old| old.number);
        let numbers: BTreeSet<u64> = places.values().flatten().map(|place| place.number).chain(old).collect();
        let open = |number| Some((number, self.store.open_diff(number).ok()?));
        let directories = numbers.into_iter().filter_map(open).collect();
        let contents = Contents { directories, old, places: &places };
        let staging = Staging::create(&self.stage()?, self.store.fresh_number()?)?;
        let found = assemble(&staging, manifest, &contents, &self.store.import_options().unpack)?;
        let (tree, found) = (manifest.digest(), found.digest());
        if tree != found {
            return Err(RepairError::TreeDiffers { tree: tree.to_string(), found: found.to_string() }.into());
        }
        Ok(staging)
    }

    fn take_over(
        &self,
        digest: &TreeDigest,
        old: Option<&DiffRecord>,
        staging: Staging,
        manifest: &Manifest,
    ) -> Result<(), Error> {
        let record = record_of(staging.number(), manifest, disk::usage(staging.directory())?);
        self.replace(digest, old, replacement(Some(staging.filled()), manifest, record))
    }

    /// Puts a directory in the place of another, if that is still the one that was looked at and no layer of it is
    /// mounted.
    fn replace(&self, digest: &TreeDigest, old: Option<&DiffRecord>, new: Replacement) -> Result<(), Error> {
        self.store.sync_filesystem()?;
        let moves = new.directory.is_some();
        let written = self.store.write_mending(Mounts::Wait, |txn| {
            let now = txn.diff(digest).ok().flatten();
            if now.map(|now| now.number) != old.map(|old| old.number) {
                return Err(RepairError::Changed { thing: format!("the tree {digest}") }.into());
            }
            if moves {
                self.refuse_mounted(txn, &digest.0)?;
            } else if old.is_none() && Records::read(txn)?.names(new.record.number) {
                return Err(RepairError::Changed { thing: format!("diffs/{}", new.record.number) }.into());
            }
            txn.replace_diff(digest, &new.record, &new.manifest)?;
            let mut freed = txn.normalize(Unused::Keep)?;
            freed.diffs.extend(old.map(|old| old.number).filter(|_| moves));
            Ok((freed, ()))
        });
        self.settle(new.directory, &written);
        written
    }

    /// Lets go of a new directory or blob: it stays if a row names it.
    pub(super) fn settle<T>(&self, filled: Option<Filled>, written: &Result<T, Error>) {
        let Some(filled) = filled else { return };
        let stays = match written {
            Ok(_) => true,
            // The row may be there: the database knows, unless it cannot be read.
            Err(error) if error.is_outcome_unknown() => {
                let records = self.store.database().begin_verified_read().and_then(|txn| Records::read(&txn));
                records.map_or(true, |records| records.names(filled.number()))
            }
            Err(_) => false,
        };
        if stays {
            filled.keep();
        }
    }

    /// Fails if a layer that has the tree, or one above it, is mounted: the kernel reads the old directory then.
    fn refuse_mounted(&self, txn: &WriteTxn, tree: &[u8; 32]) -> Result<(), Error> {
        let records = Records::read(txn)?;
        self.store.refuse_mounted_of(
            &records,
            &check::doomed(&records, [Casualty::Tree(*tree)]),
            Loss::Directory,
        )
    }
}

/// The manifest of a tree, if it can be read and is the one.
fn good_manifest(txn: &ReadTxn, digest: &TreeDigest, record: &DiffRecord) -> Option<Manifest> {
    let bytes = read_blob(txn, &record.manifest, BlobKind::Manifest).ok()?;
    if digest_of_encoded(&bytes) != *digest {
        return None;
    }
    Manifest::decode(&bytes).ok()
}

fn contents_of(manifest: &Manifest) -> impl Iterator<Item = (ContentHash, &[u8])> {
    manifest.entries().iter().filter_map(|entry| match entry.kind {
        Kind::File { content, .. } => Some((content, entry.path.as_slice())),
        _ => None,
    })
}

/// The row of a directory. The manifest's hash is filled in with its bytes.
pub(super) fn record_of(number: u64, manifest: &Manifest, usage: disk::Usage) -> DiffRecord {
    DiffRecord {
        number,
        content_bytes: manifest.content_bytes(),
        disk_bytes: usage.allocated,
        inodes: usage.inodes,
        manifest: [0; 32],
    }
}

fn replacement(directory: Option<Filled>, manifest: &Manifest, record: DiffRecord) -> Replacement {
    Replacement { directory, record, manifest: PreparedBlob::from_bytes(&manifest.encode()) }
}
