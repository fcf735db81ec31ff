//! Tar bytes to entries and back. Knows nothing of the store.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`reader`] | takes a stream apart: entries, their content, and every other byte for a [`Tap`] |
//! | [`writer`] | puts a stream together, the same bytes every time |
//! | [`split`] | keeps what the tap saw, and joins it with the files into the same stream again |
//! | [`whiteout`] | what a path means in a layer: content, a deletion, an opaque directory |
//!
//! Below the reader, each deciding one thing: `header` (one block), `number` (octal, base-256, decimal, times),
//! `pax` (extended headers), `sparse` (maps of files with holes), `member` (all of it into one [`Entry`]).
//!
//! An archive is attacker input. Where two common readers (GNU tar, Go's `archive/tar`, libarchive, the `tar`
//! crate) would see different members in the same bytes, this one refuses them: nobody who scanned a layer with
//! another program has then scanned something else than what is unpacked here. But what the `tar` crate does not find
//! behind a newline in a record is read: archives of Go's are like that.

pub(crate) mod base64;
mod entry;
mod header;
#[cfg(any(test, feature = "__fuzzing"))]
#[path = "../../tests/support/tar/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the kit that all tests share; no part of what is built for users"
)]
pub(crate) mod made;
mod member;
mod number;
mod pax;
pub(crate) mod reader;
mod sparse;
pub(crate) mod split;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod whiteout;
pub(crate) mod writer;

pub(crate) use entry::{Entry, EntryKind};
pub(crate) use reader::{Reader, Tap};
pub(crate) use writer::Writer;

#[cfg(test)]
mod tests;
