//! The error over all errors.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use super::{
    AdditionalLayerError, ConfigError, CreateError, ExportError, ImportError, InUseError, LayoutError,
    LimitError, LookupError, MetaError, MountError, OciError, QuotaError, RepairError, ScanError, TreeError,
    UnsyncedError, ValueError, WatchError, denied,
};

/// Whatever went wrong. The variant says where; the message names the thing and the cause; [`hint`](Self::hint)
/// says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Text is no id, name, digest or path.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An option of a storage driver means nothing, or asks for what there is not.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A thing was not found, or not told from another.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A thing cannot be made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A thing is needed by others.
    #[error(transparent)]
    InUse(#[from] InUseError),
    /// The root directory is no store, or cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Another store that is to be read beside this one is none, or cannot be used.
    #[error("the image store {} cannot be read", root.display())]
    ImageStore {
        /// Its root directory, as it was given.
        root: PathBuf,
        /// What is wrong with it.
        source: LayoutError,
    },
    /// The database failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// A layer cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A layer cannot be written out.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A layer was not on the disk yet when the machine went down.
    #[error(transparent)]
    Unsynced(#[from] UnsyncedError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// What a layer may take cannot be limited.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// An image outside the store cannot be read or written.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// Changes cannot be followed any more, or not without a gap.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Something cannot be repaired.
    #[error(transparent)]
    Repair(#[from] RepairError),
    /// A layer's directory cannot be read.
    #[error("cannot read a layer's directory")]
    Scan(#[from] ScanError),
    /// The directory of a layer is not there.
    #[error("the directory {} of the layer {layer} is missing", path.display())]
    LayerMissing {
        /// The layer.
        layer: String,
        /// Where its directory should be.
        path: PathBuf,
    },
    /// A layer in an additional layer store cannot be used.
    #[error(transparent)]
    AdditionalLayer(#[from] AdditionalLayerError),
    /// A directory tree cannot be copied, measured or removed.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] io::Error),
    /// A file or directory beside the store's own cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The database of a store is gone, and its directories are not.
    #[error(
        "{} has layers and no database; restore store.redb from a backup, or move the directory away to start anew",
        root.display()
    )]
    DatabaseMissing {
        /// The root directory.
        root: PathBuf,
    },
    /// A configuration file, or the program that is to mount, stands where images and containers decide what there is.
    #[error(
        "the {what} {} is part of the store {}, and what is in a store decides nothing: copy it to another place, and name \
         that",
        path.display(),
        root.display()
    )]
    InsideStore {
        /// `configuration file` or `mount program`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The root or run root of a store whose tree it is in.
        root: PathBuf,
    },
    /// The program that is to mount, where somebody else could put another.
    #[error(
        "the mount program {} is not run, as others could put another there: {} {by}; take that right away",
        program.display(),
        path.display()
    )]
    ExposedProgram {
        /// The program.
        program: PathBuf,
        /// The program, or the directory on the way to it, that others could change.
        path: PathBuf,
        /// Who could, as the end of a sentence.
        by: String,
    },
    /// Output that would go over a file of a store, or among its files.
    #[error(
        "{} is a file of the store {}, or in a directory of the store; choose a path outside of it",
        path.display(),
        root.display()
    )]
    OwnPlace {
        /// The path.
        path: PathBuf,
        /// The root directory of the store.
        root: PathBuf,
    },
    /// The store was opened for reading only, or lies on a filesystem that is read-only.
    #[error(
        "the store {} {}",
        root.display(),
        if *by_filesystem { "cannot be changed: its filesystem is mounted read-only" } else { "is open for reading only" }
    )]
    ReadOnly {
        /// The root directory.
        root: PathBuf,
        /// Whether that is for the filesystem, and nobody asked for it.
        by_filesystem: bool,
    },
    /// A thing that was to be changed is in another store, which is only read.
    #[error(
        "the {kind} {id} is in the store {}, which is only read here; {}",
        root.display(),
        if *kind == "image" { "open that store to remove it, or give it a name first, which makes a record of it here" } else { "open that store to change it or remove it" }
    )]
    InOtherStore {
        /// `layer` or `image`.
        kind: &'static str,
        /// Its id.
        id: String,
        /// The root directory of the other store.
        root: PathBuf,
    },
    /// An image or layer is to stand on a layer that only the own store has, and to be in the separate store for images.
    #[error(
        "the layer {layer} is in the store {}, and what is made new goes to the store for images {}, which has to be whole \
         without it; open the store without its store for images to make something that stands on this layer",
        root.display(),
        images.display()
    )]
    OutsideImages {
        /// The layer.
        layer: String,
        /// The root directory of the own store.
        root: PathBuf,
        /// That of the store for images.
        images: PathBuf,
    },
    /// Files on the store's filesystem cannot share their extents.
    #[error("files on {filesystem} cannot share their space, and the store {} is there", root.display())]
    CannotShare {
        /// The root directory.
        root: PathBuf,
        /// The type of the filesystem, as the kernel's mount table has it.
        filesystem: String,
    },
    /// A store was named as another one to read beside itself.
    #[error("{} and the store for images to read beside it are one store; leave the second out", root.display())]
    SameStore {
        /// The root directory.
        root: PathBuf,
    },
    /// The layers of two stores use attributes of different kinds, so no mount can join them.
    #[error(
        "the stores {} and {} cannot be used together: one was made by the machine's root, the other was not",
        root.display(),
        other.display()
    )]
    OtherClass {
        /// The root directory of the store.
        root: PathBuf,
        /// That of the other.
        other: PathBuf,
    },
    /// Containers that the next boot drops are in another run root.
    #[error(
        "this boot has transient containers in the run root {}; use that one, or remove them first",
        run_root.display()
    )]
    TransientElsewhere {
        /// The run root that has them.
        run_root: PathBuf,
    },
    /// The marker of a store is missing or damaged, and its database is there.
    #[error(
        "{} {problem}, and the database beside it is a store's; write these lines into the file: {}",
        path.display(), quoted_lines(content)
    )]
    Marker {
        /// The marker file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What has to be in it.
        content: String,
    },
    /// The machine's root made the store, and its layers use attributes that only root has.
    #[error(
        "the store {} belongs to the machine's root, and this process is not root or in a user namespace; \
         use another root directory",
        root.display()
    )]
    NeedsRoot {
        /// The root directory.
        root: PathBuf,
    },
}

