//! Text that is no id, name, digest or path.

/// Text that has not the form of an id, name, digest or path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// Not an id: ids are 1 to 128 letters, digits, `_`, `.` and `-`, and begin with a letter or digit.
    #[error(
        "{0:?} is no id: ids are 1 to 128 letters, digits, '_', '.' and '-', the first a letter or digit"
    )]
    Id(String),
    /// Not a name: names are 1 to 1024 bytes without control characters or space at either end.
    #[error("{0:?} is no name: names are 1 to 1024 bytes without control characters or space at either end")]
    Name(String),
    /// Not a digest.
    #[error("{0:?} is no digest: expected sha256:<64 lower-case hex digits> or sha512:<128>")]
    Digest(String),
    /// Not the key of a data item: keys are 1 to 1024 bytes without control characters.
    #[error("{0:?} is no key of a data item: keys are 1 to 1024 bytes without control characters")]
    ItemKey(String),
    /// Not the key of a manifest: those are `manifest` and what begins with `manifest-`.
    #[error("{0:?} is not the key of a manifest: those are \"manifest\" and what begins with \"manifest-\"")]
    ManifestKey(String),
    /// A flag without a name, or with a value that is no JSON.
    #[error("{name:?} = {value:?} is no flag: a flag has a name, and a value in JSON")]
    Flag {
        /// The name as given.
        name: String,
        /// The value as given.
        value: String,
    },
    /// An id map that the kernel would not take, or that leaves the container without root.
    #[error("the id map {map:?} is refused: {reason}")]
    IdMap {
        /// The map, or its beginning.
        map: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A path that is absolute, leads out of its root, or has a part that no filesystem can hold.
    #[error("{path:?} cannot be a path inside a layer: {reason}")]
    Path {
        /// The path as given, made printable.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
