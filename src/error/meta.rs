//! Errors of the database.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

const COMMITTED: &str = "committed";

fn after(waited: &Duration) -> String {
    if waited.is_zero() { "at once".to_owned() } else { format!("after {waited:.1?}") }
}

/// The database could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// The database file could not be opened.
    #[error("cannot open the database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// Something that is no regular file stands at the path of the database. It was neither opened nor followed.
    #[error("{} is {what}, and the database of a store is a regular file: nothing of it was opened", path.display())]
    NotFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file at the path of the database is none of a store, or is damaged so that it cannot be opened.
    #[error("{} is not the database of a store, or is damaged: {reason}", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Whether it can be read all the same, as far as what is read first says: then a backup may succeed, or some images be saved.
        readable: bool,
    },
    /// The database file is damaged: a page of it cannot be right, or is not as it was written. Nothing of the operation was
    /// stored; the next one begins with a new handle.
    #[error("the database {} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Pages of the database file are not as they were written, as was found where rows were not what they should be. No repair of
    /// rows helps here.
    #[error("the database {} is damaged: pages of it are not as they were written, by which {met}", path.display())]
    DamagedPages {
        /// The file.
        path: PathBuf,
        /// What was found first, and how much more.
        met: String,
    },
    /// Another process held the write lock for the whole time that the caller was willing to wait.
    #[error("the store is being written by {holder}; gave up {}", after(waited))]
    Locked {
        /// Process id and command of the holder, as far as they are known.
        holder: String,
        /// How long this call waited; zero if it was to try only once.
        waited: Duration,
    },
    /// The database reported an error. Nothing of the operation was stored, unless
    /// [`is_outcome_unknown`](MetaError::is_outcome_unknown) says otherwise.
    #[error("the database failed while it {action}")]
    Database {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// Reading or writing the database failed earlier in the same operation, or in another that shares its handle.
    /// The next operation begins with a new handle.
    #[error("the database could not be read or written a moment ago; do it again")]
    PreviousIo,
    /// The path of the database leads to another file than when the store was opened.
    #[error("the database {} was replaced while it was open; open the store again", path.display())]
    Replaced {
        /// The database file.
        path: PathBuf,
    },
    /// Something stands where a backup is to be written.
    #[error("{} exists; choose another path, or have it replaced", path.display())]
    BackupExists {
        /// The path.
        path: PathBuf,
    },
    /// A backup would replace the store's own database, or lie in a directory of the store.
    #[error(
        "a backup cannot be written to {}: that is the database of the store {} itself, or in a directory of the store; \
         choose a path outside of it",
        path.display(), root.display()
    )]
    BackupInStore {
        /// The path.
        path: PathBuf,
        /// The root directory of the store.
        root: PathBuf,
    },
    /// Something that is no regular file stands where a backup is to be written.
    #[error("{} is {what}; a backup is a file: name one", path.display())]
    BackupNotFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A backup could not be written. Nothing of it is left, unless only bringing its name to the disk failed.
    #[error("cannot write the backup {}", path.display())]
    Backup {
        /// Where it was to be.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<redb::Error>,
    },
    /// The store has a table that this build does not know, so its copy would not be whole.
    #[error("the store has a table {name:?} that this build does not know; use a newer layerstore")]
    UnknownTable {
        /// The table.
        name: String,
    },
    /// The database cannot be compacted while somebody reads or writes it.
    #[error("the database {} is being read or written; try again when exports, checks and imports have ended", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A record's bytes are damaged.
    #[error("the {kind} record {key:?} is damaged; run `layerstore check`")]
    Record {
        /// Which kind of record.
        kind: &'static str,
        /// Its key.
        key: String,
        /// What the check found.
        #[source]
        source: layerstore_schema::record::RecordError,
    },
    /// A record cannot be stored.
    #[error("a record is too large to store")]
    Encode(#[source] layerstore_schema::record::RecordError),
    /// The store is of a format that this build does not open.
    #[error("the store {} cannot be used by this build; use a newer layerstore", path.display())]
    Format {
        /// The database file.
        path: PathBuf,
        /// What does not fit.
        #[source]
        source: layerstore_schema::header::HeaderError,
    },
    /// The store can be read by this build and not written.
    #[error("the store {} has features that this build cannot write; use a newer layerstore", path.display())]
    ReadOnly {
        /// The database file.
        path: PathBuf,
    },
    /// The store was opened for reading only, or lies on a filesystem that is read-only.
    #[error("the database {} is open for reading only", path.display())]
    OpenForReading {
        /// The database file.
        path: PathBuf,
    },
    /// The file is a database and not a store's.
    #[error("{} is not the database of a store: it has no header", path.display())]
    NoHeader {
        /// The database file.
        path: PathBuf,
    },
    /// Another store has its mounts in this run root.
    #[error(
        "the run root {} belongs to the store {store}{}; give each store a run root of its own, or remove {} if that \
         store is gone",
        path.display(), at(root), path.display()
    )]
    RunRootInUse {
        /// The run root.
        path: PathBuf,
        /// The UUID of that store.
        store: String,
        /// Where that store is; `None` if that was not noted.
        root: Option<String>,
    },
    /// A store that was at this place before, and is gone, still has something mounted in this run root.
    #[error(
        "{} is still mounted, of the store that was at {root} before; end it with `umount {}`",
        target.display(), target.display()
    )]
    RunRootMounted {
        /// The mount point.
        target: PathBuf,
        /// Where the stores are.
        root: String,
    },
    /// The rows of containers that the next boot drops are in a run root which is not there, as seen from here.
    #[error(
        "this boot has transient containers in the run root {}, and their records are not to be seen there; use the mount \
         namespace that has it, or if it was removed, run `layerstore gc --forget-transient`",
        run_root.display()
    )]
    TransientUnseen {
        /// The run root that had them.
        run_root: PathBuf,
    },
    /// A row that a record refers to is missing.
    #[error("the {kind} {key:?} that a record refers to is missing; run `layerstore check`")]
    Missing {
        /// Which kind of row.
        kind: &'static str,
        /// Its key.
        key: String,
    },
    /// A name is taken.
    #[error("the name {name:?} belongs to the {kind} {holder}; choose another or take it away first")]
    NameInUse {
        /// `layer`, `image` or `container`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The id that has it.
        holder: String,
    },
    /// A data item's bytes could not be read from where the caller had them.
    #[error("cannot read the bytes to store")]
    Input(#[source] std::io::Error),
    /// A manifest is none.
    #[error("the manifest of the tree {tree} is damaged; run `layerstore check`")]
    Manifest {
        /// The tree digest.
        tree: String,
        /// What is wrong with it.
        #[source]
        source: layerstore_schema::manifest::DecodeError,
    },
    /// Bytes in the database are said to be more than such things have. They are not read: compressed, they may take any amount of memory.
    #[error(
        "the stored bytes {key} are damaged: they are said to be {size}, and a {kind} has no more than {most}; run `layerstore check`"
    )]
    BlobSize {
        /// `data item` or `manifest`.
        kind: &'static str,
        /// The hash.
        key: String,
        /// How many bytes they are said to be.
        size: u64,
        /// How many there can be.
        most: u64,
    },
    /// Bytes are more than can be stored.
    #[error("a {kind} of {size} bytes cannot be stored: it may have {most}")]
    TooLarge {
        /// `data item` or `manifest`.
        kind: &'static str,
        /// How many there are.
        size: u64,
        /// How many there can be.
        most: u64,
    },
    /// Bytes in the database do not have the hash that they are stored under.
    #[error("the stored bytes {key} are damaged; run `layerstore check`")]
    Blob {
        /// The hash.
        key: String,
    },
}

