//! Leases: things that may not be removed before a time.
//!
//! A lease belongs to nobody's process. It ends when its time is over, by this machine's clock, or when someone ends it.
//! From then on a layer that nothing else needs is garbage.

use std::collections::BTreeSet;
use std::time::Duration;

use layerstore_schema::record::{LayerRecord, LeaseRecord, RecordError};
use layerstore_schema::table::Owner;

use crate::error::{Error, InUseError, LookupError, MetaError};
use crate::meta::{Freed, Query, ReadTxn};
use crate::types::{LayerId, LeaseId, Timestamp, stored};

use super::mount::patiently;
use super::remove::{EVERYTHING, Mounts};
use super::users::{Gone, unneeded};
use super::{Store, ThingId};

/// Things that are kept for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lease {
    /// The id.
    pub id: LeaseId,
    /// What may not be removed.
    pub things: Vec<ThingId>,
    /// When it was made or last renewed.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl Lease {
    /// Whether its time is over.
    pub fn is_expired(&self) -> bool {
        self.expires <= Timestamp::now()
    }

    /// Reads a record.
    ///
    /// Returns [`MetaError::Record`] if an id in it is none.
    pub(crate) fn from_record(record: LeaseRecord) -> Result<Self, MetaError> {
        let key = record.id.as_str();
        let thing = |(code, id): &(u8, String)| match Owner::from_code(*code) {
            Some(Owner::Layer) => Ok(ThingId::Layer(stored("lease", key, id)?)),
            Some(Owner::Image) => Ok(ThingId::Image(stored("lease", key, id)?)),
            Some(Owner::Container) => Ok(ThingId::Container(stored("lease", key, id)?)),
            None => {
                let source = RecordError { kind: "lease", reason: format!("there is no kind {code}") };
                Err(MetaError::Record { kind: "lease", key: key.to_owned(), source })
            }
        };
        Ok(Lease {
            id: stored("lease", key, key)?,
            things: record.things.iter().map(thing).collect::<Result<_, _>>()?,
            created: record.created.into(),
            expires: record.expires.into(),
        })
    }
}

impl Store {
    /// Keeps a thing from being removed for a while: until then, removing it fails, and removing an image leaves a layer
    /// of it that is leased, with all below. A container stays while its layer is leased. Useful for a long export beside
    /// others that remove.
    ///
    /// A lease of this id that is there already gets the thing too, and ends `duration` from now: so this also renews.
    ///
    /// Returns [`Error::Lookup`] if the thing is not there.
    ///
    /// # Examples
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// use layerstore::{ContainerOptions, Error, InUseError, Store, StoreOptions};
    ///
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")))?;
    /// let web = store.create_container(None, &ContainerOptions::named("web"))?;
    /// let lease = store.lease(&"backup".parse()?, &web, Duration::from_secs(600))?;
    /// let refused = store.remove_container(&web.id);
    /// assert!(matches!(refused, Err(Error::InUse(InUseError::Leased { .. }))));
    /// store.end_lease(&lease.id)?;
    /// store.remove_container(&web.id)?;
    /// # Ok::<(), Error>(())
    /// ```
    pub fn lease(&self, id: &LeaseId, what: impl Into<ThingId>, duration: Duration) -> Result<Lease, Error> {
        let what = what.into();
        if let Some(images) = self.separate_images()
            && images.has(&what)?
        {
            return images.lease(id, what, duration);
        }
        self.begin_writing()?;
        let record = self.database().write::<_, Error>(|txn| {
            let there = match &what {
                ThingId::Layer(id) => txn.layer(id.as_str())?.is_some(),
                ThingId::Image(id) => txn.image(id.as_str())?.is_some(),
                ThingId::Container(id) => txn.container(id.as_str())?.is_some(),
            };
            if !there {
                let (kind, key) = (what.kind().word(), what.as_str().to_owned());
                return Err(LookupError::NotFound { kind, key }.into());
            }
            let thing = (what.owner().code(), what.as_str().to_owned());
            let mut things = txn.lease(id.as_str())?.map(|lease| lease.things).unwrap_or_default();
            if !things.contains(&thing) {
                things.push(thing);
            }
            let record = new_record(id.as_str(), things, duration);
            txn.put_lease(&record)?;
            Ok(record)
        })?;
        Ok(Lease::from_record(record)?)
    }

