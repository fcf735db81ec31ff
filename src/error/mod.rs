//! Every error of the crate: one enum for each domain, one [`Error`] over them all.
//!
//! Each message names the thing and the cause, in lower case and without a full stop; `source()` leads to
//! the cause below. This module names no other module of the crate: things appear as text and paths.

mod additional;
mod archive;
mod chunked;
mod config;
mod denied;
mod disk;
mod import;
mod limit;
mod lookup;
mod meta;
mod mount;
mod oci;
mod quota;
mod repair;
mod shown;
mod snapshot;
mod store;
mod unsynced;
mod value;
mod watch;

pub use additional::AdditionalLayerError;
pub use archive::{ArchiveError, CompressError, SplitError};
pub use chunked::ChunkedError;
pub use config::ConfigError;
pub(crate) use denied::{is_by_mode, is_denied};
pub use disk::{LayoutError, ScanError, TreeError, UnpackError};
pub use import::{ExportError, ImportError};
pub use limit::{Limit, LimitError};
pub use lookup::{CreateError, InUseError, LookupError};
pub use meta::MetaError;
pub use mount::{MountError, NamespaceError, ProbeTextError};
pub use oci::{BlobError, Choices, OciError};
pub use quota::QuotaError;
pub use repair::RepairError;
pub(crate) use shown::{quoted, shown};
pub use snapshot::{Code, SnapshotError};
pub use store::Error;
pub use unsynced::UnsyncedError;
pub use value::ValueError;
pub use watch::WatchError;
