//! The on-disk contract of `layerstore`, and nothing else: no file is opened here.
//!
//! | module | what it fixes |
//! | --- | --- |
//! | [`header`] | format version and feature flags, and what a build may do with a store |
//! | [`table`] | the tables and their keys |
//! | [`record`] | the values in them |
//! | [`manifest`] | the canonical list of everything in a diff directory, and its tree digest |
//! | [`migration`] | the steps from each format version to the next |
//!
//! `FORMAT.md`, beside this crate's manifest, is the same contract in prose.

// What the lints of the workspace begin. Tests may do all of it.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        clippy::get_unwrap,
        clippy::string_slice,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_in_result
    )
)]

pub mod header;
pub mod manifest;
pub mod migration;
pub mod record;
pub mod table;
mod varint;
