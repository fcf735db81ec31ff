//! Layers: import, seal, changes, export. Joins the directories with the records.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`ahead`] | the beginning of an archive, before anything is made for it |
//! | [`pipeline`] | a blob through its digests and its decompression, on threads |
//! | [`import`], [`member`], [`files`] | a stream into a directory, member by member |
//! | [`table`] | the table of contents that came with a stream |
//! | [`seal`](mod@seal) | that directory sealed |
//! | [`snapshot`] | which layers are snapshots of containerd's |
//! | [`stack`] | what a stack of layers shows at a path |
//! | [`changes`](mod@changes) | what a layer changes |
//! | [`compare`](mod@compare) | how what two stacks show differs |
//! | [`export`] | a layer as a tar stream |
//! | [`additional`] | what an additional layer store says of a layer |
//! | [`compressed`](mod@compressed) | that stream, compressed |
//! | [`idattr`] | ids inside extended attributes |
//! | [`resolve`](mod@resolve), [`links`] | what a mount left in the layers below |
//! | [`writable`] | directories that are written to |
//! | [`mapped`] | layers as one directory, with the owners of an id map |

mod additional;
mod ahead;
mod changes;
mod compare;
mod compressed;
mod export;
mod files;
mod idattr;
mod import;
mod links;
mod mapped;
mod member;
mod pipeline;
mod progress;
mod resolve;
mod seal;
mod snapshot;
mod stack;
mod table;
mod thing;
mod writable;

pub use additional::AdditionalLayerInfo;
pub use ahead::{Peeked, peek_archive, peek_archive_within};
pub use changes::{Change, ChangeKind};
pub(crate) use changes::{Mark, changes};
pub(crate) use compare::{Difference, compare};
pub(crate) use compressed::compressed;
pub(crate) use export::{export_differences, export_directory, export_original, map_owner};
pub(crate) use idattr::to_container as map_xattrs;
pub(crate) use import::{ImportOptions, UnpackedLayer, unpack};
pub(crate) use mapped::fill_mapped;
pub(crate) use pipeline::{Streams, read_layer};
pub use progress::{Progress, ProgressFn};
pub(crate) use resolve::{Holder, Place, resolve};
pub(crate) use seal::{SealedContent, SealedLayer, Shape, complete, seal};
pub(crate) use snapshot::{SNAPSHOT_KIND, SNAPSHOT_PREFIX, SnapshotName, snapshot_key, snapshot_name};
pub(crate) use stack::{Stack, hides_below};
pub(crate) use table::{Table, TocFound};
pub use thing::{Layer, LayerBlob};
pub(crate) use writable::{UNREAD, directory, listing, prepare_writable};
