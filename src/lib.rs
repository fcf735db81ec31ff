//! An embedded storage engine for container layers, images and containers. No daemon.
//!
//! A *layer* is a file tree, given as changes to its parent layer. An *image* is a record that points at a top layer. A
//! *container* is a record with a writable layer of its own. Each has an id that never changes, names that move, a
//! metadata string, and data items: blobs of the caller's own.
//!
//! # A tour
//!
//! | to | use |
//! | --- | --- |
//! | open or make a store | [`Store::open`] with [`StoreOptions`] |
//! | bring an image in | [`Store::load`] from an [`oci::Source`] |
//! | make an image of a layer that is there | [`Store::create_image`] with [`ImageOptions`] |
//! | look around | [`Store::list`], [`Store::images`], [`Store::containers`], [`Store::layers`], [`Store::thing`] |
//! | make a container | [`Store::create_container`] with [`ContainerOptions`] |
//! | see and change its files | [`Store::mount`], [`Store::unmount`] |
//! | know what was changed | [`Store::changes`], or as a tar [`Store::diff`] |
//! | compare any two things | [`Store::changes_since`], [`Store::diff_with`], [`Store::diff_size`] |
//! | make layers of one's own | [`Store::create_layer`], [`Store::put_layer`], [`Store::apply_diff`], [`Store::seal`] |
//! | fetch only the parts of a layer that are not there | [`Store::stage_chunked`] from a [`RangeSource`] |
//! | use a layer that another program fills when it is read | [`StoreOptions::additional_layer_store`], [`Store::lookup_additional_layer`] |
//! | make an image of that | [`Store::commit`] |
//! | take an image out | [`Store::save`] to an [`oci::Reference`] |
//! | keep data with a thing | [`WriteTxn::put_item`], [`Store::item`], [`Store::items`] |
//! | keep files with a container | [`Store::container_directory`], [`Store::write_container_file`] |
//! | give a container ids of its own | [`IdMapping`] in [`ContainerOptions`] |
//! | change several records at once | [`Store::write`] |
//! | fetch a blob only once | [`Store::lock_digest`] |
//! | know what works here, and why the rest does not | [`Store::capabilities`] |
//! | know what takes the space | [`Store::usage`], [`Store::status`] |
//! | know whether anything changed, and what | [`Store::change_counter`], [`Store::watch`] |
//! | remove | [`Store::remove_container`], [`Store::remove_image`], [`Store::remove_layer`]; everything: [`Store::wipe`] |
//! | use the machine's `storage.conf` | [`StoreOptions::from_settings`] with [`config::Settings`] |
//! | read other stores; keep images in one of their own | [`StoreOptions::image_store`]; [`StoreOptions::image_store_root`] |
//! | only read; forget containers with the boot | [`StoreOptions::read_only`]; [`StoreOptions::transient`] |
//! | copy the database; make it smaller | [`Store::backup`]; [`Store::compact`] |
//! | grant less, or more, to who made an image | [`StoreOptions::limits`] with [`Limits`] |
//! | choose what waits for the disk | [`StoreOptions::sync`] with a [`SyncMode`], [`Store::sync`] |
//! | let equal files take their space once | [`Store::dedup`]; as they come in, [`StoreOptions::dedup_at_import`] |
//! | give containerd, or others like it, snapshots | [`snapshotter::Snapshotter`] |
//! | drive the store as containers/storage and moby drive theirs | [`graphdriver::Driver`] |
//! | find damage; mend it; remove what crashes left | [`Store::check`]; [`Store::repair`]; [`Store::gc`] |
//! | mount without being root | [`enter_user_namespace`], first of all |
//!
//! Ids, names and digests are types, so none is taken for another: [`LayerId`], [`ImageId`], [`ContainerId`], [`Name`],
//! [`Digest`], [`DiffId`]. What takes any kind of thing takes `impl Into<`[`ThingId`]`>`: an id, or a [`Layer`],
//! [`Image`] or [`Container`] by reference. Those three are values: what the store held when they were read.
//!
//! # Examples
//!
//! An image made from nothing, and carried from one store to another.
//!
//! ```
//! use layerstore::oci::{CommitOptions, LoadOptions, SaveOptions, Source};
//! use layerstore::{ContainerOptions, Store, StoreOptions};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let dir = dir.path();
//! let store = Store::open(&StoreOptions::at(dir.join("store")))?;
//! let container = store.create_container(None, &ContainerOptions::named("empty"))?;
//! let image = store.commit(&container.id, &CommitOptions::named("empty:1"))?;
//!
//! let layout = format!("oci:{}:1", dir.join("layout").display()).parse()?;
//! store.save(&image.id, &layout, &SaveOptions::default())?;
//!
//! let other = Store::open(&StoreOptions::at(dir.join("other")))?;
//! let source = Source::open(&layout, other.root())?;
//! let same = other.load(&source, &LoadOptions::named("empty:1"))?;
//! assert_eq!(same.id, image.id);
//! # Ok::<(), layerstore::Error>(())
//! ```
//!
//! `examples/quickstart.rs` does the same with a real image, a mount, and a process that runs in it.
//!
//! # Threads and processes
//!
//! A [`Store`] is cheap to clone, `Send` and `Sync`. Any number of processes may have the same store open. Readers see
//! the newest commit and wait for nobody; one writer at a time holds the write lock, for as long as its records take, and
//! others wait up to [`StoreOptions::lock_timeout`]. No lock is held while data moves: an import, an export or a removal
//! of any size stops nobody.
//!
//! The library prints nothing, never exits, and starts no thread that outlives a call, save for one that waits for a
//! lock after its call has given up. Long operations report to a [`ProgressFn`] and to `tracing`; [`measure`]
//! tells where their time went. It changes no signals of the process: a program that may be started with `SIGCHLD` ignored calls
//! [`hear_children`] first, and one that may have a limit for the size of files (`ulimit -f`) calls [`hear_file_limit`], as else a write
//! past it ends the process.
//!
//! # What survives a crash
//!
//! What a call returned from is on the disk, or with another [`SyncMode`] less of it. What was cut short, by a
//! signal or by a power cut, has not happened: a record never names a layer that is not whole. It may leave directories
//! that nothing names; they cost space until [`Store::gc`] removes them.
//!
//! Where the file of a database turns out to be damaged, a panic of the database library is kept in and becomes an error. So the
//! program must not be built with `panic = "abort"`, which leaves nothing to keep in.
//!
//! # Errors
//!
//! Every call returns [`Error`], which names the thing, the cause and, where there is something, what to do. Its variants
//! group the causes by domain, such as [`LookupError`] or [`MountError`]; all are `#[non_exhaustive]`.
//!
//! # More
//!
//! [Why it is as it is](https://github.com/layerstore/layerstore/blob/main/docs/design.md),
//! [every lock](https://github.com/layerstore/layerstore/blob/main/docs/locking.md),
//! [what is left after which event](https://github.com/layerstore/layerstore/blob/main/docs/durability.md),
//! [where what containers-storage has is here](https://github.com/layerstore/layerstore/blob/main/docs/compat.md), and
//! [the format on disk](https://github.com/layerstore/layerstore/blob/main/schema/FORMAT.md).
//!
//! # Features
//!
//! `cli` is the program `layerstore`, and `containerd` its command `snapshotter`. Both are on by default; library users switch them
//! off.

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

