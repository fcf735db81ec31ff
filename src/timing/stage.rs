//! The stages of what the store does.

use std::fmt;

use tracing::Span;

/// What a thread is doing, for [`measure`](crate::measure). A thread is at one stage at a time: what a file is hashed for while it is
/// written counts as [`Hash`](Self::Hash) alone.
///
/// Most stages are `tracing` spans of the same names, too: once for each thread at the levels `info` and `debug`, with its waits in it,
/// and each wait at `trace`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the blobs of layers from the source; with a reader of the caller's all that it does, and what
    /// [`Progress`](crate::Progress) is told on the way.
    Read,
    /// Decompressing blobs.
    Decompress,
    /// Digests of blobs and of what is in them, and the hashes of files.
    Hash,
    /// Reading archives member by member, and making their files, directories and links, still empty.
    Unpack,
    /// Filling files, giving them owner, mode, attributes and time, and copying the blobs that are kept.
    Write,
    /// Reading a directory back that was filled, and making its manifest and its tar-split.
    Seal,
    /// Letting new files share their space with equal ones.
    Share,
    /// Bringing files to the disk.
    Sync,
    /// Write transactions, from opening the database to the end of the commit, with the database's own syncs.
    Commit,
    /// All else, such as opening the store, looking up what is there, and removing what is not needed.
    Other,
    /// Waiting for a lock that somebody else holds: the write lock of a database, that of a process which begins to read, or of a layout.
    LockWait,
    /// Waiting for another thread of the same work: for a piece of a blob or a file to go on with, for room in a queue, or for
    /// the layer below.
    QueueWait,
}

impl Stage {
    /// All stages, in the order in which data comes to them; the rest and the waits stand last.
    pub const ALL: &[Stage] = &[
        Stage::Read,
        Stage::Decompress,
        Stage::Hash,
        Stage::Unpack,
        Stage::Write,
        Stage::Seal,
        Stage::Share,
        Stage::Sync,
        Stage::Commit,
        Stage::Other,
        Stage::LockWait,
        Stage::QueueWait,
    ];

    /// The name, such as `read` or `lock wait`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Read => "read",
            Stage::Decompress => "decompress",
            Stage::Hash => "hash",
            Stage::Unpack => "unpack",
            Stage::Write => "write",
            Stage::Seal => "seal",
            Stage::Share => "share",
            Stage::Sync => "sync",
            Stage::Commit => "commit",
            Stage::LockWait => "lock wait",
            Stage::QueueWait => "queue wait",
            Stage::Other => "other",
        }
    }

    /// Whether a thread that is at it does nothing.
    pub fn is_wait(self) -> bool {
        matches!(self, Stage::LockWait | Stage::QueueWait)
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// A span of its name. Levels and names belong to the place in the source, so each has one.
    pub(super) fn span(self) -> Span {
        match self {
            Stage::Read => tracing::debug_span!("read"),
            Stage::Decompress => tracing::debug_span!("decompress"),
            Stage::Hash => tracing::debug_span!("hash"),
            Stage::Unpack => tracing::debug_span!("unpack"),
            Stage::Write => tracing::debug_span!("write"),
            Stage::Seal => tracing::debug_span!("seal"),
            Stage::Share => tracing::info_span!("share"),
            Stage::Sync => tracing::info_span!("sync"),
            Stage::Commit => tracing::debug_span!("commit"),
            Stage::LockWait => tracing::debug_span!("lock wait"),
            Stage::QueueWait => tracing::trace_span!("queue wait"),
            Stage::Other => Span::none(),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_at_its_place() {
        for (index, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage.index(), index, "{stage}");
        }
    }
}
