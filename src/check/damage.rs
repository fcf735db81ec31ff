//! What a check can find: one variant, one stable code and one sentence for each kind of damage.

use std::path::PathBuf;

use super::SealedTree;
use crate::types::{ContentHash, TreeDigest};

/// Defines [`Damage`]. Of each kind there are a doc, the variant, its code, what it is in, the sentence, and the fields; nothing of
/// that can be forgotten.
macro_rules! damages {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident, $code:literal, $thing:literal, $text:literal, {
            $($(#[doc = $field_doc:literal])+ $field:ident: $type:ty,)+
        }
    )+) => {
        /// One kind of damage, or one thing out of place. The text says what is wrong with which thing.
        #[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
        #[non_exhaustive]
        pub enum Damage {
            $(
                $(#[doc = $doc])+
                #[error($text)]
                $variant { $($(#[doc = $field_doc])+ $field: $type,)+ },
            )+
        }

        impl Damage {
            /// A word for the kind of damage, for programs: it stays the same in all releases.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Damage::$variant { .. } => $code,)+
                }
            }

            /// What the damage is in, such as `layer 5f70bf18a086`.
            pub fn thing(&self) -> String {
                match self {
                    $(
                        #[allow(unused_variables, reason = "one or two of the fields name the thing")]
                        Damage::$variant { $($field,)+ } => format!($thing),
                    )+
                }
            }

            /// Every code there is.
            pub const CODES: &[&str] = &[$($code),+];
        }
    };
}

damages! {
    /// A record cannot be read, or says something that no record says.
    RecordDamaged, "record-damaged", "{kind} {key}",
    "the {kind} record {key} is damaged: {reason}", {
        /// Which kind of record.
        kind: &'static str,
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    }
    /// A layer stands on a layer that is not there.
    ParentMissing, "parent-missing", "layer {layer}",
    "layer {layer} stands on the layer {parent}, which is not there; if it is in another store, open that one too \
     (--image-store)", {
        /// The layer.
        layer: String,
        /// The missing one.
        parent: String,
    }
    /// Layers stand on each other in a circle.
    ParentCycle, "parent-cycle", "layer {layer}",
    "layer {layer} stands on itself, by way of {length} parents", {
        /// The first layer of the circle by id.
        layer: String,
        /// How many layers the circle has.
        length: u64,
    }
    /// An image's top layer is not there.
    ImageLayerMissing, "image-layer-missing", "image {image}",
    "image {image} has the top layer {layer}, which is not there; if it is in another store, open that one too \
     (--image-store)", {
        /// The image.
        image: String,
        /// The missing layer.
        layer: String,
    }
    /// A container's layer is not there.
    ContainerLayerMissing, "container-layer-missing", "container {container}",
    "container {container} has the layer {layer}, which is not there", {
        /// The container.
        container: String,
        /// The missing layer.
        layer: String,
    }
    /// A container's image is not there.
    ContainerImageMissing, "container-image-missing", "container {container}",
    "container {container} was made from the image {image}, which is not there; if it is in another store, open that one \
     too (--image-store)", {
        /// The container.
        container: String,
        /// The missing image.
        image: String,
    }
    /// Several things of one kind have the same name.
    NameShared, "name-shared", "{kind} {holder}",
    "the {kind} {holder} has the name {name:?}, which {other} has too", {
        /// `layer`, `image` or `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// One that has it.
        holder: String,
        /// The one that is found by it, or the first.
        other: String,
    }
    /// A record implies an index row that is not there.
    IndexRowMissing, "index-row-missing", "{thing}",
    "{thing} is not found by {key:?}: the index {table} lacks its row", {
        /// Kind and id of the thing.
        thing: String,
        /// The index.
        table: &'static str,
        /// What the thing should be found by.
        key: String,
    }
    /// An index row that no record implies.
    IndexRowExtra, "index-row-extra", "{thing}",
    "{thing} is found by {key:?}, which its record does not say: the index {table} has a row too many", {
        /// Kind and id of the thing that the row leads to.
        thing: String,
        /// The index.
        table: &'static str,
        /// What the row is found by.
        key: String,
    }
    /// A sum over all records is not their sum.
    UsageWrong, "usage-wrong", "sum {sum}",
    "the sum {sum} is {stored}, and its records add up to {counted}", {
        /// Which sum.
        sum: String,
        /// What the database says.
        stored: u64,
        /// What the records say.
        counted: u64,
    }
    /// A sealed layer has no row that says where its files are.
    TreeMissing, "tree-missing", "layer {layer}",
    "layer {layer} has the content {tree}, and no row says which directory holds it", {
        /// The layer.
        layer: String,
        /// Its tree digest.
        tree: String,
    }
    /// A directory's row has no layer.
    TreeUnused, "tree-unused", "tree {tree}",
    "the tree {tree} in {path:?} belongs to no layer", {
        /// The tree digest.
        tree: String,
        /// Its directory.
        path: PathBuf,
    }
    /// Two rows name one directory.
    DirectoryShared, "directory-shared", "{thing}",
    "{path:?} is the directory of {thing} and of {other}", {
        /// One of its users.
        thing: String,
        /// The other.
        other: String,
        /// The directory.
        path: PathBuf,
    }
    /// The directory that an image or a container has for its caller is not there, or cannot be opened.
    DataMissing, "data-missing", "{kind} {id}",
    "the {kind} {id} has its caller's files in {path:?}, which cannot be opened: {reason}", {
        /// `image` or `container`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    }
    /// A layer's directory is not there.
    DirectoryMissing, "directory-missing", "{thing}",
    "{thing} has its files in {path:?}, which is not there", {
        /// The layer or layers.
        thing: String,
        /// The digest of what should be in it; `None` if the layer is written to.
        tree: Option<TreeDigest>,
        /// The directory.
        path: PathBuf,
    }
    /// A layer's directory cannot be read.
    DirectoryUnreadable, "directory-unreadable", "{thing}",
    "{thing}: its directory {path:?} cannot be read: {reason}", {
        /// The layer or layers.
        thing: String,
        /// The digest of what should be in it; `None` if the layer is written to.
        tree: Option<TreeDigest>,
        /// The directory.
        path: PathBuf,
        /// Why.
        reason: String,
    }
    /// This process may not read it, so it is not known whether it is damaged: the mode of a file or directory may keep its owner out,
    /// and what belongs to another user of a user namespace is read there. Of the path, or of what is in it, nothing was compared but
    /// what could be seen.
    NotExamined, "not-examined", "{thing}",
    "{thing}: this user may not read {path:?}, so it was not examined: {reason}", {
        /// What has it: layers, an image, a container or a kept blob.
        thing: String,
        /// The path below the layer's root, or the directory or file of the store's.
        path: PathBuf,
        /// The kernel's answer.
        reason: String,
        /// Whether that may be for its mode or its owner (EACCES), and not for something else (EPERM).
        by_mode: bool,
    }
    /// Its mode keeps its owner out, who is this user, and the mode that it should have does not. Nothing more is known of it.
    ModeLost, "mode-lost", "{thing}",
    "{thing}: {path:?} has mode {mode:04o}, which keeps its owner out, instead of {expected:04o}", {
        /// What has it: layers, an image, a container or a kept blob.
        thing: String,
        /// The directory or file.
        path: PathBuf,
        /// Its mode: permission bits.
        mode: u16,
        /// The mode on record, or the one that the store gives.
        expected: u16,
    }
    /// The files of a layer are in an additional layer store, and not there.
    AdditionalMissing, "additional-missing", "layer {layer}",
    "layer {layer} has its files in {path:?}, in an additional layer store, and it cannot be opened: {reason}", {
        /// The layer.
        layer: String,
        /// The directory in that store.
        path: PathBuf,
        /// Why.
        reason: String,
    }
    /// A manifest cannot be read, or is not the one that the tree digest names.
    ManifestDamaged, "manifest-damaged", "{tree}",
    "{tree}: the manifest is damaged: {reason}", {
        /// The layer or layers.
        tree: SealedTree,
        /// What is wrong with it.
        reason: String,
    }
    /// A path of a sealed layer is gone.
    PathMissing, "path-missing", "{tree}",
    "{tree}: {path:?} is missing", {
        /// The layer or layers.
        tree: SealedTree,
        /// The path below the layer's root.
        path: PathBuf,
    }
    /// A sealed layer has a path that it did not have.
    PathExtra, "path-extra", "{tree}",
    "{tree}: {path:?} does not belong to it", {
        /// The layer or layers.
        tree: SealedTree,
        /// The path below the layer's root.
        path: PathBuf,
    }
    /// A path of a sealed layer is of another kind or size, or has other metadata.
    PathChanged, "path-changed", "{tree}",
    "{tree}: {path:?} has changed ({what})", {
        /// The layer or layers.
        tree: SealedTree,
        /// The path below the layer's root.
        path: PathBuf,
        /// What differs: words such as `mode` or `size`, separated by commas.
        what: String,
    }
    /// A file of a sealed layer has other bytes.
    ContentChanged, "content-changed", "{tree}",
    "{tree}: the content of {path:?} has changed", {
        /// The layer or layers.
        tree: SealedTree,
        /// The path below the layer's root.
        path: PathBuf,
        /// The content it should have.
        expected: ContentHash,
        /// The content it has.
        found: ContentHash,
    }
    /// More paths differ than are listed.
    MorePaths, "more-paths", "{tree}",
    "{tree}: {count} more paths differ", {
        /// The layer or layers.
        tree: SealedTree,
        /// How many.
        count: u64,
    }
    /// The tar-split cannot be joined with the files.
    SplitDamaged, "split-damaged", "layer {layer}",
    "layer {layer} does not give its original archive: {reason}", {
        /// The layer.
        layer: String,
        /// What does not fit.
        reason: String,
    }
    /// The archive that the layer gives is not the one it came as.
    DiffIdWrong, "diff-id-wrong", "layer {layer}",
    "layer {layer} gives an archive with the diffID {found}, and its own is {expected}", {
        /// The layer.
        layer: String,
        /// The layer's diffID.
        expected: String,
        /// What came out.
        found: String,
    }
    /// A data item belongs to nothing.
    ItemUnowned, "item-unowned", "{owner}",
    "the data item {key:?} belongs to {owner}, which is not there", {
        /// Kind and id of the missing thing.
        owner: String,
        /// The item's key.
        key: String,
    }
    /// A data item's bytes are not those that its record tells of.
    ItemDamaged, "item-damaged", "{owner}",
    "the data item {key:?} of {owner} does not have its {what}", {
        /// Kind and id of the thing.
        owner: String,
        /// The item's key.
        key: String,
        /// `size` or `digest`.
        what: &'static str,
    }
    /// A record refers to bytes that the database does not have.
    BlobMissing, "blob-missing", "{user}",
    "{user} needs the bytes {hash}, which the database does not have", {
        /// Who refers to them.
        user: String,
        /// Their hash.
        hash: String,
    }
    /// The count of a blob's users is not their number.
    BlobUsersWrong, "blob-users-wrong", "bytes {hash}",
    "the bytes {hash} count {stored} users and have {counted}", {
        /// Their hash.
        hash: String,
        /// What the record says.
        stored: u64,
        /// How many records refer to them.
        counted: u64,
    }
    /// A blob's chunks are not all there, or belong to no blob.
    BlobChunksWrong, "blob-chunks-wrong", "bytes {hash}",
    "the bytes {hash} should be stored in {expected} bytes, and {found} are there", {
        /// Their hash, or the number of a blob without record.
        hash: String,
        /// The stored bytes there should be.
        expected: u64,
        /// The stored bytes there are.
        found: u64,
    }
    /// A blob's bytes do not have their hash.
    BlobDamaged, "blob-damaged", "bytes {hash}",
    "the bytes {hash} in the database are damaged: {reason}", {
        /// Their hash.
        hash: String,
        /// What happened when they were read.
        reason: String,
    }
    /// A lease keeps something that is not there.
    LeaseDangling, "lease-dangling", "lease {lease}",
    "the lease {lease} keeps {thing}, which is not there", {
        /// The lease.
        lease: String,
        /// Kind and id of what is missing.
        thing: String,
    }
    /// A kept layer blob has no file.
    KeptBlobMissing, "kept-blob-missing", "kept blob {digest}",
    "the kept blob {digest} should be in {path:?}, which is not there", {
        /// Its digest.
        digest: String,
        /// The file.
        path: PathBuf,
    }
    /// A kept layer blob has another size, or bytes that do not have its digest.
    KeptBlobDamaged, "kept-blob-damaged", "kept blob {digest}",
    "the kept blob {digest} in {path:?} is damaged: {reason}", {
        /// Its digest.
        digest: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    }
    /// A kept layer blob that no layer came from.
    KeptBlobUnused, "kept-blob-unused", "kept blob {digest}",
    "the kept blob {digest} belongs to no layer", {
        /// Its digest.
        digest: String,
    }
    /// Two containers write to one layer.
    ContainerLayerShared, "container-layer-shared", "container {container}",
    "container {container} has the layer {layer}, which {other} has too", {
        /// One container.
        container: String,
        /// The layer.
        layer: String,
        /// The container that the index names for it, or the first.
        other: String,
    }
    /// An image has no longer the manifest or config that it was loaded with.
    DocumentMissing, "document-missing", "image {image}",
    "image {image} lacks its document {key:?}, and cannot be saved", {
        /// The image.
        image: String,
        /// The key of the data item.
        key: String,
    }
    /// The header of the database does not fit the marker file.
    HeaderWrong, "header-wrong", "header",
    "the database's header does not fit the marker file LAYERSTORE: {what}", {
        /// What differs.
        what: String,
    }
    /// A row of the journal cannot be read.
    JournalDamaged, "journal-damaged", "journal",
    "the journal's row {number} is damaged: {reason}", {
        /// Its number.
        number: u64,
        /// What is wrong.
        reason: String,
    }
    /// The composefs image of a sealed layer, or a file of it, is not what the layer's manifest says.
    ComposefsChanged, "composefs-changed", "composefs image {number}",
    "the composefs image {number} of {tree} is not as it was made: {reason}", {
        /// The directory that it is of.
        tree: SealedTree,
        /// The number of both.
        number: u64,
        /// What is wrong.
        reason: String,
    }
    /// A mount's record in the run database cannot be read, or is none of a layer's.
    MountRecordDamaged, "mount-record-damaged", "mount of {layer}",
    "the mount record of layer {layer} is damaged: {reason}", {
        /// The layer's id, as the row has it.
        layer: String,
        /// What is wrong.
        reason: String,
    }
    /// A note that something is not synced, of something that nothing has.
    UnsyncedUnused, "unsynced-unused", "number {number}",
    "the number {number} is noted as not synced, and no directory or blob has it", {
        /// The number.
        number: u64,
    }
    /// Other users can enter the root or the run root.
    RootOpen, "root-open", "{path:?}",
    "{path:?} has mode {mode:04o}, so other users can reach the files of images, set-id programs too", {
        /// The root or run root.
        path: PathBuf,
        /// Its mode: permission bits.
        mode: u16,
    }
    /// Something in the store's directories that the store never writes.
    Stray, "stray", "{path:?}",
    "{path:?} is nothing that a store has", {
        /// Where it is.
        path: PathBuf,
    }
    /// Something in the store's root that containers-storage makes: two programs have their stores in one directory.
    Neighbour, "neighbour", "{path:?}",
    "{path:?} is of containers-storage (podman, buildah, skopeo), which uses the same directory", {
        /// Where it is.
        path: PathBuf,
    }
}

impl Damage {
    /// Whether a row may be what is wrong, or bytes that are kept in the database: they say what is not so. What is known of a file
    /// by more than its place in the store is wrong by itself.
    pub(crate) fn may_be_of_rows(&self) -> bool {
        !matches!(
            self,
            Damage::DirectoryUnreadable { .. }
                | Damage::NotExamined { .. }
                | Damage::ModeLost { .. }
                | Damage::AdditionalMissing { .. }
                | Damage::PathMissing { .. }
                | Damage::PathExtra { .. }
                | Damage::PathChanged { .. }
                | Damage::ContentChanged { .. }
                | Damage::MorePaths { .. }
                | Damage::ComposefsChanged { .. }
                | Damage::KeptBlobDamaged { .. }
                | Damage::MountRecordDamaged { .. }
                | Damage::RootOpen { .. }
                | Damage::Stray { .. }
                | Damage::Neighbour { .. }
        )
    }
}
