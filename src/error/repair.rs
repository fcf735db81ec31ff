//! What a repair cannot do.

use std::io;
use std::path::PathBuf;

/// Something cannot be repaired, though there seemed to be something to repair it with. It is as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// What was made again is not what was lost.
    #[error(
        "what was unpacked again has the tree digest {found} and not {tree}; repair the store as the user and in the \
         user namespace that filled it"
    )]
    TreeDiffers {
        /// What it should be.
        tree: String,
        /// What came out.
        found: String,
    },
    /// The owners of the files are on record as seen from outside a user namespace, and this process is inside, or the
    /// other way round.
    #[error(
        "the tree {tree} was filled on the other side of a user namespace; repair it there: inside `layerstore \
         unshare`, or outside"
    )]
    OtherSide {
        /// The tree.
        tree: String,
    },
    /// Nothing has the content of a file.
    #[error("nothing has the content {content} of /{}", path.display())]
    NoContent {
        /// The hash of the content.
        content: String,
        /// The file in the layer.
        path: PathBuf,
    },
    /// This process may not read a file that may have the content.
    #[error("this user may not read the content of /{}", path.display())]
    Withheld {
        /// The file in the layer.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A manifest has something that no import makes.
    #[error("/{} is of a kind that cannot be made again", path.display())]
    Kind {
        /// The path in the layer.
        path: PathBuf,
    },
    /// A blob from outside is not the one that was lost.
    #[error("the blob {expected} has the digest {found}")]
    BlobDigest {
        /// What it should be.
        expected: String,
        /// What was read.
        found: String,
    },
    /// Another process changed it meanwhile.
    #[error("{thing} was changed by another process during the repair; check again")]
    Changed {
        /// What.
        thing: String,
    },
    /// More would be removed than was lost when the repair began.
    #[error(
        "{thing} stays: with it would go {more}, which was not found to be lost when the repair began; see what \
         `layerstore repair --force --dry-run` says now, and repair again"
    )]
    NotAnnounced {
        /// What cannot be had again.
        thing: String,
        /// What was not announced.
        more: String,
    },
    /// A blob cannot be read or copied.
    #[error("cannot read or write the data of a repair")]
    Io(#[from] io::Error),
}
