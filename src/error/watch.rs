//! Errors of following changes.

use std::io;
use std::path::PathBuf;

/// Changes can no longer be told one by one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The journal no longer has what came next. The watch goes on after `newest`: list what is of interest, then
    /// ask it again.
    #[error(
        "{lost} changes after {since} cannot be told any more: the journal keeps the newest 4096; \
         list anew and go on from {newest}"
    )]
    Lost {
        /// The position.
        since: u64,
        /// How many changes after it are not told.
        lost: u64,
        /// The position of the newest change, from which the watch goes on.
        newest: u64,
    },
    /// The journal has never been as far as the position: it is another store's, or the store was restored from a
    /// backup. The watch goes on after `newest`: list what is of interest, then ask it again.
    #[error(
        "the journal ends at {newest} and has no position {since}: the position is another store's, or of a time \
         before a backup was restored; list anew and go on from {newest}"
    )]
    Ahead {
        /// The position.
        since: u64,
        /// The position of the newest change, from which the watch goes on.
        newest: u64,
    },
    /// The path of the database leads to another file than when the store was opened, or to none: somebody has put a
    /// backup in its place. Nothing more can be told of what is in it, and each further call says so again.
    #[error(
        "the database {} was replaced or removed while it was followed; open the store again, list anew and follow \
         from there",
        path.display()
    )]
    Replaced {
        /// The database file.
        path: PathBuf,
    },
    /// The kernel gives nothing to wait with.
    #[error("cannot wait for changes")]
    Wait(#[source] io::Error),
}
