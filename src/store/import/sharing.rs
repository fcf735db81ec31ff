//! Files that layers bring and the store has already: before the layers are on record, they are made to share their extents.
//!
//! Which files these are the manifests say, of the new layers and of those that are there. They are gone through one at a time,
//! so what is kept in memory is as large as the manifests of the new layers. What cannot be shared stays as it was written.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use layerstore_schema::manifest::{ContentHash, Kind, Manifest};

use crate::disk::{self, LEAST_SHARED};
use crate::error::{Error, MetaError};
use crate::layer::SealedLayer;
use crate::meta::Query;
use crate::store::Store;
use crate::sys::beneath;
use crate::timing::{self, Stage};

/// A file of a new layer.
struct Place<'m> {
    /// The number of its directory.
    number: u64,
    path: &'m [u8],
}

/// The files of new layers that share nothing yet, by their contents.
struct Wanted<'m> {
    store: &'m Store,
    places: HashMap<ContentHash, (u64, Vec<Place<'m>>)>,
    /// The bytes that are shared.
    shared: u64,
}

impl Store {
    /// Lets files of layers that are sealed and not on record yet share their extents with equal ones, if that is wanted and
    /// the filesystem can. What fails costs space alone.
    pub(in crate::store) fn share_new<'m>(&self, layers: impl IntoIterator<Item = &'m SealedLayer>) {
        if !self.options().dedup_at_import {
            return;
        }
        let mut wanted = Wanted { store: self, places: HashMap::new(), shared: 0 };
        layers.into_iter().for_each(|layer| wanted.add(layer.directory.number(), &layer.content.manifest));
        timing::spanned(Stage::Share, || match wanted.share() {
            Ok(()) => tracing::debug!(bytes = wanted.shared, "shared with what is there"),
            Err(error) => {
                tracing::warn!(%error, bytes = wanted.shared, "not all equal files share their space")
            }
        });
    }
}

impl<'m> Wanted<'m> {
    fn add(&mut self, number: u64, manifest: &'m Manifest) {
        for (path, size, content) in files(manifest) {
            let (_, places) = self.places.entry(content).or_insert((size, Vec::new()));
            places.push(Place { number, path });
        }
    }

    fn share(&mut self) -> Result<(), Error> {
        let trial = || disk::can_share(&self.store.spool()?, &self.store.spool()?);
        // On a full disk there may be no room for the trial.
        if self.places.is_empty() || !trial().unwrap_or(false) {
            return Ok(());
        }
        let mut trees = self.store.database().begin_read()?.diffs()?;
        // What came last is what is most likely to be loaded in a new version.
        trees.sort_unstable_by_key(|(_, record)| std::cmp::Reverse(record.number));
        for (tree, record) in trees {
            if self.places.is_empty() {
                return Ok(());
            }
            // A snapshot that is kept would make the database grow.
            let txn = self.store.database().begin_read()?;
            let manifest = match self.store.manifest(&txn, &tree) {
                // Its layer was removed meanwhile.
                Err(MetaError::Missing { .. }) => continue,
                manifest => manifest?,
            };
            drop(txn);
            let mut root = None;
            for (path, _, content) in files(&manifest) {
                let Some((size, places)) = self.places.get(&content) else { continue };
                let Ok(root) = root.get_or_insert_with(|| self.store.open_diff(record.number)) else { break };
                let Ok(from) = beneath::open_sealed_file_beneath(root.as_fd(), path) else { continue };
                let shared = share_with(self.store, &from, *size, places);
                if shared > 0 {
                    self.shared = self.shared.saturating_add(shared);
                    self.places.remove(&content);
                }
            }
        }
        self.share_among_themselves();
        Ok(())
    }

    /// What no other layer has may stand in the new ones more than once.
    fn share_among_themselves(&mut self) {
        for (size, places) in self.places.values() {
            let Some((first, rest)) = places.split_first().filter(|(_, rest)| !rest.is_empty()) else {
                continue;
            };
            let Ok(from) = open(self.store, first) else { continue };
            self.shared = self.shared.saturating_add(share_with(self.store, &from, *size, rest));
        }
    }
}

/// Lets files share the extents of another, and returns how many bytes do. The kernel compares them, so a file that was
/// damaged on the disk gives nothing away.
fn share_with(store: &Store, from: &OwnedFd, size: u64, places: &[Place<'_>]) -> u64 {
    let mut shared = 0u64;
    for place in places {
        match open(store, place).and_then(|to| disk::share_extents(from.as_fd(), to.as_fd(), size)) {
            Ok(sharing) => shared = shared.saturating_add(sharing.shared),
            Err(error) => {
                let path = String::from_utf8_lossy(place.path);
                tracing::debug!(%path, %error, "shares nothing");
            }
        }
    }
    shared
}

fn open(store: &Store, place: &Place<'_>) -> io::Result<OwnedFd> {
    let root = store.open_diff(place.number).map_err(io::Error::other)?;
    beneath::open_sealed_file_beneath(root.as_fd(), place.path)
}

/// The files that are worth it, each inode once: path, length and content.
fn files(manifest: &Manifest) -> impl Iterator<Item = (&[u8], u64, ContentHash)> {
    manifest.entries().iter().filter_map(|entry| match entry.kind {
        Kind::File { size, content } if size >= LEAST_SHARED => Some((entry.path.as_slice(), size, content)),
        _ => None,
    })
}
