//! The database: redb behind one module. Knows nothing of directories.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`database`] | opens the file for reading and writing, runs transactions |
//! | [`reader`] | the handle for reading, which is kept |
//! | [`file`] | what stands at its path, and whether it can be one |
//! | [`create`] | makes the file, whole or not at all |
//! | [`backup`] | copies the file while it is in use; makes it smaller |
//! | [`backend`] | redb's access to the file: waits with a limit, syncs as little as is safe |
//! | [`queue`] | waiting for a lock, with a limit |
//! | [`private`] | redb's access to a file that may not be written |
//! | [`hold`] | the write lock alone |
//! | [`holder`] | names who holds the write lock |
//! | `exercise` | a damaged file through everything that is done with one, for tests |
//! | [`guard`] | redb kept from panicking on a damaged file |
//! | [`checksums`] | what a writer reads, held against its checksums |
//! | [`verified`] | snapshots for who deletes what no row names |
//! | [`system`] | what redb keeps for itself, verified before a change |
//! | [`space`] | what each page of the file is used for |
//! | [`page`] | the bytes of the file, as redb writes them |
//! | [`rows`] | tables, with what redb finds in them looked at |
//! | [`txn`] | typed reads, the same in both kinds of transaction |
//! | [`write`](mod@write) | typed changes, which keep indexes, items, sums and journal in step |
//! | [`journal`] | what each commit changed, in order |
//! | [`index`] | which index rows a record implies |
//! | [`audit`] | every record, damaged ones included |
//! | [`mend`] | changes where the rows do not fit together |
//! | [`counter`] | whether anything was committed, by a memory read |
//! | [`blob`] | bytes kept in the database |
//! | [`unsynced`] | which directories and blobs may not be on the disk yet |
//! | [`beside`] | which other stores records stand on something of |
//! | [`transient`] | where the containers are that the next boot drops |
//! | [`valid`] | which records are those of their rows |
//! | [`run`] | the second database, of what a reboot drops |

mod audit;
mod backend;
mod backup;
mod beside;
mod blob;
mod checksums;
mod counter;
mod create;
mod database;
#[cfg(any(test, feature = "__fuzzing"))]
#[allow(clippy::arithmetic_side_effects, reason = "a kit of tests; no part of what is built for users")]
pub(crate) mod exercise;
mod file;
mod guard;
mod hold;
mod holder;
mod index;
mod journal;
mod mend;
mod page;
mod private;
mod queue;
mod reader;
#[cfg(test)]
mod recorder;
mod rows;
mod run;
mod space;
mod system;
mod transient;
mod txn;
mod unsynced;
mod valid;
mod verified;
mod write;

pub(crate) use audit::{NamedNumbers, Records, RowKey, named_numbers};
pub(crate) use beside::{StoreBeside, stores_beside};
pub(crate) use blob::{BlobKind, PreparedBlob, open_blob, read_blob};
pub(crate) use counter::ChangeCounter;
pub(crate) use database::{Database, DatabaseOptions, OpenWrite};
pub(crate) use index::{IndexRow, stored_rows};
pub(crate) use journal::{journal_after, journal_bounds};
pub(crate) use mend::Unused;
pub(crate) use run::{CountedMount, RunDatabase};
pub(crate) use transient::{TransientNote, transient_note};
pub(crate) use txn::{PrefixMatch, Query, ReadTxn, Tables, WriteTxn, chain, read_header};
pub(crate) use unsynced::{Unsynced, filled_in, made_empty, made_empty_in, unsynced};
pub(crate) use write::{Freed, is_manifest};

#[cfg(test)]
mod tests;