fn quoted_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("`{line}`")).collect();
    lines.join(", ")
}

impl Error {
    /// The limit that what comes in went beyond, if that is what is wrong: [`StoreOptions::limits`](crate::StoreOptions::limits)
    /// can grant more.
    ///
    /// # Examples
    ///
    /// ```
    /// use layerstore::{Limit, LayerOptions, Limits, Store, StoreOptions};
    ///
    /// # let dir = tempfile::tempdir().unwrap();
    /// let limits = Limits::default().with("unpacked_bytes", 1000)?;
    /// let store = Store::open(&StoreOptions::at(dir.path().join("store")).limits(limits))?;
    /// let tar = [0; 1024]; // one without a member
    /// let error = store.put_layer(None, &LayerOptions::default(), &tar[..]).unwrap_err();
    /// assert_eq!(error.limit().unwrap().limit, Limit::UnpackedBytes);
    /// # Ok::<(), layerstore::Error>(())
    /// ```
    pub fn limit(&self) -> Option<&LimitError> {
        match self {
            Error::Import(error) => error.limit(),
            Error::Oci(OciError::Limit(limit)) => Some(limit),
            Error::AdditionalLayer(AdditionalLayerError::Limit(limit)) => Some(limit),
            Error::Export(ExportError::Io(error)) => LimitError::inside(error),
            _ => None,
        }
    }

