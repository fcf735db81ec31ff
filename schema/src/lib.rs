//! The on-disk contract of `layerstore`, and nothing else: no file is opened here.
//!
//! | module | what it fixes |
//! | --- | --- |
//! | [`manifest`] | the canonical list of everything in a diff directory, and its tree digest |
//!
//! `FORMAT.md`, beside this crate's manifest, is the same contract in prose.

pub mod manifest;
mod varint;
