//! What is told of each path of a diff directory, and what is not.

use std::io;

use layerstore_schema::manifest::Kind;

use crate::sys::handle::Handle;
use crate::sys::stat::FileId;
use crate::types::Metadata;

/// One path of a diff directory, its content not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ScannedEntry {
    /// The path below the root; empty for the root.
    pub(crate) path: Vec<u8>,
    /// What stands there.
    pub(crate) kind: ScannedKind,
    /// Its metadata; the default for whiteouts and hard links.
    pub(crate) metadata: Metadata,
    /// Its inode. A tree may have several with one number: a subvolume of btrfs has numbers of its own.
    pub(crate) id: FileId,
    /// Bytes it takes on the disk; 0 for hard links.
    pub(crate) allocated: u64,
    /// What overlayfs has left of it in the layers below, if that is so.
    pub(crate) left_below: Option<LeftBelow>,
    /// Of the first name of a file: the file below that it was copied from, if a mount with `index=on` keeps other names of
    /// that for names of this.
    pub(crate) linked_below: Option<Handle>,
}

impl ScannedEntry {
    /// Whether the directory alone does not say what stands here.
    pub(crate) fn is_left_below(&self) -> bool {
        self.left_below.is_some() || self.linked_below.is_some()
    }
}

/// What overlayfs leaves in the layers below instead of copying it, where a mount allows that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum LeftBelow {
    /// What is in the directory, which was renamed (`redirect_dir=on`).
    Tree {
        /// Where it is: a name in what the directory above is merged with, or a path from the root with a slash.
        redirect: Vec<u8>,
    },
    /// The bytes of the file, of which only owner, mode or attributes were changed (`metacopy=on`).
    Content {
        /// The same, if it is not at its own name any more.
        redirect: Option<Vec<u8>>,
    },
}

/// What stands at a path, its content not looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ScannedKind {
    /// A regular file, with its length.
    File {
        /// Length in bytes.
        size: u64,
    },
    /// Anything else, and never [`Kind::File`].
    Other(Kind),
}

impl ScannedKind {
    /// Whether it has an owner, and a mode: a deleted name, or a further name of a file, has none of its own.
    pub(crate) fn has_owner(&self) -> bool {
        match self {
            ScannedKind::File { .. } => true,
            ScannedKind::Other(kind) => has_owner(kind),
        }
    }
}

/// As [`ScannedKind::has_owner`], of what stands in a manifest.
pub(crate) fn has_owner(kind: &Kind) -> bool {
    !matches!(kind, Kind::Whiteout | Kind::HardLink { .. })
}

/// Something of a diff directory that this process may not read, which says nothing of what it is.
#[derive(Debug)]
pub(crate) struct Withheld {
    /// The path below the root.
    pub(crate) path: Vec<u8>,
    /// What of it.
    pub(crate) part: WithheldPart,
    /// The kernel's answer.
    pub(crate) reason: io::Error,
}

/// What may not be read of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WithheldPart {
    /// Everything that is in a directory.
    Names,
    /// Its attributes, and so whether it is an opaque directory.
    Attributes,
    /// The content of a file.
    Content,
}
