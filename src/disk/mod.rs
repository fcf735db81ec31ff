//! The directories of a store. Knows nothing of records.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`layout`] | the root, and every name that is written there |
//! | [`marker`] | the file that makes a directory a store |
//! | [`staging`] | directories and blob files being filled, held by a lock |
//! | [`tree_writer`] | builds a diff directory from a hostile layer's entries |
//! | [`scan`] | a diff directory as a manifest |
//! | [`inherit`] | the root directory of a new layer |
//! | [`remove`] | removes trees; moves them to the trash |
//! | [`usage`] | what a tree takes on the disk |
//! | [`run_layout`] | the run root and every name that is written there |
//! | [`reserve`] | space to give up when the disk is full |
//! | [`parallel`] | many pieces of work on all processors |
//! | [`walk`], [`dir_stack`] | walking a tree by directory handles |
//! | [`overlay_form`] | how overlayfs marks whiteouts and opaque directories |

mod dir_stack;
#[cfg(test)]
mod fixture;
mod inherit;
mod layout;
mod marker;
mod overlay_form;
pub(crate) mod parallel;
mod remove;
mod reserve;
mod run_layout;
mod scan;
mod staging;
mod tree_writer;
mod usage;
mod walk;

pub(crate) use inherit::inherit_root;
pub(crate) use layout::{DATABASE, DiffName, Layout, Subdirectory};
pub(crate) use overlay_form::{XattrNamespace, is_opaque};
pub(crate) use remove::{empty_trash, move_to_trash, remove_tree};
pub(crate) use reserve::{ensure_reserve, release_reserve};
pub(crate) use run_layout::RunLayout;
pub(crate) use scan::{ScannedEntry, ScannedKind, list, scan};
pub(crate) use staging::{EntryLock, Filled, StagedBlob, Staging, discard, discard_beside, is_held};
pub(crate) use tree_writer::{
    DeviceKind, FileWriter, LeftOut, TreeWriter, UnpackOptions, UnpackedTree, WrittenFile, apply_metadata,
};
pub(crate) use usage::{Usage, usage};
