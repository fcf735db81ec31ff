//! Which records are those of their rows: the one place that decides, for a check as for everybody else. What is found under a key
//! says so itself, and the key is an id; so whoever follows an id gets where it says, and nowhere by a path.
//!
//! Nothing else of a record is looked at here. A name or a digest that is none is refused by who makes a value of it, which everything
//! that leads to a path is made of; and a repair needs the rest of such a record. A row of the journal has no rest.

use std::fmt::Display;

use layerstore_schema::record::{
    BlobRecord, ContainerRecord, DiffRecord, ImageRecord, ItemRecord, JournalRecord, KeptBlobRecord,
    LayerRecord, LeaseRecord, MountRecord, Record, RecordError,
};
use layerstore_schema::table::{self, Owner};

use crate::types::{Digest, Name, TreeDigest, check_id};

/// A record as a row holds it.
pub(super) trait Stored: Record {
    /// What the key of the row says of it.
    type Key: Display + ?Sized;

    /// Says what keeps it from being the record of a row with this key.
    fn check(&self, _key: &Self::Key) -> Result<(), String> {
        Ok(())
    }
}

/// Decodes the record of a row.
///
/// Returns [`RecordError`] if the bytes are none, or those of another row's.
pub(super) fn decode<R: Stored>(bytes: &[u8], kind: &'static str, key: &R::Key) -> Result<R, RecordError> {
    let record = R::decode(bytes)?;
    record.check(key).map_err(|reason| RecordError { kind, reason })?;
    Ok(record)
}

macro_rules! with_id {
    ($($record:ident),+) => {
        $(impl Stored for $record {
            type Key = str;

            fn check(&self, key: &str) -> Result<(), String> {
                if self.id != key {
                    return Err(format!("it says that it is the record of {:?}", self.id));
                }
                is_id(key)
            }
        })+
    };
}

with_id!(LayerRecord, ImageRecord, ContainerRecord, LeaseRecord);

/// The key is the id of the layer.
impl Stored for MountRecord {
    type Key = str;

    fn check(&self, layer: &str) -> Result<(), String> {
        is_id(layer)
    }
}

fn is_id(key: &str) -> Result<(), String> {
    check_id(key).map_err(|error| error.to_string())
}

impl Stored for DiffRecord {
    type Key = TreeDigest;
}

impl Stored for BlobRecord {
    type Key = blake3::Hash;
}

impl Stored for ItemRecord {
    type Key = str;
}

impl Stored for KeptBlobRecord {
    type Key = str;
}

impl Stored for JournalRecord {
    type Key = u64;

    /// What it is about may be gone, and is a thing or a blob all the same. Of kinds that this build does not know nothing is said.
    fn check(&self, _number: &u64) -> Result<(), String> {
        match (Owner::from_code(self.owner), self.owner) {
            (Some(_), _) => is_id(&self.id)?,
            (None, table::JOURNAL_BLOB) => {
                drop(self.id.parse::<Digest>().map_err(|error| error.to_string())?)
            }
            (None, _) => {}
        }
        self.names
            .iter()
            .try_for_each(|name| name.parse::<Name>().map(drop))
            .map_err(|error| error.to_string())
    }
}