    /// All leases, by id, with those that have expired and wait for a collection.
    ///
    /// Returns [`Error::Meta`] if the database fails.
    pub fn leases(&self) -> Result<Vec<Lease>, Error> {
        let records = self.database().begin_read()?.leases()?;
        let own = records.into_iter().map(Lease::from_record);
        let of_images = self.separate_images().map(Store::leases).transpose()?.unwrap_or_default();
        Ok(own.chain(of_images.into_iter().map(Ok)).collect::<Result<_, _>>()?)
    }

    /// Ends a lease, and removes each layer of it that nothing else needs, with those below that are needed no more.
    /// Returns the ids of the removed layers.
    ///
    /// Returns [`Error::Lookup`] if there is no such lease, and [`Error::InUse`] if a layer to be removed is mounted.
    pub fn end_lease(&self, id: &LeaseId) -> Result<Vec<LayerId>, Error> {
        if let Some(images) = self.separate_images()
            && images.database().begin_read()?.lease(id.as_str())?.is_some()
        {
            self.begin_writing()?;
            return patiently(|| self.hold_users(|| images.end_lease_used_by(id, Some(self))));
        }
        patiently(|| self.end_lease_used_by(id, None))
    }

    /// Ends a lease of this store; `user` is the store whose things stand on layers here.
    fn end_lease_used_by(&self, id: &LeaseId, user: Option<&Store>) -> Result<Vec<LayerId>, Error> {
        let removed = self.end_leases(EVERYTHING, user, |lease| lease.id == id.as_str())?;
        if removed.leases.is_empty() {
            return Err(LookupError::NoLease { id: id.to_string() }.into());
        }
        Ok(removed.layers.iter().map(|layer| layer.parse()).collect::<Result<_, _>>()?)
    }

    /// Ends the leases that are over, as [`end_lease`](Self::end_lease) does. One with a layer that is mounted stays.
    pub(crate) fn end_expired_leases(&self, limit: u64, user: Option<&Store>) -> Result<EndedLeases, Error> {
        let now = Timestamp::now();
        if !self.database().begin_read()?.leases()?.iter().any(|lease| is_over(lease, now)) {
            return Ok(EndedLeases::default());
        }
        let end = || self.end_leases_that_are_over(limit, user, now);
        match user {
            Some(user) => user.hold_users(end),
            None => end(),
        }
    }

    fn end_leases_that_are_over(
        &self,
        limit: u64,
        user: Option<&Store>,
        now: Timestamp,
    ) -> Result<EndedLeases, Error> {
        let txn = self.database().begin_read()?;
        let mut over = BTreeSet::new();
        self.run()?.hold::<_, Error>(|| {
            for lease in txn.leases()?.into_iter().filter(|lease| is_over(lease, now)) {
                let layers = self.unneeded_of(&txn, &lease, &mut Gone::default())?;
                if is_unmounted(&layers, [Some(self), user], |store, layer| {
                    store.refuse_mounted(layer, String::new)
                })? {
                    over.insert(lease.id);
                }
            }
            Ok(())
        })?;
        drop(txn);
        if over.is_empty() {
            return Ok(EndedLeases::default());
        }
        self.end_leases(limit, user, |lease| over.contains(&lease.id) && is_over(lease, now))
    }

