//! Configuration that cannot be read or means nothing.

use std::io;
use std::path::PathBuf;

/// A configuration file or variable that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file or directory of configuration cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is to be read is no regular file, and might be without end.
    #[error("the configuration {} is no regular file, and is not read: name one, or /dev/null for none", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is longer than any configuration.
    #[error("the configuration {} is longer than {limit} bytes, and is not read: name another file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// How many bytes it may have.
        limit: u64,
    },
    /// The file that a variable names is not there.
    #[error("the configuration {} that ${variable} names is not there: correct the variable or unset it", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The variable.
        variable: &'static str,
    },
    /// A file is not TOML.
    #[error("{}:{line}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// A key has a value of the wrong kind.
    #[error("{}:{line}: {key} must be {expected}, not {found}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its table, such as `storage.driver`.
        key: String,
        /// What it takes.
        expected: &'static str,
        /// What it has.
        found: String,
    },
    /// An option of the storage driver cannot be used.
    #[error("{origin}: the storage option {option:?} {reason}")]
    Option {
        /// The option, as it was given.
        option: String,
        /// What gave it: a file and line, a variable or a flag.
        origin: String,
        /// What is wrong, as the end of a sentence.
        reason: String,
    },
    /// A limit that there is not, or an amount that is none.
    #[error("the limit {text:?} is not valid: {reason}")]
    Limit {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two options of the storage driver exclude each other.
    #[error(
        "{option} ({origin}) and {other} ({other_origin}) exclude each other: {reason}; leave one of them out"
    )]
    Contradiction {
        /// An option, as it was given.
        option: Box<str>,
        /// What gave it.
        origin: Box<str>,
        /// The other option.
        other: Box<str>,
        /// What gave that.
        other_origin: Box<str>,
        /// Why there cannot be both.
        reason: &'static str,
    },
    /// Another storage driver is asked for.
    #[error(
        "{origin}: the storage driver {driver:?} is not supported: layers are kept for overlay; say overlay, or nothing"
    )]
    Driver {
        /// The driver.
        driver: String,
        /// What asked for it.
        origin: String,
    },
    /// There is no home directory to find a user's configuration or store in.
    #[error("user {user} has no home directory: set $HOME")]
    NoHome {
        /// The user id.
        user: u32,
    },
    /// The store for images is the store itself.
    #[error("imagestore and graphroot are both {}: give the images another directory, or no imagestore", path.display())]
    SameStores {
        /// The directory.
        path: PathBuf,
    },
}

impl ConfigError {
    /// The [reason](ConfigError::Option) why an option cannot be used that nobody knows.
    pub const UNKNOWN: &'static str = "is unknown";
}
