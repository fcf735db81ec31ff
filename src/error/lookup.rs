//! Things that are not there, ambiguous, taken, or in use.

/// A thing was not found, or could not be told from another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// Nothing has this id, name or digest.
    #[error("no {kind} with the id, name or digest {key:?}")]
    NotFound {
        /// `layer`, `image`, `container`, or `layer, image or container`.
        kind: &'static str,
        /// What was asked for.
        key: String,
    },
    /// Several ids begin like this; or one does, and it is the name of another thing, twelve or more hex digits long.
    #[error("{prefix:?} could be {kind} {first}, {second}, or more; give more digits of the id")]
    Ambiguous {
        /// The kind of thing.
        kind: &'static str,
        /// What was asked for.
        prefix: String,
        /// One id that begins like this.
        first: String,
        /// Another.
        second: String,
    },
    /// An image has no layers to show or write out.
    #[error("the image {image} has no layers")]
    NoLayers {
        /// The image.
        image: String,
    },
    /// There is no lease with this id.
    #[error("there is no lease {id}")]
    NoLease {
        /// The id.
        id: String,
    },
    /// A thing has no data item with this key.
    #[error("the {kind} {id} has no data item {key:?}")]
    NoItem {
        /// The kind of thing.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The item's key.
        key: String,
    },
}

/// A thing cannot be made because another stands there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The id is taken.
    #[error("the {kind} {id} exists; choose another id, or remove it first")]
    IdInUse {
        /// The kind of thing.
        kind: &'static str,
        /// The id.
        id: String,
    },
    /// The id that was chosen is the name of another thing of the kind, which would not be found by it any more: an id
    /// goes before names.
    #[error(
        "the {kind} {holder} has the name {id:?}, and would not be found by it any more; choose another id"
    )]
    IdIsName {
        /// The kind of thing.
        kind: &'static str,
        /// The id.
        id: String,
        /// The one that has the name.
        holder: String,
    },
    /// A container's layer cannot carry others.
    #[error(
        "the layer {layer} belongs to the container {container}, and nothing else can stand on it; commit that first"
    )]
    ParentOfContainer {
        /// The layer.
        layer: String,
        /// The container.
        container: String,
    },
    /// A layer cannot stand on itself, nor on one that stands on it.
    #[error("the layer {parent} is or stands on the layer {layer}, which cannot be put above it")]
    ParentAbove {
        /// The layer.
        layer: String,
        /// The one that it was to stand on.
        parent: String,
    },
    /// The image needs more ids than a container may have.
    #[error(
        "the container needs {needed} ids, and no more than {limit} are allowed; give its size, or a larger limit"
    )]
    TooManyIds {
        /// How many it needs.
        needed: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// There are not enough free ids.
    #[error(
        "the container needs {needed} {kind}s, and {user} has {}; {} in /etc/sub{kind}",
        free_ids(*given, *free), if *given == 0 { "set some aside" } else { "remove containers, or set more aside" },
        kind = short(kind)
    )]
    TooFewIds {
        /// `user` or `group`.
        kind: &'static str,
        /// How many it needs.
        needed: u64,
        /// How many its user has been given.
        given: u64,
        /// How many of those are free.
        free: u64,
        /// Whose ids they are.
        user: String,
    },
    /// This process may not give files to the host's ids of the container's root.
    #[error(
        "the container's root would be the user {uid} and the group {gid}, to whom this process may not give files: {}",
        if *in_namespace { "they are not mapped in this user namespace" } else { "only root may" }
    )]
    IdsNotOurs {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
        /// Whether this is a user namespace.
        in_namespace: bool,
    },
    /// The image has no layer that a container could stand on.
    #[error("the image {id} has no layers; create the container without an image")]
    NoLayers {
        /// The image.
        id: String,
    },
}