impl MetaError {
    /// Whether a commit failed in a way that leaves open what is on the disk: what it would have stored may be there.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, MetaError::Database { action: COMMITTED, .. })
    }

    /// Whether there is no file to be opened. Where `/proc` is missing, by which files are opened, nothing says so.
    pub(crate) fn is_missing_file(&self) -> bool {
        let is_missing = |error: &redb::Error| match error {
            redb::Error::Io(error) => {
                matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            _ => false,
        };
        matches!(self, MetaError::Open { source, .. } if is_missing(source))
    }

    /// Whether the file of the store's database is none any more: damaged or cut short, so that only a copy helps.
    pub(super) fn is_damaged_file(&self) -> bool {
        match self {
            MetaError::Open { path, .. }
            | MetaError::NotADatabase { path, .. }
            | MetaError::Damaged { path }
            | MetaError::DamagedPages { path, .. } => is_of_store(path) && self.is_damage(),
            _ => self.is_damage(),
        }
    }

    /// Whether nothing of that file can be read.
    pub(super) fn is_unreadable_file(&self) -> bool {
        matches!(self, MetaError::NotADatabase { readable: false, .. }) && self.is_damaged_file()
    }

    /// Whether something else stands in the place of that file.
    pub(super) fn is_misplaced_file(&self) -> bool {
        matches!(self, MetaError::NotFile { path, .. } if is_of_store(path))
    }

    /// Whether the file of the run root is none, or none any more.
    pub(super) fn is_damaged_run_file(&self) -> bool {
        match self {
            MetaError::NotFile { path, .. } => !is_of_store(path),
            MetaError::Open { path, .. }
            | MetaError::NotADatabase { path, .. }
            | MetaError::Damaged { path } => {
                !is_of_store(path) && path.extension().is_some_and(|kind| kind == "redb") && self.is_damage()
            }
            _ => false,
        }
    }

    /// Whether a file is damaged, whichever that is.
    pub(crate) fn is_damage(&self) -> bool {
        let is_damage = |error: &redb::Error| match error {
            redb::Error::Corrupted(_) | redb::Error::UpgradeRequired(_) => true,
            redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_) => true,
            redb::Error::Io(error) => {
                matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
            }
            _ => false,
        };
        match self {
            MetaError::Open { source, .. } | MetaError::Database { source, .. } => is_damage(source),
            MetaError::NotADatabase { .. }
            | MetaError::Damaged { .. }
            | MetaError::DamagedPages { .. }
            | MetaError::NoHeader { .. } => true,
            _ => false,
        }
    }

    /// Wraps an error of redb that came up while the database `action`.
    pub(crate) fn database(action: &'static str) -> impl Fn(redb::Error) -> MetaError {
        move |source| match source {
            // What a commit left on the disk is not known even so.
            redb::Error::PreviousIo if action != COMMITTED => MetaError::PreviousIo,
            // What it asks for is there as long as the file is whole.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let source = redb::Error::Corrupted("the file is cut short".to_owned());
                MetaError::Database { action, source: Box::new(source) }
            }
            source => MetaError::Database { action, source: Box::new(source) },
        }
    }
}

macro_rules! from_redb {
    ($($error:ident => $action:expr),+ $(,)?) => {
        $(impl From<redb::$error> for MetaError {
            fn from(source: redb::$error) -> Self {
                MetaError::database($action)(source.into())
            }
        })+
    };
}

from_redb! {
    TableError => "opened a table",
    StorageError => "read or wrote a row",
    TransactionError => "began a transaction",
    CommitError => COMMITTED,
}

fn is_of_store(path: &Path) -> bool {
    path.ends_with("store.redb")
}

/// Where a store is, if that is known.
fn at(root: &Option<String>) -> String {
    root.as_ref().map(|root| format!(" at {root}")).unwrap_or_default()
}