    /// What to do about it, whoever it is told.
    pub(crate) fn hint_for_all(&self) -> Option<Cow<'static, str>> {
        match self.limit() {
            Some(limit) => limit.hint().map(Cow::Owned),
            None => self.plain_hint().map(Cow::Borrowed),
        }
    }

    /// Whether this process may not read or change something in a layer's directory.
    pub(crate) fn is_denied_in_layer(&self) -> bool {
        let is_of_layer = match self {
            Error::Scan(_) | Error::Tree(_) | Error::Repair(RepairError::Withheld { .. }) => true,
            Error::Export(ExportError::Scan(_) | ExportError::Tree(_)) => true,
            Error::Import(error) => error.is_of_directory(),
            Error::Layout(LayoutError::Io { path, .. }) => {
                path.parent().is_some_and(|parent| parent.file_name() == Some("diffs".as_ref()))
            }
            _ => false,
        };
        is_of_layer && denied::is_by_mode(self)
    }

    fn plain_hint(&self) -> Option<&'static str> {
        match self {
            Error::Meta(error) if error.is_unreadable_file() => Some(
                "nothing of it can be read: restore a copy made by `layerstore backup`; `layerstore help backup` and docs/cli.md, \
                 \"Copies of the database\", say how",
            ),
            Error::Meta(error) if error.is_damaged_file() => Some(
                "`layerstore repair` mends rows and not the file: try `layerstore backup`, whose copy has all rows if it succeeds, put that in the \
                 place of the file, and then repair; if it fails, save what can still be read (`layerstore save`), and restore a copy made by `layerstore backup` before; \
                 `layerstore help backup` and docs/cli.md, \"Copies of the database\", say how",
            ),
            Error::Meta(error) if error.is_misplaced_file() => Some(
                "move that away, and put the database file itself there, or a copy made by `layerstore backup`; docs/cli.md, \"Copies of \
                 the database\", says how",
            ),
            Error::Meta(error) if error.is_damaged_run_file() => Some(
                "it says what is mounted in this boot: unmount what is mounted below the store and remove that file, or reboot",
            ),
            Error::Layout(LayoutError::Damaged { .. }) => Some(
                "get the file back from a copy of the directory; it has three lines: `layerstore 1`, `uuid UUID`, and \
                 `xattrs trusted`, or `xattrs user` for a store that root did not make",
            ),
            Error::InUse(InUseError::Snapshot { .. }) => Some(
                "`ctr --namespace NAMESPACE snapshots --snapshotter layerstore rm NAME` removes the snapshot \
                 \"NAMESPACE/NUMBER/NAME\"; one that no containerd knows any more goes with `layerstore rm --layer --force`, \
                 and all of them with `layerstore wipe --force --snapshots`",
            ),
            Error::Meta(MetaError::Locked { .. }) => {
                Some("wait for that process to end, or give a longer --lock-timeout")
            }
            Error::Quota(QuotaError::Unsupported { .. }) => Some(
                "leave out the limit, or keep the store where the machine's root can set one: on XFS, or on ext4 with \
                 the features project and quota, mounted with the option prjquota",
            ),
            Error::Quota(QuotaError::NotPermitted { .. }) => Some(
                "run this as root, or leave out the limit: neither `layerstore unshare` nor a container's root will do",
            ),
            Error::Mount(MountError::IdMap { reason }) if *reason == MountError::MASKED => Some(
                "create the container without id maps, or open the store without `force_mask`: the image is then copied, with its owners on the disk",
            ),
            Error::Create(CreateError::IdsNotOurs { in_namespace: false, .. }) => Some(
                "run this in `layerstore unshare`, where the ids of your ranges in /etc/subuid and /etc/subgid are to be had, counted \
                 from 1, or as root",
            ),
            Error::Create(CreateError::IdsNotOurs { in_namespace: true, .. }) => Some(
                "`layerstore unshare cat /proc/self/uid_map /proc/self/gid_map` shows, first in each line, the ids that there are; there are more if /etc/subuid and \
                 /etc/subgid have ranges for the user, and newuidmap and newgidmap are installed",
            ),
            Error::Create(CreateError::TooFewIds { given: 0, .. }) => Some(
                "`--userns-user` names another user with ranges; in `layerstore unshare` the ids of your own ranges are chosen from",
            ),
            Error::Import(error) if error.is_of_owner() => Some(
                "give the user larger ranges in /etc/subuid and /etc/subgid: `layerstore unshare cat /proc/self/uid_map /proc/self/gid_map` shows, first \
                 in each line, where ids begin, and last how many there are; or load it with \
                 `ignore_chown_errors = \"true\"` under [storage.options] of a file for --config: then what has no owner here is root's in mounts, \
                 and comes out as it came in",
            ),
            Error::Scan(ScanError::Owner { .. })
            | Error::Export(ExportError::Scan(ScanError::Owner { .. })) => Some(
                "run this in the user namespace that it was written in, such as `layerstore unshare`, with the same ranges in /etc/subuid and \
                 /etc/subgid; commands enter it by themselves unless --no-unshare says otherwise",
            ),
            Error::Layout(LayoutError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Some(
                    "this user has no right to that directory: name others with --root and --runroot, or be the user that the store \
                 belongs to",
                )
            }
            Error::CannotShare { .. } => Some(
                "only Btrfs can, and XFS that was made with reflinks (`mkfs.xfs -m reflink=1`); move the store's directory \
                 there, or save its images and load them into a store there",
            ),
            Error::Meta(MetaError::BackupExists { .. }) => Some("`layerstore backup --force` replaces it"),
            Error::Oci(OciError::ArchiveExists(_)) => {
                Some("`layerstore save --force` replaces it, with all images in it")
            }
            Error::Lookup(LookupError::NotFound { .. }) => {
                Some("`layerstore images`, `layers` and `containers` list what is there")
            }
            Error::Lookup(LookupError::NoItem { kind: "image", key, .. }) if key == "manifest" => Some(
                "an image of `layerstore create-image` has only the documents that it was given, and cannot be saved \
                 without; `layerstore create-container` on it, and `layerstore commit` of that, make an image with a manifest, \
                 if every layer has a diffID",
            ),
            Error::Oci(OciError::NoDiffId { .. }) => Some(
                "a layer that comes from a tar has a diffID: `layerstore diff LAYER | layerstore put-layer PARENT --name NAME` \
                 makes one with the same content",
            ),
            Error::Oci(OciError::FileKind { expected: "an archive file", .. }) => {
                Some("a directory with an image layout is written oci:DIR[:TAG]")
            }
            Error::Oci(OciError::Io { source, .. }) if source.kind() == io::ErrorKind::NotADirectory => {
                Some("an archive is written oci-archive:FILE[:TAG] or docker-archive:FILE[:REPO:TAG]")
            }
            Error::Oci(OciError::Format { missing: "manifest.json", .. }) => {
                Some("an archive of an image layout is written oci-archive:FILE[:TAG]")
            }
            Error::Import(error) if error.is_damaged_stream() => Some(
                "what was read is damaged, cut, or not what it is said to be: get it again from where it comes",
            ),
            Error::LayerMissing { .. } | Error::Export(ExportError::Damaged { .. }) => Some(
                "`layerstore check --deep` says all that is damaged, and `layerstore repair` mends what it can; with \
                 --from it takes what is lost from the image",
            ),
            Error::Export(ExportError::Changed { .. }) => {
                Some("end or pause what writes to the container, and do it again: a frozen cgroup is enough")
            }
            Error::Export(ExportError::KeptBlob { .. }) => Some(
                "`layerstore repair --from` the image as it came puts it back; `layerstore repair` without removes it, and then a save \
                 compresses the layer anew, so that the image gets another digest",
            ),
            Error::Layout(LayoutError::Missing { .. }) => Some(
                "check --root; `layerstore load`, `create-layer` and `put-layer` make a store, and so does `create-container` without an image",
            ),
            Error::Layout(LayoutError::NotAStore { .. }) => {
                Some("check --root; a new store is made in an empty or missing directory")
            }
            Error::ImageStore { .. } => Some("check --image-store: it names a store that is there already"),
            Error::ReadOnly { by_filesystem: true, .. } => Some(
                "make it writable (`mount -o remount,rw`; if it was once, the kernel's log says why it is not any more), or name another \
                 store with --root; reading needs nothing, and mounting a --runroot elsewhere",
            ),
            Error::ReadOnly { .. } => {
                Some("name another store with --root, or give the run root a place of its own with --runroot")
            }
            // What is written there is no part of the store.
            Error::Oci(_) | Error::Export(_) | Error::Meta(MetaError::Backup { .. })
                if self.is_out_of_space() =>
            {
                Some("the disk of what is written to is full: make room there, or name another place")
            }
            _ if self.is_out_of_space() => {
                Some("remove images or containers, or drop kept blobs with `layerstore prune --blobs`")
            }
            _ if self.is_of_system(|error| error.raw_os_error() == Some(libc::EFBIG)) => Some(
                "a file may not become that large: raise the limit of the process (`ulimit -f`), or if there is none, take another filesystem",
            ),
            _ if self.is_of_system(|error| error.raw_os_error() == Some(libc::EMFILE)) => {
                Some("raise the limit of open files (`ulimit -n`)")
            }
            _ => None,
        }
    }

    /// Whether a commit failed in a way that leaves open what is on the disk: the operation may have been done.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Error::Meta(error) if error.is_outcome_unknown())
    }

    /// Whether the disk was full, or would have been: of bytes or of inodes.
    pub fn is_out_of_space(&self) -> bool {
        if let Error::Import(ImportError::NoSpace { .. } | ImportError::NoInodes { .. }) = self {
            return true;
        }
        self.is_of_system(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        })
    }

    /// Whether the error of a system call, among this and its causes, is such.
    fn is_of_system(&self, is_such: impl Fn(&io::Error) -> bool) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            // The errors of redb hold their cause and do not give it away as a source.
            let of_redb = error.downcast_ref::<Box<redb::Error>>().map(AsRef::as_ref);
            let found = match of_redb.or_else(|| error.downcast_ref()) {
                Some(redb::Error::Io(error)) => Some(error),
                _ => error.downcast_ref::<io::Error>(),
            };
            if found.is_some_and(&is_such) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_seen_through_the_database() {
        let of = |kind: io::ErrorKind| -> Error {
            MetaError::from(redb::CommitError::Storage(redb::StorageError::Io(kind.into()))).into()
        };
        assert!(of(io::ErrorKind::StorageFull).is_out_of_space());
        assert!(of(io::ErrorKind::StorageFull).hint().is_some());
        assert!(!of(io::ErrorKind::PermissionDenied).is_out_of_space());
    }

    #[test]
    fn limits_of_the_process_are_named() {
        for (number, word) in [(libc::EFBIG, "ulimit -f"), (libc::EMFILE, "ulimit -n")] {
            let error = Error::Io {
                action: "write",
                path: "file".into(),
                source: io::Error::from_raw_os_error(number),
            };
            assert!(error.hint().is_some_and(|hint| hint.contains(word)), "{error:?}");
        }
    }
}
