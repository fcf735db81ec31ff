//! An embedded storage engine for container layers, images and containers. No daemon.

mod archive;
mod check;
mod compress;
mod disk;
mod error;
#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod image;
mod layer;
mod meta;
pub mod oci;
mod overlay;
mod store;
mod sys;
mod types;

pub use check::{CheckLevel, CheckOptions, CheckReport, Checked, Finding, SealedTree};
pub use compress::Compression;
pub use error::{
    ArchiveError, BlobError, Choices, CompressError, CreateError, Error, ExportError, ImportError,
    InUseError, LayoutError, LookupError, MetaError, MountError, NamespaceError, OciError, ProbeTextError,
    ScanError, SplitError, TreeError, UnpackError, ValueError,
};
pub use gc::{Garbage, GcReport, Uncollected};
pub use image::{Container, Image, Item, Kind};
pub use layer::{Change, ChangeKind, Layer, LayerBlob, Progress, ProgressFn};
pub use layerstore_schema::record::IdRange;
pub use store::{
    ContainerOptions, Mount, MountOptions, Status, Store, StoreOptions, Thing, ThingId, UnmountMode, Usage,
    WriteTxn,
};
pub use sys::userns::{IdExtent, IdMaps, MappedIds, UserNamespace, enter_user_namespace, is_privileged};
pub use types::{
    Algorithm, ChainId, ContainerId, ContentHash, DiffId, Digest, Hasher, ImageId, LayerId, Metadata, Name,
    RelPath, Timestamp, TreeDigest,
};
