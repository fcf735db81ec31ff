//! From a snapshot that is written to, to one that others stand on.

use super::record;
use super::{CommitOptions, Kind, Snapshotter, exists, failed, failed_above};
use crate::error::{Error, MetaError, SnapshotError};
use crate::store::SealOptions;
use crate::sys::moment;

impl Snapshotter {
    /// Makes a committed snapshot of an active one, whose key is free then. All its files are read, for their digests, and brought to
    /// the disk as far as [`SyncMode`](crate::SyncMode) says. One that was prepared above nothing can be moved onto a parent.
    ///
    /// Returns [`SnapshotError::AlreadyExists`] if the name is taken, [`SnapshotError::NotFound`] if there is no snapshot with this
    /// key, or no such parent, [`SnapshotError::FailedPrecondition`] if it is not active, or the parent not committed, and
    /// [`SnapshotError::InvalidArgument`] if it has another parent. Returns [`SnapshotError::Store`] if its files cannot be read; with
    /// [`VolatileLeft`](crate::MountError::VolatileLeft) if it was mounted without syncs when the machine went down; and with
    /// [`Busy`](crate::InUseError::Busy), whose code is [`Unavailable`](super::Code::Unavailable), while somebody else seals or fills it.
    pub fn commit(&self, name: &str, key: &str, options: &CommitOptions) -> Result<(), SnapshotError> {
        let new = record::name_of(name)?;
        if self.lookup(name)?.is_some() {
            return Err(exists(name));
        }
        let record = self.find(key)?;
        let precondition = |key: &str, reason: &str| SnapshotError::FailedPrecondition {
            key: key.to_owned(),
            reason: reason.to_owned(),
        };
        if record.info.kind != Kind::Active {
            return Err(precondition(key, "is not active"));
        }
        let mut moved_onto = None;
        if let Some(wanted) = options.parent.as_deref().filter(|parent| !parent.is_empty()) {
            let below = self.find(wanted)?;
            if below.info.kind != Kind::Committed {
                return Err(precondition(wanted, "is not committed, and nothing can stand on it"));
            }
            match &record.parent {
                None => moved_onto = Some(below),
                Some(held) if *held == below.layer => {}
                Some(_) => {
                    return Err(SnapshotError::InvalidArgument {
                        what: "the parent",
                        value: wanted.to_owned(),
                        reason: format!("the snapshot {key:?} was prepared above another one"),
                    });
                }
            }
        }
        let seal = SealOptions {
            names: None,
            labels: Some(record::labels(&options.labels)),
            flags: record::flags(Kind::Committed),
            parent: moved_onto.as_ref().map(|below| below.layer.clone()),
            read_only: true,
            // What else it is called was given by others, perhaps just now.
            renamed: Some((record::name_of(key)?.as_str().to_owned(), new.as_str().to_owned())),
        };
        moment::pass("snapshot found");
        match self.store.seal_with(&record.layer, &seal) {
            Ok(_) => Ok(()),
            Err(Error::Meta(MetaError::NameInUse { .. })) => Err(exists(name)),
            Err(Error::InUse(error)) => {
                // By another commit of it, which may be done.
                self.find(key)?;
                Err(failed(error.into(), key))
            }
            Err(error) => Err(failed_above(error, key, moved_onto.as_ref())),
        }
    }
}
