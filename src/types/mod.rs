//! Values with rules: what has one of these types has been checked.

mod budget;
mod digest;
mod hashing;
mod id;
mod id_set;
pub(crate) mod keys;
mod limits;
mod relpath;
mod stored;

pub(crate) use budget::Budget;
pub use digest::{Algorithm, ChainId, DiffId, Digest, Hasher};
pub(crate) use hashing::Hashing;
pub(crate) use id::check_id;
pub use id::{ContainerId, ImageId, LayerId, LeaseId, Name};
pub(crate) use id_set::IdSet;
pub use layerstore_schema::manifest::{ContentHash, Metadata, Timestamp, TreeDigest};
pub use limits::Limits;
pub use relpath::RelPath;
pub(crate) use stored::{stored, stored_list, stored_own};
