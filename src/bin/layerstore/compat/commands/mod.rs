//! The commands, in files by what they are about.

pub mod changes;
pub mod check;
pub mod containers;
pub mod copy;
pub mod create;
pub mod data;
pub mod dedup;
pub mod delete;
pub mod images;
mod input;
pub mod layers;
pub mod metadata;
pub mod mount;
pub mod names;
pub mod owners;
mod sizes;
pub mod staging;
pub mod status;
pub mod unshare;
