//! The directories of a store. Knows nothing of records.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`layout`] | the root |
//! | [`privacy`] | whether others could change what is in a root |
//! | [`names`] | every name that is written below it |
//! | [`neighbour`] | the names of containers-storage, whose store is not one |
//! | [`marker`] | the file that makes a directory a store |
//! | [`entry_lock`] | who fills or removes what has a number, and who died over it |
//! | [`staging`] | directories and blob files being filled |
//! | [`confine`](mod@confine) | the thread that fills one of these directories, and reaches no other |
//! | [`tree_writer`] | builds a diff directory from a hostile layer's entries |
//! | [`scan`] | a diff directory as a manifest |
//! | [`looks`] | how files were that were just written |
//! | [`hash`] | the hashes of file contents |
//! | [`examine`](mod@examine) | the same as far as this process may read it |
//! | [`damage`] | whether a directory still is what its manifest says |
//! | [`copy`] | a copy of a diff directory, or of what is visible of it |
//! | [`translate`] | the same tree with other owners |
//! | [`share`] | equal files that take their space once |
//! | [`inherit`] | the root directory of a new layer |
//! | [`remove`] | removes trees |
//! | [`foreign`] | what others have mounted among the files |
//! | [`trash`] | how what has a number goes |
//! | [`additional`] | layers in the directories of additional layer stores |
//! | [`usage`] | what a tree takes on the disk |
//! | [`file_in`] | files in the directories of images and containers |
//! | [`digest_lock`] | lock files of digests in the run root |
//! | [`run_layout`] | the run root and every name that is written there |
//! | [`shared_run`] | the directory above run roots where everybody can make one |
//! | [`reserve`] | space to give up when the disk is full |
//! | [`parallel`] | many pieces of work on all processors |
//! | [`walk`], [`dir_stack`] | walking a tree by directory handles |
//! | [`program_marks`] | what a mount program leaves, as the kernel has it |
//! | [`whiteout_devices`] | whiteouts of a directory that is going to be written to |
//! | [`writeback`] | writing out while more is written |
//! | [`overlay_form`] | how overlayfs marks whiteouts and opaque directories |

mod additional;
mod collected;
mod confine;
mod copy;
mod damage;
mod digest_lock;
mod dir_stack;
mod entry_lock;
mod examine;
mod file_in;
#[cfg(test)]
mod fixture;
mod foreign;
mod hash;
mod index;
mod inherit;
mod kind;
mod layout;
mod looks;
mod lost_mode;
pub(crate) mod marker;
mod masked;
mod names;
mod neighbour;
mod overlay_form;
pub(crate) mod parallel;
mod privacy;
mod program_marks;
mod quota;
mod remove;
mod reown;
mod reserve;
mod run_layout;
mod scan;
mod share;
mod shared_run;
mod staging;
#[cfg(test)]
mod tests;
mod translate;
mod trash;
mod tree_writer;
mod usage;
mod walk;
mod whiteout_devices;
mod writeback;

pub(crate) use additional::AdditionalDirectory;
pub(crate) use collected::{collected_in, note_collected};
pub(crate) use confine::Confinement;
#[cfg(test)]
pub(crate) use confine::tests as tests_of_confinement;
pub(crate) use copy::{copy_below, copy_into};
pub(crate) use damage::{DamagedPath, changed_path, damaged_path};
pub(crate) use digest_lock::DigestLockFile;
pub(crate) use entry_lock::{Claim, DeadLocks, EntryLock, LockState, NamedLock, lock_state, locked_numbers};
pub(crate) use examine::{ExaminedEntry, examine};
pub(crate) use file_in::{read_file, write_file};
#[cfg(test)]
pub(crate) use fixture::open_below;
pub(crate) use foreign::ForeignMounts;
pub(crate) use hash::{hash_content, hash_files};
pub(crate) use index::{INDEX, KeptFile, list_kept};
pub(crate) use inherit::{inherit_root, set_root_mode, set_root_owner, stat_of_root};
pub(crate) use kind::{Own, opening_failed};
pub(crate) use layout::{Layout, SyncPoint};
pub(crate) use looks::{Looks, Written};
pub(crate) use masked::mask_of;
pub(crate) use names::{CONTENT, DATABASE, DiffName, Subdirectory};
pub(crate) use neighbour::is_of_containers_storage;
pub(crate) use overlay_form::{XattrNamespace, is_opaque};
pub(crate) use program_marks::{
    Misread, admit_program, is_by_program, mark_for_program, misread_in, settle_program_marks,
};
pub(crate) use quota::{Limits, can_limit_at};
pub(crate) use remove::remove_tree;
pub(crate) use reown::{change_linked_names, change_owners};
pub(crate) use reserve::{ensure_reserve, release_reserve, reserved};
pub(crate) use run_layout::{RunDirectory, RunLayout};
pub(crate) use scan::{
    LeftBelow, ScannedEntry, ScannedKind, Withheld, WithheldPart, handle, has_owner, list, list_as_left,
    list_of_another, measured_scan, scan, without,
};
pub(crate) use share::{LEAST_SHARED, can_share, share_all, share_extents, shares_nothing};
pub(crate) use shared_run::{ensure_shared_run_directory, refuse_of_others};
pub(crate) use staging::{Filled, Stage, StagedBlob, StagedData, StagedFiles, Staging};
pub(crate) use translate::{Translate, translate_owners};
pub(crate) use trash::{Part, Trash};
pub(crate) use tree_writer::{
    DeviceKind, FileWriter, LeftOut, TreeWriter, UnpackOptions, UnpackedTree, WrittenFile, apply_metadata,
};
pub(crate) use usage::{Usage, usage};
pub(crate) use walk::{Life, is_gone};
pub(crate) use whiteout_devices::{make_whiteouts_devices, may_have_xattr_whiteouts};
pub(crate) use writeback::Writeback;
