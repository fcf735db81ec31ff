//! What a worker may do to a store, and what may come of it. Everything that an operation writes stands in it, so that
//! who reads the log knows what to look for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::content::Content;

/// One operation. Things named by id or unique name are the worker's own; images named by number, the names given to
/// them and the items of the arena are everybody's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Op {
    /// Creates a container, on an image of its own or on a shared one.
    Create {
        id: String,
        image: Option<String>,
        names: BTreeSet<String>,
        metadata: String,
        /// Its mounts leave out syncs.
        #[serde(default)]
        volatile: bool,
        /// It gets ids that no other container has.
        #[serde(default)]
        ids: bool,
    },
    /// Several changes of one container in one transaction, whose body fails in the end if it is to.
    Update {
        id: String,
        change: Change,
        fails: bool,
    },
    Mount {
        id: String,
    },
    Unmount {
        id: String,
    },
    /// Writes a file into a mounted container or layer.
    WriteFile {
        id: String,
        path: String,
        content: Content,
    },
    /// Makes the run directory, with a file in it.
    UseRunDirectory {
        id: String,
    },
    /// Writes the file in the container's directory.
    WriteData {
        id: String,
        content: Content,
    },
    /// Makes an image of a container.
    Commit {
        id: String,
        name: String,
    },
    Delete {
        id: String,
    },
    /// Removes a container, mounted or not.
    DeleteRegardless {
        id: String,
    },
    DeleteImage {
        name: String,
        id: String,
    },
    /// Names the top layer of an image, which keeps it when the image goes.
    NameLayer {
        layer: String,
        name: String,
    },
    DeleteLayer {
        layer: String,
    },
    /// Makes a layer: an empty one, one like another, or one with files. It stands on one of the worker's own, on that of
    /// a shared image, or on nothing.
    MakeLayer {
        id: String,
        name: String,
        parent: Option<String>,
        template: Option<String>,
        files: Option<BTreeMap<String, Content>>,
    },
    ApplyDiff {
        id: String,
        files: BTreeMap<String, Content>,
    },
    Seal {
        id: String,
    },
    Unseal {
        id: String,
    },
    DeleteOwn {
        id: String,
    },
    /// Makes a snapshot, above a committed one of the worker's own or above nothing.
    Prepare {
        key: String,
        parent: Option<String>,
    },
    /// Writes files into a snapshot and commits it, perhaps onto another parent.
    CommitSnapshot {
        key: String,
        name: String,
        onto: Option<String>,
        files: BTreeMap<String, Content>,
    },
    RemoveSnapshot {
        key: String,
    },
    /// Makes an image of a layer that is there.
    MakeImage {
        id: String,
        name: String,
        top: String,
    },

    /// Loads a shared image, with a name that others have too.
    Load {
        image: usize,
        name: String,
    },
    Remove {
        image: usize,
    },
    MountImage {
        image: usize,
    },
    UnmountImage {
        image: usize,
    },
    MoveName {
        name: String,
        image: usize,
    },
    RemoveName {
        name: String,
        image: usize,
    },
    /// Reads the tar of an image's top layer.
    Export {
        image: usize,
    },
    /// Removes a layer that something stands on, if it is there.
    RemoveLayerOfImage {
        image: usize,
    },
    /// Puts one of the items that all workers put.
    PutItem {
        key: String,
        content: Content,
    },
    /// Puts two items and the metadata in one transaction.
    PutPair {
        content: Content,
    },
    /// Lists images and names in one snapshot, and reads the items.
    ReadShared,
    /// Does something that only one may do at a time.
    LockDigest {
        number: usize,
    },

    Gc,
    Check {
        deep: bool,
    },
    DropBlobs,
}

/// What [`Op::Update`] changes; all of it is seen at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Change {
    pub names: Option<BTreeSet<String>>,
    pub metadata: Option<String>,
    /// The value of the flag that all containers have.
    #[serde(default)]
    pub flag: Option<String>,
    pub put: BTreeMap<String, Content>,
    pub remove: BTreeSet<String>,
}

/// What an operation came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Done(Answer),
    Refused(Refusal),
}

/// What an operation that was done returned.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// How many have asked for the mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The image that was made, and its top layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(String, String)>,
    /// What was read of the things that all workers have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

/// The shared things, as one reader saw them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shared {
    /// The ids of the images that were there.
    pub images: BTreeSet<String>,
    /// Who had which of the contended names.
    pub names: BTreeMap<String, String>,
    /// The word in each item of the arena, and in its metadata.
    pub items: BTreeMap<String, String>,
}

/// Why an operation was not done. Nothing of it is in the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    NotFound,
    NameInUse,
    InUse,
    /// Somebody is at the directory: a collection, perhaps, that looks after who died there.
    Busy,
    Mounted,
    /// The write lock was not to be had in the time that this worker waits.
    Locked,
    /// Something that was read was removed meanwhile.
    Vanished,
    /// The body of the transaction failed, as it was to.
    Aborted,
}
