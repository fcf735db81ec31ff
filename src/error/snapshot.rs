//! Errors of the snapshotter.

use std::error::Error as StdError;

use super::{CreateError, Error, InUseError, MetaError, ScanError, TreeError};

/// Why the snapshotter did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// There is no snapshot with this key.
    #[error("there is no snapshot {key:?}")]
    NotFound {
        /// The key or name.
        key: String,
    },
    /// The key or name is taken, or a snapshot for the reference is there already.
    #[error("the snapshot {key:?} exists")]
    AlreadyExists {
        /// The key, name or reference.
        key: String,
    },
    /// The snapshot is not in a state in which this can be done.
    #[error("the snapshot {key:?} {reason}")]
    FailedPrecondition {
        /// The key or name.
        key: String,
        /// What is in the way.
        reason: String,
    },
    /// What was asked for makes no sense.
    #[error("{what} {value:?}: {reason}")]
    InvalidArgument {
        /// What kind of text it is.
        what: &'static str,
        /// The text.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of the store cannot hold for what its clients mount by themselves.
    #[error("the setting {setting} of the store {reason}; leave it out where snapshots are served")]
    Setting {
        /// The setting, as the configuration has it.
        setting: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// Whom the snapshots were shown to wanted no more of them.
    #[error("stopped by who looks at the snapshots")]
    Visitor(#[source] Box<dyn StdError + Send + Sync>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What kind of failure it was, in the words of gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// `NOT_FOUND`
    NotFound,
    /// `ALREADY_EXISTS`
    AlreadyExists,
    /// `FAILED_PRECONDITION`
    FailedPrecondition,
    /// `INVALID_ARGUMENT`
    InvalidArgument,
    /// `RESOURCE_EXHAUSTED`: the disk is full.
    ResourceExhausted,
    /// `UNAVAILABLE`: try again.
    Unavailable,
    /// `ABORTED`: the visitor of a walk said so.
    Aborted,
    /// `UNKNOWN`: all else, and what may have been done or not.
    Unknown,
}

impl SnapshotError {
    /// What kind of failure it was, for callers of another language or process.
    pub fn code(&self) -> Code {
        match self {
            SnapshotError::NotFound { .. } => Code::NotFound,
            SnapshotError::AlreadyExists { .. } => Code::AlreadyExists,
            SnapshotError::FailedPrecondition { .. } | SnapshotError::Setting { .. } => {
                Code::FailedPrecondition
            }
            SnapshotError::InvalidArgument { .. } => Code::InvalidArgument,
            SnapshotError::Visitor(_) => Code::Aborted,
            SnapshotError::Store(error) => store_code(error),
        }
    }
}

fn store_code(error: &Error) -> Code {
    match error {
        error if error.is_out_of_space() => Code::ResourceExhausted,
        error if error.is_outcome_unknown() => Code::Unknown,
        Error::Value(_) => Code::InvalidArgument,
        Error::Lookup(_) => Code::NotFound,
        // Who unpacks takes it for the snapshot that it was about to make, so nothing else may be called so.
        Error::Create(CreateError::IdInUse { .. } | CreateError::IdIsName { .. })
        | Error::Meta(MetaError::NameInUse { .. }) => Code::AlreadyExists,
        Error::InUse(InUseError::Busy { .. } | InUseError::Changed { .. })
        | Error::Meta(MetaError::Locked { .. }) => Code::Unavailable,
        Error::Create(_)
        | Error::InUse(_)
        | Error::InOtherStore { .. }
        | Error::ReadOnly { .. }
        | Error::Unsynced(_)
        | Error::Tree(TreeError::Mount { .. })
        | Error::Scan(ScanError::Tree(TreeError::Mount { .. })) => Code::FailedPrecondition,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_already_exists() {
        let text = || "a".to_owned();
        let missing = super::super::LookupError::NotFound { kind: "layer", key: text() };
        for (error, code) in [
            (CreateError::IdInUse { kind: "layer", id: text() }.into(), Code::AlreadyExists),
            (CreateError::IdIsName { kind: "layer", id: text(), holder: text() }.into(), Code::AlreadyExists),
            (CreateError::ParentAbove { layer: text(), parent: text() }.into(), Code::FailedPrecondition),
            (
                CreateError::ParentOfContainer { layer: text(), container: text() }.into(),
                Code::FailedPrecondition,
            ),
            (Error::from(missing), Code::NotFound),
            (InUseError::Busy { layer: text() }.into(), Code::Unavailable),
            (InUseError::ReadOnly { layer: text() }.into(), Code::FailedPrecondition),
            (TreeError::Mount { path: text().into() }.into(), Code::FailedPrecondition),
            (ScanError::Tree(TreeError::Mount { path: text().into() }).into(), Code::FailedPrecondition),
            (TreeError::Moved { path: text().into() }.into(), Code::Unknown),
        ] {
            assert_eq!(SnapshotError::Store(error).code(), code);
        }
    }
}
