//! What is to be mounted, and the plan that [`options`](super::options) make of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rustix::mount::MountAttrFlags;

use super::probe::{ErofsSupport, IdMapSupport};
use crate::composefs::Built;
use crate::sys::userns::IdMaps;

/// Where the attributes live that make a directory opaque or a file a whiteout. A property of the store: layers
/// written for one class mean nothing to a mount of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XattrClass {
    /// `trusted.overlay.*`, for root of the first user namespace.
    Trusted,
    /// `user.overlay.*` (option `userxattr`), for user namespaces.
    User,
}

impl XattrClass {
    /// The prefix of the attributes.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            XattrClass::Trusted => "trusted.overlay.",
            XattrClass::User => "user.overlay.",
        }
    }
}

/// The writable part of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upper {
    /// Where changes land. Its own owner and mode are those of the merged root.
    pub(crate) upper: PathBuf,
    /// An empty directory on the same filesystem, used by this mount alone.
    pub(crate) work: PathBuf,
}

/// What is to be mounted. All paths are absolute.
#[derive(Debug, Clone)]
pub(crate) struct MountRequest {
    /// The layers' directories, topmost first. The same directory may come several times.
    pub(crate) lowers: Vec<PathBuf>,
    /// The writable directory; `None` for a view.
    pub(crate) upper: Option<Upper>,
    /// An empty directory that no layer uses, for stacks of fewer than two.
    pub(crate) empty: PathBuf,
    /// The directory that most others are below: relative paths start here where options must be short.
    pub(crate) base: PathBuf,
    /// Show the upper directory as the topmost layer, and write nothing.
    pub(crate) read_only: bool,
    /// Skip syncs. After a crash the upper directory is in doubt, and the kernel refuses to mount it.
    pub(crate) volatile: bool,
    /// The SELinux label of everything in the mount.
    pub(crate) context: Option<String>,
    /// Whether modes and owners of some layer stand in an attribute, and whether those of the upper directory do.
    pub(crate) masked: Masked,
    /// Whether the kernel knows labels. Where it does not, none is given to it.
    pub(crate) has_labels: bool,
    /// Show the lower layers' ids (`inside`) as others (`outside`). The upper directory is not mapped: it holds
    /// the ids as the container's processes have them outside.
    pub(crate) id_map: Option<IdMaps>,
    /// The class of the layers' attributes.
    pub(crate) xattrs: XattrClass,
    /// More options, such as `nodev`; see [`plan`](super::plan) for which.
    pub(crate) options: Vec<String>,
    /// Mount with the probe's program even where the kernel could.
    pub(crate) prefer_program: bool,
    /// The image that is the lowest of [`lowers`](Self::lowers), by its path there.
    pub(crate) images: BTreeMap<PathBuf, Built>,
}

impl MountRequest {
    /// A view of nothing, for the fields to be filled in.
    pub(crate) fn new(base: impl Into<PathBuf>, empty: impl Into<PathBuf>, xattrs: XattrClass) -> Self {
        MountRequest {
            lowers: Vec::new(),
            upper: None,
            empty: empty.into(),
            base: base.into(),
            read_only: false,
            volatile: false,
            context: None,
            masked: Masked::default(),
            has_labels: true,
            id_map: None,
            xattrs,
            options: Vec::new(),
            prefer_program: false,
            images: BTreeMap::new(),
        }
    }
}

/// Which directories of a mount have modes and owners in an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Masked {
    /// One of them.
    pub(crate) any: bool,
    /// The upper one.
    pub(crate) upper: bool,
}

/// How a plan is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Method {
    /// One `lowerdir+` per layer, as an open directory (Linux 6.13).
    Descriptors,
    /// One `lowerdir+` per layer, as a path (Linux 6.5).
    Paths,
    /// `mount(2)` with all layers in one option string.
    OptionString,
    /// A read-only bind mount of the only lower directory, which is empty.
    Bind,
    /// The same with `mount(2)`.
    BindCall,
    /// A program that takes the options of `mount(2)`, such as fuse-overlayfs.
    Program(PathBuf),
}

/// A mount, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountPlan {
    pub(super) method: Method,
    /// Topmost first, each once, at least one with an upper directory and two without.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) upper: Option<Upper>,
    pub(super) base: PathBuf,
    /// Options of the filesystem, with their values.
    pub(super) settings: Vec<(&'static str, Option<&'static str>)>,
    /// Attributes of the mount.
    pub(super) attributes: MountAttrFlags,
    pub(super) context: Option<String>,
    pub(super) id_map: Option<(IdMaps, IdMapSupport)>,
    /// The lower directory that has the outer ids already: the upper one, where nothing is written.
    pub(super) unmapped: Option<PathBuf>,
    /// The image that is the lowest of them, by its path, and how it is mounted.
    pub(super) images: BTreeMap<PathBuf, Built>,
    pub(super) erofs: ErofsSupport,
}

impl MountPlan {
    /// Whether nothing can be written through the mount.
    pub(crate) fn is_read_only(&self) -> bool {
        self.upper.is_none()
    }

    /// Whether the kernel maps ids: what is written has the host's then. A program writes the container's.
    pub(crate) fn writes_host_ids(&self) -> bool {
        self.id_map.is_some() && !self.is_by_program()
    }

    /// Whether a program makes the mount, and writes to the upper directory.
    pub(crate) fn is_by_program(&self) -> bool {
        matches!(self.method, Method::Program(_))
    }

    /// The lower directories, topmost first.
    #[cfg(test)]
    pub(crate) fn lowers(&self) -> &[PathBuf] {
        &self.lowers
    }
}
