//! The public engine: opening a store, transactions, and every operation on things.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`options`], [`settings`], [`open`] | finding or making a store |
//! | [`ahead`] | what is known to fail before a store is opened |
//! | [`part`], [`view`], [`home`] | several stores read as one, and where a layer is changed |
//! | [`query`] | lists, lookups, data items |
//! | [`thing`], [`anything`] | what can be done to a thing of any kind in one call |
//! | [`write`](mod@write) | several changes in one transaction |
//! | [`import`] | an image with its layers, all or nothing |
//! | [`layer`](mod@layer), [`staged`], [`apply`] | layers of their own: empty ones, and from archives |
//! | [`chunked`] | layers of which only parts are fetched |
//! | [`additional`] | layers whose files another program serves |
//! | [`seal`](mod@seal), [`unseal`](mod@unseal) | from writable to sealed, and back |
//! | [`settle`](mod@settle) | what mounts left in the layers below, brought into a layer |
//! | [`snapshot`] | what is refused as only containerd may do it |
//! | [`hold`](mod@hold) | keeping others from mounting what is replaced |
//! | [`image`](mod@image), [`container`] | creating images and containers |
//! | [`remove`], [`removal`] | removing things; a layer's record first and its files later |
//! | [`transient`] | containers that a reboot drops |
//! | [`directory`] | directories of images and containers for their callers |
//! | [`userns`] | id maps of containers |
//! | [`mapped`] | copies of images for kernels that map no ids |
//! | [`wipe`] | removing everything, or one thing whoever needs it; ending all mounts |
//! | [`lease`](mod@lease) | keeping things for a while |
//! | [`digest_lock`] | locks on digests, for those who fetch blobs |
//! | [`mount`](mod@mount) | mounting and unmounting |
//! | [`owners`] | who owns the directories above a mount |
//! | [`foreign`] | owners that files only seem to have |
//! | [`content`], [`compared`] | changes, diffs, exports |
//! | [`lowers`], [`written`], [`backing`] | what mounts wrote, whatever they left in the layers below; the filesystem |
//! | [`spoiled`] | directories that give way to equal ones that were just filled |
//! | [`new_directory`] | the directories of new layers that are written to, which nobody syncs |
//! | [`unsynced`] | layers that are not on the disk yet, before their first use after a reboot |
//! | [`garbage`], [`tidy`] | what crashes left behind |
//! | [`event`], [`watch`] | following what is committed |
//! | [`backup`] | a copy of the database, and its size |
//! | [`quota`] | how much a layer may take |
//! | [`reown`] | other owners for all files of a layer |
//! | [`places`], [`files`] | where the files of a layer are, and single ones of them |
//! | [`usage`], [`size`] | how much there is, and whose it is |
//! | [`capability`] | what can be done here, and why the rest cannot |

mod additional;
mod ahead;
mod anything;
mod apply;
mod backing;
mod backup;
mod capability;
mod chunked;
mod compared;
mod container;
mod content;
mod digest_lock;
mod directory;
mod event;
mod files;
mod foreign;
mod garbage;
mod hint;
mod hold;
mod home;
mod image;
mod import;
mod layer;
mod lease;
mod lowers;
mod mapped;
mod mount;
mod new_directory;
mod open;
mod open_roots;
mod options;
mod owners;
mod part;
mod places;
mod programs;
mod query;
mod quota;
mod removal;
mod remove;
mod reown;
mod seal;
mod settings;
mod settle;
mod size;
mod snapshot;
mod spoiled;
mod staged;
#[cfg(test)]
mod tests;
mod thing;
mod tidy;
mod transient;
mod unseal;
mod unsynced;
mod usage;
mod userns;
mod users;
mod view;
mod watch;
mod wipe;
mod write;
mod written;

pub(crate) use additional::blob_as_delivered;
pub use additional::{AdditionalLayer, AdditionalLayerStore};
pub use anything::Things;
pub use backing::NativeDiff;
pub use backup::{BackupMode, CompactReport};
pub use capability::{Capability, CapabilityValue};
pub use container::ContainerOptions;
pub use content::DiffOptions;
pub use digest_lock::DigestLock;
pub use event::{Aspect, Event, EventKind, Subject};
pub use files::LayerFiles;
pub use garbage::Uncollected;
pub(crate) use garbage::{Leftovers, Sweep, Swept, find_leftovers};
pub(crate) use hint::way_past_refusal;
pub use image::{ImageOptions, NewItem};
pub(crate) use import::{BlobInput, ImageImport, LayerImport};
pub use layer::LayerOptions;
pub use lease::Lease;
pub(crate) use lease::{is_over, is_unmounted};
pub use mount::{Backing, Mount, MountEntry, MountOptions, MountParts, OverlayDefaults, UnmountMode};
pub use open::Store;
pub use open_roots::OpenRoot;
pub use options::{StoreOptions, SyncMode};
pub use owners::ParentOwners;
pub use places::LayerPlaces;
pub use quota::{Quota, QuotaUsage};
pub use removal::Removal;
pub(crate) use remove::Mounts;
pub use seal::SealOptions;
pub(crate) use snapshot::{Loss, refuse_loss};
pub use staged::{ApplyOptions, StagedDiff};
pub use thing::{Thing, ThingId};
pub use usage::{Status, Usage};
pub use userns::{AutoIdDefaults, AutoIdMaps, HostRanges, IdMapping};
pub(crate) use users::Gone;
pub(crate) use view::View;
pub use watch::{Watch, WatchOptions};
pub use wipe::WipeOptions;
pub use write::WriteTxn;
