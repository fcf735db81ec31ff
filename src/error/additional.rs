//! Errors of layers in additional layer stores.

use std::io;
use std::path::PathBuf;

use super::LimitError;

/// A layer in an additional layer store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdditionalLayerError {
    /// What the store says of the layer is malformed.
    #[error("{} says nothing of a layer that could be used: {reason}; unpack the layer's blob instead", path.display())]
    Info {
        /// The file `info` of the layer.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the store says of the layer is longer than is granted.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The store has another layer than the one that was asked for.
    #[error("{} is of another layer: its {what} is {found}, and not {expected}; unpack the layer's blob instead", path.display())]
    Other {
        /// The layer's directory in the store.
        path: PathBuf,
        /// Which digest.
        what: &'static str,
        /// The digest that was expected.
        expected: String,
        /// The digest that the store says.
        found: String,
    },
    /// A file in the store cannot be read.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The files of a layer on record are not there.
    #[error(
        "the layer {layer} has its files in {}, which cannot be opened; start the additional layer store that serves them",
        path.display()
    )]
    Missing {
        /// The layer.
        layer: String,
        /// The directory in the store.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The blob gave other bytes when it was read again.
    #[error("the blob of the layer {layer} in {} changed while it was read", path.display())]
    Changed {
        /// The layer.
        layer: String,
        /// The layer's directory in the store.
        path: PathBuf,
    },
}
