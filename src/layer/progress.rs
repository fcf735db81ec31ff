//! What long operations report while they run.

use crate::types::{DiffId, Digest, Timestamp};

/// Something that a long operation did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A layer is being read; its blob has this many bytes.
    LayerStarted {
        /// The digest of the blob.
        blob: &'a Digest,
        /// Its length.
        size: u64,
    },
    /// So many more bytes of a layer's blob were read or written.
    LayerBytes {
        /// The digest of the blob.
        blob: &'a Digest,
        /// How many.
        bytes: u64,
    },
    /// A layer is done.
    LayerDone {
        /// The digest of the blob.
        blob: &'a Digest,
    },
    /// A layer need not be read: the store has it.
    LayerKnown {
        /// The digest of the blob.
        blob: &'a Digest,
    },
    /// Something of a layer was not written, because this process may not: a device, or an attribute. It still goes
    /// out again when the layer is saved.
    LeftOut {
        /// The layer.
        layer: &'a DiffId,
        /// What was left out, and why.
        what: &'a str,
    },
    /// So many of the layer directories and blobs to be checked are done.
    Checked {
        /// How many are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// So many bytes of the files that may share their extents were compared, or need not be.
    Sharing {
        /// How many are done.
        done: u64,
        /// How many there are.
        total: u64,
    },
    /// Data is being brought to the disk.
    Syncing,
    /// A load fails, and its finished layers are kept for the next try.
    FinishedKept {
        /// How many they are, the lowest of the image.
        layers: u64,
        /// When their lease ends.
        expires: Timestamp,
    },
}

/// Where progress is reported to: called often, and from several threads.
pub type ProgressFn<'a> = dyn Fn(&Progress<'_>) + Send + Sync + 'a;
