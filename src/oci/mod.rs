//! Images outside the store: OCI image layouts, and archives of OCI's and docker's form, in and out.
//!
//! [`Source`] reads and [`Sink`] writes; a [`Reference`] says where. Documents keep the bytes they came with,
//! and are changed through types that leave unknown fields as they are. Everything that is read is hostile:
//! sizes and depths are bounded, digests are checked while the bytes pass, and no name from a document
//! becomes a path without having been a digest or a member of the archive.

mod archive;
mod archive_target;
mod archive_writer;
mod blob;
mod commit;
mod config;
mod dir;
mod docker_archive;
mod document;
#[cfg(any(test, feature = "__fuzzing"))]
mod invariants;
mod layout;
mod layout_writer;
mod load;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod save;
mod shape;
mod sink;
mod source;
mod tar_index;
#[cfg(test)]
mod tests;

pub use blob::{BlobReader, Extent, ExtentReader, VerifyReader};
pub use commit::CommitOptions;
pub use config::{History, ImageConfig};
pub use document::Document;
#[cfg(any(test, feature = "__fuzzing"))]
pub(crate) use invariants::check_documents;
pub use load::LoadOptions;
pub(crate) use load::{MANIFEST_ITEM, blob_input};
pub use manifest::{Annotations, CONTAINERD_NAME, Descriptor, Index, Manifest, REF_NAME};
pub use media_type::LayerType;
pub use platform::Platform;
pub use reference::{Reference, Transport};
pub use save::{SaveOptions, SavedImage};
pub use sink::{BlobWriter, Sink, SinkImage};
pub use source::{ResolvedImage, ResolvedLayer, Selection, Source};
