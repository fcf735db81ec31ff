//! An embedded storage engine for container layers, images and containers. No daemon.

mod archive;
mod compress;
mod disk;
mod error;
#[cfg(feature = "__fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod meta;
mod overlay;
mod sys;
mod types;

pub use error::ValueError;
pub use types::{
    Algorithm, ChainId, ContainerId, ContentHash, DiffId, Digest, Hasher, ImageId, LayerId, Metadata, Name, RelPath,
    Timestamp, TreeDigest,
};
