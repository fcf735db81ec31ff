//! An embedded storage engine for container layers, images and containers. No daemon.

mod archive;
mod compress;
mod disk;
mod error;
mod meta;
pub mod oci;
mod overlay;
mod sys;
mod types;

pub use error::{BlobError, Choices, OciError, ValueError};
pub use types::{
    Algorithm, ChainId, ContainerId, ContentHash, DiffId, Digest, Hasher, ImageId, LayerId, Metadata, Name, RelPath,
    Timestamp, TreeDigest,
};