mod archive;
mod check;
mod chunked;
mod composefs;
mod compress;
pub mod config;
mod dedup;
mod disk;
mod error;
#[cfg(test)]
mod fault_tests;
#[cfg(any(test, feature = "__fuzzing"))]
#[allow(clippy::arithmetic_side_effects, reason = "a kit of tests; no part of what is built for users")]
#[doc(hidden)]
pub mod fuzzing;
mod gc;
pub mod graphdriver;
mod image;
mod layer;
mod meta;
pub mod oci;
mod overlay;
mod repair;
pub mod snapshotter;
mod store;
mod sys;
mod timing;
mod types;

/// The version of this library.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub use check::{CheckLevel, CheckOptions, CheckReport, Checked, Damage, Finding, Note, Remedy, SealedTree};
/// The README's examples are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use chunked::{BlobSpan, ChunkedBlob, RangeSource};
pub use compress::Compression;
pub use dedup::{DedupOptions, DedupReport, SkipReason, Skipped};
pub use error::{
    AdditionalLayerError, ArchiveError, BlobError, Choices, ChunkedError, CompressError, ConfigError,
    CreateError, Error, ExportError, ImportError, InUseError, LayoutError, Limit, LimitError, LookupError,
    MetaError, MountError, NamespaceError, OciError, ProbeTextError, QuotaError, RepairError, ScanError,
    SplitError, TreeError, UnpackError, UnsyncedError, ValueError, WatchError,
};
pub use gc::{Garbage, GarbageKind, GcReport};
pub use image::{Container, Image, Item, Kind};
pub use layer::{
    AdditionalLayerInfo, Change, ChangeKind, Layer, LayerBlob, Peeked, Progress, ProgressFn, peek_archive,
    peek_archive_within,
};
pub use repair::{RepairOptions, RepairReport, Repaired, Unrepaired};
pub use store::{
    AdditionalLayer, AdditionalLayerStore, ApplyOptions, Aspect, AutoIdDefaults, AutoIdMaps, Backing,
    BackupMode, Capability, CapabilityValue, CompactReport, ContainerOptions, DiffOptions, DigestLock, Event,
    EventKind, HostRanges, IdMapping, ImageOptions, LayerFiles, LayerOptions, LayerPlaces, Lease, Mount,
    MountEntry, MountOptions, MountParts, NativeDiff, NewItem, OpenRoot, OverlayDefaults, ParentOwners,
    Quota, QuotaUsage, Removal, SealOptions, StagedDiff, Status, Store, StoreOptions, Subject, SyncMode,
    Thing, ThingId, Things, Uncollected, UnmountMode, Usage, Watch, WatchOptions, WipeOptions, WriteTxn,
};
pub use sys::children::hear_children;
pub use sys::file_limit::hear_file_limit;
pub use sys::userns::{
    IdExtent, IdMaps, MappedIds, UserNamespace, WithoutRanges, enter_user_namespace, is_privileged,
};
pub use timing::{LayerTimings, Stage, Timings, measure};
pub use types::{
    Algorithm, ChainId, ContainerId, ContentHash, DiffId, Digest, Hasher, ImageId, LayerId, LeaseId, Limits,
    Metadata, Name, RelPath, Timestamp, TreeDigest,
};
