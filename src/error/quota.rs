//! Limits of what a layer may take that cannot be set.

use std::io;
use std::path::PathBuf;

/// What a layer may take on the disk cannot be limited.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuotaError {
    /// The filesystem keeps no project quotas, or not now.
    #[error("no size or number of inodes can be limited in {}: {filesystem} there has no project quotas in force; {advice}", path.display())]
    Unsupported {
        /// The store.
        path: PathBuf,
        /// The type of the filesystem, as the kernel's mount table has it.
        filesystem: String,
        /// What to do.
        advice: &'static str,
    },
    /// Only the machine's root may set quotas.
    #[error(
        "no size or number of inodes can be limited in {}: only the machine's root may set the project quotas of {filesystem} \
         there, outside of any user namespace",
        path.display()
    )]
    NotPermitted {
        /// The store.
        path: PathBuf,
        /// The type of the filesystem, as the kernel's mount table has it.
        filesystem: String,
        /// The cause.
        source: io::Error,
    },
    /// The store as a whole has a project quota, and what counts for another project would not count for that.
    #[error(
        "the size of a layer cannot be limited in {}: the directory counts for project {project} with all that is in it, and \
         the layer would not any more",
        path.display()
    )]
    Nested {
        /// The store.
        path: PathBuf,
        /// The project.
        project: u32,
    },
    /// A limit is asked for of a layer that nobody writes to.
    #[error("the layer {layer} would be sealed, and what is never written to has no limit")]
    Sealed {
        /// The layer.
        layer: String,
    },
    /// No project is free.
    #[error("the size of a layer cannot be limited in {}: no number of a project is found that is not in use", path.display())]
    NoProject {
        /// The directory of the layers.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl QuotaError {
    /// Whether nothing can be limited there at all, by this process.
    pub fn is_of_place(&self) -> bool {
        matches!(
            self,
            QuotaError::Unsupported { .. } | QuotaError::NotPermitted { .. } | QuotaError::Nested { .. }
        )
    }
}