/// A thing cannot be removed or changed because others need it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InUseError {
    /// A layer has layers above it.
    #[error("the layer {layer} has a layer above it: {child}; remove that first")]
    LayerHasChild {
        /// The layer.
        layer: String,
        /// One of its children.
        child: String,
    },
    /// A layer is an image's top layer.
    #[error("the layer {layer} belongs to the image {image}; remove that first")]
    LayerOfImage {
        /// The layer.
        layer: String,
        /// The image.
        image: String,
    },
    /// A layer is a container's own.
    #[error("the layer {layer} belongs to the container {container}; remove that first")]
    LayerOfContainer {
        /// The layer.
        layer: String,
        /// The container.
        container: String,
    },
    /// An image has containers.
    #[error("the image {image} is used by the container {container}; remove that first")]
    ImageOfContainer {
        /// The image.
        image: String,
        /// One of its containers.
        container: String,
    },
    /// A data item is a document that an image was loaded with.
    #[error("the data item {key:?} is a document of the image {image} itself; choose another key")]
    DocumentOfImage {
        /// The image.
        image: String,
        /// The item's key.
        key: String,
    },
    /// A layer is mounted.
    #[error("{what} is mounted at {target}; unmount it first")]
    Mounted {
        /// The layer or container.
        what: String,
        /// The mount point.
        target: String,
    },
    /// A layer is being written to through a mount that is not seen here: one of another mount namespace, or one that was taken
    /// away by hand while processes use it. Of what a program mounts, and of what is mounted for reading, nobody can tell.
    #[error(
        "{what} is in use through a mount that is not seen here, such as one of another `layerstore unshare`, or one that was \
         unmounted lazily; unmount it there, or end the processes that use it"
    )]
    MountedElsewhere {
        /// The layer or container.
        what: String,
    },
    /// A layer is to be mounted for writing, and is mounted for reading.
    #[error(
        "the layer {layer} is mounted for reading at {target}; unmount it there first, or ask for a mount for reading"
    )]
    MountedForReading {
        /// The layer.
        layer: String,
        /// The mount point.
        target: String,
    },
    /// A layer is never to be written to.
    #[error("the layer {layer} is read-only; make a layer above it")]
    ReadOnly {
        /// The layer.
        layer: String,
    },
    /// A layer is containerd's, which mounts it where the store cannot see it.
    #[error(
        "the layer {layer} is the snapshot {key:?} of containerd, which may have it mounted, and alone changes or \
         removes it"
    )]
    Snapshot {
        /// The layer.
        layer: String,
        /// The key of the snapshot, as the [snapshotter](crate::snapshotter) is asked for it.
        key: String,
    },
    /// Someone else is changing a layer.
    #[error("the layer {layer} is just being filled, sealed or copied; try again when that is done")]
    Busy {
        /// The layer.
        layer: String,
    },
    /// A layer was changed while it was worked on.
    #[error("the layer {layer} was changed by another process meanwhile; try again")]
    Changed {
        /// The layer.
        layer: String,
    },
    /// A lease keeps a thing for a while.
    #[error("{what} is kept by the lease {lease} until {expires}; wait, or end the lease")]
    Leased {
        /// The layer, image or container.
        what: String,
        /// The id of the lease.
        lease: String,
        /// When it ends, in RFC 3339.
        expires: String,
    },
    /// An image has several names, and the call would take all of them.
    #[error("the image {image} has the names {names}; remove it by its id, or take single names away")]
    SeveralNames {
        /// The image.
        image: String,
        /// Its names.
        names: String,
    },
}

impl InUseError {
    /// Whether a mount is in the way, which [`Store::end_mounts`](crate::Store::end_mounts) takes away.
    pub fn is_mounted(&self) -> bool {
        matches!(self, InUseError::Mounted { .. } | InUseError::MountedElsewhere { .. })
    }

    /// Whether images or other layers stand on a layer, which is changed all the same with
    /// [`change_under_others`](crate::MountOptions::change_under_others).
    pub fn is_below_others(&self) -> bool {
        matches!(self, InUseError::LayerHasChild { .. } | InUseError::LayerOfImage { .. })
    }
}

/// What a user has who was given so many ids, of which so many are free.
fn free_ids(given: u64, free: u64) -> String {
    match given {
        0 => "no range of them".to_owned(),
        _ => format!("{free} that no container uses"),
    }
}

/// The word for a kind of id in names of files.
fn short(kind: &str) -> &'static str {
    if kind == "group" { "gid" } else { "uid" }
}

#[cfg(test)]
mod tests {
    use super::CreateError;

    #[test]
    fn who_has_no_ids_is_told_so() {
        let told = |given, free| {
            CreateError::TooFewIds { kind: "group", needed: 9, given, free, user: "the user a".into() }
                .to_string()
        };
        let none =
            "the container needs 9 gids, and the user a has no range of them; set some aside in /etc/subgid";
        assert_eq!(told(0, 0), none);
        let few = "the container needs 9 gids, and the user a has 3 that no container uses; remove containers, or set \
                   more aside in /etc/subgid";
        assert_eq!(told(5, 3), few);
    }
}