    fn end_leases(
        &self,
        limit: u64,
        user: Option<&Store>,
        which: impl Fn(&LeaseRecord) -> bool,
    ) -> Result<EndedLeases, Error> {
        let is_done = |txn: &ReadTxn| Ok(!txn.leases()?.iter().any(&which));
        self.write_removing(Mounts::Wait, limit, is_done, |txn| {
            let (mut freed, mut ended) = (Freed::default(), EndedLeases::default());
            let beside = self.rows_beside(user)?;
            for lease in txn.leases()?.into_iter().filter(&which) {
                txn.remove_lease(&lease.id)?;
                for (_, layer) in lease.things.iter().filter(|(code, _)| *code == Owner::Layer.code()) {
                    self.remove_unneeded(txn, layer, (&beside, user), &mut freed, &mut ended.layers)?;
                }
                ended.leases.push(lease.id);
            }
            Ok((freed, ended))
        })
    }

    /// The layers that would go with a lease, without those in `gone`, which gets them.
    pub(crate) fn unneeded_of(
        &self,
        txn: &impl Query,
        lease: &LeaseRecord,
        gone: &mut Gone,
    ) -> Result<Vec<LayerRecord>, Error> {
        let mut found = Vec::new();
        for (_, layer) in lease.things.iter().filter(|(code, _)| *code == Owner::Layer.code()) {
            found.extend(unneeded(txn, layer, gone)?);
        }
        Ok(found)
    }
}

/// Whether `refuse` refuses none of these layers, with none of the stores, for a mount.
pub(crate) fn is_unmounted(
    layers: &[LayerRecord],
    stores: [Option<&Store>; 2],
    refuse: impl Fn(&Store, &str) -> Result<(), Error>,
) -> Result<bool, Error> {
    for store in stores.into_iter().flatten() {
        for layer in layers {
            match refuse(store, &layer.id) {
                Err(Error::InUse(_)) => return Ok(false),
                found => found?,
            }
        }
    }
    Ok(true)
}

/// What ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct EndedLeases {
    /// The leases.
    pub(crate) leases: Vec<String>,
    /// The layers that went with them.
    pub(crate) layers: Vec<String>,
}

/// Whether a lease has expired.
pub(crate) fn is_over(lease: &LeaseRecord, now: Timestamp) -> bool {
    Timestamp::from(lease.expires) <= now
}

/// A lease that ends `duration` from now.
pub(super) fn new_record(id: &str, things: Vec<(u8, String)>, duration: Duration) -> LeaseRecord {
    let now = Timestamp::now();
    let whole = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let nanoseconds = now.nanoseconds.saturating_add(duration.subsec_nanos());
    let seconds = now.seconds.saturating_add(whole).saturating_add(i64::from(nanoseconds / 1_000_000_000));
    let expires = Timestamp { seconds, nanoseconds: nanoseconds % 1_000_000_000 };
    LeaseRecord { id: id.to_owned(), things, created: now.into(), expires: expires.into() }
}

/// Why things cannot be removed, if a lease keeps one of them.
pub(super) fn keeper_of(txn: &impl Query, things: &[(Owner, &str)]) -> Result<Option<InUseError>, MetaError> {
    let now = Timestamp::now();
    let kept = |lease: LeaseRecord| {
        let is_named = |(owner, id): &&(Owner, &str)| {
            lease.things.iter().any(|(code, thing)| (*code, thing.as_str()) == (owner.code(), *id))
        };
        let thing = things.iter().find(is_named).filter(|_| !is_over(&lease, now))?;
        Some((*thing, lease))
    };
    let kept = txn.leases()?.into_iter().find_map(kept);
    Ok(kept.map(|((owner, id), lease)| {
        let nanoseconds = i32::try_from(lease.expires.nanoseconds).unwrap_or_default();
        let time = jiff::Timestamp::new(lease.expires.seconds, nanoseconds).unwrap_or(jiff::Timestamp::MAX);
        let what = format!("the {} {id}", owner.word());
        InUseError::Leased { what, lease: lease.id, expires: time.to_string() }
    }))
}
