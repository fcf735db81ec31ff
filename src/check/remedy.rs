//! What a repair would do about what a check found.

use std::fmt;
use std::path::PathBuf;

/// What [`Store::repair`](crate::store::Store::repair) would do, told without touching anything. Whether the copy that
/// it names is good shows when it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// Rows that follow from the records are written again.
    RebuildIndex,
    /// The record is made again.
    RestoreRecord {
        /// From what.
        from: String,
    },
    /// The content of a file comes from another place.
    RestoreFile {
        /// From which.
        from: String,
    },
    /// The path gets what the manifest says: its metadata, or itself where it has no content.
    RestoreMetadata,
    /// The layer is unpacked again.
    UnpackLayer {
        /// From what.
        from: String,
    },
    /// The manifest is made again from the directory.
    RebuildManifest,
    /// The tar-split is made again.
    RebuildSplit {
        /// From what.
        from: String,
    },
    /// The data item's bytes are put back.
    RestoreItem {
        /// From what.
        from: String,
    },
    /// The kept blob is put back.
    RestoreBlob {
        /// From what.
        from: String,
    },
    /// It is removed, and nothing is lost with it.
    Forget,
    /// The kept blob is removed: its layer is whole without it, and its image is saved with another digest from then on.
    ForgetBlob,
    /// It can be had again from an image outside the store. Without one it can only be removed.
    NeedsSource {
        /// What an image given by `--from` has to hold.
        wanted: Vec<String>,
        /// What goes with `--force`; nothing, if it can be lived with.
        removes: Vec<String>,
    },
    /// It cannot be had again: with `--force` it is removed.
    RemoveWithForce {
        /// What goes.
        removes: Vec<String>,
    },
    /// The directory is shut to other users.
    MakePrivate,
    /// It gets the mode back that lets its owner in. Whatever else is wrong with it shows then.
    RestoreMode {
        /// Where it is.
        path: PathBuf,
        /// The mode: permission bits.
        mode: u16,
    },
    /// Nothing: it is not the store's, or a container's that the next boot drops.
    Leave,
    /// Nothing, as long as another store is not given: what is missing here is perhaps there. With force neither.
    OpenOther {
        /// The stores to open this one with, as the command line takes them.
        flags: Vec<String>,
    },
    /// Nothing, whatever the force: a mount hides what the store has there.
    Unmount {
        /// Where it is.
        target: PathBuf,
    },
    /// Nothing, whatever the force: this process may not read what there is, and another may.
    Allow {
        /// Where it may be read, as far as that can be told to this process.
        advice: &'static str,
    },
    /// Nothing, whatever the force: another program serves the files of a layer, and may do so again.
    Serve,
    /// Nothing: it is another program's, and one of the two has to have a directory of its own.
    Separate,
}

impl Remedy {
    /// A word for the remedy, for programs: it stays the same in all releases.
    pub fn code(&self) -> &'static str {
        match self {
            Remedy::RebuildIndex => "rebuild-index",
            Remedy::RestoreRecord { .. } => "restore-record",
            Remedy::RestoreFile { .. } => "restore-file",
            Remedy::RestoreMetadata => "restore-metadata",
            Remedy::UnpackLayer { .. } => "unpack-layer",
            Remedy::RebuildManifest => "rebuild-manifest",
            Remedy::RebuildSplit { .. } => "rebuild-split",
            Remedy::RestoreItem { .. } => "restore-item",
            Remedy::RestoreBlob { .. } => "restore-blob",
            Remedy::Forget => "forget",
            Remedy::ForgetBlob => "forget-blob",
            Remedy::MakePrivate => "make-private",
            Remedy::RestoreMode { .. } => "restore-mode",
            Remedy::NeedsSource { .. } => "needs-source",
            Remedy::RemoveWithForce { .. } => "remove-with-force",
            Remedy::Leave
            | Remedy::OpenOther { .. }
            | Remedy::Unmount { .. }
            | Remedy::Allow { .. }
            | Remedy::Serve
            | Remedy::Separate => "leave",
        }
    }

    /// What a repair takes it from.
    pub fn from(&self) -> Option<&str> {
        match self {
            Remedy::RestoreRecord { from }
            | Remedy::RestoreFile { from }
            | Remedy::UnpackLayer { from }
            | Remedy::RebuildSplit { from }
            | Remedy::RestoreItem { from }
            | Remedy::RestoreBlob { from } => Some(from),
            _ => None,
        }
    }

    /// What an image outside the store has to hold.
    pub fn wanted(&self) -> &[String] {
        if let Remedy::NeedsSource { wanted, .. } = self { wanted } else { &[] }
    }

    /// What is removed with force, for want of anything else.
    pub fn removes(&self) -> &[String] {
        match self {
            Remedy::NeedsSource { removes, .. } | Remedy::RemoveWithForce { removes } => removes,
            _ => &[],
        }
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remedy::RebuildIndex => f.write_str("a repair sets the rows right"),
            Remedy::RestoreRecord { from } => write!(f, "a repair makes the record again from {from}"),
            Remedy::RestoreFile { from } => write!(f, "a repair takes the content from {from}"),
            Remedy::RestoreMetadata => f.write_str("a repair sets it right by the manifest"),
            Remedy::UnpackLayer { from } => write!(f, "a repair unpacks the layer again from {from}"),
            Remedy::RebuildManifest => f.write_str("a repair makes the manifest again from the directory"),
            Remedy::RebuildSplit { from } => write!(f, "a repair makes the tar-split again from {from}"),
            Remedy::RestoreItem { from } | Remedy::RestoreBlob { from } => {
                write!(f, "a repair takes it from {from}")
            }
            Remedy::MakePrivate => f.write_str("chmod 0700 shuts it, and so does a repair"),
            Remedy::RestoreMode { path, mode } => {
                write!(f, "chmod {mode:04o} {path:?} lets its owner in, and so does a repair")
            }
            Remedy::Forget => f.write_str("a repair removes it, and nothing is lost"),
            Remedy::ForgetBlob => f.write_str(
                "a repair takes it from the image as it came (--from oci:DIR), or removes it: then a save gives the image another digest",
            ),
            Remedy::NeedsSource { wanted, removes } => {
                write!(f, "a repair needs an image (--from oci:DIR) with {}", wanted.join(" or "))?;
                if removes.is_empty() {
                    return Ok(());
                }
                write!(f, "; with --force it removes {}", removes.join(", "))
            }
            Remedy::RemoveWithForce { removes } => {
                write!(f, "it cannot be had again; a repair with --force removes {}", removes.join(", "))
            }
            Remedy::Leave => f.write_str("remove it or move it out of the store"),
            Remedy::OpenOther { flags } => write!(
                f,
                "a repair leaves it: open with {}, where it may be; if that store is gone for good, load the image \
                 here, or remove what needs it",
                flags.join(" ")
            ),
            Remedy::Unmount { target } => {
                write!(f, "a repair leaves it: unmount {target:?}, which hides what the store has there")
            }
            Remedy::Allow { advice } => write!(f, "a repair leaves it: {advice}"),
            Remedy::Serve => f.write_str(
                "a repair leaves it: start the additional layer store; if that is gone for good, remove the image and load it \
                 again",
            ),
            Remedy::Separate => {
                f.write_str("leave it as it is, and give one of the two programs a root of its own")
            }
        }
    }
}
