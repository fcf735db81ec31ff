//! The public engine: opening a store, transactions, and every operation on things.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`options`], [`open`] | finding or making a store |
//! | [`query`] | lists, lookups, data items |
//! | [`write`](mod@write) | several changes in one transaction |
//! | [`import`] | an image with its layers, all or nothing |
//! | [`layer`](mod@layer), [`staged`], [`apply`] | layers of their own: empty ones, and from archives |
//! | [`seal`](mod@seal) | from writable to sealed, and back |
//! | [`container`], [`remove`] | creating and removing things |
//! | [`lease`](mod@lease) | keeping things for a while |
//! | [`mount`](mod@mount) | mounting and unmounting |
//! | [`content`] | changes, diffs, exports |
//! | [`unsynced`] | layers that are not on the disk yet, before their first use after a reboot |
//! | [`garbage`], [`tidy`] | what crashes left behind |
//! | [`event`], [`watch`] | following what is committed |
//! | [`backup`] | a copy of the database, and its size |
//! | [`usage`] | how much there is, and whose it is |

mod apply;
mod backup;
mod container;
mod content;
mod event;
mod garbage;
mod import;
mod layer;
mod lease;
mod mount;
mod open;
mod options;
mod owners;
mod query;
mod remove;
mod seal;
mod staged;
mod thing;
mod tidy;
mod unsynced;
mod usage;
mod watch;
mod write;

pub use backup::{BackupMode, CompactReport};
pub use container::ContainerOptions;
pub use content::DiffOptions;
pub use event::{Aspect, Event, EventKind, Subject};
pub(crate) use garbage::{Sweep, Swept, find_leftovers};
pub(crate) use import::{BlobInput, ImageImport, LayerImport};
pub use layer::LayerOptions;
pub use lease::Lease;
pub(crate) use lease::is_over;
pub use mount::{Mount, MountEntry, MountOptions, UnmountMode};
pub use open::Store;
pub use options::{StoreOptions, SyncMode};
pub use owners::ParentOwners;
pub(crate) use remove::Mounts;
pub use staged::{ApplyOptions, StagedDiff};
pub use thing::{Thing, ThingId};
pub use usage::{Status, Usage};
pub use watch::{Watch, WatchOptions};
pub use write::WriteTxn;
