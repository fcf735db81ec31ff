//! What was not on the disk yet when the machine went down.

use std::path::PathBuf;

/// A layer or blob was imported without a sync, the machine went down before its data was written, and so it is not
/// whole. Nothing was done with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsyncedError {
    /// The files of a layer are not those that were unpacked.
    #[error(
        "the layer {layer} was not on the disk when the machine went down: {} {what}; load its image again, \
         or run `layerstore repair`",
        path.display()
    )]
    Layer {
        /// The layer.
        layer: String,
        /// The first path in it that is wrong.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A kept blob is not the one that was delivered.
    #[error(
        "the kept blob {digest} was not on the disk when the machine went down: {what}; load its image again, \
         or drop the kept blobs with `layerstore prune --blobs`"
    )]
    Blob {
        /// Its digest.
        digest: String,
        /// What is wrong with it.
        what: String,
    },
}
