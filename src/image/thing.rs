//! The values that describe images, containers and data items.

use std::fmt;
use std::path::PathBuf;

use layerstore_schema::table::Owner;

use crate::sys::userns::IdMaps;
use crate::types::{ContainerId, Digest, ImageId, LayerId, Name, Timestamp};

/// The kinds of things that a store holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A layer: a file tree as changes to its parent.
    Layer,
    /// An image: a record that points at a top layer.
    Image,
    /// A container: a record with a writable layer of its own.
    Container,
}

impl Kind {
    /// The word for messages: `layer`, `image` or `container`.
    pub fn word(self) -> &'static str {
        self.owner().word()
    }

    pub(crate) fn owner(self) -> Owner {
        match self {
            Kind::Layer => Owner::Layer,
            Kind::Image => Owner::Image,
            Kind::Container => Owner::Container,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// An image: a record that points at a top layer, with names and data items.
///
/// A value is what the store held when it was read; it does not follow later changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The permanent id; for an image that was loaded, the hex digits of its config's digest.
    pub id: ImageId,
    /// The movable names.
    pub names: Vec<Name>,
    /// Every name the image has had, the newest first.
    pub names_history: Vec<Name>,
    /// The caller's small string.
    pub metadata: String,
    /// When the image was made: what its config says, else when it came into the store.
    pub created: Timestamp,
    /// The topmost layer; `None` for an image without layers.
    pub top_layer: Option<LayerId>,
    /// Copies of the top layer for other id maps.
    pub mapped_top_layers: Vec<LayerId>,
    /// Every digest that the image is known by: those given to it, and those of its manifests.
    pub digests: Vec<Digest>,
    /// The data items that are manifests (`manifest`, `manifest-...`), with the digest that the image is known by for the
    /// sake of each.
    pub manifests: Vec<(String, Digest)>,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// The root of the other store that it was read from (see [`StoreOptions::image_store`](crate::StoreOptions::image_store));
    /// `None` for one of the store's own.
    pub image_store: Option<PathBuf>,
}

/// A container: a record with a writable layer of its own.
///
/// A value is what the store held when it was read; it does not follow later changes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// The permanent id.
    pub id: ContainerId,
    /// The movable names.
    pub names: Vec<Name>,
    /// The image it was made from.
    pub image: Option<ImageId>,
    /// Its writable layer.
    pub layer: LayerId,
    /// The caller's small string.
    pub metadata: String,
    /// When it was created.
    pub created: Timestamp,
    /// Flags: name and JSON value.
    pub flags: Vec<(String, String)>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Overlay options that every mount of it gets.
    pub mount_options: Vec<String>,
    /// The SELinux label that every mount of it gets.
    pub mount_label: Option<String>,
    /// The SELinux label of its processes.
    pub process_label: Option<String>,
    /// Whether its mounts skip syncs.
    pub volatile: bool,
    /// How its ids map to the host's; `None` if they are the same.
    pub id_maps: Option<IdMaps>,
}

/// What is known of a data item without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The key under which its thing has it.
    pub key: String,
    /// Length in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub digest: Digest,
}
